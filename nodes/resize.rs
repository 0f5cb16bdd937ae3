//! Changing the size of pictures and latents, as torch's `interpolate` and Pillow do it.
//!
//! Works on planes `[batch, channels, height, width]` in f32. Each method is a table of weights along one axis, applied
//! to rows and then to columns; only `bislerp`, which turns vectors, and `lanczos`, which Pillow does in whole numbers,
//! have loops of their own.

use candle_core::Tensor;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// How new values follow from old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// The value at the middle of the new cell.
    NearestExact,
    /// Linear between the two nearest.
    Bilinear,
    /// The mean of what a new cell covers.
    Area,
    /// Cubic through the four nearest, a = -0.75.
    Bicubic,
    /// Pillow's windowed sinc over six lobes, on eight-bit values: for pictures.
    Lanczos,
    /// Turns from one latent vector to the next instead of blending them: for latents.
    Bislerp,
}

/// Methods that a picture may be scaled with, in ComfyUI's order.
pub(crate) const FOR_IMAGES: [&str; 5] = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"];
/// Methods that a latent may be scaled with, in ComfyUI's order.
pub(crate) const FOR_LATENTS: [&str; 5] = ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"];

impl std::str::FromStr for Method {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        Ok(match name {
            "nearest-exact" => Self::NearestExact,
            "bilinear" => Self::Bilinear,
            "area" => Self::Area,
            "bicubic" => Self::Bicubic,
            "lanczos" => Self::Lanczos,
            "bislerp" => Self::Bislerp,
            _ => return Err("no such method"),
        })
    }
}

/// Resizes every plane.
///
/// # Shapes
/// `[batch, channels, height, width]` to the same with the new `height` and `width`, neither of them 0.
pub(crate) fn resize(planes: &Tensor, width: usize, height: usize, method: Method) -> Result<Tensor> {
    let (batch, channels, old_height, old_width) = planes.dims4()?;
    let shape = (batch, channels, height, width);
    let values = planes.flatten_all()?.to_vec1::<f32>()?;
    let size = Size { old_width, old_height, width, height };
    let resized: Vec<f32> = match method {
        Method::Lanczos => {
            let alpha = (channels == 4).then_some(3);
            let pictures = values.chunks_exact(channels * old_height * old_width);
            pictures.flat_map(|picture| lanczos(picture, channels, alpha, size)).collect()
        }
        Method::Bislerp => {
            let latents = values.chunks_exact(channels * old_height * old_width);
            latents.flat_map(|latent| bislerp(latent, channels, size)).collect()
        }
        _ => {
            let (across, down) = (Axis::new(method, old_width, width), Axis::new(method, old_height, height));
            let planes = values.chunks_exact(old_height * old_width);
            planes.flat_map(|plane| down.down(&across.across(plane, old_width), width)).collect()
        }
    };
    Tensor::from_vec(resized, shape, planes.device())
}

/// Cuts planes to the shape of `width` to `height`, the same from both sides.
///
/// # Shapes
/// `[batch, channels, height, width]`; only one of the last two shrinks.
pub(crate) fn crop_to_aspect(planes: &Tensor, width: usize, height: usize) -> Result<Tensor> {
    let (_, _, old_height, old_width) = planes.dims4()?;
    let (old_aspect, new_aspect) = (old_width as f64 / old_height as f64, width as f64 / height as f64);
    let margin = |old: usize, part: f64| ((old as f64 - old as f64 * part) / 2.0).round_ties_even() as usize;
    let (mut x, mut y) = (0, 0);
    if old_aspect > new_aspect {
        x = margin(old_width, new_aspect / old_aspect);
    } else if old_aspect < new_aspect {
        y = margin(old_height, old_aspect / new_aspect);
    }
    // A margin of half and half would leave nothing of a plane that is one cell wide.
    let kept = |old: usize, margin: usize| old.saturating_sub(2 * margin).max(1);
    planes.narrow(2, y, kept(old_height, y))?.narrow(3, x, kept(old_width, x))
}

#[derive(Clone, Copy)]
struct Size {
    old_width: usize,
    old_height: usize,
    width: usize,
    height: usize,
}

/// For each new place along an axis, the old ones that it is made of and their weights.
struct Axis(Vec<Vec<(usize, f32)>>);

impl Axis {
    fn new(method: Method, old: usize, new: usize) -> Self {
        let scale = old as f32 / new as f32;
        let center = |place: usize| (place as f32 + 0.5) * scale;
        let within = |place: isize| place.clamp(0, old as isize - 1) as usize;
        let taps = |place: usize| match method {
            Method::Bilinear => {
                let at = (center(place) - 0.5).max(0.0);
                let (first, part) = (at.floor() as isize, at - at.floor());
                vec![(within(first), 1.0 - part), (within(first + 1), part)]
            }
            Method::Area => {
                let (start, end) = (place * old / new, ((place + 1) * old).div_ceil(new));
                (start..end).map(|old| (old, 1.0 / (end - start) as f32)).collect()
            }
            Method::Bicubic => {
                let at = center(place) - 0.5;
                let (first, part) = (at.floor() as isize, at - at.floor());
                (-1..=2).map(|tap| (within(first + tap), cubic(part - tap as f32))).collect()
            }
            _ => vec![(within(center(place).floor() as isize), 1.0)],
        };
        Self((0..new).map(taps).collect())
    }

    /// Applies it to every row of a plane.
    fn across(&self, plane: &[f32], old_width: usize) -> Vec<f32> {
        let rows = plane.chunks_exact(old_width);
        rows.flat_map(|row| self.0.iter().map(|taps| taps.iter().map(|(at, weight)| row[*at] * weight).sum())).collect()
    }

    /// Applies it to every column of a plane.
    fn down(&self, plane: &[f32], width: usize) -> Vec<f32> {
        let mut result = vec![0.0; self.0.len() * width];
        for (new_row, taps) in result.chunks_exact_mut(width).zip(&self.0) {
            for (at, weight) in taps {
                for (new, old) in new_row.iter_mut().zip(&plane[at * width..][..width]) {
                    *new += old * weight;
                }
            }
        }
        result
    }
}

/// Keys' cubic convolution kernel with a = -0.75, at a distance below 2.
fn cubic(distance: f32) -> f32 {
    const A: f32 = -0.75;
    let x = distance.abs();
    if x <= 1.0 { ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0 } else { ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A }
}

/// One picture `[channels, height, width]` in 0..1 through eight-bit values, like Pillow's `LANCZOS`. Colours are
/// weighted by opacity where there is one.
fn lanczos(picture: &[f32], channels: usize, alpha: Option<usize>, size: Size) -> Vec<f32> {
    let plane_size = size.old_width * size.old_height;
    let mut planes: Vec<Vec<u8>> =
        picture.chunks_exact(plane_size).map(|plane| plane.iter().map(|x| (x * 255.0) as u8).collect()).collect();
    if let Some(alpha) = alpha {
        let opacity = planes[alpha].clone();
        for plane in planes.iter_mut().take(alpha) {
            plane.iter_mut().zip(&opacity).for_each(|(colour, a)| *colour = times_255th(*colour, *a));
        }
    }
    let across = (size.width != size.old_width).then(|| fixed_lanczos(size.old_width, size.width));
    let down = (size.height != size.old_height).then(|| fixed_lanczos(size.old_height, size.height));
    for plane in &mut planes {
        if let Some(axis) = &across {
            *plane = plane.chunks_exact(size.old_width).flat_map(|row| axis.iter().map(|taps| taps.sum(row))).collect();
        }
        if let Some(axis) = &down {
            let width = size.width;
            let column = |x: usize, plane: &[u8]| plane[x..].iter().copied().step_by(width).collect::<Vec<_>>();
            let columns: Vec<_> = (0..width).map(|x| column(x, plane)).collect();
            *plane = axis.iter().flat_map(|taps| columns.iter().map(|column| taps.sum(column))).collect();
        }
    }
    if let Some(alpha) = alpha {
        let opacity = planes[alpha].clone();
        for plane in planes.iter_mut().take(alpha) {
            plane.iter_mut().zip(&opacity).for_each(|(colour, a)| {
                if !matches!(*a, 0 | 255) {
                    *colour = (255 * u32::from(*colour) / u32::from(*a)).min(255) as u8;
                }
            });
        }
    }
    let mut values = Vec::with_capacity(channels * size.width * size.height);
    planes.iter().for_each(|plane| values.extend(plane.iter().map(|byte| f32::from(*byte) / 255.0)));
    values
}

/// `a·b/255`, rounded to nearest.
fn times_255th(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    ((product + (product >> 8)) >> 8) as u8
}

/// Weights of one new place, in units of 2^-22 as Pillow has them.
struct FixedTaps {
    first: usize,
    weights: Vec<i32>,
}

const FIXED_BITS: u32 = 22;

impl FixedTaps {
    fn sum(&self, line: &[u8]) -> u8 {
        let half = 1 << (FIXED_BITS - 1);
        let taps = self.weights.iter().zip(&line[self.first..]);
        let sum: i32 = half + taps.map(|(weight, value)| weight * i32::from(*value)).sum::<i32>();
        (sum >> FIXED_BITS).clamp(0, 255) as u8
    }
}

fn fixed_lanczos(old: usize, new: usize) -> Vec<FixedTaps> {
    let scale = old as f64 / new as f64;
    let widened = scale.max(1.0);
    let support = 3.0 * widened;
    let kernel = |x: f64| if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 };
    let taps = |place: usize| {
        let center = (place as f64 + 0.5) * scale;
        let first = ((center - support + 0.5) as i64).max(0) as usize;
        let end = ((center + support + 0.5) as usize).min(old);
        let weights: Vec<_> = (first..end).map(|at| kernel((at as f64 - center + 0.5) / widened)).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| (weight / sum * f64::from(1 << FIXED_BITS)).round() as i32;
        FixedTaps { first, weights: weights.into_iter().map(fixed).collect() }
    };
    (0..new).map(taps).collect()
}

fn sinc(x: f64) -> f64 {
    let turn = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { turn.sin() / turn }
}

/// One latent `[channels, height, width]`, its vectors turned from one to the next, first across and then down.
fn bislerp(latent: &[f32], channels: usize, size: Size) -> Vec<f32> {
    let old_plane = size.old_width * size.old_height;
    // Vectors side by side: [height, width, channels].
    let vectors: Vec<f32> =
        (0..old_plane).flat_map(|cell| (0..channels).map(move |channel| latent[channel * old_plane + cell])).collect();
    let row = size.old_width * channels;
    let across: Vec<f32> =
        vectors.chunks_exact(row).flat_map(|row| slerp_line(row, channels, size.old_width, size.width)).collect();
    let width = size.width;
    let column = |x: usize| -> Vec<f32> {
        (0..size.old_height).flat_map(|y| across[(y * width + x) * channels..][..channels].iter().copied()).collect()
    };
    let columns: Vec<_> = (0..width).map(|x| slerp_line(&column(x), channels, size.old_height, size.height)).collect();
    let mut result = Vec::with_capacity(channels * width * size.height);
    for channel in 0..channels {
        for y in 0..size.height {
            result.extend(columns.iter().map(|column| column[y * channels + channel]));
        }
    }
    result
}

/// A line of vectors, lengthened or shortened.
fn slerp_line(line: &[f32], channels: usize, old: usize, new: usize) -> Vec<f32> {
    let axis = Axis::new(Method::Bilinear, old, new);
    let vector = |at: usize| &line[at * channels..][..channels];
    // Places are bilinear themselves, in f32: a ramp 0, 1, 2 … and one that runs ahead by one and stops at the end.
    let place = |taps: &[(usize, f32)], ahead: usize| -> f32 {
        taps.iter().map(|(at, weight)| (at + ahead).min(old - 1) as f32 * weight).sum()
    };
    let mut result = Vec::with_capacity(new * channels);
    for taps in &axis.0 {
        let (from, to) = (place(taps, 0), place(taps, 1));
        slerp(vector(from as usize), vector(to as usize), from - from.floor(), &mut result);
    }
    result
}

/// The vector a part of the way from `a` to `b`: directions turn, lengths blend. Vectors that point the same way give
/// the first, opposite ones a plain blend.
fn slerp(a: &[f32], b: &[f32], part: f32, result: &mut Vec<f32>) {
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    let (a_norm, b_norm) = (norm(a), norm(b));
    let unit = |x: f32, norm: f32| if norm == 0.0 { 0.0 } else { x / norm };
    let dot: f32 = a.iter().zip(b).map(|(x, y)| unit(*x, a_norm) * unit(*y, b_norm)).sum();
    if dot > 1.0 - 1e-5 {
        result.extend(a);
    } else if dot < 1e-5 - 1.0 {
        result.extend(a.iter().zip(b).map(|(x, y)| x * (1.0 - part) + y * part));
    } else {
        let omega = dot.acos();
        let (of_a, of_b) = (((1.0 - part) * omega).sin() / omega.sin(), (part * omega).sin() / omega.sin());
        let length = a_norm * (1.0 - part) + b_norm * part;
        let turned = a.iter().zip(b).map(|(x, y)| (of_a * unit(*x, a_norm) + of_b * unit(*y, b_norm)) * length);
        result.extend(turned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Recorded from ComfyUI's `common_upscale`; see `tests/golden/nodes.py`.
    #[test]
    fn sizes_change_as_in_comfyui() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/nodes/resize.safetensors");
        let recorded = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        let mut names: Vec<_> = recorded.keys().filter(|name| name.contains('/')).collect();
        names.sort();
        assert!(names.len() >= 50, "{names:?}");
        for name in names {
            let parts: Vec<_> = name.split('/').collect();
            let [input, method, crop] = parts[..] else { panic!("{name}") };
            let expected = &recorded[name];
            let (_, _, height, width) = expected.dims4().unwrap();
            let mut planes = recorded[input].clone();
            if crop == "center" {
                planes = crop_to_aspect(&planes, width, height).unwrap();
            }
            let method: Method = method
                .split('-')
                .filter(|part| part.parse::<u32>().is_err())
                .collect::<Vec<_>>()
                .join("-")
                .parse()
                .unwrap();
            let found = resize(&planes.contiguous().unwrap(), width, height, method).unwrap();
            let worst = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            let worst = worst.to_scalar::<f32>().unwrap();
            let tolerance = match method {
                // Whole numbers, exactly; the nearest value, exactly.
                Method::Lanczos | Method::NearestExact => 0.0,
                // Sums in another order, of values up to 4.
                Method::Bilinear | Method::Area | Method::Bicubic => 1e-5,
                // acos near 1 amplifies rounding.
                Method::Bislerp => 2e-4,
            };
            assert!(worst <= tolerance, "{name}: off by {worst}");
        }
    }

    #[test]
    fn a_line_cannot_be_cropped_away() {
        let line = Tensor::zeros((1, 1, 8, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert_eq!(crop_to_aspect(&line, 1, 100).unwrap().dims(), [1, 1, 8, 1]);
        let flat = Tensor::zeros((1, 1, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert_eq!(crop_to_aspect(&flat, 100, 1).unwrap().dims(), [1, 1, 1, 1]);
    }
}
