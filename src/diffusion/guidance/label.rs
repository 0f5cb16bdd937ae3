//! What SDXL is told beside the prompt: a summary of it and the size of the picture.
//!
//! Podell et al. 2023, arXiv:2307.01952, section 2.2.

use candle_core::{DType, Tensor};

use crate::Result;
use crate::tensors::repeat_to_batch;
use crate::unet::timestep_embedding;

/// Which numbers a network is told after the prompt's summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Height, width, what was cut off at the top and at the left, and the height and width of the result: SDXL.
    Size,
    /// Height, width, the cuts, and how beautiful the picture is: SDXL's refiner.
    Aesthetics,
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
        let (width, height) = said.size.unwrap_or(pixels);
        let (target_width, target_height) = said.target.unwrap_or((width, height));
        let score = said.aesthetic_score.unwrap_or(if negative { 2.5 } else { 6.0 });
        let mut numbers = vec![height, width, said.crop.1, said.crop.0].into_iter().map(f64::from).collect::<Vec<_>>();
        match self {
            Self::Size => numbers.extend([target_height, target_width].map(f64::from)),
            Self::Aesthetics => numbers.push(score),
        }
        let numbers: Vec<f32> = numbers.into_iter().map(|number| number as f32).collect();
        let numbers = Tensor::new(numbers, pooled.device())?;
        let waves = timestep_embedding(&numbers, WAVES)?.flatten_all()?.unsqueeze(0)?;
        let waves = repeat_to_batch(&waves, pooled.dim(0)?)?;
        Ok(Tensor::cat(&[&pooled.to_dtype(DType::F32)?, &waves], 1)?)
    }
}
