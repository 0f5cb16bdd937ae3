//! DEIS: a polynomial through the last slopes, integrated in the time of a variance-preserving model.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, mix};

pub(super) const SAMPLER: Sampler = Sampler::unstated("deis", sample);

/// Slopes that are remembered.
const ORDER: usize = 3;
/// Points of the sum that stands for an integral.
const POINTS: usize = 10_000;

/// Zhang and Chen 2022 (arXiv:2204.13902), tAB-DEIS of up to three slopes. One evaluation a step.
fn sample(model: &dyn Denoiser, mut x: Tensor, sigmas: &[f32], _: &mut Noise, observe: Observe<'_>) -> Result<Tensor> {
    let time = Time::new();
    let times: Vec<f64> = sigmas.iter().map(|sigma| time.of(f64::from(*sigma))).collect();
    // Newest first.
    let mut slopes: VecDeque<Tensor> = VecDeque::new();
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        slopes.push_front(slope(&x, &denoised, step.sigma)?);
        slopes.truncate(ORDER);
        x = if step.next <= 0.0 || slopes.len() == 1 {
            add_scaled(&x, &slopes[0], step.next - step.sigma)?
        } else {
            let known: Vec<f64> = (0..slopes.len()).map(|back| times[step.index - back]).collect();
            let weights = time.weights(&known, times[step.index + 1]);
            let terms: Vec<(f32, &Tensor)> = weights.into_iter().zip(&slopes).collect();
            (&x + mix(&terms)?)?
        };
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}

/// The clock of a variance-preserving model whose noise rises linearly, from level 0.002 at a thousandth to level 80 at 1.
struct Time {
    slope: f64,
    start: f64,
}

impl Time {
    fn new() -> Self {
        const EPSILON: f64 = 1e-3;
        let log = |sigma: f64| (sigma * sigma + 1.0).ln();
        let slope = 2.0 * (log(0.002) / EPSILON - log(80.0)) / (EPSILON - 1.0);
        Self { slope, start: log(80.0) - 0.5 * slope }
    }

    fn of(&self, sigma: f64) -> f64 {
        let Self { slope, start } = *self;
        ((start * start + 2.0 * slope * (sigma * sigma + 1.0).ln()).sqrt() - start) / slope
    }

    /// How much the slope at each known time counts on the way to `next`, from the first of them.
    fn weights(&self, known: &[f64], next: f64) -> Vec<f32> {
        let (from, length) = (known[0], next - known[0]);
        let mut sums = vec![0.0; known.len()];
        for point in 0..POINTS {
            let t = from + length * point as f64 / (POINTS - 1) as f64;
            let share = self.speed(t);
            for (which, sum) in sums.iter_mut().enumerate() {
                let others = known.iter().enumerate().filter(|&(i, _)| i != which);
                *sum += share * others.map(|(_, at)| (t - at) / (known[which] - at)).product::<f64>();
            }
        }
        sums.into_iter().map(|sum| (sum * length / POINTS as f64) as f32).collect()
    }

    /// How fast the level rises, in the coordinates in which the slope is the noise.
    fn speed(&self, t: f64) -> f64 {
        // The exponent of the signal's share; its derivative.
        let exponent = -0.5 * t * t * self.slope - t * self.start;
        let falls = -t * self.slope - self.start;
        let share = exponent.exp();
        -0.5 * falls / (share * (1.0 - share)).sqrt()
    }
}
