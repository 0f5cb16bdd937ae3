//! All randomness of the crate: seeded, drawn on the CPU, equal to torch's.
//!
//! A seed means what it means in ComfyUI, and the same on every device. Nothing else in the house may draw a number.

mod brownian;
mod cephes;
mod generator;

use candle_core::{Device, Shape, Tensor};

pub use generator::Generator;

use crate::{Error, Result};

/// The noise that sampling starts from.
///
/// Without `batch_index`, the whole batch is one draw: picture 1 of a batch is not picture 0 of the next seed, nor
/// anything that a batch of one could give. With it, entry `i` of the result is the `batch_index[i]`-th of as many
/// draws of one latent each, which is how a latent taken out of a batch gets again the noise it had there.
///
/// # Shapes
/// `[batch, channels, height, width]`, `f32`; `batch_index` holds `batch` numbers.
///
/// # Errors
/// `batch_index` is of another length than the batch.
pub fn initial(
    shape: (usize, usize, usize, usize),
    seed: u64,
    batch_index: Option<&[usize]>,
    device: &Device,
) -> Result<Tensor> {
    Ok(draw_initial(shape, seed, batch_index, device)?.0)
}

/// The generator that drew [`initial`] noise, as it was left: what patches of a network draw from in ComfyUI.
///
/// # Errors
/// As [`initial`].
pub(crate) fn after_initial(
    shape: (usize, usize, usize, usize),
    seed: u64,
    batch_index: Option<&[usize]>,
) -> Result<Generator> {
    Ok(draw_initial(shape, seed, batch_index, &Device::Cpu)?.1)
}

fn draw_initial(
    shape: (usize, usize, usize, usize),
    seed: u64,
    batch_index: Option<&[usize]>,
    device: &Device,
) -> Result<(Tensor, Generator)> {
    let mut generator = Generator::new(seed);
    let Some(indices) = batch_index else {
        return Ok((generator.normal(shape, device)?, generator));
    };
    let (batch, channels, height, width) = shape;
    let Some(&last) = indices.iter().max().filter(|_| indices.len() == batch) else {
        return Err(Error::BatchIndex { batch, indices: indices.len() });
    };
    let size = channels * height * width;
    let mut entries = vec![0.0; batch * size];
    let mut entry = vec![0.0; size];
    for drawn in 0..=last {
        generator.fill_normal(&mut entry);
        for (i, _) in indices.iter().enumerate().filter(|&(_, &index)| index == drawn) {
            entries[i * size..(i + 1) * size].copy_from_slice(&entry);
        }
    }
    Ok((Tensor::from_vec(entries, shape, device)?, generator))
}

/// Where a sampler gets the noise that it adds on its way.
///
/// A sampler asks with the two noise levels that its step leads between. Independent noise ignores them; a Brownian
/// path, whose increments depend on them, would be one more constructor.
pub struct Noise(Box<Draw>);

/// Draws for a step between two levels, in a shape if one is named.
type Draw = dyn FnMut(f32, f32, Option<&Shape>) -> Result<Tensor>;

impl Noise {
    /// Fresh normal noise for every step, from the sampling seed.
    ///
    /// The generator starts at `seed + 1`, ComfyUI's rule on the CPU, so that the first step does not add the very
    /// noise that sampling started from.
    #[must_use]
    pub fn independent(seed: u64, shape: &Shape, device: &Device) -> Self {
        Self::drawn_by(Generator::new(seed.wrapping_add(1)), shape, device)
    }

    /// Fresh normal noise for every step, from a generator that others may have drawn from before.
    #[must_use]
    pub fn drawn_by(mut generator: Generator, shape: &Shape, device: &Device) -> Self {
        let (shape, device) = (shape.clone(), device.clone());
        Self(Box::new(move |_, _, wanted| generator.normal(wanted.unwrap_or(&shape).clone(), &device)))
    }

    /// The increments of one Brownian path over the levels of a schedule, torchsde's for this seed, all 64 bits of it.
    ///
    /// Levels outside the schedule are taken as its ends.
    #[must_use]
    pub fn path(seed: u64, sigmas: &[f32], shape: &Shape, device: &Device) -> Self {
        let positive = sigmas.iter().copied().filter(|sigma| *sigma > 0.0);
        let (min, max) = positive.fold((f32::INFINITY, 0.0_f32), |(min, max), sigma| (min.min(sigma), max.max(sigma)));
        let (shape, device) = (shape.clone(), device.clone());
        let mut path = None;
        Self::from_fn(move |sigma, next| {
            let path = path.get_or_insert_with(|| brownian::Path::new(seed, shape.elem_count(), min, max));
            Ok(Tensor::from_vec(path.between(sigma, next), shape.clone(), &device)?)
        })
    }

    /// Noise made by a function of the two noise levels, the one that the step starts from and the one it leads to.
    #[must_use]
    pub fn from_fn(mut draw: impl FnMut(f32, f32) -> Result<Tensor> + 'static) -> Self {
        Self(Box::new(move |sigma, next, _| draw(sigma, next)))
    }

    /// The noise of a step from `sigma` to `next`, of unit deviation.
    ///
    /// # Errors
    /// The device has no room for it.
    pub fn between(&mut self, sigma: f32, next: f32) -> Result<Tensor> {
        (self.0)(sigma, next, None)
    }

    /// The same for a latent that has grown since the sampling began. Only fresh noise follows it; a path stays as it was.
    ///
    /// # Errors
    /// The device has no room for it.
    pub fn between_like(&mut self, x: &Tensor, sigma: f32, next: f32) -> Result<Tensor> {
        (self.0)(sigma, next, Some(x.shape()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::{Duration, Instant};

    use super::*;

    fn recorded() -> HashMap<String, Tensor> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/noise/torch.safetensors");
        candle_core::safetensors::load(path, &Device::Cpu).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Bit for bit where no library function is involved (16 elements and more, and uniform numbers); below, `cos` and
    /// `ln_1p` in double precision are the platform's, and rounding to single precision hides nearly all of it.
    #[test]
    fn torch_draws_the_same() {
        let recorded = recorded();
        let mut names: Vec<_> = recorded.keys().collect();
        names.sort();
        let mut compared = 0;
        for name in names {
            let parts: Vec<_> = name.split('/').collect();
            if parts[0] != "normal" {
                continue;
            }
            let expected = &recorded[name];
            let drawn = Generator::new(parts[1].parse().unwrap()).normal(expected.shape(), &Device::Cpu).unwrap();
            let (drawn, expected) = (values(&drawn), values(expected));
            for (a, b) in drawn.iter().zip(&expected) {
                if drawn.len() >= 16 {
                    assert_eq!(a.to_bits(), b.to_bits(), "{name}: {a} for {b}");
                } else {
                    assert!((a - b).abs() <= 2.0 * f32::EPSILON * b.abs(), "{name}: {a} for {b}");
                }
            }
            compared += drawn.len();
        }
        assert!(compared > 30_000, "only {compared} values were recorded");
    }

    #[test]
    fn consecutive_calls_share_one_stream() {
        let recorded = recorded();
        let sequence = ["normal", "normal", "uniform", "normal", "normal", "normal", "normal"];
        for seed in [0, 1, 42, 43, 123_456_789, u64::MAX] {
            let mut generator = Generator::new(seed);
            for (i, kind) in sequence.into_iter().enumerate() {
                let expected = values(&recorded[&format!("sequence/{seed}/{i}")]);
                let mut drawn = vec![0.0; expected.len()];
                match kind {
                    "normal" => generator.fill_normal(&mut drawn),
                    _ => drawn.fill_with(|| generator.uniform()),
                }
                for (a, b) in drawn.iter().zip(&expected) {
                    assert!((a - b).abs() <= 2.0 * f32::EPSILON * b.abs(), "seed {seed}, call {i}: {a} for {b}");
                }
            }
        }
    }

    #[test]
    fn an_index_brings_back_the_noise_of_a_batch() {
        let batch = values(&initial((3, 4, 8, 8), 11, None, &Device::Cpu).unwrap());
        let picked = values(&initial((3, 4, 8, 8), 11, Some(&[2, 0, 2]), &Device::Cpu).unwrap());
        assert_eq!(picked[..256], batch[512..]);
        assert_eq!(picked[256..512], batch[..256]);
        assert_eq!(picked[512..], batch[512..]);
        let wrong = initial((3, 4, 8, 8), 11, Some(&[0]), &Device::Cpu);
        assert!(matches!(wrong, Err(Error::BatchIndex { batch: 3, indices: 1 })));
    }

    #[test]
    fn a_sampler_draws_from_the_next_seed() {
        let shape = Shape::from((1, 4, 2, 2));
        let mut noise = Noise::independent(u64::MAX, &shape, &Device::Cpu);
        let mut generator = Generator::new(0);
        for _ in 0..2 {
            let expected = generator.normal(shape.clone(), &Device::Cpu).unwrap();
            assert_eq!(values(&noise.between(2.0, 1.0).unwrap()), values(&expected));
        }
    }

    /// Generous, since tests run side by side and barely optimised; a release build takes 0.13 ms.
    #[test]
    fn a_picture_of_noise_takes_no_time() {
        let fastest = (0..10)
            .map(|seed| {
                let start = Instant::now();
                initial((1, 4, 64, 64), seed, None, &Device::Cpu).unwrap();
                start.elapsed()
            })
            .min();
        assert!(fastest.unwrap() < Duration::from_millis(20), "{fastest:?}");
    }
}
