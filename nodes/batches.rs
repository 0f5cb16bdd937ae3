//! As many pictures, masks or latents as are wired, in one batch.

use crate::error::{Error, tell};
use crate::latent_maths::fit;
use crate::scaling::{Crop, scale, with_channels};
use crate::wires::{Image, Latent, Mask};
use candle_core::Tensor;
use paraflow_diffusion::resize::{Method, crop_to_aspect, resize};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<BatchImagesNode>(), NodeDef::of::<BatchLatentsNode>(), NodeDef::of::<BatchMasksNode>()]
}

/// Puts pictures into one batch.
#[derive(Node)]
#[node(category = "image", display_name = "Batch Images")]
struct BatchImagesNode {
    /// The pictures; the first ones decide the size, to which others are scaled and cut.
    #[input(grows = ("image", 2, 50))]
    images: Vec<Shared<Image>>,
}

impl Run for BatchImagesNode {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let join = || -> Result<Image, Error> {
            let Some(first) = self.images.first() else { return Err(nothing("images")) };
            let (_, height, width, _) = first.dims();
            let channels = self.images.iter().map(|image| image.dims().3).max().unwrap_or(3);
            let fitted = self.images.iter().map(|image| {
                let image = Image::new(with_channels(image.pixels(), channels)?)?;
                if (image.dims().1, image.dims().2) == (height, width) {
                    return Ok(image.pixels().clone());
                }
                Ok(scale(&image, width, height, Method::Bilinear, Crop::Center, cx)?.pixels().clone())
            });
            Image::new(Tensor::cat(&fitted.collect::<Result<Vec<_>, Error>>()?, 0)?)
        };
        join().map_err(tell)
    }
}

/// Puts masks into one batch.
#[derive(Node)]
#[node(category = "mask", display_name = "Batch Masks")]
struct BatchMasksNode {
    /// The masks; the first ones decide the size, to which others are scaled and cut.
    #[input(grows = ("mask", 2, 50))]
    masks: Vec<Shared<Mask>>,
}

impl Run for BatchMasksNode {
    type Output = Mask;

    fn run(self, _: &Context<'_>) -> Result<Mask> {
        let join = || -> Result<Mask, Error> {
            let Some(first) = self.masks.first() else { return Err(nothing("masks")) };
            let (_, height, width) = first.dims();
            let fitted = self.masks.iter().map(|mask| {
                if (mask.dims().1, mask.dims().2) == (height, width) {
                    return Ok(mask.values().clone());
                }
                let planes = crop_to_aspect(&mask.values().unsqueeze(1)?, width, height)?.contiguous()?;
                Ok(resize(&planes, width, height, Method::Bilinear)?.squeeze(1)?)
            });
            Mask::new(Tensor::cat(&fitted.collect::<Result<Vec<_>, Error>>()?, 0)?)
        };
        join().map_err(tell)
    }
}

/// Puts latents into one batch, in which each keeps the noise of its place in the batch that it comes from.
#[derive(Node)]
#[node(category = "latent", display_name = "Batch Latents")]
struct BatchLatentsNode {
    /// The latents; the first ones decide the size, to which others are scaled and cut.
    #[input(grows = ("latent", 2, 50))]
    latents: Vec<Shared<Latent>>,
}

impl Run for BatchLatentsNode {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let join = || -> Result<Latent, Error> {
            let Some(first) = self.latents.first() else { return Err(nothing("latents")) };
            let fitted = self.latents.iter().map(|latent| fit(latent.samples(), first.samples(), false));
            let samples = Tensor::cat(&fitted.collect::<Result<Vec<_>, Error>>()?, 0)?;
            let places = self.latents.iter().flat_map(|latent| latent.places());
            Ok(first.with_samples(samples)?.with_places(places.collect()))
        };
        join().map_err(tell)
    }
}

fn nothing(what: &'static str) -> Error {
    Error::Unfit { what: "the batch", expected: format!("{what}, at least one"), found: "none".to_owned() }
}
