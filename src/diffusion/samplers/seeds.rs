//! SEEDS: exponential integrators of two and three stages for the stochastic equation, and Heun's method among them.
//!
//! Gonzalez et al. 2023, arXiv:2305.14267.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, Walk, half_log_snr, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, mix, scale};

pub(super) const TWO: Sampler = Sampler::unstated("seeds_2", |model, x, sigmas, noise, observe| {
    two(model, x, sigmas, noise, observe, (1.0, 1.0, 0.5, Phi::One))
});
pub(super) const THREE: Sampler = Sampler::unstated("seeds_3", three);
pub(super) const EXP_HEUN: Sampler = Sampler::unstated("exp_heun_2_x0", |model, x, sigmas, noise, observe| {
    two(model, x, sigmas, noise, observe, (0.0, 0.0, 1.0, Phi::Two))
});
pub(super) const EXP_HEUN_SDE: Sampler = Sampler::unstated("exp_heun_2_x0_sde", |model, x, sigmas, noise, observe| {
    two(model, x, sigmas, noise, observe, (1.0, 1.0, 1.0, Phi::Two))
});

/// Which integrals weigh the two evaluations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phi {
    /// The first: one weight for a blend of both.
    One,
    /// The first and the second.
    Two,
}

impl Walk {
    /// `seeds_2` with a share `eta` of the noise, of deviation `s_noise`, and its second evaluation at `r` of the step.
    #[must_use]
    pub fn seeds_2(eta: f32, s_noise: f32, r: f32, phi: Phi) -> Self {
        Self::like(&TWO, move |model, x, sigmas, noise, observe| {
            two(model, x, sigmas, noise, observe, (eta, s_noise, r, phi))
        })
    }
}

fn phi_1(h: f32) -> f32 {
    h.exp_m1()
}

fn phi_2(h: f32) -> f32 {
    (h.exp_m1() - h) / h
}

/// `from + (to − from)·share`, from the nearer end.
fn between(from: f32, to: f32, share: f32) -> f32 {
    if share < 0.5 { from + share * (to - from) } else { to - (to - from) * (1.0 - share) }
}

/// Two evaluations a step, one in a step to 0.
fn two(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
    (eta, s_noise, r, phi): (f32, f32, f32, Phi),
) -> Result<Tensor> {
    let noisy = eta > 0.0 && s_noise > 0.0;
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        if step.next == 0.0 {
            x = denoised.clone();
            step.done(&x, &denoised, observe)?;
            continue;
        }
        let (from, to) = (half_log_snr(step.sigma), half_log_snr(step.next));
        let h = to - from;
        let h_eta = h * (eta + 1.0);
        let middle = (-between(from, to, r)).exp();
        let mut halfway = mix(&[(middle / step.sigma * (-r * h * eta).exp(), &x), (-phi_1(-r * h_eta), &denoised)])?;
        let mut drawn = None;
        if noisy {
            let first = scale(&noise.between(step.sigma, middle)?, (-(-2.0 * r * h * eta).exp_m1()).sqrt())?;
            halfway = add_scaled(&halfway, &first, middle * s_noise)?;
            drawn = Some(first);
        }
        let second = model.denoise(&halfway, middle)?;
        let (one, other) = match phi {
            Phi::One => {
                let share = 1.0 / (2.0 * r);
                (phi_1(-h_eta) * (1.0 - share), phi_1(-h_eta) * share)
            }
            Phi::Two => {
                let other = phi_2(-h_eta) / r;
                (phi_1(-h_eta) - other, other)
            }
        };
        let kept = step.next / step.sigma * (-h * eta).exp();
        x = mix(&[(kept, &x), (-one, &denoised), (-other, &second)])?;
        if let Some(first) = drawn {
            let segment = (r - 1.0) * h * eta;
            let rest = noise.between(middle, step.next)?;
            let both = mix(&[(segment.exp(), &first), ((-(segment * 2.0).exp_m1()).sqrt(), &rest)])?;
            x = add_scaled(&x, &both, step.next * s_noise)?;
        }
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}

/// Three evaluations a step, one in a step to 0.
fn three(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
) -> Result<Tensor> {
    const ETA: f32 = 1.0;
    const FIRST: f32 = 1.0 / 3.0;
    const SECOND: f32 = 2.0 / 3.0;
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        if step.next == 0.0 {
            x = denoised.clone();
            step.done(&x, &denoised, observe)?;
            continue;
        }
        let (from, to) = (half_log_snr(step.sigma), half_log_snr(step.next));
        let h = to - from;
        let h_eta = h * (ETA + 1.0);
        let level = |share: f32| (-between(from, to, share)).exp();
        let (one, two) = (level(FIRST), level(SECOND));
        let kept = |level: f32, share: f32| level / step.sigma * (-share * h * ETA).exp();
        let later = |share: f32| (share * h * ETA).exp();
        let fresh = |share: f32| (-(share * 2.0 * h * ETA).exp_m1()).sqrt();

        let mut drawn = scale(&noise.between(step.sigma, one)?, fresh(-FIRST))?;
        let second = mix(&[(kept(one, FIRST), &x), (-phi_1(-FIRST * h_eta), &denoised), (one, &drawn)])?;
        let second = model.denoise(&second, one)?;

        let weight = SECOND / FIRST * phi_2(-SECOND * h_eta);
        drawn = mix(&[(later(FIRST - SECOND), &drawn), (fresh(FIRST - SECOND), &noise.between(one, two)?)])?;
        let third = mix(&[
            (kept(two, SECOND), &x),
            (weight - phi_1(-SECOND * h_eta), &denoised),
            (-weight, &second),
            (two, &drawn),
        ])?;
        let third = model.denoise(&third, two)?;

        let weight = phi_2(-h_eta) / SECOND;
        drawn = mix(&[(later(SECOND - 1.0), &drawn), (fresh(SECOND - 1.0), &noise.between(two, step.next)?)])?;
        x = mix(&[
            (kept(step.next, 1.0), &x),
            (weight - phi_1(-h_eta), &denoised),
            (-weight, &third),
            (step.next, &drawn),
        ])?;
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}
