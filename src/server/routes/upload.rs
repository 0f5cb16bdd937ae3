//! `/upload/image` and `/upload/mask`.

use std::fs;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::{Value as Json, json};

use crate::app::App;
use crate::error::{Answer, Fail, answer};
use crate::paths;
use crate::routes::models::{blocking, opening};
use crate::routes::view;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/upload/image", post(image)).route("/upload/mask", post(mask))
}

/// The parts of the form.
#[derive(Default)]
struct Form {
    image: Option<(String, Bytes)>,
    overwrite: bool,
    place: Option<String>,
    subfolder: String,
    original: Option<String>,
}

/// A form has these parts and few others.
const MOST_PARTS: usize = 32;

async fn read(mut parts: Multipart) -> Result<Form, Fail> {
    let bad = |_| Fail::from(StatusCode::BAD_REQUEST);
    let mut form = Form::default();
    for _ in 0..MOST_PARTS {
        let part = parts.next_field().await.map_err(|error| Fail::Empty(error.status()))?;
        let Some(part) = part else { return Ok(form) };
        match part.name().unwrap_or_default() {
            "image" => {
                let name = part.file_name().unwrap_or_default().to_owned();
                form.image = Some((name, part.bytes().await.map_err(|error| Fail::Empty(error.status()))?));
            }
            "overwrite" => form.overwrite = matches!(part.text().await.map_err(bad)?.as_str(), "true" | "1"),
            "type" => form.place = Some(part.text().await.map_err(bad)?),
            "subfolder" => form.subfolder = part.text().await.map_err(bad)?,
            "original_ref" => form.original = Some(part.text().await.map_err(bad)?),
            _ => {}
        }
    }
    Err(StatusCode::BAD_REQUEST.into())
}

async fn image(State(app): State<App>, parts: Multipart) -> Answer {
    let form = read(parts).await?;
    blocking(move || {
        let (place, target) = target(&app, &form)?;
        let (_, bytes) = form.image.as_ref().ok_or(StatusCode::BAD_REQUEST)?;
        let path = if form.overwrite { target } else { free(&target, bytes).map_err(Fail::unexpected)? };
        store(&app, &path, bytes)?;
        Ok(stored(&path, &form.subfolder, &place))
    })
    .await
}

/// Where the upload is to go: its type and its path.
fn target(app: &App, form: &Form) -> Result<(String, PathBuf), Fail> {
    let (name, _) = form.image.as_ref().ok_or(StatusCode::BAD_REQUEST)?;
    let place = form.place.clone().filter(|place| matches!(place.as_str(), "temp" | "output"));
    let place = place.unwrap_or_else(|| "input".into());
    let root = view::root(app, &place).ok_or(StatusCode::BAD_REQUEST)?;
    let folder = paths::folder_below(&root, &form.subfolder).ok_or(StatusCode::BAD_REQUEST)?;
    // Names that begin with a dot are ours: files that are not whole yet.
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    if last.is_empty() || last.starts_with('.') || last.contains('\0') {
        return Err(StatusCode::BAD_REQUEST.into());
    }
    let below = folder.strip_prefix(&root).map(|folder| folder.join(name)).unwrap_or_default();
    let path = paths::below(&root, &below.to_string_lossy()).filter(|path| path.starts_with(&folder));
    Ok((place, path.ok_or(StatusCode::BAD_REQUEST)?))
}

/// A name that nobody has, or that of a file with this content.
fn free(target: &Path, bytes: &[u8]) -> std::io::Result<PathBuf> {
    let stem = target.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let ending = target.extension().map(|ending| format!(".{}", ending.to_string_lossy())).unwrap_or_default();
    let mut path = target.to_owned();
    let mut number = 1_u32;
    while path.symlink_metadata().is_ok() {
        if path.is_file() && fs::metadata(&path)?.len() == bytes.len() as u64 && fs::read(&path)? == bytes {
            break;
        }
        path = target.with_file_name(format!("{stem} ({number}){ending}"));
        number += 1;
    }
    Ok(path)
}

fn store(app: &App, path: &Path, bytes: &[u8]) -> Result<(), Fail> {
    paths::write_whole(path, bytes).map_err(Fail::unexpected)?;
    // The next `/object_info` lists it, watched or not.
    app.nodes.refresh();
    Ok(())
}

fn stored(path: &Path, subfolder: &str, place: &str) -> axum::response::Response {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    answer(&json!({"name": name, "subfolder": subfolder, "type": place}))
}

async fn mask(State(app): State<App>, parts: Multipart) -> Answer {
    let form = read(parts).await?;
    opening(move || {
        let (place, target) = target(&app, &form)?;
        let (_, bytes) = form.image.as_ref().ok_or(StatusCode::BAD_REQUEST)?;
        let path = if form.overwrite { target } else { free(&target, bytes).map_err(Fail::unexpected)? };
        // Without the picture that it belongs to, a mask is nothing, and ComfyUI says nothing.
        if let Some(original) = original(&app, &form)? {
            let masked = masked(&original, bytes).ok_or_else(|| Fail::unexpected("no picture"))?;
            store(&app, &path, &masked)?;
        }
        Ok(stored(&path, &form.subfolder, &place))
    })
    .await
}

/// The picture that the mask belongs to; `None` where it is not there.
fn original(app: &App, form: &Form) -> Result<Option<PathBuf>, Fail> {
    let reference: Json =
        form.original.as_deref().and_then(|text| serde_json::from_str(text).ok()).ok_or(StatusCode::BAD_REQUEST)?;
    let text = |key: &str| reference.get(key).and_then(Json::as_str);
    let (name, annotated) = view::annotation(text("filename").unwrap_or_default());
    if name.is_empty() || name.starts_with(['/', '\\']) || name.contains("..") || name.contains('\0') {
        return Err(StatusCode::BAD_REQUEST.into());
    }
    let place = annotated.or(text("type")).unwrap_or("output");
    let root = view::root(app, place).ok_or(StatusCode::BAD_REQUEST)?;
    let folder = paths::folder_below(&root, text("subfolder").unwrap_or_default()).ok_or(StatusCode::FORBIDDEN)?;
    let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
    Ok(paths::below(&folder, last).filter(|path| path.is_file()))
}

/// The original's colours with the upload's alpha, as a PNG that keeps the original's texts.
fn masked(original: &Path, upload: &[u8]) -> Option<Vec<u8>> {
    let mut picture = view::open(original)?.to_rgba8();
    let alpha = view::decode(upload)?.to_rgba8();
    if alpha.dimensions() != picture.dimensions() {
        return None;
    }
    for (to, from) in picture.pixels_mut().zip(alpha.pixels()) {
        to.0[3] = from.0[3];
    }
    let mut written = Vec::new();
    let mut encoder = png::Encoder::new(&mut written, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgba);
    for (keyword, text) in texts(original) {
        encoder.add_text_chunk(keyword, text).ok()?;
    }
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(picture.as_raw()).ok()?;
    writer.finish().ok()?;
    Some(written)
}

/// The `tEXt` chunks of a PNG: the prompt and the workflow that made it.
fn texts(file: &Path) -> Vec<(String, String)> {
    let Ok(file) = fs::File::open(file) else { return Vec::new() };
    let Ok(reader) = png::Decoder::new(std::io::BufReader::new(file)).read_info() else { return Vec::new() };
    let chunks = &reader.info().uncompressed_latin1_text;
    chunks.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone())).collect()
}
