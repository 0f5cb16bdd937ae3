//! From noise to latents: the samplers.

use crate::error::tell;
use crate::latent::CELL;
use crate::memory::Memory;
use crate::previews::{Previews, View};
use crate::wires::{Conditioning, Guider, Latent, Model, NoiseSource, SamplerChoice};
use candle_core::Tensor;
use paraflow_diffusion::hooks::Hooks;
use paraflow_diffusion::samplers::{self, Sampler, Step};
use paraflow_diffusion::schedule::{self, Schedule, Span};
use paraflow_diffusion::{SampleRequest, WalkRequest, fit_channels, sample, walk};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};
use std::ops::ControlFlow;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<KSampler>(), NodeDef::of::<KSamplerAdvanced>()]
}

/// Turns noise into a picture, step by step, led by the prompts.
///
/// Karras et al. 2022, arXiv:2206.00364, for the walk from noise to picture; Ho and Salimans 2022, arXiv:2207.12598, for
/// the guidance. The same seed gives the same picture, and on the CPU ComfyUI's.
#[derive(Node)]
#[node(category = "sampling", compute)]
struct KSampler {
    /// The model that paints.
    model: Shared<Model>,
    /// Which noise to start from. Equal seeds give equal pictures.
    #[input(default = 0, control_after_generate)]
    seed: u64,
    /// In how many steps to paint: more is finer, and takes longer.
    #[input(default = 20, range = 1..=10_000)]
    steps: u32,
    /// How strictly to follow the prompts. 1 does not look at the negative one; very high values burn the picture.
    #[input(default = 8.0, range = 0.0..=100.0, step = 0.1, round = 0.01)]
    cfg: f64,
    /// The algorithm that walks from noise to picture.
    #[input(choices = samplers::names)]
    sampler_name: Choice<&'static Sampler>,
    /// How the steps are spread over the noise levels.
    #[input(choices = schedule::names)]
    scheduler: Choice<&'static Schedule>,
    /// What the picture should show.
    positive: Shared<Conditioning>,
    /// What it should not show.
    negative: Shared<Conditioning>,
    /// The latent to start from: an empty one, or a picture to change.
    latent_image: Shared<Latent>,
    /// How much of a picture to repaint: 1 all of it, lower values keep more of what is there.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    denoise: f64,
}

impl Run for KSampler {
    type Output = Latent;

    fn run(self, cx: &Context<'_>) -> Result<Latent> {
        let sampling = Sampling {
            model: &self.model,
            positive: &self.positive,
            negative: &self.negative,
            latent: &self.latent_image,
            cfg: self.cfg,
            seed: self.seed,
            add_noise: true,
            sampler: self.sampler_name.into_inner(),
            schedule: self.scheduler.into_inner(),
            span: Span { denoise: self.denoise, ..Span::whole(self.steps as usize) },
        };
        sampling.run(cx)
    }
}

/// `enable` or `disable`.
#[derive(Clone, Copy, PartialEq)]
enum Switch {
    Enable,
    Disable,
}

impl std::str::FromStr for Switch {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "enable" => Ok(Self::Enable),
            "disable" => Ok(Self::Disable),
            _ => Err("neither enable nor disable"),
        }
    }
}

/// As `KSampler`, but a part of the steps: one sampler may begin a picture and another finish it.
#[derive(Node)]
#[node(category = "sampling", display_name = "KSampler (Advanced)", compute)]
struct KSamplerAdvanced {
    /// The model that paints.
    model: Shared<Model>,
    /// `enable` noises the latent first. `disable` takes it as it comes, from a sampler that left noise in it.
    #[input(choices = ["enable", "disable"])]
    add_noise: Choice<Switch>,
    /// Which noise to start from. Equal seeds give equal pictures.
    #[input(default = 0, control_after_generate)]
    noise_seed: u64,
    /// In how many steps the whole picture is painted, of which this sampler does a part.
    #[input(default = 20, range = 1..=10_000)]
    steps: u32,
    /// How strictly to follow the prompts. 1 does not look at the negative one; very high values burn the picture.
    #[input(default = 8.0, range = 0.0..=100.0, step = 0.1, round = 0.01)]
    cfg: f64,
    /// The algorithm that walks from noise to picture.
    #[input(choices = samplers::names)]
    sampler_name: Choice<&'static Sampler>,
    /// How the steps are spread over the noise levels.
    #[input(choices = schedule::names)]
    scheduler: Choice<&'static Schedule>,
    /// What the picture should show.
    positive: Shared<Conditioning>,
    /// What it should not show.
    negative: Shared<Conditioning>,
    /// The latent to start from.
    latent_image: Shared<Latent>,
    /// The first step to do, counted from 0.
    #[input(default = 0, range = 0..=10_000)]
    start_at_step: u32,
    /// The first step not to do.
    #[input(default = 10_000, range = 0..=10_000)]
    end_at_step: u32,
    /// `enable` leaves the noise of the steps that are not done in the latent, for another sampler to go on.
    #[input(choices = ["disable", "enable"])]
    return_with_leftover_noise: Choice<Switch>,
}

impl Run for KSamplerAdvanced {
    type Output = Latent;

    fn run(self, cx: &Context<'_>) -> Result<Latent> {
        let sampling = Sampling {
            model: &self.model,
            positive: &self.positive,
            negative: &self.negative,
            latent: &self.latent_image,
            cfg: self.cfg,
            seed: self.noise_seed,
            add_noise: *self.add_noise == Switch::Enable,
            sampler: self.sampler_name.into_inner(),
            schedule: self.scheduler.into_inner(),
            span: Span {
                start_step: Some(self.start_at_step as usize),
                end_step: Some(self.end_at_step as usize),
                leftover_noise: *self.return_with_leftover_noise == Switch::Enable,
                ..Span::whole(self.steps as usize)
            },
        };
        sampling.run(cx)
    }
}

/// What both samplers do, each with its own inputs.
struct Sampling<'a> {
    model: &'a Model,
    positive: &'a Conditioning,
    negative: &'a Conditioning,
    latent: &'a Latent,
    cfg: f64,
    seed: u64,
    add_noise: bool,
    sampler: &'static Sampler,
    schedule: &'static Schedule,
    span: Span,
}

impl Sampling<'_> {
    fn run(&self, cx: &Context<'_>) -> Result<Latent> {
        cx.check()?;
        warn_of_idle_hooks(self.model, [self.positive, self.negative], cx)?;
        let batch_limit = batch_limit(self.model, self.latent, 2, None, cx)?;
        let pixels = pixels(self.latent);
        let corrections = self.model.corrections_at(pixels, self.seed).map_err(tell)?;
        let positive = self.positive.conditions(self.model, pixels, false, self.seed).map_err(tell)?;
        let negative = self.negative.conditions(self.model, pixels, true, self.seed).map_err(tell)?;
        let request = SampleRequest {
            model: self.model.as_guided(&corrections, batch_limit),
            positive: &positive,
            negative: &negative,
            latent: self.latent.samples(),
            noise_mask: self.latent.noise_mask(),
            growth: self.model.mask_growth,
            batch_index: self.latent.batch_index(),
            seed: self.seed,
            add_noise: self.add_noise,
            cfg: self.cfg,
            sampler: self.sampler,
            schedule: self.schedule,
            span: self.span,
        };
        let mut watch = watching(self.model, cx);
        let samples = sample(&request, &mut |step, denoised| watch(step, denoised)).map_err(tell)?;
        self.latent.with_samples(samples).map_err(tell)
    }
}

/// Tells of each step, with a preview where there are any.
fn watching<'a>(model: &'a Model, cx: &'a Context<'_>) -> impl FnMut(Step, &Tensor) -> ControlFlow<()> + 'a {
    let previews = cx.services().get::<Previews>();
    let view = previews.map(|previews| View::of(model, previews, cx.services()));
    move |step: Step, denoised: &Tensor| {
        // A preview that cannot be drawn is no reason to lose the picture.
        if let Some(jpeg) = previews.zip(view.as_ref()).and_then(|(previews, view)| previews.draw(denoised, view).ok())
        {
            cx.preview(jpeg, paraflow_engine::ImageFormat::Jpeg);
        }
        match cx.progress(step.index as u32 + 1, step.total as u32) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// Tells of hooks on prompts that change nothing of the model, each once.
fn warn_of_idle_hooks<'a>(
    model: &Model,
    sides: impl IntoIterator<Item = &'a Conditioning>,
    cx: &Context<'_>,
) -> Result<()> {
    let hooks = sides.into_iter().flat_map(|side| &side.0).map(|prompt| &prompt.condition.hooks);
    let all = hooks.fold(Hooks::default(), |all, hooks| all.and(hooks));
    for hook in all.changes() {
        if hook.is_idle_on(&model.unet).map_err(tell)? {
            cx.warn(format!(
                "the hook of LoRA `{}` fits no layer of this model: prompts with it are drawn without it",
                hook.name
            ));
        }
    }
    Ok(())
}

/// Width and height of a latent in pixels.
fn pixels(latent: &Latent) -> (u32, u32) {
    let (_, _, rows, columns) = latent.dims();
    ((columns * CELL) as u32, (rows * CELL) as u32)
}

/// A sampling whose parts come from nodes of their own.
pub(crate) struct Job<'a> {
    pub(crate) guider: &'a Guider,
    pub(crate) latent: &'a Latent,
    pub(crate) noise: &'a NoiseSource,
    pub(crate) seed: u64,
    pub(crate) sampler: &'a SamplerChoice,
    pub(crate) sigmas: &'a [f32],
}

/// Samples. Beside the result comes what the model last took to be the clean latent.
pub(crate) fn run(job: &Job<'_>, cx: &Context<'_>) -> Result<(Latent, Latent)> {
    cx.check()?;
    let (guider, model) = (job.guider, &job.guider.model);
    warn_of_idle_hooks(model, &guider.sides, cx)?;
    let pixels = pixels(job.latent);
    let corrections = model.corrections_at(pixels, job.seed).map_err(tell)?;
    let guided =
        model.as_guided(&corrections, batch_limit(model, job.latent, guider.sides.len(), job.sampler.0.enlarges, cx)?);
    // The second side is the negative one.
    let side = |(i, side): (usize, &Conditioning)| side.conditions(model, pixels, i == 1, job.seed);
    let sides = guider.sides.iter().enumerate().map(side).collect::<Result<Vec<_>, _>>().map_err(tell)?;
    let sides: Vec<&[_]> = sides.iter().map(Vec::as_slice).collect();
    let fitted = fit_channels(job.latent.samples(), &guided).map_err(tell)?;
    let latent = job.latent.with_samples(fitted).map_err(tell)?;
    let noise = job.noise.draw(&latent).map_err(tell)?;
    let request = WalkRequest {
        model: guided,
        sides: &sides,
        guidance: guider.guidance,
        latent: latent.samples(),
        noise: &noise,
        noise_mask: latent.noise_mask(),
        growth: model.mask_growth,
        seed: job.seed,
        batch_index: latent.batch_index(),
        walk: &job.sampler.0,
        sigmas: job.sigmas,
    };
    let mut watch = watching(model, cx);
    let mut last = None;
    let samples = walk(&request, &mut |step, denoised| {
        last = Some(denoised.clone());
        watch(step, denoised)
    });
    let samples = latent.with_samples(samples.map_err(tell)?).map_err(tell)?;
    let denoised = match last {
        Some(last) => latent.with_samples((last / model.latent_scale).map_err(tell)?).map_err(tell)?,
        None => samples.clone(),
    };
    Ok((samples, denoised))
}

/// How many latents may go through the model at once: all sides' where there is room, else one side's. Latents may become
/// larger on the way.
///
/// # Errors
/// There is no room for that either.
fn batch_limit(model: &Model, latent: &Latent, sides: usize, enlarges: Option<f64>, cx: &Context<'_>) -> Result<usize> {
    /// How many numbers a latent cell takes while the UNet works, for each channel of its first level. Measured: 26
    /// with one block a level, at 512 and 1024 pixels; more blocks keep more.
    const NUMBERS: usize = 32;
    let (batch, _, rows, columns) = latent.dims();
    let [rows, columns] = [rows, columns].map(|cells| (cells as f64 * enlarges.unwrap_or(1.0).max(1.0)) as usize);
    // Of a batch that is shown in windows, no more than one window goes through it.
    let batch = model.windows.filter(|windows| windows.dim == 0).map_or(batch, |windows| batch.min(windows.length));
    let numbers = (batch * rows * columns) as u64 * (model.unet.config().channels * NUMBERS) as u64;
    let needed = numbers.saturating_mul(size_of::<f32>() as u64);
    let (width, height) = (columns * model.layout.cell, rows * model.layout.cell);
    let memory = Memory::of(cx.services());
    memory.require(needed, || format!("sampling {batch} x {width} x {height} pixels")).map_err(tell)?;
    let room_for_all = memory.require(needed.saturating_mul(sides as u64), String::new).is_ok();
    Ok(if room_for_all { usize::MAX } else { batch })
}
