//! Layer norm, and group norm with its activation.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use paraflow_kernels::Groups;

use super::{slice, with_numbers};

/// Over the last dimension.
pub(in crate::nn) fn layer_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, epsilon: f64) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Norm { scale: scale.clone(), shift: shift.clone(), epsilon, kind: Kind::Layer })
}

/// Over the pixels of each group of channels of `[batch, .., channels]`, then `x · σ(x)` if `activate`.
pub(in crate::nn) fn group_norm(
    x: &Tensor,
    groups: usize,
    scale: &Tensor,
    shift: &Tensor,
    epsilon: f64,
    activate: bool,
) -> Result<Tensor> {
    let kind = Kind::Group { groups, activate };
    x.contiguous()?.apply_op1(Norm { scale: scale.clone(), shift: shift.clone(), epsilon, kind })
}

struct Norm {
    scale: Tensor,
    shift: Tensor,
    epsilon: f64,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Layer,
    Group { groups: usize, activate: bool },
}

impl CustomOp1 for Norm {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Layer => "layer-norm",
            Kind::Group { .. } => "group-norm",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, epsilon) = (slice(x, layout)?, self.epsilon as f32);
        let batch = layout.dims().first().copied().unwrap_or(1);
        let run = |scale: &[f32], shift: &[f32]| match self.kind {
            Kind::Layer => paraflow_kernels::layer_norm(x, scale, shift, epsilon),
            Kind::Group { groups, activate } => {
                paraflow_kernels::group_norm(x, &Groups { batch, groups, scale, shift, epsilon }, activate)
            }
        };
        let y = with_numbers(&self.scale, |scale| with_numbers(&self.shift, |shift| run(scale, shift)))??;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (gradient, epsilon) = (gradient.contiguous()?, self.epsilon as f32);
        let batch = x.dims().first().copied().unwrap_or(1);
        let run = |x: &[f32], gradient: &[f32], scale: &[f32], shift: &[f32]| match self.kind {
            Kind::Layer => paraflow_kernels::layer_norm_back(x, scale, epsilon, gradient),
            Kind::Group { groups, activate } => {
                let groups = Groups { batch, groups, scale, shift, epsilon };
                paraflow_kernels::group_norm_back(x, &groups, activate, gradient)
            }
        };
        let parameters = |x: &[f32], gradient: &[f32]| {
            with_numbers(&self.scale, |scale| with_numbers(&self.shift, |shift| run(x, gradient, scale, shift)))?
        };
        let dx = with_numbers(x, |x| with_numbers(&gradient, |gradient| parameters(x, gradient)))???;
        Tensor::from_vec(dx, x.shape(), &Device::Cpu).map(Some)
    }
}
