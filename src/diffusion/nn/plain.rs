//! Every operation of this folder in candle's own, differentiable operations: what runs on devices and in types that have no
//! kernel of ours, what runs while a weight itself is trained, and what the kernels' tests compare with.

use std::ops::Range;

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
pub(super) fn product(x: &Tensor, weight: &Tensor, geometry: Geometry) -> Result<Tensor> {
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

/// Softmax over the last dimension. Without gradients no more than two tensors of that size are there at a time.
fn softmax(x: Tensor) -> Result<Tensor> {
    // The shift cancels out, so no gradient has to pass through the maximum.
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    drop(x);
    let powers = shifted.exp()?;
    drop(shifted);
    Ok(powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?)
}

/// How many bytes of attention's scores are made at a time. All those of Stable Diffusion 1.5's first level for two pictures of 1024
/// pixels would be 16 GiB in f32 (8 heads, 16384 tokens by as many), which few GPUs have; so they are 64 pieces of 256 queries, and
/// four at 512 pixels. A piece is little beside the network's weights of 3.4 GB. No other bound was tried on a GPU yet, nor this one.
const SCORE_BYTES: usize = 256 << 20;

/// Attention of `[batch, tokens, heads · dim]`, over some queries at a time, so that their scores stay within [`SCORE_BYTES`]. Each
/// query's numbers are those of the whole matrix. A way back keeps every piece.
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    attention_within(SCORE_BYTES, q, k, v, heads, causal)
}

/// The same within another bound.
fn attention_within(bytes: usize, q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let split = |x: &Tensor| -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        Ok(x.reshape((batch, tokens, heads, width / heads))?.transpose(1, 2)?.contiguous()?) // [batch, heads, tokens, dim]
    };
    let (q, k, v) = (split(q)?, split(k)?.t()?.contiguous()?, split(v)?);
    let (batch, _, queries, dim) = q.dims4()?;
    let keys = v.dim(2)?;
    let q = (q / (dim as f64).sqrt())?;
    let piece = |queries: Range<usize>| -> Result<Tensor> {
        let mut scores = q.narrow(2, queries.start, queries.len())?.contiguous()?.matmul(&k)?;
        if causal {
            scores = scores.broadcast_add(&causal_mask(queries, keys, &q)?)?;
        }
        Ok(softmax(scores)?.matmul(&v)?.transpose(1, 2)?.contiguous()?.flatten_from(2)?)
    };
    let row_bytes = batch * heads * keys * q.dtype().size_in_bytes();
    let pieces = pieces(queries, row_bytes, bytes).map(piece).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&pieces, 1)?)
}

/// All rows in pieces that hold `bytes` at the most, or one row where that alone is more; alike, but for the last.
fn pieces(rows: usize, row_bytes: usize, bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let rows_that_fit = (bytes / row_bytes.max(1)).max(1);
    let length = rows.div_ceil(rows.div_ceil(rows_that_fit).max(1)).max(1);
    // No rows are one empty piece.
    (0..rows.max(1)).step_by(length).map(move |first| first..rows.min(first + length))
}

/// 0 where these tokens may look, minus infinity at those after them; `[queries, keys]`.
fn causal_mask(queries: Range<usize>, keys: usize, like: &Tensor) -> Result<Tensor> {
    let shape = (queries.len(), keys);
    let row = |query| (0..keys).map(move |key| if key > query { f32::NEG_INFINITY } else { 0.0 });
    let mask: Vec<f32> = queries.flat_map(row).collect();
    Ok(Tensor::from_vec(mask, shape, like.device())?.to_dtype(like.dtype())?)
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

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::testing::{relative_error, value};

    #[test]
    fn pieces_hold_every_row_once_and_stay_within_the_bytes() {
        let lengths = |rows, row_bytes, bytes| -> Vec<usize> {
            let pieces: Vec<_> = pieces(rows, row_bytes, bytes).collect();
            assert!(pieces.iter().is_sorted_by(|before, after| before.end == after.start), "{pieces:?}");
            assert_eq!((pieces[0].start, pieces[pieces.len() - 1].end), (0, rows));
            pieces.iter().map(Range::len).collect()
        };
        assert_eq!(lengths(77, 8, 8 * 77), [77]);
        assert_eq!(lengths(77, 8, 8 * 77 - 1), [39, 38]);
        assert_eq!(lengths(77, 8, 8 * 20), [20, 20, 20, 17]);
        assert_eq!(lengths(3, 8, 7), [1, 1, 1]);
        assert_eq!((lengths(0, 8, 7), lengths(5, 0, 0)), (vec![0], vec![1; 5]));
        // Stable Diffusion 1.5's first level, two pictures of 1024 pixels and of 512.
        assert_eq!(lengths(16384, 2 * 8 * 16384 * 4, SCORE_BYTES), [256; 64]);
        assert_eq!(lengths(4096, 2 * 8 * 4096 * 4, SCORE_BYTES), [1024; 4]);
    }

    /// Attention and its gradients by all three.
    fn attended(bytes: usize, [q, k, v]: &[Var; 3], heads: usize, causal: bool) -> [Tensor; 4] {
        let y = attention_within(bytes, q, k, v, heads, causal).unwrap();
        let weights = value("weights", y.dims(), 1.0).to_dtype(y.dtype()).unwrap();
        let gradients = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let of = |var: &Var| gradients.get(var).unwrap().clone();
        [y.detach(), of(q), of(k), of(v)]
    }

    #[test]
    fn attention_in_pieces_is_that_of_the_whole_matrix() {
        // Batch, queries, keys, heads, numbers of a head, and how many queries fit.
        let shapes = [
            ([2, 64, 77, 4, 8], 10),
            ([1, 77, 77, 2, 16], 20),
            ([3, 33, 5, 1, 24], 32),
            ([1, 9, 40, 3, 5], 1),
            ([2, 20, 20, 2, 8], 20),
        ];
        for (([batch, queries, keys, heads, dim], fit), dtype, causal) in shapes.into_iter().flat_map(|shape| {
            [(DType::F64, false), (DType::F64, true), (DType::F32, false), (DType::F32, true)]
                .map(|(dtype, causal)| (shape, dtype, causal))
        }) {
            let drawn = |key: &str, tokens: usize, scale: f64| {
                Var::from_tensor(&value(key, &[batch, tokens, heads * dim], scale).to_dtype(dtype).unwrap()).unwrap()
            };
            let qkv = [drawn("q", queries, 3.0), drawn("k", keys, 1.0), drawn("v", keys, 1.0)];
            let bytes = fit * batch * heads * keys * dtype.size_in_bytes();
            let (found, expected) = (attended(bytes, &qkv, heads, causal), attended(usize::MAX, &qkv, heads, causal));
            let tolerance = if dtype == DType::F64 { 1e-14 } else { 1e-6 };
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let error = relative_error(found, expected);
                assert!(error < tolerance, "{queries} to {keys}, {dtype:?}, {causal}, {index}: {error:.1e}");
            }
        }
    }
}
