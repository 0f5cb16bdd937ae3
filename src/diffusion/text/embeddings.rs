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
    let weights = Weights::open(path)?;
    if weights.contains(encoder) {
        return vectors(&weights, encoder);
    }
    let names = weights.names_in_file_order();
    for end in [".string_to_param.*", &format!(".{encoder}")] {
        let bundled = names.iter().filter(|name| name.starts_with("bundle_emb.") && name.ends_with(end));
        let bundled: Vec<Tensor> = bundled.map(|name| vectors(&weights, name)).collect::<Result<_>>()?;
        if !bundled.is_empty() {
            return Ok(Tensor::cat(&bundled, 0)?);
        }
    }
    match names.first() {
        Some(name) => vectors(&weights, name),
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
