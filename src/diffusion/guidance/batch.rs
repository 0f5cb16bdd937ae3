//! Asking a network about several prompts in as few calls as it takes.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::Tensor;

use super::control::Shown;
use super::region::{Entry, Window};
use super::reuse::Answers;
use super::{Model, NoiseModel};
use crate::hooks::Hooked;
use crate::unet::{Grounded, Middle, Pass};
use crate::{Error, Result};

/// Prompts of two lengths are asked together where the shorter need not be repeated more often than this.
const REPEATS: usize = 4;
/// Stands in the sum of weights for a cell where no prompt counts.
const NO_WEIGHT: f64 = 1e-37;

/// What is kept from one evaluation to the next.
pub(super) struct Kept<'a> {
    /// What the network said, where steps are left out.
    pub(super) reused: &'a mut Option<Answers>,
    /// Networks with the hooks of prompts on them.
    pub(super) hooked: &'a mut Hooked,
}

/// The clean latent in `x` as each side's prompts see it: the mean of their answers, weighted cell by cell. 0 where none
/// counts.
pub(super) fn denoise(
    model: &Model<'_>,
    sides: &[&[Entry]],
    x: &Tensor,
    pass: &Pass<'_>,
    kept: &mut Kept<'_>,
) -> Result<Vec<Tensor>> {
    let mut waiting = questions(sides, x, pass.sigma)?;
    for question in &waiting {
        kept.hooked.reach(&question.entry.hooks, pass.sigma, model.sampling);
    }
    let mut sums = vec![x.zeros_like()?; sides.len()];
    let mut weights = vec![x.affine(0.0, NO_WEIGHT)?; sides.len()];
    let room = (model.batch_limit / x.dim(0)?.max(1)).max(1);
    while let Some(first) = waiting.first().cloned() {
        // The last comes first, as ComfyUI has it.
        let mut together = Vec::new();
        for i in (0..waiting.len()).rev() {
            if together.len() < room && waiting[i].goes_with(&first)? {
                together.push(waiting.remove(i));
            }
        }
        for (question, answer) in together.iter().zip(ask(model, &together, x, pass, kept)?) {
            let (side, window) = (question.side, question.window);
            let weighted = place(&(answer * &question.weight)?, window, x)?;
            sums[side] = (&sums[side] + weighted)?;
            weights[side] = (&weights[side] + place(&question.weight, window, x)?)?;
        }
    }
    sums.iter().zip(&weights).map(|(sum, weight)| Ok((sum / weight)?)).collect()
}

/// Every prompt that counts at a noise level. Those that fill in come last, with what the others of their side leave over.
fn questions<'a>(sides: &[&'a [Entry]], x: &Tensor, sigma: f32) -> Result<Vec<Question<'a>>> {
    let active = |fills_in: bool, side: usize| {
        let counts =
            move |entry: &&Entry| entry.fills_in == fills_in && sigma <= entry.first_sigma && sigma >= entry.last_sigma;
        let question = move |entry: &'a Entry| {
            let (window, weight) = entry.on(x)?;
            Ok(Question { side, entry, window, weight })
        };
        sides[side].iter().filter(counts).map(question)
    };
    let mut questions = (0..sides.len()).flat_map(|side| active(false, side)).collect::<Result<Vec<_>>>()?;
    for side in 0..sides.len() {
        let mut filling = active(true, side).peekable();
        if filling.peek().is_none() {
            continue;
        }
        let mut rest = x.ones_like()?;
        for other in questions.iter().filter(|question| question.side == side && !question.entry.fills_in) {
            rest = (rest - place(&other.weight, other.window, x)?)?;
        }
        let rest = rest.relu()?;
        if rest.max_all()?.to_scalar::<f32>()? == 0.0 {
            continue;
        }
        for question in filling {
            let question = question?;
            let weight = cut(&rest, question.window)?;
            questions.push(Question { weight, ..question });
        }
    }
    Ok(questions)
}

/// A prompt that the network is to be asked about.
#[derive(Clone)]
struct Question<'a> {
    /// Positive or negative.
    side: usize,
    entry: &'a Entry,
    /// The part of the latent that it is about; all of it if `None`.
    window: Option<Window>,
    /// How much each cell of its window counts, `[batch, channels, height, width]`.
    weight: Tensor,
}

impl Question<'_> {
    /// Whether both can be asked in one call: the same part of the latent, prompts of the same kind, and of lengths that
    /// repetition makes equal (a repeated prompt is attended to as much as a single one).
    fn goes_with(&self, other: &Self) -> Result<bool> {
        let size = |question: &Self| question.window.map(|window| (window.height, window.width));
        let (ours, theirs) = (self.entry, other.entry);
        let (_, tokens, width) = ours.context.dims3()?;
        let (_, other_tokens, other_width) = theirs.context.dims3()?;
        let label = |entry: &Entry| entry.label.as_ref().map(|label| label.dims().to_vec());
        let length = |context: &Option<Tensor>| context.as_ref().map(|context| context.dims().to_vec());
        let shortest = tokens.min(other_tokens).max(1);
        Ok(size(self) == size(other)
            && width == other_width
            && label(ours) == label(theirs)
            && ours.beside.is_some() == theirs.beside.is_some()
            && length(&ours.control_context) == length(&theirs.control_context)
            && ours.hooks.are(&theirs.hooks)
            && shared(&ours.control, &theirs.control)
            && shared(&ours.grounding, &theirs.grounding)
            && least_common_multiple(tokens, other_tokens) / shortest <= REPEATS)
    }
}

/// Whether both have the same or nothing.
fn shared<T>(ours: &Option<Arc<T>>, theirs: &Option<Arc<T>>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
        (None, None) => true,
        _ => false,
    }
}

/// One call of the network: what it sees in each question's part of `x`.
fn ask(
    model: &Model<'_>,
    questions: &[Question<'_>],
    x: &Tensor,
    pass: &Pass<'_>,
    kept: &mut Kept<'_>,
) -> Result<Vec<Tensor>> {
    let sigma = pass.sigma;
    let parts = questions.iter().map(|question| cut(x, question.window)).collect::<Result<Vec<_>>>()?;
    let tokens = questions.iter().map(|question| Ok(question.entry.context.dim(1)?)).collect::<Result<Vec<_>>>()?;
    let longest = tokens.iter().copied().fold(1, least_common_multiple);
    let contexts = questions.iter().zip(&tokens).map(|(question, tokens)| {
        let copies = vec![&question.entry.context; longest / (*tokens).max(1)];
        Ok(Tensor::cat(&copies, 1)?)
    });
    let labels: Vec<_> = questions.iter().filter_map(|question| question.entry.label.as_ref()).collect();
    let label = if labels.is_empty() { None } else { Some(Tensor::cat(&labels, 0)?) };

    let seen = Tensor::cat(&parts, 0)?;
    let timestep = model.sampling.timestep(sigma);
    let timesteps = Tensor::full(timestep, seen.dim(0)?, x.device())?;
    let mut scaled = model.sampling.scale_input(&seen, sigma)?;
    let context = Tensor::cat(&contexts.collect::<Result<Vec<_>>>()?, 0)?;
    let of_control: Vec<_> = questions.iter().filter_map(|question| question.entry.control_context.as_ref()).collect();
    let control_context = if of_control.is_empty() { context.clone() } else { Tensor::cat(&of_control, 0)? };
    let control = match questions.first().and_then(|question| question.entry.control.as_deref()) {
        Some(control) => control.controls(&Shown {
            network: model.network,
            x: &scaled,
            timesteps: &timesteps,
            context: &control_context,
            label: label.as_ref(),
            sampling: model.sampling,
            sigma,
            groups: questions.len(),
        })?,
        None => None,
    };
    let beside = questions.iter().filter_map(|question| question.entry.beside.as_ref().map(|b| (question, b)));
    let beside = beside.map(|(question, beside)| cut(beside, question.window)).collect::<Result<Vec<_>>>()?;
    if !beside.is_empty() {
        scaled = Tensor::cat(&[&scaled, &Tensor::cat(&beside, 0)?], 1)?;
    }
    let watched = RefCell::new(None);
    let middle = if let Middle::Watched(_) = pass.middle { Middle::Watched(&watched) } else { pass.middle };
    let grounding = questions.first().and_then(|question| question.entry.grounding.as_deref());
    let grounded = grounding.map(|grounding| Grounded::new(grounding, &scaled)).transpose()?;
    let pass_here =
        Pass { control: control.as_ref(), grounded: grounded.as_ref(), middle, groups: questions.len(), ..*pass };
    let network = network(model, questions, kept.hooked)?;
    let predict = || network.predict(&scaled, &timesteps, &context, label.as_ref(), &pass_here);
    let output = match kept.reused {
        Some(reused) => {
            let places: Vec<_> = questions.iter().map(|question| std::ptr::from_ref(question.entry).addr()).collect();
            reused.around(&scaled.narrow(1, 0, x.dim(1)?)?, &places, sigma, predict)?
        }
        None => predict()?,
    };
    // Of several negative prompts in one call, the first is watched; of several calls, the last.
    let negative = questions.iter().position(|question| question.side == 1);
    if let (Middle::Watched(seen), Some(negative), Some(looked_at)) = (pass.middle, negative, watched.into_inner()) {
        let batch = looked_at.dim(0)? / questions.len();
        *seen.borrow_mut() = Some(looked_at.narrow(0, negative * batch, batch)?);
    }
    let denoised = model.sampling.denoised(&seen, &output, sigma)?;
    Ok(denoised.chunk(questions.len(), 0)?)
}

/// The network that these prompts are asked with: the model's, with what their hooks change.
fn network<'a>(model: &Model<'a>, questions: &[Question<'_>], hooked: &'a mut Hooked) -> Result<&'a dyn NoiseModel> {
    let Some(hooks) = questions.first().map(|question| &question.entry.hooks).filter(|hooks| !hooks.is_empty()) else {
        return Ok(model.network);
    };
    let Some(unet) = model.network.unet() else {
        return Err(Error::Shape {
            layer: "hooks".to_owned(),
            expected: "a UNet, whose weights they change".to_owned(),
            found: Vec::new(),
        });
    };
    Ok(hooked.network(hooks, unet)?)
}

/// The part of a latent that a window shows.
fn cut(x: &Tensor, window: Option<Window>) -> Result<Tensor> {
    let Some(Window { height, width, y, x: left }) = window else { return Ok(x.clone()) };
    Ok(x.narrow(2, y, height)?.narrow(3, left, width)?.contiguous()?)
}

/// A part put back in its place, among zeros.
fn place(part: &Tensor, window: Option<Window>, like: &Tensor) -> Result<Tensor> {
    let Some(Window { height, width, y, x }) = window else { return Ok(part.clone()) };
    let (_, _, rows, columns) = like.dims4()?;
    let tall = part.pad_with_zeros(2, y, rows - y - height)?;
    Ok(tall.pad_with_zeros(3, x, columns - x - width)?)
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    a.checked_div(divisor).map_or(0, |a| a * b)
}
