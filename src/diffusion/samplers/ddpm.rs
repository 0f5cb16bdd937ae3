//! DDPM: the reverse of the noising chain, step by step.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, divide, scale};

pub(super) const SAMPLER: Sampler = Sampler::new("ddpm", 1, sample);

/// Ho et al. 2020 (arXiv:2006.11239), algorithm 2 with the posterior's variance: on `x / √(1 + sigma²)`, whose share of
/// signal in the variance is `1 / (1 + sigma²)`. One evaluation a step.
fn sample(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
) -> Result<Tensor> {
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        let signal = 1.0 / (step.sigma * step.sigma + 1.0);
        let next_signal = 1.0 / (step.next * step.next + 1.0);
        let kept = signal / next_signal;

        let predicted = scale(&slope(&x, &denoised, step.sigma)?, 1.0 - kept)?;
        let predicted = divide(&predicted, (1.0 - signal).sqrt())?;
        let preserved = divide(&x, (1.0 + step.sigma * step.sigma).sqrt())?;
        x = scale(&(preserved - predicted)?, (1.0 / kept).sqrt())?;
        if step.next > 0.0 {
            let variance = (1.0 - kept) * (1.0 - next_signal) / (1.0 - signal);
            x = add_scaled(&x, &noise.between(step.sigma, step.next)?, variance.sqrt())?;
            x = scale(&x, (1.0 + step.next * step.next).sqrt())?;
        }
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}
