//! The numbers of a file, and how they become `f32`.

use half::{bf16, f16, slice::HalfFloatSliceExt};

/// The types that weights are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    F16,
    Bf16,
    F32,
    F64,
    /// One sign, four of exponent, three of fraction; no infinity.
    F8E4M3,
    /// One sign, five of exponent, two of fraction.
    F8E5M2,
}

impl Numbers {
    pub(super) fn named(dtype: &str) -> Option<Self> {
        match dtype {
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::Bf16),
            "F32" => Some(Self::F32),
            "F64" => Some(Self::F64),
            "F8_E4M3" => Some(Self::F8E4M3),
            "F8_E5M2" => Some(Self::F8E5M2),
            _ => None,
        }
    }

    pub(super) fn width(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::F8E4M3 | Self::F8E5M2 => 1,
        }
    }

    pub(super) fn is_eight_bits(self) -> bool {
        matches!(self, Self::F8E4M3 | Self::F8E5M2)
    }

    /// As many numbers as `out` takes; 8-bit ones are multiplied by `scale`.
    pub(super) fn convert(self, scale: f32, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F16 => convert_f16(bytes, out),
            Self::Bf16 => convert(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Self::F32 => convert(bytes, out, f32::from_le_bytes),
            Self::F64 => convert(bytes, out, |b| f64::from_le_bytes(b) as f32),
            Self::F8E4M3 => convert(bytes, out, |[b]: [u8; 1]| from_e4m3(b) * scale),
            Self::F8E5M2 => convert(bytes, out, |[b]: [u8; 1]| from_e5m2(b) * scale),
        }
    }
}

/// The value of an 8-bit float with four bits of exponent, bias 7. All ones but the sign is NaN.
fn from_e4m3(byte: u8) -> f32 {
    let (exponent, fraction) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match byte & 0x7f {
        0x7f => f32::NAN,
        _ if exponent == 0 => fraction * 2f32.powi(-9),
        _ => (8.0 + fraction) * 2f32.powi(exponent - 10),
    };
    if byte & 0x80 == 0 { size } else { -size }
}

/// The value of an 8-bit float with five bits of exponent: the upper half of an `f16`.
fn from_e5m2(byte: u8) -> f32 {
    f16::from_bits(u16::from(byte) << 8).to_f32()
}

/// To the nearest number of half precision, ties to even, as torch does it: what is too large becomes infinite.
pub(super) fn round_to_half(numbers: &mut [f32]) {
    let mut block = [f16::ZERO; 256];
    for numbers in numbers.chunks_mut(block.len()) {
        let block = &mut block[..numbers.len()];
        block.convert_from_f32_slice(numbers);
        block.convert_to_f32_slice(numbers);
    }
}

/// The nearest number of eight bits with four of exponent, ties to even; as in torch, NaN beyond the largest, 448.
pub(super) fn to_e4m3(number: f32) -> f32 {
    let near = with_fraction(number, 3, -6);
    if near.abs() > 448.0 { f32::NAN.copysign(number) } else { near }
}

/// The nearest number of eight bits with five of exponent, ties to even; infinite beyond the largest, 57344.
pub(super) fn to_e5m2(number: f32) -> f32 {
    let near = with_fraction(number, 2, -14);
    if near.abs() > 57_344.0 { f32::INFINITY.copysign(number) } else { near }
}

/// The nearest number of so many bits of fraction and no exponent below `least`, ties to even.
fn with_fraction(number: f32, bits: i32, least: i32) -> f32 {
    let exponent = (number.to_bits() >> 23 & 0xff) as i32 - 127;
    if exponent == 128 {
        return number;
    }
    let step = f32::from_bits(((exponent.max(least) - bits + 127) as u32) << 23);
    (number / step).round_ties_even() * step
}

/// A few numbers at a time, because the machine has an instruction for many.
fn convert_f16(bytes: &[u8], out: &mut [f32]) {
    let mut block = [f16::ZERO; 256];
    let (elements, _) = bytes.as_chunks::<2>();
    for (out, elements) in out.chunks_mut(block.len()).zip(elements.chunks(block.len())) {
        let block = &mut block[..elements.len()];
        block.iter_mut().zip(elements).for_each(|(number, bytes)| *number = f16::from_le_bytes(*bytes));
        block.convert_to_f32_slice(out);
    }
}

fn convert<const WIDTH: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; WIDTH]) -> f32) {
    let (elements, _) = bytes.as_chunks::<WIDTH>();
    for (out, element) in out.iter_mut().zip(elements) {
        *out = number(*element);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number is its own nearest, and what lies between two goes to the nearer, the middle to the even one. `largest` is the
    /// largest number's byte.
    fn nearest_are_torchs(from: fn(u8) -> f32, to: fn(f32) -> f32, largest: u8) {
        for byte in (0..=255_u8).filter(|byte| byte & 0x7f <= largest) {
            assert_eq!(to(from(byte)).to_bits(), from(byte).to_bits());
        }
        for pair in (0..largest).map(|low| [low, low + 1]) {
            let [low, high] = pair.map(from);
            let even = if pair[0].is_multiple_of(2) { low } else { high };
            let middle = f32::midpoint(low, high);
            assert_eq!([to(middle), to(middle.next_down()), to(-middle.next_up())], [even, low, -high]);
        }
    }

    #[test]
    fn eight_bit_floats_are_torchs() {
        let e4m3 = [(0x01, 0.001_953_125), (0x38, 1.0), (0x7e, 448.0), (0xb9, -1.125), (0x08, 0.015_625), (0x80, -0.0)];
        assert!(e4m3.iter().all(|&(byte, value)| from_e4m3(byte) == value));
        assert!(from_e4m3(0x7f).is_nan() && from_e4m3(0xff).is_nan());
        nearest_are_torchs(from_e4m3, to_e4m3, 0x7e);
        assert_eq!((to_e4m3(464.0), to_e4m3(464.1).is_nan(), to_e4m3(f32::INFINITY).is_nan()), (448.0, true, true));
        nearest_are_torchs(from_e5m2, to_e5m2, 0x7b);
        assert_eq!((to_e5m2(61_439.0), to_e5m2(-61_440.0)), (57_344.0, f32::NEG_INFINITY));
        assert_eq!([0x7c, 0xfc].map(|byte| to_e5m2(from_e5m2(byte))), [f32::INFINITY, f32::NEG_INFINITY]);
        let e5m2 = [(0x01, 1.525_878_9e-5), (0x3c, 1.0), (0x7b, 57_344.0), (0xbd, -1.25), (0x7c, f32::INFINITY)];
        assert!(e5m2.iter().all(|&(byte, value)| from_e5m2(byte) == value));
    }
}
