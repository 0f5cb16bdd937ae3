//! `/internal`: the log and the folders, for the front end's own panels. Has no twin under `/api`.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{get, patch};
use serde_json::{Map, Value as Json, json};
use tokio::sync::broadcast::error::RecvError;

use crate::app::App;
use crate::error::{Answer, Fail, answer};
use crate::hub::Frame;
use crate::protocol::{LogSize, Logs, Message};
use crate::routes::models::{blocking, keys};
use crate::routes::view;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/internal/logs", get(text))
        .route("/internal/logs/raw", get(raw))
        .route("/internal/logs/subscribe", patch(subscribe))
        .route("/internal/folder_paths", get(folders))
        .route("/internal/files/{place}", get(files))
}

/// The window that the log is said to be written to.
const SIZE: LogSize = LogSize { cols: 120, rows: 50 };

async fn text(State(app): State<App>) -> Answer {
    let lines = app.logs.lines();
    let text: String = lines.iter().map(|line| format!("{} - {}", line.time, line.text)).collect();
    Ok(answer(&text.into()))
}

async fn raw(State(app): State<App>) -> Answer {
    Ok(answer(&json!(Logs { entries: app.logs.lines(), size: SIZE })))
}

async fn subscribe(State(app): State<App>, body: Bytes) -> Answer {
    let body: Json = serde_json::from_slice(&body).map_err(Fail::unexpected)?;
    let id = body["clientId"].as_str().ok_or_else(|| Fail::unexpected("no clientId"))?;
    app.hub.subscribe_logs(id, body["enabled"].as_bool().unwrap_or(false));
    Ok(StatusCode::OK.into_response())
}

/// Sends new lines to those who subscribed.
pub(crate) fn forward_logs(app: &App) {
    let (mut lines, hub) = (app.logs.follow(), std::sync::Arc::downgrade(&app.hub));
    tokio::spawn(async move {
        loop {
            let line = match lines.recv().await {
                Ok(line) => line,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            let Some(hub) = hub.upgrade() else { return };
            hub.send_logs(&Frame::message(&Message::Logs(Logs { entries: vec![line], size: SIZE })));
        }
    });
}

async fn folders(State(app): State<App>) -> Answer {
    let models = app.assets.models();
    let dirs = |key: &str| json!(models.dirs(key).unwrap_or_default());
    Ok(answer(&Json::Object(keys(&app).into_iter().map(|key| (key.clone(), dirs(&key))).collect::<Map<_, _>>())))
}

/// Names of files, the newest first.
async fn files(State(app): State<App>, Path(place): Path<String>) -> Answer {
    blocking(move || {
        let wrong = || Fail::error(StatusCode::BAD_REQUEST, "Invalid directory type");
        let root = view::root(&app, &place).ok_or_else(wrong)?;
        let mut found = Vec::new();
        for entry in root.read_dir().into_iter().flatten().flatten() {
            let (Ok(name), Ok(facts)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            if facts.is_file() && !name.starts_with('.') {
                found.push((facts.modified().ok(), name));
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        Ok(answer(&found.into_iter().map(|(_, name)| name).collect()))
    })
    .await
}
