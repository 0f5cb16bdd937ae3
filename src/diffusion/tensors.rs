//! The few element-wise operations of sampling, rounded as torch rounds them.

use candle_core::Tensor;

use crate::Result;

/// `x + factor·y`, the product rounded before the sum.
pub(crate) fn add_scaled(x: &Tensor, y: &Tensor, factor: f32) -> Result<Tensor> {
    Ok((x + y.affine(f64::from(factor), 0.0)?)?)
}

/// `factor·x`.
pub(crate) fn scale(x: &Tensor, factor: f32) -> Result<Tensor> {
    Ok(x.affine(f64::from(factor), 0.0)?)
}

/// The sum of tensors, each times its factor.
///
/// # Panics
/// When there is none.
pub(crate) fn mix(terms: &[(f32, &Tensor)]) -> Result<Tensor> {
    let ((factor, first), rest) = terms.split_first().expect("something is mixed");
    rest.iter().try_fold(scale(first, *factor)?, |sum, (factor, x)| add_scaled(&sum, x, *factor))
}

/// `x / divisor`, a division of every element: a multiplication by the inverse would round differently.
pub(crate) fn divide(x: &Tensor, divisor: f32) -> Result<Tensor> {
    let divisor = Tensor::full(divisor, vec![1; x.rank()], x.device())?;
    Ok(x.broadcast_div(&divisor)?)
}

/// As many entries as a batch has: repeated from the start, or cut.
pub(crate) fn repeat_to_batch(x: &Tensor, batch: usize) -> Result<Tensor> {
    let entries = x.dim(0)?;
    if entries >= batch || entries == 0 {
        return Ok(x.narrow(0, 0, batch.min(entries))?);
    }
    let copies = vec![x; batch.div_ceil(entries)];
    Ok(Tensor::cat(&copies, 0)?.narrow(0, 0, batch)?)
}

/// Whether every element is a number: no NaN, nothing infinite.
pub(crate) fn is_finite(x: &Tensor) -> Result<bool> {
    // Zero times anything else is NaN.
    Ok(x.affine(0.0, 0.0)?.sum_all()?.to_scalar::<f32>()? == 0.0)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_batch_repeats_or_cuts() {
        let x = Tensor::new(&[1.0_f32, 2.0, 3.0], &Device::Cpu).unwrap();
        let repeated = |batch| repeat_to_batch(&x, batch).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(repeated(2), [1.0, 2.0]);
        assert_eq!(repeated(5), [1.0, 2.0, 3.0, 1.0, 2.0]);
    }

    #[test]
    fn finds_what_is_no_number() {
        for (value, finite) in [(f32::MAX, true), (-0.0, true), (f32::NAN, false), (f32::NEG_INFINITY, false)] {
            let x = Tensor::new(&[[1.0, value], [f32::MAX, 3.0]], &Device::Cpu).unwrap();
            assert_eq!(is_finite(&x).unwrap(), finite, "{value}");
        }
    }
}
