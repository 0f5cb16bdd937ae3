//! The quantile function of the beta distribution, which the `beta` schedule takes its timesteps from.

/// Terms of the continued fraction: enough for shapes in the hundreds.
const DEPTH: u32 = 200;

/// The `x` in `[0, 1]` below which a share `p` of the beta distribution with shapes `a` and `b` lies.
///
/// Solves `I_x(a, b) = p` by Newton steps kept inside a bracket, to the last bits of an `f64`; `I` is the regularised
/// incomplete beta function by its continued fraction (Abramowitz and Stegun, 26.5.8).
pub(super) fn quantile(p: f64, a: f64, b: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return p.clamp(0.0, 1.0);
    }
    // Both fractions converge quickly here, and the two parts of the integral add up to the complete one.
    let turn = (a + 1.0) / (a + b + 2.0);
    let complete = lower(turn, a, b) + lower(1.0 - turn, b, a);
    let share = |x: f64| {
        if x <= turn { lower(x, a, b) / complete } else { 1.0 - lower(1.0 - x, b, a) / complete }
    };

    let (mut below, mut above) = (0.0, 1.0);
    let mut x = 0.5;
    for _ in 0..200 {
        let excess = share(x) - p;
        if excess > 0.0 {
            above = x;
        } else {
            below = x;
        }
        let density = x.powf(a - 1.0) * (1.0 - x).powf(b - 1.0) / complete;
        let newton = x - excess / density;
        let next = if newton > below && newton < above { newton } else { 0.5 * (below + above) };
        if (next - x).abs() <= f64::EPSILON * x {
            return next;
        }
        x = next;
    }
    x
}

/// `∫₀ˣ t^(a−1) (1−t)^(b−1) dt` for an `x` below `(a + 1) / (a + b + 2)`.
fn lower(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let term = |k: u32| {
        let m = f64::from(k / 2);
        let base = a + f64::from(k);
        let numerator = if k.is_multiple_of(2) { m * (b - m) } else { -(a + m) * (a + b + m) };
        numerator * x / (base * (base - 1.0))
    };
    // 1 + d₁ / (1 + d₂ / …), from the inside out. Far fewer terms do for shapes near 1.
    let fraction = (1..=DEPTH).rev().fold(1.0, |inner, k| 1.0 + term(k) / inner);
    x.powf(a) * (1.0 - x).powf(b) / (a * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        for i in 0..=100 {
            let p = f64::from(i) / 100.0;
            assert!((quantile(p, 1.0, 1.0) - p).abs() < 1e-14, "uniform, {p}");
            let arcsine = (p * std::f64::consts::FRAC_PI_2).sin().powi(2);
            assert!((quantile(p, 0.5, 0.5) - arcsine).abs() < 1e-14, "arcsine, {p}");
            assert!((quantile(p, 3.0, 1.0) - p.cbrt()).abs() < 1e-14, "power, {p}");
            assert!((quantile(p, 0.6, 2.0) + quantile(1.0 - p, 2.0, 0.6) - 1.0).abs() < 1e-14, "mirrored, {p}");
        }
    }
}
