//! Pictures of few colours: a palette by median cut, and ways to go between its colours.

use crate::error::{Error, tell};
use crate::wires::Image;
use candle_core::{Device, Tensor};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};
use std::collections::BTreeMap;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<ImageQuantize>()]
}

/// Paints pictures with few colours.
///
/// The palette is found by Heckbert's median cut (1982, "Color image quantization for frame buffer display") in the manner of
/// Pillow, and so is what stands between its colours.
#[derive(Node)]
#[node(category = "image/postprocessing")]
struct ImageQuantize {
    /// The pictures.
    image: Shared<Image>,
    /// How many colours.
    #[input(default = 256, range = 1..=256, step = 1)]
    colors: u32,
    /// How colours in between are made of those that there are: not at all, by handing on errors, or in a pattern.
    #[input(choices = ["none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16"])]
    dither: Choice<String>,
}

impl Run for ImageQuantize {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let paint = || -> Result<Image, Error> {
            let (batch, height, width, channels) = self.image.dims();
            if channels != 3 {
                return Err(Error::Unfit {
                    what: "`image`",
                    expected: "pictures of three colours".to_owned(),
                    found: format!("pictures of {channels} channels"),
                });
            }
            let mut painted = Vec::with_capacity(batch * height * width * 3);
            for picture in 0..batch {
                cx.check().map_err(|_| Error::Diffusion(std::sync::Arc::new(paraflow_diffusion::Error::Stopped)))?;
                let values = self.image.values(picture)?;
                let byte = |value: f32| (value * 255.0) as u8;
                let mut pixels: Vec<Colour> =
                    values.chunks_exact(3).map(|p| [byte(p[0]), byte(p[1]), byte(p[2])]).collect();
                let palette = Palette::of(&pixels, self.colors as usize);
                if self.dither.name() == "floyd-steinberg" {
                    palette.diffuse(&mut pixels, width);
                } else {
                    if let Some(Ok(order)) = self.dither.name().strip_prefix("bayer-").map(str::parse) {
                        add_pattern(&mut pixels, width, palette.0.len(), order);
                    }
                    pixels.iter_mut().for_each(|pixel| *pixel = palette.nearest(*pixel));
                }
                painted.extend(pixels.iter().flatten().map(|byte| f32::from(*byte) / 255.0));
            }
            Image::new(Tensor::from_vec(painted, (batch, height, width, 3), &Device::Cpu)?)
        };
        paint().map_err(tell)
    }
}

type Colour = [u8; 3];

/// How much each colour counts for where a box is cut.
const LUMINANCE: [u32; 3] = [77, 150, 29];
/// Beyond this many colours they are told apart by fewer bits.
const DISTINCT: usize = 65_536;

/// Colours, in the order in which boxes were cut.
struct Palette(Vec<Colour>);

/// Colours of pixels and how many have each.
struct Cut {
    colours: Vec<(Colour, u32)>,
    pixels: u32,
    /// The two boxes that it was cut into, if it was.
    halves: Option<[usize; 2]>,
}

impl Cut {
    fn new(colours: Vec<(Colour, u32)>) -> Self {
        let pixels = colours.iter().map(|(_, count)| count).sum();
        Self { colours, pixels, halves: None }
    }

    fn extent(&self, axis: usize) -> u32 {
        let values = self.colours.iter().map(|(colour, _)| colour[axis]);
        u32::from(values.clone().max().unwrap_or(0) - values.min().unwrap_or(0))
    }

    fn is_one_colour(&self) -> bool {
        (0..3).all(|axis| self.extent(axis) == 0)
    }

    /// The lighter half of the pixels and the darker one, along the axis on which they differ most. Those of one value on it
    /// stay together.
    fn cut(&mut self) -> [Self; 2] {
        let weighted = |axis: usize| self.extent(axis) * LUMINANCE[axis];
        let axis = (1..3).fold(0, |best, axis| if weighted(axis) > weighted(best) { axis } else { best });
        let mut levels: BTreeMap<u8, u32> = BTreeMap::new();
        for (colour, count) in &self.colours {
            *levels.entry(colour[axis]).or_default() += count;
        }
        let mut sum = 0;
        let mut last = 0;
        for (level, count) in levels.iter().rev() {
            sum += count;
            last = *level;
            if 2 * sum > self.pixels {
                break;
            }
        }
        // Where that is all of them, the darkest value is the other half.
        let darkest = *levels.keys().next().expect("a box has pixels");
        let first = if last == darkest { darkest + 1 } else { last };
        let (light, dark) =
            std::mem::take(&mut self.colours).into_iter().partition(|(colour, _)| colour[axis] >= first);
        [Self::new(light), Self::new(dark)]
    }
}

impl Palette {
    fn of(pixels: &[Colour], count: usize) -> Self {
        let (mut shift, mut counts) = (0, counted(pixels, 0));
        while counts.len() > DISTINCT {
            shift += 1;
            counts = counted(pixels, shift);
        }
        let mut boxes = vec![Cut::new(counts.into_iter().collect())];
        let mut largest = Queue::default();
        largest.add(0, &boxes);
        for _ in 1..count {
            let next = std::iter::from_fn(|| largest.remove(&boxes)).find(|index| !boxes[*index].is_one_colour());
            let Some(next) = next else { break };
            let halves = boxes[next].cut();
            boxes[next].halves = Some([boxes.len(), boxes.len() + 1]);
            boxes.extend(halves);
            for index in [boxes.len() - 2, boxes.len() - 1] {
                largest.add(index, &boxes);
            }
        }
        let mut place = BTreeMap::new();
        let mut colours = 0;
        let mut open = vec![0];
        while let Some(index) = open.pop() {
            match boxes[index].halves {
                Some([first, second]) => open.extend([second, first]),
                None => {
                    place.extend(boxes[index].colours.iter().map(|(colour, _)| (*colour, colours)));
                    colours += 1;
                }
            }
        }
        let mut sums = vec![([0_u64; 3], 0_u64); colours];
        for pixel in pixels {
            let (sum, count) = &mut sums[place[&pixel.map(|value| value >> shift)]];
            sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u64::from(*value));
            *count += 1;
        }
        Self(sums.iter().map(|(sum, count)| sum.map(|sum| (0.5 + sum as f64 / *count as f64) as u8)).collect())
    }

    /// The colour nearest to a pixel, whose lowest two bits do not count; of equally near ones the first.
    fn nearest(&self, pixel: Colour) -> Colour {
        let distance = |colour: &Colour| -> i32 {
            let apart = |(a, b): (&u8, &u8)| (i32::from(*a) - i32::from(*b & !3)).pow(2);
            colour.iter().zip(&pixel).map(apart).sum()
        };
        *self.0.iter().min_by_key(|colour| distance(colour)).expect("a palette has colours")
    }

    /// Every pixel becomes the colour nearest to it and the errors made before it. Floyd and Steinberg 1976.
    fn diffuse(&self, pixels: &mut [Colour], width: usize) {
        // Sixteenths of the errors that the row above hands down, from the place before the first on.
        let mut below = vec![[0_i32; 3]; width + 1];
        for row in pixels.chunks_exact_mut(width) {
            let (mut ahead, mut last, mut before) = ([0_i32; 3], [0_i32; 3], [0_i32; 3]);
            for (x, pixel) in row.iter_mut().enumerate() {
                let seen: [u8; 3] = std::array::from_fn(|i| {
                    (i32::from(pixel[i]) + (ahead[i] + below[x + 1][i]) / 16).clamp(0, 255) as u8
                });
                let chosen = self.nearest(seen);
                let error: [i32; 3] = std::array::from_fn(|i| i32::from(seen[i]) - i32::from(chosen[i]));
                below[x] = std::array::from_fn(|i| 3 * error[i] + 5 * last[i] + before[i]);
                ahead = error.map(|error| 7 * error);
                (before, last) = (last, error);
                *pixel = chosen;
            }
            // Pillow hands down what belongs to blue for all three, and of it not the same for each.
            below[width] = [5 * last[2] + before[2], last[2], last[2]];
        }
    }
}

/// How many pixels have each colour, of which the lowest bits do not count.
fn counted(pixels: &[Colour], shift: u32) -> BTreeMap<Colour, u32> {
    let mut counts = BTreeMap::new();
    for pixel in pixels {
        *counts.entry(pixel.map(|value| value >> shift)).or_default() += 1;
    }
    counts
}

/// Boxes, the one with the most pixels first. A heap, because the order of equal ones is that of this heap.
#[derive(Default)]
struct Queue(Vec<usize>);

impl Queue {
    fn add(&mut self, index: usize, boxes: &[Cut]) {
        self.0.push(index);
        let mut at = self.0.len();
        while at > 1 && boxes[index].pixels > boxes[self.0[at / 2 - 1]].pixels {
            self.0[at - 1] = self.0[at / 2 - 1];
            at /= 2;
        }
        self.0[at - 1] = index;
    }

    fn remove(&mut self, boxes: &[Cut]) -> Option<usize> {
        let first = *self.0.first()?;
        let last = self.0.pop().expect("there is a first");
        if self.0.is_empty() {
            return Some(first);
        }
        let pixels = |index: usize| boxes[index].pixels;
        let mut at = 1;
        while at * 2 <= self.0.len() {
            let mut child = at * 2;
            if child < self.0.len() && pixels(self.0[child - 1]) < pixels(self.0[child]) {
                child += 1;
            }
            if pixels(last) > pixels(self.0[child - 1]) {
                break;
            }
            self.0[at - 1] = self.0[child - 1];
            at = child;
        }
        self.0[at - 1] = last;
        Some(first)
    }
}

/// Adds a pattern of thresholds, more where there are fewer colours. Bayer 1973.
fn add_pattern(pixels: &mut [Colour], width: usize, colours: usize, order: usize) {
    let spread = (2.0 * 256.0 / colours as f64) as f32;
    let thresholds = thresholds(order);
    for (at, pixel) in pixels.iter_mut().enumerate() {
        let (y, x) = (at / width, at % width);
        let shift = spread * thresholds[y % order * order + x % order] + 0.5;
        *pixel = pixel.map(|value| (f32::from(value) + shift).clamp(0.0, 255.0) as u8);
    }
}

/// Bayer's pattern of a side, a power of 2, around 0.
fn thresholds(order: usize) -> Vec<f32> {
    if order <= 1 {
        return vec![0.0];
    }
    let half = order / 2;
    let inner = thresholds(half);
    let share = (order * order) as f32;
    let cell = |at: usize| {
        let (y, x) = (at / order, at % order);
        let corner = match (y < half, x < half) {
            (true, true) => -1.5,
            (true, false) => 0.5,
            (false, true) => 1.5,
            (false, false) => -0.5,
        };
        (share * inner[y % half * half + x % half] + corner) / share
    };
    (0..order * order).map(cell).collect()
}
