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
            pooled: self.project(states.last.narrow(0, 0, 1)?.narrow(1, end, 1)?.reshape((1, width))?)?,
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
        // Counted from words and vectors, so vectors after an end that the prompt spells out move it: ComfyUI's doing.
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

/// `(z - e) w + e` where `w ≠ 1`, else `z`, bit by bit. `z` `[sections, tokens, width]`, `empty` `[1, tokens, width]`, a
/// weight for each token.
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

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Recorded, encoder, recorded, relative_error};
    use super::super::{Family, NoEmbeddings, SD1, chunks};
    use super::*;
    use crate::nn::Weights;

    fn clip(family: Family) -> ClipText {
        ClipText::load(&testing::file(&encoder(64, 3, 192), ""), family).unwrap()
    }

    #[test]
    fn agrees_with_comfyui() {
        let golden = Weights::open(testing::golden("encode.safetensors")).unwrap();
        let (sd1, g_like) = (clip(SD1), clip(Family { layer: Layer::FromEnd(2), norms_hidden: false, pad: 0, ..SD1 }));
        assert_eq!(golden.metadata().len(), 15);
        for (name, how) in golden.metadata() {
            let how: serde_json::Value = serde_json::from_str(how).unwrap();
            let clip = if how["g_like"] == true { &g_like } else { &sd1 };
            let layer =
                how["stop"].as_i64().map_or(clip.family().layer, |stop| Layer::FromEnd(stop.unsigned_abs() as u32));
            let prompt = chunks(how["prompt"].as_str().unwrap(), clip.family().pad, &Recorded).unwrap();
            let found = clip.encode(&prompt, layer).unwrap();
            let errors = [("cond", found.cond), ("pooled", found.pooled)]
                .map(|(part, found)| relative_error(&found, &recorded(&golden, &format!("{name}.{part}"))));
            eprintln!("{name}: cond {:e}, pooled {:e}", errors[0], errors[1]);
            assert!(errors.iter().all(|error| *error < 1e-5), "{name}: {errors:?}");
        }
    }

    #[test]
    fn words_of_weight_one_are_not_touched() {
        let clip = clip(SD1);
        let cond = |text: &str| clip.encode(&chunks(text, END, &NoEmbeddings).unwrap(), Layer::Last).unwrap().cond;
        let (plain, weighted) = (cond("a cat"), cond("a (cat:1.5)"));
        let token = |cond: &Tensor, at: usize| cond.narrow(1, at, 1).unwrap();
        assert_eq!(relative_error(&token(&weighted, 1), &token(&plain, 1)), 0.0);
        assert!(relative_error(&token(&weighted, 2), &token(&plain, 2)) > 0.1);
    }

    #[test]
    fn embeddings_without_effect_are_told() {
        let prompt = chunks("embedding:nope embedding:wide embedding:one", END, &Recorded).unwrap();
        let notices = clip(SD1).encode(&prompt, Layer::Last).unwrap().notices;
        let expected = [
            Notice::NoSuchEmbedding { name: "nope".to_owned() },
            Notice::EmbeddingOfOtherWidth { name: "wide".to_owned(), found: 128, expected: 64 },
        ];
        assert_eq!(notices, expected);
        assert!(notices[0].to_string().contains("`nope`") && notices[1].to_string().contains("128 numbers"));
    }

    #[test]
    fn chunks_of_another_length_are_refused() {
        let mut prompt = chunks("a cat", END, &NoEmbeddings).unwrap();
        prompt.chunks[0].tokens.pop();
        assert!(matches!(clip(SD1).encode(&prompt, Layer::Last), Err(Error::Shape { .. })));
        prompt.chunks.clear();
        let none = clip(SD1).encode(&prompt, Layer::Last).unwrap().cond;
        let empty = clip(SD1).encode(&chunks("", END, &NoEmbeddings).unwrap(), Layer::Last).unwrap().cond;
        assert_eq!(relative_error(&none, &empty), 0.0);
    }
}
