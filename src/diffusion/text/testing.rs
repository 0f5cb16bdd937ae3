//! What this folder's tests share: weights and embeddings hashed from their names, as `tests/golden/text.py` makes them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use half::f16;
use safetensors::tensor::TensorView;

use super::embeddings::Embeddings;
use crate::Result;
use crate::nn::Weights;

pub(super) const VOCABULARY: usize = 49_408;

/// A recording's path.
pub(super) fn golden(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/text")).join(name)
}

/// A recording of cases in JSON.
pub(super) fn cases(name: &str) -> Vec<serde_json::Value> {
    serde_json::from_str(&std::fs::read_to_string(golden(name)).unwrap()).unwrap()
}

/// A recorded tensor.
pub(super) fn recorded(file: &Weights, name: &str) -> Tensor {
    file.tensor(name, file.shape(name).unwrap()).unwrap()
}

/// The largest difference of two tensors, as a part of the largest number that was expected.
pub(super) fn relative_error(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let largest = |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    let difference = (found.to_dtype(DType::F32).unwrap() - expected).unwrap();
    let error = largest(&difference) / largest(expected);
    assert!(error.is_finite());
    error
}

/// `scale · u + offset`, `u` even over -1 to 1, rounded to f16; other numbers for each name.
pub(super) fn numbers(name: &str, count: usize, scale: f32, offset: f32) -> Vec<f16> {
    let hash = |x: u32| {
        let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        x ^ (x >> 16)
    };
    let seed = name.bytes().fold(0x811c_9dc5_u32, |seed, byte| (seed ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let even = |index: u32| (hash(index.wrapping_add(hash(seed))) >> 8) as f32 / 8_388_608.0 - 1.0;
    (0..count as u32).map(|index| f16::from_f32(even(index) * scale + offset)).collect()
}

/// The tensors of a text encoder by name, without prefix: shape and numbers.
pub(super) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f16>)>;

/// A text encoder of that many layers.
pub(super) fn encoder(width: usize, layers: usize, hidden: usize) -> Tensors {
    let mut tensors = Tensors::new();
    let mut add = |name: String, shape: &[usize], scale: f32, offset: f32| {
        let numbers = numbers(&name, shape.iter().product(), scale, offset);
        tensors.insert(name, (shape.to_vec(), numbers));
    };
    add("embeddings.token_embedding.weight".into(), &[VOCABULARY, width], 1.0, 0.0);
    add("embeddings.position_embedding.weight".into(), &[77, width], 0.5, 0.0);
    let mut norms = vec!["final_layer_norm".to_owned()];
    for layer in (0..layers).map(|layer| format!("encoder.layers.{layer}")) {
        norms.extend([format!("{layer}.layer_norm1"), format!("{layer}.layer_norm2")]);
        let square = ["q_proj", "k_proj", "v_proj", "out_proj"].map(|name| (format!("self_attn.{name}"), width, width));
        let products = [("mlp.fc1".to_owned(), hidden, width), ("mlp.fc2".to_owned(), width, hidden)];
        for (name, out, input) in square.into_iter().chain(products) {
            let scale = (1.7 * (input as f64).powf(-0.5)) as f32;
            add(format!("{layer}.{name}.weight"), &[out, input], scale, 0.0);
            add(format!("{layer}.{name}.bias"), &[out], 0.2, 0.0);
        }
    }
    for norm in norms {
        add(format!("{norm}.weight"), &[width], 0.4, 1.0);
        add(format!("{norm}.bias"), &[width], 0.2, 0.0);
    }
    tensors
}

/// These tensors as a file in f16, each name after a prefix.
pub(super) fn file(tensors: &Tensors, prefix: &str) -> Weights {
    let bytes = |numbers: &[f16]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let stored: Vec<_> = tensors.iter().map(|(name, (shape, numbers))| (name, shape, bytes(numbers))).collect();
    let views = stored.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(safetensors::Dtype::F16, shape.to_vec(), bytes).unwrap();
        (format!("{prefix}{name}"), view)
    });
    Weights::from_bytes("test.safetensors", safetensors::serialize(views, None).unwrap()).unwrap()
}

/// The embeddings that the recordings were made with.
pub(super) struct Recorded;

impl Embeddings for Recorded {
    fn find(&self, name: &str) -> Result<Option<Tensor>> {
        let name = name.strip_suffix(".safetensors").unwrap_or(name);
        let shape: &[usize] = match name {
            "one" | "a-b_c.1" => &[1, 64],
            "three" => &[3, 64],
            "nine" => &[9, 64],
            "wide" => &[2, 128],
            "flat" => &[64],
            "many" => &[80, 64],
            _ => return Ok(None),
        };
        let numbers = numbers(name, shape.iter().product(), 1.0, 0.0);
        let numbers: Vec<f32> = numbers.into_iter().map(f16::to_f32).collect();
        Ok(Some(Tensor::from_vec(numbers, shape, &Device::Cpu)?))
    }
}
