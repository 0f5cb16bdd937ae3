//! Models from files.

use crate::error::{Error, tell};
use crate::files::{AutoencoderName, AutoencoderPlace, Checkpoints, DiffusionModels, ModelName, Place, TextEncoders};
use crate::wires::{Clip, Model, Origin, Vae};
use paraflow_diffusion::checkpoint::{
    Checkpoint, Layout, inspect, text_encoder, unet_to_latent_diffusion, vae_to_latent_diffusion,
};
use paraflow_diffusion::guidance::Edit;
use paraflow_diffusion::nn::{Compute, Kept, Weights};
use paraflow_diffusion::preview::Look;
use paraflow_diffusion::text::{self, Encoders};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Services};
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<CheckpointLoaderSimple>(),
        NodeDef::of::<CLIPLoader>(),
        NodeDef::of::<DualCLIPLoader>(),
        NodeDef::of::<UNETLoader>(),
        NodeDef::of::<VAELoader>(),
    ]
}

/// Loads a checkpoint: the model that paints, the text encoder that reads the prompt, and the autoencoder between
/// pictures and latents.
///
/// The file is mapped, and its numbers are read when they are first needed. `safetensors` files only.
#[derive(Node)]
#[node(category = "loaders", display_name = "Load Checkpoint")]
struct CheckpointLoaderSimple {
    /// The checkpoint, from `models/checkpoints`. `toyland.safetensors` comes with the program.
    ckpt_name: ModelName<Checkpoints>,
}

impl Run for CheckpointLoaderSimple {
    type Output = (Model, Clip, Vae);

    fn run(self, cx: &Context<'_>) -> Result<(Model, Clip, Vae)> {
        let place = self.ckpt_name.find(cx.services()).map_err(tell)?;
        load(&place, cx.services()).map_err(tell)
    }
}

fn load(place: &Place, services: &Services) -> Result<(Model, Clip, Vae), Error> {
    parts(&Checkpoint::from_weights(open(place)?.on(&compute(services)))?, place.origin())
}

/// What a checkpoint holds, as it travels between nodes.
pub(crate) fn parts(checkpoint: &Checkpoint, origin: Origin) -> Result<(Model, Clip, Vae), Error> {
    let summary = inspect(checkpoint.weights());
    let bytes_of = |name: &str| {
        let parts = summary.parts.iter().filter(|part| part.name == name);
        let parameters: u64 = parts.map(|part| part.parameters).sum();
        usize::try_from(parameters).unwrap_or(usize::MAX).saturating_mul(size_of::<f32>())
    };
    let mut model = model(checkpoint, origin, bytes_of("UNet"))?;
    let clip = Clip::new(unless_missing(checkpoint.clip())?, bytes_of("text encoder"));
    let vae_prefix = summary.parts.iter().find(|part| part.name == "VAE").map_or("", |part| part.prefix);
    let numbers_per_pixel = numbers_per_pixel(&checkpoint.weights().part(vae_prefix));
    let vae = unless_missing(checkpoint.vae())?;
    if let Ok(vae) = &vae {
        let layout = checkpoint.layout();
        model.look = Look::of(vae, layout.latent_scale, layout.colours);
    }
    let vae = Vae::new(vae, numbers_per_pixel, bytes_of("VAE"));
    Ok((model, clip, vae))
}

fn model(checkpoint: &Checkpoint, origin: Origin, bytes: usize) -> Result<Model, Error> {
    let layout = checkpoint.layout();
    let sampling = checkpoint.sampling()?;
    let edit = match checkpoint.config().input {
        9 => Some(Edit::Inpaint),
        // Edit models of SDXL with continuous levels see the picture at the scale of latents.
        8 => Some(Edit::Instruct { scaled: layout.id == "sdxl" && sampling.is_continuous() }),
        7 => Some(Edit::Enlarge),
        _ => None,
    };
    Ok(Model {
        unet: checkpoint.unet()?,
        sampling,
        latent_scale: layout.latent_scale,
        latent_channels: layout.latent_channels,
        look: Look::known(layout.colours),
        label: layout.label,
        edit,
        projection: checkpoint.projection()?,
        corrections: Vec::new(),
        empty_prompt: None,
        patches: Vec::new(),
        mask_growth: None,
        windows: None,
        layout,
        origin,
        bytes,
    })
}

pub(crate) fn open(place: &Place) -> Result<Weights, Error> {
    Ok(match place {
        Place::File(model) => Weights::open(&model.path)?,
        Place::Embedded(model) => Weights::from_bytes(model.name, model.file()?)?,
    })
}

/// Where the networks of this program compute, and in which numbers.
pub(crate) fn compute(services: &Services) -> Compute {
    services.get::<Compute>().cloned().unwrap_or_default()
}

/// Memory of the numbers of a file once they are read.
pub(crate) fn bytes(weights: &Weights) -> usize {
    let elements = weights.names().filter_map(|name| weights.info(name)).map(|info| info.elements());
    elements.fold(0_usize, usize::saturating_add).saturating_mul(size_of::<f32>())
}

/// Loads the model that paints from a file of its own: of latent-diffusion's names, of those of diffusers, or a checkpoint.
#[derive(Node)]
#[node(category = "advanced/loaders", display_name = "Load Diffusion Model")]
struct UNETLoader {
    /// The model, from `models/diffusion_models` or `models/unet`.
    unet_name: ModelName<DiffusionModels>,
    /// In which numbers to keep its weights: those of eight bits are coarser. They are computed with in single precision.
    #[input(choices = ["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"])]
    weight_dtype: Choice<String>,
}

impl Run for UNETLoader {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        let kept = match self.weight_dtype.name() {
            "fp8_e4m3fn" | "fp8_e4m3fn_fast" => Kept::E4m3,
            "fp8_e5m2" => Kept::E5m2,
            _ => Kept::AsStored,
        };
        let load = || -> Result<Model, Error> {
            let place = self.unet_name.find(cx.services())?;
            let weights = unet_to_latent_diffusion(&open(&place)?);
            let checkpoint = Checkpoint::from_weights(weights.on(&compute(cx.services()).keeping(kept)))?;
            model(&checkpoint, place.origin(), bytes(&weights))
        };
        load().map_err(tell)
    }
}

/// Loads a text encoder from a file of its own.
#[derive(Node)]
#[node(category = "advanced/loaders", display_name = "Load CLIP")]
struct CLIPLoader {
    /// The text encoder, from `models/text_encoders` or `models/clip`.
    clip_name: ModelName<TextEncoders>,
    /// For which family of models. `stable_diffusion` is the one that is loaded.
    #[input(name = "type", choices = [
        "stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi", "ltxv", "pixart", "cosmos", "lumina2", "wan",
        "hidream", "chroma", "ace", "omnigen2", "qwen_image", "hunyuan_image", "flux2", "ovis"
    ])]
    family: Choice<String>,
    /// Where to compute; there is one place.
    #[input(choices = ["default", "cpu"])]
    device: Option<Choice<String>>,
}

impl Run for CLIPLoader {
    type Output = Clip;

    fn run(self, cx: &Context<'_>) -> Result<Clip> {
        let _ = self.device;
        require_family(self.family.name(), "stable_diffusion").map_err(tell)?;
        let load = || -> Result<Clip, Error> {
            let (weights, family) = encoder(&self.clip_name, cx.services())?;
            // A file with the encoder of SDXL's refiner alone serves the refiner.
            let encoder = text::ClipText::load(&weights.keeping(Kept::Half), family)?;
            Ok(Clip::new(Ok(Encoders::new(vec![encoder])), bytes(&weights)))
        };
        load().map_err(tell)
    }
}

/// Loads two text encoders from files of their own, SDXL's in any order.
#[derive(Node)]
#[node(category = "advanced/loaders")]
struct DualCLIPLoader {
    /// One text encoder, from `models/text_encoders` or `models/clip`.
    clip_name1: ModelName<TextEncoders>,
    /// The other.
    clip_name2: ModelName<TextEncoders>,
    /// For which family of models. `sdxl` is the one that is loaded.
    #[input(name = "type", choices = [
        "sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image", "hunyuan_video_15", "kandinsky5",
        "kandinsky5_image", "ltxv", "newbie"
    ])]
    family: Choice<String>,
    /// Where to compute; there is one place.
    #[input(choices = ["default", "cpu"])]
    device: Option<Choice<String>>,
}

impl Run for DualCLIPLoader {
    type Output = Clip;

    fn run(self, cx: &Context<'_>) -> Result<Clip> {
        let _ = self.device;
        require_family(self.family.name(), "sdxl").map_err(tell)?;
        let load = || -> Result<Clip, Error> {
            let (one, other) = (encoder(&self.clip_name1, cx.services())?, encoder(&self.clip_name2, cx.services())?);
            let (small, large) = if one.1 == text::SDXL_G { (other, one) } else { (one, other) };
            if small.1 != text::SD1 || large.1 != text::SDXL_G {
                return Err(Error::Unfit {
                    what: "SDXL",
                    expected: "a text encoder CLIP-L and one CLIP-G".to_owned(),
                    found: format!("{} and {}", small.1.id, large.1.id),
                });
            }
            let bytes = bytes(&small.0) + bytes(&large.0);
            let parts = [(small.0, text::SDXL_L), (large.0, text::SDXL_G)];
            let parts =
                parts.iter().map(|(weights, family)| text::ClipText::load(&weights.keeping(Kept::Half), *family));
            Ok(Clip::new(Ok(Encoders::new(parts.collect::<paraflow_diffusion::Result<_>>()?)), bytes))
        };
        load().map_err(tell)
    }
}

/// A text encoder's tensors, and which one it is.
fn encoder(name: &ModelName<TextEncoders>, services: &Services) -> Result<(Weights, text::Family), Error> {
    Ok(text_encoder(&open(&name.find(services)?)?.on(&compute(services).for_texts()))?)
}

fn require_family(found: &str, loaded: &str) -> Result<(), Error> {
    if found == loaded {
        return Ok(());
    }
    let known: Vec<&str> = paraflow_diffusion::checkpoint::LAYOUTS.iter().map(|layout: &Layout| layout.name).collect();
    Err(Error::Unfit {
        what: "`type`",
        expected: format!("{loaded}: this build loads {}", known.join(", ")),
        found: found.to_owned(),
    })
}

/// Loads an autoencoder from a file of its own, of latent-diffusion's names or of those of diffusers, or a tiny one, which is
/// much faster and a little less exact, from `models/vae_approx`.
#[derive(Node)]
#[node(category = "loaders", display_name = "Load VAE")]
struct VAELoader {
    /// The autoencoder, from `models/vae`; `taesd` and its like where their encoder and decoder are there.
    vae_name: AutoencoderName,
}

impl Run for VAELoader {
    type Output = Vae;

    fn run(self, cx: &Context<'_>) -> Result<Vae> {
        let load = || -> Result<Vae, Error> {
            let whole = match self.vae_name.find(cx.services())? {
                AutoencoderPlace::Whole(place) => open(&place)?,
                AutoencoderPlace::Tiny(tiny, [encoder, decoder]) => {
                    let (encoder, decoder) = (open(&encoder)?, open(&decoder)?);
                    let bytes = bytes(&encoder) + bytes(&decoder);
                    let autoencoder =
                        paraflow_diffusion::vae::Vae::load_tiny(Some(&encoder), &decoder, tiny.scale, tiny.shift)?;
                    return Ok(Vae::new(Ok(autoencoder), TINY_NUMBERS_PER_PIXEL, bytes));
                }
            };
            let inside = whole.part("first_stage_model.");
            let weights = if inside.contains("decoder.conv_in.weight") { inside } else { whole };
            let weights = vae_to_latent_diffusion(&weights);
            let autoencoder = paraflow_diffusion::vae::Vae::load(&weights.on(&compute(cx.services())))?;
            Ok(Vae::new(Ok(autoencoder), numbers_per_pixel(&weights), bytes(&weights)))
        };
        load().map_err(tell)
    }
}

/// What [`numbers_per_pixel`] is for a tiny autoencoder: a few tensors of its one width.
const TINY_NUMBERS_PER_PIXEL: usize = 4 * 64;

/// How many numbers a pixel takes while a picture is decoded: at the full size, a few of the width that comes from the
/// level below and a few of the last one's. Measured on narrow autoencoders at 512 and 768 pixels; encoding takes less.
fn numbers_per_pixel(vae: &Weights) -> usize {
    let width = |name: &str, dim: usize| vae.shape(name).and_then(|shape| shape.get(dim)).copied().unwrap_or(0);
    let last = width("decoder.conv_out.weight", 1);
    let below = width("decoder.up.1.upsample.conv.weight", 0).max(last);
    2 * below + 3 * last
}

/// A part that the file does not have is a fault of those who use it, and any other fault one of the file.
pub(crate) fn unless_missing<T>(
    part: paraflow_diffusion::Result<T>,
) -> Result<Result<T, Arc<paraflow_diffusion::Error>>, Error> {
    match part {
        Ok(part) => Ok(Ok(part)),
        Err(missing @ paraflow_diffusion::Error::MissingPart { .. }) => Ok(Err(Arc::new(missing))),
        Err(error) => Err(error.into()),
    }
}
