//! Rounding to numbers of eight bits at random, as ComfyUI rounds what adapters make of weights that are kept so.
//!
//! A number between two of eight bits becomes the upper one with the probability of its distance from the lower, so that many small
//! changes are not lost. Every operation is rounded to half precision there, which moves some borders: the tables hold what comes out.

use std::sync::OnceLock;

use half::f16;

use super::compute::Kept;
use crate::noise::Generator;

/// A kind of eight bits.
#[derive(Clone, Copy)]
struct Format {
    exponent_bits: u32,
    fraction_bits: i32,
    bias: i32,
    largest: f32,
}

const E4M3: Format = Format { exponent_bits: 4, fraction_bits: 3, bias: 7, largest: 448.0 };
const E5M2: Format = Format { exponent_bits: 5, fraction_bits: 2, bias: 15, largest: 57_344.0 };

/// What becomes of a positive number of half precision.
#[derive(Clone, Copy, Default)]
struct Place {
    /// How far it lies above a power of two, in the smallest steps there.
    steps: f32,
    /// What such a step is worth ...
    step: f32,
    /// ... and the power of two, 0 below the smallest.
    power: f32,
}

impl Format {
    fn place(self, number: f16) -> Place {
        let half = |number: f32| f16::from_f32(number).to_f32();
        let size = number.to_f32();
        let most = (1 << self.exponent_bits) - 1;
        let exponent = (half(size.log2()).floor() + self.bias as f32).clamp(0.0, most as f32) as i32;
        let many = 2f32.powi(self.fraction_bits);
        if exponent == 0 {
            let step = 2f32.powi(1 - self.bias - self.fraction_bits);
            return Place { steps: half(size / step), step, power: 0.0 };
        }
        let power = half(2f32.powi(exponent - self.bias));
        let above = half(half(size / power) - 1.0);
        Place { steps: half(above * many), step: power / many, power }
    }

    fn places(self) -> Vec<Place> {
        (0..1 << 15).map(|bits| self.place(f16::from_bits(bits))).collect()
    }
}

/// Rounds a weight's numbers to those of eight bits, at random by the seed of its name. NaN stays.
///
/// # Panics
/// For a kind that is not of eight bits.
pub(super) fn round_at_random(numbers: &mut [f32], kept: Kept, name: &str) {
    static PLACES: [OnceLock<Vec<Place>>; 2] = [OnceLock::new(), OnceLock::new()];
    let (format, places) = match kept {
        Kept::E4m3 => (E4M3, &PLACES[0]),
        Kept::E5m2 => (E5M2, &PLACES[1]),
        Kept::AsStored | Kept::Half => unreachable!("these are not of eight bits"),
    };
    let places = places.get_or_init(|| format.places());
    let mut random = Generator::new(u64::from(crc32(name)));
    for number in numbers {
        // Drawn in single precision and rounded to half; 1, which that may give, counts as 0.
        let drawn = f16::from_f32(random.uniform()).to_f32() % 1.0;
        let bits = f16::from_f32(*number).to_bits();
        let Some(place) = places.get(usize::from(bits & 0x7fff)).filter(|_| bits & 0x7fff != 0 && !number.is_nan())
        else {
            continue;
        };
        let steps = f16::from_f32(place.steps + drawn).to_f32().floor();
        *number = (place.power + steps * place.step).min(format.largest).copysign(*number);
    }
}

/// The sum of a name's bytes by which ComfyUI seeds: CRC-32 as zip has it.
fn crc32(name: &str) -> u32 {
    let fold = |sum: u32, byte: u8| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    };
    !name.bytes().fold(u32::MAX, fold)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Smallest and largest numbers, and some beside powers of two.
    const BORDERS: [f32; 15] = [
        0.0, 448.0, 500.0, -1000.0, 0.00195, 0.001, 1e-5, 0.99951, 1.999, 0.0078087, 0.0156, 0.01562, -0.0624, 0.125,
        60000.0,
    ];
    /// What became of the last of them.
    const IN_E4M3: [f32; 63] = [
        2.5,
        0.1875,
        1.875,
        1.75,
        -2.5,
        2.0,
        -1.0,
        -2.5,
        2.0,
        2.75,
        -1.375,
        1.125,
        0.5625,
        -0.0703125,
        -2.25,
        -0.234375,
        -0.625,
        3.25,
        0.375,
        0.75,
        -0.28125,
        1.25,
        -0.5625,
        -2.75,
        -0.28125,
        -1.0,
        -1.125,
        1.625,
        -1.75,
        1.75,
        2.25,
        -3.5,
        -2.75,
        -3.5,
        0.15625,
        -2.0,
        2.75,
        -0.21875,
        1.125,
        -0.34375,
        -0.125,
        2.25,
        1.75,
        -0.9375,
        -1.75,
        0.28125,
        3.75,
        0.8125,
        0.0,
        448.0,
        448.0,
        -448.0,
        0.001953125,
        0.0,
        0.001953125,
        1.0,
        2.0,
        0.0078125,
        0.015625,
        0.015625,
        -0.05859375,
        0.125,
        448.0,
    ];
    const IN_E5M2: [f32; 63] = [
        2.5,
        0.1875,
        1.75,
        1.75,
        -2.5,
        2.0,
        -1.0,
        -2.5,
        2.0,
        3.0,
        -1.5,
        1.0,
        0.5,
        -0.078125,
        -2.0,
        -0.25,
        -0.625,
        3.5,
        0.375,
        0.75,
        -0.3125,
        1.25,
        -0.625,
        -3.0,
        -0.25,
        -1.0,
        -1.0,
        1.5,
        -1.75,
        1.75,
        2.0,
        -3.5,
        -2.5,
        -3.5,
        0.15625,
        -2.0,
        2.5,
        -0.21875,
        1.0,
        -0.375,
        -0.125,
        2.0,
        1.75,
        -1.0,
        -1.75,
        0.3125,
        4.0,
        0.75,
        0.0,
        448.0,
        512.0,
        -896.0,
        0.001953125,
        0.0009765625,
        1.525_878_9e-5,
        1.0,
        2.0,
        0.0078125,
        0.015625,
        0.015625,
        -0.0625,
        0.125,
        57344.0,
    ];

    #[test]
    fn a_name_is_summed_up_as_zip_does() {
        assert_eq!(crc32("diffusion_model.middle_block.1.proj_in.weight"), 2_784_950_940);
        // The check value of CRC-32, before which ComfyUI's sum is the same.
        assert_eq!(crc32("123456789"), 0xcbf4_3926);
    }

    /// Recorded from `comfy.float.stochastic_rounding` of torch 2.15: normal numbers of three deviations, then borders.
    #[test]
    fn numbers_are_rounded_as_comfyui_rounds_them() {
        let mut drawn = Generator::new(0);
        let mut numbers = vec![0.0; 64];
        drawn.fill_normal(&mut numbers);
        let deviations = [0.1, 0.01, 2.0];
        let mut all: Vec<f32> = Vec::new();
        for deviation in deviations {
            drawn.fill_normal(&mut numbers);
            all.extend(numbers.iter().map(|x| x * deviation));
        }
        all.extend(BORDERS);
        for (kept, expected) in [(Kept::E4m3, &IN_E4M3), (Kept::E5m2, &IN_E5M2)] {
            let mut rounded = all.clone();
            round_at_random(&mut rounded, kept, "diffusion_model.middle_block.1.proj_in.weight");
            assert_eq!(rounded[rounded.len() - expected.len()..], expected[..], "{kept:?}");
        }
    }
}
