//! What waits and runs: `/queue`, `/interrupt`, `/free`.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use serde_json::Value as Json;

use crate::app::App;
use crate::error::{Answer, Fail, json_response};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/queue", get(list).post(change))
        .route("/interrupt", post(interrupt))
        .route("/free", post(free))
}

async fn list(State(app): State<App>) -> Answer {
    Ok(json_response(app.queue.snapshot().body.clone()))
}

async fn change(State(app): State<App>, body: Bytes) -> Answer {
    let (clear, delete) = clear_or_delete(&body)?;
    if clear {
        app.queue.clear().await?;
    }
    if !delete.is_empty() {
        app.queue.remove(&delete).await?;
    }
    Ok(StatusCode::OK.into_response())
}

/// `{"clear": true}` and/or `{"delete": [ids]}`.
pub(super) fn clear_or_delete(body: &[u8]) -> Result<(bool, Vec<String>), Fail> {
    let body: Json = serde_json::from_slice(body).map_err(Fail::unexpected)?;
    let clear = body.get("clear").and_then(Json::as_bool).unwrap_or(false);
    let text = |id: &Json| id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    let delete = body.get("delete").and_then(Json::as_array).into_iter().flatten().map(text).collect();
    Ok((clear, delete))
}

/// Without an id, or with a body that says nothing, whatever runs.
async fn interrupt(State(app): State<App>, body: Bytes) -> Answer {
    let body: Json = serde_json::from_slice(&body).unwrap_or_default();
    let id = body.get("prompt_id").and_then(Json::as_str).filter(|id| !id.is_empty());
    app.runner.interrupt(id);
    Ok(StatusCode::OK.into_response())
}

async fn free(State(app): State<App>, body: Bytes) -> Answer {
    let body: Json = serde_json::from_slice(&body).map_err(Fail::unexpected)?;
    let asked = |key: &str| body.get(key).and_then(Json::as_bool).unwrap_or(false);
    if asked("unload_models") || asked("free_memory") {
        app.runner.free();
    }
    Ok(StatusCode::OK.into_response())
}
