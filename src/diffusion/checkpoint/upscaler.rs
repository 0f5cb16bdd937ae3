//! The Stable Diffusion x4 upscaler, of any width: a UNet that sees the small picture beside a latent of the same size, and is told how
//! much noise there is in it. Only its coarsest level looks around within the picture. Beside it, the text encoder of Stable Diffusion
//! 2 and an autoencoder of three levels.

use super::{Layout, sd2};
use crate::guidance::Label;
use crate::preview::UPSCALER;
use crate::schedule::Betas;

pub(super) const LAYOUT: Layout = Layout {
    id: "x4-upscaler",
    name: "the Stable Diffusion x4 upscaler",
    latent_scale: 0.08333,
    cell: 4,
    betas: Betas::UPSCALER,
    colours: UPSCALER,
    label: Some(Label::Level),
    fits: |config| {
        config.linear_projection && config.input == 7 && config.context.is_some() && config.classes.is_some()
    },
    ..sd2::LAYOUT
};
