//! The few products and decompositions that adapters need, in f64 on the CPU.

use candle_core::{DType, Device, Tensor};

use super::fault::Fault;
use super::para::flat_f64;
use crate::eigen;
use crate::error::Result;

/// A weight as the matrix that it is, `[out, in · kernel · kernel]`, f64.
pub(super) fn matrix(weight: &Tensor) -> Result<Tensor> {
    Ok(weight.flatten_from(1)?.to_dtype(DType::F64)?.to_device(&Device::Cpu)?)
}

/// `aᵀ b`.
pub(super) fn transposed_product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(a.t()?.contiguous()?.matmul(&b.contiguous()?)?)
}

/// `‖a‖²`.
pub(super) fn energy(a: &Tensor) -> Result<f64> {
    Ok(a.sqr()?.sum_all()?.to_scalar::<f64>()?)
}

/// Left singular vectors of `a` `[n, m]` as columns `[n, n]`, and its singular values, falling.
///
/// From the eigenvectors of `a aᵀ`: what is below 1e-8 of the greatest value is not told apart from zero.
pub(super) fn left_singular(a: &Tensor) -> Result<(Tensor, Vec<f64>)> {
    let n = a.dim(0)?;
    let gram = a.matmul(&a.t()?.contiguous()?)?;
    let (values, vectors) = eigen::symmetric(flat_f64(&gram)?, n);
    // Rising eigenvalues, vectors by rows; wanted are falling ones by columns.
    let rows: Vec<f64> = vectors.chunks_exact(n).rev().flatten().copied().collect();
    let columns = Tensor::from_vec(rows, (n, n), &Device::Cpu)?.t()?.contiguous()?;
    Ok((columns, values.iter().rev().map(|value| value.max(0.0).sqrt()).collect()))
}

/// The first `count` columns.
pub(super) fn columns(a: &Tensor, count: usize) -> Result<Tensor> {
    Ok(a.narrow(1, 0, count)?.contiguous()?)
}

/// # Errors
/// [`Fault::NonFinite`] with the first number that is none.
pub(super) fn require_finite(name: &str, tensor: &Tensor) -> Result<()> {
    let numbers = flat_f64(tensor)?;
    match numbers.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Fault::NonFinite { tensor: name.to_owned(), index }.into()),
    }
}

/// Below this sine of its angle to those before it, a direction adds none: it is their rounding.
pub(super) const PARALLEL: f64 = 1e-3;

/// Orthonormal columns that span all of several sets of orthonormal columns, those left out that lie in the span of earlier
/// ones. `None` for no columns.
pub(super) fn union<'a>(sets: impl Iterator<Item = &'a Tensor>) -> Result<Option<Tensor>> {
    let mut all: Option<Tensor> = None;
    for set in sets {
        let set = set.to_dtype(DType::F64)?.to_device(&Device::Cpu)?;
        let Some(before) = &all else {
            all = Some(set);
            continue;
        };
        // What the earlier ones do not span; its singular values are the sines of the angles to them.
        let mut rest = set.clone();
        for _ in 0..2 {
            rest = (&rest - before.matmul(&transposed_product(before, &rest)?)?)?;
        }
        let (turn, sines) = left_singular(&rest.t()?.contiguous()?)?;
        let kept = sines.iter().take_while(|sine| **sine >= PARALLEL).count();
        if kept == 0 {
            continue;
        }
        let lengths = Tensor::from_slice(&sines[..kept], (1, kept), &Device::Cpu)?;
        let fresh = rest.matmul(&columns(&turn, kept)?)?.broadcast_div(&lengths)?;
        all = Some(Tensor::cat(&[before, &fresh], 1)?);
    }
    Ok(all)
}

/// How many directions several sets of orthonormal columns span together.
pub(super) fn joint_rank<'a>(sets: impl Iterator<Item = &'a Tensor>) -> Result<usize> {
    Ok(match union(sets)? {
        None => 0,
        Some(columns) => columns.dim(1)?,
    })
}
