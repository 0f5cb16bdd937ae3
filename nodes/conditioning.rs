//! Prompts: from words to conditioning, and where, when and how strongly each counts.

use crate::error::{Error, tell};
use crate::prompt::{PromptText, find_embedding};
use crate::wires::{Clip, Conditioning, MAX_SIZE, Mask, Prompt};
use candle_core::{D, Tensor};
use paraflow_diffusion::guidance::{self, Area, PictureSize};
use paraflow_diffusion::text::{Encoded, Encoders, Layer};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<CLIPSetLastLayer>(),
        NodeDef::of::<CLIPTextEncode>(),
        NodeDef::of::<ConditioningAverage>(),
        NodeDef::of::<ConditioningCombine>(),
        NodeDef::of::<ConditioningConcat>(),
        NodeDef::of::<ConditioningSetArea>(),
        NodeDef::of::<ConditioningSetAreaPercentage>(),
        NodeDef::of::<ConditioningSetAreaPercentageVideo>(),
        NodeDef::of::<ConditioningSetAreaStrength>(),
        NodeDef::of::<ConditioningSetMask>(),
        NodeDef::of::<ConditioningSetTimestepRange>(),
        NodeDef::of::<ConditioningZeroOut>(),
    ]
}

/// Turns a prompt into what a model understands.
///
/// `(words:1.2)` weighs words, `(words)` by 1.1; `\(` and `\)` are plain parentheses; `embedding:name` puts in a textual
/// inversion from `models/embeddings`.
#[derive(Node)]
#[node(category = "conditioning", display_name = "CLIP Text Encode (Prompt)", compute)]
struct CLIPTextEncode {
    /// What the picture should show, or what it should not.
    #[input(multiline, dynamic_prompts)]
    text: PromptText,
    /// The text encoder, from a checkpoint.
    clip: Shared<Clip>,
}

impl Run for CLIPTextEncode {
    type Output = Conditioning;

    fn run(self, cx: &Context<'_>) -> Result<Conditioning> {
        let encoders = self.clip.encoders().map_err(tell)?;
        let prompts: Vec<&str> = encoders.parts().iter().map(|_| self.text.text()).collect();
        encode(&self.clip, &prompts, PictureSize::default(), cx)
    }
}

/// A prompt for each of the encoders, as one; as several, each for its part of the way, where hooks change on it.
pub(crate) fn encode(clip: &Clip, prompts: &[&str], size: PictureSize, cx: &Context<'_>) -> Result<Conditioning> {
    let stages = clip.hooks.encoders(clip.encoders().map_err(tell)?).map_err(tell)?;
    let mut conditioning = Conditioning(Vec::new());
    for (range, encoders) in &stages {
        cx.check()?;
        let mut prompt = Prompt { size, ..encode_with(encoders, clip, prompts, cx)? };
        prompt.condition.encoded_for = *range;
        conditioning.0.push(prompt);
    }
    Ok(clip.hooks.attach(conditioning))
}

/// A prompt for the whole way and for no model in particular, whatever hooks do later on it.
pub(crate) fn encode_once(clip: &Clip, prompts: &[&str], cx: &Context<'_>) -> Result<Prompt> {
    encode_with(&first_stage(clip)?, clip, prompts, cx)
}

/// The same without one of the stretches that the prompt falls into, counted from 1
/// ([`chunks_without`](paraflow_diffusion::text::chunks_without)).
pub(crate) fn encode_without(clip: &Clip, prompt: &str, stretch: Option<usize>, cx: &Context<'_>) -> Result<Prompt> {
    let find = |encoder: &str, name: &str| find_embedding(cx.services(), encoder, name);
    let encoded = first_stage(clip)?.encode_without(prompt, stretch, clip.layer(), &find);
    Ok(told(encoded.map_err(tell)?, cx))
}

/// The encoders as hooks have them where the way begins.
fn first_stage(clip: &Clip) -> Result<Encoders> {
    let encoders = clip.encoders().map_err(tell)?;
    let stages = clip.hooks.encoders(encoders).map_err(tell)?;
    Ok(stages.into_iter().next().map_or_else(|| encoders.clone(), |(_, encoders)| encoders))
}

fn encode_with(encoders: &Encoders, clip: &Clip, prompts: &[&str], cx: &Context<'_>) -> Result<Prompt> {
    let find = |encoder: &str, name: &str| find_embedding(cx.services(), encoder, name);
    Ok(told(encoders.encode_each(prompts, clip.layer(), &find, true).map_err(tell)?, cx))
}

/// The prompt, once its user knows what it goes without.
fn told(encoded: Encoded, cx: &Context<'_>) -> Prompt {
    for notice in encoded.notices {
        cx.warn(notice.to_string());
    }
    Prompt::new(encoded.cond, Some(encoded.pooled))
}

/// Takes the prompt's meaning from an earlier layer of the text encoder, as some models were trained ("clip skip").
#[derive(Node)]
#[node(category = "conditioning", display_name = "CLIP Set Last Layer")]
struct CLIPSetLastLayer {
    /// The text encoder.
    clip: Shared<Clip>,
    /// Counted from the end: -1 is the last layer, -2 the one before it.
    #[input(default = -1, range = -24..=-1, step = 1)]
    stop_at_clip_layer: i32,
}

impl Run for CLIPSetLastLayer {
    type Output = Clip;

    fn run(self, _: &Context<'_>) -> Result<Clip> {
        let layer = Layer::FromEnd(self.stop_at_clip_layer.unsigned_abs());
        Ok(self.clip.at(layer))
    }
}

/// Lets prompts share the picture: the model follows the mean of what it makes of each.
#[derive(Node)]
#[node(category = "conditioning", display_name = "Conditioning (Combine)")]
struct ConditioningCombine {
    /// Some prompts.
    conditioning_1: Shared<Conditioning>,
    /// Some more.
    conditioning_2: Shared<Conditioning>,
}

impl Run for ConditioningCombine {
    type Output = Conditioning;

    fn run(self, _: &Context<'_>) -> Result<Conditioning> {
        Ok(Conditioning([self.conditioning_1.0.as_slice(), &self.conditioning_2.0].concat()))
    }
}

/// Blends two prompts into one that lies between them.
#[derive(Node)]
#[node(category = "conditioning")]
struct ConditioningAverage {
    /// The prompts at strength 1.
    conditioning_to: Shared<Conditioning>,
    /// The prompt at strength 0. Only the first, if there are several.
    conditioning_from: Shared<Conditioning>,
    /// How far to go from the one to the other.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    conditioning_to_strength: f64,
}

impl Run for ConditioningAverage {
    type Output = Conditioning;

    fn run(self, cx: &Context<'_>) -> Result<Conditioning> {
        let from = first(&self.conditioning_from, cx).map_err(tell)?;
        let blend = |prompt: &Prompt| self.blend(prompt, from);
        let blended = self.conditioning_to.0.iter().map(blend).collect::<Result<_, Error>>().map_err(tell)?;
        Ok(Conditioning(blended))
    }
}

impl ConditioningAverage {
    fn blend(&self, to: &Prompt, from: &Prompt) -> Result<Prompt, Error> {
        let (to_strength, from_strength) = (self.conditioning_to_strength, 1.0 - self.conditioning_to_strength);
        let mix = |to: &Tensor, from: &Tensor| to.affine(to_strength, 0.0)? + from.affine(from_strength, 0.0)?;
        let context = &to.condition.context;
        let (_, tokens, width) = context.dims3()?;
        same_width(context, &from.condition.context)?;
        let mut other = from.condition.context.narrow(1, 0, tokens.min(from.condition.context.dim(1)?))?;
        if other.dim(1)? < tokens {
            let zeros = Tensor::zeros((1, tokens - other.dim(1)?, width), other.dtype(), other.device())?;
            other = Tensor::cat(&[&other, &zeros], 1)?;
        }
        let mut blended = to.clone();
        blended.condition.context = mix(context, &other)?;
        blended.pooled = match (&to.pooled, &from.pooled) {
            (Some(to), Some(from)) => Some(mix(to, from)?),
            (to, from) => to.as_ref().or(from.as_ref()).cloned(),
        };
        Ok(blended)
    }
}

/// Appends the words of one prompt to those of another, as if both stood in one.
#[derive(Node)]
#[node(category = "conditioning", display_name = "Conditioning (Concat)")]
struct ConditioningConcat {
    /// The prompts to extend.
    conditioning_to: Shared<Conditioning>,
    /// The prompt to append. Only the first, if there are several.
    conditioning_from: Shared<Conditioning>,
}

impl Run for ConditioningConcat {
    type Output = Conditioning;

    fn run(self, cx: &Context<'_>) -> Result<Conditioning> {
        let from = first(&self.conditioning_from, cx).map_err(tell)?;
        let mut extended = Conditioning::clone(&self.conditioning_to);
        for prompt in &mut extended.0 {
            let context = &prompt.condition.context;
            same_width(context, &from.condition.context).map_err(tell)?;
            prompt.condition.context = Tensor::cat(&[context, &from.condition.context], 1).map_err(tell)?;
        }
        Ok(extended)
    }
}

/// The first prompt of several, with a word about the others.
fn first<'a>(conditioning: &'a Conditioning, cx: &Context<'_>) -> Result<&'a Prompt, Error> {
    if conditioning.0.len() > 1 {
        cx.warn(format!("`conditioning_from` holds {} prompts, only the first is used", conditioning.0.len()));
    }
    conditioning.0.first().ok_or_else(|| Error::Unfit {
        what: "`conditioning_from`",
        expected: "a prompt".to_owned(),
        found: "none".to_owned(),
    })
}

fn same_width(one: &Tensor, other: &Tensor) -> Result<(), Error> {
    let (expected, found) = (one.dim(D::Minus1)?, other.dim(D::Minus1)?);
    if expected == found {
        return Ok(());
    }
    Err(Error::Unfit {
        what: "`conditioning_from`",
        expected: format!("a prompt of width {expected}, from the same kind of text encoder"),
        found: format!("width {found}"),
    })
}

/// Confines prompts to a rectangle, in pixels.
#[derive(Node)]
#[node(category = "conditioning", display_name = "Conditioning (Set Area)")]
struct ConditioningSetArea {
    /// The prompts.
    conditioning: Shared<Conditioning>,
    /// Width of the rectangle in pixels.
    #[input(default = 64, range = 64..=MAX_SIZE, step = 8)]
    width: u32,
    /// Height of the rectangle in pixels.
    #[input(default = 64, range = 64..=MAX_SIZE, step = 8)]
    height: u32,
    /// Its distance from the left in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    x: u32,
    /// Its distance from the top in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    y: u32,
    /// How much these prompts count against others in the same place.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    strength: f64,
}

impl Run for ConditioningSetArea {
    type Output = Conditioning;

    fn run(self, _: &Context<'_>) -> Result<Conditioning> {
        let cells = |pixels: u32| pixels as usize / crate::latent::CELL;
        let area =
            Area::Cells { height: cells(self.height), width: cells(self.width), y: cells(self.y), x: cells(self.x) };
        Ok(set_area(&self.conditioning, area, self.strength))
    }
}

/// Confines prompts to a rectangle, in parts of the picture.
#[derive(Node)]
#[node(category = "conditioning", display_name = "Conditioning (Set Area with Percentage)")]
struct ConditioningSetAreaPercentage {
    /// The prompts.
    conditioning: Shared<Conditioning>,
    /// Width of the rectangle, 1 being that of the picture.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    width: f64,
    /// Height of the rectangle, 1 being that of the picture.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    height: f64,
    /// Its distance from the left, 1 being the picture's width.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.01)]
    x: f64,
    /// Its distance from the top, 1 being the picture's height.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.01)]
    y: f64,
    /// How much these prompts count against others in the same place.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    strength: f64,
}

impl Run for ConditioningSetAreaPercentage {
    type Output = Conditioning;

    fn run(self, _: &Context<'_>) -> Result<Conditioning> {
        let area = Area::Share { height: self.height, width: self.width, y: self.y, x: self.x };
        Ok(set_area(&self.conditioning, area, self.strength))
    }
}

/// Confines prompts to a part of a video. On a picture, which has no frames, rows take the place of frames and columns that of rows,
/// as in ComfyUI.
#[derive(Node)]
#[node(category = "conditioning")]
struct ConditioningSetAreaPercentageVideo {
    /// The prompts.
    conditioning: Shared<Conditioning>,
    /// Width of the part; of a picture, nothing.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    width: f64,
    /// Height of the part; of a picture, its width.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    height: f64,
    /// Length of the part; of a picture, its height.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    temporal: f64,
    /// Distance from the left; of a picture, nothing.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.01)]
    x: f64,
    /// Distance from the top; of a picture, from the left.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.01)]
    y: f64,
    /// Distance from the first frame; of a picture, from the top.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.01)]
    z: f64,
    /// How much these prompts count against others in the same place.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    strength: f64,
}

impl Run for ConditioningSetAreaPercentageVideo {
    type Output = Conditioning;

    fn run(self, _: &Context<'_>) -> Result<Conditioning> {
        // All latents here are of pictures.
        let _ = (self.width, self.x);
        let area = Area::Share { height: self.temporal, width: self.height, y: self.z, x: self.y };
        Ok(set_area(&self.conditioning, area, self.strength))
    }
}

fn set_area(conditioning: &Conditioning, area: Area, strength: f64) -> Conditioning {
    conditioning.map(|condition| {
        condition.area = Some(area);
        condition.strength = strength;
        if let Some(mask) = &mut condition.mask {
            mask.is_area = false;
        }
    })
}

/// Sets how much prompts count against others in the same place.
#[derive(Node)]
#[node(category = "conditioning")]
struct ConditioningSetAreaStrength {
    /// The prompts.
    conditioning: Shared<Conditioning>,
    /// A prompt of strength 2 counts twice as much as one of strength 1.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    strength: f64,
}

impl Run for ConditioningSetAreaStrength {
    type Output = Conditioning;

    fn run(self, _: &Context<'_>) -> Result<Conditioning> {
        Ok(self.conditioning.map(|condition| condition.strength = self.strength))
    }
}

/// What a mask does beside weighing.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum MaskArea {
    /// Nothing: the model sees the whole picture.
    Whole,
    /// The model sees only the rectangle around what is selected.
    Bounds,
}

impl std::str::FromStr for MaskArea {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "default" => Ok(Self::Whole),
            "mask bounds" => Ok(Self::Bounds),
            _ => Err("no such way"),
        }
    }
}

/// Lets prompts count where a mask selects.
#[derive(Node)]
#[node(category = "conditioning", display_name = "Conditioning (Set Mask)")]
struct ConditioningSetMask {
    /// The prompts.
    conditioning: Shared<Conditioning>,
    /// Where they count: 1 fully, 0 not at all.
    mask: Shared<Mask>,
    /// How much these prompts count against others in the same place.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    strength: f64,
    /// `mask bounds` shows the model only the rectangle around what is selected, `default` the whole picture.
    #[input(choices = ["default", "mask bounds"])]
    set_cond_area: Choice<MaskArea>,
}

impl Run for ConditioningSetMask {
    type Output = Conditioning;

    fn run(self, _: &Context<'_>) -> Result<Conditioning> {
        let is_area = *self.set_cond_area == MaskArea::Bounds;
        let mask = guidance::Mask { values: self.mask.values().clone(), strength: self.strength, is_area };
        Ok(self.conditioning.map(|condition| condition.mask = Some(mask.clone())))
    }
}

/// Lets prompts count during a part of the way from noise to picture.
#[derive(Node)]
#[node(category = "advanced/conditioning")]
struct ConditioningSetTimestepRange {
    /// The prompts.
    conditioning: Shared<Conditioning>,
    /// From here on, 0 being pure noise. What a picture shows is settled early, its details late.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.001)]
    start: f64,
    /// Up to here, 1 being the finished picture.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.001)]
    end: f64,
}

impl Run for ConditioningSetTimestepRange {
    type Output = Conditioning;

    fn run(self, _: &Context<'_>) -> Result<Conditioning> {
        Ok(self.conditioning.map(|condition| (condition.start, condition.end) = (self.start, self.end)))
    }
}

/// Empties prompts: the model is told nothing at all, which is less than an empty prompt.
#[derive(Node)]
#[node(category = "advanced/conditioning")]
struct ConditioningZeroOut {
    /// The prompts.
    conditioning: Shared<Conditioning>,
}

impl Run for ConditioningZeroOut {
    type Output = Conditioning;

    fn run(self, _: &Context<'_>) -> Result<Conditioning> {
        let mut emptied = Conditioning::clone(&self.conditioning);
        for prompt in &mut emptied.0 {
            prompt.condition.context = prompt.condition.context.zeros_like().map_err(tell)?;
            prompt.pooled = prompt.pooled.as_ref().map(Tensor::zeros_like).transpose().map_err(tell)?;
        }
        Ok(emptied)
    }
}
