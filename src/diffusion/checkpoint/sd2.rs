//! Stable Diffusion 2.x, of any width: OpenCLIP's text encoder, a UNet that enters attention through Linear layers.

use super::{Layout, TextPlace};
use crate::preview::STABLE_DIFFUSION;
use crate::text;
use crate::unet::Config;

pub(super) const LAYOUT: Layout = Layout {
    id: "sd2",
    name: "Stable Diffusion 2.x",
    latent_scale: 0.18215,
    latent_channels: 4,
    colours: STABLE_DIFFUSION,
    label: None,
    texts: &[TextPlace {
        family: text::SD2,
        prefix: "cond_stage_model.transformer.",
        open_clip: "cond_stage_model.model. conditioner.embedders.0.model.",
    }],
    vae_prefix: "first_stage_model.",
    fits,
};

fn fits(config: &Config) -> bool {
    config.linear_projection && config.label.is_none() && config.context.is_some() && matches!(config.input, 4 | 8 | 9)
}
