//! Orthonormal columns with the span of a given matrix: `B = Q R`, in f64.
//!
//! Only the span of `B` counts for PaRa, so its columns are normalised first; Gram-Schmidt applied twice to each column then is
//! as exact as the matrix allows. With a positive diagonal of `R` the factors are unique, so the same `B` gives the same bytes.

use super::fault::Fault;

/// Below this ratio of the diagonal of `R` (columns normalised) a column says nothing that the others do not.
pub const DEFICIENT: f64 = 1e-6;

/// `B = Q R`, all matrices row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Qr {
    /// `d`.
    pub rows: usize,
    /// `r`.
    pub columns: usize,
    /// `[d, r]`, orthonormal columns.
    pub q: Vec<f64>,
    /// `[r, r]`, upper triangular, positive diagonal.
    pub r: Vec<f64>,
    /// `[r, r]`, the inverse of `r`.
    pub r_inverse: Vec<f64>,
    /// The greatest by the smallest diagonal entry of `R` for normalised columns: 1 for orthogonal ones.
    pub condition: f64,
}

/// Factors `b` `[rows, columns]`, given row by row.
///
/// # Errors
/// [`Fault::NonFinite`], [`Fault::InvalidRank`] for no columns, [`Fault::RankTooLarge`] for more columns than rows,
/// [`Fault::RankDeficient`] when the columns are not independent. `name` is the layer or tensor that they tell of.
pub fn qr(name: &str, b: &[f64], rows: usize, columns: usize) -> Result<Qr, Fault> {
    let (factors, dropped) = factor(name, b, rows, columns, Dependent::Refuse)?;
    debug_assert!(dropped.is_empty());
    Ok(factors)
}

/// The same, with columns that depend on earlier ones left out. Gives their places too.
///
/// # Errors
/// As [`qr`]; [`Fault::RankDeficient`] only when no column is left.
pub fn qr_repaired(name: &str, b: &[f64], rows: usize, columns: usize) -> Result<(Qr, Vec<usize>), Fault> {
    factor(name, b, rows, columns, Dependent::Drop)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dependent {
    Refuse,
    Drop,
}

/// One column of `B` as it becomes one of `Q`.
struct Column {
    q: Vec<f64>,
    /// What it had of each earlier column, then what is left of it: a column of `R`, times the column's length.
    r: Vec<f64>,
    left: f64,
}

fn factor(name: &str, b: &[f64], rows: usize, columns: usize, dependent: Dependent) -> Result<(Qr, Vec<usize>), Fault> {
    assert_eq!(b.len(), rows * columns, "`{name}`: as many numbers as rows times columns");
    if columns == 0 {
        return Err(Fault::InvalidRank { rank: 0 });
    }
    if columns > rows {
        return Err(Fault::RankTooLarge { layer: name.to_owned(), rank: columns, outputs: rows });
    }
    if let Some(index) = b.iter().position(|x| !x.is_finite()) {
        return Err(Fault::NonFinite { tensor: name.to_owned(), index });
    }
    let mut done: Vec<Column> = Vec::with_capacity(columns);
    let mut dropped = Vec::new();
    let mut most: f64 = 0.0;
    let mut least = f64::INFINITY;
    for index in 0..columns {
        let column: Vec<f64> = b.iter().skip(index).step_by(columns).copied().collect();
        let made = orthogonalise(&column, &done);
        let (low, high) = (least.min(made.left), most.max(made.left));
        let ratio = if high > 0.0 { low / high } else { 0.0 };
        if ratio < DEFICIENT {
            if dependent == Dependent::Refuse {
                return Err(Fault::RankDeficient { layer: name.to_owned(), column: index, ratio });
            }
            dropped.push(index);
            continue;
        }
        (least, most) = (low, high);
        done.push(made);
    }
    if done.is_empty() {
        return Err(Fault::RankDeficient { layer: name.to_owned(), column: 0, ratio: 0.0 });
    }
    Ok((assemble(rows, &done, most / least), dropped))
}

/// Takes out of a column what it shares with those before it, twice, because the first time leaves the rounding's share.
fn orthogonalise(column: &[f64], before: &[Column]) -> Column {
    let length = norm(column);
    let scale = if length > 0.0 { length } else { 1.0 };
    let mut q: Vec<f64> = column.iter().map(|x| x / scale).collect();
    let mut r = vec![0.0; before.len()];
    for _ in 0..2 {
        for (earlier, r) in before.iter().zip(&mut r) {
            let shared = dot(&earlier.q, &q);
            *r += shared;
            q.iter_mut().zip(&earlier.q).for_each(|(q, e)| *q -= shared * e);
        }
    }
    let left = norm(&q);
    if left > 0.0 {
        q.iter_mut().for_each(|x| *x /= left);
    }
    r.push(left);
    r.iter_mut().for_each(|r| *r *= length);
    Column { q, r, left }
}

fn assemble(rows: usize, columns: &[Column], condition: f64) -> Qr {
    let rank = columns.len();
    let (mut q, mut r) = (vec![0.0; rows * rank], vec![0.0; rank * rank]);
    for (index, column) in columns.iter().enumerate() {
        column.q.iter().enumerate().for_each(|(row, x)| q[row * rank + index] = *x);
        column.r.iter().enumerate().for_each(|(row, x)| r[row * rank + index] = *x);
    }
    let r_inverse = invert_upper(&r, rank);
    Qr { rows, columns: rank, q, r, r_inverse, condition }
}

/// The inverse of an upper triangular matrix without zeros on its diagonal.
fn invert_upper(r: &[f64], n: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; n * n];
    for column in 0..n {
        inverse[column * n + column] = 1.0 / r[column * n + column];
        for row in (0..column).rev() {
            let sum: f64 = (row + 1..=column).map(|k| r[row * n + k] * inverse[k * n + column]).sum();
            inverse[row * n + column] = -sum / r[row * n + row];
        }
    }
    inverse
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Scaled by the greatest entry, so that nothing overflows.
fn norm(a: &[f64]) -> f64 {
    let most = a.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    if most == 0.0 {
        return 0.0;
    }
    most * a.iter().map(|x| (x / most) * (x / most)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::uniform;

    /// Entries of `Qᵀ Q - I` and `Q R - B`, the greatest of each.
    fn errors(qr: &Qr, b: &[f64]) -> (f64, f64) {
        let (d, r) = (qr.rows, qr.columns);
        let mut orthogonality: f64 = 0.0;
        let mut product: f64 = 0.0;
        for i in 0..r {
            for j in 0..r {
                let sum: f64 = (0..d).map(|row| qr.q[row * r + i] * qr.q[row * r + j]).sum();
                orthogonality = orthogonality.max((sum - f64::from(i == j)).abs());
            }
        }
        for row in 0..d {
            for j in 0..r {
                let sum: f64 = (0..r).map(|k| qr.q[row * r + k] * qr.r[k * r + j]).sum();
                product = product.max((sum - b[row * r + j]).abs());
            }
        }
        (orthogonality, product)
    }

    #[test]
    fn factors_multiply_back_and_columns_are_orthonormal() {
        for (rows, columns) in [(1, 1), (4, 2), (64, 8), (320, 16), (8, 8)] {
            let b = uniform(&format!("b{rows}"), rows * columns);
            let factors = qr("layer", &b, rows, columns).unwrap();
            let (orthogonality, product) = errors(&factors, &b);
            assert!(orthogonality < 1e-14 && product < 1e-14, "{rows} x {columns}: {orthogonality:e} {product:e}");
            for i in 0..columns {
                assert!(factors.r[i * columns + i] > 0.0);
                for j in 0..columns {
                    let sum: f64 =
                        (0..columns).map(|k| factors.r[i * columns + k] * factors.r_inverse[k * columns + j]).sum();
                    assert!((sum - f64::from(i == j)).abs() < 1e-12, "R times its inverse");
                }
            }
        }
    }

    /// `para.md`'s numbers for `B = sin(1 + i + 2 j)`.
    #[test]
    fn the_micro_vector_is_met() {
        let b: Vec<f64> =
            (0..4).flat_map(|i| (0..2).map(move |j| (1.0 + f64::from(i) + 2.0 * f64::from(j)).sin())).collect();
        let factors = qr("layer", &b, 4, 2).unwrap();
        let q = [
            0.576_896_928_5,
            0.276_748_613_3,
            0.623_397_481_4,
            -0.449_417_088_1,
            0.096_749_264_9,
            -0.762_390_791_3,
            -0.518_849_779_6,
            -0.374_425_916_9,
        ];
        let r = [1.458_615_817_2, -0.338_177_619_3, 0.0, 1.214_870_180_9];
        let close = |found: &[f64], expected: &[f64]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-10);
        assert!(close(&factors.q, &q) && close(&factors.r, &r), "{factors:?}");
    }

    #[test]
    fn scale_of_columns_changes_nothing_and_extremes_do_not_overflow() {
        let b = uniform("b", 12 * 3);
        let plain = qr("layer", &b, 12, 3).unwrap();
        for scales in [[1e-150, 1e150, 1.0], [3.0, 0.25, 7.0]] {
            let scaled: Vec<f64> = b.iter().enumerate().map(|(at, x)| x * scales[at % 3]).collect();
            let factors = qr("layer", &scaled, 12, 3).unwrap();
            assert!(factors.q.iter().zip(&plain.q).all(|(a, b)| (a - b).abs() < 1e-14), "{scales:?}");
        }
    }

    #[test]
    fn what_spans_too_little_is_refused_or_repaired() {
        let twice: Vec<f64> = uniform("b", 10).iter().flat_map(|x| [*x, -2.0 * x, 0.0]).collect();
        assert!(matches!(
            qr("layer", &twice[..], 10, 3),
            Err(Fault::RankDeficient { column: 1, ratio, .. }) if ratio < DEFICIENT
        ));
        let (repaired, dropped) = qr_repaired("layer", &twice, 10, 3).unwrap();
        assert_eq!((repaired.columns, dropped), (1, vec![1, 2]));
        assert!(matches!(qr("layer", &[0.0; 6], 3, 2), Err(Fault::RankDeficient { column: 0, .. })));
        assert!(matches!(qr_repaired("layer", &[0.0; 6], 3, 2), Err(Fault::RankDeficient { .. })));
        assert!(matches!(qr("layer", &[1.0, f64::NAN], 2, 1), Err(Fault::NonFinite { index: 1, .. })));
        assert!(matches!(qr("layer", &[1.0, 2.0], 1, 2), Err(Fault::RankTooLarge { rank: 2, outputs: 1, .. })));
        assert!(matches!(qr("layer", &[], 3, 0), Err(Fault::InvalidRank { rank: 0 })));
    }
}
