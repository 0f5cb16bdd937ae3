//! The levels that Pei et al. 2025 (arXiv:2503.21774) found best for few steps of models of flow, which go from 1 to 0.

use crate::Error;

/// A model with levels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimal {
    /// Flux, in 10 steps.
    Flux,
    /// Wan, in 20.
    Wan,
    /// Chroma, in 40.
    Chroma,
}

impl std::str::FromStr for Optimal {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "FLUX" => Ok(Self::Flux),
            "Wan" => Ok(Self::Wan),
            "Chroma" => Ok(Self::Chroma),
            _ => Err(Error::UnknownName { kind: "model", name: name.to_owned(), known: vec!["FLUX", "Wan", "Chroma"] }),
        }
    }
}

impl Optimal {
    fn levels(self) -> &'static [f64] {
        match self {
            Self::Flux => &[0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001],
            Self::Wan => &[
                1.0, 0.997, 0.995, 0.993, 0.991, 0.989, 0.987, 0.985, 0.98, 0.975, 0.973, 0.968, 0.96, 0.946, 0.927,
                0.902, 0.864, 0.776, 0.539, 0.208, 0.001,
            ],
            Self::Chroma => &[
                0.992, 0.99, 0.988, 0.985, 0.982, 0.978, 0.973, 0.968, 0.961, 0.953, 0.943, 0.931, 0.917, 0.9, 0.881,
                0.858, 0.832, 0.802, 0.769, 0.731, 0.69, 0.646, 0.599, 0.55, 0.501, 0.451, 0.402, 0.355, 0.311, 0.27,
                0.232, 0.199, 0.169, 0.143, 0.12, 0.101, 0.084, 0.07, 0.058, 0.048, 0.001,
            ],
        }
    }
}

/// A model's levels for a number of steps, one more than those, the last above 0: for another number than its own, between
/// them in the logarithm.
#[must_use]
pub fn optimal_steps(model: Optimal, steps: usize) -> Vec<f32> {
    let levels = model.levels();
    let last = levels.len() - 1;
    let level = |i: usize| {
        let place = i as f64 / steps.max(1) as f64 * last as f64;
        let low = (place.floor() as usize).min(last - 1);
        let share = place - low as f64;
        let log = levels[low].ln() + (levels[low + 1].ln() - levels[low].ln()) * share;
        log.exp() as f32
    };
    (0..=steps).map(level).collect()
}
