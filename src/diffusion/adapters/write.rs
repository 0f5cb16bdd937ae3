//! Writing tensors: the bytes of a safetensors file, the same for the same content.

use std::collections::BTreeMap;

use candle_core::Tensor;
use half::{bf16, f16};
use serde_json::{Map, json};
use sha2::{Digest as _, Sha256};

use crate::error::Result;

/// The type that numbers are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Store {
    /// Four bytes each, exact.
    #[default]
    F32,
    /// Two bytes each.
    F16,
    /// Two bytes each, of the range of f32.
    Bf16,
}

impl Store {
    /// The header's word for it.
    fn word(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }
}

impl std::str::FromStr for Store {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            _ => Err("no such type of number"),
        }
    }
}

/// A safetensors file of these tensors, in this order, with these strings in its header. Where the header follows the
/// ModelSpec, the hash of the tensors is put in that it asks for.
///
/// # Errors
/// Out of memory.
pub fn write(tensors: &[(String, Tensor, Store)], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({}));
    let mut data = Vec::new();
    for (name, tensor, store) in tensors {
        let start = data.len();
        for number in tensor.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()? {
            match store {
                Store::F32 => data.extend(number.to_le_bytes()),
                Store::F16 => data.extend(f16::from_f32(number).to_le_bytes()),
                Store::Bf16 => data.extend(bf16::from_f32(number).to_le_bytes()),
            }
        }
        let entry = json!({"dtype": store.word(), "shape": tensor.dims(), "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let mut metadata = metadata.clone();
    if metadata.contains_key("modelspec.sai_model_spec") {
        metadata.insert("modelspec.hash_sha256".to_owned(), format!("0x{}", sha256(&data)));
    }
    header["__metadata__"] = json!(metadata);
    let mut header = serde_json::Value::Object(header).to_string();
    // The tensors begin at a multiple of eight.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    Ok(file)
}

fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of what follows the header of a file that [`write`] made.
pub(super) fn tensors_sha256(file: &[u8]) -> String {
    let length = file.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length) as usize);
    sha256(file.get(8 + length..).unwrap_or_default())
}
