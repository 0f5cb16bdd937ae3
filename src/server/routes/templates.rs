//! `/workflow_templates`: the example graphs that the program brings.

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::json;

use crate::app::App;
use crate::error::{Answer, answer, json_response};
use crate::routes::statics;

/// Under which name they are offered.
const MODULE: &str = "paraflow";

pub(super) fn routes() -> Router<App> {
    Router::new().route("/workflow_templates", get(list)).route("/workflow_templates/{module}/{file}", get(one))
}

async fn list() -> Answer {
    let stems: Vec<&str> = statics::graphs().iter().map(|(name, _)| name.trim_end_matches(".json")).collect();
    Ok(answer(&json!({MODULE: stems})))
}

async fn one(Path((module, file)): Path<(String, String)>) -> Answer {
    let found = statics::graphs().iter().find(|(name, _)| module == MODULE && *name == file);
    let (_, bytes) = found.ok_or(StatusCode::NOT_FOUND)?;
    Ok(json_response(*bytes))
}
