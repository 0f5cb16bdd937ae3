//! Our own API, `/paraflow/v1`: what ComfyUI's cannot say. Strict, documented by itself, and 404 for what is not there.

mod events;
mod jobs;
mod metrics;
mod shape;
mod submit;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Fail, json_response};

#[derive(OpenApi)]
#[openapi(info(
    title = "paraflow",
    description = "Submits graphs, follows and manages jobs. ComfyUI's API is beside it, unchanged.",
    version = "1"
))]
struct Document;

/// The routes, and the document that is made from the same declarations.
pub(super) fn documented() -> (Router<App>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(submit::submit, jobs::list))
        .routes(routes!(jobs::one, jobs::remove))
        .routes(routes!(jobs::wait))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::change))
        .routes(routes!(jobs::artefacts))
        .routes(routes!(jobs::artefact))
        .routes(routes!(events::of_job))
        .routes(routes!(events::all))
        .routes(routes!(jobs::queue, jobs::change_queue))
        .routes(routes!(jobs::prune))
        .routes(routes!(metrics::metrics))
        .routes(routes!(metrics::health))
        .routes(routes!(metrics::ready))
        .split_for_parts()
}

pub(super) fn routes() -> Router<App> {
    let (router, document) = documented();
    let document = document.to_json().unwrap_or_default();
    router.route("/openapi.json", get(move || async move { json_response(document) })).fallback(missing)
}

async fn missing() -> Fail {
    Fail::ours(StatusCode::NOT_FOUND, "there is no such route", Some("read /paraflow/v1/".into()))
}

/// The page to read the document.
pub(super) async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("page.html"))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_route() {
        let (_, document) = documented();
        let paths: Vec<&String> = document.paths.paths.keys().collect();
        let expected = [
            "/events",
            "/health",
            "/history/prune",
            "/jobs",
            "/jobs/{id}",
            "/jobs/{id}/artefacts",
            "/jobs/{id}/artefacts/{index}",
            "/jobs/{id}/cancel",
            "/jobs/{id}/events",
            "/jobs/{id}/queue",
            "/jobs/{id}/retry",
            "/jobs/{id}/wait",
            "/metrics",
            "/queue",
            "/ready",
        ];
        assert_eq!(paths, expected);
        let json = document.to_json().unwrap();
        let document: serde_json::Value = serde_json::from_str(&json).unwrap();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}");
            }
        }
    }
}
