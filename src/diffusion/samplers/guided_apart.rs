//! CFG++: the step is led by the guided latent, but its noise is taken to be what the negative prompts alone see.
//!
//! Chung et al. 2024, arXiv:2406.08070, for Euler's method; the others carry the idea over.

use candle_core::Tensor;

use super::{Denoiser, Observe, Sampler, Walk, ancestral, ancestral_by, slope, steps};
use crate::Result;
use crate::noise::Noise;
use crate::tensors::{add_scaled, mix, scale};

const fn apart(name: &'static str, sample: super::Sample) -> Sampler {
    Sampler { guided_apart: true, ..Sampler::unstated(name, sample) }
}

pub(super) const EULER: Sampler =
    apart("euler_cfg_pp", |model, x, sigmas, noise, observe| euler(model, x, sigmas, noise, observe, 0.0, 0.0));
pub(super) const EULER_ANCESTRAL: Sampler = apart("euler_ancestral_cfg_pp", |model, x, sigmas, noise, observe| {
    euler(model, x, sigmas, noise, observe, 1.0, 1.0)
});
pub(super) const DPMPP_2S_ANCESTRAL: Sampler = apart("dpmpp_2s_ancestral_cfg_pp", dpmpp_2s_ancestral);
pub(super) const DPMPP_2M: Sampler = apart("dpmpp_2m_cfg_pp", dpmpp_2m);
pub(super) const RES_MULTISTEP: Sampler = apart("res_multistep_cfg_pp", |model, x, sigmas, noise, observe| {
    res_multistep(model, x, sigmas, noise, observe, 0.0)
});
pub(super) const RES_MULTISTEP_ANCESTRAL: Sampler =
    apart("res_multistep_ancestral_cfg_pp", |model, x, sigmas, noise, observe| {
        res_multistep(model, x, sigmas, noise, observe, 1.0)
    });
pub(super) const GRADIENT_ESTIMATION: Sampler = apart("gradient_estimation_cfg_pp", gradient_estimation);

impl Walk {
    /// Euler's method with CFG++ and a share `eta` of ancestral noise, of deviation `s_noise`.
    #[must_use]
    pub fn euler_ancestral_cfg_pp(eta: f32, s_noise: f32) -> Self {
        Self::like(&EULER_ANCESTRAL, move |model, x, sigmas, noise, observe| {
            euler(model, x, sigmas, noise, observe, eta, s_noise)
        })
    }

    /// Euler's method along what both the guided latent and the negative prompts say of the noise.
    #[must_use]
    pub fn euler_pp() -> Self {
        Self::like(&EULER, |model, mut x, sigmas, _, observe| {
            for step in steps(sigmas) {
                let [denoised, negative] = model.denoise_apart(&x, step.sigma)?;
                let shifted = ((&x - &denoised)? + negative)?;
                x = add_scaled(&x, &slope(&shifted, &denoised, step.sigma)?, step.next - step.sigma)?;
                step.done(&x, &denoised, observe)?;
            }
            Ok(x)
        })
    }
}

fn euler(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
    eta: f32,
    s_noise: f32,
) -> Result<Tensor> {
    for step in steps(sigmas) {
        let [denoised, negative] = model.denoise_apart(&x, step.sigma)?;
        x = if step.next == 0.0 {
            denoised.clone()
        } else {
            let (down, up) = ancestral_by(step.sigma, step.next, eta);
            let mut x = add_scaled(&denoised, &slope(&x, &negative, step.sigma)?, down)?;
            if eta > 0.0 && s_noise > 0.0 {
                x = add_scaled(&x, &noise.between(step.sigma, step.next)?, s_noise * up)?;
            }
            x
        };
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}

fn dpmpp_2s_ancestral(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
) -> Result<Tensor> {
    for step in steps(sigmas) {
        let [denoised, negative] = model.denoise_apart(&x, step.sigma)?;
        let (down, up) = ancestral(step.sigma, step.next);
        x = if down == 0.0 {
            add_scaled(&denoised, &slope(&x, &negative, step.sigma)?, down)?
        } else {
            let (t, t_down) = (-step.sigma.ln(), -down.ln());
            let h = t_down - t;
            let level = |t: f32| (-t).exp();
            let middle = t + 0.5 * h;
            let halfway = mix(&[
                (level(middle) / level(t), &(&x + (&denoised - &negative)?)?),
                (-(-h * 0.5).exp_m1(), &denoised),
            ])?;
            let [second, negative] = model.denoise_apart(&halfway, level(middle))?;
            mix(&[(level(t_down) / level(t), &(&x + (&denoised - &negative)?)?), (-(-h).exp_m1(), &second)])?
        };
        if step.next > 0.0 {
            x = add_scaled(&x, &noise.between(step.sigma, step.next)?, up)?;
        }
        step.done(&x, &denoised, observe)?;
    }
    Ok(x)
}

fn dpmpp_2m(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    _: &mut Noise,
    observe: Observe<'_>,
) -> Result<Tensor> {
    let mut last: Option<Tensor> = None;
    for step in steps(sigmas) {
        let [denoised, negative] = model.denoise_apart(&x, step.sigma)?;
        let h = -step.next.ln() + step.sigma.ln();
        let kept = (-h).exp();
        let mut change = scale(&negative, -kept)?;
        if let Some(last) = last.as_ref().filter(|_| step.next != 0.0) {
            let r = (-step.sigma.ln() + sigmas[step.index - 1].ln()) / h;
            change = add_scaled(&change, &(&denoised - last)?, -(-h).exp_m1() * (1.0 / (2.0 * r)))?;
        }
        x = ((&denoised + change)? + scale(&x, kept)?)?;
        step.done(&x, &denoised, observe)?;
        last = Some(negative);
    }
    Ok(x)
}

fn res_multistep(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    noise: &mut Noise,
    observe: Observe<'_>,
    eta: f32,
) -> Result<Tensor> {
    let t = |sigma: f32| -sigma.ln();
    let mut last: Option<(Tensor, f32)> = None;
    for step in steps(sigmas) {
        let [denoised, negative] = model.denoise_apart(&x, step.sigma)?;
        let (down, up) = ancestral_by(step.sigma, step.next, eta);
        x = match &last {
            Some((seen, reached)) if down != 0.0 => {
                let h = t(down) - t(step.sigma);
                let back = (t(sigmas[step.index - 1]) - t(*reached)) / h;
                let phi_1 = (-h).exp_m1() / -h;
                let phi_2 = (phi_1 - 1.0) / -h;
                let number = |weight: f32| if weight.is_nan() { 0.0 } else { weight };
                let mean = mix(&[(number(phi_1 - phi_2 / back), &negative), (number(phi_2 / back), seen)])?;
                mix(&[((-h).exp(), &(&x + (&denoised - &negative)?)?), (h, &mean)])?
            }
            _ => add_scaled(&denoised, &slope(&x, &negative, step.sigma)?, down)?,
        };
        if step.next > 0.0 && eta > 0.0 {
            x = add_scaled(&x, &noise.between(step.sigma, step.next)?, up)?;
        }
        step.done(&x, &denoised, observe)?;
        last = Some((negative, down));
    }
    Ok(x)
}

fn gradient_estimation(
    model: &dyn Denoiser,
    mut x: Tensor,
    sigmas: &[f32],
    _: &mut Noise,
    observe: Observe<'_>,
) -> Result<Tensor> {
    let mut last: Option<Tensor> = None;
    for step in steps(sigmas) {
        let [denoised, negative] = model.denoise_apart(&x, step.sigma)?;
        let slope = slope(&x, &negative, step.sigma)?;
        x = if step.next == 0.0 { denoised.clone() } else { add_scaled(&denoised, &slope, step.next)? };
        if let Some(last) = last.as_ref().filter(|_| step.next != 0.0) {
            // With γ = 2 the last change counts once more.
            x = add_scaled(&x, &(&slope - last)?, step.next - step.sigma)?;
        }
        step.done(&x, &denoised, observe)?;
        last = Some(slope);
    }
    Ok(x)
}
