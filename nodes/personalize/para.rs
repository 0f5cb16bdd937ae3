//! PaRa files.

use super::save;
use super::wires::Para;
use crate::error::{Error, tell};
use crate::files::{Folder, ModelName, Place};
use paraflow_diffusion::adapters::{self, Store};
use paraflow_diffusion::nn::Weights;
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared, Sink};
use std::path::Path;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<PaRaLoad>(), NodeDef::of::<PaRaSave>()]
}

/// `models/loras`, where PaRas lie beside LoRAs, as other programs look for neither by content.
pub(crate) struct Loras;

impl Folder for Loras {
    const KEY: &'static str = "loras";
}

/// Loads a PaRa from `models/loras` or `output/loras`: a file of ours, or PEFT's `adapter_model.safetensors` beside its
/// `adapter_config.json`.
#[derive(Node)]
#[node(category = "personalize", display_name = "PaRa: Load")]
struct PaRaLoad {
    /// The file.
    para_name: ModelName<Loras>,
    /// Whether to leave out directions that depend on others instead of refusing the file.
    #[input(default = false)]
    repair: bool,
}

impl Run for PaRaLoad {
    type Output = Para;

    fn run(self, cx: &Context<'_>) -> Result<Para> {
        let place = self.para_name.find(cx.services()).map_err(tell)?;
        let read = read(&place, self.repair).map_err(tell)?;
        if !read.unknown.is_empty() {
            cx.warn(format!("{} tensors were not used:\n{}", read.unknown.len(), adapters::table(&read.unknown)));
        }
        read.notes.into_iter().for_each(|note| cx.warn(note));
        Ok(Para(read.para))
    }
}

/// Opens an adapter's file.
pub(crate) fn open(place: &Place) -> Result<Weights, Error> {
    Ok(match place {
        Place::File(model) => Weights::open(&model.path)?,
        Place::Embedded(model) => Weights::from_bytes(model.name, model.file()?)?,
    })
}

fn read(place: &Place, repair: bool) -> Result<adapters::Read, Error> {
    let file = open(place)?;
    if let Place::File(model) = place
        && let Some(config) = peft_config(&model.path)?
    {
        return Ok(adapters::Para::read_peft(&file, &config, repair)?);
    }
    Ok(adapters::Para::read(&file, repair)?)
}

/// PEFT's settings, for a file of PEFT's name.
fn peft_config(path: &Path) -> Result<Option<serde_json::Value>, Error> {
    if path.file_name().is_none_or(|name| name != "adapter_model.safetensors") {
        return Ok(None);
    }
    let path = path.with_file_name("adapter_config.json");
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read(&path).map_err(|source| paraflow_assets::Error::Read { path: path.clone(), source })?;
    let parsed = serde_json::from_slice(&text).map_err(|error| Error::Unfit {
        what: "adapter_config.json",
        expected: "JSON".to_owned(),
        found: error.to_string(),
    })?;
    Ok(Some(parsed))
}

/// Saves a PaRa with all that is known of its making, and with this graph.
#[derive(Node)]
#[node(category = "personalize", display_name = "PaRa: Save", sink)]
struct PaRaSave {
    /// What to save.
    para: Shared<Para>,
    /// What the file's name begins with; `a/b` saves into folder `a`.
    #[input(default = "loras/para")]
    filename_prefix: String,
    /// The type of its numbers.
    #[input(choices = ["f32", "f16"], default = "f32")]
    dtype: Choice<Store>,
}

impl Run for PaRaSave {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let mut para = self.para.0.clone();
        para.metadata.insert("paraflow.prompt".to_owned(), cx.prompt().to_string());
        para.metadata.insert("paraflow.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        save(cx, &self.filename_prefix, &para.to_file(*self.dtype).map_err(tell)?).map_err(tell)
    }
}
