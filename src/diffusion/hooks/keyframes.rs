//! How strong a hook is on the way from noise to picture.

use crate::schedule::ModelSampling;

/// From when on a hook has which strength.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keyframe {
    /// What the hook's own strength is multiplied by.
    pub strength: f64,
    /// From this share of the way on, 0 to 1.
    pub start: f64,
    /// For how many noise levels it stays at least, once it is reached. Not where sampling begins below its start.
    pub levels: usize,
}

/// A hook's keyframes in the order of their starts; of equal ones, in the order in which they came. Without any, a hook is as
/// strong as it says all the way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keyframes(Vec<Keyframe>);

/// A part of the way, from and to which share of it.
pub type Range = [f64; 2];

impl Keyframes {
    /// The same with one more.
    #[must_use]
    pub fn with(&self, keyframe: Keyframe) -> Self {
        let after = self.0.partition_point(|other| other.start <= keyframe.start);
        let mut frames = self.0.clone();
        frames.insert(after, keyframe);
        Self(frames)
    }

    /// Each of them.
    #[must_use]
    pub fn frames(&self) -> &[Keyframe] {
        &self.0
    }

    /// The strength at a position; 1 without keyframes.
    pub(super) fn strength(&self, position: &Position) -> f64 {
        self.0.get(position.index).map_or(1.0, |frame| frame.strength)
    }

    /// The parts of the way with a strength of their own. Neighbours of one strength are one part.
    pub(super) fn ranges(&self) -> Vec<(Range, f64)> {
        let Some((first, _)) = self.0.split_first() else { return vec![([0.0, 1.0], 1.0)] };
        let mut ranges = Vec::new();
        let mut before = first;
        for frame in &self.0 {
            if frame.start > before.start && !is_close(frame.strength, before.strength) {
                ranges.push(([before.start, frame.start], before.strength));
                before = frame;
            } else if frame.start == before.start {
                before = frame;
            }
        }
        if !is_close(before.start, 1.0) {
            ranges.push(([before.start, 1.0], before.strength));
        }
        ranges
    }
}

/// Equal but for rounding, as Python's `math.isclose`.
fn is_close(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.abs().max(other.abs())
}

/// Where a sampling is among keyframes.
#[derive(Clone, Debug, Default)]
pub(super) struct Position {
    index: usize,
    /// Noise levels since it is there.
    stayed: usize,
    sigma: Option<f32>,
}

impl Position {
    /// Goes on to a noise level. Keyframes are passed over as far as their starts lie behind it, but none before it had its
    /// levels. `highest` is the level that the sampling began at.
    pub(super) fn reach(&mut self, keyframes: &Keyframes, sigma: f32, highest: f32, sampling: &ModelSampling) {
        if keyframes.0.is_empty() || self.sigma == Some(sigma) {
            return;
        }
        let start = |index: usize| sampling.percent_to_sigma(keyframes.0[index].start);
        let levels = |index: usize| if start(index) > highest { 0 } else { keyframes.0[index].levels };
        if self.stayed >= levels(self.index) {
            for next in self.index + 1..keyframes.0.len() {
                if start(next) < sigma {
                    break;
                }
                (self.index, self.stayed) = (next, 0);
                if levels(next) > 0 {
                    break;
                }
            }
        }
        self.stayed += 1;
        self.sigma = Some(sigma);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Prediction;

    fn frame(strength: f64, start: f64, levels: usize) -> Keyframe {
        Keyframe { strength, start, levels }
    }

    fn of(frames: &[Keyframe]) -> Keyframes {
        frames.iter().fold(Keyframes::default(), |keyframes, frame| keyframes.with(*frame))
    }

    /// The strengths at levels of a sampling that begins at the first of them.
    fn strengths(keyframes: &Keyframes, sigmas: &[f32]) -> Vec<f64> {
        let sampling = ModelSampling::stable_diffusion(Prediction::Epsilon);
        let mut position = Position::default();
        let mut reach = |sigma: &f32| {
            position.reach(keyframes, *sigma, sigmas[0], &sampling);
            keyframes.strength(&position)
        };
        sigmas.iter().map(&mut reach).collect()
    }

    #[test]
    fn keyframes_are_in_the_order_of_their_starts() {
        let keyframes = of(&[frame(3.0, 0.5, 1), frame(1.0, 0.0, 1), frame(4.0, 0.5, 1), frame(2.0, 0.2, 1)]);
        let strengths: Vec<f64> = keyframes.frames().iter().map(|frame| frame.strength).collect();
        assert_eq!(strengths, [1.0, 2.0, 3.0, 4.0]);
    }

    /// Half of the way is a level of 1.6156, a fifth 5.0924.
    #[test]
    fn a_keyframe_begins_at_its_level() {
        let keyframes = of(&[frame(1.0, 0.0, 1), frame(0.5, 0.5, 1)]);
        assert_eq!(strengths(&keyframes, &[14.6, 4.0, 1.6, 0.7]), [1.0, 1.0, 0.5, 0.5]);
        assert_eq!(strengths(&Keyframes::default(), &[14.6, 4.0]), [1.0, 1.0]);
        // The first counts before its start, too.
        assert_eq!(strengths(&of(&[frame(0.25, 0.5, 1)]), &[14.6, 1.0]), [0.25, 0.25]);
    }

    #[test]
    fn a_keyframe_has_its_levels_before_the_next() {
        let keyframes = of(&[frame(1.0, 0.0, 1), frame(2.0, 0.2, 2), frame(3.0, 0.25, 1)]);
        assert_eq!(strengths(&keyframes, &[14.6, 3.0, 2.9, 2.8, 1.0]), [1.0, 2.0, 2.0, 3.0, 3.0]);
        // A sampling that begins below a start does not wait for it.
        assert_eq!(strengths(&keyframes, &[3.0, 2.9, 2.8]), [3.0, 3.0, 3.0]);
        // A level that is asked about twice counts once.
        assert_eq!(strengths(&keyframes, &[14.6, 3.0, 3.0, 2.9, 2.8]), [1.0, 2.0, 2.0, 2.0, 3.0]);
    }

    #[test]
    fn parts_of_one_strength_are_one() {
        let keyframes = of(&[frame(1.0, 0.1, 1), frame(1.0, 0.2, 1), frame(0.5, 0.5, 1), frame(0.25, 0.5, 1)]);
        assert_eq!(keyframes.ranges(), [([0.1, 0.5], 1.0), ([0.5, 1.0], 0.25)]);
        assert_eq!(Keyframes::default().ranges(), [([0.0, 1.0], 1.0)]);
        assert_eq!(of(&[frame(2.0, 1.0, 1)]).ranges(), []);
    }
}
