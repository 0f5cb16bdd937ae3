//! Scaled dot-product attention in tiles: a few queries meet a few keys at a time, so the matrix of all scores never exists.
//!
//! The running maximum and sum are those of Milakov and Gimelshein 2018, arXiv:1805.02867; the tiling is that of Dao et al.
//! 2022, arXiv:2205.14135. A task's queries are the lanes of its vectors from the scores to the result: a head of any width
//! fills them, keys and values are read where they lie, and no step of the softmax works across lanes.

use std::borrow::Cow;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::fill::filled;
#[cfg(target_arch = "x86_64")]
use crate::isa::Avx512Bf16;
use crate::isa::{Isa, Simd, dispatch};
use crate::matrix::{LINE, Line, Precision};
use crate::tile::{Factors, summed};
use crate::{half, maths, parallel, profile};

/// Most lines of queries of a task, and most vectors of them that go together: with eight keys or channels that is 24 of
/// AVX-512's 32 registers.
const VECTORS: usize = 3;
/// Keys that they meet at a time: their scores stay in the first cache. A constant of the result: it must not depend on the
/// machine. Even, so that no pair is torn apart.
const KEYS: usize = 128;

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
    let (k, v) = match precision {
        Precision::Single => (Cow::Borrowed(k), Cow::Borrowed(v)),
        Precision::Bf16 => (
            Cow::Owned(half::pairs(isa, k, heads.width())),
            Cow::Owned(half::pairs_down(isa, v, heads.keys, heads.width())),
        ),
    };
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let job = Job { precision, q, k: &k, v: &v, heads, out: out.as_mut_ptr().cast() };
        let lines = heads.queries.div_ceil(LINE);
        let tasks = lines.div_ceil(VECTORS);
        parallel::for_each(heads.batch * heads.heads * tasks, operations, |index| {
            let lines = part(lines, tasks, index % tasks);
            let queries = lines.start * LINE..(lines.end * LINE).min(heads.queries);
            job.run(isa, index / tasks, queries);
        });
    };
    // SAFETY: every query of every head is in one task, which writes the head's channels of it.
    unsafe { filled(q.len(), fill) }
}

/// One of so many parts of a whole, no two of which differ by more than one.
fn part(whole: usize, parts: usize, index: usize) -> Range<usize> {
    whole * index / parts..whole * (index + 1) / parts
}

/// An attention to be done, all lengths checked.
struct Job<'a> {
    precision: Precision,
    /// `[batch, queries, width]`.
    q: &'a [f32],
    /// `[batch, keys, width]`; half as wide where two neighbours share a place.
    k: &'a [f32],
    /// `[batch, keys, width]`; half as long where two keys share a place.
    v: &'a [f32],
    heads: &'a Heads,
    out: *mut f32,
}

// SAFETY: the only pointer is the output's, and no two tasks write the same head of the same query.
unsafe impl Sync for Job<'_> {}

impl Job<'_> {
    /// Computes some queries of a head, which is `batch · heads + head`.
    fn run(&self, isa: Isa, head: usize, queries: Range<usize>) {
        match (self.precision, isa) {
            (Precision::Single, _) => run_single(isa, self, head, queries),
            #[cfg(target_arch = "x86_64")]
            (Precision::Bf16, Isa::Avx512Bf16) => {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
                fn pairs(job: &Job<'_>, head: usize, queries: Range<usize>) {
                    run_body::<Avx512Bf16, true>(job, head, queries);
                }
                // SAFETY: that name is given out on machines that have the instructions only.
                unsafe { pairs(self, head, queries) }
            }
            (Precision::Bf16, _) => run_pairs(isa, self, head, queries),
        }
    }
}

dispatch!(fn run_single = run_single_body(job: &Job<'_>, head: usize, queries: Range<usize>));
dispatch!(fn run_pairs = run_pairs_body(job: &Job<'_>, head: usize, queries: Range<usize>));

#[inline(always)]
fn run_single_body<S: Simd>(job: &Job<'_>, head: usize, queries: Range<usize>) {
    run_body::<S, false>(job, head, queries);
}

#[inline(always)]
fn run_pairs_body<S: Simd>(job: &Job<'_>, head: usize, queries: Range<usize>) {
    run_body::<S, true>(job, head, queries);
}

thread_local! {
    /// A group's columns.
    static SCRATCH: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// A task: its queries in groups of up to three vectors. With `PAIRS` each place of a product's factors holds two numbers.
#[inline(always)]
fn run_body<S: Simd, const PAIRS: bool>(job: &Job<'_>, head: usize, queries: Range<usize>) {
    let mut scratch = SCRATCH.take();
    let vectors = queries.len().div_ceil(S::LANES);
    let groups = vectors.div_ceil(VECTORS);
    for group in 0..groups {
        let vectors = part(vectors, groups, group);
        let first = queries.start + vectors.start * S::LANES;
        let group = Group { job, head, queries: first..(first + vectors.len() * S::LANES).min(queries.end) };
        match vectors.len() {
            3 => group.run::<S, PAIRS, 3>(&mut scratch),
            2 => group.run::<S, PAIRS, 2>(&mut scratch),
            _ => group.run::<S, PAIRS, 1>(&mut scratch),
        }
    }
    SCRATCH.set(scratch);
}

/// Queries of one head that go together, one a lane of a few vectors.
struct Group<'a> {
    job: &'a Job<'a>,
    /// `batch · heads + head`.
    head: usize,
    queries: Range<usize>,
}

impl Group<'_> {
    #[inline(always)]
    fn run<S: Simd, const PAIRS: bool, const N: usize>(&self, scratch: &mut Vec<Line>) {
        let (heads, lanes) = (self.job.heads, N * S::LANES);
        let [queries, sums, scores, factors] =
            rooms(scratch, [heads.dim * lanes, heads.dim * lanes, KEYS * lanes, heads.dim]);
        self.turn_queries::<S, PAIRS>(queries, factors, lanes);
        let mut met = Met::<S, N> { greatest: [S::splat(f32::NEG_INFINITY); N], sum: [S::splat(0.0); N] };
        // No query of these sees a later key.
        let seen = if heads.causal { heads.keys.min(self.queries.end) } else { heads.keys };
        for first in (0..seen).step_by(KEYS) {
            let keys = first..(first + KEYS).min(seen);
            let together = if PAIRS { 2 } else { 1 };
            let scores = &mut scores[..keys.len().next_multiple_of(together) * lanes];
            self.score::<S, PAIRS, N>(&keys, queries, scores);
            scores[keys.len() * lanes..].fill(f32::NEG_INFINITY);
            if heads.causal {
                self.hide(&keys, scores, lanes);
            }
            let decay = met.soften::<PAIRS>(scores);
            self.add::<S, PAIRS, N>(&keys, scores, sums, (first > 0).then_some(decay));
        }
        self.finish(&met, sums);
    }

    /// The batch element, and the first channel of the head.
    fn place(&self) -> (usize, usize) {
        let heads = self.job.heads;
        (self.head / heads.heads, self.head % heads.heads * heads.dim)
    }

    /// The queries as columns, `[dim, lanes]`, so scaled that their products with keys are powers of two; zeros in lanes
    /// that are left over.
    #[inline(always)]
    fn turn_queries<S: Simd, const PAIRS: bool>(&self, queries: &mut [f32], factors: &mut [f32], lanes: usize) {
        let (heads, (batch, channel)) = (self.job.heads, self.place());
        factors.fill(std::f32::consts::LOG2_E / (heads.dim as f32).sqrt());
        let (width, count) = (heads.width(), self.queries.len());
        let from = &self.job.q[(batch * heads.queries + self.queries.start) * width + channel..];
        assert!(from.len() >= (count - 1) * width + heads.dim && queries.len() == heads.dim * lanes);
        // SAFETY: as many rows and columns as were checked.
        unsafe { turn::<S>(from.as_ptr(), width, (count, heads.dim), factors, queries.as_mut_ptr(), lanes) };
        if count < lanes {
            queries.chunks_exact_mut(lanes).for_each(|row| row[count..].fill(0.0));
        }
        if PAIRS {
            let start = queries.as_mut_ptr();
            for place in (0..heads.dim / 2 * lanes).step_by(S::LANES) {
                let first = place + place / lanes * lanes;
                // SAFETY: both rows are among the queries', and the pair's place is not behind them.
                unsafe {
                    S::store(start.add(place), S::pair(S::load(start.add(first)), S::load(start.add(first + lanes))))
                };
            }
        }
    }

    /// The products of keys with the queries, `[keys, lanes]`.
    #[inline(always)]
    fn score<S: Simd, const PAIRS: bool, const N: usize>(
        &self,
        keys: &Range<usize>,
        queries: &[f32],
        scores: &mut [f32],
    ) {
        let (heads, (batch, channel), lanes) = (self.job.heads, self.place(), N * S::LANES);
        let places = |numbers: usize| self.job.precision.places(numbers);
        let (width, depth) = (places(heads.width()), places(heads.dim));
        let left = &self.job.k[(batch * heads.keys + keys.start) * width + places(channel)..];
        assert!(left.len() >= (keys.len() - 1) * width + depth, "keys of the head");
        assert!(queries.len() >= depth * lanes && scores.len() >= keys.len() * lanes, "room for the scores");
        let factors =
            Factors { left: left.as_ptr(), apart: width, along: 1, right: queries.as_ptr(), width: lanes, depth };
        // SAFETY: all rows of both factors and of the scores were checked.
        unsafe { multiply::<S, PAIRS, N>(&factors, keys.len(), scores.as_mut_ptr(), None) };
    }

    /// What a query must not see gets the score of what does not count.
    fn hide(&self, keys: &Range<usize>, scores: &mut [f32], lanes: usize) {
        for (key, scores) in keys.clone().zip(scores.chunks_exact_mut(lanes)) {
            scores[..key.saturating_sub(self.queries.start).min(lanes)].fill(f32::NEG_INFINITY);
        }
    }

    /// Adds the products of values with their weights to as much as is kept of the sums, `[dim, lanes]`.
    #[inline(always)]
    fn add<S: Simd, const PAIRS: bool, const N: usize>(
        &self,
        keys: &Range<usize>,
        weights: &[f32],
        sums: &mut [f32],
        keep: Option<[S::Vector; N]>,
    ) {
        let (heads, (batch, channel), lanes) = (self.job.heads, self.place(), N * S::LANES);
        let places = |keys: usize| self.job.precision.places(keys);
        let (width, depth) = (heads.width(), places(keys.len()));
        let left = &self.job.v[(batch * places(heads.keys) + places(keys.start)) * width + channel..];
        assert!(left.len() >= (depth - 1) * width + heads.dim, "values of the head");
        assert!(weights.len() >= depth * lanes && sums.len() == heads.dim * lanes, "weights of every value");
        let factors =
            Factors { left: left.as_ptr(), apart: 1, along: width, right: weights.as_ptr(), width: lanes, depth };
        // SAFETY: all rows of both factors and of the sums were checked.
        unsafe { multiply::<S, PAIRS, N>(&factors, heads.dim, sums.as_mut_ptr(), keep) };
    }

    /// Writes the sums, divided by those of the weights, as rows of the output.
    #[inline(always)]
    fn finish<S: Simd, const N: usize>(&self, met: &Met<S, N>, sums: &[f32]) {
        let (heads, (batch, channel), lanes) = (self.job.heads, self.place(), N * S::LANES);
        let mut factors = [0.0; VECTORS * LINE];
        for (n, sum) in met.sum.into_iter().enumerate() {
            // SAFETY: there is room for three of the longest vectors.
            unsafe { S::store(factors[n * S::LANES..].as_mut_ptr(), sum) };
        }
        factors.iter_mut().for_each(|factor| *factor = 1.0 / *factor);
        let start = (batch * heads.queries + self.queries.start) * heads.width() + channel;
        assert!(sums.len() == heads.dim * lanes && self.queries.len() <= lanes, "sums of every query");
        // SAFETY: the head's channels of these queries are this group's alone.
        unsafe {
            let to = self.job.out.add(start);
            turn::<S>(sums.as_ptr(), lanes, (heads.dim, self.queries.len()), &factors, to, heads.width());
        }
    }
}

/// What queries know of the keys that they have met.
struct Met<S: Simd, const N: usize> {
    /// The greatest score.
    greatest: [S::Vector; N],
    /// The sum of the weights, relative to the greatest score's.
    sum: [S::Vector; N],
}

impl<S: Simd, const N: usize> Met<S, N> {
    /// Turns more keys' scores, `[keys, lanes]`, into weights relative to the greatest score so far; with `PAIRS` each two rows
    /// become one. Returns what is left of the weights before them. NaN is passed over among the scores, and stays among the
    /// weights.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "an iterator over the sums would move them to memory")]
    fn soften<const PAIRS: bool>(&mut self, scores: &mut [f32]) -> [S::Vector; N] {
        let (row, before) = (N * S::LANES, self.greatest);
        for scores in scores.chunks_exact(row) {
            for n in 0..N {
                // SAFETY: a row is `N` vectors.
                let score = unsafe { S::load(scores.as_ptr().add(n * S::LANES)) };
                self.greatest[n] = S::max(score, self.greatest[n]);
            }
        }
        let (mut decay, mut sum) = ([S::splat(0.0); N], [S::splat(0.0); N]);
        for n in 0..N {
            decay[n] = maths::exp2::<S>(S::sub(before[n], self.greatest[n]));
        }
        let together = if PAIRS { 2 } else { 1 };
        let start = scores.as_mut_ptr();
        for place in 0..scores.len() / row / together {
            for n in 0..N {
                let mut weights = [S::splat(0.0); 2];
                for key in 0..together {
                    // SAFETY: a vector of one of the rows.
                    let score = unsafe { S::load(start.add(((place * together + key) * N + n) * S::LANES)) };
                    weights[key] = maths::exp2::<S>(S::sub(score, self.greatest[n]));
                    sum[n] = S::add(sum[n], weights[key]);
                }
                let weight = if PAIRS { S::pair(weights[0], weights[1]) } else { weights[0] };
                // SAFETY: the same row, or one that was read before.
                unsafe { S::store(start.add((place * N + n) * S::LANES), weight) };
            }
        }
        for n in 0..N {
            self.sum[n] = S::fma(self.sum[n], decay[n], sum[n]);
        }
        decay
    }
}

/// So many numbers in each room, which begins on a line; what is in them is left over from before.
fn rooms<const ROOMS: usize>(scratch: &mut Vec<Line>, numbers: [usize; ROOMS]) -> [&mut [f32]; ROOMS] {
    let lines = numbers.map(|numbers| numbers.div_ceil(LINE));
    let all = lines.iter().sum();
    if scratch.len() < all {
        scratch.resize(all, Line([0.0; LINE]));
    }
    let mut rest = &mut scratch[..];
    std::array::from_fn(|room| {
        let (lines, others) = std::mem::take(&mut rest).split_at_mut(lines[room]);
        rest = others;
        // SAFETY: a line is its numbers and nothing else.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), numbers[room]) }
    })
}

/// A product of `rows` rows and `N` vectors of columns, and what is kept of what is there, `[rows, N · lanes]`.
///
/// # Safety
/// The left factor must have `rows` rows of `depth` numbers, the right one `depth` rows of `N` vectors, and `rows` rows of
/// them must be writable at `out`, readable if some of it is kept.
#[inline(always)]
unsafe fn multiply<S: Simd, const PAIRS: bool, const N: usize>(
    factors: &Factors,
    rows: usize,
    out: *mut f32,
    keep: Option<[S::Vector; N]>,
) {
    let tall = N == 1 || S::REGISTERS >= 32;
    let mut row = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while tall && row + 8 <= rows {
            tile::<S, PAIRS, 8, N>(factors, row, out, keep);
            row += 8;
        }
        while row + 4 <= rows {
            tile::<S, PAIRS, 4, N>(factors, row, out, keep);
            row += 4;
        }
        while row < rows {
            tile::<S, PAIRS, 1, N>(factors, row, out, keep);
            row += 1;
        }
    }
}

/// `M` rows of it from `row` on.
///
/// # Safety
/// As [`multiply`], of as many rows.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "an iterator over the sums would move them to memory")]
unsafe fn tile<S: Simd, const PAIRS: bool, const M: usize, const N: usize>(
    factors: &Factors,
    row: usize,
    out: *mut f32,
    keep: Option<[S::Vector; N]>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let factors = Factors { left: factors.left.add(row * factors.apart), ..*factors };
        let sums = summed::<S, PAIRS, M, N>(&factors, [[S::splat(0.0); N]; M]);
        for m in 0..M {
            for n in 0..N {
                let place = out.add(((row + m) * N + n) * S::LANES);
                let sum = match keep {
                    Some(keep) => S::fma(S::load(place), keep[n], sums[m][n]),
                    None => sums[m][n],
                };
                S::store(place, sum);
            }
        }
    }
}

/// Turns `(rows, columns)`, rows of which begin `apart` from one another, each column times its factor, into rows that begin
/// `to_apart` from one another.
///
/// # Safety
/// So many rows and columns must be readable, and writable the other way around.
#[inline(always)]
unsafe fn turn<S: Simd>(
    from: *const f32,
    apart: usize,
    (rows, columns): (usize, usize),
    factors: &[f32],
    to: *mut f32,
    to_apart: usize,
) {
    assert!(factors.len() >= columns, "a factor for every column");
    for column in (0..columns).step_by(4) {
        for row in (0..rows).step_by(4) {
            // SAFETY: the caller's promise; a square of four is inside, or what is inside of it goes number by number.
            unsafe {
                let (from, to) = (from.add(row * apart + column), to.add(column * to_apart + row));
                if row + 4 <= rows && column + 4 <= columns {
                    S::turn(from, apart, factors[column..].as_ptr(), to, to_apart);
                    continue;
                }
                for (m, n) in (0..4).flat_map(|m| (0..4).map(move |n| (m, n))) {
                    if row + m < rows && column + n < columns {
                        *to.add(n * to_apart + m) = *from.add(m * apart + n) * factors[column + n];
                    }
                }
            }
        }
    }
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

    /// Checks both precisions of every instruction set.
    fn check(heads: Heads) {
        let (q, k, v) = case(heads);
        let expected = plain_attention(&q, &k, &v, &heads);
        for isa in Isa::all() {
            assert_close(&attention_on(isa, Precision::Single, &q, &k, &v, &heads), &expected, 2e-6);
            // Queries and keys are off by one part in 512 each, so scores by a few hundredths.
            assert_close(&attention_on(isa, Precision::Bf16, &q, &k, &v, &heads), &expected, 4e-2);
        }
    }

    #[test]
    fn attention_is_its_definition_for_every_width_of_heads() {
        for (queries, keys, heads, dim) in [
            (5, 77, 8, 8),
            (50, 300, 2, 40),
            (48, 256, 1, 16),
            (97, 33, 2, 64),
            (3, 600, 1, 80),
            (7, 9, 1, 160),
            (1, 1, 1, 1),
        ] {
            check(Heads { batch: 2, queries, keys, heads, dim, causal: false });
        }
        // What is left over of tiles of eight and four channels.
        for dim in 1..=17 {
            check(Heads { batch: 1, queries: 19, keys: 130, heads: 3, dim, causal: false });
        }
    }

    #[test]
    fn lanes_without_a_query_and_tiles_without_a_key_change_nothing() {
        for queries in 1..=50 {
            check(Heads { batch: 1, queries, keys: 11, heads: 2, dim: 6, causal: false });
        }
        for keys in [1, 2, 3, 127, 128, 129, 255, 256, 257] {
            check(Heads { batch: 2, queries: 17, keys, heads: 1, dim: 10, causal: false });
        }
    }

    #[test]
    fn a_causal_query_sees_nothing_behind_it() {
        for (queries, keys) in [(1, 1), (47, 47), (77, 77), (300, 300), (600, 600), (100, 60), (60, 100), (20, 1)] {
            check(Heads { batch: 2, queries, keys, heads: 2, dim: 24, causal: true });
        }
        let heads = Heads { batch: 1, queries: 60, keys: 60, heads: 1, dim: 8, causal: true };
        let (q, mut k, mut v) = case(heads);
        (k[8 * 30], v[8 * 30 + 1]) = (f32::NAN, f32::NAN);
        for isa in Isa::all() {
            let y = attention_on(isa, Precision::Single, &q, &k, &v, &heads);
            // A task that ends before the key does not read its value; within a task zero weights meet it.
            assert!(y[..8 * 30].chunks(8).all(|y| y[0].is_finite() && y[2..].iter().all(|y| y.is_finite())));
            assert!(y[8 * 30..].iter().all(|y| y.is_nan()));
        }
    }

    #[test]
    fn a_greater_score_outweighs_all_before_it() {
        // Each block's greatest score is 32 above the last one's: older weights decay to nothing.
        let heads = Heads { batch: 1, queries: 20, keys: 700, heads: 1, dim: 4, causal: false };
        let (q, v) = (vec![0.5; 20 * 4], numbers(1, 700 * 4));
        let k: Vec<f32> = (0..700).flat_map(|key| [key as f32 / 4.0; 4]).collect();
        let expected = plain_attention(&q, &k, &v, &heads);
        // Scores of 175 are off by some 1e-5.
        for isa in Isa::all() {
            assert_close(&attention_on(isa, Precision::Single, &q, &k, &v, &heads), &expected, 2e-5);
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
        let (q, k, v) = case(heads);
        // Whatever its sign and its payload.
        for (isa, bits) in
            Isa::all().into_iter().flat_map(|isa| [0x7fc0_0000, 0x7f80_0001, 0xffff_ffff].map(|bits| (isa, bits)))
        {
            for precision in [Precision::Single, Precision::Bf16] {
                let (mut q, mut k, mut v) = (q.clone(), k.clone(), v.clone());
                q[8] = f32::from_bits(bits);
                let y = attention_on(isa, precision, &q, &k, &v, &heads);
                assert!([&y[..8], &y[16..]].concat().iter().all(|x| x.is_finite()), "{isa:?}");
                assert!(y[8..16].iter().all(|x| x.is_nan()), "{isa:?}");
                v[8 * 299 + 3] = f32::from_bits(bits);
                let y = attention_on(isa, precision, &q, &k, &v, &heads);
                assert!(y[3].is_nan() && y[19].is_nan() && y[2].is_finite(), "{isa:?}");
                (q[0], k[8 * 290]) = (1.0, f32::INFINITY);
                assert!(attention_on(isa, precision, &q, &k, &v, &heads)[0].is_nan(), "{isa:?}");
            }
        }
    }
}
