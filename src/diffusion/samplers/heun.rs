//! Heun's method: along the mean of the slopes at both ends of a step.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, divide};

pub(super) const SAMPLER: Sampler = Sampler::new("heun", 2, sample);

/// Karras et al. 2022 (arXiv:2206.00364), algorithm 1. Two evaluations a step, one in a step to 0.
fn sample(model: &dyn Denoiser, mut x: Tensor, sigmas: &[f32], _: &mut Noise, observe: Observe<'_>) -> Result<Tensor> {
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        let first = slope(&x, &denoised, step.sigma)?;
        let length = step.next - step.sigma;
        let euler = add_scaled(&x, &first, length)?;
        x = if step.next == 0.0 {
            euler
        } else {
            let second = slope(&euler, &model.denoise(&euler, step.next)?, step.next)?;
            add_scaled(&x, &divide(&(first + second)?, 2.0)?, length)?
        };
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}
