//! DPM-Solver in its first form: with a fixed budget of evaluations, and with steps as long as an error allows.
//!
//! Lu et al. 2022, arXiv:2206.00927. Both end at the last level above 0.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, Step, Walk, ancestral_by, slope};
use crate::noise::Noise;
use crate::tensors::{add_scaled, is_finite, mix};
use crate::{Error, Result};

pub(super) const FAST: Sampler = Sampler::unstated("dpm_fast", fast);
pub(super) const ADAPTIVE: Sampler = Sampler::unstated("dpm_adaptive", |model, x, sigmas, noise, observe| {
    adaptive(model, x, sigmas, noise, observe, Adaptive::default())
});

/// Settings of `dpm_adaptive`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    /// 2 or 3.
    pub order: u8,
    /// Error allowed, as a share of the latent.
    pub rtol: f32,
    /// Error allowed in any case.
    pub atol: f32,
    /// Length of the first step, in `−ln sigma`.
    pub h_init: f32,
    /// How much the error counts for the next step's length: its value ...
    pub pcoeff: f32,
    /// ... its sum ...
    pub icoeff: f32,
    /// ... and its change.
    pub dcoeff: f32,
    /// A step is taken if it might have been this share of its length.
    pub accept_safety: f32,
    /// Share of ancestral noise.
    pub eta: f32,
    /// Deviation of the noise.
    pub s_noise: f32,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            order: 3,
            rtol: 0.05,
            atol: 0.0078,
            h_init: 0.05,
            pcoeff: 0.0,
            icoeff: 1.0,
            dcoeff: 0.0,
            accept_safety: 0.81,
            eta: 0.0,
            s_noise: 1.0,
        }
    }
}

impl Walk {
    /// `dpm_adaptive` with its settings.
    #[must_use]
    pub fn dpm_adaptive(settings: Adaptive) -> Self {
        Self::like(&ADAPTIVE, move |model, x, sigmas, noise, observe| {
            adaptive(model, x, sigmas, noise, observe, settings)
        })
    }
}

/// The first level and the last above 0; `None` where there is nothing to walk.
fn ends(sigmas: &[f32]) -> Option<(f32, f32)> {
    let first = *sigmas.first().filter(|_| sigmas.len() > 1)?;
    let last = sigmas.iter().rev().find(|sigma| **sigma > 0.0)?;
    (first > 0.0).then_some((first, *last))
}

fn level(t: f32) -> f32 {
    (-t).exp()
}

/// The latent at `t` and its slope there, and what is evaluated on the way.
struct Stage<'a> {
    model: &'a dyn Denoiser,
    x: &'a Tensor,
    t: f32,
    slope: Tensor,
}

impl Stage<'_> {
    fn slope_at(&self, x: &Tensor, t: f32) -> Result<Tensor> {
        slope(x, &self.model.denoise(x, level(t))?, level(t))
    }

    fn first(&self, to: f32) -> Result<Tensor> {
        add_scaled(self.x, &self.slope, -(level(to) * (to - self.t).exp_m1()))
    }

    /// The slope at a share of the way.
    fn on_the_way(&self, to: f32, share: f32) -> Result<Tensor> {
        let h = to - self.t;
        let at = self.t + share * h;
        self.slope_at(&add_scaled(self.x, &self.slope, -(level(at) * (share * h).exp_m1()))?, at)
    }

    fn second(&self, to: f32, share: f32, early: &Tensor) -> Result<Tensor> {
        let gain = level(to) * (to - self.t).exp_m1();
        let bend = (early - &self.slope)?;
        mix(&[(1.0, self.x), (-gain, &self.slope), (-(gain / (2.0 * share)), &bend)])
    }

    fn third(&self, to: f32, early: &Tensor) -> Result<Tensor> {
        const EARLY: f32 = 1.0 / 3.0;
        const LATE: f32 = 2.0 / 3.0;
        let h = to - self.t;
        let at = self.t + LATE * h;
        let bend = (early - &self.slope)?;
        let curve = level(at) * (LATE / EARLY) * ((LATE * h).exp_m1() / (LATE * h) - 1.0);
        let late = mix(&[(1.0, self.x), (-(level(at) * (LATE * h).exp_m1()), &self.slope), (-curve, &bend)])?;
        let bend = (self.slope_at(&late, at)? - &self.slope)?;
        let curve = level(to) / LATE * (h.exp_m1() / h - 1.0);
        mix(&[(1.0, self.x), (-(level(to) * h.exp_m1()), &self.slope), (-curve, &bend)])
    }
}

/// As many evaluations as there are steps between the levels, in steps of order three as far as they go.
fn fast(model: &dyn Denoiser, mut x: Tensor, sigmas: &[f32], _: &mut Noise, observe: Observe<'_>) -> Result<Tensor> {
    let Some((first, last)) = ends(sigmas) else { return Ok(x) };
    let evaluations = sigmas.len() - 1;
    let whole = evaluations / 3;
    let mut orders = vec![3; if evaluations.is_multiple_of(3) { whole.saturating_sub(1) } else { whole }];
    match evaluations % 3 {
        0 => orders.extend([2, 1]),
        rest => orders.push(rest),
    }
    let (start, end) = (-first.ln(), -last.ln());
    let total = orders.len();
    let time = |i: usize| start + (end - start) * (i as f32 / total as f32);
    for (index, order) in orders.into_iter().enumerate() {
        let (t, to) = (time(index), time(index + 1));
        let denoised = model.denoise(&x, level(t))?;
        let stage = Stage { model, x: &x, t, slope: slope(&x, &denoised, level(t))? };
        let next = match order {
            1 => stage.first(to)?,
            2 => stage.second(to, 0.5, &stage.on_the_way(to, 0.5)?)?,
            _ => stage.third(to, &stage.on_the_way(to, 1.0 / 3.0)?)?,
        };
        x = next;
        Step { index, total, sigma: level(t), next: level(to) }.done(&x, &denoised, observe)?;
    }
    Ok(x)
}

/// Steps as long as two orders agree. Each is told with the share of the way that it reaches.
fn adaptive(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
    settings: Adaptive,
) -> Result<Tensor> {
    /// In how many parts the way is told.
    const PARTS: usize = 100;
    /// No error is so large that this many steps would not do.
    const LIMIT: usize = 10_000;
    let Some((first, last)) = ends(sigmas) else { return Ok(x) };
    let (start, end) = (-first.ln(), -last.ln());
    let mut s = start;
    let mut previous = x.clone();
    let mut pace = Pace::new(&settings);
    for _ in 0..LIMIT {
        if s >= end - 1e-5 {
            break;
        }
        let t = end.min(s + pace.h);
        let (mut reached, mut up) = (t, 0.0);
        if settings.eta > 0.0 {
            let (down, _) = ancestral_by(level(s), level(t), settings.eta);
            reached = end.min(-down.ln());
            up = (level(t).powi(2) - level(reached).powi(2)).sqrt();
        }
        let denoised = model.denoise(&x, level(s))?;
        let stage = Stage { model, x: &x, t: s, slope: slope(&x, &denoised, level(s))? };
        let (low, high) = if settings.order == 2 {
            (stage.first(reached)?, stage.second(reached, 0.5, &stage.on_the_way(reached, 0.5)?)?)
        } else {
            let early = stage.on_the_way(reached, 1.0 / 3.0)?;
            (stage.second(reached, 1.0 / 3.0, &early)?, stage.third(reached, &early)?)
        };
        let done = ((s - start) / (end - start) * PARTS as f32) as usize;
        if !is_finite(&high)? || !is_finite(&low)? {
            return Err(Error::NotFinite { step: done + 1, steps: PARTS, sigma: level(s) });
        }
        if pace.accepts(error(&low, &high, &previous, &settings)?) {
            previous = low;
            x = if up > 0.0 {
                add_scaled(&high, &noise.between(level(s), level(t))?, up * settings.s_noise)?
            } else {
                high
            };
            let index = (((t - start) / (end - start) * PARTS as f32) as usize).clamp(1, PARTS) - 1;
            Step { index, total: PARTS, sigma: level(s), next: level(t) }.done(&x, &denoised, observe)?;
            s = t;
        }
    }
    Ok(x)
}

/// How far two orders lie apart, in units of what is allowed.
fn error(low: &Tensor, high: &Tensor, previous: &Tensor, settings: &Adaptive) -> Result<f32> {
    let allowed = (low.abs()?.maximum(&previous.abs()?)? * f64::from(settings.rtol))?.maximum(settings.atol)?;
    let squares = ((low - high)? / allowed)?.sqr()?.sum_all()?.to_scalar::<f32>()?;
    Ok(squares.sqrt() / (low.elem_count() as f32).sqrt())
}

/// A controller of the step's length by the last errors.
struct Pace {
    h: f32,
    weights: [f32; 3],
    safety: f32,
    errors: Option<[f32; 3]>,
}

impl Pace {
    fn new(settings: &Adaptive) -> Self {
        let order = if settings.eta > 0.0 { 1.5 } else { f32::from(settings.order) };
        let &Adaptive { pcoeff: p, icoeff: i, dcoeff: d, .. } = settings;
        let weights = [(p + i + d) / order, -(p + 2.0 * d) / order, d / order];
        Self { h: settings.h_init, weights, safety: settings.accept_safety, errors: None }
    }

    /// Whether a step of this error is taken. Sets the next one's length either way.
    fn accepts(&mut self, error: f32) -> bool {
        let inverse = 1.0 / (error + 1e-8);
        let errors = self.errors.get_or_insert([inverse; 3]);
        errors[0] = inverse;
        let factor: f32 = errors.iter().zip(self.weights).map(|(error, weight)| error.powf(weight)).product();
        let factor = 1.0 + (factor - 1.0).atan();
        let accepted = factor >= self.safety;
        if accepted {
            errors[2] = errors[1];
            errors[1] = errors[0];
        }
        self.h *= factor;
        accepted
    }
}
