//! Stable Diffusion 2.x, of any width: OpenCLIP's text encoder, a UNet that enters attention through Linear layers. And its
//! unCLIP kind, which is told what CLIP sees in a picture.

use super::{Layout, TextPlace};
use crate::guidance::Label;
use crate::preview::STABLE_DIFFUSION;
use crate::schedule::Betas;
use crate::text;
use crate::unet::Config;

pub(super) const LAYOUT: Layout = Layout {
    id: "sd2",
    name: "Stable Diffusion 2.x",
    latent_scale: 0.18215,
    latent_channels: 4,
    cell: 8,
    betas: Betas::STABLE_DIFFUSION,
    colours: STABLE_DIFFUSION,
    label: None,
    texts: &[TextPlace {
        family: text::SD2,
        prefix: "cond_stage_model.transformer.",
        open_clip: "cond_stage_model.model. conditioner.embedders.0.model.",
    }],
    vae_prefix: "first_stage_model.",
    vision_prefix: None,
    projection: None,
    fits,
};

pub(super) const UNCLIP: Layout = Layout {
    id: "sd2-unclip",
    name: "Stable Diffusion 2.1 unCLIP",
    label: Some(Label::Seen),
    vision_prefix: Some("embedder.model.visual."),
    fits: |config| {
        // Wider vectors are SDXL's, except beside prompts as wide as Stable Diffusion 2's.
        let told = |width: usize| {
            width.is_multiple_of(2) && (width <= 1280 || (config.context == Some(1024) && matches!(width, 1536 | 2048)))
        };
        config.linear_projection && config.input == 4 && config.context.is_some() && config.label.is_some_and(told)
    },
    ..LAYOUT
};

fn fits(config: &Config) -> bool {
    config.linear_projection && config.label.is_none() && config.context.is_some() && matches!(config.input, 4 | 8 | 9)
}
