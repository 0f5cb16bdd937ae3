//! The way back through attention. The weights are computed again, a few queries at a time with all their keys; one task does
//! a whole head, so that the sums over queries are always taken in the same order.

use crate::attention::Heads;
use crate::isa::{Isa, Simd, dispatch};
use crate::matrix::Matrix;
use crate::norm::sum;
use crate::product::{Epilogue, Job, Left, Out, run};
use crate::{maths, parallel, profile};

/// Queries that are taken together.
const QUERIES: usize = 48;

/// The gradients that [`attention`](crate::attention()) hands back for `q`, `k` and `v`, given the gradient of its result.
///
/// # Panics
/// When a slice is of another length than the measures say, or there are queries but no keys.
#[must_use]
pub fn attention_back(q: &[f32], k: &[f32], v: &[f32], gradient: &[f32], heads: &Heads) -> [Vec<f32>; 3] {
    heads.check(q, k, v);
    assert_eq!(gradient.len(), q.len(), "as many gradients as results");
    let mut gradients = [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]];
    if q.is_empty() {
        return gradients;
    }
    let [dq, dk, dv] = gradients.each_mut().map(|gradient| Shared(gradient.as_mut_ptr()));
    let operations = 10 * heads.batch * heads.queries * heads.keys * heads.width();
    let _call = profile::call("attention, back", operations, 3 * q.len() + 4 * k.len());
    parallel::for_each(heads.batch * heads.heads, operations, |head| {
        Head::new(q, k, v, gradient, heads, head).run(&dq, &dk, &dv);
    });
    gradients
}

/// A gradient, shared by tasks that write different heads of it.
struct Shared(*mut f32);

// SAFETY: no two tasks write the same head.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// What one task works with: slices begin at the head's first channel.
struct Head<'a> {
    isa: Isa,
    heads: &'a Heads,
    q: &'a [f32],
    gradient: &'a [f32],
    /// Where the head begins in queries and in keys.
    starts: (usize, usize),
    /// Keys across, `[dim, keys]`.
    keys_across: Matrix,
    /// Values across, `[dim, keys]`.
    values_across: Matrix,
    /// `[keys, dim]`.
    keys: Matrix,
}

impl<'a> Head<'a> {
    fn new(q: &'a [f32], k: &[f32], v: &[f32], gradient: &'a [f32], heads: &'a Heads, head: usize) -> Self {
        let (width, channel) = (heads.width(), head % heads.heads * heads.dim);
        let start = |tokens: usize| head / heads.heads * tokens * width + channel;
        let (queries, keys) = (start(heads.queries), start(heads.keys));
        Self {
            isa: Isa::best(),
            heads,
            q: &q[queries..],
            gradient: &gradient[queries..],
            starts: (queries, keys),
            keys_across: Matrix::strided(&k[keys..], heads.dim, 1, heads.keys, width),
            values_across: Matrix::strided(&v[keys..], heads.dim, 1, heads.keys, width),
            keys: Matrix::strided(&k[keys..], heads.keys, width, heads.dim, 1),
        }
    }

    fn run(&self, dq: &Shared, dk: &Shared, dv: &Shared) {
        let (heads, width) = (self.heads, self.heads.width());
        let most = QUERIES.min(heads.queries) * heads.keys;
        let (mut weights, mut slopes, mut turned) = (vec![0.0; most], vec![0.0; most], vec![0.0; most]);
        for first in (0..heads.queries).step_by(QUERIES) {
            let count = QUERIES.min(heads.queries - first);
            let (weights, slopes) = (&mut weights[..count * heads.keys], &mut slopes[..count * heads.keys]);
            let queries = Left::strided(&self.q[first * width..], width, heads.dim);
            let gradient = Left::strided(&self.gradient[first * width..], width, heads.dim);
            self.product(&queries, &self.keys_across, Out::plain(weights, heads.keys), count);
            self.product(&gradient, &self.values_across, Out::plain(slopes, heads.keys), count);
            let scale = 1.0 / (heads.dim as f32).sqrt();
            soften_on(self.isa, weights, heads.keys, heads.causal.then_some(first + 1), scale);
            slopes_on(self.isa, weights, slopes, heads.keys, scale);

            // SAFETY: the head's channels of these queries, and of all keys, which are this task's alone.
            let at = |shared: &Shared, start: usize| unsafe { shared.0.add(start) };
            let out = Out { start: at(dq, self.starts.0 + first * width), stride: width, accumulate: false };
            self.product(&Left::strided(slopes, heads.keys, heads.keys), &self.keys, out, count);
            for (numbers, right, shared) in [(&*slopes, self.q, dk), (&*weights, self.gradient, dv)] {
                let turned = &mut turned[..numbers.len()];
                turn(numbers, turned, heads.keys);
                let right = Matrix::strided(&right[first * width..], count, width, heads.dim, 1);
                let out = Out { start: at(shared, self.starts.1), stride: width, accumulate: first > 0 };
                self.product(&Left::strided(turned, count, count), &right, out, heads.keys);
            }
        }
    }

    fn product(&self, left: &Left<'_>, matrix: &Matrix, out: Out, rows: usize) {
        let job = Job { left, right: matrix.into(), epilogue: Epilogue::default(), per_shift: 1, out };
        for panel in 0..job.right.panels() {
            run(self.isa, &job, 0..rows, panel);
        }
    }
}

dispatch!(fn soften_on = soften_body(scores: &mut [f32], keys: usize, sees: Option<usize>, scale: f32));

/// Scores to weights that sum to one, row by row. The first query sees so many keys, each other one more than the one before.
#[inline(always)]
fn soften_body<S: Simd>(scores: &mut [f32], keys: usize, sees: Option<usize>, scale: f32) {
    for (index, scores) in scores.chunks_exact_mut(keys).enumerate() {
        let (scores, hidden) = scores.split_at_mut(sees.map_or(keys, |sees| (sees + index).min(keys)));
        hidden.fill(0.0);
        let sum = soften_row::<S>(scores, max(scores), scale);
        scores.iter_mut().for_each(|weight| *weight /= sum);
    }
}

/// `e^((score - greatest) · scale)` of every score, and their sum in sixteen lanes that are added up at the end.
#[inline(always)]
fn soften_row<S: Simd>(scores: &mut [f32], greatest: f32, scale: f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (blocks, rest) = scores.as_chunks_mut::<16>();
    for block in blocks {
        for score in &mut *block {
            *score = maths::exp::<S>((*score - greatest) * scale);
        }
        for (lane, score) in lanes.iter_mut().zip(block) {
            *lane += *score;
        }
    }
    for (lane, score) in lanes.iter_mut().zip(rest) {
        *score = maths::exp::<S>((*score - greatest) * scale);
        *lane += *score;
    }
    let mut half = 8;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The greatest number; NaN is passed over, and the differences from the result stay NaN.
#[inline(always)]
fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (blocks, rest) = x.as_chunks::<16>();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    rest.iter().chain(&lanes).fold(f32::NEG_INFINITY, |greatest, &x| if x > greatest { x } else { greatest })
}

dispatch!(fn slopes_on = slopes_body(weights: &[f32], slopes: &mut [f32], keys: usize, scale: f32));

/// The gradient of the scores from that of the weights: `weight · (slope - Σ weight · slope) · scale`, in place.
#[inline(always)]
fn slopes_body<S: Simd>(weights: &[f32], slopes: &mut [f32], keys: usize, scale: f32) {
    let mut products = vec![0.0; keys];
    for (weights, slopes) in weights.chunks_exact(keys).zip(slopes.chunks_exact_mut(keys)) {
        products.iter_mut().zip(weights.iter().zip(&*slopes)).for_each(|(to, (weight, slope))| *to = weight * slope);
        let mean = sum(&products, |product| product);
        for ((slope, weight), product) in slopes.iter_mut().zip(weights).zip(&products) {
            *slope = scale * S::fma1(-mean, *weight, *product);
        }
    }
}

/// Rows to columns.
fn turn(from: &[f32], to: &mut [f32], columns: usize) {
    let rows = from.len() / columns;
    for (column, to) in to.chunks_exact_mut(rows).enumerate() {
        for (row, to) in to.iter_mut().enumerate() {
            *to = from[row * columns + column];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention;
    use crate::testing::numbers;

    /// The slope along a direction is the gradient's product with it, for each of the three arguments.
    #[test]
    fn gradients_are_slopes() {
        for (queries, keys, count, dim, causal) in
            [(5, 9, 2, 8, false), (100, 100, 1, 16, true), (60, 130, 3, 24, false)]
        {
            let heads = Heads { batch: 2, queries, keys, heads: count, dim, causal };
            let width = count * dim;
            let args = [numbers(1, 2 * queries * width), numbers(2, 2 * keys * width), numbers(3, 2 * keys * width)];
            let gradient = numbers(4, 2 * queries * width);
            let found = attention_back(&args[0], &args[1], &args[2], &gradient, &heads);
            for (index, found) in found.iter().enumerate() {
                let direction = numbers(5, found.len());
                let value = |step: f32| -> f64 {
                    let mut args = args.clone();
                    args[index].iter_mut().zip(&direction).for_each(|(x, direction)| *x += step * direction);
                    let y = attention(&args[0], &args[1], &args[2], &heads);
                    y.iter().zip(&gradient).map(|(y, g)| f64::from(*y) * f64::from(*g)).sum()
                };
                let difference = (value(0.02) - value(-0.02)) / 0.04;
                let slope: f64 = found.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
                assert!(
                    (slope - difference).abs() < 2e-3 * difference.abs().max(0.5),
                    "{index}: {slope}, {difference}"
                );
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let heads = Heads { batch: 2, queries: 150, keys: 200, heads: 4, dim: 16, causal: false };
        let (q, k) = (numbers(1, 2 * 150 * 64), numbers(2, 2 * 200 * 64));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| attention_back(&q, &k, &k, &q, &heads))
        };
        let one = run(1);
        assert!(run(2) == one && run(3) == one);
    }
}
