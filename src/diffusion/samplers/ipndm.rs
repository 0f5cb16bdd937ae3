//! Improved pseudo-numerical methods: Adams–Bashforth as if the levels were evenly spaced.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, divide, scale};

pub(super) const SAMPLER: Sampler = Sampler::new("ipndm", 2, sample);

/// Weights of the slopes, newest first, and what divides their sum.
const WEIGHTS: [(&[f32], f32); 4] =
    [(&[1.0], 1.0), (&[3.0, -1.0], 2.0), (&[23.0, -16.0, 5.0], 12.0), (&[55.0, -59.0, 37.0, -9.0], 24.0)];

/// Zhang and Chen 2022 (arXiv:2204.13902), section 4 (iPNDM), of up to four slopes. One evaluation a step.
fn sample(model: &dyn Denoiser, mut x: Tensor, sigmas: &[f32], _: &mut Noise, observe: Observe<'_>) -> Result<Tensor> {
    // Newest first.
    let mut slopes: VecDeque<Tensor> = VecDeque::with_capacity(WEIGHTS.len() + 1);
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        slopes.push_front(slope(&x, &denoised, step.sigma)?);
        slopes.truncate(WEIGHTS.len());
        x = if step.next == 0.0 {
            denoised.clone()
        } else {
            let (weights, divisor) = WEIGHTS[slopes.len() - 1];
            let mut sum = scale(&slopes[0], weights[0])?;
            for (slope, &weight) in slopes.iter().zip(weights).skip(1) {
                sum = add_scaled(&sum, slope, weight)?;
            }
            let change = divide(&scale(&sum, step.next - step.sigma)?, divisor)?;
            (x + change)?
        };
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}
