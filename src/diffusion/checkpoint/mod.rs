//! Checkpoints: which architecture a file holds, told from its keys and shapes, and the parts that it has.
//!
//! A layout is a file beside this one and a row in [`LAYOUTS`]. What is recognised but not loaded is named in the error
//! (`recognise`), and any safetensors file can be summed up ([`inspect`]). Knows no folders.

mod diffusers;
mod inspect;
mod open_clip;
mod pipeline;
mod recognise;
mod save;
mod save_parts;
mod sd1;
mod sd2;
mod sdxl;
mod upscaler;
mod zero123;

use std::path::Path;
use std::sync::Arc;

use candle_core::DType;

pub use diffusers::{
    Component, diffusers_files, open_folder, to_diffusers, unet_to_latent_diffusion, vae_to_latent_diffusion,
};
pub use inspect::{Part, Summary, inspect, is_adapter};
pub use open_clip::{from_open_clip, is_open_clip, text_encoder};
pub(crate) use save::write_tensors;
pub use save::{write_folder, write_single};
pub use save_parts::{Gathered, Networks};

use crate::error::{Error, Result};
use crate::guidance::Label;
use crate::nn::{Compute, Kept, Linear, Renamed, Weights};
use crate::preview::Colours;
use crate::schedule::{Betas, ModelSampling, Prediction};
use crate::text::{self, ClipText, Encoders};
use crate::unet::{self, UNet};
use crate::vae::Vae;
use crate::vision::Vision;

/// What single-file checkpoints put before the keys of their UNet, likeliest first; the last is a file that is only a UNet.
const UNET_PREFIXES: [&str; 4] = ["model.diffusion_model.", "model.model.", "net.", ""];

/// An architecture that is loaded: how its files are told from others, and what their tensors do not say.
#[derive(Debug)]
pub struct Layout {
    /// A short name for files and scripts: `sd1`.
    pub id: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// What the autoencoder's latents are multiplied by before the UNet sees them.
    pub latent_scale: f64,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Pixels of a picture's side for one cell of a latent.
    pub cell: usize,
    /// How its noise levels follow from each other, where they are a ladder.
    pub betas: Betas,
    /// How its latents look in a preview.
    pub colours: Colours,
    /// What the UNet is told beside the prompt.
    pub label: Option<Label>,
    /// Its text encoders, in the order in which their vectors are joined.
    texts: &'static [TextPlace],
    /// Where its files keep the autoencoder.
    vae_prefix: &'static str,
    /// Where its files keep CLIP's picture half, if they have one.
    vision_prefix: Option<&'static str>,
    /// A layer beside the networks that makes prompts of what models of this architecture are told, by which their files are known.
    projection: Option<&'static str>,
    /// Whether a UNet is of this architecture.
    fits: fn(&unet::Config) -> bool,
}

/// Where the files of an architecture keep a text encoder.
#[derive(Debug)]
struct TextPlace {
    /// How it is used.
    family: text::Family,
    /// Prefix of the layout of transformers.
    prefix: &'static str,
    /// Prefixes of OpenCLIP's layout, with spaces between them.
    open_clip: &'static str,
}

/// Every architecture that is loaded.
pub static LAYOUTS: &[Layout] =
    &[sd1::LAYOUT, sd2::LAYOUT, sd2::UNCLIP, sdxl::REFINER, sdxl::BASE, upscaler::LAYOUT, zero123::LAYOUT];

impl Layout {
    /// The architecture of that short name.
    #[must_use]
    pub fn find(id: &str) -> Option<&'static Self> {
        LAYOUTS.iter().find(|layout| layout.id == id)
    }

    /// The architecture of a file with such a UNet.
    fn of(weights: &Weights, config: &unet::Config) -> Option<&'static Self> {
        let fitting = || LAYOUTS.iter().filter(|layout| !config.temporal && (layout.fits)(config));
        let has = |name| ["weight", "bias"].iter().all(|tensor| weights.whole().at(name).contains(tensor));
        let by_layer = fitting().find(|layout| layout.projection.is_some_and(has));
        by_layer.or_else(|| fitting().find(|layout| layout.projection.is_none()))
    }

    /// How the text encoders are used, in the order in which their vectors are joined.
    pub fn text_families(&self) -> impl Iterator<Item = text::Family> {
        self.texts.iter().map(|place| place.family)
    }
}

/// A checkpoint file: an architecture and its parts. Opening reads the header only.
#[derive(Clone)]
pub struct Checkpoint {
    weights: Weights,
    layout: &'static Layout,
    config: unet::Config,
    unet_prefix: &'static str,
    compute: Compute,
}

impl Checkpoint {
    /// Maps a file and recognises its architecture.
    ///
    /// # Errors
    /// What [`Weights::open`] says of the file; [`Error::UnknownModel`] for an architecture that is not loaded;
    /// [`Error::MissingPart`] for a file that has no UNet.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_weights(Weights::open(path)?)
    }

    /// The same for a file that is in memory, as an embedded model is.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Result<Self> {
        Self::from_weights(Weights::from_bytes(name, bytes)?)
    }

    /// The same for an opened file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_weights(weights: Weights) -> Result<Self> {
        let Some((unet_prefix, config)) = find_unet(&weights)? else {
            return Err(recognise::no_unet(&weights));
        };
        match Layout::of(&weights, &config) {
            Some(layout) => {
                let compute = weights.compute().clone();
                Ok(Self { weights: weights.on(&compute.for_texts()), layout, config, unet_prefix, compute })
            }
            None => Err(recognise::unknown_unet(&weights, &config)),
        }
    }

    /// The same checkpoint whose networks compute elsewhere or in other numbers. Text encoders stay on the CPU and compute in single
    /// precision, because they run once a prompt and everything follows from them.
    #[must_use]
    pub fn on(&self, compute: &Compute) -> Self {
        Self { compute: compute.clone(), ..self.clone() }
    }

    /// Its architecture.
    #[must_use]
    pub fn layout(&self) -> &'static Layout {
        self.layout
    }

    /// Its UNet's measures.
    #[must_use]
    pub fn config(&self) -> &unet::Config {
        &self.config
    }

    /// All its tensors, in the file's names.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The tensors of the network that predicts the noise, and of no other part.
    #[must_use]
    pub fn unet_weights(&self) -> Weights {
        self.weights.part(self.unet_prefix)
    }

    /// The tensors of the autoencoder; none where the file has no such part.
    #[must_use]
    pub fn vae_weights(&self) -> Weights {
        self.weights.part(self.layout.vae_prefix)
    }

    /// The network that predicts the noise.
    ///
    /// # Errors
    /// What [`UNet::load`] says.
    pub fn unet(&self) -> Result<UNet> {
        UNet::load(&self.weights.part(self.unet_prefix).on(&self.compute))
    }

    /// The text encoders. Their weights are kept in half precision, as ComfyUI keeps them: [`Kept::Half`].
    ///
    /// # Errors
    /// [`Error::MissingPart`] when the file lacks one, and what [`ClipText::load`] says.
    pub fn clip(&self) -> Result<Encoders> {
        if self.layout.texts.is_empty() {
            let hint = "it reads pictures and no prompts: load it with ImageOnlyCheckpointLoader".to_owned();
            return Err(Error::MissingPart { file: self.weights.file().to_owned(), part: "text encoder", hint });
        }
        let parts = self.layout.texts.iter().map(|place| self.text(place));
        parts.collect::<Result<_>>().map(Encoders::new)
    }

    fn text(&self, place: &TextPlace) -> Result<ClipText> {
        if let Some(weights) = self.text_weights(place) {
            return ClipText::load(&weights.keeping(Kept::Half), place.family);
        }
        let loader = if self.layout.texts.len() > 1 { "DualCLIPLoader" } else { "CLIPLoader" };
        ClipText::load(&self.part(place.prefix, "text encoder", loader)?.keeping(Kept::Half), place.family)
    }

    /// The tensors of a text encoder in the layout of transformers.
    fn text_weights(&self, place: &TextPlace) -> Option<Weights> {
        let mut open = place.open_clip.split_whitespace().map(|prefix| self.weights.part(prefix));
        if let Some(weights) = open.find(is_open_clip) {
            return Some(from_open_clip(&weights));
        }
        let weights = self.weights.part(place.prefix);
        weights.names().next()?;
        let nested = weights.names().any(|name| name.starts_with("text_model."));
        Some(weights.renamed(|name| {
            let bare = !nested && !name.starts_with("text_projection");
            vec![Renamed::whole(if bare { format!("text_model.{name}") } else { name.to_owned() })]
        }))
    }

    /// How many layers each of the text encoders has that the file holds, in the order of their architecture.
    #[must_use]
    pub fn text_depths(&self) -> Vec<(text::Family, usize)> {
        let depth = |place: &TextPlace| {
            let weights = self.text_weights(place)?;
            let has =
                |layer: &usize| weights.contains(&format!("text_model.encoder.layers.{layer}.layer_norm1.weight"));
            Some((place.family, (0..).take_while(has).count()))
        };
        self.layout.texts.iter().filter_map(depth).collect()
    }

    /// The noise levels and what the UNet predicts: the file's own marks, else what its architecture usually does.
    ///
    /// # Errors
    /// A mark cannot be read.
    pub fn sampling(&self) -> Result<ModelSampling> {
        let prediction = match self.layout.id {
            "sdxl" => return self.sampling_of_sdxl(),
            "sd2" | "sd2-unclip" => self.prediction_of_sd2()?,
            "x4-upscaler" => Prediction::Velocity,
            _ => Prediction::Epsilon,
        };
        Ok(ModelSampling::discrete(self.layout.betas, prediction))
    }

    /// Nothing in the file says what a Stable Diffusion 2 predicts; the training for velocity left larger biases in one place.
    fn prediction_of_sd2(&self) -> Result<Prediction> {
        const PLACE: &str = "output_blocks.11.1.transformer_blocks.0.norm1.bias";
        const LARGE: f64 = 0.09;
        let unet = self.weights.part(self.unet_prefix);
        let Some(shape) = unet.shape(PLACE).filter(|_| self.config.input == 4) else { return Ok(Prediction::Epsilon) };
        let biases: Vec<f32> = unet.tensor(PLACE, shape)?.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
        let mean = biases.iter().map(|bias| f64::from(*bias)).sum::<f64>() / biases.len() as f64;
        let variance = biases.iter().map(|bias| (f64::from(*bias) - mean).powi(2)).sum::<f64>() / biases.len() as f64;
        Ok(if variance.sqrt() > LARGE { Prediction::Velocity } else { Prediction::Epsilon })
    }

    fn sampling_of_sdxl(&self) -> Result<ModelSampling> {
        let number = |name: &str| -> Result<Option<f64>> {
            let Some(shape) = self.weights.shape(name) else { return Ok(None) };
            let values: Vec<f32> = self.weights.tensor(name, shape)?.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
            Ok(values.first().map(|value| f64::from(*value)))
        };
        if self.weights.contains("edm_mean") && self.weights.contains("edm_std") {
            return Ok(ModelSampling::continuous_edm(Prediction::Edm, 0.002, 80.0, 0.5));
        }
        if let Some(max) = number("edm_vpred.sigma_max")? {
            let min = number("edm_vpred.sigma_min")?.unwrap_or(0.002);
            return Ok(ModelSampling::continuous_edm(Prediction::Velocity, min, max, 1.0));
        }
        let betas = self.layout.betas;
        Ok(match (self.weights.contains("v_pred"), self.weights.contains("ztsnr")) {
            (true, true) => ModelSampling::zero_snr(betas, Prediction::Velocity),
            (true, false) => ModelSampling::discrete(betas, Prediction::Velocity),
            (false, _) => ModelSampling::discrete(betas, Prediction::Epsilon),
        })
    }

    /// CLIP's picture half, of a file that brings one.
    ///
    /// # Errors
    /// [`Error::MissingPart`] when the file has none, and what [`Vision::load_clip`] says.
    pub fn vision(&self) -> Result<Vision> {
        let weights = self.vision_weights().filter(|weights| weights.names().next().is_some());
        let weights = weights.ok_or_else(|| self.missing("CLIP vision model", "CLIPVisionLoader"))?;
        Vision::load_clip(&weights.keeping(Kept::Half))
    }

    /// The tensors of CLIP's picture half; `None` for an architecture whose files have none.
    #[must_use]
    pub fn vision_weights(&self) -> Option<Weights> {
        self.layout.vision_prefix.map(|prefix| self.weights.part(prefix))
    }

    /// The layer that makes prompts of what the model is told, for architectures that have one.
    ///
    /// # Errors
    /// What [`Linear::load`] says.
    pub fn projection(&self) -> Result<Option<Linear>> {
        let Some(layer) = self.layout.projection.map(|name| self.weights.at(name)) else { return Ok(None) };
        match layer.shape("weight") {
            Some(&[output, input]) => Linear::load(&layer, input, output).map(Some),
            _ => Err(Error::WrongShape {
                file: layer.file().to_owned(),
                name: layer.key("weight"),
                expected: "2 dimensions".to_owned(),
                found: layer.shape("weight").unwrap_or_default().to_vec(),
            }),
        }
    }

    /// The autoencoder.
    ///
    /// # Errors
    /// [`Error::MissingPart`] when the file has none, and what [`Vae::load`] says.
    pub fn vae(&self) -> Result<Vae> {
        Vae::load(&self.part(self.layout.vae_prefix, "VAE", "VAELoader")?.on(&self.compute))
    }

    /// Keys that none of the parts loaded so far has asked for, sorted.
    #[must_use]
    pub fn unread(&self) -> Vec<String> {
        self.weights.unread()
    }

    fn part(&self, prefix: &str, part: &'static str, loader: &str) -> Result<Weights> {
        let weights = self.weights.part(prefix);
        if weights.names().next().is_some() {
            return Ok(weights);
        }
        Err(self.missing(part, loader))
    }

    fn missing(&self, part: &'static str, loader: &str) -> Error {
        let hint = format!("load one from a file of its own with {loader}");
        Error::MissingPart { file: self.weights.file().to_owned(), part, hint }
    }
}

/// Where a file keeps a latent-diffusion UNet, and its measures; `None` when it has no such UNet.
fn find_unet(weights: &Weights) -> Result<Option<(&'static str, unet::Config)>> {
    let has_unet = |prefix: &&str| {
        let part = weights.part(prefix);
        part.contains("input_blocks.0.0.weight") && part.contains("out.2.weight")
    };
    let Some(prefix) = UNET_PREFIXES.into_iter().find(has_unet) else { return Ok(None) };
    Ok(Some((prefix, unet::Config::read(&weights.part(prefix))?)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::{Golden, drawn_file};

    type Tensors = BTreeMap<String, Vec<usize>>;

    /// A whole checkpoint: the recorded UNet and autoencoder beside a text encoder of one layer.
    fn whole() -> Tensors {
        let mut tensors = Golden::open("unet_narrow").tensors;
        tensors.extend(Golden::open("vae").tensors);
        let text = "cond_stage_model.transformer.text_model.";
        let mut add = |name: &str, shape: &[usize]| tensors.insert(format!("{text}{name}"), shape.to_vec());
        add("embeddings.token_embedding.weight", &[49_408, 64]);
        add("embeddings.position_embedding.weight", &[77, 64]);
        for norm in ["encoder.layers.0.layer_norm1", "encoder.layers.0.layer_norm2", "final_layer_norm"] {
            add(&format!("{norm}.weight"), &[64]);
            add(&format!("{norm}.bias"), &[64]);
        }
        for (linear, shape) in [
            ("self_attn.q_proj", [64, 64]),
            ("self_attn.k_proj", [64, 64]),
            ("self_attn.v_proj", [64, 64]),
            ("self_attn.out_proj", [64, 64]),
            ("mlp.fc1", [256, 64]),
            ("mlp.fc2", [64, 256]),
        ] {
            add(&format!("encoder.layers.0.{linear}.weight"), &shape);
            add(&format!("encoder.layers.0.{linear}.bias"), &shape[..1]);
        }
        tensors
    }

    fn open(tensors: &Tensors) -> Result<Checkpoint> {
        Checkpoint::from_bytes("model.safetensors", drawn_file(tensors))
    }

    fn message(tensors: &Tensors) -> String {
        open(tensors).map(|_| ()).unwrap_err().to_string()
    }

    fn listing(tensors: &[(&str, &[usize])]) -> Tensors {
        tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
    }

    #[test]
    fn every_tensor_of_a_whole_checkpoint_is_asked_for() {
        let mut tensors = whole();
        tensors.insert("model_ema.decay".to_owned(), vec![1]);
        let checkpoint = open(&tensors).unwrap();
        assert_eq!(checkpoint.layout().id, "sd1");
        checkpoint.unet().unwrap();
        checkpoint.clip().unwrap();
        checkpoint.vae().unwrap();
        assert_eq!(checkpoint.unread(), ["model_ema.decay"]);
    }

    #[test]
    fn half_a_checkpoint_names_the_part_it_lacks() {
        let unet_only = open(&Golden::open("unet_narrow").tensors).unwrap();
        unet_only.unet().unwrap();
        let Err(clip) = unet_only.clip() else { panic!("loaded") };
        assert_eq!(
            clip.to_string(),
            "`model.safetensors`: there is no text encoder in this file\nhint: load one from a file of its own with CLIPLoader"
        );
        let Err(vae) = unet_only.vae() else { panic!("loaded") };
        assert!(vae.to_string().contains("no VAE in this file"));
        let bare = Golden::open("unet_narrow").tensors;
        let strip = |(name, shape): (String, Vec<usize>)| (name.replace("model.diffusion_model.", ""), shape);
        open(&bare.into_iter().map(strip).collect()).unwrap().unet().unwrap();
    }

    #[test]
    fn other_files_are_called_by_their_name() {
        let vae = message(&Golden::open("vae").tensors);
        assert!(vae.contains("no UNet in this file") && vae.contains("VAELoader"), "{vae}");
        let lora = message(&listing(&[("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", &[4, 64])]));
        assert!(lora.contains("a LoRA") && lora.contains("LoraLoader"), "{lora}");
        let embedding = message(&listing(&[("emb_params", &[2, 768])]));
        assert!(embedding.contains("embedding:"), "{embedding}");
        let flux = message(&listing(&[("model.diffusion_model.double_blocks.0.img_attn.proj.weight", &[4, 4])]));
        assert!(flux.contains("looks like Flux"), "{flux}");
        let unknown = message(&listing(&[("layer.weight", &[4, 4]), ("layer.bias", &[4])]));
        assert!(unknown.contains("2 tensors, the first called `layer.bias`"), "{unknown}");
        let nothing = message(&Tensors::new());
        assert!(nothing.contains("no tensors"), "{nothing}");
    }

    #[test]
    fn a_family_that_is_not_loaded_is_named_with_what_gave_it_away() {
        let mut tensors = Golden::open("unet_narrow").tensors;
        for (name, shape) in &mut tensors {
            if name.contains("attn2.to_k") || name.contains("attn2.to_v") {
                shape[1] = 1024;
            } else if name.contains("proj_in.weight") || name.contains("proj_out.weight") {
                shape.truncate(2);
            } else if name.ends_with("input_blocks.0.0.weight") {
                shape[1] = 8;
            }
        }
        assert_eq!(open(&tensors).unwrap().layout().id, "sd2");
        let along_time = "model.diffusion_model.input_blocks.1.1.time_stack.0.attn1.to_q.weight";
        tensors.insert(along_time.to_owned(), vec![64, 64]);
        let message = message(&tensors);
        assert!(message.contains("looks like Stable Video Diffusion (64 channels"), "{message}");
        assert!(message.contains("8 input channels, transformer blocks 1 1"), "{message}");
        assert!(message.contains("): video networks are not supported\n"), "{message}");
        assert!(message.contains("prompt vectors of 1024"), "{message}");
        assert!(message.contains("hint: this build loads Stable Diffusion 1.x"), "{message}");
    }

    #[test]
    fn a_summary_counts_parts_and_parameters() {
        let tensors = whole();
        let summary = inspect(&Weights::from_bytes("model.safetensors", drawn_file(&tensors)).unwrap());
        assert_eq!(summary.architecture, "Stable Diffusion 1.x");
        let count = |prefix: &str| {
            let part = tensors.iter().filter(|(name, _)| name.starts_with(prefix));
            part.map(|(_, shape)| shape.iter().product::<usize>() as u64).sum::<u64>()
        };
        let parts: Vec<_> = summary.parts.iter().map(|part| (part.name, part.parameters)).collect();
        assert_eq!(
            parts,
            [
                ("UNet", count("model.diffusion_model.")),
                ("text encoder", count("cond_stage_model.")),
                ("VAE", count("first_stage_model."))
            ]
        );
        assert_eq!(summary.parts[0].numbers["F32"], summary.parts[0].parameters);
        assert!(summary.parts[0].detail.contains("64 channels"), "{}", summary.parts[0].detail);
        assert_eq!(summary.metadata["modelspec.title"], "drawn");
        let lora = drawn_file(&listing(&[("lora_unet_x.lora_down.weight", &[4, 64])]));
        let lora = inspect(&Weights::from_bytes("lora.safetensors", lora).unwrap());
        assert_eq!((lora.architecture.as_str(), lora.parts.len()), ("a LoRA", 1));
    }

    /// SDXL of two encoders, the second in OpenCLIP's layout, as `tests/golden/families.py` lists it; and Stable Diffusion 1.
    #[test]
    fn converting_there_and_back_changes_no_number() {
        let listing = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/families/sdxl.json");
        let listing: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(listing).unwrap()).unwrap();
        let mut sdxl: Tensors = serde_json::from_value(listing["tensors"].clone()).unwrap();
        sdxl.extend(Golden::open("vae").tensors);
        let folder = std::env::temp_dir().join(format!("paraflow-convert-{}", std::process::id()));
        for tensors in [whole(), sdxl] {
            let before = open(&tensors).unwrap();
            let written = write_folder(&before, &folder).unwrap();
            let parts = written.iter().filter(|path| path.extension().is_some_and(|end| end == "safetensors"));
            assert_eq!(parts.count(), 2 + before.layout().texts.len());
            let index = std::fs::read_to_string(folder.join("model_index.json")).unwrap();
            assert!(index.contains("UNet2DConditionModel"), "{index}");
            let between = open_folder(&folder).unwrap();
            assert_eq!(between.layout().id, before.layout().id);
            assert_eq!(between.config(), before.config());
            let path = folder.join("single.safetensors");
            write_single(&between, &path).unwrap();
            let after = Weights::open(&path).unwrap();
            let names: Vec<&str> = before.weights().names().collect();
            assert_eq!(after.names().collect::<Vec<_>>(), names);
            for name in names {
                assert_eq!(after.info(name), before.weights().info(name), "{name}");
                assert!(after.bytes(name).unwrap() == before.weights().bytes(name).unwrap(), "{name}");
            }
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }

    /// The narrow network made to look like another's, with the layer that only Zero123's files have, and what it sees with.
    #[test]
    fn zero123_is_known_by_its_layer() {
        let mut tensors = whole();
        tensors.retain(|name, _| !name.starts_with("cond_stage_model."));
        tensors.get_mut("model.diffusion_model.input_blocks.0.0.weight").unwrap()[1] = 8;
        let summary =
            |tensors: &Tensors| inspect(&Weights::from_bytes("model.safetensors", drawn_file(tensors)).unwrap());
        assert_eq!(summary(&tensors).architecture, "Stable Diffusion 1.x that follows instructions");
        tensors.insert("cc_projection.weight".to_owned(), vec![160, 164]);
        assert_eq!(open(&tensors).unwrap().layout().id, "sd1");
        tensors.insert("cc_projection.bias".to_owned(), vec![160]);
        tensors.insert("cond_stage_model.model.visual.conv1.weight".to_owned(), vec![64, 3, 8, 8]);
        let checkpoint = open(&tensors).unwrap();
        assert_eq!(checkpoint.layout().id, "zero123");
        assert_eq!(checkpoint.projection().unwrap().unwrap().weight().shape(), [160, 164]);
        let Err(clip) = checkpoint.clip() else { panic!("loaded") };
        assert!(clip.to_string().contains("load it with ImageOnlyCheckpointLoader"), "{clip}");
        let Err(folder) = write_folder(&checkpoint, Path::new("never")) else { panic!("written") };
        assert!(folder.to_string().contains("the conversion to diffusers has no words for"), "{folder}");
        let summary = summary(&tensors);
        assert_eq!(summary.architecture, "Stable Zero123");
        assert_eq!(summary.loader, Some("with ImageOnlyCheckpointLoader"));
        let parts: Vec<_> = summary.parts.iter().map(|part| (part.name, part.tensors)).collect();
        assert_eq!((parts[1], parts.last()), (("CLIP vision", 1), Some(&("other", 2))));
    }

    #[test]
    fn layouts_are_told_apart() {
        for (index, layout) in LAYOUTS.iter().enumerate() {
            assert!(LAYOUTS[..index].iter().all(|other| other.id != layout.id && other.name != layout.name));
            assert!(layout.latent_scale > 0.0 && layout.latent_channels > 0);
        }
    }
}
