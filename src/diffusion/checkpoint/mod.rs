//! Checkpoints: which architecture a file holds, told from its keys and shapes, and the parts that it has.
//!
//! A layout is a file beside this one and a row in [`LAYOUTS`]. What is recognised but not loaded is named in the error
//! (`recognise`), and any safetensors file can be summed up ([`inspect`]). Knows no folders.

mod inspect;
mod recognise;
mod sd1;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};

pub use inspect::{Part, Summary, inspect};

use crate::error::{Error, Result};
use crate::nn::Weights;
use crate::schedule::Prediction;
use crate::text::{self, ClipText};
use crate::unet::{self, UNet};
use crate::vae::Vae;

/// What single-file checkpoints put before the keys of their UNet, likeliest first; the last is a file that is only a UNet.
const UNET_PREFIXES: [&str; 4] = ["model.diffusion_model.", "model.model.", "net.", ""];

/// An architecture that is loaded: how its files are told from others, and what their tensors do not say.
#[derive(Debug)]
pub struct Layout {
    /// A short name for files and scripts: `sd1`.
    pub id: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// What the UNet predicts.
    pub prediction: Prediction,
    /// What the autoencoder's latents are multiplied by before the UNet sees them.
    pub latent_scale: f64,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// How its text encoder is used.
    pub text: text::Family,
    /// Where its files keep the text encoder.
    text_prefix: &'static str,
    /// Where its files keep the autoencoder.
    vae_prefix: &'static str,
    /// Whether a UNet is of this architecture.
    fits: fn(&unet::Config) -> bool,
}

/// Every architecture that is loaded.
pub static LAYOUTS: &[Layout] = &[sd1::LAYOUT];

/// A checkpoint file: an architecture and its parts. Opening reads the header only.
#[derive(Clone)]
pub struct Checkpoint {
    weights: Weights,
    layout: &'static Layout,
    config: unet::Config,
    unet_prefix: &'static str,
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
        match LAYOUTS.iter().find(|layout| (layout.fits)(&config)) {
            Some(layout) => Ok(Self { weights, layout, config, unet_prefix }),
            None => Err(recognise::unknown_unet(&weights, &config)),
        }
    }

    /// The same checkpoint, to be computed with on another device in another type. The default is the CPU in f32.
    #[must_use]
    pub fn on(&self, device: &Device, dtype: DType) -> Self {
        Self { weights: self.weights.on(device, dtype), ..self.clone() }
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

    /// The network that predicts the noise.
    ///
    /// # Errors
    /// What [`UNet::load`] says.
    pub fn unet(&self) -> Result<UNet> {
        UNet::load(&self.weights.part(self.unet_prefix))
    }

    /// The text encoder.
    ///
    /// # Errors
    /// [`Error::MissingPart`] when the file has none, and what [`ClipText::load`] says.
    pub fn clip(&self) -> Result<ClipText> {
        let weights = self.part(self.layout.text_prefix, "text encoder", "CLIPLoader")?;
        ClipText::load(&weights, self.layout.text)
    }

    /// The autoencoder.
    ///
    /// # Errors
    /// [`Error::MissingPart`] when the file has none, and what [`Vae::load`] says.
    pub fn vae(&self) -> Result<Vae> {
        Vae::load(&self.part(self.layout.vae_prefix, "VAE", "VAELoader")?)
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
        let file = self.weights.file().to_owned();
        Err(Error::MissingPart { file, part, hint: format!("load one from a file of its own with {loader}") })
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
                shape[1] = 2048;
            } else if name.contains("proj_in.weight") || name.contains("proj_out.weight") {
                shape.truncate(2);
            }
        }
        tensors.insert("model.diffusion_model.label_emb.0.0.weight".to_owned(), vec![256, 2816]);
        let message = message(&tensors);
        assert!(message.contains("looks like SDXL"), "{message}");
        assert!(message.contains("prompt vectors of 2048"), "{message}");
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

    #[test]
    fn layouts_are_told_apart() {
        for (index, layout) in LAYOUTS.iter().enumerate() {
            assert!(LAYOUTS[..index].iter().all(|other| other.id != layout.id && other.name != layout.name));
            assert!(layout.latent_scale > 0.0 && layout.latent_channels > 0);
        }
    }
}
