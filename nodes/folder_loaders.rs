//! Models from places that older workflows name: folders of diffusers, and checkpoints beside the configuration that they were
//! trained with.

use crate::error::{Error, tell};
use crate::files::{Checkpoints, Configs, DiffusersName, ModelName, Place};
use crate::loaders::{compute, open, parts};
use crate::wires::{Clip, Model, Vae};
use paraflow_assets::read_yaml;
use paraflow_diffusion::checkpoint::{Checkpoint, open_folder};
use paraflow_diffusion::schedule::{ModelSampling, Prediction};
use paraflow_diffusion::text::Layer;
use paraflow_engine::{Context, Json, Node, NodeDef, Result, Run};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<CheckpointLoader>(), NodeDef::of::<DiffusersLoader>()]
}

/// Loads a checkpoint with the configuration that it was trained with, which tells what the model predicts and which layer of
/// the text encoder it reads; everything else is told from the checkpoint.
#[derive(Node)]
#[node(category = "advanced/loaders", display_name = "Load Checkpoint With Config (DEPRECATED)", deprecated)]
struct CheckpointLoader {
    /// The configuration, from `models/configs`.
    config_name: ModelName<Configs>,
    /// The checkpoint, from `models/checkpoints`.
    ckpt_name: ModelName<Checkpoints>,
}

impl Run for CheckpointLoader {
    type Output = (Model, Clip, Vae);

    fn run(self, cx: &Context<'_>) -> Result<(Model, Clip, Vae)> {
        let load = || -> Result<(Model, Clip, Vae), Error> {
            let place = self.ckpt_name.find(cx.services())?;
            let weights = open(&place)?.on(&compute(cx.services()));
            let (model, clip, vae) = parts(&Checkpoint::from_weights(weights)?, place.origin())?;
            let Place::File(config) = self.config_name.find(cx.services())? else {
                return Ok((model, clip, vae));
            };
            let config = read_yaml(&config.path)?;
            Ok((predicting(model, &config), reading(clip, &config), vae))
        };
        load().map_err(tell)
    }
}

/// The model as a configuration says that it predicts.
fn predicting(model: Model, config: &Json) -> Model {
    match config["model"]["params"]["parameterization"].as_str() {
        Some("v") => Model { sampling: ModelSampling::discrete(model.layout.betas, Prediction::Velocity), ..model },
        _ => model,
    }
}

/// The text encoder at the layer that a configuration names.
fn reading(clip: Clip, config: &Json) -> Clip {
    let named = config["model"]["params"]["cond_stage_config"]["params"]["layer_idx"].as_i64();
    match named.filter(|layer| *layer < 0).and_then(|layer| u32::try_from(-layer).ok()) {
        Some(from_end) => clip.at(Layer::FromEnd(from_end)),
        None => clip,
    }
}

/// Loads a model from a folder in the layout of diffusers.
#[derive(Node)]
#[node(category = "advanced/loaders/deprecated")]
struct DiffusersLoader {
    /// The folder below `models/diffusers`: one with a `model_index.json`.
    model_path: DiffusersName,
}

impl Run for DiffusersLoader {
    type Output = (Model, Clip, Vae);

    fn run(self, cx: &Context<'_>) -> Result<(Model, Clip, Vae)> {
        let load = || -> Result<(Model, Clip, Vae), Error> {
            let folder = self.model_path.find(cx.services())?;
            let checkpoint = open_folder(&folder.path)?.on(&compute(cx.services()));
            parts(&checkpoint, self.model_path.origin(&folder))
        };
        load().map_err(tell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use crate::tiny;
    use paraflow_diffusion::checkpoint::write_folder;
    use serde_json::json;

    /// The samples of a short run on what a loader gave.
    fn sampled(bench: &Bench, loader: serde_json::Value) -> Vec<f32> {
        let outcome = bench.run(json!({
            "1": loader,
            "2": ["CLIPTextEncode", {"text": "a bear", "clip": ["1", 1]}],
            "3": ["EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}],
            "4": ["KSampler", {
                "model": ["1", 0], "seed": 7, "steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal",
                "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0], "denoise": 1.0,
            }],
            "5": ["VAEDecode", {"samples": ["4", 0], "vae": ["1", 2]}],
            "out": ["Catch", {"value": ["5", 0]}],
        }));
        outcome.value::<crate::wires::Image>("out").pixels().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_folder_of_diffusers_is_the_checkpoint_that_it_was_made_of() {
        let bench = Bench::new();
        bench.write("models/checkpoints/tiny.safetensors", tiny::checkpoint());
        let checkpoint = Checkpoint::open(bench.path("models/checkpoints/tiny.safetensors")).unwrap();
        write_folder(&checkpoint, &bench.path("models/diffusers/some/tiny")).unwrap();
        bench.write("models/diffusers/some/tiny/model_index.json", b"{}");
        let single = sampled(&bench, json!(["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}]));
        assert!(sampled(&bench, json!(["DiffusersLoader", {"model_path": "some/tiny"}])) == single);
        let faults = bench.plan(json!({
            "1": ["DiffusersLoader", {"model_path": "some/tin"}], "2": ["Catch", {"value": ["1", 0]}],
        }));
        let fault = &faults.err().unwrap()[0];
        let (text, hint) = (fault.to_string(), fault.hint().unwrap_or_default());
        assert!(text.contains("some/tin") && hint.contains("some/tiny"), "{text}; {hint}");
    }

    #[test]
    fn a_configuration_tells_prediction_and_layer() {
        let bench = Bench::new();
        bench.write("models/checkpoints/tiny.safetensors", tiny::checkpoint());
        let config =
            |parameters: &str| format!("model:\n  params:\n    cond_stage_config:\n      target: x\n{parameters}");
        bench.write("models/configs/plain.yaml", config("").as_bytes());
        bench.write("models/configs/v.yaml", config("    parameterization: v\n").as_bytes());
        bench.write("models/configs/skip.yaml", config("      params:\n        layer_idx: -2\n").as_bytes());
        let with = |name: &str| json!(["CheckpointLoader", {"config_name": name, "ckpt_name": "tiny.safetensors"}]);
        let simple = sampled(&bench, json!(["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}]));
        assert!(sampled(&bench, with("plain.yaml")) == simple);
        assert!(sampled(&bench, with("v.yaml")) != simple);
        let outcome = bench.run(json!({
            "1": with("skip.yaml"), "2": ["Catch", {"value": ["1", 1]}], "3": with("v.yaml"), "4": ["Catch", {"value": ["3", 0]}],
        }));
        assert_eq!(outcome.value::<Clip>("2").layer(), Layer::FromEnd(2));
        assert_eq!(outcome.value::<Model>("4").sampling.prediction(), Prediction::Velocity);
    }
}
