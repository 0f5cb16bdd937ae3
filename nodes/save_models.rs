//! Models into files, with all that adapters do to them worked in: ComfyUI's nodes.

use crate::error::{Error, tell};
use crate::files::FilenamePrefix;
use crate::wires::{Clip, ClipVision, Model, Vae};
use paraflow_assets::{Assets, python_json};
use paraflow_diffusion::adapters::{self, Extraction, Store};
use paraflow_diffusion::checkpoint::{LAYOUTS, Networks};
use paraflow_diffusion::schedule::Prediction;
use paraflow_diffusion::text::Encoders;
use paraflow_engine::{Choice, Context, Json, Node, NodeDef, Result, Run, Shared, Sink};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<CheckpointSave>(),
        NodeDef::of::<CLIPSave>(),
        NodeDef::of::<ImageOnlyCheckpointSave>(),
        NodeDef::of::<LoraSave>(),
        NodeDef::of::<ModelSave>(),
        NodeDef::of::<VAESave>(),
    ]
}

/// Saves a model, its text encoder and its autoencoder as one checkpoint that every program loads.
///
/// Adapters on the model and on the text encoder become part of the weights. A weight that they changed is saved in single
/// precision, so that the checkpoint paints the same pictures; all others keep the numbers of the file that they came from.
#[derive(Node)]
#[node(category = "advanced/model_merging", display_name = "Save Checkpoint", sink)]
struct CheckpointSave {
    /// The model to save, with what is on it.
    model: Shared<Model>,
    /// Its text encoder.
    clip: Shared<Clip>,
    /// Its autoencoder.
    vae: Shared<Vae>,
    /// What the file's name begins with; `a/b` saves into folder `a`.
    #[input(default = "checkpoints/ComfyUI")]
    filename_prefix: FilenamePrefix,
}

impl Run for CheckpointSave {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let save = || -> Result<Json, Error> {
            let networks = Networks {
                layout: self.model.layout,
                unet: Some(&self.model.unet),
                clip: Some(self.clip.encoders()?),
                vae: Some(self.vae.autoencoder()?),
                vision: None,
                prefixed: true,
            };
            write(&networks, &self.filename_prefix, about(&self.model, cx), cx)
        };
        save().map(|file| Sink(json!({"files": [file]}))).map_err(tell)
    }
}

/// Saves a model that is shown a picture in place of a prompt, its CLIP vision model and its autoencoder as one checkpoint.
///
/// Weights are saved as by `CheckpointSave`.
#[derive(Node)]
#[node(category = "advanced/model_merging", sink)]
struct ImageOnlyCheckpointSave {
    /// The model to save, with what is on it.
    model: Shared<Model>,
    /// Its CLIP vision model.
    clip_vision: Shared<ClipVision>,
    /// Its autoencoder.
    vae: Shared<Vae>,
    /// What the file's name begins with; `a/b` saves into folder `a`.
    #[input(default = "checkpoints/ComfyUI")]
    filename_prefix: FilenamePrefix,
}

impl Run for ImageOnlyCheckpointSave {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let save = || -> Result<Json, Error> {
            let networks = Networks {
                layout: self.model.layout,
                unet: Some(&self.model.unet),
                clip: None,
                vae: Some(self.vae.autoencoder()?),
                vision: Some(self.clip_vision.network()?),
                prefixed: true,
            };
            write(&networks, &self.filename_prefix, about(&self.model, cx), cx)
        };
        save().map(|file| Sink(json!({"files": [file]}))).map_err(tell)
    }
}

/// Saves the diffusion model alone, with what is on it.
#[derive(Node)]
#[node(category = "advanced/model_merging", sink)]
struct ModelSave {
    /// The model to save, with what is on it.
    model: Shared<Model>,
    /// What the file's name begins with; `a/b` saves into folder `a`.
    #[input(default = "diffusion_models/ComfyUI")]
    filename_prefix: FilenamePrefix,
}

impl Run for ModelSave {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let (layout, unet) = (self.model.layout, Some(&self.model.unet));
        let networks = Networks { layout, unet, clip: None, vae: None, vision: None, prefixed: true };
        let file = write(&networks, &self.filename_prefix, about(&self.model, cx), cx).map_err(tell)?;
        Ok(Sink(json!({"files": [file]})))
    }
}

/// Saves each text encoder in a file of its own, with what is on it.
#[derive(Node)]
#[node(category = "advanced/model_merging", sink)]
struct CLIPSave {
    /// The text encoders to save.
    clip: Shared<Clip>,
    /// What the files' names begin with; `a/b` saves into folder `a`. Each gets the encoder's name at its end.
    #[input(default = "clip/ComfyUI")]
    filename_prefix: FilenamePrefix,
}

impl Run for CLIPSave {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let save = || -> Result<Vec<Json>, Error> {
            let mut metadata = graph(cx);
            metadata.insert("format".to_owned(), "pt".to_owned());
            let encoders = self.clip.encoders()?;
            let mut files = Vec::new();
            for encoder in encoders.parts() {
                let id = encoder.family().id;
                let layout = LAYOUTS.iter().find(|layout| layout.text_families().any(|family| family.id == id));
                let layout = layout.expect("every family is some layout's");
                let alone = Encoders::new(vec![encoder.clone()]);
                let networks =
                    Networks { layout, unet: None, clip: Some(&alone), vae: None, vision: None, prefixed: false };
                files.push(write(&networks, &format!("{}_{id}", &*self.filename_prefix), metadata.clone(), cx)?);
            }
            Ok(files)
        };
        save().map(|files| Sink(json!({"files": files}))).map_err(tell)
    }
}

/// Saves an autoencoder in a file of its own.
#[derive(Node)]
#[node(category = "advanced/model_merging", sink)]
struct VAESave {
    /// The autoencoder to save.
    vae: Shared<Vae>,
    /// What the file's name begins with; `a/b` saves into folder `a`.
    #[input(default = "vae/ComfyUI_vae")]
    filename_prefix: FilenamePrefix,
}

impl Run for VAESave {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let save = || -> Result<Json, Error> {
            let vae = self.vae.autoencoder()?;
            if vae.source().is_none() {
                return Err(Error::Unfit {
                    what: "VAESave",
                    expected: "an autoencoder of a checkpoint".to_owned(),
                    found: "a tiny one, which lies in files of its own already".to_owned(),
                });
            }
            let (layout, vae) = (&LAYOUTS[0], Some(vae));
            let networks = Networks { layout, unet: None, clip: None, vae, vision: None, prefixed: false };
            write(&networks, &self.filename_prefix, graph(cx), cx)
        };
        save().map(|file| Sink(json!({"files": [file]}))).map_err(tell)
    }
}

/// Saves what models or text encoders differ by as a LoRA: what `ModelMergeSubtract` and `CLIPMergeSubtract` gave.
///
/// Weights that do not differ are left out.
#[derive(Node)]
#[node(category = "_for_testing", display_name = "Extract and Save Lora", sink, experimental)]
struct LoraSave {
    /// What the file's name begins with; `a/b` saves into folder `a`.
    #[input(default = "loras/ComfyUI_extracted_lora")]
    filename_prefix: FilenamePrefix,
    /// How many directions of each difference to keep.
    #[input(default = 8, range = 1..=4096, step = 1)]
    rank: u32,
    /// Thin factors of each difference, or all of it.
    #[input(choices = ["standard", "full_diff"])]
    lora_type: Choice<String>,
    /// Whether to save what biases and norms differ by.
    #[input(default = true)]
    bias_diff: bool,
    /// What models differ by.
    model_diff: Option<Shared<Model>>,
    /// What text encoders differ by.
    text_encoder_diff: Option<Shared<Clip>>,
}

impl Run for LoraSave {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let save = || -> Result<Sink, Error> {
            let rank = (self.lora_type.name() == "standard").then_some(self.rank as usize);
            let how = Extraction { rank, biases: self.bias_diff };
            let mut tensors: Vec<(String, candle_core::Tensor, Store)> = Vec::new();
            if let Some(model) = &self.model_diff {
                tensors.extend(adapters::extract(&model.unet, "diffusion_model.", how)?);
            }
            if let Some(clip) = &self.text_encoder_diff {
                for encoder in clip.encoders()?.parts() {
                    let prefix = format!("text_encoders.{}.transformer.", encoder.family().id);
                    tensors.extend(adapters::extract(encoder, &prefix, how)?);
                }
            }
            if tensors.is_empty() {
                cx.warn("there is no difference to save");
                return Ok(Sink(json!({})));
            }
            crate::personalize::save(cx, &self.filename_prefix, &adapters::write(&tensors, &BTreeMap::new())?)
        };
        save().map_err(tell)
    }
}

/// Writes a file below the output folder and tells where it is.
fn write(
    networks: &Networks<'_>,
    prefix: &str,
    metadata: BTreeMap<String, String>,
    cx: &Context<'_>,
) -> Result<Json, Error> {
    let gathered = networks.gather()?;
    let outputs = cx.service::<Arc<Assets>>().outputs();
    let saved = outputs.series(prefix, (0, 0))?.save("safetensors", |file| gathered.write(&metadata, file))?;
    Ok(json!({"filename": saved.filename, "subfolder": saved.subfolder, "type": saved.place.as_str()}))
}

/// The graph that a file is from, as pictures carry it.
pub(crate) fn graph(cx: &Context<'_>) -> BTreeMap<String, String> {
    cx.provenance().into_iter().map(|(key, graph)| (key.to_owned(), python_json(graph))).collect()
}

/// What programs ask of a checkpoint, and the graph.
fn about(model: &Model, cx: &Context<'_>) -> BTreeMap<String, String> {
    let mut metadata = graph(cx);
    let mut say = |key: &str, value: &str| metadata.insert(format!("modelspec.{key}"), value.to_owned());
    match model.sampling.prediction() {
        Prediction::Epsilon => say("predict_key", "epsilon"),
        Prediction::Velocity => say("predict_key", "v"),
        _ => None,
    };
    if model.layout.id == "sdxl" {
        say("architecture", "stable-diffusion-xl-v1-base");
        say("sai_model_spec", "1.0.0");
        say("implementation", "sgm");
    }
    metadata
}
