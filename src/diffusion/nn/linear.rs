//! The product of a weight with the last dimension.

use candle_core::Tensor;

use super::fused::Add;
use super::weight::{Geometry, Layers, Vector, Weight};
use super::weights::Weights;
use crate::error::{Error, Result};

/// `y = W x + b`.
#[derive(Clone)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

impl Linear {
    /// Reads `weight` `[output, input]` and `bias` `[output]`. A 1x1 convolution's weight, `[output, input, 1, 1]`, is the
    /// same thing and is taken too.
    ///
    /// # Errors
    /// What [`Weights::tensor`] says.
    pub fn load(weights: &Weights, input: usize, output: usize) -> Result<Self> {
        let bias = weights.tensor("bias", &[output])?;
        Ok(Self { bias: Some(bias), ..Self::load_without_bias(weights, input, output)? })
    }

    /// The same for a layer that has no bias.
    ///
    /// # Errors
    /// What [`Weights::tensor`] says.
    pub fn load_without_bias(weights: &Weights, input: usize, output: usize) -> Result<Self> {
        let weight = Weight::load(weights, Geometry::Linear, &[&[output, input], &[output, input, 1, 1]])?;
        Ok(Self { weight, bias: None })
    }

    /// Applies the layer, and its adapters if it has any.
    ///
    /// # Shapes
    /// - `x`: `[.., input]`
    /// - output: `[.., output]`
    ///
    /// # Errors
    /// [`Error::Shape`] when the last dimension is not the layer's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, Add::Nothing)
    }

    /// The layer's output added to `residual`, which has the output's shape.
    ///
    /// # Errors
    /// [`Error::Shape`] when the last dimension is not the layer's, or the shapes differ.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.run(x, Add::Residual(residual))
    }

    fn run(&self, x: &Tensor, add: Add<'_>) -> Result<Tensor> {
        let input = self.weight.shape()[1];
        if x.dims().last() != Some(&input) {
            return Err(Error::Shape {
                layer: self.weight.layer().to_owned(),
                expected: format!("[.., {input}]"),
                found: x.dims().to_vec(),
            });
        }
        self.weight.apply(x, self.bias.as_ref(), add)
    }

    /// Its weight, with whatever acts on it.
    #[must_use]
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// Its bias, `[output]`.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Layers for Linear {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        visit(&mut self.weight);
    }

    fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
        if let Some(numbers) = &mut self.bias {
            visit(Vector { layer: self.weight.layer(), is_bias: true, numbers });
        }
    }
}
