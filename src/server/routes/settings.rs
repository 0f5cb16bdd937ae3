//! `/users` and `/settings`: one user, one file of settings.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use serde_json::{Map, Value as Json, json};

use crate::app::App;
use crate::error::{Answer, Fail, answer};
use crate::paths;
use crate::routes::models::blocking;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/users", get(users).post(add_user))
        .route("/settings", get(all).post(merge))
        .route("/settings/{id}", get(one).post(set))
}

/// Where the one user's files lie.
pub(super) fn user_dir(app: &App) -> PathBuf {
    app.assets.base_dir().join("user/default")
}

async fn users(State(app): State<App>) -> Answer {
    Ok(answer(&json!({"storage": "server", "migrated": user_dir(&app).is_dir()})))
}

/// There is one user, and no way to add another, as in ComfyUI without `--multi-user`.
async fn add_user(body: Bytes) -> Answer {
    let body: Json = serde_json::from_slice(&body).map_err(Fail::unexpected)?;
    let name = body.get("username").and_then(Json::as_str).filter(|name| !name.is_empty());
    let refused = |text: &str| Err(Fail::error(StatusCode::BAD_REQUEST, text));
    match name {
        None => Err(Fail::Text(StatusCode::BAD_REQUEST, "username not provided".into())),
        Some(name) if sanitised(name).starts_with("__") => {
            Err(Fail::Text(StatusCode::BAD_REQUEST, "System User prefix not allowed".into()))
        }
        Some("default") => refused("Duplicate username."),
        Some(_) => refused("this server has one user"),
    }
}

/// Letters, digits, `-` and `_`; runs of others become one `-`.
fn sanitised(name: &str) -> String {
    let mut out = String::new();
    let mut in_run = false;
    for letter in name.trim().chars() {
        let fit = letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        if fit {
            out.push(letter);
        } else if !in_run {
            out.push('-');
        }
        in_run = !fit;
    }
    out
}

/// Reading, changing and writing is one step, so that two requests do not undo each other.
static WRITING: Mutex<()> = Mutex::new(());

fn file(app: &App) -> PathBuf {
    user_dir(app).join("comfy.settings.json")
}

/// A file that is missing or broken says nothing.
fn read(app: &App) -> Map<String, Json> {
    let text = std::fs::read(file(app)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn change(app: &App, change: impl FnOnce(&mut Map<String, Json>)) -> Answer {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut settings = read(app);
    change(&mut settings);
    let mut text = Vec::new();
    let indented = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, indented);
    serde::Serialize::serialize(&settings, &mut writer).map_err(Fail::unexpected)?;
    paths::write_whole(&file(app), &text).map_err(Fail::unexpected)?;
    Ok(StatusCode::OK.into_response())
}

async fn all(State(app): State<App>) -> Answer {
    blocking(move || Ok(answer(&Json::Object(read(&app))))).await
}

async fn one(State(app): State<App>, Path(id): Path<String>) -> Answer {
    blocking(move || Ok(answer(read(&app).get(&id).unwrap_or(&Json::Null)))).await
}

async fn merge(State(app): State<App>, body: Bytes) -> Answer {
    let new: Map<String, Json> = serde_json::from_slice(&body).map_err(Fail::unexpected)?;
    blocking(move || change(&app, |settings| settings.extend(new))).await
}

async fn set(State(app): State<App>, Path(id): Path<String>, body: Bytes) -> Answer {
    let value: Json = serde_json::from_slice(&body).map_err(Fail::unexpected)?;
    blocking(move || {
        change(&app, |settings| {
            settings.insert(id, value);
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sanitised_as_in_comfyui() {
        assert_eq!(sanitised("a b!!c"), "a-b-c");
        assert_eq!(sanitised("__system"), "__system");
        assert_eq!(sanitised("_one"), "_one");
    }
}
