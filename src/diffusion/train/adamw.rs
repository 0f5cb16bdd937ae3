//! AdamW on plain lists of numbers.

/// The memory of one trained tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moments {
    /// Running mean of the gradient.
    pub(super) first: Vec<f32>,
    /// Running mean of its square.
    pub(super) second: Vec<f32>,
}

/// One step's numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// From 1.
    pub(super) number: usize,
    pub(super) rate: f64,
    pub(super) betas: (f64, f64),
    pub(super) epsilon: f64,
    pub(super) weight_decay: f64,
}

impl Moments {
    pub(super) fn new(len: usize) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len] }
    }

    /// Moves `numbers` against `gradient`.
    ///
    /// Loshchilov and Hutter 2019, arXiv:1711.05101, in the order of operations of `torch.optim.AdamW`.
    pub(super) fn step(&mut self, numbers: &mut [f32], gradient: &[f32], step: Step) {
        let (beta1, beta2) = step.betas;
        let correction = |beta: f64| 1.0 - beta.powf(step.number as f64);
        let shrink = (1.0 - step.rate * step.weight_decay) as f32;
        let size = (step.rate / correction(beta1)) as f32;
        let root = correction(beta2).sqrt() as f32;
        let (keep1, take1) = (beta1 as f32, (1.0 - beta1) as f32);
        let (keep2, take2) = (beta2 as f32, (1.0 - beta2) as f32);
        let epsilon = step.epsilon as f32;
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((number, gradient), (first, second)) in numbers.iter_mut().zip(gradient).zip(moments) {
            *first = keep1 * *first + take1 * gradient;
            *second = keep2 * *second + take2 * gradient * gradient;
            *number = *number * shrink - size * *first / (second.sqrt() / root + epsilon);
        }
    }
}

/// Scales gradients so that all of them together are no longer than `longest`, and gives how long they were.
pub(super) fn clip(gradients: &mut [Vec<f32>], longest: f64) -> f64 {
    let squares = gradients.iter().flatten().map(|x| f64::from(*x) * f64::from(*x));
    let length = squares.sum::<f64>().sqrt();
    // torch's guard.
    let factor = longest / (length + 1e-6);
    if longest > 0.0 && factor < 1.0 {
        gradients.iter_mut().flatten().for_each(|x| *x = (f64::from(*x) * factor) as f32);
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_gradients_are_cut_and_short_ones_kept() {
        let mut gradients = vec![vec![3.0_f32], vec![4.0, 0.0]];
        assert_eq!(clip(&mut gradients, 0.0), 5.0);
        assert_eq!(clip(&mut gradients, 6.0), 5.0);
        assert_eq!(gradients, [vec![3.0], vec![4.0, 0.0]]);
        clip(&mut gradients, 1.0);
        assert!((gradients[0][0] - 0.6).abs() < 1e-6 && (gradients[1][0] - 0.8).abs() < 1e-6);
    }
}
