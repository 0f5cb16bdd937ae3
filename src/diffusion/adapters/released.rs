//! Files of the PaRa authors' own program. Their keys are those of a LoRA and mean the opposite, `W' = W - up · down`, whatever
//! their alpha says; nothing in such a file tells it from a LoRA, so it is read where a user says what it is, and never guessed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use candle_core::pickle::PthTensors;

use super::fault::{Fault, Unmatched};
use super::lora::{Form, LoraModel};
use super::write::{Store, write};
use crate::error::{Error, Result};
use crate::nn::Weights;

impl LoraModel {
    /// Reads such a file as the LoRA that it comes to: a `.pt` as torch saves it, or the same tensors as safetensors. A pickle
    /// is taken for the tensors that it names; nothing in it is run. The second value is keys that are no part of it.
    ///
    /// # Errors
    /// [`Error::Unreadable`], [`Fault::NotAnAdapter`] for a file that torch did not save or that holds other than LoRA's
    /// factors, [`Fault::BadModule`] for one of the authors' light files, which lack a half, and what [`read`](Self::read) says.
    pub fn read_released(path: &Path) -> Result<(Self, Vec<Unmatched>)> {
        let (mut lora, unknown) = Self::read(&open(path)?)?;
        for (name, module) in &mut lora.modules {
            let kind = module.kind();
            match &mut module.form {
                Form::LowRank { up, .. } if kind == "LoRA" => *up = up.neg()?,
                _ => {
                    return Err(refused(
                        path,
                        format!("`{name}` is a {kind}, and the authors' files hold up and down only"),
                    ));
                }
            }
            module.scale = 1.0;
        }
        lora.metadata = BTreeMap::new();
        for (key, value) in [
            ("para.mode", "release".to_owned()),
            ("para.rank", lora.rank().to_string()),
            ("ss_network_module", "networks.lora".to_owned()),
            ("ss_network_dim", lora.rank().to_string()),
            ("ss_network_alpha", lora.rank().to_string()),
        ] {
            lora.metadata.insert(key.to_owned(), value);
        }
        Ok((lora, unknown))
    }
}

fn refused(path: &Path, fact: String) -> Error {
    let hint = "what is imported is a .pt or .safetensors of the PaRa authors' program".to_owned();
    Fault::NotAnAdapter { file: path.display().to_string(), fact, hint }.into()
}

/// The file's tensors, whichever of the two it is.
fn open(path: &Path) -> Result<Weights> {
    let unreadable = |source| Error::Unreadable { file: path.display().to_string(), source };
    let mut start = [0; 4];
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    match file.read_exact(&mut start) {
        Ok(()) if start == *b"PK\x03\x04" => {
            let torn = |fact: String| refused(path, format!("it is no file that torch saved: {fact}"));
            let owned: PathBuf = path.to_owned();
            // The reader of pickles was written for sound ones: on others it may panic.
            let read = catch_unwind(move || unpickled(&owned, length));
            let tensors = read.unwrap_or_else(|_| Err("its pickle is broken".to_owned())).map_err(torn)?;
            Weights::from_bytes(path.display().to_string(), write(&tensors, &BTreeMap::new())?)
        }
        _ => Weights::open(path),
    }
}

/// The tensors that a pickle names, in their names' order.
fn unpickled(path: &Path, length: u64) -> Result<Vec<(String, candle_core::Tensor, Store)>, String> {
    let told = |error: candle_core::Error| error.to_string();
    let file = PthTensors::new(path, None).map_err(told)?;
    let mut tensors = BTreeMap::new();
    let infos: BTreeMap<_, _> = file.tensor_infos().iter().collect();
    for (name, info) in infos {
        // torch compresses nothing, so no tensor is larger than its file.
        let mut dims = info.layout.dims().iter();
        let bytes = dims.try_fold(info.dtype.size_in_bytes() as u64, |bytes, &dim| bytes.checked_mul(dim as u64));
        if bytes.is_none_or(|bytes| bytes > length) {
            return Err(format!("`{name}` is larger than the file"));
        }
        let tensor = file.get(name).map_err(told)?.ok_or_else(|| format!("`{name}` is missing"))?;
        tensors.insert(name.clone(), tensor);
    }
    Ok(tensors.into_iter().map(|(name, tensor)| (name, tensor, Store::F32)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{relative_error, value};

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/adapters/released.pt");

    /// torch saved it in bfloat16, as the authors' program does, with an alpha that means nothing.
    #[test]
    fn a_file_of_the_authors_takes_out_what_a_lora_would_add() {
        let (lora, unknown) = LoraModel::read_released(Path::new(FILE)).unwrap();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert_eq!((lora.modules.len(), lora.metadata["para.mode"].as_str()), (2, "release"));
        for (name, up, down, shape) in [
            (
                "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
                &[12, 3][..],
                &[3, 10][..],
                &[12, 10][..],
            ),
            ("lora_unet_mid_block_resnets_1_conv2", &[8, 2], &[2, 54], &[8, 6, 3, 3]),
        ] {
            let found = lora.modules[name].change(name, shape).unwrap();
            let (up, down) = (value(&format!("{name}.up"), up, 1.0), value(&format!("{name}.down"), down, 1.0));
            let expected = up.matmul(&down).unwrap().neg().unwrap().reshape(shape).unwrap();
            let error = relative_error(&found, &expected);
            // bfloat16 keeps eight bits.
            assert!(error < 8e-3, "{name}: {error}");
        }
    }

    #[test]
    fn what_torch_did_not_save_is_refused_in_words() {
        let whole = std::fs::read(FILE).unwrap();
        let dir = std::env::temp_dir().join(format!("paraflow-released-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("x.pt");
        // Cut anywhere, or with any byte of its pickle another one, it is an error or a file, and never a panic.
        for cut in [5, 100, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let told = LoraModel::read_released(&path).unwrap_err().to_string();
            assert!(told.contains("it is no file that torch saved"), "{cut}: {told}");
        }
        std::fs::write(&path, b"\x80\x02}q\x00.").unwrap();
        assert!(LoraModel::read_released(&path).unwrap_err().to_string().contains("pickle"));
        let start = whole.windows(8).position(|part| part == b"data.pkl").unwrap() + 8;
        for at in (start..start + 600).step_by(7) {
            let mut other = whole.clone();
            other[at] ^= 0xff;
            std::fs::write(&path, &other).unwrap();
            let _ = LoraModel::read_released(&path);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
