//! Noise levels as nodes: schedules of every kind, and tools to cut and bend them.

use crate::error::{Error, tell};
use crate::wires::{Model, Sigmas};
use paraflow_diffusion::schedule::{
    self, Schedule, Span, align_your_steps, beta_quantiles, by_geometry, curves, optimal_steps,
};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<AlignYourStepsScheduler>(),
        NodeDef::of::<BasicScheduler>(),
        NodeDef::of::<BetaSamplingScheduler>(),
        NodeDef::of::<ExponentialScheduler>(),
        NodeDef::of::<ExtendIntermediateSigmas>(),
        NodeDef::of::<FlipSigmas>(),
        NodeDef::of::<GITSScheduler>(),
        NodeDef::of::<KarrasScheduler>(),
        NodeDef::of::<LaplaceScheduler>(),
        NodeDef::of::<ManualSigmas>(),
        NodeDef::of::<OptimalStepsScheduler>(),
        NodeDef::of::<PolyexponentialScheduler>(),
        NodeDef::of::<SDTurboScheduler>(),
        NodeDef::of::<SamplingPercentToSigma>(),
        NodeDef::of::<SetFirstSigma>(),
        NodeDef::of::<SplitSigmas>(),
        NodeDef::of::<SplitSigmasDenoise>(),
        NodeDef::of::<VPScheduler>(),
    ]
}

/// The levels that Sabour et al. 2024 (arXiv:2404.14507) found best for a family of models.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/schedulers")]
struct AlignYourStepsScheduler {
    /// The family.
    #[input(choices = ["SD1", "SDXL", "SVD"])]
    model_type: Choice<schedule::Aligned>,
    /// How many steps.
    #[input(default = 10, range = 1..=10000)]
    steps: u32,
    /// How much of a picture to repaint: below 1, only the last of more steps.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    denoise: f64,
}

impl Run for AlignYourStepsScheduler {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        Ok(last_part(self.steps as usize, self.denoise, |steps| align_your_steps(*self.model_type, steps)))
    }
}

/// The levels that Pei et al. 2025 (arXiv:2503.21774) found best for models of flow, which are not loaded here; their levels go
/// from 1 to 0.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/schedulers")]
struct OptimalStepsScheduler {
    /// The model.
    #[input(choices = ["FLUX", "Wan", "Chroma"])]
    model_type: Choice<schedule::Optimal>,
    /// How many steps.
    #[input(default = 20, range = 3..=1000)]
    steps: u32,
    /// How much of a picture to repaint: below 1, only the last of more steps.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    denoise: f64,
}

impl Run for OptimalStepsScheduler {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        Ok(last_part(self.steps as usize, self.denoise, |steps| optimal_steps(*self.model_type, steps)))
    }
}

/// The last levels of a table for so many steps, as many as are left of them, and 0 for the last.
fn last_part(steps: usize, denoise: f64, levels: impl FnOnce(usize) -> Vec<f32>) -> Sigmas {
    if denoise <= 0.0 {
        return Sigmas(Vec::new());
    }
    let total = if denoise < 1.0 { (steps as f64 * denoise).round_ties_even() as usize } else { steps };
    let mut sigmas = levels(steps);
    sigmas.drain(..sigmas.len() - (total + 1).min(sigmas.len()));
    if let Some(last) = sigmas.last_mut() {
        *last = 0.0;
    }
    Sigmas(sigmas)
}

/// The levels that Chen et al. 2024 (arXiv:2405.11326) found for few steps.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/schedulers")]
struct GITSScheduler {
    /// Which of their tables, from 0.80 in steps of 0.05: higher stays longer at low noise.
    #[input(default = 1.2, range = 0.8..=1.5, step = 0.05)]
    coeff: f64,
    /// How many steps.
    #[input(default = 10, range = 2..=1000)]
    steps: u32,
    /// How much of a picture to repaint: below 1, only the last of more steps.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    denoise: f64,
}

impl Run for GITSScheduler {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        let steps = self.steps as usize;
        let total = match self.denoise {
            denoise if denoise <= 0.0 => return Ok(Sigmas(Vec::new())),
            denoise if denoise < 1.0 => (steps as f64 * denoise).round_ties_even() as usize,
            _ => steps,
        };
        let mut sigmas = by_geometry(self.coeff, steps).ok_or_else(|| {
            tell(Error::Unfit {
                what: "`coeff`",
                expected: "0.80 to 1.50 in steps of 0.05".to_owned(),
                found: self.coeff.to_string(),
            })
        })?;
        sigmas.drain(..sigmas.len() - (total + 1).min(sigmas.len()));
        if let Some(last) = sigmas.last_mut() {
            *last = 0.0;
        }
        Ok(Sigmas(sigmas))
    }
}

/// The levels of a schedule for a model.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/schedulers")]
struct BasicScheduler {
    /// The model.
    model: Shared<Model>,
    /// How the steps are spread over the noise levels.
    #[input(choices = schedule::names)]
    scheduler: Choice<&'static Schedule>,
    /// How many steps.
    #[input(default = 20, range = 1..=10000)]
    steps: u32,
    /// How much of a picture to repaint: below 1, only the last of more steps.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    denoise: f64,
}

impl Run for BasicScheduler {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        let span = Span { denoise: self.denoise, ..Span::whole(self.steps as usize) };
        let sigmas = span.sigmas(self.scheduler.into_inner(), &self.model.sampling, false).map_err(tell)?;
        Ok(Sigmas(sigmas))
    }
}

/// Levels at the quantiles of a beta distribution.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/schedulers")]
struct BetaSamplingScheduler {
    /// The model.
    model: Shared<Model>,
    /// How many steps.
    #[input(default = 20, range = 1..=10000)]
    steps: u32,
    /// Small: many steps at high levels.
    #[input(default = 0.6, range = 0.0..=50.0, step = 0.01)]
    alpha: f64,
    /// Small: many steps at low levels.
    #[input(default = 0.6, range = 0.0..=50.0, step = 0.01)]
    beta: f64,
}

impl Run for BetaSamplingScheduler {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        finite(beta_quantiles(&self.model.sampling, self.steps as usize, self.alpha, self.beta)).map_err(tell)
    }
}

/// Levels spaced evenly in the logarithm.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/schedulers")]
struct ExponentialScheduler {
    /// How many steps.
    #[input(default = 20, range = 1..=10000)]
    steps: u32,
    /// The highest noise level.
    #[input(default = 14.614642, range = 0.0..=5000.0, step = 0.01)]
    sigma_max: f64,
    /// The lowest noise level above 0.
    #[input(default = 0.0291675, range = 0.0..=5000.0, step = 0.01)]
    sigma_min: f64,
}

impl Run for ExponentialScheduler {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        finite(curves::exponential(self.sigma_min, self.sigma_max, self.steps as usize)).map_err(tell)
    }
}

/// Puts further levels between those of a schedule.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/sigmas")]
struct ExtendIntermediateSigmas {
    /// The noise levels.
    sigmas: Shared<Sigmas>,
    /// Into how many steps to cut each.
    #[input(default = 2, range = 1..=100)]
    steps: u32,
    /// Only from this level down; less than 0: from the first.
    #[input(default = -1.0, range = -1.0..=20000.0, step = 0.01)]
    start_at_sigma: f64,
    /// Only down to this level.
    #[input(default = 12.0, range = 0.0..=20000.0, step = 0.01)]
    end_at_sigma: f64,
    /// How the new levels lie between two old ones.
    #[input(choices = ["linear", "cosine", "sine"])]
    spacing: Choice<String>,
}

impl Run for ExtendIntermediateSigmas {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        let start = if self.start_at_sigma < 0.0 { f64::INFINITY } else { self.start_at_sigma };
        let spacing = self.spacing.name();
        let share = |i: u32| {
            let linear = f64::from(i) / f64::from(self.steps);
            match spacing {
                "cosine" => (linear * std::f64::consts::FRAC_PI_2).sin(),
                "sine" => 1.0 - (linear * std::f64::consts::FRAC_PI_2).cos(),
                _ => linear,
            }
        };
        let mut extended = Vec::new();
        for pair in self.sigmas.0.windows(2) {
            extended.push(pair[0]);
            let level = f64::from(pair[0]);
            if self.end_at_sigma <= level && level <= start {
                extended.extend((1..self.steps).map(|i| share(i) as f32 * (pair[1] - pair[0]) + pair[0]));
            }
        }
        extended.extend(self.sigmas.0.last());
        Ok(Sigmas(extended))
    }
}

/// Turns a schedule around, for sampling towards noise.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/sigmas")]
struct FlipSigmas {
    /// The noise levels.
    sigmas: Shared<Sigmas>,
}

impl Run for FlipSigmas {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        let mut flipped: Vec<f32> = self.sigmas.0.iter().rev().copied().collect();
        if let Some(first) = flipped.first_mut().filter(|first| **first == 0.0) {
            *first = 0.0001;
        }
        Ok(Sigmas(flipped))
    }
}

/// The levels of Karras et al. 2022 (arXiv:2206.00364).
#[derive(Node)]
#[node(category = "sampling/custom_sampling/schedulers")]
struct KarrasScheduler {
    /// How many steps.
    #[input(default = 20, range = 1..=10000)]
    steps: u32,
    /// The highest noise level.
    #[input(default = 14.614642, range = 0.0..=5000.0, step = 0.01)]
    sigma_max: f64,
    /// The lowest noise level above 0.
    #[input(default = 0.0291675, range = 0.0..=5000.0, step = 0.01)]
    sigma_min: f64,
    /// Large: many steps at low levels.
    #[input(default = 7.0, range = 0.0..=100.0, step = 0.01)]
    rho: f64,
}

impl Run for KarrasScheduler {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        finite(curves::karras(self.sigma_min, self.sigma_max, self.rho, self.steps as usize)).map_err(tell)
    }
}

/// Levels at the quantiles of a Laplace distribution.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/schedulers")]
struct LaplaceScheduler {
    /// How many steps.
    #[input(default = 20, range = 1..=10000)]
    steps: u32,
    /// The highest noise level.
    #[input(default = 14.614642, range = 0.0..=5000.0, step = 0.01)]
    sigma_max: f64,
    /// The lowest noise level above 0.
    #[input(default = 0.0291675, range = 0.0..=5000.0, step = 0.01)]
    sigma_min: f64,
    /// The middle, as a logarithm.
    #[input(default = 0.0, range = -10.0..=10.0, step = 0.1)]
    mu: f64,
    /// How wide it is.
    #[input(default = 0.5, range = 0.0..=10.0, step = 0.1)]
    beta: f64,
}

impl Run for LaplaceScheduler {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        let sigmas = curves::laplace(self.sigma_min, self.sigma_max, self.mu, self.beta, self.steps as usize);
        finite(sigmas).map_err(tell)
    }
}

/// Levels written out.
#[derive(Node)]
#[node(category = "_for_testing/custom_sampling", experimental)]
struct ManualSigmas {
    /// Numbers with anything between them.
    #[input(default = "1, 0.5")]
    sigmas: String,
}

impl Run for ManualSigmas {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        finite(numbers(&self.sigmas)).map_err(tell)
    }
}

/// Levels spaced in the logarithm by a power.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/schedulers")]
struct PolyexponentialScheduler {
    /// How many steps.
    #[input(default = 20, range = 1..=10000)]
    steps: u32,
    /// The highest noise level.
    #[input(default = 14.614642, range = 0.0..=5000.0, step = 0.01)]
    sigma_max: f64,
    /// The lowest noise level above 0.
    #[input(default = 0.0291675, range = 0.0..=5000.0, step = 0.01)]
    sigma_min: f64,
    /// The power: 1 is even, more means many steps at low levels.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    rho: f64,
}

impl Run for PolyexponentialScheduler {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        let sigmas = curves::polyexponential(self.sigma_min, self.sigma_max, self.rho, self.steps as usize);
        finite(sigmas).map_err(tell)
    }
}

/// The levels of models that were distilled to a few steps.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/schedulers")]
struct SDTurboScheduler {
    /// The model.
    model: Shared<Model>,
    /// How many steps.
    #[input(default = 1, range = 1..=10)]
    steps: u32,
    /// How much of a picture to repaint: below 1, only the last of more steps.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    denoise: f64,
}

impl Run for SDTurboScheduler {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        let start = (10 - (10.0 * self.denoise) as usize).min(10);
        let steps = (0..10).map(|i| (999 - 100 * i) as f32).skip(start).take(self.steps as usize);
        Ok(Sigmas(steps.map(|timestep| self.model.sampling.sigma(timestep)).chain([0.0]).collect()))
    }
}

/// The level at a share of the way from noise to picture.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/sigmas", outputs = ["sigma_value"])]
struct SamplingPercentToSigma {
    /// The model.
    model: Shared<Model>,
    /// The share.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.0001)]
    sampling_percent: f64,
    /// At the ends, the model's own levels.
    #[input(default = false)]
    return_actual_sigma: bool,
}

impl Run for SamplingPercentToSigma {
    type Output = f64;

    fn run(self, _: &Context<'_>) -> Result<f64> {
        let sampling = &self.model.sampling;
        Ok(match self.sampling_percent {
            0.0 if self.return_actual_sigma => f64::from(sampling.sigma_max()),
            1.0 if self.return_actual_sigma => f64::from(sampling.sigma_min()),
            0.0 => 999_999_999.9,
            percent => f64::from(sampling.percent_to_sigma(percent)),
        })
    }
}

/// Puts another level in place of the first.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/sigmas")]
struct SetFirstSigma {
    /// The noise levels.
    sigmas: Shared<Sigmas>,
    /// The level.
    #[input(default = 136.0, range = 0.0..=20000.0, step = 0.001)]
    sigma: f64,
}

impl Run for SetFirstSigma {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        let mut sigmas = self.sigmas.0.clone();
        if let Some(first) = sigmas.first_mut() {
            *first = self.sigma as f32;
        }
        Ok(Sigmas(sigmas))
    }
}

/// Cuts a schedule in two at a step.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/sigmas", outputs = ["high_sigmas", "low_sigmas"])]
struct SplitSigmas {
    /// The noise levels.
    sigmas: Shared<Sigmas>,
    /// The step.
    #[input(default = 0, range = 0..=10000)]
    step: u32,
}

impl Run for SplitSigmas {
    type Output = (Sigmas, Sigmas);

    fn run(self, _: &Context<'_>) -> Result<(Sigmas, Sigmas)> {
        let (step, sigmas) = (self.step as usize, &self.sigmas.0);
        let high = sigmas.iter().take(step + 1).copied().collect();
        Ok((Sigmas(high), Sigmas(sigmas.iter().skip(step).copied().collect())))
    }
}

/// Cuts a schedule in two at a share of its steps.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/sigmas", outputs = ["high_sigmas", "low_sigmas"])]
struct SplitSigmasDenoise {
    /// The noise levels.
    sigmas: Shared<Sigmas>,
    /// The share of the steps that comes second.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    denoise: f64,
}

impl Run for SplitSigmasDenoise {
    type Output = (Sigmas, Sigmas);

    fn run(self, _: &Context<'_>) -> Result<(Sigmas, Sigmas)> {
        let sigmas = &self.sigmas.0;
        let steps = sigmas.len().saturating_sub(1);
        let kept = (steps as f64 * self.denoise).round_ties_even() as usize;
        // As Python cuts: with no step kept, there is nothing before it.
        let high = if kept == 0 { 0 } else { sigmas.len().saturating_sub(kept) };
        let low = sigmas.len().saturating_sub(kept + 1);
        Ok((Sigmas(sigmas[..high].to_vec()), Sigmas(sigmas[low..].to_vec())))
    }
}

/// The levels of a variance-preserving model whose noise rises linearly.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/schedulers")]
struct VPScheduler {
    /// How many steps.
    #[input(default = 20, range = 1..=10000)]
    steps: u32,
    /// How fast the noise rises.
    #[input(default = 19.9, range = 0.0..=5000.0, step = 0.01)]
    beta_d: f64,
    /// Where it begins.
    #[input(default = 0.1, range = 0.0..=5000.0, step = 0.01)]
    beta_min: f64,
    /// The last time.
    #[input(default = 0.001, range = 0.0..=1.0, step = 0.0001)]
    eps_s: f64,
}

impl Run for VPScheduler {
    type Output = Sigmas;

    fn run(self, _: &Context<'_>) -> Result<Sigmas> {
        let sigmas = curves::variance_preserving(self.beta_d, self.beta_min, self.eps_s, self.steps as usize);
        finite(sigmas).map_err(tell)
    }
}

/// Levels that are numbers.
fn finite(sigmas: Vec<f32>) -> Result<Sigmas, Error> {
    match sigmas.iter().find(|sigma| !sigma.is_finite()) {
        None => Ok(Sigmas(sigmas)),
        Some(found) => Err(Error::Unfit {
            what: "the schedule",
            expected: "noise levels that are numbers".to_owned(),
            found: found.to_string(),
        }),
    }
}

/// The numbers in a text.
fn numbers(text: &str) -> Vec<f32> {
    let parts = text.split(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E')));
    parts.filter_map(|part| part.parse().ok()).collect()
}
