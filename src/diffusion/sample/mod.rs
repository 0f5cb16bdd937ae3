//! From prompts and a latent to a latent: what a KSampler node does.

use candle_core::{DType, Tensor};

use crate::guidance::{Condition, Guide, KeepOutside, Model};
use crate::noise::{self, Generator, Noise};
use crate::samplers::{Denoiser, Observe, Sampler};
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
    let latent = request.latent.to_dtype(DType::F32)?;
    if !is_finite(&latent)? {
        return Err(Error::InputNotFinite { value: "the latent to start from" });
    }
    let empty = latent.abs()?.sum_all()?.to_scalar::<f32>()? == 0.0;
    let latent = fit_channels(&latent, model.latent_channels, empty)?;
    let sigmas = request.span.sigmas(request.schedule, model.sampling, sampler.skips_last_level)?;
    let Some(&first) = sigmas.first() else { return Ok(latent) };

    let noise = if request.add_noise {
        noise::initial(latent.dims4()?, seed, request.batch_index, latent.device())?
    } else {
        latent.zeros_like()?
    };
    let latent = if empty { latent } else { scale(&latent, model.latent_scale as f32)? };
    let guide = Guide::new(model, request.positive, request.negative, request.cfg, &latent)?;
    let masked = request.noise_mask.map(|mask| {
        let noise = if sampler.fresh_mask_noise {
            Generator::new(seed.wrapping_add(1)).normal(latent.shape(), latent.device())?
        } else {
            noise.clone()
        };
        KeepOutside::new(&guide, model.sampling, mask, &latent, &noise)
    });
    let masked = masked.transpose()?;
    let denoiser: &dyn Denoiser = masked.as_ref().map_or(&guide, |masked| masked);

    let start = model.sampling.add_noise(&latent, &noise, first, model.sampling.is_full_noise(first))?;
    let mut noise = Noise::independent(seed, latent.shape(), latent.device());
    let end = (sampler.sample)(denoiser, start, &sigmas, &mut noise, observe)?;
    divide(&end, model.latent_scale as f32)
}

/// An empty latent takes any number of channels.
fn fit_channels(latent: &Tensor, channels: usize, empty: bool) -> Result<Tensor> {
    match latent.dims4()? {
        (_, found, _, _) if found == channels => Ok(latent.clone()),
        _ if empty => Ok(repeat_to_batch(&latent.transpose(0, 1)?, channels)?.transpose(0, 1)?.contiguous()?),
        _ => Err(Error::Shape {
            layer: "sampling".to_owned(),
            expected: format!("a latent [batch, {channels}, height, width]"),
            found: latent.dims().to_vec(),
        }),
    }
}

#[cfg(test)]
mod tests;
