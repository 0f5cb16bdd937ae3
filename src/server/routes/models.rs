//! Models by folder: `/models`, `/embeddings`, `/view_metadata`, and ComfyUI's experimental lists.

use std::fs::File;
use std::io::Read as _;
use std::path::Path as FilePath;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;

use crate::app::App;
use crate::error::{Answer, Fail, answer};
use crate::paths;
use crate::routes::view;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/models", get(folders))
        .route("/models/{folder}", get(files))
        .route("/embeddings", get(embeddings))
        .route("/view_metadata/{folder}", get(metadata))
        .route("/experiment/models", get(experiment_folders))
        .route("/experiment/models/{folder}", get(experiment_files))
        .route("/experiment/models/preview/{folder}/{index}/{*file}", get(preview))
}

/// ComfyUI's folders, in its order. What we have besides comes after them.
const FOLDERS: &[&str] = &[
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "upscale_models",
    "latent_upscale_models",
    "custom_nodes",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
];

pub(super) fn keys(app: &App) -> Vec<String> {
    let mut keys: Vec<String> = FOLDERS.iter().map(|&key| key.to_owned()).collect();
    for key in app.assets.models().keys() {
        if !keys.iter().any(|known| known == key) {
            keys.push(key.to_owned());
        }
    }
    keys
}

/// The files of a folder, those that the program brings included. `None` where there is no such folder.
fn list(app: &App, folder: &str) -> Option<Vec<String>> {
    // Old names of folders lead somewhere in a graph, but not here.
    if !keys(app).iter().any(|key| key == folder) {
        return None;
    }
    let models = app.assets.models();
    let mut names = if models.keys().any(|key| key == folder) { models.list(folder).ok()? } else { Vec::new() };
    names.extend((app.embedded_models)(folder));
    names.sort();
    names.dedup();
    Some(names)
}

async fn folders(State(app): State<App>) -> Answer {
    Ok(answer(&keys(&app).into()))
}

async fn files(State(app): State<App>, Path(folder): Path<String>) -> Answer {
    blocking(move || list(&app, &folder).map(|names| answer(&names.into())).ok_or(StatusCode::NOT_FOUND.into())).await
}

async fn embeddings(State(app): State<App>) -> Answer {
    blocking(move || {
        let names = list(&app, "embeddings").unwrap_or_default();
        let bare = |name: String| name.rsplit_once('.').map_or(name.clone(), |(stem, _)| stem.to_owned());
        Ok(answer(&names.into_iter().map(bare).collect::<Vec<_>>().into()))
    })
    .await
}

/// Folders are read on a thread that may wait for the disk.
pub(super) async fn blocking(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    tokio::task::spawn_blocking(work).await.map_err(Fail::unexpected)?
}

/// Pictures are opened for so many requests at a time, for each may take a gigabyte.
static OPENING: Semaphore = Semaphore::const_new(2);

/// The same for work that opens pictures.
pub(super) async fn opening(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    // It goes with the work, which also goes on where nobody waits for it any more.
    let turn = OPENING.acquire().await.map_err(Fail::unexpected)?;
    blocking(move || {
        let _turn = turn;
        work()
    })
    .await
}

/// A header longer than this is read by nobody.
const LARGEST_HEADER: u64 = 1 << 20;
/// One with cover pictures may be longer.
const LARGEST_COVERED_HEADER: u64 = 8 << 20;

async fn metadata(
    State(app): State<App>,
    Path(folder): Path<String>,
    Query(query): Query<std::collections::HashMap<String, String>>,
) -> Answer {
    blocking(move || {
        let name = query.get("filename").filter(|name| name.ends_with(".safetensors")).ok_or(StatusCode::NOT_FOUND)?;
        let model = app.assets.models().find(&folder, name).map_err(|_| StatusCode::NOT_FOUND)?;
        let header = safetensors_header(&model.path, LARGEST_HEADER).ok_or(StatusCode::NOT_FOUND)?;
        Ok(answer(header.get("__metadata__").ok_or(StatusCode::NOT_FOUND)?))
    })
    .await
}

fn safetensors_header(path: &FilePath, longest: u64) -> Option<Json> {
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > longest {
        return None;
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).ok()?;
    serde_json::from_slice(&header).ok()
}

async fn experiment_folders(State(app): State<App>) -> Answer {
    let dirs = |key: &str| app.assets.models().dirs(key).unwrap_or_default().to_vec();
    let shown = keys(&app).into_iter().filter(|key| key != "configs" && key != "custom_nodes");
    Ok(answer(&shown.map(|key| json!({"folders": dirs(&key), "name": key})).collect()))
}

async fn experiment_files(State(app): State<App>, Path(folder): Path<String>) -> Answer {
    blocking(move || {
        let models = app.assets.models();
        let known = folder != "configs" && folder != "custom_nodes" && keys(&app).contains(&folder);
        if !known {
            return Err(StatusCode::NOT_FOUND.into());
        }
        let dirs = models.dirs(&folder).unwrap_or_default();
        let files = models.files(&folder).unwrap_or_default();
        let visible = files.into_iter().filter(|model| !model.name.split('/').any(|part| part.starts_with('.')));
        let describe = |model: paraflow_assets::Model| {
            let facts = model.path.metadata().ok()?;
            let seconds = |time: std::io::Result<std::time::SystemTime>| {
                let since = time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                since.as_ref().map(Duration::as_secs_f64)
            };
            let index = dirs.iter().position(|dir| model.path.starts_with(dir)).unwrap_or(0);
            let modified = seconds(facts.modified());
            Some(json!({"name": model.name, "pathIndex": index, "modified": modified,
                        "created": seconds(facts.created()).or(modified), "size": facts.len()}))
        };
        Ok(answer(&visible.filter_map(describe).collect()))
    })
    .await
}

/// A picture that lies beside the model, or in it, as WebP.
async fn preview(State(app): State<App>, Path((folder, index, file)): Path<(String, String, String)>) -> Answer {
    let index: usize = index.parse().map_err(Fail::unexpected)?;
    opening(move || {
        let missing = || Fail::from(StatusCode::NOT_FOUND);
        let dirs = app.assets.models().dirs(&folder).map_err(|_| missing())?;
        let model = paths::below(dirs.get(index).ok_or_else(missing)?, &file).ok_or_else(missing)?;
        let picture = beside(&model).or_else(|| cover(&model)).ok_or_else(missing)?;
        let webp = view::as_webp(&picture).ok_or_else(missing)?;
        Ok(([(header::CONTENT_TYPE, "image/webp")], webp).into_response())
    })
    .await
}

/// `<stem>.png` or `<stem>.preview.png` in the model's folder, or another kind of picture.
fn beside(model: &FilePath) -> Option<Vec<u8>> {
    let (stem, folder) = (model.file_stem()?.to_str()?, model.parent()?);
    let endings = ["png", "jpg", "jpeg", "webp", "gif"];
    let mut names = endings.iter().flat_map(|ending| [format!("{stem}.{ending}"), format!("{stem}.preview.{ending}")]);
    let path = names.find_map(|name| Some(folder.join(name)).filter(|path| path.is_file()))?;
    std::fs::read(path).ok()
}

/// The first of the pictures that trainers put into the header of a model.
fn cover(model: &FilePath) -> Option<Vec<u8>> {
    let path = model.with_extension("safetensors");
    let header = safetensors_header(&path, LARGEST_COVERED_HEADER)?;
    let covers: Vec<String> =
        serde_json::from_str(header.pointer("/__metadata__/ssmd_cover_images")?.as_str()?).ok()?;
    BASE64.decode(covers.first()?.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::tests::{Bench, Got};

    const PAUSE: Duration = Duration::from_millis(100);

    /// Whether an answer is still awaited after a while.
    async fn waits(answer: &mut (impl Future<Output = Got> + Unpin)) -> bool {
        tokio::time::timeout(PAUSE, answer).await.is_err()
    }

    /// Two pictures at a time: a third waits, whoever asked for the first two may be gone, and what opens none does not wait.
    #[tokio::test(flavor = "multi_thread")]
    async fn two_pictures_are_opened_at_a_time_and_the_next_wait() {
        let bench = Bench::new();
        std::fs::create_dir_all(bench.dir.path().join("output")).unwrap();
        let picture = image::RgbImage::from_pixel(2, 2, image::Rgb([1, 2, 3]));
        picture.save(bench.dir.path().join("output/p.png")).unwrap();
        let begun = Arc::new(AtomicUsize::new(0));
        let (mut gates, mut holders) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (gate, opened) = std::sync::mpsc::channel::<()>();
            let begun = Arc::clone(&begun);
            let work = move || {
                begun.fetch_add(1, Ordering::SeqCst);
                let _ = opened.recv();
                Ok(StatusCode::OK.into_response())
            };
            gates.push(gate);
            holders.push(tokio::spawn(opening(work)));
        }
        while begun.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut third = pin!(bench.get("/view?filename=p.png&preview=jpeg;50&channel=rgb"));
        assert!(waits(&mut third).await);
        assert_eq!(bench.get("/view?filename=p.png").await.status, StatusCode::OK, "as it is, it is not opened");
        // A client that hangs up does not let another in before its picture is closed.
        holders.iter().for_each(tokio::task::JoinHandle::abort);
        assert!(waits(&mut third).await);
        gates.pop();
        let got = third.await;
        assert_eq!((got.status, got.header(header::CONTENT_TYPE)), (StatusCode::OK, "image/jpeg"));
    }
}
