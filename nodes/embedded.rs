//! Models that the program brings, so that a newcomer needs no download.

use crate::error::Error;
use std::sync::{Arc, OnceLock};

/// A model inside the program: a safetensors file, compressed with zstd.
pub(crate) struct Embedded {
    /// The folder that it is listed in.
    folder: &'static str,
    /// What it is called there.
    pub(crate) name: &'static str,
    packed: &'static [u8],
    unpacked: OnceLock<Arc<[u8]>>,
}

static MODELS: [Embedded; 1] = [Embedded {
    folder: "checkpoints",
    name: "toyland.safetensors",
    packed: include_bytes!("embedded/toyland.safetensors.zst"),
    unpacked: OnceLock::new(),
}];

/// The names of the models that the program brings for a folder of models, `checkpoints` for one.
pub fn embedded_names(folder: &str) -> impl Iterator<Item = &'static str> {
    models(folder).map(|model| model.name)
}

/// The safetensors file of a model that the program brings; `None` where it brings none of that name.
///
/// # Errors
/// [`Error::Embedded`] for a program that was built from a damaged file.
pub fn embedded_file(folder: &str, name: &str) -> Result<Option<Arc<[u8]>>, Error> {
    models(folder).find(|model| model.name == name).map(Embedded::file).transpose()
}

/// The models of a folder.
pub(crate) fn models(folder: &str) -> impl Iterator<Item = &'static Embedded> {
    MODELS.iter().filter(move |model| model.folder == folder)
}

impl Embedded {
    /// What changes when the program brings another model under this name.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        blake3::hash(self.packed).into()
    }

    /// The safetensors file, unpacked once and shared.
    ///
    /// # Errors
    /// [`Error::Embedded`] for a program that was built from a damaged file.
    pub(crate) fn file(&self) -> Result<Arc<[u8]>, Error> {
        if let Some(bytes) = self.unpacked.get() {
            return Ok(Arc::clone(bytes));
        }
        let bytes = zstd::decode_all(self.packed).map_err(|source| Error::Embedded { name: self.name, source })?;
        Ok(Arc::clone(self.unpacked.get_or_init(|| bytes.into())))
    }
}
