//! Euler's method that leans on how the slope changed.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, scale};

pub(super) const SAMPLER: Sampler = Sampler::new("gradient_estimation", 1, sample);

const GAMMA: f32 = 2.0;

/// Permenter and Yuan 2023 (arXiv:2306.04848), section 4: the slope extrapolated by `γ − 1` of its last change, with
/// γ = 2. One evaluation a step.
fn sample(model: &dyn Denoiser, mut x: Tensor, sigmas: &[f32], _: &mut Noise, observe: Observe<'_>) -> Result<Tensor> {
    let mut last: Option<Tensor> = None;
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        let slope = slope(&x, &denoised, step.sigma)?;
        let length = step.next - step.sigma;
        x = if step.next == 0.0 { denoised.clone() } else { add_scaled(&x, &slope, length)? };
        if let Some(last) = &last
            && step.next != 0.0
        {
            x = add_scaled(&x, &scale(&(&slope - last)?, GAMMA - 1.0)?, length)?;
        }
        step.done(&x, &denoised, observe)?;
        last = Some(slope);
    }
    Ok(x)
}
