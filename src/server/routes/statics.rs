//! The front end: a folder that the operator names, else the editor in the program, else a page that says where the
//! API is.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tower::ServiceExt as _;
use tower_http::services::ServeDir;

use crate::app::App;

mod embedded {
    //! The files of `web/dist`, as the build script found them.
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// Serves everything that is no route.
pub(super) async fn serve(State(app): State<App>, request: Request) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let path = request.uri().path();
        let known = ["/api", "/paraflow"].iter().any(|prefix| path.starts_with(prefix));
        return if known { StatusCode::NOT_FOUND } else { StatusCode::METHOD_NOT_ALLOWED }.into_response();
    }
    let path = request.uri().path().to_owned();
    if path.starts_with("/api/") || path.starts_with("/paraflow/") || path.starts_with("/internal/") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let mut response = match &app.options.front_end_root {
        Some(root) => match ServeDir::new(root).oneshot(request).await {
            Ok(response) => response.into_response(),
            Err(never) => match never {},
        },
        None => embedded_file(&path, accepts_gzip(request.headers())),
    };
    let headers = response.headers_mut();
    if path == "/" || path == "/index.html" {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        headers.insert(header::EXPIRES, HeaderValue::from_static("0"));
        // Nobody else's page shows ours in a frame, where clicks could be stolen.
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    }
    if path.ends_with(".js") || path.ends_with(".mjs") {
        let script = HeaderValue::from_static("application/javascript; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, script);
    }
    response
}

/// Whether the client takes gzip, and does not say that it rather would not.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|offer| {
        let (name, quality) = offer.split_once(';').unwrap_or((offer, ""));
        matches!(name.trim(), "gzip" | "*") && !matches!(quality.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

/// A file of the editor; texts are packed already.
fn embedded_file(path: &str, gzip: bool) -> Response {
    let name = match path.trim_start_matches('/') {
        "" => "index.html",
        name => name,
    };
    if let Some((_, packed)) = embedded::PACKED.iter().find(|(known, _)| gzip && *known == name) {
        let headers = [
            (header::CONTENT_TYPE, content_type(name)),
            (header::CONTENT_ENCODING, "gzip"),
            (header::VARY, "accept-encoding"),
        ];
        return (headers, *packed).into_response();
    }
    if let Some(bytes) = editor_file(name) {
        return ([(header::CONTENT_TYPE, content_type(name))], bytes).into_response();
    }
    if name == "index.html" && embedded::EDITOR.is_empty() {
        return ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], include_str!("no_editor.html")).into_response();
    }
    StatusCode::NOT_FOUND.into_response()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "application/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// A file of the editor.
pub(super) fn editor_file(name: &str) -> Option<&'static [u8]> {
    embedded::EDITOR.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
}

/// Pictures that the example graphs read, by their place in `graphs/`.
pub(super) fn examples() -> &'static [(&'static str, &'static [u8])] {
    embedded::EXAMPLES
}

/// The example graphs of the program, by name.
pub(super) fn graphs() -> &'static [(&'static str, &'static [u8])] {
    embedded::GRAPHS
}
