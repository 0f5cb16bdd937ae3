//! 3x3 convolutions of stride 1 with 16 products for four outputs instead of 36: Winograd's minimal filtering F(2x2, 3x3),
//! Lavin and Gray 2015, arXiv:1509.09308.
//!
//! A task takes some tiles of the picture and a panel of columns, and does all of it in its cache: it transforms the weights
//! of a few channels, the picture's squares of those channels, multiplies, and transforms the sums back at the end. Nothing
//! is kept between calls, so it costs no memory. The transforms add and halve only; errors stay those of sums of f32.

use std::cell::Cell;
use std::ops::Range;

use crate::isa::{Isa, Simd, dispatch};
use crate::matrix::{LINE, Line, PANEL, Precision};
use crate::parallel;
use crate::product::{Epilogue, Window};
use crate::right::Right;
use crate::tile::{Factors, up_to_six};

/// Products of a tile: squares of 4x4 inputs.
const POINTS: usize = 16;
/// Most tiles of a task.
const TILES: usize = 66;
/// Tiles whose squares are transformed together.
const SOME: usize = 24;
/// Rows of the products' registers.
const ROWS: usize = 6;
/// Most channels that are summed before the next are transformed. A constant of the result: it must not depend on the machine.
const CHANNELS: usize = 96;
/// Fewer tiles do not pay for the weights' transform.
const FEWEST: usize = 8;

/// Whether this way is open, and shorter.
pub(crate) fn suits(window: &Window, right: &Right<'_>) -> bool {
    window.kernel == 3
        && window.stride == 1
        && right.precision() == Precision::Single
        && right.channels().is_multiple_of(LINE)
        && tiles(window) >= FEWEST
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
    let operations = 2 * POINTS * tiles * job.right.columns() * job.right.channels();
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

dispatch!(fn run = run_body(job: &Job<'_>, tiles: Range<usize>, panel: usize));

#[inline(always)]
fn run_body<S: Simd>(job: &Job<'_>, tiles: Range<usize>, panel: usize) {
    let (width, channels) = (job.right.width(panel), job.right.channels());
    let [mut scratch, mut weights, mut squares, mut sums] = SPACE.take();
    // Turns of about the same length.
    let most = channels.div_ceil(channels.div_ceil(CHANNELS)).next_multiple_of(LINE);
    {
        let weights = room(&mut weights, POINTS * most * width);
        let squares = room(&mut squares, POINTS * SOME * most);
        let sums = room(&mut sums, POINTS * tiles.len() * width);
        for start in (0..channels).step_by(most) {
            let count = most.min(channels - start);
            transform_weights::<S>(job, panel, start..start + count, weights, &mut scratch);
            for first in (0..tiles.len()).step_by(SOME) {
                let some = SOME.min(tiles.len() - first);
                for tile in 0..some {
                    transform_square::<S>(
                        job,
                        tiles.start + first + tile,
                        start,
                        count,
                        &mut squares[tile * count..],
                        some,
                    );
                }
                for point in 0..POINTS {
                    let left = &squares[point * some * count..][..some * count];
                    let right = &weights[point * count * width..][..count * width];
                    let out = &mut sums[(point * tiles.len() + first) * width..][..some * width];
                    multiply::<S>(left, right, out, count, width, start > 0);
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
    let half = S::splat(0.5);
    // 1 0 0, ½ ½ ½, ½ -½ ½, 0 0 1
    let spread = |[a, b, c]: [S::Vector; 3]| {
        let ends = S::add(a, c);
        [a, S::mul(half, S::add(ends, b)), S::mul(half, S::sub(ends, b)), c]
    };
    for place in (0..count * width).step_by(S::LANES) {
        // SAFETY: every point has `count * width` numbers, which the lanes divide.
        unsafe {
            let start = weights.as_mut_ptr().add(place);
            let at = |point: usize| start.add(point * count * width);
            let rows: [[S::Vector; 4]; 3] =
                std::array::from_fn(|row| spread(std::array::from_fn(|column| S::load(at(row * 4 + column)))));
            for column in 0..4 {
                let points = spread([rows[0][column], rows[1][column], rows[2][column]]);
                for row in 0..4 {
                    S::store(at(row * 4 + column), points[row]);
                }
            }
        }
    }
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

/// `Bᵀ d B` of a tile's square of 4x4 inputs, some channels of it, to `[point, tile, channel]`; `some` tiles lie side by side.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "keeps the vectors in registers")]
fn transform_square<S: Simd>(job: &Job<'_>, tile: usize, start: usize, count: usize, squares: &mut [f32], some: usize) {
    let (window, channels) = (job.window, job.right.channels());
    let place = Place::of(window, tile);
    let inputs: [*const f32; POINTS] = std::array::from_fn(|point| {
        let (y, x) = (place.y + point / 4, place.x + point % 4);
        let inside = (window.before..window.before + window.height).contains(&y)
            && (window.before..window.before + window.width).contains(&x);
        let pixel = if inside {
            let line = place.batch * window.height + y - window.before;
            &job.x[(line * window.width + x - window.before) * channels..][..channels]
        } else {
            job.zeros
        };
        pixel[start..start + count].as_ptr()
    });
    assert!(squares.len() >= 15 * some * count + count, "room for the last point");
    // 1 0 -1 0, 0 1 1 0, 0 -1 1 0, 0 1 0 -1
    let mix = |[a, b, c, d]: [S::Vector; 4]| [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)];
    for channel in (0..count).step_by(S::LANES) {
        // SAFETY: each input has `count` numbers, which the lanes divide, and so has each point's place in the squares.
        unsafe {
            let rows: [[S::Vector; 4]; 4] = std::array::from_fn(|row| {
                mix(std::array::from_fn(|column| S::load(inputs[row * 4 + column].add(channel))))
            });
            for column in 0..4 {
                let points = mix([rows[0][column], rows[1][column], rows[2][column], rows[3][column]]);
                for row in 0..4 {
                    S::store(squares.as_mut_ptr().add((row * 4 + column) * some * count + channel), points[row]);
                }
            }
        }
    }
}

/// `left · right`, `[rows, depth]` and `[depth, width]`, added to what is there if `load`.
#[inline(always)]
fn multiply<S: Simd>(left: &[f32], right: &[f32], out: &mut [f32], depth: usize, width: usize, load: bool) {
    match (S::LANES, width) {
        (LINE, 64) => rows::<S, 4>(left, right, out, depth, width, 0, load),
        (LINE, 48) => rows::<S, 3>(left, right, out, depth, width, 0, load),
        (LINE, 32) => rows::<S, 2>(left, right, out, depth, width, 0, load),
        (LINE, _) => rows::<S, 1>(left, right, out, depth, width, 0, load),
        (8, _) => {
            for column in (0..width).step_by(LINE) {
                rows::<S, 2>(left, right, out, depth, width, column, load);
            }
        }
        _ => {
            for column in (0..width).step_by(LINE) {
                rows::<S, 4>(left, right, out, depth, width, column, load);
            }
        }
    }
}

#[inline(always)]
fn rows<S: Simd, const N: usize>(
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
        let factors = Factors { left: left.as_ptr(), apart: depth, right: right[column..].as_ptr(), width, depth };
        // SAFETY: so many rows of the left factor and of the output are there, and every row of the right one has the
        // columns from `column` on that were checked above.
        unsafe { up_to_six::<S, false, N>(&factors, rows, out[column..].as_mut_ptr(), width, load) };
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
