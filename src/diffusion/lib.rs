//! Everything with a tensor. Knows no graphs, folders or HTTP.

mod error;
pub mod nn;
pub mod noise;
pub mod samplers;
pub mod schedule;
mod tensors;
pub mod text;

pub use error::{Error, FileFault, Result};
