//! torch's `interpolate` on one channel at a time: nearest-exact, bilinear, bicubic, area.
//!
//! No antialiasing; corners are not aligned: the centre of cell `i` lies at `i + ½`. Where a product and a sum are rounded
//! together is where torch's compiler fuses them.

use rayon::prelude::*;

use super::{Grid, Method};

pub(super) fn resize(grid: &Grid, width: usize, height: usize, method: Method) -> Vec<f32> {
    let (rows, columns) = (grid.rows, grid.columns);
    let mut out = vec![0.0; grid.batch * grid.channels * width * height];
    let planes = grid.values.par_chunks(rows * columns).zip(out.par_chunks_mut(width * height));
    match method {
        Method::Area => planes.for_each(|(plane, out)| mean(plane, rows, columns, out, height, width)),
        Method::NearestExact => {
            let (across, down) = (nearest(columns, width), nearest(rows, height));
            planes.for_each(|(plane, out)| {
                for (out, row) in out.chunks_mut(width).zip(&down) {
                    let row = &plane[row * columns..][..columns];
                    out.iter_mut().zip(&across).for_each(|(out, column)| *out = row[*column]);
                }
            });
        }
        Method::Bicubic => {
            let (across, down) = (cubic(columns, width), cubic(rows, height));
            planes.for_each(|(plane, out)| {
                let wide: Vec<f32> =
                    plane.chunks(columns).flat_map(|row| across.iter().map(|taps| weigh(taps, |at| row[at]))).collect();
                for (out, taps) in out.chunks_mut(width).zip(&down) {
                    for (column, out) in out.iter_mut().enumerate() {
                        *out = weigh(taps, |row| wide[row * width + column]);
                    }
                }
            });
        }
        _ => {
            let (across, down) = (linear(columns, width), linear(rows, height));
            planes.for_each(|(plane, out)| {
                for (out, down) in out.chunks_mut(width).zip(&down) {
                    for (out, across) in out.iter_mut().zip(&across) {
                        *out = mix(plane, columns, down, across);
                    }
                }
            });
        }
    }
    out
}

fn fused(a: f32, b: f32, c: f32) -> f32 {
    (f64::from(a) * f64::from(b) + f64::from(c)) as f32
}

/// Where the centre of a new cell lies among the centres of the old ones.
fn position(new: usize, old_size: usize, new_size: usize) -> f32 {
    fused(old_size as f32 / new_size as f32, new as f32 + 0.5, -0.5)
}

/// The old cell that the centre of each new one lies in.
fn nearest(old: usize, new: usize) -> Vec<usize> {
    let scale = f64::from(old as f32 / new as f32);
    let at = |i: usize| (((i as f64 + 0.5) * scale) as f32).floor() as usize;
    (0..new).map(|i| at(i).min(old - 1)).collect()
}

/// The two old cells around a new one, and how much each counts.
pub(super) struct Pair {
    pub(super) first: usize,
    pub(super) second: usize,
    weights: [f32; 2],
}

impl Pair {
    /// Between two values.
    pub(super) fn mix(&self, first: f32, second: f32) -> f32 {
        fused(first, self.weights[0], second * self.weights[1])
    }
}

/// For each new cell, the pair that it lies between.
pub(super) fn linear(old: usize, new: usize) -> Vec<Pair> {
    let pair = |i: usize| {
        if old == new {
            return Pair { first: i, second: i, weights: [1.0, 0.0] };
        }
        let position = position(i, old, new).max(0.0);
        let first = (position as usize).min(old - 1);
        let share = (position - first as f32).clamp(0.0, 1.0);
        Pair { first, second: (first + 1).min(old - 1), weights: [1.0 - share, share] }
    };
    (0..new).map(pair).collect()
}

/// Among the four cells of a row pair and a column pair.
fn mix(plane: &[f32], columns: usize, down: &Pair, across: &Pair) -> f32 {
    let (top, bottom) = (&plane[down.first * columns..], &plane[down.second * columns..]);
    let weight = |row: usize, column: usize| down.weights[row] * across.weights[column];
    let sum = fused(top[across.first], weight(0, 0), top[across.second] * weight(0, 1));
    let sum = fused(bottom[across.first], weight(1, 0), sum);
    fused(bottom[across.second], weight(1, 1), sum)
}

/// Four old cells in a row, and how much each counts.
type Taps = [(usize, f32); 4];

fn weigh(taps: &Taps, value: impl Fn(usize) -> f32) -> f32 {
    let [(a, weight_a), (b, weight_b), (c, weight_c), (d, weight_d)] = *taps;
    let sum = fused(value(a), weight_a, value(b) * weight_b);
    fused(value(d), weight_d, fused(value(c), weight_c, sum))
}

/// For each new cell the four around it; outside the grid, its border is repeated.
fn cubic(old: usize, new: usize) -> Vec<Taps> {
    const A: f32 = -0.75;
    let near = |x: f32| fused(A + 2.0, x, -(A + 3.0)) * x * x + 1.0;
    let far = |x: f32| fused(fused(A, x, -5.0 * A), x, 8.0 * A) * x - 4.0 * A;
    let taps = |i: usize| {
        let position = position(i, old, new);
        let at = position.floor();
        let t = position - at;
        let index = |offset: i64| (at as i64 + offset).clamp(0, old as i64 - 1) as usize;
        [(index(-1), far(t + 1.0)), (index(0), near(t)), (index(1), near(1.0 - t)), (index(2), far((1.0 - t) + 1.0))]
    };
    (0..new).map(taps).collect()
}

/// The mean of the old cells that each new one touches (torch's `adaptive_avg_pool2d`).
fn mean(plane: &[f32], rows: usize, columns: usize, out: &mut [f32], height: usize, width: usize) {
    let window = |i: usize, old: usize, new: usize| (i * old / new, ((i + 1) * old).div_ceil(new));
    for y in 0..height {
        let (top, bottom) = window(y, rows, height);
        for x in 0..width {
            let (left, right) = window(x, columns, width);
            let cells = (top..bottom).flat_map(|row| &plane[row * columns + left..row * columns + right]);
            let sum: f32 = cells.sum();
            out[y * width + x] = sum / (bottom - top) as f32 / (right - left) as f32;
        }
    }
}
