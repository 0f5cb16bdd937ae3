//! What networks are told beside the prompt: SDXL a summary of it and the size of the picture (Podell et al. 2023,
//! arXiv:2307.01952, section 2.2), unCLIP what CLIP sees in a picture (Ramesh et al. 2022, arXiv:2204.06125), the upscaler how much
//! noise there is in the picture that it sees (Rombach et al. 2022, arXiv:2112.10752; Saharia et al. 2021, arXiv:2104.07636).

use candle_core::{DType, Device, Tensor};

use crate::noise::Generator;
use crate::tensors::{add_scaled, repeat_to_batch, scale};
use crate::unet::timestep_embedding;
use crate::{Error, Result};

/// Which numbers a network is told after the prompt's summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Height, width, what was cut off at the top and at the left, and the height and width of the result: SDXL.
    Size,
    /// Height, width, the cuts, and how beautiful the picture is: SDXL's refiner.
    Aesthetics,
    /// None: what is summed up is what CLIP sees in a picture, with how much noise there is in that. Stable Diffusion 2.1
    /// unCLIP.
    Seen,
    /// None: there is no summary, only the level of the noise on the picture to enlarge. The x4 upscaler.
    Level,
}

/// How many numbers stand for one.
const WAVES: usize = 256;

/// What a prompt says of the picture, where it says anything.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PictureSize {
    /// Width and height in pixels of the picture that it would be cut from; the latent's own if `None`.
    pub size: Option<(u32, u32)>,
    /// What was cut off at the left and at the top, in pixels.
    pub crop: (u32, u32),
    /// Width and height in pixels of the result; `size` if `None`.
    pub target: Option<(u32, u32)>,
    /// How beautiful the picture is; 6 for what is wanted and 2.5 for what is not if `None`.
    pub aesthetic_score: Option<f64>,
}

impl Label {
    /// How many numbers there are after the summary.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Size => 6 * WAVES,
            Self::Aesthetics => 5 * WAVES,
            Self::Seen | Self::Level => 0,
        }
    }

    /// The vector that the network is told.
    ///
    /// # Shapes
    /// - `pooled`: `[1 or batch, width]`; the result has [`width`](Self::width) more
    /// - `pixels`: width and height of the latent in pixels
    ///
    /// # Errors
    /// `pooled` is no batch of vectors.
    pub fn vector(self, pooled: &Tensor, said: PictureSize, pixels: (u32, u32), negative: bool) -> Result<Tensor> {
        if matches!(self, Self::Seen | Self::Level) {
            return Ok(pooled.to_dtype(DType::F32)?);
        }
        let (width, height) = said.size.unwrap_or(pixels);
        let (target_width, target_height) = said.target.unwrap_or((width, height));
        let score = said.aesthetic_score.unwrap_or(if negative { 2.5 } else { 6.0 });
        let mut numbers = vec![height, width, said.crop.1, said.crop.0].into_iter().map(f64::from).collect::<Vec<_>>();
        match self {
            Self::Size => numbers.extend([target_height, target_width].map(f64::from)),
            Self::Aesthetics => numbers.push(score),
            Self::Seen | Self::Level => {}
        }
        let numbers: Vec<f32> = numbers.into_iter().map(|number| number as f32).collect();
        let numbers = Tensor::new(numbers, pooled.device())?;
        let waves = timestep_embedding(&numbers, WAVES)?.flatten_all()?.unsqueeze(0)?;
        let waves = repeat_to_batch(&waves, pooled.dim(0)?)?;
        Ok(Tensor::cat(&[&pooled.to_dtype(DType::F32)?, &waves], 1)?)
    }
}

/// The level of a share of noise, 0 to 1, on a picture to enlarge: the upscaler knows the first 350 of its own.
pub(super) fn noise_level(share: f64) -> usize {
    const MOST: f64 = 350.0;
    (MOST * share.min(1.0)).round_ties_even() as usize
}

/// The same as networks are told it, `[1, 1]`, f32.
///
/// # Errors
/// Out of memory.
pub fn told_level(share: f64) -> Result<Tensor> {
    Ok(Tensor::new(&[[noise_level(share) as f32]], &Device::Cpu)?)
}

/// A picture that a prompt brings along, as CLIP sees it.
#[derive(Clone, Debug)]
pub struct SeenPicture {
    /// One vector a picture, `[pictures, width]`.
    pub embeds: Tensor,
    /// How much it counts.
    pub strength: f64,
    /// How much noise is put into it, 0 to 1: the more, the freer the result.
    pub noise: f64,
}

/// How many levels of noise there are.
const LEVELS: usize = 1000;

/// The vector that a network is told of pictures: each with noise of its own and how much of it; several are added up, and
/// get `merged_noise` on top.
///
/// Noise comes from a seed ten before the sampling's, as ComfyUI has it. Beside the vector is the generator as it was left.
///
/// # Shapes
/// `[1, 2 · width]`, f32: the picture, then the level of its noise.
///
/// # Errors
/// There is no picture, or their vectors have different widths.
pub fn seen(pictures: &[SeenPicture], merged_noise: f64, seed: u64) -> Result<(Tensor, Generator)> {
    let fresh = || Generator::new(seed.wrapping_sub(10));
    let mut generator = fresh();
    let mut sum: Option<Tensor> = None;
    let mut count = 0;
    for picture in pictures {
        for row in 0..picture.embeds.dim(0)? {
            generator = fresh();
            let one = noisy(&picture.embeds.narrow(0, row, 1)?, picture.noise, &mut generator)?;
            let one = scale(&one, picture.strength as f32)?;
            sum = Some(match sum {
                Some(sum) if sum.dims() == one.dims() => (sum + one)?,
                Some(sum) => {
                    return Err(Error::Shape {
                        layer: "pictures beside the prompt".to_owned(),
                        expected: format!("vectors of width {}, from one CLIP vision model", sum.dim(1)? / 2),
                        found: picture.embeds.dims().to_vec(),
                    });
                }
                None => one,
            });
            count += 1;
        }
    }
    match (sum, count) {
        (Some(only), 1) => Ok((only, generator)),
        (Some(sum), _) => {
            let vector = noisy(&sum.narrow(1, 0, sum.dim(1)? / 2)?, merged_noise, &mut generator)?;
            Ok((vector, generator))
        }
        (None, _) => Err(Error::Shape {
            layer: "pictures beside the prompt".to_owned(),
            expected: "at least one".to_owned(),
            found: vec![0],
        }),
    }
}

/// A vector `[1, width]` with that share of noise, and waves that stand for the share behind it.
fn noisy(vector: &Tensor, share: f64, generator: &mut Generator) -> Result<Tensor> {
    let level = ((LEVELS - 1) as f64 * share).round_ties_even();
    let kept = kept(level as usize);
    let width = vector.dim(1)?;
    let noise = generator.normal((1, width), vector.device())?;
    let vector = scale(&vector.to_dtype(DType::F32)?, kept.sqrt() as f32)?;
    let noisy = add_scaled(&vector, &noise, (1.0 - kept).sqrt() as f32)?;
    let waves = timestep_embedding(&Tensor::new(&[level as f32], vector.device())?, width)?;
    Ok(Tensor::cat(&[&noisy, &waves.reshape((1, width))?], 1)?)
}

/// How much of the square of a picture is left after so many levels: a squared cosine, none of whose steps takes more than
/// 0.999 of what was there. Nichol and Dhariwal 2021, arXiv:2102.09672, section 3.2.
fn kept(level: usize) -> f64 {
    let cosine = |at: usize| {
        let time = at as f64 / LEVELS as f64;
        ((time + 0.008) / 1.008 * std::f64::consts::PI / 2.0).cos().powi(2)
    };
    (0..=level.min(LEVELS - 1)).map(|at| 1.0 - (1.0 - cosine(at + 1) / cosine(at)).min(0.999)).product()
}
