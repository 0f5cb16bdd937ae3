//! Enlarging pictures by their nearest pixels.

use std::mem::MaybeUninit;

use crate::fill::filled;
use crate::{parallel, profile};

/// A channels-last picture's measures and those of its enlargement.
#[derive(Debug, Clone, Copy)]
pub struct Resize {
    /// Pictures.
    pub batch: usize,
    /// Height and width.
    pub from: (usize, usize),
    /// Height and width that they become.
    pub to: (usize, usize),
    /// Numbers of a pixel.
    pub channels: usize,
}

/// The pixel of a side of `from` pixels that is nearest to one of `to`.
fn nearest(index: usize, from: usize, to: usize) -> usize {
    index * from / to
}

/// Each pixel of the output is the nearest of `x`.
///
/// # Panics
/// When `x` is of another size.
#[must_use]
pub fn upsample_nearest(x: &[f32], resize: &Resize) -> Vec<f32> {
    let Resize { batch, from, to, channels } = *resize;
    assert_eq!(x.len(), batch * from.0 * from.1 * channels, "pixels of the picture");
    let (line_in, line_out) = (from.1 * channels, to.1 * channels);
    let _call = profile::call("enlarging", 0, x.len() + batch * to.0 * line_out);
    let fill = |out: &mut [MaybeUninit<f32>]| {
        parallel::chunks(out, line_out.max(1), batch * to.0 * line_out, |index, out| {
            let (picture, y) = (index / to.0, index % to.0);
            let line = &x[(picture * from.0 + nearest(y, from.0, to.0)) * line_in..][..line_in];
            for (column, out) in out.chunks_exact_mut(channels).enumerate() {
                let pixel = &line[nearest(column, from.1, to.1) * channels..][..channels];
                out.write_copy_of_slice(pixel);
            }
        });
    };
    // SAFETY: the chunks are the output's lines, and each is written pixel by pixel to its end.
    unsafe { filled(batch * to.0 * line_out, fill) }
}

/// The way back for a gradient: each pixel of the result is the sum of those of `gradient` that it was copied to.
///
/// # Panics
/// When `gradient` is of another size.
#[must_use]
pub fn upsample_nearest_back(gradient: &[f32], resize: &Resize) -> Vec<f32> {
    let Resize { batch, from, to, channels } = *resize;
    assert_eq!(gradient.len(), batch * to.0 * to.1 * channels, "pixels of the gradient");
    let mut sums = vec![0.0; batch * from.0 * from.1 * channels];
    let _call = profile::call("enlarging, back", 0, gradient.len() + sums.len());
    let line_in = from.1 * channels;
    parallel::chunks(&mut sums, line_in.max(1), gradient.len(), |index, sums| {
        let (picture, y) = (index / from.0, index % from.0);
        let first = (y * to.0).div_ceil(from.0);
        let last = ((y + 1) * to.0).div_ceil(from.0);
        for line in first..last {
            let line = &gradient[(picture * to.0 + line) * to.1 * channels..][..to.1 * channels];
            for (column, pixel) in line.chunks_exact(channels).enumerate() {
                let sums = &mut sums[nearest(column, from.1, to.1) * channels..][..channels];
                sums.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += x);
            }
        }
    });
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn doubles_and_fits_odd_sizes() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let resize = |to| Resize { batch: 1, from: (2, 2), to, channels: 1 };
        assert_eq!(upsample_nearest(&x, &resize((2, 4))), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
        assert_eq!(upsample_nearest(&x, &resize((3, 3))), [1.0, 1.0, 2.0, 1.0, 1.0, 2.0, 3.0, 3.0, 4.0]);
    }

    #[test]
    fn the_way_back_is_the_transpose() {
        // ⟨up x, g⟩ = ⟨x, back g⟩ for all x and g.
        for (from, to) in [((4, 3), (8, 6)), ((4, 6), (7, 11)), ((3, 5), (3, 5)), ((2, 3), (7, 8))] {
            let resize = Resize { batch: 2, from, to, channels: 5 };
            let (x, g) = (numbers(1, 2 * from.0 * from.1 * 5), numbers(2, 2 * to.0 * to.1 * 5));
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let forth = dot(&upsample_nearest(&x, &resize), &g);
            let back = dot(&x, &upsample_nearest_back(&g, &resize));
            assert!((forth - back).abs() < 1e-5, "{forth} {back}");
        }
    }
}
