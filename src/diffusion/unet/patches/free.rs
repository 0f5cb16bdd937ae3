//! FreeU: the way up listens more to what comes from below and less to the low frequencies of what was kept.
//!
//! Si et al. 2023, arXiv:2309.11497, equations 2 to 4.

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::unet::{Pass, Patch};

/// Which of the two published ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Half of the channels from below times a number.
    First,
    /// The same, more where the picture has more to say.
    Second,
}

/// For the blocks on the way up of two widths: a factor for half of the channels from below, and one for the lowest
/// frequencies of what was kept.
#[derive(Clone, Copy, Debug)]
pub struct Free {
    /// Which way.
    pub version: Version,
    /// Width, factor of the channels, factor of the frequencies.
    pub stages: [(usize, f64, f64); 2],
}

impl Patch for Free {
    fn joining(&self, h: Tensor, skip: Tensor, _: &Pass<'_>) -> Result<(Tensor, Tensor)> {
        let (batch, height, width, channels) = h.dims4()?;
        let Some(&(_, backbone, low)) = self.stages.iter().find(|(width, ..)| *width == channels) else {
            return Ok((h, skip));
        };
        let half = channels / 2;
        let first = h.narrow(3, 0, half)?;
        let first = match self.version {
            Version::First => first.affine(backbone, 0.0)?,
            Version::Second => {
                let mean = h.mean_keepdim(3)?.reshape((batch, height * width))?;
                let (most, least) = (mean.max_keepdim(1)?, mean.min_keepdim(1)?);
                let share = mean.broadcast_sub(&least)?.broadcast_div(&(most - &least)?)?;
                let factor = share.affine(backbone - 1.0, 1.0)?.reshape((batch, height, width, 1))?;
                first.broadcast_mul(&factor)?
            }
        };
        let h = Tensor::cat(&[&first.contiguous()?, &h.narrow(3, half, channels - half)?.contiguous()?], 3)?;
        Ok((h, scale_low_frequencies(&skip, low)?))
    }
}

/// Frequencies -1 and 0 in both directions times a factor; the real part of what comes out.
///
/// Only four of the numbers of a Fourier transform change, so only these are made: each is a sum over the picture.
fn scale_low_frequencies(x: &Tensor, factor: f64) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let values: Vec<f32> = x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let (rows, columns) = (waves(height), waves(width));
    let mut out = values.clone();
    let cells = height * width;
    for (picture, changed) in values.chunks_exact(cells * channels).zip(out.chunks_exact_mut(cells * channels)) {
        for row in &rows {
            for column in &columns {
                // e^(iθ) at a cell, θ the phase of this frequency there.
                let wave = |cell: usize| {
                    let ((a, b), (c, d)) = (row[cell / width], column[cell % width]);
                    (a * c - b * d, a * d + b * c)
                };
                let mut sums = vec![(0.0_f64, 0.0_f64); channels];
                for (cell, pixel) in picture.chunks_exact(channels).enumerate() {
                    let (cos, sin) = wave(cell);
                    for (sum, value) in sums.iter_mut().zip(pixel) {
                        sum.0 += f64::from(*value) * cos;
                        sum.1 -= f64::from(*value) * sin;
                    }
                }
                let share = (factor - 1.0) / cells as f64;
                for (cell, pixel) in changed.chunks_exact_mut(channels).enumerate() {
                    let (cos, sin) = wave(cell);
                    for (sum, value) in sums.iter().zip(pixel) {
                        *value += (share * (sum.0 * cos - sum.1 * sin)) as f32;
                    }
                }
            }
        }
    }
    debug_assert_eq!(out.len(), batch * cells * channels);
    Ok(Tensor::from_vec(out, (batch, height, width, channels), x.device())?.to_dtype(x.dtype())?)
}

/// Cosine and sine of the frequencies -1 and 0 along a side; a side of one cell has 0 alone.
fn waves(side: usize) -> Vec<Vec<(f64, f64)>> {
    let wave = |frequency: f64| {
        let angle = move |i: usize| std::f64::consts::TAU * frequency * i as f64 / side as f64;
        (0..side).map(|i| (angle(i).cos(), angle(i).sin())).collect()
    };
    if side == 1 { vec![wave(0.0)] } else { vec![wave(-1.0), wave(0.0)] }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::testing::{relative_error, value};

    /// A picture that has no other frequencies but the constant one is scaled as a whole.
    #[test]
    fn a_grey_picture_is_scaled() {
        let grey = Tensor::full(2.0_f32, (1, 6, 8, 3), &Device::Cpu).unwrap();
        let scaled = scale_low_frequencies(&grey, 0.25).unwrap();
        assert!(relative_error(&scaled, &(grey * 0.25).unwrap()) < 1e-6);
    }

    #[test]
    fn a_factor_of_one_changes_nothing() {
        let x = value("picture", &[2, 5, 3, 4], 1.0);
        assert!(relative_error(&scale_low_frequencies(&x, 1.0).unwrap(), &x) < 1e-7);
    }
}
