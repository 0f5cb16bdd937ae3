//! Pointwise nonlinearities, each exact to f32 rounding and differentiable.

use candle_core::Tensor;

use super::plain;
use crate::error::Result;

/// `x · σ(x)` (also called swish), any shape.
///
/// # Errors
/// When the device fails.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    plain::silu(x)
}

/// `x · Φ(x)` with the exact normal distribution (erf), any shape.
///
/// # Errors
/// When the device fails.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    plain::gelu(x)
}

/// `x · σ(1.702 x)`, the first CLIP's activation, any shape.
///
/// # Errors
/// When the device fails.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    plain::quick_gelu(x)
}

/// `a · gelu(b)`, where `a` and `b` are the halves of the last dimension: `[.., 2 n]` to `[.., n]`.
///
/// Shazeer 2020, arXiv:2002.05202.
///
/// # Errors
/// When the device fails.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    plain::geglu(x)
}
