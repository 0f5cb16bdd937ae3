//! Corrections of guidance: formulas on the answers to positive and negative prompts.

use candle_core::Tensor;

use crate::Result;
use crate::tensors::{add_scaled, divide, mix, scale};

/// Guidance in velocities, brought back to the deviation of the positive answer by `share`.
pub(super) fn rescale(
    [positive, negative]: [&Tensor; 2],
    x: &Tensor,
    sigma: f32,
    cfg: f64,
    share: f64,
) -> Result<Tensor> {
    let power = sigma * sigma + 1.0;
    let scaled = divide(x, power)?;
    let velocity = |clean: &Tensor| divide(&scale(&(&scaled - (x - (x - clean)?)?)?, power.sqrt())?, sigma);
    let (positive, negative) = (velocity(positive)?, velocity(negative)?);
    let guided = add_scaled(&negative, &(&positive - &negative)?, cfg as f32)?;
    let ratio = (deviation(&positive)? / deviation(&guided)?)?;
    let rescaled = guided.broadcast_mul(&ratio)?;
    let blend = mix(&[(share as f32, &rescaled), ((1.0 - share) as f32, &guided)])?;
    Ok((&scaled - divide(&scale(&blend, sigma)?, power.sqrt())?)?)
}

/// The deviation of each latent, of all its numbers, `[batch, 1, 1, 1]`.
fn deviation(x: &Tensor) -> Result<Tensor> {
    let count = x.elem_count() / x.dim(0)?;
    let centred = x.broadcast_sub(&x.mean_keepdim((1, 2, 3))?)?;
    let variance = (centred.sqr()?.sum_keepdim((1, 2, 3))? / (count as f64 - 1.0).max(1.0))?;
    Ok(variance.sqrt()?)
}

/// CFG-Zero*: the negative answer scaled to fit the positive one.
pub(super) fn zero_star(guided: Tensor, [positive, negative]: [&Tensor; 2], x: &Tensor, cfg: f64) -> Result<Tensor> {
    let (p, n) = ((x - positive)?, (x - negative)?);
    let dot = (&p * &n)?.sum_keepdim((1, 2, 3))?;
    let length = (n.sqr()?.sum_keepdim((1, 2, 3))? + 1e-8)?;
    let alpha = (dot / length)?;
    let first = negative.broadcast_mul(&(&alpha - 1.0)?)?;
    let second = scale(&negative.broadcast_mul(&alpha.affine(-1.0, 1.0)?)?, cfg as f32)?;
    Ok(((guided + first)? + second)?)
}

/// The guided answer no longer than the positive one, pixel by pixel.
pub(super) fn norm(guided: Tensor, positive: &Tensor, strength: f64) -> Result<Tensor> {
    let length = |x: &Tensor| -> Result<Tensor> { Ok(x.sqr()?.sum_keepdim(1)?.sqrt()?) };
    let ratio = (length(positive)? / (length(&guided)? + 1e-8)?)?.clamp(0.0_f32, 1.0)?;
    scale(&guided.broadcast_mul(&ratio)?, strength as f32)
}

/// Guidance by what of the negative direction is square to the positive one.
pub(super) fn perpendicular([positive, negative, empty]: [&Tensor; 3], cfg: f64, weight: f64) -> Result<Tensor> {
    let (p, n) = ((positive - empty)?, (negative - empty)?);
    let along = (&n * &p)?.sum_all()?.to_scalar::<f32>()? / p.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?.powi(2);
    let square = add_scaled(&n, &p, -along)?;
    let direction = add_scaled(&p, &square, -(weight as f32))?;
    add_scaled(empty, &direction, cfg as f32)
}

/// Guidance whose scale grows over the batch from `least` to `cfg`; with `triangle`, it is `cfg` in the middle.
pub(super) fn ramp([positive, negative]: [&Tensor; 2], cfg: f64, least: f64, triangle: bool) -> Result<Tensor> {
    let batch = positive.dim(0)?;
    let place = |i: usize| if batch > 1 { i as f32 / (batch - 1) as f32 } else { 0.0 };
    let share = |i: usize| {
        let place = place(i);
        if triangle { 2.0 * (place - (place + 0.5).floor()).abs() } else { place }
    };
    let scales: Vec<f32> = (0..batch).map(|i| share(i) * (cfg - least) as f32 + least as f32).collect();
    let scales = Tensor::from_vec(scales, (batch, 1, 1, 1), positive.device())?;
    Ok((negative + (positive - negative)?.broadcast_mul(&scales)?)?)
}

/// Guidance where `guides`, else the positive answer; no longer than that one times `longest`, latent by latent.
pub(super) fn renormed([positive, negative]: [&Tensor; 2], cfg: f64, guides: bool, longest: f64) -> Result<Tensor> {
    if !guides {
        return Ok(positive.clone());
    }
    let guided = add_scaled(negative, &(positive - negative)?, cfg as f32)?;
    if longest <= 0.0 {
        return Ok(guided);
    }
    let length = |x: &Tensor| -> Result<Tensor> { Ok(x.sqr()?.sum_keepdim((1, 2, 3))?.sqrt()?) };
    let ratio = (scale(&length(positive)?, longest as f32)? / length(&guided)?)?.clamp(0.0_f32, 1.0)?;
    Ok(guided.broadcast_mul(&ratio)?)
}

/// Further along the positive answer, the more so the less the guided answer points as the negative one does.
pub(super) fn direction(guided: &Tensor, [positive, negative]: [&Tensor; 2], cfg: f64) -> Result<Tensor> {
    let root = |x: &Tensor| -> Result<Tensor> { Ok((x.abs()?.sqrt()? * x.sign()?)?) };
    let leap = scale(positive, cfg as f32)?;
    let (away, merged) = (root(&scale(negative, cfg as f32)?)?, root(&((&leap + guided)? / 2.0)?)?);
    let length = |x: &Tensor| -> Result<Tensor> { Ok(x.sqr()?.sum_keepdim(1)?.sqrt()?.clamp(1e-8_f32, f32::MAX)?) };
    let cosine = ((&away * &merged)?.sum_keepdim(1)? / (length(&away)? * length(&merged)?)?)?;
    let share = 2.0 * (cosine.mean_all()?.to_scalar::<f32>()? + 1.0);
    Ok((mix(&[(share, guided), (4.0 - share, &leap)])? / 4.0)?)
}

/// The guided answer weighed against the noisy latent, by the ratio of their powers at this level.
pub(super) fn temporal(guided: Tensor, x: &Tensor, sigma: f32, k: f64, from: f64) -> Result<Tensor> {
    if (k - 1.0).abs() < f64::EPSILON || sigma == 0.0 {
        return Ok(guided);
    }
    let half = -sigma.ln();
    let power = (2.0 * half).exp();
    if power == 0.0 {
        return Ok(guided);
    }
    let variance = (from * from) as f32;
    let ratio = (power * variance + 1.0) / (power * variance / k as f32 + 1.0);
    let ratio = if power.is_infinite() { k as f32 } else { ratio };
    let clean = divide(x, sigma * half.exp())?;
    add_scaled(&clean, &(guided - &clean)?, ratio)
}
