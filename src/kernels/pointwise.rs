//! Nonlinearities, one number or one pair at a time.

use std::mem::MaybeUninit;

use crate::fill::filled;
use crate::isa::{Isa, Simd, dispatch};
use crate::{maths, parallel, profile};

/// Numbers that a task takes.
const CHUNK: usize = 1 << 14;
/// About how many operations a nonlinearity is.
const COST: usize = 32;

/// `x · σ(x)` of every number.
#[must_use]
pub fn silu(x: &[f32]) -> Vec<f32> {
    map(x, silu_on)
}

/// `x · Φ(x)` of every number, `Φ` the normal distribution.
#[must_use]
pub fn gelu(x: &[f32]) -> Vec<f32> {
    map(x, gelu_on)
}

/// `x · σ(1.702 x)` of every number.
#[must_use]
pub fn quick_gelu(x: &[f32]) -> Vec<f32> {
    map(x, quick_gelu_on)
}

/// `a · gelu(b)` of the halves `a` and `b` of every row, `[rows, 2 width]` to `[rows, width]`.
///
/// # Panics
/// When the rows do not come out even.
#[must_use]
pub fn geglu(x: &[f32], width: usize) -> Vec<f32> {
    assert!(width > 0 && x.len().is_multiple_of(2 * width), "rows of {} numbers", 2 * width);
    let _call = profile::call("GEGLU", 0, 3 * x.len() / 2);
    let (isa, rows) = (Isa::best(), CHUNK.div_ceil(width));
    let fill = |out: &mut [MaybeUninit<f32>]| {
        parallel::chunks(out, rows * width, x.len() * COST / 2, |index, out| {
            let start = index * rows * 2 * width;
            geglu_on(isa, &x[start..start + 2 * out.len()], out, width);
        });
    };
    // SAFETY: the chunks cover the output, and the body writes each row of its chunk whole.
    unsafe { filled(x.len() / 2, fill) }
}

/// The gradient that [`silu`] hands back: `gradient` times the slope at `x`.
///
/// # Panics
/// When the lengths differ.
#[must_use]
pub fn silu_back(x: &[f32], gradient: &[f32]) -> Vec<f32> {
    map_back(x, gradient, silu_back_on)
}

/// The gradient that [`gelu`] hands back.
///
/// # Panics
/// When the lengths differ.
#[must_use]
pub fn gelu_back(x: &[f32], gradient: &[f32]) -> Vec<f32> {
    map_back(x, gradient, gelu_back_on)
}

/// The gradient that [`quick_gelu`] hands back.
///
/// # Panics
/// When the lengths differ.
#[must_use]
pub fn quick_gelu_back(x: &[f32], gradient: &[f32]) -> Vec<f32> {
    map_back(x, gradient, quick_gelu_back_on)
}

/// The gradient that [`geglu`] hands back, `[rows, width]` to `[rows, 2 width]`.
///
/// # Panics
/// When the rows do not come out even.
#[must_use]
pub fn geglu_back(x: &[f32], gradient: &[f32], width: usize) -> Vec<f32> {
    assert!(width > 0 && x.len().is_multiple_of(2 * width), "rows of {} numbers", 2 * width);
    assert_eq!(gradient.len() * 2, x.len(), "half as many gradients as numbers");
    let _call = profile::call("GEGLU, back", 0, 5 * x.len() / 2);
    let (isa, rows) = (Isa::best(), CHUNK.div_ceil(width));
    let fill = |out: &mut [MaybeUninit<f32>]| {
        parallel::chunks(out, rows * 2 * width, x.len() * COST, |index, out| {
            let start = index * rows * 2 * width;
            geglu_back_on(isa, &x[start..start + out.len()], &gradient[start / 2..(start + out.len()) / 2], out, width);
        });
    };
    // SAFETY: the chunks cover the output, and the body writes each row of its chunk whole.
    unsafe { filled(x.len(), fill) }
}

fn map_back(
    x: &[f32],
    gradient: &[f32],
    task: impl Fn(Isa, &[f32], &[f32], &mut [MaybeUninit<f32>]) + Sync + Send,
) -> Vec<f32> {
    assert_eq!(x.len(), gradient.len(), "as many gradients as numbers");
    let _call = profile::call("activation, back", 0, 3 * x.len());
    let isa = Isa::best();
    let fill = |out: &mut [MaybeUninit<f32>]| {
        parallel::chunks(out, CHUNK, x.len() * COST, |index, out| {
            let range = index * CHUNK..index * CHUNK + out.len();
            task(isa, &x[range.clone()], &gradient[range], out);
        });
    };
    // SAFETY: the chunks cover the output, and every task here writes each number of its chunk.
    unsafe { filled(x.len(), fill) }
}

fn map(x: &[f32], task: impl Fn(Isa, &[f32], &mut [MaybeUninit<f32>]) + Sync + Send) -> Vec<f32> {
    let _call = profile::call("activation", 0, 2 * x.len());
    let isa = Isa::best();
    let fill = |out: &mut [MaybeUninit<f32>]| {
        parallel::chunks(out, CHUNK, x.len() * COST, |index, out| {
            let start = index * CHUNK;
            task(isa, &x[start..start + out.len()], out);
        });
    };
    // SAFETY: the chunks cover the output, and every task here writes each number of its chunk.
    unsafe { filled(x.len(), fill) }
}

dispatch!(fn silu_on = silu_body(x: &[f32], out: &mut [MaybeUninit<f32>]));
dispatch!(fn gelu_on = gelu_body(x: &[f32], out: &mut [MaybeUninit<f32>]));
dispatch!(fn quick_gelu_on = quick_gelu_body(x: &[f32], out: &mut [MaybeUninit<f32>]));
dispatch!(fn geglu_on = geglu_body(x: &[f32], out: &mut [MaybeUninit<f32>], width: usize));
dispatch!(fn silu_back_on = silu_back_body(x: &[f32], gradient: &[f32], out: &mut [MaybeUninit<f32>]));
dispatch!(fn gelu_back_on = gelu_back_body(x: &[f32], gradient: &[f32], out: &mut [MaybeUninit<f32>]));
dispatch!(fn quick_gelu_back_on = quick_gelu_back_body(x: &[f32], gradient: &[f32], out: &mut [MaybeUninit<f32>]));
dispatch! {
    fn geglu_back_on = geglu_back_body(x: &[f32], gradient: &[f32], out: &mut [MaybeUninit<f32>], width: usize)
}

#[inline(always)]
fn silu_body<S: Simd>(x: &[f32], out: &mut [MaybeUninit<f32>]) {
    for (out, &x) in out.iter_mut().zip(x) {
        out.write(maths::silu::<S>(x));
    }
}

#[inline(always)]
fn gelu_body<S: Simd>(x: &[f32], out: &mut [MaybeUninit<f32>]) {
    for (out, &x) in out.iter_mut().zip(x) {
        out.write(maths::gelu::<S>(x));
    }
}

#[inline(always)]
fn quick_gelu_body<S: Simd>(x: &[f32], out: &mut [MaybeUninit<f32>]) {
    for (out, &x) in out.iter_mut().zip(x) {
        out.write(maths::quick_gelu::<S>(x));
    }
}

#[inline(always)]
fn geglu_body<S: Simd>(x: &[f32], out: &mut [MaybeUninit<f32>], width: usize) {
    for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(2 * width)) {
        let (values, gates) = x.split_at(width);
        for ((out, &value), &gate) in out.iter_mut().zip(values).zip(gates) {
            out.write(value * maths::gelu::<S>(gate));
        }
    }
}

#[inline(always)]
fn silu_back_body<S: Simd>(x: &[f32], gradient: &[f32], out: &mut [MaybeUninit<f32>]) {
    for ((out, &x), &gradient) in out.iter_mut().zip(x).zip(gradient) {
        out.write(gradient * maths::silu_slope::<S>(x));
    }
}

#[inline(always)]
fn gelu_back_body<S: Simd>(x: &[f32], gradient: &[f32], out: &mut [MaybeUninit<f32>]) {
    for ((out, &x), &gradient) in out.iter_mut().zip(x).zip(gradient) {
        out.write(gradient * maths::gelu_slope::<S>(x));
    }
}

#[inline(always)]
fn quick_gelu_back_body<S: Simd>(x: &[f32], gradient: &[f32], out: &mut [MaybeUninit<f32>]) {
    for ((out, &x), &gradient) in out.iter_mut().zip(x).zip(gradient) {
        out.write(gradient * maths::quick_gelu_slope::<S>(x));
    }
}

#[inline(always)]
fn geglu_back_body<S: Simd>(x: &[f32], gradient: &[f32], out: &mut [MaybeUninit<f32>], width: usize) {
    let rows = out.chunks_exact_mut(2 * width).zip(x.chunks_exact(2 * width)).zip(gradient.chunks_exact(width));
    for ((out, x), gradient) in rows {
        let ((values, gates), (to_values, to_gates)) = (x.split_at(width), out.split_at_mut(width));
        let pairs = values.iter().zip(gates).zip(gradient);
        for ((to_value, to_gate), ((&value, &gate), &gradient)) in to_values.iter_mut().zip(to_gates).zip(pairs) {
            to_value.write(gradient * maths::gelu::<S>(gate));
            to_gate.write(gradient * value * maths::gelu_slope::<S>(gate));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn every_instruction_set_gives_the_same_values() {
        // More than a chunk, and no multiple of any vector.
        let x: Vec<f32> = numbers(1, CHUNK + 37).iter().map(|x| 6.0 * x).collect();
        let exact: Vec<f64> = x.iter().map(|&x| f64::from(x) / (1.0 + (-f64::from(x)).exp())).collect();
        let quick: Vec<f64> = x.iter().map(|&x| f64::from(x) / (1.0 + (-1.702 * f64::from(x)).exp())).collect();
        for isa in Isa::all() {
            let mut out = vec![MaybeUninit::new(f32::NAN); x.len()];
            silu_on(isa, &x, &mut out);
            // SAFETY: initialised above.
            let found: Vec<f32> = out.iter().map(|x| unsafe { x.assume_init() }).collect();
            assert_close(&found, &exact, 2e-7);
        }
        assert_close(&silu(&x), &exact, 2e-7);
        assert_close(&quick_gelu(&x), &quick, 2e-7);
    }

    #[test]
    fn geglu_takes_the_gate_from_the_second_half() {
        let x = numbers(2, 5 * 2 * 19);
        let plain: Vec<f64> = x
            .chunks(38)
            .flat_map(|row| (0..19).map(|i| f64::from(row[i]) * f64::from(gelu(&row[19 + i..20 + i])[0])))
            .collect();
        assert_close(&geglu(&x, 19), &plain, 1e-7);
        assert_eq!(geglu(&[], 4), [] as [f32; 0]);
        // Values of the normal distribution's table.
        assert_close(&gelu(&[1.0, -1.0, 2.0]), &[0.841_344_746, -0.158_655_254, 1.954_499_736], 1e-7);
    }
}
