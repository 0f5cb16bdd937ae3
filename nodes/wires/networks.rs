//! Networks beside the model, its text encoders and its autoencoder.

use super::bytes;
use crate::error::Error;
use paraflow_diffusion::guidance::ControlKind;
use paraflow_diffusion::unet::Gligen;
use paraflow_diffusion::vision::{PhotoMaker, Seen, StyleModel, Vision};
use paraflow_engine::Port;
use std::sync::Arc;

/// A network that tells another what to add, led by a picture. Clones share the weights.
#[derive(Clone)]
pub struct Control {
    /// The network.
    pub network: ControlKind,
    /// Of which kind the picture is, for networks that were trained on several.
    pub kinds: Vec<usize>,
    /// Whether each channel of its answer is its mean over the picture.
    pub averaged: bool,
    /// Memory of its weights.
    pub bytes: usize,
}

impl Port for Control {
    const KIND: &'static str = "CONTROL_NET";

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A network that enlarges pictures. Clones share the weights.
#[derive(Clone)]
pub struct UpscaleModel {
    /// The network.
    pub network: paraflow_diffusion::upscale::Upscaler,
    /// Memory of its weights.
    pub bytes: usize,
}

impl Port for UpscaleModel {
    const KIND: &'static str = "UPSCALE_MODEL";

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A network that sees pictures, or the word that its checkpoint has none. Clones share the weights.
#[derive(Clone)]
pub struct ClipVision {
    network: Result<Vision, Arc<paraflow_diffusion::Error>>,
    /// Memory of its weights.
    pub bytes: usize,
}

impl ClipVision {
    /// A network. A checkpoint without one is an error only when it is needed.
    #[must_use]
    pub fn new(network: Result<Vision, Arc<paraflow_diffusion::Error>>, bytes: usize) -> Self {
        Self { network, bytes }
    }

    /// The network.
    ///
    /// # Errors
    /// The checkpoint that this came from has none.
    pub fn network(&self) -> Result<&Vision, Error> {
        self.network.as_ref().map_err(|missing| Error::Diffusion(Arc::clone(missing)))
    }
}

impl Port for ClipVision {
    const KIND: &'static str = "CLIP_VISION";

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a network sees in pictures.
#[derive(Clone)]
pub struct ClipVisionOutput(pub Seen);

impl Port for ClipVisionOutput {
    const KIND: &'static str = "CLIP_VISION_OUTPUT";

    fn bytes(&self) -> usize {
        bytes(&self.0.embeds) + bytes(&self.0.last)
    }
}

/// A network that makes words of what CLIP sees in a picture. Clones share the weights.
#[derive(Clone)]
pub struct Style {
    /// The network.
    pub network: StyleModel,
    /// Memory of its weights.
    pub bytes: usize,
}

impl Port for Style {
    const KIND: &'static str = "STYLE_MODEL";

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A network that puts the person in a picture into a prompt. Clones share the weights.
#[derive(Clone)]
pub struct Face {
    /// The network.
    pub network: PhotoMaker,
    /// Memory of its weights.
    pub bytes: usize,
}

impl Port for Face {
    const KIND: &'static str = "PHOTOMAKER";

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Layers that let a model look at boxes. Clones share the weights.
#[derive(Clone)]
pub struct TextBoxes {
    /// The layers.
    pub layers: Gligen,
    /// Memory of their weights.
    pub bytes: usize,
}

impl Port for TextBoxes {
    const KIND: &'static str = "GLIGEN";

    fn bytes(&self) -> usize {
        self.bytes
    }
}
