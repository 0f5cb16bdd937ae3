//! What the kernels compute, by definition and in f64, for their tests.

use crate::{Groups, Heads, Window};

/// The product by its definition, in f64.
pub(crate) fn plain_linear(x: &[f32], weight: &[f32], output: usize, input: usize) -> Vec<f64> {
    let row = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
    x.chunks(input).flat_map(|x| weight.chunks(input).take(output).map(move |w| row(x, w))).collect()
}

/// The convolution by its definition, in f64.
pub(crate) fn plain_conv(x: &[f32], window: &Window, weight: &[f32], output: usize, input: usize) -> Vec<f64> {
    let ((height, width), kernel) = (window.output(), window.kernel);
    let mut y = Vec::new();
    for index in 0..window.batch * height * width * output {
        let (o, pixel) = (index % output, index / output);
        let (column, line, batch) = (pixel % width, pixel / width % height, pixel / width / height);
        let mut sum = 0.0;
        for tap in 0..kernel * kernel {
            let row = (line * window.stride + tap / kernel).checked_sub(window.before).filter(|&y| y < window.height);
            let cell = (column * window.stride + tap % kernel).checked_sub(window.before).filter(|&x| x < window.width);
            let (Some(row), Some(cell)) = (row, cell) else { continue };
            for i in 0..input {
                let pixel = x[((batch * window.height + row) * window.width + cell) * input + i];
                sum += f64::from(pixel) * f64::from(weight[(o * input + i) * kernel * kernel + tap]);
            }
        }
        y.push(sum);
    }
    y
}

/// Attention by its definition, in f64.
pub(crate) fn plain_attention<T: Copy + Into<f64>>(q: &[T], k: &[T], v: &[T], heads: &Heads) -> Vec<f64> {
    let width = heads.width();
    let mut out = vec![0.0; q.len()];
    for index in 0..heads.batch * heads.queries * heads.heads {
        let (head, row) = (index % heads.heads * heads.dim, index / heads.heads);
        let (batch, query) = (row / heads.queries, row % heads.queries);
        let at = |x: &[T], row: usize, i: usize| x[row * width + head + i].into();
        let seen = if heads.causal { heads.keys.min(query + 1) } else { heads.keys };
        let key = |key: usize| batch * heads.keys + key;
        let score = |index: usize| -> f64 {
            let dot: f64 = (0..heads.dim).map(|i| at(q, row, i) * at(k, key(index), i)).sum();
            dot / (heads.dim as f64).sqrt()
        };
        let scores: Vec<f64> = (0..seen).map(score).collect();
        let greatest = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - greatest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for i in 0..heads.dim {
            let found: f64 = weights.iter().enumerate().map(|(index, weight)| weight * at(v, key(index), i)).sum();
            out[row * width + head + i] = found / sum;
        }
    }
    out
}

fn plain_statistics(numbers: &[f64]) -> (f64, f64) {
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    (mean, numbers.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / numbers.len() as f64)
}

/// Group norm by its definition, without an activation.
pub(crate) fn plain_group_norm<T: Copy + Into<f64>>(x: &[T], groups: &Groups<'_>) -> Vec<f64> {
    let channels = groups.scale.len();
    let (picture, per_group) = (x.len() / groups.batch, channels / groups.groups);
    let mut y = vec![0.0; x.len()];
    for batch in 0..groups.batch {
        for group in 0..groups.groups {
            let own = |index: &usize| index % channels / per_group == group;
            let indices: Vec<usize> = (batch * picture..(batch + 1) * picture).filter(own).collect();
            let numbers: Vec<f64> = indices.iter().map(|&index| x[index].into()).collect();
            let (mean, variance) = plain_statistics(&numbers);
            for index in indices {
                let normed = (x[index].into() - mean) / (variance + f64::from(groups.epsilon)).sqrt();
                let channel = index % channels;
                y[index] = normed * f64::from(groups.scale[channel]) + f64::from(groups.shift[channel]);
            }
        }
    }
    y
}

/// Layer norm by its definition.
pub(crate) fn plain_layer_norm<T: Copy + Into<f64>>(x: &[T], scale: &[f32], shift: &[f32], epsilon: f64) -> Vec<f64> {
    let row = |row: &[T]| -> Vec<f64> {
        let row: Vec<f64> = row.iter().map(|&x| x.into()).collect();
        let (mean, variance) = plain_statistics(&row);
        let normed = row.iter().map(|x| (x - mean) / (variance + epsilon).sqrt());
        normed.enumerate().map(|(i, x)| x * f64::from(scale[i]) + f64::from(shift[i])).collect()
    };
    x.chunks(scale.len()).flat_map(row).collect()
}

/// The error function by its series: 60 terms are exact to f64 where |x| ≤ 4.
pub(crate) fn exact_erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..90 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}
