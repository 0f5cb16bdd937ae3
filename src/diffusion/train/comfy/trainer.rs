//! The loop.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use candle_core::{DType, Tensor};

use super::draws::one_of;
use super::objective::{Batch, Noised, Share};
use super::parameters::Parameters;
use super::settings::{AdapterSettings, rounding, to_bf16};
use crate::error::{Error, Result};
use crate::nn::{Layers as _, Precision};
use crate::noise::Generator;
use crate::schedule::{ModelSampling, Prediction};
use crate::train::Fault;
use crate::train::backward::{by_blocks, whole};
use crate::unet::UNet;

/// Pictures as the autoencoder makes them, `[batch, channels, height, width]` each.
#[derive(Debug, Clone)]
pub enum Latents {
    /// All of one size. Batches are drawn from all of them.
    Together(Tensor),
    /// Of several sizes, one each: a batch passes the network one by one.
    Apart(Vec<Tensor>),
    /// By size. Each batch is drawn from one bucket, and the more often the more there are in it.
    Buckets(Vec<Tensor>),
}

/// A picture's prompt as the network reads it.
#[derive(Debug, Clone)]
pub struct Prompted {
    /// `[1, tokens, width]`, f32.
    pub context: Tensor,
    /// What else the network is told, `[1, width]`.
    pub label: Option<Tensor>,
    /// How much it counts in a batch of several.
    pub strength: f64,
}

/// What to train on, and how.
#[derive(Clone, Copy)]
pub struct AdapterTraining<'a> {
    /// The network, with whatever adapters are on it already: they stay as they are.
    pub unet: &'a UNet,
    /// Its noise levels, and what it predicts.
    pub sampling: &'a ModelSampling,
    /// What latents are multiplied by for it, if they are together. As in ComfyUI, others are taken as they are.
    pub latent_scale: f64,
    /// The pictures.
    pub latents: &'a Latents,
    /// A prompt for each, in their order, or one for all.
    pub prompts: &'a [Prompted],
    /// The tensors of a file that the training goes on with, by name. May be empty.
    pub existing: &'a BTreeMap<String, Tensor>,
    /// How.
    pub settings: &'a AdapterSettings,
}

/// What a training gave.
#[derive(Debug, Clone)]
pub struct TrainedAdapters {
    /// The tensors of its file by name, f32; of a training in bf16, numbers that bf16 holds.
    pub tensors: Vec<(String, Tensor)>,
    /// The loss of every batch.
    pub losses: Vec<f32>,
    /// How many adapters went on with the file's.
    pub continued: usize,
}

/// Trains an adapter for every layer, and a difference for every bias and norm. `watch` gets the loss of each batch.
///
/// # Errors
/// - [`Error::Stopped`] when `watch` breaks off
/// - [`Error::Training`] with the [`Fault`]
/// - what the network says of latents and prompts that do not fit it
pub fn train_adapters(
    request: &AdapterTraining<'_>,
    watch: &mut dyn FnMut(f32) -> ControlFlow<()>,
) -> Result<TrainedAdapters> {
    let settings = request.settings;
    if settings.rank == 0 {
        return Err(Fault::InvalidRank.into());
    }
    if !matches!(request.sampling.prediction(), Prediction::Epsilon | Prediction::Velocity) {
        return Err(Fault::Prediction.into());
    }
    let mut trainer = Trainer::new(request)?;
    let mut losses = Vec::new();
    for index in 0..settings.steps * settings.accumulate {
        let loss = trainer.batch(index)?;
        if !loss.is_finite() {
            return Err(Fault::Lost { batch: index + 1, loss }.into());
        }
        losses.push(loss);
        if (index + 1).is_multiple_of(settings.accumulate) {
            trainer.step()?;
        }
        if watch(loss).is_break() {
            return Err(Error::Stopped);
        }
    }
    let named = |parameter: &super::parameters::Parameter| Ok((parameter.key.clone(), parameter.tensor()?));
    let tensors = trainer.parameters.all.iter().map(named).collect::<Result<_>>()?;
    Ok(TrainedAdapters { tensors, losses, continued: trainer.parameters.continued })
}

/// Some of the pictures, by their place among all.
struct Drawn {
    latents: Tensor,
    places: Vec<usize>,
}

struct Trainer<'a> {
    request: &'a AdapterTraining<'a>,
    /// The network that multiplies in the numbers asked for, without what is trained.
    unet: UNet,
    /// The same with it.
    attached: UNet,
    parameters: Parameters,
    latents: Latents,
    /// torch's stream.
    generator: Generator,
    /// Gradients since the last step, by parameter.
    gradients: Vec<Option<Vec<f32>>>,
}

impl<'a> Trainer<'a> {
    fn new(request: &'a AdapterTraining<'a>) -> Result<Self> {
        let settings = request.settings;
        let mut unet = request.unet.clone();
        let precision = if settings.half_network { Precision::Bf16 } else { Precision::Single };
        unet.visit(&mut |weight| *weight = weight.multiplying_in(precision));
        let latents = prepared(request)?;
        let pictures = latents.count()?;
        if pictures == 0 {
            return Err(Fault::EmptyDataset.into());
        }
        let prompts = request.prompts.len();
        if prompts != pictures && (prompts != 1 || matches!(latents, Latents::Buckets(_))) {
            return Err(Fault::Prompts { prompts, pictures }.into());
        }
        let parameters = Parameters::new(&unet, request.existing, settings)?;
        let mut generator = Generator::new(settings.seed);
        // ComfyUI draws noise for the whole collection first, which only the stream remembers.
        generator.fill_normal(&mut vec![0.0; latents.first()?.elem_count() * pictures]);
        let gradients = vec![None; parameters.all.len()];
        let attached = parameters.on(&unet)?;
        Ok(Self { request, unet, attached, parameters, latents, generator, gradients })
    }

    /// The loss of a batch, its gradients added to those before.
    fn batch(&mut self, index: usize) -> Result<f32> {
        let settings = self.request.settings;
        let drawn = self.draw()?;
        let seed = settings.seed.wrapping_add(1000 * index as u64);
        let share = 1.0 / settings.accumulate as f64;
        if let Latents::Apart(_) = self.latents {
            let share = share / drawn.len() as f64;
            let mut total = 0.0;
            for one in drawn {
                self.generator = Generator::new(seed);
                total += self.pass(&one, share)? as f32;
            }
            return Ok(total / settings.accumulate as f32 / settings.batch.min(self.latents.count()?) as f32);
        }
        self.generator = Generator::new(seed);
        let mut loss = 0.0;
        for one in drawn {
            loss += self.pass(&one, share)?;
        }
        Ok(loss as f32)
    }

    /// The pictures of a batch, those of one size together.
    fn draw(&mut self) -> Result<Vec<Drawn>> {
        let batch = self.request.settings.batch;
        let pick = |bucket: &Tensor, generator: &mut Generator, before: usize| -> Result<Drawn> {
            let mut places = generator.permutation(bucket.dim(0)?);
            places.truncate(batch);
            let rows =
                places.iter().map(|place| bucket.narrow(0, *place, 1)).collect::<candle_core::Result<Vec<_>>>()?;
            Ok(Drawn { latents: Tensor::cat(&rows, 0)?, places: places.iter().map(|place| before + place).collect() })
        };
        match &self.latents {
            Latents::Together(latents) => Ok(vec![pick(latents, &mut self.generator, 0)?]),
            Latents::Apart(latents) => {
                let mut places = self.generator.permutation(latents.len());
                places.truncate(batch);
                Ok(places
                    .iter()
                    .map(|place| Drawn { latents: latents[*place].clone(), places: vec![*place] })
                    .collect())
            }
            Latents::Buckets(buckets) => {
                let sizes = buckets.iter().map(|bucket| bucket.dim(0)).collect::<candle_core::Result<Vec<_>>>()?;
                let weights: Vec<f32> = sizes.iter().map(|size| *size as f32).collect();
                let chosen = one_of(&mut self.generator, &weights);
                let before = sizes[..chosen].iter().sum();
                Ok(vec![pick(&buckets[chosen], &mut self.generator, before)?])
            }
        }
    }

    /// The loss of some latents with noise from the stream, their gradients times `share` added to those before.
    fn pass(&mut self, drawn: &Drawn, share: f64) -> Result<f64> {
        let settings = self.request.settings;
        let mut noise = vec![0.0; drawn.latents.elem_count()];
        self.generator.fill_normal(&mut noise);
        let round = rounding(settings.half_network);
        noise.iter_mut().for_each(|x| *x = round(*x));
        let sampling = self.request.sampling;
        let mut level = |_: &usize| sampling.percent_to_sigma(f64::from(self.generator.uniform()));
        let sigmas = drawn.places.iter().map(&mut level).collect();
        let noise = Tensor::from_vec(noise, drawn.latents.shape(), drawn.latents.device())?;
        let noised = Noised { clean: drawn.latents.clone(), noise, sigmas };
        let objective = Batch::new(sampling, &noised, &self.shares(&drawn.places), settings.loss)?;
        let parameters = &self.parameters.all;
        let moving: Vec<usize> = (0..parameters.len()).filter(|place| parameters[*place].moves).collect();
        let leaves: Vec<&Tensor> = moving.iter().map(|place| parameters[*place].leaf()).collect();
        let by = if settings.checkpointing { by_blocks } else { whole };
        let (loss, gradients) = by(&self.attached, &objective, &leaves)?;
        let round = rounding(settings.half_adapters);
        for (place, gradient) in moving.into_iter().zip(gradients) {
            let gradient = gradient.ok_or_else(|| Fault::NoGradient { layer: parameters[place].key.clone() })?;
            let sum = self.gradients[place].get_or_insert_with(|| vec![0.0; gradient.len()]);
            sum.iter_mut().zip(gradient).for_each(|(sum, x)| *sum = round(*sum + round(x * share as f32)));
        }
        Ok(loss)
    }

    /// The prompts of some pictures. As in ComfyUI every picture of a batch is shown with all of them, and their mean counts.
    fn shares(&self, places: &[usize]) -> Vec<Share<'a>> {
        let prompts = self.request.prompts;
        let mut counts = BTreeMap::<usize, f64>::new();
        for place in places {
            // One for all.
            let prompt = if prompts.len() == 1 { 0 } else { *place };
            *counts.entry(prompt).or_default() += prompts[prompt].strength;
        }
        let whole: f64 = counts.values().sum();
        let share = |(prompt, count): (&usize, &f64)| {
            let Prompted { context, label, .. } = &prompts[*prompt];
            Share { context, label: label.as_ref(), share: count / whole }
        };
        counts.iter().map(share).collect()
    }

    /// Moves what is trained.
    fn step(&mut self) -> Result<()> {
        let settings = self.request.settings;
        let round = rounding(settings.half_adapters);
        for (parameter, gradient) in self.parameters.all.iter_mut().zip(&mut self.gradients) {
            // An alpha that is not trained has none.
            if let Some(gradient) = gradient.take() {
                parameter.memory.step(settings.optimizer, &mut parameter.numbers, &gradient, settings.rate, round);
                parameter.show()?;
            }
        }
        self.attached = self.parameters.on(&self.unet)?;
        Ok(())
    }
}

impl Latents {
    /// How many pictures there are.
    fn count(&self) -> Result<usize> {
        match self {
            Self::Together(latents) => Ok(latents.dim(0)?),
            Self::Apart(latents) => Ok(latents.len()),
            Self::Buckets(buckets) => buckets.iter().try_fold(0, |count, bucket| Ok(count + bucket.dim(0)?)),
        }
    }

    /// The first of them, `[1, channels, height, width]`.
    fn first(&self) -> Result<Tensor> {
        let all = match self {
            Self::Together(latents) => Some(latents),
            Self::Apart(latents) | Self::Buckets(latents) => latents.first(),
        };
        Ok(all.ok_or(Fault::EmptyDataset)?.narrow(0, 0, 1)?)
    }
}

/// The latents as they are trained on, in the numbers that the network works with.
fn prepared(request: &AdapterTraining<'_>) -> Result<Latents> {
    let half = request.settings.half_network;
    let rounded = |latents: &Tensor| -> Result<Tensor> {
        let numbers: Vec<f32> = latents.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let numbers = numbers.into_iter().map(|x| if half { to_bf16(x) } else { x }).collect();
        Ok(Tensor::from_vec::<_, f32>(numbers, latents.shape(), &candle_core::Device::Cpu)?)
    };
    let all = |latents: &[Tensor]| latents.iter().map(rounded).collect::<Result<Vec<_>>>();
    Ok(match request.latents {
        Latents::Together(latents) => Latents::Together(rounded(&(rounded(latents)? * request.latent_scale)?)?),
        Latents::Apart(latents) => Latents::Apart(all(latents)?),
        Latents::Buckets(buckets) => Latents::Buckets(all(buckets)?),
    })
}
