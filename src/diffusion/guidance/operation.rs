//! Operations on latents by the length of their vectors of channels, for guidance or for a latent itself.

use candle_core::{Device, Tensor};

use crate::{Error, Result};

/// A change of a latent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Long vectors become shorter, the longest the most: Reinhard et al. 2002, "Photographic tone reproduction", on lengths.
    /// The number says how long, as a share of the mean and five deviations.
    Tonemap(f64),
    /// Directions differ more from their neighbours'.
    Sharpen {
        /// How many cells away neighbours lie.
        radius: usize,
        /// Deviation of their weights, on a square from -1 to 1.
        sigma: f32,
        /// How much.
        alpha: f32,
    },
}

impl Operation {
    /// Applies it.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]`, as the result.
    ///
    /// # Errors
    /// A radius that reaches beyond the latent.
    pub fn apply(self, latent: &Tensor) -> Result<Tensor> {
        match self {
            Self::Tonemap(multiplier) => tonemap(latent, multiplier),
            Self::Sharpen { radius, sigma, alpha } => sharpen(latent, radius, sigma, alpha),
        }
    }
}

fn lengths(latent: &Tensor, least: f64) -> Result<Tensor> {
    Ok((latent.sqr()?.sum_keepdim(1)?.sqrt()? + least)?)
}

fn tonemap(latent: &Tensor, multiplier: f64) -> Result<Tensor> {
    let lengths = lengths(latent, 1e-10)?;
    let directions = latent.broadcast_div(&lengths)?;
    let mean = lengths.mean_keepdim((1, 2, 3))?;
    let cells = lengths.elem_count() / lengths.dim(0)?;
    let spread = lengths.broadcast_sub(&mean)?.sqr()?.sum_keepdim((1, 2, 3))?;
    let deviation = (spread / (cells as f64 - 1.0).max(1.0))?.sqrt()?;
    let top = (((deviation * 5.0)? + mean)? * multiplier)?;
    let share = lengths.broadcast_div(&top)?;
    let shorter = (&share / (&share + 1.0)?)?.broadcast_mul(&top)?;
    Ok(directions.broadcast_mul(&shorter)?)
}

fn sharpen(latent: &Tensor, radius: usize, sigma: f32, alpha: f32) -> Result<Tensor> {
    let (batch, channels, height, width) = latent.dims4()?;
    if radius >= height.min(width) {
        return Err(Error::Shape {
            layer: "sharpening a latent".to_owned(),
            expected: format!("sides longer than its radius, {radius} cells"),
            found: latent.dims().to_vec(),
        });
    }
    let lengths = lengths(latent, 1e-6)?;
    let directions: Vec<f32> = latent.broadcast_div(&lengths)?.flatten_all()?.to_vec1()?;
    let kernel = kernel(radius, sigma, alpha);
    let (size, plane) = (2 * radius + 1, height * width);
    let mirror = |at: usize, by: usize, side: usize| {
        let place = (at + by).abs_diff(radius);
        if place >= side { 2 * (side - 1) - place } else { place }
    };
    let mut sharp = vec![0.0_f32; directions.len()];
    for (from, to) in directions.chunks_exact(plane).zip(sharp.chunks_exact_mut(plane)) {
        for (cell, sum) in to.iter_mut().enumerate() {
            let (y, x) = (cell / width, cell % width);
            for (by, weights) in kernel.chunks_exact(size).enumerate() {
                let row = &from[mirror(y, by, height) * width..][..width];
                *sum += weights.iter().enumerate().map(|(across, w)| w * row[mirror(x, across, width)]).sum::<f32>();
            }
        }
    }
    let sharp = Tensor::from_vec(sharp, (batch, channels, height, width), &Device::Cpu)?.to_device(latent.device())?;
    Ok(sharp.broadcast_mul(&lengths)?)
}

/// Weights of a round blur, turned against itself so that they sum to 1.
fn kernel(radius: usize, sigma: f32, alpha: f32) -> Vec<f32> {
    let size = 2 * radius + 1;
    let place = |i: usize| 2.0 * i as f32 / (size - 1) as f32 - 1.0;
    let weight = |i: usize| {
        let (x, y) = (place(i / size), place(i % size));
        (-(x * x + y * y) / (2.0 * sigma * sigma)).exp()
    };
    let mut weights: Vec<f32> = (0..size * size).map(weight).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight = *weight / sum * (alpha * -10.0));
    let sum: f32 = weights.iter().sum();
    weights[size * size / 2] += 1.0 - sum;
    weights
}
