//! How files spell the tensors of a vision transformer, and what each family expects of a picture.

use crate::nn::{Renamed, Weights};

/// Spelling and constants of one family.
pub(super) struct Layout {
    /// What it is called in messages.
    pub(super) name: &'static str,
    /// A tensor that every file of this spelling has, and none of another.
    marker: &'static str,
    pub(super) class: &'static str,
    pub(super) patch: &'static str,
    pub(super) patch_has_bias: bool,
    pub(super) positions: &'static str,
    /// A norm before the first block.
    pub(super) before: Option<&'static str>,
    /// What the blocks lie below, by number.
    pub(super) blocks: &'static str,
    pub(super) norms: [&'static str; 2],
    /// Queries, keys, values, out.
    pub(super) attention: [&'static str; 4],
    pub(super) products: [&'static str; 2],
    /// What each half of a block is multiplied by, channel by channel.
    pub(super) scales: Option<[&'static str; 2]>,
    pub(super) after: &'static str,
    pub(super) projection: Option<&'static str>,
    pub(super) epsilon: f64,
    pub(super) mean: [f32; 3],
    pub(super) deviation: [f32; 3],
    /// The largest side that a picture is cut to. Networks of a finer grid get theirs made coarser.
    pub(super) most_pixels: usize,
    /// The shorter side is resized to this many times the side that is then cut out.
    pub(super) margin: f64,
}

/// CLIP's picture half, by transformers.
const CLIP: Layout = Layout {
    name: "CLIP",
    marker: "vision_model.embeddings.class_embedding",
    class: "vision_model.embeddings.class_embedding",
    patch: "vision_model.embeddings.patch_embedding",
    patch_has_bias: false,
    positions: "vision_model.embeddings.position_embedding.weight",
    // Transformers' spelling.
    before: Some("vision_model.pre_layrnorm"),
    blocks: "vision_model.encoder.layers",
    norms: ["layer_norm1", "layer_norm2"],
    attention: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"],
    products: ["mlp.fc1", "mlp.fc2"],
    scales: None,
    after: "vision_model.post_layernorm",
    projection: Some("visual_projection"),
    epsilon: 1e-5,
    mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
    deviation: [0.268_629_55, 0.261_302_6, 0.275_777_1],
    most_pixels: usize::MAX,
    margin: 1.0,
};

/// DINO, Caron et al. 2021, arXiv:2104.14294, as transformers' ViT.
const DINO: Layout = Layout {
    name: "DINO",
    marker: "encoder.layer.0.intermediate.dense.weight",
    class: "embeddings.cls_token",
    patch: "embeddings.patch_embeddings.projection",
    patch_has_bias: true,
    positions: "embeddings.position_embeddings",
    before: None,
    blocks: "encoder.layer",
    norms: ["layernorm_before", "layernorm_after"],
    attention: [
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
        "attention.output.dense",
    ],
    products: ["intermediate.dense", "output.dense"],
    scales: None,
    after: "layernorm",
    projection: None,
    epsilon: 1e-12,
    mean: [0.485, 0.456, 0.406],
    deviation: [0.229, 0.224, 0.225],
    most_pixels: 224,
    margin: 256.0 / 224.0,
};

/// DINOv2, Oquab et al. 2023, arXiv:2304.07193, by transformers.
const DINO2: Layout = Layout {
    name: "DINOv2",
    marker: "encoder.layer.0.layer_scale1.lambda1",
    norms: ["norm1", "norm2"],
    products: ["mlp.fc1", "mlp.fc2"],
    scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
    epsilon: 1e-6,
    ..DINO
};

/// Both DINOs as their authors and timm spell them, renamed to the above.
const AUTHORS: &str = "blocks.0.attn.qkv.weight";

impl Layout {
    pub(super) const ALL: [&'static Self; 3] = [&CLIP, &DINO, &DINO2];

    /// The family of a file and its tensors under the names of this layout.
    pub(super) fn find(weights: &Weights) -> Option<(&'static Self, Weights)> {
        if weights.contains(AUTHORS) {
            let layout = if weights.contains("blocks.0.ls1.gamma") { &DINO2 } else { &AUTHORS_DINO };
            return Some((layout, weights.renamed(|name| rename(name, layout))));
        }
        if let Some(place) = OPEN_CLIP.iter().find(|place| weights.contains(&format!("{place}conv1.weight"))) {
            return Some((&CLIP, weights.part(place).renamed(rename_open_clip)));
        }
        let layout = Self::ALL.into_iter().find(|layout| weights.contains(layout.marker))?;
        Some((layout, weights.renamed(|name| vec![Renamed::whole(name)])))
    }

    /// Whether it is CLIP's, which has a text half.
    pub(super) fn is_clip(&self) -> bool {
        self.projection.is_some()
    }
}

/// Where OpenCLIP's files keep the picture half.
const OPEN_CLIP: [&str; 2] = ["", "visual."];

/// OpenCLIP's name in transformers' spelling.
fn rename_open_clip(name: &str) -> Vec<Renamed> {
    let whole = |name: String| vec![Renamed::whole(name)];
    if let Some((block, rest)) = name.strip_prefix("transformer.resblocks.").and_then(|rest| rest.split_once('.')) {
        let place = format!("{}.{block}", CLIP.blocks);
        if let Some(kind) = rest.strip_prefix("attn.in_proj_") {
            let third = |part: usize| Renamed {
                part: (3, part),
                ..Renamed::whole(format!("{place}.{}.{kind}", CLIP.attention[part]))
            };
            return (0..3).map(third).collect();
        }
        let parts = [
            ("ln_1.", CLIP.norms[0]),
            ("ln_2.", CLIP.norms[1]),
            ("attn.out_proj.", CLIP.attention[3]),
            ("mlp.c_fc.", CLIP.products[0]),
            ("mlp.c_proj.", CLIP.products[1]),
        ];
        let part = parts.iter().find_map(|(theirs, ours)| Some((ours, rest.strip_prefix(theirs)?)));
        return part.map_or_else(Vec::new, |(ours, kind)| whole(format!("{place}.{ours}.{kind}")));
    }
    match name {
        "class_embedding" => whole(CLIP.class.to_owned()),
        "positional_embedding" => whole(CLIP.positions.to_owned()),
        "proj" => vec![Renamed { transposed: true, ..Renamed::whole("visual_projection.weight") }],
        _ => {
            let parts = [("conv1.", CLIP.patch), ("ln_pre.", "vision_model.pre_layrnorm"), ("ln_post.", CLIP.after)];
            let part = parts.iter().find_map(|(theirs, ours)| Some((ours, name.strip_prefix(theirs)?)));
            part.map_or_else(Vec::new, |(ours, kind)| whole(format!("{ours}.{kind}")))
        }
    }
}

/// DINO as its authors' code has it, whose norm has another guard against division by zero.
const AUTHORS_DINO: Layout = Layout { epsilon: 1e-6, ..DINO };

/// The authors' name in transformers' spelling.
fn rename(name: &str, layout: &Layout) -> Vec<Renamed> {
    let whole = |name: String| vec![Renamed::whole(name)];
    let Some((block, rest)) = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) else {
        return match name {
            "cls_token" => whole(layout.class.to_owned()),
            "pos_embed" => whole(layout.positions.to_owned()),
            _ => {
                let parts = [("patch_embed.proj.", layout.patch), ("norm.", layout.after)];
                let part = parts.iter().find_map(|(theirs, ours)| Some((ours, name.strip_prefix(theirs)?)));
                part.map_or_else(Vec::new, |(ours, kind)| whole(format!("{ours}.{kind}")))
            }
        };
    };
    let place = format!("{}.{block}", layout.blocks);
    if let Some(kind) = rest.strip_prefix("attn.qkv.") {
        let third = |part: usize| Renamed {
            part: (3, part),
            ..Renamed::whole(format!("{place}.{}.{kind}", layout.attention[part]))
        };
        return (0..3).map(third).collect();
    }
    let scales = layout.scales.unwrap_or_default();
    let parts = [
        ("norm1.", layout.norms[0]),
        ("norm2.", layout.norms[1]),
        ("attn.proj.", layout.attention[3]),
        ("mlp.fc1.", layout.products[0]),
        ("mlp.fc2.", layout.products[1]),
    ];
    match rest {
        "ls1.gamma" => whole(format!("{place}.{}", scales[0])),
        "ls2.gamma" => whole(format!("{place}.{}", scales[1])),
        _ => {
            let part = parts.iter().find_map(|(theirs, ours)| Some((ours, rest.strip_prefix(theirs)?)));
            part.map_or_else(Vec::new, |(ours, kind)| whole(format!("{place}.{ours}.{kind}")))
        }
    }
}
