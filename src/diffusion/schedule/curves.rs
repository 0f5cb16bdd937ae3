//! Schedules that need no model: curves between two noise levels, each with a 0 after them but where it says otherwise.

use super::linspace;

/// Karras et al. 2022 (arXiv:2206.00364), equation 5.
#[must_use]
pub fn karras(min: f64, max: f64, rho: f64, steps: usize) -> Vec<f32> {
    let (min, max) = (min.powf(1.0 / rho), max.powf(1.0 / rho));
    let level = |t: f32| (max as f32 + t * (min - max) as f32).powf(rho as f32);
    linspace(0.0, 1.0, steps).map(level).chain([0.0]).collect()
}

/// Evenly spaced in the logarithm.
#[must_use]
pub fn exponential(min: f64, max: f64, steps: usize) -> Vec<f32> {
    linspace(max.ln() as f32, min.ln() as f32, steps).map(f32::exp).chain([0.0]).collect()
}

/// Spaced in the logarithm by a power.
#[must_use]
pub fn polyexponential(min: f64, max: f64, rho: f64, steps: usize) -> Vec<f32> {
    let level = |t: f32| (t.powf(rho as f32) * (max.ln() - min.ln()) as f32 + min.ln() as f32).exp();
    linspace(1.0, 0.0, steps).map(level).chain([0.0]).collect()
}

/// The levels of a variance-preserving model whose noise rises linearly: Song et al. 2020, arXiv:2011.13456.
#[must_use]
pub fn variance_preserving(slope: f64, start: f64, last: f64, steps: usize) -> Vec<f32> {
    let level = |t: f32| (slope as f32 * (t * t) / 2.0 + start as f32 * t).exp_m1().sqrt();
    linspace(1.0, last as f32, steps).map(level).chain([0.0]).collect()
}

/// Quantiles of a Laplace distribution of the logarithm, without a 0 after them: Hang et al. 2024, arXiv:2407.03297.
#[must_use]
pub fn laplace(min: f64, max: f64, middle: f64, width: f64, steps: usize) -> Vec<f32> {
    let level = |x: f32| {
        let side = 0.5 - x;
        let sign = if side == 0.0 { 0.0 } else { side.signum() };
        let log = middle as f32 - width as f32 * sign * (1.0 - 2.0 * side.abs() + 1e-5).ln();
        log.exp().clamp(min as f32, (max as f32).max(min as f32))
    };
    linspace(0.0, 1.0, steps).map(level).collect()
}
