//! What a model is asked for.

use super::{Model, bytes};
use crate::error::Error;
use candle_core::{D, DType, Tensor};
use paraflow_diffusion::guidance::{self, Condition, Label, Picture, PictureSize, SeenPicture};
use paraflow_diffusion::noise::Generator;
use paraflow_engine::Port;
use std::sync::Arc;

/// Prompts as a model reads them: what to show, or what not to. Several share the picture.
#[derive(Clone, Debug)]
pub struct Conditioning(pub Vec<Prompt>);

/// One prompt.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Its tokens, `[1, tokens, width]`, and where, when and how strongly they count.
    pub condition: Condition,
    /// What sums it up, `[1, width]`, for models that read that too.
    pub pooled: Option<Tensor>,
    /// What it says of the picture's size, for models that are told.
    pub size: PictureSize,
    /// Pictures that it brings along, for models that are told what is seen in them.
    pub seen: Vec<SeenPicture>,
}

impl Prompt {
    /// A prompt for the whole picture.
    #[must_use]
    pub fn new(context: Tensor, pooled: Option<Tensor>) -> Self {
        Self { condition: Condition::new(context), pooled, size: PictureSize::default(), seen: Vec::new() }
    }

    /// Refuses a prompt that says more than words, where only these are read; `what` names the input.
    ///
    /// # Errors
    /// [`Error::Unfit`] with what else it says.
    pub(crate) fn require_words(&self, what: &'static str) -> Result<(), Error> {
        let Condition { context, picture, control, control_context, grounding, area, mask, .. } = &self.condition;
        let Condition { start, end, encoded_for, hooks, fills_in, .. } = &self.condition;
        let found = if area.is_some() || mask.is_some() || *fills_in {
            "one for a part of the picture"
        } else if [*start, *end] != [0.0, 1.0] || *encoded_for != [0.0, 1.0] {
            "one for a part of the way"
        } else if control.is_some() || control_context.is_some() {
            "one with a control network"
        } else if grounding.is_some() {
            "one with boxes"
        } else if picture.latent.is_some() || picture.small.is_some() || !self.seen.is_empty() {
            "one with a picture"
        } else if !hooks.is_empty() {
            "one with hooks"
        } else if context.dims().first() != Some(&1) {
            "a batch of prompts in one"
        } else {
            return Ok(());
        };
        let expected = "prompts of words alone, as CLIPTextEncode makes them".to_owned();
        Err(Error::Unfit { what, expected, found: found.to_owned() })
    }

    /// What sums the prompt up for a model that is told so many numbers: its words, or the pictures that it brings along. Beside it
    /// is what drew the noise in these.
    ///
    /// # Errors
    /// It has neither, or what CLIP sees in its pictures is of another width than the model is told.
    fn summary(&self, label: Label, told: usize, seed: u64) -> Result<(Tensor, Option<Generator>), Error> {
        /// Noise on top of several pictures, where nothing else is told of them.
        const MERGED_NOISE: f64 = 0.05;
        let unfit = |expected: String, found: String| Error::Unfit { what: "the model", expected, found };
        let of_words = told - label.width().min(told);
        match (label, self.seen.as_slice()) {
            (Label::Level, _) => Ok((guidance::told_level(self.condition.picture.noise)?, None)),
            (Label::Seen, []) => Ok((Tensor::zeros((1, told), DType::F32, &candle_core::Device::Cpu)?, None)),
            (Label::Seen, seen) => {
                let (vector, generator) = guidance::seen(seen, MERGED_NOISE, seed)?;
                let width = vector.dim(1)?;
                if width == told {
                    return Ok((vector, Some(generator)));
                }
                Err(unfit(
                    format!("pictures seen by a CLIP vision model of width {}", told / 2),
                    format!("one of width {}", width / 2),
                ))
            }
            (_, []) => match &self.pooled {
                Some(pooled) => Ok((pooled.clone(), None)),
                None => Err(unfit(
                    "prompts with a summary, as SDXL's text encoders make them".to_owned(),
                    "a prompt without".to_owned(),
                )),
            },
            (_, seen) => {
                let (vector, generator) = guidance::seen(seen, 0.0, seed)?;
                let width = vector.dim(1)? / 2;
                if width < of_words {
                    return Err(unfit(
                        format!("pictures seen by a CLIP vision model of width {of_words}"),
                        format!("one of width {width}"),
                    ));
                }
                Ok((vector.narrow(1, 0, of_words)?, Some(generator)))
            }
        }
    }
}

impl Conditioning {
    /// The same with every prompt changed.
    #[must_use]
    pub fn map(&self, change: impl Fn(&mut Condition)) -> Self {
        let mut changed = self.clone();
        changed.0.iter_mut().for_each(|prompt| change(&mut prompt.condition));
        changed
    }

    /// The same with another picture to change.
    #[must_use]
    pub fn with_picture(&self, picture: &Picture) -> Self {
        self.map(|condition| condition.picture = picture.clone())
    }

    /// The prompts as guidance takes them, for a model and a latent of so many pixels; `negative` says on which side, and `seed`
    /// is the sampling's.
    ///
    /// # Errors
    /// The model is told a summary that a prompt does not have, or was made for prompts of another width.
    pub(crate) fn conditions(
        &self,
        model: &Model,
        pixels: (u32, u32),
        negative: bool,
        seed: u64,
    ) -> Result<Vec<Condition>, Error> {
        let condition = |prompt: &Prompt| {
            let mut condition = prompt.condition.clone();
            condition.context = fitted(condition.context, model)?;
            if let Some(label) = model.label {
                let (pooled, drew) = prompt.summary(label, model.unet.config().told().unwrap_or_default(), seed)?;
                condition.drew = drew.map(Arc::new);
                condition.label = Some(label.vector(&pooled, prompt.size, pixels, negative)?);
            }
            Ok(condition)
        };
        self.0.iter().map(condition).collect()
    }
}

/// A prompt of the width that a model reads.
fn fitted(context: Tensor, model: &Model) -> Result<Tensor, Error> {
    let width = context.dim(D::Minus1)?;
    let Some(wanted) = model.unet.config().context.filter(|wanted| *wanted != width) else { return Ok(context) };
    let expected = match &model.projection {
        Some(projection) if projection.weight().shape()[1] == width => return Ok(projection.forward(&context)?),
        Some(_) => "what StableZero123_Conditioning makes of a picture".to_owned(),
        None => format!("prompts of width {wanted}, from its own text encoder"),
    };
    Err(Error::Unfit { what: "the model", expected, found: format!("width {width}") })
}

impl Port for Conditioning {
    const KIND: &'static str = "CONDITIONING";

    fn bytes(&self) -> usize {
        let of_prompt = |prompt: &Prompt| {
            let mask = prompt.condition.mask.as_ref().map_or(0, |mask| bytes(&mask.values));
            let small = prompt.condition.picture.small.as_ref().map_or(0, bytes);
            bytes(&prompt.condition.context) + prompt.pooled.as_ref().map_or(0, bytes) + mask + small
        };
        self.0.iter().map(of_prompt).sum()
    }
}
