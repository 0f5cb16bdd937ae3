//! OFT: blocks of a layer's outputs are turned, by orthogonal matrices.
//!
//! Qiu et al. 2023, arXiv:2306.07280, in ComfyUI's form.

use candle_core::{DType, Device, Tensor};

use super::inverse::inverse;
use crate::error::Result;

/// The matrices by which blocks of outputs are turned, `[blocks, size, size]`, of `blocks` of that shape: Cayley's transform
/// `(I + Q) (I − Q)⁻¹` of `Q = B − Bᵀ`, all of which together are made no longer than `constraint`; 0 lets them be.
///
/// # Errors
/// Out of memory.
pub(crate) fn rotations(blocks: &Tensor, constraint: f64) -> Result<Tensor> {
    /// ComfyUI's guard.
    const GUARD: f64 = 1e-8;
    let (_, side, _) = blocks.dims3()?;
    let mut skewed = (blocks - blocks.transpose(1, 2)?)?;
    if constraint > 0.0 {
        let squares = skewed.sqr()?.sum_all()?;
        if f64::from(squares.to_scalar::<f32>()?).sqrt() + GUARD > constraint {
            skewed = (skewed.broadcast_div(&(squares.sqrt()? + GUARD)?)? * constraint)?;
        }
    }
    let unit = Tensor::eye(side, DType::F32, &Device::Cpu)?.unsqueeze(0)?;
    let (more, less) = (unit.broadcast_add(&skewed)?, unit.broadcast_sub(&skewed)?);
    Ok(more.contiguous()?.matmul(&inverse(&less)?)?)
}

/// Outputs `[.., out]` turned block by block: `y'[m] = Σ y[n] r[n, m]` within each.
pub(crate) fn turned(y: &Tensor, rotations: &Tensor) -> Result<Tensor> {
    let (blocks, side, _) = rotations.dims3()?;
    let rows = y.elem_count() / (blocks * side);
    let by_block = y.reshape((rows, blocks, side))?.transpose(0, 1)?.contiguous()?;
    Ok(by_block.matmul(rotations)?.transpose(0, 1)?.contiguous()?.reshape(y.shape())?)
}

/// The same of a weight `[out, in]` or `[out, in, kernel, kernel]`, whose rows are the outputs.
///
/// # Errors
/// The blocks together are not as many as there are rows.
pub(crate) fn turned_weight(weight: &Tensor, rotations: &Tensor) -> Result<Tensor> {
    let by_outputs = weight.flatten_from(1)?.t()?.contiguous()?;
    Ok(turned(&by_outputs, rotations)?.t()?.contiguous()?.reshape(weight.shape())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{relative_error, value};

    #[test]
    fn rotations_keep_lengths_and_zero_keeps_all() {
        let (blocks, y) = (value("blocks", &[3, 4, 4], 0.2), value("y", &[2, 5, 12], 1.0));
        for constraint in [0.0, 0.5, 100.0] {
            let turned = turned(&y, &rotations(&blocks, constraint).unwrap()).unwrap();
            let lengths = |y: &Tensor| y.sqr().unwrap().sum(2).unwrap();
            assert!(relative_error(&lengths(&turned), &lengths(&y)) < 1e-6);
            assert!(relative_error(&turned, &y) > 0.05, "{constraint} turned nothing");
        }
        let zero = rotations(&blocks.zeros_like().unwrap(), 1.0).unwrap();
        assert_eq!(relative_error(&turned(&y, &zero).unwrap(), &y), 0.0);
    }

    #[test]
    fn a_turned_weight_gives_turned_outputs() {
        let (blocks, x, weight) =
            (value("blocks", &[3, 4, 4], 0.2), value("x", &[7, 5], 1.0), value("w", &[12, 5], 1.0));
        let rotations = rotations(&blocks, 1.0).unwrap();
        let product = |weight: &Tensor| x.matmul(&weight.t().unwrap()).unwrap();
        let found = product(&turned_weight(&weight, &rotations).unwrap());
        assert!(relative_error(&found, &turned(&product(&weight), &rotations).unwrap()) < 1e-6);
    }
}
