//! One map between the names that a layer goes by: in a checkpoint, in diffusers, in kohya's files and in all that descended from
//! them. Derived from a UNet's measures, so it holds for SD 1, SD 2, SDXL and narrow models alike.

use std::collections::BTreeMap;

use super::beside::{Beside, Besides};
use super::fault::{Fault, Unmatched};
use crate::error::Error;
use crate::nn::{self, Weights, nearest};
use crate::text::{ClipText, Encoders};
use crate::unet::{Config, Down, UNet};

/// The network that a layer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The network that predicts the noise.
    Unet,
    /// CLIP ViT-L's text encoder: SD 1's only one, SDXL's first.
    TextL,
    /// OpenCLIP ViT-H's text encoder, SD 2's.
    TextH,
    /// OpenCLIP bigG's text encoder, SDXL's second.
    TextG,
}

impl Part {
    /// Which text encoder one is.
    #[must_use]
    pub fn of(encoder: &ClipText) -> Self {
        match encoder.family().id {
            "clip_g" => Self::TextG,
            "clip_h" => Self::TextH,
            _ => Self::TextL,
        }
    }
}

/// A layer that adapters may act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Where it is.
    pub part: Part,
    /// Its name in the checkpoint without prefix and `.weight`: `input_blocks.1.1.proj_in`, `encoder.layers.0.mlp.fc1`.
    pub name: String,
    /// Its name in diffusers: `down_blocks.0.attentions.0.proj_in`, `text_model.encoder.layers.0.mlp.fc1`.
    pub diffusers: String,
    /// Shape of its weight, `[out, in]` or `[out, in, kernel, kernel]`.
    pub shape: Vec<usize>,
}

/// Layers and their weights' shapes, as [`crate::nn::layers`] lists them.
pub type Listing = Vec<(String, Vec<usize>)>;

/// Modules of a file and the layers that they mean.
pub type Pairs<'a, 'n> = Vec<(&'a str, &'n Layer)>;

/// The layers of a model, and every name that files call them by.
#[derive(Debug, Clone)]
pub struct Names {
    layers: Vec<Layer>,
    /// Indices into `layers` by name, in every spelling.
    spellings: BTreeMap<String, usize>,
    /// Whether files of this family spell a UNet's layers as the checkpoint does: SDXL's do, SD 1's speak diffusers.
    as_checkpoint: bool,
    /// What is no layer's weight.
    besides: Besides,
}

impl Names {
    /// The layers of a UNet and of the text encoders beside it, as [`crate::nn::layers`] lists them.
    #[must_use]
    pub fn new(config: &Config, unet: Listing, text: Vec<(Part, Listing)>) -> Self {
        let blocks = Blocks::of(config);
        let mut names = Self {
            layers: Vec::new(),
            spellings: BTreeMap::new(),
            as_checkpoint: config.label.is_some(),
            besides: Besides::default(),
        };
        for (name, shape) in unet {
            let diffusers = blocks.diffusers(&name);
            names.add(Layer { part: Part::Unet, name, diffusers, shape });
        }
        let alone = text.len() == 1;
        for (part, layers) in text {
            for (name, shape) in layers {
                let diffusers = text_diffusers(&name);
                names.add_text(Layer { part, name, diffusers, shape }, alone);
            }
        }
        names
    }

    /// The layers of a UNet, and of the text encoders if it goes with any.
    #[must_use]
    pub fn of(unet: &UNet, text: Option<&Encoders>) -> Self {
        let parts = text.map(Encoders::parts).unwrap_or_default();
        let text = parts.iter().map(|encoder| (Part::of(encoder), nn::layers(encoder)));
        let names = Self::new(unet.config(), nn::layers(unet), text.collect());
        let text = parts.iter().map(|encoder| (Part::of(encoder), encoder.source()));
        names.with_besides(unet.config(), unet.source(), &text.collect::<Vec<_>>())
    }

    /// The layers of text encoders alone.
    #[must_use]
    pub fn of_text(text: &Encoders) -> Self {
        let alone = text.parts().len() == 1;
        let mut besides = Besides::new(alone);
        let mut names =
            Self { layers: Vec::new(), spellings: BTreeMap::new(), as_checkpoint: false, besides: Besides::default() };
        for encoder in text.parts() {
            for (name, shape) in nn::layers(encoder) {
                let diffusers = text_diffusers(&name);
                names.add_text(Layer { part: Part::of(encoder), name, diffusers, shape }, alone);
            }
        }
        for encoder in text.parts() {
            besides.collect(Part::of(encoder), encoder.source(), &names.layers, text_diffusers);
        }
        Self { besides, ..names }
    }

    /// The same with what the networks' tensors hold beside the layers' weights.
    pub(super) fn with_besides(self, config: &Config, unet: &Weights, text: &[(Part, &Weights)]) -> Self {
        let blocks = Blocks::of(config);
        let mut besides = Besides::new(text.len() == 1);
        besides.collect(Part::Unet, unet, &self.layers, |name| blocks.diffusers(name));
        for (part, tensors) in text {
            besides.collect(*part, tensors, &self.layers, text_diffusers);
        }
        Self { besides, ..self }
    }

    fn add(&mut self, layer: Layer) {
        let spellings = unet_spellings(&layer.name, &layer.diffusers);
        self.insert(layer, spellings);
    }

    /// `alone` is the only encoder of its model, which files then call by no number or by the first.
    fn add_text(&mut self, layer: Layer, alone: bool) {
        let spellings = text_spellings(layer.part, &layer.name, &layer.diffusers, alone);
        self.insert(layer, spellings);
    }

    fn insert(&mut self, layer: Layer, spellings: impl IntoIterator<Item = String>) {
        let index = self.layers.len();
        for spelling in spellings {
            self.spellings.entry(spelling).or_insert(index);
        }
        self.layers.push(layer);
    }

    /// Every layer, those of the UNet in the order of the checkpoint's blocks first.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The layer that a file means by a name, with its place in [`layers`](Self::layers).
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(usize, &Layer)> {
        let index = *self.spellings.get(name)?;
        Some((index, &self.layers[index]))
    }

    /// The layer of a checkpoint's name.
    #[must_use]
    pub fn layer(&self, part: Part, name: &str) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.part == part && layer.name == name)
    }

    /// What a file means by a name that is no layer's weight: a layer's bias, a norm, an embedding.
    #[must_use]
    pub fn beside(&self, name: &str) -> Option<&Beside> {
        self.besides.find(name)
    }

    /// What kohya calls a layer, which files are written with: diffusers' names for SD 1 and 2, the checkpoint's for SDXL.
    #[must_use]
    pub fn kohya(&self, layer: &Layer) -> String {
        let name = if self.as_checkpoint { &layer.name } else { &layer.diffusers };
        match layer.part {
            Part::Unet => format!("lora_unet_{}", name.replace('.', "_")),
            Part::TextL if self.as_checkpoint => format!("lora_te1_{}", layer.diffusers.replace('.', "_")),
            Part::TextL | Part::TextH => format!("lora_te_{}", layer.diffusers.replace('.', "_")),
            Part::TextG => format!("lora_te2_{}", layer.diffusers.replace('.', "_")),
        }
    }

    /// Pairs modules of a file with layers. The second list is what fits none.
    ///
    /// # Errors
    /// [`Fault::DuplicateModule`] when two modules are one layer under two names.
    pub fn pair<'a>(&self, modules: impl Iterator<Item = &'a str>) -> Result<(Pairs<'a, '_>, Vec<Unmatched>), Fault> {
        let mut taken: BTreeMap<usize, &str> = BTreeMap::new();
        let (mut paired, mut unmatched) = (Vec::new(), Vec::new());
        for module in modules {
            let Some((index, layer)) = self.find(module) else {
                unmatched.push(self.unmatched(module));
                continue;
            };
            if let Some(first) = taken.insert(index, module) {
                let (first, second) = (first.to_owned(), module.to_owned());
                return Err(Fault::DuplicateModule { layer: layer.name.clone(), first, second });
            }
            paired.push((index, module, layer));
        }
        paired.sort_by_key(|(index, ..)| *index);
        Ok((paired.into_iter().map(|(_, module, layer)| (module, layer)).collect(), unmatched))
    }

    /// The error for a layer that the model does not have.
    #[must_use]
    pub fn no_such_layer(&self, name: &str) -> Error {
        let names = self.layers.iter().map(|layer| layer.name.as_str());
        Error::NoSuchLayer { name: name.to_owned(), nearest: nearest(name, names) }
    }

    /// The row of a table for a module that fits no layer.
    #[must_use]
    pub fn unmatched(&self, module: &str) -> Unmatched {
        let is_text =
            |name: &str| ["lora_te", "lora_prior_te", "text_encoder"].iter().any(|start| name.starts_with(start));
        let why = match module {
            name if self.beside(name).is_some_and(Beside::is_no_layer) => {
                "it is a norm or an embedding, and such adapters act on linear layers and convolutions only"
            }
            name if is_text(name) && !self.layers.iter().any(|layer| layer.part != Part::Unet) => {
                "it is for a text encoder, and none was given"
            }
            name if is_text(name) => "no text encoder has such a layer",
            _ => "the model has no such layer",
        };
        let spellings = self.spellings.keys().map(String::as_str).filter(|name| same_style(name, module));
        Unmatched { name: module.to_owned(), why: why.to_owned(), nearest: nearest(module, spellings) }
    }
}

/// Every name of a layer of a UNet.
pub(super) fn unet_spellings(checkpoint: &str, diffusers: &str) -> Vec<String> {
    let (low, high) = (checkpoint.replace('.', "_"), diffusers.replace('.', "_"));
    let old = old_diffusers(diffusers);
    vec![
        format!("lora_unet_{low}"),
        format!("diffusion_model.{checkpoint}"),
        format!("lora_unet_{high}"),
        format!("lycoris_{high}"),
        format!("lycoris_{low}"),
        format!("unet.{diffusers}"),
        format!("unet.{old}"),
        format!("unet.{checkpoint}"),
        format!("base_model.model.{diffusers}"),
        format!("base_model.model.unet.{diffusers}"),
        format!("base_model.model.{checkpoint}"),
        diffusers.to_owned(),
        old,
        checkpoint.to_owned(),
    ]
}

/// Every name of a layer of a text encoder; of one that is `alone` without a number, too.
pub(super) fn text_spellings(part: Part, name: &str, long: &str, alone: bool) -> Vec<String> {
    let flat = long.replace('.', "_");
    let id = match part {
        Part::TextG => "clip_g",
        Part::TextH => "clip_h",
        Part::TextL | Part::Unet => "clip_l",
    };
    let mut spellings = Vec::new();
    if part == Part::TextG {
        spellings.extend([
            format!("lora_te2_{flat}"),
            format!("text_encoder_2.{long}"),
            format!("lora_prior_te_{flat}"),
            format!("base_model.model.text_encoder_2.{long}"),
        ]);
    }
    if alone || part != Part::TextG {
        spellings.extend([
            format!("lora_te1_{flat}"),
            format!("lora_te_{flat}"),
            format!("text_encoder.{long}"),
            format!("base_model.model.text_encoder.{long}"),
        ]);
    }
    spellings.push(format!("text_encoders.{id}.transformer.{long}"));
    spellings.push(format!("text_encoders.{id}.{name}"));
    spellings
}

/// diffusers' name of a text encoder's layer.
fn text_diffusers(name: &str) -> String {
    // The last matrix stands beside the encoder.
    if name.starts_with("text_projection") { name.to_owned() } else { format!("text_model.{name}") }
}

/// Whether two names are written in the same manner, so that one may be offered for the other.
fn same_style(a: &str, b: &str) -> bool {
    let style = |name: &str| {
        let known = [
            "lora_unet_",
            "lora_te1_",
            "lora_te2_",
            "lora_te_",
            "lora_prior_te_",
            "lycoris_",
            "unet.",
            "diffusion_model.",
        ];
        known.iter().position(|prefix| name.starts_with(prefix))
    };
    style(a) == style(b)
}

/// diffusers' names before there was PEFT: `attn1.processor.to_q`, and `to_out` without its number.
fn old_diffusers(name: &str) -> String {
    let name = name.replace(".to_", ".processor.to_");
    match name.strip_suffix(".to_out.0") {
        Some(start) => format!("{start}.to_out"),
        None => name,
    }
}

/// Where diffusers keeps the numbered blocks of a checkpoint.
struct Blocks {
    /// Level and place in it of `input_blocks.1` and on; the place is `None` for what lies between levels.
    down: Vec<(usize, Option<usize>)>,
    /// Level and place in it of `output_blocks`, and whether it has attention.
    up: Vec<(usize, usize, bool)>,
    middle_attends: bool,
}

impl Blocks {
    fn of(config: &Config) -> Self {
        let (mut down, mut level, mut place) = (Vec::new(), 0, 0);
        for block in &config.down {
            match block {
                Down::Residual { .. } => {
                    down.push((level, Some(place)));
                    place += 1;
                }
                Down::Halve => {
                    down.push((level, None));
                    (level, place) = (level + 1, 0);
                }
            }
        }
        let (mut up, mut level, mut place) = (Vec::new(), 0, 0);
        for block in &config.up {
            up.push((level, place, block.depth > 0));
            place += 1;
            if block.double {
                (level, place) = (level + 1, 0);
            }
        }
        Self { down, up, middle_attends: config.middle > 0 }
    }

    /// diffusers' name of a checkpoint's layer; the same name where diffusers has none.
    fn diffusers(&self, name: &str) -> String {
        self.translate(name).unwrap_or_else(|| name.to_owned())
    }

    fn translate(&self, name: &str) -> Option<String> {
        const WHOLE: [(&str, &str); 7] = [
            ("input_blocks.0.0", "conv_in"),
            ("out.0", "conv_norm_out"),
            ("out.2", "conv_out"),
            ("time_embed.0", "time_embedding.linear_1"),
            ("time_embed.2", "time_embedding.linear_2"),
            ("label_emb.0.0", "add_embedding.linear_1"),
            ("label_emb.0.2", "add_embedding.linear_2"),
        ];
        if let Some((_, diffusers)) = WHOLE.iter().find(|(checkpoint, _)| *checkpoint == name) {
            return Some((*diffusers).to_owned());
        }
        let (block, rest) = name.split_once('.')?;
        if block == "middle_block" {
            return self.middle(rest);
        }
        let (number, rest) = rest.split_once('.')?;
        let number: usize = number.parse().ok()?;
        let (unit, rest) = rest.split_once('.').unwrap_or((rest, ""));
        match block {
            "input_blocks" => match (*self.down.get(number.checked_sub(1)?)?, unit) {
                ((level, Some(place)), "0") => Some(format!("down_blocks.{level}.resnets.{place}.{}", residual(rest)?)),
                ((level, Some(place)), "1") => Some(format!("down_blocks.{level}.attentions.{place}.{rest}")),
                ((level, None), "0") if rest == "op" => Some(format!("down_blocks.{level}.downsamplers.0.conv")),
                _ => None,
            },
            "output_blocks" => match (*self.up.get(number)?, unit) {
                ((level, place, _), "0") => Some(format!("up_blocks.{level}.resnets.{place}.{}", residual(rest)?)),
                ((level, place, true), "1") => Some(format!("up_blocks.{level}.attentions.{place}.{rest}")),
                ((level, _, false), "1") | ((level, _, true), "2") if rest == "conv" => {
                    Some(format!("up_blocks.{level}.upsamplers.0.conv"))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn middle(&self, rest: &str) -> Option<String> {
        let (unit, rest) = rest.split_once('.')?;
        match unit {
            "0" => Some(format!("mid_block.resnets.0.{}", residual(rest)?)),
            "1" if self.middle_attends => Some(format!("mid_block.attentions.0.{rest}")),
            "1" | "2" => Some(format!("mid_block.resnets.1.{}", residual(rest)?)),
            _ => None,
        }
    }
}

/// diffusers' name of a residual block's layer.
fn residual(name: &str) -> Option<&'static str> {
    Some(match name {
        "in_layers.0" => "norm1",
        "in_layers.2" => "conv1",
        "emb_layers.1" => "time_emb_proj",
        "out_layers.0" => "norm2",
        "out_layers.3" => "conv2",
        "skip_connection" => "conv_shortcut",
        _ => return None,
    })
}
