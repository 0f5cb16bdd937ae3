//! PaRa files.

use super::wires::Para;
use super::{origin, save};
use crate::error::{Error, tell};
use crate::files::{FilenamePrefix, Folder, ModelName, Place};
use paraflow_diffusion::adapters::{self, LoraModel, Store, Unmatched};
use paraflow_diffusion::nn::Weights;
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared, Sink};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<PaRaLoad>(), NodeDef::of::<PaRaSave>()]
}

/// `models/loras`, where PaRas lie beside LoRAs, as other programs look for neither by content.
pub(crate) struct Loras;

impl Folder for Loras {
    const KEY: &'static str = "loras";
}

/// The same, and `models/para`.
pub(crate) struct Paras;

impl Folder for Paras {
    const KEY: &'static str = Loras::KEY;
    const ALSO: Option<&'static str> = Some("para");
}

/// Loads a PaRa from `models/para`, `models/loras` or `output/loras`: a file of ours, or PEFT's `adapter_model.safetensors` beside its
/// `adapter_config.json`.
#[derive(Node)]
#[node(category = "personalize", display_name = "Load PaRa")]
struct PaRaLoad {
    /// The file.
    para_name: ModelName<Paras>,
    /// Whether to leave out directions that depend on others instead of refusing the file.
    #[input(default = false)]
    repair: bool,
}

impl Run for PaRaLoad {
    type Output = Para;

    fn run(self, cx: &Context<'_>) -> Result<Para> {
        let place = self.para_name.find(cx.services()).map_err(tell)?;
        let (para, unknown, notes) = read(&place, self.repair).map_err(tell)?;
        if !unknown.is_empty() {
            cx.warn(format!("{} tensors were not used:\n{}", unknown.len(), adapters::table(&unknown)));
        }
        notes.into_iter().for_each(|note| cx.warn(note));
        Ok(para)
    }
}

/// Opens an adapter's file.
pub(crate) fn open(place: &Place) -> Result<Weights, Error> {
    Ok(match place {
        Place::File(model) => Weights::open(&model.path)?,
        Place::Embedded(model) => Weights::from_bytes(model.name, model.file()?)?,
    })
}

/// A PaRa, what of its file is none, and what was repaired.
type Found = (Para, Vec<Unmatched>, Vec<String>);

fn read(place: &Place, repair: bool) -> Result<Found, Error> {
    let file = open(place)?;
    // What `release` and `deft` gave is a LoRA, and says where it came from.
    if file.metadata().get("para.mode").is_some_and(|mode| mode == "release" || mode == "deft") {
        let (lora, unknown) = LoraModel::read(&file)?;
        return Ok((Para::Free(lora), unknown, Vec::new()));
    }
    let read = match peft_config(place)? {
        Some(config) => adapters::Para::read_peft(&file, &config, repair)?,
        None => adapters::Para::read(&file, repair)?,
    };
    Ok((Para::Projection(read.para), read.unknown, read.notes))
}

/// PEFT's settings, for a file of PEFT's name.
pub(crate) fn peft_config(place: &Place) -> Result<Option<serde_json::Value>, Error> {
    let Place::File(model) = place else { return Ok(None) };
    if model.path.file_name().is_none_or(|name| name != "adapter_model.safetensors") {
        return Ok(None);
    }
    let path = model.path.with_file_name("adapter_config.json");
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
///
/// What `release` and `deft` train is written as the LoRA that it is, which other programs load as well.
#[derive(Node)]
#[node(category = "personalize", display_name = "Save PaRa", sink)]
struct PaRaSave {
    /// What to save.
    para: Shared<Para>,
    /// What the file's name begins with; `a/b` saves into folder `a`.
    #[input(default = "loras/para")]
    filename_prefix: FilenamePrefix,
    /// The type of its numbers.
    #[input(choices = ["f32", "f16"], default = "f32")]
    dtype: Choice<Store>,
}

impl Run for PaRaSave {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let origin = origin(cx);
        let file = match &*self.para {
            Para::Projection(para) => {
                let mut para = para.clone();
                para.metadata.extend(origin);
                para.to_file(*self.dtype)
            }
            Para::Free(lora) => {
                let mut lora = lora.clone();
                lora.metadata.extend(origin);
                lora.of_one_rank().and_then(|lora| lora.to_file(None, *self.dtype))
            }
        };
        save(cx, &self.filename_prefix, &file.map_err(tell)?).map_err(tell)
    }
}
