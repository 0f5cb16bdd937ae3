//! From a prompt to rows of 77 tokens with a weight each, as ComfyUI lays them out.

use candle_core::Tensor;

use super::embeddings::Embeddings;
use super::prompt::{self, Segment, parse_weights};
use super::tokenizer::{self, BEGIN, CONTEXT, END};
use crate::error::{Error, Result};

/// What names an embedding in a prompt.
const MARK: &str = "embedding:";
/// A group of fewer tokens moves to the next chunk as a whole where it does not fit; a longer one is split.
const SPLITS_FROM: usize = 8;

/// What the encoder reads at one place.
#[derive(Debug, Clone)]
pub enum Token {
    /// A row of the encoder's table.
    Id(u32),
    /// A vector of an embedding, `[width]`.
    Vector(Tensor),
}

/// What the encoder reads at once: [`CONTEXT`] tokens from [`BEGIN`] on.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// [`BEGIN`], up to 75 of the prompt, [`END`], then the encoder's padding.
    pub tokens: Vec<Token>,
    /// How strongly each counts. 1 for those that the prompt does not have.
    pub weights: Vec<f64>,
}

/// An embedding that a prompt names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its name as it was looked up.
    pub name: String,
    /// Length of its vectors; `None` where there is no embedding of that name, which is then left out.
    pub width: Option<usize>,
}

/// A prompt, ready to be encoded.
#[derive(Debug, Clone)]
pub struct Chunks {
    /// At least one, the only one for an empty prompt.
    pub chunks: Vec<Chunk>,
    /// The embeddings that it names, found or not, in their order.
    pub references: Vec<Reference>,
}

/// Tokens that stay together where they can: a stretch of equal weight, or an embedding.
type Group = Vec<(Token, f64)>;

/// Reads a prompt: weights, embeddings, tokens, chunks. `pad` fills what a chunk has left after its [`END`].
///
/// # Errors
/// [`Error::PromptWeight`] for a weight that is infinite or no number, [`Error::Shape`] for an embedding that is no list of
/// vectors, and what [`Embeddings::find`] says.
pub fn chunks(prompt: &str, pad: u32, embeddings: &dyn Embeddings) -> Result<Chunks> {
    chunks_without(prompt, pad, embeddings, None)
}

/// The same without one of the stretches that a prompt falls into: those of equal weight, cut again where an embedding begins and
/// where it ends, counted from 1. The others stay in their chunks and move up, and a chunk's last token fills what it has left.
///
/// # Errors
/// As [`chunks`].
pub fn chunks_without(prompt: &str, pad: u32, embeddings: &dyn Embeddings, stretch: Option<usize>) -> Result<Chunks> {
    let mut reader = Reader { embeddings, groups: Vec::new(), references: Vec::new() };
    for segment in parse_weights(prompt) {
        reader.read(&segment)?;
    }
    let number = |(index, group): (usize, Group)| {
        let stays = stretch != Some(index + 1);
        group.into_iter().map(|token| (token, stays)).collect::<Vec<_>>()
    };
    let groups = reader.groups.into_iter().enumerate().map(number).collect();
    let close = |group: Vec<((Token, f64), bool)>| {
        let (group, stays): (Group, Vec<bool>) = group.into_iter().unzip();
        let chunk = close(group, pad);
        if stays.iter().all(|stays| *stays) { chunk } else { without(chunk, &stays) }
    };
    Ok(Chunks { chunks: lay_out(groups).into_iter().map(close).collect(), references: reader.references })
}

struct Reader<'a> {
    embeddings: &'a dyn Embeddings,
    groups: Vec<Group>,
    references: Vec<Reference>,
}

impl Reader<'_> {
    fn read(&mut self, segment: &Segment) -> Result<()> {
        if !segment.weight.is_finite() {
            return Err(Error::PromptWeight { text: segment.text.clone(), weight: segment.weight });
        }
        for part in split_at_embeddings(&segment.text) {
            let rest = match part.strip_prefix(MARK) {
                Some(reference) => self.read_embedding(reference, segment.weight)?,
                None => part.to_owned(),
            };
            if rest.is_empty() {
                continue;
            }
            let tokens = tokenizer::tokens(&rest).into_iter();
            self.groups.push(tokens.map(|token| (Token::Id(token), segment.weight)).collect());
        }
        Ok(())
    }

    /// Reads what follows `embedding:` and returns the text after the name. A name may have commas around it that are not
    /// part of it: as many characters as they are then count as text again, from the name's end.
    fn read_embedding(&mut self, reference: &str, weight: f64) -> Result<String> {
        let mut words = reference.split(prompt::is_python_space).filter(|word| !word.is_empty());
        let name = words.next().unwrap_or_default();
        let rest = words.collect::<Vec<_>>().join(" ");
        if self.add(name, weight)? {
            return Ok(rest);
        }
        let bare = name.trim_matches(',');
        let found = bare.len() < name.len() && self.add(bare, weight)?;
        if !found {
            self.references.push(Reference { name: bare.to_owned(), width: None });
        }
        let commas = &name[name.char_indices().nth(bare.chars().count()).map_or(name.len(), |(at, _)| at)..];
        let tail = [commas, &rest].into_iter().filter(|text| !text.is_empty());
        Ok(tail.collect::<Vec<_>>().join(" "))
    }

    /// Adds the vectors of a name as a group, if it has any.
    fn add(&mut self, name: &str, weight: f64) -> Result<bool> {
        if name.is_empty() {
            return Ok(false);
        }
        let Some(vectors) = self.embeddings.find(name)? else {
            return Ok(false);
        };
        let vectors = match vectors.rank() {
            1 => vectors.unsqueeze(0)?,
            2 => vectors,
            _ => {
                return Err(Error::Shape {
                    layer: format!("{MARK}{name}"),
                    expected: "[vectors, width]".to_owned(),
                    found: vectors.dims().to_vec(),
                });
            }
        };
        let (count, width) = vectors.dims2()?;
        let group = (0..count).map(|row| Ok((Token::Vector(vectors.get(row)?), weight)));
        self.groups.push(group.collect::<Result<_>>()?);
        self.references.push(Reference { name: name.to_owned(), width: Some(width) });
        Ok(true)
    }
}

/// Cuts a text before every `embedding:` that follows a space or the end of a line, or begins the text.
fn split_at_embeddings(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(MARK) {
        // The mark may come twice in a row; the space before it must lie within what is left.
        if at > start && text[start..at].ends_with([' ', '\n']) {
            parts.push(&text[start..at - 1]);
            start = at;
        }
    }
    parts.push(&text[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Fills chunks with groups, without what every chunk has around its tokens.
fn lay_out<T>(groups: Vec<Vec<T>>) -> Vec<Vec<T>> {
    /// Room for a prompt's tokens in a chunk.
    const ROOM: usize = CONTEXT - 2;
    let mut chunks = vec![Vec::new()];
    for group in groups {
        let splits = group.len() >= SPLITS_FROM;
        let mut rest = group.into_iter();
        while rest.len() > 0 {
            let chunk = chunks.last_mut().expect("there is one from the start");
            let left = ROOM - chunk.len();
            if rest.len() <= left || splits {
                chunk.extend(rest.by_ref().take(left));
            }
            if rest.len() > 0 {
                chunks.push(Vec::new());
            }
        }
    }
    chunks
}

/// Puts the tokens around a chunk that every chunk has.
fn close(group: Group, pad: u32) -> Chunk {
    let plain = |id| (Token::Id(id), 1.0);
    let all =
        std::iter::once(plain(BEGIN)).chain(group).chain([plain(END)]).chain(std::iter::repeat_with(|| plain(pad)));
    let (tokens, weights) = all.take(CONTEXT).unzip();
    Chunk { tokens, weights }
}

/// A chunk with only those of the prompt's tokens that stay.
fn without(chunk: Chunk, stays: &[bool]) -> Chunk {
    let Chunk { mut tokens, mut weights } = chunk;
    let (last, last_weight) = (tokens.last().cloned(), weights.last().copied());
    // The first token is the chunk's own, and so are those after the prompt's.
    let mut stay = std::iter::once(&true).chain(stays).chain(std::iter::repeat(&true));
    tokens.retain(|_| *stay.next().unwrap_or(&true));
    let mut stay = std::iter::once(&true).chain(stays).chain(std::iter::repeat(&true));
    weights.retain(|_| *stay.next().unwrap_or(&true));
    if let (Some(last), Some(weight)) = (last, last_weight) {
        tokens.resize(CONTEXT, last);
        weights.resize(CONTEXT, weight);
    }
    Chunk { tokens, weights }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{self, Recorded};
    use super::*;

    /// A token as the recordings spell it: its number, or `name/row` for a vector.
    fn named(token: &Token) -> Value {
        let vector: Vec<f32> = match token {
            Token::Id(id) => return json!(id),
            Token::Vector(vector) => vector.to_vec1().unwrap(),
        };
        for name in ["one", "three", "nine", "wide", "flat", "many", "a-b_c.1"] {
            let all = Recorded.find(name).unwrap().unwrap();
            let width = all.dims().last().copied().unwrap();
            let all: Vec<f32> = all.flatten_all().unwrap().to_vec1().unwrap();
            if let Some(row) = all.chunks(width).position(|row| row == vector) {
                return json!(format!("{name}/{row}"));
            }
        }
        panic!("an unknown vector")
    }

    fn read(prompt: &str) -> Chunks {
        chunks(prompt, END, &Recorded).unwrap()
    }

    #[test]
    fn agrees_with_comfyui() {
        let cases = testing::cases("prompts.json");
        assert!(cases.len() > 200);
        for case in cases {
            let prompt = case["prompt"].as_str().unwrap();
            let pad = case["pad"].as_u64().unwrap() as u32;
            let segments: Vec<_> = parse_weights(prompt).into_iter().map(|s| (s.text, s.weight)).collect();
            assert_eq!(json!(segments), case["segments"], "{prompt:?}");
            let found = chunks(prompt, pad, &Recorded).unwrap().chunks;
            let expected = case["chunks"].as_array().unwrap();
            assert_eq!(found.len(), expected.len(), "{prompt:?}");
            for (found, expected) in found.iter().zip(expected) {
                let mut tokens: Vec<Value> = found.tokens.iter().map(named).collect();
                assert_eq!((tokens.len(), found.weights.len()), (CONTEXT, CONTEXT));
                // The recordings leave out the padding.
                let padding = tokens.split_off(expected["tokens"].as_array().unwrap().len());
                assert!(padding.iter().all(|token| *token == json!(pad)), "{prompt:?}");
                let (weights, of_padding) = found.weights.split_at(tokens.len());
                assert!(of_padding.iter().all(|weight| *weight == 1.0), "{prompt:?}");
                assert_eq!(json!(tokens), expected["tokens"], "{prompt:?}");
                assert_eq!(json!(weights), expected["weights"], "{prompt:?}");
            }
        }
    }

    #[test]
    fn tells_which_embeddings_were_found() {
        let reference = |name: &str, width| Reference { name: name.to_owned(), width };
        let references =
            read("a embedding:one, embedding:nope, (embedding:wide:1.2) embedding:three,x embedding:").references;
        let expected = [("one", Some(64)), ("nope", None), ("wide", Some(128)), ("three,x", None), ("", None)];
        assert_eq!(references, expected.map(|(name, width)| reference(name, width)));
    }

    /// The recordings of `tests/golden/photomaker.py` have ComfyUI's word for whole prompts.
    #[test]
    fn a_stretch_is_left_out_and_the_rest_moves_up() {
        let tokens = |prompt: &str, pad: u32, stretch: usize| {
            let chunks = chunks_without(prompt, pad, &Recorded, Some(stretch)).unwrap().chunks;
            assert!(chunks.iter().all(|chunk| (chunk.tokens.len(), chunk.weights.len()) == (CONTEXT, CONTEXT)));
            chunks.iter().map(|chunk| chunk.tokens.iter().map(named).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        let plain = |prompt: &str, pad: u32| tokens(prompt, pad, 9);
        assert_eq!(tokens("a (red) bear", 0, 2), plain("a bear", 0));
        assert_eq!(tokens("a (red) bear", END, 4), plain("a red bear", END));
        // An embedding is a stretch, and nothing is one behind it where nothing follows.
        assert_eq!(tokens("a embedding:three (bear)", END, 2), plain("a bear", END));
        assert_eq!(tokens("a embedding:three (bear)", END, 3), plain("a embedding:three", END));
        assert_eq!(tokens("a embedding:nope, (bear)", END, 3), plain("a ,", END));
        let weights = &chunks_without("a (red:1.5) (bear:1.2)", END, &Recorded, Some(2)).unwrap().chunks[0].weights;
        assert_eq!(weights[..4], [1.0, 1.0, 1.2, 1.0]);
        // A full chunk has no padding, so its end fills what it has left.
        let full = tokens(&format!("(bear) {}", "cat ".repeat(74)), 0, 1);
        assert_eq!((&full[0][74..], full.len()), (&[json!(2368), json!(END), json!(END)][..], 1));
    }

    #[test]
    fn refuses_weights_that_are_no_numbers() {
        for prompt in ["(a:nan)", "b (a:-inf)", "(a:1e999)"] {
            let error = chunks(prompt, END, &Recorded).unwrap_err();
            assert!(matches!(&error, Error::PromptWeight { text, .. } if text == "a"), "{error}");
        }
    }

    #[test]
    fn refuses_an_embedding_that_is_no_list_of_vectors() {
        struct Cube;
        impl Embeddings for Cube {
            fn find(&self, _: &str) -> Result<Option<Tensor>> {
                Ok(Some(Tensor::zeros((2, 2, 2), candle_core::DType::F32, &candle_core::Device::Cpu)?))
            }
        }
        assert!(matches!(chunks("embedding:x", END, &Cube), Err(Error::Shape { .. })));
    }
}
