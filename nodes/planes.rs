//! Batches of grey planes as plain numbers, for work that goes pixel by pixel.

use crate::error::Error;
use crate::wires::Mask;
use candle_core::{Device, Tensor};

/// Planes of one size, row after row.
#[derive(Clone)]
pub(crate) struct Planes {
    pub(crate) planes: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Vec<f32>,
}

impl Planes {
    pub(crate) fn of_mask(mask: &Mask) -> Result<Self, Error> {
        let (planes, rows, columns) = mask.dims();
        Ok(Self { planes, rows, columns, values: mask.values().flatten_all()?.to_vec1()? })
    }

    /// All planes of a tensor `[.., rows, columns]`.
    pub(crate) fn of(x: &Tensor) -> Result<Self, Error> {
        let shape = x.dims();
        let (rows, columns) = (shape[shape.len() - 2], shape[shape.len() - 1]);
        let values: Vec<f32> = x.flatten_all()?.to_vec1()?;
        Ok(Self { planes: values.len() / (rows * columns).max(1), rows, columns, values })
    }

    pub(crate) fn into_mask(self) -> Result<Mask, Error> {
        Mask::new(Tensor::from_vec(self.values, (self.planes, self.rows, self.columns), &Device::Cpu)?)
    }

    pub(crate) fn into_tensor(self, shape: &[usize]) -> Result<Tensor, Error> {
        Ok(Tensor::from_vec(self.values, shape, &Device::Cpu)?)
    }

    fn place(&self, plane: usize, row: usize, column: usize) -> usize {
        (plane * self.rows + row) * self.columns + column
    }

    pub(crate) fn scale_column(&mut self, column: usize, factor: f32) {
        for value in self.values.iter_mut().skip(column).step_by(self.columns) {
            *value *= factor;
        }
    }

    pub(crate) fn scale_row(&mut self, row: usize, factor: f32) {
        for plane in self.values.chunks_exact_mut(self.rows * self.columns) {
            plane[row * self.columns..(row + 1) * self.columns].iter_mut().for_each(|value| *value *= factor);
        }
    }

    pub(crate) fn clamp(&mut self) {
        self.values.iter_mut().for_each(|value| *value = value.clamp(0.0, 1.0));
    }

    /// Each value becomes the largest of itself and its neighbours, or the smallest; the edge mirrors what is before it.
    pub(crate) fn spread(&self, largest: bool, diagonal: bool) -> Self {
        let mirror = |at: usize, by: isize, size: usize| match at as isize + by {
            -1 => 0,
            over if over == size as isize => size - 1,
            within => within as usize,
        };
        let mut spread = self.clone();
        for plane in 0..self.planes {
            for row in 0..self.rows {
                for column in 0..self.columns {
                    let mut value = self.values[self.place(plane, row, column)];
                    for (down, right) in (-1..=1).flat_map(|down| (-1..=1).map(move |right| (down, right))) {
                        if !diagonal && down != 0 && right != 0 {
                            continue;
                        }
                        let (row, column) = (mirror(row, down, self.rows), mirror(column, right, self.columns));
                        let other = self.values[self.place(plane, row, column)];
                        value = if largest { value.max(other) } else { value.min(other) };
                    }
                    let place = self.place(plane, row, column);
                    spread.values[place] = value;
                }
            }
        }
        spread
    }

    /// Combines each value with that of a plane of `source` laid over it at a place; a single plane of `source` serves all.
    pub(crate) fn combine(&mut self, source: &Self, x: usize, y: usize, operation: impl Fn(f32, f32) -> f32) {
        let (rows, columns) =
            (source.rows.min(self.rows.saturating_sub(y)), source.columns.min(self.columns.saturating_sub(x)));
        for plane in 0..self.planes {
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let place = self.place(plane, y + row, x + column);
                let other = source.values[source.place(plane % source.planes.max(1), row, column)];
                self.values[place] = operation(self.values[place], other);
            }
        }
    }

    /// The value at a place.
    pub(crate) fn at(&self, plane: usize, row: usize, column: usize) -> f32 {
        self.values[self.place(plane, row, column)]
    }

    /// Lays as much of `source` over this as is seen, from a place on; `blend` gets both values, and the place in `source`.
    pub(crate) fn lay_over(
        &mut self,
        source: &Self,
        (x, y): (usize, usize),
        (rows, columns): (usize, usize),
        blend: impl Fn(f32, f32, (usize, usize, usize)) -> f32,
    ) {
        for plane in 0..self.planes.min(source.planes) {
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let place = self.place(plane, y + row, x + column);
                self.values[place] = blend(self.values[place], source.at(plane, row, column), (plane, row, column));
            }
        }
    }
}
