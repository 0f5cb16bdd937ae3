//! Weights in the order in which the product reads them.

use rayon::prelude::*;

use crate::parallel;

/// Columns of a panel: as many as fit the registers beside a few rows.
pub(crate) const PANEL: usize = 64;
/// Columns are filled up with zeros to a multiple of this.
pub(crate) const LINE: usize = 16;

/// Sixteen numbers on a cache line of their own, so that no load straddles two.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(pub(crate) [f32; LINE]);

/// The right factor of a product, `[depth, columns]`, cut into panels of 64 columns whose rows follow one another.
///
/// For a convolution `depth` runs over the kernel's taps, row by row, and over the input's channels within a tap.
pub struct Matrix {
    pub(crate) columns: usize,
    /// How often a row is looked up anew: a kernel's taps, 1 for a plain product.
    pub(crate) taps: usize,
    /// Depth within a tap.
    pub(crate) channels: usize,
    lines: Vec<Line>,
}

/// Where the numbers of a [`Matrix`] lie in a slice: element (tap, channel, column) is at `taps[tap] + channel *
/// channel_stride + column * column_stride`.
struct Source<'a> {
    data: &'a [f32],
    columns: usize,
    column_stride: usize,
    taps: Vec<usize>,
    channels: usize,
    channel_stride: usize,
}

impl Matrix {
    /// From a Linear layer's weight, `[output, input]`: the product takes `input` numbers to `output`.
    #[must_use]
    pub fn linear(weight: &[f32], output: usize, input: usize) -> Self {
        Self::strided(weight, input, 1, output, input)
    }

    /// From the same weight, for the product that takes a gradient back from `output` numbers to `input`.
    #[must_use]
    pub fn linear_back(weight: &[f32], output: usize, input: usize) -> Self {
        Self::strided(weight, output, input, input, 1)
    }

    /// From a convolution's weight, `[output, input, kernel, kernel]`.
    #[must_use]
    pub fn conv(weight: &[f32], output: usize, input: usize, kernel: usize) -> Self {
        let area = kernel * kernel;
        Self::pack(&Source {
            data: weight,
            columns: output,
            column_stride: input * area,
            taps: (0..area).collect(),
            channels: input,
            channel_stride: area,
        })
    }

    /// From the same weight, for the convolution that takes a gradient back: input and output swapped, taps turned around.
    #[must_use]
    pub fn conv_back(weight: &[f32], output: usize, input: usize, kernel: usize) -> Self {
        let area = kernel * kernel;
        Self::pack(&Source {
            data: weight,
            columns: input,
            column_stride: area,
            taps: (0..area).rev().collect(),
            channels: output,
            channel_stride: input * area,
        })
    }

    /// A plain matrix: element (row, column) is at `row * row_stride + column * column_stride` of `data`.
    pub(crate) fn strided(data: &[f32], depth: usize, row_stride: usize, columns: usize, column_stride: usize) -> Self {
        Self::pack(&Source { data, columns, column_stride, taps: vec![0], channels: depth, channel_stride: row_stride })
    }

    /// Panics when `data` is shorter than the strides say.
    fn pack(source: &Source<'_>) -> Self {
        let depth = source.taps.len() * source.channels;
        let widths = source.columns.div_ceil(LINE);
        let mut lines = vec![Line([0.0; LINE]); depth * widths];
        let panels = lines.chunks_mut((depth * PANEL / LINE).max(1));
        let pack = |(panel, lines): (usize, &mut [Line])| pack_panel(source, panel * PANEL, lines);
        if parallel::worth_it(depth * source.columns * 8) {
            panels.collect::<Vec<_>>().into_par_iter().enumerate().for_each(pack);
        } else {
            panels.enumerate().for_each(pack);
        }
        Self { columns: source.columns, taps: source.taps.len(), channels: source.channels, lines }
    }

    /// How many numbers a row of the left factor has for each output.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.taps * self.channels
    }

    /// How many numbers a row of the output has.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }

    pub(crate) fn panels(&self) -> usize {
        self.columns.div_ceil(PANEL)
    }

    /// The numbers of a panel, row after row, and the length of its rows: 64, or less in the last one.
    pub(crate) fn panel(&self, panel: usize) -> (&[Line], usize) {
        let width = (self.columns - panel * PANEL).min(PANEL).next_multiple_of(LINE);
        let start = panel * self.depth() * PANEL / LINE;
        (&self.lines[start..start + self.depth() * width / LINE], width)
    }
}

/// Fills the panel that begins at a column.
fn pack_panel(source: &Source<'_>, first: usize, lines: &mut [Line]) {
    /// Channels that are read together, so that what one read brings into the cache is used before it leaves.
    const BLOCK: usize = 16;
    let columns = (source.columns - first).min(PANEL);
    let width = columns.div_ceil(LINE);
    for start in (0..source.channels).step_by(BLOCK) {
        let channels = start..(start + BLOCK).min(source.channels);
        for column in 0..columns {
            let data = &source.data[(first + column) * source.column_stride..];
            for (tap, &offset) in source.taps.iter().enumerate() {
                for channel in channels.clone() {
                    let row = tap * source.channels + channel;
                    lines[row * width + column / LINE].0[column % LINE] =
                        data[offset + channel * source.channel_stride];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(matrix: &Matrix, row: usize, column: usize) -> f32 {
        let (lines, width) = matrix.panel(column / PANEL);
        let column = column % PANEL;
        lines[row * width / LINE + column / LINE].0[column % LINE]
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
