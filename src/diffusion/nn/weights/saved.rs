//! Files that torch saved: a zip with the numbers of each tensor as they lie in memory, and a pickle that says what they are.
//! Nothing in the pickle is run: it is taken for the tensors that it names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;

use candle_core::pickle::{TensorInfo, read_pth_tensor_info};
use zip::{CompressionMethod, ZipArchive};

use super::item::{Item, map};
use super::{Source, Weights};
use crate::error::{Error, FileFault, Result};
use crate::nn::header::Entry;

impl Weights {
    /// Maps a file that torch saved, for the tensors of the dictionary that it keeps under `key`; where it has none of that name, for
    /// those of the outermost. A safetensors file is opened as such.
    ///
    /// As with [`open`](Self::open), the file must not be cut shorter while it is in use.
    ///
    /// # Errors
    /// [`Error::Unreadable`] and [`Error::BadFile`].
    pub fn open_saved(path: impl AsRef<Path>, key: &str) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let unreadable = |source| Error::Unreadable { file: name.clone(), source };
        let bytes = Arc::new(map(path).map_err(unreadable)?);
        if !bytes.as_slice().starts_with(b"PK\x03\x04") {
            return Self::open(path);
        }
        let (owned, key) = (path.to_owned(), key.to_owned());
        // The reader of pickles was written for sound ones: on others it may panic.
        let places = catch_unwind(move || places(&owned, &key));
        let places = places
            .unwrap_or_else(|_| Err("its pickle is broken".to_owned()))
            .map_err(|reason| Error::BadFile { file: name.clone(), fault: FileFault::BadSaved { reason } })?;
        let item = |(name, (entry, transposed))| {
            (name, Item { bytes: bytes.clone(), entry, transposed, read: Arc::default(), sum: None })
        };
        let entries = places.into_iter().map(item).collect();
        Ok(Self::of(Source { name, entries, metadata: BTreeMap::new() }))
    }
}

/// Where each tensor lies in the file, and whether its columns follow one another in place of its rows.
fn places(path: &Path, key: &str) -> Result<BTreeMap<String, (Entry, bool)>, String> {
    let told = |error: candle_core::Error| error.to_string();
    let nested = read_pth_tensor_info(path, false, Some(key));
    let infos = nested.or_else(|_| read_pth_tensor_info(path, false, None)).map_err(told)?;
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| error.to_string())?;
    let mut places = BTreeMap::new();
    for info in infos {
        let place = place(&info, &mut archive).map_err(|reason| format!("tensor `{}` {reason}", info.name))?;
        places.insert(info.name, place);
    }
    Ok(places)
}

fn place(info: &TensorInfo, archive: &mut ZipArchive<BufReader<File>>) -> Result<(Entry, bool), String> {
    let member = archive.by_name(&info.path).map_err(|error| format!("is not there: {error}"))?;
    if member.compression() != CompressionMethod::Stored {
        return Err("is compressed".to_owned());
    }
    let transposed = !info.layout.is_contiguous();
    if transposed && !(info.layout.is_fortran_contiguous() && info.layout.dims().len() == 2) {
        return Err("does not lie in one piece".to_owned());
    }
    let shape = info.layout.dims().to_vec();
    let length = shape.iter().try_fold(info.dtype.size_in_bytes(), |bytes, &dim| bytes.checked_mul(dim));
    let end = length.and_then(|length| info.layout.start_offset().checked_add(length));
    let (Some(end), Some(start)) = (end.filter(|&end| end as u64 <= member.size()), member.data_start()) else {
        return Err("lies outside its numbers".to_owned());
    };
    // A member that is stored as it is lies within the file, as the archive's reader made sure.
    let start = usize::try_from(start).map_err(|_| "lies too far behind".to_owned())?;
    let range = start + info.layout.start_offset()..start + end;
    Ok((Entry { dtype: format!("{:?}", info.dtype), shape, range }, transposed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{relative_error, value};

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/photomaker/saved.bin");

    #[test]
    fn tensors_are_found_where_they_lie() {
        let weights = Weights::open_saved(FILE, "id_encoder").unwrap();
        assert!(weights.names().count() > 30 && weights.names().all(|name| !name.contains("lora")));
        // In order, column by column, and within a larger tensor; each drawn from its name.
        for (key, shape, scale) in [
            ("visual_projection_2.weight", &[5, 16][..], (3.0_f64 / 16.0).sqrt()),
            ("visual_projection.weight", &[3, 16], (3.0_f64 / 16.0).sqrt()),
            ("fuse_module.mlp2.fc1.weight", &[8, 8], (3.0_f64 / 8.0).sqrt()),
        ] {
            let error = relative_error(&weights.tensor(key, shape).unwrap(), &value(key, shape, scale));
            assert!(error < 4e-4, "{key}: {error}");
        }
        let key = "fuse_module.layer_norm.weight";
        let expected = (value(key, &[8], 0.1) + 1.0).unwrap();
        assert!(relative_error(&weights.tensor(key, &[8]).unwrap(), &expected) < 4e-4);
        let plain = Weights::open_saved(FILE, "none of it");
        assert_eq!(plain.unwrap().names().count(), 0, "the outermost dictionary holds dictionaries");
    }

    /// Cut anywhere, or with any byte of its pickle another one, it is an error or a file, and never a panic.
    #[test]
    fn damaged_files_are_refused_in_words() {
        let whole = std::fs::read(FILE).unwrap();
        let path = std::env::temp_dir().join(format!("paraflow-saved-{}.bin", std::process::id()));
        for cut in [5, 100, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let told = Weights::open_saved(&path, "id_encoder").map(|_| ()).unwrap_err().to_string();
            assert!(told.contains("is no file that torch saved, or a damaged one"), "{cut}: {told}");
        }
        let start = whole.windows(8).position(|part| part == b"data.pkl").unwrap() + 8;
        for at in (start..start + 3000).step_by(31) {
            let mut other = whole.clone();
            other[at] ^= 0xff;
            std::fs::write(&path, &other).unwrap();
            let Ok(weights) = Weights::open_saved(&path, "id_encoder") else { continue };
            for name in weights.names() {
                let _ = weights.tensor(name, weights.shape(name).unwrap());
            }
        }
        std::fs::write(&path, b"\x80\x02}q\x00.").unwrap();
        let told = Weights::open_saved(&path, "id_encoder").map(|_| ()).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(told.contains("pickle"), "{told}");
    }
}
