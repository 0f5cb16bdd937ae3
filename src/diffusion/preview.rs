//! A rough picture of a latent, good enough to watch sampling by.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};

use crate::equations::solve;
use crate::vae::Vae;
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

/// The Stable Diffusion x4 upscaler.
pub const UPSCALER: Colours = Colours {
    channels: [
        [-0.2340, -0.3863, -0.3257],
        [0.0994, 0.0885, -0.0908],
        [-0.2833, -0.2349, -0.3741],
        [0.2523, -0.0055, -0.1651],
    ],
    base: [0.0; 3],
};

/// The colours of a model's latents: known for its architecture, or read off its own autoencoder when first asked for.
///
/// Checkpoints of one architecture share the latents of the autoencoder that its authors trained. One of other measures has
/// latents of its own, in which the known colours would mean nothing.
#[derive(Clone)]
pub struct Look(Arc<Mutex<Source>>);

enum Source {
    Known(Colours),
    ReadOff { vae: Box<Vae>, latent_scale: f64, otherwise: Colours },
}

impl Look {
    /// These colours.
    #[must_use]
    pub fn known(colours: Colours) -> Self {
        Self(Arc::new(Mutex::new(Source::Known(colours))))
    }

    /// The known colours for an autoencoder of the measures of Stable Diffusion's or its upscaler's, else those that [`Colours::read_off`] finds.
    #[must_use]
    pub fn of(vae: &Vae, latent_scale: f64, known: Colours) -> Self {
        let widths = vae.widths();
        if widths.is_empty() || KNOWN_WIDTHS.contains(&widths.as_slice()) || vae.channels() != known.channels.len() {
            return Self::known(known);
        }
        Self(Arc::new(Mutex::new(Source::ReadOff { vae: Box::new(vae.clone()), latent_scale, otherwise: known })))
    }

    /// The colours. The first call may run the autoencoder on a small picture, and then lets go of it.
    #[must_use]
    pub fn colours(&self) -> Colours {
        let mut source = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let colours = match &*source {
            Source::Known(colours) => return *colours,
            // An autoencoder that gives no numbers fails where pictures are made with it, with a better message.
            Source::ReadOff { vae, latent_scale, otherwise } => {
                Colours::read_off(vae, *latent_scale).ok().flatten().unwrap_or(*otherwise)
            }
        };
        *source = Source::Known(colours);
        colours
    }
}

/// Channels of the levels of the autoencoders that Stable Diffusion and Stable Diffusion XL have, and the upscaler.
const KNOWN_WIDTHS: [&[usize]; 2] = [&[128, 256, 512, 512], &[128, 256, 512]];

impl Colours {
    /// The linear map that best tells the colours of a mosaic from what the autoencoder makes of it, by least squares;
    /// `None` where that gives no numbers.
    ///
    /// Toyland's own drawings come out at 0.051 from their true cell colours (root mean square, of a range of 2); the best
    /// linear map for them is at 0.040, Stable Diffusion's at 1.06.
    ///
    /// # Errors
    /// The autoencoder's.
    pub fn read_off(vae: &Vae, latent_scale: f64) -> Result<Option<Self>> {
        let (image, wanted) = mosaic(vae.factor())?;
        let latents = (vae.encode(&image)?.to_dtype(DType::F32)? * latent_scale)?;
        // [picture, channel, cell] to a row of channels and a one for each cell.
        let latents: Vec<Vec<Vec<f32>>> = latents.flatten_from(2)?.to_vec3()?;
        let rows = latents.iter().flat_map(|picture| {
            (0..picture[0].len()).map(move |cell| -> Vec<f64> {
                let channels = picture.iter().map(|channel| f64::from(channel[cell]));
                channels.chain([1.0]).collect()
            })
        });
        Ok(fit(&rows.collect::<Vec<_>>(), &wanted))
    }
}

/// Two pictures of 4 x 4 tiles, each two cells wide, `[2, 3, 8 * factor, 8 * factor]`, 0 to 1, and the colours of their 128
/// cells, -1 to 1. Tiles of one cell would show more of their edges than of their colours.
fn mosaic(factor: usize) -> Result<(Tensor, Vec<[f64; 3]>)> {
    const CELLS: usize = 8;
    // Roberts' low-discrepancy sequence in three dimensions: powers of the root of x^4 = x + 1.
    const STEPS: [f64; 3] = [0.819_172_513_396_164_5, 0.671_043_606_703_789_2, 0.549_700_477_901_970_3];
    let tile = |tile: usize| STEPS.map(|step| (0.5 + step * tile as f64).fract());
    let colour = |picture: usize, row: usize, column: usize| tile(picture * 16 + row / 2 * 4 + column / 2);
    let cells = (0..2).flat_map(|p| (0..CELLS).flat_map(move |r| (0..CELLS).map(move |c| (p, r, c))));
    let wanted = cells.map(|(p, r, c)| colour(p, r, c).map(|value| 2.0 * value - 1.0)).collect();

    let side = CELLS * factor;
    let mut values = Vec::with_capacity(2 * 3 * side * side);
    for (picture, channel) in (0..2).flat_map(|picture| (0..3).map(move |channel| (picture, channel))) {
        for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
            values.push(colour(picture, y / factor, x / factor)[channel] as f32);
        }
    }
    Ok((Tensor::from_vec(values, (2, 3, side, side), &Device::Cpu)?, wanted))
}

/// Least squares by the normal equations, with a breath of ridge for channels that never move.
fn fit(rows: &[Vec<f64>], wanted: &[[f64; 3]]) -> Option<Colours> {
    const RIDGE: f64 = 1e-3;
    let size = rows.first()?.len();
    let product = |i: usize, j: usize| -> f64 { rows.iter().map(|row| row[i] * row[j]).sum() };
    let entry = |i: usize, j: usize| {
        let ridge = if i == j && i + 1 < size { RIDGE * rows.len() as f64 } else { 0.0 };
        product(i, j) + ridge
    };
    let squares: Vec<Vec<f64>> = (0..size).map(|i| (0..size).map(|j| entry(i, j)).collect()).collect();
    let found = [0, 1, 2].map(|colour| {
        let right = (0..size).map(|i| rows.iter().zip(wanted).map(|(row, wanted)| row[i] * wanted[colour]).sum());
        solve(squares.clone(), right.collect())
    });
    let weights = |channel: usize| [0, 1, 2].map(|colour| found[colour][channel] as f32);
    let colours = Colours { channels: [0, 1, 2, 3].map(weights), base: weights(4) };
    let is_finite = colours.channels.iter().chain([&colours.base]).flatten().all(|value| value.is_finite());
    is_finite.then_some(colours)
}

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
    fn a_linear_map_is_found_again() {
        let truth = [[0.5, -0.25, 0.1], [0.0, 0.3, 0.2], [-0.4, 0.1, 0.6], [0.2, 0.2, -0.1], [0.1, -0.05, 0.02]];
        let rows: Vec<Vec<f64>> = (0..40_u32)
            .map(|i| (1..5).map(|k| f64::from(i * k * 37 % 17) / 8.0 - 1.0).chain([1.0]).collect())
            .collect();
        let wanted: Vec<[f64; 3]> = rows
            .iter()
            .map(|row| [0, 1, 2].map(|c| row.iter().zip(truth).map(|(value, weights)| value * weights[c]).sum()))
            .collect();
        let found = fit(&rows, &wanted).unwrap();
        for (found, truth) in found.channels.iter().chain([&found.base]).zip(truth) {
            for (found, truth) in found.iter().zip(truth) {
                assert!((f64::from(*found) - truth).abs() < 0.01, "{found} for {truth}");
            }
        }
        assert_eq!(fit(&[], &[]), None);
        assert_eq!(fit(&[vec![f64::NAN; 5]], &[[0.0; 3]]), None);
    }

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
