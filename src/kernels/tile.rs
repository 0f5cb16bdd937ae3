//! The plain product of a few rows, in registers.

use crate::isa::Simd;

/// Two factors, `[rows, depth]` and `[depth, width]`, in f32 or with two numbers of bf16 in each place.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    pub(crate) left: *const f32,
    /// Numbers from one row of the left one to the next.
    pub(crate) apart: usize,
    /// Numbers from one place of its row to the next.
    pub(crate) along: usize,
    pub(crate) right: *const f32,
    /// Numbers from one row of the right one to the next.
    pub(crate) width: usize,
    pub(crate) depth: usize,
}

/// One to six rows of a product, `N` vectors of columns, to rows that begin `stride` apart; added to what is there if `load`.
///
/// # Safety
/// The left factor must have `rows` rows of `depth` numbers, the right one `depth` rows of `N` vectors, and `N` vectors must
/// be writable at each row of `out`, readable if `load`.
#[inline(always)]
pub(crate) unsafe fn up_to_six<S: Simd, const PAIRS: bool, const N: usize>(
    factors: &Factors,
    rows: usize,
    out: *mut f32,
    stride: usize,
    load: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match rows {
            6 => tile::<S, PAIRS, 6, N>(factors, out, stride, load),
            5 => tile::<S, PAIRS, 5, N>(factors, out, stride, load),
            4 => tile::<S, PAIRS, 4, N>(factors, out, stride, load),
            3 => tile::<S, PAIRS, 3, N>(factors, out, stride, load),
            2 => tile::<S, PAIRS, 2, N>(factors, out, stride, load),
            1 => tile::<S, PAIRS, 1, N>(factors, out, stride, load),
            _ => unreachable!("one to six rows"),
        }
    }
}

/// # Safety
/// As [`up_to_six`], of `M` rows.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "an iterator over the sums would move them to memory")]
unsafe fn tile<S: Simd, const PAIRS: bool, const M: usize, const N: usize>(
    factors: &Factors,
    out: *mut f32,
    stride: usize,
    load: bool,
) {
    let mut sums = [[S::splat(0.0); N]; M];
    // SAFETY: the caller's promise.
    unsafe {
        if load {
            for m in 0..M {
                for n in 0..N {
                    sums[m][n] = S::load(out.add(m * stride + n * S::LANES));
                }
            }
        }
        let sums = summed::<S, PAIRS, M, N>(factors, sums);
        for m in 0..M {
            for n in 0..N {
                S::store(out.add(m * stride + n * S::LANES), sums[m][n]);
            }
        }
    }
}

/// The sums and the product of `M` rows and `N` vectors of columns.
///
/// # Safety
/// The left factor must have `M` rows of `depth` numbers, the right one `depth` rows of `N` vectors.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "an iterator over the sums would move them to memory")]
pub(crate) unsafe fn summed<S: Simd, const PAIRS: bool, const M: usize, const N: usize>(
    factors: &Factors,
    mut sums: [[S::Vector; N]; M],
) -> [[S::Vector; N]; M] {
    let Factors { left, apart, along, right, width, depth } = *factors;
    let mut line = right;
    for k in 0..depth {
        // SAFETY: the caller's promise; there are rows of the right factor left.
        unsafe {
            let vectors: [S::Vector; N] = std::array::from_fn(|n| S::load(line.add(n * S::LANES)));
            for m in 0..M {
                let factor = S::splat(*left.add(m * apart + k * along));
                for n in 0..N {
                    sums[m][n] = if PAIRS {
                        S::dot(factor, vectors[n], sums[m][n])
                    } else {
                        S::fma(factor, vectors[n], sums[m][n])
                    };
                }
            }
        }
        line = line.wrapping_add(width);
    }
    sums
}
