//! Pictures larger than the memory for them: worked through in tiles that overlap and fade into each other.

use candle_core::Tensor;

use crate::{Error, Result};

/// How a picture is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tiling {
    /// Height and width of a tile; a picture no larger is not cut.
    pub tile: (usize, usize),
    /// Rows and columns that neighbours share.
    pub overlap: usize,
    /// How much larger the result is than the picture.
    pub scale: f64,
}

impl Tiling {
    /// Where along a side tiles begin, and how long they are.
    fn places(&self, size: usize, tile: usize) -> Vec<(usize, usize)> {
        if size <= tile {
            return vec![(0, size)];
        }
        let last = size - self.overlap;
        let starts = (0..last).step_by(tile - self.overlap);
        starts.map(|start| start.min(last)).map(|start| (start, tile.min(size - start))).collect()
    }

    fn scaled(&self, size: usize) -> usize {
        (size as f64 * self.scale).round_ties_even() as usize
    }

    /// How many tiles a picture of this height and width has.
    #[must_use]
    pub fn count(&self, height: usize, width: usize) -> usize {
        self.places(height, self.tile.0).len() * self.places(width, self.tile.1).len()
    }
}

/// What `work` makes of a picture, tile by tile. Where tiles overlap, the mean of what was made, each weighing less
/// towards its edges; memory beside the result is that of one tile.
///
/// # Shapes
/// - `x`: `[1, channels, height, width]`, f32
/// - output: `[1, channels', scale · height, scale · width]`, f32
///
/// # Errors
/// Tiles that are no larger than their overlap; what `work` says.
pub fn tiled(x: &Tensor, tiling: &Tiling, work: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (batch, _, height, width) = x.dims4()?;
    let Tiling { tile, overlap, .. } = *tiling;
    if batch != 1 || tile.0.min(tile.1) == 0 {
        return Err(Error::Shape {
            layer: "tiles".to_owned(),
            expected: "one picture, and tiles that are not empty".to_owned(),
            found: x.dims().to_vec(),
        });
    }
    if height <= tile.0 && width <= tile.1 {
        return work(x);
    }
    if (height > tile.0 && tile.0 <= overlap) || (width > tile.1 && tile.1 <= overlap) {
        return Err(Error::Shape {
            layer: "tiles".to_owned(),
            expected: format!("tiles larger than their overlap of {overlap}"),
            found: vec![tile.0, tile.1],
        });
    }
    let mut canvas = None;
    for &(y, rows) in &tiling.places(height, tile.0) {
        for &(left, columns) in &tiling.places(width, tile.1) {
            let made = work(&x.narrow(2, y, rows)?.narrow(3, left, columns)?.contiguous()?)?;
            let (_, channels, ..) = made.dims4()?;
            let canvas =
                canvas.get_or_insert_with(|| Canvas::new(channels, tiling.scaled(height), tiling.scaled(width)));
            canvas.add(&made, (tiling.scaled(y), tiling.scaled(left)), tiling.scaled(overlap))?;
        }
    }
    canvas.expect("a picture has at least one tile").finish(x)
}

/// The weighted sum of tiles, and the sum of their weights.
struct Canvas {
    sums: Vec<f32>,
    weights: Vec<f32>,
    channels: usize,
    height: usize,
    width: usize,
}

impl Canvas {
    fn new(channels: usize, height: usize, width: usize) -> Self {
        let cells = height * width;
        Self { sums: vec![0.0; channels * cells], weights: vec![0.0; cells], channels, height, width }
    }

    fn add(&mut self, tile: &Tensor, (top, left): (usize, usize), feather: usize) -> Result<()> {
        let (_, _, rows, columns) = tile.dims4()?;
        let values: Vec<f32> = tile.flatten_all()?.to_vec1()?;
        let (down, across) = (fade(rows, feather), fade(columns, feather));
        let (rows_here, columns_here) = (rows.min(self.height - top), columns.min(self.width - left));
        for y in 0..rows_here {
            let line = (top + y) * self.width + left;
            for x in 0..columns_here {
                let weight = down[y] * across[x];
                self.weights[line + x] += weight;
                for channel in 0..self.channels {
                    self.sums[channel * self.height * self.width + line + x] +=
                        values[(channel * rows + y) * columns + x] * weight;
                }
            }
        }
        Ok(())
    }

    fn finish(mut self, like: &Tensor) -> Result<Tensor> {
        let cells = self.height * self.width;
        for plane in self.sums.chunks_exact_mut(cells) {
            plane.iter_mut().zip(&self.weights).for_each(|(sum, weight)| *sum /= weight);
        }
        Ok(Tensor::from_vec(self.sums, (1, self.channels, self.height, self.width), like.device())?)
    }
}

/// What each cell along a side weighs: less over `feather` cells from both ends, also those at the picture's edge.
fn fade(size: usize, feather: usize) -> Vec<f32> {
    let mut weights = vec![1.0_f32; size];
    if feather < size {
        for i in 0..feather {
            let factor = ((i + 1) as f64 / feather as f64) as f32;
            weights[i] *= factor;
            weights[size - 1 - i] *= factor;
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{relative_error, value};

    /// Work that looks at no neighbours does not see the cuts.
    #[test]
    fn tiles_of_pointwise_work_are_the_whole() {
        let x = value("x", &[1, 2, 37, 50], 1.0);
        let tiling = Tiling { tile: (16, 20), overlap: 4, scale: 1.0 };
        assert_eq!(tiling.count(37, 50), 3 * 3);
        let mut tiles = 0;
        let made = tiled(&x, &tiling, &mut |tile| {
            tiles += 1;
            assert!(tile.dims()[2] <= 16 && tile.dims()[3] <= 20);
            Ok((tile * 3.0)?)
        });
        assert_eq!(tiles, 9);
        assert!(relative_error(&made.unwrap(), &(x * 3.0).unwrap()) < 1e-6);
    }

    #[test]
    fn tiles_no_larger_than_their_overlap_are_an_error() {
        let x = value("x", &[1, 2, 37, 50], 1.0);
        let tiling = Tiling { tile: (64, 16), overlap: 16, scale: 1.0 };
        let error = tiled(&x, &tiling, &mut |tile| Ok(tile.clone())).unwrap_err();
        assert!(error.to_string().contains("larger than their overlap of 16"), "{error}");
    }
}
