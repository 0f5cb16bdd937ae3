//! Numbers of half the width: bf16 is the upper half of an f32, f16 has five bits of exponent and ten of fraction.

use std::mem::MaybeUninit;

use crate::fill::filled;
use crate::isa::{Isa, Simd, dispatch};
use crate::parallel;

/// Which numbers of 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halves {
    /// IEEE's.
    F16,
    /// The upper half of an f32.
    Bf16,
}

/// The f32 of an f16's bits; exact, a NaN stays one.
#[inline(always)]
pub(crate) fn from_f16(bits: u16) -> f32 {
    // What is left of the sign, at f32's place but with f16's exponent, is 2^112 too small.
    let size = u32::from(bits & 0x7fff) << 13;
    let value = f32::from_bits(size) * f32::from_bits((127 + 112) << 23);
    let beyond = if size >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
    f32::from_bits(value.to_bits() | beyond | u32::from(bits & 0x8000) << 16)
}

/// The f32 of a bf16's bits.
#[inline(always)]
pub(crate) fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bf16, of two equally near ones the even; NaN stays NaN.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

/// Two numbers in the place of one, the first in the lower half.
#[inline(always)]
pub(crate) fn pair(first: f32, second: f32) -> u32 {
    round(first) | round(second) << 16
}

/// `[rows, width]` as pairs of neighbours, `[rows, width / 2]`, the last one's second a zero where the width is odd.
pub(crate) fn pairs(isa: Isa, x: &[f32], width: usize) -> Vec<f32> {
    let (rows, places) = (x.len() / width.max(1), width.div_ceil(2));
    // Even rows follow one another as one long row.
    let (width, places, rows) = if width.is_multiple_of(2) { (2, 1, x.len() / 2) } else { (width, places, rows) };
    let step = (1usize << 14).div_ceil(places);
    let fill = |out: &mut [MaybeUninit<f32>]| {
        parallel::chunks(out, step * places, x.len() * 4, |index, out| {
            let rows = out.len() / places;
            pairs_on(isa, &x[index * step * width..][..rows * width], width, out);
        });
    };
    // SAFETY: the chunks cover the output in whole rows, and the body writes each of them.
    unsafe { filled(rows * places, fill) }
}

dispatch!(pub(crate) fn pairs_on = pairs_body(x: &[f32], width: usize, out: &mut [MaybeUninit<f32>]));

#[inline(always)]
fn pairs_body<S: Simd>(x: &[f32], width: usize, out: &mut [MaybeUninit<f32>]) {
    let _ = S::LANES;
    if width == 2 {
        for (x, out) in x.as_chunks::<2>().0.iter().zip(out) {
            out.write(f32::from_bits(pair(x[0], x[1])));
        }
        return;
    }
    for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width.div_ceil(2))) {
        for (x, out) in row.chunks(2).zip(out) {
            out.write(f32::from_bits(pair(x[0], x.get(1).copied().unwrap_or(0.0))));
        }
    }
}

/// `[batch, rows, width]` as pairs of rows, `[batch, rows / 2, width]`, the last one's second zeros where their number is odd.
pub(crate) fn pairs_down(isa: Isa, x: &[f32], rows: usize, width: usize) -> Vec<f32> {
    let (batch, places) = (x.len() / (rows * width), rows.div_ceil(2));
    let zeros = vec![0.0; width];
    let fill = |out: &mut [MaybeUninit<f32>]| {
        parallel::chunks(out, width, x.len() * 4, |index, out| {
            let (batch, place) = (index / places, index % places);
            let row = |row: usize| if row < rows { &x[(batch * rows + row) * width..][..width] } else { &zeros[..] };
            pairs_down_on(isa, row(2 * place), row(2 * place + 1), out);
        });
    };
    // SAFETY: the chunks are the whole output, and the body writes each of them.
    unsafe { filled(batch * places * width, fill) }
}

dispatch!(fn pairs_down_on = pairs_down_body(first: &[f32], second: &[f32], out: &mut [MaybeUninit<f32>]));

#[inline(always)]
fn pairs_down_body<S: Simd>(first: &[f32], second: &[f32], out: &mut [MaybeUninit<f32>]) {
    let _ = S::LANES;
    for ((first, second), out) in first.iter().zip(second).zip(out) {
        out.write(f32::from_bits(pair(*first, *second)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn rounds_to_the_nearest_and_keeps_what_is_no_number() {
        let back = |x: f32| f32::from_bits(round(x) << 16);
        for x in [0.0, -0.0, 1.0, -2.5, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE] {
            assert_eq!(back(x), x);
        }
        assert!(back(f32::NAN).is_nan() && back(f32::from_bits(0x7f80_0001)).is_nan());
        // Halfway between two: to the even one.
        assert_eq!(back(f32::from_bits(0x3f80_8000)), 1.0);
        assert_eq!(back(f32::from_bits(0x3f81_8000)), f32::from_bits(0x3f82_0000));
        assert_eq!(back(f32::MAX), f32::INFINITY);
        for x in numbers(1, 1000) {
            assert!((back(x) - x).abs() <= x.abs() / 256.0);
        }
    }

    #[test]
    fn every_f16_becomes_its_f32() {
        for bits in 0..=u16::MAX {
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff) / 1024.0);
            let size = match exponent {
                0 => fraction * 2f64.powi(-14),
                31 if fraction == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
            };
            let (found, expected) = (from_f16(bits), (if bits >> 15 == 1 { -size } else { size }) as f32);
            assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()), "{bits:#x}");
        }
    }

    #[test]
    fn odd_rows_end_with_a_zero() {
        for isa in Isa::all() {
            assert_eq!(
                pairs(isa, &[1.0, 2.0, 3.0, 4.0], 4).iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                [0x4000_3f80, 0x4080_4040]
            );
            assert_eq!(
                pairs(isa, &[1.0, 2.0, 3.0], 3).iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                [0x4000_3f80, 0x0000_4040]
            );
        }
    }
}
