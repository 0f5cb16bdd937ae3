//! Prompts that are pictures: one to enlarge, and one whose thing is to be shown from another side.

use crate::error::{Error, tell};
use crate::scaling::{self, Crop, scale};
use crate::vae;
use crate::wires::{ClipVision, Conditioning, Image, Latent, MAX_SIZE, Prompt, Vae};
use candle_core::{DType, Device, Tensor};
use paraflow_diffusion::guidance::Picture;
use paraflow_diffusion::noise::Generator;
use paraflow_diffusion::resize::{Method, crop_to_aspect, resize};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<EnlargeConditioning>(),
        NodeDef::of::<OtherSideConditioning>(),
        NodeDef::of::<OtherSidesConditioning>(),
    ]
}

/// Channels of the latents that these models paint.
const CHANNELS: usize = 4;

/// Shows the Stable Diffusion x4 upscaler the pictures to enlarge.
///
/// The result is four times as wide and high as the latent: the upscaler's own autoencoder decodes it.
#[derive(Node)]
#[node(
    name = "SD_4XUpscale_Conditioning",
    category = "conditioning/upscale_diffusion",
    outputs = ["positive", "negative", "latent"]
)]
struct EnlargeConditioning {
    /// The pictures to enlarge.
    images: Shared<Image>,
    /// What the pictures should show.
    positive: Shared<Conditioning>,
    /// What they should not show.
    negative: Shared<Conditioning>,
    /// How many times as wide and high the result is. The model sees the pictures at a quarter of its size: 4 shows them as they are.
    #[input(default = 4.0, range = 0.0..=10.0, step = 0.01)]
    scale_ratio: f64,
    /// How much noise to put on the pictures before the model sees them: the more, the freer it makes details up.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.001)]
    noise_augmentation: f64,
}

impl Run for EnlargeConditioning {
    type Output = (Conditioning, Conditioning, Latent);

    fn run(self, cx: &Context<'_>) -> Result<(Conditioning, Conditioning, Latent)> {
        let (small, latent) = self.prepare(cx).map_err(tell)?;
        let with_small = |prompts: &Conditioning| {
            prompts.map(|condition| {
                condition.picture.small = Some(small.clone());
                condition.picture.noise = self.noise_augmentation;
            })
        };
        Ok((with_small(&self.positive), with_small(&self.negative), latent))
    }
}

impl EnlargeConditioning {
    /// The pictures as the model sees them, and an empty latent of their size.
    fn prepare(&self, cx: &Context<'_>) -> Result<(Tensor, Latent), Error> {
        /// Pixels of the result's side for one of the latent's.
        const CELL: usize = 4;
        let (batch, height, width, channels) = self.images.dims();
        if channels != 3 {
            return Err(Error::Unfit {
                what: "`images`",
                expected: "pictures of three colours".to_owned(),
                found: format!("{channels} channels"),
            });
        }
        let side = |pixels: usize| (pixels as f64 * self.scale_ratio).round_ties_even().max(1.0) as usize / CELL;
        let (rows, columns) = (side(height), side(width));
        if rows == 0 || columns == 0 {
            return Err(Error::Unfit {
                what: "`scale_ratio`",
                expected: format!("a result of at least {CELL} x {CELL} pixels"),
                found: format!("{} of {width} x {height}", self.scale_ratio),
            });
        }
        // The planes, the pass between, and the result.
        scaling::require(batch * channels * rows * columns * 3, "scaling to", columns, rows, cx)?;
        let planes = self.images.pixels().permute((0, 3, 1, 2))?.affine(2.0, -1.0)?;
        let planes = crop_to_aspect(&planes, columns, rows)?.contiguous()?;
        let small = resize(&planes, columns, rows, Method::Bilinear)?;
        Ok((small, empty(batch, rows, columns)?))
    }
}

/// Shows Stable Zero123 a picture, and says from which side the thing in it is to be seen.
#[derive(Node)]
#[node(
    name = "StableZero123_Conditioning",
    category = "conditioning/3d_models",
    compute,
    outputs = ["positive", "negative", "latent"]
)]
struct OtherSideConditioning {
    /// The CLIP vision model of the checkpoint.
    clip_vision: Shared<ClipVision>,
    /// The picture, of one thing on white.
    init_image: Shared<Image>,
    /// The autoencoder of the checkpoint.
    vae: Shared<Vae>,
    /// Width of the result in pixels.
    #[input(default = 256, range = 16..=MAX_SIZE, step = 8)]
    width: u32,
    /// Height of the result in pixels.
    #[input(default = 256, range = 16..=MAX_SIZE, step = 8)]
    height: u32,
    /// How many pictures to paint, each of other noise.
    #[input(default = 1, range = 1..=4096)]
    batch_size: u32,
    /// How far the camera goes up, in degrees.
    #[input(default = 0.0, range = -180.0..=180.0, step = 0.1)]
    elevation: f64,
    /// How far it goes around, in degrees.
    #[input(default = 0.0, range = -180.0..=180.0, step = 0.1)]
    azimuth: f64,
}

impl Run for OtherSideConditioning {
    type Output = (Conditioning, Conditioning, Latent);

    fn run(self, cx: &Context<'_>) -> Result<(Conditioning, Conditioning, Latent)> {
        let shown = Shown::of(&self.clip_vision, &self.init_image, &self.vae, (self.width, self.height), 0.0, cx)?;
        let latent = shown.latent(self.batch_size).map_err(tell)?;
        shown.prompts(&[(self.elevation, self.azimuth)], latent).map_err(tell)
    }
}

/// Shows Stable Zero123 a picture, and says for each picture of a batch from which side the thing in it is to be seen. All start from
/// the same noise.
#[derive(Node)]
#[node(
    name = "StableZero123_Conditioning_Batched",
    category = "conditioning/3d_models",
    compute,
    outputs = ["positive", "negative", "latent"]
)]
struct OtherSidesConditioning {
    /// The CLIP vision model of the checkpoint.
    clip_vision: Shared<ClipVision>,
    /// The picture, of one thing on white.
    init_image: Shared<Image>,
    /// The autoencoder of the checkpoint.
    vae: Shared<Vae>,
    /// Width of the results in pixels.
    #[input(default = 256, range = 16..=MAX_SIZE, step = 8)]
    width: u32,
    /// Height of the results in pixels.
    #[input(default = 256, range = 16..=MAX_SIZE, step = 8)]
    height: u32,
    /// How many pictures to paint.
    #[input(default = 1, range = 1..=4096)]
    batch_size: u32,
    /// How far the camera goes up for the first, in degrees.
    #[input(default = 0.0, range = -180.0..=180.0, step = 0.1)]
    elevation: f64,
    /// How far it goes around for the first, in degrees.
    #[input(default = 0.0, range = -180.0..=180.0, step = 0.1)]
    azimuth: f64,
    /// How much further up it goes from one to the next, in degrees.
    #[input(default = 0.0, range = -180.0..=180.0, step = 0.1)]
    elevation_batch_increment: f64,
    /// How much further around it goes from one to the next, in degrees.
    #[input(default = 0.0, range = -180.0..=180.0, step = 0.1)]
    azimuth_batch_increment: f64,
}

impl Run for OtherSidesConditioning {
    type Output = (Conditioning, Conditioning, Latent);

    fn run(self, cx: &Context<'_>) -> Result<(Conditioning, Conditioning, Latent)> {
        let shown = Shown::of(&self.clip_vision, &self.init_image, &self.vae, (self.width, self.height), 0.0, cx)?;
        let next = |&(elevation, azimuth): &(f64, f64)| {
            Some((elevation + self.elevation_batch_increment, azimuth + self.azimuth_batch_increment))
        };
        let sides = std::iter::successors(Some((self.elevation, self.azimuth)), next);
        let sides: Vec<_> = sides.take(self.batch_size as usize).collect();
        let latent = shown.latent(self.batch_size).map_err(tell)?.with_places(vec![0; sides.len()]);
        shown.prompts(&sides, latent).map_err(tell)
    }
}

/// A picture as Stable Zero123 and models of videos are shown it.
pub(crate) struct Shown {
    /// What CLIP sees in it, `[1, 1, width]`.
    seen: Tensor,
    /// What the autoencoder makes of it, `[1, 4, rows, columns]`.
    latent: Tensor,
    /// Width and height of the results in pixels.
    size: (u32, u32),
}

impl Shown {
    /// `noise` is what the autoencoder sees on top of the picture.
    pub(crate) fn of(
        clip_vision: &ClipVision,
        image: &Image,
        vae: &Vae,
        size: (u32, u32),
        noise: f64,
        cx: &Context<'_>,
    ) -> Result<Self> {
        let look = || -> Result<Tensor, Error> {
            let (batch, _, _, channels) = image.dims();
            if batch != 1 || channels < 3 {
                return Err(Error::Unfit {
                    what: "`init_image`",
                    expected: "one picture of three colours".to_owned(),
                    found: format!("{batch} of {channels} channels"),
                });
            }
            Ok(clip_vision.network()?.look(image.pixels(), true)?.embeds.unsqueeze(0)?)
        };
        cx.check()?;
        let seen = look().map_err(tell)?;
        let planes = || -> Result<Tensor, Error> {
            let factor = vae.autoencoder()?.factor();
            let scaled = scale(image, size.0 as usize, size.1 as usize, Method::Bilinear, Crop::Center, cx)?;
            let scaled = if noise > 0.0 { noised(&scaled, noise)? } else { scaled };
            vae::colour_planes(&scaled, factor, cx)
        };
        let latent = vae::encode(vae, &planes().map_err(tell)?, cx)?.samples().clone();
        Ok(Self { seen, latent, size })
    }

    /// So many empty latents of the results' size.
    pub(crate) fn latent(&self, batch: u32) -> Result<Latent, Error> {
        let (width, height) = self.size;
        let cells = |pixels: u32| pixels as usize / crate::latent::CELL;
        empty(batch as usize, cells(height), cells(width))
    }

    /// The prompts for cameras that go so far up and around, in degrees, and the empty ones.
    fn prompts(&self, sides: &[(f64, f64)], latent: Latent) -> Result<(Conditioning, Conditioning, Latent), Error> {
        let cameras: Vec<f32> =
            sides.iter().flat_map(|(elevation, azimuth)| camera(*elevation as f32, *azimuth as f32)).collect();
        let cameras = Tensor::from_vec(cameras, (sides.len(), 1, 4), &Device::Cpu)?;
        let seen = self.seen.repeat((sides.len(), 1, 1))?;
        self.prompts_of(Tensor::cat(&[&seen, &cameras], 2)?, latent)
    }

    /// The prompts for what is seen, and the empty ones.
    pub(crate) fn plain_prompts(&self, latent: Latent) -> Result<(Conditioning, Conditioning, Latent), Error> {
        self.prompts_of(self.seen.clone(), latent)
    }

    fn prompts_of(&self, context: Tensor, latent: Latent) -> Result<(Conditioning, Conditioning, Latent), Error> {
        let prompt = |context: Tensor, latent: Tensor| {
            let picture = Picture { latent: Some(latent), ..Picture::default() };
            Conditioning(vec![Prompt::new(context, None)]).with_picture(&picture)
        };
        let positive = prompt(context, self.latent.clone());
        let negative = prompt(self.seen.zeros_like()?, self.latent.zeros_like()?);
        Ok((positive, negative, latent))
    }
}

/// A picture with noise on it. ComfyUI draws that from no seed; here it is the same each time.
fn noised(image: &Image, strength: f64) -> Result<Image, Error> {
    let pixels = image.pixels();
    let noise = Generator::new(0).normal(pixels.shape(), pixels.device())?;
    Image::new((pixels + (noise * strength)?)?)
}

/// How a camera goes, in the four numbers that the model was trained with: the angle down from where it was, sine and cosine of that
/// around, and a right angle. Single precision, in ComfyUI's order.
fn camera(elevation: f32, azimuth: f32) -> [f32; 4] {
    const RIGHT: f32 = 90.0;
    let radians = |degrees: f32| degrees * (std::f64::consts::PI / 180.0) as f32;
    [radians((RIGHT - elevation) - RIGHT), radians(azimuth).sin(), radians(azimuth).cos(), radians(RIGHT)]
}

fn empty(batch: usize, rows: usize, columns: usize) -> Result<Latent, Error> {
    Latent::new(Tensor::zeros((batch, CHANNELS, rows, columns), DType::F32, &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_is_four_numbers() {
        let angle = std::f32::consts::PI;
        let found = camera(-30.0, 90.0);
        for (found, expected) in found.into_iter().zip([angle / 6.0, 1.0, 0.0, angle / 2.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }
}
