//! Writing networks that are in use, with all that acts on their layers worked in, under the names that they were loaded from. What no
//! adapter changed keeps its bytes; a changed weight is written in single precision, so that the file says what was computed with.

use std::collections::BTreeMap;
use std::io::{self, Write};

use candle_core::{DType, Device};
use serde_json::{Map, Value, json};

use super::save::{MARKERS, Outputs, collect, collect_open_clip, output};
use super::{Layout, TextPlace};
use crate::adapters::{self, Fault, Store};
use crate::error::Result;
use crate::nn::{Effect, Layers, Renamed, Weight, Weights};
use crate::text::{ClipText, Encoders};
use crate::unet::UNet;
use crate::vae::Vae;
use crate::vision::Vision;

/// Networks to be written into one file.
pub struct Networks<'a> {
    /// The architecture, whose names the file gets.
    pub layout: &'static Layout,
    /// The network that predicts the noise.
    pub unet: Option<&'a UNet>,
    /// The text encoders; those that the architecture does not have are left out.
    pub clip: Option<&'a Encoders>,
    /// The autoencoder. A tiny one is left out: no checkpoint holds it.
    pub vae: Option<&'a Vae>,
    /// CLIP's picture half, under the names of transformers.
    pub vision: Option<&'a Vision>,
    /// Whether names begin with the part's place in a checkpoint. Files of one part have them without.
    pub prefixed: bool,
}

/// Tensors that are ready to be written.
pub struct Gathered {
    unet: Option<Weights>,
    /// The whole file that the network is from.
    root: Option<Weights>,
    texts: Vec<(&'static TextPlace, Weights)>,
    vae: Option<(&'static str, Weights)>,
    vision: Option<(&'static str, Weights)>,
    prefixed: bool,
}

impl Networks<'_> {
    /// Works adapters into the weights.
    ///
    /// # Errors
    /// [`Fault::MergeUnsupportedDtype`] for a PaRa on a weight of eight bits, adapters that do not fit, and what reading the files
    /// says.
    pub fn gather(&self) -> Result<Gathered> {
        let unet = self.unet.map(|unet| with_changes(unet, unet.source(), |_| false, str::to_owned));
        let mut texts = Vec::new();
        for encoder in self.clip.map(Encoders::parts).unwrap_or_default() {
            let place = self.layout.texts.iter().find(|place| place.family.id == encoder.family().id);
            if let Some(place) = place {
                texts.push((place, text(encoder, place)?));
            }
        }
        let vae = self.vae.and_then(Vae::source).map(|source| (self.layout.vae_prefix, source.clone()));
        // Where an architecture has no place for it, its names begin with nothing.
        let place = self.layout.vision_prefix.unwrap_or_default();
        let vision = self.vision.map(|vision| (place, picture_half(vision)));
        let root = self.unet.map(|unet| unet.source().whole());
        Ok(Gathered { unet: unet.transpose()?, root, texts, vae, vision, prefixed: self.prefixed })
    }
}

impl Gathered {
    /// Writes a safetensors file with these strings in its header.
    ///
    /// # Errors
    /// Those of `to`, and tensors that cannot be read.
    pub fn write(&self, metadata: &BTreeMap<String, String>, to: &mut dyn Write) -> io::Result<()> {
        let mut outputs = self.outputs().map_err(|error| io::Error::other(error.to_string()))?;
        write_outputs(&mut outputs, metadata, to)
    }

    fn outputs(&self) -> Result<Outputs<'_>> {
        let placed = |prefix: &'static str| if self.prefixed { prefix } else { "" };
        let mut outputs = Outputs::new();
        if let Some(unet) = &self.unet {
            // A network alone keeps its place, by which it is known.
            collect(unet, "model.diffusion_model.", &mut outputs)?;
        }
        for (place, text) in &self.texts {
            match place.open_clip.split_whitespace().next().filter(|_| self.prefixed) {
                Some(prefix) => collect_open_clip(text, prefix, &mut outputs)?,
                None => collect(text, placed(place.prefix), &mut outputs)?,
            }
        }
        for (prefix, part) in self.vae.iter().chain(&self.vision) {
            collect(part, placed(prefix), &mut outputs)?;
        }
        for marker in MARKERS {
            if let Some(root) = self.root.as_ref().filter(|root| root.contains(marker)) {
                outputs.push((marker.to_owned(), output(root, marker)?));
            }
        }
        Ok(outputs)
    }
}

/// Writes a safetensors file: equal tensors and strings give equal bytes.
pub(super) fn write_outputs(
    outputs: &mut Outputs<'_>,
    metadata: &BTreeMap<String, String>,
    to: &mut dyn Write,
) -> io::Result<()> {
    // Wide numbers first, as other writers do it: every tensor lies at a multiple of its width.
    outputs.sort_by(|(a, left), (b, right)| right.dtype.cmp(&left.dtype).then(a.cmp(b)));
    let (mut header, mut end) = (Map::new(), 0);
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    for (name, output) in outputs.iter() {
        let start = end;
        end += output.length();
        let entry = json!({"dtype": output.dtype, "shape": output.shape, "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(header.as_bytes())?;
    outputs.iter().try_for_each(|(_, output)| to.write_all(&output.bytes()))
}

/// What of the file of CLIP's picture half belongs to it.
fn picture_half(vision: &Vision) -> Weights {
    let belongs = |name: &str| {
        name.starts_with("visual_projection.") || (name.starts_with("vision_model.") && !name.ends_with("position_ids"))
    };
    vision.source().renamed(|name| if belongs(name) { vec![Renamed::whole(name)] } else { Vec::new() })
}

/// An encoder's tensors in the names of transformers.
fn text(encoder: &ClipText, place: &TextPlace) -> Result<Weights> {
    let source = encoder.source();
    let nested = source.names().any(|name| name.starts_with("text_model."));
    let inside =
        |name: &str| if name.starts_with("text_projection") { name.to_owned() } else { format!("text_model.{name}") };
    let source = if nested { source.clone() } else { source.renamed(|name| vec![Renamed::whole(inside(name))]) };
    // OpenCLIP's files have queries, keys and values as one tensor, which is of one type.
    let joined = !place.open_clip.is_empty();
    let attends = |layer: &str| joined && ["q_proj", "k_proj", "v_proj"].iter().any(|end| layer.ends_with(end));
    with_changes(encoder, &source, attends, inside)
}

/// A network's tensors as they are now; `along` says which weights are written anew where any is, `key` what the file calls a layer.
fn with_changes<M: Layers + Clone>(
    network: &M,
    source: &Weights,
    along: impl Fn(&str) -> bool,
    key: impl Fn(&str) -> String,
) -> Result<Weights> {
    let weights = adapters::on_layers(network);
    let any = weights.iter().any(|weight| weight.is_changed());
    let mut tensors = Vec::new();
    for weight in weights.iter().filter(|weight| weight.is_changed() || (any && along(weight.layer()))) {
        let name = format!("{}.weight", key(weight.layer()));
        refuse_eight_bits(weight, &source.info(&name).map(|info| info.dtype).unwrap_or_default())?;
        let tensor = weight.effective()?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        // A matrix may be a convolution of one pixel in the file.
        let shape = source.shape(&name).unwrap_or(weight.shape()).to_vec();
        tensors.push((name, tensor.reshape(shape)?, Store::F32));
    }
    if tensors.is_empty() {
        return Ok(source.clone());
    }
    let changed = Weights::from_bytes(source.file(), adapters::write(&tensors, &BTreeMap::new())?)?;
    // A scale beside a weight says to other programs that the weight is of eight bits.
    let is_scale = |name: &str| {
        let layer = name.strip_suffix("scale_weight").or_else(|| name.strip_suffix("scale_input"));
        layer.is_some_and(|layer| changed.contains(&format!("{layer}weight")))
    };
    let rest = source.renamed(|name| if is_scale(name) { Vec::new() } else { vec![Renamed::whole(name)] });
    Ok(Weights::joined(source.file(), &[changed, rest]))
}

/// A PaRa takes directions out of a weight to the last bit. A weight of eight bits could not say so, and one of more bits is no longer
/// the quantised base that the file claims to be.
fn refuse_eight_bits(weight: &Weight, dtype: &str) -> Result<()> {
    if dtype.starts_with("F8") {
        for adapter in weight.history() {
            if matches!(adapter.effect()?, Effect::Removes(_)) {
                let (layer, dtype) = (weight.layer().to_owned(), dtype.to_owned());
                return Err(Fault::MergeUnsupportedDtype { layer, dtype }.into());
            }
        }
    }
    Ok(())
}
