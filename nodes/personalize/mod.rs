//! Adapters: loading, saving, putting them on a model, combining them.

mod apply;
mod combine;
mod lora;
mod para;
mod report;
mod svdiff;
#[cfg(test)]
mod tests;
pub(crate) mod wires;

pub(crate) use self::apply::put;
pub(crate) use self::lora::load_lora;
pub(crate) use self::para::{Loras, open};

use crate::error::Error;
use crate::wires::{Clip, Model};
use paraflow_assets::Assets;
use paraflow_diffusion::adapters::{Fault, Names, Part, Placement, table};
use paraflow_engine::{Context, NodeDef, Sink};
use serde_json::json;
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    [apply::nodes(), combine::nodes(), lora::nodes(), para::nodes(), report::nodes(), svdiff::nodes()].concat()
}

/// What to do with parts of a file that fit no layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Stop.
    Error,
    /// Warn, and stop only when nothing fits.
    Ignore,
}

impl std::str::FromStr for Strictness {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "error" => Ok(Self::Error),
            "ignore" => Ok(Self::Ignore),
            _ => Err("no such way"),
        }
    }
}

impl Model {
    /// The layers that adapters may act on.
    pub(crate) fn names(&self, clip: Option<&Clip>) -> Names {
        Names::of(&self.unet, clip.and_then(|clip| clip.encoders().ok()))
    }

    /// This model with adapters on its layers; the weights are shared.
    pub(crate) fn with_adapters(&self, placement: &Placement) -> Result<Self, Error> {
        let unet = placement.attach(Part::Unet, &self.unet)?;
        Ok(Self { unet, bytes: baked_bytes(placement, &self.unet, Part::Unet), ..self.clone() })
    }
}

/// Memory of the weights that adapters had worked into them.
fn baked_bytes<M: paraflow_diffusion::nn::Layers + Clone>(placement: &Placement, network: &M, part: Part) -> usize {
    let baked = placement.placed.iter().filter(|placed| placed.part == part && !placed.adapter.acts_beside());
    let baked: Vec<&str> = baked.map(|placed| placed.layer.as_str()).collect();
    let layers = paraflow_diffusion::nn::layers(network);
    let of = layers.iter().filter(|(name, _)| baked.contains(&name.as_str()));
    of.map(|(_, shape)| shape.iter().product::<usize>() * size_of::<f32>()).sum()
}

/// Warns of parts that were not used, or refuses the file.
pub(crate) fn settle(placement: &Placement, strictness: Strictness, cx: &Context<'_>) -> Result<(), Error> {
    let told = |fault: Fault| Error::from(paraflow_diffusion::Error::from(fault));
    placement.require(strictness == Strictness::Ignore).map_err(told)?;
    if !placement.unmatched.is_empty() {
        let (missed, parts) = (placement.unmatched.len(), placement.parts);
        cx.warn(format!("{missed} of {parts} parts of the adapter were not used:\n{}", table(&placement.unmatched)));
    }
    placement.notes.iter().for_each(|note| cx.warn(note.clone()));
    Ok(())
}

/// What every saved adapter says of the program and the graph that it came from.
pub(crate) fn origin(cx: &Context<'_>) -> [(String, String); 2] {
    [("paraflow.prompt", cx.prompt().to_string()), ("paraflow.version", env!("CARGO_PKG_VERSION").to_owned())]
        .map(|(key, value)| (key.to_owned(), value))
}

/// Saves a file below the output folder and tells where.
pub(crate) fn save(cx: &Context<'_>, prefix: &str, bytes: &[u8]) -> Result<Sink, Error> {
    let outputs = cx.service::<Arc<Assets>>().outputs();
    let saved = outputs.series(prefix, (0, 0))?.save("safetensors", |file| file.write_all(bytes))?;
    let place = saved.place.as_str();
    Ok(Sink(json!({"files": [{"filename": saved.filename, "subfolder": saved.subfolder, "type": place}]})))
}
