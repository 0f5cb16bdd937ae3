//! Attention without a matrix of scores on NVIDIA's GPUs: [FlashAttention-2](https://arxiv.org/abs/2307.08691) as candle-flash-attn
//! has it. It computes in 16 bits only and has no way back, so f32 and whatever is trained do without it.

use candle_core::{DType, Tensor};

use crate::error::Result;

/// Its kernels' widest head.
const WIDEST: usize = 512;

/// Whether it computes this attention, `q`, `k` and `v` as [`attention`] takes them: bf16 that `--precision bf16` asked for, and no
/// gradient to be found.
pub(crate) fn takes(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> bool {
    let fits = |x: &Tensor| x.device().is_cuda() && x.dtype() == DType::BF16 && !x.track_op() && x.elem_count() > 0;
    let tokens = |x: &Tensor| x.dims()[1];
    let dim = q.dims()[2] / heads;
    // Where there are more keys than queries, its causal mask lets the last query see the last key, ours the first the first.
    [q, k, v].into_iter().all(fits) && dim.is_multiple_of(8) && dim <= WIDEST && (!causal || tokens(q) == tokens(k))
}

/// `softmax(q kᵀ / √dim) v`, heads side by side in the last dimension: `[batch, tokens, heads · dim]`. All shapes were checked.
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let apart = |x: &Tensor| -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        Ok(x.contiguous()?.reshape((batch, tokens, heads, width / heads))?)
    };
    let q = apart(q)?;
    let scale = 1.0 / (q.dim(3)? as f32).sqrt();
    Ok(candle_flash_attn::flash_attn(&q, &apart(k)?, &apart(v)?, scale, causal)?.flatten_from(2)?)
}
