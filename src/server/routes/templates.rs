//! `/workflow_templates`: the example graphs that the program brings.

use std::{fs, io};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use paraflow_engine::formats;
use serde_json::json;

use crate::app::App;
use crate::error::{Answer, Fail, answer, json_response};
use crate::routes::models::blocking;
use crate::routes::{statics, view};

/// Under which name they are offered.
const MODULE: &str = "paraflow";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workflow_templates", get(list))
        // ComfyUI's own, of a package beside it. There are none here; a front end asks all the same.
        .route("/templates/index.json", get(async || Ok::<_, Fail>(answer(&json!([])))))
}

async fn list() -> Answer {
    let stems: Vec<&str> = statics::graphs().iter().map(|(name, _)| name.trim_end_matches(".json")).collect();
    Ok(answer(&json!({MODULE: stems})))
}

/// The two places that differ: a graph is given as it ships, or under `/api`, where ComfyUI's front end asks and opens
/// nothing else, as a UI workflow.
pub(super) fn files() -> Router<App> {
    Router::new()
        .route("/workflow_templates/{module}/{file}", get(as_shipped))
        .route("/api/workflow_templates/{module}/{file}", get(as_workflow))
}

/// Who only means to `look` gets the graph, and no pictures among the inputs.
async fn as_shipped(
    State(app): State<App>,
    Path((module, file)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Answer {
    let looks = query.as_deref() == Some("look");
    one(app, &module, &file, looks, |bytes, _| Ok(json_response(bytes))).await
}

async fn as_workflow(State(app): State<App>, Path((module, file)): Path<(String, String)>) -> Answer {
    let convert = |bytes, app: &App| {
        let nodes = app.nodes.now();
        let graph = formats::read(bytes, &nodes.plain).map_err(Fail::unexpected)?;
        Ok(answer(&formats::as_workflow(&graph, &nodes.plain)))
    };
    one(app, &module, &file, false, convert).await
}

/// A graph as `give` has it, or its picture; unless someone only `looks`, the pictures it reads are brought along.
async fn one(
    app: App,
    module: &str,
    file: &str,
    looks: bool,
    give: impl FnOnce(&'static [u8], &App) -> Answer + Send + 'static,
) -> Answer {
    if module != MODULE {
        return Err(StatusCode::NOT_FOUND.into());
    }
    if let Some(stem) = file.strip_suffix(".jpg") {
        return picture(stem);
    }
    let found = statics::graphs().iter().find(|(name, _)| *name == file);
    let (_, bytes) = *found.ok_or(StatusCode::NOT_FOUND)?;
    blocking(move || {
        if !looks && let Err(error) = bring(&String::from_utf8_lossy(bytes), &app) {
            tracing::warn!(%error, "the example's pictures are not among the inputs");
        }
        give(bytes, &app)
    })
    .await
}

/// Puts the pictures that an example reads among the inputs, so that it runs as it is. What is there stays as it is.
fn bring(graph: &str, app: &App) -> io::Result<()> {
    let input = app.assets.base_dir().join("input");
    let mut brought = false;
    for (place, bytes) in statics::examples() {
        // `input/bear.png`, `subjects/captain/0.png`: named by the file, or by the folder.
        let Some((_, name)) = place.split_once('/') else { continue };
        let top = name.split('/').next().unwrap_or(name);
        let target = input.join(name);
        if !graph.contains(&format!("\"{top}\"")) || target.exists() {
            continue;
        }
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&target, bytes)?;
        brought = true;
    }
    if brought {
        app.nodes.refresh();
    }
    Ok(())
}

/// What the graph makes, if the editor has a card of it.
fn picture(stem: &str) -> Answer {
    let card = statics::editor_file(&format!("cards/{stem}.webp")).ok_or(StatusCode::NOT_FOUND)?;
    let jpeg = view::as_jpeg(card).ok_or(StatusCode::NOT_FOUND)?;
    Ok(([(header::CONTENT_TYPE, "image/jpeg")], jpeg).into_response())
}
