//! Training of whatever changes a model: PaRa, LoRA, spectral shifts, or the weights themselves. One loop for all of them.
//!
//! A [`Method`] says what is trained beside each layer, [`Settings`] how; [`train`] does it on latents and prompts that were
//! encoded once. Every random number comes from the seed and the step alone, so that a run which was killed and resumed from
//! its [`StateFile`] ends with the same bytes as one that was not. Knows no pictures, no prompts and no names of files but
//! that one.

mod adamw;
mod backward;
mod batch;
mod comfy;
mod fault;
mod frame;
mod layer;
mod probe;
mod random;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod trainer;

pub use batch::Example;
pub use comfy::{
    AdapterSettings, AdapterTraining, Algorithm, Latents, LossFunction, Optimizer, Prompted, TrainedAdapters,
    train_adapters,
};
pub use fault::Fault;
pub use layer::{Trained, TrainedLayer};
pub use settings::{Decay, Init, Method, ParaMode, Settings};
pub use state::{StateFile, identity};
pub use trainer::{Report, TrainRequest, Watch, train};
