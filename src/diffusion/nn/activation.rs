//! Pointwise nonlinearities, each exact to f32 rounding and differentiable.

use candle_core::Tensor;

use super::{fused, plain};
use crate::error::{Error, Result};

/// `x · σ(x)` (also called swish), any shape.
///
/// # Errors
/// When the device fails.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    if fused::takes(x) { Ok(fused::silu(x)?) } else { plain::silu(x) }
}

/// `x · Φ(x)` with the exact normal distribution (erf), any shape.
///
/// # Errors
/// When the device fails.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if fused::takes(x) { Ok(fused::gelu(x)?) } else { plain::gelu(x) }
}

/// `x · σ(1.702 x)`, the first CLIP's activation, any shape.
///
/// # Errors
/// When the device fails.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    if fused::takes(x) { Ok(fused::quick_gelu(x)?) } else { plain::quick_gelu(x) }
}

/// `a · gelu(b)`, where `a` and `b` are the halves of the last dimension: `[.., 2 n]` to `[.., n]`.
///
/// Shazeer 2020, arXiv:2002.05202.
///
/// # Errors
/// [`Error::Shape`] when the last dimension has no halves.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    if x.dims().last().is_none_or(|&last| last == 0 || !last.is_multiple_of(2)) {
        let expected = "[.., 2 n]".to_owned();
        return Err(Error::Shape { layer: "geglu".to_owned(), expected, found: x.dims().to_vec() });
    }
    if fused::takes(x) { Ok(fused::geglu(x)?) } else { plain::geglu(x) }
}
