//! Layers: what the networks are made of. Each reads its parameters through [`Weights`] and [`Weight`], so that adapters,
//! training and faster kernels attach here and the networks stay as they are.
//!
//! Pictures inside a network are `[batch, height, width, channels]`, sequences `[batch, tokens, channels]`, so nothing is
//! transposed between a convolution and an attention. Knows no model.

mod activation;
mod attention;
mod compute;
mod conv;
mod eights;
mod embedding;
#[cfg(feature = "flash-attn")]
pub(crate) mod flash;
mod fused;
mod header;
mod linear;
pub mod low_rank;
mod mapping;
mod norm;
mod numbers;
mod plain;
mod prepacked;
mod weight;
mod weights;

pub use activation::{geglu, gelu, quick_gelu, silu};
pub use attention::{Mask, attention, attention_in};
pub use compute::{Compute, Kept, give, give_picture};
pub use conv::{Conv2d, upsample_nearest};
pub use embedding::Embedding;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use paraflow_kernels::Precision;
pub use prepacked::{Prepacked, Usage};
pub(crate) use weight::LARGE;
pub use weight::{Adapter, Effect, Geometry, Layers, Vector, Weight, attach, layers};
pub(crate) use weights::nearest;
pub use weights::{Renamed, TensorInfo, Weights};
