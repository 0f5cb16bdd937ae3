//! One node for all ways to give pictures or masks another size.

use crate::error::{Error, tell};
use crate::memory::Memory;
use crate::scaling::{CROPS, Crop, round};
use crate::wires::{Image, MAX_SIZE, Mask};
use candle_core::{DType, Tensor};
use paraflow_diffusion::resize::{Method, crop_to_aspect, resize};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared, Value};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<ResizeImageMaskNode>()]
}

/// Scales pictures or masks, in one of several ways to say how large they become.
#[derive(Node)]
#[node(category = "transform", display_name = "Resize Image/Mask", outputs = ["resized"])]
struct ResizeImageMaskNode {
    /// Pictures or masks.
    #[input(kind = "IMAGE,MASK", matches = "input_type")]
    input: Value,
    /// How the new size is said.
    #[input(choices = [
        "scale by multiplier", "scale dimensions", "scale longer dimension", "scale shorter dimension", "scale width",
        "scale height", "scale total pixels", "match size"
    ])]
    resize_type: Choice<String>,
    /// How many times as wide and high.
    #[input(name = "resize_type.multiplier", default = 1.0, range = 0.01..=8.0, step = 0.01, with = ["scale by multiplier"])]
    multiplier: Option<f64>,
    /// The new width in pixels; 0: whatever keeps the shape.
    #[input(name = "resize_type.width", default = 512, range = 0..=MAX_SIZE, step = 1, with = ["scale dimensions", "scale width"])]
    width: Option<u32>,
    /// The new height in pixels; 0: whatever keeps the shape.
    #[input(name = "resize_type.height", default = 512, range = 0..=MAX_SIZE, step = 1, with = ["scale dimensions", "scale height"])]
    height: Option<u32>,
    /// The longer side in pixels.
    #[input(name = "resize_type.longer_size", default = 512, range = 0..=MAX_SIZE, step = 1, with = ["scale longer dimension"])]
    longer_size: Option<u32>,
    /// The shorter side in pixels.
    #[input(name = "resize_type.shorter_size", default = 512, range = 0..=MAX_SIZE, step = 1, with = ["scale shorter dimension"])]
    shorter_size: Option<u32>,
    /// How many times 1024 x 1024 pixels.
    #[input(name = "resize_type.megapixels", default = 1.0, range = 0.01..=16.0, step = 0.01, with = ["scale total pixels"])]
    megapixels: Option<f64>,
    /// Pictures or masks whose size it gets.
    #[input(name = "resize_type.match", kind = "IMAGE,MASK", with = ["match size"])]
    like: Option<Value>,
    /// `center` cuts off what does not fit the new shape, `disabled` stretches.
    #[input(name = "resize_type.crop", choices = CROPS, default = "center", with = ["scale dimensions", "match size"])]
    crop: Option<Choice<Crop>>,
    /// How new pixels follow from old ones: `lanczos` is sharpest, `area` best for making smaller, `nearest-exact`
    /// keeps hard edges.
    #[input(choices = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"], default = "area")]
    scale_method: Choice<Method>,
}

impl Run for ResizeImageMaskNode {
    type Output = Value;

    fn run(self, cx: &Context<'_>) -> Result<Value> {
        self.resize(cx).map_err(tell)
    }
}

impl ResizeImageMaskNode {
    fn resize(&self, cx: &Context<'_>) -> Result<Value, Error> {
        let flat = Flat::of(&self.input, "`input`")?;
        let (width, height) = self.size(flat.size())?;
        if (width, height) == (0, 0)
            && matches!(self.resize_type.name(), "scale dimensions" | "scale width" | "scale height")
        {
            return Ok(self.input.clone());
        }
        if width == 0 || height == 0 {
            return Err(Error::Unfit {
                what: "the new size",
                expected: "at least one pixel".to_owned(),
                found: format!("{width} x {height}"),
            });
        }
        let planes = flat.planes()?;
        let bytes = planes.dim(0)? * planes.dim(1)? * width * height * 3 * DType::F32.size_in_bytes();
        Memory::of(cx.services()).require(bytes as u64, || format!("scaling to {width} x {height} pixels"))?;
        let crop = self.crop.as_ref().map_or(Crop::Disabled, |crop| **crop);
        let planes = if crop == Crop::Center { crop_to_aspect(&planes, width, height)? } else { planes };
        let scaled = resize(&planes.contiguous()?, width, height, *self.scale_method)?;
        Ok(match flat {
            Flat::Image(_) => Value::new(Image::new(scaled.permute((0, 2, 3, 1))?.contiguous()?)?),
            Flat::Mask(_) => Value::new(Mask::new(scaled.squeeze(1)?)?),
        })
    }

    /// The new width and height.
    fn size(&self, (width, height): (usize, usize)) -> Result<(usize, usize), Error> {
        let share = |of: usize, to: usize, new: usize| round(of as f64 / to as f64 * new as f64);
        let in_proportion = |of: usize, new: usize, old: usize| round((of * new) as f64 / old as f64).max(1);
        let given = |size: Option<u32>| size.unwrap_or(0) as usize;
        Ok(match self.resize_type.name() {
            "scale by multiplier" => {
                let times = self.multiplier.unwrap_or(1.0);
                (round(width as f64 * times), round(height as f64 * times))
            }
            "scale longer dimension" => match (given(self.longer_size), width.cmp(&height)) {
                (size, std::cmp::Ordering::Less) => (share(width, height, size), size),
                (size, std::cmp::Ordering::Greater) => (size, share(height, width, size)),
                (size, std::cmp::Ordering::Equal) => (size, size),
            },
            "scale shorter dimension" => match (given(self.shorter_size), width.cmp(&height)) {
                (size, std::cmp::Ordering::Greater) => (share(width, height, size), size),
                (size, std::cmp::Ordering::Less) => (size, share(height, width, size)),
                (size, std::cmp::Ordering::Equal) => (size, size),
            },
            "scale total pixels" => {
                let total = (self.megapixels.unwrap_or(1.0) * 1024.0 * 1024.0).trunc();
                let times = (total / (width * height) as f64).sqrt();
                (round(width as f64 * times), round(height as f64 * times))
            }
            "match size" => match &self.like {
                Some(like) => Flat::of(like, "`resize_type.match`")?.size(),
                None => (width, height),
            },
            _ => match (given(self.width), given(self.height)) {
                (0, 0) => (0, 0),
                (0, new) => (in_proportion(width, new, height), new),
                (new, 0) => (new, in_proportion(height, new, width)),
                both => both,
            },
        })
    }
}

/// What has a width and a height.
enum Flat {
    Image(Shared<Image>),
    Mask(Shared<Mask>),
}

impl Flat {
    fn of(value: &Value, input: &'static str) -> Result<Self, Error> {
        let image = value.share().map(Self::Image);
        image.or_else(|| value.share().map(Self::Mask)).ok_or_else(|| Error::Unfit {
            what: input,
            expected: "pictures or masks".to_owned(),
            found: value.kind().to_owned(),
        })
    }

    /// Width and height.
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Image(image) => (image.dims().2, image.dims().1),
            Self::Mask(mask) => (mask.dims().2, mask.dims().1),
        }
    }

    /// `[batch, channels, height, width]`.
    fn planes(&self) -> Result<Tensor, Error> {
        Ok(match self {
            Self::Image(image) => image.pixels().permute((0, 3, 1, 2))?,
            Self::Mask(mask) => mask.values().unsqueeze(1)?,
        })
    }
}
