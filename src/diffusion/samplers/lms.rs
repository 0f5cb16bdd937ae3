//! Linear multistep: along a polynomial through the slopes of the last levels.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, Walk, slope, steps};
use crate::Result;
use crate::tensors::{add_scaled, scale};

pub(super) const SAMPLER: Sampler =
    Sampler::new("lms", 3, |model, x, sigmas, _, observe| sample(model, x, sigmas, observe, ORDER));

impl Walk {
    /// `lms` that looks back on up to `order` slopes.
    #[must_use]
    pub fn lms(order: usize) -> Self {
        Self::like(&SAMPLER, move |model, x, sigmas, _, observe| sample(model, x, sigmas, observe, order.max(1)))
    }
}

const ORDER: usize = 4;

/// Adams–Bashforth of up to four slopes on the levels as they are spaced. One evaluation a step. It begins with steps
/// of lower order, which is why the whole does not quite reach order four.
fn sample(model: &dyn Denoiser, mut x: Tensor, sigmas: &[f32], observe: Observe<'_>, order: usize) -> Result<Tensor> {
    // Newest first.
    let mut slopes = VecDeque::new();
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        slopes.push_front(slope(&x, &denoised, step.sigma)?);
        slopes.truncate(order);
        x = if step.next == 0.0 {
            denoised.clone()
        } else {
            let levels: Vec<f64> = (0..slopes.len()).map(|back| f64::from(sigmas[step.index - back])).collect();
            let mut change = scale(&slopes[0], weight(&levels, 0, step.next))?;
            for (i, slope) in slopes.iter().enumerate().skip(1) {
                change = add_scaled(&change, slope, weight(&levels, i, step.next))?;
            }
            (x + change)?
        };
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}

/// How much the slope at `levels[which]` counts in a step from `levels[0]` to `next`: the integral over the step of the
/// polynomial that is 1 at that level and 0 at the others. Three Gauss–Legendre nodes integrate up to the fifth power exactly.
fn weight(levels: &[f64], which: usize, next: f32) -> f32 {
    let nodes = [(-0.6_f64.sqrt(), 5.0 / 9.0), (0.0, 8.0 / 9.0), (0.6_f64.sqrt(), 5.0 / 9.0)];
    let (start, end) = (levels[0], f64::from(next));
    let (middle, half) = ((start + end) / 2.0, (end - start) / 2.0);
    let basis = |sigma: f64| {
        let others = levels.iter().enumerate().filter(|&(i, _)| i != which);
        others.map(|(_, level)| (sigma - level) / (levels[which] - level)).product::<f64>()
    };
    let integral: f64 = nodes.iter().map(|(node, share)| share * basis(middle + half * node)).sum();
    (half * integral) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evenly_spaced_levels_give_the_classical_weights() {
        let levels = [4.0, 5.0, 6.0, 7.0];
        let classical = [55.0, -59.0, 37.0, -9.0].map(|weight| -weight / 24.0);
        for (which, expected) in classical.into_iter().enumerate() {
            assert!((weight(&levels, which, 3.0) - expected).abs() < 1e-6);
        }
    }
}
