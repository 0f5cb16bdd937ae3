//! Inputs that name a file: how they are listed, checked before a run, and made part of a node's signature.

mod inputs;

pub(crate) use inputs::{AnyPictureName, CaptureName, FolderName, LatentName, OutputFolderName, PictureName, files_of};

use crate::embedded::{self, Embedded};
use crate::error::{Error, tell};
use crate::wires::Origin;
use paraflow_assets::{Assets, Model, fingerprint, sha256};
use paraflow_diffusion::checkpoint::{Checkpoint, diffusers_files};
use paraflow_diffusion::nn::Weights;
use paraflow_engine::{Given, Input, Mismatch, Services, Value, Widget};
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

/// A folder of models, as a type, so that a field says which one it chooses from.
pub(crate) trait Folder {
    /// Its key in [`paraflow_assets::Models`].
    const KEY: &'static str;
    /// The key of another folder that is looked into as well.
    const ALSO: Option<&'static str> = None;

    /// Whether a file can be what nodes take from the folder, as far as its header tells: asked before anything runs.
    ///
    /// # Errors
    /// What is wrong with the file.
    fn examine(file: &Path) -> Result<(), Error> {
        Weights::open(file)?;
        Ok(())
    }
}

/// `models/checkpoints`.
pub(crate) struct Checkpoints;

impl Folder for Checkpoints {
    const KEY: &'static str = "checkpoints";

    fn examine(file: &Path) -> Result<(), Error> {
        Checkpoint::open(file)?;
        Ok(())
    }
}

/// `models/configs`.
pub(crate) struct Configs;

impl Folder for Configs {
    const KEY: &'static str = "configs";

    fn examine(file: &Path) -> Result<(), Error> {
        paraflow_assets::read_yaml(file)?;
        Ok(())
    }
}

macro_rules! folders {
    ($($(#[$doc:meta])* $name:ident = $key:literal),* $(,)?) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl Folder for $name {
            const KEY: &'static str = $key;
        }
    )*};
}

folders! {
    /// `models/text_encoders`.
    TextEncoders = "text_encoders",
    /// `models/diffusion_models`.
    DiffusionModels = "diffusion_models",
    /// `models/vae`.
    Autoencoders = "vae",
    /// `models/controlnet`.
    ControlNets = "controlnet",
    /// `models/vae_approx`.
    TinyAutoencoders = "vae_approx",
    /// `models/upscale_models`.
    Upscalers = "upscale_models",
    /// `models/clip_vision`.
    VisionModels = "clip_vision",
    /// `models/style_models`.
    StyleModels = "style_models",
    /// `models/gligen`.
    GligenModels = "gligen",
    /// `models/hypernetworks`.
    Hypernetworks = "hypernetworks",
}

/// The name of a model in a folder, or of one that the program brings.
pub(crate) struct ModelName<F> {
    name: String,
    folder: PhantomData<F>,
}

/// Where a model is.
pub(crate) enum Place {
    /// A file.
    File(Model),
    /// In the program.
    Embedded(&'static Embedded),
}

impl Place {
    /// The file, as a model remembers it.
    pub(crate) fn origin(&self) -> Origin {
        match self {
            Self::File(model) => Origin { name: model.name.as_str().into(), path: Some(model.path.as_path().into()) },
            Self::Embedded(model) => Origin { name: model.name.into(), path: None },
        }
    }
}

impl Origin {
    /// SHA-256 of the file, in hexadecimal digits. Taken once for each file, and remembered beside the models.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub(crate) fn sha256(&self, services: &Services) -> Result<String, Error> {
        match &self.path {
            Some(path) => Ok(services.expect::<Arc<Assets>>().models().hashes().of(path)?.sha256),
            None => {
                let model = embedded::models(Checkpoints::KEY).find(|model| *model.name == *self.name);
                Ok(sha256(&model.expect("it was loaded from there").file()?))
            }
        }
    }
}

impl<F: Folder> ModelName<F> {
    /// As the graph writes it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The file of that name, else the embedded model.
    ///
    /// # Errors
    /// That of [`paraflow_assets::Models::find`].
    pub(crate) fn find(&self, services: &Services) -> Result<Place, Error> {
        place::<F>(&self.name, services)
    }
}

/// The file of that name in a folder, else the embedded model.
///
/// # Errors
/// That of [`paraflow_assets::Models::find`].
pub(crate) fn place<F: Folder>(name: &str, services: &Services) -> Result<Place, Error> {
    let models = services.expect::<Arc<Assets>>().models();
    let missing = match models.find(F::KEY, name) {
        Ok(model) => return Ok(Place::File(model)),
        Err(missing) => missing,
    };
    if let Some(model) = F::ALSO.and_then(|key| models.find(key, name).ok()) {
        return Ok(Place::File(model));
    }
    let embedded = embedded::models(F::KEY).find(|model| model.name == name);
    embedded.map(Place::Embedded).ok_or_else(|| add_embedded::<F>(name, missing).into())
}

/// Adds what the program brings to the names that a wrong one may have meant.
fn add_embedded<F: Folder>(name: &str, error: paraflow_assets::Error) -> paraflow_assets::Error {
    match error {
        paraflow_assets::Error::ModelNotFound { folder, name: wrong, nearest, searched } => {
            let embedded = embedded::models(F::KEY).map(|model| model.name);
            let names: Vec<_> = nearest.iter().map(String::as_str).chain(embedded).collect();
            let nearest = paraflow_assets::nearest(name, names);
            paraflow_assets::Error::ModelNotFound { folder, name: wrong, nearest, searched }
        }
        other => other,
    }
}

impl<F: Folder> Input for ModelName<F> {
    const KIND: &'static str = "COMBO";
    const NAMES_FILE: bool = true;
    const FOLDER: Option<&'static str> = Some(F::KEY);

    fn widget(services: &Services) -> Widget {
        let assets = services.get::<Arc<Assets>>();
        let list = |key| assets.and_then(|assets| assets.models().list(key).ok()).unwrap_or_default();
        let mut names: Vec<String> = std::iter::once(F::KEY).chain(F::ALSO).flat_map(list).collect();
        names.extend(embedded::models(F::KEY).map(|model| model.name.to_owned()));
        names.sort();
        names.dedup();
        Widget::Choice(names)
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        let name = literal.get::<String>().map_or("", String::as_str);
        match place::<F>(name, services).map_err(|error| mismatch("the name of a model", name, &error))? {
            Place::File(model) => F::examine(&model.path).map_err(|error| mismatch("a model", name, &error)),
            Place::Embedded(_) => Ok(()),
        }
    }

    fn fingerprint(literal: &Value, services: &Services) -> paraflow_engine::Result<Option<Vec<u8>>> {
        let name = literal.get::<String>().map_or("", String::as_str);
        Ok(Some(match place::<F>(name, services).map_err(tell)? {
            Place::File(model) => fingerprint(&model.path).map_err(tell)?.as_bytes().to_vec(),
            Place::Embedded(model) => model.fingerprint().to_vec(),
        }))
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        String::take(given).map(|name| Self { name, folder: PhantomData })
    }
}

/// What the names of saved files begin with. One that leads out of the output folder is found before anything runs.
pub(crate) struct FilenamePrefix(String);

impl std::ops::Deref for FilenamePrefix {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Input for FilenamePrefix {
    const KIND: &'static str = String::KIND;

    fn widget(services: &Services) -> Widget {
        String::widget(services)
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        let prefix = literal.get::<String>().map_or("", String::as_str);
        let Some(assets) = services.get::<Arc<Assets>>() else { return Ok(()) };
        let checked = assets.outputs().check_prefix(prefix);
        checked.map_err(|error| mismatch("a name inside the output folder", prefix, &error.into()))
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        String::take(given).map(Self)
    }
}

/// The name of an autoencoder: a file in `models/vae`, or a tiny one whose two halves lie in `models/vae_approx`.
pub(crate) struct AutoencoderName(String);

/// A tiny autoencoder: its name, and how the model's latents are scaled and shifted for it.
pub(crate) struct Tiny {
    pub(crate) name: &'static str,
    pub(crate) scale: f64,
    pub(crate) shift: f64,
}

/// Those that there are, ComfyUI's names.
pub(crate) const TINY: [Tiny; 4] = [
    Tiny { name: "taesd", scale: 0.18215, shift: 0.0 },
    Tiny { name: "taesdxl", scale: 0.13025, shift: 0.0 },
    Tiny { name: "taesd3", scale: 1.5305, shift: 0.0609 },
    Tiny { name: "taef1", scale: 0.3611, shift: 0.1159 },
];

impl Tiny {
    /// The files of its encoder and its decoder.
    ///
    /// # Errors
    /// One of them is not there.
    pub(crate) fn files(&self, services: &Services) -> Result<[Place; 2], Error> {
        let half = |half: &str| self.half(half, services);
        Ok([half("encoder")?, half("decoder")?])
    }

    /// The file of its `encoder` or `decoder`.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn half(&self, half: &str, services: &Services) -> Result<Place, Error> {
        let start = format!("{}_{half}.", self.name);
        let assets = services.expect::<Arc<Assets>>();
        let names = assets.models().list(TinyAutoencoders::KEY).unwrap_or_default();
        let name = names.into_iter().find(|name| name.starts_with(&start));
        place::<TinyAutoencoders>(&name.unwrap_or(format!("{start}safetensors")), services)
    }
}

/// Where an autoencoder is.
pub(crate) enum AutoencoderPlace {
    /// In one file.
    Whole(Place),
    /// In two, an encoder and a decoder.
    Tiny(&'static Tiny, [Place; 2]),
}

impl AutoencoderName {
    /// The file or files of that name.
    ///
    /// # Errors
    /// One of them is not there.
    pub(crate) fn find(&self, services: &Services) -> Result<AutoencoderPlace, Error> {
        Self::place(&self.0, services)
    }

    fn place(name: &str, services: &Services) -> Result<AutoencoderPlace, Error> {
        match TINY.iter().find(|tiny| tiny.name == name) {
            Some(tiny) => Ok(AutoencoderPlace::Tiny(tiny, tiny.files(services)?)),
            None => Ok(AutoencoderPlace::Whole(place::<Autoencoders>(name, services)?)),
        }
    }
}

impl Input for AutoencoderName {
    const KIND: &'static str = "COMBO";
    const NAMES_FILE: bool = true;
    const FOLDER: Option<&'static str> = Some(Autoencoders::KEY);

    fn widget(services: &Services) -> Widget {
        let Widget::Choice(mut names) = ModelName::<Autoencoders>::widget(services) else {
            return Widget::Choice(Vec::new());
        };
        if services.get::<Arc<Assets>>().is_some() {
            names.extend(TINY.iter().filter(|tiny| tiny.files(services).is_ok()).map(|tiny| tiny.name.to_owned()));
        }
        Widget::Choice(names)
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        let name = literal.get::<String>().map_or("", String::as_str);
        match Self::place(name, services).map_err(|error| mismatch("the name of a model", name, &error))? {
            AutoencoderPlace::Whole(Place::File(model)) => {
                Autoencoders::examine(&model.path).map_err(|error| mismatch("an autoencoder", name, &error))
            }
            AutoencoderPlace::Whole(Place::Embedded(_)) | AutoencoderPlace::Tiny(..) => Ok(()),
        }
    }

    fn fingerprint(literal: &Value, services: &Services) -> paraflow_engine::Result<Option<Vec<u8>>> {
        let name = literal.get::<String>().map_or("", String::as_str);
        let print = |place: &Place| -> paraflow_engine::Result<Vec<u8>> {
            Ok(match place {
                Place::File(model) => fingerprint(&model.path).map_err(tell)?.as_bytes().to_vec(),
                Place::Embedded(model) => model.fingerprint().to_vec(),
            })
        };
        Ok(Some(match Self::place(name, services).map_err(tell)? {
            AutoencoderPlace::Whole(place) => print(&place)?,
            AutoencoderPlace::Tiny(_, [encoder, decoder]) => [print(&encoder)?, print(&decoder)?].concat(),
        }))
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        String::take(given).map(Self)
    }
}

/// The name of a folder in the layout of diffusers below `models/diffusers`.
pub(crate) struct DiffusersName(String);

impl DiffusersName {
    const KEY: &'static str = "diffusers";
    /// What tells such a folder.
    const MARKER: &'static str = "model_index.json";

    /// The folder of that name.
    ///
    /// # Errors
    /// That of [`paraflow_assets::Models::find_folder`].
    pub(crate) fn find(&self, services: &Services) -> Result<Model, Error> {
        Self::folder(&self.0, services)
    }

    fn folder(name: &str, services: &Services) -> Result<Model, Error> {
        Ok(services.expect::<Arc<Assets>>().models().find_folder(Self::KEY, name, Self::MARKER)?)
    }

    /// What a model remembers of it: its network's file.
    pub(crate) fn origin(&self, folder: &Model) -> Origin {
        let path = diffusers_files(&folder.path).into_iter().next();
        Origin { name: self.0.as_str().into(), path: path.map(|path| path.as_path().into()) }
    }
}

impl Input for DiffusersName {
    const KIND: &'static str = "COMBO";
    const NAMES_FILE: bool = true;

    fn widget(services: &Services) -> Widget {
        let assets = services.get::<Arc<Assets>>();
        let found = assets.and_then(|assets| assets.models().folders_with(Self::KEY, Self::MARKER).ok());
        Widget::Choice(found.unwrap_or_default().into_iter().map(|folder| folder.name).collect())
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        let name = literal.get::<String>().map_or("", String::as_str);
        let found = Self::folder(name, services);
        found.map(|_| ()).map_err(|error| mismatch("the name of a folder of diffusers", name, &error))
    }

    fn fingerprint(literal: &Value, services: &Services) -> paraflow_engine::Result<Option<Vec<u8>>> {
        let name = literal.get::<String>().map_or("", String::as_str);
        let mut print = Vec::new();
        for file in diffusers_files(&Self::folder(name, services).map_err(tell)?.path) {
            print.extend(fingerprint(&file).map_err(tell)?.as_bytes());
        }
        Ok(Some(print))
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        String::take(given).map(Self)
    }
}

/// A name that is no file's, told before anything runs.
pub(crate) fn mismatch(expected: &str, name: &str, error: &Error) -> Mismatch {
    let found = match error {
        Error::Asset(paraflow_assets::Error::BadName { why, .. }) => format!("{name:?}, which {why}"),
        Error::Asset(paraflow_assets::Error::ModelNotFound { .. } | paraflow_assets::Error::InputNotFound { .. }) => {
            format!("{name:?}, which is not there")
        }
        other => other.to_string(),
    };
    let mismatch = Mismatch::new(expected, found);
    match error.hint() {
        Some(hint) => mismatch.with_hint(hint),
        None => mismatch,
    }
}
