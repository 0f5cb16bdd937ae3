//! Pictures of the work so far.

use crate::error::Error;
use crate::files::TINY;
use crate::loaders::open;
use crate::wires::Model;
use candle_core::{Device, Tensor};
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use paraflow_diffusion::preview::{Colours, Picture, latent_to_rgb};
use paraflow_diffusion::resize::{Method, resize};
use paraflow_diffusion::vae::Vae;
use paraflow_engine::Services;

/// A service: with it, samplers show what they see after each step; without it, they do not.
#[derive(Clone, Copy, Debug)]
pub struct Previews {
    /// The longer side of a preview in pixels. ComfyUI's default is 512.
    pub size_px: u32,
    /// Draw them with the tiny autoencoder of the model's family, where its decoder is in `models/vae_approx`; otherwise, and
    /// where it is not there, with a colour for each channel of the latent.
    pub tiny: bool,
}

impl Default for Previews {
    fn default() -> Self {
        Self { size_px: 512, tiny: false }
    }
}

/// What latents look like.
pub(crate) enum Look {
    /// A colour for each channel.
    Colours(Colours),
    /// What the tiny autoencoder makes of them.
    Tiny(Box<Vae>),
}

impl Look {
    /// How a model's latents are shown.
    pub(crate) fn of(model: &Model, previews: &Previews, services: &Services) -> Self {
        // A preview is worth no failure: without the file, or with a broken one, there are the colours.
        let tiny = if previews.tiny { tiny_decoder(model, services).ok().flatten() } else { None };
        tiny.map_or(Self::Colours(model.colours), |vae| Self::Tiny(Box::new(vae)))
    }

    /// The first latent of a batch in bytes of red, green and blue.
    fn picture(&self, denoised: &Tensor) -> Result<Picture, Error> {
        let vae = match self {
            Self::Colours(colours) => return Ok(latent_to_rgb(denoised, colours)?),
            Self::Tiny(vae) => vae,
        };
        let pixels = vae.decode(&denoised.narrow(0, 0, 1)?.contiguous()?)?.permute((0, 2, 3, 1))?;
        let (_, height, width, _) = pixels.dims4()?;
        let bytes = pixels.flatten_all()?.to_vec1::<f32>()?.into_iter().map(|value| (value * 255.0) as u8);
        Ok(Picture { width, height, rgb: bytes.collect() })
    }
}

/// The decoder for a model's own latents, if its file is there.
fn tiny_decoder(model: &Model, services: &Services) -> Result<Option<Vae>, Error> {
    let of_family = TINY.iter().find(|tiny| (tiny.scale - model.latent_scale).abs() < 1e-9);
    let Some(place) = of_family.and_then(|tiny| tiny.half("decoder", services).ok()) else { return Ok(None) };
    Ok(Some(Vae::load_tiny(None, &open(&place)?, 1.0, 0.0)?))
}

impl Previews {
    /// The first latent of a batch as a JPEG whose longer side has the size asked for.
    ///
    /// # Shapes
    /// `denoised`: `[batch, 4, height, width]`, f32, at the model's scale.
    ///
    /// # Errors
    /// A latent of other channels.
    pub(crate) fn draw(self, denoised: &Tensor, look: &Look) -> Result<Vec<u8>, Error> {
        /// ComfyUI's.
        const QUALITY: u8 = 95;
        let small = look.picture(denoised)?;
        let scale = f64::from(self.size_px) / small.width.max(small.height) as f64;
        let scaled = |side: usize| ((side as f64 * scale).round() as usize).max(1);
        let (width, height) = (scaled(small.width), scaled(small.height));
        let values: Vec<f32> = small.rgb.iter().map(|byte| f32::from(*byte)).collect();
        let planes =
            Tensor::from_vec(values, (1, small.height, small.width, 3), &Device::Cpu)?.permute((0, 3, 1, 2))?;
        let large = resize(&planes.contiguous()?, width, height, Method::Bilinear)?.permute((0, 2, 3, 1))?;
        let bytes: Vec<u8> =
            large.flatten_all()?.to_vec1::<f32>()?.into_iter().map(|value| value.round() as u8).collect();
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
            .encode(&bytes, width as u32, height as u32, ExtendedColorType::Rgb8)
            .map_err(|error| candle_core::Error::Msg(error.to_string()))?;
        Ok(jpeg)
    }
}
