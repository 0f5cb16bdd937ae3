//! Eigenvectors of a symmetric matrix: which directions of a layer's output carry little, and its singular vectors.

/// Eigenvalues, rising, and their orthonormal eigenvectors by rows, `[n, n]`.
///
/// Householder's way to a tridiagonal matrix and implicit steps of QR with Wilkinson's shift (Golub and Van Loan, Matrix
/// Computations, sections 8.3.1 to 8.3.3). `matrix` is `[n, n]` and symmetric.
pub(crate) fn symmetric(mut matrix: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside, mut rows) = tridiagonal(&mut matrix, n);
    let mut end = n.saturating_sub(1);
    while end > 0 {
        let negligible = |k: usize, d: &[f64], e: &[f64]| e[k].abs() <= f64::EPSILON * (d[k].abs() + d[k + 1].abs());
        if negligible(end - 1, &diagonal, &beside) {
            end -= 1;
            continue;
        }
        let start = (0..end).rev().find(|&k| negligible(k, &diagonal, &beside)).map_or(0, |k| k + 1);
        sweep(&mut diagonal, &mut beside, &mut rows, n, start, end);
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| diagonal[a].total_cmp(&diagonal[b]));
    let vectors = order.iter().flat_map(|&k| rows[k * n..][..n].iter().copied()).collect();
    (order.iter().map(|&k| diagonal[k]).collect(), vectors)
}

/// Diagonal and subdiagonal of `Qᵀ A Q`, and the rows of `Qᵀ`.
fn tridiagonal(a: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let mut beside = vec![0.0; n.saturating_sub(1)];
    let mut mirrors: Vec<Vec<f64>> = Vec::new();
    for k in 0..n.saturating_sub(1) {
        let mut v: Vec<f64> = (k + 1..n).map(|i| a[i * n + k]).collect();
        let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let target = if v[0] > 0.0 { -length } else { length };
        v[0] -= target;
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        beside[k] = if norm > 0.0 { target } else { 0.0 };
        if norm > 0.0 {
            v.iter_mut().for_each(|x| *x /= norm);
            reflect_both_sides(a, n, k + 1, &v);
        }
        mirrors.push(v);
    }
    let diagonal = (0..n).map(|i| a[i * n + i]).collect();
    let mut rows = vec![0.0; n * n];
    (0..n).for_each(|i| rows[i * n + i] = 1.0);
    // Qᵀ is the last mirror times .. times the first; a mirror on the right changes each row alone.
    for (k, v) in mirrors.iter().enumerate().rev() {
        for row in rows.chunks_exact_mut(n) {
            let part = &mut row[k + 1..];
            let share = 2.0 * part.iter().zip(v).map(|(x, v)| x * v).sum::<f64>();
            part.iter_mut().zip(v).for_each(|(x, v)| *x -= share * v);
        }
    }
    (diagonal, beside, rows)
}

/// `H A H` of the lower right part from `from` on, `H = I - 2 v vᵀ`: `A - v wᵀ - w vᵀ`.
fn reflect_both_sides(a: &mut [f64], n: usize, from: usize, v: &[f64]) {
    let part = |i: usize| i * n + from..(i + 1) * n;
    let mut w: Vec<f64> = (from..n).map(|i| 2.0 * a[part(i)].iter().zip(v).map(|(a, v)| a * v).sum::<f64>()).collect();
    let half = 0.5 * w.iter().zip(v).map(|(w, v)| w * v).sum::<f64>();
    w.iter_mut().zip(v).for_each(|(w, v)| *w -= 2.0 * half * v);
    for i in from..n {
        let (vi, wi) = (v[i - from], w[i - from]);
        a[part(i)].iter_mut().zip(v.iter().zip(&w)).for_each(|(a, (v, w))| *a -= vi * w + wi * v);
    }
}

/// One step of QR on the part from `start` to `end`.
fn sweep(d: &mut [f64], e: &mut [f64], rows: &mut [f64], n: usize, start: usize, end: usize) {
    let half = (d[end - 1] - d[end]) / 2.0;
    let square = e[end - 1] * e[end - 1];
    let shift = d[end] - square / (half + half.signum() * (half * half + square).sqrt());
    let (mut x, mut z) = (d[start] - shift, e[start]);
    for k in start..end {
        let length = x.hypot(z);
        let (c, s) = if length > 0.0 { (x / length, z / length) } else { (1.0, 0.0) };
        if k > start {
            e[k - 1] = length;
        }
        let (d0, d1, e0) = (d[k], d[k + 1], e[k]);
        d[k] = c * c * d0 + 2.0 * c * s * e0 + s * s * d1;
        d[k + 1] = s * s * d0 - 2.0 * c * s * e0 + c * c * d1;
        e[k] = c * s * (d1 - d0) + (c * c - s * s) * e0;
        x = e[k];
        if k + 1 < end {
            z = s * e[k + 1];
            e[k + 1] *= c;
        }
        let (upper, lower) = rows[k * n..(k + 2) * n].split_at_mut(n);
        for (upper, lower) in upper.iter_mut().zip(lower) {
            (*upper, *lower) = (c * *upper + s * *lower, c * *lower - s * *upper);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::uniform;

    #[test]
    fn vectors_are_orthonormal_and_the_matrix_only_stretches_them() {
        for n in [1, 2, 3, 17, 64] {
            // Of lower rank from 17 on, so that eigenvalues of zero come together.
            let rank = n.min(12);
            let factor = uniform("eigen", n * rank);
            let entry = |i: usize, j: usize| (0..rank).map(|k| factor[i * rank + k] * factor[j * rank + k]).sum();
            let matrix: Vec<f64> = (0..n * n).map(|at| entry(at / n, at % n)).collect();
            let (values, vectors) = symmetric(matrix.clone(), n);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            for (i, a) in vectors.chunks_exact(n).enumerate() {
                for (j, b) in vectors.chunks_exact(n).enumerate() {
                    assert!((dot(a, b) - f64::from(u8::from(i == j))).abs() < 1e-12);
                }
                for (row, x) in matrix.chunks_exact(n).zip(a) {
                    assert!((dot(row, a) - values[i] * x).abs() < 1e-11, "{n}");
                }
            }
            assert!(values.is_sorted());
        }
    }
}
