//! How to train.

use serde::Serialize;

use super::fault::Fault;

/// What is trained beside each layer, or in it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Method {
    /// Takes directions out of a layer's output: `W' = W - Q Qᵀ W`, `B = Q R` trained. Chen et al., arXiv:2406.05641.
    Para {
        /// What else moves.
        mode: ParaMode,
        /// Directions a layer, before `gamma` bounds them.
        rank: usize,
        /// The largest share of a layer's outputs that may be taken out.
        gamma: f64,
        /// Which directions to start from.
        init: Init,
        /// How far the directions turn in a step, about, in radians.
        angular_rate: f64,
    },
    /// Adds a product of two thin matrices: `W' = W + (alpha / rank) up down`. Hu et al., arXiv:2106.09685.
    Lora {
        /// Width of the thin matrices.
        rank: usize,
        /// The weight of the product, times the rank.
        alpha: f64,
        /// Learning rate.
        rate: f64,
    },
    /// Shifts the singular values: `W' = U diag(relu(σ + δ)) Vᵀ`, `δ` trained. Han et al., arXiv:2303.11305.
    SvDiff {
        /// Learning rate.
        rate: f64,
    },
    /// The weights themselves.
    Weights {
        /// Learning rate.
        rate: f64,
    },
}

/// What of a PaRa moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ParaMode {
    /// The directions, and what they remove follows: the formula.
    Projection,
    /// The directions and what they remove, each freely, from a projection on: what the paper's released code trains. The
    /// result is a LoRA.
    Release,
    /// The directions, and something else that is put in their place. Arxiv 2509.22793. The result is a LoRA.
    Deft,
}

/// Which directions a PaRa starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Init {
    /// Drawn ones.
    Random,
    /// Those in which the layer has the least to say, so that training starts nearest to the base.
    MinEnergy,
    /// The first outputs, as the paper's released code.
    Unit,
}

impl Method {
    /// The rate that Adam gets.
    pub(super) fn rate(&self) -> f64 {
        match *self {
            Self::Para { angular_rate, .. } => angular_rate * SPREAD,
            Self::Lora { rate, .. } | Self::SvDiff { rate } | Self::Weights { rate } => rate,
        }
    }
}

/// Root mean square of the numbers that span a PaRa's directions. Only their span counts, so this is what makes a learning
/// rate an angle.
pub(super) const SPREAD: f64 = 0.02;

/// How the learning rate goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Decay {
    /// It stays.
    Constant,
    /// It falls to zero along half a cosine.
    Cosine,
}

/// All about a training but what is trained and on what.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// What is trained.
    pub method: Method,
    /// Names of the layers.
    pub layers: Vec<String>,
    /// Steps of the optimiser.
    pub steps: usize,
    /// Pictures a step, times `accumulate`.
    pub batch: usize,
    /// How many batches make a step.
    pub accumulate: usize,
    /// Steps in which the learning rate rises to its value.
    pub warmup: usize,
    /// What it does then.
    pub decay: Decay,
    /// AdamW's memories of gradient and of its square.
    pub betas: (f64, f64),
    /// AdamW's guard against division by zero.
    pub epsilon: f64,
    /// How fast trained numbers fall to zero by themselves, as a share of the learning rate.
    pub weight_decay: f64,
    /// The longest gradient; longer ones are cut. 0: any.
    pub clip: f64,
    /// Weighs noise levels by `min(SNR, γ)`, Hang et al., arXiv:2303.09556. 0: all alike.
    pub min_snr: f64,
    /// How much the noise may differ in the mean of a whole channel.
    pub noise_offset: f64,
    /// The share of pictures that are trained without their caption.
    pub caption_dropout: f64,
    /// The weight of class pictures.
    pub prior_weight: f64,
    /// The memory of the running mean that is the result. 0: the result is the last step's.
    pub ema: f64,
    /// Works a block's forward pass out again when its gradient is due, instead of keeping everything: less memory, a third
    /// more time.
    pub checkpointing: bool,
    /// Steps between two measurements of the validation loss. 0: none.
    pub validate_every: usize,
    /// Steps between two sample pictures. 0: none. Has no part in the result.
    #[serde(skip)]
    pub sample_every: usize,
    /// Which random numbers.
    pub seed: u64,
}

impl Settings {
    /// Refuses numbers that would only show their fault in the result.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let wrong = |setting, value, expected| Err(Fault::Setting { setting, value, expected });
        let within = |value: f64, low: f64, high: f64| value.is_finite() && (low..=high).contains(&value);
        for (setting, count) in [("steps", self.steps), ("batch", self.batch), ("accumulate", self.accumulate)] {
            if count == 0 {
                return wrong(setting, 0.0, "choose 1 or more");
            }
        }
        let rate = self.method.rate();
        if !(rate.is_finite() && rate > 0.0) {
            return wrong("learning rate", rate, "choose a number above 0");
        }
        for (setting, value) in [("beta 1", self.betas.0), ("beta 2", self.betas.1), ("ema", self.ema)] {
            if !(within(value, 0.0, 1.0) && value < 1.0) {
                return wrong(setting, value, "choose a share below 1");
            }
        }
        for (setting, value, high) in [
            ("epsilon", self.epsilon, 1.0),
            ("weight decay", self.weight_decay, 1e6),
            ("clip", self.clip, f64::MAX),
            ("min-SNR", self.min_snr, f64::MAX),
            ("noise offset", self.noise_offset, 1e3),
            ("caption dropout", self.caption_dropout, 1.0),
            ("prior weight", self.prior_weight, 1e6),
        ] {
            if !within(value, 0.0, high) {
                return wrong(setting, value, "choose a number from 0 on, and at most 1 for a share");
            }
        }
        match self.method {
            Method::Para { gamma, .. } if !(within(gamma, 0.0, 1.0) && gamma > 0.0) => {
                Err(Fault::InvalidGamma { gamma })
            }
            Method::Para { rank: 0, .. } | Method::Lora { rank: 0, .. } => Err(Fault::InvalidRank),
            Method::Lora { alpha, .. } if !alpha.is_finite() => {
                wrong("alpha", alpha, "choose a number such as the rank")
            }
            _ => Ok(()),
        }
    }

    /// Whether a sample picture is painted after so many steps.
    pub(super) fn samples_at(&self, step: usize) -> bool {
        self.sample_every > 0 && (step == self.steps || step.is_multiple_of(self.sample_every))
    }

    /// The learning rate of a step, counted from 0.
    pub(super) fn rate(&self, step: usize) -> f64 {
        let rate = self.method.rate();
        if step < self.warmup {
            return rate * (step + 1) as f64 / self.warmup as f64;
        }
        let left = (self.steps.saturating_sub(self.warmup)).max(1) as f64;
        match self.decay {
            Decay::Constant => rate,
            Decay::Cosine => rate * 0.5 * (1.0 + (std::f64::consts::PI * (step - self.warmup) as f64 / left).cos()),
        }
    }
}

#[cfg(test)]
pub(super) fn plain(method: Method, layers: Vec<String>) -> Settings {
    Settings {
        method,
        layers,
        steps: 10,
        batch: 2,
        accumulate: 1,
        warmup: 0,
        decay: Decay::Constant,
        betas: (0.9, 0.999),
        epsilon: 1e-8,
        weight_decay: 0.0,
        clip: 0.0,
        min_snr: 0.0,
        noise_offset: 0.0,
        caption_dropout: 0.0,
        prior_weight: 1.0,
        ema: 0.0,
        checkpointing: false,
        validate_every: 0,
        sample_every: 0,
        seed: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_warms_up_and_falls_to_zero() {
        let mut settings = plain(Method::Weights { rate: 2.0 }, Vec::new());
        (settings.steps, settings.warmup, settings.decay) = (14, 4, Decay::Cosine);
        let rates: Vec<f64> = (0..14).map(|step| settings.rate(step)).collect();
        assert_eq!(rates[..5], [0.5, 1.0, 1.5, 2.0, 2.0]);
        assert!((rates[9] - 1.0).abs() < 1e-12, "half way down: {}", rates[9]);
        assert!(rates[13] > 0.0 && rates[13] < 0.06);
        settings.decay = Decay::Constant;
        assert_eq!(settings.rate(13), 2.0);
    }

    #[test]
    fn numbers_that_cannot_work_are_refused_by_name() {
        let good = plain(Method::Lora { rank: 4, alpha: 4.0, rate: 1e-3 }, Vec::new());
        assert!(good.check().is_ok());
        let told = |change: &dyn Fn(&mut Settings)| {
            let mut settings = good.clone();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        assert!(told(&|it| it.steps = 0).starts_with("`steps` is 0"));
        assert!(told(&|it| it.ema = 1.0).starts_with("`ema` is 1"));
        assert!(told(&|it| it.caption_dropout = 1.5).starts_with("`caption dropout` is 1.5"));
        assert!(told(&|it| it.clip = f64::NAN).starts_with("`clip` is NaN"));
        assert!(told(&|it| it.method = Method::Weights { rate: -1.0 }).starts_with("`learning rate` is -1"));
        assert!(told(&|it| it.method = Method::Lora { rank: 0, alpha: 1.0, rate: 1.0 }).contains("rank of 0"));
        let para =
            |gamma| Method::Para { mode: ParaMode::Projection, rank: 4, gamma, init: Init::Random, angular_rate: 0.05 };
        for gamma in [0.0, -1.0, 1.5, f64::NAN] {
            assert!(told(&|it| it.method = para(gamma)).starts_with(&format!("gamma is {gamma}")));
        }
    }
}
