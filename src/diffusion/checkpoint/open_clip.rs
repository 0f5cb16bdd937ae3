//! OpenCLIP's text encoders in the layout of transformers.

use crate::error::{Error, Result};
use crate::nn::{Renamed, Weights};
use crate::text::{self, Family};

/// OpenCLIP's word and transformers' for the layers of a block.
const BLOCK: [(&str, &str); 5] = [
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    ("attn.out_proj.", "self_attn.out_proj."),
];
/// What OpenCLIP keeps as one matrix.
const THIRDS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

/// Whether the tensors at this place are a text encoder in OpenCLIP's layout.
#[must_use]
pub fn is_open_clip(weights: &Weights) -> bool {
    weights.contains("transformer.resblocks.0.ln_1.weight")
}

/// The same encoder in the layout of transformers.
#[must_use]
pub fn from_open_clip(weights: &Weights) -> Weights {
    weights.renamed(rename)
}

/// A text encoder from a file of its own, in the layout of transformers, and which one it is by its depth: CLIP-L with its own
/// family's use, OpenCLIP's H and bigG.
///
/// # Errors
/// [`Error::MissingPart`] for a file that holds none.
pub fn text_encoder(weights: &Weights) -> Result<(Weights, Family)> {
    let prefixes = ["", "transformer.", "clip_l.transformer.", "clip_g.transformer.", "clip_h.transformer."];
    let open = ["", "model.", "cond_stage_model.model."];
    let weights = match open.iter().map(|prefix| weights.part(prefix)).find(is_open_clip) {
        Some(open) => from_open_clip(&open),
        None => {
            let first =
                |prefix: &&&str| weights.contains(&format!("{prefix}text_model.encoder.layers.0.mlp.fc1.weight"));
            let Some(prefix) = prefixes.iter().find(first) else {
                return Err(Error::MissingPart {
                    file: weights.file().to_owned(),
                    part: "text encoder",
                    hint: "a file of CLIP's has `text_model.encoder.layers.0.mlp.fc1.weight`".to_owned(),
                });
            };
            weights.part(prefix).renamed(|name| vec![Renamed::whole(name)])
        }
    };
    let has = |layer: usize| weights.contains(&format!("text_model.encoder.layers.{layer}.mlp.fc1.weight"));
    let family = match (has(30), has(22)) {
        (true, _) => text::SDXL_G,
        (false, true) => text::SD2,
        (false, false) => text::SD1,
    };
    Ok((weights, family))
}

fn rename(name: &str) -> Vec<Renamed> {
    let whole = |name: String| vec![Renamed::whole(name)];
    match name {
        "positional_embedding" => whole("text_model.embeddings.position_embedding.weight".to_owned()),
        "token_embedding.weight" => whole("text_model.embeddings.token_embedding.weight".to_owned()),
        "text_projection" => vec![Renamed { transposed: true, ..Renamed::whole("text_projection.weight") }],
        "text_projection.weight" => whole(name.to_owned()),
        _ => {
            if let Some(norm) = name.strip_prefix("ln_final.") {
                return whole(format!("text_model.final_layer_norm.{norm}"));
            }
            let Some((block, rest)) = name.strip_prefix("transformer.resblocks.").and_then(|rest| rest.split_once('.'))
            else {
                return Vec::new();
            };
            let place = format!("text_model.encoder.layers.{block}");
            if let Some(kind) = rest.strip_prefix("attn.in_proj_") {
                let third = |(index, third): (usize, &&str)| Renamed {
                    part: (THIRDS.len(), index),
                    ..Renamed::whole(format!("{place}.self_attn.{third}.{kind}"))
                };
                return THIRDS.iter().enumerate().map(third).collect();
            }
            let layer = BLOCK.iter().find_map(|(theirs, ours)| Some((ours, rest.strip_prefix(theirs)?)));
            layer.map_or_else(Vec::new, |(ours, kind)| whole(format!("{place}.{ours}{kind}")))
        }
    }
}
