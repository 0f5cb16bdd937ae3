//! The inverse of small matrices, differentiable.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// The inverse of each of `[count, n, n]`, f32, worked out in f64 by Gauss and Jordan with pivots.
///
/// # Errors
/// A matrix that has none.
pub(super) fn inverse(matrices: &Tensor) -> Result<Tensor> {
    matrices.contiguous()?.apply_op1(Inverse)
}

struct Inverse;

impl CustomOp1 for Inverse {
    fn name(&self) -> &'static str {
        "inverse"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else { candle_core::bail!("not contiguous") };
        let (_, _, side) = layout.shape().dims3()?;
        let numbers = &storage.as_slice::<f32>()?[start..end];
        let mut inverses = Vec::with_capacity(numbers.len());
        for matrix in numbers.chunks_exact(side * side) {
            match invert(matrix, side) {
                Some(inverse) => inverses.extend(inverse),
                None => candle_core::bail!("a matrix has no inverse"),
            }
        }
        Ok((CpuStorage::F32(inverses), layout.shape().clone()))
    }

    /// `−Yᵀ G Yᵀ` for `Y = X⁻¹`.
    fn bwd(&self, _x: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let turned = y.transpose(1, 2)?.contiguous()?;
        Ok(Some(turned.matmul(&gradient.contiguous()?)?.matmul(&turned)?.neg()?))
    }
}

fn invert(matrix: &[f32], side: usize) -> Option<Vec<f32>> {
    let mut left: Vec<f64> = matrix.iter().map(|x| f64::from(*x)).collect();
    let mut right: Vec<f64> = (0..side * side).map(|i| f64::from(u8::from(i / side == i % side))).collect();
    for column in 0..side {
        let size = |row: &usize| left[row * side + column].abs();
        let pivot = (column..side).max_by(|a, b| size(a).total_cmp(&size(b)))?;
        let value = left[pivot * side + column];
        if value == 0.0 || !value.is_finite() {
            return None;
        }
        for half in [&mut left, &mut right] {
            for i in 0..side {
                half.swap(column * side + i, pivot * side + i);
                half[column * side + i] /= value;
            }
        }
        for row in (0..side).filter(|row| *row != column) {
            let factor = left[row * side + column];
            for half in [&mut left, &mut right] {
                for i in 0..side {
                    half[row * side + i] -= factor * half[column * side + i];
                }
            }
        }
    }
    Some(right.into_iter().map(|x| x as f32).collect())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn inverses_undo_and_their_gradient_is_that_of_small_steps() {
        let numbers = [0.0_f32, 2.0, 1.0, 1.0, -1.0, 0.5, 3.0, 0.25, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0];
        let x = Var::from_slice(&numbers, (2, 3, 3), &Device::Cpu).unwrap();
        let y = inverse(&x).unwrap();
        let unit = x.matmul(&y).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (i, found) in unit.iter().enumerate() {
            let expected = f32::from(u8::from(i % 9 / 3 == i % 3));
            assert!((found - expected).abs() < 1e-6, "{unit:?}");
        }
        let weights: Vec<f32> = (0..18).map(|i| (i as f32).sin()).collect();
        let weights = Tensor::from_vec(weights, (2, 3, 3), &Device::Cpu).unwrap();
        let loss = |x: &Tensor| (inverse(x).unwrap() * &weights).unwrap().sum_all().unwrap();
        let gradient = loss(x.as_tensor()).backward().unwrap().get(&x).unwrap().flatten_all().unwrap();
        let gradient = gradient.to_vec1::<f32>().unwrap();
        for (i, gradient) in gradient.iter().enumerate() {
            let moved = |by: f32| {
                let mut numbers = numbers;
                numbers[i] += by;
                let x = Tensor::from_slice(&numbers, (2, 3, 3), &Device::Cpu).unwrap();
                loss(&x).to_scalar::<f32>().unwrap()
            };
            let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
            assert!((slope - gradient).abs() < 2e-2 * gradient.abs().max(1.0), "{i}: {slope} {gradient}");
        }
    }

    #[test]
    fn what_has_no_inverse_is_refused() {
        let x = Tensor::zeros((1, 2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(inverse(&x).is_err());
    }
}
