//! A sampler with its settings, as it travels between nodes.

use std::sync::Arc;

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, Source};
use crate::Result;
use crate::noise::Noise;

type Run = dyn Fn(&dyn Denoiser, Tensor, &[f32], &mut Noise, Observe<'_>) -> Result<Tensor> + Send + Sync;

/// A sampler with its settings. Cheap to clone.
#[derive(Clone)]
pub struct Walk {
    run: Arc<Run>,
    /// Where its noise comes from.
    pub source: Source,
    /// See [`Sampler::guided_apart`].
    pub guided_apart: bool,
    /// See [`Sampler::fresh_mask_noise`].
    pub fresh_mask_noise: bool,
    /// How many times as wide and high the result is as the start; `None` where their sizes are equal.
    pub enlarges: Option<f64>,
}

impl Walk {
    /// A sampler of the table's as another one is, with another function.
    pub(super) fn like(
        sampler: &Sampler,
        run: impl Fn(&dyn Denoiser, Tensor, &[f32], &mut Noise, Observe<'_>) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Self {
        let &Sampler { source, guided_apart, fresh_mask_noise, .. } = sampler;
        Self { run: Arc::new(run), source, guided_apart, fresh_mask_noise, enlarges: None }
    }

    /// The same, of results so many times as wide and high.
    pub(super) fn enlarging(self, ratio: f64) -> Self {
        Self { enlarges: Some(ratio), ..self }
    }

    /// Takes a latent from the first level to the last, as [`Sample`](super::Sample) does.
    ///
    /// # Errors
    /// As [`Sample`](super::Sample).
    pub fn run(
        &self,
        model: &dyn Denoiser,
        x: Tensor,
        sigmas: &[f32],
        noise: &mut Noise,
        observe: Observe<'_>,
    ) -> Result<Tensor> {
        (self.run)(model, x, sigmas, noise, observe)
    }
}

impl From<&'static Sampler> for Walk {
    fn from(sampler: &'static Sampler) -> Self {
        Self::like(sampler, sampler.sample)
    }
}
