//! Samplers: how to walk from noise to picture.
//!
//! A sampler sees a [`Denoiser`], a latent at the first noise level, the levels to visit and a source of noise. It knows
//! nothing of prompts, guidance, masks or the model's own timesteps.
//!
//! Here `x` is a latent, `sigma` its noise level, `denoised` what the model takes to be the clean latent in it, and the
//! slope `(x − denoised) / sigma` the direction of `x` as its level changes (Karras et al. 2022, arXiv:2206.00364,
//! algorithm 1). All of it is `f32`, in the order of operations that k-diffusion has, so that results agree with its.

mod ddim;
mod ddpm;
mod deis;
mod dpm_2;
mod dpm_solver;
mod dpmpp_2m;
mod dpmpp_2s_ancestral;
mod dpmpp_sde;
mod er_sde;
mod euler;
mod euler_ancestral;
mod gradient_estimation;
mod guided_apart;
mod heun;
mod heunpp2;
mod ipndm;
mod ipndm_v;
mod lcm;
mod lms;
mod res_multistep;
mod sa_solver;
mod seeds;
mod uni_pc;
mod walk;

#[cfg(test)]
mod conformance;

use std::ops::ControlFlow;

use candle_core::Tensor;

pub use dpm_solver::Adaptive;
pub use er_sde::{ErSde, Scaler};
pub use sa_solver::SaSolver;
pub use seeds::Phi;
pub use walk::Walk;

use crate::noise::Noise;
use crate::tensors::{divide, is_finite};
use crate::{Error, Result};

/// Says which clean latent it sees in a noisy one.
pub trait Denoiser {
    /// The clean latent in `x`, whose noise level is `sigma`.
    ///
    /// # Shapes
    /// `x` and the result are alike, `[batch, channels, height, width]`, `f32`.
    ///
    /// # Errors
    /// What the model behind it reports.
    fn denoise(&self, x: &Tensor, sigma: f32) -> Result<Tensor>;

    /// The same, and beside it what the negative prompts alone make of it. A denoiser without guidance gives the same twice.
    ///
    /// # Errors
    /// As [`Self::denoise`].
    fn denoise_apart(&self, x: &Tensor, sigma: f32) -> Result<[Tensor; 2]> {
        let denoised = self.denoise(x, sigma)?;
        Ok([denoised.clone(), denoised])
    }
}

/// Called after each step with the step and with the clean latent that the model saw at its start. `Break` stops the
/// sampling with [`Error::Stopped`].
pub type Observe<'a> = &'a mut dyn FnMut(Step, &Tensor) -> ControlFlow<()>;

/// Takes a latent at the first of some noise levels to the last of them, step by step. With fewer than two levels, it
/// returns the latent.
///
/// Errors: what the denoiser reports; [`Error::Stopped`]; [`Error::NotFinite`].
pub type Sample = fn(&dyn Denoiser, Tensor, &[f32], &mut Noise, Observe<'_>) -> Result<Tensor>;

/// An algorithm: a name, a function, and what a caller has to know of it.
pub struct Sampler {
    /// Its name on the wire, ComfyUI's.
    pub name: &'static str,
    /// The walk itself.
    pub sample: Sample,
    /// How fast its error falls with more steps: with their number to the power of this. 0 for a sampler that makes no
    /// such error, since it asks the model for no more than it knows; `None` where none is stated.
    pub order: Option<u8>,
    /// It does badly on the smallest level: a schedule of one more step is made for it, less its second to last level.
    pub skips_last_level: bool,
    /// When part of a picture is kept, its noise is drawn afresh and not taken from the start.
    pub fresh_mask_noise: bool,
    /// Where the noise that it adds comes from.
    pub source: Source,
    /// It asks for what the negative prompts alone make of a latent, even where guidance would not need them.
    pub guided_apart: bool,
}

/// Where a sampler's noise comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Drawn anew for each step.
    Fresh,
    /// The increments of one path, so that the noise of a stretch does not depend on the steps that it is taken in.
    Path,
}

impl Sampler {
    /// A sampler without peculiarities.
    const fn new(name: &'static str, order: u8, sample: Sample) -> Self {
        Self { order: Some(order), ..Self::unstated(name, sample) }
    }

    /// The same, of no stated order.
    const fn unstated(name: &'static str, sample: Sample) -> Self {
        Self {
            name,
            sample,
            order: None,
            skips_last_level: false,
            fresh_mask_noise: false,
            source: Source::Fresh,
            guided_apart: false,
        }
    }
}

/// Every sampler, in the order in which ComfyUI offers them.
pub static SAMPLERS: &[Sampler] = &[
    euler::SAMPLER,
    guided_apart::EULER,
    euler_ancestral::SAMPLER,
    guided_apart::EULER_ANCESTRAL,
    heun::SAMPLER,
    heunpp2::SAMPLER,
    seeds::EXP_HEUN,
    seeds::EXP_HEUN_SDE,
    dpm_2::SAMPLER,
    dpm_2::ANCESTRAL,
    lms::SAMPLER,
    dpm_solver::FAST,
    dpm_solver::ADAPTIVE,
    dpmpp_2s_ancestral::SAMPLER,
    guided_apart::DPMPP_2S_ANCESTRAL,
    dpmpp_sde::SINGLE,
    dpmpp_sde::SINGLE_GPU,
    dpmpp_2m::SAMPLER,
    guided_apart::DPMPP_2M,
    dpmpp_sde::TWO,
    dpmpp_sde::TWO_GPU,
    dpmpp_sde::TWO_HEUN,
    dpmpp_sde::TWO_HEUN_GPU,
    dpmpp_sde::THREE,
    dpmpp_sde::THREE_GPU,
    ddpm::SAMPLER,
    lcm::SAMPLER,
    ipndm::SAMPLER,
    ipndm_v::SAMPLER,
    deis::SAMPLER,
    res_multistep::SAMPLER,
    guided_apart::RES_MULTISTEP,
    res_multistep::ANCESTRAL,
    guided_apart::RES_MULTISTEP_ANCESTRAL,
    gradient_estimation::SAMPLER,
    guided_apart::GRADIENT_ESTIMATION,
    er_sde::SAMPLER,
    seeds::TWO,
    seeds::THREE,
    sa_solver::SAMPLER,
    sa_solver::PECE,
    ddim::SAMPLER,
    uni_pc::SAMPLER,
    uni_pc::SECOND,
];

/// The names of [`SAMPLERS`].
pub fn names() -> impl Iterator<Item = &'static str> {
    SAMPLERS.iter().map(|sampler| sampler.name)
}

/// The sampler of that name.
///
/// # Errors
/// There is none: [`Error::UnknownName`].
pub fn find(name: &str) -> Result<&'static Sampler> {
    SAMPLERS.iter().find(|sampler| sampler.name == name).ok_or_else(|| Error::UnknownName {
        kind: "sampler",
        name: name.to_owned(),
        known: names().collect(),
    })
}

impl PartialEq for Sampler {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sampler({})", self.name)
    }
}

impl std::str::FromStr for &'static Sampler {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        find(name)
    }
}

/// One step of a sampler: from a noise level to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Its place, from 0.
    pub index: usize,
    /// How many there are.
    pub total: usize,
    /// The noise level that it starts from.
    pub sigma: f32,
    /// The one that it leads to.
    pub next: f32,
}

impl Step {
    /// Ends the step: checks the latent that it made, and tells the observer.
    fn done(
        self,
        x: &Tensor,
        denoised: &Tensor,
        observe: &mut dyn FnMut(Step, &Tensor) -> ControlFlow<()>,
    ) -> Result<()> {
        if !is_finite(x)? {
            return Err(Error::NotFinite { step: self.index + 1, steps: self.total, sigma: self.sigma });
        }
        match observe(self, denoised) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Stopped),
        }
    }
}

/// The steps between noise levels.
fn steps(sigmas: &[f32]) -> impl Iterator<Item = Step> {
    let total = sigmas.len().saturating_sub(1);
    sigmas.windows(2).enumerate().map(move |(index, pair)| Step { index, total, sigma: pair[0], next: pair[1] })
}

/// How a latent changes with its noise level: `(x − denoised) / sigma`.
fn slope(x: &Tensor, denoised: &Tensor, sigma: f32) -> Result<Tensor> {
    divide(&(x - denoised)?, sigma)
}

/// A step down that overshoots, and the noise that makes up for it: the level to go down to and the deviation of the
/// noise to add there, for a latent that should end at `next`.
fn ancestral(sigma: f32, next: f32) -> (f32, f32) {
    ancestral_by(sigma, next, 1.0)
}

/// The same with only a share `eta` of the noise.
fn ancestral_by(sigma: f32, next: f32, eta: f32) -> (f32, f32) {
    if eta == 0.0 {
        return (next, 0.0);
    }
    let up = next.min(eta * (next * next * (sigma * sigma - next * next) / (sigma * sigma)).sqrt());
    ((next * next - up * up).sqrt(), up)
}

/// Half the logarithm of the signal's power over the noise's, for a model in which a latent is a clean one plus `sigma`
/// times noise.
fn half_log_snr(sigma: f32) -> f32 {
    -sigma.ln()
}
