//! Extended reverse-time SDE solver.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, Walk, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, mix};

pub(super) const SAMPLER: Sampler = Sampler::unstated("er_sde", |model, x, sigmas, noise, observe| {
    sample(model, x, sigmas, noise, observe, ErSde::default())
});

/// Points of the sums that stand for integrals.
const POINTS: usize = 200;

/// How the noise that is kept falls with the level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaler {
    /// The authors' choice.
    Extended,
    /// The level to the power of one more than this.
    Power(f64),
}

/// Settings of the solver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErSde {
    /// How the kept noise falls.
    pub scaler: Scaler,
    /// How many steps it remembers, itself included: 1 to 3.
    pub stages: usize,
    /// Deviation of the noise that it adds.
    pub s_noise: f32,
}

impl Default for ErSde {
    fn default() -> Self {
        Self { scaler: Scaler::Extended, stages: 3, s_noise: 1.0 }
    }
}

impl Walk {
    /// `er_sde` with its settings.
    #[must_use]
    pub fn er_sde(settings: ErSde) -> Self {
        Self::like(&SAMPLER, move |model, x, sigmas, noise, observe| sample(model, x, sigmas, noise, observe, settings))
    }
}

/// Cui et al. 2023 (arXiv:2309.06169), in the variance-exploding case. One evaluation a step.
fn sample(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
    ErSde { scaler, stages, s_noise }: ErSde,
) -> Result<Tensor> {
    let scale = |level: f32| match scaler {
        Scaler::Extended => level * (level.powf(0.3).exp() + 10.0),
        Scaler::Power(eta) => level.powf(eta as f32 + 1.0),
    };
    let mut seen: Option<Tensor> = None;
    let mut slope: Option<Tensor> = None;
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        x = if step.next == 0.0 {
            denoised.clone()
        } else {
            let r = scale(step.next) / scale(step.sigma);
            let mut next = mix(&[(r, &x), (1.0 - r, &denoised)])?;
            if let Some(last) = seen.as_ref().filter(|_| stages >= 2) {
                let width = (step.sigma - step.next) / POINTS as f32;
                let points = (0..POINTS).map(|k| step.next + k as f32 * width);
                let sum: f32 = points.clone().map(|p| width / scale(p)).sum();
                let length = step.next - step.sigma;
                let before = sigmas[step.index - 1];
                let first = mix(&[(1.0 / (step.sigma - before), &denoised), (-1.0 / (step.sigma - before), last)])?;
                next = add_scaled(&next, &first, length + sum * scale(step.next))?;
                if let Some(last) = slope.as_ref().filter(|_| stages >= 3) {
                    let sum: f32 = points.map(|p| width * (p - step.sigma) / scale(p)).sum();
                    let half = (step.sigma - sigmas[step.index - 2]) / 2.0;
                    let second = mix(&[(1.0 / half, &first), (-1.0 / half, last)])?;
                    next = add_scaled(&next, &second, length * length / 2.0 + sum * scale(step.next))?;
                }
                slope = Some(first);
            }
            let variance = step.next * step.next - step.sigma * step.sigma * r * r;
            if s_noise > 0.0 {
                let deviation = variance.sqrt();
                let deviation = if deviation.is_nan() { 0.0 } else { deviation };
                next = add_scaled(&next, &noise.between(step.sigma, step.next)?, s_noise * deviation)?;
            }
            next
        };
        step.done(&x, &denoised, observe)?;
        seen = Some(denoised);
    }
    Ok(x)
}
