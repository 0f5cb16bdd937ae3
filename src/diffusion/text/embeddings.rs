//! Textual inversion: words whose vectors come from a file, not from the encoder's table.
//!
//! Gal et al. 2022, arXiv:2208.01618.

use std::path::Path;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::nn::Weights;

/// Where `embedding:name` finds its vectors.
pub trait Embeddings {
    /// The vectors called `name`, `[vectors, width]` or `[width]`; `None` where there is no such embedding.
    ///
    /// # Errors
    /// When there is one and it cannot be read.
    fn find(&self, name: &str) -> Result<Option<Tensor>>;
}

/// No embedding has a name.
#[derive(Debug, Clone, Copy)]
pub struct NoEmbeddings;

impl Embeddings for NoEmbeddings {
    fn find(&self, _name: &str) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// Reads an embedding, `[vectors, width]` in f32, from a safetensors file.
///
/// `encoder` says for which encoder where the file has several: `clip_l`, `clip_g` or `clip_h`. Taken is the tensor of that
/// name; else all that training tools bundle as `bundle_emb.*.string_to_param.*`, then as `bundle_emb.*.<encoder>`, one below
/// the other; else the file's first tensor.
///
/// # Errors
/// [`Error::Unreadable`], [`Error::BadFile`] (a pickle, for one), [`Error::UnsupportedNumbers`]; [`Error::MissingTensor`]
/// when the file has no tensor, [`Error::WrongShape`] for a single number.
pub fn read_embedding(path: impl AsRef<Path>, encoder: &str) -> Result<Tensor> {
    read(&Weights::open(path)?, encoder)
}

fn read(weights: &Weights, encoder: &str) -> Result<Tensor> {
    if weights.contains(encoder) {
        return vectors(weights, encoder);
    }
    let names = weights.names_in_file_order();
    for end in [".string_to_param.*", &format!(".{encoder}")] {
        let bundled = names.iter().filter(|name| name.starts_with("bundle_emb.") && name.ends_with(end));
        let bundled: Vec<Tensor> = bundled.map(|name| vectors(weights, name)).collect::<Result<_>>()?;
        if !bundled.is_empty() {
            return Ok(Tensor::cat(&bundled, 0)?);
        }
    }
    match names.first() {
        Some(name) => vectors(weights, name),
        None => Err(weights.missing(encoder)),
    }
}

/// A tensor's last dimension as vectors, all others as their number.
fn vectors(weights: &Weights, name: &str) -> Result<Tensor> {
    let shape = weights.shape(name).ok_or_else(|| weights.missing(name))?;
    let Some(&width) = shape.last().filter(|width| **width > 0) else {
        return Err(Error::WrongShape {
            file: weights.file().to_owned(),
            name: name.to_owned(),
            expected: "[vectors, width]".to_owned(),
            found: shape.to_vec(),
        });
    };
    Ok(weights.tensor(name, shape)?.reshape(((), width))?)
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::super::testing::{Tensors, file};
    use super::*;

    /// A file of tensors, each one filled with a number; written in the order of their names.
    fn embedding(tensors: &[(&str, &[usize], f32)], encoder: &str) -> Result<Vec<Vec<f32>>> {
        let tensors: Tensors = tensors
            .iter()
            .map(|&(name, shape, number)| {
                let numbers = vec![f16::from_f32(number); shape.iter().product()];
                (name.to_owned(), (shape.to_vec(), numbers))
            })
            .collect();
        Ok(read(&file(&tensors, ""), encoder)?.to_vec2()?)
    }

    #[test]
    fn takes_the_encoders_own_tensor_first() {
        let both = [("clip_g", &[2, 3][..], 1.0), ("clip_l", &[1, 2], 2.0)];
        assert_eq!(embedding(&both, "clip_l").unwrap(), [[2.0, 2.0]]);
        assert_eq!(embedding(&both, "clip_g").unwrap(), [[1.0; 3], [1.0; 3]]);
        assert_eq!(embedding(&both, "clip_h").unwrap(), [[1.0; 3], [1.0; 3]]);
    }

    #[test]
    fn joins_what_is_bundled() {
        let bundle = [
            ("a", &[9][..], 0.0),
            ("bundle_emb.x.string_to_param.*", &[1, 2], 1.0),
            ("bundle_emb.y.string_to_param.*", &[2, 2], 2.0),
        ];
        assert_eq!(embedding(&bundle, "clip_l").unwrap(), [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]);
        let by_encoder =
            [("a", &[9][..], 0.0), ("bundle_emb.x.clip_g", &[1, 3], 1.0), ("bundle_emb.x.clip_l", &[1, 2], 2.0)];
        assert_eq!(embedding(&by_encoder, "clip_l").unwrap(), [[2.0, 2.0]]);
    }

    #[test]
    fn makes_rows_of_any_shape() {
        assert_eq!(embedding(&[("emb_params", &[2], 1.5)], "clip_l").unwrap(), [[1.5, 1.5]]);
        assert_eq!(embedding(&[("emb_params", &[2, 1, 2], 1.5)], "clip_l").unwrap(), [[1.5, 1.5], [1.5, 1.5]]);
        assert!(matches!(embedding(&[("emb_params", &[], 1.5)], "clip_l"), Err(Error::WrongShape { .. })));
        assert!(matches!(embedding(&[("emb_params", &[3, 0], 1.5)], "clip_l"), Err(Error::WrongShape { .. })));
        assert!(matches!(embedding(&[], "clip_l"), Err(Error::MissingTensor { .. })));
    }

    #[test]
    fn refuses_pickles() {
        let path = std::env::temp_dir().join(format!("paraflow-pickle-{}.safetensors", std::process::id()));
        std::fs::write(&path, b"PK\x03\x04 archive/data.pkl").unwrap();
        let outcome = read_embedding(&path, "clip_l");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(outcome, Err(Error::BadFile { fault: crate::FileFault::Pickle, .. })));
        assert!(matches!(read_embedding(&path, "clip_l"), Err(Error::Unreadable { .. })));
    }
}
