//! Every operation of this folder in candle's own, differentiable operations: what runs on devices and in types that have no
//! kernel of ours, what runs while a weight itself is trained, and what the kernels' tests compare with.

use candle_core::{D, DType, Tensor};

use super::weight::Geometry;
use crate::error::Result;

/// `y = x Wᵀ`, `x` `[.., in]`, weight `[out, in]`.
pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (out, input) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    let rows: usize = shape.iter().rev().skip(1).product();
    let y = x.reshape((rows, input))?.matmul(&weight.t()?)?;
    if let Some(last) = shape.last_mut() {
        *last = out;
    }
    Ok(y.reshape(shape)?)
}

/// A convolution of `[batch, height, width, in]` with `[out, in, kernel, kernel]`.
pub(super) fn conv2d(x: &Tensor, weight: &Tensor, stride: usize, before: usize, after: usize) -> Result<Tensor> {
    let x = x.permute((0, 3, 1, 2))?.contiguous()?; // [batch, in, height, width]
    let y = if before == after {
        x.conv2d(weight, before, stride, 1, 1)?
    } else {
        let x = x.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)?;
        x.conv2d(weight, 0, stride, 1, 1)?
    };
    Ok(y.permute((0, 2, 3, 1))?.contiguous()?)
}

/// `linear` or `conv2d`, as the layer has it.
pub(crate) fn product(x: &Tensor, weight: &Tensor, geometry: Geometry) -> Result<Tensor> {
    match geometry {
        Geometry::Linear => linear(x, weight),
        Geometry::Conv2d { stride, before, after } => conv2d(x, weight, stride, before, after),
    }
}

/// Layer norm over the last dimension.
pub(super) fn layer_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, epsilon: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + epsilon)?.sqrt()?)?;
    Ok(normed.to_dtype(x.dtype())?.broadcast_mul(scale)?.broadcast_add(shift)?)
}

/// Group norm of `[batch, .., channels]`, each group of neighbouring channels over all pixels.
pub(super) fn group_norm(x: &Tensor, groups: usize, scale: &Tensor, shift: &Tensor, epsilon: f64) -> Result<Tensor> {
    let shape = x.dims();
    let (batch, channels) = (shape[0], shape[shape.len() - 1]);
    let pixels = x.elem_count() / (batch * channels).max(1);
    let wide = x.to_dtype(DType::F32)?.reshape((batch, pixels, groups, channels / groups))?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim((1, 3))?)?;
    let variance = centred.sqr()?.mean_keepdim((1, 3))?;
    let normed = centred.broadcast_div(&(variance + epsilon)?.sqrt()?)?;
    Ok(normed.reshape(shape)?.to_dtype(x.dtype())?.broadcast_mul(scale)?.broadcast_add(shift)?)
}

/// Softmax over the last dimension.
pub(super) fn softmax(x: &Tensor) -> Result<Tensor> {
    // The shift cancels out, so no gradient has to pass through the maximum.
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    let powers = shifted.exp()?;
    Ok(powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?)
}

/// Attention of `[batch, tokens, heads · dim]`, whole score matrix in memory.
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let split = |x: &Tensor| -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        Ok(x.reshape((batch, tokens, heads, width / heads))?.transpose(1, 2)?.contiguous()?) // [batch, heads, tokens, dim]
    };
    let (q, k, v) = (split(q)?, split(k)?, split(v)?);
    let scale = 1.0 / (q.dim(D::Minus1)? as f64).sqrt();
    let mut scores = (&q * scale)?.matmul(&k.transpose(2, 3)?.contiguous()?)?;
    if causal {
        scores = scores.broadcast_add(&causal_mask(q.dim(2)?, k.dim(2)?, &q)?)?;
    }
    let found = softmax(&scores)?.matmul(&v)?.transpose(1, 2)?;
    Ok(found.contiguous()?.flatten_from(2)?)
}

/// 0 where a token may look, minus infinity at those after it; `[queries, keys]`.
fn causal_mask(queries: usize, keys: usize, like: &Tensor) -> Result<Tensor> {
    let cell = |index: usize| {
        if index % keys > index / keys { f32::NEG_INFINITY } else { 0.0 }
    };
    let mask: Vec<f32> = (0..queries * keys).map(cell).collect();
    Ok(Tensor::from_vec(mask, (queries, keys), like.device())?.to_dtype(like.dtype())?)
}

/// `x · σ(x)`.
pub(super) fn silu(x: &Tensor) -> Result<Tensor> {
    Ok(x.silu()?)
}

/// `x · Φ(x)` with the exact normal distribution.
pub(super) fn gelu(x: &Tensor) -> Result<Tensor> {
    Ok(x.gelu_erf()?)
}

/// `x · σ(1.702 x)`.
pub(super) fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    let e = (x * -1.702)?.exp()?;
    Ok((x / (e + 1.0)?)?)
}

/// `a · gelu(b)` of the last dimension's halves `a` and `b`.
pub(super) fn geglu(x: &Tensor) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let a = x.narrow(D::Minus1, 0, half)?.contiguous()?;
    Ok((a * gelu(&x.narrow(D::Minus1, half, half)?.contiguous()?)?)?)
}

/// Nearest neighbours of `[batch, height, width, channels]` at another size.
pub(super) fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let x = x.permute((0, 3, 1, 2))?.contiguous()?;
    Ok(x.upsample_nearest2d(height, width)?.permute((0, 2, 3, 1))?.contiguous()?)
}
