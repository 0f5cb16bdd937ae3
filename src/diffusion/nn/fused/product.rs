//! Linear layers and convolutions.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor};
use paraflow_kernels::{Epilogue, Window, conv2d, linear};

use super::super::weight::{Base, Geometry, Weight};
use super::{slice, with_numbers};

/// What is added to a product before it is written.
#[derive(Clone, Copy)]
pub(in crate::nn) enum Add<'a> {
    Nothing,
    /// `[batch, output]`: one number a channel of a picture.
    Shift(&'a Tensor),
    /// The shape of the output.
    Residual(&'a Tensor),
}

/// `W x + bias + add`, without the weight's adapters. All shapes were checked.
pub(in crate::nn) fn product(x: &Tensor, weight: &Weight, bias: Option<&Tensor>, add: Add<'_>) -> Result<Tensor> {
    let op = Product {
        base: weight.base.clone(),
        geometry: weight.geometry(),
        bias: bias.cloned(),
        shifts: matches!(add, Add::Shift(_)),
    };
    let x = x.contiguous()?;
    match add {
        Add::Nothing => x.apply_op1(op),
        Add::Shift(more) | Add::Residual(more) => x.apply_op2(&more.contiguous()?, op),
    }
}

pub(super) struct Product {
    base: Arc<Base>,
    geometry: Geometry,
    bias: Option<Tensor>,
    /// Whether the second argument is a shift.
    shifts: bool,
}

impl Product {
    /// With numbers that are not a model's: those of a thin matrix, or of a weight in training.
    pub(super) fn with(numbers: &Tensor, geometry: Geometry) -> Self {
        Self { base: Base::in_memory(numbers.detach()), geometry, bias: None, shifts: false }
    }

    pub(super) fn run(&self, x: &[f32], shape: &[usize], more: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let matrix = self.base.forth().map_err(candle_core::Error::wrap)?;
        let (shift, residual) = if self.shifts { (more, None) } else { (None, more) };
        let run = |bias: Option<&[f32]>| {
            let epilogue = Epilogue { bias, shift, residual };
            match self.geometry {
                Geometry::Linear => linear(x, 1, &*matrix, epilogue),
                Geometry::Conv2d { .. } => conv2d(x, &self.window(shape), &*matrix, epilogue),
            }
        };
        let y = match &self.bias {
            Some(bias) => with_numbers(bias, |bias| run(Some(bias)))?,
            None => run(None),
        };
        let mut shape = shape.to_vec();
        if let (Geometry::Conv2d { .. }, [_, height, width, _]) = (self.geometry, &mut shape[..]) {
            (*height, *width) = self.window(&[1, *height, *width, 1]).output();
        }
        if let Some(last) = shape.last_mut() {
            *last = self.base.shape()[0];
        }
        Ok((CpuStorage::F32(y), shape.into()))
    }

    pub(super) fn window(&self, shape: &[usize]) -> Window {
        let (stride, before, after) = match self.geometry {
            Geometry::Conv2d { stride, before, after } => (stride, before, after),
            Geometry::Linear => (1, 0, 0),
        };
        let kernel = self.base.shape().get(2).copied().unwrap_or(1);
        Window { batch: shape[0], height: shape[1], width: shape[2], kernel, stride, before, after }
    }

    /// The gradient of the layer's input.
    pub(super) fn back(&self, x: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let matrix = self.base.back().map_err(candle_core::Error::wrap)?;
        let gradient = gradient.contiguous()?;
        let numbers = match self.geometry {
            Geometry::Linear => with_numbers(&gradient, |g| linear(g, 1, matrix.right(), Epilogue::default()))?,
            Geometry::Conv2d { .. } => {
                let window = self.window(x.dims());
                let spread = spread(&gradient, window.stride)?;
                let (_, height, width, _) = spread.dims4()?;
                let before = window.kernel - 1 - window.before;
                // Zeros above and left as in the window; below and to the right as many as bring back the input's size.
                let after = |side: usize, spread: usize| (side + window.kernel - 1).saturating_sub(spread + before);
                let (below, right) = (after(window.height, height), after(window.width, width));
                let spread = if below > right { spread.pad_with_zeros(1, 0, below - right)? } else { spread };
                let spread = if right > below { spread.pad_with_zeros(2, 0, right - below)? } else { spread };
                let (_, height, width, _) = spread.dims4()?;
                let window = Window { height, width, stride: 1, before, after: below.min(right), ..window };
                with_numbers(&spread.contiguous()?, |g| conv2d(g, &window, matrix.right(), Epilogue::default()))?
            }
        };
        Tensor::from_vec(numbers, x.shape(), &Device::Cpu).map(Some)
    }
}

/// `y + bias + add`: the end of a product whose adapters come in between. All shapes were checked.
pub(in crate::nn) fn finish(y: Tensor, bias: Option<&Tensor>, add: Add<'_>) -> Result<Tensor> {
    let op = Finish { bias: bias.cloned(), shifts: matches!(add, Add::Shift(_)) };
    match add {
        Add::Nothing if bias.is_none() => Ok(y),
        Add::Nothing => y.contiguous()?.apply_op1(op),
        Add::Shift(more) | Add::Residual(more) => y.contiguous()?.apply_op2(&more.contiguous()?, op),
    }
}

struct Finish {
    bias: Option<Tensor>,
    shifts: bool,
}

impl Finish {
    fn run(&self, y: &[f32], shape: &Shape, more: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let width = shape.dims().last().copied().unwrap_or(1);
        let add = |bias: Option<&[f32]>| {
            let mut out = match (more, self.shifts) {
                (Some(residual), false) => y.iter().zip(residual).map(|(y, more)| y + more).collect(),
                _ => y.to_vec(),
            };
            let shift = more.filter(|_| self.shifts);
            let rows = out.len() / width.max(1) / shape.dims().first().copied().unwrap_or(1).max(1);
            for (index, row) in out.chunks_exact_mut(width).enumerate() {
                let shift = shift.map(|shift| &shift[index / rows * width..][..width]);
                for more in [bias, shift].into_iter().flatten() {
                    row.iter_mut().zip(more).for_each(|(out, more)| *out += more);
                }
            }
            out
        };
        let out = match &self.bias {
            Some(bias) => with_numbers(bias, |bias| add(Some(bias)))?,
            None => add(None),
        };
        Ok((CpuStorage::F32(out), shape.clone()))
    }
}

impl CustomOp1 for Finish {
    fn name(&self) -> &'static str {
        "finish"
    }

    fn cpu_fwd(&self, y: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(slice(y, layout)?, layout.shape(), None)
    }

    fn bwd(&self, _y: &Tensor, _out: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(gradient.clone()))
    }
}

impl CustomOp2 for Finish {
    fn name(&self) -> &'static str {
        "finish-add"
    }

    fn cpu_fwd(
        &self,
        y: &CpuStorage,
        layout: &Layout,
        more: &CpuStorage,
        more_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run(slice(y, layout)?, layout.shape(), Some(slice(more, more_layout)?))
    }

    fn bwd(
        &self,
        y: &Tensor,
        more: &Tensor,
        _out: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((y.track_op().then(|| gradient.clone()), added(more, self.shifts, gradient)?))
    }
}

/// The gradient of what was added to a product.
fn added(more: &Tensor, shifts: bool, gradient: &Tensor) -> Result<Option<Tensor>> {
    Ok(match (more.track_op(), shifts) {
        (false, _) => None,
        (true, false) => Some(gradient.clone()),
        (true, true) => Some(gradient.flatten(1, 2)?.sum(1)?),
    })
}

/// The gradient with zeros between its pixels, `stride - 1` of them, so that a stride's way back is a plain convolution.
fn spread(gradient: &Tensor, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(gradient.clone());
    }
    let (batch, height, width, channels) = gradient.dims4()?;
    let spread = gradient.reshape((batch, height, 1, width, 1, channels))?;
    let spread = spread.pad_with_zeros(2, 0, stride - 1)?.pad_with_zeros(4, 0, stride - 1)?;
    let spread = spread.reshape((batch, height * stride, width * stride, channels))?;
    spread.narrow(1, 0, (height - 1) * stride + 1)?.narrow(2, 0, (width - 1) * stride + 1)?.contiguous()
}

impl CustomOp1 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(slice(x, layout)?, layout.dims(), None)
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.back(x, gradient)
    }
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product-add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        more: &CpuStorage,
        more_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run(slice(x, layout)?, layout.dims(), Some(slice(more, more_layout)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        more: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((self.back(x, gradient)?, added(more, self.shifts, gradient)?))
    }
}
