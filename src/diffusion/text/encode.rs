//! From a prompt's chunks to a conditioning: the encoder's states, weighted word by word as ComfyUI does.

use std::fmt;

use candle_core::Tensor;

use super::chunks::{Chunk, Chunks, Token};
use super::clip::{ClipText, Layer};
use super::tokenizer::{BEGIN, CONTEXT, END};
use crate::error::{Error, Result};

/// A prompt's conditioning.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// What cross-attention reads, `[1, 77 · chunks, width]`.
    pub cond: Tensor,
    /// The state that sums up the first chunk, at its end, `[1, width]`; weights have no part in it.
    pub pooled: Tensor,
    /// What the prompt asks for and does not get.
    pub notices: Vec<Notice>,
}

/// An embedding that has no effect. ComfyUI goes on without it, and so do we, but not in silence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// There is none of that name.
    NoSuchEmbedding {
        /// The name.
        name: String,
    },
    /// It was made for another encoder.
    EmbeddingOfOtherWidth {
        /// Its name.
        name: String,
        /// Length of its vectors.
        found: usize,
        /// Length of the encoder's.
        expected: usize,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchEmbedding { name } => {
                write!(
                    f,
                    "there is no embedding `{name}`, the prompt goes without it\nhint: put its file into `embeddings`"
                )
            }
            Self::EmbeddingOfOtherWidth { name, found, expected } => write!(
                f,
                "embedding `{name}` has vectors of {found} numbers, this text encoder takes {expected}: the prompt goes \
                 without it\nhint: look for the embedding in the version for this family of models"
            ),
        }
    }
}

impl ClipText {
    /// Encodes a prompt. With `z` the encoder's state of a token and `e` that of the token at its place in an empty prompt,
    /// a token of weight `w ≠ 1` gets `(z - e) w + e`.
    ///
    /// # Errors
    /// [`Error::Shape`] for chunks that are not as long as the encoder's table of places.
    pub fn encode(&self, prompt: &Chunks, layer: Layer) -> Result<Encoded> {
        let weights: Vec<f64> = prompt.chunks.iter().flat_map(|chunk| chunk.weights.iter().copied()).collect();
        let weighted = weights.iter().any(|weight| *weight != 1.0);
        let mut sequences = prompt.chunks.iter().map(|chunk| self.embed(chunk)).collect::<Result<Vec<_>>>()?;
        if weighted || sequences.is_empty() {
            sequences.push(self.embed(&self.empty_chunk())?);
        }
        let end = sequences[0].end;
        let sections = prompt.chunks.len().max(1);
        let vectors: Vec<&Tensor> = sequences.iter().map(|sequence| &sequence.vectors).collect();
        let states = self.run(Tensor::stack(&vectors, 0)?.broadcast_add(&self.positions)?, layer)?;

        let mut cond = states.chosen.narrow(0, 0, sections)?;
        if weighted {
            cond = weigh(&cond, &states.chosen.narrow(0, sections, 1)?, weights)?;
        }
        let (_, tokens, width) = cond.dims3()?;
        Ok(Encoded {
            cond: cond.contiguous()?.reshape((1, sections * tokens, width))?,
            pooled: states.last.narrow(0, 0, 1)?.narrow(1, end, 1)?.reshape((1, width))?,
            notices: self.notices(prompt),
        })
    }

    /// The vectors of a chunk. Embeddings of another width leave their place, and padding at the end makes up for it, though
    /// the weights stay where they were: ComfyUI's doing.
    fn embed(&self, chunk: &Chunk) -> Result<Sequence> {
        let mut parts = Vec::new();
        let mut ids = Vec::new();
        let (mut words, mut vectors, mut misfits, mut ended) = (0, 0, 0, false);
        for token in &chunk.tokens {
            match token {
                Token::Id(id) => {
                    ids.push(*id);
                    words += usize::from(!ended);
                    ended |= *id == END;
                }
                Token::Vector(vector) if vector.elem_count() == self.width() => {
                    if !ids.is_empty() {
                        parts.push(self.tokens.rows(&std::mem::take(&mut ids))?);
                    }
                    parts.push(self.fit(vector)?);
                    vectors += 1;
                }
                Token::Vector(_) => misfits += 1,
            }
        }
        ids.extend(std::iter::repeat_n(self.family().pad, misfits));
        if !ids.is_empty() || parts.is_empty() {
            parts.push(self.tokens.rows(&ids)?);
        }
        let sequence = Tensor::cat(&parts, 0)?;
        if sequence.dims() != self.positions.dims() {
            return Err(Error::Shape {
                layer: "text encoder".to_owned(),
                expected: format!("chunks that make {:?}", self.positions.dims()),
                found: sequence.dims().to_vec(),
            });
        }
        // The end is counted from words and vectors, so vectors after an end that the prompt spells out move it: ComfyUI's doing.
        let end = (words + vectors).saturating_sub(1).min(chunk.tokens.len().saturating_sub(1));
        Ok(Sequence { vectors: sequence, end })
    }

    /// A vector as a row among the encoder's own.
    fn fit(&self, vector: &Tensor) -> Result<Tensor> {
        let row = vector.reshape((1, self.width()))?;
        Ok(row.to_dtype(self.positions.dtype())?.to_device(self.positions.device())?)
    }

    fn empty_chunk(&self) -> Chunk {
        let ids = [BEGIN, END].into_iter().chain(std::iter::repeat(self.family().pad));
        Chunk { tokens: ids.map(Token::Id).take(CONTEXT).collect(), weights: vec![1.0; CONTEXT] }
    }

    fn notices(&self, prompt: &Chunks) -> Vec<Notice> {
        let notice = |reference: &super::chunks::Reference| match reference.width {
            None => Some(Notice::NoSuchEmbedding { name: reference.name.clone() }),
            Some(found) if found != self.width() => {
                Some(Notice::EmbeddingOfOtherWidth { name: reference.name.clone(), found, expected: self.width() })
            }
            Some(_) => None,
        };
        prompt.references.iter().filter_map(notice).collect()
    }
}

/// What the encoder reads for one chunk.
struct Sequence {
    /// `[77, width]`.
    vectors: Tensor,
    /// The token whose state sums up the chunk.
    end: usize,
}

/// `(z - e) w + e` where `w ≠ 1`, else `z`, bit by bit. `z` `[sections, tokens, width]`, `empty` `[1, tokens, width]`, a weight a
/// token.
fn weigh(z: &Tensor, empty: &Tensor, weights: Vec<f64>) -> Result<Tensor> {
    let (sections, tokens, _) = z.dims3()?;
    let changed: Vec<u8> = weights.iter().map(|weight| u8::from(*weight != 1.0)).collect();
    let column = (sections, tokens, 1);
    let changed = Tensor::from_vec(changed, column, z.device())?.broadcast_as(z.shape())?;
    let weights: Vec<f32> = weights.into_iter().map(|weight| weight as f32).collect();
    let weights = Tensor::from_vec(weights, column, z.device())?.to_dtype(z.dtype())?;
    let weighted = z.broadcast_sub(empty)?.broadcast_mul(&weights)?.broadcast_add(empty)?;
    Ok(changed.where_cond(&weighted, z)?)
}
