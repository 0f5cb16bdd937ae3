//! DPM-Solver++(2S) that overshoots and adds noise back.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, Walk, ancestral_by, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, scale};

pub(super) const SAMPLER: Sampler = Sampler::new("dpmpp_2s_ancestral", 2, |model, x, sigmas, noise, observe| {
    sample(model, x, sigmas, noise, observe, (1.0, 1.0))
});

impl Walk {
    /// `dpmpp_2s_ancestral` with a share `eta` of the noise, of deviation `s_noise`.
    #[must_use]
    pub fn dpmpp_2s_ancestral(eta: f32, s_noise: f32) -> Self {
        Self::like(&SAMPLER, move |model, x, sigmas, noise, observe| {
            sample(model, x, sigmas, noise, observe, (eta, s_noise))
        })
    }
}

/// Lu et al. 2022 (arXiv:2211.01095), algorithm 1 with the middle of the step in `−ln sigma`, to a lower level than the
/// next, then fresh noise up to the next. Two evaluations a step, one in a step to 0.
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
            let slope = slope(&x, &denoised, step.sigma)?;
            add_scaled(&x, &slope, down - step.sigma)?
        } else {
            let (t, t_down) = (-step.sigma.ln(), -down.ln());
            let h = t_down - t;
            let middle = t + 0.5 * h;
            let level = |t: f32| (-t).exp();
            let halfway = scale(&x, level(middle) / level(t))?;
            let halfway = add_scaled(&halfway, &denoised, -(-h * 0.5).exp_m1())?;
            let seen = model.denoise(&halfway, level(middle))?;
            let x = scale(&x, level(t_down) / level(t))?;
            add_scaled(&x, &seen, -(-h).exp_m1())?
        };
        if step.next > 0.0 {
            x = add_scaled(&x, &noise.between(step.sigma, step.next)?, s_noise * up)?;
        }
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}
