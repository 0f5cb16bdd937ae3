//! Model folders, inputs and outputs on disk: which file a name means, and how a new file comes to be.
//!
//! Knows no tensors and no graphs. Everything here takes names as users and workflows write them, and answers with
//! paths that are safe to open: below their folder, found by the rules of ComfyUI's contract, or an [`Error`] that says
//! where was searched and what was nearest. A file that [`Outputs`] makes is whole or absent, and never replaces
//! another, however many threads and processes save under the same prefix.
//!
//! ```text
//! base directory/
//!   models/checkpoints, loras, vae …   Models   names to files, first folder wins, then by hash
//!   input/                             Inputs   pictures that graphs read
//!   output/   temp/                    Outputs  pictures that graphs make; temp/ is for previews
//!   user/                              what paraflow remembers: hashes of models
//! ```

mod error;
mod extra_paths;
mod fingerprint;
mod folders;
mod hashes;
mod inputs;
mod json;
mod models;
mod names;
mod outputs;
mod picture;
mod prefix;

use std::path::{Path, PathBuf};

pub use error::{BadName, Error, Result};
pub use fingerprint::{Fingerprint, fingerprint};
pub use hashes::{FileHash, Hashes, hash_file, sha256};
pub use inputs::Inputs;
pub use json::{python_json, read_yaml};
pub use models::{Model, Models};
pub use names::{RelativeName, nearest};
pub use outputs::{Outputs, Place, Saved, Series};
pub use picture::{Channels, Pixels, write_animated_png, write_png};

/// Where to look; every field may be left empty.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The folder with `models/`, `input/`, `output/`, `temp/` and `user/`. `None`: the working directory if it has
    /// `models/`, else the platform's data directory.
    pub base_dir: Option<PathBuf>,
    /// Further `models` folders, such as an existing ComfyUI's. Searched after the base directory's, in this order.
    pub model_dirs: Vec<PathBuf>,
    /// ComfyUI's `extra_model_paths.yaml`, any number. One that lies in the base directory is read without being named.
    pub extra_model_paths: Vec<PathBuf>,
    /// Further input folders, searched after `input/`, in this order. A graph that ships brings its pictures in
    /// `input/` beside itself, which the command line adds here.
    pub input_dirs: Vec<PathBuf>,
    /// Where results go, if not to `output/` in the base directory.
    pub output_dir: Option<PathBuf>,
}

/// The outside world of files, opened once and shared by all who read or write.
#[derive(Debug)]
pub struct Assets {
    base_dir: PathBuf,
    models: Models,
    inputs: Inputs,
    outputs: Outputs,
    previews: Outputs,
}

impl Assets {
    /// Settles where everything lies. Makes no folder: that happens when something is first written.
    ///
    /// # Errors
    /// A folder of `model_dirs` or a file of `extra_model_paths` that is not there or cannot be read, a file where the
    /// output folder should be, or no base directory on a platform without a data directory.
    pub fn open(settings: &Settings) -> Result<Self> {
        let base_dir = base_dir(settings.base_dir.as_deref())?;
        let output_dir = match &settings.output_dir {
            Some(dir) => absolute(dir)?,
            None => base_dir.join("output"),
        };
        if output_dir.exists() && !output_dir.is_dir() {
            return Err(Error::NotAFolder { path: output_dir });
        }
        let temp_dir = base_dir.join("temp");

        let mut folders = folders::Folders::below(&base_dir);
        for dir in &settings.model_dirs {
            folders.add_models_dir(&absolute(dir)?)?;
        }
        let beside = base_dir.join("extra_model_paths.yaml");
        let beside = beside.is_file().then_some(&beside);
        for file in settings.extra_model_paths.iter().chain(beside) {
            extra_paths::add(&mut folders, &absolute(file)?)?;
        }
        folders.add_output_dirs(&output_dir);

        let mut input_dirs = vec![base_dir.join("input")];
        for dir in &settings.input_dirs {
            input_dirs.push(absolute(dir)?);
        }
        Ok(Self {
            models: Models::new(folders, Hashes::kept_in(base_dir.join("user/hashes.json"))),
            inputs: Inputs::new(input_dirs, output_dir.clone(), temp_dir.clone()),
            outputs: Outputs::new(output_dir, Place::Output),
            previews: Outputs::new(temp_dir, Place::Temp),
            base_dir,
        })
    }

    /// The base directory, absolute.
    #[must_use]
    pub fn base_dir(&self) -> &Path {
        &self.base_dir
    }

    /// Models by folder and name.
    #[must_use]
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// Pictures that graphs read.
    #[must_use]
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Where results are saved.
    #[must_use]
    pub fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// Where previews are saved: the folder that a server empties when it starts.
    #[must_use]
    pub fn previews(&self) -> &Outputs {
        &self.previews
    }
}

fn base_dir(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(dir) = given {
        return absolute(dir);
    }
    let here = absolute(Path::new("."))?;
    if here.join("models").is_dir() {
        return Ok(here);
    }
    dirs::data_dir().map(|data| data.join("paraflow")).ok_or(Error::NoDataDirectory)
}

/// Absolute and without `.` or trailing separators; symbolic links stay as they are.
fn absolute(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(absolute.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_base_directory_holds_everything_and_is_not_made_until_needed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("new");
        let assets = Assets::open(&Settings { base_dir: Some(base.clone()), ..Settings::default() }).unwrap();
        assert_eq!(assets.base_dir(), base);
        assert_eq!(assets.outputs().root(), base.join("output"));
        assert_eq!(assets.previews().root(), base.join("temp"));
        assert!(!base.exists());
    }

    #[test]
    fn a_models_dir_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("modles");
        let settings = Settings {
            base_dir: Some(dir.path().to_owned()),
            model_dirs: vec![missing.clone()],
            ..Settings::default()
        };
        let error = Assets::open(&settings).unwrap_err();
        assert!(matches!(&error, Error::NoSuchFolder { path } if *path == missing), "{error}");
    }

    #[test]
    fn extra_model_paths_in_the_base_directory_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("elsewhere/ckpt")).unwrap();
        std::fs::write(dir.path().join("elsewhere/ckpt/a.safetensors"), b"x").unwrap();
        std::fs::write(
            dir.path().join("extra_model_paths.yaml"),
            "mine:\n  base_path: elsewhere\n  checkpoints: ckpt\n",
        )
        .unwrap();
        let settings = Settings { base_dir: Some(dir.path().to_owned()), ..Settings::default() };
        let assets = Assets::open(&settings).unwrap();
        assert_eq!(assets.models().list("checkpoints").unwrap(), ["a.safetensors"]);
    }
}
