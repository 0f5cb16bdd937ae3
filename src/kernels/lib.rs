//! CPU kernels over plain slices of memory. Knows no models.
//!
//! Pictures are channels-last, `[batch, height, width, channels]`; numbers are f32. Each kernel is compiled for several
//! instruction sets and picks the widest at run time. Results do not depend on the number of threads: what is shared among
//! them is the output, never a sum.
#![expect(
    unsafe_code,
    reason = "the only home of vector instructions, of outputs that tasks fill tile by tile, of packed numbers as bytes, and of the process's environment"
)]

mod attention;
mod attention_back;
#[cfg(test)]
mod definitions;
mod environment;
mod fill;
mod half;
mod isa;
mod low_rank;
mod maths;
mod matrix;
mod norm;
mod packed;
mod parallel;
mod pointwise;
mod product;
mod profile;
#[cfg(test)]
mod random_shapes;
mod resample;
mod right;
#[cfg(test)]
mod testing;
mod tile;
mod winograd;

pub use attention::{Heads, attention, attention_in};
pub use attention_back::attention_back;
pub use environment::set_variable;
pub use half::Halves;
pub(crate) use isa::Isa;
pub use isa::{level, levels};
pub use low_rank::{outer, thin, widen};
pub use matrix::{Matrix, Precision, Turned};
pub use norm::{Groups, group_norm, group_norm_back, layer_norm, layer_norm_back};
pub use packed::{Form, LAYOUT, Lent};
pub use pointwise::{geglu, geglu_back, gelu, gelu_back, quick_gelu, quick_gelu_back, silu, silu_back};
pub use product::{Epilogue, Window, conv2d, linear};
pub use profile::{Spent, peak, profiled};
pub use resample::{Resize, upsample_nearest, upsample_nearest_back};
pub use right::Right;
