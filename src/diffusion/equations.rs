//! Small systems of linear equations. Knows no tensors.

/// The solution of a small system of linear equations, by elimination with the largest pivot.
pub(crate) fn solve(mut rows: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
    let size = right.len();
    for column in 0..size {
        let pivot = (column..size).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        let pivot = pivot.unwrap_or(column);
        rows.swap(column, pivot);
        right.swap(column, pivot);
        let ((above, below), (done, left)) = (rows.split_at_mut(column + 1), right.split_at_mut(column + 1));
        let (pivot, known) = (&above[column], done[column]);
        for (row, right) in below.iter_mut().zip(left) {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(pivot).skip(column).for_each(|(value, above)| *value -= factor * above);
            *right -= factor * known;
        }
    }
    for row in (0..size).rev() {
        let known: f64 = (row + 1..size).map(|k| rows[row][k] * right[k]).sum();
        right[row] = (right[row] - known) / rows[row][row];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_exchanged_where_the_pivot_is_nothing() {
        // y + 2z = 8, x + y + z = 6, 2x + z = 5.
        let rows = vec![vec![0.0, 1.0, 2.0], vec![1.0, 1.0, 1.0], vec![2.0, 0.0, 1.0]];
        assert_eq!(solve(rows, vec![8.0, 6.0, 5.0]), [1.0, 2.0, 3.0]);
    }
}
