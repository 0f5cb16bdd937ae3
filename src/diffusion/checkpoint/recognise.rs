//! Names for files that are not loaded: other families of UNets by their measures, other kinds of files by their keys.

use super::{LAYOUTS, Layout};
use crate::error::Error;
use crate::nn::Weights;
use crate::unet::Config;

/// A family of UNets that is known but not loaded.
struct Family {
    name: &'static str,
    /// Why not.
    why: &'static str,
    fits: fn(&Config) -> bool,
}

/// In the order in which they are tried.
static FAMILIES: &[Family] = &[Family {
    name: "Stable Video Diffusion",
    why: "video networks are not supported",
    fits: |unet| unet.temporal || (unet.input == 8 && unet.label == Some(768)),
}];

/// A kind of file that is no checkpoint, or none with such a UNet.
struct Kind {
    name: &'static str,
    /// Whether a key belongs to such a file.
    key: fn(&str) -> bool,
    /// What the file lacks or is, and what to do with it.
    advice: Advice,
}

enum Advice {
    /// It is one part of a model: the loader that takes it.
    Loader(&'static str),
    /// It is a whole model of another architecture.
    Architecture,
}

/// In the order in which they are tried: adapters first, whose keys contain those of the models they act on.
static KINDS: &[Kind] = &[
    Kind { name: "a PaRa", key: |key| key.contains(".para_q"), advice: Advice::Loader("with PaRaLoad") },
    Kind {
        name: "a LoRA",
        key: |key| {
            [".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", "_lora.up.", "_lora.down."]
                .iter()
                .any(|part| key.contains(part))
        },
        advice: Advice::Loader("with LoraLoader"),
    },
    Kind {
        name: "a LyCORIS adapter",
        key: |key| key.contains(".hada_w1") || key.contains(".lokr_w1") || key.contains(".oft_blocks"),
        advice: Advice::Loader("with LoraLoader"),
    },
    Kind {
        name: "a control-LoRA",
        key: |key| key == "lora_controlnet",
        advice: Advice::Loader("with ControlNetLoader"),
    },
    Kind {
        name: "a ControlNet",
        key: |key| key.contains("input_hint_block.") || key.contains("controlnet_cond_embedding."),
        advice: Advice::Loader("with ControlNetLoader"),
    },
    Kind {
        name: "a T2I-adapter",
        key: |key| {
            let key = key.strip_prefix("adapter.").unwrap_or(key);
            ["body.0.block1.", "body.0.resnets.0.block1.", "body.0.body.0.block1."]
                .iter()
                .any(|start| key.starts_with(start))
        },
        advice: Advice::Loader("with ControlNetLoader"),
    },
    Kind {
        name: "an embedding",
        key: |key| matches!(key, "emb_params" | "clip_l" | "clip_g") || key.contains("string_to_param"),
        advice: Advice::Loader("by writing `embedding:name` in a prompt"),
    },
    Kind { name: "Flux", key: |key| key.contains("double_blocks.0."), advice: Advice::Architecture },
    Kind { name: "Stable Diffusion 3", key: |key| key.contains("joint_blocks.0."), advice: Advice::Architecture },
    Kind {
        name: "a UNet in the layout of diffusers",
        key: |key| key.starts_with("down_blocks.0.resnets."),
        advice: Advice::Loader("with UNETLoader"),
    },
    Kind {
        name: "an upscale model",
        key: |key| ["model.1.sub.0.RDB1.", "body.0.rdb1.", "RRDB_trunk.0."].iter().any(|part| key.contains(part)),
        advice: Advice::Loader("with UpscaleModelLoader, from `models/upscale_models`"),
    },
    Kind {
        name: "half of a tiny autoencoder",
        key: |key| key == "14.bias" || key == "19.bias",
        advice: Advice::Loader("with VAELoader, as `taesd` or `taesdxl` from `models/vae_approx`"),
    },
    Kind {
        name: "a VAE",
        key: |key| key.ends_with("decoder.conv_in.weight"),
        advice: Advice::Loader("with VAELoader"),
    },
    Kind {
        name: "a GLIGEN model",
        key: |key| key.contains(".fuser.") || key.starts_with("position_net."),
        advice: Advice::Loader("with GLIGENLoader, from `models/gligen`"),
    },
    Kind {
        name: "a style model",
        key: |key| key == "style_embedding",
        advice: Advice::Loader("with StyleModelLoader, from `models/style_models`"),
    },
    Kind {
        name: "a PhotoMaker id encoder",
        key: |key| key.contains("fuse_module.mlp1."),
        advice: Advice::Loader("with PhotoMakerLoader, from `models/photomaker`"),
    },
    Kind {
        name: "a text encoder",
        key: |key| {
            let is_vision = key.starts_with("vision_model.") || key.contains("visual.");
            !is_vision && (key.contains("encoder.layers.0.self_attn.") || key.contains("transformer.resblocks.0.attn."))
        },
        advice: Advice::Loader("with CLIPLoader"),
    },
    Kind {
        name: "a CLIP vision model",
        key: |key| key.starts_with("vision_model.") || key.starts_with("visual.transformer.resblocks."),
        advice: Advice::Loader("with CLIPVisionLoader, from `models/clip_vision`"),
    },
];

fn kind(weights: &Weights) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| weights.names().any(kind.key))
}

/// What a file without a latent-diffusion UNet is called, in a few words.
pub(super) fn name(weights: &Weights) -> String {
    kind(weights).map_or_else(|| "unknown".to_owned(), |kind| kind.name.to_owned())
}

/// How to load a file without a latent-diffusion UNet: `with ControlNetLoader`.
pub(super) fn loader(weights: &Weights) -> Option<&'static str> {
    match kind(weights)?.advice {
        Advice::Loader(loader) => Some(loader),
        Advice::Architecture => None,
    }
}

/// What a UNet that is not loaded is called.
pub(super) fn family(config: &Config) -> Option<&'static str> {
    known_family(config).map(|family| family.name)
}

fn known_family(config: &Config) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| (family.fits)(config))
}

/// What is said of a UNet's architecture after its name: what it sees beside the noisy latent.
pub(super) fn variant(layout: &Layout, config: &Config) -> &'static str {
    match config.input {
        9 => " for inpainting",
        8 if layout.projection.is_none() => " that follows instructions",
        _ => "",
    }
}

/// A UNet's measures in words.
pub(super) fn measures(config: &Config) -> String {
    let mut words = vec![format!("{} channels", config.channels)];
    words.extend(config.context.map(|width| format!("prompt vectors of {width}")));
    words.extend(config.label.map(|width| format!("an extra vector of {width}")));
    words.extend(config.classes.map(|count| format!("one of {count} classes")));
    if config.input != 4 {
        words.push(format!("{} input channels", config.input));
    }
    let depths: Vec<String> = config.depths().iter().map(ToString::to_string).collect();
    words.push(format!("transformer blocks {}", depths.join(" ")));
    words.join(", ")
}

/// The error for a file that has no UNet.
pub(super) fn no_unet(weights: &Weights) -> Error {
    let file = weights.file().to_owned();
    match kind(weights) {
        Some(Kind { name, advice: Advice::Loader(loader), .. }) => {
            Error::MissingPart { file, part: "UNet", hint: format!("it looks like {name}: load it {loader}") }
        }
        Some(Kind { name, .. }) => {
            Error::UnknownModel { file, found: format!("looks like {name}, which is not loaded yet"), known: known() }
        }
        None => Error::UnknownModel { file, found: strangers(weights), known: known() },
    }
}

/// The error for a UNet of a family that is not loaded.
pub(super) fn unknown_unet(weights: &Weights, config: &Config) -> Error {
    let measures = measures(config);
    let found = match known_family(config) {
        Some(Family { name, why, .. }) => format!("looks like {name} ({measures}): {why}"),
        None => format!("a UNet of no known family ({measures})"),
    };
    Error::UnknownModel { file: weights.file().to_owned(), found, known: known() }
}

fn strangers(weights: &Weights) -> String {
    match weights.names().next() {
        None => "there are no tensors in this file".to_owned(),
        Some(first) => {
            format!("no known model: {} tensors, the first called `{first}`", weights.names().count())
        }
    }
}

fn known() -> String {
    let names: Vec<&str> = LAYOUTS.iter().map(|layout| layout.name).collect();
    names.join(", ")
}
