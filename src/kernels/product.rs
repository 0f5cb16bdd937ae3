//! Matrix products and convolutions: one micro-kernel that holds a tile of the output in registers while it walks down the
//! depth. A convolution is the same product whose rows are looked up anew for each tap, so no unfolded copy of the picture
//! is ever made.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::isa::Avx512Bf16;
use crate::isa::{Isa, Simd, dispatch};
use crate::matrix::{LINE, Line, PANEL, Precision};
use crate::right::{Right, Rows};
use crate::tile::{Factors, up_to_six};
use crate::{half, parallel, profile, winograd};

/// Rows of a tile. With 64 columns of AVX-512 that is 24 of its 32 registers.
const TILE: usize = 6;
/// Most rows of a task.
const ROWS: usize = 32 * TILE;
/// Depth walked before the next tile: so much of a panel stays in the cache while the task's rows pass over it.
const DEPTH: usize = 512;

/// What is added to a product as its last numbers are written, so that no pass over the output is needed for it.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// One number a column, `[columns]`.
    pub bias: Option<&'a [f32]>,
    /// One number a column and batch element, `[batch, columns]`.
    pub shift: Option<&'a [f32]>,
    /// One number an output, `[rows, columns]`.
    pub residual: Option<&'a [f32]>,
}

/// A channels-last picture and the window that a convolution moves over it.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Pictures.
    pub batch: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Rows and columns of the kernel.
    pub kernel: usize,
    /// Pixels from one output to the next.
    pub stride: usize,
    /// Rows of zeros above, and columns of them to the left.
    pub before: usize,
    /// Rows of zeros below, and columns of them to the right.
    pub after: usize,
}

impl Window {
    /// Height and width of the output; zero when the kernel does not fit.
    #[must_use]
    pub fn output(&self) -> (usize, usize) {
        let side = |side: usize| {
            (side + self.before + self.after).checked_sub(self.kernel).map_or(0, |room| room / self.stride + 1)
        };
        (side(self.height), side(self.width))
    }
}

/// `x · matrix`, `x` `[rows, depth]`, the matrix as it lies or [`Turned`](crate::Turned); the rows are `batch` equal groups for the epilogue's shift.
///
/// # Panics
/// When a slice is not of the length that the others call for.
#[must_use]
pub fn linear<'a>(x: &[f32], batch: usize, matrix: impl Into<Right<'a>>, epilogue: Epilogue<'_>) -> Vec<f32> {
    linear_on(Isa::best(), x, batch, matrix.into(), epilogue)
}

fn linear_on(isa: Isa, x: &[f32], batch: usize, matrix: Right<'_>, epilogue: Epilogue<'_>) -> Vec<f32> {
    assert_eq!(matrix.taps(), 1, "a convolution's matrix needs a window");
    let rows = x.len().checked_div(matrix.input()).unwrap_or(0);
    assert_eq!(x.len(), rows * matrix.input(), "rows of {} numbers", matrix.input());
    let columns = matrix.columns();
    let operations = 2 * x.len() * columns;
    let _call = profile::call("linear", operations, x.len() + matrix.input() * columns + rows * columns);
    let x = places(isa, x, matrix);
    product(isa, &Left::rows(&x, matrix.channels()), rows, batch, matrix, epilogue)
}

/// The left factor in the matrix's numbers.
fn places<'a>(isa: Isa, x: &'a [f32], matrix: Right<'_>) -> Cow<'a, [f32]> {
    match matrix.precision() {
        Precision::Single => Cow::Borrowed(x),
        Precision::Bf16 => Cow::Owned(half::pairs(isa, x, matrix.input())),
    }
}

/// A convolution of `x` `[batch, height, width, input]`, to `[batch, height', width', output]`.
///
/// # Panics
/// When a slice is not of the length that the others call for.
#[must_use]
pub fn conv2d<'a>(x: &[f32], window: &Window, matrix: impl Into<Right<'a>>, epilogue: Epilogue<'_>) -> Vec<f32> {
    conv2d_on(Isa::best(), x, window, matrix.into(), epilogue)
}

fn conv2d_on(isa: Isa, x: &[f32], window: &Window, matrix: Right<'_>, epilogue: Epilogue<'_>) -> Vec<f32> {
    assert_eq!(matrix.taps(), window.kernel * window.kernel, "a matrix of another kernel");
    assert_eq!(x.len(), window.batch * window.height * window.width * matrix.input(), "pixels of the picture");
    let (height, width) = window.output();
    let (columns, outputs) = (matrix.columns(), window.batch * height * width);
    let depth = matrix.taps() * matrix.input();
    let zeros = vec![0.0; matrix.input().max(matrix.channels())];
    let tiled = winograd::suits(window, &matrix);
    let kernel = if tiled { "convolution by tiles" } else { "convolution" };
    let numbers = x.len() + depth * columns + outputs * columns;
    let _call = profile::call(kernel, 2 * outputs * depth * columns, numbers);
    if tiled {
        return by_tiles(isa, x, window, matrix, epilogue, &zeros);
    }
    let x = places(isa, x, matrix);
    let left = Left::window(&x, window, matrix.channels(), &zeros);
    product(isa, &left, outputs, window.batch, matrix, epilogue)
}

/// The same convolution in tiles of 2x2 outputs.
fn by_tiles(isa: Isa, x: &[f32], window: &Window, right: Right<'_>, epilogue: Epilogue<'_>, zeros: &[f32]) -> Vec<f32> {
    let (height, width) = window.output();
    let (rows, columns) = (window.batch * height * width, right.columns());
    epilogue.check(rows, window.batch, columns);
    let mut out = Vec::with_capacity(rows * columns);
    winograd::convolve(isa, &winograd::Job { x, window, right, epilogue, zeros, out: out.as_mut_ptr() });
    // SAFETY: the tiles of all panels are the whole output, which is all of the capacity asked for.
    unsafe { out.set_len(rows * columns) };
    out
}

impl Epilogue<'_> {
    /// Panics when a part is not of the length that the output calls for.
    fn check(&self, rows: usize, batch: usize, columns: usize) {
        let per_shift = rows.checked_div(batch).unwrap_or(0).max(1);
        assert!(self.bias.is_none_or(|bias| bias.len() == columns), "a bias of {columns} numbers");
        assert!(self.shift.is_none_or(|shift| shift.len() == batch * columns && batch * per_shift == rows));
        assert!(self.residual.is_none_or(|residual| residual.len() == rows * columns));
    }
}

/// Checks the epilogue, makes the output and shares the work.
fn product(isa: Isa, left: &Left<'_>, rows: usize, batch: usize, right: Right<'_>, epilogue: Epilogue<'_>) -> Vec<f32> {
    let columns = right.columns();
    let per_shift = rows.checked_div(batch).unwrap_or(0).max(1);
    epilogue.check(rows, batch, columns);
    let mut out: Vec<f32> = Vec::with_capacity(rows * columns);
    let job = Job {
        left,
        right,
        epilogue,
        per_shift,
        out: Out { start: out.as_mut_ptr(), stride: columns, accumulate: false },
    };
    let panels = right.panels();
    let operations = 2 * rows * columns * right.depth();
    // Several tasks a thread even out their ends; the split changes no sum, so it may depend on the machine.
    let wanted = rows * panels / (4 * rayon::current_num_threads());
    let block = wanted.clamp(2 * TILE, ROWS).next_multiple_of(TILE);
    let blocks = rows.div_ceil(block);
    // Panels outermost: neighbouring tasks read the same weights.
    parallel::for_each(blocks * panels, operations, |task| {
        let first = task % blocks * block;
        run(isa, &job, first..(first + block).min(rows), task / blocks);
    });
    // SAFETY: the tasks wrote every row of every panel's columns, which is all of the capacity asked for.
    unsafe { out.set_len(rows * columns) };
    out
}

/// The left factor: where each row begins, for each tap.
pub(crate) struct Left<'a> {
    data: &'a [f32],
    /// Numbers from one row to the next, where rows follow one another.
    stride: usize,
    /// Read instead of a pixel beyond the picture.
    zeros: &'a [f32],
    window: Option<&'a Window>,
    channels: usize,
}

/// Where a row of the output begins to read.
#[derive(Clone, Copy)]
struct Origin {
    offset: isize,
    y: i32,
    x: i32,
}

impl<'a> Left<'a> {
    /// Rows of numbers, one after another.
    fn rows(data: &'a [f32], channels: usize) -> Self {
        Self { data, stride: channels, zeros: &[], window: None, channels }
    }

    /// Rows of numbers that begin `stride` apart.
    pub(crate) fn strided(data: &'a [f32], stride: usize, channels: usize) -> Self {
        Self { data, stride, zeros: &[], window: None, channels }
    }

    fn window(data: &'a [f32], window: &'a Window, channels: usize, zeros: &'a [f32]) -> Self {
        Self { data, stride: 0, zeros, window: Some(window), channels }
    }

    #[inline(always)]
    fn origin(&self, row: usize) -> Origin {
        let Some(window) = self.window else {
            return Origin { offset: (row * self.stride) as isize, y: 0, x: 0 };
        };
        let (height, width) = window.output();
        let (x, line) = (row % width, row / width);
        let (y, batch) = (line % height, line / height);
        let y = (y * window.stride) as isize - window.before as isize;
        let x = (x * window.stride) as isize - window.before as isize;
        let line = (batch * window.height) as isize + y;
        let offset = (line * window.width as isize + x) * self.channels as isize;
        Origin { offset, y: y as i32, x: x as i32 }
    }

    /// The row that an origin reads at a tap.
    #[inline(always)]
    fn row(&self, origin: Origin, tap: usize) -> *const f32 {
        let Some(window) = self.window else { return self.data.as_ptr().wrapping_offset(origin.offset) };
        let (down, right) = (tap / window.kernel, tap % window.kernel);
        let (y, x) = (origin.y + down as i32, origin.x + right as i32);
        // A negative coordinate is a huge one as an unsigned number.
        if (y as u32) < window.height as u32 && (x as u32) < window.width as u32 {
            let offset = origin.offset + ((down * window.width + right) * self.channels) as isize;
            self.data.as_ptr().wrapping_offset(offset)
        } else {
            self.zeros.as_ptr()
        }
    }
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub(crate) start: *mut f32,
    /// Numbers from one row to the next.
    pub(crate) stride: usize,
    /// Add to what is there.
    pub(crate) accumulate: bool,
}

impl Out {
    /// Rows that follow one another, nothing in them yet.
    pub(crate) fn plain(rows: &mut [f32], stride: usize) -> Self {
        Self { start: rows.as_mut_ptr(), stride, accumulate: false }
    }
}

/// A product to be done, all lengths checked.
pub(crate) struct Job<'a> {
    pub(crate) left: &'a Left<'a>,
    pub(crate) right: Right<'a>,
    pub(crate) epilogue: Epilogue<'a>,
    /// Rows that share a row of the epilogue's shift.
    pub(crate) per_shift: usize,
    pub(crate) out: Out,
}

// SAFETY: the only pointer is the output's, and no two tasks write the same tile of it.
unsafe impl Sync for Job<'_> {}

/// Computes some rows of a panel's columns.
pub(crate) fn run(isa: Isa, job: &Job<'_>, rows: Range<usize>, panel: usize) {
    match (job.right.precision(), isa) {
        (Precision::Single, _) => run_single(isa, job, rows, panel),
        #[cfg(target_arch = "x86_64")]
        (Precision::Bf16, Isa::Avx512Bf16) => {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
            fn pairs(job: &Job<'_>, rows: Range<usize>, panel: usize) {
                run_body::<Avx512Bf16, true>(job, rows, panel);
            }
            // SAFETY: that name is given out on machines that have the instructions only.
            unsafe { pairs(job, rows, panel) }
        }
        (Precision::Bf16, _) => run_pairs(isa, job, rows, panel),
    }
}

dispatch!(fn run_single = run_single_body(job: &Job<'_>, rows: Range<usize>, panel: usize));
dispatch!(fn run_pairs = run_pairs_body(job: &Job<'_>, rows: Range<usize>, panel: usize));

#[inline(always)]
fn run_single_body<S: Simd>(job: &Job<'_>, rows: Range<usize>, panel: usize) {
    run_body::<S, false>(job, rows, panel);
}

#[inline(always)]
fn run_pairs_body<S: Simd>(job: &Job<'_>, rows: Range<usize>, panel: usize) {
    run_body::<S, true>(job, rows, panel);
}

thread_local! {
    /// Rows of a right factor that had to be made.
    static SCRATCH: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// With `PAIRS` each place of either factor holds two numbers.
#[inline(always)]
fn run_body<S: Simd, const PAIRS: bool>(job: &Job<'_>, rows: Range<usize>, panel: usize) {
    let width = job.right.width(panel);
    let mut scratch = SCRATCH.take();
    for start in rows.clone().step_by(ROWS) {
        let rows = start..(start + ROWS).min(rows.end);
        let mut origins = [Origin { offset: 0, y: 0, x: 0 }; ROWS];
        for (origin, row) in origins.iter_mut().zip(rows.clone()) {
            *origin = job.left.origin(row);
        }
        let (origins, first, scratch) = (&origins[..rows.len()], rows.start, &mut scratch);
        match (S::LANES, width) {
            (LINE, 64) => strip::<S, PAIRS, 4>(job, panel, 0, first, origins, scratch),
            (LINE, 48) => strip::<S, PAIRS, 3>(job, panel, 0, first, origins, scratch),
            (LINE, 32) => strip::<S, PAIRS, 2>(job, panel, 0, first, origins, scratch),
            (LINE, _) => strip::<S, PAIRS, 1>(job, panel, 0, first, origins, scratch),
            (8, _) => {
                for column in (0..width).step_by(LINE) {
                    strip::<S, PAIRS, 2>(job, panel, column, first, origins, scratch);
                }
            }
            _ => {
                for column in (0..width).step_by(LINE) {
                    strip::<S, PAIRS, 4>(job, panel, column, first, origins, scratch);
                }
            }
        }
    }
    SCRATCH.set(scratch);
}

/// Computes `N` vectors of columns, of the task's rows.
#[inline(always)]
fn strip<S: Simd, const PAIRS: bool, const N: usize>(
    job: &Job<'_>,
    panel: usize,
    column: usize,
    first: usize,
    origins: &[Origin],
    scratch: &mut Vec<Line>,
) {
    let (depth, count, place) = (job.right.depth(), N * S::LANES, panel * PANEL + column);
    let valid = job.right.columns().saturating_sub(place).min(count);
    // Tiles that are not full are not written before they are done: their columns end inside a vector.
    let step = if valid == N * S::LANES { DEPTH } else { depth.max(1) };
    let mut done = 0;
    loop {
        let walk = Walk {
            depth: done..(done + step).min(depth),
            load: done > 0 || job.out.accumulate,
            last: done + step >= depth,
            column: place,
            valid,
        };
        let right = &job.right.rows::<S>(panel, column, count, walk.depth.clone(), scratch);
        if valid == count && job.left.window.is_none() {
            walk.plain::<S, PAIRS, N>(job, right, first, origins);
            done += step;
            if done >= depth {
                break;
            }
            continue;
        }
        for (tile, origins) in origins.chunks(TILE).enumerate() {
            let row = first + tile * TILE;
            match *origins {
                [a, b, c, d, e, f] => walk.tile::<S, PAIRS, 6, N>(job, right, row, [a, b, c, d, e, f]),
                [a, b, c, d, e] => walk.tile::<S, PAIRS, 5, N>(job, right, row, [a, b, c, d, e]),
                [a, b, c, d] => walk.tile::<S, PAIRS, 4, N>(job, right, row, [a, b, c, d]),
                [a, b, c] => walk.tile::<S, PAIRS, 3, N>(job, right, row, [a, b, c]),
                [a, b] => walk.tile::<S, PAIRS, 2, N>(job, right, row, [a, b]),
                [a] => walk.tile::<S, PAIRS, 1, N>(job, right, row, [a]),
                _ => unreachable!("chunks are of one to six"),
            }
        }
        done += step;
        if done >= depth {
            break;
        }
    }
}

/// One walk down a part of the depth.
struct Walk {
    depth: Range<usize>,
    /// Begin with what the output holds.
    load: bool,
    /// End with the epilogue.
    last: bool,
    /// First column.
    column: usize,
    /// Columns that exist.
    valid: usize,
}

impl Walk {
    /// All tiles of a product of rows that follow one another. What is added to it is there before the first sum.
    #[inline(always)]
    fn plain<S: Simd, const PAIRS: bool, const N: usize>(
        &self,
        job: &Job<'_>,
        right: &Rows,
        first: usize,
        origins: &[Origin],
    ) {
        let load = self.load || (self.depth.start == 0 && self.begin::<S, N>(job, first, origins.len()));
        for (tile, origins) in origins.chunks(TILE).enumerate() {
            let left = job.left.row(origins[0], 0).wrapping_add(self.depth.start);
            let factors = Factors {
                left,
                apart: job.left.stride,
                along: 1,
                right: right.start,
                width: right.width,
                depth: self.depth.len(),
            };
            // SAFETY: the rows of the left factor are those of a checked slice, the right one's are this walk's, and the
            // output's rows and columns are this task's alone.
            unsafe {
                let out = job.out.start.add(self.place(job, first + tile * TILE));
                up_to_six::<S, PAIRS, N>(&factors, origins.len(), out, job.out.stride, load);
            }
        }
    }

    /// Writes the epilogue as the sums' beginning; whether there is one.
    #[inline(always)]
    fn begin<S: Simd, const N: usize>(&self, job: &Job<'_>, first: usize, rows: usize) -> bool {
        let Epilogue { bias, shift, residual } = job.epilogue;
        if bias.is_none() && shift.is_none() && residual.is_none() {
            return false;
        }
        let columns = job.right.columns();
        for row in first..first + rows {
            for column in (self.column..self.column + N * S::LANES).step_by(S::LANES) {
                // SAFETY: `product` checked that the numbers have this row and all columns; the output's row and columns
                // are this task's alone.
                unsafe {
                    let load = |numbers: Option<&[f32]>, row: usize| {
                        numbers.map(|numbers| S::load(numbers.as_ptr().add(row * columns + column)))
                    };
                    let parts = [load(bias, 0), load(shift, row / job.per_shift), load(residual, row)];
                    let sum = parts.into_iter().flatten().reduce(|a, b| S::add(a, b));
                    S::store(job.out.start.add(row * job.out.stride + column), sum.unwrap_or(S::splat(0.0)));
                }
            }
        }
        true
    }

    #[inline(always)]
    fn tile<S: Simd, const PAIRS: bool, const M: usize, const N: usize>(
        &self,
        job: &Job<'_>,
        right: &Rows,
        row: usize,
        origins: [Origin; M],
    ) {
        let mut sums = [[S::splat(0.0); N]; M];
        if self.load {
            for (m, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the row and its valid columns are this task's.
                *sums = unsafe { self.read::<S, N>(job.out.start.add(self.place(job, row + m))) };
            }
        }
        let channels = job.right.channels();
        let mut k = self.depth.start;
        while k < self.depth.end {
            let (tap, within) = (k / channels, k % channels);
            let count = (channels - within).min(self.depth.end - k);
            let rows: [*const f32; M] = std::array::from_fn(|m| job.left.row(origins[m], tap).wrapping_add(within));
            // SAFETY: the right factor's rows are those of this walk's depth, `N` vectors each. A row
            // of the left factor has `channels` numbers: it lies in the picture, in the zeros or in a checked slice.
            unsafe {
                let mut line_start = right.start.add((k - self.depth.start) * right.width);
                for step in 0..count {
                    let line: [S::Vector; N] = std::array::from_fn(|n| S::load(line_start.add(n * S::LANES)));
                    for m in 0..M {
                        let left = S::splat(*rows[m].add(step));
                        for n in 0..N {
                            sums[m][n] = if PAIRS {
                                S::dot(left, line[n], sums[m][n])
                            } else {
                                S::fma(left, line[n], sums[m][n])
                            };
                        }
                    }
                    line_start = line_start.wrapping_add(right.width);
                }
            }
            k += count;
        }
        for (m, sums) in sums.into_iter().enumerate() {
            self.finish::<S, N>(job, row + m, sums);
        }
    }

    /// Where a row's first column of this strip is in the output.
    #[inline(always)]
    fn place(&self, job: &Job<'_>, row: usize) -> usize {
        row * job.out.stride + self.column
    }

    /// Writes a row of a tile, with the epilogue if this was the last walk.
    #[inline(always)]
    fn finish<S: Simd, const N: usize>(&self, job: &Job<'_>, row: usize, mut sums: [S::Vector; N]) {
        let mut add = |numbers: Option<&[f32]>, row: usize| {
            if let Some(numbers) = numbers.filter(|_| self.last) {
                // SAFETY: `product` checked that the numbers have this row and all columns.
                let more = unsafe {
                    let start = numbers.as_ptr().add(row * job.right.columns() + self.column);
                    self.read::<S, N>(start)
                };
                sums = std::array::from_fn(|n| S::add(sums[n], more[n]));
            }
        };
        add(job.epilogue.bias, 0);
        add(job.epilogue.shift, row / job.per_shift);
        add(job.epilogue.residual, row);
        // SAFETY: the row and its valid columns are this task's alone.
        unsafe { self.write::<S, N>(job.out.start.add(self.place(job, row)), sums) };
    }

    /// # Safety
    /// `valid` numbers must be readable.
    #[inline(always)]
    unsafe fn read<S: Simd, const N: usize>(&self, from: *const f32) -> [S::Vector; N] {
        if self.valid == N * S::LANES {
            // SAFETY: the caller's promise: all of them are valid.
            return std::array::from_fn(|n| unsafe { S::load(from.add(n * S::LANES)) });
        }
        let mut padded = [0.0; PANEL];
        // SAFETY: the caller's promise; `valid` is at most a panel, and so are `N` vectors.
        unsafe {
            std::ptr::copy_nonoverlapping(from, padded.as_mut_ptr(), self.valid);
            std::array::from_fn(|n| S::load(padded.as_ptr().add(n * S::LANES)))
        }
    }

    /// # Safety
    /// `valid` numbers must be writable.
    #[inline(always)]
    unsafe fn write<S: Simd, const N: usize>(&self, to: *mut f32, vectors: [S::Vector; N]) {
        if self.valid == N * S::LANES {
            for (n, vector) in vectors.into_iter().enumerate() {
                // SAFETY: the caller's promise: all of them are valid.
                unsafe { S::store(to.add(n * S::LANES), vector) };
            }
            return;
        }
        let mut padded = [0.0; PANEL];
        for (n, vector) in vectors.into_iter().enumerate() {
            // SAFETY: `N` vectors are at most a panel.
            unsafe { S::store(padded.as_mut_ptr().add(n * S::LANES), vector) };
        }
        // SAFETY: the caller's promise; `valid` is at most a panel.
        unsafe { std::ptr::copy_nonoverlapping(padded.as_ptr(), to, self.valid) };
    }
}

#[cfg(test)]
mod tests;
