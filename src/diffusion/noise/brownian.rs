//! Noise along one Brownian path, torchsde's: what is added over a stretch is the same however the stretch is cut.
//!
//! The path is a tree of halves. A node's increment is drawn from its parent's by a Brownian bridge, with a seed that its
//! place in the tree decides, so that any increment may be asked for in any order.

use super::Generator;

/// Words of entropy that a seed is mixed into, torchsde's choice.
const POOL: usize = 24;

/// numpy's `SeedSequence`: from numbers to seeds that look unrelated.
///
/// O'Neill 2015, "Developing a seed_seq Alternative".
struct SeedSequence([u32; POOL]);

impl SeedSequence {
    fn new(entropy: u64, key: &[u64]) -> Self {
        let mut words = words(entropy);
        if !key.is_empty() {
            words.resize(words.len().max(POOL), 0);
            words.extend(key.iter().flat_map(|number| self::words(*number)));
        }
        let mut constant = 0x43b0_d7e5_u32;
        let mut hash = |value: u32| {
            let value = value ^ constant;
            constant = constant.wrapping_mul(0x931e_8875);
            let value = value.wrapping_mul(constant);
            value ^ (value >> 16)
        };
        let mix = |x: u32, y: u32| {
            let mixed = 0xca01_f9dd_u32.wrapping_mul(x).wrapping_sub(0x4973_f715_u32.wrapping_mul(y));
            mixed ^ (mixed >> 16)
        };
        let mut pool: [u32; POOL] = std::array::from_fn(|i| hash(words.get(i).copied().unwrap_or(0)));
        for from in 0..POOL {
            for to in (0..POOL).filter(|to| *to != from) {
                pool[to] = mix(pool[to], hash(pool[from]));
            }
        }
        for word in words.iter().skip(POOL) {
            for to in &mut pool {
                *to = mix(*to, hash(*word));
            }
        }
        Self(pool)
    }

    /// The first words that it gives.
    fn state<const COUNT: usize>(&self) -> [u32; COUNT] {
        let mut constant = 0x8b51_f9dd_u32;
        std::array::from_fn(|i| {
            let value = self.0[i % POOL] ^ constant;
            constant = constant.wrapping_mul(0x58f3_8ded);
            let value = value.wrapping_mul(constant);
            value ^ (value >> 16)
        })
    }

    fn seed(&self) -> u64 {
        u64::from(self.state::<1>()[0])
    }
}

/// A number in 32-bit words, lowest first; 0 is one word.
fn words(number: u64) -> Vec<u32> {
    let (low, high) = (number as u32, (number >> 32) as u32);
    if high == 0 { vec![low] } else { vec![low, high] }
}

/// A Brownian path between two noise levels, for latents of so many numbers.
pub(super) struct Path {
    seed: u64,
    size: usize,
    start: f64,
    end: f64,
    whole: Vec<f32>,
}

/// A half, a quarter ... of the path.
struct Node {
    start: f64,
    end: f64,
    /// Its place among the nodes of its depth, and that depth.
    key: u64,
    depth: u64,
    increment: Vec<f32>,
}

impl Path {
    pub(super) fn new(seed: u64, size: usize, min: f32, max: f32) -> Self {
        let first = SeedSequence::new(seed, &[]).seed();
        let length = (f64::from(max) - f64::from(min)).sqrt() as f32;
        let whole = normal(first, size).into_iter().map(|x| x * length).collect();
        Self { seed, size, start: rounded(f64::from(min)), end: rounded(f64::from(max)), whole }
    }

    /// The noise of the step between two levels, of unit deviation.
    pub(super) fn between(&self, sigma: f32, next: f32) -> Vec<f32> {
        let (low, high) = (sigma.min(next), sigma.max(next));
        let clamp = |t: f32| rounded(f64::from(t)).clamp(self.start, self.end);
        let root = Node { start: self.start, end: self.end, key: 0, depth: 0, increment: self.whole.clone() };
        let mut sum = vec![0.0; self.size];
        self.add(&root, clamp(low), clamp(high), &mut sum);
        let length = (high - low).sqrt();
        // torchsde's path runs towards higher levels, and sampling against it.
        let sign = if sigma < next { 1.0 } else { -1.0 };
        sum.into_iter().map(|x| sign * x / length).collect()
    }

    /// Adds the increment over `from..to`, a part of the node.
    fn add(&self, node: &Node, from: f64, to: f64, sum: &mut [f32]) {
        if from >= to {
            return;
        }
        let middle = rounded((node.start + node.end) / 2.0);
        // Levels closer than the rounding: the node cannot be cut any further.
        if (from <= node.start && to >= node.end) || middle <= node.start || middle >= node.end {
            sum.iter_mut().zip(&node.increment).for_each(|(sum, x)| *sum += x);
            return;
        }
        let (left, right) = self.halves(node, middle);
        self.add(&left, from.max(left.start), to.min(left.end), sum);
        self.add(&right, from.max(right.start), to.min(right.end), sum);
    }

    fn halves(&self, node: &Node, middle: f64) -> (Node, Node) {
        let (before, after, length) = (middle - node.start, node.end - middle, node.end - node.start);
        let share = (before / length) as f32;
        let deviation = (before * after / length).sqrt() as f32;
        let seed = SeedSequence::new(self.seed, &[node.key, node.depth]).seed();
        let drawn = normal(seed, self.size);
        let left: Vec<f32> = node.increment.iter().zip(drawn).map(|(whole, x)| whole * share + x * deviation).collect();
        let right = node.increment.iter().zip(&left).map(|(whole, left)| whole - left).collect();
        let half = |start, end, side: u64, increment| Node {
            start,
            end,
            key: 2 * node.key + side,
            depth: node.depth + 1,
            increment,
        };
        (half(node.start, middle, 0, left), half(middle, node.end, 1, right))
    }
}

fn normal(seed: u64, size: usize) -> Vec<f32> {
    let mut drawn = vec![0.0; size];
    Generator::new(seed).fill_normal(&mut drawn);
    drawn
}

/// To six decimals, as torchsde keeps its times. By way of the decimals, because a multiplication would round first: half-way
/// between two, the last bit of `t` decides.
fn rounded(t: f64) -> f64 {
    format!("{t:.6}").parse().unwrap_or(t)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of numpy.
    #[test]
    fn seeds_are_numpys() {
        let state = |entropy, key: &[u64]| SeedSequence::new(entropy, key).state::<4>();
        assert_eq!(state(42, &[]), [387_750_627, 2_536_650_517, 4_078_839_648, 2_023_786_165]);
        assert_eq!(state(42, &[1, 3]), [3_184_674_634, 90_956_186, 1_544_271_463, 1_082_392_491]);
        assert_eq!(state(0, &[0, 0]), [245_430_115, 3_436_620_678, 4_120_055_464, 1_627_243_804]);
    }

    /// Values of torchsde for a latent `[1, 4, 8, 8]`.
    #[test]
    fn the_path_is_torchsdes() {
        let path = Path::new(42, 256, 0.029_167, 14.614_643);
        let near = |found: Vec<f32>, expected: [f32; 4]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 2e-6, "{found} for {expected}");
            }
        };
        near(path.between(14.614_643, 7.0), [-0.816_069, 0.261_322_2, 0.675_911_4, 0.599_155_4]);
        near(path.between(7.0, 2.5), [-0.589_806_3, -0.365_929_1, -0.348_885_5, 0.090_457_2]);
    }

    #[test]
    fn parts_add_up() {
        let path = Path::new(7, 20, 0.03, 14.6);
        let (whole, upper, lower) = (path.between(10.0, 1.0), path.between(10.0, 4.0), path.between(4.0, 1.0));
        for ((whole, upper), lower) in whole.iter().zip(upper).zip(lower) {
            let sum = (upper * 6.0_f32.sqrt() + lower * 3.0_f32.sqrt()) / 3.0;
            assert!((whole - sum).abs() < 1e-5, "{whole} and {sum}");
        }
    }
}
