//! Weights in the order in which the product reads them.

use crate::half::{self, Halves};
use crate::packed::Lines;
use crate::parallel;

/// Columns of a panel: as many as fit the registers beside a few rows.
pub(crate) const PANEL: usize = 64;
/// Columns are filled up with zeros to a multiple of this.
pub(crate) const LINE: usize = 16;

/// Sixteen numbers on a cache line of their own, so that no load straddles two.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(pub(crate) [f32; LINE]);

/// Sixteen numbers of half the width.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(crate) struct HalfLine(pub(crate) [u16; LINE]);

/// A line of either width, to be filled.
trait Fill: Copy + Send + Sync {
    type Number: Copy;
    const ZERO: Self;
    fn numbers(&mut self) -> &mut [Self::Number; LINE];
}

impl Fill for Line {
    type Number = f32;
    const ZERO: Self = Self([0.0; LINE]);
    fn numbers(&mut self) -> &mut [f32; LINE] {
        &mut self.0
    }
}

impl Fill for HalfLine {
    type Number = u16;
    const ZERO: Self = Self([0; LINE]);
    fn numbers(&mut self) -> &mut [u16; LINE] {
        &mut self.0
    }
}

/// A matrix's lines.
pub(crate) enum Store {
    /// As the product multiplies them: f32, or pairs of bf16.
    Ready(Lines<Line>),
    /// Half the memory; the product makes f32 of a few rows at a time, the very numbers of the file.
    Halves(Lines<HalfLine>, Halves),
}

/// The right factor of a product, `[depth, columns]`, cut into panels of 64 columns whose rows follow one another.
///
/// For a convolution `depth` runs over the kernel's taps, row by row, and over the input's channels within a tap.
pub struct Matrix {
    pub(crate) columns: usize,
    /// How often a row is looked up anew: a kernel's taps, 1 for a plain product.
    pub(crate) taps: usize,
    /// How many numbers there are within a tap.
    pub(crate) input: usize,
    /// How many places they take: half as many where two share one.
    pub(crate) channels: usize,
    pub(crate) precision: Precision,
    pub(crate) store: Store,
}

/// In which numbers a product multiplies. Sums are f32 in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32.
    #[default]
    Single,
    /// Both factors rounded to bf16, 8 bits of fraction: half the memory, twice the speed where the machine has
    /// instructions for it. Two neighbours down the depth share the place of one f32.
    Bf16,
}

impl Precision {
    /// How many places so many numbers take.
    pub(crate) fn places(self, numbers: usize) -> usize {
        match self {
            Self::Single => numbers,
            Self::Bf16 => numbers.div_ceil(2),
        }
    }
}

/// Where the numbers of a [`Matrix`] lie in a slice: element (tap, channel, column) is at `taps[tap] + channel *
/// channel_stride + column * column_stride`.
struct Source<'a, T> {
    data: &'a [T],
    columns: usize,
    column_stride: usize,
    taps: &'a [usize],
    channels: usize,
    channel_stride: usize,
}

impl Matrix {
    /// From a Linear layer's weight, `[output, input]`: the product takes `input` numbers to `output`.
    #[must_use]
    pub fn linear(weight: &[f32], output: usize, input: usize) -> Self {
        Self::conv(weight, output, input, 1)
    }

    /// From the same weight, for the product that takes a gradient back from `output` numbers to `input`.
    #[must_use]
    pub fn linear_back(weight: &[f32], output: usize, input: usize) -> Self {
        Self::strided(weight, output, input, input, 1)
    }

    /// From a convolution's weight, `[output, input, kernel, kernel]`.
    #[must_use]
    pub fn conv(weight: &[f32], output: usize, input: usize, kernel: usize) -> Self {
        Self::read(output, input, kernel, Precision::Single, &|start, out| {
            out.copy_from_slice(&weight[start..start + out.len()]);
        })
    }

    /// The same of a weight that is somewhere else: `numbers(start, out)` writes those from the `start`-th on. No more than a
    /// few thousand are asked for at a time, so no whole copy of the weight ever exists beside the packed one.
    #[must_use]
    pub fn read(
        output: usize,
        input: usize,
        kernel: usize,
        precision: Precision,
        numbers: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Self {
        let pack = |source: &Source<'_, f32>, place: &dyn Fn(usize, usize) -> usize, lines: &mut [Line]| match precision
        {
            Precision::Single => gather(source, 0, place, lines),
            Precision::Bf16 => gather_pairs(source, 0, place, lines),
        };
        let lines = Self::read_lines(output, input, kernel, precision, numbers, pack);
        Self::of(output, kernel * kernel, input, precision, Store::Ready(Lines::Own(lines)))
    }

    /// The same of numbers of 16 bits, which it stays in: half the memory of f32, and exactly what f32 would give.
    #[must_use]
    pub fn read_halves(
        output: usize,
        input: usize,
        kernel: usize,
        halves: Halves,
        numbers: &(dyn Fn(usize, &mut [u16]) + Sync),
    ) -> Self {
        let pack = |source: &Source<'_, u16>, place: &dyn Fn(usize, usize) -> usize, lines: &mut [HalfLine]| {
            gather(source, 0, place, lines);
        };
        let lines = Self::read_lines(output, input, kernel, Precision::Single, numbers, pack);
        Self::of(output, kernel * kernel, input, Precision::Single, Store::Halves(Lines::Own(lines), halves))
    }

    fn read_lines<L: Fill<Number: Default>>(
        output: usize,
        input: usize,
        kernel: usize,
        precision: Precision,
        numbers: &(dyn Fn(usize, &mut [L::Number]) + Sync),
        pack: impl Fn(&Source<'_, L::Number>, &dyn Fn(usize, usize) -> usize, &mut [L]) + Sync,
    ) -> Vec<L> {
        /// Numbers of a column that are read at a time.
        const READ: usize = 4096;
        let area = kernel * kernel;
        let taps: Vec<usize> = (0..area).collect();
        // Even, so that no pair is torn apart.
        let step = (READ / area.max(1)).clamp(1, input.max(1)).next_multiple_of(2);
        let places = precision.places(input);
        Self::lines(output, area * places, |first, width, lines| {
            let mut run = vec![L::Number::default(); LINE * step * area];
            for line in 0..width {
                let columns = (output - first - line * LINE).min(LINE);
                for start in (0..input).step_by(step) {
                    let channels = step.min(input - start);
                    for (column, run) in run.chunks_mut(channels * area).take(columns).enumerate() {
                        numbers(((first + line * LINE + column) * input + start) * area, run);
                    }
                    let source = Source {
                        data: &run,
                        columns,
                        column_stride: channels * area,
                        taps: &taps,
                        channels,
                        channel_stride: area,
                    };
                    let begun = precision.places(start);
                    pack(&source, &|tap, channel| (tap * places + begun + channel) * width + line, lines);
                }
            }
        })
    }

    /// From the same weight, for the convolution that takes a gradient back: input and output swapped, taps turned around.
    #[must_use]
    pub fn conv_back(weight: &[f32], output: usize, input: usize, kernel: usize) -> Self {
        let area = kernel * kernel;
        Self::pack(
            &Source {
                data: weight,
                columns: input,
                column_stride: area,
                taps: &(0..area).rev().collect::<Vec<_>>(),
                channels: output,
                channel_stride: input * area,
            },
            Precision::Single,
        )
    }

    /// A plain matrix: element (row, column) is at `row * row_stride + column * column_stride` of `data`.
    pub(crate) fn strided(data: &[f32], depth: usize, row_stride: usize, columns: usize, column_stride: usize) -> Self {
        Self::strided_in(Precision::Single, data, depth, row_stride, columns, column_stride)
    }

    /// The same in numbers of choice.
    pub(crate) fn strided_in(
        precision: Precision,
        data: &[f32],
        depth: usize,
        row_stride: usize,
        columns: usize,
        column_stride: usize,
    ) -> Self {
        let source = Source { data, columns, column_stride, taps: &[0], channels: depth, channel_stride: row_stride };
        Self::pack(&source, precision)
    }

    /// Panics when `data` is shorter than the strides say.
    fn pack(source: &Source<'_, f32>, precision: Precision) -> Self {
        let places = precision.places(source.channels);
        let lines = Self::lines(source.columns, source.taps.len() * places, |first, width, lines| {
            for line in 0..width {
                let place = |tap, channel| (tap * places + channel) * width + line;
                match precision {
                    Precision::Single => gather(source, first + line * LINE, place, lines),
                    Precision::Bf16 => gather_pairs(source, first + line * LINE, place, lines),
                }
            }
        });
        Self::of(source.columns, source.taps.len(), source.channels, precision, Store::Ready(Lines::Own(lines)))
    }

    pub(crate) fn of(columns: usize, taps: usize, input: usize, precision: Precision, store: Store) -> Self {
        Self { columns, taps, input, channels: precision.places(input), precision, store }
    }

    /// Makes room, and has each panel filled by its first column and the number of lines in its rows.
    fn lines<L: Fill>(columns: usize, depth: usize, fill: impl Fn(usize, usize, &mut [L]) + Sync + Send) -> Vec<L> {
        let mut lines = vec![L::ZERO; depth * columns.div_ceil(LINE)];
        let panel = (depth * PANEL / LINE).max(1);
        parallel::chunks(&mut lines, panel, depth * columns * 8, |index, lines| {
            fill(index * PANEL, lines.len() / depth, lines);
        });
        lines
    }

    /// How many places the numbers take that a row of the left factor has for each output: two bf16 numbers take one.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.taps * self.channels
    }

    /// How many numbers a row of the output has.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many bytes it takes, its own or lent ones.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.as_bytes().len()
    }

    /// The matrix of the product that takes a gradient back, without a copy of it: [`Turned`].
    ///
    /// # Panics
    /// When two numbers share a place: what was rounded for the way forth is not for the way back.
    #[must_use]
    pub fn turned(&self) -> Turned<'_> {
        assert_eq!(self.precision, Precision::Single, "the way back is in f32");
        Turned(self)
    }

    /// Where the lines of a panel begin, and how many there are to a row: four, or fewer in the last one.
    pub(crate) fn panel(&self, panel: usize) -> (usize, usize) {
        let width = (self.columns - panel * PANEL).min(PANEL).div_ceil(LINE);
        (panel * self.depth() * PANEL / LINE, width)
    }
}

/// A matrix for the way back of a gradient: rows and columns change places, and a convolution's taps their order. It reads
/// the numbers of the way forth and turns a few at a time, so it takes no memory.
#[derive(Clone, Copy)]
pub struct Turned<'a>(pub(crate) &'a Matrix);

/// Writes sixteen columns of a source, from the `first` on, as one line a row; `place` says where a row's line is.
fn gather<L: Fill>(
    source: &Source<'_, L::Number>,
    first: usize,
    place: impl Fn(usize, usize) -> usize,
    lines: &mut [L],
) {
    let columns = (source.columns - first).min(LINE);
    let column = |column: usize| &source.data[(first + column).min(source.columns - 1) * source.column_stride..];
    if source.column_stride == 1 {
        let data = column(0);
        for (tap, offset) in source.taps.iter().enumerate() {
            for channel in 0..source.channels {
                let row = &data[offset + channel * source.channel_stride..][..columns];
                lines[place(tap, channel)].numbers()[..columns].copy_from_slice(row);
            }
        }
    } else if columns == LINE {
        let data: [&[L::Number]; LINE] = std::array::from_fn(column);
        for channel in 0..source.channels {
            for (tap, offset) in source.taps.iter().enumerate() {
                let index = offset + channel * source.channel_stride;
                *lines[place(tap, channel)].numbers() = std::array::from_fn(|column| data[column][index]);
            }
        }
    } else {
        for channel in 0..source.channels {
            for (tap, offset) in source.taps.iter().enumerate() {
                let index = offset + channel * source.channel_stride;
                let line = lines[place(tap, channel)].numbers();
                line.iter_mut().take(columns).enumerate().for_each(|(number, to)| *to = column(number)[index]);
            }
        }
    }
}

/// The same as pairs of bf16: each line holds two neighbouring rows, with zeros where the second one is missing.
fn gather_pairs(source: &Source<'_, f32>, first: usize, place: impl Fn(usize, usize) -> usize, lines: &mut [Line]) {
    let columns = (source.columns - first).min(LINE);
    for (tap, offset) in source.taps.iter().enumerate() {
        for pair in 0..source.channels.div_ceil(2) {
            let row = offset + 2 * pair * source.channel_stride;
            let whole = 2 * pair + 1 < source.channels;
            let line = &mut lines[place(tap, pair)].0;
            for (number, to) in line.iter_mut().take(columns).enumerate() {
                let index = row + (first + number) * source.column_stride;
                let second = if whole { source.data[index + source.channel_stride] } else { 0.0 };
                *to = f32::from_bits(half::pair(source.data[index], second));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(matrix: &Matrix, row: usize, column: usize) -> f32 {
        let ((start, width), within) = (matrix.panel(column / PANEL), column % PANEL);
        let Store::Ready(lines) = &matrix.store else { panic!("f32") };
        lines[start + row * width + within / LINE].0[within % LINE]
    }

    #[test]
    fn every_element_is_found_in_its_panel() {
        for (output, input) in [(1, 1), (4, 3), (64, 16), (70, 5), (130, 17), (192, 33)] {
            let weight: Vec<f32> = (0..output * input).map(|i| i as f32).collect();
            let (forth, back) = (Matrix::linear(&weight, output, input), Matrix::linear_back(&weight, output, input));
            for o in 0..output {
                for i in 0..input {
                    assert_eq!(at(&forth, i, o), weight[o * input + i]);
                    assert_eq!(at(&back, o, i), weight[o * input + i]);
                }
            }
        }
    }

    #[test]
    fn a_convolution_is_turned_around_on_its_way_back() {
        let (output, input, kernel) = (5, 18, 3);
        let weight: Vec<f32> = (0..output * input * 9).map(|i| i as f32).collect();
        let forth = Matrix::conv(&weight, output, input, kernel);
        let back = Matrix::conv_back(&weight, output, input, kernel);
        for o in 0..output {
            for i in 0..input {
                for tap in 0..9 {
                    let expected = weight[(o * input + i) * 9 + tap];
                    assert_eq!(at(&forth, tap * input + i, o), expected);
                    assert_eq!(at(&back, (8 - tap) * output + o, i), expected);
                }
            }
        }
        assert_eq!((forth.depth(), forth.columns(), forth.bytes()), (162, 5, 162 * 64));
    }
}
