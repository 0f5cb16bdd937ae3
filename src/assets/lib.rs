//! Model folders, inputs and outputs on disk. Knows no tensors and no graphs.
