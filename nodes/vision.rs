//! Pictures that a prompt brings along: what CLIP sees in them.

use crate::error::{Error, tell};
use crate::files::{Checkpoints, ModelName, StyleModels, VisionModels};
use crate::loaders::{bytes, compute, open, parts, unless_missing};
use crate::wires::{Clip, ClipVision, ClipVisionOutput, Conditioning, Image, Model, Style, Vae};
use candle_core::Tensor;
use paraflow_diffusion::checkpoint::Checkpoint;
use paraflow_diffusion::guidance::SeenPicture;
use paraflow_diffusion::nn::Kept;
use paraflow_diffusion::vision::{StyleModel, Vision};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<CLIPVisionEncode>(),
        NodeDef::of::<CLIPVisionLoader>(),
        NodeDef::of::<ImageOnlyCheckpointLoader>(),
        NodeDef::of::<StyleModelApply>(),
        NodeDef::of::<StyleModelLoader>(),
        NodeDef::of::<UnClipCheckpointLoader>(),
        NodeDef::of::<UnClipConditioning>(),
    ]
}

/// Loads CLIP's picture half.
#[derive(Node)]
#[node(category = "loaders", display_name = "Load CLIP Vision")]
struct CLIPVisionLoader {
    /// The network, from `models/clip_vision`, as transformers or OpenCLIP names its tensors.
    clip_name: ModelName<VisionModels>,
}

impl Run for CLIPVisionLoader {
    type Output = ClipVision;

    fn run(self, cx: &Context<'_>) -> Result<ClipVision> {
        let load = || -> Result<ClipVision, Error> {
            let weights = open(&self.clip_name.find(cx.services())?)?;
            Ok(ClipVision::new(Ok(Vision::load_clip(&weights.keeping(Kept::Half))?), bytes(&weights)))
        };
        load().map_err(tell)
    }
}

/// Loads a checkpoint that is told what CLIP sees in a picture, with its CLIP vision model.
#[derive(Node)]
#[node(name = "unCLIPCheckpointLoader", category = "loaders")]
struct UnClipCheckpointLoader {
    /// The checkpoint, from `models/checkpoints`.
    ckpt_name: ModelName<Checkpoints>,
}

impl Run for UnClipCheckpointLoader {
    type Output = (Model, Clip, Vae, ClipVision);

    fn run(self, cx: &Context<'_>) -> Result<(Model, Clip, Vae, ClipVision)> {
        let load = || -> Result<_, Error> {
            let place = self.ckpt_name.find(cx.services())?;
            let checkpoint = Checkpoint::from_weights(open(&place)?.on(&compute(cx.services())))?;
            let (model, clip, vae) = parts(&checkpoint, place.origin())?;
            Ok((model, clip, vae, vision(&checkpoint)?))
        };
        load().map_err(tell)
    }
}

/// The part of a checkpoint that sees pictures.
fn vision(checkpoint: &Checkpoint) -> Result<ClipVision, Error> {
    let bytes = checkpoint.vision_weights().map_or(0, |weights| bytes(&weights));
    Ok(ClipVision::new(unless_missing(checkpoint.vision())?, bytes))
}

/// Loads a checkpoint that is shown a picture in place of a prompt: Stable Zero123, with its CLIP vision model. Networks for videos are
/// not supported.
#[derive(Node)]
#[node(category = "loaders/video_models", display_name = "Image Only Checkpoint Loader (img2vid model)")]
struct ImageOnlyCheckpointLoader {
    /// The checkpoint, from `models/checkpoints`.
    ckpt_name: ModelName<Checkpoints>,
}

impl Run for ImageOnlyCheckpointLoader {
    type Output = (Model, ClipVision, Vae);

    fn run(self, cx: &Context<'_>) -> Result<(Model, ClipVision, Vae)> {
        let load = || -> Result<_, Error> {
            let place = self.ckpt_name.find(cx.services())?;
            let checkpoint = Checkpoint::from_weights(open(&place)?.on(&compute(cx.services())))?;
            let (model, _, vae) = parts(&checkpoint, place.origin())?;
            Ok((model, vision(&checkpoint)?, vae))
        };
        load().map_err(tell)
    }
}

/// Whether the middle of a picture is seen or all of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Middle,
    All,
}

impl std::str::FromStr for Part {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "center" => Ok(Self::Middle),
            "none" => Ok(Self::All),
            _ => Err("no such part"),
        }
    }
}

/// Shows pictures to a CLIP vision model.
#[derive(Node)]
#[node(category = "conditioning", display_name = "CLIP Vision Encode", compute)]
struct CLIPVisionEncode {
    /// The network.
    clip_vision: Shared<ClipVision>,
    /// The pictures.
    image: Shared<Image>,
    /// `center` shows the middle square, `none` all of the picture, made square.
    #[input(choices = ["center", "none"])]
    crop: Choice<Part>,
}

impl Run for CLIPVisionEncode {
    type Output = ClipVisionOutput;

    fn run(self, cx: &Context<'_>) -> Result<ClipVisionOutput> {
        let look = || -> Result<ClipVisionOutput, Error> {
            require_colours(&self.image)?;
            let network = self.clip_vision.network()?;
            Ok(ClipVisionOutput(network.look(self.image.pixels(), *self.crop == Part::Middle)?))
        };
        cx.check()?;
        look().map_err(tell)
    }
}

/// What CLIP sees has three colours.
pub(crate) fn require_colours(pictures: &Image) -> Result<(), Error> {
    if pictures.dims().3 >= 3 {
        return Ok(());
    }
    Err(Error::Unfit {
        what: "`image`",
        expected: "pictures of three colours".to_owned(),
        found: "one channel".to_owned(),
    })
}

/// Lets prompts bring pictures along, for models that are told what is seen in them: Stable Diffusion 2.1 unCLIP, and SDXL in place
/// of the words' summary.
#[derive(Node)]
#[node(name = "unCLIPConditioning", category = "conditioning")]
struct UnClipConditioning {
    /// The prompts.
    conditioning: Shared<Conditioning>,
    /// What CLIP sees in the pictures.
    clip_vision_output: Shared<ClipVisionOutput>,
    /// How much the pictures count.
    #[input(default = 1.0, range = -10.0..=10.0, step = 0.01)]
    strength: f64,
    /// How much noise is put into what was seen: the more, the less like the pictures the result.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.01)]
    noise_augmentation: f64,
}

impl Run for UnClipConditioning {
    type Output = Conditioning;

    fn run(self, _: &Context<'_>) -> Result<Conditioning> {
        let mut prompts = Conditioning::clone(&self.conditioning);
        if self.strength != 0.0 {
            for prompt in &mut prompts.0 {
                prompt.seen.push(SeenPicture {
                    embeds: self.clip_vision_output.0.embeds.clone(),
                    strength: self.strength,
                    noise: self.noise_augmentation,
                });
            }
        }
        Ok(prompts)
    }
}

/// Loads a network that makes words of a picture's look.
#[derive(Node)]
#[node(category = "loaders", display_name = "Load Style Model")]
struct StyleModelLoader {
    /// The network, from `models/style_models`: the style adapter for Stable Diffusion 1.
    style_model_name: ModelName<StyleModels>,
}

impl Run for StyleModelLoader {
    type Output = Style;

    fn run(self, cx: &Context<'_>) -> Result<Style> {
        let load = || -> Result<Style, Error> {
            let weights = open(&self.style_model_name.find(cx.services())?)?;
            Ok(Style { network: StyleModel::load(&weights)?, bytes: bytes(&weights) })
        };
        load().map_err(tell)
    }
}

/// Adds words that a style model makes of pictures to prompts.
#[derive(Node)]
#[node(category = "conditioning/style_model", display_name = "Apply Style Model", compute)]
struct StyleModelApply {
    /// The prompts.
    conditioning: Shared<Conditioning>,
    /// The style model.
    style_model: Shared<Style>,
    /// What CLIP sees in the pictures.
    clip_vision_output: Shared<ClipVisionOutput>,
    /// How much the words count.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.001)]
    strength: f64,
    /// `multiply` multiplies the words by the strength. `attn_bias` is for models that weigh words when they look at them, which the
    /// models here do not: they get the words as they are.
    #[input(choices = ["multiply", "attn_bias"])]
    strength_type: Choice<String>,
}

impl Run for StyleModelApply {
    type Output = Conditioning;

    fn run(self, cx: &Context<'_>) -> Result<Conditioning> {
        let multiplies = self.strength_type.name() == "multiply";
        if !multiplies && self.strength != 1.0 {
            cx.warn("`strength_type` attn_bias has no effect on Stable Diffusion's models; choose multiply");
        }
        let apply = || -> Result<Conditioning, Error> {
            let words = self.style_model.network.words(&self.clip_vision_output.0.last)?;
            let (pictures, count, width) = words.dims3()?;
            // The words of all pictures follow one another.
            let words = words.reshape((1, pictures * count, width))?;
            let words = if multiplies { words.affine(self.strength, 0.0)? } else { words };
            let mut prompts = Conditioning::clone(&self.conditioning);
            for prompt in &mut prompts.0 {
                let context = &prompt.condition.context;
                if context.dim(2)? != width {
                    return Err(Error::Unfit {
                        what: "the style model",
                        expected: format!("prompts of width {width}, from the text encoder of Stable Diffusion 1"),
                        found: format!("width {}", context.dim(2)?),
                    });
                }
                prompt.condition.context = Tensor::cat(&[context, &words], 1)?;
            }
            Ok(prompts)
        };
        apply().map_err(tell)
    }
}
