//! Adapters side by side: the layers that they act on, the directions of each layer's output that they touch, and how far those
//! are the same.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};

use super::dense;
use super::fault::{Fault, Unmatched};
use super::lora::{Form, LoraModel, Module};
use super::names::Names;
use super::para::{Para, Stage};
use super::place::{Placement, on_layers};
use super::subset::Boundary;
use super::svdiff::SvDiff;
use super::{Excess, OnPara};
use crate::error::{Error, Result};
use crate::nn::Weights;
use crate::unet::UNet;

/// What an adapter's file holds.
#[derive(Debug, Clone)]
pub enum AnyAdapter {
    /// Directions that are taken out.
    Para(Para),
    /// What is added: LoRA and its kin.
    Lora(LoraModel),
    /// What is added to singular values.
    Shifts(SvDiff),
}

/// What an adapter does to one layer, without the model that it is for.
#[derive(Debug, Clone)]
pub struct Summary {
    /// `PaRa`, `LoRA`, `LoHa` …
    pub kind: &'static str,
    /// How many directions it has, all stages together; `None` for a form of no rank.
    pub rank: Option<usize>,
    /// Outputs of the layer, where they can be told.
    pub outputs: Option<usize>,
    /// Orthonormal columns `[out, rank]` f64 that span what it touches of the layer's output, if that is not everything; of
    /// spectral shifts `[count, 1]`, the singular values that it shifts.
    span: Option<Tensor>,
}

/// One layer that both adapters act on.
#[derive(Debug, Clone, PartialEq)]
pub struct Common {
    /// Ranks of the first and the second.
    pub ranks: [Option<usize>; 2],
    /// Mean squared cosine of the angles between the two spaces: 0 where none of the smaller lies in the larger, 1 where all
    /// does. `None` where one of them is not known.
    pub overlap: Option<f64>,
}

/// Two adapters layer by layer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Comparison {
    /// Layers that only the first has.
    pub only_first: Vec<String>,
    /// Layers that only the second has.
    pub only_second: Vec<String>,
    /// Layers that both have.
    pub common: BTreeMap<String, Common>,
}

impl AnyAdapter {
    /// Reads a file of any kind, or PEFT's folder. The second value is keys that are no part of it.
    ///
    /// # Errors
    /// What [`Para::read`], [`Para::read_peft`] and [`LoraModel::read`] say, and [`Fault::NotAnAdapter`] for a folder that is
    /// not PEFT's.
    pub fn open(path: &Path) -> Result<(Self, Vec<Unmatched>)> {
        const PEFT: &str = "adapter_model.safetensors";
        let path = if path.is_dir() { path.join(PEFT) } else { path.to_owned() };
        let file = Weights::open(&path)?;
        let is_projection = file.names().any(|name| name.ends_with(".deft_P"));
        let config = path.with_file_name("adapter_config.json");
        if is_projection || (path.ends_with(PEFT) && config.exists()) {
            let refuse = |fact: String| -> Error {
                let hint = "put PEFT's adapter_config.json beside it".to_owned();
                Fault::NotAnAdapter { file: path.display().to_string(), fact, hint }.into()
            };
            let text = std::fs::read(&config).map_err(|error| refuse(format!("its settings are missing: {error}")))?;
            let config = serde_json::from_slice(&text).map_err(|error| refuse(format!("its settings: {error}")))?;
            if is_projection {
                let read = Para::read_peft(&file, &config, false)?;
                return Ok((Self::Para(read.para), read.unknown));
            }
            let (lora, unknown) = LoraModel::read_peft(&file, &config)?;
            return Ok((Self::Lora(lora), unknown));
        }
        if file.names().any(|name| name.ends_with(".para_q")) {
            let read = Para::read(&file, false)?;
            return Ok((Self::Para(read.para), read.unknown));
        }
        if SvDiff::is_in(&file) {
            let (shifts, unknown) = SvDiff::read(&file)?;
            return Ok((Self::Shifts(shifts), unknown));
        }
        let (lora, unknown) = LoraModel::read(&file)?;
        Ok((Self::Lora(lora), unknown))
    }

    /// Its kind in one word: `para`, `lora`, `svdiff`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Para(_) => "para",
            Self::Lora(_) => "lora",
            Self::Shifts(_) => "svdiff",
        }
    }

    /// What its header says.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        match self {
            Self::Para(para) => &para.metadata,
            Self::Lora(lora) => &lora.metadata,
            Self::Shifts(shifts) => &shifts.metadata,
        }
    }

    /// How many numbers it has.
    #[must_use]
    pub fn parameters(&self) -> usize {
        match self {
            Self::Para(para) => para.parameters(),
            Self::Lora(lora) => lora.parameters(),
            Self::Shifts(shifts) => shifts.parameters(),
        }
    }

    /// Its layers. With the model's `names` they are called as files of the model's family call them, else as this file does.
    ///
    /// # Errors
    /// Out of memory.
    pub fn layers(&self, names: Option<&Names>) -> Result<BTreeMap<String, Summary>> {
        let called = |spelling: &String| {
            let found = names.and_then(|names| names.find(spelling).map(|(_, layer)| names.kohya(layer)));
            found.unwrap_or_else(|| spelling.clone())
        };
        match self {
            Self::Para(para) => {
                para.layers.iter().map(|(name, stages)| Ok((called(name), of_stages(stages)?))).collect()
            }
            Self::Lora(lora) => {
                let alone = lora.vectors.keys().filter(|name| !lora.modules.contains_key(*name));
                let vectors = alone.map(|name| Ok((called(name), BESIDE)));
                let modules = lora.modules.iter().map(|(name, module)| Ok((called(name), of_module(name, module))));
                modules.chain(vectors).collect()
            }
            Self::Shifts(shifts) => {
                shifts.layers.iter().map(|(name, shifts)| Ok((called(name), of_shifts(shifts)?))).collect()
            }
        }
    }

    /// The adapter at strength 1 on a model's layers, without a rank boundary.
    fn place(&self, names: &Names, unet: &UNet) -> Result<Placement> {
        match self {
            Self::Para(para) => {
                let on = OnPara { strength: 1.0, boundary: Boundary::NONE, excess: Excess::Ignore, subset: None };
                para.place(names, unet, &on)
            }
            Self::Lora(lora) => lora.place(names, |_| 1.0, None),
            Self::Shifts(shifts) => shifts.place(names, 1.0),
        }
    }
}

/// What is added beside a weight.
const BESIDE: Summary = Summary { kind: "norm or bias", rank: None, outputs: None, span: None };

fn of_stages(stages: &[Stage]) -> Result<Summary> {
    Ok(Summary {
        kind: "PaRa",
        rank: Some(stages.iter().map(Stage::rank).sum()),
        outputs: stages.first().map(Stage::outputs),
        span: dense::union(stages.iter().map(Stage::q))?,
    })
}

fn of_module(name: &str, module: &Module) -> Summary {
    let up = match (&module.form, &module.magnitude) {
        (Form::LowRank { up, .. }, None) => Some(up),
        _ => None,
    };
    // A LoRA that nothing was trained of, or that fills the layer's output, has no space of its own.
    let span = up.and_then(|up| Stage::repaired(name, up).ok()).map(|(stage, _)| stage.q().to_dtype(DType::F64));
    Summary {
        kind: module.kind(),
        rank: module.rank(),
        outputs: up.map(|up| up.dims()[0]),
        span: span.and_then(std::result::Result::ok),
    }
}

fn of_shifts(shifts: &Tensor) -> Result<Summary> {
    let column = shifts.flatten_all()?.to_dtype(DType::F64)?.unsqueeze(1)?;
    let length = dense::energy(&column)?.sqrt();
    let span = if length > 0.0 { Some((column / length)?) } else { None };
    Ok(Summary { kind: "SVDiff", rank: None, outputs: None, span })
}

impl Summary {
    /// Mean squared cosine of the angles between the spaces that two adapters of a layer touch: `‖AᵀB‖² / min(rank)`. Of two
    /// spectral shifts the squared cosine of the shifts; of a shift and another kind `None`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn overlap(&self, other: &Self) -> Result<Option<f64>> {
        let (Some(a), Some(b)) = (&self.span, &other.span) else { return Ok(None) };
        let shifts = |summary: &Self| summary.kind == "SVDiff";
        if a.dim(0)? != b.dim(0)? || shifts(self) != shifts(other) {
            return Ok(None);
        }
        let least = a.dim(1)?.min(b.dim(1)?);
        Ok(Some(dense::energy(&dense::transposed_product(a, b)?)? / least as f64))
    }
}

/// Compares two adapters. `names`, if given, tells under which names two files mean one layer.
///
/// # Errors
/// Out of memory.
pub fn compare(first: &AnyAdapter, second: &AnyAdapter, names: Option<&Names>) -> Result<Comparison> {
    let (first, mut second) = (first.layers(names)?, second.layers(names)?);
    let mut compared = Comparison::default();
    for (name, a) in first {
        match second.remove(&name) {
            None => compared.only_first.push(name),
            Some(b) => {
                let common = Common { ranks: [a.rank, b.rank], overlap: a.overlap(&b)? };
                compared.common.insert(name, common);
            }
        }
    }
    compared.only_second = second.into_keys().collect();
    Ok(compared)
}

/// How much of each layer's weight an adapter changes at strength 1: `‖W' - W‖² / ‖W‖²`, for a PaRa the energy that it takes out.
/// By the names of files of the model's family.
///
/// # Errors
/// [`Fault::DuplicateModule`], and what an adapter says that does not fit.
pub fn relative_changes(adapter: &AnyAdapter, unet: &UNet) -> Result<BTreeMap<String, f64>> {
    let names = Names::of(unet, None);
    let placement = adapter.place(&names, unet)?;
    let mut changes = BTreeMap::new();
    for weight in on_layers(unet) {
        let of_layer: Vec<_> = placement.placed.iter().filter(|placed| placed.layer == weight.layer()).collect();
        let Some(layer) = of_layer.first().and_then(|placed| names.layer(placed.part, &placed.layer)) else { continue };
        let before = weight.effective()?;
        let after = of_layer.iter().try_fold(before.clone(), |weight, placed| placed.adapter.weight(&weight))?;
        let (before, after) = (dense::matrix(&before)?, dense::matrix(&after)?);
        let whole = dense::energy(&before)?;
        let change = dense::energy(&(after - before)?)?;
        changes.insert(names.kohya(layer), if whole > 0.0 { change / whole } else { 0.0 });
    }
    Ok(changes)
}
