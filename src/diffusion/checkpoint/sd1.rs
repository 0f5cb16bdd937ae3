//! Stable Diffusion 1.x, of any width: CLIP's text encoder, a UNet that enters attention through convolutions, a KL
//! autoencoder. Also for inpainting, and InstructPix2Pix.

use super::{Layout, TextPlace};
use crate::preview::STABLE_DIFFUSION;
use crate::schedule::Betas;
use crate::text;
use crate::unet::Config;

pub(super) const LAYOUT: Layout = Layout {
    id: "sd1",
    name: "Stable Diffusion 1.x",
    latent_scale: 0.18215,
    latent_channels: 4,
    cell: 8,
    betas: Betas::STABLE_DIFFUSION,
    colours: STABLE_DIFFUSION,
    label: None,
    texts: &[TextPlace { family: text::SD1, prefix: "cond_stage_model.transformer.", open_clip: "" }],
    vae_prefix: "first_stage_model.",
    vision_prefix: None,
    projection: None,
    fits,
};

fn fits(config: &Config) -> bool {
    !config.linear_projection && config.label.is_none() && config.context.is_some() && matches!(config.input, 4 | 8 | 9)
}
