//! One frozen weight, and what acts on it. Layers read their weight through [`Weight`] only, so adapters attach here, beside
//! the layer or baked into it, and the networks stay as they are.
//!
//! A value on a wire never changes: attaching makes a new model that shares every weight it does not change.

use std::sync::Arc;

use candle_core::Tensor;

use super::weights::{Stored, Weights, nearest};
use crate::error::{Error, Result};

/// How a layer applies its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Geometry {
    /// `y = W x` on the last dimension, weight `[out, in]`.
    Linear,
    /// A convolution over `[batch, height, width, in]`, weight `[out, in, kernel, kernel]`.
    Conv2d {
        /// Pixels from one output to the next.
        stride: usize,
        /// Rows of zeros above, and columns of them to the left.
        before: usize,
        /// Rows of zeros below, and columns of them to the right.
        after: usize,
    },
}

/// A reparameterisation of one frozen weight, which can act on the weight or on the layer's output.
///
/// Both sides must agree: `output(x, W x) = weight(W) x` for every `x`, up to rounding.
pub trait Adapter: Send + Sync {
    /// The changed weight, `[out, in]` or `[out, in, height, width]` as the base.
    ///
    /// # Errors
    /// When the base has a shape that the adapter was not made for.
    fn weight(&self, base: &Tensor) -> Result<Tensor>;

    /// The changed output, from the layer's input `x` (`[.., in]`) and its product `y` (`[.., out]`), both channels-last, `y`
    /// without bias.
    ///
    /// # Errors
    /// When the shapes are not those of the layer it was made for.
    fn output(&self, geometry: Geometry, x: &Tensor, y: Tensor) -> Result<Tensor>;

    /// Whether [`output`](Self::output) works. An adapter whose change is not of low rank says no and is baked in.
    fn acts_beside(&self) -> bool {
        true
    }
}

/// A layer's weight: what the file holds, and the adapters that act on it, in their order.
#[derive(Clone)]
pub struct Weight {
    layer: Arc<str>,
    geometry: Geometry,
    pub(super) base: Arc<Base>,
    adapters: Vec<Arc<dyn Adapter>>,
}

/// The frozen numbers, in the file or in memory, and their copies in the kernels' order once a layer has run.
pub(super) struct Base {
    origin: Origin,
    shape: Vec<usize>,
}

enum Origin {
    File(Stored),
    Memory(Tensor),
}

impl Weight {
    /// The tensor `weight` below `weights`, which must have one of these shapes, taken as the first of them.
    pub(super) fn load(weights: &Weights, geometry: Geometry, shapes: &[&[usize]]) -> Result<Self> {
        let stored = weights.claim("weight", shapes)?;
        let base = Base { origin: Origin::File(stored), shape: shapes[0].to_vec() };
        Ok(Self { layer: weights.layer().into(), geometry, base: Arc::new(base), adapters: Vec::new() })
    }

    /// The layer's name as adapters address it: its key in the file without part prefix and without `.weight`.
    #[must_use]
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// `[out, in]` or `[out, in, kernel, kernel]`.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.base.shape
    }

    /// How the layer applies it.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The frozen weight without adapters that act beside it (those baked in are part of it). Made afresh at every call.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn base(&self) -> Result<Tensor> {
        match &self.base.origin {
            Origin::File(stored) => Ok(stored.tensor()?.reshape(self.shape())?),
            Origin::Memory(tensor) => Ok(tensor.clone()),
        }
    }

    /// The weight with all its adapters applied.
    ///
    /// # Errors
    /// When an adapter does not fit.
    pub fn effective(&self) -> Result<Tensor> {
        self.adapters.iter().try_fold(self.base()?, |weight, adapter| adapter.weight(&weight))
    }

    /// This weight with one more adapter, acting after those it has.
    ///
    /// # Errors
    /// When the adapter has to be baked in and does not fit.
    pub fn with(&self, adapter: Arc<dyn Adapter>) -> Result<Self> {
        let beside = adapter.acts_beside();
        let mut weight = self.clone();
        weight.adapters.push(adapter);
        if beside { Ok(weight) } else { weight.baked() }
    }

    /// This weight with its adapters worked into it, which costs a copy of it and makes the layer as fast as without them.
    ///
    /// # Errors
    /// When an adapter does not fit.
    pub fn baked(&self) -> Result<Self> {
        if self.adapters.is_empty() { Ok(self.clone()) } else { self.replaced(self.effective()?) }
    }

    /// This layer with another frozen weight and no adapters.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is not of the layer's shape.
    pub fn replaced(&self, weight: Tensor) -> Result<Self> {
        if weight.dims() != self.shape() {
            return Err(Error::Shape {
                layer: self.layer.to_string(),
                expected: format!("a weight of shape {:?}", self.shape()),
                found: weight.dims().to_vec(),
            });
        }
        let base = Base { origin: Origin::Memory(weight), shape: self.shape().to_vec() };
        Ok(Self { layer: self.layer.clone(), geometry: self.geometry, base: Arc::new(base), adapters: Vec::new() })
    }

    /// What the adapters make of the product `y = W x`.
    pub(super) fn adapt(&self, x: &Tensor, y: Tensor) -> Result<Tensor> {
        self.adapters.iter().try_fold(y, |y, adapter| adapter.output(self.geometry, x, y))
    }
}

/// A network whose layers can be reached by name.
pub trait Layers {
    /// Shows every weight that adapters may act on, in the file's order of depth.
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight));
}

impl<T: Layers> Layers for Option<T> {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.iter_mut().for_each(|part| part.visit(visit));
    }
}

impl<T: Layers> Layers for Vec<T> {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.iter_mut().for_each(|part| part.visit(visit));
    }
}

/// Names and weight shapes of a network's layers.
pub fn layers<M: Layers + Clone>(model: &M) -> Vec<(String, Vec<usize>)> {
    let mut layers = Vec::new();
    model.clone().visit(&mut |weight| layers.push((weight.layer().to_owned(), weight.shape().to_vec())));
    layers
}

/// A model like this one with adapters on the named layers, one after another where a name comes twice. Every weight that no
/// baked adapter changes is shared.
///
/// # Errors
/// [`Error::NoSuchLayer`] for the first name that the model does not have, and what [`Weight::with`] says.
pub fn attach<M: Layers + Clone>(model: &M, adapters: &[(String, Arc<dyn Adapter>)]) -> Result<M> {
    let mut attached = model.clone();
    let mut fits = vec![false; adapters.len()];
    let mut outcome = Ok(());
    attached.visit(&mut |weight| {
        for ((name, adapter), fits) in adapters.iter().zip(&mut fits) {
            if name == weight.layer() && outcome.is_ok() {
                *fits = true;
                outcome = weight.with(adapter.clone()).map(|adapted| *weight = adapted);
            }
        }
    });
    outcome?;
    match fits.iter().position(|fits| !fits) {
        None => Ok(attached),
        Some(index) => {
            let name = adapters[index].0.clone();
            let names = layers(model);
            let nearest = nearest(&name, names.iter().map(|(name, _)| name.as_str()));
            Err(Error::NoSuchLayer { name, nearest })
        }
    }
}
