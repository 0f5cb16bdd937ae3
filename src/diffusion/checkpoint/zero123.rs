//! Stable Zero123, and Zero123 before it: Stable Diffusion 1 that shows a picture's thing from another side. It reads what CLIP sees in
//! the picture and where the camera goes in place of a prompt, and sees the picture beside the noisy latent.
//!
//! Liu et al. 2023, arXiv:2303.11328.

use super::{Layout, sd1};

pub(super) const LAYOUT: Layout = Layout {
    id: "zero123",
    name: "Stable Zero123",
    texts: &[],
    vision_prefix: Some("cond_stage_model.model.visual."),
    projection: Some("cc_projection"),
    fits: |config| config.input == 8 && (sd1::LAYOUT.fits)(config),
    ..sd1::LAYOUT
};
