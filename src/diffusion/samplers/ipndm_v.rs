//! iPNDM on the levels as they are spaced.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, mix};

pub(super) const SAMPLER: Sampler = Sampler::unstated("ipndm_v", sample);

/// Zhang and Chen 2022 (arXiv:2204.13902), with the weights of Zhou et al.'s diff-sampler for uneven steps, of up to four
/// slopes. One evaluation a step.
fn sample(model: &dyn Denoiser, mut x: Tensor, sigmas: &[f32], _: &mut Noise, observe: Observe<'_>) -> Result<Tensor> {
    // Newest first.
    let mut slopes: VecDeque<Tensor> = VecDeque::new();
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        slopes.push_front(slope(&x, &denoised, step.sigma)?);
        slopes.truncate(4);
        x = if step.next == 0.0 {
            denoised.clone()
        } else {
            let length = |back: usize| sigmas[step.index + 1 - back] - sigmas[step.index - back];
            let lengths: Vec<f32> = (0..slopes.len()).map(length).collect();
            let weights = weights(&lengths);
            let terms: Vec<(f32, &Tensor)> = weights.into_iter().zip(&slopes).collect();
            add_scaled(&x, &mix(&terms)?, step.next - step.sigma)?
        };
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}

/// How much each slope counts, newest first, by the lengths of this step and of those before it.
fn weights(lengths: &[f32]) -> Vec<f32> {
    let second = |a: f32, b: f32| ((2.0 + a / b) / 2.0, -(a / b) / 2.0);
    let third = |a: f32, b: f32, c: f32| (1.0 - a / (3.0 * (a + b)) * (a * (a + b)) / (b * (b + c))) / 2.0;
    match *lengths {
        [a, b] => {
            let (new, old) = second(a, b);
            vec![new, old]
        }
        [a, b, c] => {
            let ((new, old), bend) = (second(a, b), third(a, b, c));
            vec![new + bend, old - (1.0 + b / c) * bend, bend * b / c]
        }
        [a, b, c, d] => {
            let ((new, old), bend) = (second(a, b), third(a, b, c));
            let twist = ((1.0 - a / (3.0 * (a + b))) / 2.0 + (1.0 - a / (2.0 * (a + b))) * a / (6.0 * (a + b + c)))
                * (a * (a + b) * (a + b + c))
                / (b * (b + c) * (b + c + d));
            let far = b * (b + c) / (c * (c + d));
            vec![
                new + bend + twist,
                old - (1.0 + b / c) * bend - (1.0 + b / c + far) * twist,
                bend * b / c + (b / c + far * (1.0 + c / d)) * twist,
                -twist * far * b / c,
            ]
        }
        _ => vec![1.0],
    }
}
