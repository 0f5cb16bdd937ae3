//! Training of adapters as ComfyUI's `TrainLoraNode` does it: every layer of the network gets one, every bias and norm a
//! difference, and random numbers come from torch's one stream in torch's order. From equal starts both go the same way.
//!
//! Contract 5.13. What differs on purpose: the adapters' start is drawn from the stream of the seed, where ComfyUI takes
//! whatever state its stream is in.

mod adapter;
mod draws;
mod existing;
mod objective;
mod optimizer;
mod parameters;
mod settings;
mod trainer;

pub use settings::{AdapterSettings, Algorithm, LossFunction, Optimizer};
pub use trainer::{AdapterTraining, Latents, Prompted, TrainedAdapters, train_adapters};
