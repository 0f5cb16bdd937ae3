//! The declarations of the nodes: `/object_info`.

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use paraflow_engine::Specs as _;
use serde_json::json;

use crate::app::App;
use crate::error::{Answer, answer, json_response};
use crate::object_info;
use crate::routes::statics;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/object_info", get(all)).route("/object_info/{class}", get(one))
}

/// As ComfyUI sends them; `?packed` as gzip has them, for our editor.
async fn all(State(app): State<App>, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let now = app.nodes.now();
    let (body, tag) = now.object_info();
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag.as_str())]).into_response());
    }
    let packed = query.as_deref() == Some("packed") && statics::accepts_gzip(&headers);
    let mut response = json_response(if packed { now.packed_object_info() } else { body }.clone());
    if packed {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Ok(tag) = tag.parse() {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

async fn one(State(app): State<App>, Path(class): Path<String>) -> Answer {
    let nodes = app.nodes.now();
    Ok(answer(&nodes.plain.spec(&class).map_or(json!({}), |spec| json!({&class: object_info::node(spec)}))))
}
