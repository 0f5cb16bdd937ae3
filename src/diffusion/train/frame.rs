//! Orthonormal directions from numbers that span them, and the way of a gradient back to those numbers.

use crate::adapters::{Fault, qr};

/// `B = Q R` of `rank` vectors of `width` numbers, by rows.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) width: usize,
    /// Orthonormal rows, `[rank, width]`.
    pub(super) q: Vec<f64>,
    /// Upper triangle, `[rank, rank]`, positive on the diagonal.
    pub(super) r: Vec<f64>,
}

impl Frame {
    /// The factors of [`qr`], whose columns are rows here.
    ///
    /// # Errors
    /// The first vector that depends on those before it, or is no numbers.
    pub(super) fn of(vectors: &[f64], width: usize) -> Result<Self, usize> {
        let rank = vectors.len() / width;
        let factors = qr("", &transposed(vectors, rank, width), width, rank).map_err(|fault| match fault {
            Fault::RankDeficient { column, .. } => column,
            Fault::NonFinite { index, .. } => index % rank,
            other => unreachable!("a frame has some vectors, and fewer than they are long: {other}"),
        })?;
        Ok(Self { width, q: transposed(&factors.q, width, rank), r: factors.r })
    }

    pub(super) fn rank(&self) -> usize {
        self.q.len() / self.width.max(1)
    }

    /// From the gradient by `Q`, all its numbers free, to that by `B`: `[rank, width]` both.
    ///
    /// With `M = -Ḡᵀ Q`: `(Ḡ + Q copyltu(M)) R⁻ᵀ`. Where only the span counts, `M` is symmetric and this is
    /// `(Ḡ - Q Qᵀ Ḡ) R⁻ᵀ`. Liao et al. 2019, arXiv:1903.09650, equation 15, with no gradient by `R`.
    pub(super) fn back(&self, gradient: &[f64]) -> Vec<f64> {
        let (rank, width) = (self.rank(), self.width);
        let row = |of: &'_ [f64], index: usize| -> Vec<f64> { of[index * width..][..width].to_vec() };
        let m = |i: usize, j: usize| -dot(&gradient[i * width..][..width], &self.q[j * width..][..width]);
        // By rows: column j of the result gets Q's column i times copyltu(M)[i, j], which is M's lower triangle and its
        // mirror image.
        let mut columns: Vec<Vec<f64>> = (0..rank)
            .map(|j| {
                let mut column = row(gradient, j);
                for i in 0..rank {
                    let share = if i >= j { m(i, j) } else { m(j, i) };
                    let direction = &self.q[i * width..][..width];
                    column.iter_mut().zip(direction).for_each(|(x, d)| *x += share * d);
                }
                column
            })
            .collect();
        // X Rᵀ = Y, from the last column on: Y_j = Σ_{i ≥ j} X_i R[j, i].
        for j in (0..rank).rev() {
            let (head, tail) = columns.split_at_mut(j + 1);
            let column = &mut head[j];
            for (offset, later) in tail.iter().enumerate() {
                let factor = self.r[j * rank + j + 1 + offset];
                column.iter_mut().zip(later).for_each(|(x, l)| *x -= factor * l);
            }
            let pivot = self.r[j * rank + j];
            column.iter_mut().for_each(|x| *x /= pivot);
        }
        columns.into_iter().flatten().collect()
    }
}

/// `[rows, columns]` as `[columns, rows]`.
fn transposed(matrix: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..rows * columns).map(|at| matrix[at % rows * columns + at / rows]).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The micro vector of the method's description: `d` 4, `k` 3, `r` 2, two rows, `L = ½ Σ (y' + b)²`.
    #[test]
    fn the_gradient_is_that_of_the_whole_decomposition() {
        let b: Vec<f64> = (0..2).flat_map(|j| (0..4).map(move |i| f64::from(1 + i + 2 * j).sin())).collect();
        let frame = Frame::of(&b, 4).unwrap();
        let expected = [1.4586158172, -0.3381776193, 0.0, 1.2148701809];
        frame.r.iter().zip(expected).for_each(|(found, expected)| assert!((found - expected).abs() < 1e-9));
        let expected = [0.5768969285, 0.6233974814, 0.0967492649, -0.5188497796];
        frame.q[..4].iter().zip(expected).for_each(|(found, expected)| assert!((found - expected).abs() < 1e-9));

        let (mut to_q, mut loss) = (vec![0.0; 8], 0.0);
        for p in 0..2 {
            let x = |j: i32| 0.2 * f64::from(p + 1) - 0.1 * f64::from(j);
            let y: Vec<f64> =
                (0..4).map(|i| (0..3).map(|j| (0.5 * f64::from(i) - 0.3 * f64::from(j)).cos() * x(j)).sum()).collect();
            let c: Vec<f64> = frame.q.chunks_exact(4).map(|q| dot(q, &y)).collect();
            let out: Vec<f64> =
                (0..4).map(|i| y[i] - c[0] * frame.q[i] - c[1] * frame.q[4 + i] + 0.1 * (i as f64 + 1.0)).collect();
            loss += 0.5 * dot(&out, &out);
            for (j, q) in frame.q.chunks_exact(4).enumerate() {
                let k = dot(q, &out);
                (0..4).for_each(|i| to_q[j * 4 + i] -= c[j] * out[i] + k * y[i]);
            }
        }
        assert!((loss - 0.866_212_918_937_772_9).abs() < 1e-15);
        let expected = [
            -0.3875197957,
            0.0319928108,
            0.0304179427,
            -0.3867628676,
            0.7363374915,
            -0.0781502544,
            -0.0390389308,
            0.7175394347,
        ];
        let found = frame.back(&to_q);
        found.iter().zip(expected).for_each(|(found, expected)| assert!((found - expected).abs() < 1e-9, "{found}"));
        // A gradient of what only counts as a span does not move inside it.
        for q in frame.q.chunks_exact(4) {
            assert!(found.chunks_exact(4).all(|column| dot(q, column).abs() < 1e-12));
        }
    }

    #[test]
    fn a_vector_that_depends_on_others_is_named() {
        let b = [1.0, 2.0, 3.0, 0.0, 1.0, 1.0, 2.0, 6.0, 8.0];
        assert_eq!(Frame::of(&b, 3).unwrap_err(), 2);
        assert_eq!(Frame::of(&[0.0, 0.0], 2).unwrap_err(), 0);
        assert_eq!(Frame::of(&[1.0, 0.0, f64::NAN, 1.0], 2).unwrap_err(), 1);
        assert!(Frame::of(&b[..6], 3).is_ok());
    }
}
