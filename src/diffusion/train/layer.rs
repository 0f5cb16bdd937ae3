//! What is trained beside one layer, and what becomes of it.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use super::fault::Fault;
use super::frame::Frame;
use super::random::{Stream, generator};
use super::settings::{Init, Method, ParaMode, SPREAD};
use crate::eigen;
use crate::error::Result;
use crate::nn::{Adapter, Geometry, Weight, give, low_rank};

/// The layers of a training, trained.
#[derive(Debug, Clone)]
pub struct Trained {
    /// What was trained.
    pub method: Method,
    /// By layer, in the network's order.
    pub layers: Vec<TrainedLayer>,
    /// The loss of every step, and the validation loss where it was measured.
    pub losses: Vec<(f32, Option<f32>)>,
    /// What the user should know: layers left out, ranks bounded.
    pub notes: Vec<String>,
}

/// One layer's result.
#[derive(Debug, Clone)]
pub struct TrainedLayer {
    /// The layer's name in its checkpoint.
    pub name: String,
    /// Its weight's shape.
    pub shape: Vec<usize>,
    /// Its tensors: `q` `[out, rank]`, orthonormal columns, of a projection; `up` `[out, rank]` and `down` `[rank, in]` or
    /// `[rank, in, kernel, kernel]` of a LoRA, a release or a DEFT, the scale worked in; `delta` `[min(out, in)]`; `weight`.
    pub tensors: Vec<(&'static str, Tensor)>,
}

/// One list of trained numbers.
pub(super) struct Slot {
    /// What it is called in a state file.
    pub(super) name: &'static str,
    /// The numbers that the optimiser moves.
    pub(super) numbers: Vec<f32>,
    /// What the network works with: the numbers themselves, or directions that they span.
    leaf: Var,
    /// Of the numbers, if they span directions.
    frame: Option<Frame>,
}

/// All that is trained at one layer.
pub(super) struct Layer {
    pub(super) name: String,
    /// As it was before.
    weight: Weight,
    kind: Kind,
    pub(super) slots: Vec<Slot>,
    /// Its singular values, if they are what is trained.
    spectrum: Option<Arc<Spectrum>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// `q`.
    Projection,
    /// `up` and `down`, subtracted.
    Release,
    /// `q` and `down`.
    Deft,
    /// `down` and `up`.
    Lora { scale: f64 },
    /// `delta`.
    SvDiff,
    /// `weight`.
    Weights,
}

/// A weight's singular values and vectors: `U diag(σ) Vᵀ`.
struct Spectrum {
    values: Tensor,
    /// `Vᵀ`, of the layer's own geometry.
    right: Weight,
    left: Weight,
}

impl Spectrum {
    /// Through the smaller of the two Gram matrices, in f64.
    fn of(weight: &Weight) -> Result<Self> {
        let shape = weight.shape();
        let flat = weight.effective()?.flatten_from(1)?.to_dtype(DType::F64)?;
        let (outputs, inputs) = flat.dims2()?;
        let wide = outputs <= inputs;
        let gram = if wide { flat.matmul(&flat.t()?)? } else { flat.t()?.matmul(&flat)? };
        let count = outputs.min(inputs);
        let (energies, vectors) = eigen::symmetric(gram.flatten_all()?.to_vec1()?, count);
        // The strongest first.
        let values: Vec<f64> = energies.iter().rev().map(|energy| energy.max(0.0).sqrt()).collect();
        let vectors: Vec<f64> = vectors.chunks_exact(count).rev().flatten().copied().collect();
        let vectors = Tensor::from_vec(vectors, (count, count), &Device::Cpu)?;
        let strongest = values.first().copied().unwrap_or(0.0);
        // A direction without strength has no partner; it stays without.
        let inverse = |value: &f64| if *value > 1e-9 * strongest { value.recip() } else { 0.0 };
        let inverses = Tensor::from_vec(values.iter().map(inverse).collect(), (count, 1), &Device::Cpu)?;
        let (left, right) = if wide {
            let right = vectors.matmul(&flat)?.broadcast_mul(&inverses)?;
            (vectors, right)
        } else {
            (vectors.matmul(&flat.t()?)?.broadcast_mul(&inverses)?, vectors)
        };
        let right = right.reshape([&[count], &shape[1..]].concat())?;
        Ok(Self {
            values: Tensor::from_vec(values, count, &Device::Cpu)?.to_dtype(DType::F32)?,
            right: weight.beside(weight.geometry(), &right)?,
            left: weight.beside(Geometry::Linear, &left.t()?.contiguous()?)?,
        })
    }

    /// By how much each singular value changes.
    fn change(&self, delta: &Tensor) -> Result<Tensor> {
        Ok(((&self.values + delta)?.relu()? - &self.values)?)
    }
}

impl Slot {
    fn new(name: &'static str, numbers: Vec<f32>, shape: &[usize]) -> Result<Self> {
        let leaf = Var::from_slice(&numbers, shape, &Device::Cpu)?;
        Ok(Self { name, numbers, leaf, frame: None })
    }

    /// Directions of `width` numbers.
    fn spanning(directions: &[f32], width: usize) -> Result<Self> {
        let leaf = Var::from_slice(directions, (directions.len() / width, width), &Device::Cpu)?;
        let mut numbers = directions.to_vec();
        // Drawn or orthogonal directions do not depend on each other; should rounding say so, the unit that is missing does.
        let mut unit = 0;
        let draw = || {
            unit += 1;
            f32::from(u8::from(unit % (width + 1) == 1))
        };
        let (frame, _) = independent(&mut numbers, width, draw);
        let mut slot = Self { name: "b", numbers, leaf, frame: Some(frame) };
        slot.retract()?;
        Ok(slot)
    }

    /// Takes the gradient of what the network works with back to the numbers.
    pub(super) fn gradient(&self, of_leaf: &[f32]) -> Vec<f32> {
        match &self.frame {
            Some(frame) => frame.back(&widened(of_leaf)).into_iter().map(|x| x as f32).collect(),
            None => of_leaf.to_vec(),
        }
    }

    /// What the network works with, as a key to its gradient.
    pub(super) fn leaf(&self) -> &Tensor {
        &self.leaf
    }

    /// Lets the network see the numbers. A direction that depends on the others is drawn anew, and said to be.
    pub(super) fn show(&mut self, redraw: impl FnMut() -> f32) -> Result<bool> {
        let Some(frame) = &self.frame else {
            self.leaf.set(&Tensor::from_slice(&self.numbers, self.leaf.shape(), &Device::Cpu)?)?;
            return Ok(false);
        };
        let (frame, redrawn) = independent(&mut self.numbers, frame.width, redraw);
        self.leaf.set(&tensor(&frame.q, self.leaf.dims())?)?;
        self.frame = Some(frame);
        Ok(redrawn)
    }

    /// Brings numbers that span directions back to orthogonal ones of the usual length. The directions stay.
    pub(super) fn retract(&mut self) -> Result<()> {
        let Some(frame) = &self.frame else { return Ok(()) };
        let length = (frame.width as f64).sqrt() * SPREAD;
        self.numbers = frame.q.iter().map(|x| (length * x) as f32).collect();
        self.show(|| 0.0)?;
        Ok(())
    }
}

/// Directions of numbers, those that depend on others replaced by drawn ones.
fn independent(numbers: &mut [f32], width: usize, mut draw: impl FnMut() -> f32) -> (Frame, bool) {
    let mut redrawn = false;
    loop {
        match Frame::of(&widened(numbers), width) {
            Ok(frame) => return (frame, redrawn),
            Err(row) => {
                numbers[row * width..][..width].fill_with(|| SPREAD as f32 * draw());
                redrawn = true;
            }
        }
    }
}

fn widened(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().map(|x| f64::from(*x)).collect()
}

fn tensor(numbers: &[f64], shape: &[usize]) -> Result<Tensor> {
    let numbers = numbers.iter().map(|x| *x as f32).collect();
    Ok(Tensor::from_vec::<_, f32>(numbers, shape, &Device::Cpu)?)
}

impl Layer {
    /// What is trained at a layer, at its start. `index` tells the layers apart for the random numbers. `None` where the rank
    /// boundary leaves nothing.
    pub(super) fn new(method: &Method, weight: &Weight, index: usize, seed: u64) -> Result<Option<Self>> {
        let (shape, layer) = (weight.shape().to_vec(), weight.layer().to_owned());
        let mut generator = generator(seed, Stream::Start, index);
        let mut spectrum = None;
        let (kind, slots) = match *method {
            Method::Para { mode, rank, gamma, init, .. } => {
                let outputs = shape[0];
                if rank >= outputs && gamma == 1.0 {
                    return Err(Fault::RankTooLarge { layer, rank, outputs }.into());
                }
                let rank = rank.min((gamma * outputs as f64) as usize).min(outputs - 1);
                if rank == 0 {
                    return Ok(None);
                }
                let mut drawn = vec![0.0; rank * outputs];
                generator.fill_normal(&mut drawn);
                let directions = match init {
                    Init::Random => drawn,
                    Init::MinEnergy => quietest(weight, rank)?,
                    Init::Unit => {
                        (0..rank * outputs).map(|i| f32::from(u8::from(i / outputs == i % outputs))).collect()
                    }
                };
                let spanning = Slot::spanning(&directions, outputs)?;
                match mode {
                    ParaMode::Projection => (Kind::Projection, vec![spanning]),
                    ParaMode::Release | ParaMode::Deft => {
                        let flat = weight.effective()?.flatten_from(1)?.to_dtype(DType::F32)?;
                        let shape = [&[rank], &shape[1..]].concat();
                        let removed: Vec<f32> = spanning.leaf.matmul(&flat)?.flatten_all()?.to_vec1()?;
                        let down = Slot::new("down", removed, &shape)?;
                        if mode == ParaMode::Deft {
                            (Kind::Deft, vec![spanning, down])
                        } else {
                            let up: Vec<f32> = spanning.leaf.flatten_all()?.to_vec1()?;
                            (Kind::Release, vec![Slot::new("up", up, &[rank, outputs])?, down])
                        }
                    }
                }
            }
            Method::Lora { rank, alpha, .. } => {
                let thin = [&[rank], &shape[1..]].concat();
                let inputs: usize = shape[1..].iter().product();
                // Kaiming's uniform numbers with torch's slope of √5, as every LoRA starts.
                let bound = 1.0 / (inputs as f32).sqrt();
                let down = (0..rank * inputs).map(|_| bound * (2.0 * generator.uniform() - 1.0)).collect();
                let up = Slot::new("up", vec![0.0; rank * shape[0]], &[rank, shape[0]])?;
                (Kind::Lora { scale: alpha / rank as f64 }, vec![Slot::new("down", down, &thin)?, up])
            }
            Method::SvDiff { .. } => {
                let found = Spectrum::of(weight)?;
                let count = found.values.elem_count();
                spectrum = Some(Arc::new(found));
                (Kind::SvDiff, vec![Slot::new("delta", vec![0.0; count], &[count])?])
            }
            Method::Weights { .. } => {
                let numbers = weight.effective()?.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
                (Kind::Weights, vec![Slot::new("weight", numbers, &shape)?])
            }
        };
        Ok(Some(Self { name: layer, weight: weight.clone(), kind, slots, spectrum }))
    }

    /// How many outputs the layer has.
    #[cfg(test)]
    pub(super) fn outputs(&self) -> usize {
        self.weight.shape()[0]
    }

    /// How many directions it has, or what comes nearest to that.
    pub(super) fn rank(&self) -> usize {
        self.slots[0].leaf.dims()[0]
    }

    /// The layer's weight with what is trained; tracked if a gradient is wanted, and following later steps only then.
    pub(super) fn attach(&self, weight: &Weight, tracked: bool) -> Result<Weight> {
        let leaf = |slot: &Slot| if tracked { slot.leaf.as_tensor().clone() } else { slot.leaf.as_detached_tensor() };
        let leaves: Vec<Tensor> = self.slots.iter().map(leaf).collect();
        if self.kind == Kind::Weights {
            return weight.replaced(leaves[0].clone());
        }
        weight.with(Arc::new(Beside { kind: self.kind, leaves, spectrum: self.spectrum.clone() }))
    }

    /// The result, of these numbers by slot.
    pub(super) fn finish(&self, numbers: &[Vec<f32>]) -> Result<TrainedLayer> {
        let span = |index: usize| -> Result<Tensor> {
            let (frame, _) = independent(&mut numbers[index].clone(), self.weight.shape()[0], || 0.0);
            tensor(&frame.q, &[frame.rank(), frame.width])
        };
        let plain = |index: usize| -> Result<Tensor> {
            Ok(Tensor::from_slice(&numbers[index], self.slots[index].leaf.shape(), &Device::Cpu)?)
        };
        let columns = |rows: Tensor| -> Result<Tensor> { Ok(rows.t()?.contiguous()?) };
        let tensors = match self.kind {
            Kind::Projection => vec![("q", columns(span(0)?)?)],
            Kind::Release => vec![("up", columns(plain(0)?.neg()?)?), ("down", plain(1)?)],
            Kind::Deft => {
                // W - Q Qᵀ W + Q R = W + Q (R - Qᵀ W)
                let (q, put) = (span(0)?, plain(1)?);
                let flat = self.weight.effective()?.flatten_from(1)?.to_dtype(DType::F32)?;
                let removed = q.matmul(&flat)?.reshape(put.shape())?;
                vec![("up", columns(q)?), ("down", (put - removed)?)]
            }
            Kind::Lora { scale } => vec![("up", columns((plain(1)? * scale)?)?), ("down", plain(0)?)],
            Kind::SvDiff => vec![("delta", plain(0)?)],
            Kind::Weights => vec![("weight", plain(0)?)],
        };
        Ok(TrainedLayer { name: self.name.clone(), shape: self.weight.shape().to_vec(), tensors })
    }
}

/// The orthonormal directions in which a layer's weight has the least to say, the least one first.
fn quietest(weight: &Weight, rank: usize) -> Result<Vec<f32>> {
    let flat = weight.effective()?.flatten_from(1)?.to_dtype(DType::F64)?;
    let outputs = flat.dim(0)?;
    let energy = flat.matmul(&flat.t()?)?.flatten_all()?.to_vec1::<f64>()?;
    let (_, vectors) = eigen::symmetric(energy, outputs);
    Ok(vectors[..rank * outputs].iter().map(|x| *x as f32).collect())
}

/// What acts beside a layer while it is trained.
struct Beside {
    kind: Kind,
    leaves: Vec<Tensor>,
    spectrum: Option<Arc<Spectrum>>,
}

impl Beside {
    fn spectrum(&self) -> &Spectrum {
        self.spectrum.as_ref().expect("`Layer::new` gives every layer of this kind one")
    }
}

impl Adapter for Beside {
    fn weight(&self, base: &Tensor) -> Result<Tensor> {
        let flat = base.flatten_from(1)?.to_dtype(DType::F32)?;
        let thin = |index: usize| -> Result<Tensor> { Ok(self.leaves[index].flatten_from(1)?) };
        let product = |up: usize, down: &Tensor| -> Result<Tensor> { Ok(self.leaves[up].t()?.matmul(down)?) };
        let changed = match self.kind {
            Kind::Projection => (&flat - product(0, &self.leaves[0].matmul(&flat)?)?)?,
            Kind::Release => (&flat - product(0, &thin(1)?)?)?,
            Kind::Deft => (&flat + product(0, &(thin(1)? - self.leaves[0].matmul(&flat)?)?)?)?,
            Kind::Lora { scale } => (&flat + (product(1, &thin(0)?)? * scale)?)?,
            Kind::SvDiff => {
                let Spectrum { left, right, .. } = self.spectrum();
                let change = self.spectrum().change(&self.leaves[0])?.unsqueeze(1)?;
                (&flat
                    + give(&left.base()?)?.matmul(&give(&right.base()?)?.flatten_from(1)?.broadcast_mul(&change)?)?)?
            }
            Kind::Weights => thin(0)?,
        };
        Ok(changed.to_dtype(base.dtype())?.reshape(base.shape())?)
    }

    fn output(&self, geometry: Geometry, x: &Tensor, y: Tensor) -> Result<Tensor> {
        let like = |x: &Tensor| x.to_device(y.device())?.to_dtype(y.dtype());
        let leaf = |index: usize| like(&self.leaves[index]);
        match self.kind {
            Kind::Projection => low_rank::project(&y, &leaf(0)?, 1.0),
            Kind::Release => low_rank::up(&y, &low_rank::down(x, &leaf(1)?, geometry)?, &leaf(0)?, -1.0),
            Kind::Deft => {
                let (q, put) = (leaf(0)?, low_rank::down(x, &leaf(1)?, geometry)?);
                low_rank::up(&low_rank::project(&y, &q, 1.0)?, &put, &q, 1.0)
            }
            Kind::Lora { scale } => low_rank::up(&y, &low_rank::down(x, &leaf(0)?, geometry)?, &leaf(1)?, scale),
            Kind::SvDiff => {
                let Spectrum { left, right, .. } = self.spectrum();
                let seen = right.forward(x)?.broadcast_mul(&like(&self.spectrum().change(&self.leaves[0])?)?)?;
                Ok((y + left.forward(&seen)?)?)
            }
            Kind::Weights => low_rank::down(x, &leaf(0)?, geometry),
        }
    }
}
