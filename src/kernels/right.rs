//! The right factor of a product, a few rows at a time: as they lie, widened from numbers of 16 bits, or turned for the way
//! back of a gradient. What has to be made is made once for all rows of a task, so it costs next to nothing.

use std::ops::Range;

use crate::half::{Halves, from_bf16};
use crate::isa::Simd;
use crate::matrix::{HalfLine, LINE, Line, Matrix, PANEL, Precision, Store, Turned};

/// A matrix, as it lies or turned.
#[derive(Clone, Copy)]
pub struct Right<'a> {
    matrix: &'a Matrix,
    turned: bool,
}

impl<'a> From<&'a Matrix> for Right<'a> {
    fn from(matrix: &'a Matrix) -> Self {
        Self { matrix, turned: false }
    }
}

impl<'a> From<Turned<'a>> for Right<'a> {
    fn from(Turned(matrix): Turned<'a>) -> Self {
        Self { matrix, turned: true }
    }
}

/// Some rows of some columns.
pub(crate) struct Rows {
    pub(crate) start: *const f32,
    /// Numbers from one row to the next.
    pub(crate) width: usize,
}

impl Right<'_> {
    pub(crate) fn columns(&self) -> usize {
        if self.turned { self.matrix.input } else { self.matrix.columns }
    }

    pub(crate) fn taps(&self) -> usize {
        self.matrix.taps
    }

    /// How many numbers there are within a tap.
    pub(crate) fn input(&self) -> usize {
        if self.turned { self.matrix.columns } else { self.matrix.input }
    }

    /// How many places they take.
    pub(crate) fn channels(&self) -> usize {
        if self.turned { self.matrix.columns } else { self.matrix.channels }
    }

    pub(crate) fn depth(&self) -> usize {
        self.taps() * self.channels()
    }

    pub(crate) fn precision(&self) -> Precision {
        self.matrix.precision
    }

    pub(crate) fn panels(&self) -> usize {
        self.columns().div_ceil(PANEL)
    }

    /// Numbers of a panel's rows, those beyond the last column included.
    pub(crate) fn width(&self, panel: usize) -> usize {
        (self.columns() - panel * PANEL).min(PANEL).next_multiple_of(LINE)
    }

    /// Rows `depth` of `count` numbers each, from a panel's `column` on; both are multiples of 16 within its width. They stay
    /// readable while the matrix and `scratch` are left alone.
    #[inline(always)]
    pub(crate) fn rows<S: Simd>(
        &self,
        panel: usize,
        column: usize,
        count: usize,
        depth: Range<usize>,
        scratch: &mut Vec<Line>,
    ) -> Rows {
        let (first, width) = if self.turned { (0, 0) } else { self.matrix.panel(panel) };
        if let (Store::Ready(lines), false) = (&self.matrix.store, self.turned) {
            let lines = &lines[first + depth.start * width..first + depth.end * width];
            return Rows { start: lines.as_ptr().cast::<f32>().wrapping_add(column), width: width * LINE };
        }
        let per_row = count / LINE;
        scratch.resize(depth.len() * per_row, Line([0.0; LINE]));
        match (&self.matrix.store, self.turned) {
            (Store::Halves(lines, halves), false) => {
                let lines = &lines[first + depth.start * width..first + depth.end * width];
                for (from, to) in lines.chunks_exact(width).zip(scratch.chunks_exact_mut(per_row)) {
                    for (from, to) in from[column / LINE..][..per_row].iter().zip(to) {
                        widen::<S>(from, *halves, to);
                    }
                }
            }
            (Store::Halves(lines, halves), true) => {
                let lines: &[HalfLine] = lines;
                self.turn(panel * PANEL + column, per_row, depth, scratch, |line, to| {
                    widen::<S>(&lines[line], *halves, to)
                });
            }
            (Store::Ready(lines), _) => {
                let lines: &[Line] = lines;
                self.turn(panel * PANEL + column, per_row, depth, scratch, |line, to| *to = lines[line]);
            }
        }
        Rows { start: scratch.as_ptr().cast(), width: count }
    }

    /// Rows and columns exchanged: row `tap · outputs + output` of the result has the inputs' numbers from `first` on.
    #[inline(always)]
    fn turn(
        &self,
        first: usize,
        per_row: usize,
        depth: Range<usize>,
        scratch: &mut [Line],
        read: impl Fn(usize, &mut Line),
    ) {
        let (outputs, inputs) = (self.matrix.columns, self.matrix.input);
        let mut row = depth.start;
        while row < depth.end {
            // The outputs that share a line of the matrix.
            let (tap, output) = (self.matrix.taps - 1 - row / outputs, row % outputs);
            let (start, width) = self.matrix.panel(output / PANEL);
            let (line, lane) = (start + output % PANEL / LINE, output % LINE);
            let count = (LINE - lane).min(outputs - output).min(depth.end - row);
            for block in 0..per_row {
                let mut square = [Line([0.0; LINE]); LINE];
                let inputs = first + block * LINE..inputs.min(first + (block + 1) * LINE);
                for (input, square) in inputs.zip(&mut square) {
                    read(line + (tap * self.matrix.input + input) * width, square);
                }
                for within in 0..count {
                    let to = &mut scratch[(row - depth.start + within) * per_row + block].0;
                    for (to, square) in to.iter_mut().zip(&square) {
                        *to = square.0[lane + within];
                    }
                }
            }
            row += count;
        }
    }
}

/// Sixteen numbers as f32.
#[inline(always)]
fn widen<S: Simd>(from: &HalfLine, halves: Halves, to: &mut Line) {
    match halves {
        Halves::F16 => {
            for start in (0..LINE).step_by(S::LANES) {
                // SAFETY: a line has sixteen numbers, which every vector's length divides.
                unsafe { S::store(to.0.as_mut_ptr().add(start), S::load_f16(from.0.as_ptr().add(start))) };
            }
        }
        Halves::Bf16 => to.0 = from.0.map(from_bf16),
    }
}
