//! What diffusers reads beside a model's weights: which classes its parts are, their measures, the words of the tokenizer.

use serde_json::{Map, Value, json};

use super::{Checkpoint, TextPlace};
use crate::error::{Error, Result};
use crate::guidance::Label;
use crate::nn::Weights;
use crate::schedule::Prediction;
use crate::text::{self, Activation};
use crate::unet::{Config, Down};

/// A text file of a folder in the layout of diffusers.
pub(super) struct Beside {
    /// Its place below the folder.
    pub(super) path: String,
    /// What it says.
    pub(super) text: String,
}

/// Every such file for a checkpoint.
///
/// # Errors
/// [`Error::Inexpressible`] for a UNet that diffusers has no words for; what reading the checkpoint's marks says.
pub(super) fn files(checkpoint: &Checkpoint) -> Result<Vec<Beside>> {
    if let Some((fact, format)) = inexpressible(checkpoint) {
        let file = checkpoint.weights.file().to_owned();
        return Err(Error::Inexpressible { file, fact: fact.to_owned(), format });
    }
    let mut files = Vec::new();
    files.push(Beside::json("unet/config.json", &unet(checkpoint)?));
    let vae_weights = checkpoint.weights.part(checkpoint.layout.vae_prefix);
    if let Some(config) = vae(&vae_weights, checkpoint.layout.latent_scale, checkpoint.layout.label.is_some()) {
        files.push(Beside::json("vae/config.json", &config));
    }
    files.push(Beside::json("scheduler/scheduler_config.json", &scheduler(checkpoint)?));
    let mut index = Map::new();
    index.insert("_class_name".to_owned(), json!(class(checkpoint)));
    index.insert("scheduler".to_owned(), json!(["diffusers", "EulerDiscreteScheduler"]));
    index.insert("unet".to_owned(), json!(["diffusers", "UNet2DConditionModel"]));
    index.insert("vae".to_owned(), json!(["diffusers", "AutoencoderKL"]));
    match checkpoint.layout.label {
        Some(_) => {
            index.insert("force_zeros_for_empty_prompt".to_owned(), json!(true));
            if checkpoint.layout.id == "sdxl-refiner" {
                index.insert("requires_aesthetics_score".to_owned(), json!(true));
                index.insert("text_encoder".to_owned(), json!([null, null]));
                index.insert("tokenizer".to_owned(), json!([null, null]));
            }
        }
        None => {
            index.insert("safety_checker".to_owned(), json!([null, null]));
            index.insert("feature_extractor".to_owned(), json!([null, null]));
            index.insert("requires_safety_checker".to_owned(), json!(false));
        }
    }
    for (place, number) in texts(checkpoint) {
        let Some(weights) = checkpoint.text_weights(place) else { continue };
        files.push(Beside::json(format!("text_encoder{number}/config.json"), &text_encoder(&weights, place.family)));
        let (vocabulary, merges) = text::vocabulary();
        files.push(Beside::json(format!("tokenizer{number}/vocab.json"), &Value::Object(vocabulary)));
        files.push(Beside::json(format!("tokenizer{number}/tokenizer_config.json"), &tokenizer(place.family)));
        files.push(Beside::json(format!("tokenizer{number}/special_tokens_map.json"), &special_tokens(place.family)));
        files.push(Beside { path: format!("tokenizer{number}/merges.txt"), text: merges });
        let class = if place.family.projects && checkpoint.layout.label.is_some() {
            "CLIPTextModelWithProjection"
        } else {
            "CLIPTextModel"
        };
        index.insert(format!("text_encoder{number}"), json!(["transformers", class]));
        index.insert(format!("tokenizer{number}"), json!(["transformers", "CLIPTokenizer"]));
    }
    files.push(Beside::json("model_index.json", &Value::Object(index)));
    Ok(files)
}

/// What about a checkpoint has no words in the files that are written, and in which layout.
fn inexpressible(checkpoint: &Checkpoint) -> Option<(&'static str, &'static str)> {
    const OURS: &str = "the conversion to diffusers";
    match checkpoint.layout.label {
        Some(Label::Seen) => Some(("a model that is told what is seen in a picture", "diffusers")),
        Some(Label::Level) => Some(("an upscaler that is told how much noise there is in a picture", OURS)),
        _ if checkpoint.layout.projection.is_some() => Some(("a model that is told where a camera goes", OURS)),
        _ => None,
    }
}

impl Beside {
    fn json(path: impl Into<String>, value: &Value) -> Self {
        let text = serde_json::to_string_pretty(value).expect("JSON can be written") + "\n";
        Self { path: path.into(), text }
    }
}

/// The text encoders, each with what its folder's name ends with.
pub(super) fn texts(checkpoint: &Checkpoint) -> impl Iterator<Item = (&'static TextPlace, &'static str)> {
    let alone = checkpoint.layout.id == "sdxl-refiner";
    let numbers: [&str; 2] = if alone { ["_2", ""] } else { ["", "_2"] };
    checkpoint.layout.texts.iter().zip(numbers)
}

/// The pipeline that draws with such a model.
fn class(checkpoint: &Checkpoint) -> &'static str {
    match (checkpoint.layout.label.is_some(), checkpoint.config.input, checkpoint.layout.id) {
        (false, 9, _) => "StableDiffusionInpaintPipeline",
        (false, 8, _) => "StableDiffusionInstructPix2PixPipeline",
        (false, ..) => "StableDiffusionPipeline",
        (true, _, "sdxl-refiner") => "StableDiffusionXLImg2ImgPipeline",
        (true, 9, _) => "StableDiffusionXLInpaintPipeline",
        (true, 8, _) => "StableDiffusionXLInstructPix2PixPipeline",
        (true, ..) => "StableDiffusionXLPipeline",
    }
}

/// A level of a UNet: its width and the transformer blocks after each of its residual blocks.
struct Level {
    width: usize,
    blocks: usize,
    depth: usize,
}

fn unet(checkpoint: &Checkpoint) -> Result<Value> {
    let config = &checkpoint.config;
    let inexpressible = |fact: &str| Error::Inexpressible {
        file: checkpoint.weights.file().to_owned(),
        fact: fact.to_owned(),
        format: "diffusers",
    };
    let mut levels = Vec::new();
    for blocks in config.down.split(|block| *block == Down::Halve) {
        let [Down::Residual { width, depth }, ..] = blocks else { return Err(inexpressible("a level without blocks")) };
        if blocks.iter().any(|block| *block != blocks[0]) {
            return Err(inexpressible("blocks of one level that differ"));
        }
        levels.push(Level { width: *width, blocks: blocks.len(), depth: *depth });
    }
    let layers = levels[0].blocks;
    let mirrored = config.up.chunks(layers + 1).zip(levels.iter().rev());
    if levels.iter().any(|level| level.blocks != layers)
        || mirrored.clone().count() != levels.len()
        || mirrored.clone().any(|(up, level)| up.iter().any(|up| (up.width, up.depth) != (level.width, level.depth)))
    {
        return Err(inexpressible("ways down and up that differ"));
    }
    let last = levels.last().map_or(0, |level| level.depth);
    if last != 0 && last != config.middle {
        return Err(inexpressible("a middle of other depth than the last level"));
    }
    // The depth of the last level is the middle's, too; where a level has no attention, its depth says nothing.
    let depth = |(index, level): (usize, &Level)| match level.depth {
        0 if index + 1 == levels.len() => config.middle.max(1),
        depth => depth.max(1),
    };
    let depths: Vec<usize> = levels.iter().enumerate().map(depth).collect();
    let down = levels.iter().map(|level| if level.depth > 0 { "CrossAttnDownBlock2D" } else { "DownBlock2D" });
    let up = levels.iter().rev().map(|level| if level.depth > 0 { "CrossAttnUpBlock2D" } else { "UpBlock2D" });
    // Heads under the name of their width: diffusers' own confusion.
    let heads = if config.linear_projection {
        json!(levels.iter().map(|level| config.heads(level.width)).collect::<Vec<_>>())
    } else {
        json!(8)
    };
    let mut told = json!({
        "_class_name": "UNet2DConditionModel", "act_fn": "silu", "attention_head_dim": heads,
        "block_out_channels": levels.iter().map(|level| level.width).collect::<Vec<_>>(),
        "center_input_sample": false, "cross_attention_dim": config.context, "down_block_types": down.collect::<Vec<_>>(),
        "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": config.input,
        "layers_per_block": layers, "mid_block_scale_factor": 1, "norm_eps": 1e-5, "norm_num_groups": 32,
        "out_channels": config.output, "sample_size": sample_size(config), "transformer_layers_per_block": depths,
        "up_block_types": up.collect::<Vec<_>>(), "use_linear_projection": config.linear_projection,
    });
    if config.middle == 0 {
        told["mid_block_type"] = json!("UNetMidBlock2D");
    }
    if let Some(label) = config.label {
        told["addition_embed_type"] = json!("text_time");
        told["addition_time_embed_dim"] = json!(256);
        told["projection_class_embeddings_input_dim"] = json!(label);
    }
    Ok(told)
}

/// Latent cells a side of the pictures that such models are trained on.
fn sample_size(config: &Config) -> usize {
    if config.label.is_some() { 128 } else { 64 }
}

fn vae(weights: &Weights, scale: f64, upcast: bool) -> Option<Value> {
    let width =
        |level: usize| weights.shape(&format!("encoder.down.{level}.block.0.conv1.weight")).map(|shape| shape[0]);
    let widths: Vec<usize> = (0..).map_while(width).collect();
    let blocks =
        (0..).take_while(|block| weights.contains(&format!("encoder.down.0.block.{block}.conv1.weight"))).count();
    let latent = weights.shape("decoder.conv_in.weight")?[1];
    Some(json!({
        "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": widths,
        "down_block_types": vec!["DownEncoderBlock2D"; widths.len()], "force_upcast": upcast, "in_channels": 3,
        "latent_channels": latent, "layers_per_block": blocks, "norm_num_groups": 32, "out_channels": 3,
        "sample_size": if upcast { 1024 } else { 512 }, "scaling_factor": scale,
        "up_block_types": vec!["UpDecoderBlock2D"; widths.len()],
    }))
}

fn text_encoder(weights: &Weights, family: text::Family) -> Value {
    let rows = |name: &str| weights.shape(name).and_then(|shape| shape.first()).copied().unwrap_or(0);
    let width = weights.shape("text_model.embeddings.token_embedding.weight").map_or(0, |shape| shape[1]);
    let has = |layer: &usize| weights.contains(&format!("text_model.encoder.layers.{layer}.layer_norm1.weight"));
    let layers = (0..).take_while(has).count();
    // Stable Diffusion 2 reads the last layer but one through the last norm, and diffusers the last that it is told of.
    let told_of = if family.id == "clip_h" { layers.saturating_sub(1) } else { layers };
    let projected = weights.shape("text_projection.weight").map_or(width, |shape| shape[0]);
    json!({
        "architectures": [if family.id == "clip_g" { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }],
        "attention_dropout": 0.0, "bos_token_id": text::BEGIN, "eos_token_id": text::END,
        "hidden_act": if family.activation == Activation::QuickGelu { "quick_gelu" } else { "gelu" },
        "hidden_size": width, "intermediate_size": rows("text_model.encoder.layers.0.mlp.fc1.weight"),
        "layer_norm_eps": 1e-5, "max_position_embeddings": rows("text_model.embeddings.position_embedding.weight"),
        "model_type": "clip_text_model", "num_attention_heads": (width / 64).max(1), "num_hidden_layers": told_of,
        "pad_token_id": 1, "projection_dim": projected,
        "vocab_size": rows("text_model.embeddings.token_embedding.weight"),
    })
}

/// What fills a prompt up.
fn pad(family: text::Family) -> &'static str {
    if family.pad == text::END { "<|endoftext|>" } else { "!" }
}

fn tokenizer(family: text::Family) -> Value {
    json!({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": text::CONTEXT, "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": pad(family), "add_prefix_space": false,
        "do_lower_case": true, "errors": "replace",
    })
}

fn special_tokens(family: text::Family) -> Value {
    json!({
        "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": pad(family),
    })
}

fn scheduler(checkpoint: &Checkpoint) -> Result<Value> {
    let sampling = checkpoint.sampling()?;
    let mut told = json!({
        "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000, "timestep_spacing": "leading", "steps_offset": 1,
        "prediction_type": if sampling.prediction() == Prediction::Velocity { "v_prediction" } else { "epsilon" },
    });
    if checkpoint.weights.contains("ztsnr") {
        told["rescale_betas_zero_snr"] = json!(true);
    }
    Ok(told)
}
