//! What is in a file, for someone who wants to know before loading it. Any safetensors file will do.

use std::collections::BTreeMap;

use super::{LAYOUTS, Layout, find_unet, recognise};
use crate::nn::Weights;

/// A file in a few lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// `Stable Diffusion 1.x`, `a LoRA`, `unknown`.
    pub architecture: String,
    /// Whether this build loads it as a checkpoint.
    pub loads: bool,
    /// How to load it in words, `with LoraLoader`, if this build has something that does.
    pub loader: Option<&'static str>,
    /// UNet, CLIP vision, text encoder, VAE, and what belongs to none of them; only those that are there.
    pub parts: Vec<Part>,
    /// The free-form strings of the file's header.
    pub metadata: BTreeMap<String, String>,
}

/// Some of a file's tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `UNet`, `CLIP vision`, `text encoder`, `VAE` or `other`.
    pub name: &'static str,
    /// What their keys begin with.
    pub prefix: &'static str,
    /// How many tensors there are.
    pub tensors: usize,
    /// How many numbers they hold.
    pub parameters: u64,
    /// How many numbers are stored in each type, by the header's word for it.
    pub numbers: BTreeMap<String, u64>,
    /// Widths in words, where they can be read off; else empty.
    pub detail: String,
}

/// Where the parts of all known layouts are kept.
const PLACES: [(&str, &str); 4] = [
    ("text encoder", "cond_stage_model."),
    ("text encoder", "conditioner.embedders."),
    ("VAE", "first_stage_model."),
    ("other", ""),
];

/// Sums a file up. Nothing but its header is read.
#[must_use]
pub fn inspect(weights: &Weights) -> Summary {
    let unet = find_unet(weights).ok().flatten();
    let layout = unet.as_ref().and_then(|(_, config)| Layout::of(weights, config));
    let architecture = match (&unet, layout) {
        (Some((_, config)), Some(layout)) => format!("{}{}", layout.name, recognise::variant(layout, config)),
        (Some((_, config)), None) => recognise::family(config).unwrap_or("a UNet of no known family").to_owned(),
        (None, _) => recognise::name(weights),
    };
    let unet_place = unet.as_ref().map(|(prefix, _)| ("UNet", *prefix));
    let vision = LAYOUTS.iter().filter_map(|layout| layout.vision_prefix).map(|prefix| ("CLIP vision", prefix));
    let places: Vec<(&'static str, &'static str)> = unet_place.into_iter().chain(vision).chain(PLACES).collect();
    let mut parts: Vec<Part> = places.iter().map(|&(name, prefix)| Part::empty(name, prefix)).collect();
    for name in weights.names() {
        let place = places.iter().position(|(_, prefix)| name.starts_with(prefix));
        let place = place.expect("the last place takes every name");
        let info = weights.info(name).expect("the name is one of the file's");
        parts[place].add(info.elements() as u64, info.dtype);
    }
    if let (Some((_, config)), Some(part)) = (&unet, parts.first_mut()) {
        part.detail = recognise::measures(config);
    }
    parts.retain(|part| part.tensors > 0);
    let whole = parts.iter().any(|part| part.name == "text encoder" || part.name == "VAE");
    let loader = match (&unet, layout) {
        (Some(_), Some(layout)) if whole && layout.texts.is_empty() => Some("with ImageOnlyCheckpointLoader"),
        (Some(_), Some(_)) if whole => Some("with CheckpointLoaderSimple"),
        (Some(_), Some(_)) => {
            Some("with UNETLoader or CheckpointLoaderSimple, and what it lacks with loaders of its own")
        }
        (Some(_), None) => None,
        (None, _) => recognise::loader(weights),
    };
    Summary { architecture, loads: layout.is_some(), loader, parts, metadata: weights.metadata().clone() }
}

/// Whether a file is a LoRA or one of its kin, for those who expected a checkpoint.
#[must_use]
pub fn is_adapter(path: &std::path::Path) -> bool {
    Weights::open(path)
        .is_ok_and(|weights| matches!(recognise::name(&weights).as_str(), "a LoRA" | "a LyCORIS adapter"))
}

impl Part {
    fn empty(name: &'static str, prefix: &'static str) -> Self {
        Self { name, prefix, tensors: 0, parameters: 0, numbers: BTreeMap::new(), detail: String::new() }
    }

    fn add(&mut self, parameters: u64, dtype: String) {
        self.tensors += 1;
        self.parameters = self.parameters.saturating_add(parameters);
        let stored = self.numbers.entry(dtype).or_default();
        *stored = stored.saturating_add(parameters);
    }
}
