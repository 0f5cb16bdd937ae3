//! Pictures cut, turned, scaled, blended, blurred.

use crate::error::{Error, tell};
use crate::memory::Memory;
use crate::scaling::{Crop, round, scale, turn};
use crate::wires::{Image, MAX_SIZE};
use candle_core::{Device, Tensor};
use paraflow_diffusion::noise::Generator;
use paraflow_diffusion::resize::{Method, crop_to_aspect, resize};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<GetImageSize>(),
        NodeDef::of::<ImageAddNoise>(),
        NodeDef::of::<ImageBlend>(),
        NodeDef::of::<ImageBlur>(),
        NodeDef::of::<ImageSharpen>(),
        NodeDef::of::<ImageCrop>(),
        NodeDef::of::<ImageFlip>(),
        NodeDef::of::<ImageRotate>(),
        NodeDef::of::<ImageFromBatch>(),
        NodeDef::of::<RepeatImageBatch>(),
        NodeDef::of::<RebatchImages>(),
        NodeDef::of::<ImageScaleToMaxDimension>(),
        NodeDef::of::<ImageScaleToTotalPixels>(),
    ]
}

/// Tells the size of pictures.
#[derive(Node)]
#[node(category = "image", display_name = "Get Image Size", outputs = ["width", "height", "batch_size"])]
struct GetImageSize {
    /// The pictures.
    image: Shared<Image>,
}

impl Run for GetImageSize {
    type Output = (u32, u32, u32);

    fn run(self, _: &Context<'_>) -> Result<(u32, u32, u32)> {
        let (batch, height, width, _) = self.image.dims();
        Ok((width as u32, height as u32, batch as u32))
    }
}

/// Adds noise to pictures.
#[derive(Node)]
#[node(category = "image")]
struct ImageAddNoise {
    /// The pictures.
    image: Shared<Image>,
    /// Which noise.
    #[input(default = 0, control_after_generate)]
    seed: u64,
    /// How much of it.
    #[input(default = 0.5, range = 0.0..=1.0, step = 0.01)]
    strength: f64,
}

impl Run for ImageAddNoise {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let noise =
            Generator::new(self.seed).normal(self.image.pixels().shape().clone(), &Device::Cpu).map_err(tell)?;
        let noisy = (noise * self.strength).and_then(|noise| self.image.pixels() + noise);
        Image::new(noisy.and_then(|x| x.clamp(0.0_f32, 1.0)).map_err(tell)?).map_err(tell)
    }
}

/// Mixes pictures.
#[derive(Node)]
#[node(category = "image/postprocessing")]
struct ImageBlend {
    /// The first pictures; they decide the size.
    image1: Shared<Image>,
    /// The pictures to mix in.
    image2: Shared<Image>,
    /// How much of the mixture; the rest is the first.
    #[input(default = 0.5, range = 0.0..=1.0, step = 0.01)]
    blend_factor: f64,
    /// How the colours of both become one.
    #[input(choices = ["normal", "multiply", "screen", "overlay", "soft_light", "difference"])]
    blend_mode: Choice<String>,
}

impl Run for ImageBlend {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let blend = || -> Result<Image, Error> {
            let (batch, height, width, channels) = self.image1.dims();
            let mut second = self.image2.pixels().narrow(3, 0, channels.min(self.image2.dims().3))?;
            if second.dims() != self.image1.pixels().dims() {
                let planes = second.permute((0, 3, 1, 2))?.contiguous()?;
                let planes =
                    resize(&crop_to_aspect(&planes, width, height)?.contiguous()?, width, height, Method::Bicubic)?;
                second = planes.permute((0, 2, 3, 1))?.contiguous()?;
            }
            let (of_second, of_channels) = (second.dim(0)?, second.dim(3)?);
            if of_channels != channels || (of_second != batch && of_second != 1 && batch != 1) {
                return Err(Error::Unfit {
                    what: "`image2`",
                    expected: format!("one picture or {batch}, of {channels} channels"),
                    found: format!("{of_second} of {of_channels}"),
                });
            }
            let all = batch.max(of_second);
            let (factor, mode) = (self.blend_factor as f32, self.blend_mode.name());
            let ones: Vec<f32> = self.image1.pixels().flatten_all()?.to_vec1()?;
            let others: Vec<f32> = second.flatten_all()?.to_vec1()?;
            let mix = |(a, b): (&f32, &f32)| (a * (1.0 - factor) + blended(mode, *a, *b) * factor).clamp(0.0, 1.0);
            let pairs = ones.iter().cycle().zip(others.iter().cycle()).take(all * height * width * channels);
            let mixed: Vec<f32> = pairs.map(mix).collect();
            Image::new(Tensor::from_vec(mixed, (all, height, width, channels), &Device::Cpu)?)
        };
        blend().map_err(tell)
    }
}

/// Blurs pictures.
#[derive(Node)]
#[node(category = "image/postprocessing")]
struct ImageBlur {
    /// The pictures.
    image: Shared<Image>,
    /// How far the blur reaches, in pixels.
    #[input(default = 1, range = 1..=31, step = 1)]
    blur_radius: u32,
    /// How strong it is within that.
    #[input(default = 1.0, range = 0.1..=10.0, step = 0.1)]
    sigma: f64,
}

impl Run for ImageBlur {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let kernel = gaussian(self.blur_radius as usize, self.sigma as f32);
        filter(&self.image, &kernel, cx).map_err(tell)
    }
}

/// Sharpens pictures.
#[derive(Node)]
#[node(category = "image/postprocessing")]
struct ImageSharpen {
    /// The pictures.
    image: Shared<Image>,
    /// How far a pixel looks, in pixels.
    #[input(default = 1, range = 1..=31, step = 1)]
    sharpen_radius: u32,
    /// How strongly it looks within that.
    #[input(default = 1.0, range = 0.1..=10.0, step = 0.01)]
    sigma: f64,
    /// How much sharper.
    #[input(default = 1.0, range = 0.0..=5.0, step = 0.01)]
    alpha: f64,
}

impl Run for ImageSharpen {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let mut kernel = gaussian(self.sharpen_radius as usize, self.sigma as f32);
        kernel.iter_mut().for_each(|weight| *weight *= -(self.alpha as f32 * 10.0));
        let sum: f32 = kernel.iter().sum();
        let centre = kernel.len() / 2;
        kernel[centre] += 1.0 - sum;
        let sharp = filter(&self.image, &kernel, cx).map_err(tell)?;
        Image::new(sharp.pixels().clamp(0.0_f32, 1.0).map_err(tell)?).map_err(tell)
    }
}

/// Cuts a rectangle out of pictures.
#[derive(Node)]
#[node(category = "image/transform", display_name = "Image Crop")]
struct ImageCrop {
    /// The pictures.
    image: Shared<Image>,
    /// Width in pixels.
    #[input(default = 512, range = 1..=MAX_SIZE, step = 1)]
    width: u32,
    /// Height in pixels.
    #[input(default = 512, range = 1..=MAX_SIZE, step = 1)]
    height: u32,
    /// Distance from the left in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 1)]
    x: u32,
    /// Distance from the top in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 1)]
    y: u32,
}

impl Run for ImageCrop {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let (_, height, width, _) = self.image.dims();
        let (x, y) = ((self.x as usize).min(width - 1), (self.y as usize).min(height - 1));
        let (columns, rows) = ((self.width as usize).min(width - x), (self.height as usize).min(height - y));
        let cut = self.image.pixels().narrow(1, y, rows).and_then(|part| part.narrow(2, x, columns)).map_err(tell)?;
        Image::new(cut).map_err(tell)
    }
}

/// Mirrors pictures.
#[derive(Node)]
#[node(category = "image/transform")]
struct ImageFlip {
    /// The pictures.
    image: Shared<Image>,
    /// Top and bottom, or left and right.
    #[input(choices = ["x-axis: vertically", "y-axis: horizontally"])]
    flip_method: Choice<String>,
}

impl Run for ImageFlip {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let axis = if self.flip_method.name().starts_with('x') { 1 } else { 2 };
        Image::new(self.image.pixels().flip(&[axis]).map_err(tell)?).map_err(tell)
    }
}

/// Turns pictures clockwise.
#[derive(Node)]
#[node(category = "image/transform")]
struct ImageRotate {
    /// The pictures.
    image: Shared<Image>,
    /// How far.
    #[input(choices = ["none", "90 degrees", "180 degrees", "270 degrees"])]
    rotation: Choice<String>,
}

impl Run for ImageRotate {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let turns = match self.rotation.name() {
            "90 degrees" => 1,
            "180 degrees" => 2,
            "270 degrees" => 3,
            _ => 0,
        };
        let planes = self.image.pixels().permute((0, 3, 1, 2)).map_err(tell)?;
        let turned = turn(&planes, turns).map_err(tell)?.permute((0, 2, 3, 1)).map_err(tell)?;
        Image::new(turned).map_err(tell)
    }
}

/// Takes some pictures out of a batch.
#[derive(Node)]
#[node(category = "image/batch")]
struct ImageFromBatch {
    /// The pictures.
    image: Shared<Image>,
    /// The first to take, counted from 0.
    #[input(default = 0, range = 0..=4095)]
    batch_index: u32,
    /// How many.
    #[input(default = 1, range = 1..=4096)]
    length: u32,
}

impl Run for ImageFromBatch {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let batch = self.image.dims().0;
        let first = (self.batch_index as usize).min(batch - 1);
        let length = (self.length as usize).clamp(1, batch - first);
        Image::new(self.image.pixels().narrow(0, first, length).map_err(tell)?).map_err(tell)
    }
}

/// Repeats the pictures of a batch.
#[derive(Node)]
#[node(category = "image/batch")]
struct RepeatImageBatch {
    /// The pictures.
    image: Shared<Image>,
    /// How many times.
    #[input(default = 1, range = 1..=4096)]
    amount: u32,
}

impl Run for RepeatImageBatch {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let amount = self.amount as usize;
        let bytes = (self.image.pixels().elem_count() * amount * size_of::<f32>()) as u64;
        Memory::of(cx.services()).require(bytes, || format!("repeating pictures {amount} times")).map_err(tell)?;
        Image::new(self.image.pixels().repeat((amount, 1, 1, 1)).map_err(tell)?).map_err(tell)
    }
}

/// Sorts pictures into batches of one size.
#[derive(Node)]
#[node(category = "image/batch", display_name = "Rebatch Images", input_is_list)]
struct RebatchImages {
    /// All pictures.
    images: Vec<Shared<Image>>,
    /// How many to a batch.
    #[input(default = 1, range = 1..=4096)]
    batch_size: Vec<u32>,
}

impl Run for RebatchImages {
    type Output = Vec<Image>;

    fn run(self, _: &Context<'_>) -> Result<Vec<Image>> {
        let size = one(&self.batch_size);
        let whole: Vec<Tensor> = self.images.iter().map(|image| image.pixels().clone()).collect();
        let chunks = rebatch(&whole, size).map_err(tell)?;
        chunks.into_iter().map(Image::new).collect::<Result<_, Error>>().map_err(tell)
    }
}

/// Scales pictures so that the longer side has a length.
#[derive(Node)]
#[node(category = "image/upscaling")]
struct ImageScaleToMaxDimension {
    /// The pictures.
    image: Shared<Image>,
    /// How new pixels follow from old ones.
    #[input(choices = ["area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic"])]
    upscale_method: Choice<Method>,
    /// The length in pixels.
    #[input(default = 512, range = 0..=MAX_SIZE, step = 1)]
    largest_size: u32,
}

impl Run for ImageScaleToMaxDimension {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let (_, height, width, _) = self.image.dims();
        let largest = self.largest_size as usize;
        let shorter = |short: usize, long: usize| round(short as f64 / long as f64 * largest as f64);
        let (width, height) = match width.cmp(&height) {
            std::cmp::Ordering::Less => (shorter(width, height), largest),
            std::cmp::Ordering::Greater => (largest, shorter(height, width)),
            std::cmp::Ordering::Equal => (largest, largest),
        };
        scale(&self.image, width, height, *self.upscale_method, Crop::Disabled, cx).map_err(tell)
    }
}

/// Scales pictures to a number of pixels.
#[derive(Node)]
#[node(category = "image/upscaling")]
struct ImageScaleToTotalPixels {
    /// The pictures.
    image: Shared<Image>,
    /// How new pixels follow from old ones.
    #[input(choices = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"])]
    upscale_method: Choice<Method>,
    /// How many times 1024 x 1024.
    #[input(default = 1.0, range = 0.01..=16.0, step = 0.01)]
    megapixels: f64,
    /// Both sides become multiples of this.
    #[input(default = 1, range = 1..=256)]
    resolution_steps: u32,
}

impl Run for ImageScaleToTotalPixels {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let (_, height, width, _) = self.image.dims();
        let factor = (self.megapixels * 1024.0 * 1024.0 / (width * height) as f64).sqrt();
        let steps = self.resolution_steps as usize;
        let side = |side: usize| round(side as f64 * factor / steps as f64) * steps;
        scale(&self.image, side(width), side(height), *self.upscale_method, Crop::Disabled, cx).map_err(tell)
    }
}

/// What a mode of blending makes of two values.
fn blended(mode: &str, a: f32, b: f32) -> f32 {
    match mode {
        "multiply" => a * b,
        "screen" => 1.0 - (1.0 - a) * (1.0 - b),
        "overlay" if a <= 0.5 => 2.0 * a * b,
        "overlay" => 1.0 - 2.0 * (1.0 - a) * (1.0 - b),
        "soft_light" if b <= 0.5 => a - (1.0 - 2.0 * b) * a * (1.0 - a),
        "soft_light" => {
            let light = if a <= 0.25 { ((16.0 * a - 12.0) * a + 4.0) * a } else { a.sqrt() };
            a + (2.0 * b - 1.0) * (light - a)
        }
        "difference" => a - b,
        _ => b,
    }
}

/// The weights of a round blur, row after row, on a square from -1 to 1.
fn gaussian(radius: usize, sigma: f32) -> Vec<f32> {
    let size = 2 * radius + 1;
    let place = |i: usize| 2.0 * i as f32 / (size - 1) as f32 - 1.0;
    let weight = |i: usize| {
        let (x, y) = (place(i / size), place(i % size));
        (-(x * x + y * y) / (2.0 * sigma * sigma)).exp()
    };
    let weights: Vec<f32> = (0..size * size).map(weight).collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Every pixel becomes the weighted sum of its square neighbourhood; beyond the edges pictures are mirrored.
fn filter(image: &Image, kernel: &[f32], cx: &Context<'_>) -> Result<Image, Error> {
    let size = kernel.len().isqrt();
    let radius = size / 2;
    let (batch, height, width, channels) = image.dims();
    if radius >= height.min(width) {
        return Err(Error::Unfit {
            what: "the radius",
            expected: format!("less than the shorter side, {}", height.min(width)),
            found: radius.to_string(),
        });
    }
    let values: Vec<f32> = image.pixels().flatten_all()?.to_vec1()?;
    let mirror = |at: usize, by: usize, side: usize| {
        let place = (at + by).abs_diff(radius);
        if place >= side { 2 * (side - 1) - place } else { place }
    };
    let mut filtered = vec![0.0_f32; values.len()];
    for (row, line) in filtered.chunks_exact_mut(width * channels).enumerate() {
        if cx.check().is_err() {
            return Err(Error::Diffusion(std::sync::Arc::new(paraflow_diffusion::Error::Stopped)));
        }
        let (picture, y) = (row / height, row % height);
        for (by, weights) in kernel.chunks_exact(size).enumerate() {
            let from = (picture * height + mirror(y, by, height)) * width;
            for (x, pixel) in line.chunks_exact_mut(channels).enumerate() {
                for (across, weight) in weights.iter().enumerate() {
                    let from = (from + mirror(x, across, width)) * channels;
                    pixel.iter_mut().zip(&values[from..]).for_each(|(sum, value)| *sum += weight * value);
                }
            }
        }
    }
    Image::new(Tensor::from_vec(filtered, (batch, height, width, channels), &Device::Cpu)?)
}

/// The first of a list of numbers.
fn one(sizes: &[u32]) -> usize {
    sizes.first().map_or(1, |size| (*size as usize).max(1))
}

/// All entries in batches of so many, a new batch where the size changes.
fn rebatch(whole: &[Tensor], size: usize) -> Result<Vec<Tensor>, Error> {
    let mut batches = Vec::new();
    let mut waiting: Vec<Tensor> = Vec::new();
    let entries = whole.iter().flat_map(|batch| (0..batch.dims()[0]).map(move |i| batch.narrow(0, i, 1)));
    for entry in entries {
        let entry = entry?;
        if waiting.len() == size || waiting.last().is_some_and(|last| last.dims() != entry.dims()) {
            batches.push(Tensor::cat(&waiting, 0)?);
            waiting.clear();
        }
        waiting.push(entry);
    }
    if !waiting.is_empty() {
        batches.push(Tensor::cat(&waiting, 0)?);
    }
    Ok(batches)
}
