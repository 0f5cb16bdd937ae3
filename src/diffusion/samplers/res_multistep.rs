//! Refined exponential solver, multistep.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, ancestral, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, scale};

pub(super) const SAMPLER: Sampler = Sampler::new("res_multistep", 2, sample);
pub(super) const ANCESTRAL: Sampler = Sampler::new("res_multistep_ancestral", 2, sample_ancestral);

fn sample(model: &dyn Denoiser, x: Tensor, sigmas: &[f32], _: &mut Noise, observe: Observe<'_>) -> Result<Tensor> {
    walk(model, x, sigmas, None, observe)
}

fn sample_ancestral(
    model: &dyn Denoiser,
    x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, Some(noise), observe)
}

/// Zhang et al. 2023 (arXiv:2308.02157), the second-order multistep method, in `t = −ln sigma`; with `noise`, to a lower
/// level than the next and fresh noise up to it. One evaluation a step.
fn walk(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    mut noise: Option<&mut Noise>,
    observe: Observe<'_>,
) -> Result<Tensor> {
    let t = |sigma: f32| -sigma.ln();
    // What the last step saw, and the level that it went down to.
    let mut last: Option<(Tensor, f32)> = None;
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        let (down, up) = if noise.is_some() { ancestral(step.sigma, step.next) } else { (step.next, 0.0) };
        x = match &last {
            Some((seen, reached)) if down != 0.0 => {
                let h = t(down) - t(step.sigma);
                let back = (t(sigmas[step.index - 1]) - t(*reached)) / h;
                let phi_1 = (-h).exp_m1() / -h;
                let phi_2 = (phi_1 - 1.0) / -h;
                let (new, old) = (number(phi_1 - phi_2 / back), number(phi_2 / back));
                let mean = add_scaled(&scale(&denoised, new)?, seen, old)?;
                add_scaled(&scale(&x, (-h).exp())?, &mean, h)?
            }
            _ => {
                let slope = slope(&x, &denoised, step.sigma)?;
                add_scaled(&x, &slope, down - step.sigma)?
            }
        };
        if let Some(noise) = noise.as_deref_mut()
            && step.next > 0.0
        {
            x = add_scaled(&x, &noise.between(step.sigma, step.next)?, up)?;
        }
        step.done(&x, &denoised, observe)?;
        last = Some((denoised, down));
    }
    Ok(x)
}

/// 0 for what is no number: steps of no length have no weight.
fn number(weight: f32) -> f32 {
    if weight.is_nan() { 0.0 } else { weight }
}
