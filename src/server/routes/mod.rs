//! Every route. A family of them is a file here and a `merge` below; each of ComfyUI's exists with and without `/api`.

pub(crate) mod history;
pub(crate) mod internal;
mod jobs;
mod models;
mod nodes;
mod own;
mod prompt;
mod queue;
mod settings;
mod statics;
mod subgraphs;
mod system;
mod templates;
mod upload;
mod userdata;
mod users;
mod view;
mod ws;

use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Extensions, HeaderMap, StatusCode, Version, header};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;

use crate::app::App;
use crate::guard::guard;

/// A body whose next part does not come within this time is given up.
const BODY_PAUSE: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });

/// Gzip for JSON and plain text, as in ComfyUI; streams and pictures go out as they are.
fn compression() -> CompressionLayer<impl Predicate> {
    let fit = |_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions| {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        kind.starts_with("application/json") || kind.starts_with("text/plain")
    };
    CompressionLayer::new().compress_when(SizeAbove::default().and(fit))
}

/// The document of our own API.
#[cfg(test)]
pub(crate) fn own_document() -> utoipa::openapi::OpenApi {
    own::documented().1
}

/// All routes, with everything that stands before them.
pub(crate) fn router(app: &App) -> Router {
    let routes = Router::new()
        .merge(history::routes())
        .merge(models::routes())
        .merge(nodes::routes())
        .merge(prompt::routes())
        .merge(queue::routes())
        .merge(settings::routes())
        .merge(subgraphs::routes())
        .merge(system::routes())
        .merge(templates::routes())
        .merge(upload::routes())
        .merge(userdata::routes())
        .merge(users::routes())
        .merge(view::routes())
        .merge(ws::routes());
    let all = Router::new()
        .merge(routes.clone())
        .nest("/api", routes)
        // `/api/jobs` has no twin without `/api`, but one with two.
        .nest("/api", jobs::routes())
        .nest("/api/api", jobs::routes())
        .merge(templates::files())
        .merge(internal::routes())
        .nest("/paraflow/v1", own::routes())
        .route("/paraflow/v1/", get(own::page))
        .fallback(statics::serve);
    let all = if app.options.compress { all.layer(compression()) } else { all };
    all.layer(from_fn_with_state(app.clone(), guard))
        .layer(CatchPanicLayer::new())
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(app.options.max_upload_bytes))
        .layer(RequestBodyTimeoutLayer::new(BODY_PAUSE))
        .with_state(app.clone())
}
