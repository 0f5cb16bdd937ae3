//! How adapters are trained.

use std::str::FromStr;

use half::bf16;

/// How a change of a weight `[out, in]` is made of what is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `α / rank · up · down`. Hu et al. 2021, arXiv:2106.09685.
    Lora,
    /// `α / rank · (a b) ⊙ (c d)`. Hyeon-Woo et al. 2022, arXiv:2108.06098.
    Loha,
    /// `left ⊗ right`, of halves as near to the rank as the weight's sides divide. Yeh et al. 2023, arXiv:2309.14859.
    Lokr,
    /// Blocks of outputs are turned, by Cayley's transform. Qiu et al. 2023, arXiv:2306.07280.
    Oft,
}

impl FromStr for Algorithm {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        Ok(match name {
            "LoRA" => Self::Lora,
            "LoHa" => Self::Loha,
            "LoKr" => Self::Lokr,
            "OFT" => Self::Oft,
            _ => return Err("no such algorithm"),
        })
    }
}

/// How numbers follow their gradients; each with torch's own settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Optimizer {
    /// Betas 0.9 and 0.999, ε 1e-8, weight decay 0.01.
    AdamW,
    /// The same without weight decay.
    Adam,
    /// Along the gradient, without momentum.
    Sgd,
    /// Smoothing 0.99, ε 1e-8.
    RmsProp,
}

impl FromStr for Optimizer {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        Ok(match name {
            "AdamW" => Self::AdamW,
            "Adam" => Self::Adam,
            "SGD" => Self::Sgd,
            "RMSprop" => Self::RmsProp,
            _ => return Err("no such optimiser"),
        })
    }
}

/// How far the network is from the clean latent: the mean over all numbers of a function of each difference `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossFunction {
    /// `d²`.
    Mse,
    /// `|d|`.
    L1,
    /// `d² / 2` up to 1, `|d| − 1/2` from there on: Huber's with δ = 1.
    Huber,
    /// The same; torch's two differ where their parameter is not 1.
    SmoothL1,
}

impl FromStr for LossFunction {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        Ok(match name {
            "MSE" => Self::Mse,
            "L1" => Self::L1,
            "Huber" => Self::Huber,
            "SmoothL1" => Self::SmoothL1,
            _ => return Err("no such loss"),
        })
    }
}

/// The numbers of a training.
#[derive(Debug, Clone, Copy)]
pub struct AdapterSettings {
    /// What is trained at each layer.
    pub algorithm: Algorithm,
    /// How much of it.
    pub rank: usize,
    /// How it is moved.
    pub optimizer: Optimizer,
    /// What it is moved by.
    pub loss: LossFunction,
    /// How far each step goes.
    pub rate: f64,
    /// Pictures a batch.
    pub batch: usize,
    /// Batches a step.
    pub accumulate: usize,
    /// Steps in all.
    pub steps: usize,
    /// Which random numbers.
    pub seed: u64,
    /// Whether what a block computed is computed again for its gradient instead of being kept.
    pub checkpointing: bool,
    /// Whether the network multiplies in bf16, on latents and noise of bf16; else in f32.
    pub half_network: bool,
    /// Whether what is trained is kept in bf16; else in f32.
    pub half_adapters: bool,
}

/// The nearest bf16 number.
pub(super) fn to_bf16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// Leaves a number as it is, or rounds it to bf16.
pub(super) fn rounding(half: bool) -> fn(f32) -> f32 {
    if half { to_bf16 } else { |x| x }
}
