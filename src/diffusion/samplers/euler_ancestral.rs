//! Euler's method that overshoots and adds noise back.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, ancestral, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::add_scaled;

pub(super) const SAMPLER: Sampler = Sampler::new("euler_ancestral", 1, sample);

/// An Euler step to a lower level than the next, then fresh noise up to the next: ancestral sampling (Song et al. 2020,
/// arXiv:2011.13456, appendix F) in the coordinates of k-diffusion.
fn sample(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
) -> Result<Tensor> {
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        let (down, up) = ancestral(step.sigma, step.next);
        x = if down == 0.0 {
            denoised.clone()
        } else {
            let slope = slope(&x, &denoised, step.sigma)?;
            let x = add_scaled(&x, &slope, down - step.sigma)?;
            add_scaled(&x, &noise.between(step.sigma, step.next)?, up)?
        };
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}
