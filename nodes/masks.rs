//! Masks: made, measured, put together; and between masks and pictures.

use crate::error::{Error, tell};
use crate::planes::Planes;
use crate::wires::{Image, MAX_SIZE, Mask};
use candle_core::{DType, Device, Tensor};
use paraflow_diffusion::resize::{Method, resize};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<CropMask>(),
        NodeDef::of::<FeatherMask>(),
        NodeDef::of::<GrowMask>(),
        NodeDef::of::<ImageColorToMask>(),
        NodeDef::of::<ImageToMask>(),
        NodeDef::of::<InvertMask>(),
        NodeDef::of::<JoinImageWithAlpha>(),
        NodeDef::of::<MaskComposite>(),
        NodeDef::of::<MaskToImage>(),
        NodeDef::of::<SolidMask>(),
        NodeDef::of::<SplitImageWithAlpha>(),
        NodeDef::of::<ThresholdMask>(),
    ]
}

/// Cuts a rectangle out of masks.
#[derive(Node)]
#[node(category = "mask")]
struct CropMask {
    /// The masks.
    mask: Shared<Mask>,
    /// Distance from the left in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 1)]
    x: u32,
    /// Distance from the top in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 1)]
    y: u32,
    /// Width in pixels.
    #[input(default = 512, range = 1..=MAX_SIZE, step = 1)]
    width: u32,
    /// Height in pixels.
    #[input(default = 512, range = 1..=MAX_SIZE, step = 1)]
    height: u32,
}

impl Run for CropMask {
    type Output = Mask;

    fn run(self, _: &Context<'_>) -> Result<Mask> {
        let (_, height, width) = self.mask.dims();
        let (x, y) = (self.x as usize, self.y as usize);
        let (width, height) =
            ((self.width as usize).min(width.saturating_sub(x)), (self.height as usize).min(height.saturating_sub(y)));
        if width == 0 || height == 0 {
            return Err(tell(Error::Unfit {
                what: "the rectangle",
                expected: "a part of the mask".to_owned(),
                found: format!("one that begins at {x}, {y}"),
            }));
        }
        let cut = self.mask.values().narrow(1, y, height).and_then(|rows| rows.narrow(2, x, width)).map_err(tell)?;
        Mask::new(cut).map_err(tell)
    }
}

/// Lets masks fade towards their edges.
#[derive(Node)]
#[node(category = "mask")]
struct FeatherMask {
    /// The masks.
    mask: Shared<Mask>,
    /// Over how many pixels on the left.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 1)]
    left: u32,
    /// Over how many pixels at the top.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 1)]
    top: u32,
    /// Over how many pixels on the right.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 1)]
    right: u32,
    /// Over how many pixels at the bottom.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 1)]
    bottom: u32,
}

impl Run for FeatherMask {
    type Output = Mask;

    fn run(self, _: &Context<'_>) -> Result<Mask> {
        let mut planes = Planes::of_mask(&self.mask).map_err(tell)?;
        let (rows, columns) = (planes.rows, planes.columns);
        let rate = |i: usize, count: usize| (i + 1) as f32 / count as f32;
        let [left, right] = [self.left, self.right].map(|pixels| (pixels as usize).min(columns));
        let [top, bottom] = [self.top, self.bottom].map(|pixels| (pixels as usize).min(rows));
        for i in 0..left {
            planes.scale_column(i, rate(i, left));
        }
        // As in ComfyUI: counted from behind, the first is the edge opposite, so each of these is one place late.
        for i in 0..right {
            planes.scale_column((columns - i) % columns, rate(i, right));
        }
        for i in 0..top {
            planes.scale_row(i, rate(i, top));
        }
        for i in 0..bottom {
            planes.scale_row((rows - i) % rows, rate(i, bottom));
        }
        planes.into_mask().map_err(tell)
    }
}

/// Makes what masks select larger or smaller.
#[derive(Node)]
#[node(category = "mask", display_name = "Grow Mask")]
struct GrowMask {
    /// The masks.
    mask: Shared<Mask>,
    /// By how many pixels; less than 0 makes it smaller.
    #[input(default = 0, range = -(MAX_SIZE as i32)..=MAX_SIZE as i32, step = 1)]
    expand: i32,
    /// Corners become round.
    #[input(default = true)]
    tapered_corners: bool,
}

impl Run for GrowMask {
    type Output = Mask;

    fn run(self, cx: &Context<'_>) -> Result<Mask> {
        let mut planes = Planes::of_mask(&self.mask).map_err(tell)?;
        for _ in 0..self.expand.unsigned_abs() {
            cx.check()?;
            planes = planes.spread(self.expand > 0, !self.tapered_corners);
        }
        planes.into_mask().map_err(tell)
    }
}

/// Selects the pixels of one colour.
#[derive(Node)]
#[node(category = "mask")]
struct ImageColorToMask {
    /// The pictures.
    image: Shared<Image>,
    /// The colour as one number: red times 65536, green times 256, blue, each up to 255.
    #[input(default = 0, range = 0..=16777215, step = 1, display = "number")]
    color: u32,
}

impl Run for ImageColorToMask {
    type Output = Mask;

    fn run(self, _: &Context<'_>) -> Result<Mask> {
        let (batch, height, width, channels) = self.image.dims();
        if channels < 3 {
            return Err(tell(Error::Unfit {
                what: "`image`",
                expected: "a picture with colours".to_owned(),
                found: "a grey one".to_owned(),
            }));
        }
        let values = self.image.pixels().flatten_all().and_then(|x| x.to_vec1::<f32>()).map_err(tell)?;
        let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round_ties_even() as u32;
        let colour = |pixel: &[f32]| byte(pixel[0]) << 16 | byte(pixel[1]) << 8 | byte(pixel[2]);
        let selected = |pixel: &[f32]| if colour(pixel) == self.color { 1.0_f32 } else { 0.0 };
        let mask: Vec<f32> = values.chunks_exact(channels).map(selected).collect();
        Mask::new(Tensor::from_vec(mask, (batch, height, width), &Device::Cpu).map_err(tell)?).map_err(tell)
    }
}

/// Takes one channel of pictures as masks.
#[derive(Node)]
#[node(category = "mask", display_name = "Convert Image to Mask")]
struct ImageToMask {
    /// The pictures.
    image: Shared<Image>,
    /// Which channel.
    #[input(choices = ["red", "green", "blue", "alpha"])]
    channel: Choice<String>,
}

impl Run for ImageToMask {
    type Output = Mask;

    fn run(self, _: &Context<'_>) -> Result<Mask> {
        let place = match self.channel.name() {
            "red" => 0,
            "green" => 1,
            "blue" => 2,
            _ => 3,
        };
        let channels = self.image.dims().3;
        if place >= channels {
            return Err(tell(Error::Unfit {
                what: "`channel`",
                expected: format!("one of the picture's {channels} channels"),
                found: self.channel.name().to_owned(),
            }));
        }
        let channel = self.image.pixels().narrow(3, place, 1).and_then(|x| x.squeeze(3)).map_err(tell)?;
        Mask::new(channel).map_err(tell)
    }
}

/// Selects what was not selected.
#[derive(Node)]
#[node(category = "mask")]
struct InvertMask {
    /// The masks.
    mask: Shared<Mask>,
}

impl Run for InvertMask {
    type Output = Mask;

    fn run(self, _: &Context<'_>) -> Result<Mask> {
        Mask::new(self.mask.values().affine(-1.0, 1.0).map_err(tell)?).map_err(tell)
    }
}

/// Makes see-through in pictures what a mask selects.
#[derive(Node)]
#[node(category = "mask/compositing", display_name = "Join Image with Alpha")]
struct JoinImageWithAlpha {
    /// The pictures.
    image: Shared<Image>,
    /// What to make see-through; scaled to the pictures.
    alpha: Shared<Mask>,
}

impl Run for JoinImageWithAlpha {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let (batch, height, width, channels) = self.image.dims();
        let join = || -> Result<Image, Error> {
            let colours = self.image.pixels().narrow(3, 0, channels.min(3))?;
            let alpha =
                resize(&self.alpha.values().unsqueeze(1)?, width, height, Method::Bilinear)?.affine(-1.0, 1.0)?;
            // As many as there are of both, as in ComfyUI.
            let batch = batch.min(alpha.dim(0)?);
            let (colours, alpha) = (cycle(&colours, batch)?, cycle(&alpha, batch)?.permute((0, 2, 3, 1))?);
            Image::new(Tensor::cat(&[&colours, &alpha], 3)?)
        };
        join().map_err(tell)
    }
}

/// Puts one mask onto another.
#[derive(Node)]
#[node(category = "mask")]
struct MaskComposite {
    /// What to paint on.
    destination: Shared<Mask>,
    /// What to paint.
    source: Shared<Mask>,
    /// Distance from the left in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 1)]
    x: u32,
    /// Distance from the top in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 1)]
    y: u32,
    /// How the values of both become one.
    #[input(choices = ["multiply", "add", "subtract", "and", "or", "xor"])]
    operation: Choice<String>,
}

impl Run for MaskComposite {
    type Output = Mask;

    fn run(self, _: &Context<'_>) -> Result<Mask> {
        let mut target = Planes::of_mask(&self.destination).map_err(tell)?;
        let source = Planes::of_mask(&self.source).map_err(tell)?;
        let is = |value: f32| value.round_ties_even() != 0.0;
        let truth = |holds: bool| if holds { 1.0 } else { 0.0 };
        let operation = |a: f32, b: f32| match self.operation.name() {
            "multiply" => a * b,
            "add" => a + b,
            "subtract" => a - b,
            "and" => truth(is(a) && is(b)),
            "or" => truth(is(a) || is(b)),
            _ => truth(is(a) != is(b)),
        };
        if target.planes != source.planes && source.planes != 1 {
            return Err(tell(Error::Unfit {
                what: "`source`",
                expected: format!("one mask or {}", target.planes),
                found: source.planes.to_string(),
            }));
        }
        target.combine(&source, self.x as usize, self.y as usize, operation);
        target.clamp();
        target.into_mask().map_err(tell)
    }
}

/// Shows masks as grey pictures.
#[derive(Node)]
#[node(category = "mask", display_name = "Convert Mask to Image")]
struct MaskToImage {
    /// The masks.
    mask: Shared<Mask>,
}

impl Run for MaskToImage {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let (batch, height, width) = self.mask.dims();
        let grey =
            self.mask.values().unsqueeze(3).and_then(|x| x.broadcast_as((batch, height, width, 3))).map_err(tell)?;
        Image::new(grey).map_err(tell)
    }
}

/// Makes a mask of one value.
#[derive(Node)]
#[node(category = "mask")]
struct SolidMask {
    /// How much is selected, everywhere.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    value: f64,
    /// Width in pixels.
    #[input(default = 512, range = 1..=MAX_SIZE, step = 1)]
    width: u32,
    /// Height in pixels.
    #[input(default = 512, range = 1..=MAX_SIZE, step = 1)]
    height: u32,
}

impl Run for SolidMask {
    type Output = Mask;

    fn run(self, _: &Context<'_>) -> Result<Mask> {
        let (width, height) = (self.width as usize, self.height as usize);
        let values = Tensor::full(self.value as f32, (1, height, width), &Device::Cpu).map_err(tell)?;
        Mask::new(values).map_err(tell)
    }
}

/// Takes pictures apart into their colours and what is see-through in them.
#[derive(Node)]
#[node(category = "mask/compositing", display_name = "Split Image with Alpha")]
struct SplitImageWithAlpha {
    /// The pictures.
    image: Shared<Image>,
}

impl Run for SplitImageWithAlpha {
    type Output = (Image, Mask);

    fn run(self, _: &Context<'_>) -> Result<(Image, Mask)> {
        let (batch, height, width, channels) = self.image.dims();
        let split = || -> Result<(Image, Mask), Error> {
            let pixels = self.image.pixels();
            let mask = if channels > 3 {
                pixels.narrow(3, 3, 1)?.squeeze(3)?.affine(-1.0, 1.0)?
            } else {
                Tensor::zeros((batch, height, width), DType::F32, pixels.device())?
            };
            Ok((Image::new(pixels.narrow(3, 0, channels.min(3))?)?, Mask::new(mask)?))
        };
        split().map_err(tell)
    }
}

/// Selects wholly what is selected more than a threshold, and nothing else.
#[derive(Node)]
#[node(category = "mask")]
struct ThresholdMask {
    /// The masks.
    mask: Shared<Mask>,
    /// The threshold.
    #[input(default = 0.5, range = 0.0..=1.0, step = 0.01)]
    value: f64,
}

impl Run for ThresholdMask {
    type Output = Mask;

    fn run(self, _: &Context<'_>) -> Result<Mask> {
        let above = self.mask.values().gt(self.value).and_then(|x| x.to_dtype(DType::F32)).map_err(tell)?;
        Mask::new(above).map_err(tell)
    }
}

/// The first `count` of a batch that starts over when it ends.
fn cycle(batch: &Tensor, count: usize) -> Result<Tensor, Error> {
    let times = count.div_ceil(batch.dim(0)?);
    Ok(batch.repeat((times, 1, 1, 1))?.narrow(0, 0, count)?)
}
