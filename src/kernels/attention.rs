//! Scaled dot-product attention in tiles: a few queries meet a few keys at a time, so the matrix of all scores never exists.
//!
//! The running maximum and sum are those of Milakov and Gimelshein 2018, arXiv:1805.02867; the tiling is that of Dao et al.
//! 2022, arXiv:2205.14135.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::fill::filled;
use crate::isa::{Isa, Simd, dispatch};
use crate::matrix::{Matrix, Precision};
use crate::product::{Epilogue, Job, Left, Out, run};
use crate::{half, maths, parallel, profile};

/// Queries of a task.
const QUERIES: usize = 48;
/// Keys that they meet at a time. A constant of the result: it must not depend on the machine.
const KEYS: usize = 256;

/// An attention's measures; heads lie side by side in a token's channels.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Sequences.
    pub batch: usize,
    /// Tokens that ask.
    pub queries: usize,
    /// Tokens that are asked.
    pub keys: usize,
    /// Heads, each of which attends by itself.
    pub heads: usize,
    /// Channels of a head.
    pub dim: usize,
    /// Whether a query sees no key behind its own place.
    pub causal: bool,
}

impl Heads {
    pub(crate) fn width(&self) -> usize {
        self.heads * self.dim
    }

    /// Checks the lengths of the arguments.
    pub(crate) fn check(&self, q: &[f32], k: &[f32], v: &[f32]) {
        assert_eq!(q.len(), self.batch * self.queries * self.width(), "queries");
        assert_eq!(k.len(), self.batch * self.keys * self.width(), "keys");
        assert_eq!(v.len(), k.len(), "values");
        assert!(self.keys > 0 || q.is_empty(), "queries without keys");
    }
}

/// `softmax(q kᵀ / √dim) v` of every head: `q` `[batch, queries, heads · dim]`, `k` and `v` `[batch, keys, heads · dim]`, the
/// result shaped as `q`.
///
/// # Panics
/// When a slice is of another length, or there are queries but no keys.
#[must_use]
pub fn attention(q: &[f32], k: &[f32], v: &[f32], heads: &Heads) -> Vec<f32> {
    attention_on(Isa::best(), Precision::Single, q, k, v, heads)
}

/// The same with both products in numbers of choice. The softmax between them is f32; heads of an odd width are too.
///
/// # Panics
/// As [`attention`].
#[must_use]
pub fn attention_in(precision: Precision, q: &[f32], k: &[f32], v: &[f32], heads: &Heads) -> Vec<f32> {
    attention_on(Isa::best(), precision, q, k, v, heads)
}

fn attention_on(isa: Isa, precision: Precision, q: &[f32], k: &[f32], v: &[f32], heads: &Heads) -> Vec<f32> {
    heads.check(q, k, v);
    // A pair of numbers must not belong to two heads.
    let precision = if heads.dim.is_multiple_of(2) { precision } else { Precision::Single };
    if q.is_empty() {
        return Vec::new();
    }
    let operations = 4 * heads.batch * heads.queries * heads.keys * heads.width();
    let _call = profile::call("attention", operations, 2 * (q.len() + k.len()));
    let blocks = heads.keys.div_ceil(KEYS);
    let pack = |index: usize| Block::pack(precision, k, v, heads, index / blocks, index % blocks);
    let packed: Vec<Block> = if parallel::worth_it(operations) {
        (0..heads.batch * heads.heads * blocks).into_par_iter().map(pack).collect()
    } else {
        (0..heads.batch * heads.heads * blocks).map(pack).collect()
    };
    let len = q.len();
    let q = match precision {
        Precision::Single => Cow::Borrowed(q),
        Precision::Bf16 => Cow::Owned(half::pairs(isa, q, heads.width())),
    };
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let out = Shared(out.as_mut_ptr().cast());
        let tasks = heads.queries.div_ceil(QUERIES);
        parallel::for_each(heads.batch * heads.heads * tasks, operations, |index| {
            let (head, task) = (index / tasks, index % tasks);
            let blocks = &packed[head * blocks..][..blocks];
            let task = Task { isa, precision, q: &q, heads, head, first: task * QUERIES, blocks };
            task.run(&out);
        });
    };
    // SAFETY: every query of every head is in one task, which writes the head's channels of it.
    unsafe { filled(len, fill) }
}

/// Some keys of a head and their values, in the product's order.
struct Block {
    /// `[dim, keys]`.
    keys: Matrix,
    /// `[keys, dim]`.
    values: Matrix,
}

impl Block {
    fn pack(precision: Precision, k: &[f32], v: &[f32], heads: &Heads, head: usize, block: usize) -> Self {
        let (width, first) = (heads.width(), block * KEYS);
        let count = (heads.keys - first).min(KEYS);
        let start = (head / heads.heads * heads.keys + first) * width + head % heads.heads * heads.dim;
        Self {
            keys: Matrix::strided_in(precision, &k[start..], heads.dim, 1, count, width),
            values: Matrix::strided_in(precision, &v[start..], count, width, heads.dim, 1),
        }
    }
}

/// The output, shared by tasks that write different parts of it.
struct Shared(*mut f32);

// SAFETY: no two tasks write the same head of the same query.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// A few queries of one head.
struct Task<'a> {
    isa: Isa,
    precision: Precision,
    /// In the products' numbers.
    q: &'a [f32],
    heads: &'a Heads,
    /// Head and batch element: `batch · heads + head`.
    head: usize,
    first: usize,
    blocks: &'a [Block],
}

impl Task<'_> {
    fn run(&self, out: &Shared) {
        let (heads, width) = (self.heads, self.heads.width());
        let count = (heads.queries - self.first).min(QUERIES);
        let row = self.head / heads.heads * heads.queries + self.first;
        let start = row * width + self.head % heads.heads * heads.dim;
        // SAFETY: the place of the first query's head in the output.
        let out = Out { start: unsafe { out.0.add(start) }, stride: width, accumulate: false };
        let mut scores = vec![0.0; count * heads.keys.min(KEYS)];
        // The scores once they are weights, in the products' numbers.
        let mut weights: Vec<f32> = Vec::new();
        if self.precision == Precision::Bf16 {
            weights.reserve_exact(count * heads.keys.min(KEYS).div_ceil(2));
        }
        let mut rows = vec![Row::NEW; count];
        for (index, block) in self.blocks.iter().enumerate() {
            let first = index * KEYS;
            if heads.causal && first >= self.first + count {
                break;
            }
            let keys = block.keys.columns();
            let scores_out = Out::plain(&mut scores, keys);
            let places = |numbers: usize| self.precision.places(numbers);
            let queries = Left::strided(&self.q[places(start)..], places(width), places(heads.dim));
            self.product(&queries, &block.keys, scores_out, count);
            let sees = (self.first + 1) as isize - first as isize;
            let seen = Seen { first: heads.causal.then_some(sees), keys };
            soften_on(self.isa, &mut scores[..count * keys], &mut rows, &seen, 1.0 / (heads.dim as f32).sqrt());
            if index > 0 {
                self.scale(&out, rows.iter().map(|row| row.decay));
            }
            let out = Out { accumulate: index > 0, ..out };
            match self.precision {
                Precision::Single => self.product(&Left::strided(&scores, keys, keys), &block.values, out, count),
                Precision::Bf16 => {
                    let places = keys.div_ceil(2);
                    half::pairs_on(
                        self.isa,
                        &scores[..count * keys],
                        keys,
                        &mut weights.spare_capacity_mut()[..count * places],
                    );
                    // SAFETY: written by the line before.
                    let weights = unsafe { std::slice::from_raw_parts(weights.as_ptr(), count * places) };
                    self.product(&Left::strided(weights, places, places), &block.values, out, count);
                }
            }
        }
        self.scale(&out, rows.iter().map(|row| 1.0 / row.sum));
    }

    fn product(&self, left: &Left<'_>, matrix: &Matrix, out: Out, rows: usize) {
        let job = Job { left, right: matrix.into(), epilogue: Epilogue::default(), per_shift: 1, out };
        for panel in 0..job.right.panels() {
            run(self.isa, &job, 0..rows, panel);
        }
    }

    /// Multiplies each row of the output by a factor.
    fn scale(&self, out: &Out, factors: impl Iterator<Item = f32>) {
        for (index, factor) in factors.enumerate().filter(|(_, factor)| *factor != 1.0) {
            // SAFETY: the head's channels of a query of this task, which the first product wrote.
            let row = unsafe { std::slice::from_raw_parts_mut(out.start.add(index * out.stride), self.heads.dim) };
            row.iter_mut().for_each(|x| *x *= factor);
        }
    }
}

/// What a query knows of the keys it has met.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// The greatest score.
    greatest: f32,
    /// The sum of the weights, relative to the greatest score's.
    pub(crate) sum: f32,
    /// What the last block's greatest score made of the weights before it.
    decay: f32,
}

impl Row {
    /// A query that has met nobody.
    pub(crate) const NEW: Self = Self { greatest: f32::NEG_INFINITY, sum: 0.0, decay: 0.0 };
}

/// Which keys of a block are seen.
pub(crate) struct Seen {
    /// How many the first query sees, if each query sees one more than the one before it; none below zero.
    pub(crate) first: Option<isize>,
    pub(crate) keys: usize,
}

dispatch!(pub(crate) fn soften_on = soften_body(scores: &mut [f32], rows: &mut [Row], seen: &Seen, scale: f32));

/// Turns scores into weights, relative to the greatest score so far, and updates what the rows know.
#[inline(always)]
fn soften_body<S: Simd>(scores: &mut [f32], rows: &mut [Row], seen: &Seen, scale: f32) {
    for (index, (scores, row)) in scores.chunks_exact_mut(seen.keys).zip(rows).enumerate() {
        let seen_by = |first: isize| (first + index as isize).clamp(0, seen.keys as isize) as usize;
        let count = seen.first.map_or(seen.keys, seen_by);
        let (scores, hidden) = scores.split_at_mut(count);
        hidden.fill(0.0);
        if count == 0 {
            row.decay = 1.0;
            continue;
        }
        let greatest = max(scores, row.greatest);
        let sum = soften_row::<S>(scores, greatest, scale);
        // The first block has no weights before it.
        row.decay = if row.sum == 0.0 { 0.0 } else { maths::exp::<S>((row.greatest - greatest) * scale) };
        row.sum = row.sum * row.decay + sum;
        row.greatest = greatest;
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

/// The greatest number, `least` at least; NaN is passed over, and the differences from the result stay NaN.
#[inline(always)]
fn max(x: &[f32], least: f32) -> f32 {
    let mut lanes = [least; 16];
    let (blocks, rest) = x.as_chunks::<16>();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    rest.iter().chain(&lanes).fold(least, |greatest, &x| if x > greatest { x } else { greatest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::plain_attention;
    use crate::testing::{assert_close, numbers};

    fn case(heads: Heads) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let width = heads.width();
        // Scores with a spread of several units, so that the running maximum has something to do.
        let q = numbers(1, heads.batch * heads.queries * width).iter().map(|x| 4.0 * x).collect();
        (q, numbers(2, heads.batch * heads.keys * width), numbers(3, heads.batch * heads.keys * width))
    }

    #[test]
    fn attention_is_its_definition_for_every_width_of_heads() {
        for isa in Isa::all() {
            for (queries, keys, count, dim) in [
                (5, 77, 8, 8),
                (50, 300, 2, 40),
                (48, 256, 1, 16),
                (97, 33, 2, 64),
                (3, 600, 1, 80),
                (7, 9, 1, 160),
                (1, 1, 1, 1),
            ] {
                let heads = Heads { batch: 2, queries, keys, heads: count, dim, causal: false };
                let (q, k, v) = case(heads);
                let expected = plain_attention(&q, &k, &v, &heads);
                assert_close(&attention_on(isa, Precision::Single, &q, &k, &v, &heads), &expected, 2e-6);
                // Queries and keys are off by one part in 512 each, so scores by a few hundredths.
                assert_close(&attention_on(isa, Precision::Bf16, &q, &k, &v, &heads), &expected, 4e-2);
            }
        }
    }

    #[test]
    fn a_causal_query_sees_nothing_behind_it() {
        for tokens in [1, 47, 77, 300, 600] {
            let heads = Heads { batch: 2, queries: tokens, keys: tokens, heads: 2, dim: 24, causal: true };
            let (q, k, v) = case(heads);
            assert_close(&attention(&q, &k, &v, &heads), &plain_attention(&q, &k, &v, &heads), 2e-6);
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let heads = Heads { batch: 2, queries: 300, keys: 700, heads: 2, dim: 40, causal: false };
        let (q, k, v) = case(heads);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| attention(&q, &k, &v, &heads))
        };
        let one = run(1);
        assert!(run(2) == one && run(3) == one);
    }

    #[test]
    fn a_nan_is_not_lost() {
        let heads = Heads { batch: 1, queries: 3, keys: 300, heads: 1, dim: 8, causal: false };
        let (mut q, mut k, v) = case(heads);
        q[8] = f32::NAN;
        let y = attention(&q, &k, &v, &heads);
        assert!(y[..8].iter().all(|x| x.is_finite()) && y[8..16].iter().all(|x| x.is_nan()));
        k[8 * 290] = f32::INFINITY;
        assert!(attention(&q, &k, &v, &heads).iter().any(|x| x.is_nan()));
    }
}
