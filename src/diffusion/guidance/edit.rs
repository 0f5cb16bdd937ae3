//! Networks that see a picture beside the noisy latent: those trained to inpaint, InstructPix2Pix, and the upscaler.

use candle_core::{DType, Device, Tensor};

use super::label::noise_level;
use crate::noise::Generator;
use crate::resize::{Method, crop_to_aspect, resize};
use crate::schedule::Betas;
use crate::tensors::{add_scaled, scale};
use crate::{Error, Result};

/// What a network sees beside the noisy latent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Where to paint, one channel, and the picture without what is there.
    Inpaint,
    /// The picture to change.
    Instruct {
        /// At the scale of latents, not as the autoencoder makes it.
        scaled: bool,
    },
    /// The picture to enlarge, of the latent's size, with noise on it: the x4 upscaler.
    Enlarge,
}

/// Colours of a picture.
const COLOURS: usize = 3;

/// What a prompt says of the picture to change, or to enlarge.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// The picture as the autoencoder makes it, `[batch, channels, height, width]`.
    pub latent: Option<Tensor>,
    /// Where it is to change, `[batch, 1, height, width]` or `[batch, height, width]`.
    pub mask: Option<Tensor>,
    /// The picture to enlarge, `[batch, 3, height, width]`, f32, -1 to 1.
    pub small: Option<Tensor>,
    /// How much noise to put on that, 0 to 1: the more, the freer the result.
    pub noise: f64,
}

/// What all prompts of a sampling share.
pub(crate) struct Scene<'a> {
    /// The latent that is sampled, at the model's scale.
    pub(crate) latent: &'a Tensor,
    /// Where it is to change.
    pub(crate) mask: Option<&'a Tensor>,
    /// What the autoencoder's latents are multiplied by for the model.
    pub(crate) scale: f64,
    /// The seed of the sampling.
    pub(crate) seed: u64,
}

impl Edit {
    /// What drew the noise in these channels, as it was left.
    pub(crate) fn drew(self, picture: &Picture, scene: &Scene<'_>) -> Result<Option<Generator>> {
        if self != Self::Enlarge || picture.noise <= 0.0 {
            return Ok(None);
        }
        let (batch, _, rows, columns) = scene.latent.dims4()?;
        let pictures = picture.small.as_ref().map_or(Ok(batch), |small| small.dim(0))?;
        let mut generator = noise_of(scene);
        generator.normal((pictures, COLOURS, rows, columns), &Device::Cpu)?;
        Ok(Some(generator))
    }

    /// The channels that the network gets after those of the noisy latent, `[batch, channels, height, width]`.
    pub(crate) fn channels(self, picture: &Picture, scene: &Scene<'_>) -> Result<Tensor> {
        let scaled = |latent: &Tensor| latent.affine(scene.scale, 0.0);
        match self {
            Self::Enlarge => enlarged(picture, scene),
            Self::Instruct { scaled: scale } => match &picture.latent {
                None => Ok(scene.latent.zeros_like()?),
                Some(latent) if scale => fit(&scaled(latent)?, scene.latent),
                Some(latent) => fit(latent, scene.latent),
            },
            Self::Inpaint => {
                let Some(mask) = picture.mask.as_ref().or(scene.mask) else { return blank(scene.latent) };
                let seen = match &picture.latent {
                    Some(latent) => fit(&scaled(latent)?, scene.latent)?,
                    None => scene.latent.clone(),
                };
                let (height, width) = match *mask.dims() {
                    [.., height, width] => (height, width),
                    _ => return Err(Error::InputNotFinite { value: "the mask" }),
                };
                let mask = match mask.rank() {
                    4 => mask.narrow(1, 0, 1)?.contiguous()?,
                    _ => mask.reshape(((), 1, height, width))?,
                };
                let (batch, _, rows, columns) = scene.latent.dims4()?;
                let mut mask = mask.to_device(scene.latent.device())?;
                if (height, width) != (rows, columns) {
                    mask =
                        resize(&crop_to_aspect(&mask, columns, rows)?.contiguous()?, columns, rows, Method::Bilinear)?;
                }
                let values: Vec<f32> = mask.flatten_all()?.to_vec1()?;
                let values = values.into_iter().map(f32::round_ties_even).collect::<Vec<_>>();
                let mask = Tensor::from_vec(values, mask.dims(), mask.device())?;
                Ok(Tensor::cat(&[&spread(&mask, batch)?, &seen], 1)?)
            }
        }
    }
}

/// The generator of the noise on a picture to enlarge, ten seeds before the sampling's, as ComfyUI has it.
fn noise_of(scene: &Scene<'_>) -> Generator {
    Generator::new(scene.seed.wrapping_sub(10))
}

/// The picture to enlarge at the size of the latent, noised as far as it is told; grey where there is none.
///
/// Noise is drawn for all pictures of a batch at once.
fn enlarged(picture: &Picture, scene: &Scene<'_>) -> Result<Tensor> {
    let (batch, _, rows, columns) = scene.latent.dims4()?;
    let seen = match &picture.small {
        Some(small) if small.rank() == 4 && small.dim(1)? == COLOURS => {
            let cut = crop_to_aspect(small, columns, rows)?.contiguous()?;
            resize(&cut, columns, rows, Method::Bilinear)?
        }
        Some(small) => {
            return Err(Error::Shape {
                layer: "sampling (the picture to enlarge)".to_owned(),
                expected: format!("[batch, {COLOURS}, height, width]"),
                found: small.dims().to_vec(),
            });
        }
        None => Tensor::zeros((batch, COLOURS, rows, columns), DType::F32, &Device::Cpu)?,
    };
    let mut seen = seen.to_device(scene.latent.device())?;
    if picture.noise > 0.0 {
        let kept = Betas::UPSCALER.signal()[noise_level(picture.noise)];
        let noise = noise_of(scene).normal(seen.shape(), seen.device())?;
        seen = add_scaled(&scale(&seen, kept.sqrt() as f32)?, &noise, (1.0 - kept).sqrt() as f32)?;
    }
    spread(&seen, batch)
}

/// Everything is to be painted on nothing: ones, and the latent of a grey picture.
fn blank(latent: &Tensor) -> Result<Tensor> {
    const GREY: [f32; 4] = [0.8223, -0.6876, 0.6364, 0.1380];
    let (batch, channels, rows, columns) = latent.dims4()?;
    let values: Vec<f32> =
        std::iter::once(1.0).chain((0..channels).map(|c| GREY.get(c).copied().unwrap_or(1.0))).collect();
    let values = Tensor::from_vec(values, (1, channels + 1, 1, 1), latent.device())?;
    Ok(values.broadcast_as((batch, channels + 1, rows, columns))?.contiguous()?)
}

/// A picture of the size and the batch of a latent.
fn fit(picture: &Tensor, latent: &Tensor) -> Result<Tensor> {
    let (batch, _, rows, columns) = latent.dims4()?;
    let mut picture = picture.to_device(latent.device())?;
    if picture.dims()[1..] != latent.dims()[1..] {
        let cut = crop_to_aspect(&picture, columns, rows)?.contiguous()?;
        picture = resize(&cut, columns, rows, Method::Bilinear)?;
    }
    if picture.dim(1)? != latent.dim(1)? {
        return Err(Error::Shape {
            layer: "sampling (the picture to change)".to_owned(),
            expected: format!("a latent of {} channels", latent.dim(1)?),
            found: picture.dims().to_vec(),
        });
    }
    spread(&picture, batch)
}

/// A batch of another length: entries chosen evenly.
pub(crate) fn spread(x: &Tensor, batch: usize) -> Result<Tensor> {
    let entries = x.dim(0)?;
    if entries == batch {
        return Ok(x.clone());
    }
    if batch <= 1 {
        return Ok(x.narrow(0, 0, batch)?);
    }
    let place = |i: usize| {
        let place = if batch < entries {
            (i as f64 * ((entries - 1) as f64 / (batch - 1) as f64)).round_ties_even()
        } else {
            ((i as f64 + 0.5) * (entries as f64 / batch as f64)).floor()
        };
        (place as usize).min(entries - 1)
    };
    let chosen = (0..batch).map(|i| Ok(x.narrow(0, place(i), 1)?)).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&chosen, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::value;

    /// ComfyUI's `SD_X4Upscaler.extra_conds` gave these bits, and this hash (FNV-1a) of all of them, for two pictures beside three
    /// latents of another shape.
    #[test]
    fn a_picture_to_enlarge_is_noised_to_the_bit() {
        let small = Some(value("small", &[2, 3, 10, 9], 1.0));
        let picture = Picture { small, noise: 0.4, ..Picture::default() };
        let latent = &Tensor::zeros((3, 4, 8, 12), DType::F32, &Device::Cpu).unwrap();
        let scene = Scene { latent, mask: None, scale: 1.0, seed: 7 };
        let seen = Edit::Enlarge.channels(&picture, &scene).unwrap();
        assert_eq!(seen.dims(), [3, 3, 8, 12]);
        let values: Vec<f32> = seen.flatten_all().unwrap().to_vec1().unwrap();
        let recorded = [
            (0, 0xbf05_c3af),
            (1, 0xbee3_7ad4),
            (95, 0xbe6c_daf8),
            (288, 0x3de9_9ded),
            (500, 0x3e80_3876),
            (863, 0xbe83_02f7_u32),
        ];
        for (place, bits) in recorded {
            assert_eq!(values[place].to_bits(), bits, "{place}: {}", values[place]);
        }
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        let hash = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        assert_eq!(hash, 0xe4d8_ec17_99e7_4ccc);
        assert_eq!(noise_level(0.4), 140);
    }

    #[test]
    fn without_a_picture_the_upscaler_sees_grey() {
        let latent = &Tensor::ones((2, 4, 3, 5), DType::F32, &Device::Cpu).unwrap();
        let scene = Scene { latent, mask: None, scale: 1.0, seed: 7 };
        let seen = Edit::Enlarge.channels(&Picture::default(), &scene).unwrap();
        assert_eq!(seen.dims(), [2, 3, 3, 5]);
        assert_eq!(seen.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
        let small = Some(Tensor::zeros((1, 4, 3, 5), DType::F32, &Device::Cpu).unwrap());
        let clear = Picture { small, ..Picture::default() };
        let error = Edit::Enlarge.channels(&clear, &scene).unwrap_err().to_string();
        assert!(error.contains("the picture to enlarge") && error.contains("[1, 4, 3, 5]"), "{error}");
    }
}
