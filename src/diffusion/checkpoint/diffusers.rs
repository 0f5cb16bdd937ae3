//! The layout of diffusers: a folder for each part of a model, and other names for the layers of UNet and autoencoder.

use std::path::{Path, PathBuf};

use super::{Checkpoint, find_unet};
use crate::error::{Error, Result};
use crate::nn::{Renamed, Weights};
use crate::unet::{Config, Down};

/// A part of a model as diffusers keeps it: its folder, its file, its tensors.
pub struct Component {
    /// `unet`, `vae`, `text_encoder` or `text_encoder_2`.
    pub folder: &'static str,
    /// The file in it.
    pub file: &'static str,
    /// Its tensors in the names of diffusers.
    pub weights: Weights,
}

const PARTS: [(&str, &[&str]); 4] = [
    ("unet", &["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors"]),
    ("vae", &["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors"]),
    ("text_encoder", &["model.fp16.safetensors", "model.safetensors"]),
    ("text_encoder_2", &["model.fp16.safetensors", "model.safetensors"]),
];

/// latent-diffusion's words and those of diffusers for the layers of a residual block of a UNet.
const RESIDUAL: [(&str, &str); 6] = [
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];
/// The same for what lies outside blocks.
const BASIC: [(&str, &str); 9] = [
    ("label_emb.0.0", "add_embedding.linear_1"),
    ("label_emb.0.2", "add_embedding.linear_2"),
    ("label_emb.0.0", "class_embedding.linear_1"),
    ("label_emb.0.2", "class_embedding.linear_2"),
    ("input_blocks.0.0", "conv_in"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
];

/// The files of a folder in the layout of diffusers that hold its parts, the UNet's first.
#[must_use]
pub fn diffusers_files(folder: &Path) -> Vec<PathBuf> {
    let of_part = |(name, files): (&str, &[&str])| {
        files.iter().map(|file| folder.join(name).join(file)).find(|path| path.exists())
    };
    PARTS.into_iter().filter_map(of_part).collect()
}

/// Opens a folder in the layout of diffusers as a checkpoint.
///
/// # Errors
/// [`Error::MissingPart`] without a `unet`; what [`Weights::open`] and [`Checkpoint::from_weights`] say.
pub fn open_folder(folder: impl AsRef<Path>) -> Result<Checkpoint> {
    let folder = folder.as_ref();
    let open = |part: usize| -> Result<Option<Weights>> {
        let (name, files) = PARTS[part];
        let found: Option<PathBuf> = files.iter().map(|file| folder.join(name).join(file)).find(|path| path.exists());
        found.map(Weights::open).transpose()
    };
    let Some(unet) = open(0)? else {
        return Err(Error::MissingPart {
            file: folder.display().to_string(),
            part: "UNet",
            hint: "a folder of diffusers has `unet/diffusion_pytorch_model.safetensors`".to_owned(),
        });
    };
    let mut parts = vec![prefixed(&unet_to_latent_diffusion(&unet), "model.diffusion_model.")];
    if let Some(vae) = open(1)? {
        parts.push(prefixed(&vae_to_latent_diffusion(&vae), "first_stage_model."));
    }
    let second = open(3)?;
    let (of_first, of_second) = match (&second, open(2)?) {
        (None, first) => (first, None),
        (Some(_), first) => (first, second),
    };
    // A refiner has nothing but the second encoder; the place of its only one is the first.
    let sdxl = of_second.is_some();
    if let Some(first) = &of_first {
        let place = if sdxl { "conditioner.embedders.0.transformer." } else { "cond_stage_model.transformer." };
        parts.push(prefixed(first, place));
    }
    if let Some(second) = &of_second {
        let place = if of_first.is_some() { "conditioner.embedders.1." } else { "conditioner.embedders.0." };
        parts.push(prefixed(second, &format!("{place}transformer.")));
    }
    Checkpoint::from_weights(Weights::joined(folder.display().to_string(), &parts))
}

fn prefixed(weights: &Weights, prefix: &str) -> Weights {
    weights.renamed(|name| vec![Renamed::whole(format!("{prefix}{name}"))])
}

/// A UNet in the names of latent-diffusion, if it has those of diffusers; any other as it is.
#[must_use]
pub fn unet_to_latent_diffusion(weights: &Weights) -> Weights {
    if !weights.contains("conv_in.weight") || !weights.contains("down_blocks.0.resnets.0.conv1.weight") {
        return weights.renamed(|name| vec![Renamed::whole(name)]);
    }
    let blocks = |level: usize| {
        (0..).take_while(|index| weights.contains(&format!("down_blocks.{level}.resnets.{index}.conv1.weight"))).count()
    };
    let levels: Vec<usize> = (0..).map(blocks).take_while(|count| *count > 0).collect();
    let attends = |level: usize| weights.contains(&format!("up_blocks.{level}.attentions.0.norm.weight"));
    weights.renamed(|name| unet_name(name, &levels, &attends).map(Renamed::whole).into_iter().collect())
}

/// The name in latent-diffusion of a UNet's tensor in diffusers, for a UNet of so many residual blocks on each level, of
/// which some on the way up are followed by attention.
fn unet_name(name: &str, levels: &[usize], attends: &dyn Fn(usize) -> bool) -> Option<String> {
    let (layer, kind) = name.rsplit_once('.')?;
    if let Some((ours, _)) = BASIC.iter().find(|(_, theirs)| *theirs == layer) {
        return Some(format!("{ours}.{kind}"));
    }
    let residual = |rest: &str| RESIDUAL.iter().find(|(_, theirs)| *theirs == rest).map(|(ours, _)| *ours);
    if let Some(rest) = layer.strip_prefix("mid_block.") {
        let mut parts = rest.splitn(3, '.');
        return match (parts.next()?, parts.next()?.parse::<usize>().ok()?, parts.next()?) {
            ("resnets", index, rest) => Some(format!("middle_block.{}.{}.{kind}", 2 * index, residual(rest)?)),
            ("attentions", 0, rest) => Some(format!("middle_block.1.{rest}.{kind}")),
            _ => None,
        };
    }
    let (down, rest) = match layer.strip_prefix("down_blocks.") {
        Some(rest) => (true, rest),
        None => (false, layer.strip_prefix("up_blocks.")?),
    };
    let mut parts = rest.splitn(4, '.');
    let level: usize = parts.next()?.parse().ok()?;
    let (what, index, rest) = (parts.next()?, parts.next()?.parse::<usize>().ok()?, parts.next()?);
    let block = if down {
        1 + levels.iter().take(level).map(|count| count + 1).sum::<usize>() + index
    } else {
        levels.iter().rev().take(level).map(|count| count + 1).sum::<usize>() + index
    };
    let side = if down { "input_blocks" } else { "output_blocks" };
    Some(match what {
        "resnets" => format!("{side}.{block}.0.{}.{kind}", residual(rest)?),
        "attentions" => format!("{side}.{block}.1.{rest}.{kind}"),
        "downsamplers" => format!("{side}.{}.0.op.{kind}", block + levels.get(level)?),
        "upsamplers" => {
            let last = block + levels.iter().rev().nth(level)?;
            format!("{side}.{last}.{}.conv.{kind}", if attends(level) { 2 } else { 1 })
        }
        _ => return None,
    })
}

/// An autoencoder in the names of latent-diffusion, if it has those of diffusers; any other as it is.
#[must_use]
pub fn vae_to_latent_diffusion(weights: &Weights) -> Weights {
    let theirs = weights.contains("decoder.up_blocks.0.resnets.0.conv1.weight");
    let levels =
        (0..).take_while(|l| weights.contains(&format!("decoder.up_blocks.{l}.resnets.0.conv1.weight"))).count();
    weights.renamed(|name| {
        let name = if theirs { vae_name(name, levels) } else { name.to_owned() };
        let rank = (name.contains("mid.attn_1.") && !name.contains("norm") && name.ends_with("weight")).then_some(4);
        vec![Renamed { rank, ..Renamed::whole(name) }]
    })
}

fn vae_name(name: &str, levels: usize) -> String {
    let mut name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out");
    name = name.replace("mid_block.resnets.0.", "mid.block_1.").replace("mid_block.resnets.1.", "mid.block_2.");
    for level in 0..levels {
        let up = levels - 1 - level;
        name = name.replace(&format!("encoder.down_blocks.{level}.resnets."), &format!("encoder.down.{level}.block."));
        name = name.replace(&format!("down_blocks.{level}.downsamplers.0."), &format!("down.{level}.downsample."));
        name = name.replace(&format!("decoder.up_blocks.{level}.resnets."), &format!("decoder.up.{up}.block."));
        name = name.replace(&format!("up_blocks.{level}.upsamplers.0."), &format!("up.{up}.upsample."));
    }
    if let Some((side, rest)) = name.split_once("mid_block.attentions.0.") {
        const ATTENTION: [(&str, &[&str]); 5] = [
            ("norm", &["group_norm"]),
            ("q", &["to_q", "query"]),
            ("k", &["to_k", "key"]),
            ("v", &["to_v", "value"]),
            ("proj_out", &["to_out.0", "proj_attn"]),
        ];
        for (ours, theirs) in ATTENTION {
            for theirs in theirs {
                if let Some(kind) = rest.strip_prefix(theirs) {
                    return format!("{side}mid.attn_1.{ours}{kind}");
                }
            }
        }
    }
    name
}

/// A checkpoint's parts as diffusers keeps them.
///
/// # Errors
/// What [`Checkpoint::open`] says; a checkpoint whose parts have no names in diffusers.
pub fn to_diffusers(checkpoint: &Checkpoint) -> Result<Vec<Component>> {
    let weights = checkpoint.weights();
    let Some((prefix, config)) = find_unet(weights)? else { return Ok(Vec::new()) };
    let levels = levels(&config);
    let unet = weights.part(prefix);
    let theirs = diffusers_names(&unet, &levels);
    let renamed = unet.renamed(|name| theirs.get(name).map(|name| Renamed::whole(name.clone())).into_iter().collect());
    let mut parts = vec![Component { folder: "unet", file: "diffusion_pytorch_model.safetensors", weights: renamed }];
    let vae = weights.part(checkpoint.layout().vae_prefix);
    let vae_levels = (0..).take_while(|l| vae.contains(&format!("decoder.up.{l}.block.0.conv1.weight"))).count();
    if vae_levels > 0 {
        let weights = vae.renamed(|name| {
            let name = vae_name_back(name, vae_levels);
            // The attention's 1x1 convolutions are matrices there.
            let rank = name.contains(".attentions.0.to_").then_some(if name.ends_with("weight") { 2 } else { 1 });
            vec![Renamed { rank, ..Renamed::whole(name) }]
        });
        parts.push(Component { folder: "vae", file: "diffusion_pytorch_model.safetensors", weights });
    }
    for (place, folder) in checkpoint.layout().texts.iter().zip(["text_encoder", "text_encoder_2"]) {
        let folder = if checkpoint.layout().id == "sdxl-refiner" { "text_encoder_2" } else { folder };
        if let Some(weights) = checkpoint.text_weights(place) {
            parts.push(Component { folder, file: "model.safetensors", weights });
        }
    }
    Ok(parts)
}

/// Residual blocks of each level on the way down.
fn levels(config: &Config) -> Vec<usize> {
    config.down.split(|block| *block == Down::Halve).map(<[Down]>::len).collect()
}

/// The names in diffusers of a UNet's tensors: the other way's table, read backwards.
fn diffusers_names(unet: &Weights, levels: &[usize]) -> std::collections::BTreeMap<String, String> {
    let mut names = std::collections::BTreeMap::new();
    for name in unet.names() {
        if let Some(theirs) = diffusers_name(name, levels) {
            names.insert(name.to_owned(), theirs);
        }
    }
    names
}

fn diffusers_name(name: &str, levels: &[usize]) -> Option<String> {
    let (layer, kind) = name.rsplit_once('.')?;
    if let Some((_, theirs)) = BASIC.iter().find(|(ours, _)| *ours == layer) {
        return Some(format!("{theirs}.{kind}"));
    }
    let residual = |rest: &str| RESIDUAL.iter().find(|(ours, _)| *ours == rest).map(|(_, theirs)| *theirs);
    let mut parts = layer.splitn(4, '.');
    let side = parts.next()?;
    if side == "middle_block" {
        let (index, rest) = layer.strip_prefix("middle_block.")?.split_once('.')?;
        return match index {
            "1" => Some(format!("mid_block.attentions.0.{rest}.{kind}")),
            _ => Some(format!("mid_block.resnets.{}.{}.{kind}", index.parse::<usize>().ok()? / 2, residual(rest)?)),
        };
    }
    let block: usize = parts.next()?.parse().ok()?;
    let (within, rest) = (parts.next()?, parts.next()?);
    let down = side == "input_blocks";
    let mut left = if down { block.checked_sub(1)? } else { block };
    let sizes: Vec<usize> = if down { levels.to_vec() } else { levels.iter().rev().copied().collect() };
    let mut level = 0;
    while left > *sizes.get(level)? {
        left -= sizes[level] + 1;
        level += 1;
    }
    let blocks = if down { "down_blocks" } else { "up_blocks" };
    Some(match (within, rest) {
        ("0", "op") => format!("{blocks}.{level}.downsamplers.0.conv.{kind}"),
        ("1" | "2", "conv") => format!("{blocks}.{level}.upsamplers.0.conv.{kind}"),
        ("0", rest) => format!("{blocks}.{level}.resnets.{left}.{}.{kind}", residual(rest)?),
        ("1", rest) => format!("{blocks}.{level}.attentions.{left}.{rest}.{kind}"),
        _ => return None,
    })
}

fn vae_name_back(name: &str, levels: usize) -> String {
    let mut name = name.replace("nin_shortcut", "conv_shortcut");
    for side in ["encoder", "decoder"] {
        name = name.replace(&format!("{side}.norm_out"), &format!("{side}.conv_norm_out"));
    }
    name = name.replace("mid.block_1.", "mid_block.resnets.0.").replace("mid.block_2.", "mid_block.resnets.1.");
    for level in 0..levels {
        let up = levels - 1 - level;
        name = name.replace(&format!("encoder.down.{level}.block."), &format!("encoder.down_blocks.{level}.resnets."));
        name = name.replace(&format!("down.{level}.downsample."), &format!("down_blocks.{level}.downsamplers.0."));
        name = name.replace(&format!("decoder.up.{level}.block."), &format!("decoder.up_blocks.{up}.resnets."));
        name = name.replace(&format!("decoder.up.{level}.upsample."), &format!("decoder.up_blocks.{up}.upsamplers.0."));
    }
    for (ours, theirs) in
        [("norm.", "group_norm."), ("q.", "to_q."), ("k.", "to_k."), ("v.", "to_v."), ("proj_out.", "to_out.0.")]
    {
        name = name.replace(&format!("mid.attn_1.{ours}"), &format!("mid_block.attentions.0.{theirs}"));
    }
    name
}
