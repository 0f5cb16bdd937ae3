//! Elementary functions as straight lines of arithmetic, which the compiler turns into vectors. Written for f32: accurate to
//! a few units in the last place, and a NaN stays one.

use crate::isa::Simd;

/// `e^x` within 1e-7 of the value; 1e-38 below -87, and 2e38 above 88.
///
/// `x` is `n · ln 2 + r`; a polynomial gives `e^r`, the exponent's bits give `2^n`. The coefficients after the first two are
/// ours, fitted to the least greatest relative error over |r| ≤ 0.35 (3e-9 before rounding).
#[inline(always)]
pub(crate) fn exp<S: Simd>(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, the first with so few bits that its product with `n` is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding it leaves no bits for a fraction: the sum's last bits are the nearest whole number.
    const ROUNDER: f32 = 12_582_912.0;
    // Comparisons that are false for NaN, so that it passes.
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let shifted = S::fma1(x, LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    let r = S::fma1(n, -LN2_LOW, S::fma1(n, -LN2_HIGH, x));
    let p = S::fma1(1.381_314e-3, r, 8.369_42e-3);
    let p = S::fma1(p, r, 4.166_845_6e-2);
    let p = S::fma1(p, r, 1.666_651_5e-1);
    let p = S::fma1(p, r, 4.999_999_4e-1);
    let p = S::fma1(p * r, r, r) + 1.0;
    let bits = shifted.to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(bits)
}

/// `2^x` of every lane within 1e-7 of the value for -126 ≤ `x` ≤ 0; below 2e-38 before, and zero from -127 down.
///
/// `x` is `n + r`; the coefficients of `2^r` are ours, fitted to the least greatest relative error over |r| ≤ 1/2 (2e-9 before
/// rounding).
#[inline(always)]
pub(crate) fn exp2<S: Simd>(x: S::Vector) -> S::Vector {
    const ROUNDER: f32 = 12_582_912.0;
    // A NaN passes.
    let x = S::max(S::splat(-127.0), x);
    let shifted = S::add(x, S::splat(ROUNDER));
    let r = S::sub(x, S::sub(shifted, S::splat(ROUNDER)));
    let coefficients = [1.339_887_5e-3, 9.618_438e-3, 5.550_332_4e-2, 0.240_226_48, std::f32::consts::LN_2, 1.0];
    let sum = |p, coefficient| S::fma(p, r, S::splat(coefficient));
    let p = coefficients.into_iter().fold(S::splat(1.535_336_2e-4), sum);
    S::mul(p, S::power(shifted))
}

/// The error function within 4e-7 of the value.
///
/// A rational function of `x²` over 0 to 15 times `x`, fitted by us to the least greatest relative error (2e-8 before
/// rounding); beyond it the function is 1 in f32.
#[inline(always)]
pub(crate) fn erf<S: Simd>(x: f32) -> f32 {
    const BOUND: f32 = 3.872_983_3;
    let x = if x > BOUND { BOUND } else { x };
    let x = if x < -BOUND { -BOUND } else { x };
    let s = x * x;
    let p = S::fma1(2.088_943_1e-6, s, 2.853_658e-4);
    let p = S::fma1(p, s, 3.702_857_8e-3);
    let p = S::fma1(p, s, 5.256_391e-2);
    let p = S::fma1(p, s, 1.886_960_7e-1);
    let p = S::fma1(p, s, std::f32::consts::FRAC_2_SQRT_PI);
    let q = S::fma1(3.851_713_7e-5, s, 1.150_778_3e-3);
    let q = S::fma1(q, s, 1.484_292_1e-2);
    let q = S::fma1(q, s, 1.134_396_3e-1);
    let q = S::fma1(q, s, 5.005_604e-1);
    let q = S::fma1(q, s, 1.0);
    x * p / q
}

/// `x · σ(x)`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(x: f32) -> f32 {
    x / (1.0 + exp::<S>(-x))
}

/// `x · σ(1.702 x)`.
#[inline(always)]
pub(crate) fn quick_gelu<S: Simd>(x: f32) -> f32 {
    x / (1.0 + exp::<S>(-1.702 * x))
}

/// `x · Φ(x)`.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(x: f32) -> f32 {
    0.5 * x * (1.0 + erf::<S>(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
fn sigmoid<S: Simd>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<S>(-x))
}

/// The slope of [`silu`].
#[inline(always)]
pub(crate) fn silu_slope<S: Simd>(x: f32) -> f32 {
    let s = sigmoid::<S>(x);
    S::fma1(x * s, 1.0 - s, s)
}

/// The slope of [`quick_gelu`].
#[inline(always)]
pub(crate) fn quick_gelu_slope<S: Simd>(x: f32) -> f32 {
    let s = sigmoid::<S>(1.702 * x);
    S::fma1(1.702 * x * s, 1.0 - s, s)
}

/// The slope of [`gelu`]: `Φ(x) + x φ(x)`.
#[inline(always)]
pub(crate) fn gelu_slope<S: Simd>(x: f32) -> f32 {
    const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
    let below = 0.5 + 0.5 * erf::<S>(x * std::f32::consts::FRAC_1_SQRT_2);
    S::fma1(x * FRAC_1_SQRT_2PI, exp::<S>(-0.5 * x * x), below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::exact_erf;
    use crate::isa::Portable;

    /// The greatest error over a range, by `measure` of found and expected value.
    fn worst(f: fn(f32) -> f32, exact: fn(f64) -> f64, range: (f32, f32), measure: fn(f64, f64) -> f64) -> f64 {
        let step = (range.1 - range.0) / 200_000.0;
        let error = |index: i32| {
            let x = range.0 + step * index as f32;
            measure(f64::from(f(x)), exact(f64::from(x)))
        };
        (0..=200_000).map(error).fold(0.0, f64::max)
    }

    fn relative(found: f64, expected: f64) -> f64 {
        (found / expected - 1.0).abs()
    }

    fn absolute(found: f64, expected: f64) -> f64 {
        (found - expected).abs()
    }

    #[test]
    fn agree_with_the_exact_functions() {
        let powers = worst(exp::<Portable>, f64::exp, (-87.0, 88.0), relative);
        let errors = worst(erf::<Portable>, exact_erf, (-3.9, 3.9), absolute);
        let swish = worst(silu::<Portable>, |x| x / (1.0 + (-x).exp()), (-20.0, 20.0), absolute);
        println!("greatest errors: exp {powers:.1e} (relative), erf {errors:.1e}, silu {swish:.1e}");
        let powers_of_two = worst(|x| exp2::<Portable>([x; 4])[3], f64::exp2, (-126.0, 0.0), relative);
        assert!(powers_of_two < 1.5e-7, "{powers_of_two}");
        assert!(powers < 1.5e-7 && errors < 4e-7 && swish < 2e-6);
    }

    #[test]
    fn behave_at_the_ends() {
        assert!(exp::<Portable>(f32::NAN).is_nan() && erf::<Portable>(f32::NAN).is_nan());
        assert_eq!((exp::<Portable>(0.0), erf::<Portable>(0.0)), (1.0, 0.0));
        let power = |x: f32| exp2::<Portable>([x; 4])[0];
        assert!(power(f32::NAN).is_nan() && power(f32::from_bits(0xff80_0001)).is_nan());
        assert!(power(0.0) == 1.0 && power(-126.4) < 2e-38 && power(-127.0) == 0.0 && power(f32::NEG_INFINITY) == 0.0);
        assert!(exp::<Portable>(f32::NEG_INFINITY) < 2e-38 && exp::<Portable>(f32::INFINITY) > 2e38);
        assert!((erf::<Portable>(f32::INFINITY) - 1.0).abs() < 4e-7);
        assert!(silu::<Portable>(-1000.0).abs() < 1e-30 && silu::<Portable>(1000.0) == 1000.0);
        assert!(silu::<Portable>(f32::NAN).is_nan() && gelu::<Portable>(f32::NAN).is_nan());
    }
}
