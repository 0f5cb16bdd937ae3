//! Stable Diffusion 1.x, of any width: CLIP's text encoder, a UNet that enters attention through convolutions, a KL
//! autoencoder.

use super::Layout;
use crate::schedule::Prediction;
use crate::text;
use crate::unet::Config;

pub(super) const LAYOUT: Layout = Layout {
    id: "sd1",
    name: "Stable Diffusion 1.x",
    prediction: Prediction::Epsilon,
    latent_scale: 0.18215,
    latent_channels: 4,
    text: text::SD1,
    text_prefix: "cond_stage_model.transformer.",
    vae_prefix: "first_stage_model.",
    fits,
};

fn fits(config: &Config) -> bool {
    !config.linear_projection && config.label.is_none() && config.context.is_some() && config.input == 4
}
