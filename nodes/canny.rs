//! Edges of pictures, for control networks that see them.

use crate::error::{Error, tell};
use crate::wires::Image;
use candle_core::{Device, Tensor};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<Canny>()]
}

/// Draws the edges of pictures in white on black.
///
/// Canny 1986, "A computational approach to edge detection", as kornia does it: a blur of deviation 1, Sobel's slopes, only
/// the ridges of them, and of weak ridges those that touch strong ones.
#[derive(Node)]
#[node(category = "image/preprocessors")]
struct Canny {
    /// The pictures.
    image: Shared<Image>,
    /// Slopes above this are edges where they touch a strong one.
    #[input(default = 0.4, range = 0.01..=0.99, step = 0.01)]
    low_threshold: f64,
    /// Slopes above this are strong.
    #[input(default = 0.8, range = 0.01..=0.99, step = 0.01)]
    high_threshold: f64,
}

impl Run for Canny {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let (batch, height, width, channels) = self.image.dims();
        let draw = || -> Result<Image, Error> {
            if self.low_threshold > self.high_threshold {
                return Err(Error::Unfit {
                    what: "`low_threshold`",
                    expected: format!("no more than `high_threshold`, {}", self.high_threshold),
                    found: self.low_threshold.to_string(),
                });
            }
            if channels == 4 || height.min(width) <= BLUR.len() / 2 {
                return Err(Error::Unfit {
                    what: "`image`",
                    expected: "pictures of three colours or grey, of 3 pixels or more a side".to_owned(),
                    found: format!("{width} x {height} of {channels} channels"),
                });
            }
            let mut edges = Vec::with_capacity(batch * height * width);
            for picture in 0..batch {
                cx.check().map_err(|_| Error::Diffusion(std::sync::Arc::new(paraflow_diffusion::Error::Stopped)))?;
                let values = self.image.values(picture)?;
                let grey = values.chunks_exact(channels).map(|pixel| match pixel {
                    [r, g, b] => 0.299 * r + 0.587 * g + 0.114 * b,
                    _ => pixel[0],
                });
                let plane = Plane { width, height, values: grey.collect() };
                edges.extend(plane.edges(self.low_threshold as f32, self.high_threshold as f32));
            }
            let edges = Tensor::from_vec(edges, (batch, height, width, 1), &Device::Cpu)?;
            Image::new(edges.broadcast_as((batch, height, width, 3))?)
        };
        draw().map_err(tell)
    }
}

/// Weights of a blur of deviation 1 over five pixels.
const BLUR: [f32; 5] = [0.054_488_685, 0.244_201_36, 0.402_619_96, 0.244_201_36, 0.054_488_685];
/// Added to the square of slopes.
const EPSILON: f32 = 1e-6;
/// The neighbours of a pixel, right and down, from the right one clockwise.
const AROUND: [(isize, isize); 8] = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)];

/// One grey picture, row after row.
struct Plane {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

impl Plane {
    /// Each value made of its place and this plane.
    fn map(&self, value: impl Fn(usize, usize) -> f32) -> Self {
        let cells = (0..self.height).flat_map(|y| (0..self.width).map(move |x| (x, y)));
        Self { width: self.width, height: self.height, values: cells.map(|(x, y)| value(x, y)).collect() }
    }

    fn at(&self, x: usize, y: usize) -> f32 {
        self.values[y * self.width + x]
    }

    /// The value of a neighbour; beyond the edge 0.
    fn beside(&self, x: usize, y: usize, (right, down): (isize, isize)) -> f32 {
        let place = (x.checked_add_signed(right), y.checked_add_signed(down));
        match place {
            (Some(x), Some(y)) if x < self.width && y < self.height => self.at(x, y),
            _ => 0.0,
        }
    }

    /// Blurred; beyond the edge the picture is mirrored.
    fn blurred(&self) -> Self {
        let mirror = |at: usize, by: usize, side: usize| {
            let place = (at + by).abs_diff(2);
            if place >= side { 2 * (side - 1) - place } else { place }
        };
        let sum = |value: &dyn Fn(usize) -> f32| BLUR.iter().enumerate().map(|(by, w)| w * value(by)).sum::<f32>();
        let across = self.map(|x, y| sum(&|by| self.at(mirror(x, by, self.width), y)));
        across.map(|x, y| sum(&|by| across.at(x, mirror(y, by, self.height))))
    }

    /// Sobel's slope to the right or down; the edge is repeated.
    fn slope(&self, down: bool) -> Self {
        let near = |at: usize, by: usize, side: usize| (at + by).saturating_sub(1).min(side - 1);
        self.map(|x, y| {
            let weight = |i: usize| if i == 1 { 2.0 } else { 1.0 };
            let mut sum = 0.0;
            for i in 0..3 {
                for (side, sign) in [(0, -1.0), (2, 1.0)] {
                    let (across, along) = if down { (i, side) } else { (side, i) };
                    sum += sign * weight(i) * self.at(near(x, across, self.width), near(y, along, self.height));
                }
            }
            sum
        })
    }

    /// 1 where there is an edge, else 0.
    fn edges(&self, low: f32, high: f32) -> Vec<f32> {
        let blurred = self.blurred();
        let (right, down) = (blurred.slope(false), blurred.slope(true));
        let size = self.map(|x, y| (right.at(x, y).powi(2) + down.at(x, y).powi(2) + EPSILON).sqrt());
        // Only where it is the largest along its own direction, to 45 degrees.
        let mut strength = size.map(|x, y| {
            let turn = down.at(x, y).atan2(right.at(x, y)) * (4.0 / std::f32::consts::PI);
            let ahead = (turn.round_ties_even() as i32).rem_euclid(8) as usize;
            let here = size.at(x, y);
            let largest = [ahead, (ahead + 4) % 8].iter().all(|way| here - size.beside(x, y, AROUND[*way]) > 0.0);
            let here = if largest { here } else { 0.0 };
            if here > high {
                1.0
            } else if here > low {
                0.5
            } else {
                0.0
            }
        });
        let strong = |plane: &Self, place: usize| plane.values[place] > 0.75;
        let mut open: Vec<usize> = (0..strength.values.len()).filter(|place| strong(&strength, *place)).collect();
        while let Some(place) = open.pop() {
            let (x, y) = (place % self.width, place / self.width);
            for (right, down) in AROUND {
                let (Some(x), Some(y)) = (x.checked_add_signed(right), y.checked_add_signed(down)) else { continue };
                if x < self.width && y < self.height && (0.25..0.75).contains(&strength.at(x, y)) {
                    strength.values[y * self.width + x] = 1.0;
                    open.push(y * self.width + x);
                }
            }
        }
        strength.values.iter().map(|value| if *value > 0.75 { 1.0 } else { 0.0 }).collect()
    }
}
