//! Prompts for SDXL, which is told the picture's size, and for models that see the picture they change.

use crate::conditioning::encode;
use crate::error::{Error, tell};
use crate::prompt::PromptText;
use crate::vae;
use crate::wires::{Clip, Conditioning, Image, Latent, MAX_SIZE, Mask, Vae};
use candle_core::{Device, Tensor};
use paraflow_diffusion::guidance::{Picture, PictureSize};
use paraflow_diffusion::resize::{Method, resize};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<CLIPTextEncodeSDXL>(),
        NodeDef::of::<CLIPTextEncodeSDXLRefiner>(),
        NodeDef::of::<InpaintModelConditioning>(),
        NodeDef::of::<InstructPixToPixConditioning>(),
    ]
}

/// Turns prompts into what SDXL understands: one for each of its text encoders, and the picture's size.
#[derive(Node)]
#[node(category = "advanced/conditioning", compute)]
struct CLIPTextEncodeSDXL {
    /// SDXL's text encoders.
    clip: Shared<Clip>,
    /// Width that the picture would have had before it was cut; small values give blurred pictures.
    #[input(default = 1024, range = 0..=MAX_SIZE)]
    width: u32,
    /// Height that it would have had.
    #[input(default = 1024, range = 0..=MAX_SIZE)]
    height: u32,
    /// How much of the left side would have been cut off.
    #[input(default = 0, range = 0..=MAX_SIZE)]
    crop_w: u32,
    /// How much of the top would have been cut off.
    #[input(default = 0, range = 0..=MAX_SIZE)]
    crop_h: u32,
    /// Width of the result.
    #[input(default = 1024, range = 0..=MAX_SIZE)]
    target_width: u32,
    /// Height of the result.
    #[input(default = 1024, range = 0..=MAX_SIZE)]
    target_height: u32,
    /// The prompt for the large text encoder.
    #[input(multiline, dynamic_prompts)]
    text_g: PromptText,
    /// The prompt for the small text encoder.
    #[input(multiline, dynamic_prompts)]
    text_l: PromptText,
}

impl Run for CLIPTextEncodeSDXL {
    type Output = Conditioning;

    fn run(self, cx: &Context<'_>) -> Result<Conditioning> {
        let size = PictureSize {
            size: Some((self.width, self.height)),
            crop: (self.crop_w, self.crop_h),
            target: Some((self.target_width, self.target_height)),
            aesthetic_score: None,
        };
        let encoders = self.clip.encoders().map_err(tell)?;
        let prompt = |id: &str| if id == "clip_l" { self.text_l.text() } else { self.text_g.text() };
        let prompts: Vec<&str> = encoders.parts().iter().map(|part| prompt(part.family().id)).collect();
        encode(&self.clip, &prompts, size, cx)
    }
}

/// Turns a prompt into what SDXL's refiner understands, with the picture's size and how beautiful it is.
#[derive(Node)]
#[node(category = "advanced/conditioning", compute)]
struct CLIPTextEncodeSDXLRefiner {
    /// How beautiful the picture is: 6 for what is wanted, 2.5 for what is not.
    #[input(default = 6.0, range = 0.0..=1000.0, step = 0.01)]
    ascore: f64,
    /// Width in pixels.
    #[input(default = 1024, range = 0..=MAX_SIZE)]
    width: u32,
    /// Height in pixels.
    #[input(default = 1024, range = 0..=MAX_SIZE)]
    height: u32,
    /// The prompt.
    #[input(multiline, dynamic_prompts)]
    text: PromptText,
    /// The refiner's text encoder.
    clip: Shared<Clip>,
}

impl Run for CLIPTextEncodeSDXLRefiner {
    type Output = Conditioning;

    fn run(self, cx: &Context<'_>) -> Result<Conditioning> {
        let size = PictureSize {
            size: Some((self.width, self.height)),
            aesthetic_score: Some(self.ascore),
            ..PictureSize::default()
        };
        let encoders = self.clip.encoders().map_err(tell)?;
        let prompts: Vec<&str> = encoders.parts().iter().map(|_| self.text.text()).collect();
        encode(&self.clip, &prompts, size, cx)
    }
}

/// Shows a model that was trained to inpaint the picture without what a mask selects.
#[derive(Node)]
#[node(category = "conditioning/inpaint", compute, outputs = ["positive", "negative", "latent"])]
struct InpaintModelConditioning {
    /// What the picture should show.
    positive: Shared<Conditioning>,
    /// What it should not show.
    negative: Shared<Conditioning>,
    /// The autoencoder.
    vae: Shared<Vae>,
    /// The pictures to change a part of.
    pixels: Shared<Image>,
    /// What to change: 1 is made anew, 0 stays.
    mask: Shared<Mask>,
    /// Whether the sampler keeps what lies outside the mask, too.
    #[input(default = true)]
    noise_mask: bool,
}

impl Run for InpaintModelConditioning {
    type Output = (Conditioning, Conditioning, Latent);

    fn run(self, cx: &Context<'_>) -> Result<(Conditioning, Conditioning, Latent)> {
        let factor = self.vae.autoencoder().map_err(tell)?.factor();
        let prepare = || -> Result<(Tensor, Tensor, Tensor), Error> {
            let (_, height, width, _) = self.pixels.dims();
            let planes = vae::colour_planes(&self.pixels, factor, cx)?;
            let (masks, pictures) = (self.mask.dims().0, planes.dim(0)?);
            if masks != 1 && masks != pictures {
                return Err(Error::Unfit {
                    what: "`mask`",
                    expected: format!("one mask, or one for each of the {pictures} pictures"),
                    found: masks.to_string(),
                });
            }
            let mask = resize(&self.mask.values().unsqueeze(1)?, width, height, Method::Bilinear)?;
            let mask = vae::crop(&mask, factor)?;
            let rounded: Vec<f32> =
                mask.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::round_ties_even).collect();
            let rounded = Tensor::from_vec(rounded, mask.dims(), &Device::Cpu)?;
            let greyed = ((&planes - 0.5)?.broadcast_mul(&rounded.affine(-1.0, 1.0)?)? + 0.5)?;
            Ok((planes, greyed, mask.contiguous()?))
        };
        let (planes, greyed, mask) = prepare().map_err(tell)?;
        let seen = vae::encode(&self.vae, &greyed, cx)?;
        let mut latent = vae::encode(&self.vae, &planes, cx)?;
        if self.noise_mask {
            latent = latent.with_noise_mask(mask.clone()).map_err(tell)?;
        }
        let picture = Picture { latent: Some(seen.samples().clone()), mask: Some(mask), ..Picture::default() };
        Ok((self.positive.with_picture(&picture), self.negative.with_picture(&picture), latent))
    }
}

/// Shows a model that was trained to follow instructions the picture to change.
#[derive(Node)]
#[node(category = "conditioning/instructpix2pix", compute, outputs = ["positive", "negative", "latent"])]
struct InstructPixToPixConditioning {
    /// What the picture should show.
    positive: Shared<Conditioning>,
    /// What it should not show.
    negative: Shared<Conditioning>,
    /// The autoencoder.
    vae: Shared<Vae>,
    /// The pictures to change.
    pixels: Shared<Image>,
}

impl Run for InstructPixToPixConditioning {
    type Output = (Conditioning, Conditioning, Latent);

    fn run(self, cx: &Context<'_>) -> Result<(Conditioning, Conditioning, Latent)> {
        let factor = self.vae.autoencoder().map_err(tell)?.factor();
        let planes = vae::colour_planes(&self.pixels, factor, cx).map_err(tell)?;
        let seen = vae::encode(&self.vae, &planes, cx)?;
        let empty = seen.with_samples(seen.samples().zeros_like().map_err(tell)?).map_err(tell)?;
        let picture = Picture { latent: Some(seen.samples().clone()), ..Picture::default() };
        Ok((self.positive.with_picture(&picture), self.negative.with_picture(&picture), empty))
    }
}
