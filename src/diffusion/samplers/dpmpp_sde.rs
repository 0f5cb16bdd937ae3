//! DPM-Solver++ for the stochastic equation, of one, two and three steps' memory, on a Brownian path.
//!
//! Lu et al. 2022, arXiv:2211.01095, in the forms of k-diffusion.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sample, Sampler, Source, Walk, ancestral_by, half_log_snr, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, mix};

const fn on_path(name: &'static str, sample: Sample) -> Sampler {
    Sampler { source: Source::Path, ..Sampler::unstated(name, sample) }
}

const MIDPOINT: Sample = |model, x, sigmas, noise, observe| two(model, x, sigmas, noise, observe, (1.0, 1.0, false));
const HEUN: Sample = |model, x, sigmas, noise, observe| two(model, x, sigmas, noise, observe, (1.0, 1.0, true));
const THIRD: Sample = |model, x, sigmas, noise, observe| three(model, x, sigmas, noise, observe, (1.0, 1.0));
const FIRST: Sample = |model, x, sigmas, noise, observe| single(model, x, sigmas, noise, observe, (1.0, 1.0, 0.5));

pub(super) const SINGLE: Sampler = on_path("dpmpp_sde", FIRST);
pub(super) const TWO: Sampler = on_path("dpmpp_2m_sde", MIDPOINT);
pub(super) const TWO_HEUN: Sampler = on_path("dpmpp_2m_sde_heun", HEUN);
pub(super) const THREE: Sampler = on_path("dpmpp_3m_sde", THIRD);
// The path is drawn on the CPU for these, too: there it is ComfyUI's, and a seed means the same on every device.
pub(super) const SINGLE_GPU: Sampler = on_path("dpmpp_sde_gpu", FIRST);
pub(super) const TWO_GPU: Sampler = on_path("dpmpp_2m_sde_gpu", MIDPOINT);
pub(super) const TWO_HEUN_GPU: Sampler = on_path("dpmpp_2m_sde_heun_gpu", HEUN);
pub(super) const THREE_GPU: Sampler = on_path("dpmpp_3m_sde_gpu", THIRD);

impl Walk {
    /// `dpmpp_sde` with a share `eta` of the noise, of deviation `s_noise`, and its middle evaluation at `r` of the step.
    #[must_use]
    pub fn dpmpp_sde(eta: f32, s_noise: f32, r: f32) -> Self {
        Self::like(&SINGLE, move |model, x, sigmas, noise, observe| {
            single(model, x, sigmas, noise, observe, (eta, s_noise, r))
        })
    }

    /// `dpmpp_2m_sde`, or its form after Heun.
    #[must_use]
    pub fn dpmpp_2m_sde(eta: f32, s_noise: f32, heun: bool) -> Self {
        Self::like(&TWO, move |model, x, sigmas, noise, observe| {
            two(model, x, sigmas, noise, observe, (eta, s_noise, heun))
        })
    }

    /// `dpmpp_3m_sde`.
    #[must_use]
    pub fn dpmpp_3m_sde(eta: f32, s_noise: f32) -> Self {
        Self::like(&THREE, move |model, x, sigmas, noise, observe| {
            three(model, x, sigmas, noise, observe, (eta, s_noise))
        })
    }
}

/// Two evaluations a step, one in a step to 0.
fn single(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
    (eta, s_noise, r): (f32, f32, f32),
) -> Result<Tensor> {
    let noisy = eta > 0.0 && s_noise > 0.0;
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        x = if step.next == 0.0 {
            denoised.clone()
        } else {
            let (from, to) = (half_log_snr(step.sigma), half_log_snr(step.next));
            let middle = from + r * (to - from);
            let level = (-middle).exp();
            let factor = 1.0 / (2.0 * r);
            // To a place on the way, less what the noise will add.
            let towards = |x: &Tensor, seen: &Tensor, to: f32| -> Result<(Tensor, f32)> {
                let (down, up) = ancestral_by((-from).exp(), (-to).exp(), eta);
                let h = half_log_snr(down) - from;
                Ok((mix(&[((-h).exp(), x), (-(-h).exp_m1(), seen)])?, up))
            };
            let (mut halfway, up) = towards(&x, &denoised, middle)?;
            if noisy {
                halfway = add_scaled(&halfway, &noise.between(step.sigma, level)?, s_noise * up)?;
            }
            let second = model.denoise(&halfway, level)?;
            let (mut x, up) = towards(&x, &mix(&[(1.0 - factor, &denoised), (factor, &second)])?, to)?;
            if noisy {
                x = add_scaled(&x, &noise.between(step.sigma, step.next)?, s_noise * up)?;
            }
            x
        };
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}

/// One step of first order, shared by both multistep methods: what they correct by what they remember.
fn first_order(x: &Tensor, denoised: &Tensor, sigma: f32, next: f32, eta: f32) -> Result<(Tensor, f32)> {
    let h = half_log_snr(next) - half_log_snr(sigma);
    let x = mix(&[(next / sigma * (-h * eta).exp(), x), (-(-h * (eta + 1.0)).exp_m1(), denoised)])?;
    Ok((x, h))
}

/// The noise of a step, added where there is any.
fn add_noise(
    x: Tensor,
    noise: &mut Noise,
    (sigma, next): (f32, f32),
    h: f32,
    (eta, s_noise): (f32, f32),
) -> Result<Tensor> {
    if eta <= 0.0 || s_noise <= 0.0 {
        return Ok(x);
    }
    let deviation = next * (-(-2.0 * h * eta).exp_m1()).sqrt() * s_noise;
    add_scaled(&x, &noise.between(sigma, next)?, deviation)
}

/// One evaluation a step; remembers one.
fn two(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
    (eta, s_noise, heun): (f32, f32, bool),
) -> Result<Tensor> {
    let mut last: Option<(Tensor, f32)> = None;
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        if step.next == 0.0 {
            x = denoised.clone();
            step.done(&x, &denoised, observe)?;
            continue;
        }
        let (next, h) = first_order(&x, &denoised, step.sigma, step.next, eta)?;
        x = next;
        if let Some((seen, h_last)) = &last {
            let (r, h_eta) = (h_last / h, h * (eta + 1.0));
            let gain = -(-h_eta).exp_m1();
            let weight = if heun { gain / -h_eta + 1.0 } else { 0.5 * gain };
            x = add_scaled(&x, &(&denoised - seen)?, weight * (1.0 / r))?;
        }
        x = add_noise(x, noise, (step.sigma, step.next), h, (eta, s_noise))?;
        step.done(&x, &denoised, observe)?;
        last = Some((denoised, h));
    }
    Ok(x)
}

/// One evaluation a step; remembers two.
fn three(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
    (eta, s_noise): (f32, f32),
) -> Result<Tensor> {
    // Newest first.
    let mut seen: Vec<(Tensor, f32)> = Vec::new();
    for step in steps(sigmas) {
        let denoised = model.denoise(&x, step.sigma)?;
        if step.next == 0.0 {
            x = denoised.clone();
            step.done(&x, &denoised, observe)?;
            continue;
        }
        let (next, h) = first_order(&x, &denoised, step.sigma, step.next, eta)?;
        x = next;
        let h_eta = h * (eta + 1.0);
        let phi_2 = (-h_eta).exp_m1() / h_eta + 1.0;
        let phi_3 = phi_2 / h_eta - 0.5;
        x = match seen.as_slice() {
            [] => x,
            [(one, h_1)] => add_scaled(&x, &(&denoised - one)?, phi_2 / (h_1 / h))?,
            [(one, h_1), (two, h_2), ..] => {
                let (r0, r1) = (h_1 / h, h_2 / h);
                let newer = mix(&[(1.0 / r0, &denoised), (-1.0 / r0, one)])?;
                let older = mix(&[(1.0 / r1, one), (-1.0 / r1, two)])?;
                let bend = (&newer - older)?;
                let slope = add_scaled(&newer, &bend, r0 / (r0 + r1))?;
                mix(&[(1.0, &x), (phi_2, &slope), (-phi_3 / (r0 + r1), &bend)])?
            }
        };
        x = add_noise(x, noise, (step.sigma, step.next), h, (eta, s_noise))?;
        step.done(&x, &denoised, observe)?;
        seen.insert(0, (denoised, h));
        seen.truncate(2);
    }
    Ok(x)
}
