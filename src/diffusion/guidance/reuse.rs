//! Evaluations that are left out while a latent changes little: what was added the last time is added again.
//!
//! Zhou et al. 2025, arXiv:2507.02860 (EasyCache), as ComfyUI has it, and its coarser kind that watches all of guidance.

use candle_core::Tensor;

use crate::Result;
use crate::schedule::ModelSampling;

/// Every so manieth row and column is looked at.
const SPARSE: usize = 8;

/// When evaluations are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reuse {
    /// How much the answer may have changed since the last evaluation, in parts of its size, as far as can be told.
    pub threshold: f64,
    /// From this share of the way on, 0 to 1.
    pub start: f64,
    /// Up to this share of the way, 0 to 1.
    pub end: f64,
    /// Whether all of guidance is left out, not the network's evaluations alone.
    pub whole: bool,
}

/// How the answer changes with what it is asked about.
struct Course {
    threshold: f32,
    first_sigma: f32,
    last_sigma: f32,
    /// How much more the answer changed than the question, the last time that both were known.
    rate: Option<f32>,
    /// How much the answer changed since the last evaluation.
    sum: f32,
    /// Question and answer at the last evaluation, sparsely.
    last: Option<[Tensor; 2]>,
    /// Mean size of the numbers of that answer.
    size: f32,
}

impl Course {
    fn new(reuse: Reuse, sampling: &ModelSampling) -> Self {
        Self {
            threshold: reuse.threshold as f32,
            first_sigma: sampling.percent_to_sigma(reuse.start),
            last_sigma: sampling.percent_to_sigma(reuse.end),
            rate: None,
            sum: 0.0,
            last: None,
            size: 0.0,
        }
    }

    fn is_over(&self, sigma: f32) -> bool {
        sigma <= self.last_sigma
    }

    fn has_begun(&self, sigma: f32) -> bool {
        sigma <= self.first_sigma
    }

    /// How much the question changed, if that is known, and whether the last answer will do.
    fn near(&mut self, question: &Tensor) -> Result<(Option<f32>, bool)> {
        let Some([last, _]) = &self.last else { return Ok((None, false)) };
        let change = distance(question, last)?;
        if let Some(rate) = self.rate {
            self.sum += rate * change / self.size;
            if self.sum < self.threshold {
                return Ok((Some(change), true));
            }
            self.sum = 0.0;
        }
        Ok((Some(change), false))
    }

    /// Remembers an evaluation: `size` is the mean size of all numbers of the answer.
    fn learn(&mut self, change: Option<f32>, question: Tensor, answer: Tensor, size: f32) -> Result<()> {
        if let (Some(change), Some([_, last])) = (change, &self.last) {
            self.rate = Some(distance(&answer, last)? / change);
        }
        (self.last, self.size) = (Some([question, answer]), size);
        Ok(())
    }

    /// As it was at first, but for the rate, as ComfyUI has it.
    fn forget(&mut self) {
        (self.rate, self.sum, self.last) = (Some(0.0), 0.0, None);
    }
}

/// What the network answered: of each prompt how it differed from the question.
pub(super) struct Answers {
    course: Course,
    /// The prompt whose answers are watched.
    watched: Option<usize>,
    /// The rest of this step goes without the network.
    skips: bool,
    /// By prompt.
    differences: Vec<(usize, Tensor)>,
    /// What a question looks like, but for the batch.
    shape: Option<Vec<usize>>,
}

impl Answers {
    pub(super) fn new(reuse: Reuse, sampling: &ModelSampling) -> Self {
        let course = Course::new(reuse, sampling);
        Self { course, watched: None, skips: false, differences: Vec::new(), shape: None }
    }

    /// A new step begins.
    pub(super) fn begin(&mut self) {
        self.skips = false;
    }

    /// What the network answers to `x`, or would about answer. `prompts` tells whose parts of the batch follow one another.
    pub(super) fn around(
        &mut self,
        x: &Tensor,
        prompts: &[usize],
        sigma: f32,
        evaluate: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        if self.course.is_over(sigma) {
            return evaluate();
        }
        let mut change = None;
        if self.course.has_begun(sigma) {
            let shape = x.dims()[1..].to_vec();
            if self.shape.as_ref().is_some_and(|last| *last != shape) {
                self.course.forget();
                (self.watched, self.differences) = (None, Vec::new());
            }
            self.shape = Some(shape);
            if self.skips && self.knows(prompts) {
                return self.again(x, prompts);
            }
            if self.watched.is_none() {
                self.watched = prompts.first().copied();
            }
            if let Some(part) = self.part(x, prompts)? {
                let (found, near) = self.course.near(&part)?;
                change = found;
                if near && self.knows(prompts) {
                    self.skips = true;
                    return self.again(x, prompts);
                }
            }
        }
        let output = evaluate()?;
        for (prompt, difference) in prompts.iter().zip((&output - x)?.chunk(prompts.len(), 0)?) {
            self.differences.retain(|(other, _)| other != prompt);
            self.differences.push((*prompt, difference));
        }
        if let (Some(question), Some(answer)) = (self.part(x, prompts)?, self.part(&output, prompts)?) {
            let size = output.abs()?.mean_all()?.to_scalar()?;
            self.course.learn(change, question, answer, size)?;
        }
        Ok(output)
    }

    fn knows(&self, prompts: &[usize]) -> bool {
        prompts.iter().all(|prompt| self.differences.iter().any(|(known, _)| known == prompt))
    }

    fn again(&self, x: &Tensor, prompts: &[usize]) -> Result<Tensor> {
        let of = |prompt: &usize| self.differences.iter().find(|(known, _)| known == prompt).map(|(_, it)| it);
        let differences: Vec<_> = prompts.iter().filter_map(of).collect();
        Ok((x + Tensor::cat(&differences, 0)?)?)
    }

    /// The part of the prompt that is watched, sparsely; nothing where it is not among these.
    fn part(&self, x: &Tensor, prompts: &[usize]) -> Result<Option<Tensor>> {
        let Some(index) = prompts.iter().position(|prompt| Some(*prompt) == self.watched) else { return Ok(None) };
        let batch = x.dim(0)? / prompts.len();
        sparse(&x.narrow(0, index * batch, batch)?).map(Some)
    }
}

/// What guidance answered.
pub(super) struct Whole {
    course: Course,
    change: Option<f32>,
    difference: Option<Tensor>,
    /// The answer to negative prompts, for samplers that want it.
    negative: Option<Tensor>,
}

impl Whole {
    pub(super) fn new(reuse: Reuse, sampling: &ModelSampling) -> Self {
        Self { course: Course::new(reuse, sampling), change: None, difference: None, negative: None }
    }

    /// What guidance would about answer to `x`, if that will do.
    pub(super) fn again(&mut self, x: &Tensor, sigma: f32) -> Result<Option<[Tensor; 2]>> {
        self.change = None;
        if self.course.is_over(sigma) || !self.course.has_begun(sigma) {
            return Ok(None);
        }
        let (change, near) = self.course.near(&sparse(x)?)?;
        self.change = change;
        match (near, &self.difference, &self.negative) {
            (true, Some(difference), Some(negative)) => Ok(Some([(x + difference)?, negative.clone()])),
            _ => Ok(None),
        }
    }

    pub(super) fn keep(&mut self, x: &Tensor, sigma: f32, [guided, negative]: &[Tensor; 2]) -> Result<()> {
        if self.course.is_over(sigma) {
            return Ok(());
        }
        (self.difference, self.negative) = (Some((guided - x)?), Some(negative.clone()));
        self.course.learn(self.change, sparse(x)?, sparse(guided)?, guided.abs()?.mean_all()?.to_scalar()?)
    }
}

/// Every so manieth row and column.
fn sparse(x: &Tensor) -> Result<Tensor> {
    let (_, _, rows, columns) = x.dims4()?;
    let places = |size: usize| Tensor::from_iter((0..size as u32).step_by(SPARSE), x.device());
    Ok(x.contiguous()?.index_select(&places(rows)?, 2)?.index_select(&places(columns)?, 3)?)
}

/// The mean distance of the numbers.
fn distance(a: &Tensor, b: &Tensor) -> Result<f32> {
    Ok((a - b)?.abs()?.mean_all()?.to_scalar()?)
}
