//! Networks that see a picture beside the noisy latent: those trained to inpaint, and InstructPix2Pix.

use candle_core::Tensor;

use crate::resize::{Method, crop_to_aspect, resize};
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
}

/// What a prompt says of the picture to change.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// The picture as the autoencoder makes it, `[batch, channels, height, width]`.
    pub latent: Option<Tensor>,
    /// Where it is to change, `[batch, 1, height, width]` or `[batch, height, width]`.
    pub mask: Option<Tensor>,
}

/// What all prompts of a sampling share.
pub(crate) struct Scene<'a> {
    /// The latent that is sampled, at the model's scale.
    pub(crate) latent: &'a Tensor,
    /// Where it is to change.
    pub(crate) mask: Option<&'a Tensor>,
    /// What the autoencoder's latents are multiplied by for the model.
    pub(crate) scale: f64,
}

impl Edit {
    /// The channels that the network gets after those of the noisy latent, `[batch, channels, height, width]`.
    pub(crate) fn channels(self, picture: &Picture, scene: &Scene<'_>) -> Result<Tensor> {
        let scaled = |latent: &Tensor| latent.affine(scene.scale, 0.0);
        match self {
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
