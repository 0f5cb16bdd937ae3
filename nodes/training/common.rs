//! What all trainers do, whatever they train: encode once, train, be watched.

use super::header::{Header, header};
use super::layers::chosen;
use super::watcher::{Samples, Watcher};
use crate::conditioning::encode_once;
use crate::error::{Error, tell};
use crate::latent::CELL;
use crate::wires::{Clip, Conditioning, Image, Losses, Model, Subject, Vae};
use candle_core::Tensor;
use paraflow_assets::Assets;
use paraflow_diffusion::guidance::Condition;
use paraflow_diffusion::nn::{Layers as _, Precision};
use paraflow_diffusion::train::{Decay, Example, Settings, StateFile, TrainRequest, Trained, identity, train};
use paraflow_engine::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The inputs that all trainers share.
pub(crate) struct Common<'a> {
    pub(crate) model: &'a Model,
    pub(crate) clip: &'a Clip,
    pub(crate) vae: &'a Vae,
    pub(crate) subject: &'a Subject,
    pub(crate) class_images: Option<&'a Image>,
    pub(crate) class_caption: &'a str,
    pub(crate) layers: &'a str,
    pub(crate) sample_prompt: &'a str,
    pub(crate) sample_steps: u32,
    pub(crate) sample_cfg: f64,
    pub(crate) state: &'a str,
    pub(crate) save_every: u32,
    pub(crate) resume: bool,
    /// What the network multiplies in; `None` for what it does anyway.
    pub(crate) precision: Option<Precision>,
    /// All but the method and the layers.
    pub(crate) settings: Settings,
}

/// `constant` or `cosine`.
#[derive(Clone, Copy)]
pub(crate) struct DecayName(pub(crate) Decay);

impl std::str::FromStr for DecayName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "constant" => Ok(Self(Decay::Constant)),
            "cosine" => Ok(Self(Decay::Cosine)),
            _ => Err("neither constant nor cosine"),
        }
    }
}

/// `model`, `f32` or `bf16`.
#[derive(Clone, Copy)]
pub(crate) struct PrecisionName(pub(crate) Option<Precision>);

impl std::str::FromStr for PrecisionName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        Ok(Self(match name {
            "model" => None,
            "f32" => Some(Precision::Single),
            "bf16" => Some(Precision::Bf16),
            _ => return Err("no such numbers"),
        }))
    }
}

/// What makes an adapter of a training's result, of the model that it was trained on, and of the header of its file.
type Make<T> = fn(&Trained, &Model, Header) -> Result<T, Error>;

impl Common<'_> {
    /// Trains. Gives what `made` makes of the result and the header of its file, the losses under a name, and the sample
    /// pictures.
    pub(crate) fn run<T>(mut self, name: String, made: Make<T>, cx: &Context<'_>) -> Result<(T, Losses, Samples)> {
        self.settings.layers = chosen(self.layers, &self.model.unet).map_err(tell)?;
        let total = self.settings.steps as u32;
        cx.progress(0, total)?;
        let pictures =
            self.subject.pictures.iter().map(|picture| (picture.image.pixels().clone(), picture.caption.clone()));
        let subject = self.examples(pictures, cx)?;
        let class = match self.class_images {
            Some(images) => {
                let caption = self.subject.fill(self.class_caption);
                let one = |index| images.pixels().narrow(0, index, 1).map(|pixels| (pixels, caption.clone()));
                let pictures: Vec<_> = (0..images.dims().0).map(one).collect::<Result<_, _>>().map_err(tell)?;
                self.examples(pictures.into_iter(), cx)?
            }
            None => Vec::new(),
        };
        let (_, _, rows, columns) = subject[0].latent.dims4().map_err(tell)?;
        let pixels = ((columns * CELL) as u32, (rows * CELL) as u32);
        let empty = self.condition("", pixels, cx)?;
        let mut unet = self.model.unet.clone();
        if let Some(precision) = self.precision {
            unet.visit(&mut |weight| *weight = weight.multiplying_in(precision));
        }
        let request = TrainRequest {
            unet: &unet,
            sampling: &self.model.sampling,
            latent_scale: self.model.latent_scale,
            subject: &subject,
            class: &class,
            empty: Some(&empty.context),
            settings: &self.settings,
            state: None,
        };
        let state = match self.state.trim() {
            "" => self.unnamed_state(&request, cx),
            name => Some(self.named_state(name, cx).map_err(tell)?),
        };
        let request = TrainRequest { state: state.as_ref(), ..request };
        let latent = subject[0].latent.zeros_like().map_err(tell)?;
        let mut watch = Watcher::new(&self, cx, empty.clone(), latent, pixels)?;
        let trained = train(&request, &mut watch).map_err(tell)?;
        let samples = watch.into_samples();
        let losses = Losses { name, points: trained.losses.clone() };
        let header = header(&self, &trained, cx.services()).map_err(tell)?;
        Ok((made(&trained, self.model, header).map_err(tell)?, losses, samples))
    }

    /// Pictures and captions as the networks see them.
    fn examples(&self, pictures: impl Iterator<Item = (Tensor, String)>, cx: &Context<'_>) -> Result<Vec<Example>> {
        let autoencoder = self.vae.autoencoder().map_err(tell)?;
        let mut examples = Vec::new();
        for (pixels, caption) in pictures {
            cx.check()?;
            let planes = pixels.permute((0, 3, 1, 2)).and_then(|planes| planes.contiguous()).map_err(tell)?;
            let latent = autoencoder.encode(&planes).map_err(tell)?;
            let (_, height, width, _) = pixels.dims4().map_err(tell)?;
            let condition = self.condition(&caption, (width as u32, height as u32), cx)?;
            examples.push(Example { latent, context: condition.context, label: condition.label });
        }
        Ok(examples)
    }

    /// A prompt as the model reads it, for a picture of so many pixels.
    pub(super) fn condition(&self, text: &str, pixels: (u32, u32), cx: &Context<'_>) -> Result<Condition> {
        let encoders = self.clip.encoders().map_err(tell)?;
        let prompts: Vec<&str> = encoders.parts().iter().map(|_| text).collect();
        let prompt = encode_once(self.clip, &prompts, cx)?;
        let conditions = Conditioning(vec![prompt]).conditions(self.model, pixels, false, 0).map_err(tell)?;
        Ok(conditions.into_iter().next().expect("one prompt gives one condition"))
    }

    /// The file of the state's name, in the output folder.
    fn named_state(&self, name: &str, cx: &Context<'_>) -> Result<StateFile, Error> {
        let relative = paraflow_assets::RelativeName::parse(name)?;
        Ok(self.state_file(relative.below(cx.service::<Arc<Assets>>().outputs().root()), self.resume))
    }

    /// The file that a training goes on from by itself after its process died, until all that the graph is run for is
    /// made. Its name is a hash of all that the result depends on, so that no other training ever finds it. `None` where
    /// there is no such hash, or the user does not want to go on.
    fn unnamed_state(&self, request: &TrainRequest<'_>, cx: &Context<'_>) -> Option<StateFile> {
        let signature = cx.signature().filter(|_| self.resume)?;
        let precision = cx.services().get::<Precision>().copied().unwrap_or_default();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&signature).update(format!("{precision:?}").as_bytes()).update(identity(request).as_bytes());
        let folder = cx.service::<Arc<Assets>>().base_dir().join("user/trainings");
        if let Err(error) = fs::create_dir_all(&folder) {
            cx.warn(format!(
                "`{}` cannot be made ({error}), so this training begins anew after a stop",
                folder.display()
            ));
            return None;
        }
        sweep(&folder);
        let state = self.state_file(folder.join(hasher.finalize().to_hex().as_str()), true);
        let path = state.path.clone();
        cx.when_done(move || {
            // Where it cannot be removed, it is swept away in time.
            let _ = fs::remove_file(path);
        });
        Some(state)
    }

    fn state_file(&self, name: PathBuf, resume: bool) -> StateFile {
        let mut path = name.into_os_string();
        path.push(".para-state.safetensors");
        StateFile { path: PathBuf::from(path), every: self.save_every as usize, resume }
    }
}

/// Nobody goes on with a training that was given up so long ago.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(14 * 24 * 3600);

/// Removes states, whole and half-written, of trainings that were given up.
fn sweep(folder: &Path) {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if age().is_some_and(|age| age > GIVEN_UP_AFTER) {
            // It is tried again by the next training.
            let _ = fs::remove_file(entry.path());
        }
    }
}
