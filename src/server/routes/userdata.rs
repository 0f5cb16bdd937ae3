//! The user's own files, workflows above all: `/userdata`, `/v2/userdata`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::time::UNIX_EPOCH;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use percent_encoding::percent_decode_str;
use serde_json::{Value as Json, json};

use crate::app::App;
use crate::error::{Answer, Fail, answer};
use crate::paths;
use crate::routes::models::blocking;
use crate::routes::users;

type Parameters = Query<HashMap<String, String>>;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/userdata", get(list))
        .route("/v2/userdata", get(list_v2))
        .route("/userdata/{file}", get(read).post(write).delete(remove))
        .route("/userdata/{file}/move/{dest}", post(rename))
}

/// A folder nested deeper than this is not listed further.
const DEEPEST: usize = 32;

fn is_set(query: &HashMap<String, String>, name: &str) -> bool {
    query.get(name).is_some_and(|value| value == "true")
}

async fn list(State(app): State<App>, headers: HeaderMap, Query(query): Parameters) -> Answer {
    blocking(move || {
        let root = users::dir(&app, &headers)?;
        let dir = query.get("dir").filter(|dir| !dir.is_empty());
        let dir = dir.ok_or_else(|| Fail::Text(StatusCode::BAD_REQUEST, "Directory not provided".into()))?;
        let invalid = || Fail::Text(StatusCode::FORBIDDEN, "Invalid directory".into());
        let folder = paths::folder_below(&root, dir.trim_end_matches('/')).ok_or_else(invalid)?;
        if !folder.is_dir() {
            return Err(Fail::Text(StatusCode::NOT_FOUND, "Directory not found".into()));
        }
        let depth = if is_set(&query, "recurse") { DEEPEST } else { 0 };
        let mut files = Vec::new();
        collect(&folder, "", depth, &mut files);
        let describe = |(name, path): (String, PathBuf)| {
            if is_set(&query, "full_info") {
                let mut info = info(&path);
                info["path"] = name.into();
                info
            } else if is_set(&query, "split") {
                let parts: Vec<&str> = name.split('/').collect();
                std::iter::once(name.as_str()).chain(parts).collect()
            } else {
                name.into()
            }
        };
        Ok(answer(&files.into_iter().map(describe).collect()))
    })
    .await
}

/// Files below a folder, by their names with `/`, sorted.
fn collect(folder: &FilePath, prefix: &str, depth: usize, files: &mut Vec<(String, PathBuf)>) {
    let mut entries: Vec<_> = folder.read_dir().into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (Ok(name), path) = (entry.file_name().into_string(), entry.path()) else { continue };
        // Links are not followed: they may lead out, or in circles.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_file() {
            files.push((format!("{prefix}{name}"), path));
        } else if kind.is_dir() && depth > 0 {
            collect(&path, &format!("{prefix}{name}/"), depth - 1, files);
        }
    }
}

/// Size and times, in seconds.
fn info(path: &FilePath) -> Json {
    let facts = path.metadata();
    let seconds = |time: std::io::Result<std::time::SystemTime>| {
        time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs_f64())
    };
    let modified = facts.as_ref().ok().and_then(|facts| seconds(facts.modified()));
    let created = facts.as_ref().ok().and_then(|facts| seconds(facts.created())).or(modified);
    json!({"path": "", "size": facts.map_or(0, |facts| facts.len()), "modified": modified, "created": created})
}

async fn list_v2(State(app): State<App>, headers: HeaderMap, Query(query): Parameters) -> Answer {
    blocking(move || {
        let unknown = |_| Fail::error(StatusCode::FORBIDDEN, "Invalid user specified in request");
        let root = users::dir(&app, &headers).map_err(unknown)?;
        let given = query.get("path").map(String::as_str).unwrap_or_default();
        let given = percent_decode_str(given).decode_utf8_lossy();
        let Some(folder) = paths::folder_below(&root, &given) else {
            return Err(Fail::Text(StatusCode::BAD_REQUEST, "Invalid path requested".into()));
        };
        if !folder.exists() {
            if folder == root {
                return Ok(answer(&json!([])));
            }
            return Err(Fail::Text(StatusCode::NOT_FOUND, "Requested path not found".into()));
        }
        if !folder.is_dir() {
            return Err(Fail::Text(StatusCode::BAD_REQUEST, "Requested path is not a directory".into()));
        }
        let mut entries = Vec::new();
        describe_folder(&root, &folder, DEEPEST, &mut entries);
        let key = |entry: &Json| (entry["type"] != "directory", entry["name"].as_str().unwrap_or("").to_lowercase());
        entries.sort_by_key(key);
        Ok(answer(&entries.into()))
    })
    .await
}

fn describe_folder(root: &FilePath, folder: &FilePath, depth: usize, entries: &mut Vec<Json>) {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let (Ok(name), path, Ok(kind)) = (entry.file_name().into_string(), entry.path(), entry.file_type()) else {
            continue;
        };
        let shown = relative(root, &path);
        if kind.is_dir() {
            entries.push(json!({"name": name, "path": shown, "type": "directory"}));
            if depth > 0 {
                describe_folder(root, &path, depth - 1, entries);
            }
        } else if kind.is_file() {
            let facts = info(&path);
            entries.push(json!({"name": name, "path": shown, "type": "file", "size": facts["size"],
                                "modified": facts["modified"]}));
        }
    }
}

fn relative(root: &FilePath, path: &FilePath) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    below.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The path of a name from the address, which may be encoded twice.
fn path_of(root: &FilePath, name: &str) -> Result<PathBuf, Fail> {
    let name = if name.contains('%') { percent_decode_str(name).decode_utf8_lossy() } else { name.into() };
    paths::below(root, &name).ok_or(Fail::Empty(StatusCode::FORBIDDEN))
}

async fn read(State(app): State<App>, headers: HeaderMap, Path(file): Path<String>) -> Answer {
    blocking(move || {
        let root = users::dir(&app, &headers)?;
        let path = path_of(&root, &file)?;
        if !path.is_file() {
            return Err(StatusCode::NOT_FOUND.into());
        }
        let bytes = fs::read(&path).map_err(Fail::unexpected)?;
        let headers = [
            (header::CONTENT_TYPE, content_type(&path).to_owned()),
            (header::CONTENT_SECURITY_POLICY, "sandbox".to_owned()),
            (header::ETAG, tag(&bytes)),
        ];
        Ok((headers, bytes).into_response())
    })
    .await
}

/// Tells one content from another.
fn tag(bytes: &[u8]) -> String {
    format!("\"{}\"", &blake3::hash(bytes).to_hex()[..32])
}

/// What users store is data: nothing of it may run as a page of this server.
fn content_type(path: &FilePath) -> &'static str {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("json") => "application/json",
        Some("txt" | "md" | "csv" | "log") => "text/plain; charset=utf-8",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        _ => "application/octet-stream",
    }
}

async fn write(
    State(app): State<App>,
    headers: HeaderMap,
    Path(file): Path<String>,
    Query(query): Parameters,
    body: Bytes,
) -> Answer {
    let known = headers.get(header::IF_MATCH).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
    blocking(move || {
        let root = users::dir(&app, &headers)?;
        let path = path_of(&root, &file)?;
        // Ours: someone else's change is not overwritten by one who has not seen it.
        if let Some(known) = known.filter(|known| known != "*")
            && fs::read(&path).is_ok_and(|now| tag(&now) != known)
        {
            return Err(StatusCode::PRECONDITION_FAILED.into());
        }
        if query.get("overwrite").is_some_and(|value| value == "false") && path.exists() {
            return Err(Fail::Text(StatusCode::CONFLICT, "File already exists".into()));
        }
        paths::write_whole(&path, &body).map_err(|_| {
            Fail::Text(StatusCode::BAD_REQUEST, "Invalid filename. Please avoid special characters".into())
        })?;
        let mut response = written(&root, &path, &query);
        if let Ok(tag) = tag(&body).parse() {
            response.headers_mut().insert(header::ETAG, tag);
        }
        Ok(response)
    })
    .await
}

/// The path, or all about it.
fn written(root: &FilePath, path: &FilePath, query: &HashMap<String, String>) -> Response {
    let shown = relative(root, path);
    if is_set(query, "full_info") {
        let mut info = info(path);
        info["path"] = shown.into();
        return answer(&info);
    }
    answer(&shown.into())
}

async fn remove(State(app): State<App>, headers: HeaderMap, Path(file): Path<String>) -> Answer {
    blocking(move || {
        let root = users::dir(&app, &headers)?;
        let path = path_of(&root, &file)?;
        if !path.is_file() {
            return Err(StatusCode::NOT_FOUND.into());
        }
        fs::remove_file(&path).map_err(Fail::unexpected)?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

async fn rename(
    State(app): State<App>,
    headers: HeaderMap,
    Path((file, dest)): Path<(String, String)>,
    Query(query): Parameters,
) -> Answer {
    blocking(move || {
        let root = users::dir(&app, &headers)?;
        let (from, to) = (path_of(&root, &file)?, path_of(&root, &dest)?);
        if !from.is_file() {
            return Err(StatusCode::NOT_FOUND.into());
        }
        if query.get("overwrite").is_some_and(|value| value == "false") && to.exists() {
            return Err(Fail::Text(StatusCode::CONFLICT, "File already exists".into()));
        }
        let moved = fs::create_dir_all(to.parent().unwrap_or(&to)).and_then(|()| fs::rename(&from, &to));
        moved.map_err(|_| {
            Fail::Text(StatusCode::BAD_REQUEST, "Invalid filename. Please avoid special characters".into())
        })?;
        Ok(written(&root, &to, &query))
    })
    .await
}
