//! What self-attention guidance leads away from: an answer blurred in the places that the network looks at most.

use candle_core::{DType, Tensor};

use crate::Result;

/// Cells of the blur's square, and those on either side of its centre.
const KERNEL: usize = 9;
const REACH: usize = KERNEL / 2;
/// A place is looked at more than this where it is blurred.
const THRESHOLD: f64 = 1.0;

/// `answer` `[batch, channels, height, width]` blurred where its tokens `[batch, tokens]` are looked at. `None` for one too
/// small to blur.
pub(super) fn degrade(answer: &Tensor, looked_at: Option<&Tensor>, blur: f64) -> Result<Option<Tensor>> {
    let (batch, _, rows, columns) = answer.dims4()?;
    let Some(looked_at) = looked_at.filter(|_| rows.min(columns) > REACH) else { return Ok(None) };
    let marked = looked_at.gt(THRESHOLD)?.to_dtype(DType::F32)?;
    let total = marked.dim(1)?;
    let height = token_rows(total, rows, columns);
    let mask = marked.reshape((batch, 1, height, total / height))?;
    let mask = nearest(&mask, rows, columns)?;
    let blurred = blurred(answer, blur)?;
    let rest = answer.broadcast_mul(&mask.affine(-1.0, 1.0)?)?;
    Ok(Some((blurred.broadcast_mul(&mask)? + rest)?))
}

/// In how many rows so many tokens lie, for a picture of this shape: the divisor nearest to its proportion.
fn token_rows(total: usize, rows: usize, columns: usize) -> usize {
    let likely = (rows as f64 / columns as f64 * total as f64).sqrt().round_ties_even() as usize;
    let steps = ((total as f64).sqrt() / 2.0).floor() as usize;
    let near = (0..steps).flat_map(|step| [likely + step, likely.saturating_sub(step).max(1)]);
    near.filter(|side| *side > 0).find(|side| total.is_multiple_of(*side)).unwrap_or(1)
}

/// Each cell the one of the mask that its corner lies in.
fn nearest(mask: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let (_, _, from_rows, from_columns) = mask.dims4()?;
    let places = |to: usize, from: usize| -> Result<Tensor> {
        let scale = from as f32 / to as f32;
        let place = |i: usize| ((i as f32 * scale).floor() as usize).min(from - 1) as u32;
        Ok(Tensor::new((0..to).map(place).collect::<Vec<_>>(), mask.device())?)
    };
    if (from_rows, from_columns) == (rows, columns) {
        return Ok(mask.clone());
    }
    Ok(mask.index_select(&places(rows, from_rows)?, 2)?.index_select(&places(columns, from_columns)?, 3)?)
}

/// A Gaussian blur of nine cells in both directions, mirrored at the edges.
fn blurred(x: &Tensor, deviation: f64) -> Result<Tensor> {
    let weight = |i: usize| {
        let distance = i as f32 - REACH as f32;
        (-0.5 * (distance / deviation as f32).powi(2)).exp()
    };
    let weights: Vec<f32> = (0..KERNEL).map(weight).collect();
    let sum: f32 = weights.iter().sum();
    let along = |x: &Tensor, dim: usize| -> Result<Tensor> {
        let size = x.dim(dim)?;
        let mirrored = |i: usize| {
            let place = (i as isize - REACH as isize).unsigned_abs();
            (if place >= size { 2 * (size - 1) - place } else { place }) as u32
        };
        let places: Vec<u32> = (0..size + 2 * REACH).map(mirrored).collect();
        let wide = x.index_select(&Tensor::new(places, x.device())?, dim)?;
        let mut out = x.zeros_like()?;
        for (i, weight) in weights.iter().enumerate() {
            out = (out + (wide.narrow(dim, i, size)? * f64::from(weight / sum))?)?;
        }
        Ok(out)
    };
    along(&along(x, 2)?, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{relative_error, value};

    #[test]
    fn tokens_lie_in_the_picture_s_proportion() {
        assert_eq!(token_rows(12, 12, 16), 3);
        assert_eq!(token_rows(64, 8, 8), 8);
        assert_eq!(token_rows(15, 10, 6), 5);
    }

    #[test]
    fn a_blur_keeps_what_is_even() {
        let x = value("x", &[1, 2, 6, 7], 1.0);
        let even = (x.zeros_like().unwrap() + 3.0).unwrap();
        assert!(relative_error(&blurred(&even, 2.0).unwrap(), &even) < 1e-6);
        assert!(relative_error(&blurred(&x, 2.0).unwrap(), &x) > 0.1);
    }

    #[test]
    fn what_is_looked_at_is_blurred() {
        let x = value("x", &[1, 1, 8, 8], 1.0);
        let seen = Tensor::new(&[[2.0_f32, 0.5, 0.5, 0.5]], x.device()).unwrap();
        let degraded = degrade(&x, Some(&seen), 2.0).unwrap().unwrap();
        let quarter = |x: &Tensor, y: usize| x.narrow(2, y, 4).unwrap().narrow(3, y, 4).unwrap();
        assert!(relative_error(&quarter(&degraded, 0), &quarter(&x, 0)) > 0.1);
        assert!(relative_error(&quarter(&degraded, 4), &quarter(&x, 4)) == 0.0);
        let small = value("x", &[1, 1, 4, 8], 1.0);
        assert!(degrade(&small, Some(&seen), 2.0).unwrap().is_none());
    }
}
