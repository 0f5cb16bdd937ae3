//! 3x3 convolutions of stride 1 with 16 products for four outputs instead of 36: Winograd's minimal filtering F(2x2, 3x3),
//! Lavin and Gray 2015, arXiv:1509.09308.
//!
//! A task takes some tiles of the picture and a panel of columns, and does all of it in its cache: it transforms the weights
//! of a few channels, the picture's squares of those channels, multiplies, and transforms the sums back at the end. Nothing
//! is kept between calls, so it costs no memory. The transforms add and halve only; errors stay those of sums of f32. In bf16,
//! squares and weights are transformed in f32 and then rounded, and their products summed in f32.

use std::cell::Cell;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::isa::Avx512Bf16;
use crate::isa::{Isa, Simd, dispatch};
use crate::matrix::{LINE, Line, PANEL, Precision};
use crate::product::{Epilogue, Window};
use crate::right::Right;
use crate::tile::{Factors, up_to_six};
use crate::{half, parallel};

/// Products of a tile: squares of 4x4 inputs.
const POINTS: usize = 16;
/// Most tiles of a task.
const TILES: usize = 66;
/// Tiles whose squares are transformed together.
const SOME: usize = 24;
/// Rows of the products' registers.
const ROWS: usize = 6;
/// Most places of channels, a pair's in bf16, that are summed before the next are transformed. A constant of the result: it must
/// not depend on the machine.
const CHANNELS: usize = 96;
/// Fewer tiles do not pay for the weights' transform.
const FEWEST: usize = 8;

/// Whether this way is open, and shorter.
pub(crate) fn suits(window: &Window, right: &Right<'_>) -> bool {
    window.kernel == 3
        && window.stride == 1
        && tiles(window) >= FEWEST
        && match right.precision() {
            Precision::Single => right.channels().is_multiple_of(LINE),
            // Two vectors become one of pairs.
            Precision::Bf16 => right.input().is_multiple_of(2 * LINE),
        }
}

/// Tiles of 2x2 outputs.
fn tiles(window: &Window) -> usize {
    let (height, width) = window.output();
    window.batch * height.div_ceil(2) * width.div_ceil(2)
}

/// A convolution to be done, all lengths checked.
pub(crate) struct Job<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) window: &'a Window,
    pub(crate) right: Right<'a>,
    pub(crate) epilogue: Epilogue<'a>,
    /// A pixel's worth of zeros.
    pub(crate) zeros: &'a [f32],
    /// Room for every pixel of the output.
    pub(crate) out: *mut f32,
}

// SAFETY: the only pointer is the output's, and no two tasks write the same columns of the same pixel.
unsafe impl Sync for Job<'_> {}

/// Writes every number of the output.
pub(crate) fn convolve(isa: Isa, job: &Job<'_>) {
    let (tiles, panels) = (tiles(job.window), job.right.panels());
    let operations = 2 * POINTS * tiles * job.right.columns() * job.right.input();
    // Large tasks share the weights' transform among many tiles; several a thread even out their ends.
    let wanted = tiles * panels / (4 * rayon::current_num_threads());
    let block = wanted.clamp(2 * ROWS, TILES).next_multiple_of(ROWS).min(tiles);
    let blocks = tiles.div_ceil(block);
    parallel::for_each(blocks * panels, operations, |task| {
        let first = task % blocks * block;
        run(isa, job, first..(first + block).min(tiles), task / blocks);
    });
}

thread_local! {
    /// What a task works with, so that it need not be asked for each time.
    static SPACE: Cell<[Vec<Line>; 4]> = const { Cell::new([const { Vec::new() }; 4]) };
}

/// The first so many numbers of some lines, which become as many as it takes.
#[inline(always)]
fn room(lines: &mut Vec<Line>, numbers: usize) -> &mut [f32] {
    if lines.len() * LINE < numbers {
        lines.resize(numbers.div_ceil(LINE), Line([0.0; LINE]));
    }
    // SAFETY: a line is sixteen f32 and nothing else, and there are lines for all of the numbers.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), numbers) }
}

/// Some tiles and a panel of columns.
fn run(isa: Isa, job: &Job<'_>, tiles: Range<usize>, panel: usize) {
    match (job.right.precision(), isa) {
        (Precision::Single, _) => run_single(isa, job, tiles, panel),
        #[cfg(target_arch = "x86_64")]
        (Precision::Bf16, Isa::Avx512Bf16) => {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
            fn pairs(job: &Job<'_>, tiles: Range<usize>, panel: usize) {
                run_body::<Avx512Bf16, true>(job, tiles, panel);
            }
            // SAFETY: that name is given out on machines that have the instructions only.
            unsafe { pairs(job, tiles, panel) }
        }
        (Precision::Bf16, _) => run_pairs(isa, job, tiles, panel),
    }
}

dispatch!(fn run_single = run_single_body(job: &Job<'_>, tiles: Range<usize>, panel: usize));
dispatch!(fn run_pairs = run_pairs_body(job: &Job<'_>, tiles: Range<usize>, panel: usize));

#[inline(always)]
fn run_single_body<S: Simd>(job: &Job<'_>, tiles: Range<usize>, panel: usize) {
    run_body::<S, false>(job, tiles, panel);
}

#[inline(always)]
fn run_pairs_body<S: Simd>(job: &Job<'_>, tiles: Range<usize>, panel: usize) {
    run_body::<S, true>(job, tiles, panel);
}

#[inline(always)]
fn run_body<S: Simd, const PAIRS: bool>(job: &Job<'_>, tiles: Range<usize>, panel: usize) {
    let (width, channels) = (job.right.width(panel), job.right.input());
    let [mut scratch, mut weights, mut squares, mut sums] = SPACE.take();
    // Numbers of a place, and what turns of about the same length are a multiple of.
    let (per_place, unit) = if PAIRS { (2, 2 * LINE) } else { (1, LINE) };
    let most = channels.div_ceil(channels.div_ceil(CHANNELS * per_place)).next_multiple_of(unit);
    {
        let weights = room(&mut weights, POINTS * most / per_place * width);
        let squares = room(&mut squares, POINTS * SOME * most / per_place);
        let sums = room(&mut sums, POINTS * tiles.len() * width);
        for start in (0..channels).step_by(most) {
            let count = most.min(channels - start);
            let places = count / per_place;
            if PAIRS {
                transform_pairs::<S>(job, panel, start / 2..(start + count) / 2, weights, &mut scratch);
            } else {
                transform_weights::<S>(job, panel, start..start + count, weights, &mut scratch);
            }
            for first in (0..tiles.len()).step_by(SOME) {
                let some = SOME.min(tiles.len() - first);
                for tile in 0..some {
                    let square = Square { tile: tiles.start + first + tile, channels: start..start + count, some };
                    transform_square::<S, PAIRS>(job, &square, &mut squares[tile * places..]);
                }
                for point in 0..POINTS {
                    let left = &squares[point * some * places..][..some * places];
                    let right = &weights[point * places * width..][..places * width];
                    let out = &mut sums[(point * tiles.len() + first) * width..][..some * width];
                    multiply::<S, PAIRS>(left, right, out, places, width, start > 0);
                }
            }
        }
        for tile in 0..tiles.len() {
            finish::<S>(job, tiles.start + tile, panel, &sums[tile * width..], tiles.len() * width, width);
        }
    }
    SPACE.set([scratch, weights, squares, sums]);
}

/// `G g Gᵀ` of every 3x3 kernel of some channels, to `[point, channel, column]`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "keeps the vectors in registers")]
fn transform_weights<S: Simd>(
    job: &Job<'_>,
    panel: usize,
    channels: Range<usize>,
    weights: &mut [f32],
    scratch: &mut Vec<Line>,
) {
    let (width, count, all) = (job.right.width(panel), channels.len(), job.right.channels());
    assert!(weights.len() >= POINTS * count * width, "room for all points");
    for tap in 0..9 {
        let rows = tap * all + channels.start..tap * all + channels.end;
        let rows = job.right.rows::<S>(panel, 0, width, rows, scratch);
        // The taps lie where the points of their row and column will be, until all nine are there.
        let place = (tap / 3 * 4 + tap % 3) * count * width;
        for channel in 0..count {
            for column in (0..width).step_by(S::LANES) {
                // SAFETY: the right factor has `count` rows of `width` numbers here, and so have the weights at the place.
                unsafe {
                    let number = S::load(rows.start.add(channel * rows.width + column));
                    S::store(weights.as_mut_ptr().add(place + channel * width + column), number);
                }
            }
        }
    }
    for place in (0..count * width).step_by(S::LANES) {
        // SAFETY: every point has `count * width` numbers, which the lanes divide.
        unsafe {
            let start = weights.as_mut_ptr().add(place);
            let at = |point: usize| start.add(point * count * width);
            let rows: [[S::Vector; 4]; 3] =
                std::array::from_fn(|row| spread::<S>(std::array::from_fn(|column| S::load(at(row * 4 + column)))));
            for column in 0..4 {
                let points = spread::<S>([rows[0][column], rows[1][column], rows[2][column]]);
                for row in 0..4 {
                    S::store(at(row * 4 + column), points[row]);
                }
            }
        }
    }
}

/// One column or row of `G g Gᵀ`: 1 0 0, ½ ½ ½, ½ -½ ½, 0 0 1.
#[inline(always)]
fn spread<S: Simd>([a, b, c]: [S::Vector; 3]) -> [S::Vector; 4] {
    let (half, ends) = (S::splat(0.5), S::add(a, c));
    [a, S::mul(half, S::add(ends, b)), S::mul(half, S::sub(ends, b)), c]
}

/// `G g Gᵀ` of every 3x3 kernel of some places, each of two channels in bf16, to `[point, place, column]` in pairs.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "keeps the vectors in registers")]
fn transform_pairs<S: Simd>(
    job: &Job<'_>,
    panel: usize,
    places: Range<usize>,
    weights: &mut [f32],
    scratch: &mut Vec<Line>,
) {
    let (width, count, all) = (job.right.width(panel), places.len(), job.right.channels());
    assert!(weights.len() >= POINTS * count * width, "room for all points");
    let rows = job.right.rows::<S>(panel, 0, width, places.start..8 * all + places.end, scratch);
    // A product with one and zero takes a pair apart, exactly.
    let halves = [half::pair(1.0, 0.0), half::pair(0.0, 1.0)].map(|bits| S::splat(f32::from_bits(bits)));
    let zero = S::splat(0.0);
    for place in 0..count {
        for column in (0..width).step_by(S::LANES) {
            // SAFETY: the rows of the right factor go from the first tap's first place to the last one's last, each of `width`
            // numbers, which the lanes divide; every point has `count` rows of as many.
            unsafe {
                let mut taps = [zero; 9];
                for tap in 0..9 {
                    taps[tap] = S::load(rows.start.add((tap * all + place) * rows.width + column));
                }
                let (first, second) = (spread_taps::<S>(&taps, halves[0]), spread_taps::<S>(&taps, halves[1]));
                for across in 0..4 {
                    for down in 0..4 {
                        let pairs = S::pair(first[across][down], second[across][down]);
                        let point = down * 4 + across;
                        S::store(weights.as_mut_ptr().add((point * count + place) * width + column), pairs);
                    }
                }
            }
        }
    }
}

/// `G g Gᵀ` of one of the channels in pairs of them, column by column; `which` takes it out.
#[inline(always)]
fn spread_taps<S: Simd>(taps: &[S::Vector; 9], which: S::Vector) -> [[S::Vector; 4]; 4] {
    let zero = S::splat(0.0);
    let mut rows = [[zero; 4]; 3];
    for row in 0..3 {
        let [a, b, c] = [taps[row * 3], taps[row * 3 + 1], taps[row * 3 + 2]];
        rows[row] = spread::<S>([S::dot(which, a, zero), S::dot(which, b, zero), S::dot(which, c, zero)]);
    }
    let mut columns = [[zero; 4]; 4];
    for column in 0..4 {
        columns[column] = spread::<S>([rows[0][column], rows[1][column], rows[2][column]]);
    }
    columns
}

/// Some channels of a tile's square of inputs; `some` tiles lie side by side.
struct Square {
    tile: usize,
    channels: Range<usize>,
    some: usize,
}

/// Where a tile's outputs begin.
struct Place {
    batch: usize,
    y: usize,
    x: usize,
}

impl Place {
    #[inline(always)]
    fn of(window: &Window, tile: usize) -> Self {
        let (height, width) = window.output();
        let (across, down) = (width.div_ceil(2), height.div_ceil(2));
        Self { batch: tile / across / down, y: tile / across % down * 2, x: tile % across * 2 }
    }
}

/// `Bᵀ d B` of a tile's square of 4x4 inputs, some channels of it, to `[point, tile, place]`.
#[inline(always)]
fn transform_square<S: Simd, const PAIRS: bool>(job: &Job<'_>, square: &Square, squares: &mut [f32]) {
    let (count, some) = (square.channels.len(), square.some);
    let places = if PAIRS { count / 2 } else { count };
    let inputs = inputs(job, square);
    assert!(squares.len() >= 15 * some * places + places, "room for the last point");
    let step = if PAIRS { 2 * S::LANES } else { S::LANES };
    for channel in (0..count).step_by(step) {
        // SAFETY: each input has `count` numbers, which the lanes divide, for pairs twice the lanes.
        let first = unsafe { mixed::<S>(&inputs, channel) };
        // SAFETY: as above.
        let second = if PAIRS { unsafe { mixed::<S>(&inputs, channel + S::LANES) } } else { first };
        for column in 0..4 {
            for row in 0..4 {
                let (first, second) = (first[column][row], second[column][row]);
                let numbers = if PAIRS { S::neighbours(first, second) } else { first };
                let place = if PAIRS { channel / 2 } else { channel };
                // SAFETY: the lanes divide the places, and each point has as many in the squares.
                unsafe { S::store(squares.as_mut_ptr().add((row * 4 + column) * some * places + place), numbers) };
            }
        }
    }
}

/// `Bᵀ d B` of some channels of a square, column by column.
///
/// # Safety
/// Every input must have as many numbers from the channel on as a vector has.
#[inline(always)]
unsafe fn mixed<S: Simd>(inputs: &[*const f32; POINTS], channel: usize) -> [[S::Vector; 4]; 4] {
    let mut rows = [[S::splat(0.0); 4]; 4];
    for row in 0..4 {
        // SAFETY: the caller's promise.
        let [a, b, c, d] = unsafe {
            [
                S::load(inputs[row * 4].add(channel)),
                S::load(inputs[row * 4 + 1].add(channel)),
                S::load(inputs[row * 4 + 2].add(channel)),
                S::load(inputs[row * 4 + 3].add(channel)),
            ]
        };
        rows[row] = mix::<S>([a, b, c, d]);
    }
    let mut columns = [[S::splat(0.0); 4]; 4];
    for column in 0..4 {
        columns[column] = mix::<S>([rows[0][column], rows[1][column], rows[2][column], rows[3][column]]);
    }
    columns
}

/// One column or row of `Bᵀ d B`: 1 0 -1 0, 0 1 1 0, 0 -1 1 0, 0 1 0 -1.
#[inline(always)]
fn mix<S: Simd>([a, b, c, d]: [S::Vector; 4]) -> [S::Vector; 4] {
    [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)]
}

/// Where the channels of each input of a square lie.
#[inline(always)]
fn inputs(job: &Job<'_>, square: &Square) -> [*const f32; POINTS] {
    let (window, channels) = (job.window, job.right.input());
    let place = Place::of(window, square.tile);
    std::array::from_fn(|point| {
        let (y, x) = (place.y + point / 4, place.x + point % 4);
        let inside = (window.before..window.before + window.height).contains(&y)
            && (window.before..window.before + window.width).contains(&x);
        let pixel = if inside {
            let line = place.batch * window.height + y - window.before;
            &job.x[(line * window.width + x - window.before) * channels..][..channels]
        } else {
            job.zeros
        };
        pixel[square.channels.clone()].as_ptr()
    })
}

/// `left · right`, `[rows, depth]` and `[depth, width]`, added to what is there if `load`.
#[inline(always)]
fn multiply<S: Simd, const PAIRS: bool>(
    left: &[f32],
    right: &[f32],
    out: &mut [f32],
    depth: usize,
    width: usize,
    load: bool,
) {
    match (S::LANES, width) {
        (LINE, 64) => rows::<S, PAIRS, 4>(left, right, out, depth, width, 0, load),
        (LINE, 48) => rows::<S, PAIRS, 3>(left, right, out, depth, width, 0, load),
        (LINE, 32) => rows::<S, PAIRS, 2>(left, right, out, depth, width, 0, load),
        (LINE, _) => rows::<S, PAIRS, 1>(left, right, out, depth, width, 0, load),
        (8, _) => {
            for column in (0..width).step_by(LINE) {
                rows::<S, PAIRS, 2>(left, right, out, depth, width, column, load);
            }
        }
        _ => {
            for column in (0..width).step_by(LINE) {
                rows::<S, PAIRS, 4>(left, right, out, depth, width, column, load);
            }
        }
    }
}

#[inline(always)]
fn rows<S: Simd, const PAIRS: bool, const N: usize>(
    left: &[f32],
    right: &[f32],
    out: &mut [f32],
    depth: usize,
    width: usize,
    column: usize,
    load: bool,
) {
    assert!(right.len() == depth * width && column + N * S::LANES <= width, "columns of the right factor");
    for (left, out) in left.chunks(ROWS * depth).zip(out.chunks_mut(ROWS * width)) {
        let rows = left.len() / depth;
        assert!(left.len() == rows * depth && out.len() == rows * width, "whole rows");
        let factors =
            Factors { left: left.as_ptr(), apart: depth, along: 1, right: right[column..].as_ptr(), width, depth };
        // SAFETY: so many rows of the left factor and of the output are there, and every row of the right one has the
        // columns from `column` on that were checked above.
        unsafe { up_to_six::<S, PAIRS, N>(&factors, rows, out[column..].as_mut_ptr(), width, load) };
    }
}

/// `Aᵀ m A` of a tile's sums, and the epilogue, to its four outputs or as many as the picture has; `apart` numbers lie between
/// the sums of two points.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "keeps the vectors in registers")]
fn finish<S: Simd>(job: &Job<'_>, tile: usize, panel: usize, sums: &[f32], apart: usize, width: usize) {
    let (window, columns) = (job.window, job.right.columns());
    let ((height, across), place) = (window.output(), Place::of(window, tile));
    assert!(sums.len() >= 15 * apart + width, "sums of every point");
    // 1 1 1 0, 0 1 -1 -1
    let mix = |[a, b, c, d]: [S::Vector; 4]| [S::add(S::add(a, b), c), S::sub(S::sub(b, c), d)];
    for start in (0..width).step_by(S::LANES) {
        let first = panel * PANEL + start;
        let valid = columns.saturating_sub(first).min(S::LANES);
        if valid == 0 {
            break;
        }
        // SAFETY: each point has `width` numbers, which the lanes divide.
        let rows: [[S::Vector; 2]; 4] = std::array::from_fn(|row| unsafe {
            mix(std::array::from_fn(|column| S::load(sums.as_ptr().add((row * 4 + column) * apart + start))))
        });
        for column in 0..2 {
            let outputs = mix([rows[0][column], rows[1][column], rows[2][column], rows[3][column]]);
            for row in 0..2 {
                let mut output = outputs[row];
                let (y, x) = (place.y + row, place.x + column);
                if y >= height || x >= across {
                    continue;
                }
                let pixel = (place.batch * height + y) * across + x;
                let mut add = |numbers: Option<&[f32]>, row: usize| {
                    if let Some(numbers) = numbers {
                        output = S::add(output, read::<S>(&numbers[row * columns + first..][..valid]));
                    }
                };
                add(job.epilogue.bias, 0);
                add(job.epilogue.shift, place.batch);
                add(job.epilogue.residual, pixel);
                // SAFETY: the pixel is one of the output, and these columns of it are this task's alone.
                unsafe { write::<S>(job.out.add(pixel * columns + first), output, valid) };
            }
        }
    }
}

/// As many numbers as a vector has, zeros for those that are missing.
#[inline(always)]
fn read<S: Simd>(numbers: &[f32]) -> S::Vector {
    if numbers.len() >= S::LANES {
        // SAFETY: there are enough of them.
        return unsafe { S::load(numbers.as_ptr()) };
    }
    let mut padded = [0.0; LINE];
    padded[..numbers.len()].copy_from_slice(numbers);
    // SAFETY: no vector is longer than a line.
    unsafe { S::load(padded.as_ptr()) }
}

/// # Safety
/// `valid` numbers must be writable.
#[inline(always)]
unsafe fn write<S: Simd>(to: *mut f32, vector: S::Vector, valid: usize) {
    if valid == S::LANES {
        // SAFETY: the caller's promise.
        return unsafe { S::store(to, vector) };
    }
    let mut padded = [0.0; LINE];
    // SAFETY: no vector is longer than a line; then the caller's promise.
    unsafe {
        S::store(padded.as_mut_ptr(), vector);
        std::ptr::copy_nonoverlapping(padded.as_ptr(), to, valid);
    }
}
