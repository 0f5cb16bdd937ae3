//! Guidance: what a model makes of prompts, as a denoiser that samplers can walk with.
//!
//! A [`Guide`] asks the network about the positive and the negative prompts, weighs their regions against each other,
//! and leads away from the negative ones (Ho and Salimans 2022, arXiv:2207.12598). [`KeepOutside`] confines it to a mask.
//! Knows no text: a prompt comes as the tensor that an encoder made of it.

mod batch;
mod correct;
pub(crate) mod edit;
mod label;
mod mask;
mod region;

use candle_core::Tensor;

pub use edit::{Edit, Picture};
pub use label::{Label, PictureSize};
pub use mask::{Growth, KeepOutside};
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
    /// What it asks of guidance.
    pub corrections: &'a [Correction],
    /// What else it sees beside the noisy latent.
    pub edit: Option<Edit>,
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
    /// The picture to change, for networks that see one.
    pub picture: Picture,
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
        Self {
            context,
            label: None,
            picture: Picture::default(),
            strength: 1.0,
            area: None,
            mask: None,
            start: 0.0,
            end: 1.0,
        }
    }
}

/// How the answers to several groups of prompts become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Guidance {
    /// Positive and negative prompts: `negative + (positive − negative)·scale`. At a scale of 1 the network is not asked about
    /// the negative ones.
    Classifier {
        /// How far to lead away from the negative prompts.
        scale: f64,
    },
    /// Two groups of positive prompts and the negative ones; the first leads away from the second by `of_first`, the second
    /// away from the negative ones by `of_second`. Brooks et al. 2022, arXiv:2211.09800.
    Dual {
        /// How far the first leads away from the second.
        of_first: f64,
        /// How far the second leads away from the negative prompts.
        of_second: f64,
        /// The first leads away from what guidance made of the second.
        nested: bool,
    },
    /// Positive, negative and empty prompts: only what of the negative direction is square to the positive one counts.
    /// Armandpour et al. 2023, arXiv:2304.04968.
    Perpendicular {
        /// How far to lead away from the empty prompt.
        scale: f64,
        /// How much the negative prompts count in that.
        negative: f64,
    },
}

/// A change of guidance that a model asks for, applied in their order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Correction {
    /// Guidance in velocities, brought back to the deviation of the positive answer by that share. Lin et al. 2023,
    /// arXiv:2305.08891, section 3.4. Takes the place of plain guidance.
    Rescale(f64),
    /// Perp-Neg with an empty prompt of the model's own is [`Guidance::Perpendicular`]; this is CFG-Zero*, which scales the
    /// negative answer to fit the positive one. Fan et al. 2025, arXiv:2503.18886.
    ZeroStar,
    /// The guided answer is made no longer than the positive one, pixel by pixel, times a strength.
    Norm(f64),
}

/// The denoiser of guided sampling.
pub struct Guide<'a> {
    model: Model<'a>,
    /// Positive prompts first. A side without prompts is not asked about, and taken for 0.
    sides: Vec<Vec<Entry>>,
    guidance: Guidance,
}

impl<'a> Guide<'a> {
    /// Prepares prompts for sampling latents like `latent`: positive, negative, and what else the guidance takes. With `apart`,
    /// the network is asked about the negative ones even where guidance does not need them.
    ///
    /// # Shapes
    /// `latent` is `[batch, channels, height, width]`; prompts are moved to its device.
    ///
    /// # Errors
    /// [`Error::AreaOutside`](crate::Error::AreaOutside); a prompt or a mask of another rank than it should have.
    pub fn new(
        model: Model<'a>,
        sides: &[&[Condition]],
        guidance: Guidance,
        apart: bool,
        latent: &Tensor,
    ) -> Result<Self> {
        Self::of_scene(model, sides, guidance, apart, &edit::Scene { latent, mask: None, scale: model.latent_scale })
    }

    pub(crate) fn of_scene(
        model: Model<'a>,
        sides: &[&[Condition]],
        guidance: Guidance,
        apart: bool,
        scene: &edit::Scene<'_>,
    ) -> Result<Self> {
        let mut sides = region::prepare(sides, model.sampling, scene.latent)?;
        let needless = match guidance {
            Guidance::Classifier { scale } => (scale - 1.0).abs() <= 1e-9 * scale.abs().max(1.0),
            Guidance::Dual { .. } | Guidance::Perpendicular { .. } => false,
        };
        if needless
            && !apart
            && let Some(negative) = sides.get_mut(1)
        {
            negative.clear();
        }
        if let Some(edit) = model.edit {
            for entry in sides.iter_mut().flatten() {
                entry.beside = Some(edit.channels(&entry.picture, scene)?);
            }
        }
        Ok(Self { model, sides, guidance })
    }

    fn combine(&self, answers: &[Tensor], x: &Tensor, sigma: f32) -> Result<Tensor> {
        let lead = |from: &Tensor, to: &Tensor, scale: f64| add_scaled(from, &(to - from)?, scale as f32);
        match (self.guidance, answers) {
            (Guidance::Classifier { scale }, [positive, negative, ..]) => {
                let plain = || lead(negative, positive, scale);
                let rescaled = self.model.corrections.iter().find_map(|correction| match correction {
                    Correction::Rescale(share) => Some(*share),
                    Correction::ZeroStar | Correction::Norm(_) => None,
                });
                let mut guided = match rescaled {
                    Some(share) => correct::rescale([positive, negative], x, sigma, scale, share)?,
                    None => plain()?,
                };
                for correction in self.model.corrections {
                    guided = correct::after(*correction, guided, [positive, negative], x, scale)?;
                }
                Ok(guided)
            }
            (Guidance::Dual { of_first, of_second, nested }, [first, negative, second, ..]) => {
                if nested {
                    let middle = lead(second, first, of_first)?;
                    return lead(negative, &middle, of_second);
                }
                let middle = lead(negative, second, of_second)?;
                add_scaled(&middle, &(first - second)?, of_first as f32)
            }
            (Guidance::Perpendicular { scale, negative: weight }, [positive, negative, empty, ..]) => {
                correct::perpendicular([positive, negative, empty], scale, weight)
            }
            (_, [only, ..]) => Ok(only.clone()),
            (_, []) => Ok(x.clone()),
        }
    }
}

impl Denoiser for Guide<'_> {
    fn denoise(&self, x: &Tensor, sigma: f32) -> Result<Tensor> {
        Ok(self.denoise_apart(x, sigma)?[0].clone())
    }

    fn denoise_apart(&self, x: &Tensor, sigma: f32) -> Result<[Tensor; 2]> {
        let sides: Vec<&[Entry]> = self.sides.iter().map(Vec::as_slice).collect();
        let answers = batch::denoise(&self.model, &sides, x, sigma)?;
        let negative = answers.get(1).cloned().unwrap_or_else(|| x.clone());
        let guided = self.combine(&answers, x, sigma)?;
        Ok([guided, negative])
    }
}
