//! Euler's method: straight on along the slope.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::add_scaled;

pub(super) const SAMPLER: Sampler = Sampler::new("euler", 1, sample);

/// Karras et al. 2022 (arXiv:2206.00364), algorithm 1 without its second half: `x + slope·(next − sigma)`.
pub(super) fn sample(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    _: &mut Noise,
    observe: Observe<'_>,
) -> Result<Tensor> {
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        let slope = slope(&x, &denoised, step.sigma)?;
        x = add_scaled(&x, &slope, step.next - step.sigma)?;
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}
