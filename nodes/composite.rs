//! Pictures laid over and beside each other.

use crate::error::{Error, tell};
use crate::wires::{Image, MAX_SIZE, Mask};
use candle_core::{Device, Tensor};
use paraflow_diffusion::resize::{Method, crop_to_aspect, resize};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<ImageStitch>(), NodeDef::of::<PorterDuffImageComposite>(), NodeDef::of::<ResizeAndPadImage>()]
}

/// Puts pictures beside or below each other.
#[derive(Node)]
#[node(category = "image/transform", display_name = "Image Stitch")]
struct ImageStitch {
    /// The pictures that stay as they are.
    image1: Shared<Image>,
    /// On which side of them the others go.
    #[input(choices = ["right", "down", "left", "up"], default = "right")]
    direction: Choice<String>,
    /// Whether the others are scaled to the same height or width; otherwise the smaller ones get a margin.
    #[input(default = true)]
    match_image_size: bool,
    /// Pixels between them, made even.
    #[input(default = 0, range = 0..=1024, step = 2)]
    spacing_width: u32,
    /// The colour between them.
    #[input(choices = ["white", "black", "red", "green", "blue"], default = "white")]
    spacing_color: Choice<String>,
    /// The others; without any, the first come back.
    image2: Option<Shared<Image>>,
}

impl Run for ImageStitch {
    type Output = Shared<Image>;

    fn run(self, _: &Context<'_>) -> Result<Shared<Image>> {
        let Some(second) = &self.image2 else { return Ok(self.image1) };
        Ok(Shared::new(self.stitch(second.pixels()).and_then(Image::new).map_err(tell)?))
    }
}

impl ImageStitch {
    fn stitch(&self, second: &Tensor) -> Result<Tensor, Error> {
        let beside = matches!(self.direction.name(), "right" | "left");
        let (along, across) = if beside { (2, 1) } else { (1, 2) };
        let colour = match self.spacing_color.name() {
            "red" => [1.0, 0.0, 0.0],
            "green" => [0.0, 1.0, 0.0],
            "blue" => [0.0, 0.0, 1.0],
            "black" => [0.0; 3],
            _ => [1.0; 3],
        };
        // A margin has no colour of its own but grey ones.
        let margin = if colour[0] == colour[1] && colour[1] == colour[2] { colour[0] } else { 0.0 };
        let batch = self.image1.dims().0.max(second.dim(0)?);
        let (mut first, mut second) = (repeat_last(self.image1.pixels(), batch)?, repeat_last(second, batch)?);
        if self.match_image_size {
            second = self.matched(&first, &second, beside)?;
        } else {
            let size = first.dim(across)?.max(second.dim(across)?);
            (first, second) = (centred(&first, across, size, margin)?, centred(&second, across, size, margin)?);
        }
        let channels = first.dim(3)?.max(second.dim(3)?);
        let (first, second) = (with_channels(&first, channels)?, with_channels(&second, channels)?);
        let mut parts = match self.direction.name() {
            "left" | "up" => vec![second, first],
            _ => vec![first, second],
        };
        if self.spacing_width > 0 {
            let width = self.spacing_width as usize;
            let mut shape = parts[0].dims().to_vec();
            shape[along] = width + width % 2;
            let pixel: Vec<f32> = (0..channels).map(|c| colour.get(c).copied().unwrap_or(1.0)).collect();
            let pixel = Tensor::from_vec(pixel, (1, 1, 1, channels), &Device::Cpu)?;
            parts.insert(1, pixel.broadcast_as(shape)?.contiguous()?);
        }
        Ok(Tensor::cat(&parts, along)?)
    }

    /// The second pictures at the height or the width of the first.
    fn matched(&self, first: &Tensor, second: &Tensor, beside: bool) -> Result<Tensor, Error> {
        let (_, rows, columns, _) = first.dims4()?;
        let (_, height, width, _) = second.dims4()?;
        let aspect = width as f64 / height as f64;
        let (width, height) = if beside {
            ((rows as f64 * aspect) as usize, rows)
        } else {
            (columns, (columns as f64 / aspect) as usize)
        };
        let planes = second.permute((0, 3, 1, 2))?.contiguous()?;
        Ok(resize(&planes, width, height, Method::Lanczos)?.permute((0, 2, 3, 1))?.contiguous()?)
    }
}

/// As many entries as asked for, the last again and again.
fn repeat_last(x: &Tensor, batch: usize) -> Result<Tensor, Error> {
    let entries = x.dim(0)?;
    if entries == batch {
        return Ok(x.clone());
    }
    let last = x.narrow(0, entries - 1, 1)?.repeat((batch - entries, 1, 1, 1))?;
    Ok(Tensor::cat(&[x, &last], 0)?)
}

/// A picture in the middle of a larger side.
fn centred(x: &Tensor, dim: usize, size: usize, value: f32) -> Result<Tensor, Error> {
    let more = size - x.dim(dim)?;
    let mut parts = vec![x.clone()];
    for (place, width) in [(0, more / 2), (1, more - more / 2)] {
        if width > 0 {
            let mut shape = x.dims().to_vec();
            shape[dim] = width;
            let margin = Tensor::full(value, shape, x.device())?;
            parts.insert(if place == 0 { 0 } else { parts.len() }, margin);
        }
    }
    Ok(Tensor::cat(&parts, dim)?)
}

/// Channels that are missing are 1.
fn with_channels(x: &Tensor, channels: usize) -> Result<Tensor, Error> {
    let missing = channels - x.dim(3)?;
    if missing == 0 {
        return Ok(x.clone());
    }
    let mut shape = x.dims().to_vec();
    shape[3] = missing;
    Ok(Tensor::cat(&[x, &Tensor::full(1.0_f32, shape, x.device())?], 3)?)
}

/// Fits pictures into a size and fills the rest with a colour.
#[derive(Node)]
#[node(category = "image/transform")]
struct ResizeAndPadImage {
    /// The pictures.
    image: Shared<Image>,
    /// Width of the result in pixels.
    #[input(default = 512, range = 1..=MAX_SIZE, step = 1)]
    target_width: u32,
    /// Height of the result in pixels.
    #[input(default = 512, range = 1..=MAX_SIZE, step = 1)]
    target_height: u32,
    /// The colour of the rest.
    #[input(choices = ["white", "black"])]
    padding_color: Choice<String>,
    /// How to scale.
    #[input(choices = ["area", "bicubic", "nearest-exact", "bilinear", "lanczos"])]
    interpolation: Choice<Method>,
}

impl Run for ResizeAndPadImage {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let fit = || -> Result<Image, Error> {
            let (_, height, width, _) = self.image.dims();
            let (across, down) = (self.target_width as usize, self.target_height as usize);
            let scale = (across as f64 / width as f64).min(down as f64 / height as f64);
            let side = |side: usize| (side as f64 * scale) as usize;
            let planes = self.image.pixels().permute((0, 3, 1, 2))?.contiguous()?;
            let scaled = resize(&planes, side(width), side(height), *self.interpolation)?.permute((0, 2, 3, 1))?;
            let value = if self.padding_color.name() == "black" { 0.0 } else { 1.0 };
            let tall = centred(&scaled.contiguous()?, 1, down, value)?;
            Image::new(centred(&tall, 2, across, value)?)
        };
        fit().map_err(tell)
    }
}

/// Lays pictures over others by the rules of Porter and Duff 1984.
#[derive(Node)]
#[node(category = "mask/compositing", display_name = "Porter-Duff Image Composite")]
struct PorterDuffImageComposite {
    /// The pictures above.
    source: Shared<Image>,
    /// Where they are see-through.
    source_alpha: Shared<Mask>,
    /// The pictures below; they decide the size.
    destination: Shared<Image>,
    /// Where they are see-through.
    destination_alpha: Shared<Mask>,
    /// The rule.
    #[input(
        choices = [
            "ADD", "CLEAR", "DARKEN", "DST", "DST_ATOP", "DST_IN", "DST_OUT", "DST_OVER", "LIGHTEN", "MULTIPLY", "OVERLAY",
            "SCREEN", "SRC", "SRC_ATOP", "SRC_IN", "SRC_OUT", "SRC_OVER", "XOR"
        ],
        default = "DST"
    )]
    mode: Choice<String>,
}

impl Run for PorterDuffImageComposite {
    type Output = (Image, Mask);

    fn run(self, _: &Context<'_>) -> Result<(Image, Mask)> {
        self.compose().map_err(tell)
    }
}

impl PorterDuffImageComposite {
    fn compose(&self) -> Result<(Image, Mask), Error> {
        let (_, height, width, channels) = self.destination.dims();
        if self.source.dims().3 != channels {
            return Err(Error::Unfit {
                what: "`source`",
                expected: format!("pictures of {channels} channels, as `destination` has"),
                found: self.source.dims().3.to_string(),
            });
        }
        let batches = [
            self.source.dims().0,
            self.source_alpha.dims().0,
            self.destination.dims().0,
            self.destination_alpha.dims().0,
        ];
        let batch = batches.into_iter().fold(usize::MAX, usize::min);
        let fit = |x: &Tensor| -> Result<Vec<f32>, Error> {
            let x = x.narrow(0, 0, batch)?.permute((0, 3, 1, 2))?.contiguous()?;
            let (_, _, rows, columns) = x.dims4()?;
            let x = if (rows, columns) == (height, width) {
                x
            } else {
                resize(&crop_to_aspect(&x, width, height)?.contiguous()?, width, height, Method::Bicubic)?
            };
            Ok(x.permute((0, 2, 3, 1))?.contiguous()?.flatten_all()?.to_vec1()?)
        };
        let (source, destination) = (fit(self.source.pixels())?, fit(self.destination.pixels())?);
        let opacity = |mask: &Mask| fit(&mask.values().unsqueeze(3)?);
        let (above, below) = (opacity(&self.source_alpha)?, opacity(&self.destination_alpha)?);
        let mut colours = Vec::with_capacity(source.len());
        let mut masks = Vec::with_capacity(above.len());
        let pixels = source.chunks_exact(channels).zip(destination.chunks_exact(channels));
        for ((s, d), (above, below)) in pixels.zip(above.iter().zip(&below)) {
            let (sa, da) = (1.0 - above, 1.0 - below);
            let alpha = opacity_of(self.mode.name(), sa, da);
            colours.extend(s.iter().zip(d).map(|(s, d)| {
                let colour = colour_of(self.mode.name(), s * sa, d * da, sa, da);
                if alpha > 1e-5 { (colour / alpha).clamp(0.0, 1.0) } else { 0.0 }
            }));
            masks.push(1.0 - alpha);
        }
        let image = Tensor::from_vec(colours, (batch, height, width, channels), &Device::Cpu)?;
        Ok((Image::new(image)?, Mask::new(Tensor::from_vec(masks, (batch, height, width), &Device::Cpu)?)?))
    }
}

/// How opaque two layers are together.
fn opacity_of(mode: &str, sa: f32, da: f32) -> f32 {
    match mode {
        "ADD" => (sa + da).clamp(0.0, 1.0),
        "CLEAR" => 0.0,
        "DARKEN" | "LIGHTEN" | "OVERLAY" | "SCREEN" => sa + da - sa * da,
        "DST" | "SRC_ATOP" => da,
        "DST_ATOP" | "SRC" => sa,
        "DST_IN" | "MULTIPLY" | "SRC_IN" => sa * da,
        "DST_OUT" => (1.0 - sa) * da,
        "DST_OVER" => da + (1.0 - da) * sa,
        "SRC_OUT" => (1.0 - da) * sa,
        "SRC_OVER" => sa + (1.0 - sa) * da,
        _ => (1.0 - da) * sa + (1.0 - sa) * da,
    }
}

/// Their colour times that opacity; `s` and `d` are colours times their own.
fn colour_of(mode: &str, s: f32, d: f32, sa: f32, da: f32) -> f32 {
    match mode {
        "ADD" => (s + d).clamp(0.0, 1.0),
        "CLEAR" => 0.0,
        "DARKEN" => (1.0 - da) * s + (1.0 - sa) * d + s.min(d),
        "LIGHTEN" => (1.0 - da) * s + (1.0 - sa) * d + s.max(d),
        "DST" => d,
        "DST_ATOP" => sa * d + (1.0 - da) * s,
        "DST_IN" => d * sa,
        "DST_OUT" => (1.0 - sa) * d,
        "DST_OVER" => d + (1.0 - da) * s,
        "MULTIPLY" => s * d,
        "OVERLAY" if 2.0 * d < da => 2.0 * s * d,
        "OVERLAY" => sa * da - 2.0 * (da - s) * (sa - d),
        "SCREEN" => s + d - s * d,
        "SRC" => s,
        "SRC_ATOP" => da * s + (1.0 - sa) * d,
        "SRC_IN" => s * da,
        "SRC_OUT" => (1.0 - da) * s,
        "SRC_OVER" => s + (1.0 - sa) * d,
        _ => (1.0 - da) * s + (1.0 - sa) * d,
    }
}
