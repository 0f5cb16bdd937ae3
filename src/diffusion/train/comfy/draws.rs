//! Draws from torch's stream that only training makes, in torch 2's order.

use crate::noise::Generator;

/// `torch.multinomial(weights, 1)`: the index of the greatest of the weights, each over an exponential number.
pub(super) fn one_of(generator: &mut Generator, weights: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, weight) in weights.iter().enumerate() {
        let exponential = -(-generator.uniform_f64()).ln_1p();
        let score = weight / exponential as f32;
        if score > best.1 {
            best = (index, score);
        }
    }
    best.0
}

/// `torch.nn.init.kaiming_uniform_` with a slope of √5: uniform within `±1 / √columns`, of `[rows, columns]`.
pub(super) fn kaiming(generator: &mut Generator, rows: usize, columns: usize) -> Vec<f32> {
    let bound = kaiming_bound(columns);
    (0..rows * columns).map(|_| generator.uniform() * (2.0 * bound) - bound).collect()
}

/// In torch's order of operations, in double precision until it is used.
fn kaiming_bound(columns: usize) -> f32 {
    let gain = (2.0_f64 / (1.0 + 5.0_f64.sqrt().powi(2))).sqrt();
    (3.0_f64.sqrt() * (gain / (columns as f64).sqrt())) as f32
}

/// `torch.nn.init.normal_` with a mean and deviation 1.
pub(super) fn normal(generator: &mut Generator, count: usize, mean: f32) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    generator.fill_normal(&mut numbers);
    numbers.iter_mut().for_each(|x| *x += mean);
    numbers
}

/// Passes over the start of a `torch.nn.Linear` of so many numbers, which is drawn and overwritten.
pub(super) fn skip(generator: &mut Generator, count: usize) {
    for _ in 0..count {
        generator.next_u32();
    }
}

/// A side of a weight as two factors, the smaller first: the largest that is no larger than `near` where it divides evenly
/// and its square is no larger than the side, else the most even pair whose smaller is no larger than `near`.
pub(super) fn factors(side: usize, near: usize) -> (usize, usize) {
    if side.is_multiple_of(near) && side >= near * near {
        let other = side / near;
        return (near.min(other), near.max(other));
    }
    let mut divisors = (1..=near.min(side)).filter(|small| side.is_multiple_of(*small) && small * small <= side);
    let small = divisors.next_back().unwrap_or(1);
    (small, side / small)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.manual_seed(3)`, torch 2.15: `randperm(7)`, then ten times `multinomial([3, 1, 2], 1)` after the same seed.
    #[test]
    fn orders_and_choices_are_torch_s() {
        assert_eq!(Generator::new(3).permutation(7), ORDER);
        let mut generator = Generator::new(3);
        let chosen: Vec<usize> = (0..10).map(|_| one_of(&mut generator, &[3.0, 1.0, 2.0])).collect();
        assert_eq!(chosen, [0, 0, 0, 1, 0, 0, 1, 1, 1, 0]);
    }

    const ORDER: [usize; 7] = [5, 3, 4, 6, 0, 2, 1];

    #[test]
    fn sides_are_taken_apart_as_in_comfyui() {
        for (side, near, expected) in [
            (127, 8, (1, 127)),
            (128, 2, (2, 64)),
            (128, 16, (8, 16)),
            (250, 4, (2, 125)),
            (250, 8, (5, 50)),
            (360, 16, (15, 24)),
            (512, 16, (16, 32)),
            (1024, 8, (8, 128)),
            (4, 8, (2, 2)),
            (320, 128, (16, 20)),
        ] {
            assert_eq!(factors(side, near), expected, "{side} near {near}");
        }
    }
}
