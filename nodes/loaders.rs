//! Models from files.

use crate::error::{Error, tell};
use crate::files::{Checkpoints, ModelName, Place};
use crate::wires::{Clip, Model, Vae};
use paraflow_diffusion::checkpoint::{Checkpoint, inspect};
use paraflow_diffusion::nn::Weights;
use paraflow_diffusion::preview::STABLE_DIFFUSION;
use paraflow_diffusion::schedule::ModelSampling;
use paraflow_engine::{Context, Node, NodeDef, Result, Run};
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<CheckpointLoaderSimple>()]
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
        load(&place).map_err(tell)
    }
}

fn load(place: &Place) -> Result<(Model, Clip, Vae), Error> {
    let checkpoint = match place {
        Place::File(model) => Checkpoint::open(&model.path)?,
        Place::Embedded(model) => Checkpoint::from_bytes(model.name, model.file()?)?,
    };
    let summary = inspect(checkpoint.weights());
    let bytes_of = |name: &str| {
        let parts = summary.parts.iter().filter(|part| part.name == name);
        let parameters: u64 = parts.map(|part| part.parameters).sum();
        usize::try_from(parameters).unwrap_or(usize::MAX).saturating_mul(size_of::<f32>())
    };
    let layout = checkpoint.layout();
    let model = Model {
        unet: checkpoint.unet()?,
        sampling: ModelSampling::stable_diffusion(layout.prediction),
        latent_scale: layout.latent_scale,
        latent_channels: layout.latent_channels,
        colours: STABLE_DIFFUSION,
        bytes: bytes_of("UNet"),
    };
    let clip = Clip::new(unless_missing(checkpoint.clip())?, bytes_of("text encoder"));
    let vae_prefix = summary.parts.iter().find(|part| part.name == "VAE").map_or("", |part| part.prefix);
    let numbers_per_pixel = numbers_per_pixel(&checkpoint.weights().part(vae_prefix));
    let vae = Vae::new(unless_missing(checkpoint.vae())?, numbers_per_pixel, bytes_of("VAE"));
    Ok((model, clip, vae))
}

/// How many numbers a pixel takes while a picture is decoded: at the full size, a few of the width that comes from the
/// level below and a few of the last one's. Measured on narrow autoencoders at 512 and 768 pixels; encoding takes less.
fn numbers_per_pixel(vae: &Weights) -> usize {
    let width = |name: &str, dim: usize| vae.shape(name).and_then(|shape| shape.get(dim)).copied().unwrap_or(0);
    let last = width("decoder.conv_out.weight", 1);
    let below = width("decoder.up.1.upsample.conv.weight", 0).max(last);
    2 * below + 3 * last
}

/// A part that the file does not have is a fault of those who use it, and any other fault one of the file.
fn unless_missing<T>(part: paraflow_diffusion::Result<T>) -> Result<Result<T, Arc<paraflow_diffusion::Error>>, Error> {
    match part {
        Ok(part) => Ok(Ok(part)),
        Err(missing @ paraflow_diffusion::Error::MissingPart { .. }) => Ok(Err(Arc::new(missing))),
        Err(error) => Err(error.into()),
    }
}
