//! Everything with a tensor. Knows no graphs, folders or HTTP.

pub mod adapters;
#[cfg(test)]
mod agreement;
pub mod checkpoint;
pub mod cost;
mod device;
mod eigen;
mod equations;
mod error;
pub mod guidance;
pub mod hooks;
pub mod merge;
pub mod nn;
pub mod noise;
pub mod preview;
pub mod resize;
mod sample;
pub mod samplers;
pub mod schedule;
mod tensors;
#[cfg(test)]
mod testing;
pub mod text;
pub mod tiles;
pub mod train;
pub mod unet;
pub mod upscale;
pub mod vae;
pub mod vision;
pub mod workload;

pub use device::DeviceName;
pub use error::{Error, FileFault, Result};
pub use paraflow_kernels::{Spent, level, levels, peak, profiled};
pub use sample::{SampleRequest, WalkRequest, fit_channels, sample, walk};

/// Makes ready for computing; to be called first thing in `main`, before any thread is started.
///
/// Candle shares an addition of 64 Ki numbers and more among threads that wait for each other in a loop: a third of a training
/// step's processor time went there, and nothing was faster for it. With one thread it adds by itself; the kernels here share
/// their work in another way and do not ask it. `CANDLE_NUM_THREADS` in the environment goes before.
pub fn make_ready() {
    paraflow_kernels::set_variable("CANDLE_NUM_THREADS", "1");
}
