//! Control networks beside the one that is guided: what they see of a picture, when they count and how much.

use std::sync::Arc;

use candle_core::Tensor;

use crate::resize::{Method, crop_to_aspect, resize};
use crate::schedule::ModelSampling;
use crate::unet::{ControlNet, Controls};
use crate::{Error, Result};

/// Pixels of a side that one cell of a latent stands for.
const CELL: usize = 8;

/// A control network with the picture that it sees, and perhaps others before it, whose answers add up.
#[derive(Clone)]
pub struct Control {
    /// The network.
    pub network: ControlNet,
    /// The picture, `[1 or batch, 3, height, width]`, f32, 0 to 1, of any height and width.
    pub picture: Tensor,
    /// What the network's answer is multiplied by.
    pub strength: f64,
    /// Whether each channel of the answer is its mean over the picture.
    pub averaged: bool,
    /// From this share of the way on, 0 to 1.
    pub start: f64,
    /// Up to this share of the way, 0 to 1.
    pub end: f64,
    /// The control that was there before.
    pub before: Option<Arc<Control>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { picture, strength, start, end, before, .. } = self;
        f.debug_struct("Control")
            .field("picture", &picture.dims())
            .field("strength", strength)
            .field("start", start)
            .field("end", end)
            .field("before", before)
            .finish_non_exhaustive()
    }
}

/// What the guided network is shown, and its control networks with it.
pub(super) struct Shown<'a> {
    /// Scaled to what the network expects.
    pub(super) x: &'a Tensor,
    pub(super) timesteps: &'a Tensor,
    pub(super) context: &'a Tensor,
    pub(super) label: Option<&'a Tensor>,
    pub(super) sampling: &'a ModelSampling,
    pub(super) sigma: f32,
    /// How many prompts share the call.
    pub(super) groups: usize,
}

impl Control {
    /// What the networks add; `None` at a level where none of them counts.
    pub(super) fn controls(&self, shown: &Shown<'_>) -> Result<Option<Controls>> {
        let before = match &self.before {
            Some(before) => before.controls(shown)?,
            None => None,
        };
        let level = |share: f64| shown.sampling.percent_to_sigma(share);
        if shown.sigma > level(self.start) || shown.sigma < level(self.end) {
            return Ok(before);
        }
        let (x, hint) = (shown.x, self.hint(shown)?);
        let mut controls = self.network.forward(x, &hint, shown.timesteps, shown.context, shown.label)?;
        for skip in controls.skips.iter_mut().chain([&mut controls.middle]).flatten() {
            *skip = self.weighed(skip)?;
        }
        Ok(Some(match before {
            Some(before) => sum(before, controls)?,
            None => controls,
        }))
    }

    fn weighed(&self, answer: &Tensor) -> Result<Tensor> {
        let answer = if self.averaged {
            answer.mean_keepdim((1, 2))?.broadcast_as(answer.shape())?.contiguous()?
        } else {
            answer.clone()
        };
        Ok((answer * self.strength)?)
    }

    /// The picture at the size of what is shown, one for each of its latents.
    fn hint(&self, shown: &Shown<'_>) -> Result<Tensor> {
        let (batch, _, rows, columns) = shown.x.dims4()?;
        let (width, height) = (columns * CELL, rows * CELL);
        let cut = crop_to_aspect(&self.picture, width, height)?.contiguous()?;
        let hint = resize(&cut, width, height, Method::NearestExact)?.to_device(shown.x.device())?;
        let pictures = hint.dim(0)?;
        let share = batch / shown.groups.max(1);
        let places = (0..batch).map(|i| (i % share.max(1) % pictures) as u32).collect::<Vec<_>>();
        Ok(hint.index_select(&Tensor::new(places, hint.device())?, 0)?)
    }
}

/// The answers of two networks for the same places.
fn sum(before: Controls, mut controls: Controls) -> Result<Controls> {
    let add = |one: Option<Tensor>, other: Option<Tensor>| -> Result<Option<Tensor>> {
        match (one, other) {
            (Some(one), Some(other)) if one.dims() == other.dims() => Ok(Some((one + other)?)),
            (Some(one), Some(other)) => Err(Error::Shape {
                layer: "control networks one after another".to_owned(),
                expected: format!("answers {:?}", one.dims()),
                found: other.dims().to_vec(),
            }),
            (one, other) => Ok(one.or(other)),
        }
    };
    let longest = before.skips.len().max(controls.skips.len());
    controls.skips.resize(longest, None);
    let mut skips = before.skips;
    skips.resize(longest, None);
    let skips = skips.into_iter().zip(controls.skips).map(|(one, other)| add(one, other)).collect::<Result<_>>()?;
    Ok(Controls { skips, middle: add(before.middle, controls.middle)?, down: controls.down })
}
