//! Scaled dot-product attention of several heads.

use candle_core::Tensor;
use paraflow_kernels::Precision;

#[cfg(feature = "flash-attn")]
use super::flash;
use super::{fused, plain};
use crate::error::{Error, Result};

/// Which tokens a query may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    None,
    /// Itself and those before it.
    Causal,
}

/// `softmax(q kᵀ / √dim) v` for each head, heads side by side in the last dimension.
///
/// # Shapes
/// - `q`: `[batch, queries, heads · dim]`
/// - `k`, `v`: `[batch, keys, heads · dim]`
/// - output: `[batch, queries, heads · dim]`
///
/// # Errors
/// [`Error::Shape`] when these do not fit each other or `heads` does not divide the last dimension.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Result<Tensor> {
    attention_in(Precision::Single, q, k, v, heads, mask)
}

/// The same, multiplying in numbers of choice where the CPU's kernels compute. The way back is f32.
///
/// # Errors
/// As [`attention`].
pub fn attention_in(
    precision: Precision,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    mask: Mask,
) -> Result<Tensor> {
    let (batch, _, width) = sequence(q, "attention (queries)")?;
    let (_, keys, _) = sequence(k, "attention (keys)")?;
    let dim = width.checked_div(heads).unwrap_or(0);
    check(q, heads * dim == width && dim > 0, format!("a width that {heads} heads divide"))?;
    check(k, k.dims() == [batch, keys, width], format!("keys [{batch}, .., {width}]"))?;
    check(v, v.dims() == k.dims(), format!("values {:?}", k.dims()))?;
    let causal = mask == Mask::Causal;
    // Who computes it is decided here and nowhere else.
    if fused::takes(q) && keys > 0 {
        return Ok(fused::attention(precision, q, k, v, heads, causal)?);
    }
    #[cfg(feature = "flash-attn")]
    if flash::takes(q, k, v, heads, causal) {
        return flash::attention(q, k, v, heads, causal);
    }
    plain::attention(q, k, v, heads, causal)
}

fn sequence(x: &Tensor, name: &str) -> Result<(usize, usize, usize)> {
    x.dims3().map_err(|_| Error::Shape {
        layer: name.to_owned(),
        expected: "[batch, tokens, channels]".to_owned(),
        found: x.dims().to_vec(),
    })
}

fn check(x: &Tensor, holds: bool, expected: String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Shape { layer: "attention".to_owned(), expected, found: x.dims().to_vec() }) }
}
