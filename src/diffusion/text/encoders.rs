//! The text encoders of a model as one: most have one, SDXL has two side by side.

use candle_core::{D, Tensor};

use super::chunks::{Chunks, chunks, chunks_without};
use super::clip::{ClipText, Layer};
use super::embeddings::{Embeddings, NoEmbeddings};
use super::encode::Encoded;
use crate::error::Result;

/// Finds an embedding by the encoder that it is for and its name, as [`Embeddings::find`] does by the name alone.
pub type FindEmbedding<'a> = &'a dyn Fn(&str, &str) -> Result<Option<Tensor>>;

/// One text encoder or more. Cheap to clone; clones share the weights.
#[derive(Clone)]
pub struct Encoders(Vec<ClipText>);

impl Encoders {
    /// Encoders side by side, in the order in which their vectors are joined.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn new(parts: Vec<ClipText>) -> Self {
        assert!(!parts.is_empty(), "a model without text encoder has no `Encoders`");
        Self(parts)
    }

    /// Each of them.
    #[must_use]
    pub fn parts(&self) -> &[ClipText] {
        &self.0
    }

    /// The encoder of that name, `clip_g` for one.
    #[must_use]
    pub fn part(&self, id: &str) -> Option<&ClipText> {
        self.0.iter().find(|part| part.family().id == id)
    }

    /// The same with every encoder changed, an adapter put on it for one.
    ///
    /// # Errors
    /// What `change` says.
    pub fn map<E>(&self, change: impl FnMut(&ClipText) -> Result<ClipText, E>) -> Result<Self, E> {
        self.0.iter().map(change).collect::<Result<_, E>>().map(Self)
    }

    /// The layer that the family of models was trained on.
    #[must_use]
    pub fn layer(&self) -> Layer {
        self.0[0].family().layer
    }

    /// Length of the vectors that they make together.
    #[must_use]
    pub fn width(&self) -> usize {
        self.0.iter().map(ClipText::width).sum()
    }

    /// Encodes a prompt with every encoder.
    ///
    /// # Errors
    /// What [`chunks`] and [`ClipText::encode`] say.
    pub fn encode(&self, prompt: &str, layer: Layer, embeddings: FindEmbedding<'_>) -> Result<Encoded> {
        let prompts: Vec<&str> = self.0.iter().map(|_| prompt).collect();
        self.encode_each(&prompts, layer, embeddings, false)
    }

    /// Encodes a prompt of its own with each encoder. Where one comes to fewer chunks than another, `fill` adds empty ones;
    /// without it the rest of the longer is cut off.
    ///
    /// The vectors are joined token by token; what sums up the prompt is the last encoder's.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_each(
        &self,
        prompts: &[&str],
        layer: Layer,
        embeddings: FindEmbedding<'_>,
        fill: bool,
    ) -> Result<Encoded> {
        let read = |(part, prompt): (&ClipText, &&str)| {
            let family = part.family();
            chunks(prompt, family.pad, &Of { encoder: family.id, find: embeddings })
        };
        let mut read: Vec<Chunks> = self.0.iter().zip(prompts).map(read).collect::<Result<_>>()?;
        let longest = read.iter().map(|chunks| chunks.chunks.len()).max().unwrap_or(1);
        for (chunks_of_part, part) in read.iter_mut().zip(&self.0).filter(|_| fill) {
            let empty = chunks("", part.family().pad, &NoEmbeddings)?;
            while chunks_of_part.chunks.len() < longest {
                chunks_of_part.chunks.extend(empty.chunks.iter().cloned());
            }
        }
        self.encode_chunks(&read, layer)
    }

    /// Encodes a prompt without one of its stretches of words, as [`chunks_without`] counts them.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_without(
        &self,
        prompt: &str,
        stretch: Option<usize>,
        layer: Layer,
        embeddings: FindEmbedding<'_>,
    ) -> Result<Encoded> {
        let read = |part: &ClipText| {
            let family = part.family();
            chunks_without(prompt, family.pad, &Of { encoder: family.id, find: embeddings }, stretch)
        };
        let read: Vec<Chunks> = self.0.iter().map(read).collect::<Result<_>>()?;
        self.encode_chunks(&read, layer)
    }

    /// Each encoder's own chunks.
    fn encode_chunks(&self, read: &[Chunks], layer: Layer) -> Result<Encoded> {
        let encoded = self.0.iter().zip(read).map(|(part, chunks)| part.encode(chunks, layer));
        join(encoded.collect::<Result<_>>()?)
    }
}

/// The embeddings for one encoder.
struct Of<'a> {
    encoder: &'static str,
    find: FindEmbedding<'a>,
}

impl Embeddings for Of<'_> {
    fn find(&self, name: &str) -> Result<Option<Tensor>> {
        (self.find)(self.encoder, name)
    }
}

/// Vectors side by side, as many tokens as the shortest has.
fn join(mut parts: Vec<Encoded>) -> Result<Encoded> {
    let last = parts.pop().expect("there is an encoder");
    if parts.is_empty() {
        return Ok(last);
    }
    parts.push(last);
    let mut tokens = usize::MAX;
    for part in &parts {
        tokens = tokens.min(part.cond.dim(1)?);
    }
    let conds = parts.iter().map(|part| Ok(part.cond.narrow(1, 0, tokens)?)).collect::<Result<Vec<_>>>()?;
    let mut notices = Vec::new();
    for notice in parts.iter().flat_map(|part| &part.notices) {
        if !notices.contains(notice) {
            notices.push(notice.clone());
        }
    }
    let pooled = parts.last().expect("pushed above").pooled.clone();
    Ok(Encoded { cond: Tensor::cat(&conds, D::Minus1)?, pooled, notices })
}
