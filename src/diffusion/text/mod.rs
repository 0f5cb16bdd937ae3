//! From a prompt to the tensors that steer a UNet: prompt syntax, byte-pair tokens, chunks, CLIP's text encoder.
//!
//! [`chunks`] reads a prompt as ComfyUI does (weights, nesting, `embedding:name`) into rows of 77 tokens, and
//! [`ClipText::encode`] turns these into a conditioning. Knows no folders: a caller finds embeddings by name
//! ([`Embeddings`]), and [`read_embedding`] reads their files.

mod bpe;
mod chunks;
mod clip;
mod embeddings;
mod encode;
mod encoders;
mod prompt;
#[cfg(test)]
mod testing;
mod tokenizer;

pub use bpe::vocabulary;
pub use chunks::{Chunk, Chunks, Reference, Token, chunks, chunks_without};
pub use clip::{Activation, ClipText, Family, Layer, SD1, SD2, SDXL_G, SDXL_L};
pub use embeddings::{Embeddings, NoEmbeddings, read_embedding};
pub use encode::{Encoded, Notice};
pub use encoders::{Encoders, FindEmbedding};
pub use prompt::{Segment, parse_weights};
pub use tokenizer::{BEGIN, CONTEXT, END, spell, tokens};
