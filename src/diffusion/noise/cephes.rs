//! Logarithm, sine and cosine of an `f32`, rounded exactly as torch's vectorised Box–Muller rounds them.
//!
//! torch fills a tensor of normal numbers with the single-precision approximations of the Cephes library, and its
//! compiler fuses most products with the sum that follows. A standard library's `ln` differs from them in the last bit
//! of one value in fifty, and would differ again on the next machine. Here every operation is an exactly rounded one,
//! so that a seed gives the same bits everywhere.

/// `a·b + c`, rounded once.
///
/// The product of two `f32` is exact in `f64`. [`f32::mul_add`] would do the same, by a call into the platform's
/// library for every operation where the target is a plain x86-64.
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    (f64::from(a) * f64::from(b) + f64::from(c)) as f32
}

/// Natural logarithm of a normal, positive number (Cephes `logf`).
#[inline(always)]
pub(super) fn ln(x: f32) -> f32 {
    const POLYNOMIAL: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    // ln 2 in two parts, so that a multiple of the first is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    // x = m·2^e with m in [√½, √2).
    let bits = x.to_bits();
    let mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f00_0000);
    let exponent = ((bits >> 23) as i32 - 126) as f32;
    let small = mantissa < std::f32::consts::FRAC_1_SQRT_2;
    let exponent = if small { exponent - 1.0 } else { exponent };
    let t = mantissa - 1.0 + if small { mantissa } else { 0.0 };

    let square = t * t;
    let series = POLYNOMIAL[1..].iter().fold(POLYNOMIAL[0], |sum, &c| fused(sum, t, c)) * t;
    let series = fused(series, square, exponent * LN_2_LOW);
    let series = fused(-square, 0.5, series);
    fused(exponent, LN_2_HIGH, t + series)
}

/// Sine and cosine of an angle in `[0, 8192)` (Cephes `sinf` and `cosf`, evaluated together).
#[inline(always)]
pub(super) fn sin_cos(x: f32) -> (f32, f32) {
    const FOUR_OVER_PI: f32 = 1.273_239_5;
    // π/4 in three parts, negated.
    const QUARTER_PI: [f32; 3] = [-0.785_156_25, -2.418_756_5e-4, -3.774_895e-8];
    const COS: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];
    const SIN: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];

    let octant = ((x * FOUR_OVER_PI) as i32 + 1) & !1;
    let turns = octant as f32;
    let x = QUARTER_PI.iter().fold(x, |x, &part| fused(turns, part, x));
    let square = x * x;

    let cos = fused(fused(COS[0], square, COS[1]), square, COS[2]) * square;
    let cos = fused(cos, square, -(square * 0.5)) + 1.0;
    let sin = fused(fused(SIN[0], square, SIN[1]), square, SIN[2]) * square;
    let sin = fused(sin, x, x);

    let (sin, cos) = if octant & 2 == 0 { (sin, cos) } else { (cos, sin) };
    let sin = if octant & 4 == 0 { sin } else { -sin };
    let cos = if (octant - 2) & 4 == 0 { -cos } else { cos };
    (sin, cos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_cephes() {
        // The literals above are the shortest that round to these.
        assert_eq!(7.037_683_629_2e-2_f64 as f32, 7.037_683_6e-2);
        assert_eq!(0.693_359_375_f64 as f32, 0.693_359_4);
        assert_eq!(-3.774_894_977_445_941e-8_f64 as f32, -3.774_895e-8);
        assert_eq!(4.166_664_568_298_827e-2_f64 as f32, 4.166_664_6e-2);
    }

    #[test]
    fn agrees_with_double_precision() {
        for i in 1..=4096_u32 {
            let u = i as f32 / 4096.0;
            assert!((f64::from(ln(u)) - f64::from(u).ln()).abs() < 4e-7 * f64::from(u).ln().abs().max(0.3));
            let angle = u * std::f32::consts::TAU;
            let (sin, cos) = sin_cos(angle);
            assert!((f64::from(sin) - f64::from(angle).sin()).abs() < 1.2e-7, "sin {angle}");
            assert!((f64::from(cos) - f64::from(angle).cos()).abs() < 1.2e-7, "cos {angle}");
        }
    }
}
