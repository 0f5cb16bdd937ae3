//! Control networks beside the one that is guided: what they see of a picture, when they count and how much.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;

use crate::guidance::NoiseModel;
use crate::resize::{Method, crop_to_aspect, resize};
use crate::schedule::ModelSampling;
use crate::unet::{ControlLora, ControlNet, Controls, ImageAdapter};
use crate::{Error, Result};

/// Pixels of a side that one cell of a latent stands for.
const CELL: usize = 8;

/// A network that tells another what to add.
#[derive(Clone)]
pub enum ControlKind {
    /// A network of its own.
    Network(Box<ControlNet>),
    /// One that is made of the guided network.
    OfModel(ControlLora),
    /// One that sees nothing but the picture.
    Adapter(Box<ImageAdapter>),
}

/// What an adapter said of a picture at a size.
type Said = Arc<Mutex<Option<((usize, usize, usize), Controls)>>>;

/// A control network with the picture that it sees, and perhaps others before it, whose answers add up.
#[derive(Clone)]
pub struct Control {
    /// The network.
    pub network: ControlKind,
    /// Of which kind the picture is, for networks that were trained on several.
    pub kinds: Vec<usize>,
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
    /// What an adapter, which sees the same at every step, said of the picture.
    pub said: Said,
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
    /// The guided network.
    pub(super) network: &'a dyn NoiseModel,
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
        let mut controls = self.asked(shown)?;
        let all = controls.skips.iter_mut().chain([&mut controls.middle]).chain(&mut controls.down);
        for skip in all.flatten() {
            *skip = self.weighed(skip)?;
        }
        Ok(Some(match before {
            Some(before) => sum(before, controls)?,
            None => controls,
        }))
    }

    fn asked(&self, shown: &Shown<'_>) -> Result<Controls> {
        let ask = |network: &ControlNet| {
            let hint = self.hint(shown, 1)?;
            network.forward(shown.x, &hint, shown.timesteps, shown.context, shown.label, &self.kinds)
        };
        match &self.network {
            ControlKind::Network(network) => ask(network),
            ControlKind::OfModel(lora) => {
                let model = shown.network.unet().ok_or_else(|| Error::Shape {
                    layer: "control-LoRA".to_owned(),
                    expected: "a UNet, of which it is a part".to_owned(),
                    found: Vec::new(),
                })?;
                ask(&lora.of(model)?)
            }
            ControlKind::Adapter(adapter) => {
                let (batch, _, rows, columns) = shown.x.dims4()?;
                let size = (batch, rows, columns);
                let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, controls)) = said.as_ref().filter(|(of, _)| *of == size) {
                    return Ok(controls.clone());
                }
                let controls = adapter.forward(&self.hint(shown, adapter.multiple())?)?;
                *said = Some((size, controls.clone()));
                Ok(controls)
            }
        }
    }

    fn weighed(&self, answer: &Tensor) -> Result<Tensor> {
        let answer = if self.averaged {
            answer.mean_keepdim((1, 2))?.broadcast_as(answer.shape())?.contiguous()?
        } else {
            answer.clone()
        };
        Ok((answer * self.strength)?)
    }

    /// The picture at the size of what is shown, one for each of its latents; sides are rounded up to a multiple.
    fn hint(&self, shown: &Shown<'_>, multiple: usize) -> Result<Tensor> {
        let (batch, _, rows, columns) = shown.x.dims4()?;
        let (width, height) = ((columns * CELL).next_multiple_of(multiple), (rows * CELL).next_multiple_of(multiple));
        let cut = crop_to_aspect(&self.picture, width, height)?.contiguous()?;
        let hint = resize(&cut, width, height, Method::NearestExact)?.to_device(shown.x.device())?;
        let pictures = hint.dim(0)?;
        let share = batch / shown.groups.max(1);
        let places = (0..batch).map(|i| (i % share.max(1) % pictures) as u32).collect::<Vec<_>>();
        Ok(hint.index_select(&Tensor::new(places, hint.device())?, 0)?)
    }
}

/// The answers of two networks for the same places.
fn sum(before: Controls, controls: Controls) -> Result<Controls> {
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
    let lists = |mut one: Vec<Option<Tensor>>, mut other: Vec<Option<Tensor>>| -> Result<Vec<Option<Tensor>>> {
        let longest = one.len().max(other.len());
        one.resize(longest, None);
        other.resize(longest, None);
        one.into_iter().zip(other).map(|(one, other)| add(one, other)).collect()
    };
    Ok(Controls {
        skips: lists(before.skips, controls.skips)?,
        middle: add(before.middle, controls.middle)?,
        down: lists(before.down, controls.down)?,
    })
}
