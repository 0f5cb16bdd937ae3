//! The stream of numbers behind every seed: torch's generator on the CPU, bit for bit.

use candle_core::{Device, Shape, Tensor};

use super::cephes;
use crate::Result;

const WORDS: usize = 624;
const OFFSET: usize = 397;

/// torch's CPU generator: MT19937 and the distributions drawn from it.
///
/// Equal seeds give equal bits on every machine. Only the low 32 bits of a seed matter, as in torch.
///
/// Matsumoto and Nishimura 1998, "Mersenne Twister"; the distributions are those of torch 2.x.
#[derive(Clone)]
pub struct Generator {
    state: [u32; WORDS],
    next: usize,
    /// The sine half of the last pair of the scalar Box–Muller, not yet handed out.
    spare: Option<f64>,
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Generator {
    /// A generator at the start of the stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = [0; WORDS];
        state[0] = seed as u32;
        for i in 1..WORDS {
            let last = state[i - 1];
            state[i] = 1_812_433_253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: WORDS, spare: None }
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == WORDS {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// The next 64 bits: two draws, the first of them the upper half.
    pub fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        high << 32 | u64::from(self.next_u32())
    }

    fn refill(&mut self) {
        fn twist(upper: u32, lower: u32, far: u32) -> u32 {
            let y = upper & 0x8000_0000 | lower & 0x7fff_ffff;
            far ^ (y >> 1) ^ (if lower & 1 == 0 { 0 } else { 0x9908_b0df })
        }
        let s = &mut self.state;
        for i in 0..WORDS - OFFSET {
            s[i] = twist(s[i], s[i + 1], s[i + OFFSET]);
        }
        for i in WORDS - OFFSET..WORDS - 1 {
            s[i] = twist(s[i], s[i + 1], s[i + OFFSET - WORDS]);
        }
        s[WORDS - 1] = twist(s[WORDS - 1], s[0], s[OFFSET - 1]);
        self.next = 0;
    }

    /// A number in `[0, 1)`, a multiple of 2⁻²⁴ (`torch.rand` in single precision).
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// A number in `[0, 1)`, a multiple of 2⁻⁵³ (`torch.rand` in double precision).
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64
    }

    /// A whole number in `[0, bound)`, as `torch.randint`: the remainder of 32 bits, of 64 from a bound of 2²⁸ on.
    ///
    /// `bound` must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        if bound >= 1 << 28 { self.next_u64() % bound } else { u64::from(self.next_u32()) % bound }
    }

    /// The numbers below `count` in an order of their own, as `torch.randperm`.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for place in 0..count.saturating_sub(1) {
            let from = place + (u64::from(self.next_u32()) % (count - place) as u64) as usize;
            order.swap(place, from);
        }
        order
    }

    /// Fills `out` with independent normal numbers of mean 0 and deviation 1, as `torch.randn` fills a tensor of that
    /// many elements.
    ///
    /// From 16 elements on, numbers are made in blocks of 16 out of 16 uniform ones, and a last block that is not full
    /// is made again from fresh ones: a shorter tensor is then no prefix of a longer one. Below 16, each number comes
    /// from a scalar Box–Muller in double precision whose second half waits for the next such call.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        if out.len() < 16 {
            return out.fill_with(|| self.normal_scalar() as f32);
        }
        out.fill_with(|| self.uniform());
        let (blocks, rest) = out.as_chunks_mut::<16>();
        blocks.iter_mut().for_each(box_muller);
        if !rest.is_empty() {
            let last = out.last_chunk_mut::<16>().expect("there are at least 16");
            last.fill_with(|| self.uniform());
            box_muller(last);
        }
    }

    fn normal_scalar(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let angle = std::f64::consts::TAU * u1;
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }

    /// A tensor of independent normal numbers, as `torch.randn(shape)`: drawn on the CPU, then moved to `device`.
    ///
    /// # Shapes
    /// Any; `f32`.
    ///
    /// # Errors
    /// The device has no room for it.
    pub fn normal(&mut self, shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
        let shape = shape.into();
        let mut values = vec![0.0; shape.elem_count()];
        self.fill_normal(&mut values);
        Ok(Tensor::from_vec(values, shape, device)?)
    }
}

/// Turns 16 uniform numbers into 16 normal ones: element `j` and element `j + 8` are a pair.
fn box_muller(block: &mut [f32; 16]) {
    let (first, second) = block.split_at_mut(8);
    for (a, b) in first.iter_mut().zip(second) {
        // In (0, 1]: the logarithm of 0 would be infinite.
        let radius = (-2.0 * cephes::ln(1.0 - *a)).sqrt();
        let (sin, cos) = cephes::sin_cos(std::f32::consts::TAU * *b);
        (*a, *b) = (radius * cos, radius * sin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: &[f32], expected: &[f32]) {
        assert!(found.len() >= expected.len());
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= 1e-7 * b.abs().max(1.0), "element {i}: {a} for {b}");
        }
    }

    fn normals(seed: u64, count: usize) -> Vec<f32> {
        let mut out = vec![0.0; count];
        Generator::new(seed).fill_normal(&mut out);
        out
    }

    #[test]
    fn published_values() {
        let expected = [-1.1258398, -1.1523602, -0.2505786, -0.4338788, 0.8487104, 0.6920092, -0.3160128, -2.1152194];
        assert_close(&normals(0, 16_384), &expected);
        let expected = [
            1.9269153, 1.4872841, 0.9007172, -2.105521, 0.6784185, -1.2345449, -0.0430675, -1.604667, -0.7521353,
            1.648723,
        ];
        assert_close(&normals(42, 16), &expected);
        assert_close(&normals(43, 16), &[-0.0166036, -0.4667949, 2.0908976, 0.6149029]);

        let mut generator = Generator::new(0);
        let uniform: Vec<f32> = (0..3).map(|_| generator.uniform()).collect();
        assert_close(&uniform, &[0.4962566, 0.7682218, 0.0884774]);
        let mut generator = Generator::new(0);
        let whole: Vec<u64> = (0..5).map(|_| generator.below(10)).collect();
        assert_eq!(whole, [4, 9, 3, 0, 3]);
        let mut generator = Generator::new(0);
        let wide: Vec<u64> = (0..3).map(|_| generator.below(1 << 28)).collect();
        assert_eq!(wide, [130_329_135, 136_432_832, 195_187_451]);
    }

    #[test]
    fn only_the_low_half_of_a_seed_matters() {
        assert_eq!(normals(7, 40), normals((1 << 32) + 7, 40));
    }

    #[test]
    fn an_incomplete_block_is_drawn_again() {
        let (short, long) = (normals(3, 20), normals(3, 32));
        assert_eq!(short[..4], long[..4]);
        assert!((4..20).all(|i| short[i] != long[i]));
    }
}
