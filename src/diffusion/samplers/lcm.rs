//! Sampling of consistency models: all the way down, and noise up to the next level.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, Walk, steps};
use crate::Result;
use crate::noise::Noise;
use crate::resize::{Method, resize};
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

impl Walk {
    /// The same with latents that grow between steps, evenly up to `ratio` times their first width and height within `growths`
    /// steps; half of them if `None`. Its noise goes on where that of the start ended, as in ComfyUI's `sample_lcm_upscale`.
    #[must_use]
    pub fn lcm_enlarging(ratio: f64, growths: Option<usize>, method: Method) -> Self {
        let sample =
            move |model: &dyn Denoiser, mut x: Tensor, sigmas: &[f32], noise: &mut Noise, observe: Observe<'_>| {
                let (_, _, rows, columns) = x.dims4()?;
                let factors = factors(ratio, growths, sigmas.len());
                let grown = |cells: usize, factor: f64| (cells as f64 * factor).round_ties_even() as usize;
                for step in steps(sigmas) {
                    let denoised = model.denoise(&x, step.sigma)?;
                    x = match factors.get(step.index) {
                        Some(factor) => resize(&denoised, grown(columns, *factor), grown(rows, *factor), method)?,
                        None => denoised.clone(),
                    };
                    if step.next > 0.0 {
                        x = add_scaled(&x, &noise.between_like(&x, step.sigma, step.next)?, step.next)?;
                    }
                    step.done(&x, &denoised, observe)?;
                }
                Ok(x)
            };
        Self::like(&SAMPLER, sample).enlarging(ratio)
    }
}

/// How many times as wide as at the start the latent is after each step that makes it grow.
fn factors(ratio: f64, growths: Option<usize>, levels: usize) -> Vec<f64> {
    let growths = match growths {
        None => (levels / 2).max(1),
        Some(growths) => growths.min(levels),
    };
    let step = (ratio - 1.0) / growths as f64;
    let factor = |growth: usize| if growth == growths { ratio } else { growth as f64 * step + 1.0 };
    (1..=growths).map(factor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latent_grows_evenly_and_ends_at_the_ratio() {
        assert_eq!(factors(2.0, None, 5), [1.5, 2.0]);
        assert_eq!(factors(2.0, None, 2), [2.0]);
        assert_eq!(factors(0.5, Some(1), 5), [0.5]);
        assert_eq!(factors(3.0, Some(0), 5), [0.0_f64; 0]);
        // More growths than steps: the last ones do not happen.
        assert_eq!(factors(5.0, Some(1000), 4), [2.0, 3.0, 4.0, 5.0]);
    }
}
