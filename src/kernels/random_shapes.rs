//! Every kernel beside its definition in f64, over shapes drawn at random. The instruction set is the one in use, so that
//! `PARAFLOW_CPU` runs all of this on each.

use proptest::prelude::*;

use crate::definitions::{exact_erf, plain_attention, plain_conv, plain_group_norm, plain_layer_norm, plain_linear};
use crate::testing::{assert_close, numbers};
use crate::{
    Epilogue, Groups, Heads, Matrix, Resize, Window, attention, attention_back, conv2d, geglu, geglu_back, gelu,
    gelu_back, group_norm, group_norm_back, layer_norm, layer_norm_back, linear, outer, quick_gelu, quick_gelu_back,
    silu, silu_back, thin, upsample_nearest, upsample_nearest_back, widen,
};

/// An interpreter that checks every access takes some thousand times as long.
const CASES: u32 = if cfg!(miri) { 2 } else { 48 };
/// Divides sides and widths there.
const SMALLER: usize = if cfg!(miri) { 8 } else { 1 };

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) }
}

fn up_to(most: usize) -> std::ops::RangeInclusive<usize> {
    1..=(most / SMALLER).max(1)
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// What is added to each output, `[rows, columns]`, rows in equal groups.
fn added(epilogue: Epilogue<'_>, rows: usize, batch: usize, columns: usize) -> Vec<f64> {
    let each = |index: usize| {
        let (row, column) = (index / columns, index % columns);
        let shift = epilogue.shift.map_or(0.0, |shift| shift[row / (rows / batch) * columns + column]);
        let bias = epilogue.bias.map_or(0.0, |bias| bias[column]);
        f64::from(bias) + f64::from(shift) + epilogue.residual.map_or(0.0, |residual| f64::from(residual[index]))
    };
    (0..rows * columns).map(each).collect()
}

/// Checks a gradient along a direction: its product with the direction is the slope of `<weights, f>`, found in f64.
fn assert_slope(x: &[f32], gradient: &[f32], weights: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) {
    const STEP: f64 = 1e-5;
    assert_eq!(x.len(), gradient.len());
    let (x, weights, direction) = (wide(x), wide(weights), wide(&numbers(99, x.len())));
    let value = |step: f64| {
        let moved: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
        dot(&f(&moved), &weights)
    };
    let slope = (value(STEP) - value(-STEP)) / (2.0 * STEP);
    let found = dot(&wide(gradient), &direction);
    let size = dot(&wide(gradient), &wide(gradient)).sqrt() * dot(&direction, &direction).sqrt();
    assert!((found - slope).abs() <= 1e-5 * size + 1e-6, "{found} along a direction of slope {slope}, size {size}");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_linear_layer_is_its_definition(
        groups in 1usize..4, per_group in up_to(70), input in up_to(600), output in up_to(200), parts in 0u8..8,
    ) {
        let rows = groups * per_group;
        let (x, weight) = (numbers(1, rows * input), numbers(2, output * input));
        let (bias, shift, residual) = (numbers(3, output), numbers(4, groups * output), numbers(5, rows * output));
        let epilogue = Epilogue {
            bias: (parts & 1 > 0).then_some(&bias[..]),
            shift: (parts & 2 > 0).then_some(&shift[..]),
            residual: (parts & 4 > 0).then_some(&residual[..]),
        };
        let mut expected = plain_linear(&x, &weight, output, input);
        expected.iter_mut().zip(added(epilogue, rows, groups, output)).for_each(|(y, more)| *y += more);
        let matrix = Matrix::linear(&weight, output, input);
        assert_close(&linear(&x, groups, &matrix, epilogue), &expected, 2e-6);
        // The way back, packed for it and turned.
        let back = Matrix::linear_back(&weight, output, input);
        let found = linear(&residual, 1, &back, Epilogue::default());
        prop_assert!(linear(&residual, 1, matrix.turned(), Epilogue::default()) == found);
        assert_slope(&x, &found, &residual, |x| {
            let row = |x: &[f64], o: usize| -> f64 { (0..input).map(|i| x[i] * f64::from(weight[o * input + i])).sum() };
            x.chunks(input).flat_map(|x| (0..output).map(move |o| row(x, o))).collect()
        });
    }

    #[test]
    fn a_convolution_is_its_definition(
        (batch, height, width) in (1usize..3, up_to(14), up_to(14)), kernel in prop_oneof![Just(1usize), Just(2), Just(3), Just(5)],
        stride in 1usize..4, (before, after) in (0usize..3, 0usize..3), input in up_to(112), output in up_to(100), plain: bool,
    ) {
        let window = Window { batch, height, width, kernel, stride, before, after };
        let (high, wide) = window.output();
        prop_assume!(high * wide > 0);
        let (x, weight) = (numbers(1, batch * height * width * input), numbers(2, output * input * kernel * kernel));
        let rows = batch * high * wide;
        let (bias, shift, residual) = (numbers(3, output), numbers(4, batch * output), numbers(5, rows * output));
        let epilogue = if plain { Epilogue::default() } else { Epilogue { bias: Some(&bias), shift: Some(&shift), residual: Some(&residual) } };
        let mut expected = plain_conv(&x, &window, &weight, output, input);
        expected.iter_mut().zip(added(epilogue, rows, batch, output)).for_each(|(y, more)| *y += more);
        let matrix = Matrix::conv(&weight, output, input, kernel);
        assert_close(&conv2d(&x, &window, &matrix, epilogue), &expected, 4e-6);
    }

    #[test]
    fn a_convolution_s_way_back_is_its_definition(
        (height, width) in (up_to(12), up_to(12)), half in 0usize..3, input in up_to(64), output in up_to(64),
    ) {
        let kernel = 2 * half + 1;
        let window = Window { batch: 2, height, width, kernel, stride: 1, before: half, after: half };
        let weight = numbers(2, output * input * kernel * kernel);
        let (x, gradient) = (numbers(1, 2 * height * width * input), numbers(3, 2 * height * width * output));
        let back = Matrix::conv_back(&weight, output, input, kernel);
        let found = conv2d(&gradient, &window, &back, Epilogue::default());
        // Linear in x: the products of both ways are the same number.
        let forth = dot(&plain_conv(&x, &window, &weight, output, input), &wide(&gradient));
        let size = dot(&wide(&found), &wide(&found)).sqrt() * dot(&wide(&x), &wide(&x)).sqrt();
        prop_assert!((dot(&wide(&found), &wide(&x)) - forth).abs() <= 1e-5 * size + 1e-6);
    }

    #[test]
    fn attention_and_its_way_back_are_their_definitions(
        (batch, queries, count) in (1usize..3, up_to(120), 1usize..4), keys in up_to(330), dim in up_to(96), causal: bool,
    ) {
        let keys = if causal { queries } else { keys };
        let heads = Heads { batch, queries, keys, heads: count, dim, causal };
        let width = count * dim;
        let q: Vec<f32> = numbers(1, batch * queries * width).iter().map(|x| 3.0 * x).collect();
        let (k, v) = (numbers(2, batch * keys * width), numbers(3, batch * keys * width));
        assert_close(&attention(&q, &k, &v, &heads), &plain_attention(&q, &k, &v, &heads), 4e-6);
        prop_assume!(queries * keys < 6000);
        let weights = numbers(4, q.len());
        let [dq, dk, dv] = attention_back(&q, &k, &v, &weights, &heads);
        let (wide_q, wide_k, wide_v) = (wide(&q), wide(&k), wide(&v));
        assert_slope(&q, &dq, &weights, |q| plain_attention(q, &wide_k, &wide_v, &heads));
        assert_slope(&k, &dk, &weights, |k| plain_attention(&wide_q, k, &wide_v, &heads));
        assert_slope(&v, &dv, &weights, |v| plain_attention(&wide_q, &wide_k, v, &heads));
    }

    #[test]
    fn norms_and_their_ways_back_are_their_definitions(
        batch in 1usize..4, pixels in up_to(300), count in 1usize..9, per_group in 1usize..9, activate: bool,
    ) {
        let channels = count * per_group;
        let x: Vec<f32> = numbers(1, batch * pixels * channels).iter().map(|x| 2.0 + x).collect();
        let (scale, shift, weights) = (numbers(2, channels), numbers(3, channels), numbers(4, x.len()));
        // Not too small: the gradient of a group of one number is all rounding.
        let groups = Groups { batch, groups: count, scale: &scale, shift: &shift, epsilon: 1e-2 };
        let activated = |y: Vec<f64>| if activate { y.iter().map(|y| y / (1.0 + (-y).exp())).collect() } else { y };
        assert_close(&group_norm(&x, &groups, activate), &activated(plain_group_norm(&x, &groups)), 1e-5);
        let back = group_norm_back(&x, &groups, activate, &weights);
        assert_slope(&x, &back, &weights, |x| activated(plain_group_norm(x, &groups)));
        assert_close(&layer_norm(&x, &scale, &shift, 1e-2), &plain_layer_norm(&x, &scale, &shift, f64::from(1e-2f32)), 1e-5);
        let back = layer_norm_back(&x, &scale, 1e-2, &weights);
        assert_slope(&x, &back, &weights, |x| plain_layer_norm(x, &scale, &shift, f64::from(1e-2f32)));
    }

    #[test]
    fn nonlinearities_and_their_ways_back_are_their_definitions(rows in up_to(60), width in up_to(400)) {
        // The series of the error function holds up to 4.
        let x: Vec<f32> = numbers(1, rows * 2 * width).iter().map(|x| 4.0 * x).collect();
        let weights = numbers(2, x.len());
        let normal = |x: f64| x * 0.5 * (1.0 + exact_erf(x / 2f64.sqrt()));
        let swish = |x: f64| x / (1.0 + (-x).exp());
        let quick = |x: f64| x / (1.0 + (-1.702 * x).exp());
        let each = |f: fn(f64) -> f64| move |x: &[f64]| -> Vec<f64> { x.iter().map(|&x| f(x)).collect() };
        type Kernel = (fn(&[f32]) -> Vec<f32>, fn(&[f32], &[f32]) -> Vec<f32>, fn(f64) -> f64);
        let kernels: [Kernel; 3] = [(gelu, gelu_back, normal), (silu, silu_back, swish), (quick_gelu, quick_gelu_back, quick)];
        for (forth, back, definition) in kernels {
            assert_close(&forth(&x), &each(definition)(&wide(&x)), 1e-6);
            assert_slope(&x, &back(&x, &weights), &weights, each(definition));
        }
        let gated = |x: &[f64]| -> Vec<f64> {
            x.chunks(2 * width).flat_map(|row| (0..width).map(move |i| row[i] * normal(row[width + i]))).collect()
        };
        let weights = &weights[..rows * width];
        assert_close(&geglu(&x, width), &gated(&wide(&x)), 1e-6);
        assert_slope(&x, &geglu_back(&x, weights, width), weights, gated);
    }

    #[test]
    fn enlarging_and_its_way_back_are_their_definitions(
        batch in 1usize..3, from in (1usize..9, 1usize..9), more in (0usize..9, 0usize..9), channels in 1usize..20,
    ) {
        let to = (from.0 + more.0, from.1 + more.1);
        let resize = Resize { batch, from, to, channels };
        let x = numbers(1, batch * from.0 * from.1 * channels);
        let plain = |x: &[f64]| -> Vec<f64> {
            let each = |index: usize| {
                let (channel, pixel) = (index % channels, index / channels);
                let (column, line, picture) = (pixel % to.1, pixel / to.1 % to.0, pixel / to.1 / to.0);
                x[((picture * from.0 + line * from.0 / to.0) * from.1 + column * from.1 / to.1) * channels + channel]
            };
            (0..batch * to.0 * to.1 * channels).map(each).collect()
        };
        prop_assert_eq!(wide(&upsample_nearest(&x, &resize)), plain(&wide(&x)));
        let weights = numbers(2, batch * to.0 * to.1 * channels);
        assert_slope(&x, &upsample_nearest_back(&weights, &resize), &weights, plain);
    }

    #[test]
    fn products_of_low_rank_are_their_definitions(rows in up_to(300), depth in up_to(200), rank in 1usize..33) {
        let (x, a, y) = (numbers(1, rows * depth), numbers(2, rank * depth), numbers(3, rows * depth));
        let t = thin(&x, &a, depth);
        assert_close(&t, &plain_linear(&x, &a, rank, depth), 3e-6);
        let up = |index: usize| -> f64 {
            (0..rank).map(|j| f64::from(t[index / depth * rank + j]) * f64::from(a[j * depth + index % depth])).sum()
        };
        let expected: Vec<f64> = y.iter().enumerate().map(|(index, &y)| f64::from(y) - 0.5 * up(index)).collect();
        assert_close(&widen(&y, &t, &a, depth, -0.5), &expected, 3e-6);
        let pairs: Vec<(u32, u32)> = (0..rows as u32).map(|row| (row, rows as u32 - 1 - row)).collect();
        let sum = |index: usize| -> f64 {
            let (j, d) = (index / depth, index % depth);
            (0..rows).map(|row| f64::from(t[row * rank + j]) * f64::from(x[(rows - 1 - row) * depth + d])).sum()
        };
        let expected: Vec<f64> = (0..rank * depth).map(sum).collect();
        // Sums of many numbers of both signs: what they are small beside is the sum of sizes.
        let size = (rows as f64).sqrt() * t.iter().map(|t| f64::from(t.abs())).fold(0.0, f64::max);
        for (found, expected) in outer(&t, rank, &x, depth, &pairs).iter().zip(expected) {
            prop_assert!((f64::from(*found) - expected).abs() <= 1e-5 * size, "{found} for {expected}");
        }
    }
}
