//! SA-Solver: a stochastic Adams method that predicts and corrects.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, Walk, half_log_snr, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, mix, scale};

pub(super) const SAMPLER: Sampler = Sampler::unstated("sa_solver", |model, x, sigmas, noise, observe| {
    sample(model, x, sigmas, noise, observe, SaSolver::default())
});
pub(super) const PECE: Sampler = Sampler::unstated("sa_solver_pece", |model, x, sigmas, noise, observe| {
    sample(model, x, sigmas, noise, observe, SaSolver { evaluates_again: true, ..SaSolver::default() })
});

/// Settings of the solver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SaSolver {
    /// How much noise it adds where it adds any.
    pub eta: f32,
    /// It adds noise from this level down ...
    pub from: f32,
    /// ... to this one.
    pub to: f32,
    /// Deviation of the noise.
    pub s_noise: f32,
    /// Steps that the prediction rests on, 1 to 6.
    pub predictor: usize,
    /// Steps that the correction rests on, 0 to 6; 0 does not correct.
    pub corrector: usize,
    /// It asks the model about the corrected latent, too.
    pub evaluates_again: bool,
    /// It uses the authors' simpler weights where it rests on two steps.
    pub simple: bool,
}

impl Default for SaSolver {
    /// ComfyUI's, with the levels at 0.2 and 0.8 of the way of Stable Diffusion's ladder.
    fn default() -> Self {
        let (from, to) = (5.092_408, 0.571_188_9);
        let (evaluates_again, simple) = (false, false);
        Self { eta: 1.0, from, to, s_noise: 1.0, predictor: 3, corrector: 4, evaluates_again, simple }
    }
}

impl Walk {
    /// `sa_solver` with its settings.
    #[must_use]
    pub fn sa_solver(settings: SaSolver) -> Self {
        Self::like(&SAMPLER, move |model, x, sigmas, noise, observe| sample(model, x, sigmas, noise, observe, settings))
    }
}

/// Xue et al. 2023 (arXiv:2309.05019), data prediction. One evaluation a step, two where it asks again.
fn sample(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
    settings: SaSolver,
) -> Result<Tensor> {
    let lambdas: Vec<f32> = sigmas.iter().map(|sigma| half_log_snr(*sigma)).collect();
    let tau_at = |sigma: f32| {
        if settings.eta > 0.0 && settings.from >= sigma && sigma >= settings.to { settings.eta } else { 0.0 }
    };
    let most = settings.predictor.max(settings.corrector);
    let ends_clean = sigmas.last() == Some(&0.0);
    let mut predicted = x.clone();
    // Oldest first.
    let mut seen: Vec<Tensor> = Vec::new();
    let (mut tau, mut h) = (0.0_f32, 0.0_f32);
    let mut added: Option<Tensor> = None;
    for step in steps(sigmas) {
        let i = step.index;
        let mut denoised = model.denoise(&predicted, step.sigma)?;
        seen.push(denoised.clone());
        if seen.len() > most {
            seen.remove(0);
        }
        let mut predictor = settings.predictor.min(seen.len());
        let last = step.next == 0.0 && !settings.evaluates_again;
        let mut corrector = if i == 0 || last { 0 } else { settings.corrector.min(seen.len()) };
        if ends_clean {
            predictor = predictor.min(sigmas.len() - 2 - i);
            corrector = corrector.min(sigmas.len() - 1 - i);
        }
        if corrector == 0 {
            x = predicted;
        } else {
            let known = &lambdas[i + 1 - corrector..=i];
            let weights = weights(known, (lambdas[i - 1], lambdas[i]), tau, settings.simple, true);
            let terms: Vec<(f32, &Tensor)> = weights.into_iter().zip(&seen[seen.len() - corrector..]).collect();
            let kept = step.sigma / sigmas[i - 1] * (-(tau * tau) * h).exp();
            x = (scale(&x, kept)? + mix(&terms)?)?;
            if let Some(added) = added.as_ref().filter(|_| tau > 0.0 && settings.s_noise > 0.0) {
                x = (x + added)?;
            }
            if settings.evaluates_again {
                denoised = model.denoise(&x, step.sigma)?;
                if let Some(newest) = seen.last_mut() {
                    *newest = denoised.clone();
                }
            }
        }
        predicted = if step.next == 0.0 {
            denoised.clone()
        } else {
            tau = tau_at(step.next);
            let known = &lambdas[i + 1 - predictor..=i];
            let weights = weights(known, (lambdas[i], lambdas[i + 1]), tau, settings.simple, false);
            let terms: Vec<(f32, &Tensor)> = weights.into_iter().zip(&seen[seen.len() - predictor..]).collect();
            h = lambdas[i + 1] - lambdas[i];
            let kept = step.next / step.sigma * (-(tau * tau) * h).exp();
            let mut predicted = (scale(&x, kept)? + mix(&terms)?)?;
            if tau > 0.0 && settings.s_noise > 0.0 {
                let deviation = step.next * (-(-2.0 * tau * tau * h).exp_m1()).sqrt() * settings.s_noise;
                let drawn = scale(&noise.between(step.sigma, step.next)?, deviation)?;
                predicted = add_scaled(&predicted, &drawn, 1.0)?;
                added = Some(drawn);
            }
            predicted
        };
        step.done(&predicted, &denoised, observe)?;
    }
    Ok(predicted)
}

/// How much each known clean latent counts on the way `from → to`, oldest first: equations 15 and 18.
fn weights(known: &[f32], (from, to): (f32, f32), tau: f32, simple: bool, corrects: bool) -> Vec<f32> {
    let known: Vec<f64> = known.iter().map(|lambda| f64::from(*lambda)).collect();
    let (from, to, tau) = (f64::from(from), f64::from(to), f64::from(tau));
    let (power, h) = (1.0 + tau * tau, to - from);
    if let (true, [older, _]) = (simple, known.as_slice()) {
        let all = -(-h * power).exp_m1();
        let (old, new) = if corrects {
            let new = 0.5 * power * h;
            (all - new, new)
        } else {
            let old = 0.5 * power * h * h / (older - from);
            (old, all - old)
        };
        return vec![old as f32, new as f32];
    }
    // ∫ (1 + τ²) e^((1 + τ²)(λ − to)) (λ − from)^p dλ for each p: the origin moved to `from`, so that nothing cancels.
    let moments = moments(h, power, known.len());
    let shifted: Vec<f64> = known.iter().map(|lambda| lambda - from).collect();
    (0..known.len())
        .map(|which| {
            let basis = basis(&shifted, which);
            basis.iter().zip(&moments).map(|(c, m)| c * m).sum::<f64>() as f32
        })
        .collect()
}

/// By parts, from the power 0 up: `m[p] = h^p − p/power·m[p−1]`, with `m[0] = 1 − e^(−power·h)`.
fn moments(h: f64, power: f64, count: usize) -> Vec<f64> {
    let mut moments = vec![-(-power * h).exp_m1()];
    for p in 1..count {
        let last = moments[p - 1];
        moments.push(h.powi(p as i32) - p as f64 / power * last);
    }
    moments
}

/// Coefficients, constant first, of the polynomial that is 1 at one place and 0 at the others.
fn basis(places: &[f64], which: usize) -> Vec<f64> {
    let mut coefficients = vec![1.0];
    for (_, place) in places.iter().enumerate().filter(|&(i, _)| i != which) {
        let divisor = places[which] - place;
        let mut next = vec![0.0; coefficients.len() + 1];
        for (power, coefficient) in coefficients.iter().enumerate() {
            next[power + 1] += coefficient / divisor;
            next[power] -= coefficient * place / divisor;
        }
        coefficients = next;
    }
    coefficients
}
