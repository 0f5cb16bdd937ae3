//! Enlarging by nearest pixels.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use paraflow_kernels::{Resize, upsample_nearest_back};

use super::{slice, with_numbers};

/// `[batch, h, w, channels]` to `[batch, height, width, channels]`.
pub(in crate::nn) fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Upsample(height, width))
}

struct Upsample(usize, usize);

impl Upsample {
    fn resize(&self, shape: &Shape) -> Result<Resize> {
        let (batch, height, width, channels) = shape.dims4()?;
        Ok(Resize { batch, from: (height, width), to: (self.0, self.1), channels })
    }
}

impl CustomOp1 for Upsample {
    fn name(&self) -> &'static str {
        "upsample-nearest"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let resize = self.resize(layout.shape())?;
        let y = paraflow_kernels::upsample_nearest(slice(x, layout)?, &resize);
        Ok((CpuStorage::F32(y), (resize.batch, self.0, self.1, resize.channels).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let resize = self.resize(x.shape())?;
        let dx = with_numbers(&gradient.contiguous()?, |gradient| upsample_nearest_back(gradient, &resize))?;
        Tensor::from_vec(dx, x.shape(), &Device::Cpu).map(Some)
    }
}
