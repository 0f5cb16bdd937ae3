//! Long batches and large latents in windows that overlap, and noise that goes with them.
//!
//! At each noise level the network is asked about one window after the other, and what it says of the places that several
//! windows share is averaged. This is ComfyUI's `IndexListContextHandler`, whose windows are those of AnimateDiff's pipelines.

use candle_core::Tensor;

use super::region::{Counts, Entry};
use super::{Model, batch};
use crate::noise::Generator;
use crate::unet::{Middle, Pass};
use crate::{Error, Result};

/// How latents are cut into windows, and how these become one again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// How long a window is.
    pub length: usize,
    /// How much of it the next one shows again.
    pub overlap: usize,
    /// Uniform windows are also taken of every second, fourth … place, so many times at most.
    pub stride: usize,
    /// Which places make a window.
    pub spread: Spread,
    /// Whether the last window leads back to the first, of looped ones.
    pub closed: bool,
    /// How the answers about one place become one.
    pub fuse: Fuse,
    /// What is cut: 0 the batch, 2 rows, 3 columns. 1 would be channels, which a network needs all of.
    pub dim: usize,
    /// Whether windows after the first begin with the noise of the one before, shuffled.
    pub free_noise: bool,
}

/// Which places make a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// The same ones at each step; the last is moved back to fit.
    Static,
    /// Others at each step; those that would go over the end are moved back.
    Uniform,
    /// Others at each step, which go on at the start where they go over the end.
    Looped,
    /// One after the other, without overlap.
    Batched,
}

impl Spread {
    /// All of them, in the order in which ComfyUI offers them.
    pub const ALL: &[Self] = &[Self::Static, Self::Uniform, Self::Looped, Self::Batched];

    /// Its name on the wire, ComfyUI's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "standard_static",
            Self::Uniform => "standard_uniform",
            Self::Looped => "looped_uniform",
            Self::Batched => "batched",
        }
    }
}

impl std::str::FromStr for Spread {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = || Self::ALL.iter().map(|spread| spread.name()).collect();
        let found = Self::ALL.iter().find(|spread| spread.name() == name);
        found.copied().ok_or_else(|| Error::UnknownName {
            kind: "schedule of windows",
            name: name.to_owned(),
            known: known(),
        })
    }
}

/// How the answers about one place become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fuse {
    /// Their mean, in which the middle of a window counts most. Qiu et al. 2023, arXiv:2310.15169.
    Pyramid,
    /// Window by window, each in the share that its middle has of all so far.
    Relative,
    /// Their plain mean.
    Flat,
    /// Their mean, in which a window fades over its overlaps.
    Overlap,
}

impl Fuse {
    /// All of them, in the order in which ComfyUI offers them.
    pub const ALL: &[Self] = &[Self::Pyramid, Self::Relative, Self::Flat, Self::Overlap];

    /// Its name on the wire, ComfyUI's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pyramid => "pyramid",
            Self::Relative => "relative",
            Self::Flat => "flat",
            Self::Overlap => "overlap-linear",
        }
    }
}

impl std::str::FromStr for Fuse {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = || Self::ALL.iter().map(|fuse| fuse.name()).collect();
        let found = Self::ALL.iter().find(|fuse| fuse.name() == name);
        found.copied().ok_or_else(|| Error::UnknownName {
            kind: "way to fuse windows",
            name: name.to_owned(),
            known: known(),
        })
    }
}

/// Smallest share of an answer in [`Fuse::Relative`].
const LEAST_SHARE: f64 = 1e-2;
/// Weight at the outer end of an overlap in [`Fuse::Overlap`].
const FAINTEST: f32 = 1e-37;

impl Windows {
    /// # Errors
    /// [`Error::Windows`] for windows that would not move on, or dimensions that latents do not have.
    pub fn checked(self) -> Result<Self> {
        if self.length == 0 || self.overlap >= self.length && self.spread != Spread::Batched {
            return Err(
                self.fault("each window would begin where the one before does", "overlap less than a window's length")
            );
        }
        if self.dim > 3 {
            let fact = format!("latents of pictures have no dimension {}", self.dim);
            return Err(self.fault(fact, "use 0 for the batch, 2 for rows, 3 for columns"));
        }
        Ok(self)
    }

    fn fault(&self, fact: impl Into<String>, hint: &'static str) -> Error {
        Error::Windows { length: self.length, overlap: self.overlap, fact: fact.into(), hint }
    }

    /// Noise whose windows after the first take theirs from the one before, in another order.
    ///
    /// # Errors
    /// The device has no room for it.
    pub(crate) fn free_noise(&self, noise: &Tensor, seed: u64) -> Result<Tensor> {
        let total = noise.dim(self.dim)?;
        let mut generator = Generator::new(seed);
        let mut order: Vec<u32> = (0..total as u32).collect();
        let moved = self.length.saturating_sub(self.overlap).max(1);
        for start in (0..total.saturating_sub(self.length)).step_by(moved) {
            let place = start + self.length;
            let shuffled = generator.permutation(moved.min(total - place));
            for (offset, from) in shuffled.into_iter().enumerate() {
                order[place + offset] = order[start + from];
            }
        }
        Ok(noise.index_select(&Tensor::new(order, noise.device())?, self.dim)?)
    }

    /// The places of each window over `total` of them, at a step.
    fn places(&self, total: usize, step: usize) -> Result<Vec<Vec<usize>>> {
        let places: Vec<Vec<usize>> = match self.spread {
            Spread::Batched => {
                (0..total).step_by(self.length).map(|start| (start..total.min(start + self.length)).collect()).collect()
            }
            Spread::Static => {
                let starts = (0..total).step_by(self.length - self.overlap);
                let last = starts.clone().find(|start| start + self.length >= total).unwrap_or(0);
                let starts = starts.take_while(|start| *start < last).chain([total - self.length]);
                starts.map(|start| (start..start + self.length).collect()).collect()
            }
            Spread::Looped => self.uniform(total, step, self.closed),
            Spread::Uniform => without_rolls(self.uniform(total, step, false), total, self.length),
        };
        let covered = |place: &usize| places.iter().any(|window| window.contains(place));
        if places.iter().flatten().any(|place| *place >= total) {
            let hint = "use a stride of 1, or shorter windows";
            return Err(
                self.fault(format!("a stride of {} goes over {total} places more than once", self.stride), hint)
            );
        }
        if !(0..total).all(|place| covered(&place)) {
            let hint = "use a larger overlap, or another schedule";
            return Err(self.fault(format!("some of {total} places lie in none of them"), hint));
        }
        Ok(places)
    }

    /// Windows evenly apart, those over the end going on at the start; moved a little at each step.
    fn uniform(&self, total: usize, step: usize, closed: bool) -> Vec<Vec<usize>> {
        let strides = (total as f64 / self.length as f64).log2().ceil() as usize + 1;
        let share = (step as u64).reverse_bits() as f64 / 2f64.powi(64);
        let pad = (total as f64 * share).round_ties_even() as usize;
        let end = (total + pad).saturating_sub(if closed { 0 } else { self.overlap });
        let mut windows = Vec::new();
        for stride in (0..self.stride.min(strides)).map(|power| 1 << power) {
            let start = (share * stride as f64) as usize + pad;
            for first in (start..end).step_by(self.length * stride - self.overlap) {
                windows.push((0..self.length).map(|place| (first + place * stride) % total).collect());
            }
        }
        windows
    }

    /// How much each place of a window counts in the mean.
    fn weights(&self, window: &[usize], total: usize) -> Vec<f32> {
        let length = window.len();
        match self.fuse {
            Fuse::Flat => vec![1.0; length],
            Fuse::Pyramid | Fuse::Relative => (0..length).map(|i| (i + 1).min(length - i) as f32).collect(),
            Fuse::Overlap => {
                let mut weights = vec![1.0; length];
                let ramp = ramp(self.overlap.min(length));
                if window.iter().min().is_some_and(|first| *first > 0) {
                    weights[..ramp.len()].copy_from_slice(&ramp);
                }
                if window.iter().max().is_some_and(|last| last + 1 < total) {
                    let down = weights.iter_mut().rev();
                    down.zip(&ramp).for_each(|(weight, faded)| *weight = *faded);
                }
                weights
            }
        }
    }
}

/// Weights that rise evenly from next to nothing to 1, as `torch.linspace` makes them.
fn ramp(steps: usize) -> Vec<f32> {
    let step = if steps > 1 { (1.0 - FAINTEST) / (steps - 1) as f32 } else { 0.0 };
    let weight = |i: usize| {
        if steps == 1 || i < steps / 2 { FAINTEST + step * i as f32 } else { 1.0 - step * (steps - i - 1) as f32 }
    };
    (0..steps).map(weight).collect()
}

/// Moves windows that go over the end back, adds those that are missing then, and leaves out doubles.
fn without_rolls(mut windows: Vec<Vec<usize>>, total: usize, length: usize) -> Vec<Vec<usize>> {
    let mut doubles = Vec::new();
    let mut i = 0;
    while i < windows.len() {
        if let Some(roll) = windows[i].windows(2).position(|pair| pair[1] < pair[0]) {
            let rolled = windows[i][roll + 1];
            let start = windows[i][0];
            windows[i].iter_mut().for_each(|place| *place = (*place + total - start) % total);
            let end = windows[i].last().map_or(0, |last| total - last - 1);
            windows[i].iter_mut().for_each(|place| *place += end);
            if !windows[(i + 1) % windows.len()].contains(&rolled) {
                windows.insert(i + 1, (rolled..rolled + length).collect());
            }
        }
        if windows[..i].contains(&windows[i]) {
            doubles.push(i);
        }
        i += 1;
    }
    for double in doubles.into_iter().rev() {
        windows.remove(double);
    }
    windows
}

/// The step of a schedule that a noise level belongs to.
fn step_of(levels: &[f32], sigma: f32) -> usize {
    let is_it = |level: &f32| (level - sigma).abs() <= 1e-8 + 1e-4 * sigma.abs();
    // Some samplers ask between two levels.
    let before = || levels.iter().rposition(|level| *level >= sigma);
    levels.iter().position(is_it).or_else(before).unwrap_or(0)
}

/// As [`batch::denoise`], in windows where `x` is longer than one.
pub(super) fn denoise(
    model: &Model<'_>,
    sides: &[&[Entry]],
    x: &Tensor,
    pass: &Pass<'_>,
    kept: &mut batch::Kept<'_>,
    levels: &[f32],
) -> Result<Vec<Tensor>> {
    let Some(windows) = model.windows.filter(|windows| x.dims().get(windows.dim).is_some_and(|n| *n > windows.length))
    else {
        return batch::denoise(model, sides, x, pass, kept);
    };
    if windows.dim == 1 {
        return Err(
            windows.fault("a network needs all channels of a latent", "use 0 for the batch, 2 for rows, 3 for columns")
        );
    }
    if let Middle::Watched(_) = pass.middle {
        let fact = "self-attention guidance looks at whole latents";
        return Err(windows.fault(fact, "take SelfAttentionGuidance or the windows away"));
    }
    let total = x.dim(windows.dim)?;
    let mut mean = Mean::new(windows, x, sides.len())?;
    for window in windows.places(total, step_of(levels, pass.sigma))? {
        let places = Tensor::new(window.iter().map(|place| *place as u32).collect::<Vec<_>>(), x.device())?;
        let shown = x.index_select(&places, windows.dim)?;
        let of_side = |side: &&[Entry]| side.iter().map(|entry| entry.of_window(&windows, &places, total)).collect();
        let entries = sides.iter().map(of_side).collect::<Result<Vec<Vec<Entry>>>>()?;
        let entries: Vec<&[Entry]> = entries.iter().map(Vec::as_slice).collect();
        // What is left out where steps are is known of whole latents only.
        let kept = &mut batch::Kept { reused: &mut None, hooked: &mut *kept.hooked };
        mean.add(&window, &batch::denoise(model, &entries, &shown, pass, kept)?)?;
    }
    mean.finish()
}

impl Entry {
    /// What of it belongs to some places of a latent.
    fn of_window(&self, windows: &Windows, places: &Tensor, total: usize) -> Result<Self> {
        let dim = windows.dim;
        let taken = |value: &Tensor, dim: usize| -> Result<Tensor> { Ok(value.index_select(places, dim)?) };
        let mut entry = self.clone();
        entry.beside = self.beside.as_ref().map(|beside| taken(beside, dim)).transpose()?;
        if dim == 0 {
            entry.context = taken(&self.context, 0)?;
            entry.label = self.label.as_ref().map(|label| taken(label, 0)).transpose()?;
            entry.control_context = self.control_context.as_ref().map(|context| taken(context, 0)).transpose()?;
        } else if self.window.is_some() {
            let fact = "prompts for areas do not go with windows of rows or columns";
            return Err(windows.fault(fact, "use masks in place of areas, or windows over the batch"));
        }
        if let Counts::Masked(mask) = &self.counts {
            let along = dim.saturating_sub(1);
            if mask.dim(along)? == total {
                entry.counts = Counts::Masked(taken(mask, along)?);
            }
        }
        Ok(entry)
    }
}

/// The answers of all sides so far.
struct Mean {
    windows: Windows,
    sums: Vec<Tensor>,
    /// How much each place counted so far.
    counts: Vec<f32>,
    /// The same, of [`Fuse::Relative`].
    shares: Vec<f64>,
}

impl Mean {
    fn new(windows: Windows, x: &Tensor, sides: usize) -> Result<Self> {
        let total = x.dim(windows.dim)?;
        Ok(Self { windows, sums: vec![x.zeros_like()?; sides], counts: vec![0.0; total], shares: vec![0.0; total] })
    }

    /// A factor for each place, to be multiplied by a latent.
    fn factors(&self, factors: &[f32], like: &Tensor) -> Result<Tensor> {
        let mut shape = vec![1; like.rank()];
        shape[self.windows.dim] = factors.len();
        Ok(Tensor::from_slice(factors, shape, like.device())?)
    }

    /// Adds what was said of a window.
    fn add(&mut self, window: &[usize], answers: &[Tensor]) -> Result<()> {
        // Of a place that a window holds twice, the last counts, as in torch's assignment by index.
        let last: Vec<usize> = (0..window.len()).filter(|i| !window[i + 1..].contains(&window[*i])).collect();
        let total = self.counts.len();
        let mut before = vec![1.0; total];
        let mut weights = self.windows.weights(window, total);
        if self.windows.fuse == Fuse::Relative {
            let (first, end) = (window[0] as f64, window[window.len() - 1] as f64);
            for &i in &last {
                let place = window[i];
                let share = 1.0 - (place as f64 - (first + end) / 2.0).abs() / ((end - first + 1e-2) / 2.0);
                let (share, sum) = (share.max(LEAST_SHARE), self.shares[place]);
                before[place] = (sum / (sum + share)) as f32;
                weights[i] = (share / (sum + share)) as f32;
                self.shares[place] = sum + share;
            }
        } else {
            last.iter().for_each(|i| self.counts[window[*i]] += weights[*i]);
        }
        let dim = self.windows.dim;
        let Some(device) = answers.first().map(Tensor::device) else { return Ok(()) };
        let indices =
            |of: &dyn Fn(usize) -> usize| Tensor::new(last.iter().map(|i| of(*i) as u32).collect::<Vec<_>>(), device);
        let (kept, places) = (indices(&|i| i)?, indices(&|i| window[i])?);
        let sums = std::mem::take(&mut self.sums);
        let added = |(sum, answer): (&Tensor, &Tensor)| -> Result<Tensor> {
            let answer = answer.broadcast_mul(&self.factors(&weights, answer)?)?;
            let sum = sum.broadcast_mul(&self.factors(&before, sum)?)?;
            Ok(sum.index_add(&places, &answer.index_select(&kept, dim)?.contiguous()?, dim)?)
        };
        let sums = sums.iter().zip(answers).map(added).collect::<Result<Vec<_>>>()?;
        self.sums = sums;
        Ok(())
    }

    fn finish(self) -> Result<Vec<Tensor>> {
        if self.windows.fuse == Fuse::Relative {
            return Ok(self.sums);
        }
        let mean = |sum: &Tensor| Ok(sum.broadcast_div(&self.factors(&self.counts, sum)?)?);
        self.sums.iter().map(mean).collect()
    }
}
