//! Products with a thin matrix, as adapters act beside a layer: down to a few numbers a row, up again, and the gradients of
//! the thin matrices. Packing them for [`linear`](crate::linear) would cost more than the product.

use std::mem::MaybeUninit;

use crate::fill::filled;
use crate::isa::{Isa, Simd, dispatch};
use crate::{parallel, profile};

/// Numbers that a task takes.
const CHUNK: usize = 1 << 14;
/// Partial sums of a scalar product, as many as the widest register has lanes twice.
const LANES: usize = 32;

/// `x aᵀ`: `x` `[rows, depth]`, `a` `[rank, depth]`, to `[rows, rank]`.
///
/// # Panics
/// When a slice is not of the length that the others call for.
#[must_use]
pub fn thin(x: &[f32], a: &[f32], depth: usize) -> Vec<f32> {
    assert!(depth > 0 && x.len().is_multiple_of(depth) && a.len().is_multiple_of(depth), "rows of {depth} numbers");
    let (isa, rank) = (Isa::best(), a.len() / depth);
    let rows = CHUNK.div_ceil(depth);
    let _call = profile::call("low rank", 2 * x.len() * rank, x.len() + a.len());
    if rank == 0 {
        return Vec::new();
    }
    let fill = |out: &mut [MaybeUninit<f32>]| {
        parallel::chunks(out, rows * rank, 2 * x.len() * rank, |index, out| {
            thin_on(isa, &x[index * rows * depth..], a, depth, out);
        });
    };
    // SAFETY: `thin_on` writes every number of its chunk, and the chunks are all of the output.
    unsafe { filled(x.len() / depth * rank, fill) }
}

/// `y + scale · t u`: `y` `[rows, width]`, `t` `[rows, rank]`, `u` `[rank, width]`.
///
/// # Panics
/// When a slice is not of the length that the others call for.
#[must_use]
pub fn widen(y: &[f32], t: &[f32], u: &[f32], width: usize, scale: f32) -> Vec<f32> {
    assert!(width > 0 && y.len().is_multiple_of(width) && u.len().is_multiple_of(width), "rows of {width} numbers");
    let (isa, rank) = (Isa::best(), u.len() / width);
    assert_eq!(t.len(), y.len() / width * rank, "{rank} numbers a row");
    let rows = CHUNK.div_ceil(width);
    let _call = profile::call("low rank", 2 * y.len() * rank, 2 * y.len() + t.len() + u.len());
    let fill = |out: &mut [MaybeUninit<f32>]| {
        parallel::chunks(out, rows * width, 2 * y.len() * rank, |index, out| {
            let y = &y[index * rows * width..][..out.len()];
            widen_on(isa, y, &t[index * rows * rank..], u, width, scale, out);
        });
    };
    // SAFETY: `widen_on` writes every number of its chunk, and the chunks are all of the output.
    unsafe { filled(y.len(), fill) }
}

/// `tᵀ x` over pairs of rows: the sum over all pairs `(i, j)` of row `i` of `t` `[.., rank]` times row `j` of `x`
/// `[.., width]`, to `[rank, width]`.
///
/// # Panics
/// When a pair names a row that is not there.
#[must_use]
pub fn outer(t: &[f32], rank: usize, x: &[f32], width: usize, pairs: &[(u32, u32)]) -> Vec<f32> {
    let isa = Isa::best();
    let _call = profile::call("low rank", 2 * pairs.len() * rank * width, t.len() + x.len());
    let mut sums = vec![0.0; rank * width];
    parallel::chunks(&mut sums, width.max(1), 2 * pairs.len() * rank * width, |index, out| {
        outer_on(isa, t, rank, index, x, pairs, out);
    });
    sums
}

#[inline(always)]
fn dot<S: Simd>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] = S::fma1(a[lane], b[lane], sums[lane]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).fold(0.0, |sum, (a, b)| S::fma1(*a, *b, sum));
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0] + rest
}

#[inline(always)]
fn thin_body<S: Simd>(x: &[f32], a: &[f32], depth: usize, out: &mut [MaybeUninit<f32>]) {
    let rank = a.len() / depth;
    for (x, out) in x.chunks_exact(depth).zip(out.chunks_exact_mut(rank)) {
        for (a, out) in a.chunks_exact(depth).zip(out) {
            out.write(dot::<S>(x, a));
        }
    }
}

dispatch!(fn thin_on = thin_body(x: &[f32], a: &[f32], depth: usize, out: &mut [MaybeUninit<f32>]));

#[inline(always)]
fn widen_body<S: Simd>(y: &[f32], t: &[f32], u: &[f32], width: usize, scale: f32, out: &mut [MaybeUninit<f32>]) {
    let rank = u.len() / width;
    for (row, (y, out)) in y.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
        for (y, out) in y.iter().zip(&mut *out) {
            out.write(*y);
        }
        for (u, t) in u.chunks_exact(width).zip(&t[row * rank..]) {
            let factor = scale * t;
            for (u, out) in u.iter().zip(&mut *out) {
                // SAFETY: written by the loop above.
                let sum = S::fma1(factor, *u, unsafe { out.assume_init() });
                out.write(sum);
            }
        }
    }
}

dispatch!(
    fn widen_on = widen_body(
        y: &[f32],
        t: &[f32],
        u: &[f32],
        width: usize,
        scale: f32,
        out: &mut [MaybeUninit<f32>],
    )
);

#[inline(always)]
fn outer_body<S: Simd>(t: &[f32], rank: usize, index: usize, x: &[f32], pairs: &[(u32, u32)], out: &mut [f32]) {
    let width = out.len();
    for &(i, j) in pairs {
        let factor = t[i as usize * rank + index];
        for (x, out) in x[j as usize * width..][..width].iter().zip(&mut *out) {
            *out = S::fma1(factor, *x, *out);
        }
    }
}

dispatch!(
    fn outer_on = outer_body(t: &[f32], rank: usize, index: usize, x: &[f32], pairs: &[(u32, u32)], out: &mut [f32])
);

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let draw = |i: u64| ((i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / 8_388_608.0 - 1.0;
        (0..count as u64).map(draw).collect()
    }

    fn close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-4, "{found} for {expected}");
        }
    }

    #[test]
    fn each_is_the_sum_that_it_says() {
        // Odd sizes, and rows enough for several tasks.
        for (rows, depth, rank) in [(1, 1, 1), (7, 33, 3), (600, 70, 5)] {
            let (x, a, y) = (numbers(rows * depth, 1), numbers(rank * depth, 2), numbers(rows * depth, 3));
            let wide = |values: &[f32], index: usize| f64::from(values[index]);
            let t = thin(&x, &a, depth);
            let each = |row: usize, j: usize| -> f64 {
                (0..depth).map(|d| wide(&x, row * depth + d) * wide(&a, j * depth + d)).sum()
            };
            let expected: Vec<f64> = (0..rows * rank).map(|i| each(i / rank, i % rank)).collect();
            close(&t, &expected);

            let widened = widen(&y, &t, &a, depth, -0.5);
            let up = |row: usize, d: usize| -> f64 {
                (0..rank).map(|j| wide(&t, row * rank + j) * wide(&a, j * depth + d)).sum()
            };
            let expected: Vec<f64> = (0..rows * depth).map(|i| wide(&y, i) - 0.5 * up(i / depth, i % depth)).collect();
            close(&widened, &expected);

            let pairs: Vec<(u32, u32)> = (0..rows as u32).map(|row| (row, rows as u32 - 1 - row)).collect();
            let sums = outer(&t, rank, &x, depth, &pairs);
            let sum = |j: usize, d: usize| -> f64 {
                (0..rows).map(|row| wide(&t, row * rank + j) * wide(&x, (rows - 1 - row) * depth + d)).sum()
            };
            let expected: Vec<f64> = (0..rank * depth).map(|i| sum(i / depth, i % depth)).collect();
            let scale = (rows as f64).sqrt();
            let scaled: Vec<f32> = sums.iter().map(|sum| sum / scale as f32).collect();
            close(&scaled, &expected.iter().map(|sum| sum / scale).collect::<Vec<_>>());
        }
    }
}
