//! Shapes grown and shrunk, and colours taken apart into brightness and hue.

use crate::error::{Error, tell};
use crate::wires::Image;
use candle_core::{Device, Tensor};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<ImageRGBToYUV>(), NodeDef::of::<ImageYUVToRGB>(), NodeDef::of::<Morphology>()]
}

/// Grows or shrinks what is bright in pictures.
#[derive(Node)]
#[node(category = "image/postprocessing", display_name = "ImageMorphology")]
struct Morphology {
    /// The pictures.
    image: Shared<Image>,
    /// `erode` shrinks, `dilate` grows; `open` and `close` do both; `gradient` and the hats show what changes.
    #[input(choices = ["erode", "dilate", "open", "close", "gradient", "bottom_hat", "top_hat"])]
    operation: Choice<String>,
    /// Side of the square that grows or shrinks, in pixels.
    #[input(default = 3, range = 3..=999, step = 1)]
    kernel_size: u32,
}

impl Run for Morphology {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let size = self.kernel_size as usize;
        let spread = |x: &Tensor, largest: bool| {
            cx.check()?;
            spread(x, size, largest).map_err(tell)
        };
        let x = self.image.pixels();
        let (shrunk, grown) = (|| spread(x, false), || spread(x, true));
        let result = match self.operation.name() {
            "erode" => shrunk()?,
            "dilate" => grown()?,
            "open" => spread(&shrunk()?, true)?,
            "close" => spread(&grown()?, false)?,
            "gradient" => (grown()? - shrunk()?).map_err(tell)?,
            "top_hat" => (x - spread(&shrunk()?, true)?).map_err(tell)?,
            _ => (spread(&grown()?, false)? - x).map_err(tell)?,
        };
        Image::new(result).map_err(tell)
    }
}

/// Each number the largest or the smallest in the square around it, as far as that lies in the picture.
fn spread(x: &Tensor, size: usize, largest: bool) -> Result<Tensor, Error> {
    // A square of even size has no middle: kornia's lies one further when it grows than when it shrinks.
    let (less, more) = ((size - 1) / 2, size / 2);
    let (before, after) = if largest { (less, more) } else { (more, less) };
    let along = |x: &Tensor, dim: usize| -> Result<Tensor, Error> {
        let length = x.dim(dim)?;
        let moved = x.transpose(dim, 3)?.contiguous()?;
        let values: Vec<f32> = moved.flatten_all()?.to_vec1()?;
        let pick = |best: f32, value: &f32| if largest { best.max(*value) } else { best.min(*value) };
        let start = if largest { f32::NEG_INFINITY } else { f32::INFINITY };
        let spread = values.chunks_exact(length).flat_map(|line| {
            (0..length)
                .map(move |i| line[i.saturating_sub(before)..(i + after + 1).min(length)].iter().fold(start, pick))
        });
        Ok(Tensor::from_vec(spread.collect(), moved.dims(), &Device::Cpu)?.transpose(dim, 3)?.contiguous()?)
    };
    along(&along(x, 1)?, 2)
}

/// Takes pictures apart into brightness and two hues, each as a grey picture.
#[derive(Node)]
#[node(category = "image/batch", outputs = ["Y", "U", "V"])]
struct ImageRGBToYUV {
    /// The pictures.
    image: Shared<Image>,
}

impl Run for ImageRGBToYUV {
    type Output = (Image, Image, Image);

    fn run(self, _: &Context<'_>) -> Result<(Image, Image, Image)> {
        colours(&self.image).map_err(tell)?;
        let part = |number: usize| {
            mapped(self.image.pixels(), |rgb| [to_ycbcr(rgb)[number]; 3]).and_then(Image::new).map_err(tell)
        };
        Ok((part(0)?, part(1)?, part(2)?))
    }
}

/// Joins brightness and two hues to pictures.
#[derive(Node)]
#[node(category = "image/batch")]
struct ImageYUVToRGB {
    /// The brightness.
    #[input(name = "Y")]
    y: Shared<Image>,
    /// How blue.
    #[input(name = "U")]
    u: Shared<Image>,
    /// How red.
    #[input(name = "V")]
    v: Shared<Image>,
}

impl Run for ImageYUVToRGB {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let join = || -> Result<Image, Error> {
            let (batch, height, width, _) = self.y.dims();
            for part in [&self.u, &self.v] {
                let found = part.dims();
                if (found.0, found.1, found.2) != (batch, height, width) {
                    return Err(Error::Unfit {
                        what: "`U` and `V`",
                        expected: format!("{batch} pictures of {width} x {height} pixels, as `Y`"),
                        found: format!("{} of {} x {}", found.0, found.2, found.1),
                    });
                }
            }
            let mean = |part: &Image| part.pixels().mean_keepdim(3);
            let parts = Tensor::cat(&[mean(&self.y)?, mean(&self.u)?, mean(&self.v)?], 3)?;
            Image::new(mapped(&parts, from_ycbcr)?)
        };
        join().map_err(tell)
    }
}

fn colours(image: &Image) -> Result<(), Error> {
    match image.dims().3 {
        3 => Ok(()),
        channels => Err(Error::Unfit {
            what: "`image`",
            expected: "pictures of three colours".to_owned(),
            found: format!("{channels} channels"),
        }),
    }
}

/// Each pixel of three numbers changed.
fn mapped(x: &Tensor, change: impl Fn([f32; 3]) -> [f32; 3]) -> Result<Tensor, Error> {
    let values: Vec<f32> = x.flatten_all()?.to_vec1()?;
    let changed = values.chunks_exact(3).flat_map(|pixel| change([pixel[0], pixel[1], pixel[2]]));
    Ok(Tensor::from_vec(changed.collect::<Vec<f32>>(), x.dims(), &Device::Cpu)?)
}

fn to_ycbcr([r, g, b]: [f32; 3]) -> [f32; 3] {
    let y = 0.299 * r + 0.587 * g + 0.114 * b;
    [y, (b - y) * 0.564 + 0.5, (r - y) * 0.713 + 0.5]
}

/// The exact way back, as kornia takes it since it gave up rounded coefficients.
fn from_ycbcr([y, cb, cr]: [f32; 3]) -> [f32; 3] {
    let (cb, cr) = (cb - 0.5, cr - 0.5);
    [y + 1.402_524_5 * cr, y - 0.714_403_5 * cr - 0.344_340_14 * cb, y + 1.773_049_6 * cb]
        .map(|x: f32| x.clamp(0.0, 1.0))
}
