//! DPM-Solver-2: along the slope at the middle of a step.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, ancestral, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::add_scaled;

pub(super) const SAMPLER: Sampler = Sampler { skips_last_level: true, ..Sampler::new("dpm_2", 2, sample) };
pub(super) const ANCESTRAL: Sampler =
    Sampler { skips_last_level: true, ..Sampler::new("dpm_2_ancestral", 2, sample_ancestral) };

/// Lu et al. 2022 (arXiv:2206.00927) in the coordinates of Karras et al. 2022. Two evaluations a step, one in a step
/// to 0.
fn sample(model: &dyn Denoiser, mut x: Tensor, sigmas: &[f32], _: &mut Noise, observe: Observe<'_>) -> Result<Tensor> {
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        x = midpoint(model, &x, &denoised, step.sigma, step.next)?;
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}

/// The same to a lower level than the next, then fresh noise up to the next.
fn sample_ancestral(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
) -> Result<Tensor> {
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        let (down, up) = ancestral(step.sigma, step.next);
        x = midpoint(model, &x, &denoised, step.sigma, down)?;
        if down != 0.0 {
            x = add_scaled(&x, &noise.between(step.sigma, step.next)?, up)?;
        }
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}

/// From level `sigma` to `next` along the slope at their geometric mean; along the first slope if `next` is 0.
fn midpoint(model: &dyn Denoiser, x: &Tensor, denoised: &Tensor, sigma: f32, next: f32) -> Result<Tensor> {
    let first = slope(x, denoised, sigma)?;
    if next == 0.0 {
        return add_scaled(x, &first, next - sigma);
    }
    let middle = (next.ln() - (next.ln() - sigma.ln()) * 0.5).exp();
    let halfway = add_scaled(x, &first, middle - sigma)?;
    let second = slope(&halfway, &model.denoise(&halfway, middle)?, middle)?;
    add_scaled(x, &second, next - sigma)
}
