//! ComfyUI's trainer of LoRAs and their kin.

use super::existing_lora::LoraOrNone;
use crate::error::{Error, tell};
use crate::files::Place;
use crate::latent::CELL;
use crate::personalize::{Strictness, open, put};
use crate::wires::{Conditioning, Latent, Lora, LossMap, Model, Prompt};
use candle_core::Tensor;
use paraflow_diffusion::adapters::{LoraModel, Store, write};
use paraflow_diffusion::nn::Weights;
use paraflow_diffusion::train::{
    AdapterSettings, AdapterTraining, Algorithm, Latents, LossFunction, Optimizer, Prompted, TrainedAdapters,
    train_adapters,
};
use paraflow_engine::{Choice, Context, LossPoint, Node, NodeDef, Result, Run, Shared};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::str::FromStr;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<TrainLoraNode>()]
}

/// Trains a LoRA, or one of its kin, on latents and their prompts. Every layer of the model gets one, every bias and norm a
/// difference.
///
/// From the same start it goes the way that ComfyUI's goes. The start is drawn from the seed, where ComfyUI draws it from
/// whatever numbers come next in its process.
#[derive(Node)]
#[node(
    category = "training",
    display_name = "Train LoRA",
    input_is_list,
    compute,
    outputs = ["model", "lora", "loss_map", "steps"],
    experimental
)]
struct TrainLoraNode {
    /// The model to train the LoRA on.
    model: Vec<Shared<Model>>,
    /// The pictures to train on, as latents.
    latents: Vec<Shared<Latent>>,
    /// A prompt for each picture, or one for all.
    positive: Vec<Shared<Conditioning>>,
    /// How many pictures go into a batch.
    #[input(default = 1, range = 1..=10_000)]
    batch_size: Vec<u32>,
    /// How many batches make a step.
    #[input(default = 1, range = 1..=1024)]
    grad_accumulation_steps: Vec<u32>,
    /// How many steps to train.
    #[input(default = 16, range = 1..=100_000)]
    steps: Vec<u32>,
    /// How far each step goes.
    #[input(default = 0.0005, range = 0.000_000_1..=1.0, step = 0.000_000_1)]
    learning_rate: Vec<f64>,
    /// The rank of the trained matrices.
    #[input(default = 8, range = 1..=128)]
    rank: Vec<u32>,
    /// What moves the trained numbers.
    #[input(default = "AdamW", choices = ["AdamW", "Adam", "SGD", "RMSprop"])]
    optimizer: Vec<Choice<Optimizer>>,
    /// How the distance from the pictures is measured.
    #[input(default = "MSE", choices = ["MSE", "L1", "Huber", "SmoothL1"])]
    loss_function: Vec<Choice<LossFunction>>,
    /// Which start, noise and pictures.
    #[input(default = 0)]
    seed: Vec<u64>,
    /// The numbers that the model computes in.
    #[input(default = "bf16", choices = ["bf16", "fp32"])]
    training_dtype: Vec<Choice<Half>>,
    /// The numbers that are trained.
    #[input(default = "bf16", choices = ["bf16", "fp32"])]
    lora_dtype: Vec<Choice<Half>>,
    /// What is trained at each layer.
    #[input(default = "LoRA", choices = ["LoRA", "LoHa", "LoKr", "OFT"])]
    algorithm: Vec<Choice<Algorithm>>,
    /// Whether to compute twice what would not fit into memory.
    #[input(default = true)]
    gradient_checkpointing: Vec<bool>,
    /// A LoRA to go on with, of a file whose name tells its steps.
    #[input(default = "[None]")]
    existing_lora: Vec<LoraOrNone>,
    /// Whether the latents are sorted by size, as `ResolutionBucket` gives them.
    #[input(default = false)]
    bucket_mode: Vec<bool>,
}

/// Whether numbers are `bf16`; else they are `fp32`.
#[derive(Clone, Copy)]
struct Half(bool);

impl FromStr for Half {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "bf16" => Ok(Self(true)),
            "fp32" => Ok(Self(false)),
            _ => Err("neither bf16 nor fp32"),
        }
    }
}

impl Run for TrainLoraNode {
    type Output = (Model, Lora, LossMap, i64);

    fn run(self, cx: &Context<'_>) -> Result<Self::Output> {
        let model = first(&self.model, "`model`").map_err(tell)?;
        let settings = self.settings().map_err(tell)?;
        require_plain(model).map_err(tell)?;
        let existing = first(&self.existing_lora, "`existing_lora`").map_err(tell)?;
        let steps_before = existing.steps().map_err(tell)?;
        let file = match existing.find(cx.services()).map_err(tell)? {
            Some(place) => read(&place).map_err(tell)?,
            None => BTreeMap::new(),
        };
        let latents = self.latents().map_err(tell)?;
        let prompts = self.prompts(model, settings.seed).map_err(tell)?;
        let trained = train(model, &latents, &prompts, &file, &settings, cx)?;
        if !file.is_empty() && trained.continued == 0 {
            cx.warn("none of the tensors of `existing_lora` is for a layer under the name that this training gives it, so all begin anew");
        } else if file.keys().any(|key| key.ends_with(".diff") || key.ends_with(".diff_b")) {
            cx.warn("what `existing_lora` adds to biases and norms begins anew, as in ComfyUI");
        }
        let lora = lora(&trained, settings.half_adapters).map_err(tell)?;
        let (with, _) = put(model, None, &lora, [1.0, 0.0], Strictness::Ignore, cx).map_err(tell)?;
        Ok((with, lora, LossMap(trained.losses), settings.steps as i64 + steps_before))
    }
}

impl TrainLoraNode {
    fn settings(&self) -> Result<AdapterSettings, Error> {
        Ok(AdapterSettings {
            algorithm: **first(&self.algorithm, "`algorithm`")?,
            rank: *first(&self.rank, "`rank`")? as usize,
            optimizer: **first(&self.optimizer, "`optimizer`")?,
            loss: **first(&self.loss_function, "`loss_function`")?,
            rate: *first(&self.learning_rate, "`learning_rate`")?,
            batch: *first(&self.batch_size, "`batch_size`")? as usize,
            accumulate: *first(&self.grad_accumulation_steps, "`grad_accumulation_steps`")? as usize,
            steps: *first(&self.steps, "`steps`")? as usize,
            seed: *first(&self.seed, "`seed`")?,
            checkpointing: *first(&self.gradient_checkpointing, "`gradient_checkpointing`")?,
            half_network: first(&self.training_dtype, "`training_dtype`")?.0,
            half_adapters: first(&self.lora_dtype, "`lora_dtype`")?.0,
        })
    }

    /// The latents of all wires, as the training takes them.
    fn latents(&self) -> Result<Latents, Error> {
        let all: Vec<Tensor> = self.latents.iter().map(|latent| latent.samples().clone()).collect();
        if *first(&self.bucket_mode, "`bucket_mode`")? {
            return Ok(Latents::Buckets(all));
        }
        let alike = all.windows(2).all(|pair| pair[0].dims()[1..] == pair[1].dims()[1..]);
        if alike && !all.is_empty() {
            return Ok(Latents::Together(Tensor::cat(&all, 0)?));
        }
        let mut apart = Vec::new();
        for latents in &all {
            for entry in 0..latents.dim(0)? {
                apart.push(latents.narrow(0, entry, 1)?.contiguous()?);
            }
        }
        Ok(Latents::Apart(apart))
    }

    /// The prompts of all wires, as the model reads them for pictures of the first latent's size.
    fn prompts(&self, model: &Model, seed: u64) -> Result<Vec<Prompted>, Error> {
        let (_, _, rows, columns) = first(&self.latents, "`latents`")?.dims();
        let pixels = ((columns * CELL) as u32, (rows * CELL) as u32);
        let prompts: Vec<Prompt> = self.positive.iter().flat_map(|prompts| prompts.0.iter().cloned()).collect();
        prompts.iter().try_for_each(|prompt| prompt.require_words("`positive`"))?;
        let conditions = Conditioning(prompts).conditions(model, pixels, false, seed)?;
        let read = conditions.into_iter();
        Ok(read
            .map(|condition| Prompted {
                context: condition.context,
                label: condition.label,
                strength: condition.strength,
            })
            .collect())
    }
}

/// The one value of an input that a list node gets in a list.
fn first<'a, T>(values: &'a [T], what: &'static str) -> Result<&'a T, Error> {
    let unfit = || Error::Unfit { what, expected: "a value".to_owned(), found: "an empty list".to_owned() };
    values.first().ok_or_else(unfit)
}

/// Refuses a model whose work is changed in a way that the training would not see.
fn require_plain(model: &Model) -> Result<(), Error> {
    let found = if !model.patches.is_empty() {
        "one whose work is patched: take the patch out, and put it on the trained model"
    } else if !model.corrections.is_empty() || model.empty_prompt.is_some() {
        "one whose guidance is changed: take that out, and change the trained model's"
    } else if model.edit.is_some() {
        "one that sees a picture beside the latent, which the training does not give it"
    } else if model.unet.config().classes.is_some() {
        "one that is told classes, which are not trained"
    } else {
        return Ok(());
    };
    let expected = "a model of Stable Diffusion 1, 2 or SDXL as it was loaded, LoRAs aside".to_owned();
    Err(Error::Unfit { what: "`model`", expected, found: found.to_owned() })
}

/// The tensors of a LoRA's file, f32.
fn read(place: &Place) -> Result<BTreeMap<String, Tensor>, Error> {
    let file = open(place)?;
    let tensor = |name: &str| {
        let shape = file.shape(name).unwrap_or_default().to_vec();
        Ok((name.to_owned(), file.tensor(name, &shape)?))
    };
    file.names().map(tensor).collect()
}

fn train(
    model: &Model,
    latents: &Latents,
    prompts: &[Prompted],
    existing: &BTreeMap<String, Tensor>,
    settings: &AdapterSettings,
    cx: &Context<'_>,
) -> Result<TrainedAdapters> {
    let request = AdapterTraining {
        unet: &model.unet,
        sampling: &model.sampling,
        latent_scale: model.latent_scale,
        latents,
        prompts,
        existing,
        settings,
    };
    let total = (settings.steps * settings.accumulate) as u32;
    cx.progress(0, total)?;
    let mut step = 0;
    let mut watch = |loss: f32| {
        step += 1;
        cx.loss(LossPoint { step, total, loss, validation: None, learning_rate: settings.rate });
        if cx.progress(step, total).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    train_adapters(&request, &mut watch).map_err(tell)
}

/// What was trained, as it would come back from its file.
fn lora(trained: &TrainedAdapters, half: bool) -> Result<Lora, Error> {
    let named = trained.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone(), Store::F32));
    let file = write(&named.collect::<Vec<_>>(), &BTreeMap::new())?;
    let (mut model, _) = LoraModel::read(&Weights::from_bytes("the trained LoRA", file)?)?;
    model.store = if half { Store::Bf16 } else { Store::F32 };
    Ok(Lora(model))
}
