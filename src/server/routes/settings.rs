//! `/users` and `/settings`: one user, one file of settings.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Id, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::get;
use serde_json::{Map, Value as Json};

use crate::app::App;
use crate::error::{Answer, Fail, answer};
use crate::paths;
use crate::routes::models::blocking;
use crate::routes::users;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/settings", get(all).post(merge)).route("/settings/{id}", get(one).post(set))
}

/// Reading, changing and writing is one step, so that two requests do not undo each other.
static WRITING: Mutex<()> = Mutex::new(());

/// The file of the request's user.
fn file(app: &App, headers: &HeaderMap) -> Result<PathBuf, Fail> {
    let dir = users::dir(app, headers).map_err(|_| Fail::Empty(StatusCode::UNAUTHORIZED))?;
    Ok(dir.join("comfy.settings.json"))
}

/// A file that is missing or broken says nothing.
fn read(file: &Path) -> Map<String, Json> {
    let text = std::fs::read(file).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn change(file: &Path, change: impl FnOnce(&mut Map<String, Json>)) -> Answer {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut settings = read(file);
    change(&mut settings);
    let mut text = Vec::new();
    let indented = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, indented);
    serde::Serialize::serialize(&settings, &mut writer).map_err(Fail::unexpected)?;
    paths::write_whole(file, &text).map_err(Fail::unexpected)?;
    Ok(StatusCode::OK.into_response())
}

async fn all(State(app): State<App>, headers: HeaderMap) -> Answer {
    blocking(move || Ok(answer(&Json::Object(read(&file(&app, &headers)?))))).await
}

async fn one(State(app): State<App>, headers: HeaderMap, Id(id): Id<String>) -> Answer {
    blocking(move || Ok(answer(read(&file(&app, &headers)?).get(&id).unwrap_or(&Json::Null)))).await
}

async fn merge(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let new: Map<String, Json> = serde_json::from_slice(&body).map_err(Fail::unexpected)?;
    blocking(move || change(&file(&app, &headers)?, |settings| settings.extend(new))).await
}

async fn set(State(app): State<App>, headers: HeaderMap, Id(id): Id<String>, body: Bytes) -> Answer {
    let value: Json = serde_json::from_slice(&body).map_err(Fail::unexpected)?;
    blocking(move || {
        change(&file(&app, &headers)?, |settings| {
            settings.insert(id, value);
        })
    })
    .await
}
