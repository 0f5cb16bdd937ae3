//! What corrections make of the answers before guidance joins them.

use candle_core::{D, Tensor};

use crate::Result;
use crate::tensors::{add_scaled, scale};

/// The guidance of earlier steps, for [`projected`].
#[derive(Default)]
pub(super) struct Momentum {
    sigma: Option<f32>,
    average: Option<Tensor>,
}

/// Settings of [`projected`].
#[derive(Clone, Copy)]
pub(super) struct Projection {
    pub(super) eta: f64,
    pub(super) longest: f64,
    pub(super) momentum: f64,
    pub(super) cfg: f64,
}

/// The positive answer such that guidance from the negative one goes less along it. The length of guidance is bounded, and
/// what it was at earlier steps goes on in it.
pub(super) fn projected(
    [positive, negative]: [&Tensor; 2],
    sigma: f32,
    before: &mut Momentum,
    how: Projection,
) -> Result<Tensor> {
    if before.sigma.is_some_and(|earlier| sigma > earlier) {
        before.average = None;
    }
    before.sigma = Some(sigma);
    let plain = (positive - negative)?;
    let mut guidance = plain.clone();
    if how.momentum != 0.0 {
        if let Some(average) = &before.average {
            guidance = add_scaled(&guidance, average, how.momentum as f32)?;
        }
        before.average = Some(guidance.clone());
    }
    if how.longest > 0.0 {
        let length = guidance.sqr()?.sum_keepdim((1, 2, 3))?.sqrt()?;
        let share = (length.recip()? * how.longest)?.clamp(0.0_f32, 1.0)?;
        guidance = guidance.broadcast_mul(&share)?;
    }
    let length = positive.sqr()?.sum_keepdim((1, 2, 3))?.sqrt()?.clamp(1e-12_f32, f32::MAX)?;
    let direction = positive.broadcast_div(&length)?;
    let along = direction.broadcast_mul(&(&guidance * &direction)?.sum_keepdim((1, 2, 3))?)?;
    let square = (&guidance - &along)?;
    let changed = add_scaled(&square, &along, how.eta as f32)?;
    Ok(((negative + changed)? + (plain / how.cfg)?)?)
}

/// The negative answer less what it has square to the direction in which it and the positive one lie most.
pub(super) fn damped([positive, negative]: [&Tensor; 2], x: &Tensor) -> Result<Tensor> {
    let (p, n) = ((x - positive)?, (x - negative)?);
    let dot = |a: &Tensor, b: &Tensor| -> Result<Vec<f64>> {
        let sums = (a.to_dtype(candle_core::DType::F64)? * b.to_dtype(candle_core::DType::F64)?)?.sum((1, 2, 3))?;
        Ok(sums.to_vec1()?)
    };
    let (nn, np, pp) = (dot(&n, &n)?, dot(&n, &p)?, dot(&p, &p)?);
    let mut parts = Vec::with_capacity(nn.len());
    for (at, ((nn, np), pp)) in nn.into_iter().zip(np).zip(pp).enumerate() {
        // The first right singular vector of the two rows is a·n + b·p, for the greatest eigenvector (a, b) of their products.
        let greatest = f64::midpoint(nn, pp) + (((nn - pp) / 2.0).powi(2) + np * np).sqrt();
        let (a, b) = if np == 0.0 { if nn >= pp { (1.0, 0.0) } else { (0.0, 1.0) } } else { (np, greatest - nn) };
        let power = a * a * nn + 2.0 * a * b * np + b * b * pp;
        let along = if power == 0.0 { 0.0 } else { (a * nn + b * np) / power };
        let (n, p) = (n.narrow(0, at, 1)?, p.narrow(0, at, 1)?);
        parts.push(add_scaled(&scale(&n, (a * along) as f32)?, &p, (b * along) as f32)?);
    }
    Ok((x - Tensor::cat(&parts, 0)?)?)
}

/// The positive answer such that low frequencies of guidance are multiplied by one number and high ones by another. Low are
/// so many frequencies on both sides of 0, in each direction.
pub(super) fn by_frequency([positive, negative]: [&Tensor; 2], [low, high]: [f64; 2], cutoff: usize) -> Result<Tensor> {
    let guidance = (positive - negative)?;
    let (_, _, height, width) = guidance.dims4()?;
    let (rows, columns) = (waves(height, cutoff, &guidance)?, waves(width, cutoff, &guidance)?);
    let both = |rows: &Tensor, columns: &Tensor| -> Result<Tensor> {
        Ok(rows
            .broadcast_matmul(&guidance.contiguous()?)?
            .broadcast_matmul(&columns.transpose(D::Minus1, D::Minus2)?)?)
    };
    // The real part of what both transforms leave of it.
    let kept = (both(&rows[0], &columns[0])? - both(&rows[1], &columns[1])?)?;
    let filtered = add_scaled(&scale(&guidance, high as f32)?, &kept, (low - high) as f32)?;
    Ok((filtered + negative)?)
}

/// Real and imaginary part of the matrix that leaves frequencies `-cutoff` to `cutoff - 1` of `side` numbers.
fn waves(side: usize, cutoff: usize, like: &Tensor) -> Result<[Tensor; 2]> {
    let centre = side / 2;
    let reach = cutoff.min(centre);
    let frequencies: Vec<i64> = (0..2 * reach).map(|i| i as i64 - reach as i64).collect();
    let parts = [f64::cos, f64::sin].map(|part| {
        let cell = |i: usize| {
            let apart = (i / side) as f64 - (i % side) as f64;
            let turn = 2.0 * std::f64::consts::PI * apart / side as f64;
            (frequencies.iter().map(|k| part(*k as f64 * turn)).sum::<f64>() / side as f64) as f32
        };
        (0..side * side).map(cell).collect::<Vec<f32>>()
    });
    let [real, imaginary] = parts.map(|part| Tensor::from_vec(part, (1, 1, side, side), like.device()));
    Ok([real?, imaginary?])
}
