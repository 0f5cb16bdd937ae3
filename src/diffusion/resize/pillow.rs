//! Pillow's filters on 8-bit pictures, exact: fixed-point weights, and bytes between the two passes. And the same filters on
//! numbers as they are, as torch has them.

use rayon::prelude::*;

use super::Grid;

/// Bits behind the binary point of a weight.
const PRECISION: u32 = 32 - 8 - 2;
const LOBES: f64 = 3.0;

/// How much of an old cell a new one takes, by their distance.
#[derive(Clone, Copy)]
pub(super) struct Filter {
    /// Beyond this distance nothing.
    reach: f64,
    weight: fn(f64) -> f64,
}

pub(super) const LANCZOS: Filter = Filter { reach: LOBES, weight: lanczos };
/// Keys 1981, with a = -0.5.
pub(super) const CUBIC: Filter = Filter { reach: 2.0, weight: cubic };

pub(super) fn resize(grid: &Grid, width: usize, height: usize, filter: Filter) -> Vec<f32> {
    let channels = grid.channels;
    let size = grid.rows * grid.columns;
    let entries = grid.values.par_chunks(channels * size).flat_map_iter(|entry| {
        let mut bytes = vec![0; entry.len()];
        for (channel, plane) in entry.chunks(size).enumerate() {
            for (at, value) in plane.iter().enumerate() {
                // A cast of a number that is none gives 0.
                bytes[at * channels + channel] = (255.0 * value).clamp(0.0, 255.0) as u8;
            }
        }
        let resized = resize_bytes(bytes, (grid.columns, grid.rows), channels, (width, height), filter);
        let plane = move |channel: usize| {
            let resized = &resized;
            (0..width * height).map(|at| f32::from(resized[at * channels + channel]) / 255.0).collect::<Vec<_>>()
        };
        (0..channels).flat_map(plane)
    });
    entries.collect()
}

/// Every plane, rows first, without rounding.
pub(super) fn resize_numbers(grid: &Grid, width: usize, height: usize, filter: Filter) -> Vec<f32> {
    let (across, down) = (shares(grid.columns, width, filter), shares(grid.rows, height, filter));
    let planes = grid.values.par_chunks(grid.rows * grid.columns).flat_map_iter(|plane| {
        let sum = |(start, weights): &(usize, Vec<f64>), value: &dyn Fn(usize) -> f32| {
            let products = weights.iter().enumerate().map(|(i, weight)| value(start + i) * *weight as f32);
            products.sum::<f32>()
        };
        let wide: Vec<f32> = plane
            .chunks_exact(grid.columns)
            .flat_map(|row| across.iter().map(move |window| sum(window, &|at| row[at])))
            .collect();
        down.iter()
            .flat_map(|window| (0..width).map(|x| sum(window, &|at| wide[at * width + x])).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    });
    planes.collect()
}

/// Resizes one picture, pixel after pixel in memory.
fn resize_bytes(
    mut bytes: Vec<u8>,
    (columns, rows): (usize, usize),
    channels: usize,
    (width, height): (usize, usize),
    filter: Filter,
) -> Vec<u8> {
    if (columns, rows) == (width, height) {
        return bytes;
    }
    // What is transparent must not bleed its colour into its neighbours.
    let has_opacity = channels == 4;
    if has_opacity {
        bytes.chunks_exact_mut(4).for_each(multiply_opacity);
    }
    if columns != width {
        let windows = windows(columns, width, filter);
        let wide = bytes.par_chunks_exact(columns * channels).flat_map_iter(|row| {
            windows
                .iter()
                .flat_map(move |window| (0..channels).map(move |channel| window.sum(|at| row[at * channels + channel])))
        });
        bytes = wide.collect();
    }
    if rows != height {
        let stride = width * channels;
        let windows = windows(rows, height, filter);
        let high = windows.par_iter().flat_map_iter(|window| {
            let bytes = &bytes;
            (0..stride).map(move |i| window.sum(|at| bytes[at * stride + i]))
        });
        bytes = high.collect();
    }
    if has_opacity {
        bytes.chunks_exact_mut(4).for_each(divide_opacity);
    }
    bytes
}

/// The old cells that a new one is made of: weights from `start` on.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

impl Window {
    fn sum(&self, value: impl Fn(usize) -> u8) -> u8 {
        let half = 1 << (PRECISION - 1);
        let cells = self.weights.iter().enumerate();
        let sum = cells.fold(half, |sum: i32, (i, weight)| sum + i32::from(value(self.start + i)) * weight);
        (sum >> PRECISION).clamp(0, 255) as u8
    }
}

fn windows(old: usize, new: usize, filter: Filter) -> Vec<Window> {
    let fixed = |weight: f64| {
        let weight = weight * f64::from(1 << PRECISION);
        (weight + 0.5_f64.copysign(weight)) as i32
    };
    let fix = |(start, weights): (usize, Vec<f64>)| Window { start, weights: weights.into_iter().map(fixed).collect() };
    shares(old, new, filter).into_iter().map(fix).collect()
}

/// For each new cell, the first old one that it is made of and how much of each; all of them together are 1.
fn shares(old: usize, new: usize, filter: Filter) -> Vec<(usize, Vec<f64>)> {
    let scale = old as f64 / new as f64;
    // Made smaller, the filter grows to cover all that falls into a cell.
    let stretch = scale.max(1.0);
    let support = filter.reach * stretch;
    let window = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let start = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(old);
        let weight = |at: usize| (filter.weight)((at as f64 - centre + 0.5) * (1.0 / stretch));
        let weights: Vec<f64> = (start..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let share = |weight: f64| if sum == 0.0 { weight } else { weight / sum };
        (start, weights.into_iter().map(share).collect())
    };
    (0..new).map(window).collect()
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| {
        let angle = x * std::f64::consts::PI;
        if angle == 0.0 { 1.0 } else { angle.sin() / angle }
    };
    if (-LOBES..LOBES).contains(&x) { sinc(x) * sinc(x / LOBES) } else { 0.0 }
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

/// Colours times opacity, `a·b / 255` rounded.
fn multiply_opacity(pixel: &mut [u8]) {
    let opacity = u32::from(pixel[3]);
    for value in &mut pixel[..3] {
        let product = u32::from(*value) * opacity + 128;
        *value = (((product >> 8) + product) >> 8) as u8;
    }
}

/// Colours divided by opacity, cut off at 255.
fn divide_opacity(pixel: &mut [u8]) {
    let opacity = u32::from(pixel[3]);
    if opacity == 0 {
        return;
    }
    for value in &mut pixel[..3] {
        *value = (255 * u32::from(*value) / opacity).min(255) as u8;
    }
}
