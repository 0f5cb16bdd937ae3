//! Attention without a matrix of scores.

use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};
use paraflow_kernels::{Heads, Precision};

use super::{slice, with_numbers};

/// `softmax(q kᵀ / √dim) v`, heads side by side in the last dimension. All shapes were checked.
pub(in crate::nn) fn attention(
    precision: Precision,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    causal: bool,
) -> Result<Tensor> {
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, Attention { precision, heads, causal })
}

struct Attention {
    precision: Precision,
    heads: usize,
    causal: bool,
}

impl Attention {
    /// From the shapes of queries and keys.
    fn measures(&self, q: &[usize], k: &[usize]) -> Heads {
        let (batch, queries, dim) = (q[0], q[1], q[2] / self.heads);
        Heads { batch, queries, keys: k[1], heads: self.heads, dim, causal: self.causal }
    }
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
        let heads = self.measures(q_layout.dims(), k_layout.dims());
        let (q, k, v) = (slice(q, q_layout)?, slice(k, k_layout)?, slice(v, v_layout)?);
        Ok((CpuStorage::F32(paraflow_kernels::attention_in(self.precision, q, k, v, &heads)), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let heads = self.measures(q.dims(), k.dims());
        let gradient = gradient.contiguous()?;
        let run = |q: &[f32], k: &[f32], v: &[f32]| {
            with_numbers(&gradient, |gradient| paraflow_kernels::attention_back(q, k, v, gradient, &heads))
        };
        let gradients = with_numbers(q, |q| with_numbers(k, |k| with_numbers(v, |v| run(q, k, v))))????;
        let [dq, dk, dv] = gradients;
        let tensor = |numbers: Vec<f32>, like: &Tensor| Tensor::from_vec(numbers, like.shape(), &Device::Cpu).map(Some);
        Ok((tensor(dq, q)?, tensor(dk, k)?, tensor(dv, v)?))
    }
}
