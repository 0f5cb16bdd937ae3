//! Prompts as inputs: text that may name embedding files.

use crate::error::tell;
use candle_core::Tensor;
use paraflow_assets::{Assets, fingerprint};
use paraflow_diffusion::text::{self, Embeddings, read_embedding};
use paraflow_engine::{Given, Input, Mismatch, Services, Textual, Value, Widget};
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

/// A prompt. The embeddings that it names are part of its node's signature.
pub(crate) struct PromptText(String);

impl PromptText {
    /// As the graph writes it.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

/// The vectors that the model folders have under a name for an encoder, `clip_l` for one.
///
/// # Errors
/// An embedding that is there but cannot be read.
pub(crate) fn find_embedding(
    services: &Services,
    encoder: &str,
    name: &str,
) -> paraflow_diffusion::Result<Option<Tensor>> {
    path(services, name).map(|path| read_embedding(path, encoder)).transpose()
}

impl Textual for PromptText {}

impl Input for PromptText {
    const KIND: &'static str = "STRING";

    fn widget(services: &Services) -> Widget {
        String::widget(services)
    }

    fn fingerprint(literal: &Value, services: &Services) -> paraflow_engine::Result<Option<Vec<u8>>> {
        let prompt = literal.get::<String>().map_or("", String::as_str);
        let asked = Asked { services, prints: RefCell::default() };
        text::chunks(prompt, 0, &asked).map_err(tell)?;
        let prints = asked.prints.into_inner();
        Ok((!prints.is_empty()).then_some(prints))
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        String::take(given).map(Self)
    }
}

/// Reads no embedding, but notes the files that a prompt would read.
struct Asked<'a> {
    services: &'a Services,
    prints: RefCell<Vec<u8>>,
}

impl Embeddings for Asked<'_> {
    fn find(&self, name: &str) -> paraflow_diffusion::Result<Option<Tensor>> {
        // A file that cannot be read now is the node's error when it comes to read it.
        let print = path(self.services, name).and_then(|path| fingerprint(&path).ok());
        self.prints.borrow_mut().extend(print.iter().flat_map(|print| *print.as_bytes()));
        Ok(None)
    }
}

/// The file of an embedding, with or without its ending in the name.
fn path(services: &Services, name: &str) -> Option<PathBuf> {
    let models = services.get::<Arc<Assets>>()?.models();
    let endings = ["", ".safetensors", ".pt", ".bin"];
    endings.iter().find_map(|ending| models.find("embeddings", &format!("{name}{ending}")).ok()).map(|model| model.path)
}
