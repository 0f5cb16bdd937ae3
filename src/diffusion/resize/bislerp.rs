//! Spherical interpolation of latents, as ComfyUI has it: across, then down.

use rayon::prelude::*;

use super::Grid;
use super::planes::linear;

pub(super) fn resize(grid: &Grid, width: usize, height: usize) -> Vec<f32> {
    let size = grid.channels * grid.rows * grid.columns;
    let entries = grid.values.par_chunks(size).flat_map_iter(|entry| {
        // [channels, rows, columns] → [channels, rows, width] → [channels, height, width]
        let across = Line { count: grid.rows, apart: grid.columns, step: 1, length: grid.columns };
        let down = Line { count: width, apart: 1, step: width, length: grid.rows };
        let wide = interpolate(entry, grid.channels, &across, width, |line, i| line * width + i, grid.rows * width);
        interpolate(&wide, grid.channels, &down, height, |line, i| i * width + line, height * width)
    });
    entries.collect()
}

/// How the parallel lines of a plane lie in memory.
struct Line {
    count: usize,
    /// From the start of one to the start of the next.
    apart: usize,
    /// From a cell to the next of its line.
    step: usize,
    length: usize,
}

/// Interpolates every line of an entry to `new` cells. `place` says where cell `i` of a line goes in a plane of `size`.
fn interpolate(
    entry: &[f32],
    channels: usize,
    lines: &Line,
    new: usize,
    place: impl Fn(usize, usize) -> usize,
    size: usize,
) -> Vec<f32> {
    let plane = entry.len() / channels;
    let mut out = vec![0.0; channels * size];
    let vector = |line: usize, at: usize| -> Vec<f32> {
        let start = line * lines.apart + at * lines.step;
        (0..channels).map(|channel| entry[channel * plane + start]).collect()
    };
    for (i, (first, second, share)) in neighbours(lines.length, new).into_iter().enumerate() {
        for line in 0..lines.count {
            let mixed = slerp(&vector(line, first), &vector(line, second), share);
            for (channel, value) in mixed.into_iter().enumerate() {
                out[channel * size + place(line, i)] = value;
            }
        }
    }
    out
}

/// For each new cell the two old ones it lies between, and its share of the way from the first to the second.
///
/// They come from a ramp of indices resized linearly, rounding errors and all.
fn neighbours(old: usize, new: usize) -> Vec<(usize, usize, f32)> {
    let next = |at: usize| (at + 1).min(old - 1) as f32;
    let neighbours = linear(old, new).into_iter().map(|pair| {
        let position = pair.mix(pair.first as f32, pair.second as f32);
        let second = pair.mix(next(pair.first), next(pair.second));
        (position as usize, second as usize, position - position.floor())
    });
    neighbours.collect()
}

/// Between two vectors: their directions on the arc, their lengths linearly.
///
/// Vectors that point alike give the first; opposite ones have no arc and are mixed linearly. A vector of length 0 has no
/// direction, and counts for none.
fn slerp(a: &[f32], b: &[f32], share: f32) -> Vec<f32> {
    let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    let (length_a, length_b) = (length(a), length(b));
    let unit = |v: &[f32], length: f32| -> Vec<f32> {
        v.iter().map(|x| if length == 0.0 { 0.0 } else { x / length }).collect()
    };
    let (unit_a, unit_b) = (unit(a, length_a), unit(b, length_b));
    let dot: f32 = unit_a.iter().zip(&unit_b).map(|(x, y)| x * y).sum();
    if dot > 1.0 - 1e-5 {
        return a.to_vec();
    }
    if dot < 1e-5 - 1.0 {
        return a.iter().zip(b).map(|(x, y)| x * (1.0 - share) + y * share).collect();
    }
    let angle = dot.acos();
    let sine = angle.sin();
    let (weight_a, weight_b) = (((1.0 - share) * angle).sin() / sine, (share * angle).sin() / sine);
    let length = length_a * (1.0 - share) + length_b * share;
    unit_a.iter().zip(&unit_b).map(|(x, y)| (weight_a * x + weight_b * y) * length).collect()
}
