//! Guidance: what a model makes of prompts, as a denoiser that samplers can walk with.
//!
//! A [`Guide`] asks the network about the positive and the negative prompts, weighs their regions against each other,
//! and leads away from the negative ones (Ho and Salimans 2022, arXiv:2207.12598). [`KeepOutside`] confines it to a mask.
//! Knows no text: a prompt comes as the tensor that an encoder made of it.

mod batch;
mod mask;
mod region;

use candle_core::Tensor;

pub use mask::KeepOutside;
pub use region::{Area, Mask};

use crate::Result;
use crate::samplers::Denoiser;
use crate::schedule::ModelSampling;
use crate::tensors::add_scaled;
use crate::unet::UNet;
use region::Entry;

/// A network that predicts what its [`ModelSampling`] says of a noisy latent.
pub trait NoiseModel {
    /// Its prediction.
    ///
    /// # Shapes
    /// - `x`: `[batch, channels, height, width]`, f32, already scaled to what the network expects; so is the result
    /// - `timesteps`: `[batch]`, f32
    /// - `context`: the prompt, `[batch, tokens, width]`, f32
    /// - `label`: `[batch, width]`, f32, for networks that take one
    ///
    /// # Errors
    /// A value does not fit the network, or there is no room for its work.
    fn predict(&self, x: &Tensor, timesteps: &Tensor, context: &Tensor, label: Option<&Tensor>) -> Result<Tensor>;
}

impl NoiseModel for UNet {
    fn predict(&self, x: &Tensor, timesteps: &Tensor, context: &Tensor, label: Option<&Tensor>) -> Result<Tensor> {
        self.forward(x, timesteps, context, label)
    }
}

/// A network with all that sampling must know of it.
#[derive(Clone, Copy)]
pub struct Model<'a> {
    /// The network.
    pub network: &'a dyn NoiseModel,
    /// Its noise levels and its parameterisation.
    pub sampling: &'a ModelSampling,
    /// What the autoencoder's latents are multiplied by for it.
    pub latent_scale: f64,
    /// Channels of its latents.
    pub latent_channels: usize,
    /// How many latents may go through the network at once, if memory calls for a limit. Results differ by rounding only.
    pub batch_limit: usize,
}

/// A prompt, and where, when and how strongly it counts.
#[derive(Clone, Debug)]
pub struct Condition {
    /// What the text encoder made of it: `[1 or batch, tokens, width]`, f32.
    pub context: Tensor,
    /// What else the network is told, `[1 or batch, width]`, f32, for networks that take it.
    pub label: Option<Tensor>,
    /// Its weight among the prompts that share a place. Alone in its place, it has all of it.
    pub strength: f64,
    /// Only here: the network sees nothing else.
    pub area: Option<Area>,
    /// Here more, there less, of what the network makes of the whole.
    pub mask: Option<Mask>,
    /// From this share of the way on, 0 to 1.
    pub start: f64,
    /// Up to this share of the way, 0 to 1.
    pub end: f64,
}

impl Condition {
    /// A prompt for the whole picture, all the way.
    #[must_use]
    pub fn new(context: Tensor) -> Self {
        Self { context, label: None, strength: 1.0, area: None, mask: None, start: 0.0, end: 1.0 }
    }
}

/// The denoiser of guided sampling.
pub struct Guide<'a> {
    model: Model<'a>,
    positive: Vec<Entry>,
    /// Empty where it would have no effect.
    negative: Vec<Entry>,
    scale: f64,
}

impl<'a> Guide<'a> {
    /// Prepares prompts for sampling latents like `latent`, with guidance of strength `scale`: 1 follows the positive
    /// prompts alone, and does not ask the network about the negative ones.
    ///
    /// # Shapes
    /// `latent` is `[batch, channels, height, width]`; prompts are moved to its device.
    ///
    /// # Errors
    /// [`Error::AreaOutside`](crate::Error::AreaOutside); a prompt or a mask of another rank than it should have.
    pub fn new(
        model: Model<'a>,
        positive: &[Condition],
        negative: &[Condition],
        scale: f64,
        latent: &Tensor,
    ) -> Result<Self> {
        let (positive, mut negative) = region::prepare(positive, negative, model.sampling, latent)?;
        if (scale - 1.0).abs() <= 1e-9 * scale.abs().max(1.0) {
            negative.clear();
        }
        Ok(Self { model, positive, negative, scale })
    }
}

impl Denoiser for Guide<'_> {
    /// `negative + (positive − negative)·scale`.
    fn denoise(&self, x: &Tensor, sigma: f32) -> Result<Tensor> {
        let [positive, negative] = batch::denoise(&self.model, [&self.positive, &self.negative], x, sigma)?;
        add_scaled(&negative, &(positive - &negative)?, self.scale as f32)
    }
}
