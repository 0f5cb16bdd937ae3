//! `/workflow_templates`: the example graphs that the program brings.

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use serde_json::json;

use crate::app::App;
use crate::error::{Answer, Fail, answer, json_response};
use crate::routes::{statics, view};

/// Under which name they are offered.
const MODULE: &str = "paraflow";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workflow_templates", get(list))
        .route("/workflow_templates/{module}/{file}", get(one))
        // ComfyUI's own, of a package beside it. There are none here; a front end asks all the same.
        .route("/templates/index.json", get(async || Ok::<_, Fail>(answer(&json!([])))))
}

async fn list() -> Answer {
    let stems: Vec<&str> = statics::graphs().iter().map(|(name, _)| name.trim_end_matches(".json")).collect();
    Ok(answer(&json!({MODULE: stems})))
}

async fn one(Path((module, file)): Path<(String, String)>) -> Answer {
    if module != MODULE {
        return Err(StatusCode::NOT_FOUND.into());
    }
    if let Some(stem) = file.strip_suffix(".jpg") {
        return picture(stem);
    }
    let found = statics::graphs().iter().find(|(name, _)| *name == file);
    let (_, bytes) = found.ok_or(StatusCode::NOT_FOUND)?;
    Ok(json_response(*bytes))
}

/// What the graph makes, if the editor has a card of it.
fn picture(stem: &str) -> Answer {
    let card = statics::editor_file(&format!("cards/{stem}.webp")).ok_or(StatusCode::NOT_FOUND)?;
    let jpeg = view::as_jpeg(card).ok_or(StatusCode::NOT_FOUND)?;
    Ok(([(header::CONTENT_TYPE, "image/jpeg")], jpeg).into_response())
}
