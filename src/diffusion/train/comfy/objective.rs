//! What a batch is trained on: how near the network comes to the clean latents, and its gradient.

use candle_core::{Device, Tensor};

use super::settings::LossFunction;
use crate::error::Result;
use crate::schedule::{ModelSampling, Prediction};
use crate::train::backward::{Inputs, Objective};

/// Some latents at their noise levels.
pub(super) struct Noised {
    /// `[batch, channels, height, width]`, f32.
    pub(super) clean: Tensor,
    /// Of the same shape.
    pub(super) noise: Tensor,
    /// A level for each.
    pub(super) sigmas: Vec<f32>,
}

/// A prompt as the network reads it, and how much it counts.
pub(super) struct Share<'a> {
    /// `[1, tokens, width]`.
    pub(super) context: &'a Tensor,
    /// `[1, width]`.
    pub(super) label: Option<&'a Tensor>,
    pub(super) share: f64,
}

/// A batch that passes the network once for each prompt; what counts is the mean of what it says with all of them.
pub(super) struct Batch {
    /// The network's input, prompt by prompt, `[prompts · batch, channels, height, width]`.
    x: Tensor,
    timesteps: Tensor,
    context: Tensor,
    label: Option<Tensor>,
    clean: Tensor,
    noisy: Tensor,
    /// `[batch, 1, 1, 1]`: what the network's word counts in the clean latent, and what the noisy latent does.
    of_said: Tensor,
    of_noisy: Tensor,
    /// Of each prompt.
    shares: Vec<f64>,
    loss: LossFunction,
}

impl Batch {
    /// # Errors
    /// Prompts that do not go together.
    pub(super) fn new(
        sampling: &ModelSampling,
        noised: &Noised,
        prompts: &[Share<'_>],
        loss: LossFunction,
    ) -> Result<Self> {
        let Noised { clean, noise, sigmas } = noised;
        let count = sigmas.len();
        let column = |of: &dyn Fn(f32) -> f32| -> Result<Tensor> {
            let numbers: Vec<f32> = sigmas.iter().map(|sigma| of(*sigma)).collect();
            Ok(Tensor::from_vec(numbers, (count, 1, 1, 1), &Device::Cpu)?)
        };
        let noisy = (noise.broadcast_mul(&column(&|sigma| sigma)?)? + clean)?;
        let x = noisy.broadcast_div(&column(&|sigma| (sigma * sigma + 1.0).sqrt())?)?;
        let velocity = sampling.prediction() == Prediction::Velocity;
        let of_said = column(&|sigma| if velocity { -sigma / (sigma * sigma + 1.0).sqrt() } else { -sigma })?;
        let of_noisy = column(&|sigma| if velocity { 1.0 / (sigma * sigma + 1.0) } else { 1.0 })?;
        let timesteps: Vec<f32> = sigmas.iter().map(|sigma| sampling.timestep(*sigma)).collect();
        let timesteps = Tensor::from_vec(timesteps, count, &Device::Cpu)?;
        let tokens = prompts.iter().map(|prompt| prompt.context.dim(1)).collect::<candle_core::Result<Vec<_>>>()?;
        // Words said several times over weigh the same: so prompts of several lengths pass together.
        let common = tokens.iter().copied().fold(1, common_multiple);
        let mut contexts = Vec::with_capacity(prompts.len());
        let mut labels = Vec::new();
        for (prompt, tokens) in prompts.iter().zip(&tokens) {
            contexts.push(prompt.context.repeat((count, common / (*tokens).max(1), 1))?);
            labels.extend(prompt.label.map(|label| label.repeat((count, 1))).transpose()?);
        }
        let shares = prompts.iter().map(|prompt| prompt.share).collect();
        Ok(Self {
            x: x.repeat((prompts.len(), 1, 1, 1))?,
            timesteps: timesteps.repeat(prompts.len())?,
            context: Tensor::cat(&contexts, 0)?.contiguous()?,
            label: if labels.is_empty() { None } else { Some(Tensor::cat(&labels, 0)?) },
            clean: clean.clone(),
            noisy,
            of_said,
            of_noisy,
            shares,
            loss,
        })
    }
}

impl Objective for Batch {
    fn inputs(&self) -> Inputs<'_> {
        Inputs { x: &self.x, timesteps: &self.timesteps, context: &self.context, label: self.label.as_ref() }
    }

    fn loss(&self, said: &Tensor) -> Result<Tensor> {
        let count = self.clean.dim(0)?;
        let mut mean: Option<Tensor> = None;
        for (index, share) in self.shares.iter().enumerate() {
            let part = (said.narrow(0, index * count, count)? * *share)?;
            mean = Some(match mean {
                Some(mean) => (mean + part)?,
                None => part,
            });
        }
        let mean = mean.unwrap_or_else(|| said.clone());
        let predicted = (self.noisy.broadcast_mul(&self.of_noisy)? + mean.broadcast_mul(&self.of_said)?)?;
        distance(&(predicted - &self.clean)?, self.loss)
    }
}

/// The mean of a function of each difference.
fn distance(difference: &Tensor, loss: LossFunction) -> Result<Tensor> {
    let each = match loss {
        LossFunction::Mse => difference.sqr()?,
        LossFunction::L1 => difference.abs()?,
        LossFunction::Huber | LossFunction::SmoothL1 => {
            let length = difference.abs()?;
            let near = length.detach().lt(1.0)?.to_dtype(candle_core::DType::F32)?;
            let (square, line) = ((difference.sqr()? * 0.5)?, (length - 0.5)?);
            ((&near * square)? + (near.affine(-1.0, 1.0)? * line)?)?
        }
    };
    Ok(each.mean_all()?)
}

fn common_multiple(a: usize, b: usize) -> usize {
    fn divisor(a: usize, b: usize) -> usize {
        if b == 0 { a } else { divisor(b, a % b) }
    }
    a / divisor(a, b).max(1) * b
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: `d²`, `|d|`, and Huber's, which is `d² / 2` to 1 and a line from there on.
    #[test]
    fn distances_are_those_of_their_names() {
        let difference = Tensor::new(&[0.5_f32, -2.0, 0.0, 3.0], &Device::Cpu).unwrap();
        for (loss, expected) in [
            (LossFunction::Mse, (0.25 + 4.0 + 9.0) / 4.0),
            (LossFunction::L1, 5.5 / 4.0),
            (LossFunction::Huber, (0.125 + 1.5 + 2.5) / 4.0),
            (LossFunction::SmoothL1, (0.125 + 1.5 + 2.5) / 4.0),
        ] {
            assert_eq!(distance(&difference, loss).unwrap().to_scalar::<f32>().unwrap(), expected, "{loss:?}");
        }
        assert_eq!([common_multiple(77, 154), common_multiple(6, 4), common_multiple(1, 9)], [154, 12, 9]);
    }
}
