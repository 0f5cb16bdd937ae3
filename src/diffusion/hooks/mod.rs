//! Changes of weights that go with a prompt: what ComfyUI calls hooks.
//!
//! A prompt brings [`Hooks`] along, and a network is asked about it with their changes on its weights, about other prompts
//! without. How strong a change is may follow [`Keyframes`] on the way from noise to picture. Knows no folders.

mod keyframes;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use keyframes::{Keyframe, Keyframes, Range};

use crate::adapters::{LoraModel, Names, Part, Placement};
use crate::error::Result;
use crate::merge::toward;
use crate::schedule::ModelSampling;
use crate::text::{ClipText, Encoders};
use crate::unet::UNet;
use keyframes::Position;

/// What a hook does to weights.
pub enum Change {
    /// Puts a LoRA, or one of its kin, on them.
    Lora(LoraModel),
    /// Adds what another checkpoint's weights differ by.
    Model {
        /// Its network, if it has one.
        unet: Option<Box<UNet>>,
        /// Its text encoders, if it has any.
        encoders: Option<Encoders>,
    },
}

/// A change with its strengths.
pub struct WeightHook {
    /// What it is called where it is told of.
    pub name: String,
    /// The change.
    pub change: Change,
    /// How much of it the network that predicts gets.
    pub on_unet: f64,
    /// How much of it text encoders get.
    pub on_text: f64,
}

impl fmt::Debug for WeightHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeightHook({}, {}, {})", self.name, self.on_unet, self.on_text)
    }
}

impl WeightHook {
    /// A network with this on it, times a factor.
    ///
    /// # Errors
    /// What [`LoraModel::place`] says; a checkpoint of other shapes.
    fn on_unet(&self, unet: &UNet, factor: f64) -> Result<UNet> {
        let strength = self.on_unet * factor;
        match &self.change {
            _ if strength == 0.0 => Ok(unet.clone()),
            Change::Lora(lora) => lora.place(&Names::of(unet, None), |_| strength, None)?.attach(Part::Unet, unet),
            Change::Model { unet: Some(other), .. } => toward(unet, other, strength),
            Change::Model { unet: None, .. } => Ok(unet.clone()),
        }
    }

    /// Text encoders with this on them, times a factor.
    ///
    /// # Errors
    /// As [`on_unet`](Self::on_unet).
    fn on_encoders(&self, encoders: &Encoders, factor: f64) -> Result<Encoders> {
        let strength = self.on_text * factor;
        match &self.change {
            _ if strength == 0.0 => Ok(encoders.clone()),
            Change::Lora(lora) => {
                let placement = lora.place(&Names::of_text(encoders), |_| strength, None)?;
                encoders.map(|encoder| placement.attach(Part::of(encoder), encoder))
            }
            Change::Model { encoders: Some(others), .. } => encoders.map(|encoder: &ClipText| {
                let other = others.part(encoder.family().id);
                other.map_or_else(|| Ok(encoder.clone()), |other| toward(encoder, other, strength))
            }),
            Change::Model { encoders: None, .. } => Ok(encoders.clone()),
        }
    }

    /// Whether it changes nothing of a network, though it was asked to: a LoRA of which no part fits.
    ///
    /// # Errors
    /// What [`LoraModel::place`] says.
    pub fn is_idle_on(&self, unet: &UNet) -> Result<bool> {
        match &self.change {
            Change::Lora(lora) if self.on_unet != 0.0 => {
                let Placement { placed, moved, .. } = lora.place(&Names::of(unet, None), |_| 1.0, None)?;
                Ok(placed.is_empty() && moved.is_empty())
            }
            _ => Ok(false),
        }
    }
}

/// A change of weights with the keyframes that it follows.
#[derive(Clone, Debug)]
struct Hook {
    weights: Arc<WeightHook>,
    keyframes: Arc<Keyframes>,
}

/// Changes of weights in the order in which they act, none of them twice. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Hooks(Arc<[Hook]>);

impl Hooks {
    /// One change, all the way.
    #[must_use]
    pub fn of(weights: WeightHook) -> Self {
        Self([Hook { weights: Arc::new(weights), keyframes: Arc::default() }].into())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each change.
    pub fn changes(&self) -> impl Iterator<Item = &WeightHook> {
        self.0.iter().map(|hook| &*hook.weights)
    }

    /// These, and after them those of the others that are not among them.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        let is_new = |other: &&Hook| !self.0.iter().any(|hook| Arc::ptr_eq(&hook.weights, &other.weights));
        Self(self.0.iter().chain(others.0.iter().filter(is_new)).cloned().collect())
    }

    /// The same changes, all of which follow these keyframes together.
    #[must_use]
    pub fn following(&self, keyframes: &Keyframes) -> Self {
        let keyframes = Arc::new(keyframes.clone());
        Self(self.0.iter().map(|hook| Hook { keyframes: keyframes.clone(), ..hook.clone() }).collect())
    }

    /// Whether both are the same changes with the same keyframes.
    #[must_use]
    pub fn are(&self, others: &Self) -> bool {
        let same = |(one, other): (&Hook, &Hook)| {
            Arc::ptr_eq(&one.weights, &other.weights) && Arc::ptr_eq(&one.keyframes, &other.keyframes)
        };
        self.0.len() == others.0.len() && self.0.iter().zip(others.0.iter()).all(same)
    }

    /// Text encoders with these on them at their strengths, whatever their keyframes.
    ///
    /// # Errors
    /// A change does not fit.
    pub fn on_encoders(&self, encoders: &Encoders) -> Result<Encoders> {
        self.with_factors(encoders, &vec![1.0; self.0.len()])
    }

    fn with_factors(&self, encoders: &Encoders, factors: &[f64]) -> Result<Encoders> {
        let mut hooks = self.0.iter().zip(factors);
        hooks.try_fold(encoders.clone(), |encoders, (hook, factor)| hook.weights.on_encoders(&encoders, *factor))
    }

    /// Text encoders for each part of the way in which the keyframes ask for other strengths.
    ///
    /// # Errors
    /// A change does not fit.
    pub fn encoders_on_the_way(&self, encoders: &Encoders) -> Result<Vec<(Range, Encoders)>> {
        let stages = self.stages().into_iter();
        stages.map(|(range, factors)| Ok((range, self.with_factors(encoders, &factors)?))).collect()
    }

    /// The parts of the way in which no keyframe changes anything, with the factor of each hook. A hook without a keyframe there
    /// has 1.
    fn stages(&self) -> Vec<(Range, Vec<f64>)> {
        let of_hooks: Vec<_> = self.0.iter().map(|hook| hook.keyframes.ranges()).collect();
        let mut bounds: Vec<f64> = of_hooks.iter().flatten().flat_map(|(range, _)| *range).chain([0.0]).collect();
        bounds.sort_by(f64::total_cmp);
        bounds.dedup();
        let stage = |bounds: &[f64]| {
            let [start, end] = [bounds[0], bounds[1]];
            let factor = |ranges: &Vec<(Range, f64)>| {
                let meets = |(range, _): &&(Range, f64)| range[0] < end && range[1] > start;
                ranges.iter().find(meets).map_or(1.0, |(_, factor)| *factor)
            };
            ([start, end], of_hooks.iter().map(factor).collect())
        };
        bounds.windows(2).map(stage).collect()
    }
}

/// What hooks make of a network during one sampling.
#[derive(Default)]
pub(crate) struct Hooked {
    /// The level that the sampling began at.
    highest: Option<f32>,
    /// By the address of the keyframes, which the prompts keep alive.
    positions: BTreeMap<usize, Position>,
    /// The last network of each set of hooks, with the factors of their strengths.
    networks: Vec<(Hooks, Vec<f64>, UNet)>,
}

impl Hooked {
    /// For a sampling that begins at this noise level.
    pub(crate) fn from(highest: f32) -> Self {
        Self { highest: Some(highest), ..Self::default() }
    }

    /// Lets the keyframes of hooks go on to a noise level.
    pub(crate) fn reach(&mut self, hooks: &Hooks, sigma: f32, sampling: &ModelSampling) {
        let highest = self.highest.unwrap_or(f32::INFINITY);
        for hook in hooks.0.iter() {
            let position = self.positions.entry(Arc::as_ptr(&hook.keyframes).addr()).or_default();
            position.reach(&hook.keyframes, sigma, highest, sampling);
        }
    }

    /// The network with hooks on it, as strong as their keyframes are now.
    ///
    /// # Errors
    /// A change does not fit.
    pub(crate) fn network(&mut self, hooks: &Hooks, base: &UNet) -> Result<&UNet> {
        let factor = |hook: &Hook| {
            let position = self.positions.get(&Arc::as_ptr(&hook.keyframes).addr());
            position.map_or(1.0, |position| hook.keyframes.strength(position))
        };
        let factors: Vec<f64> = hooks.0.iter().map(factor).collect();
        let known = self.networks.iter().position(|(of, ..)| of.are(hooks));
        let index = match known {
            Some(index) if self.networks[index].1 == factors => index,
            known => {
                let mut changes = hooks.0.iter().zip(&factors);
                let made =
                    changes.try_fold(base.clone(), |unet, (hook, factor)| hook.weights.on_unet(&unet, *factor))?;
                // The one before gives its memory back first.
                if let Some(index) = known {
                    self.networks.swap_remove(index);
                }
                self.networks.push((hooks.clone(), factors, made));
                self.networks.len() - 1
            }
        };
        Ok(&self.networks[index].2)
    }
}

#[cfg(test)]
mod tests;
