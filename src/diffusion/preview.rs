//! A rough picture of a latent, good enough to watch sampling by.

use candle_core::{DType, Tensor};

use crate::{Error, Result};

/// How a model family's latents look: a colour for each channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colours {
    /// Red, green and blue of each latent channel, for a model-scale latent.
    pub channels: [[f32; 3]; 4],
    /// What they are added to.
    pub base: [f32; 3],
}

/// Stable Diffusion 1.x and 2.x.
pub const STABLE_DIFFUSION: Colours = Colours {
    channels: [
        [0.3512, 0.2297, 0.3227],
        [0.3250, 0.4974, 0.2350],
        [-0.2829, 0.1762, 0.2721],
        [-0.2120, -0.2616, -0.7177],
    ],
    base: [0.0; 3],
};

/// Stable Diffusion XL.
pub const STABLE_DIFFUSION_XL: Colours = Colours {
    channels: [
        [0.3651, 0.4232, 0.4341],
        [-0.2533, -0.0042, 0.1068],
        [0.1076, 0.1111, -0.0362],
        [-0.3165, -0.2492, -0.2188],
    ],
    base: [0.1084, -0.0175, -0.0011],
};

/// A picture of eight bits a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Red, green, blue of each pixel, row after row.
    pub rgb: Vec<u8>,
}

/// The first latent of a batch as a picture, one pixel a cell: a linear map from latent channels to colours.
///
/// # Shapes
/// `denoised`: `[batch, 4, height, width]`, f32, at the model's scale, as [`Observe`](crate::samplers::Observe) hands it out.
///
/// # Errors
/// It has another number of channels.
pub fn latent_to_rgb(denoised: &Tensor, colours: &Colours) -> Result<Picture> {
    let (_, channels, height, width) = denoised.dims4()?;
    if channels != colours.channels.len() {
        return Err(Error::Shape {
            layer: "preview".to_owned(),
            expected: "[batch, 4, height, width]".to_owned(),
            found: denoised.dims().to_vec(),
        });
    }
    let cells = height * width;
    let latent: Vec<f32> = denoised.get(0)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let byte = |cell: usize, colour: usize| {
        let mix =
            |sum: f32, (channel, weights): (usize, &[f32; 3])| sum + latent[channel * cells + cell] * weights[colour];
        let value = colours.channels.iter().enumerate().fold(colours.base[colour], mix);
        // A cast truncates, and makes 0 of what is no number.
        (((value + 1.0) / 2.0).clamp(0.0, 1.0) * 255.0) as u8
    };
    let rgb = (0..cells).flat_map(|cell| (0..3).map(move |colour| (cell, colour)));
    Ok(Picture { width, height, rgb: rgb.map(|(cell, colour)| byte(cell, colour)).collect() })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn latents_become_colours() {
        // Two cells: nothing, and 1 in the first channel, -2 in the last.
        let latent = [[[0.0_f32, 1.0]], [[0.0, 0.0]], [[0.0, 0.0]], [[0.0, -2.0]]];
        let latent = Tensor::new(&[latent], &Device::Cpu).unwrap();
        let picture = latent_to_rgb(&latent, &STABLE_DIFFUSION).unwrap();
        assert_eq!((picture.width, picture.height), (2, 1));
        let expected = [0.3512 + 0.4240, 0.2297 + 0.5232, 0.3227 + 1.4354]
            .map(|value: f64| (((value + 1.0) / 2.0).min(1.0) * 255.0) as u8);
        assert_eq!(picture.rgb[..3], [127; 3]);
        assert_eq!(picture.rgb[3..], expected);
        assert_eq!(latent_to_rgb(&latent, &STABLE_DIFFUSION_XL).unwrap().rgb[..3], [141, 125, 127]);
        assert!(latent_to_rgb(&latent.narrow(1, 0, 3).unwrap(), &STABLE_DIFFUSION).is_err());
    }
}
