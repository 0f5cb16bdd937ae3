//! DPM-Solver++(2M): the clean latent extrapolated from two levels.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, scale};

pub(super) const SAMPLER: Sampler = Sampler::new("dpmpp_2m", 2, sample);

/// Lu et al. 2022 (arXiv:2211.01095), algorithm 2, in `t = −ln sigma`. One evaluation a step.
fn sample(model: &dyn Denoiser, mut x: Tensor, sigmas: &[f32], _: &mut Noise, observe: Observe<'_>) -> Result<Tensor> {
    let t = |sigma: f32| -sigma.ln();
    let level = |t: f32| (-t).exp();
    let mut last: Option<Tensor> = None;
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        let (now, next) = (t(step.sigma), t(step.next));
        let h = next - now;
        let target = match &last {
            // To level 0 the step is infinite in t, and the clean latent is the last word.
            Some(last) if step.next != 0.0 => {
                let h_last = now - t(sigmas[step.index - 1]);
                let lead = 1.0 / (2.0 * (h_last / h));
                add_scaled(&scale(&denoised, 1.0 + lead)?, last, -lead)?
            }
            _ => denoised.clone(),
        };
        x = add_scaled(&scale(&x, level(next) / level(now))?, &target, -(-h).exp_m1())?;
        step.done(&x, &denoised, observe)?;
        last = Some(denoised);
    }
    Ok(x)
}
