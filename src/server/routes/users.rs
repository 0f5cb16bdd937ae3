//! Whose settings and files are asked for: one user, or with `--multi-user` the one that the request names.
//!
//! As in ComfyUI, the name is trusted: users are kept apart from each other's workflows, not from each other.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use serde_json::{Map, Value as Json, json};

use crate::app::App;
use crate::error::{Answer, Fail, answer};
use crate::paths;
use crate::routes::models::blocking;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/users", get(list).post(add))
}

/// The names of users that only the system may use; over HTTP there are none such.
const SYSTEM: &str = "__";
const HEADER: &str = "comfy-user";

/// Where the files of the one user lie, and what belongs to no user.
pub(super) fn default_dir(app: &App) -> PathBuf {
    app.assets.base_dir().join("user/default")
}

/// Where the files of the request's user lie. The failure is ComfyUI's 500; some routes have another.
pub(super) fn dir(app: &App, headers: &HeaderMap) -> Result<PathBuf, Fail> {
    let named = headers.get(HEADER).map_or(Some("default"), |user| user.to_str().ok()).unwrap_or_default();
    let unknown = || Fail::unexpected(format!("unknown user: {named}"));
    if named.starts_with(SYSTEM) {
        return Err(unknown());
    }
    if !app.options.multi_user {
        return Ok(default_dir(app));
    }
    let known = registry(app).contains_key(named) && sanitised(named) == named && !named.is_empty();
    if known { Ok(app.assets.base_dir().join("user").join(named)) } else { Err(unknown()) }
}

fn file(app: &App) -> PathBuf {
    app.assets.base_dir().join("user/users.json")
}

/// Names of users by id.
fn registry(app: &App) -> Map<String, Json> {
    let text = std::fs::read(file(app)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

async fn list(State(app): State<App>) -> Answer {
    blocking(move || {
        Ok(answer(&if app.options.multi_user {
            json!({"storage": "server", "users": registry(&app)})
        } else {
            json!({"storage": "server", "migrated": default_dir(&app).is_dir()})
        }))
    })
    .await
}

/// Two requests do not undo each other.
static WRITING: Mutex<()> = Mutex::new(());
/// More users than any household has, so that requests cannot fill the disk with them.
const MOST_USERS: usize = 1000;

async fn add(State(app): State<App>, body: Bytes) -> Answer {
    let body: Json = serde_json::from_slice(&body).map_err(Fail::unexpected)?;
    let name = body.get("username").and_then(Json::as_str).ok_or_else(|| Fail::unexpected("no username"))?;
    let name = name.trim().to_owned();
    let refused = |text: &str| Err(Fail::error(StatusCode::BAD_REQUEST, text));
    if name.is_empty() {
        return refused("username not provided");
    }
    let id = sanitised(&name);
    if id.starts_with(SYSTEM) {
        return refused("System User prefix not allowed");
    }
    blocking(move || {
        if !app.options.multi_user {
            return refused(if name == "default" { "Duplicate username." } else { "this server has one user" });
        }
        let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut users = registry(&app);
        if users.values().any(|known| *known == name) {
            return refused("Duplicate username.");
        }
        if users.len() >= MOST_USERS {
            return refused("there are too many users");
        }
        let id = format!("{id}_{}", uuid::Uuid::new_v4());
        users.insert(id.clone(), name.into());
        paths::write_whole(&file(&app), Json::Object(users).to_string().as_bytes()).map_err(Fail::unexpected)?;
        Ok(answer(&id.into()))
    })
    .await
}

/// Letters, digits, `-` and `_`; runs of others become one `-`.
fn sanitised(name: &str) -> String {
    let mut out = String::new();
    let mut in_run = false;
    for letter in name.chars() {
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
