//! What every block of a network is told beside the picture and the prompt, as one vector: the timestep, and the label of networks
//! that take one.

use candle_core::{DType, Device, Tensor};

use super::Config;
use crate::error::Result;
use crate::nn::{Compute, Embedding, Layers, Linear, Vector, Weight, Weights, silu};

/// The slowest wave of the timestep's embedding has this period, over 2π.
const LONGEST_PERIOD: f32 = 10_000.0;

/// Makes one vector a picture of the timestep and the label.
#[derive(Clone)]
pub(super) struct Embedder {
    time: [Linear; 2],
    label: Option<Label>,
}

#[derive(Clone)]
enum Label {
    /// A vector of numbers.
    Vector([Linear; 2]),
    /// The number of a class, each of which has a vector of its own.
    Class(Embedding),
}

impl Embedder {
    /// The layers of a network whose vectors are `embedded` numbers long.
    pub(super) fn load(weights: &Weights, config: &Config, embedded: usize) -> Result<Self> {
        let label = match (config.label, config.classes) {
            (Some(width), _) => Some(Label::Vector(load_pair(weights, "label_emb.0", width, embedded)?)),
            (None, Some(classes)) => Some(Label::Class(Embedding::load(&weights.at("label_emb"), classes, embedded)?)),
            (None, None) => None,
        };
        Ok(Self { time: load_pair(weights, "time_embed", config.channels, embedded)?, label })
    }

    /// The sum of what it makes of both.
    ///
    /// # Shapes
    /// - `timesteps`: `[batch]`
    /// - `label`: `[batch, width]`, or `[batch, 1]` for a class; networks without a label do not look at it
    /// - output: `[batch, 4 · channels]`
    pub(super) fn embed(&self, timesteps: &Tensor, label: Option<&Tensor>, compute: &Compute) -> Result<Tensor> {
        let width = self.time[0].weight().shape()[1];
        let waves = compute.take(&timestep_embedding(timesteps, width)?)?;
        let run = |pair: &[Linear; 2], x: &Tensor| pair[1].forward(&silu(&pair[0].forward(x)?)?);
        let time = run(&self.time, &waves)?;
        let (Some(embedding), Some(label)) = (&self.label, label) else { return Ok(time) };
        let label = match embedding {
            Label::Vector(layers) => run(layers, &compute.take(label)?)?,
            Label::Class(table) => {
                let classes: Vec<f32> = label.flatten_all()?.to_vec1()?;
                table.rows(&classes.into_iter().map(|class| class as u32).collect::<Vec<_>>())?
            }
        };
        Ok((time + label)?)
    }
}

impl Layers for Embedder {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.time.iter_mut().for_each(|linear| linear.visit(visit));
        if let Some(Label::Vector(layers)) = &mut self.label {
            layers.iter_mut().for_each(|linear| linear.visit(visit));
        }
    }

    fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
        self.time.iter_mut().for_each(|linear| linear.visit_vectors(visit));
        if let Some(Label::Vector(layers)) = &mut self.label {
            layers.iter_mut().for_each(|linear| linear.visit_vectors(visit));
        }
    }
}

/// Two layers that make an embedding of numbers.
fn load_pair(weights: &Weights, place: &str, input: usize, embedded: usize) -> Result<[Linear; 2]> {
    let place = weights.at(place);
    Ok([Linear::load(&place.at(0), input, embedded)?, Linear::load(&place.at(2), embedded, embedded)?])
}

/// Waves of `width / 2` frequencies, cosines first: `[batch]` to `[batch, width]`, f32.
///
/// Computed in f32 as the reference does, because at timestep 999 the rounding of a frequency is visible.
pub(crate) fn timestep_embedding(timesteps: &Tensor, width: usize) -> Result<Tensor> {
    let half = width / 2;
    let frequency = |index: usize| (-LONGEST_PERIOD.ln() * index as f32 / half as f32).exp();
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let timesteps = timesteps.to_dtype(DType::F32)?;
    let mut waves = Vec::with_capacity(timesteps.elem_count() * width);
    for timestep in timesteps.to_vec1::<f32>()? {
        waves.extend(frequencies.iter().map(|frequency| (timestep * frequency).cos()));
        waves.extend(frequencies.iter().map(|frequency| (timestep * frequency).sin()));
        waves.extend(std::iter::repeat_n(0.0, width % 2));
    }
    Ok(Tensor::from_vec(waves, (timesteps.elem_count(), width), &Device::Cpu)?.to_device(timesteps.device())?)
}
