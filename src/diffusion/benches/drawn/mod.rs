//! Files of small numbers that look random.

use std::collections::BTreeMap;
use std::path::PathBuf;

use paraflow_diffusion::nn::Weights;
use safetensors::tensor::{Dtype, TensorView};

/// Numbers in [-1, 1).
pub(crate) fn numbers(count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / 8_388_608.0 - 1.0).collect()
}

/// A file with small numbers in these tensors.
pub(crate) fn file(tensors: &BTreeMap<String, Vec<usize>>) -> Weights {
    let fill = |(name, shape): (&String, &Vec<usize>)| {
        let bytes: Vec<u8> = numbers(shape.iter().product()).iter().flat_map(|x| (0.05 * x).to_le_bytes()).collect();
        (name.clone(), shape.clone(), bytes)
    };
    let filled: Vec<_> = tensors.iter().map(fill).collect();
    let view = |(name, shape, bytes): &'static (String, Vec<usize>, Vec<u8>)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many bytes as the shape has"))
    };
    let bytes = safetensors::serialize(filled.leak().iter().map(view), None).expect("fits in memory");
    Weights::from_bytes("bench.safetensors", bytes).expect("written a line ago")
}

/// The tensors of a recorded network.
pub(crate) fn golden(case: &str) -> Weights {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/networks")).join(case);
    let listing = std::fs::read_to_string(path).expect("the recordings are beside the code");
    let mut listing: serde_json::Value = serde_json::from_str(&listing).expect("a listing of tensors");
    file(&serde_json::from_value(listing["tensors"].take()).expect("names and shapes"))
}
