//! Latents: empty ones, other sizes, masks.

use crate::error::{Error, tell};
use crate::memory::Memory;
use crate::scaling::{CROPS, Crop, round};
use crate::wires::{Latent, MAX_SIZE, Mask};
use candle_core::{DType, Device, Tensor};
use paraflow_diffusion::resize::{Method, crop_to_aspect, resize};
use paraflow_engine::{
    Choice, Context, Given, Input, Mismatch, Node, NodeDef, Numeric, Result, Run, Services, Shared, Value, Widget,
};
use std::ops::RangeInclusive;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<EmptyLatentImage>(),
        NodeDef::of::<LatentCutToBatch>(),
        NodeDef::of::<LatentFromBatch>(),
        NodeDef::of::<LatentUpscale>(),
        NodeDef::of::<LatentUpscaleBy>(),
        NodeDef::of::<RebatchLatents>(),
        NodeDef::of::<RepeatLatentBatch>(),
        NodeDef::of::<SetLatentNoiseMask>(),
    ]
}

/// Pixels a latent cell stands for, in each direction.
pub(crate) const CELL: usize = 8;

/// Cuts latents into strips, each a latent of a batch. What is left over is dropped.
#[derive(Node)]
#[node(category = "latent/advanced")]
struct LatentCutToBatch {
    /// The latents.
    samples: Shared<Latent>,
    /// Across which side: `x` or `y`; `t` is for videos and leaves latents of pictures as they are.
    #[input(choices = ["t", "x", "y"])]
    dim: Choice<String>,
    /// How many cells wide a strip is.
    #[input(default = 1, range = 1..=MAX_SIZE, step = 1)]
    slice_size: u32,
}

impl Run for LatentCutToBatch {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let axis = match self.dim.name() {
            "x" => 3,
            "y" => 2,
            _ => return Ok(Latent::clone(&self.samples)),
        };
        let cut = || -> Result<Latent, Error> {
            let samples = self.samples.samples();
            let (batch, size) = (samples.dim(0)?, samples.dim(axis)?);
            let width = (self.slice_size as usize).min(size);
            let strips = (0..batch).flat_map(|entry| (0..size / width).map(move |strip| (entry, strip)));
            let strips = strips.map(|(entry, strip)| samples.narrow(0, entry, 1)?.narrow(axis, strip * width, width));
            let strips = strips.collect::<candle_core::Result<Vec<_>>>()?;
            self.samples.with_samples(Tensor::cat(&strips, 0)?)
        };
        cut().map_err(tell)
    }
}

/// A service: a picture's side that fills no whole cells is a fault of the graph, as the command line has it.
///
/// Without it such a side is cut down and told of, because ComfyUI's server takes it. ComfyUI's editor writes none.
#[derive(Clone, Copy, Debug)]
pub struct WholeCells;

/// A side of a picture in pixels, a multiple of [`CELL`].
#[derive(Clone, Copy)]
struct Side(u32);

impl Input for Side {
    const KIND: &'static str = u32::KIND;

    fn widget(services: &Services) -> Widget {
        u32::widget(services)
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        let pixels = literal.get::<i128>().copied().unwrap_or_default();
        let cell = CELL as i128;
        let below = pixels / cell * cell;
        if services.get::<WholeCells>().is_none() || pixels == below {
            return Ok(());
        }
        let expected = format!("a multiple of {CELL} pixels");
        Err(Mismatch::new(expected, pixels.to_string()).with_hint(format!("take {below} or {}", below + cell)))
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        u32::take(given).map(Self)
    }
}

impl Numeric for Side {
    type Number = u32;

    fn bound(widget: &mut Widget, range: RangeInclusive<u32>) {
        u32::bound(widget, range);
    }

    fn step(widget: &mut Widget, by: u32) {
        u32::step(widget, by);
    }
}

/// Sorts latents into batches of one size, each latent with its own noise.
#[derive(Node)]
#[node(category = "latent/batch", display_name = "Rebatch Latents", input_is_list)]
struct RebatchLatents {
    /// All latents.
    latents: Vec<Shared<Latent>>,
    /// How many to a batch.
    #[input(default = 1, range = 1..=4096)]
    batch_size: Vec<u32>,
}

impl Run for RebatchLatents {
    type Output = Vec<Latent>;

    fn run(self, _: &Context<'_>) -> Result<Vec<Latent>> {
        let size = self.batch_size.first().map_or(1, |size| (*size as usize).max(1));
        rebatch(&self.latents, size).map_err(tell)
    }
}

/// Latents of one size, their masks and their places.
struct Gathered {
    samples: Tensor,
    masks: Tensor,
    places: Vec<usize>,
}

impl Gathered {
    /// A batch of which `before` latents came before.
    fn of(latent: &Latent, before: usize) -> Result<Self, Error> {
        let (batch, _, rows, columns) = latent.dims();
        let masks = match latent.noise_mask() {
            Some(masks) if masks.dim(0)? < batch => {
                let times = batch.div_ceil(masks.dim(0)?);
                masks.repeat((times, 1, 1, 1))?.narrow(0, 0, batch)?
            }
            Some(masks) => masks.clone(),
            None => Tensor::ones((batch, 1, rows * CELL, columns * CELL), DType::F32, &Device::Cpu)?,
        };
        let places = latent.batch_index().map_or_else(|| (before..before + batch).collect(), <[usize]>::to_vec);
        Ok(Self { samples: latent.samples().clone(), masks, places })
    }

    fn len(&self) -> usize {
        self.samples.dims()[0]
    }

    fn join(&self, other: &Self) -> Result<Self, Error> {
        if self.masks.dims()[2..] != other.masks.dims()[2..] {
            return Err(Error::Unfit {
                what: "`latents`",
                expected: format!("noise masks of one size, {:?}", &self.masks.dims()[2..]),
                found: format!("{:?}", &other.masks.dims()[2..]),
            });
        }
        Ok(Self {
            samples: Tensor::cat(&[&self.samples, &other.samples], 0)?,
            masks: Tensor::cat(&[&self.masks, &other.masks], 0)?,
            places: [self.places.as_slice(), &other.places].concat(),
        })
    }

    fn part(&self, from: usize, length: usize) -> Result<Self, Error> {
        let masks =
            self.masks.narrow(0, from.min(self.masks.dim(0)?), length.min(self.masks.dim(0)?.saturating_sub(from)))?;
        let places = self.places.iter().skip(from).take(length).copied().collect();
        Ok(Self { samples: self.samples.narrow(0, from, length)?, masks, places })
    }

    /// A latent; a mask that selects everything is left out.
    fn latent(&self) -> Result<Latent, Error> {
        let latent = Latent::new(self.samples.contiguous()?)?.with_places(self.places.clone());
        let everything = self.masks.mean_all()?.to_scalar::<f32>()? == 1.0;
        if everything { Ok(latent) } else { latent.with_noise_mask(self.masks.contiguous()?) }
    }
}

fn rebatch(latents: &[Shared<Latent>], size: usize) -> Result<Vec<Latent>, Error> {
    let (mut batches, mut waiting, mut before) = (Vec::new(), None::<Gathered>, 0);
    for latent in latents {
        let next = Gathered::of(latent, before)?;
        before += next.len();
        let mut gathered = match waiting.take() {
            None => next,
            Some(held) if held.samples.dims()[2..] != next.samples.dims()[2..] => {
                batches.push(held.part(0, held.len().min(size))?.latent()?);
                next
            }
            Some(held) => held.join(&next)?,
        };
        if gathered.len() > size {
            let whole = gathered.len() / size;
            for batch in 0..whole {
                batches.push(gathered.part(batch * size, size)?.latent()?);
            }
            let left = gathered.len() - whole * size;
            if left == 0 {
                continue;
            }
            gathered = gathered.part(whole * size, left)?;
        }
        waiting = Some(gathered);
    }
    if let Some(held) = waiting {
        batches.push(held.latent()?);
    }
    Ok(batches)
}

/// An empty canvas: where text-to-image starts.
#[derive(Node)]
#[node(category = "latent", display_name = "Empty Latent Image")]
struct EmptyLatentImage {
    /// Width of the pictures in pixels, a multiple of 8.
    #[input(default = 512, range = 16..=MAX_SIZE, step = 8)]
    width: Side,
    /// Height of the pictures in pixels, a multiple of 8.
    #[input(default = 512, range = 16..=MAX_SIZE, step = 8)]
    height: Side,
    /// How many pictures to make at once.
    #[input(default = 1, range = 1..=4096)]
    batch_size: u32,
}

impl Run for EmptyLatentImage {
    type Output = Latent;

    fn run(self, cx: &Context<'_>) -> Result<Latent> {
        let (width, height) = (self.width.0, self.height.0);
        warn_of_rest(width, "width", cx);
        warn_of_rest(height, "height", cx);
        let shape = (self.batch_size as usize, 4, height as usize / CELL, width as usize / CELL);
        let bytes = (shape.0 * shape.1 * shape.2 * shape.3 * DType::F32.size_in_bytes()) as u64;
        Memory::of(cx.services())
            .require(bytes, || format!("{} latents of {width} x {height} pixels", self.batch_size))
            .map_err(tell)?;
        Latent::new(Tensor::zeros(shape, DType::F32, &Device::Cpu).map_err(tell)?).map_err(tell)
    }
}

/// Tells of pixels that fill no cell: they are dropped, as in ComfyUI, but not in silence.
fn warn_of_rest(pixels: u32, name: &str, cx: &Context<'_>) {
    let whole = pixels as usize / CELL * CELL;
    if whole != pixels as usize {
        cx.warn(format!("{name} {pixels} is no multiple of {CELL}: the picture gets {whole}"));
    }
}

/// How latents may be scaled.
fn methods() -> impl Iterator<Item = &'static str> {
    Method::LATENT.iter().map(|method| method.name())
}

/// Scales latents to a size in pixels.
#[derive(Node)]
#[node(category = "latent", display_name = "Upscale Latent")]
struct LatentUpscale {
    /// The latents to scale.
    samples: Shared<Latent>,
    /// How new cells follow from old ones: `bislerp` keeps the strength of the latent, the others blend.
    #[input(choices = methods)]
    upscale_method: Choice<Method>,
    /// The new width in pixels; 0: whatever keeps the shape.
    #[input(default = 512, range = 0..=MAX_SIZE, step = 8)]
    width: Side,
    /// The new height in pixels; 0: whatever keeps the shape.
    #[input(default = 512, range = 0..=MAX_SIZE, step = 8)]
    height: Side,
    /// `center` cuts off what does not fit the new shape, `disabled` stretches.
    #[input(choices = CROPS)]
    crop: Choice<Crop>,
}

impl Run for LatentUpscale {
    type Output = Shared<Latent>;

    fn run(self, cx: &Context<'_>) -> Result<Shared<Latent>> {
        /// ComfyUI makes no latent smaller than this.
        const LEAST: usize = 64;
        let (_, _, rows, columns) = self.samples.dims();
        let in_proportion = |of: usize, new: usize, old: usize| round((of * new) as f64 / old as f64).max(LEAST);
        let at_least = |pixels: u32| (pixels as usize).max(LEAST);
        let (width, height) = match (self.width.0, self.height.0) {
            (0, 0) => return Ok(self.samples),
            (0, height) => (in_proportion(columns, at_least(height), rows), at_least(height)),
            (width, 0) => (at_least(width), in_proportion(rows, at_least(width), columns)),
            (width, height) => (at_least(width), at_least(height)),
        };
        warn_of_rest(self.width.0, "width", cx);
        warn_of_rest(self.height.0, "height", cx);
        let (columns, rows) = (width / CELL, height / CELL);
        scale(&self.samples, columns, rows, *self.upscale_method, *self.crop, cx).map(Shared::new).map_err(tell)
    }
}

/// Scales latents by a factor.
#[derive(Node)]
#[node(category = "latent", display_name = "Upscale Latent By")]
struct LatentUpscaleBy {
    /// The latents to scale.
    samples: Shared<Latent>,
    /// How new cells follow from old ones: `bislerp` keeps the strength of the latent, the others blend.
    #[input(choices = methods)]
    upscale_method: Choice<Method>,
    /// How many times as wide and high.
    #[input(default = 1.5, range = 0.01..=8.0, step = 0.01)]
    scale_by: f64,
}

impl Run for LatentUpscaleBy {
    type Output = Latent;

    fn run(self, cx: &Context<'_>) -> Result<Latent> {
        let (_, _, rows, columns) = self.samples.dims();
        let (columns, rows) = (round(columns as f64 * self.scale_by), round(rows as f64 * self.scale_by));
        if columns == 0 || rows == 0 {
            return Err(tell(Error::Unfit {
                what: "`scale_by`",
                expected: "a factor that leaves at least one cell of 8 x 8 pixels".to_owned(),
                found: self.scale_by.to_string(),
            }));
        }
        scale(&self.samples, columns, rows, *self.upscale_method, Crop::Disabled, cx).map_err(tell)
    }
}

fn scale(
    latent: &Latent,
    columns: usize,
    rows: usize,
    method: Method,
    crop: Crop,
    cx: &Context<'_>,
) -> Result<Latent, Error> {
    let (batch, channels, _, _) = latent.dims();
    let bytes = (batch * channels * rows * columns * 3 * DType::F32.size_in_bytes()) as u64;
    let (width, height) = (columns * CELL, rows * CELL);
    Memory::of(cx.services()).require(bytes, || format!("scaling a latent to {width} x {height} pixels"))?;
    let mut samples = latent.samples().clone();
    if crop == Crop::Center {
        samples = crop_to_aspect(&samples, columns, rows)?;
    }
    latent.with_samples(resize(&samples.contiguous()?, columns, rows, method)?)
}

/// Tells the sampler to change only what the mask selects.
#[derive(Node)]
#[node(category = "latent/inpaint", display_name = "Set Latent Noise Mask")]
struct SetLatentNoiseMask {
    /// The picture to change a part of, as a latent.
    samples: Shared<Latent>,
    /// What to change: 1 is made anew, 0 stays, between them is a bit of both. It may have another size.
    mask: Shared<Mask>,
}

impl Run for SetLatentNoiseMask {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        self.samples.with_noise_mask(self.mask.values().unsqueeze(1).map_err(tell)?).map_err(tell)
    }
}

/// Takes some latents out of a batch. Sampled again, they get the noise that they had in the batch.
#[derive(Node)]
#[node(category = "latent/batch", display_name = "Latent From Batch")]
struct LatentFromBatch {
    /// The batch.
    samples: Shared<Latent>,
    /// The first to take, counted from 0.
    #[input(default = 0, range = 0..=63)]
    batch_index: u32,
    /// How many to take.
    #[input(default = 1, range = 1..=64)]
    length: u32,
}

impl Run for LatentFromBatch {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let batch = self.samples.dims().0;
        let first = (self.batch_index as usize).min(batch - 1);
        let length = (self.length as usize).clamp(1, batch - first);
        self.samples.part(first, length).map_err(tell)
    }
}

/// Repeats the latents of a batch.
#[derive(Node)]
#[node(category = "latent/batch", display_name = "Repeat Latent Batch")]
struct RepeatLatentBatch {
    /// The batch.
    samples: Shared<Latent>,
    /// How many times each is there afterwards.
    #[input(default = 1, range = 1..=64)]
    amount: u32,
}

impl Run for RepeatLatentBatch {
    type Output = Latent;

    fn run(self, cx: &Context<'_>) -> Result<Latent> {
        let amount = self.amount.max(1) as usize;
        let bytes = (self.samples.samples().elem_count() * amount * DType::F32.size_in_bytes()) as u64;
        Memory::of(cx.services()).require(bytes, || format!("repeating latents {amount} times")).map_err(tell)?;
        self.samples.repeat(amount).map_err(tell)
    }
}
