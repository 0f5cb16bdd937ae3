//! Random numbers that follow from the seed and a counter, so that any step can be drawn again by itself.

use crate::noise::Generator;

/// What the numbers are for. Streams have nothing to do with each other.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    /// The order of pictures in a round.
    Order = 1,
    /// Noise levels.
    Timestep = 2,
    /// Noise.
    Noise = 3,
    /// The mean of the noise.
    Offset = 4,
    /// Which captions are left out.
    Caption = 5,
    /// What is trained, at the start.
    Start = 6,
    /// The noise of the validation loss.
    Validation = 7,
    /// The order of class pictures.
    ClassOrder = 8,
}

/// The generator of one counter of a stream.
pub(super) fn generator(seed: u64, stream: Stream, counter: usize) -> Generator {
    Generator::new(mix(mix(mix(seed) ^ stream as u64) ^ counter as u64))
}

/// The finaliser of Steele et al. 2014, "Fast splittable pseudorandom number generators".
fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The `index`-th of an endless row of rounds through `count` things, each round in an order of its own.
pub(super) fn in_rounds(seed: u64, stream: Stream, index: usize, count: usize) -> usize {
    let mut order: Vec<usize> = (0..count).collect();
    let mut generator = generator(seed, stream, index / count);
    // Fisher and Yates.
    for last in (1..count).rev() {
        order.swap(last, generator.below(last as u64 + 1) as usize);
    }
    order[index % count]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_shows_everything_once() {
        let mut rounds = Vec::new();
        for round in 0..20 {
            let order: Vec<usize> = (0..5).map(|i| in_rounds(3, Stream::Order, round * 5 + i, 5)).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
            rounds.push(order);
        }
        rounds.dedup();
        assert!(rounds.len() > 15, "orders repeat: {rounds:?}");
    }

    #[test]
    fn streams_and_counters_differ() {
        let first = |seed, stream, counter| generator(seed, stream, counter).next_u64();
        let mut seen: Vec<u64> = Vec::new();
        for seed in 0..4 {
            for counter in 0..4 {
                seen.extend(
                    [Stream::Noise, Stream::Timestep, Stream::Start].map(|stream| first(seed, stream, counter)),
                );
            }
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
        assert_eq!(first(1, Stream::Noise, 2), first(1, Stream::Noise, 2));
    }
}
