//! Names of files among a user's inputs: pictures, captures, latents, folders.

use super::mismatch;
use crate::error::{Error, tell};
use paraflow_assets::{Assets, fingerprint};
use paraflow_engine::{Given, Input, Mismatch, Services, Value, Widget};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of a picture among the inputs, perhaps with its folder behind it: `x.png [output]`.
pub(crate) struct PictureName(String);

/// The same, chosen from a list of all files.
pub(crate) struct AnyPictureName(pub(crate) PictureName);

impl PictureName {
    /// As the graph writes it.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// The file of that name.
    ///
    /// # Errors
    /// That of [`paraflow_assets::Inputs::find`].
    pub(crate) fn find(&self, services: &Services) -> Result<PathBuf, Error> {
        Ok(services.expect::<Arc<Assets>>().inputs().find(&self.0)?)
    }
}

impl Input for PictureName {
    const KIND: &'static str = "COMBO";
    const NAMES_FILE: bool = true;

    fn widget(services: &Services) -> Widget {
        let assets = services.get::<Arc<Assets>>();
        Widget::Choice(assets.map(|assets| assets.inputs().pictures()).unwrap_or_default())
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        let name = literal.get::<String>().map_or("", String::as_str);
        let found = services.expect::<Arc<Assets>>().inputs().find(name);
        found.map(|_| ()).map_err(|error| mismatch("the name of a picture", name, &error.into()))
    }

    fn fingerprint(literal: &Value, services: &Services) -> paraflow_engine::Result<Option<Vec<u8>>> {
        let name = literal.get::<String>().map_or("", String::as_str);
        let path = services.expect::<Arc<Assets>>().inputs().find(name).map_err(tell)?;
        Ok(Some(fingerprint(&path).map_err(tell)?.as_bytes().to_vec()))
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        String::take(given).map(Self)
    }
}

impl Input for AnyPictureName {
    const KIND: &'static str = "COMBO";
    const NAMES_FILE: bool = true;

    fn widget(services: &Services) -> Widget {
        let assets = services.get::<Arc<Assets>>();
        Widget::Choice(assets.map(|assets| assets.inputs().all()).unwrap_or_default())
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        PictureName::check(literal, services)
    }

    fn fingerprint(literal: &Value, services: &Services) -> paraflow_engine::Result<Option<Vec<u8>>> {
        PictureName::fingerprint(literal, services)
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        PictureName::take(given).map(Self)
    }
}

/// The name of a picture that an editor's camera took.
pub(crate) struct CaptureName(pub(crate) PictureName);

impl Input for CaptureName {
    const KIND: &'static str = "WEBCAM";
    const NAMES_FILE: bool = true;

    fn widget(_: &Services) -> Widget {
        Widget::Text { multiline: false, dynamic_prompts: false }
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        PictureName::check(literal, services)
    }

    fn fingerprint(literal: &Value, services: &Services) -> paraflow_engine::Result<Option<Vec<u8>>> {
        PictureName::fingerprint(literal, services)
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        PictureName::take(given).map(Self)
    }
}

/// The name of a file of latents among the inputs, perhaps with its folder behind it: `x.latent [output]`.
pub(crate) struct LatentName(PictureName);

impl LatentName {
    /// The file of that name.
    ///
    /// # Errors
    /// That of [`paraflow_assets::Inputs::find`].
    pub(crate) fn find(&self, services: &Services) -> Result<PathBuf, Error> {
        self.0.find(services)
    }
}

impl Input for LatentName {
    const KIND: &'static str = "COMBO";
    const NAMES_FILE: bool = true;

    fn widget(services: &Services) -> Widget {
        let all = services.get::<Arc<Assets>>().map(|assets| assets.inputs().all()).unwrap_or_default();
        Widget::Choice(all.into_iter().filter(|name| name.ends_with(".latent")).collect())
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        let name = literal.get::<String>().map_or("", String::as_str);
        let found = services.expect::<Arc<Assets>>().inputs().find(name);
        found.map(|_| ()).map_err(|error| mismatch("the name of a file of latents", name, &error.into()))
    }

    fn fingerprint(literal: &Value, services: &Services) -> paraflow_engine::Result<Option<Vec<u8>>> {
        PictureName::fingerprint(literal, services)
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        PictureName::take(given).map(Self)
    }
}

/// The name of a folder of pictures among the inputs. All that lies in it is part of its node's signature.
pub(crate) struct FolderName(pub(crate) String);

impl FolderName {
    /// The files directly in it, sorted by name.
    ///
    /// # Errors
    /// That of [`paraflow_assets::Inputs::find_folder`], or a folder that cannot be read.
    pub(crate) fn files(&self, services: &Services) -> Result<Vec<PathBuf>, Error> {
        self.entries(services, Path::is_file)
    }

    /// The folders directly in it, sorted by name.
    ///
    /// # Errors
    /// As [`files`](Self::files).
    pub(crate) fn folders(&self, services: &Services) -> Result<Vec<PathBuf>, Error> {
        self.entries(services, Path::is_dir)
    }

    fn entries(&self, services: &Services, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, Error> {
        entries(&services.expect::<Arc<Assets>>().inputs().find_folder(&self.0)?, wanted)
    }
}

impl Input for FolderName {
    const KIND: &'static str = "COMBO";
    const NAMES_FILE: bool = true;

    fn widget(services: &Services) -> Widget {
        let assets = services.get::<Arc<Assets>>();
        Widget::Choice(assets.map(|assets| assets.inputs().folders()).unwrap_or_default())
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        let name = literal.get::<String>().map_or("", String::as_str);
        let files = Self(name.to_owned()).files(services);
        let files = files.map_err(|error| mismatch("the name of a folder of pictures", name, &error))?;
        if files.iter().any(|file| image::ImageFormat::from_path(file).is_ok()) {
            return Ok(());
        }
        let none = Mismatch::new("the name of a folder of pictures", format!("{name:?}, which holds no picture"));
        Err(none.with_hint("put PNG or JPEG files of the subject into the folder"))
    }

    fn fingerprint(literal: &Value, services: &Services) -> paraflow_engine::Result<Option<Vec<u8>>> {
        let name = literal.get::<String>().map_or("", String::as_str);
        let mut print = Vec::new();
        let folder = Self(name.to_owned());
        let mut files = folder.files(services).map_err(tell)?;
        for within in folder.folders(services).map_err(tell)? {
            files.extend(files_of(&within).map_err(tell)?);
        }
        for file in files {
            let place = file.iter().rev().take(2).flat_map(std::ffi::OsStr::as_encoded_bytes);
            print.extend(place);
            print.extend(fingerprint(&file).map_err(tell)?.as_bytes());
        }
        Ok(Some(print))
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        String::take(given).map(Self)
    }
}

/// The name of a folder among the outputs, which may come to be while its graph runs. What lies in it is part of its node's signature.
pub(crate) struct OutputFolderName(String);

impl OutputFolderName {
    /// The files directly in it, sorted by name.
    ///
    /// # Errors
    /// As [`FolderName::files`].
    pub(crate) fn files(&self, services: &Services) -> Result<Vec<PathBuf>, Error> {
        FolderName(format!("{} [output]", self.0)).files(services)
    }
}

impl Input for OutputFolderName {
    const KIND: &'static str = "STRING";

    fn widget(services: &Services) -> Widget {
        String::widget(services)
    }

    fn fingerprint(literal: &Value, services: &Services) -> paraflow_engine::Result<Option<Vec<u8>>> {
        let name = literal.get::<String>().map_or("", String::as_str);
        let Ok(files) = Self(name.to_owned()).files(services) else { return Ok(None) };
        let mut print = Vec::new();
        for file in files {
            print.extend(file.file_name().unwrap_or_default().as_encoded_bytes());
            print.extend(fingerprint(&file).map_err(tell)?.as_bytes());
        }
        Ok(Some(print))
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        String::take(given).map(Self)
    }
}

/// The files directly in a folder, sorted by name.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    entries(folder, Path::is_file)
}

fn entries(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(folder)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| paraflow_assets::Error::Read { path: folder.to_owned(), source })?;
    let mut found: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).filter(|path| wanted(path)).collect();
    found.sort();
    Ok(found)
}
