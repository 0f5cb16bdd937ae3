//! What tells one checkpoint from another whatever type its numbers are stored in.

use std::collections::BTreeMap;

use candle_core::DType;
use serde_json::{Map, Value, json};

use super::fault::Fault;
use super::names::{Names, Part};
use crate::error::Result;
use crate::nn::{Layers, Weight};
use crate::unet::UNet;

/// How many weights of a layer are kept.
const KEPT: usize = 8;

/// Some weights of four layers, by diffusers' names, and each layer's root mean square. Of the base, without adapters that act
/// beside it.
///
/// # Errors
/// Out of memory.
pub fn fingerprint(unet: &UNet) -> Result<Value> {
    let names = Names::of(unet, None);
    let attention: Vec<&str> =
        names.layers().iter().map(|layer| layer.name.as_str()).filter(|name| name.ends_with(".attn1.to_q")).collect();
    let mut wanted = vec!["input_blocks.0.0", "middle_block.0.in_layers.2"];
    wanted.extend(attention.first());
    wanted.extend(attention.last());
    let (mut prints, mut outcome) = (Map::new(), Ok(()));
    unet.clone().visit(&mut |weight| {
        if outcome.is_ok() && wanted.contains(&weight.layer()) {
            let name =
                names.layer(Part::Unet, weight.layer()).map_or_else(String::new, |layer| layer.diffusers.clone());
            outcome = print(weight).map(|print| {
                prints.insert(name, print);
            });
        }
    });
    outcome.map(|()| Value::Object(prints))
}

fn print(weight: &Weight) -> Result<Value> {
    let numbers: Vec<f32> = weight.base()?.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
    let square: f64 = numbers.iter().map(|x| f64::from(*x).powi(2)).sum();
    let rms = (square / numbers.len() as f64).sqrt() as f32;
    Ok(json!({"rms": rms, "w": numbers.iter().take(KEPT).collect::<Vec<_>>()}))
}

/// Whether a model is the checkpoint that an adapter was trained on, by the fingerprint in the adapter's header. A header
/// without one fits every model.
///
/// # Errors
/// [`Fault::BaseDiffers`] with the first layer that differs.
pub fn check_base(header: &BTreeMap<String, String>, found: &Value) -> Result<(), Fault> {
    let said = |key: &str| ["para", "paraflow"].iter().find_map(|own| header.get(&format!("{own}.{key}")));
    let Some(expected) = said("base_print") else { return Ok(()) };
    let expected = serde_json::from_str(expected).unwrap_or(Value::Null);
    match difference(&expected, found) {
        None => Ok(()),
        Some(layer) => {
            let file = said("base_name").cloned().unwrap_or_else(|| "another checkpoint".to_owned());
            Err(Fault::BaseDiffers { file, layer })
        }
    }
}

/// The first layer in which a checkpoint is not the one that a fingerprint was taken of; `None` where they agree but for the
/// rounding to half precision. A layer that one of them lacks differs.
#[must_use]
pub fn difference(expected: &Value, found: &Value) -> Option<String> {
    let (Some(expected), Some(found)) = (expected.as_object(), found.as_object()) else {
        return Some("the fingerprint".to_owned());
    };
    let differs = |name: &&String| {
        let (a, b) = (&expected[name.as_str()], found.get(name.as_str()).unwrap_or(&Value::Null));
        let (numbers, others) = (numbers(a), numbers(b));
        let (rms, other) = (a["rms"].as_f64().unwrap_or(f64::NAN), b["rms"].as_f64().unwrap_or(f64::NAN));
        let most = numbers.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= most * 2f64.powi(-9);
        // Written so that a NaN differs.
        !(numbers.len() == others.len()
            && !numbers.is_empty()
            && numbers.iter().zip(&others).all(near)
            && (rms - other).abs() <= 2e-3 * rms)
    };
    expected.keys().find(differs).cloned()
}

fn numbers(print: &Value) -> Vec<f64> {
    print["w"].as_array().map(|w| w.iter().filter_map(Value::as_f64).collect()).unwrap_or_default()
}
