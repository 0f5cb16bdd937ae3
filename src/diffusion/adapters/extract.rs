//! What a network differs by as a LoRA: every weight of a difference as a product of two thin ones.
//!
//! The best product of a rank is made of the first singular vectors (Eckart and Young 1936). As ComfyUI does, both factors
//! are cut at the 99th of a hundred parts of their numbers, and written in half precision.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::dense::{columns, energy, left_singular, transposed_product};
use super::place::on_layers;
use super::qr::qr_repaired;
use super::write::Store;
use crate::error::Result;
use crate::merge::Network;
use crate::noise::Generator;

/// Up to this many rows or columns, all singular vectors are found; of larger matrices only those wanted, by iteration.
const WHOLE: usize = 512;
/// How many directions more than wanted the iteration follows.
const SPARE: usize = 8;
/// When the iteration is done: half precision, in which factors are written, keeps three digits.
const EXACT: f64 = 1e-7;
/// So many directions are followed at most; where they do not do, all singular vectors are found.
const ROOM: usize = 640;
/// The share of numbers that are not cut.
const UNCUT: f64 = 0.99;

/// How a difference is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extraction {
    /// Rank of the factors; `None` writes whole differences.
    pub rank: Option<usize>,
    /// Whether differences of biases and norms are written.
    pub biases: bool,
}

/// Tensors to be written, in the order of their names.
pub type Extracted = Vec<(String, Tensor, Store)>;

/// The tensors of a file that adds a network, which is the difference of two, to one like them. Names begin with `prefix`.
/// Weights that are all zeros are left out: they change nothing.
///
/// # Errors
/// What reading the network says.
pub fn extract<N: Network>(difference: &N, prefix: &str, how: Extraction) -> Result<Extracted> {
    let tensors = difference.tensors();
    let changed: BTreeMap<String, _> = on_layers(difference)
        .into_iter()
        .filter(|weight| weight.is_changed())
        .map(|weight| (N::key(weight.layer()), weight))
        .collect();
    let mut made = Extracted::new();
    for name in tensors.names() {
        let Some((layer, kind)) = name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias")) else {
            continue;
        };
        let shape = tensors.shape(name).unwrap_or_default().to_vec();
        let whole = |tensor: Tensor, end: &str| (format!("{prefix}{layer}{end}"), tensor, Store::F16);
        if kind == "bias" {
            if how.biases {
                made.push(whole(tensors.tensor(name, &shape)?, ".diff_b"));
            }
            continue;
        }
        if shape.len() < 2 && how.rank.is_some() && !how.biases {
            continue;
        }
        let tensor = match changed.get(name) {
            Some(weight) => weight.effective()?.reshape(shape.as_slice())?,
            None => tensors.tensor(name, &shape)?,
        };
        let Some(rank) = how.rank.filter(|_| shape.len() >= 2) else {
            made.push(whole(tensor, ".diff"));
            continue;
        };
        if let Some((up, down)) = factors(&tensor, rank)? {
            made.push(whole(down, ".lora_down.weight"));
            made.push(whole(up, ".lora_up.weight"));
        }
    }
    Ok(made)
}

/// The factors of a weight, `[out, rank]` and `[rank, in]`, or `[out, rank, 1, 1]` and `[rank, in, kernel, kernel]`; `None` for
/// zeros.
fn factors(weight: &Tensor, rank: usize) -> Result<Option<(Tensor, Tensor)>> {
    let shape = weight.dims();
    let rank = rank.min(shape[0]).min(shape[1]);
    let matrix = weight.flatten_from(1)?.to_dtype(DType::F64)?.to_device(&Device::Cpu)?;
    if energy(&matrix)? == 0.0 {
        return Ok(None);
    }
    let vectors = singular(&matrix, rank)?;
    // Of A = U S V', with the columns of U: S V' = U' A.
    let scaled = transposed_product(&vectors, &matrix)?;
    let lengths = (scaled.sqr()?.sum_keepdim(1)?.sqrt()? + f64::MIN_POSITIVE)?;
    let down = scaled.broadcast_div(&lengths)?;
    let up = vectors.broadcast_mul(&lengths.t()?.contiguous()?)?;
    let limit = quantile(&[&up, &down], UNCUT)?;
    let (up, down) = (up.clamp(-limit, limit)?.to_dtype(DType::F32)?, down.clamp(-limit, limit)?.to_dtype(DType::F32)?);
    Ok(Some(match shape {
        [out, _, height, width] => (up.reshape((*out, rank, 1, 1))?, down.reshape((rank, shape[1], *height, *width))?),
        _ => (up, down),
    }))
}

/// The first left singular vectors of a matrix, as columns.
fn singular(matrix: &Tensor, rank: usize) -> Result<Tensor> {
    let (rows, across) = matrix.dims2()?;
    if rows <= WHOLE {
        return columns(&left_singular(matrix)?.0, rank);
    }
    if across <= WHOLE {
        let (right, values) = left_singular(&matrix.t()?.contiguous()?)?;
        let kept = values.iter().take(rank).take_while(|value| **value > values[0] * 1e-8).count().max(1);
        let vectors = orthonormal(&matrix.matmul(&columns(&right, kept)?)?)?;
        return padded(&vectors, rank);
    }
    by_iteration(matrix, rank)
}

/// The same for large matrices: in a space that grows by what `A A'` makes of its newest directions, until the vectors wanted are
/// those of the whole.
///
/// Golub, Luk and Overton 1981, "A block Lanczos method for computing the singular values and corresponding singular vectors of a
/// matrix", with every direction made square to all before it.
fn by_iteration(matrix: &Tensor, rank: usize) -> Result<Tensor> {
    let (rows, across) = matrix.dims2()?;
    let most = rows.min(across);
    // A random start, the same for the same shape.
    let start = Generator::new(0).normal((across, (rank + SPARE).min(most)), &Device::Cpu)?.to_dtype(DType::F64)?;
    let mut basis = orthonormal(&matrix.matmul(&start)?)?;
    let mut seen = transposed_product(&basis, matrix)?;
    let mut all_seen = seen.clone();
    let mut looked_at = 0;
    loop {
        let found = basis.dim(1)?;
        let fresh = if found < most { fresh(&matrix.matmul(&seen.t()?.contiguous()?)?, &basis)? } else { None };
        // Looking costs more than growing.
        if fresh.is_none() || found >= looked_at + looked_at / 3 {
            looked_at = found;
            let (turn, values) = left_singular(&all_seen)?;
            let vectors = basis.matmul(&columns(&turn, rank.min(found))?)?;
            if fresh.is_none() || strays(matrix, &vectors, &values)? <= EXACT {
                return padded(&vectors, rank);
            }
        }
        let Some(fresh) = fresh.filter(|_| found < ROOM) else {
            let (vectors, _) = left_singular(matrix)?;
            return columns(&vectors, rank);
        };
        seen = transposed_product(&fresh, matrix)?;
        basis = Tensor::cat(&[&basis, &fresh], 1)?;
        all_seen = Tensor::cat(&[&all_seen, &seen], 0)?;
    }
}

/// Orthonormal columns of what of some directions lies square to a basis; `None` where nothing but rounding does.
fn fresh(directions: &Tensor, basis: &Tensor) -> Result<Option<Tensor>> {
    const ROUNDING: f64 = 1e-20;
    let square = |x: &Tensor| -> Result<Tensor> { Ok((x - basis.matmul(&transposed_product(basis, x)?)?)?) };
    let whole = energy(directions)?;
    let rest = square(&square(directions)?)?;
    let lengths: Vec<f64> = rest.sqr()?.sum(0)?.to_vec1()?;
    let kept: Vec<u32> =
        (0_u32..).zip(lengths).filter(|(_, length)| *length > ROUNDING * whole).map(|(i, _)| i).collect();
    if kept.is_empty() {
        return Ok(None);
    }
    let rest = orthonormal(&rest.index_select(&Tensor::new(kept, &Device::Cpu)?, 1)?)?;
    // What was small before it was made of length one may lean towards the basis again.
    orthonormal(&square(&rest)?).map(Some)
}

/// How far `A A'` leads the vectors off their directions at most, in parts of the square of the greatest singular value.
fn strays(matrix: &Tensor, vectors: &Tensor, values: &[f64]) -> Result<f64> {
    let squares: Vec<f64> = values.iter().take(vectors.dim(1)?).map(|value| value * value).collect();
    let led = matrix.matmul(&transposed_product(vectors, matrix)?.t()?.contiguous()?)?;
    let kept = vectors.broadcast_mul(&Tensor::new(squares.as_slice(), &Device::Cpu)?.unsqueeze(0)?)?;
    let off: Vec<f64> = (led - kept)?.sqr()?.sum(0)?.to_vec1()?;
    let worst = off.into_iter().fold(0.0, f64::max).sqrt();
    Ok(worst / squares.first().copied().unwrap_or(0.0).max(f64::MIN_POSITIVE))
}

/// Orthonormal columns of the same span.
fn orthonormal(matrix: &Tensor) -> Result<Tensor> {
    let (rows, across) = matrix.dims2()?;
    let (factors, _) = qr_repaired("a difference", &matrix.flatten_all()?.to_vec1::<f64>()?, rows, across)?;
    Ok(Tensor::from_vec(factors.q, (rows, factors.columns), &Device::Cpu)?)
}

/// As many columns as a rank asks for, the rest of them zeros.
fn padded(vectors: &Tensor, rank: usize) -> Result<Tensor> {
    let missing = rank.saturating_sub(vectors.dim(1)?);
    if missing == 0 { Ok(vectors.clone()) } else { Ok(vectors.pad_with_zeros(1, 0, missing)?) }
}

/// The number below which a share of all numbers lies, between two of them in proportion.
fn quantile(tensors: &[&Tensor], share: f64) -> Result<f64> {
    let mut numbers = Vec::new();
    for tensor in tensors {
        numbers.extend(tensor.flatten_all()?.to_vec1::<f64>()?);
    }
    let place = share * (numbers.len() - 1) as f64;
    let low = place.floor() as usize;
    let (_, below, above) = numbers.select_nth_unstable_by(low, f64::total_cmp);
    let below = *below;
    let above = above.iter().copied().min_by(f64::total_cmp).unwrap_or(below);
    Ok((below + (above - below) * (place - low as f64)).abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{relative_error, value};

    fn low_rank(rows: usize, across: usize, rank: usize) -> Tensor {
        let (a, b) = (value("a", &[rows, rank], 1.0), value("b", &[rank, across], 1.0));
        a.matmul(&b).unwrap()
    }

    #[test]
    fn factors_of_a_thin_matrix_give_it_back_but_for_what_is_cut() {
        for (rows, across) in [(30, 20), (20, 30), (600, 40), (40, 600), (560, 620)] {
            let weight = low_rank(rows, across, 4);
            let (up, down) = factors(&weight, 4).unwrap().unwrap();
            assert_eq!((up.dims(), down.dims()), (&[rows, 4][..], &[4, across][..]));
            let error = relative_error(&up.matmul(&down).unwrap(), &weight);
            // The largest hundredth of the factors' numbers is cut, as ComfyUI does; the span below is what has to be exact.
            assert!(error < 0.5, "{rows} x {across}: {error}");
            let exact = singular(&weight.to_dtype(DType::F64).unwrap(), 4).unwrap();
            let weight = weight.to_dtype(DType::F64).unwrap();
            let spanned = exact.matmul(&transposed_product(&exact, &weight).unwrap()).unwrap();
            let left = energy(&(&spanned - &weight).unwrap()).unwrap() / energy(&weight).unwrap();
            assert!(left < 1e-12, "{rows} x {across}: {left}");
        }
        assert!(factors(&low_rank(5, 6, 2).affine(0.0, 0.0).unwrap(), 2).unwrap().is_none());
    }

    #[test]
    fn iteration_finds_the_same_vectors_as_the_whole() {
        // Values that fall slowly, as those of a real difference do.
        let weight = (low_rank(540, 560, 3) + value("noise", &[540, 560], 0.5).affine(1.0, 0.0).unwrap()).unwrap();
        let weight = weight.to_dtype(DType::F64).unwrap();
        let captured = |vectors: &Tensor| energy(&transposed_product(vectors, &weight).unwrap()).unwrap();
        let whole = columns(&left_singular(&weight).unwrap().0, 8).unwrap();
        let found = singular(&weight, 8).unwrap();
        assert!((captured(&found) / captured(&whole) - 1.0).abs() < 1e-9);
        // Each of them, but for its sign.
        for column in 0..8 {
            let dot = (found.narrow(1, column, 1).unwrap() * whole.narrow(1, column, 1).unwrap()).unwrap();
            let cosine = dot.sum_all().unwrap().to_scalar::<f64>().unwrap().abs();
            assert!(1.0 - cosine < 1e-8, "vector {column}: {cosine}");
        }
    }

    #[test]
    fn a_quantile_lies_between_numbers() {
        let numbers = Tensor::new(&[4.0_f64, 1.0, 3.0, 2.0], &Device::Cpu).unwrap();
        assert!((quantile(&[&numbers], 0.99).unwrap() - 3.97).abs() < 1e-12);
        assert!((quantile(&[&numbers, &numbers], 0.5).unwrap() - 2.5).abs() < 1e-12);
    }
}
