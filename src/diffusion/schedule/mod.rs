//! Schedules: which noise levels a sampler visits.
//!
//! A schedule is a falling list of sigmas, in `f32` as torch computes it, that usually ends with 0. Knows nothing of
//! the sampler that walks it.

mod aligned;
mod beta;
pub mod curves;
mod gits;
mod levels;
mod optimal;

pub use aligned::{Aligned, align_your_steps};
pub use gits::by_geometry;
pub use levels::{Betas, ModelSampling, Prediction};
pub use optimal::{Optimal, optimal_steps};

use crate::{Error, Result};

/// A way to spread `steps` steps over a model's noise levels.
pub struct Schedule {
    /// Its name on the wire, ComfyUI's.
    pub name: &'static str,
    /// The levels for a number of steps, at least 1; usually one more than that.
    pub sigmas: fn(&ModelSampling, usize) -> Vec<f32>,
}

/// Every schedule, in the order in which ComfyUI offers them.
pub static SCHEDULES: &[Schedule] = &[
    Schedule { name: "simple", sigmas: simple },
    Schedule { name: "sgm_uniform", sigmas: sgm_uniform },
    Schedule { name: "karras", sigmas: karras },
    Schedule { name: "exponential", sigmas: exponential },
    Schedule { name: "ddim_uniform", sigmas: ddim_uniform },
    Schedule { name: "beta", sigmas: |sampling, steps| beta_quantiles(sampling, steps, 0.6, 0.6) },
    Schedule { name: "normal", sigmas: normal },
    Schedule { name: "linear_quadratic", sigmas: linear_quadratic },
    Schedule { name: "kl_optimal", sigmas: kl_optimal },
];

/// The names of [`SCHEDULES`].
pub fn names() -> impl Iterator<Item = &'static str> {
    SCHEDULES.iter().map(|schedule| schedule.name)
}

/// The schedule of that name.
///
/// # Errors
/// There is none: [`Error::UnknownName`].
pub fn find(name: &str) -> Result<&'static Schedule> {
    SCHEDULES.iter().find(|schedule| schedule.name == name).ok_or_else(|| Error::UnknownName {
        kind: "schedule",
        name: name.to_owned(),
        known: names().collect(),
    })
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Schedule({})", self.name)
    }
}

impl std::str::FromStr for &'static Schedule {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        find(name)
    }
}

/// Which part of a schedule is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// How many steps the whole of it takes.
    pub steps: usize,
    /// How much of the way from noise to picture is gone, in 0 to 1: below 1, a schedule of more steps is made and its
    /// last `steps` are run.
    pub denoise: f64,
    /// Skip the steps before this one.
    pub start_step: Option<usize>,
    /// Stop before this step.
    pub end_step: Option<usize>,
    /// When stopping early, leave the noise of the last level in the latent, for another sampler to go on.
    pub leftover_noise: bool,
}

impl Span {
    /// The whole schedule.
    #[must_use]
    pub fn whole(steps: usize) -> Self {
        Self { steps, denoise: 1.0, start_step: None, end_step: None, leftover_noise: false }
    }

    /// The levels to run, by ComfyUI's rules for its KSampler nodes. Empty when there is nothing to do and the latent
    /// is to be returned as it came.
    ///
    /// `skips_last_level` is for samplers that do badly on the smallest level: one step more is planned, and the
    /// second to last level left out (see [`crate::samplers::Sampler::skips_last_level`]).
    ///
    /// # Errors
    /// The schedule has no levels for so few steps, or would need more than a million.
    pub fn sigmas(self, schedule: &Schedule, sampling: &ModelSampling, skips_last_level: bool) -> Result<Vec<f32>> {
        const LIMIT: usize = 1_000_000;
        let nothing = Ok(Vec::new());
        if self.steps == 0 || self.denoise <= 0.0 {
            return nothing;
        }
        let full = self.denoise > 0.9999;
        let planned = if full { self.steps } else { (self.steps as f64 / self.denoise) as usize };
        let unusable = Error::Schedule { schedule: schedule.name, steps: planned };
        if planned >= LIMIT {
            return Err(unusable);
        }
        let mut sigmas = (schedule.sigmas)(sampling, planned + usize::from(skips_last_level));
        if sigmas.iter().any(|sigma| !sigma.is_finite()) {
            return Err(unusable);
        }
        if skips_last_level && sigmas.len() > 1 {
            sigmas.remove(sigmas.len() - 2);
        }
        if !full {
            sigmas.drain(..sigmas.len().saturating_sub(self.steps + 1));
        }
        if let Some(end) = self.end_step
            && end + 1 < sigmas.len()
        {
            sigmas.truncate(end + 1);
            if !self.leftover_noise {
                sigmas[end] = 0.0;
            }
        }
        match self.start_step {
            None => {}
            Some(start) if start + 1 < sigmas.len() => drop(sigmas.drain(..start)),
            Some(_) => return nothing,
        }
        Ok(sigmas)
    }
}

/// Evenly spaced in the table of levels.
fn simple(sampling: &ModelSampling, steps: usize) -> Vec<f32> {
    let levels = sampling.sigmas();
    let stride = levels.len() as f64 / steps as f64;
    let chosen = (0..steps).map(|i| levels[levels.len() - 1 - (i as f64 * stride) as usize]);
    chosen.chain([0.0]).collect()
}

/// Evenly spaced in timesteps, both ends included.
fn normal(sampling: &ModelSampling, steps: usize) -> Vec<f32> {
    let (first, last) = (sampling.timestep(sampling.sigma_min()), sampling.timestep(sampling.sigma_max()));
    // A ladder that reaches 0 by itself (flow models do) needs none appended.
    let reaches_zero = sampling.sigma(first).abs() <= 1e-5;
    let timesteps = linspace(last, first, steps + usize::from(reaches_zero));
    let mut sigmas: Vec<f32> = timesteps.map(|timestep| sampling.sigma(timestep)).collect();
    if !reaches_zero {
        sigmas.push(0.0);
    }
    sigmas
}

/// Evenly spaced in timesteps, the lower end left out.
fn sgm_uniform(sampling: &ModelSampling, steps: usize) -> Vec<f32> {
    let (first, last) = (sampling.timestep(sampling.sigma_min()), sampling.timestep(sampling.sigma_max()));
    let timesteps = linspace(last, first, steps + 1).take(steps);
    timesteps.map(|timestep| sampling.sigma(timestep)).chain([0.0]).collect()
}

/// The timesteps of Song et al. 2020 (arXiv:2010.02502): every so many from timestep 1. Their number is what a whole
/// stride makes it, so that there may be more levels than steps were asked for.
fn ddim_uniform(sampling: &ModelSampling, steps: usize) -> Vec<f32> {
    let levels = sampling.sigmas();
    let reaches_zero = levels[1].abs() <= 1e-5;
    let stride = (levels.len() / (steps + usize::from(reaches_zero))).max(1);
    let mut sigmas: Vec<f32> = levels.iter().skip(1).step_by(stride).copied().collect();
    sigmas.reverse();
    if !reaches_zero {
        sigmas.push(0.0);
    }
    sigmas
}

/// Karras et al. 2022 (arXiv:2206.00364), equation 5, with ρ = 7.
fn karras(sampling: &ModelSampling, steps: usize) -> Vec<f32> {
    const RHO: f64 = 7.0;
    let root = |sigma: f32| f64::from(sigma).powf(1.0 / RHO);
    let (min, max) = (root(sampling.sigma_min()), root(sampling.sigma_max()));
    let ramp = linspace(0.0, 1.0, steps);
    ramp.map(|t| (max as f32 + t * (min - max) as f32).powf(RHO as f32)).chain([0.0]).collect()
}

/// Evenly spaced in the logarithm.
fn exponential(sampling: &ModelSampling, steps: usize) -> Vec<f32> {
    let log = |sigma: f32| f64::from(sigma).ln() as f32;
    linspace(log(sampling.sigma_max()), log(sampling.sigma_min()), steps).map(f32::exp).chain([0.0]).collect()
}

/// Timesteps by the quantiles of a beta distribution, dense at both ends with both shapes 0.6 (Lee et al. 2024,
/// arXiv:2407.12173). Of timesteps that fall together one is kept, so that there may be fewer levels than steps.
#[must_use]
pub fn beta_quantiles(sampling: &ModelSampling, steps: usize, alpha: f64, beta: f64) -> Vec<f32> {
    let last = (sampling.sigmas().len() - 1) as f64;
    let spacing = 1.0 / steps as f64;
    let timestep = |i: usize| (beta::quantile(1.0 - i as f64 * spacing, alpha, beta) * last).round_ties_even() as usize;
    let mut timesteps: Vec<usize> = (0..steps).map(timestep).collect();
    timesteps.dedup();
    timesteps.into_iter().map(|timestep| sampling.sigmas()[timestep]).chain([0.0]).collect()
}

/// Half of the steps linear in the first fortieth of the levels, the other half quadratic down to 0 (Genmo's Mochi).
fn linear_quadratic(sampling: &ModelSampling, steps: usize) -> Vec<f32> {
    const THRESHOLD: f64 = 0.025;
    let max = sampling.sigma_max();
    if steps == 1 {
        return vec![max, 0.0];
    }
    let linear = (steps / 2) as f64;
    let quadratic = steps as f64 - linear;
    let difference = linear - THRESHOLD * steps as f64;
    let a = difference / (linear * (quadratic * quadratic));
    let b = THRESHOLD / linear - 2.0 * difference / (quadratic * quadratic);
    let c = a * (linear * linear);
    let gone = (0..steps).map(|i| {
        let i = i as f64;
        if i < linear { i * THRESHOLD / linear } else { a * (i * i) + b * i + c }
    });
    gone.chain([1.0]).map(|gone| (1.0 - gone) as f32 * max).collect()
}

/// Evenly spaced in the arc tangent (Sabour et al. 2024, arXiv:2404.14507, the case with a closed form).
///
/// One step is no spacing: its level is NaN.
fn kl_optimal(sampling: &ModelSampling, steps: usize) -> Vec<f32> {
    let angle = |sigma: f32| f64::from(sigma).atan() as f32;
    let (min, max) = (angle(sampling.sigma_min()), angle(sampling.sigma_max()));
    let ramp = (0..steps).map(|i| i as f32 / (steps as f32 - 1.0));
    ramp.map(|t| (t * min + (1.0 - t) * max).tan()).chain([0.0]).collect()
}

/// `count` numbers from `start` to `end` as torch spaces them: each reckoned from the nearer end, and rounded once (its
/// compiler fuses the product with the sum).
fn linspace(start: f32, end: f32, count: usize) -> impl Iterator<Item = f32> {
    let step = f64::from((end - start) / (count as f32 - 1.0));
    let (start, end) = (f64::from(start), f64::from(end));
    (0..count).map(move |i| match i {
        0 => start as f32,
        i if i < count / 2 => (start + step * i as f64) as f32,
        i => (end - step * (count - 1 - i) as f64) as f32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eps() -> ModelSampling {
        ModelSampling::stable_diffusion(Prediction::Epsilon)
    }

    fn assert_close(name: &str, found: &[f32], expected: &[f32], relative: f32) {
        assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= relative * b, "{name}: {a} for {b}");
        }
    }

    #[test]
    fn published_levels_of_four_steps() {
        let published: &[(&str, [f32; 5])] = &[
            ("normal", [14.61464, 2.918307, 0.932358, 0.029167, 0.0]),
            ("sgm_uniform", [14.61464, 4.086081, 1.61558, 0.69515, 0.0]),
            ("simple", [14.614641, 4.081729, 1.612886, 0.693205, 0.0]),
            ("ddim_uniform", [4.116696, 1.623692, 0.698398, 0.041314, 0.0]),
            ("karras", [14.614643, 3.168605, 0.446919, 0.029167, 0.0]),
            ("exponential", [14.61464, 1.840024, 0.231664, 0.029167, 0.0]),
            ("beta", [14.614641, 5.686592, 1.618279, 0.515391, 0.0]),
            ("linear_quadratic", [14.614641, 14.431958, 14.249275, 10.595615, 0.0]),
            ("kl_optimal", [14.614633, 1.597066, 0.572914, 0.029167, 0.0]),
        ];
        assert_eq!(published.len(), SCHEDULES.len());
        for (name, expected) in published {
            // Six decimals are published: of 0.029167 that leaves four digits.
            assert_close(name, &(find(name).unwrap().sigmas)(&eps(), 4), expected, 2e-5);
        }
    }

    /// What holds of every row: a falling list of numbers that ends with 0, from one step to thousands.
    #[test]
    fn every_schedule_falls_to_zero() {
        for schedule in SCHEDULES {
            for steps in [1, 2, 3, 5, 20, 31, 333, 1000, 1500] {
                if (schedule.name, steps) == ("kl_optimal", 1) {
                    continue;
                }
                let sigmas = (schedule.sigmas)(&eps(), steps);
                let name = schedule.name;
                assert_eq!(sigmas.last(), Some(&0.0), "{name}");
                // More steps than levels: a level may be named twice.
                let falls = |pair: &[f32]| pair[0] > pair[1] || (steps > 333 && pair[0] == pair[1]);
                assert!(sigmas.windows(2).all(falls), "{name}, {steps} steps: {sigmas:?}");
                assert!(sigmas[0] <= eps().sigma_max() * 1.000_001, "{name}");
                let (shorter, longer) = match name {
                    "beta" => (true, false),
                    "ddim_uniform" => (true, true),
                    _ => (false, false),
                };
                assert!(shorter || sigmas.len() > steps, "{name}, {steps} steps: {}", sigmas.len());
                assert!(longer || sigmas.len() <= steps + 1, "{name}, {steps} steps: {}", sigmas.len());
            }
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_with_the_nearest() {
        let error = find("karas").unwrap_err().to_string();
        assert!(error.starts_with("no schedule is called `karas`, perhaps you mean `karras`\nhint: "), "{error}");
        assert!(find("zzz").unwrap_err().to_string().starts_with("no schedule is called `zzz`\nhint: "));
    }

    #[test]
    fn part_of_a_way_is_the_end_of_a_longer_schedule() {
        let (sampling, schedule) = (eps(), find("normal").unwrap());
        let run = |span: Span| span.sigmas(schedule, &sampling, false).unwrap();
        let whole = run(Span::whole(20));
        assert_eq!(whole.len(), 21);
        // 20 / 0.75 is 26 and a fraction.
        assert_eq!(run(Span { denoise: 0.75, ..Span::whole(20) }), run(Span::whole(26))[6..]);
        assert_eq!(run(Span { denoise: 0.99995, ..Span::whole(20) }), whole);
        assert!(run(Span { denoise: 0.0, ..Span::whole(20) }).is_empty());

        assert_eq!(run(Span { start_step: Some(5), ..Span::whole(20) }), whole[5..]);
        assert!(run(Span { start_step: Some(20), ..Span::whole(20) }).is_empty());
        let early = Span { end_step: Some(12), leftover_noise: true, ..Span::whole(20) };
        assert_eq!(run(early), whole[..13]);
        let finished = run(Span { leftover_noise: false, ..early });
        assert_eq!((&finished[..12], finished[12]), (&whole[..12], 0.0));
        assert_eq!(run(Span { end_step: Some(10_000), ..Span::whole(20) }), whole);
        // The second half of a pair of samplers whose first did everything.
        assert!(run(Span { start_step: Some(32), end_step: Some(32), ..Span::whole(20) }).is_empty());
    }

    #[test]
    fn some_samplers_skip_the_smallest_level() {
        let (sampling, schedule) = (eps(), find("karras").unwrap());
        let sigmas = Span::whole(20).sigmas(schedule, &sampling, true).unwrap();
        let longer = (schedule.sigmas)(&sampling, 21);
        assert_eq!(sigmas.len(), 21);
        assert_eq!((&sigmas[..20], sigmas[20]), (&longer[..20], 0.0));
    }

    #[test]
    fn impossible_numbers_of_steps_are_errors() {
        let sampling = eps();
        let one = Span::whole(1).sigmas(find("kl_optimal").unwrap(), &sampling, false);
        assert!(matches!(one, Err(Error::Schedule { schedule: "kl_optimal", steps: 1 })));
        let many = Span { denoise: 1e-300, ..Span::whole(20) }.sigmas(find("simple").unwrap(), &sampling, false);
        assert!(matches!(many, Err(Error::Schedule { steps: usize::MAX, .. })));
    }

    /// Recordings of ComfyUI. Levels that torch computes with vectorised `exp`, `pow` and `tan` may differ in their last
    /// two bits; how many are equal to the bit is held too, so that a change of arithmetic shows.
    #[test]
    fn comfyui_plans_the_same() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/schedules/comfyui.safetensors");
        let recorded = candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
        let values = |name: &str| recorded[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let sampling = eps();
        assert_eq!(sampling.sigmas(), values("levels"));
        let zsnr = ModelSampling::zero_snr(Betas::STABLE_DIFFUSION, Prediction::Velocity);
        assert_close("zsnr", zsnr.sigmas(), &values("zsnr"), 1e-7);
        for pair in values("percent").chunks(2) {
            assert_close("percent", &[sampling.percent_to_sigma(f64::from(pair[0]))], &pair[1..], 2e-6);
        }
        for pair in values("timestep").chunks(2) {
            assert_eq!(sampling.timestep(pair[0]), pair[1]);
        }

        let (mut equal, mut all) = (0, 0);
        let mut names: Vec<_> = recorded.keys().collect();
        names.sort();
        for name in names {
            let parts: Vec<_> = name.split('/').collect();
            let number = |i: usize| parts[i].parse().unwrap();
            let run = |span: Span, skip| span.sigmas(find(parts[1]).unwrap(), &sampling, skip).unwrap();
            let found = match (parts[0], parts.len()) {
                (_, 1) => continue,
                ("part", _) => run(Span { denoise: parts[3].parse().unwrap(), ..Span::whole(number(2)) }, false),
                ("skip", _) => run(Span::whole(number(2)), true),
                (schedule, _) => (find(schedule).unwrap().sigmas)(&sampling, number(1)),
            };
            let expected = values(name);
            if expected.iter().any(|sigma| sigma.is_nan()) {
                assert!(found.iter().any(|sigma| sigma.is_nan()), "{name}");
                continue;
            }
            assert_close(name, &found, &expected, 3e-7);
            equal += found.iter().zip(&expected).filter(|(a, b)| a == b).count();
            all += found.len();
        }
        assert!(all > 3000, "only {all} levels were recorded");
        assert!(100 * equal >= 98 * all, "{equal} of {all} levels are equal to the bit");
    }
}
