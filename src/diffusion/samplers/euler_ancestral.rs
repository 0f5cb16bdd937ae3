//! Euler's method that overshoots and adds noise back.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, Walk, ancestral_by, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::add_scaled;

pub(super) const SAMPLER: Sampler = Sampler::new("euler_ancestral", 1, |model, x, sigmas, noise, observe| {
    sample(model, x, sigmas, noise, observe, (1.0, 1.0))
});

impl Walk {
    /// `euler_ancestral` with a share `eta` of the noise, of deviation `s_noise`.
    #[must_use]
    pub fn euler_ancestral(eta: f32, s_noise: f32) -> Self {
        Self::like(&SAMPLER, move |model, x, sigmas, noise, observe| {
            sample(model, x, sigmas, noise, observe, (eta, s_noise))
        })
    }
}

/// An Euler step to a lower level than the next, then fresh noise up to the next: ancestral sampling (Song et al. 2020,
/// arXiv:2011.13456, appendix F) in the coordinates of k-diffusion.
fn sample(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
    (eta, s_noise): (f32, f32),
) -> Result<Tensor> {
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        let (down, up) = ancestral_by(step.sigma, step.next, eta);
        x = if down == 0.0 {
            denoised.clone()
        } else {
            let slope = slope(&x, &denoised, step.sigma)?;
            let x = add_scaled(&x, &slope, down - step.sigma)?;
            add_scaled(&x, &noise.between(step.sigma, step.next)?, s_noise * up)?
        };
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}
