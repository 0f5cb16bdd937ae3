//! Pictures of the work so far.

use crate::error::Error;
use candle_core::{Device, Tensor};
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use paraflow_diffusion::preview::{Colours, latent_to_rgb};
use paraflow_diffusion::resize::{Method, resize};

/// A service: with it, samplers show what they see after each step; without it, they do not.
#[derive(Clone, Copy, Debug)]
pub struct Previews {
    /// The longer side of a preview in pixels. ComfyUI's default is 512.
    pub size_px: u32,
}

impl Default for Previews {
    fn default() -> Self {
        Self { size_px: 512 }
    }
}

impl Previews {
    /// The first latent of a batch as a JPEG whose longer side has the size asked for.
    ///
    /// # Shapes
    /// `denoised`: `[batch, 4, height, width]`, f32, at the model's scale.
    ///
    /// # Errors
    /// A latent of other channels.
    pub(crate) fn draw(self, denoised: &Tensor, colours: &Colours) -> Result<Vec<u8>, Error> {
        /// ComfyUI's.
        const QUALITY: u8 = 95;
        let small = latent_to_rgb(denoised, colours)?;
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
