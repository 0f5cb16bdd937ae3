//! What has ended: `/history`.

use std::collections::HashMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;

use crate::app::App;
use crate::error::{Answer, Fail, json_response};
use crate::queue::{Record, Window};
use crate::routes::queue::clear_or_delete;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/history", get(list).post(change)).route("/history/{id}", get(one))
}

async fn list(State(app): State<App>, Query(query): Query<HashMap<String, String>>) -> Answer {
    let number = |name: &str| {
        let parse = |text: &String| text.trim().parse::<i64>().map_err(Fail::unexpected);
        query.get(name).map(parse).transpose()
    };
    let window = Window { max_items: number("max_items")?, offset: number("offset")? };
    Ok(json_response(entries(&app.queue.history(window).await?)))
}

async fn one(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let found = app.queue.find(&id).await?.filter(|record| record.state.is_over());
    Ok(json_response(entries(found.as_slice())))
}

async fn change(State(app): State<App>, body: Bytes) -> Answer {
    let (clear, delete) = clear_or_delete(&body)?;
    if clear {
        app.queue.forget_all().await?;
    }
    if !delete.is_empty() {
        app.queue.forget(&delete).await?;
    }
    Ok(StatusCode::OK.into_response())
}

/// A map from ids to entries. What is stored is JSON, and goes out as it is.
fn entries(records: &[Record]) -> String {
    let entry = |record: &Record| format!("{}: {}", serde_json::Value::from(record.id.as_str()), entry(record));
    format!("{{{}}}", records.iter().map(entry).collect::<Vec<_>>().join(", "))
}

/// One entry.
pub(super) fn entry(record: &Record) -> String {
    let Record { id, number, prompt, extra, targets, .. } = record;
    let or_empty = |json: &Option<String>| json.clone().unwrap_or_else(|| "{}".to_owned());
    format!(
        "{{\"prompt\": [{number}, {}, {prompt}, {extra}, {targets}], \"outputs\": {}, \"status\": {}, \"meta\": {}}}",
        serde_json::Value::from(id.as_str()),
        or_empty(&record.outputs),
        or_empty(&record.status),
        or_empty(&record.meta),
    )
}
