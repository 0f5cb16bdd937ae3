//! Attention without a matrix of scores.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use paraflow_kernels::Heads;

use super::super::plain;
use super::{pull_back, slice};

/// Most scores that the way back holds at a time.
const SCORES: usize = 1 << 24;

/// `softmax(q kᵀ / √dim) v`, heads side by side in the last dimension. All shapes were checked.
pub(in crate::nn) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, Attention { heads, causal })
}

struct Attention {
    heads: usize,
    causal: bool,
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, queries, width) = q_layout.shape().dims3()?;
        let keys = k_layout.dims()[1];
        let heads = Heads { batch, queries, keys, heads: self.heads, dim: width / self.heads, causal: self.causal };
        let (q, k, v) = (slice(q, q_layout)?, slice(k, k_layout)?, slice(v, v_layout)?);
        Ok((CpuStorage::F32(paraflow_kernels::attention(q, k, v, &heads)), q_layout.shape().clone()))
    }

    /// A few queries at a time, so that memory stays bounded here as well.
    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (batch, queries, _) = q.dims3()?;
        let step = (SCORES / (batch * self.heads * k.dim(1)?).max(1)).clamp(1, queries.max(1));
        let mut dq = Vec::new();
        let (mut dk, mut dv) = (k.zeros_like()?, v.zeros_like()?);
        for first in (0..queries).step_by(step) {
            let count = step.min(queries - first);
            let (q, gradient) = (q.narrow(1, first, count)?, gradient.narrow(1, first, count)?);
            let causal = self.causal.then_some(first);
            let run = |[q, k, v]: &[candle_core::Var; 3]| plain::attention(q, k, v, self.heads, causal);
            let [q, k, v] = pull_back([&q, k, v], &gradient.contiguous()?, run)?;
            dq.extend(q);
            dk = k.map_or(Ok(dk.clone()), |k| dk + k)?;
            dv = v.map_or(Ok(dv.clone()), |v| dv + v)?;
        }
        Ok((Some(Tensor::cat(&dq, 1)?), Some(dk), Some(dv)))
    }
}
