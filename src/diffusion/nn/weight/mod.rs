//! One frozen weight, and what acts on it. Layers read their weight through [`Weight`] only, so adapters attach here, beside
//! the layer or baked into it, and the networks stay as they are.
//!
//! A value on a wire never changes: attaching makes a new model that shares every weight it does not change.

mod base;

pub(in crate::nn) use base::Base;
pub(crate) use base::LARGE;
use base::{Keeping, Origin};

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use paraflow_kernels::Precision;

use crate::error::{Error, Result};
use crate::nn::fused::{self, Add};
use crate::nn::weights::{Weights, nearest};
use crate::nn::{low_rank, plain};

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

    /// Whether what it makes of a weight that is kept in eight bits is rounded to those, as ComfyUI does with a LoRA's.
    fn rounds_with_its_weight(&self) -> bool {
        false
    }

    /// What it does to the weight, for those who report on it.
    ///
    /// # Errors
    /// Out of memory.
    fn effect(&self) -> Result<Effect> {
        Ok(Effect::Other)
    }
}

/// What an adapter does to a weight.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Something else.
    Other,
    /// It takes directions out: `[out, rank]`, orthonormal columns.
    Removes(Tensor),
    /// It adds a matrix: `[out, in · kernel · kernel]`.
    Adds(Tensor),
    /// It adds something that depends on the weight below it.
    Alters,
}

/// A layer's weight: what the file holds, and the adapters that act on it, in their order.
#[derive(Clone)]
pub struct Weight {
    layer: Arc<str>,
    geometry: Geometry,
    pub(super) base: Arc<Base>,
    adapters: Vec<Arc<dyn Adapter>>,
    /// What was worked into the base, if anything was.
    baked: Option<Arc<Baked>>,
}

/// How a base with adapters worked into it came about.
struct Baked {
    /// The numbers before.
    from: Origin,
    /// What acted on them, in their order.
    adapters: Vec<Arc<dyn Adapter>>,
}

impl Weight {
    /// The tensor `weight` below `weights`, which must have one of these shapes, taken as the first of them.
    pub(super) fn load(weights: &Weights, geometry: Geometry, shapes: &[&[usize]]) -> Result<Self> {
        let stored = weights.claim("weight", shapes)?;
        let layer: Arc<str> = weights.layer().into();
        let keeping = Keeping { kept: weights.compute().kept(), layer: layer.clone() };
        let base = Base::new(Origin::File(stored), shapes[0], weights.precision(), &keeping);
        Ok(Self { layer, geometry, base, adapters: Vec::new(), baked: None })
    }

    /// The layer's name as adapters address it: its key in the file without part prefix and without `.weight`.
    #[must_use]
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// A layer's weight that comes from no file, `[out, in]` or `[out, in, kernel, kernel]`.
    #[must_use]
    pub fn of(layer: &str, geometry: Geometry, weight: Tensor) -> Self {
        Self::of_in(Precision::Single, layer, geometry, weight)
    }

    /// The same, multiplied with in numbers of choice on the CPU.
    #[must_use]
    pub fn of_in(precision: Precision, layer: &str, geometry: Geometry, weight: Tensor) -> Self {
        let shape = weight.dims().to_vec();
        let base = Base::new(Origin::Memory(weight), &shape, precision, &Keeping::any());
        Self { layer: layer.into(), geometry, base, adapters: Vec::new(), baked: None }
    }

    /// `W x` for `x` `[.., in]`, channels-last, with whatever adapters act on it and without bias.
    ///
    /// # Errors
    /// When `x` does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, None, Add::Nothing)
    }

    /// `[out, in]` or `[out, in, kernel, kernel]`.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.base.shape
    }

    /// The adapters that act beside it, in their order.
    #[must_use]
    pub fn adapters(&self) -> &[Arc<dyn Adapter>] {
        &self.adapters
    }

    /// All adapters, those that were worked into the weight first, in their order.
    pub fn history(&self) -> impl Iterator<Item = &Arc<dyn Adapter>> {
        self.baked.iter().flat_map(|baked| &baked.adapters).chain(&self.adapters)
    }

    /// In which numbers the layer multiplies on the CPU.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.base.precision
    }

    /// Whether it is another than the file's: adapters act on it, or were worked into it.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        !self.adapters.is_empty() || !matches!(self.base.origin, Origin::File(_))
    }

    /// Where its numbers and its adapters lie: equal for two weights that share all of them.
    #[must_use]
    pub fn identity(&self) -> Vec<usize> {
        let adapters = self.adapters.iter().map(|adapter| Arc::as_ptr(adapter).cast::<()>() as usize);
        std::iter::once(Arc::as_ptr(&self.base) as usize).chain(adapters).collect()
    }

    /// The same weight, multiplied with in other numbers on the CPU. What the layer has packed for its own is not shared.
    #[must_use]
    pub fn multiplying_in(&self, precision: Precision) -> Self {
        if precision == self.precision() {
            return self.clone();
        }
        let base = Base::new(self.base.origin.clone(), &self.base.shape, precision, &self.base.keeping);
        Self { base, ..self.clone() }
    }

    /// How the layer applies it.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The frozen weight without adapters that act beside it (those baked in are part of it), on the CPU. Made afresh at every
    /// call.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn base(&self) -> Result<Tensor> {
        Ok(self.base.tensor()?.to_device(&Device::Cpu)?)
    }

    /// The weight with all its adapters applied, on the CPU.
    ///
    /// # Errors
    /// When an adapter does not fit.
    pub fn effective(&self) -> Result<Tensor> {
        self.adapters.iter().try_fold(self.base()?, |weight, adapter| adapter.weight(&weight))
    }

    /// This weight with one more adapter, acting after those it has. A weight that is kept in fewer bits takes it in, when the layer
    /// runs, if ComfyUI does; every other adapter that can acts beside its weight.
    ///
    /// # Errors
    /// When the adapter has to be baked in and does not fit.
    pub fn with(&self, adapter: Arc<dyn Adapter>) -> Result<Self> {
        let (beside, taken_in) = (adapter.acts_beside(), self.base.keeping.takes_in(&*adapter));
        let mut weight = self.clone();
        weight.adapters.push(adapter);
        match beside {
            true if taken_in => Ok(weight.taking_in()),
            true => Ok(weight),
            false => weight.baked(),
        }
    }

    /// This weight with its adapters as part of it, once the layer runs.
    fn taking_in(self) -> Self {
        let (layer, geometry, baked) = (self.layer.clone(), self.geometry, Some(Arc::new(self.worked_in())));
        let (shape, precision, keeping) = (self.base.shape.clone(), self.base.precision, self.base.keeping.clone());
        let base = Base::new(Origin::Sum(vec![(1.0, self)]), &shape, precision, &keeping);
        Self { layer, geometry, base, adapters: Vec::new(), baked }
    }

    /// This weight with its adapters worked into it, which costs a copy of it and makes the layer as fast as without them.
    ///
    /// # Errors
    /// When an adapter does not fit.
    pub fn baked(&self) -> Result<Self> {
        if self.adapters.is_empty() {
            return Ok(self.clone());
        }
        let weight = self.effective()?;
        Ok(Self { baked: Some(Arc::new(self.worked_in())), ..self.replaced(weight)? })
    }

    /// How a base that has all of them in it came about.
    fn worked_in(&self) -> Baked {
        Baked { from: self.first().clone(), adapters: self.history().cloned().collect() }
    }

    /// The numbers that the first adapter acted on.
    fn first(&self) -> &Origin {
        self.baked.as_ref().map_or(&self.base.origin, |baked| &baked.from)
    }

    /// What is left of each adapter that adds something, `[out, in · kernel · kernel]` f32, after those that act above it: those
    /// that act beside the weight and those that were worked into it, in their order.
    ///
    /// # Errors
    /// Out of memory.
    pub fn additions(&self) -> Result<Vec<Tensor>> {
        let all: Vec<&Arc<dyn Adapter>> = self.history().collect();
        let mut added: Vec<Tensor> = Vec::new();
        for (index, adapter) in all.iter().enumerate() {
            match adapter.effect()? {
                // It takes as much out of the parts as out of the whole.
                Effect::Removes(_) => {
                    added = added.iter().map(|part| adapter.weight(part)).collect::<Result<_>>()?;
                }
                Effect::Adds(change) => added.push(change),
                Effect::Alters => {
                    let start = self.first().tensor(self.shape())?.to_device(&Device::Cpu)?;
                    let below = all[..index].iter().try_fold(start, |weight, adapter| adapter.weight(&weight))?;
                    let change = (adapter.weight(&below)?.to_dtype(DType::F32)? - below.to_dtype(DType::F32)?)?;
                    added.push(change.flatten_from(1)?);
                }
                Effect::Other => {}
            }
        }
        Ok(added)
    }

    /// A weight `[out, in]` or `[out, in, kernel, kernel]` of a layer of its own, which computes where this one does.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn beside(&self, geometry: Geometry, weight: &Tensor) -> Result<Self> {
        Ok(Self::of(&self.layer, geometry, self.base.take(weight)?))
    }

    /// This layer with another frozen weight and no adapters.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is not of the layer's shape.
    pub fn replaced(&self, weight: Tensor) -> Result<Self> {
        self.check_shape(weight.dims())?;
        let weight = if weight.track_op() { weight } else { self.base.take(&weight)? };
        let base = Base::new(Origin::Memory(weight), self.shape(), self.base.precision, &self.base.keeping);
        Ok(Self { layer: self.layer.clone(), geometry: self.geometry, base, adapters: Vec::new(), baked: None })
    }

    /// This layer with `ours · a + theirs · b` as its frozen weight, each with all that acts on it now. Nothing is computed
    /// before the layer runs.
    ///
    /// # Errors
    /// [`Error::Shape`] when the other is of another shape.
    pub fn mixed(&self, other: &Self, [a, b]: [f64; 2]) -> Result<Self> {
        self.check_shape(other.shape())?;
        let terms = [(a, self), (b, other)].into_iter().filter(|(factor, _)| *factor != 0.0);
        let mut terms: Vec<(f64, Self)> = terms.map(|(factor, weight)| (factor, weight.clone())).collect();
        if terms.is_empty() {
            terms.push((0.0, self.clone()));
        }
        Ok(self.of_sum(terms))
    }

    /// This layer with `ours + (theirs − file) · strength` as its frozen weight: ours with all that acts on it, theirs too, and the
    /// file's as it was before anything acted on it. Nothing is computed before the layer runs.
    ///
    /// # Errors
    /// [`Error::Shape`] when the other is of another shape.
    pub fn toward(&self, other: &Self, strength: f64) -> Result<Self> {
        self.check_shape(other.shape())?;
        let file = Base::new(self.first().clone(), self.shape(), self.base.precision, &Keeping::any());
        let file = Self { base: file, adapters: Vec::new(), baked: None, ..self.clone() };
        Ok(self.of_sum(vec![(1.0, self.clone()), (strength, other.clone()), (-strength, file)]))
    }

    /// This layer with a sum as its frozen weight.
    fn of_sum(&self, terms: Vec<(f64, Self)>) -> Self {
        let base = Base::new(Origin::Sum(terms), self.shape(), self.base.precision, &self.base.keeping);
        Self { layer: self.layer.clone(), geometry: self.geometry, base, baked: None, adapters: Vec::new() }
    }

    fn check_shape(&self, found: &[usize]) -> Result<()> {
        if found == self.shape() {
            return Ok(());
        }
        let expected = format!("a weight of shape {:?}", self.shape());
        Err(Error::Shape { layer: self.layer.to_string(), expected, found: found.to_vec() })
    }

    /// The layer's output: `W x`, what the adapters make of it, `bias` `[out]`, and what is added. The last dimension of `x`
    /// was checked.
    pub(super) fn apply(&self, x: &Tensor, bias: Option<&Tensor>, add: Add<'_>) -> Result<Tensor> {
        self.check_added(x, add)?;
        // The kernels take a bias as it is; one that is trained is added behind them.
        let is_frozen = bias.is_none_or(|bias| !bias.track_op());
        if self.adapters.is_empty() && self.has_kernel(x) && is_frozen {
            return Ok(fused::product(x, self, bias, add)?);
        }
        let y = if self.has_kernel(x) {
            fused::product(x, self, None, Add::Nothing)?
        } else if self.base.is_trained() {
            let weight = self.base.tensor()?.to_device(x.device())?.to_dtype(x.dtype())?;
            low_rank::down(x, &weight, self.geometry)?
        } else {
            plain::product(x, &self.base.kept()?, self.geometry)?
        };
        let y = self.adapters.iter().try_fold(y, |y, adapter| adapter.output(self.geometry, x, y))?;
        if fused::takes(&y) && is_frozen {
            return Ok(fused::finish(y, bias, add)?);
        }
        let y = bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))?;
        match add {
            Add::Nothing => Ok(y),
            Add::Shift(shift) => Ok(y.broadcast_add(&shift.unsqueeze(1)?.unsqueeze(1)?)?),
            Add::Residual(residual) => Ok((y + residual)?),
        }
    }

    fn has_kernel(&self, x: &Tensor) -> bool {
        fused::has_product(x, self.shape(), self.geometry) && !self.base.is_trained()
    }

    /// Checks the shape of what is added to the output.
    fn check_added(&self, x: &Tensor, add: Add<'_>) -> Result<()> {
        let (added, expected) = match add {
            Add::Nothing => return Ok(()),
            Add::Shift(shift) => (shift, vec![x.dims()[0], self.shape()[0]]),
            Add::Residual(residual) => (residual, self.output_shape(x)),
        };
        if added.dims() == expected {
            return Ok(());
        }
        Err(Error::Shape {
            layer: format!("{} (added)", self.layer),
            expected: format!("{expected:?}"),
            found: added.dims().to_vec(),
        })
    }

    fn output_shape(&self, x: &Tensor) -> Vec<usize> {
        let mut shape = x.dims().to_vec();
        if let (Geometry::Conv2d { stride, before, after }, [_, height, width, _]) = (self.geometry, &mut shape[..]) {
            let side = |side: usize| (side + before + after).saturating_sub(self.shape()[2]) / stride.max(1) + 1;
            (*height, *width) = (side(*height), side(*width));
        }
        if let Some(last) = shape.last_mut() {
            *last = self.shape()[0];
        }
        shape
    }
}

/// A network whose layers can be reached by name.
pub trait Layers {
    /// Shows every weight that adapters may act on, in the file's order of depth.
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight));

    /// Shows every parameter of one dimension. Networks that nothing trains show none.
    fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
        let _ = visit;
    }
}

/// A parameter of one dimension, `[channels]` f32. In its place one may be put that gradients are taken by.
pub struct Vector<'a> {
    /// The name of the layer or the norm, as [`Weight::layer`] has it.
    pub layer: &'a str,
    /// Whether it is added: the bias of a layer, or what a norm adds. Else it is a norm's scale.
    pub is_bias: bool,
    /// The numbers.
    pub numbers: &'a mut Tensor,
}

impl<T: Layers> Layers for Option<T> {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.iter_mut().for_each(|part| part.visit(visit));
    }

    fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
        self.iter_mut().for_each(|part| part.visit_vectors(visit));
    }
}

impl<T: Layers> Layers for Vec<T> {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.iter_mut().for_each(|part| part.visit(visit));
    }

    fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
        self.iter_mut().for_each(|part| part.visit_vectors(visit));
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
