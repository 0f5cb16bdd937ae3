//! The levels that Sabour et al. 2024 (arXiv:2404.14507) found best for families of models, in ten steps.

use crate::Error;

/// A family with levels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aligned {
    /// Stable Diffusion 1.x.
    StableDiffusion,
    /// Stable Diffusion XL.
    StableDiffusionXl,
    /// Stable Video Diffusion.
    StableVideoDiffusion,
}

impl std::str::FromStr for Aligned {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "SD1" => Ok(Self::StableDiffusion),
            "SDXL" => Ok(Self::StableDiffusionXl),
            "SVD" => Ok(Self::StableVideoDiffusion),
            _ => Err(Error::UnknownName { kind: "family", name: name.to_owned(), known: vec!["SD1", "SDXL", "SVD"] }),
        }
    }
}

const LEVELS: usize = 11;

impl Aligned {
    fn levels(self) -> [f64; LEVELS] {
        match self {
            Self::StableDiffusion => [
                14.614_641_229_3,
                6.474_576_095_6,
                3.863_674_598_5,
                2.694_615_152_0,
                1.884_192_117_7,
                1.394_380_509_2,
                0.964_258_390_4,
                0.652_368_601_6,
                0.397_745_627_2,
                0.151_523_266_2,
                0.029_167_158_2,
            ],
            Self::StableDiffusionXl => [
                14.614_641_229_3,
                6.318_448_528_7,
                3.768_179_031_5,
                2.181_148_076_9,
                1.340_524_494_5,
                0.862_072_114_1,
                0.555_069_328_9,
                0.379_854_070_8,
                0.233_236_413_4,
                0.111_418_817_7,
                0.029_167_158_2,
            ],
            Self::StableVideoDiffusion => [700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002],
        }
    }
}

/// A family's levels for a number of steps, one more than those, the last above 0: for another number than ten, between them in
/// the logarithm.
#[must_use]
pub fn align_your_steps(family: Aligned, steps: usize) -> Vec<f32> {
    let levels = family.levels();
    let level = |i: usize| {
        let place = i as f64 / steps.max(1) as f64 * (LEVELS - 1) as f64;
        let low = (place.floor() as usize).min(LEVELS - 2);
        let share = place - low as f64;
        let log = levels[low].ln() + (levels[low + 1].ln() - levels[low].ln()) * share;
        log.exp() as f32
    };
    (0..=steps).map(level).collect()
}
