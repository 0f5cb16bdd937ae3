//! From prompts and a latent to a latent: what a KSampler node does.

use candle_core::{DType, Tensor};

use crate::guidance::edit::Scene;
use crate::guidance::{Condition, Growth, Guidance, Guide, KeepOutside, Model};
use crate::noise::{self, Generator, Noise};
use crate::samplers::{Denoiser, Observe, Sampler, Source, Walk};
use crate::schedule::{Schedule, Span};
use crate::tensors::{divide, is_finite, repeat_to_batch, scale};
use crate::{Error, Result};

/// Everything that decides what sampling makes of a latent.
#[derive(Clone, Copy)]
pub struct SampleRequest<'a> {
    /// The network.
    pub model: Model<'a>,
    /// What the picture should show. Several share it, each in its place.
    pub positive: &'a [Condition],
    /// What it should not.
    pub negative: &'a [Condition],
    /// What to start from, as the autoencoder makes it: `[batch, channels, height, width]`, f32. Sampling happens on its
    /// device.
    pub latent: &'a Tensor,
    /// Where the latent is to change, see [`KeepOutside::new`]; everywhere if `None`.
    pub noise_mask: Option<&'a Tensor>,
    /// Whether the mask grows on the way, and how much of it, see [`KeepOutside::growing`].
    pub growth: Option<f64>,
    /// Which noise of the seed each latent gets, see [`noise::initial`].
    pub batch_index: Option<&'a [usize]>,
    /// Which noise to start from. Equal seeds give equal pictures; only the low 32 bits matter.
    pub seed: u64,
    /// Noise the latent first. Otherwise it is taken to be noisy already, from another sampling that stopped early.
    pub add_noise: bool,
    /// How far to lead away from the negative prompt; 1 ignores it.
    pub cfg: f64,
    /// The algorithm.
    pub sampler: &'static Sampler,
    /// Which noise levels it visits ...
    pub schedule: &'static Schedule,
    /// ... and which part of them.
    pub span: Span,
}

/// Samples. The result is like the latent of the request, at the autoencoder's scale.
///
/// This is ComfyUI's `common_ksampler`, with its rules for schedules ([`Span::sigmas`]), for the scale of latents (one that
/// is all zeros has none) and for seeds (the noise that a sampler adds comes from the next one). When the span comes to
/// nothing, the latent is returned as it came.
///
/// # Errors
/// - [`Error::Stopped`] when `observe` breaks off
/// - [`Error::NotFinite`] at the step that made NaN, [`Error::InputNotFinite`] for a latent or a mask that holds it
/// - [`Error::Shape`] for a latent with other channels than the model's, unless it is empty
/// - what [`Span::sigmas`], [`noise::initial`], [`Guide::new`] and the network say
pub fn sample(request: &SampleRequest<'_>, observe: Observe<'_>) -> Result<Tensor> {
    let SampleRequest { model, sampler, seed, .. } = *request;
    let latent = checked(request.latent)?;
    let sigmas = request.span.sigmas(request.schedule, model.sampling, sampler.skips_last_level)?;
    let noise = if request.add_noise {
        noise::initial(fit_channels(&latent, &model)?.dims4()?, seed, request.batch_index, latent.device())?
    } else {
        fit_channels(&latent, &model)?.zeros_like()?
    };
    walk(
        &WalkRequest {
            model,
            sides: &[request.positive, request.negative],
            guidance: Guidance::Classifier { scale: request.cfg },
            latent: &latent,
            noise: &noise,
            noise_mask: request.noise_mask,
            growth: request.growth,
            seed,
            batch_index: request.batch_index,
            walk: &Walk::from(sampler),
            sigmas: &sigmas,
        },
        observe,
    )
}

/// Everything that decides what a walk over given noise levels makes of a latent.
#[derive(Clone, Copy)]
pub struct WalkRequest<'a> {
    /// The network.
    pub model: Model<'a>,
    /// Positive prompts, negative ones, and what else the guidance takes.
    pub sides: &'a [&'a [Condition]],
    /// How their answers become one.
    pub guidance: Guidance,
    /// What to start from, as [`SampleRequest::latent`].
    pub latent: &'a Tensor,
    /// What to noise it with, of the latent's shape.
    pub noise: &'a Tensor,
    /// Where the latent is to change; everywhere if `None`.
    pub noise_mask: Option<&'a Tensor>,
    /// Whether the mask grows on the way, and how much of it.
    pub growth: Option<f64>,
    /// Decides the noise that the sampler adds.
    pub seed: u64,
    /// Which noise of the seed each latent got, if that is known.
    pub batch_index: Option<&'a [usize]>,
    /// The algorithm.
    pub walk: &'a Walk,
    /// The noise levels. With none, the latent is returned as it came.
    pub sigmas: &'a [f32],
}

/// Samples over given noise levels: what a SamplerCustom node does. The result is like the latent, at the autoencoder's scale.
///
/// # Errors
/// As [`sample`].
pub fn walk(request: &WalkRequest<'_>, observe: Observe<'_>) -> Result<Tensor> {
    let WalkRequest { model, seed, sigmas, walk, .. } = *request;
    let latent = fit_channels(&checked(request.latent)?, &model)?;
    let Some(&first) = sigmas.first() else { return Ok(latent) };
    let empty = is_empty(&latent)?;
    let latent = if empty { latent } else { scale(&latent, model.latent_scale as f32)? };
    require_growable(request)?;
    let cut;
    let noise = match model.windows {
        Some(windows) if windows.free_noise => {
            cut = windows.free_noise(request.noise, seed)?;
            &cut
        }
        _ => request.noise,
    };
    let scene = Scene { latent: &latent, mask: request.noise_mask, scale: model.latent_scale, seed };
    let fresh = if walk.fresh_mask_noise && request.noise_mask.is_some() {
        let mut generator = Generator::new(seed.wrapping_add(1));
        Some((generator.normal(latent.shape(), latent.device())?, generator))
    } else {
        None
    };
    let mut guide = Guide::of_scene(model, request.sides, request.guidance, walk.guided_apart, &scene)?.over(sigmas);
    let prepared = guide.drew();
    let left = || match &prepared {
        Some(generator) => Ok(generator.clone()),
        None => noise::after_initial(latent.dims4()?, seed, request.batch_index),
    };
    if !model.patches.is_empty() {
        guide = guide.drawing_from(match &fresh {
            Some((_, generator)) => generator.clone(),
            None => left()?,
        });
    }
    let masked = request.noise_mask.map(|mask| -> Result<KeepOutside<'_>> {
        let noise = fresh.as_ref().map_or(noise, |(noise, _)| noise);
        let last = sigmas.last().copied().unwrap_or(0.0);
        let masked = KeepOutside::new(&guide, model.sampling, mask, &latent, noise)?;
        Ok(match request.growth {
            Some(strength) => masked.growing(Growth { first, last, strength }),
            None => masked,
        })
    });
    let masked = masked.transpose()?;
    let denoiser: &dyn Denoiser = masked.as_ref().map_or(&guide, |masked| masked);

    let start = model.sampling.add_noise(&latent, noise, first, model.sampling.is_full_noise(first))?;
    let mut noise = match walk.source {
        _ if walk.enlarges.is_some() => Noise::drawn_by(left()?, latent.shape(), latent.device()),
        Source::Fresh => Noise::independent(seed, latent.shape(), latent.device()),
        Source::Path => Noise::path(seed, sigmas, latent.shape(), latent.device()),
    };
    let end = walk.run(denoiser, start, sigmas, &mut noise, observe)?;
    divide(&end, model.latent_scale as f32)
}

/// # Errors
/// [`Error::CannotGrow`] for a walk that changes the latent's size, where something has the size that it begins with.
fn require_growable(request: &WalkRequest<'_>) -> Result<()> {
    if request.walk.enlarges.is_none_or(|ratio| ratio == 1.0) {
        return Ok(());
    }
    let masked = request.sides.iter().copied().flatten().any(|condition| condition.mask.is_some());
    let fixed = [
        (request.noise_mask.is_some(), "the noise mask"),
        (request.model.edit.is_some(), "the picture that the model sees beside the latent"),
        (masked, "the mask of a prompt"),
    ];
    match fixed.into_iter().find(|(is_there, _)| *is_there) {
        Some((_, what)) => Err(Error::CannotGrow { what }),
        None => Ok(()),
    }
}

fn checked(latent: &Tensor) -> Result<Tensor> {
    let latent = latent.to_dtype(DType::F32)?;
    if is_finite(&latent)? { Ok(latent) } else { Err(Error::InputNotFinite { value: "the latent to start from" }) }
}

fn is_empty(latent: &Tensor) -> Result<bool> {
    Ok(latent.abs()?.sum_all()?.to_scalar::<f32>()? == 0.0)
}

/// A latent of as many channels as the model's: an empty one takes any number.
///
/// # Errors
/// [`Error::Shape`] for one that is not empty.
pub fn fit_channels(latent: &Tensor, model: &Model<'_>) -> Result<Tensor> {
    let channels = model.latent_channels;
    match latent.dims4()? {
        (_, found, _, _) if found == channels => Ok(latent.clone()),
        _ if is_empty(latent)? => {
            Ok(repeat_to_batch(&latent.transpose(0, 1)?, channels)?.transpose(0, 1)?.contiguous()?)
        }
        _ => Err(Error::Shape {
            layer: "sampling".to_owned(),
            expected: format!("a latent [batch, {channels}, height, width]"),
            found: latent.dims().to_vec(),
        }),
    }
}

#[cfg(test)]
mod tests;
