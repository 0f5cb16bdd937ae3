//! Everything with a tensor. Knows no graphs, folders or HTTP.

pub mod adapters;
pub mod checkpoint;
mod eigen;
mod equations;
mod error;
pub mod guidance;
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
pub mod workload;

pub use error::{Error, FileFault, Result};
pub use paraflow_kernels::{level, levels};
pub use sample::{SampleRequest, WalkRequest, fit_channels, sample, walk};
