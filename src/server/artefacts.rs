//! The files that a job made, with size and hash, found in what its outputs showed.

use std::path::PathBuf;

use paraflow_assets::{Assets, RelativeName};
use serde_json::Value as Json;

use crate::queue::Artefact;

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
    let mut artefact =
        Artefact { node: node.into(), kind: kind.into(), filename, subfolder, place, bytes: None, blake3: None };
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
