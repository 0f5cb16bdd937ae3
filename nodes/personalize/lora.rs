//! LoRA files: ComfyUI's nodes.

use super::apply::put;
use super::para::{Loras, open, peft_config};
use super::wires::Lora;
use super::{Strictness, origin, save};
use crate::error::{Error, tell};
use crate::files::{FilenamePrefix, ModelName};
use crate::wires::{Clip, Model};
use paraflow_diffusion::adapters::{LoraModel, table};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared, Sink};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<LoraLoader>(),
        NodeDef::of::<LoraLoaderModelOnly>(),
        NodeDef::of::<LoraModelLoader>(),
        NodeDef::of::<SaveLoRA>(),
    ]
}

/// Loads a LoRA and puts it on a model and its text encoder. LoHa, LoKr and DoRA do, too.
///
/// What fits no layer is told and left out; a file of which nothing fits is an error.
#[derive(Node)]
#[node(category = "loaders", display_name = "Load LoRA")]
struct LoraLoader {
    /// The diffusion model the LoRA will be applied to.
    model: Shared<Model>,
    /// The CLIP model the LoRA will be applied to.
    clip: Shared<Clip>,
    /// The LoRA, from `models/loras`.
    lora_name: ModelName<Loras>,
    /// How much of it the model gets. It can be negative.
    #[input(default = 1.0, range = -100.0..=100.0, step = 0.01)]
    strength_model: f64,
    /// How much of it the text encoder gets. It can be negative.
    #[input(default = 1.0, range = -100.0..=100.0, step = 0.01)]
    strength_clip: f64,
}

impl Run for LoraLoader {
    type Output = (Model, Clip);

    fn run(self, cx: &Context<'_>) -> Result<(Model, Clip)> {
        let strengths = [self.strength_model, self.strength_clip];
        if strengths == [0.0, 0.0] {
            return Ok((Model::clone(&self.model), Clip::clone(&self.clip)));
        }
        let lora = load_lora(&self.lora_name, cx).map_err(tell)?;
        put(&self.model, Some(&self.clip), &lora, strengths, Strictness::Ignore, cx).map_err(tell)
    }
}

/// Loads a LoRA and puts it on a model, without a text encoder.
#[derive(Node)]
#[node(category = "loaders", display_name = "LoraLoaderModelOnly")]
struct LoraLoaderModelOnly {
    /// The model to change.
    model: Shared<Model>,
    /// The LoRA, from `models/loras`.
    lora_name: ModelName<Loras>,
    /// How much of it the model gets. It can be negative.
    #[input(default = 1.0, range = -100.0..=100.0, step = 0.01)]
    strength_model: f64,
}

impl Run for LoraLoaderModelOnly {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        if self.strength_model == 0.0 {
            return Ok(Model::clone(&self.model));
        }
        let lora = load_lora(&self.lora_name, cx).map_err(tell)?;
        put(&self.model, None, &lora, [self.strength_model, 0.0], Strictness::Ignore, cx)
            .map(|(model, _)| model)
            .map_err(tell)
    }
}

/// A LoRA's file, with a word about what is none of it.
pub(crate) fn load_lora(name: &ModelName<Loras>, cx: &Context<'_>) -> Result<Lora, Error> {
    let place = name.find(cx.services())?;
    let file = open(&place)?;
    let (lora, unknown) = match peft_config(&place)? {
        Some(settings) => LoraModel::read_peft(&file, &settings)?,
        None => LoraModel::read(&file)?,
    };
    if !unknown.is_empty() {
        cx.warn(format!("{} tensors were not used:\n{}", unknown.len(), table(&unknown)));
    }
    Ok(Lora(lora))
}

/// Puts a LoRA that was just made on a model.
#[derive(Node)]
#[node(category = "loaders", display_name = "Load LoRA Model", outputs = ["model"], experimental)]
struct LoraModelLoader {
    /// The diffusion model the LoRA will be applied to.
    model: Shared<Model>,
    /// The LoRA model to apply to the diffusion model.
    lora: Shared<Lora>,
    /// How much of it the model gets. It can be negative.
    #[input(default = 1.0, range = -100.0..=100.0, step = 0.5)]
    strength_model: f64,
}

impl Run for LoraModelLoader {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        if self.strength_model == 0.0 {
            return Ok(Model::clone(&self.model));
        }
        put(&self.model, None, &self.lora, [self.strength_model, 0.0], Strictness::Ignore, cx)
            .map(|(model, _)| model)
            .map_err(tell)
    }
}

/// Saves a LoRA in the form that every program reads.
#[derive(Node)]
#[node(category = "loaders", display_name = "Save LoRA Weights", sink, experimental)]
struct SaveLoRA {
    /// The LoRA to save.
    lora: Shared<Lora>,
    /// What the file's name begins with; `a/b` saves into folder `a`.
    #[input(default = "loras/ComfyUI_trained_lora")]
    prefix: FilenamePrefix,
    /// How many steps it was trained, which becomes part of the name.
    steps: Option<i64>,
}

impl Run for SaveLoRA {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let mut lora = self.lora.0.clone();
        lora.metadata.extend(origin(cx));
        let prefix = match self.steps {
            Some(steps) => format!("{}_{steps}_steps", &*self.prefix),
            None => self.prefix.to_owned(),
        };
        save(cx, &prefix, &lora.to_file(None, lora.store).map_err(tell)?).map_err(tell)
    }
}
