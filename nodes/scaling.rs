//! Pictures into other sizes and arrangements.

use crate::error::{Error, tell};
use crate::memory::Memory;
use crate::wires::{Image, MAX_SIZE, Mask};
use candle_core::{D, DType, Device, Tensor};
use paraflow_diffusion::resize::{Method, crop_to_aspect, resize};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<EmptyImage>(),
        NodeDef::of::<ImageBatch>(),
        NodeDef::of::<ImageInvert>(),
        NodeDef::of::<ImagePadForOutpaint>(),
        NodeDef::of::<ImageScale>(),
        NodeDef::of::<ImageScaleBy>(),
    ]
}

/// What happens to the sides when the new shape differs from the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crop {
    /// The picture is stretched.
    Disabled,
    /// Its middle is kept.
    Center,
}

/// The choices of [`Crop`], in ComfyUI's order.
pub(crate) const CROPS: [&str; 2] = ["disabled", "center"];

impl std::str::FromStr for Crop {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "disabled" => Ok(Self::Disabled),
            "center" => Ok(Self::Center),
            _ => Err("no such way"),
        }
    }
}

/// How pictures may be scaled.
fn methods() -> impl Iterator<Item = &'static str> {
    Method::IMAGE.iter().map(|method| method.name())
}

/// Scales pictures to a size.
#[derive(Node)]
#[node(category = "image/upscaling", display_name = "Upscale Image")]
struct ImageScale {
    /// The pictures to scale.
    image: Shared<Image>,
    /// How new pixels follow from old ones: `lanczos` is sharpest, `area` best for making smaller, `nearest-exact`
    /// keeps hard edges.
    #[input(choices = methods)]
    upscale_method: Choice<Method>,
    /// The new width in pixels; 0: whatever keeps the shape.
    #[input(default = 512, range = 0..=MAX_SIZE, step = 1)]
    width: u32,
    /// The new height in pixels; 0: whatever keeps the shape.
    #[input(default = 512, range = 0..=MAX_SIZE, step = 1)]
    height: u32,
    /// `center` cuts off what does not fit the new shape, `disabled` stretches.
    #[input(choices = CROPS)]
    crop: Choice<Crop>,
}

impl Run for ImageScale {
    type Output = Shared<Image>;

    fn run(self, cx: &Context<'_>) -> Result<Shared<Image>> {
        let (_, old_height, old_width, _) = self.image.dims();
        let in_proportion = |of: usize, new: u32, old: usize| round(of as f64 * f64::from(new) / old as f64).max(1);
        let (width, height) = match (self.width, self.height) {
            (0, 0) => return Ok(self.image),
            (0, height) => (in_proportion(old_width, height, old_height), height as usize),
            (width, 0) => (width as usize, in_proportion(old_height, width, old_width)),
            (width, height) => (width as usize, height as usize),
        };
        scale(&self.image, width, height, *self.upscale_method, *self.crop, cx).map(Shared::new).map_err(tell)
    }
}

/// Scales pictures by a factor.
#[derive(Node)]
#[node(category = "image/upscaling", display_name = "Upscale Image By")]
struct ImageScaleBy {
    /// The pictures to scale.
    image: Shared<Image>,
    /// How new pixels follow from old ones: `lanczos` is sharpest, `area` best for making smaller, `nearest-exact`
    /// keeps hard edges.
    #[input(choices = methods)]
    upscale_method: Choice<Method>,
    /// How many times as wide and high.
    #[input(default = 1.0, range = 0.01..=8.0, step = 0.01)]
    scale_by: f64,
}

impl Run for ImageScaleBy {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let (_, height, width, _) = self.image.dims();
        let (width, height) = (round(width as f64 * self.scale_by), round(height as f64 * self.scale_by));
        if width == 0 || height == 0 {
            return Err(tell(Error::Unfit {
                what: "`scale_by`",
                expected: "a factor that leaves at least one pixel".to_owned(),
                found: self.scale_by.to_string(),
            }));
        }
        scale(&self.image, width, height, *self.upscale_method, Crop::Disabled, cx).map_err(tell)
    }
}

/// Makes pictures of one colour.
#[derive(Node)]
#[node(category = "image")]
struct EmptyImage {
    /// Width in pixels.
    #[input(default = 512, range = 1..=MAX_SIZE, step = 1)]
    width: u32,
    /// Height in pixels.
    #[input(default = 512, range = 1..=MAX_SIZE, step = 1)]
    height: u32,
    /// How many pictures.
    #[input(default = 1, range = 1..=4096)]
    batch_size: u32,
    /// The colour as one number: red times 65536, green times 256, blue, each up to 255.
    #[input(default = 0, range = 0..=0xff_ff_ff, step = 1, display = "color")]
    color: u32,
}

impl Run for EmptyImage {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let [batch, height, width] = [self.batch_size, self.height, self.width].map(|size| size as usize);
        require(batch * height * width * 3, "filling", width, height, cx).map_err(tell)?;
        let [_, red, green, blue] = self.color.to_be_bytes().map(|part| f32::from(part) / 255.0);
        let colour = Tensor::new(&[red, green, blue], &Device::Cpu).map_err(tell)?;
        Image::new(colour.broadcast_as((batch, height, width, 3)).map_err(tell)?).map_err(tell)
    }
}

/// Turns pictures into their negative.
#[derive(Node)]
#[node(category = "image", display_name = "Invert Image")]
struct ImageInvert {
    /// The pictures to invert.
    image: Shared<Image>,
}

impl Run for ImageInvert {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        Image::new(self.image.pixels().affine(-1.0, 1.0).map_err(tell)?).map_err(tell)
    }
}

/// Puts two batches of pictures into one.
#[derive(Node)]
#[node(category = "image", display_name = "Batch Images", deprecated)]
struct ImageBatch {
    /// The first pictures; they decide the size.
    image1: Shared<Image>,
    /// The pictures behind them, scaled and cut to that size.
    image2: Shared<Image>,
}

impl Run for ImageBatch {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        join(&self.image1, &self.image2, cx).map_err(tell)
    }
}

fn join(first: &Image, second: &Image, cx: &Context<'_>) -> Result<Image, Error> {
    let (_, height, width, channels) = first.dims();
    let channels = channels.max(second.dims().3);
    let first = with_channels(first.pixels(), channels)?;
    let mut second = Image::new(with_channels(second.pixels(), channels)?)?;
    if (second.dims().1, second.dims().2) != (height, width) {
        second = scale(&second, width, height, Method::Bilinear, Crop::Center, cx)?;
    }
    Image::new(Tensor::cat(&[&first, second.pixels()], 0)?)
}

/// The pixels with further channels of ones, as an opaque picture has them.
pub(crate) fn with_channels(pixels: &Tensor, channels: usize) -> Result<Tensor, Error> {
    let (batch, height, width, found) = pixels.dims4()?;
    if found == channels {
        return Ok(pixels.clone());
    }
    let ones = Tensor::ones((batch, height, width, channels - found), DType::F32, pixels.device())?;
    Ok(Tensor::cat(&[pixels, &ones], D::Minus1)?)
}

/// Adds empty space around pictures, and marks it in a mask, so that an inpainting model can fill it.
#[derive(Node)]
#[node(category = "image", display_name = "Pad Image for Outpainting")]
struct ImagePadForOutpaint {
    /// The pictures to extend.
    image: Shared<Image>,
    /// How many pixels to add at the left.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    left: u32,
    /// How many pixels to add at the top.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    top: u32,
    /// How many pixels to add at the right.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    right: u32,
    /// How many pixels to add at the bottom.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    bottom: u32,
    /// Over how many pixels the mask fades into the old picture, so that no seam shows.
    #[input(default = 40, range = 0..=MAX_SIZE, step = 1)]
    feathering: u32,
}

impl Run for ImagePadForOutpaint {
    type Output = (Image, Mask);

    fn run(self, cx: &Context<'_>) -> Result<(Image, Mask)> {
        self.pad(cx).map_err(tell)
    }
}

impl ImagePadForOutpaint {
    fn pad(&self, cx: &Context<'_>) -> Result<(Image, Mask), Error> {
        let (batch, old_height, old_width, channels) = self.image.dims();
        let [left, top, right, bottom] = [self.left, self.top, self.right, self.bottom].map(|side| side as usize);
        let (width, height) = (old_width + left + right, old_height + top + bottom);
        require(batch * height * width * channels, "padding to", width, height, cx)?;

        let mut mask = vec![1.0; width * height];
        for y in 0..old_height {
            for x in 0..old_width {
                mask[(y + top) * width + x + left] = self.fade(x, y, old_width, old_height);
            }
        }
        let mut pixels = Vec::with_capacity(batch * height * width * channels);
        for picture in 0..batch {
            let old = self.image.values(picture)?;
            pixels.resize(pixels.len() + top * width * channels, 0.5);
            for row in old.chunks_exact(old_width * channels) {
                pixels.resize(pixels.len() + left * channels, 0.5);
                pixels.extend(row);
                pixels.resize(pixels.len() + right * channels, 0.5);
            }
            pixels.resize(pixels.len() + bottom * width * channels, 0.5);
        }
        let image = Tensor::from_vec(pixels, (batch, height, width, channels), &Device::Cpu)?;
        Ok((Image::new(image)?, Mask::new(Tensor::from_vec(mask, (1, height, width), &Device::Cpu)?)?))
    }

    /// The mask at a pixel of the old picture: the square of how far it lies inside the seam.
    fn fade(&self, x: usize, y: usize, width: usize, height: usize) -> f32 {
        let feathering = self.feathering as usize;
        if 2 * feathering >= height || 2 * feathering >= width {
            return 0.0;
        }
        let sides = [(self.top, y), (self.bottom, height - y), (self.left, x), (self.right, width - x)];
        let distance = sides.into_iter().filter(|(added, _)| *added > 0).map(|(_, distance)| distance).min();
        match distance {
            Some(distance) if distance < feathering => {
                let inside = (feathering - distance) as f64 / feathering as f64;
                (inside * inside) as f32
            }
            _ => 0.0,
        }
    }
}

/// Python's `round`, for sizes.
pub(crate) fn round(value: f64) -> usize {
    value.round_ties_even() as usize
}

/// Planes `[batch, channels, rows, columns]` turned clockwise by so many right angles.
pub(crate) fn turn(planes: &Tensor, turns: usize) -> Result<Tensor, Error> {
    let mut planes = planes.clone();
    for _ in 0..turns {
        planes = planes.transpose(2, 3)?.contiguous()?.flip(&[3])?;
    }
    Ok(planes.contiguous()?)
}

/// Scales pictures to a size.
pub(crate) fn scale(
    image: &Image,
    width: usize,
    height: usize,
    method: Method,
    crop: Crop,
    cx: &Context<'_>,
) -> Result<Image, Error> {
    let (batch, _, _, channels) = image.dims();
    // The planes before and after, the pass between, and the result.
    require(batch * channels * width * height * 3, "scaling to", width, height, cx)?;
    let mut planes = image.pixels().permute((0, 3, 1, 2))?;
    if crop == Crop::Center {
        planes = crop_to_aspect(&planes, width, height)?;
    }
    let scaled = resize(&planes.contiguous()?, width, height, method)?;
    Image::new(scaled.permute((0, 2, 3, 1))?.contiguous()?)
}

/// Refuses work on so many numbers if they do not fit into memory.
pub(crate) fn require(numbers: usize, work: &str, width: usize, height: usize, cx: &Context<'_>) -> Result<(), Error> {
    let bytes = (numbers as u64).saturating_mul(DType::F32.size_in_bytes() as u64);
    Memory::of(cx.services()).require(bytes, || format!("{work} {width} x {height} pixels"))
}
