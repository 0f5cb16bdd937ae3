//! Nonlinearities.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};

use super::{slice, with_numbers};

pub(in crate::nn) fn silu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Pointwise::Silu)
}

pub(in crate::nn) fn gelu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Pointwise::Gelu)
}

pub(in crate::nn) fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Pointwise::QuickGelu)
}

/// The last dimension is even.
pub(in crate::nn) fn geglu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Pointwise::Geglu)
}

#[derive(Clone, Copy)]
enum Pointwise {
    Silu,
    Gelu,
    QuickGelu,
    Geglu,
}

impl CustomOp1 for Pointwise {
    fn name(&self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::QuickGelu => "quick-gelu",
            Self::Geglu => "geglu",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, mut shape) = (slice(x, layout)?, layout.dims().to_vec());
        let y = match self {
            Self::Silu => paraflow_kernels::silu(x),
            Self::Gelu => paraflow_kernels::gelu(x),
            Self::QuickGelu => paraflow_kernels::quick_gelu(x),
            Self::Geglu => {
                let width = shape.last().map_or(0, |last| last / 2);
                if let Some(last) = shape.last_mut() {
                    *last = width;
                }
                paraflow_kernels::geglu(x, width)
            }
        };
        Ok((CpuStorage::F32(y), shape.into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let run = |x: &[f32], g: &[f32]| match self {
            Self::Silu => paraflow_kernels::silu_back(x, g),
            Self::Gelu => paraflow_kernels::gelu_back(x, g),
            Self::QuickGelu => paraflow_kernels::quick_gelu_back(x, g),
            Self::Geglu => paraflow_kernels::geglu_back(x, g, gradient.dims().last().copied().unwrap_or(0)),
        };
        let dx = with_numbers(x, |x| with_numbers(&gradient, |gradient| run(x, gradient)))??;
        Tensor::from_vec(dx, x.shape(), &Device::Cpu).map(Some)
    }
}
