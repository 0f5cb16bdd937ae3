//! torch's optimisers on plain lists of numbers, in its order of operations: each result is rounded as a tensor of the
//! parameters' type holds it.

use super::settings::Optimizer;

/// What an optimiser remembers of one tensor.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// How many steps it was moved.
    steps: i32,
    /// Running mean of the gradient.
    first: Vec<f32>,
    /// Running mean of its square.
    second: Vec<f32>,
}

impl Memory {
    /// Moves `numbers` by a step against `gradient`, and rounds with `round`.
    pub(super) fn step(
        &mut self,
        optimizer: Optimizer,
        numbers: &mut [f32],
        gradient: &[f32],
        rate: f64,
        round: fn(f32) -> f32,
    ) {
        self.steps += 1;
        match optimizer {
            Optimizer::AdamW => self.adam(numbers, gradient, rate, 0.01, round),
            Optimizer::Adam => self.adam(numbers, gradient, rate, 0.0, round),
            Optimizer::Sgd => {
                let pairs = numbers.iter_mut().zip(gradient);
                pairs.for_each(|(number, gradient)| *number = round(*number - rate as f32 * gradient));
            }
            Optimizer::RmsProp => self.root_mean_square(numbers, gradient, rate, round),
        }
    }

    /// Kingma and Ba 2015, arXiv:1412.6980; with weight decay Loshchilov and Hutter 2019, arXiv:1711.05101.
    fn adam(&mut self, numbers: &mut [f32], gradient: &[f32], rate: f64, decay: f64, round: fn(f32) -> f32) {
        const BETAS: [f64; 2] = [0.9, 0.999];
        const EPSILON: f32 = 1e-8;
        self.first.resize(numbers.len(), 0.0);
        self.second.resize(numbers.len(), 0.0);
        let [correction, of_square] = BETAS.map(|beta| 1.0 - beta.powi(self.steps));
        let (size, root) = ((rate / correction) as f32, of_square.sqrt() as f32);
        let (keep, take) = (BETAS[1] as f32, (1.0 - BETAS[1]) as f32);
        let (toward, shrink) = ((1.0 - BETAS[0]) as f32, (1.0 - rate * decay) as f32);
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((number, gradient), (first, second)) in numbers.iter_mut().zip(gradient).zip(moments) {
            if decay > 0.0 {
                *number = round(*number * shrink);
            }
            *first = round(*first + toward * (gradient - *first));
            *second = round(round(*second * keep) + take * gradient * gradient);
            let length = round(round(round(second.sqrt()) / root) + EPSILON);
            *number = round(*number - size * *first / length);
        }
    }

    /// Hinton's RMSprop, neither centred nor with momentum.
    fn root_mean_square(&mut self, numbers: &mut [f32], gradient: &[f32], rate: f64, round: fn(f32) -> f32) {
        const SMOOTHING: f64 = 0.99;
        const EPSILON: f32 = 1e-8;
        self.second.resize(numbers.len(), 0.0);
        let (keep, take) = (SMOOTHING as f32, (1.0 - SMOOTHING) as f32);
        for ((number, gradient), second) in numbers.iter_mut().zip(gradient).zip(&mut self.second) {
            *second = round(round(*second * keep) + take * gradient * gradient);
            let length = round(round(second.sqrt()) + EPSILON);
            *number = round(*number - rate as f32 * gradient / length);
        }
    }
}
