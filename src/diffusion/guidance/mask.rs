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
        Ok(Self { inner, sampling, mask, keep, latent: latent.clone(), noise: noise.clone() })
    }
}

impl Denoiser for KeepOutside<'_> {
    fn denoise(&self, x: &Tensor, sigma: f32) -> Result<Tensor> {
        let kept = self.sampling.add_noise(&self.latent, &self.noise, sigma, false)?;
        let x = ((x * &self.mask)? + (kept * &self.keep)?)?;
        let denoised = self.inner.denoise(&x, sigma)?;
        Ok(((denoised * &self.mask)? + (&self.latent * &self.keep)?)?)
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
