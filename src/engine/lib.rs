//! Graph to plan to run: the dataflow engine. Knows no tensors, files or HTTP.

pub mod graph;
pub mod spec;
