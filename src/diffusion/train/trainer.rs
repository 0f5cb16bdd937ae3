//! The loop.

use std::ops::ControlFlow;

use candle_core::Tensor;
use rayon::prelude::*;

use super::adamw;
use super::backward::{self, Gradients, Objective as _};
use super::batch::{self, Chunk, Example};
use super::fault::Fault;
use super::layer::{Layer, Trained};
use super::probe::first_not_finite;
use super::random::{Stream, generator};
use super::settings::{Method, Settings};
use super::state::{Progress, StateFile};
use crate::error::{Error, Result};
use crate::nn::Layers as _;
use crate::schedule::{ModelSampling, Prediction};
use crate::unet::UNet;

/// What to train on, and how.
#[derive(Clone, Copy)]
pub struct TrainRequest<'a> {
    /// The network, with whatever adapters are on it already: they stay as they are, and are trained on top of.
    pub unet: &'a UNet,
    /// Its noise levels, and what it predicts.
    pub sampling: &'a ModelSampling,
    /// What the autoencoder's latents are multiplied by for it.
    pub latent_scale: f64,
    /// The pictures.
    pub subject: &'a [Example],
    /// Pictures of the class, so that the model does not take the subject for all there is of it. May be empty.
    pub class: &'a [Example],
    /// The prompt without words, for captions that are left out.
    pub empty: Option<&'a Tensor>,
    /// How.
    pub settings: &'a Settings,
    /// Where the state is kept, if it is to be.
    pub state: Option<&'a StateFile>,
}

/// How far a training is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// The step that was done, from 1.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Its loss.
    pub loss: f32,
    /// The loss on noise that stays the same, where this step measured it.
    pub validation: Option<f32>,
    /// Its learning rate.
    pub rate: f64,
}

/// Who watches a training.
pub trait Watch {
    /// A step was done. Breaking off ends the training with [`Error::Stopped`], its state kept.
    fn step(&mut self, report: &Report) -> ControlFlow<()>;

    /// The training goes on after these steps, which a process before did.
    fn resumed(&mut self, _before: &[Report]) {}

    /// It is time for sample pictures of the network as it is after `step` steps. What goes wrong with them is no reason to
    /// end a training. Breaking off, for which somebody has to ask, ends it as in [`step`](Self::step).
    fn sample(&mut self, step: usize, unet: &UNet) -> ControlFlow<()>;

    /// Something that the user should know and that stops nothing.
    fn warn(&mut self, text: String);

    /// The sample pictures so far, by step, which are kept with the state. Any shape, f32.
    fn samples(&self) -> Vec<(usize, Tensor)> {
        Vec::new()
    }

    /// A sample picture of the part of the training that was done before, in the order of the steps.
    fn restore(&mut self, _step: usize, _picture: Tensor) {}
}

/// Trains.
///
/// # Errors
/// - [`Error::Stopped`] when `watch` breaks off
/// - [`Error::Training`] with the [`Fault`]: nothing to train or to train on, numbers that cannot work, a state file of
///   another training, and a training that diverged
/// - what the network says of latents and prompts that do not fit it
pub fn train(request: &TrainRequest<'_>, watch: &mut dyn Watch) -> Result<Trained> {
    request.settings.check()?;
    if request.subject.is_empty() {
        return Err(Fault::EmptyDataset.into());
    }
    if !matches!(request.sampling.prediction(), Prediction::Epsilon | Prediction::Velocity) {
        return Err(Fault::Prediction.into());
    }
    let mut trainer = Trainer::new(*request)?;
    for note in &trainer.notes {
        watch.warn(note.clone());
    }
    trainer.resume(watch)?;
    let step = trainer.progress.step;
    if step > 0 && request.settings.samples_at(step) && !watch.samples().iter().any(|(of, _)| *of == step) {
        // It was stopped while it was drawn.
        if watch.sample(step, &trainer.unet(false)?).is_break() {
            return Err(Error::Stopped);
        }
    }
    while trainer.progress.step < request.settings.steps {
        let report = match trainer.step(watch) {
            Ok(report) => report,
            Err(error) => {
                trainer.keep(request.state, watch);
                return Err(error);
            }
        };
        let step = trainer.progress.step;
        let mut flow = watch.step(&report);
        let last = step == request.settings.steps;
        if (last || flow.is_continue()) && request.settings.samples_at(step) {
            flow = watch.sample(step, &trainer.unet(false)?);
        }
        let stops = flow.is_break() && !last;
        if let Some(state) = request.state
            && (last || stops || (state.every > 0 && step.is_multiple_of(state.every)))
            && let Err(error) = trainer.save(state, watch)
        {
            // What was learnt so far is worth more than the file.
            watch.warn(error.to_string());
        }
        if stops {
            return Err(Error::Stopped);
        }
    }
    trainer.finish()
}

struct Trainer<'a> {
    request: TrainRequest<'a>,
    layers: Vec<Layer>,
    notes: Vec<String>,
    progress: Progress,
    validation: Vec<Chunk>,
    /// The network whose trained parts follow the optimiser.
    unet: UNet,
}

impl<'a> Trainer<'a> {
    fn new(request: TrainRequest<'a>) -> Result<Self> {
        let settings = request.settings;
        let mut layers = Vec::new();
        let mut outcome = Ok(());
        let (mut chosen, mut index) = (0, 0);
        let mut skipped = Vec::new();
        request.unet.clone().visit(&mut |weight| {
            index += 1;
            if outcome.is_err() || !settings.layers.iter().any(|name| name == weight.layer()) {
                return;
            }
            chosen += 1;
            match Layer::new(&settings.method, weight, index, settings.seed) {
                Ok(Some(layer)) => layers.push(layer),
                Ok(None) => skipped.push(weight.layer().to_owned()),
                Err(error) => outcome = Err(error),
            }
        });
        outcome?;
        for name in &settings.layers {
            if !layers.iter().any(|layer| layer.name == *name) && !skipped.contains(name) {
                let names = crate::nn::layers(request.unet);
                let nearest = crate::nn::nearest(name, names.iter().map(|(name, _)| name.as_str()));
                return Err(Error::NoSuchLayer { name: name.clone(), nearest });
            }
        }
        if layers.is_empty() {
            return Err(Fault::NothingToAdapt { layers: chosen }.into());
        }
        let notes = notes(settings, &layers, &skipped);
        let items = batch::validation(&request, settings);
        let validation = if settings.validate_every > 0 { batch::chunks(&request, &items)? } else { Vec::new() };
        let slots = layers.iter().flat_map(|layer| &layer.slots);
        let progress = Progress::new(slots.map(|slot| slot.numbers.len()), settings.ema > 0.0);
        let unet = attached(request.unet, &layers, true)?;
        Ok(Self { request, layers, notes, progress, validation, unet })
    }

    /// Goes on where the state file says, if it is there.
    fn resume(&mut self, watch: &mut dyn Watch) -> Result<()> {
        let Some(state) = self.request.state else { return Ok(()) };
        let Some((progress, samples)) = state.load(&self.request, &mut self.layers)? else { return Ok(()) };
        self.progress = progress;
        watch.resumed(&self.before());
        for (step, picture) in samples {
            watch.restore(step, picture);
        }
        self.show(watch)
    }

    /// Lets the network see the numbers. Directions that depend on others are drawn anew.
    fn show(&mut self, watch: &mut dyn Watch) -> Result<()> {
        let step = self.progress.step;
        let mut drawn = generator(self.request.settings.seed, Stream::Start, usize::MAX - step);
        for layer in &mut self.layers {
            for slot in &mut layer.slots {
                let mut normal = [0.0; 16];
                let mut left = 0;
                let redrawn = slot.show(|| {
                    if left == 0 {
                        drawn.fill_normal(&mut normal);
                        left = normal.len();
                    }
                    left -= 1;
                    normal[left]
                })?;
                if redrawn {
                    let name = &layer.name;
                    watch.warn(format!(
                        "step {step}: a direction of layer `{name}` depended on others and was drawn anew"
                    ));
                }
            }
        }
        Ok(())
    }

    /// What was reported of the steps that are done.
    fn before(&self) -> Vec<Report> {
        let settings = self.request.settings;
        let report = |(index, &(loss, validation)): (usize, &(f32, Option<f32>))| Report {
            step: index + 1,
            steps: settings.steps,
            loss,
            validation,
            rate: settings.rate(index),
        };
        self.progress.losses.iter().enumerate().map(report).collect()
    }

    fn save(&self, state: &StateFile, watch: &dyn Watch) -> Result<()> {
        state.save(&self.request, &self.layers, &self.progress, &watch.samples())
    }

    /// Keeps the last good state of a training that ends with an error.
    fn keep(&self, state: Option<&StateFile>, watch: &dyn Watch) {
        let mut slots = self.layers.iter().flat_map(|layer| &layer.slots);
        let sound = slots.all(|slot| slot.numbers.iter().all(|x| x.is_finite()));
        if let Some(state) = state.filter(|_| sound && self.progress.step > 0) {
            // The error that ends the training is the one to tell.
            let _ = self.save(state, watch);
        }
    }

    /// The network with what is trained on it.
    fn unet(&self, tracked: bool) -> Result<UNet> {
        attached(self.request.unet, &self.layers, tracked)
    }

    fn step(&mut self, watch: &mut dyn Watch) -> Result<Report> {
        let settings = self.request.settings;
        let step = self.progress.step;
        let (loss, mut gradients) = self.gradients(step)?;
        let rate = settings.rate(step);
        adamw::clip(&mut gradients, settings.clip);
        let numbers = adamw::Step {
            number: step + 1,
            rate,
            betas: settings.betas,
            epsilon: settings.epsilon,
            weight_decay: settings.weight_decay,
        };
        let slots = self.layers.iter_mut().flat_map(|layer| &mut layer.slots);
        for ((slot, gradient), moments) in slots.zip(&gradients).zip(&mut self.progress.moments) {
            moments.step(&mut slot.numbers, gradient, numbers);
        }
        self.progress.step += 1;
        self.refresh(watch)?;
        let validate = settings.validate_every > 0
            && (self.progress.step.is_multiple_of(settings.validate_every) || self.progress.step == settings.steps);
        let validation = if validate { Some(self.validate()?) } else { None };
        self.progress.losses.push((loss as f32, validation));
        Ok(Report { step: self.progress.step, steps: settings.steps, loss: loss as f32, validation, rate })
    }

    /// The loss of a step and its gradients by slot, its batches summed.
    fn gradients(&self, step: usize) -> Result<(f64, Vec<Vec<f32>>)> {
        let settings = self.request.settings;
        let mut chunks = Vec::new();
        for part in 0..settings.accumulate {
            let items = batch::items(&self.request, settings, step * settings.accumulate + part);
            chunks.extend(batch::chunks(&self.request, &items)?);
        }
        let leaves: Vec<&Tensor> = self.layers.iter().flat_map(|layer| &layer.slots).map(|slot| slot.leaf()).collect();
        let run = |chunk: &Chunk| -> Result<Gradients> {
            if settings.checkpointing {
                backward::by_blocks(&self.unet, chunk, &leaves)
            } else {
                backward::whole(&self.unet, chunk, &leaves)
            }
        };
        let mut loss = 0.0;
        let mut sums: Vec<Option<Vec<f32>>> = vec![None; leaves.len()];
        // As many at a time as there are threads; added in their order, so that the sum is always the same.
        for some in chunks.chunks(rayon::current_num_threads().max(1)) {
            let parts: Vec<Gradients> = some.par_iter().map(run).collect::<Result<_>>()?;
            for (part, gradients) in parts {
                loss += part;
                for (sum, gradient) in sums.iter_mut().zip(gradients) {
                    match (sum.as_mut(), gradient) {
                        (Some(sum), Some(gradient)) => sum.iter_mut().zip(gradient).for_each(|(sum, x)| *sum += x),
                        (None, gradient) => *sum = gradient,
                        (Some(_), None) => {}
                    }
                }
            }
        }
        if !loss.is_finite() {
            return Err(self.diverged(step, &chunks)?);
        }
        let share = 1.0 / settings.accumulate as f32;
        let slots = self.layers.iter().flat_map(|layer| layer.slots.iter().map(move |slot| (layer, slot)));
        let finished = slots.zip(sums).map(|((layer, slot), sum)| {
            let name = || layer.name.clone();
            let mut sum = sum.ok_or_else(|| Fault::NoGradient { layer: name() })?;
            sum.iter_mut().for_each(|x| *x *= share);
            let gradient = slot.gradient(&sum);
            if gradient.iter().all(|x| x.is_finite()) {
                return Ok(gradient);
            }
            Err(Fault::Diverged { step: step + 1, what: "the gradient", layer: name() }.into())
        });
        Ok((loss * f64::from(share), finished.collect::<Result<_>>()?))
    }

    /// The fault of a loss that is no number, with the layer where it began.
    fn diverged(&self, step: usize, chunks: &[Chunk]) -> Result<Error> {
        let layer = first_not_finite(&self.unet(false)?, chunks)?.unwrap_or_else(|| "out".to_owned());
        Ok(Fault::Diverged { step: step + 1, what: "the output", layer }.into())
    }

    /// Lets the network see what the optimiser did.
    fn refresh(&mut self, watch: &mut dyn Watch) -> Result<()> {
        /// Steps between two retractions: seldom enough to cost nothing, often enough that a rate stays an angle.
        const RETRACT_EVERY: usize = 100;
        let (step, settings) = (self.progress.step, self.request.settings);
        for layer in &self.layers {
            if layer.slots.iter().any(|slot| slot.numbers.iter().any(|x| !x.is_finite())) {
                return Err(Fault::Diverged { step, what: "the trained tensor", layer: layer.name.clone() }.into());
            }
        }
        self.show(watch)?;
        if step.is_multiple_of(RETRACT_EVERY) {
            for slot in self.layers.iter_mut().flat_map(|layer| &mut layer.slots) {
                slot.retract()?;
            }
        }
        self.progress.average(&self.layers, settings.ema);
        Ok(())
    }

    fn validate(&self) -> Result<f32> {
        let unet = self.unet(false)?;
        let loss = |chunk: &Chunk| -> Result<f64> {
            let said = unet.forward(&chunk.x, &chunk.timesteps, &chunk.context, chunk.label.as_ref())?;
            Ok(f64::from(chunk.loss(&said)?.to_scalar::<f32>()?))
        };
        let losses: Vec<f64> = self.validation.par_iter().map(loss).collect::<Result<_>>()?;
        Ok(losses.iter().sum::<f64>() as f32)
    }

    fn finish(self) -> Result<Trained> {
        let averages = self.progress.averages.as_ref();
        let mut place = 0;
        let mut layers = Vec::new();
        for layer in &self.layers {
            let numbers: Vec<Vec<f32>> = match averages {
                Some(averages) => averages[place..place + layer.slots.len()].to_vec(),
                None => layer.slots.iter().map(|slot| slot.numbers.clone()).collect(),
            };
            place += layer.slots.len();
            layers.push(layer.finish(&numbers)?);
        }
        Ok(Trained { method: self.request.settings.method, layers, losses: self.progress.losses, notes: self.notes })
    }
}

/// A network with what is trained on it.
pub(super) fn attached(unet: &UNet, layers: &[Layer], tracked: bool) -> Result<UNet> {
    let mut attached = unet.clone();
    let mut outcome = Ok(());
    attached.visit(&mut |weight| {
        if let Some(layer) = layers.iter().find(|layer| layer.name == weight.layer())
            && outcome.is_ok()
        {
            outcome = layer.attach(weight, tracked).map(|with| *weight = with);
        }
    });
    outcome.map(|()| attached)
}

/// What the user should know before a training begins.
fn notes(settings: &Settings, layers: &[Layer], skipped: &[String]) -> Vec<String> {
    let mut notes = Vec::new();
    let Method::Para { rank, gamma, .. } = settings.method else { return notes };
    let bounded = layers.iter().filter(|layer| layer.rank() < rank).count();
    if bounded > 0 {
        notes.push(format!("gamma {gamma} bounds the rank below {rank} in {bounded} of {} layers", layers.len()));
    }
    if let Some(first) = skipped.first() {
        notes.push(format!("gamma {gamma} leaves out {} layers that are too narrow, `{first}` first", skipped.len()));
    }
    notes
}
