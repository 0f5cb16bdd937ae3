//! The files that a job made, with size and hash, found in what its outputs showed.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use paraflow_assets::{Assets, RelativeName, Saved};
use serde_json::Value as Json;

use crate::queue::{Artefact, Queue, QueueError};

/// Every file that the outputs name, in their order.
pub(crate) fn of(outputs: &Json, assets: &Assets) -> Vec<Artefact> {
    let mut found = Vec::new();
    for (node, ui) in outputs.as_object().into_iter().flatten() {
        for (kind, items) in ui.as_object().into_iter().flatten() {
            let items = items.as_array().into_iter().flatten();
            found.extend(items.filter_map(|item| artefact(node, kind, item, assets)));
        }
    }
    found
}

fn artefact(node: &str, kind: &str, item: &Json, assets: &Assets) -> Option<Artefact> {
    let text = |key: &str| item.get(key).and_then(Json::as_str);
    let filename = text("filename")?.to_owned();
    let (subfolder, place) = (text("subfolder").unwrap_or_default().to_owned(), text("type")?.to_owned());
    let mut artefact = Artefact {
        node: node.into(),
        kind: kind.into(),
        step: None,
        filename,
        subfolder,
        place,
        bytes: None,
        blake3: None,
    };
    if let Some(path) = path(&artefact, assets) {
        let mut hasher = blake3::Hasher::new();
        if let Ok(file) = std::fs::File::open(path)
            && let Ok(bytes) = std::io::copy(&mut { file }, &mut hasher)
        {
            artefact.bytes = Some(bytes);
            artefact.blake3 = Some(hasher.finalize().to_hex().to_string());
        }
    }
    Some(artefact)
}

/// A sample picture of a training, saved with that content.
pub(crate) fn sample(node: &str, step: u32, saved: &Saved, content: &[u8]) -> Artefact {
    Artefact {
        node: node.to_owned(),
        kind: SAMPLES.to_owned(),
        step: Some(step),
        filename: saved.filename.clone(),
        subfolder: saved.subfolder.clone(),
        place: saved.place.as_str().to_owned(),
        bytes: Some(content.len() as u64),
        blake3: Some(blake3::hash(content).to_hex().to_string()),
    }
}

/// The kind of sample pictures.
pub(crate) const SAMPLES: &str = "samples";

/// Empties `temp/` of all that no job of the history shows.
pub(crate) fn sweep_previews(queue: &dyn Queue, assets: &Assets) -> Result<(), QueueError> {
    let root = assets.previews().root();
    if root.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let shown = queue.artefacts_in("temp").wait()?;
        let shown: HashSet<PathBuf> = shown.iter().filter_map(|file| path(file, assets)).collect();
        sweep(root, &shown);
    }
    Ok(())
}

fn sweep(folder: &Path, shown: &HashSet<PathBuf>) {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let path = entry.path();
        let removed = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sweep(&path, shown);
            // One that is not empty stays.
            let _ = fs::remove_dir(&path);
            Ok(())
        } else if shown.contains(&path) {
            Ok(())
        } else {
            fs::remove_file(&path)
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "cannot remove `{}`", path.display());
        }
    }
}

/// Where an artefact lies, if its names are fit for a file.
pub(crate) fn path(artefact: &Artefact, assets: &Assets) -> Option<PathBuf> {
    let root = match artefact.place.as_str() {
        "output" => assets.outputs().root(),
        "temp" => assets.previews().root(),
        _ => return None,
    };
    let name = if artefact.subfolder.is_empty() {
        artefact.filename.clone()
    } else {
        format!("{}/{}", artefact.subfolder, artefact.filename)
    };
    Some(RelativeName::parse(&name).ok()?.below(root))
}
