//! All that is trained: an adapter for each layer, and a difference for each bias and norm.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor, Var};

use super::adapter::{Beside, names};
use super::draws::{factors, kaiming, normal, skip};
use super::existing::existing;
use super::optimizer::Memory;
use super::settings::{AdapterSettings, Algorithm, rounding};
use crate::error::Result;
use crate::nn::{Layers as _, layers};
use crate::noise::Generator;
use crate::unet::UNet;

/// What the names of a network's layers begin with in the files.
const PREFIX: &str = "diffusion_model.";

/// One trained tensor.
pub(super) struct Parameter {
    /// What it is called in a file.
    pub(super) key: String,
    /// The numbers that the optimiser moves.
    pub(super) numbers: Vec<f32>,
    /// The same as the network sees them, of the tensor's shape.
    leaf: Var,
    /// Whether it is moved: all but an alpha that its adapter takes as a number.
    pub(super) moves: bool,
    pub(super) memory: Memory,
}

/// An adapter and the layer that it is for.
struct Adapted {
    algorithm: Algorithm,
    shape: Vec<usize>,
    /// The place of its first tensor among the parameters; the others follow.
    first: usize,
}

/// All trained tensors of a network.
pub(super) struct Parameters {
    pub(super) all: Vec<Parameter>,
    /// By layer.
    adapters: BTreeMap<String, Adapted>,
    /// By layer or norm, and whether it is a bias: the place of its difference.
    vectors: BTreeMap<(String, bool), usize>,
    /// How many adapters went on with the file's.
    pub(super) continued: usize,
}

impl Parameter {
    fn new(key: String, tensor: &Tensor, moves: bool, round: fn(f32) -> f32) -> Result<Self> {
        let numbers: Vec<f32> = tensor.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1()?;
        let numbers: Vec<f32> = numbers.into_iter().map(round).collect();
        let leaf = Var::from_slice(&numbers, tensor.shape(), &Device::Cpu)?;
        Ok(Self { key, numbers, leaf, moves, memory: Memory::default() })
    }

    /// What the network sees, as a key to its gradient.
    pub(super) fn leaf(&self) -> &Tensor {
        &self.leaf
    }

    /// Lets the network see the numbers.
    pub(super) fn show(&self) -> Result<()> {
        Ok(self.leaf.set(&self.tensor()?)?)
    }

    /// The numbers as a tensor of their own.
    pub(super) fn tensor(&self) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.numbers, self.leaf.shape(), &Device::Cpu)?)
    }
}

impl Parameters {
    /// What a training begins with: the adapters of a file where it has some, else drawn ones, and differences of zero.
    ///
    /// # Errors
    /// What [`existing`] says.
    pub(super) fn new(unet: &UNet, file: &BTreeMap<String, Tensor>, settings: &AdapterSettings) -> Result<Self> {
        let mut parameters =
            Self { all: Vec::new(), adapters: BTreeMap::new(), vectors: BTreeMap::new(), continued: 0 };
        let mut generator = Generator::new(settings.seed);
        let round = rounding(settings.half_adapters);
        for (layer, shape) in in_drawing_order(layers(unet)) {
            let found = existing(file, &format!("{PREFIX}{layer}"), &shape)?;
            let (algorithm, tensors) = match found {
                Some((algorithm, tensors)) => {
                    if algorithm == Algorithm::Lora {
                        skip(&mut generator, tensors[1].elem_count() + tensors[2].elem_count());
                    }
                    parameters.continued += 1;
                    (algorithm, tensors)
                }
                None => (settings.algorithm, drawn(&mut generator, settings, &shape)?),
            };
            let first = parameters.all.len();
            for (name, tensor) in names(algorithm).iter().zip(&tensors) {
                let moves = *name != "alpha" || algorithm == Algorithm::Lora;
                let key = format!("{PREFIX}{layer}.{name}");
                parameters.all.push(Parameter::new(key, tensor, moves, round)?);
            }
            parameters.adapters.insert(layer, Adapted { algorithm, shape, first });
        }
        let mut places = Vec::new();
        unet.clone().visit_vectors(&mut |vector| {
            places.push((vector.layer.to_owned(), vector.is_bias, vector.numbers.elem_count()));
        });
        for (layer, is_bias, count) in places {
            let end = if is_bias { "diff_b" } else { "diff" };
            let zeros = Tensor::zeros(count, candle_core::DType::F32, &Device::Cpu)?;
            let parameter = Parameter::new(format!("{PREFIX}{layer}.{end}"), &zeros, true, round)?;
            parameters.vectors.insert((layer, is_bias), parameters.all.len());
            parameters.all.push(parameter);
        }
        Ok(parameters)
    }

    /// The network with all of them on it, tracked.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn on(&self, unet: &UNet) -> Result<UNet> {
        let mut attached = unet.clone();
        let mut outcome = Ok(());
        let leaf = |place: usize| {
            let parameter = &self.all[place];
            if parameter.moves { parameter.leaf().clone() } else { parameter.leaf.as_detached_tensor() }
        };
        attached.visit(&mut |weight| {
            if let (Some(adapted), true) = (self.adapters.get(weight.layer()), outcome.is_ok()) {
                let leaves = (0..names(adapted.algorithm).len()).map(|index| leaf(adapted.first + index)).collect();
                let (algorithm, shape) = (adapted.algorithm, adapted.shape.clone());
                outcome = weight.with(Arc::new(Beside { algorithm, shape, leaves })).map(|with| *weight = with);
            }
        });
        attached.visit_vectors(&mut |vector| {
            let place = self.vectors.get(&(vector.layer.to_owned(), vector.is_bias));
            if let (Some(place), true) = (place, outcome.is_ok()) {
                let moved = &*vector.numbers + leaf(*place);
                outcome = moved.map(|moved| *vector.numbers = moved).map_err(Into::into);
            }
        });
        outcome.map(|()| attached)
    }
}

/// The layers in the order in which ComfyUI's network lists its modules, which is that of drawing: within a transformer block the
/// feed-forward layers stand between the attentions.
fn in_drawing_order(mut layers: Vec<(String, Vec<usize>)>) -> Vec<(String, Vec<usize>)> {
    fn block(name: &str) -> Option<&str> {
        let start = name.find("transformer_blocks.")? + "transformer_blocks.".len();
        let end = start + name[start..].find('.')?;
        Some(&name[..end])
    }
    let place = |name: &str| match block(name).map(|block| &name[block.len()..]) {
        Some(part) if part.starts_with(".ff.") => 1,
        Some(part) if part.starts_with(".attn2.") => 2,
        _ => 0,
    };
    for run in layers.chunk_by_mut(|(a, _), (b, _)| block(a).is_some() && block(a) == block(b)) {
        run.sort_by_key(|(name, _)| place(name));
    }
    layers
}

/// An adapter that changes nothing yet, in the order of [`names`], for a weight of that shape.
fn drawn(generator: &mut Generator, settings: &AdapterSettings, shape: &[usize]) -> Result<Vec<Tensor>> {
    let (rank, outputs, inputs) = (settings.rank, shape[0], shape[1..].iter().product::<usize>());
    let tensor = |numbers, shape: (usize, usize)| Tensor::from_vec::<_, f32>(numbers, shape, &Device::Cpu);
    let zeros = |shape: (usize, usize)| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu);
    let alpha = Tensor::new(1.0_f32, &Device::Cpu)?;
    Ok(match settings.algorithm {
        Algorithm::Lora => {
            let up = tensor(kaiming(generator, outputs, rank), (outputs, rank))?;
            skip(generator, rank * (outputs + inputs));
            vec![alpha, up, zeros((rank, inputs))?]
        }
        Algorithm::Loha => {
            let mut thin = |mean, shape: (usize, usize)| tensor(normal(generator, shape.0 * shape.1, mean), shape);
            let first = thin(0.1, (outputs, rank))?;
            let (third, fourth) = (thin(0.1, (outputs, rank))?, thin(0.01, (rank, inputs))?);
            vec![first, zeros((rank, inputs))?, third, fourth, alpha]
        }
        Algorithm::Lokr => {
            let ((a, c), (b, d)) = (factors(outputs, rank), factors(inputs, rank));
            vec![zeros((a, b))?, tensor(kaiming(generator, c, d), (c, d))?, alpha]
        }
        Algorithm::Oft => {
            let (side, blocks) = factors(outputs, rank);
            vec![Tensor::zeros((blocks, side, side), candle_core::DType::F32, &Device::Cpu)?, alpha]
        }
    })
}
