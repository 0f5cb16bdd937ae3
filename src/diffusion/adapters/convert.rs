//! A LoRA's file in another program's names. Numbers stay as they are stored; what a name or a header says instead of a tensor
//! is moved between them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::fault::{Fault, Unmatched};
use super::names::{Layer, Listing, Names, Part};
use crate::checkpoint::{Checkpoint, write_tensors};
use crate::error::Result;
use crate::nn::Weights;
use crate::unet::{Config, Down, Up};

/// Whose names a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// kohya's, which every program reads: `lora_unet_…_to_q.lora_down.weight`, with a tensor for alpha.
    Kohya,
    /// diffusers' and PEFT's: `unet.….to_q.lora_A.weight`, alphas in the header.
    Diffusers,
    /// The checkpoint's: `diffusion_model.….to_q.lora_down.weight`, with a tensor for alpha.
    Checkpoint,
}

impl Style {
    /// All of them, by name.
    pub const NAMES: [(&'static str, Self); 3] =
        [("kohya", Self::Kohya), ("diffusers", Self::Diffusers), ("checkpoint", Self::Checkpoint)];
}

/// A tensor of the new file.
#[derive(Debug)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: String,
    /// The header's word for its type.
    pub dtype: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its numbers as they are stored.
    pub bytes: Cow<'a, [u8]>,
}

/// The new file, before it is written.
#[derive(Debug)]
pub struct Converted<'a> {
    /// Its tensors, by name.
    pub tensors: Vec<Tensor<'a>>,
    /// The strings of its header.
    pub metadata: BTreeMap<String, String>,
    /// Modules of the old file that fit no layer, and are left out.
    pub left: Vec<Unmatched>,
}

impl Converted<'_> {
    /// Writes the file, beside its path first: it is whole or absent.
    ///
    /// # Errors
    /// [`crate::Error::Unwritable`].
    pub fn write(&self, path: &Path) -> Result<()> {
        write_tensors(&self.tensors, &self.metadata, path)
    }
}

/// What a tensor of a module is: the ends of its name in kohya's files and in PEFT's, and all others that are read.
struct Half {
    kohya: &'static str,
    peft: Option<&'static str>,
    others: &'static [&'static str],
}

/// The parts of a LoRA that have a name in every style or in kohya's alone. Longer ends stand before those they end with.
static HALVES: [Half; 4] = [
    Half {
        kohya: ".lora_down.weight",
        peft: Some(".lora_A.weight"),
        others: &[".lora_A.default.weight", ".lora_linear_layer.down.weight", ".lora.down.weight", "_lora.down.weight"],
    },
    Half {
        kohya: ".lora_up.weight",
        peft: Some(".lora_B.weight"),
        others: &[".lora_B.default.weight", ".lora_linear_layer.up.weight", ".lora.up.weight", "_lora.up.weight"],
    },
    Half { kohya: ".alpha", peft: None, others: &[] },
    Half { kohya: ".lora_mid.weight", peft: None, others: &[] },
];
const ALPHA: usize = 2;
const MID: usize = 3;

/// Where diffusers keeps what PEFT was told.
const PEFT_HEADER: &str = "lora_adapter_metadata";
/// Where the types of alphas are kept that became part of that.
const ALPHA_TYPES: &str = "paraflow.alpha_dtype";

/// One module of the old file.
#[derive(Default)]
struct Module<'a> {
    /// By the place in [`HALVES`]: the old name.
    halves: BTreeMap<usize, &'a str>,
}

/// Writes a LoRA in another style, for a model with these layers.
///
/// # Errors
/// [`Fault::NotAnAdapter`] for a file without a LoRA, [`Fault::DuplicateModule`], [`Fault::BadModule`] for a module that
/// has no form in the style.
pub fn convert<'a>(file: &'a Weights, names: &Names, style: Style) -> Result<Converted<'a>> {
    let mut modules: BTreeMap<&str, Module<'_>> = BTreeMap::new();
    let mut left = Vec::new();
    for name in file.names() {
        match split(name) {
            Some((module, half)) => {
                modules.entry(module).or_default().halves.insert(half, name);
            }
            None => left.push(Unmatched {
                name: name.to_owned(),
                why: "only the factors of a LoRA have names in every style".to_owned(),
                nearest: Vec::new(),
            }),
        }
    }
    if modules.is_empty() {
        let (fact, hint) = ("it holds no LoRA".to_owned(), "LoHa, LoKr and the like have one style only".to_owned());
        return Err(Fault::NotAnAdapter { file: file.file().to_owned(), fact, hint }.into());
    }
    let (paired, unmatched) = names.pair(modules.keys().copied())?;
    left.extend(unmatched);
    let told = Peft::read(file.metadata());
    let (mut tensors, mut alphas) = (Vec::new(), Alphas::default());
    for (module, layer) in paired {
        let of = &modules[module];
        let bad = |fact: &str| Fault::BadModule { module: module.to_owned(), fact: fact.to_owned() };
        let down = of.halves.get(&0).ok_or_else(|| bad("it has no lower half"))?;
        let rank = file.shape(down).and_then(|shape| shape.first().copied()).unwrap_or(1);
        if style == Style::Diffusers && of.halves.contains_key(&MID) {
            return Err(bad("its factors are three, which PEFT has no names for").into());
        }
        let new = name_of(names, layer, style);
        for (half, old) in of.halves.iter().filter(|(half, _)| **half != ALPHA) {
            let end = if style == Style::Diffusers { HALVES[*half].peft } else { Some(HALVES[*half].kohya) };
            tensors.push(copied(file, old, format!("{new}{}", end.expect("PEFT names both halves")))?);
        }
        let alpha = match of.halves.get(&ALPHA) {
            Some(old) => Some((number(file, old)?, copied(file, old, format!("{new}.alpha"))?)),
            None => told.alpha(layer, rank).map(|(alpha, dtype)| (alpha, alpha_tensor(&new, alpha, &dtype))),
        };
        match (alpha, style) {
            (Some((alpha, tensor)), Style::Diffusers) => alphas.add(layer, rank, alpha, &tensor.dtype),
            (None, Style::Diffusers) => alphas.add(layer, rank, rank as f64, ""),
            (Some((_, tensor)), _) => tensors.push(tensor),
            (None, _) => {}
        }
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut metadata = file.metadata().clone();
    metadata.remove(PEFT_HEADER);
    metadata.remove(ALPHA_TYPES);
    if style == Style::Diffusers {
        alphas.write(&mut metadata);
    }
    Ok(Converted { tensors, metadata, left })
}

/// A name's module and which half of it; `None` for what no LoRA has.
fn split(name: &str) -> Option<(&str, usize)> {
    HALVES.iter().enumerate().find_map(|(index, half)| {
        let ends = std::iter::once(half.kohya).chain(half.peft).chain(half.others.iter().copied());
        let end = ends.filter(|end| name.ends_with(end)).max_by_key(|end| end.len())?;
        Some((&name[..name.len() - end.len()], index))
    })
}

/// What a style calls a layer.
fn name_of(names: &Names, layer: &Layer, style: Style) -> String {
    match (style, layer.part) {
        (Style::Kohya, _) => names.kohya(layer),
        (Style::Diffusers, Part::Unet) => format!("unet.{}", layer.diffusers),
        (Style::Diffusers, Part::TextL | Part::TextH) => format!("text_encoder.{}", layer.diffusers),
        (Style::Diffusers, Part::TextG) => format!("text_encoder_2.{}", layer.diffusers),
        (Style::Checkpoint, Part::Unet) => format!("diffusion_model.{}", layer.name),
        (Style::Checkpoint, part) => {
            let encoder = match part {
                Part::TextG => "clip_g",
                Part::TextH => "clip_h",
                Part::TextL | Part::Unet => "clip_l",
            };
            format!("text_encoders.{encoder}.transformer.{}", layer.diffusers)
        }
    }
}

fn copied<'a>(file: &'a Weights, old: &str, name: String) -> Result<Tensor<'a>> {
    let info = file.info(old).ok_or_else(|| file.missing(old))?;
    Ok(Tensor { name, dtype: info.dtype, shape: info.shape, bytes: file.bytes(old)? })
}

fn number(file: &Weights, name: &str) -> Result<f64> {
    let shape = file.shape(name).unwrap_or_default().to_vec();
    let found = file.tensor(name, &shape)?.flatten_all()?.to_vec1::<f32>()?;
    match found[..] {
        [number] => Ok(f64::from(number)),
        _ => {
            Err(Fault::BadModule { module: name.to_owned(), fact: "its alpha is more than one number".to_owned() }
                .into())
        }
    }
}

/// A tensor of one number, of the type it had before it became part of a header; single precision if nothing is known.
fn alpha_tensor(module: &str, alpha: f64, dtype: &str) -> Tensor<'static> {
    let (dtype, bytes) = match dtype {
        "F16" => ("F16", half::f16::from_f64(alpha).to_le_bytes().to_vec()),
        "BF16" => ("BF16", half::bf16::from_f64(alpha).to_le_bytes().to_vec()),
        _ => ("F32", (alpha as f32).to_le_bytes().to_vec()),
    };
    Tensor { name: format!("{module}.alpha"), dtype: dtype.to_owned(), shape: Vec::new(), bytes: Cow::Owned(bytes) }
}

/// What PEFT was told of alphas, by the component of a pipeline.
struct Peft {
    told: Value,
    dtype: String,
}

/// The component of a pipeline that a part is.
fn component(part: Part) -> &'static str {
    match part {
        Part::Unet => "unet",
        Part::TextL | Part::TextH => "text_encoder",
        Part::TextG => "text_encoder_2",
    }
}

impl Peft {
    fn read(metadata: &BTreeMap<String, String>) -> Self {
        let told = metadata.get(PEFT_HEADER).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        Self { told, dtype: metadata.get(ALPHA_TYPES).cloned().unwrap_or_default() }
    }

    fn alpha(&self, layer: &Layer, rank: usize) -> Option<(f64, String)> {
        let component = component(layer.part);
        let of = |key: &str| &self.told[format!("{component}.{key}")];
        let pattern = of("alpha_pattern")[&layer.diffusers].as_f64();
        let alpha = pattern.or_else(|| of("lora_alpha").as_f64()).or_else(|| self.told["lora_alpha"].as_f64())?;
        // What PEFT has to be told to change nothing is no alpha in a file of kohya's.
        ((alpha - rank as f64).abs() > 0.0 || !self.dtype.is_empty()).then(|| (alpha, self.dtype.clone()))
    }
}

/// Alphas and ranks of a file in PEFT's manner: one of each for a component, and patterns for the layers that differ.
#[derive(Default)]
struct Alphas {
    layers: BTreeMap<&'static str, Vec<(String, usize, f64)>>,
    dtype: String,
}

impl Alphas {
    fn add(&mut self, layer: &Layer, rank: usize, alpha: f64, dtype: &str) {
        self.layers.entry(component(layer.part)).or_default().push((layer.diffusers.clone(), rank, alpha));
        dtype.clone_into(&mut self.dtype);
    }

    fn write(&self, metadata: &mut BTreeMap<String, String>) {
        let mut told = Map::new();
        for (component, layers) in &self.layers {
            let [(_, rank, alpha), ..] = layers.as_slice() else { continue };
            let mut tell = |key: &str, value: Value| told.insert(format!("{component}.{key}"), value);
            let targets: Vec<&str> = layers.iter().map(|(name, ..)| name.as_str()).collect();
            let ranks: Map<String, Value> = layers
                .iter()
                .filter(|(_, r, _)| r != rank)
                .map(|(name, rank, _)| (name.clone(), json!(rank)))
                .collect();
            let others = layers.iter().filter(|(_, _, a)| (a - alpha).abs() > 0.0);
            let alphas: Map<String, Value> = others.map(|(name, _, alpha)| (name.clone(), json!(alpha))).collect();
            tell("r", json!(rank));
            tell("lora_alpha", json!(alpha));
            tell("target_modules", json!(targets));
            tell("rank_pattern", Value::Object(ranks));
            tell("alpha_pattern", Value::Object(alphas));
            tell("peft_type", json!("LORA"));
            tell("lora_bias", json!(false));
            tell("use_dora", json!(false));
        }
        metadata.insert(PEFT_HEADER.to_owned(), Value::Object(told).to_string());
        if !self.dtype.is_empty() {
            metadata.insert(ALPHA_TYPES.to_owned(), self.dtype.clone());
        }
    }
}

impl Names {
    /// The names of the layers that a UNet of these measures has, and of text encoders of so many layers, without a file.
    /// Shapes are left out.
    #[must_use]
    pub fn of_measures(config: &Config, text: &[(Part, usize)]) -> Self {
        let text = text.iter().map(|(part, layers)| (*part, text_layers(*part, *layers)));
        Self::new(config, unet_layers(config), text.collect())
    }

    /// The names of the layers of a checkpoint, of which nothing but the header is read.
    #[must_use]
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Self {
        let part = |id: &str| match id {
            "clip_g" => Part::TextG,
            "clip_h" => Part::TextH,
            _ => Part::TextL,
        };
        let text: Vec<_> = checkpoint.text_depths().iter().map(|(family, depth)| (part(family.id), *depth)).collect();
        Self::of_measures(checkpoint.config(), &text)
    }

    /// The names of full-size models of that id: `sd1`, `sd2`, `sdxl`.
    #[must_use]
    pub fn of_family(id: &str) -> Option<Self> {
        let levels = |widths: &[usize], depths: &[usize], middle, context, linear_projection, label| {
            let mut down = Vec::new();
            for (level, (width, depth)) in widths.iter().zip(depths).enumerate() {
                if level > 0 {
                    down.push(Down::Halve);
                }
                down.extend([Down::Residual { width: *width, depth: *depth }; 2]);
            }
            let up = widths.iter().zip(depths).enumerate().rev().flat_map(|(level, (width, depth))| {
                (0..3).map(move |block| Up { width: *width, depth: *depth, double: level > 0 && block == 2 })
            });
            let (channels, input, output) = (320, 4, 4);
            Config {
                channels,
                input,
                output,
                context: Some(context),
                label,
                classes: None,
                temporal: false,
                linear_projection,
                down,
                middle,
                up: up.collect(),
            }
        };
        Some(match id {
            "sd1" => {
                let config = levels(&[320, 640, 1280, 1280], &[1, 1, 1, 0], 1, 768, false, None);
                Self::of_measures(&config, &[(Part::TextL, 12)])
            }
            "sd2" => {
                let config = levels(&[320, 640, 1280, 1280], &[1, 1, 1, 0], 1, 1024, true, None);
                Self::of_measures(&config, &[(Part::TextH, 24)])
            }
            "sdxl" => {
                let config = levels(&[320, 640, 1280], &[0, 2, 10], 10, 2048, true, Some(2816));
                Self::of_measures(&config, &[(Part::TextL, 12), (Part::TextG, 32)])
            }
            _ => return None,
        })
    }

    /// The full-size family whose layers most modules of a file mean.
    #[must_use]
    pub fn guessed(file: &Weights) -> (&'static str, Self) {
        let modules: Vec<&str> = file.names().filter_map(|name| split(name).map(|(module, _)| module)).collect();
        let fits = |names: &Self| modules.iter().filter(|module| names.find(module).is_some()).count();
        let families = ["sd1", "sdxl", "sd2"].map(|id| (id, Self::of_family(id).expect("it is one of those above")));
        let best = families.iter().map(|(_, names)| fits(names)).max().unwrap_or(0);
        families.into_iter().find(|(_, names)| fits(names) == best).expect("one of them fits best")
    }
}

fn unet_layers(config: &Config) -> Listing {
    let mut names: Vec<String> =
        ["time_embed.0", "time_embed.2", "input_blocks.0.0", "out.2"].map(str::to_owned).to_vec();
    if config.label.is_some() {
        names.extend(["label_emb.0.0", "label_emb.0.2"].map(str::to_owned));
    }
    let residual = |place: &str| {
        ["in_layers.2", "emb_layers.1", "out_layers.3", "skip_connection"].map(|layer| format!("{place}.{layer}"))
    };
    for (index, block) in config.down.iter().enumerate() {
        let place = format!("input_blocks.{}", index + 1);
        match block {
            Down::Halve => names.push(format!("{place}.0.op")),
            Down::Residual { depth, .. } => {
                names.extend(residual(&format!("{place}.0")));
                names.extend(transformer(&format!("{place}.1"), *depth));
            }
        }
    }
    names.extend(residual("middle_block.0"));
    names.extend(transformer("middle_block.1", config.middle));
    names.extend(residual(if config.middle > 0 { "middle_block.2" } else { "middle_block.1" }));
    for (index, block) in config.up.iter().enumerate() {
        let place = format!("output_blocks.{index}");
        names.extend(residual(&format!("{place}.0")));
        names.extend(transformer(&format!("{place}.1"), block.depth));
        if block.double {
            names.push(format!("{place}.{}.conv", if block.depth > 0 { 2 } else { 1 }));
        }
    }
    names.into_iter().map(|name| (name, Vec::new())).collect()
}

fn transformer(place: &str, depth: usize) -> Vec<String> {
    if depth == 0 {
        return Vec::new();
    }
    let attention = |attention: &str| ["to_q", "to_k", "to_v", "to_out.0"].map(|layer| format!("{attention}.{layer}"));
    let mut names = vec![format!("{place}.proj_in"), format!("{place}.proj_out")];
    for block in 0..depth {
        let layers =
            [&attention("attn1")[..], &attention("attn2"), &["ff.net.0.proj".to_owned(), "ff.net.2".to_owned()]];
        names.extend(layers.concat().iter().map(|layer| format!("{place}.transformer_blocks.{block}.{layer}")));
    }
    names
}

fn text_layers(part: Part, layers: usize) -> Listing {
    let of_layer = |layer: usize| {
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"]
            .map(|name| format!("encoder.layers.{layer}.{name}"))
    };
    let mut names: Vec<String> = (0..layers).flat_map(of_layer).collect();
    if matches!(part, Part::TextG | Part::TextH) {
        names.push("text_projection".to_owned());
    }
    names.into_iter().map(|name| (name, Vec::new())).collect()
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;

    /// A file of kohya's with modules of two ranks and alphas of two types of number.
    fn kohya(modules: &[(&str, usize, f32)], dtype: Dtype) -> Weights {
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        let width = if dtype == Dtype::F32 { 4 } else { 2 };
        for (index, (module, rank, alpha)) in modules.iter().enumerate() {
            let bytes = |count: usize| (0..count * width).map(|i| (i * 7 + index) as u8 & 0x3f).collect::<Vec<u8>>();
            tensors.push((format!("{module}.lora_down.weight"), vec![*rank, 8], bytes(rank * 8)));
            tensors.push((format!("{module}.lora_up.weight"), vec![6, *rank], bytes(6 * rank)));
            let alpha = match dtype {
                Dtype::F32 => alpha.to_le_bytes().to_vec(),
                _ => half::bf16::from_f32(*alpha).to_le_bytes().to_vec(),
            };
            tensors.push((format!("{module}.alpha"), Vec::new(), alpha));
        }
        let views =
            tensors.iter().map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
        Weights::from_bytes("kohya.safetensors", safetensors::serialize(views, None).unwrap()).unwrap()
    }

    fn view<'a>(tensor: &'a Tensor<'_>) -> (String, TensorView<'a>) {
        let dtype = serde_json::from_value(Value::String(tensor.dtype.clone())).unwrap();
        (tensor.name.clone(), TensorView::new(dtype, tensor.shape.clone(), &tensor.bytes).unwrap())
    }

    fn written(converted: &Converted<'_>) -> Weights {
        let metadata = converted.metadata.clone().into_iter().collect();
        let file = safetensors::serialize(converted.tensors.iter().map(view), Some(metadata)).unwrap();
        Weights::from_bytes("converted.safetensors", file).unwrap()
    }

    const SD1: [(&str, usize, f32); 4] = [
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 4, 2.0),
        ("lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj", 2, 2.0),
        ("lora_unet_mid_block_resnets_1_time_emb_proj", 4, 1.0),
        ("lora_te_text_model_encoder_layers_3_mlp_fc1", 4, 4.0),
    ];
    const SDXL: [(&str, usize, f32); 4] = [
        ("lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_out_0", 4, 4.0),
        ("lora_unet_output_blocks_2_2_conv", 4, 4.0),
        ("lora_te1_text_model_encoder_layers_3_self_attn_q_proj", 4, 8.0),
        ("lora_te2_text_model_encoder_layers_31_mlp_fc2", 4, 8.0),
    ];

    #[test]
    fn there_and_back_no_byte_changes() {
        for (modules, family) in [(&SD1, "sd1"), (&SDXL, "sdxl")] {
            for dtype in [Dtype::F32, Dtype::BF16] {
                let before = kohya(modules, dtype);
                let (id, names) = Names::guessed(&before);
                assert_eq!(id, family);
                for style in [Style::Diffusers, Style::Checkpoint] {
                    let there = convert(&before, &names, style).unwrap();
                    assert!(there.left.is_empty(), "{:?}", there.left);
                    let there = written(&there);
                    let after = written(&convert(&there, &names, Style::Kohya).unwrap());
                    assert_eq!(after.names().collect::<Vec<_>>(), before.names().collect::<Vec<_>>());
                    for name in before.names() {
                        assert_eq!(after.info(name), before.info(name), "{name}");
                        assert!(
                            after.bytes(name).unwrap() == before.bytes(name).unwrap(),
                            "{name} by way of {style:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn names_are_those_of_each_program() {
        let file = kohya(&SDXL, Dtype::F32);
        let names = Names::of_family("sdxl").unwrap();
        let found =
            |style| convert(&file, &names, style).unwrap().tensors.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
        let diffusers = found(Style::Diffusers);
        for name in [
            "unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_out.0.lora_A.weight",
            "unet.up_blocks.0.upsamplers.0.conv.lora_B.weight",
            "text_encoder.text_model.encoder.layers.3.self_attn.q_proj.lora_A.weight",
            "text_encoder_2.text_model.encoder.layers.31.mlp.fc2.lora_A.weight",
        ] {
            assert!(diffusers.iter().any(|found| found == name), "{name} in {diffusers:?}");
        }
        assert_eq!(diffusers.len(), 8);
        let checkpoint = found(Style::Checkpoint);
        let name = "diffusion_model.input_blocks.4.1.transformer_blocks.1.attn2.to_out.0.lora_down.weight";
        assert!(checkpoint.iter().any(|found| found == name), "{checkpoint:?}");
    }

    #[test]
    fn what_has_no_name_is_told() {
        let file = kohya(&[("lora_unet_no_such_layer", 4, 4.0), SD1[0]], Dtype::F32);
        let names = Names::of_family("sd1").unwrap();
        let converted = convert(&file, &names, Style::Diffusers).unwrap();
        assert_eq!((converted.tensors.len(), converted.left.len()), (2, 1));
        let none = Weights::from_bytes(
            "x",
            safetensors::serialize([("a", TensorView::new(Dtype::U8, vec![1], &[0]).unwrap())], None).unwrap(),
        );
        assert!(convert(&none.unwrap(), &names, Style::Kohya).unwrap_err().to_string().contains("no LoRA"));
    }
}
