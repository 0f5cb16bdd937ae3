//! Changing part of a latent and keeping the rest.

use candle_core::Tensor;

use crate::resize::{Method, resize};
use crate::samplers::Denoiser;
use crate::schedule::ModelSampling;
use crate::tensors::repeat_to_batch;
use crate::{Error, Result};

/// A denoiser confined to a mask: outside it, the model sees the latent that is kept, noised to the level at hand, and
/// what it makes of it is replaced by that latent.
pub struct KeepOutside<'a> {
    inner: &'a dyn Denoiser,
    sampling: &'a ModelSampling,
    /// `[batch, channels, height, width]`, like all three below; 1 where the latent is to change.
    mask: Tensor,
    /// `1 − mask`
    keep: Tensor,
    latent: Tensor,
    noise: Tensor,
    growth: Option<Growth>,
}

impl<'a> KeepOutside<'a> {
    /// Confines `inner` to `mask`, which is resized to the latent.
    ///
    /// # Shapes
    /// - `mask`: `[1 or batch, 1 or channels, height, width]` or `[1 or batch, height, width]`, f32, of any height and width
    /// - `latent`: what is kept, at the model's scale; `noise`: what it is noised with; `[batch, channels, height, width]`
    ///
    /// # Errors
    /// The mask is of another rank, is empty, or holds [numbers that are none](Error::InputNotFinite).
    pub fn new(
        inner: &'a dyn Denoiser,
        sampling: &'a ModelSampling,
        mask: &Tensor,
        latent: &Tensor,
        noise: &Tensor,
    ) -> Result<Self> {
        if !crate::tensors::is_finite(mask)? {
            return Err(Error::InputNotFinite { value: "the noise mask" });
        }
        let mask = fit(mask, latent)?;
        let keep = mask.affine(-1.0, 1.0)?;
        Ok(Self { inner, sampling, mask, keep, latent: latent.clone(), noise: noise.clone(), growth: None })
    }
}

impl KeepOutside<'_> {
    /// Lets the mask grow as sampling goes on: at each level, what lies above a threshold that falls from 1 to 0 may change,
    /// and only that. Levin and Fried 2023, arXiv:2306.00950.
    #[must_use]
    pub fn growing(self, growth: Growth) -> Self {
        Self { growth: Some(growth), ..self }
    }

    /// The mask and what is kept, at a level.
    fn mask_at(&self, sigma: f32) -> Result<(Tensor, Tensor)> {
        let Some(growth) = self.growth else { return Ok((self.mask.clone(), self.keep.clone())) };
        let threshold = growth.threshold(self.sampling, sigma);
        let reached = self.mask.ge(f64::from(threshold))?.to_dtype(self.mask.dtype())?;
        let strength = growth.strength;
        let mask = if strength > 0.0 && strength < 1.0 {
            ((reached * strength)? + (&self.mask * (1.0 - strength))?)?
        } else {
            reached
        };
        let keep = mask.affine(-1.0, 1.0)?;
        Ok((mask, keep))
    }

    /// What the model is shown, and what is kept of its answer.
    fn within(&self, x: &Tensor, sigma: f32) -> Result<(Tensor, impl Fn(Tensor) -> Result<Tensor>)> {
        let (mask, keep) = self.mask_at(sigma)?;
        let kept = self.sampling.add_noise(&self.latent, &self.noise, sigma, false)?;
        let seen = ((x * &mask)? + (kept * &keep)?)?;
        let latent = self.latent.clone();
        Ok((seen, move |denoised: Tensor| Ok(((denoised * &mask)? + (&latent * &keep)?)?)))
    }
}

/// How a mask grows over a sampling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// The level at which only what is wholly selected may change.
    pub first: f32,
    /// The level at which everything may.
    pub last: f32,
    /// How much of the mask grows; the rest stays as it is. 0 and 1: all of it.
    pub strength: f64,
}

impl Growth {
    fn threshold(&self, sampling: &ModelSampling, sigma: f32) -> f32 {
        let (from, to) = (sampling.timestep(self.first), sampling.timestep(self.last.max(sampling.sigma_min())));
        (sampling.timestep(sigma) - to) / (from - to)
    }
}

impl Denoiser for KeepOutside<'_> {
    fn denoise(&self, x: &Tensor, sigma: f32) -> Result<Tensor> {
        let (seen, keep) = self.within(x, sigma)?;
        keep(self.inner.denoise(&seen, sigma)?)
    }

    fn denoise_apart(&self, x: &Tensor, sigma: f32) -> Result<[Tensor; 2]> {
        let (seen, keep) = self.within(x, sigma)?;
        let [denoised, negative] = self.inner.denoise_apart(&seen, sigma)?;
        Ok([keep(denoised)?, negative])
    }
}

/// A mask of the latent's shape.
fn fit(mask: &Tensor, latent: &Tensor) -> Result<Tensor> {
    let (batch, channels, rows, columns) = latent.dims4()?;
    let planes = match *mask.dims() {
        [.., height, width] if mask.elem_count() > 0 => mask.reshape(((), 1, height, width))?,
        _ => {
            return Err(Error::Shape {
                layer: "noise mask".to_owned(),
                expected: "[batch, 1, height, width]".to_owned(),
                found: mask.dims().to_vec(),
            });
        }
    };
    let planes = resize(&planes.contiguous()?.to_device(latent.device())?, columns, rows, Method::Bilinear)?;
    let planes = repeat_to_batch(&planes, batch)?;
    Ok(planes.broadcast_as((batch, channels, rows, columns))?.contiguous()?)
}
