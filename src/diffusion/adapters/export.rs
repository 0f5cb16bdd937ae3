//! A PaRa as a LoRA, exact on the checkpoint that it is made for.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::dense;
use super::fault::Fault;
use super::fingerprint::fingerprint;
use super::lora::{Form, LoraModel, Module};
use super::names::{Names, Part};
use super::para::Para;
use super::place::on_layers;
use super::write::Store;
use crate::error::Result;
use crate::unet::UNet;

/// How far a layer of the LoRA is from the PaRa.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportError {
    /// The layer's name in the file.
    pub layer: String,
    /// Length of the difference of the two weights as a part of the length of what the PaRa takes out.
    pub relative: f64,
}

/// The LoRA that does to `unet` what a PaRa does at strength 1: `up = -Q`, `down = Qᵀ W`, for stages one after another on what
/// the stage before left. Numbers are those that a file of type `store` holds, and the error of each layer is measured on them.
/// The base's fingerprint and the errors go into the header. All layers get the greatest rank of any, so that every program
/// weighs them alike: see [`LoraModel::of_one_rank`].
///
/// # Errors
/// [`Fault::UnmatchedKeys`] when a layer of the PaRa is not there, [`Fault::ShapeMismatch`].
pub fn to_lora(para: &Para, unet: &UNet, store: Store) -> Result<(LoraModel, Vec<ExportError>)> {
    let names = Names::of(unet, None);
    let (paired, unmatched) = names.pair(para.layers.keys().map(String::as_str))?;
    if !unmatched.is_empty() {
        return Err(Fault::UnmatchedKeys { table: unmatched, of: para.layers.len() }.into());
    }
    let weights: BTreeMap<String, _> = on_layers(unet).into_iter().map(|w| (w.layer().to_owned(), w)).collect();
    let (mut modules, mut errors) = (BTreeMap::new(), Vec::new());
    for (spelling, layer) in paired {
        debug_assert_eq!(layer.part, Part::Unet);
        let weight = &weights[&layer.name];
        let base = dense::matrix(&weight.effective()?)?;
        let (mut left, mut ups, mut downs) = (base.clone(), Vec::new(), Vec::new());
        for stage in &para.layers[spelling] {
            if stage.outputs() != layer.shape[0] {
                return Err(Fault::outputs(&layer.name, stage.outputs(), &layer.shape).into());
            }
            let q = stage.q().to_dtype(DType::F64)?;
            let down = dense::transposed_product(&q, &left)?;
            left = (left - q.matmul(&down)?)?;
            ups.push(q.neg()?);
            downs.push(down);
        }
        let (up, down) = (stored(&Tensor::cat(&ups, 1)?, store)?, stored(&Tensor::cat(&downs, 0)?, store)?);
        let written = (&base + up.to_dtype(DType::F64)?.matmul(&down.to_dtype(DType::F64)?)?)?;
        let removed = dense::energy(&(&base - &left)?)?.sqrt();
        let name = names.kohya(layer);
        let distance = dense::energy(&(written - &left)?)?.sqrt();
        errors.push(ExportError {
            layer: name.clone(),
            relative: if removed > 0.0 { distance / removed } else { distance },
        });
        let down = down.reshape([&[down.dim(0)?], &layer.shape[1..]].concat())?;
        modules.insert(name, Module { form: Form::LowRank { up, down }, scale: 1.0, magnitude: None });
    }
    let metadata = header(para, unet, &errors)?;
    Ok((LoraModel { modules, metadata, ..LoraModel::default() }.of_one_rank()?, errors))
}

/// f32 numbers that survive being stored.
fn stored(tensor: &Tensor, store: Store) -> Result<Tensor> {
    let tensor = tensor.to_dtype(DType::F32)?;
    Ok(match store {
        Store::F32 => tensor,
        Store::F16 => tensor.to_dtype(DType::F16)?.to_dtype(DType::F32)?,
        Store::Bf16 => tensor.to_dtype(DType::BF16)?.to_dtype(DType::F32)?,
    })
}

fn header(para: &Para, unet: &UNet, errors: &[ExportError]) -> Result<BTreeMap<String, String>> {
    let mut metadata = para.metadata.clone();
    let errors: serde_json::Map<_, _> =
        errors.iter().map(|error| (error.layer.clone(), serde_json::json!(error.relative))).collect();
    let rank: usize =
        para.layers.values().map(|stages| stages.iter().map(|stage| stage.rank()).sum()).max().unwrap_or(0);
    for (key, value) in [
        ("para.base_print", fingerprint(unet)?.to_string()),
        ("para.export_error", serde_json::Value::Object(errors).to_string()),
        ("ss_network_module", "networks.lora".to_owned()),
        ("ss_network_dim", rank.to_string()),
        ("ss_network_alpha", rank.to_string()),
    ] {
        metadata.insert(key.to_owned(), value);
    }
    Ok(metadata)
}
