//! Figures for Prometheus, and whether the server lives and is ready.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::app::App;
use crate::error::answer;
use crate::queue::{Search, State as JobState};

/// Gives figures in Prometheus' form.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "The figures.", content_type = "text/plain"))
)]
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, labels: &str, value: f64| {
        if labels.is_empty() || labels.contains("=\"done\"") || labels.contains("=\"queued\"") {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        }
        let _ = writeln!(text, "{name}{labels} {value}");
    };
    let snapshot = app.queue.snapshot();
    let jobs = "paraflow_jobs";
    gauge(jobs, "Jobs that wait or run.", "{state=\"queued\"}", snapshot.pending.len() as f64);
    gauge(jobs, "Jobs that wait or run.", "{state=\"running\"}", snapshot.running.len() as f64);
    for state in [JobState::Done, JobState::Failed, JobState::Cancelled] {
        let search = Search { states: vec![state], ..Search::default() };
        if let Ok((_, count)) = app.queue.search(search).await {
            let labels = format!("{{state=\"{}\"}}", state.as_str());
            gauge("paraflow_history_jobs", "Ended jobs that are remembered.", &labels, count as f64);
        }
    }
    let (bytes, results) = app.runner.cached();
    gauge("paraflow_queue_paused", "Whether nothing new is begun.", "", f64::from(u8::from(snapshot.paused)));
    gauge("paraflow_cache_bytes", "Bytes of results that are kept.", "", bytes as f64);
    gauge("paraflow_cache_results", "Results that are kept.", "", results as f64);
    gauge("paraflow_websocket_clients", "Open WebSockets.", "", app.hub.len() as f64);
    gauge("paraflow_uptime_seconds", "Seconds since the start.", "", app.started.elapsed().as_secs_f64());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Tells whether the process lives. Needs no token.
#[utoipa::path(get, path = "/health", tag = "operations", responses((status = 200, description = "It lives.")))]
pub(super) async fn health() -> Response {
    answer(&json!({"status": "alive"}))
}

/// Tells whether jobs are run: the database answers and takes what is written, and the server is not going down.
#[utoipa::path(
    get, path = "/ready", tag = "operations",
    responses((status = 200, description = "It is ready."), (status = 503, description = "It is not, and why."))
)]
pub(super) async fn ready(State(app): State<App>) -> Response {
    let reason = if app.going.load(Ordering::Relaxed) {
        "the server is going down"
    } else if let Err(error) = app.queue.find("").await {
        tracing::error!(%error, "not ready");
        "the job database does not answer; the log says why"
    } else if app.runner.is_stuck() {
        "the end of a job cannot be written down; make room on the disk, the log says more"
    } else {
        return answer(&json!({"status": "ready"}));
    };
    (StatusCode::SERVICE_UNAVAILABLE, answer(&json!({"status": "not ready", "reason": reason}))).into_response()
}
