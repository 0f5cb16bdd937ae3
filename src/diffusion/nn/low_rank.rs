//! What adapters of low rank do beside a layer, differentiable by all their arguments: `x` and `y` are a layer's input and
//! output, `[.., channels]`. Thin matrices lie by rank first, `[rank, channels]`, so that a direction is a row.

use candle_core::Tensor;

use super::fused;
use super::plain;
use super::weight::Geometry;
use crate::error::Result;

/// `y - strength · (y qᵀ) q`: takes the directions `q` `[rank, out]`, orthonormal rows, out of `y`.
///
/// # Errors
/// When the shapes do not fit.
pub fn project(y: &Tensor, q: &Tensor, strength: f64) -> Result<Tensor> {
    if fused::takes(y) && y.elem_count() > 0 {
        return Ok(fused::project(y, q, strength as f32)?);
    }
    up(y, &plain::linear(y, q)?, q, -strength)
}

/// `A x`, `a` `[rank, in]` or a convolution `[rank, in, kernel, kernel]` of the layer's own stride and padding.
///
/// # Errors
/// When the shapes do not fit.
pub fn down(x: &Tensor, a: &Tensor, geometry: Geometry) -> Result<Tensor> {
    if fused::has_product(x, a.dims(), geometry) {
        return Ok(fused::down(x, a, geometry)?);
    }
    plain::product(x, a, geometry)
}

/// `y + scale · t u`, `t` `[.., rank]`, `u` `[rank, out]`.
///
/// # Errors
/// When the shapes do not fit.
pub fn up(y: &Tensor, t: &Tensor, u: &Tensor, scale: f64) -> Result<Tensor> {
    if fused::takes(y) && y.elem_count() > 0 {
        return Ok(fused::up(y, t, u, scale as f32)?);
    }
    Ok((y + (plain::linear(t, &u.t()?.contiguous()?)? * scale)?)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::*;
    use crate::testing::{relative_error, value};

    /// Results and gradients by every argument, of a function of three tensors.
    fn run(f: &dyn Fn(&[Tensor]) -> Tensor, arguments: &[Tensor], dtype: DType) -> Vec<Tensor> {
        let vars: Vec<Var> = arguments.iter().map(|x| Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap()).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let y = f(&tensors);
        let weights = value("weights", y.dims(), 1.0).to_dtype(dtype).unwrap();
        let gradients = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let gradients = vars.iter().map(|var| gradients.get(var).unwrap().clone());
        std::iter::once(y.detach()).chain(gradients).map(|x| x.to_dtype(DType::F32).unwrap()).collect()
    }

    /// In f32 the kernels run, in f64 candle's own operations.
    fn check(name: &str, f: &dyn Fn(&[Tensor]) -> Tensor, arguments: &[Tensor]) {
        let (found, expected) = (run(f, arguments, DType::F32), run(f, arguments, DType::F64));
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let error = relative_error(found, expected);
            assert!(error < 1e-6, "{name}, {index}: {error:.1e}");
        }
    }

    #[test]
    fn kernels_and_plain_operations_agree_with_their_gradients() {
        let (y, q) = (value("y", &[2, 5, 7, 33], 1.0), value("q", &[3, 33], 1.0));
        check("project", &|x| project(&x[0], &x[1], 0.7).unwrap(), &[y.clone(), q.clone()]);
        let t = value("t", &[2, 5, 7, 3], 1.0);
        check("up", &|x| up(&x[0], &x[1], &x[2], -1.3).unwrap(), &[y.clone(), t, q.clone()]);
        check("down", &|x| down(&x[0], &x[1], Geometry::Linear).unwrap(), &[y.clone(), q]);
        let a = value("a", &[4, 33, 3, 3], 1.0);
        for (stride, before, after) in [(1, 1, 1), (2, 1, 1), (2, 0, 1), (1, 2, 0)] {
            let geometry = Geometry::Conv2d { stride, before, after };
            check("convolve", &|x| down(&x[0], &x[1], geometry).unwrap(), &[y.clone(), a.clone()]);
        }
    }
}
