//! Layer norm and group norm, the latter with its activation.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::fill::filled;
use crate::isa::{Isa, Simd, dispatch};
use crate::{maths, parallel, profile};

/// Pixels whose sums are taken together in f32, before they are added up in f64. A constant of the result: it must not
/// depend on the machine.
const PIXELS: usize = 256;
/// Channels whose sums stay in registers while pixels pass.
const CHANNELS: usize = 32;
/// About how many operations a number is: to sum it, to scale it, to activate it.
const COST: usize = 16;

/// `(x - mean) / √(variance + epsilon) · scale + shift` over each row of `[rows, width]`.
///
/// # Panics
/// When the rows do not come out even, or scale and shift have another width.
#[must_use]
pub fn layer_norm(x: &[f32], scale: &[f32], shift: &[f32], epsilon: f32) -> Vec<f32> {
    let width = scale.len();
    assert!(width > 0 && shift.len() == width && x.len().is_multiple_of(width), "rows of {width} numbers");
    let _call = profile::call("layer norm", 0, 2 * x.len());
    let (isa, rows) = (Isa::best(), (1usize << 14).div_ceil(width));
    let fill = |out: &mut [MaybeUninit<f32>]| {
        parallel::chunks(out, rows * width, x.len() * COST, |index, out| {
            let start = index * rows * width;
            layer_norm_on(isa, &x[start..start + out.len()], out, scale, shift, epsilon);
        });
    };
    // SAFETY: the chunks cover the output, and the body writes each row of its chunk whole.
    unsafe { filled(x.len(), fill) }
}

/// The gradient that [`layer_norm`] hands back for its input.
///
/// # Panics
/// As [`layer_norm`], and when `gradient` is of another length.
#[must_use]
pub fn layer_norm_back(x: &[f32], scale: &[f32], epsilon: f32, gradient: &[f32]) -> Vec<f32> {
    let width = scale.len();
    assert!(width > 0 && x.len().is_multiple_of(width), "rows of {width} numbers");
    assert_eq!(x.len(), gradient.len(), "as many gradients as numbers");
    let _call = profile::call("layer norm, back", 0, 3 * x.len());
    let (isa, rows) = (Isa::best(), (1usize << 14).div_ceil(width));
    let fill = |out: &mut [MaybeUninit<f32>]| {
        parallel::chunks(out, rows * width, x.len() * COST, |index, out| {
            let range = index * rows * width..index * rows * width + out.len();
            layer_norm_back_on(isa, &x[range.clone()], &gradient[range], out, scale, epsilon);
        });
    };
    // SAFETY: the chunks cover the output, and the body writes each row of its chunk whole.
    unsafe { filled(x.len(), fill) }
}

/// Group norm's measures and parameters.
#[derive(Clone, Copy)]
pub struct Groups<'a> {
    /// Pictures, each normalised by itself.
    pub batch: usize,
    /// Groups of neighbouring channels.
    pub groups: usize,
    /// One number a channel.
    pub scale: &'a [f32],
    /// One number a channel.
    pub shift: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

/// Group norm of `[batch, pixels, channels]`, then `x · σ(x)` if `activate`.
///
/// # Panics
/// When the pictures do not come out even, or the groups.
#[must_use]
pub fn group_norm(x: &[f32], groups: &Groups<'_>, activate: bool) -> Vec<f32> {
    let picture = groups.check(x);
    if x.is_empty() {
        return Vec::new();
    }
    let _call = profile::call("group norm", 0, 2 * x.len());
    let (channels, isa) = (groups.scale.len(), Isa::best());
    let lines = affine(&statistics(x, groups, picture), groups);
    by_pixels(x, groups, |batch, range, out| {
        scale_on(isa, &x[range], out, &lines[batch * 3 * channels..][..3 * channels], activate);
    })
}

/// The gradient that [`group_norm`] hands back for its input.
///
/// # Panics
/// As [`group_norm`], and when `gradient` is of another length.
#[must_use]
pub fn group_norm_back(x: &[f32], groups: &Groups<'_>, activate: bool, gradient: &[f32]) -> Vec<f32> {
    let picture = groups.check(x);
    assert_eq!(x.len(), gradient.len(), "as many gradients as numbers");
    if x.is_empty() {
        return Vec::new();
    }
    let _call = profile::call("group norm, back", 0, 3 * x.len());
    let (channels, isa) = (groups.scale.len(), Isa::best());
    let statistics = statistics(x, groups, picture);
    let lines = affine(&statistics, groups);
    let line = |batch: usize| &lines[batch * 3 * channels..][..3 * channels];
    let sums = partial_sums(x, groups, picture, |batch, range, sums| {
        back_sums_on(isa, &x[range.clone()], &gradient[range], line(batch), activate, sums);
    });
    let back = back_lines(&sums, &statistics, groups, picture);
    by_pixels(x, groups, |batch, range, out| {
        let back = &back[batch * 3 * channels..][..3 * channels];
        back_on(isa, &x[range.clone()], &gradient[range], out, line(batch), back, activate);
    })
}

impl Groups<'_> {
    /// Checks the measures and gives the numbers of a picture.
    fn check(&self, x: &[f32]) -> usize {
        let channels = self.scale.len();
        let picture = x.len().checked_div(self.batch).unwrap_or(0);
        assert!(channels > 0 && self.shift.len() == channels && channels.is_multiple_of(self.groups));
        assert!(picture * self.batch == x.len() && picture.is_multiple_of(channels), "pixels of {channels} numbers");
        picture
    }
}

/// Makes an output like `x` by tasks of a few pixels of one picture each; `task` writes the pixels of a range of `x`.
fn by_pixels(
    x: &[f32],
    groups: &Groups<'_>,
    task: impl Fn(usize, Range<usize>, &mut [MaybeUninit<f32>]) + Sync + Send,
) -> Vec<f32> {
    let (channels, picture) = (groups.scale.len(), x.len() / groups.batch);
    let chunk = PIXELS.min(picture / channels) * channels;
    // Chunks end where pictures do, so that each belongs to one.
    let per_picture = picture.div_ceil(chunk);
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let mut tasks: Vec<&mut [MaybeUninit<f32>]> = Vec::with_capacity(groups.batch * per_picture);
        out.chunks_mut(picture).for_each(|picture| tasks.extend(picture.chunks_mut(chunk)));
        parallel::chunks(&mut tasks, 1, x.len() * COST, |index, tasks| {
            let (batch, part) = (index / per_picture, index % per_picture);
            let start = batch * picture + part * chunk;
            for out in tasks {
                task(batch, start..start + out.len(), out);
            }
        });
    };
    // SAFETY: the tasks cover the output, and each writes its pixels whole.
    unsafe { filled(x.len(), fill) }
}

/// For every picture the factors of its channels, then the summands, then the means: the norm as `x · factor + summand`.
fn affine(statistics: &[(f64, f64)], groups: &Groups<'_>) -> Vec<f32> {
    let channels = groups.scale.len();
    let per_group = channels / groups.groups;
    let mut lines = Vec::with_capacity(groups.batch * 3 * channels);
    for statistics in statistics.chunks(groups.groups) {
        let factor = |channel: usize| f64::from(groups.scale[channel]) * statistics[channel / per_group].1;
        let summand =
            |channel: usize| f64::from(groups.shift[channel]) - statistics[channel / per_group].0 * factor(channel);
        lines.extend((0..channels).map(|channel| factor(channel) as f32));
        lines.extend((0..channels).map(|channel| summand(channel) as f32));
        lines.extend((0..channels).map(|channel| statistics[channel / per_group].0 as f32));
    }
    lines
}

/// For every picture what makes the gradient of its input, `own · g + across · x + rest`: all channels' `own`, then
/// `across`, then `rest`.
fn back_lines(sums: &[f32], statistics: &[(f64, f64)], groups: &Groups<'_>, picture: usize) -> Vec<f32> {
    let channels = groups.scale.len();
    let per_group = channels / groups.groups;
    let count = (picture / channels * per_group) as f64;
    let mut lines = Vec::with_capacity(groups.batch * 3 * channels);
    for (sums, statistics) in sums.chunks(sums.len() / groups.batch).zip(statistics.chunks(groups.groups)) {
        let mut across = Vec::with_capacity(groups.groups);
        for (group, &(mean, inverse)) in statistics.iter().enumerate() {
            let own = group * per_group..(group + 1) * per_group;
            // Σ scale · g and Σ scale · g · (x - mean) over the group, each over its count.
            let weighted =
                |part: usize, channel: usize| f64::from(groups.scale[channel]) * total(sums, channels, part + channel);
            let plain = own.clone().map(|channel| weighted(0, channel)).sum::<f64>() / count;
            let along = own.map(|channel| weighted(channels, channel)).sum::<f64>() / count;
            let slope = inverse * inverse * inverse * along;
            across.push((-slope, slope * mean - inverse * plain));
        }
        lines.extend((0..channels).map(|c| (f64::from(groups.scale[c]) * statistics[c / per_group].1) as f32));
        lines.extend((0..channels).map(|channel| across[channel / per_group].0 as f32));
        lines.extend((0..channels).map(|channel| across[channel / per_group].1 as f32));
    }
    lines
}

/// Mean and inverse deviation of every picture's groups.
fn statistics(x: &[f32], groups: &Groups<'_>, picture: usize) -> Vec<(f64, f64)> {
    let (channels, isa) = (groups.scale.len(), Isa::best());
    let sums = partial_sums(x, groups, picture, |batch, range, sums| {
        sums_on(isa, &x[range], &x[batch * picture..][..channels], sums);
    });
    let mut statistics = Vec::with_capacity(groups.batch * groups.groups);
    for (sums, picture) in sums.chunks(sums.len() / groups.batch).zip(x.chunks(picture)) {
        statistics.extend(combine(sums, picture, groups));
    }
    statistics
}

/// Two sums a channel, of each part of a picture: `task` makes them from a range of `x`.
fn partial_sums(
    x: &[f32],
    groups: &Groups<'_>,
    picture: usize,
    task: impl Fn(usize, Range<usize>, &mut [f32]) + Sync + Send,
) -> Vec<f32> {
    let channels = groups.scale.len();
    let chunk = PIXELS * channels;
    let per_picture = picture.div_ceil(chunk);
    let mut sums = vec![0.0f32; groups.batch * per_picture * 2 * channels];
    parallel::chunks(&mut sums, 2 * channels, x.len() * COST, |index, sums| {
        let (batch, part) = (index / per_picture, index % per_picture);
        let start = part * chunk;
        task(batch, batch * picture + start..batch * picture + (start + chunk).min(picture), sums);
    });
    sums
}

/// One of a picture's sums, of all its parts.
fn total(sums: &[f32], channels: usize, index: usize) -> f64 {
    sums.iter().skip(index).step_by(2 * channels).map(|&sum| f64::from(sum)).sum()
}

/// The statistics of one picture's groups from the sums of its parts.
fn combine(sums: &[f32], picture: &[f32], groups: &Groups<'_>) -> Vec<(f64, f64)> {
    let channels = groups.scale.len();
    let pixels = (picture.len() / channels) as f64;
    let per_group = channels / groups.groups;
    let channel = |channel: usize| {
        let (sum, squares) = (total(sums, channels, channel), total(sums, channels, channels + channel));
        (f64::from(picture[channel]) + sum / pixels, squares - sum * sum / pixels)
    };
    let group = |group: usize| {
        let channels: Vec<(f64, f64)> = (group * per_group..(group + 1) * per_group).map(channel).collect();
        let mean = channels.iter().map(|(mean, _)| mean).sum::<f64>() / per_group as f64;
        let apart = |(own, squares): &(f64, f64)| squares + pixels * (own - mean) * (own - mean);
        let variance = channels.iter().map(apart).sum::<f64>() / (pixels * per_group as f64);
        // Rounding may leave a constant group a hair below zero; a NaN stays.
        let variance = if variance < 0.0 { 0.0 } else { variance };
        (mean, 1.0 / (variance + f64::from(groups.epsilon)).sqrt())
    };
    (0..groups.groups).map(group).collect()
}

dispatch!(fn sums_on = sums_body(x: &[f32], pivot: &[f32], sums: &mut [f32]));
dispatch!(fn scale_on = scale_body(x: &[f32], out: &mut [MaybeUninit<f32>], line: &[f32], activate: bool));
dispatch! {
    fn back_sums_on = back_sums_body(x: &[f32], gradient: &[f32], line: &[f32], activate: bool, sums: &mut [f32])
}
dispatch! {
    fn back_on = back_body(
        x: &[f32], gradient: &[f32], out: &mut [MaybeUninit<f32>], line: &[f32], back: &[f32], activate: bool
    )
}
dispatch! {
    fn layer_norm_back_on = layer_norm_back_body(
        x: &[f32], gradient: &[f32], out: &mut [MaybeUninit<f32>], scale: &[f32], epsilon: f32
    )
}
dispatch! {
    fn layer_norm_on = layer_norm_body(
        x: &[f32], out: &mut [MaybeUninit<f32>], scale: &[f32], shift: &[f32], epsilon: f32
    )
}

/// Sums of every channel and of its squares over the pixels of `x`, less `pivot`: taking a typical pixel off first keeps the
/// squares small, so that f32 is enough.
#[inline(always)]
fn sums_body<S: Simd>(x: &[f32], pivot: &[f32], sums: &mut [f32]) {
    let channels = pivot.len();
    let (plain, squares) = sums.split_at_mut(channels);
    for start in (0..channels).step_by(CHANNELS) {
        if channels - start >= CHANNELS {
            let mut pivots = [0.0f32; CHANNELS];
            pivots.copy_from_slice(&pivot[start..start + CHANNELS]);
            let (mut sum, mut square) = ([0.0f32; CHANNELS], [0.0f32; CHANNELS]);
            for pixel in x.chunks_exact(channels) {
                let pixel: &[f32; CHANNELS] = pixel[start..].first_chunk().expect("a whole block of channels");
                for lane in 0..CHANNELS {
                    let apart = pixel[lane] - pivots[lane];
                    sum[lane] += apart;
                    square[lane] = S::fma1(apart, apart, square[lane]);
                }
            }
            plain[start..start + CHANNELS].copy_from_slice(&sum);
            squares[start..start + CHANNELS].copy_from_slice(&square);
        } else {
            for pixel in x.chunks_exact(channels) {
                for channel in start..channels {
                    let apart = pixel[channel] - pivot[channel];
                    plain[channel] += apart;
                    squares[channel] += apart * apart;
                }
            }
        }
    }
}

/// Three lists of a length that follow one another.
#[inline(always)]
fn thirds(line: &[f32]) -> (&[f32], &[f32], &[f32]) {
    let (first, others) = line.split_at(line.len() / 3);
    let (second, third) = others.split_at(first.len());
    (first, second, third)
}

/// `x · factor + summand` of every pixel, by the lines of [`affine`].
#[inline(always)]
fn scale_body<S: Simd>(x: &[f32], out: &mut [MaybeUninit<f32>], line: &[f32], activate: bool) {
    let (factors, summands, _) = thirds(line);
    let channels = factors.len();
    for (out, x) in out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
        let pairs = x.iter().zip(factors).zip(summands);
        if activate {
            for (out, ((&x, &factor), &summand)) in out.iter_mut().zip(pairs) {
                out.write(maths::silu::<S>(S::fma1(x, factor, summand)));
            }
        } else {
            for (out, ((&x, &factor), &summand)) in out.iter_mut().zip(pairs) {
                out.write(S::fma1(x, factor, summand));
            }
        }
    }
}

#[inline(always)]
fn layer_norm_body<S: Simd>(x: &[f32], out: &mut [MaybeUninit<f32>], scale: &[f32], shift: &[f32], epsilon: f32) {
    let width = scale.len();
    for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let mean = sum(x, |x| x) / width as f32;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / width as f32;
        let inverse = 1.0 / (variance + epsilon).sqrt();
        for (((out, &x), &scale), &shift) in out.iter_mut().zip(x).zip(scale).zip(shift) {
            out.write(S::fma1((x - mean) * inverse, scale, shift));
        }
    }
}

/// Sums of every channel's gradient before the activation, then of its products with `x` less the mean.
#[inline(always)]
fn back_sums_body<S: Simd>(x: &[f32], gradient: &[f32], line: &[f32], activate: bool, sums: &mut [f32]) {
    let (factors, summands, means) = thirds(line);
    let channels = factors.len();
    let (plain, products) = sums.split_at_mut(channels);
    for (x, gradient) in x.chunks_exact(channels).zip(gradient.chunks_exact(channels)) {
        let lines = factors.iter().zip(summands).zip(means);
        let sums = plain.iter_mut().zip(products.iter_mut());
        for (((sum, product), ((&factor, &summand), &mean)), (&x, &gradient)) in
            sums.zip(lines).zip(x.iter().zip(gradient))
        {
            let g = if activate { gradient * maths::silu_slope::<S>(S::fma1(x, factor, summand)) } else { gradient };
            *sum += g;
            *product = S::fma1(g, x - mean, *product);
        }
    }
}

/// The gradient of every pixel, by [`back_lines`].
#[inline(always)]
fn back_body<S: Simd>(
    x: &[f32],
    gradient: &[f32],
    out: &mut [MaybeUninit<f32>],
    line: &[f32],
    back: &[f32],
    activate: bool,
) {
    let (factors, summands, _) = thirds(line);
    let channels = factors.len();
    let (own, across, rest) = thirds(back);
    let pixels = x.chunks_exact(channels).zip(gradient.chunks_exact(channels));
    for (out, (x, gradient)) in out.chunks_exact_mut(channels).zip(pixels) {
        let lines = factors.iter().zip(summands).zip(own).zip(across.iter().zip(rest));
        for ((out, (&x, &gradient)), (((&factor, &summand), &own), (&across, &rest))) in
            out.iter_mut().zip(x.iter().zip(gradient)).zip(lines)
        {
            let g = if activate { gradient * maths::silu_slope::<S>(S::fma1(x, factor, summand)) } else { gradient };
            out.write(S::fma1(own, g, S::fma1(across, x, rest)));
        }
    }
}

/// `(a - mean(a) - x̂ · mean(a · x̂)) / deviation` of each row, `a` the gradient times the scale.
#[inline(always)]
fn layer_norm_back_body<S: Simd>(
    x: &[f32],
    gradient: &[f32],
    out: &mut [MaybeUninit<f32>],
    scale: &[f32],
    epsilon: f32,
) {
    let width = scale.len();
    let mut scaled = vec![0.0; width];
    let mut products = vec![0.0; width];
    let rows = x.chunks_exact(width).zip(gradient.chunks_exact(width));
    for (out, (x, gradient)) in out.chunks_exact_mut(width).zip(rows) {
        let mean = sum(x, |x| x) / width as f32;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / width as f32;
        let inverse = 1.0 / (variance + epsilon).sqrt();
        scaled.iter_mut().zip(gradient.iter().zip(scale)).for_each(|(a, (g, scale))| *a = g * scale);
        products.iter_mut().zip(scaled.iter().zip(x)).for_each(|(product, (a, x))| *product = a * (x - mean));
        let plain = sum(&scaled, |a| a) / width as f32;
        let along = inverse * inverse * sum(&products, |product| product) / width as f32;
        for (out, (&a, &x)) in out.iter_mut().zip(scaled.iter().zip(x)) {
            out.write(inverse * S::fma1(along, mean - x, a - plain));
        }
    }
}

/// The sum of a function of every number, in sixteen lanes that are added up at the end: always in the same order.
#[inline(always)]
pub(crate) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (blocks, rest) = x.as_chunks::<16>();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    let mut half = 8;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::{plain_group_norm, plain_layer_norm};
    use crate::testing::{assert_close, numbers};

    #[test]
    fn group_norm_is_its_definition() {
        for (batch, pixels, channels, count) in [(2, 600, 64, 32), (1, 9, 96, 32), (3, 1, 40, 4), (2, 257, 32, 32)] {
            // Far from zero, as activations may be: the mean must not eat the variance.
            let x: Vec<f32> = numbers(1, batch * pixels * channels).iter().map(|x| 20.0 + x).collect();
            let (scale, shift) = (numbers(2, channels), numbers(3, channels));
            let groups = Groups { batch, groups: count, scale: &scale, shift: &shift, epsilon: 1e-5 };
            let expected = plain_group_norm(&x, &groups);
            // A number of 20 is exact to 2e-6, of a spread of 0.6.
            assert_close(&group_norm(&x, &groups, false), &expected, 5e-6);
            let activated: Vec<f64> = expected.iter().map(|x| x / (1.0 + (-x).exp())).collect();
            assert_close(&group_norm(&x, &groups, true), &activated, 5e-6);
        }
    }

    #[test]
    fn layer_norm_is_its_definition() {
        for (rows, width) in [(5, 64), (3, 7), (40, 777)] {
            let x: Vec<f32> = numbers(1, rows * width).iter().map(|x| 5.0 + x).collect();
            let (scale, shift) = (numbers(2, width), numbers(3, width));
            let expected = plain_layer_norm(&x, &scale, &shift, 1e-5);
            assert_close(&layer_norm(&x, &scale, &shift, 1e-5), &expected, 3e-6);
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (x, scale, shift) = (numbers(1, 2 * 5000 * 64), numbers(2, 64), numbers(3, 64));
        let groups = Groups { batch: 2, groups: 32, scale: &scale, shift: &shift, epsilon: 1e-6 };
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let forth = (group_norm(&x, &groups, true), layer_norm(&x, &scale, &shift, 1e-5));
                (forth, group_norm_back(&x, &groups, true, &x), layer_norm_back(&x, &scale, 1e-5, &x))
            })
        };
        let one = run(1);
        assert!(run(2) == one && run(3) == one);
    }

    #[test]
    fn a_nan_spreads_over_its_group_and_no_further() {
        let (mut x, ones, zeros) = (numbers(1, 10 * 64), [1.0; 64], [0.0; 64]);
        x[64 * 4] = f32::NAN;
        let groups = Groups { batch: 1, groups: 32, scale: &ones, shift: &zeros, epsilon: 1e-5 };
        let y = group_norm(&x, &groups, true);
        assert!(y.iter().enumerate().all(|(index, y)| y.is_nan() == (index % 64 < 2)));
    }
}
