//! Sampling of consistency models: all the way down, and noise up to the next level.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::add_scaled;

/// Order 0: exact with a model whose denoised latent is the end of the path (and wrong with any other).
pub(super) const SAMPLER: Sampler = Sampler::new("lcm", 0, sample);

/// Song et al. 2023 (arXiv:2303.01469), algorithm 1; Luo et al. 2023 (arXiv:2310.04378). One evaluation a step.
fn sample(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
) -> Result<Tensor> {
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        x = if step.next > 0.0 {
            add_scaled(&denoised, &noise.between(step.sigma, step.next)?, step.next)?
        } else {
            denoised.clone()
        };
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}
