//! UniPC: predicts, evaluates, and corrects with what it has just evaluated.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, steps};
use crate::Result;
use crate::equations::solve;
use crate::tensors::{add_scaled, divide, mix, scale};

pub(super) const SAMPLER: Sampler = Sampler {
    skips_last_level: true,
    ..Sampler::unstated("uni_pc", |model, x, sigmas, _, observe| sample(model, x, sigmas, observe, false))
};
pub(super) const SECOND: Sampler = Sampler {
    skips_last_level: true,
    ..Sampler::unstated("uni_pc_bh2", |model, x, sigmas, _, observe| sample(model, x, sigmas, observe, true))
};

/// Stands for a last level of 0.
const LAST: f32 = 0.001;

/// A level in the coordinates of a variance-preserving model.
#[derive(Clone, Copy)]
struct Place {
    lambda: f32,
    signal: f32,
    noise: f32,
}

impl Place {
    fn of(sigma: f32) -> Self {
        let log_signal = 0.5 * (1.0 / (sigma * sigma + 1.0)).ln();
        let rest = 1.0 - (2.0 * log_signal).exp();
        Self { lambda: log_signal - 0.5 * rest.ln(), signal: log_signal.exp(), noise: rest.sqrt() }
    }
}

/// What is known at one level.
struct Known {
    place: Place,
    seen: Tensor,
}

/// Zhao et al. 2023 (arXiv:2302.04867), algorithms 5 to 8, of up to order three, data prediction; with `second` their B₂(h).
/// One evaluation a step. Each step but the first is corrected; the last comes right after the one before it.
fn sample(model: &dyn Denoiser, x: Tensor, sigmas: &[f32], observe: Observe<'_>, second: bool) -> Result<Tensor> {
    if sigmas.len() < 2 {
        return Ok(x);
    }
    let mut levels = sigmas.to_vec();
    if let Some(last) = levels.last_mut().filter(|last| **last == 0.0) {
        *last = LAST;
    }
    let count = levels.len() - 1;
    let order = 3.min(levels.len() - 2);
    let evaluate =
        |x: &Tensor, sigma: f32| -> Result<Tensor> { model.denoise(&scale(x, (sigma * sigma + 1.0).sqrt())?, sigma) };
    let mut x = divide(&x, (1.0 + levels[0] * levels[0]).sqrt())?;
    // Oldest first.
    let mut known: Vec<Known> = Vec::new();
    for step in steps(sigmas) {
        let index = step.index;
        let whole = index >= order && index > 0;
        let targets = match index {
            0 => 0..0,
            _ if whole && index == count - 1 => index..index + 2,
            _ => index..index + 1,
        };
        if index == 0 {
            known.push(Known { place: Place::of(levels[0]), seen: evaluate(&x, levels[0])? });
        }
        for target in targets {
            let place = Place::of(levels[target]);
            let of_order = if whole { order.min(count + 1 - target) } else { index };
            let plan = Plan::new(&known, place, of_order, second);
            let base = plan.base(&x, &known, place)?;
            let predicted = plan.predict(&base, &known, place)?;
            let seen = if target < count { Some(evaluate(&predicted, levels[target])?) } else { None };
            x = match &seen {
                Some(seen) => plan.correct(&base, &known, place, seen)?,
                None => predicted,
            };
            if let Some(seen) = seen {
                known.push(Known { place, seen });
                if known.len() > order.max(1) {
                    known.remove(0);
                }
            }
        }
        let seen = &known.last().expect("pushed at the first step").seen;
        step.done(&x, seen, observe)?;
    }
    divide(&x, Place::of(levels[count]).signal)
}

/// The weights of one step.
struct Plan {
    /// How far back each remembered place lies, in lengths of this step.
    back: Vec<f32>,
    /// `e^h − 1`, and what scales corrections.
    gain: f32,
    scale: f32,
    predictor: Vec<f32>,
    corrector: Vec<f32>,
}

impl Plan {
    fn new(known: &[Known], place: Place, order: usize, second: bool) -> Self {
        let newest = known.last().expect("there is a first evaluation").place;
        let h = place.lambda - newest.lambda;
        let back: Vec<f32> =
            (1..order).map(|i| (known[known.len() - 1 - i].place.lambda - newest.lambda) / h).collect();
        let hh = f64::from(-h);
        let gain = hh.exp_m1();
        let scale = if second { gain } else { hh };
        let rows: Vec<f64> = back.iter().map(|r| f64::from(*r)).chain([1.0]).collect();
        let (mut phi, mut factorial, mut right) = (gain / hh - 1.0, 1.0, Vec::new());
        for i in 1..=order {
            right.push(phi * factorial / scale);
            factorial *= (i + 1) as f64;
            phi = phi / hh - 1.0 / factorial;
        }
        let matrix = |size: usize| -> Vec<Vec<f64>> {
            (0..size).map(|power| rows[..size].iter().map(|r| r.powi(power as i32)).collect()).collect()
        };
        let predictor = match order {
            0 | 1 => Vec::new(),
            2 => vec![0.5],
            _ => solve(matrix(order - 1), right[..order - 1].to_vec()),
        };
        let corrector = if order == 1 { vec![0.5] } else { solve(matrix(order), right) };
        let single = |weights: Vec<f64>| weights.into_iter().map(|weight| weight as f32).collect();
        Self {
            back,
            gain: gain as f32,
            scale: scale as f32,
            predictor: single(predictor),
            corrector: single(corrector),
        }
    }

    /// The step of first order.
    fn base(&self, x: &Tensor, known: &[Known], place: Place) -> Result<Tensor> {
        let newest = known.last().expect("there is a first evaluation");
        mix(&[(place.noise / newest.place.noise, x), (-(place.signal * self.gain), &newest.seen)])
    }

    /// The differences to what was seen before, by distance, times their weights.
    fn differences(&self, known: &[Known], weights: &[f32]) -> Result<Option<Tensor>> {
        let newest = &known.last().expect("there is a first evaluation").seen;
        let mut sum: Option<Tensor> = None;
        for (i, (back, weight)) in self.back.iter().zip(weights).enumerate() {
            let difference = divide(&(&known[known.len() - 2 - i].seen - newest)?, *back)?;
            let term = scale(&difference, *weight)?;
            sum = Some(match sum {
                Some(sum) => (sum + term)?,
                None => term,
            });
        }
        Ok(sum)
    }

    fn predict(&self, base: &Tensor, known: &[Known], place: Place) -> Result<Tensor> {
        match self.differences(known, &self.predictor)? {
            Some(sum) => add_scaled(base, &sum, -(place.signal * self.scale)),
            None => Ok(base.clone()),
        }
    }

    fn correct(&self, base: &Tensor, known: &[Known], place: Place, seen: &Tensor) -> Result<Tensor> {
        let newest = &known.last().expect("there is a first evaluation").seen;
        let last = *self.corrector.last().expect("a correction has a weight");
        let mut sum = scale(&(seen - newest)?, last)?;
        if let Some(others) = self.differences(known, &self.corrector)? {
            sum = (others + sum)?;
        }
        add_scaled(base, &sum, -(place.signal * self.scale))
    }
}
