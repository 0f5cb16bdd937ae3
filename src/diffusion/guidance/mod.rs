//! Guidance: what a model makes of prompts, as a denoiser that samplers can walk with.
//!
//! A [`Guide`] asks the network about the positive and the negative prompts, weighs their regions against each other,
//! and leads away from the negative ones (Ho and Salimans 2022, arXiv:2207.12598). [`KeepOutside`] confines it to a mask.
//! Knows no text: a prompt comes as the tensor that an encoder made of it.

mod batch;
mod before;
mod control;
mod correct;
pub(crate) mod edit;
mod label;
mod mask;
mod operation;
mod region;
mod reuse;
mod watched;
mod windows;

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::Tensor;

pub use control::{Control, ControlKind};
pub use edit::{Edit, Picture};
pub use label::{Label, PictureSize, SeenPicture, seen, told_level};
pub use mask::{Growth, KeepOutside};
pub use operation::Operation;
pub use region::{Area, Mask};
pub use reuse::Reuse;
pub use windows::{Fuse, Spread, Windows};

use crate::hooks::{Hooked, Hooks, Range};
use crate::noise::Generator;
use crate::samplers::Denoiser;
use crate::schedule::ModelSampling;
use crate::tensors::add_scaled;
use crate::unet::{Grounding, Middle, Pass, Patch, UNet};
use crate::{Error, Result};
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
    /// - `pass`: what else comes to this evaluation from outside
    ///
    /// # Errors
    /// A value does not fit the network, or there is no room for its work.
    fn predict(
        &self,
        x: &Tensor,
        timesteps: &Tensor,
        context: &Tensor,
        label: Option<&Tensor>,
        pass: &Pass<'_>,
    ) -> Result<Tensor>;

    /// The UNet that it is, for control networks that are made of one.
    fn unet(&self) -> Option<&UNet> {
        None
    }
}

impl NoiseModel for UNet {
    fn unet(&self) -> Option<&UNet> {
        Some(self)
    }

    fn predict(
        &self,
        x: &Tensor,
        timesteps: &Tensor,
        context: &Tensor,
        label: Option<&Tensor>,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        self.forward_in(x, timesteps, context, label, pass)
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
    /// What changes the network's work.
    pub patches: &'a [Arc<dyn Patch>],
    /// What else it sees beside the noisy latent.
    pub edit: Option<Edit>,
    /// How latents are cut for it, if they are.
    pub windows: Option<Windows>,
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
    /// What a control network sees beside it.
    pub control: Option<Arc<Control>>,
    /// What it reads instead of the prompt, `[1 or batch, tokens, width]`.
    pub control_context: Option<Tensor>,
    /// Whether that network also tells prompts of the other sides that have none of their own.
    pub control_everywhere: bool,
    /// What is to be in which boxes.
    pub grounding: Option<Arc<Grounding>>,
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
    /// The part of the way that its words were encoded for, where hooks on the text encoder change on it. It counts beside
    /// `start` and `end`.
    pub encoded_for: Range,
    /// What changes the network's weights for it.
    pub hooks: Hooks,
    /// It counts only where the other prompts of its side leave room, and as much as they leave.
    pub fills_in: bool,
    /// What drew the noise in its label, as it was left.
    pub drew: Option<Arc<Generator>>,
}

impl Condition {
    /// A prompt for the whole picture, all the way.
    #[must_use]
    pub fn new(context: Tensor) -> Self {
        Self {
            context,
            label: None,
            picture: Picture::default(),
            control: None,
            control_context: None,
            control_everywhere: false,
            grounding: None,
            strength: 1.0,
            area: None,
            mask: None,
            start: 0.0,
            end: 1.0,
            encoded_for: [0.0, 1.0],
            hooks: Hooks::default(),
            fills_in: false,
            drew: None,
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
#[derive(Clone, Debug)]
pub enum Correction {
    /// Guidance in velocities, brought back to the deviation of the positive answer by that share. Lin et al. 2023,
    /// arXiv:2305.08891, section 3.4. Takes the place of plain guidance.
    Rescale(f64),
    /// CFG-Zero*: scales the negative answer to fit the positive one. Fan et al. 2025, arXiv:2503.18886.
    ZeroStar,
    /// The guided answer is made no longer than the positive one, pixel by pixel, times a strength.
    Norm(f64),
    /// Leads away by that much from what the network says with the self-attention of its middle passing values through. Ahn et
    /// al. 2024, arXiv:2403.17377.
    PerturbedAttention(f64),
    /// Leads away from what the network says of its own answer to the negative prompts, blurred where it looks most. Hong et
    /// al. 2023, arXiv:2210.00939.
    SelfAttention {
        /// How far.
        scale: f64,
        /// Deviation of the blur, in cells.
        blur: f64,
    },
    /// Only what of the negative direction is square to the positive one counts, from an empty prompt of the model's own, as
    /// [`Guidance::Perpendicular`]. Takes the place of plain guidance.
    Perpendicular {
        /// The empty prompt.
        empty: Vec<Condition>,
        /// How much the negative prompts count.
        negative: f64,
    },
    /// An operation on what the positive answer has beyond the negative one.
    Operation(Operation),
    /// Guidance goes less along the positive answer, no further than a length, and goes on as at earlier steps. Sadat et al.
    /// 2024, arXiv:2410.02416.
    Projected {
        /// How much of what goes along the positive answer stays.
        eta: f64,
        /// The greatest length of guidance; 0 for any.
        longest: f64,
        /// How much of the guidance of earlier steps is added.
        momentum: f64,
    },
    /// Leaves of the negative answer what it shares with the positive one. Kwon et al. 2025, arXiv:2503.18137.
    Damped,
    /// Multiplies low and high frequencies of guidance by different numbers. Huang et al. 2025, arXiv:2504.02154.
    Frequencies {
        /// For low frequencies.
        low: f64,
        /// For high ones.
        high: f64,
        /// How many frequencies on both sides of 0 are low.
        cutoff: usize,
    },
    /// Leads further along the positive answer where guidance and the negative one differ.
    Direction,
    /// Divides the noise that the guided answer sees by a number. Ning et al. 2023, arXiv:2308.15321.
    Noise(f64),
    /// The scale of guidance changes over the batch, as over the frames of a video, from a smallest one to that which was asked
    /// for, and where it is a triangle back again. Takes the place of plain guidance.
    Ramp {
        /// The scale of the first latent.
        least: f64,
        /// Whether the last latent has it too.
        triangle: bool,
    },
    /// Guidance only below a noise level, and its answer no longer than the positive one times a number; 0 for any length. Takes
    /// the place of plain guidance.
    Renormed {
        /// The level.
        below: f64,
        /// The number.
        longest: f64,
    },
    /// Some evaluations are left out, and what was found at the last one that was not is used again.
    Reused(Reuse),
    /// Weighs the guided answer against the noisy latent by the noise level. Equation 6 of arXiv:2510.01184.
    Temporal {
        /// Below 1 for more detail, above for less.
        k: f64,
        /// From which noise level on.
        sigma: f64,
    },
}

impl Correction {
    /// Whether it takes the place of plain guidance; of several, the last does.
    #[must_use]
    pub fn replaces_guidance(&self) -> bool {
        matches!(self, Self::Rescale(_) | Self::Perpendicular { .. } | Self::Ramp { .. } | Self::Renormed { .. })
    }

    /// Whether the negative prompts have to be asked about even where guidance does not need them.
    fn needs_negative(&self) -> bool {
        matches!(self, Self::SelfAttention { .. })
    }
}

/// The denoiser of guided sampling.
pub struct Guide<'a> {
    model: Model<'a>,
    /// Positive prompts first. A side without prompts is not asked about, and taken for 0.
    sides: Vec<Vec<Entry>>,
    guidance: Guidance,
    /// The prompts of [`Correction::Perpendicular`].
    empty: Vec<Entry>,
    /// Where patches draw from.
    random: RefCell<Generator>,
    /// What [`Correction::Projected`] remembers, by its place among the corrections.
    momenta: RefCell<Vec<before::Momentum>>,
    /// What [`Correction::Reused`] found at earlier steps: of the network, and of all of guidance.
    reused: RefCell<Option<reuse::Answers>>,
    reused_whole: RefCell<Option<reuse::Whole>>,
    /// The networks that prompts with hooks are asked with.
    hooked: RefCell<Hooked>,
    /// The noise levels of the sampling, by which windows move.
    levels: Vec<f32>,
    /// What drew the last noise of prompts, as it was left.
    drew: Option<Arc<Generator>>,
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
        Self::of_scene(
            model,
            sides,
            guidance,
            apart,
            &edit::Scene { latent, mask: None, scale: model.latent_scale, seed: 0 },
        )
    }

    pub(crate) fn of_scene(
        model: Model<'a>,
        sides: &[&[Condition]],
        guidance: Guidance,
        apart: bool,
        scene: &edit::Scene<'_>,
    ) -> Result<Self> {
        let mut drew = None;
        for condition in sides.iter().copied().flatten() {
            let for_picture = model.edit.map(|edit| edit.drew(&condition.picture, scene)).transpose()?.flatten();
            drew = for_picture.map(Arc::new).or_else(|| condition.drew.clone()).or(drew);
        }
        let mut sides = region::prepare(sides, model.sampling, scene.latent)?;
        let apart = apart || model.corrections.iter().any(Correction::needs_negative);
        let is_one = |scale: f64| (scale - 1.0).abs() <= 1e-9 * scale.abs().max(1.0);
        if !apart {
            let mut needless = |side: usize| sides.get_mut(side).into_iter().for_each(Vec::clear);
            match guidance {
                Guidance::Classifier { scale } if is_one(scale) => needless(1),
                Guidance::Dual { of_first, of_second, nested: false } if is_one(of_second) => {
                    if is_one(of_first) {
                        needless(2);
                    }
                    needless(1);
                }
                Guidance::Perpendicular { scale, negative: 0.0 } => {
                    if is_one(scale) {
                        needless(2);
                    }
                    needless(1);
                }
                _ => {}
            }
        }
        let empty = model.corrections.iter().rev().find_map(|correction| match correction {
            Correction::Perpendicular { empty, .. } => Some(region::prepare(&[empty], model.sampling, scene.latent)),
            _ => None,
        });
        let mut empty = empty.transpose()?.and_then(|mut sides| sides.pop()).unwrap_or_default();
        if let Some(edit) = model.edit {
            for entry in sides.iter_mut().flatten().chain(&mut empty) {
                entry.beside = Some(edit.channels(&entry.picture, scene)?);
            }
        }
        let momenta = model.corrections.iter().map(|_| before::Momentum::default()).collect();
        let (random, momenta) = (RefCell::new(Generator::new(0)), RefCell::new(momenta));
        let reuse = model.corrections.iter().rev().find_map(|correction| match correction {
            Correction::Reused(reuse) => Some(*reuse),
            _ => None,
        });
        let answers = reuse.filter(|reuse| !reuse.whole).map(|reuse| reuse::Answers::new(reuse, model.sampling));
        let whole = reuse.filter(|reuse| reuse.whole).map(|reuse| reuse::Whole::new(reuse, model.sampling));
        let (reused, reused_whole) = (RefCell::new(answers), RefCell::new(whole));
        let (hooked, levels) = (RefCell::default(), Vec::new());
        Ok(Self { model, sides, guidance, empty, random, momenta, reused, reused_whole, hooked, levels, drew })
    }

    /// The same for a sampling over these noise levels, which windows and the keyframes of hooks go by.
    pub(crate) fn over(self, levels: &[f32]) -> Self {
        let highest = levels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        Self { hooked: RefCell::new(Hooked::from(highest)), levels: levels.to_vec(), ..self }
    }

    /// What patches and growing latents draw from in ComfyUI, where preparing the prompts drew anything: its generator is one for
    /// all, and begun anew for each noise that has a seed.
    pub(crate) fn drew(&self) -> Option<Generator> {
        self.drew.as_deref().cloned()
    }

    /// The same with patches that draw from this generator.
    pub(crate) fn drawing_from(self, generator: Generator) -> Self {
        Self { random: RefCell::new(generator), ..self }
    }

    /// What the network says of `x` to some of the sides, with the middle of the network as told.
    fn ask(&self, sides: &[&[Entry]], x: &Tensor, sigma: f32, middle: Middle<'_>) -> Result<Vec<Tensor>> {
        let (patches, random) = (self.model.patches, Some(&self.random));
        let pass = Pass { sigma, patches, random, middle, ..Pass::PLAIN };
        let mut reused = self.reused.borrow_mut();
        reused.iter_mut().for_each(reuse::Answers::begin);
        let mut kept = batch::Kept { reused: &mut reused, hooked: &mut self.hooked.borrow_mut() };
        windows::denoise(&self.model, sides, x, &pass, &mut kept, &self.levels)
    }

    /// The answers to positive and negative prompts as corrections want them before guidance. Guidance between more than these
    /// two has no such corrections, but from an empty prompt.
    fn before(&self, mut answers: Vec<Tensor>, x: &Tensor, sigma: f32) -> Result<Vec<Tensor>> {
        let cfg = match self.guidance {
            Guidance::Classifier { scale } | Guidance::Perpendicular { scale, .. } => scale,
            Guidance::Dual { .. } => return Ok(answers),
        };
        let both_asked = self.sides.len() > 1 && !self.sides[0].is_empty() && !self.sides[1].is_empty();
        for (index, correction) in self.model.corrections.iter().enumerate() {
            let [positive, negative, ..] = &*answers else { return Ok(answers) };
            let pair = [positive, negative];
            match *correction {
                Correction::Operation(operation) => {
                    answers[0] = (operation.apply(&(positive - negative)?)? + negative)?;
                }
                Correction::Projected { eta, longest, momentum } => {
                    let how = before::Projection { eta, longest, momentum, cfg };
                    answers[0] = before::projected(pair, sigma, &mut self.momenta.borrow_mut()[index], how)?;
                }
                Correction::Damped if both_asked => answers[1] = before::damped(pair, x)?,
                Correction::Frequencies { low, high, cutoff } if both_asked => {
                    answers[0] = before::by_frequency(pair, [low, high], cutoff)?;
                }
                _ => {}
            }
        }
        Ok(answers)
    }

    fn combine(&self, answers: &[Tensor], watched: Option<&Tensor>, x: &Tensor, sigma: f32) -> Result<Tensor> {
        let at = At { x, sigma, watched };
        match (self.guidance, answers) {
            (Guidance::Classifier { scale }, [_, _, ..]) => self.lead(answers, [0, 1], scale, &at),
            (Guidance::Dual { of_first, of_second, nested }, [first, negative, second, ..]) => {
                if nested {
                    let middle = self.lead(answers, [0, 2], of_first, &at)?;
                    return add_scaled(negative, &(&middle - negative)?, of_second as f32);
                }
                let middle = self.lead(answers, [2, 1], of_second, &at)?;
                add_scaled(&middle, &(first - second)?, of_first as f32)
            }
            (Guidance::Perpendicular { scale, negative: weight }, [positive, negative, empty, ..]) => {
                let guided = correct::perpendicular([positive, negative, empty], scale, weight)?;
                self.correct(guided, answers, [0, 1], scale, &at)
            }
            (_, [only, ..]) => Ok(only.clone()),
            (_, []) => Ok(x.clone()),
        }
    }

    /// Guidance from the second of two sides to the first, as the model wants it.
    fn lead(&self, answers: &[Tensor], pair: [usize; 2], scale: f64, at: &At<'_>) -> Result<Tensor> {
        let [positive, negative] = pair.map(|side| &answers[side]);
        let own = self.model.corrections.iter().rev().find(|correction| correction.replaces_guidance());
        let guided = match own {
            Some(Correction::Rescale(share)) => correct::rescale([positive, negative], at.x, at.sigma, scale, *share)?,
            Some(Correction::Ramp { least, triangle }) => {
                correct::ramp([positive, negative], scale, *least, *triangle)?
            }
            Some(Correction::Renormed { below, longest }) => {
                correct::renormed([positive, negative], scale, f64::from(at.sigma) < *below, *longest)?
            }
            Some(Correction::Perpendicular { negative: weight, .. }) => {
                let empty = self.ask(&[&self.empty], at.x, at.sigma, Middle::Attends)?;
                correct::perpendicular([positive, negative, &empty[0]], scale, *weight)?
            }
            _ => add_scaled(negative, &(positive - negative)?, scale as f32)?,
        };
        self.correct(guided, answers, pair, scale, at)
    }

    /// What the model's corrections make of a guided answer.
    fn correct(
        &self,
        mut guided: Tensor,
        answers: &[Tensor],
        pair: [usize; 2],
        scale: f64,
        at: &At<'_>,
    ) -> Result<Tensor> {
        let [positive, negative] = pair.map(|side| &answers[side]);
        for correction in self.model.corrections {
            guided = match correction {
                Correction::Rescale(_)
                | Correction::Perpendicular { .. }
                | Correction::Ramp { .. }
                | Correction::Renormed { .. }
                | Correction::Reused(_)
                | Correction::Operation(_)
                | Correction::Projected { .. }
                | Correction::Damped
                | Correction::Frequencies { .. } => guided,
                Correction::Direction => correct::direction(&guided, [positive, negative], scale)?,
                Correction::Noise(divisor) => {
                    let noise = (at.x - guided)?;
                    (at.x - crate::tensors::divide(&noise, *divisor as f32)?)?
                }
                Correction::Temporal { k, sigma } => correct::temporal(guided, at.x, at.sigma, *k, *sigma)?,
                Correction::ZeroStar => correct::zero_star(guided, [positive, negative], at.x, scale)?,
                Correction::Norm(strength) => correct::norm(guided, positive, *strength)?,
                Correction::PerturbedAttention(0.0) => guided,
                Correction::PerturbedAttention(scale) => {
                    let perturbed = self.ask(&[&self.sides[pair[0]]], at.x, at.sigma, Middle::Passes)?;
                    add_scaled(&guided, &(positive - &perturbed[0])?, *scale as f32)?
                }
                Correction::SelfAttention { scale, blur } => {
                    let Some(degraded) = watched::degrade(negative, at.watched, *blur)? else { continue };
                    let shown = ((&degraded + at.x)? - negative)?;
                    let answer = self.ask(&[&self.sides[pair[1]]], &shown, at.sigma, Middle::Attends)?;
                    add_scaled(&guided, &(&degraded - &answer[0])?, *scale as f32)?
                }
            };
        }
        Ok(guided)
    }
}

/// What guidance happens at.
struct At<'a> {
    x: &'a Tensor,
    sigma: f32,
    /// How much each token of the middle was looked at for the negative prompts, `[batch, tokens]`.
    watched: Option<&'a Tensor>,
}

impl Denoiser for Guide<'_> {
    fn denoise(&self, x: &Tensor, sigma: f32) -> Result<Tensor> {
        Ok(self.denoise_apart(x, sigma)?[0].clone())
    }

    fn denoise_apart(&self, x: &Tensor, sigma: f32) -> Result<[Tensor; 2]> {
        let mut reused = self.reused_whole.borrow_mut();
        let Some(whole) = reused.as_mut() else { return self.evaluate(x, sigma) };
        if let Some(answers) = whole.again(x, sigma)? {
            return Ok(answers);
        }
        let answers = self.evaluate(x, sigma)?;
        whole.keep(x, sigma, &answers)?;
        Ok(answers)
    }
}

impl Guide<'_> {
    /// Guidance as it is, with nothing used again.
    fn evaluate(&self, x: &Tensor, sigma: f32) -> Result<[Tensor; 2]> {
        let sides: Vec<&[Entry]> = self.sides.iter().map(Vec::as_slice).collect();
        let seen = RefCell::new(None);
        let watches = self.model.corrections.iter().any(|c| matches!(c, Correction::SelfAttention { .. }));
        let middle = if watches { Middle::Watched(&seen) } else { Middle::Attends };
        let answers = self.before(self.ask(&sides, x, sigma, middle)?, x, sigma)?;
        let negative = answers.get(1).cloned().unwrap_or_else(|| x.clone());
        let seen = seen.into_inner();
        if watches && seen.is_none() {
            return Err(Error::Shape {
                layer: "self-attention guidance".to_owned(),
                expected: "a network with attention in its middle, and negative prompts".to_owned(),
                found: Vec::new(),
            });
        }
        let guided = self.combine(&answers, seen.as_ref(), x, sigma)?;
        Ok([guided, negative])
    }
}
