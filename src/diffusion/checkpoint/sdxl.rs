//! Stable Diffusion XL and its refiner, of any width (SSD-1B, Vega and KOALA among them): UNets that are told the picture's
//! size beside a summary of the prompt.

use super::{Layout, TextPlace};
use crate::guidance::Label;
use crate::preview::STABLE_DIFFUSION_XL;
use crate::schedule::Betas;
use crate::text;
use crate::unet::Config;

pub(super) const BASE: Layout = Layout {
    id: "sdxl",
    name: "Stable Diffusion XL",
    latent_scale: 0.13025,
    latent_channels: 4,
    cell: 8,
    betas: Betas::STABLE_DIFFUSION,
    colours: STABLE_DIFFUSION_XL,
    label: Some(Label::Size),
    texts: &[
        TextPlace { family: text::SDXL_L, prefix: "conditioner.embedders.0.transformer.", open_clip: "" },
        TextPlace {
            family: text::SDXL_G,
            prefix: "conditioner.embedders.1.transformer.",
            open_clip: "conditioner.embedders.1.model.",
        },
    ],
    vae_prefix: "first_stage_model.",
    vision_prefix: None,
    projection: None,
    fits: |config| shares(config) && summary(config, Label::Size).is_some_and(|summary| Some(summary) < config.context),
};

pub(super) const REFINER: Layout = Layout {
    id: "sdxl-refiner",
    name: "the refiner of Stable Diffusion XL",
    label: Some(Label::Aesthetics),
    texts: &[TextPlace {
        family: text::SDXL_G,
        prefix: "conditioner.embedders.0.transformer.",
        open_clip: "conditioner.embedders.0.model.",
    }],
    fits: |config| shares(config) && summary(config, Label::Aesthetics) == config.context,
    ..BASE
};

fn shares(config: &Config) -> bool {
    // What unCLIP and video models are told is a picture's embedding.
    let other = config.context == Some(1024) && matches!(config.label, Some(768 | 1536 | 2048));
    config.linear_projection && !other && matches!(config.input, 4 | 8 | 9)
}

/// Width of the prompt's summary, if the rest of what the network is told are the numbers of that kind.
fn summary(config: &Config, label: Label) -> Option<usize> {
    config.label?.checked_sub(label.width()).filter(|width| *width > 0)
}
