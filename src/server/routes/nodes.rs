//! The declarations of the nodes: `/object_info`.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use paraflow_engine::Specs as _;
use serde_json::json;

use crate::app::App;
use crate::error::{Answer, answer, json_response};
use crate::object_info;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/object_info", get(all)).route("/object_info/{class}", get(one))
}

async fn all(State(app): State<App>, headers: HeaderMap) -> Answer {
    let now = app.nodes.now();
    let (body, tag) = now.object_info();
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag.as_str())]).into_response());
    }
    let mut response = json_response(body.clone());
    if let Ok(tag) = tag.parse() {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

async fn one(State(app): State<App>, Path(class): Path<String>) -> Answer {
    let nodes = app.nodes.now();
    Ok(answer(&nodes.plain.spec(&class).map_or(json!({}), |spec| json!({&class: object_info::node(spec)}))))
}
