//! Heun's method that looks a second step ahead.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, scale};

pub(super) const SAMPLER: Sampler = Sampler::new("heunpp2", 1, sample);

/// "Heun++": the slopes of this level, the next and the one after it, the later ones weighted by their level's share of
/// the first (Carzit, sd-webui-samplers-scheduler). Three evaluations a step, two in the last but one, one in the last.
fn sample(model: &dyn Denoiser, mut x: Tensor, sigmas: &[f32], _: &mut Noise, observe: Observe<'_>) -> Result<Tensor> {
    let Some(&last) = sigmas.last() else { return Ok(x) };
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        let first = slope(&x, &denoised, step.sigma)?;
        let length = step.next - step.sigma;
        let ahead = add_scaled(&x, &first, length)?;
        let after = sigmas.get(step.index + 2).copied().filter(|_| step.next != last);
        x = if let Some(after) = after {
            let second = slope(&ahead, &model.denoise(&ahead, step.next)?, step.next)?;
            let mean = if after == last {
                let weight = step.next / (2.0 * sigmas[0]);
                (scale(&first, 1.0 - weight)? + scale(&second, weight)?)?
            } else {
                let further = add_scaled(&ahead, &second, after - step.next)?;
                let third = slope(&further, &model.denoise(&further, after)?, after)?;
                let (second_weight, third_weight) = (step.next / (3.0 * sigmas[0]), after / (3.0 * sigmas[0]));
                let mean = scale(&first, 1.0 - second_weight - third_weight)?;
                add_scaled(&add_scaled(&mean, &second, second_weight)?, &third, third_weight)?
            };
            add_scaled(&x, &mean, length)?
        } else {
            ahead
        };
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}
