//! Two-dimensional convolution over channels-last pictures, and their enlargement.

use candle_core::Tensor;

use super::fused::Add;
use super::weight::{Geometry, Layers, Vector, Weight};
use super::weights::Weights;
use super::{fused, plain};
use crate::error::{Error, Result};

/// A convolution with a square kernel, `[batch, height, width, input]` to `[batch, height', width', output]`.
#[derive(Clone)]
pub struct Conv2d {
    weight: Weight,
    bias: Tensor,
}

impl Conv2d {
    /// Reads `weight` `[output, input, kernel, kernel]` and `bias` `[output]`, for a convolution that keeps the picture's
    /// size: stride 1, `kernel / 2` zeros around.
    ///
    /// # Errors
    /// What [`Weights::tensor`] says.
    pub fn load(weights: &Weights, input: usize, output: usize, kernel: usize) -> Result<Self> {
        let geometry = Geometry::Conv2d { stride: 1, before: kernel / 2, after: kernel / 2 };
        Self::load_with(weights, input, output, kernel, geometry)
    }

    /// The same with another stride and other zeros around.
    ///
    /// # Errors
    /// What [`Weights::tensor`] says.
    pub fn load_with(
        weights: &Weights,
        input: usize,
        output: usize,
        kernel: usize,
        geometry: Geometry,
    ) -> Result<Self> {
        let weight = Weight::load(weights, geometry, &[&[output, input, kernel, kernel]])?;
        Ok(Self { weight, bias: weights.tensor("bias", &[output])? })
    }

    /// The same for a layer that adds nothing.
    ///
    /// # Errors
    /// What [`Weights::tensor`] says.
    pub fn load_without_bias(
        weights: &Weights,
        input: usize,
        output: usize,
        kernel: usize,
        geometry: Geometry,
    ) -> Result<Self> {
        let weight = Weight::load(weights, geometry, &[&[output, input, kernel, kernel]])?;
        Ok(Self { weight, bias: Tensor::zeros(output, weights.compute().dtype(), weights.compute().device())? })
    }

    /// A layer that comes from no file: weight `[output, input, kernel, kernel]`, bias `[output]`.
    #[must_use]
    pub fn of(weight: Weight, bias: Tensor) -> Self {
        Self { weight, bias }
    }

    /// Applies the layer, and its adapters if it has any.
    ///
    /// # Shapes
    /// - `x`: `[batch, height, width, input]`
    /// - output: `[batch, height', width', output]`, each side `(side + before + after - kernel) / stride + 1`
    ///
    /// # Errors
    /// [`Error::Shape`] when the input has other channels, or is smaller than the kernel.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, Add::Nothing)
    }

    /// The layer's output added to `residual`, which has the output's shape.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Error::Shape`] when the shapes differ.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.run(x, Add::Residual(residual))
    }

    /// The layer's output, every pixel of a picture moved by the picture's `shift`, `[batch, output]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`Error::Shape`] when the shift is of another shape.
    pub fn forward_shift(&self, x: &Tensor, shift: &Tensor) -> Result<Tensor> {
        self.run(x, Add::Shift(shift))
    }

    fn run(&self, x: &Tensor, add: Add<'_>) -> Result<Tensor> {
        self.check(x)?;
        self.weight.apply(x, Some(&self.bias), add)
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        let (input, kernel) = (self.weight.shape()[1], self.weight.shape()[2]);
        let around = match self.weight.geometry() {
            Geometry::Conv2d { before, after, .. } => before + after,
            Geometry::Linear => 0,
        };
        match x.dims() {
            &[_, height, width, channels] if channels == input && height.min(width) + around >= kernel => Ok(()),
            found => Err(Error::Shape {
                layer: self.weight.layer().to_owned(),
                expected: format!("[batch, height, width, {input}]"),
                found: found.to_vec(),
            }),
        }
    }

    /// Its weight, with whatever acts on it.
    #[must_use]
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// Its bias, `[output]`.
    #[must_use]
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }
}

impl Layers for Conv2d {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        visit(&mut self.weight);
    }

    fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
        visit(Vector { layer: self.weight.layer(), is_bias: true, numbers: &mut self.bias });
    }
}

/// A picture at another size, each pixel the nearest of `x`: `[batch, h, w, channels]` to `[batch, height, width, channels]`.
///
/// # Errors
/// [`Error::Shape`] when `x` is no picture.
pub fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    if x.rank() != 4 {
        let expected = "[batch, height, width, channels]".to_owned();
        return Err(Error::Shape { layer: "upsample".to_owned(), expected, found: x.dims().to_vec() });
    }
    if fused::takes(x) && x.elem_count() > 0 {
        return Ok(fused::upsample_nearest(x, height, width)?);
    }
    plain::upsample_nearest(x, height, width)
}
