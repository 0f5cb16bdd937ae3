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

/// `x / divisor`, a division of every element: a multiplication by the inverse would round differently.
pub(crate) fn divide(x: &Tensor, divisor: f32) -> Result<Tensor> {
    let divisor = Tensor::full(divisor, vec![1; x.rank()], x.device())?;
    Ok(x.broadcast_div(&divisor)?)
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
    fn finds_what_is_no_number() {
        for (value, finite) in [(f32::MAX, true), (-0.0, true), (f32::NAN, false), (f32::NEG_INFINITY, false)] {
            let x = Tensor::new(&[[1.0, value], [f32::MAX, 3.0]], &Device::Cpu).unwrap();
            assert_eq!(is_finite(&x).unwrap(), finite, "{value}");
        }
    }
}
