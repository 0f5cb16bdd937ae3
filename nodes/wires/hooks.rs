//! Changes of weights that go with prompts, and when they count.

use super::Conditioning;
use crate::error::Error;
use paraflow_diffusion::hooks::{Change, Hooks, Keyframes, Range};
use paraflow_diffusion::text::Encoders;
use paraflow_engine::Port;
use std::sync::{Arc, OnceLock};

/// Changes of weights that a prompt brings along.
#[derive(Clone, Debug, Default)]
pub struct WeightHooks(pub Hooks);

impl Port for WeightHooks {
    const KIND: &'static str = "HOOKS";

    fn bytes(&self) -> usize {
        let of = |change: &Change| match change {
            Change::Lora(lora) => lora.parameters() * size_of::<f32>(),
            // A mapped file.
            Change::Model { .. } => 0,
        };
        self.0.changes().map(|hook| of(&hook.change)).sum()
    }
}

/// How strong hooks are on the way from noise to picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HookKeyframes(pub Keyframes);

impl Port for HookKeyframes {
    const KIND: &'static str = "HOOK_KEYFRAMES";
}

/// A part of the way from noise to picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimestepsRange(pub Range);

impl Port for TimestepsRange {
    const KIND: &'static str = "TIMESTEPS_RANGE";
}

/// Numbers in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Floats(pub Vec<f64>);

impl Port for Floats {
    const KIND: &'static str = "FLOATS";
}

/// What hooks do to a text encoder.
#[derive(Clone, Default)]
pub struct ClipHooks {
    /// Changes of the encoder's weights.
    on_text: Hooks,
    /// Whether a prompt is encoded for each part of the way in which they are of another strength.
    scheduled: bool,
    /// What the prompts bring along for the model that reads them.
    on_prompts: Hooks,
    /// The encoders with the changes on them, once a prompt was encoded.
    made: Arc<OnceLock<Vec<(Range, Encoders)>>>,
}

impl ClipHooks {
    /// Other changes of the encoder. Prompts bring along what they brought before, unless `on_prompts` says these.
    #[must_use]
    pub fn set(&self, hooks: &Hooks, scheduled: bool, on_prompts: bool) -> Self {
        let on_prompts = if on_prompts { hooks } else { &self.on_prompts }.clone();
        Self { on_text: hooks.clone(), scheduled, on_prompts, made: Arc::default() }
    }

    /// The same for another encoder.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self { made: Arc::default(), ..self.clone() }
    }

    /// The encoders for each part of the way.
    ///
    /// # Errors
    /// A change does not fit the encoder.
    pub(crate) fn encoders(&self, plain: &Encoders) -> Result<Vec<(Range, Encoders)>, Error> {
        if let Some(made) = self.made.get() {
            return Ok(made.clone());
        }
        let made = if self.scheduled {
            self.on_text.encoders_on_the_way(plain)?
        } else {
            vec![([0.0, 1.0], self.on_text.on_encoders(plain)?)]
        };
        Ok(self.made.get_or_init(|| made).clone())
    }

    /// A prompt with what it brings along.
    pub(crate) fn attach(&self, prompts: Conditioning) -> Conditioning {
        prompts.map(|condition| condition.hooks = condition.hooks.and(&self.on_prompts))
    }
}
