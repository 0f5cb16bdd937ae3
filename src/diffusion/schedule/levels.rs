//! The noise levels that a model was trained on, and what its input and output mean at each.

use candle_core::Tensor;

use crate::Result;
use crate::tensors::{add_scaled, divide, scale};

/// What a model's output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Prediction {
    /// The noise in its input: Stable Diffusion 1.x, SDXL.
    #[default]
    Epsilon,
    /// The velocity of Salimans and Ho 2022 (arXiv:2202.00512): Stable Diffusion 2.x at 768 pixels.
    Velocity,
    /// Karras et al. 2022 (arXiv:2206.00364), table 1: the clean latent less its share in the input. Playground 2.5.
    Edm,
    /// The clean latent itself.
    Clean,
    /// The clean latent, of an input that was not scaled.
    CleanUnscaled,
    /// The noise, whose clean latent is blended with the input as a consistency model's (Luo et al. 2023, arXiv:2310.04378).
    Consistency,
}

/// How a model's own time runs along its levels.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Clock {
    /// The timesteps of the ladder, each so many after the last.
    Steps {
        /// From one level to the next.
        stride: f32,
        /// Of the first.
        first: f32,
    },
    /// A quarter of the level's logarithm.
    Logarithm,
    /// The level's angle as a share of a right one.
    Angle,
}

/// How much of the signal each timestep of a ladder takes, β: from the first to the last, evenly spaced in the square root.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Betas {
    /// That of the first timestep.
    pub first: f64,
    /// That of the last.
    pub last: f64,
}

impl Betas {
    /// Of Stable Diffusion 1.x, 2.x and SDXL.
    pub const STABLE_DIFFUSION: Self = Self { first: 0.00085, last: 0.012 };
    /// Of the Stable Diffusion x4 upscaler, for what it paints and for the picture that it sees.
    pub const UPSCALER: Self = Self { first: 0.0001, last: 0.02 };

    /// The share of signal in the variance of each timestep: the running product of `1 − β`.
    pub(crate) fn signal(self) -> [f64; TIMESTEPS] {
        let (start, end) = (self.first.sqrt(), self.last.sqrt());
        let step = (end - start) / (TIMESTEPS - 1) as f64;
        let mut signal = 1.0;
        std::array::from_fn(|i| {
            // From the nearer end, as torch builds a range.
            let root =
                if i < TIMESTEPS / 2 { start + step * i as f64 } else { end - step * (TIMESTEPS - 1 - i) as f64 };
            signal *= 1.0 - root * root;
            signal
        })
    }
}

/// Whole timesteps, from 0.
const STEPS: Clock = Clock::Steps { stride: 1.0, first: 0.0 };

/// The ladder of noise levels of a variance-preserving model, and its parameterisation.
///
/// Sampling happens in the "variance-exploding" coordinates of Karras et al. 2022 (arXiv:2206.00364): a latent at
/// level `sigma` is a clean one plus `sigma` times unit noise. The model sees it divided by `√(sigma² + 1)`.
///
/// All arithmetic is in `f32` and in the order that ComfyUI uses, so that results agree to the last bits.
#[derive(Clone, Debug)]
pub struct ModelSampling {
    prediction: Prediction,
    clock: Clock,
    /// Deviation of clean latents as the model was told.
    deviation: f32,
    /// Level of each timestep, rising.
    sigmas: Vec<f32>,
    log_sigmas: Vec<f32>,
}

impl ModelSampling {
    /// The 1000 levels of Stable Diffusion 1.x, 2.x and SDXL, 0.029 to 14.6.
    #[must_use]
    pub fn stable_diffusion(prediction: Prediction) -> Self {
        Self::discrete(Betas::STABLE_DIFFUSION, prediction)
    }

    /// The ladder of 1000 levels on which these betas lead from the picture to noise.
    #[must_use]
    pub fn discrete(betas: Betas, prediction: Prediction) -> Self {
        Self::from_signal(prediction, betas.signal().into_iter())
    }

    /// The same ladder stretched until its last level is pure noise (Lin et al. 2023, arXiv:2305.08891, algorithm 1),
    /// with the smallest signal that still divides; for Stable Diffusion 0.029 to 4519.
    #[must_use]
    pub fn zero_snr(betas: Betas, prediction: Prediction) -> Self {
        // Through the levels and back, for the sake of the same bits.
        let roots = betas.signal().map(|signal| (1.0 / ((1.0 - signal) / signal + 1.0)).sqrt());
        let (first, last) = (roots[0], roots[TIMESTEPS - 1]);
        let mut signal = roots.map(|root| ((root - last) * (first / (first - last))).powi(2));
        signal[TIMESTEPS - 1] = 4.897_345_189_085_343_5e-8;
        Self::from_signal(prediction, signal.into_iter())
    }

    /// The ladder on which the share of signal in the variance falls as given.
    fn from_signal(prediction: Prediction, signal: impl Iterator<Item = f64>) -> Self {
        let sigmas = signal.map(|signal| ((1.0 - signal) / signal).sqrt());
        let (sigmas, log_sigmas) = sigmas.map(|sigma| (sigma as f32, sigma.ln() as f32)).unzip();
        Self { prediction, clock: STEPS, deviation: 1.0, sigmas, log_sigmas }
    }

    /// The ladder of a model distilled into a consistency model: 50 of the 1000 levels.
    #[must_use]
    pub fn consistency(betas: Betas, zero_snr: bool) -> Self {
        const STRIDE: usize = 20;
        let of = if zero_snr { Self::zero_snr } else { Self::discrete };
        let whole = of(betas, Prediction::Consistency);
        let sigmas: Vec<f32> = whole.sigmas.iter().skip(STRIDE - 1).step_by(STRIDE).copied().collect();
        let log_sigmas = sigmas.iter().map(|sigma| sigma.ln()).collect();
        let clock = Clock::Steps { stride: STRIDE as f32, first: (STRIDE - 1) as f32 };
        Self { clock, sigmas, log_sigmas, ..whole }
    }

    /// Levels that a model knows by their logarithm, from `min` to `max` (EDM: Karras et al. 2022), for clean latents of that
    /// `deviation`.
    #[must_use]
    pub fn continuous_edm(prediction: Prediction, min: f64, max: f64, deviation: f32) -> Self {
        let sigmas: Vec<f32> = super::linspace(min.ln() as f32, max.ln() as f32, TIMESTEPS).map(f32::exp).collect();
        let log_sigmas = sigmas.iter().map(|sigma| sigma.ln()).collect();
        Self { prediction, clock: Clock::Logarithm, deviation, sigmas, log_sigmas }
    }

    /// Levels that a model knows by their angle, from `min` to `max`: video models that predict velocity.
    #[must_use]
    pub fn continuous_velocity(min: f64, max: f64) -> Self {
        Self { clock: Clock::Angle, ..Self::continuous_edm(Prediction::Velocity, min, max, 1.0) }
    }

    /// What the model's output is.
    #[must_use]
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// Whether the model knows its levels by a function and not by their place on a ladder.
    #[must_use]
    pub fn is_continuous(&self) -> bool {
        !matches!(self.clock, Clock::Steps { .. })
    }

    /// The level of each timestep, rising.
    #[must_use]
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The level of timestep 0.
    #[must_use]
    pub fn sigma_min(&self) -> f32 {
        self.sigmas[0]
    }

    /// The level of the last timestep.
    #[must_use]
    pub fn sigma_max(&self) -> f32 {
        self.sigmas[self.sigmas.len() - 1]
    }

    /// The model's own time of a level: on a ladder, the timestep whose level is nearest in the logarithm, the lower of two.
    #[must_use]
    pub fn timestep(&self, sigma: f32) -> f32 {
        let (stride, first) = match self.clock {
            Clock::Steps { stride, first } => (stride, first),
            Clock::Logarithm => return 0.25 * sigma.ln(),
            Clock::Angle => return sigma.atan() / std::f32::consts::PI * 2.0,
        };
        let log = sigma.ln();
        let mut nearest = (0, f32::INFINITY);
        for (timestep, level) in self.log_sigmas.iter().enumerate() {
            let distance = (log - level).abs();
            if distance < nearest.1 {
                nearest = (timestep, distance);
            }
        }
        nearest.0 as f32 * stride + first
    }

    /// The level at a time, between timesteps linear in the logarithm; outside a ladder, its ends.
    #[must_use]
    pub fn sigma(&self, timestep: f32) -> f32 {
        let (stride, first) = match self.clock {
            Clock::Steps { stride, first } => (stride, first),
            Clock::Logarithm => return (timestep / 0.25).exp(),
            Clock::Angle => return (timestep * std::f32::consts::PI / 2.0).tan(),
        };
        let place = ((timestep - first) / stride).clamp(0.0, (self.sigmas.len() - 1) as f32);
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        let weight = place.fract();
        ((1.0 - weight) * self.log_sigmas[low] + weight * self.log_sigmas[high]).exp()
    }

    /// The level at a share of the way from noise (0) to picture (1). At 0 it is above every level, at 1 it is 0.
    #[must_use]
    pub fn percent_to_sigma(&self, percent: f64) -> f32 {
        if percent <= 0.0 {
            return 999_999_999.9;
        }
        if percent >= 1.0 {
            return 0.0;
        }
        if let Clock::Steps { .. } = self.clock {
            return self.sigma(((1.0 - percent) * 999.0) as f32);
        }
        let (min, max) = (f64::from(self.sigma_min()).ln(), f64::from(self.sigma_max()).ln());
        ((max - min) * (1.0 - percent) + min).exp() as f32
    }

    /// Whether sampling from `sigma` starts at (or above) the model's own last level, where a latent is all noise.
    #[must_use]
    pub fn is_full_noise(&self, sigma: f32) -> bool {
        let (max, sigma) = (f64::from(self.sigma_max()), f64::from(sigma));
        sigma > max || (max - sigma).abs() <= 1e-5 * max.max(sigma)
    }

    /// What the model is given for a latent at level `sigma`: `x / √(sigma² + d²)`, with `d` the deviation of clean latents,
    /// 1 for most models.
    ///
    /// # Errors
    /// The device has no room for it.
    pub fn scale_input(&self, x: &Tensor, sigma: f32) -> Result<Tensor> {
        if self.prediction == Prediction::CleanUnscaled {
            return Ok(x.clone());
        }
        divide(x, (sigma * sigma + self.deviation * self.deviation).sqrt())
    }

    /// The clean latent that the model's `output` for `x` at level `sigma` speaks of.
    ///
    /// `x − sigma·output` for noise, `x·d² / (sigma² + d²) − output·sigma·d / √(sigma² + d²)` for velocity.
    ///
    /// # Errors
    /// `x` and `output` differ in shape.
    pub fn denoised(&self, x: &Tensor, output: &Tensor, sigma: f32) -> Result<Tensor> {
        let velocity = |sign: f32| {
            let power = sigma * sigma + self.deviation * self.deviation;
            let change = scale(&scale(output, sigma)?, self.deviation)?;
            let change = divide(&change, power.sqrt())?;
            add_scaled(&divide(&scale(x, self.deviation * self.deviation)?, power)?, &change, sign)
        };
        match self.prediction {
            Prediction::Epsilon => add_scaled(x, output, -sigma),
            Prediction::Velocity => velocity(-1.0),
            Prediction::Edm => velocity(1.0),
            Prediction::Clean | Prediction::CleanUnscaled => Ok(output.clone()),
            Prediction::Consistency => {
                /// Deviation of the data, in the boundary condition that the model was distilled with.
                const DEVIATION: f32 = 0.5;
                let time = self.timestep(sigma) * 10.0;
                let power = time * time + DEVIATION * DEVIATION;
                let clean = add_scaled(x, output, -sigma)?;
                add_scaled(&scale(&clean, time / power.sqrt())?, x, DEVIATION * DEVIATION / power)
            }
        }
    }

    /// The latent at level `sigma` that sampling starts from: `latent + noise·sigma`.
    ///
    /// Where `full` (all of the picture is to be made, see [`Self::is_full_noise`]), the noise is scaled by
    /// `√(1 + sigma²)`: the model then meets noise of exactly unit variance.
    ///
    /// # Errors
    /// `noise` and `latent` differ in shape.
    pub fn add_noise(&self, latent: &Tensor, noise: &Tensor, sigma: f32, full: bool) -> Result<Tensor> {
        let scale = if full { (1.0 + sigma * sigma).sqrt() } else { sigma };
        add_scaled(latent, noise, scale)
    }
}

/// How many timesteps Stable Diffusion was trained with.
const TIMESTEPS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(found: f32, expected: f64) {
        assert!((f64::from(found) - expected).abs() <= 1e-6 * expected, "{found} for {expected}");
    }

    #[test]
    fn published_levels() {
        let sampling = ModelSampling::stable_diffusion(Prediction::Epsilon);
        for (timestep, sigma) in [(0, 0.029_167_16), (1, 0.041_314_41), (500, 1.618_278_86), (999, 14.614_641_19)] {
            assert_near(sampling.sigmas()[timestep], sigma);
        }
        for (percent, sigma) in [(0.2, 5.092_408_2), (0.5, 1.615_580_3), (0.8, 0.571_188_9)] {
            assert_near(sampling.percent_to_sigma(percent), sigma);
        }
        assert_eq!(sampling.percent_to_sigma(-1.0), 999_999_999.9);
        assert_eq!(sampling.percent_to_sigma(1.5), 0.0);
    }

    #[test]
    fn published_levels_of_zero_terminal_snr() {
        let sampling = ModelSampling::zero_snr(Betas::STABLE_DIFFUSION, Prediction::Velocity);
        assert_near(sampling.sigma_max(), 4518.7637);
        assert!((sampling.sigmas()[998] - 2254.2354).abs() < 0.05, "{}", sampling.sigmas()[998]);
        assert_eq!(sampling.sigma_min(), ModelSampling::stable_diffusion(Prediction::Epsilon).sigma_min());
    }

    /// Of ComfyUI's `ModelSamplingDiscrete` with the upscaler's settings.
    #[test]
    fn levels_of_the_upscaler() {
        let sampling = ModelSampling::discrete(Betas::UPSCALER, Prediction::Velocity);
        let levels = [
            (0, 0.010_000_499_896_705),
            (1, 0.014_236_543_327_57),
            (500, 1.420_789_957_046_5),
            (999, 36.911_911_010_742),
        ];
        for (timestep, sigma) in levels {
            assert_near(sampling.sigmas()[timestep], sigma);
        }
        for (percent, sigma) in [(0.2, 6.911_584_377_288_8), (0.5, 1.417_730_093_002_3), (0.8, 0.355_903_774_499_9)] {
            assert_near(sampling.percent_to_sigma(percent), sigma);
        }
        assert_near(ModelSampling::zero_snr(Betas::UPSCALER, Prediction::Velocity).sigmas()[998], 3_538.561_523_437_5);
    }

    #[test]
    fn timesteps_and_levels_are_inverse() {
        let sampling = ModelSampling::stable_diffusion(Prediction::Epsilon);
        for timestep in 0..1000 {
            assert_eq!(sampling.timestep(sampling.sigma(timestep as f32)), timestep as f32);
        }
        assert_eq!(sampling.timestep(0.0), 0.0);
        assert_eq!(sampling.timestep(1e9), 999.0);
    }

    #[test]
    fn a_true_output_gives_the_clean_latent() {
        let device = &candle_core::Device::Cpu;
        let clean = Tensor::new(&[0.5_f32, -1.0, 2.0], device).unwrap();
        let noise = Tensor::new(&[1.0_f32, 0.25, -0.5], device).unwrap();
        let sigma = 3.0_f32;
        let power = (sigma * sigma + 1.0).sqrt();
        for prediction in [Prediction::Epsilon, Prediction::Velocity, Prediction::Clean, Prediction::Edm] {
            let sampling = ModelSampling::stable_diffusion(prediction);
            let x = sampling.add_noise(&clean, &noise, sigma, false).unwrap();
            let output = match prediction {
                Prediction::Epsilon => noise.clone(),
                Prediction::Clean => clean.clone(),
                // v = α·noise − σ'·clean, with α = 1/√(σ²+1) and σ' = σ/√(σ²+1).
                Prediction::Velocity => (&noise - clean.affine(sigma.into(), 0.0).unwrap())
                    .unwrap()
                    .affine((1.0 / power).into(), 0.0)
                    .unwrap(),
                // The same with the other sign.
                _ => (clean.affine(sigma.into(), 0.0).unwrap() - &noise)
                    .unwrap()
                    .affine((1.0 / power).into(), 0.0)
                    .unwrap(),
            };
            let found = sampling.denoised(&x, &output, sigma).unwrap();
            let error = (found - &clean).unwrap().abs().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
            assert!(error < 1e-6, "{prediction:?}: {error}");
        }
    }
}
