//! Submitting a graph, strictly: every fault refuses it.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use paraflow_engine::formats::{self, FormatError};
use paraflow_engine::{GraphError, Plan, Registry};
use serde_json::{Map, Value as Json, json};

use super::shape::{Accepted, FaultView, Refusal, RefusalError, Submission, parse};
use crate::app::App;
use crate::error::{Answer, Fail, answer};
use crate::queue::{Key, NewJob};
use crate::webhook;

/// Submits a graph.
///
/// The job is stored before this answers. The graph is an API prompt or a workflow; every fault of it is told at once.
#[utoipa::path(
    post, path = "/jobs", request_body = Submission, tag = "jobs",
    responses(
        (status = 201, description = "The job is stored.", body = Accepted),
        (status = 200, description = "The idempotency key was known: the job that it made.", body = Accepted),
        (status = 400, description = "The request is not what it should be.", body = Refusal),
        (status = 409, description = "The id or the key is taken.", body = Refusal),
        (status = 422, description = "The graph has faults.", body = Refusal),
    )
)]
pub(super) async fn submit(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Answer {
    let submission: Submission = parse(&body)?;
    let key = key(&submission, &headers, &body);
    check(&submission, &app)?;
    let checking = app.clone();
    let plan = move || {
        let nodes = checking.nodes.now();
        let (plan, submission) = plan(submission, &nodes.plain)?;
        let outputs = plan.outputs().cloned().collect();
        let warnings =
            plan.warnings().iter().map(|warning| format!("node {}: {}", warning.node, warning.text)).collect();
        Ok::<_, Fail>((plan.prompt().clone(), plan.workflow().cloned(), outputs, warnings, submission))
    };
    let planned = tokio::task::spawn_blocking(plan).await.map_err(Fail::unexpected)?;
    let (prompt, workflow, outputs, warnings, submission): (Json, Option<Json>, Vec<String>, Vec<String>, Submission) =
        planned?;
    let job = NewJob {
        id: submission.id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        number: None,
        front: false,
        priority: submission.priority,
        prompt,
        extra: extra(&submission, workflow),
        outputs,
        client: submission.client_id,
        key,
        webhook: submission.webhook,
        timeout_ms: submission.timeout.map(|seconds| (seconds * 1000.0) as u64),
    };
    let receipt = app.queue.submit(job).await?;
    let accepted = Accepted { id: receipt.id, repeated: receipt.repeated, warnings };
    let status = if accepted.repeated { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, answer(&json!(accepted))).into_response())
}

/// The key of the body or of the header, with a hash of the body.
fn key(submission: &Submission, headers: &HeaderMap, body: &[u8]) -> Option<Key> {
    let header = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
    let name = submission.idempotency_key.clone().or(header)?;
    Some(Key { name, request: blake3::hash(body).to_hex().to_string() })
}

/// What is wrong besides the graph.
fn check(submission: &Submission, app: &App) -> Result<(), Fail> {
    /// Longer than any training.
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
    const LONGEST_NAME: usize = 200;
    let bad = |text: String| Err(Fail::ours(StatusCode::BAD_REQUEST, text, None));
    if let Some(seconds) = submission.timeout
        && !(seconds > 0.0 && seconds <= LONGEST.as_secs_f64())
    {
        return bad(format!("`timeout` expects seconds above 0 and at most a year, found {seconds}"));
    }
    for (name, value) in [("id", &submission.id), ("idempotency_key", &submission.idempotency_key)] {
        if value.as_ref().is_some_and(|value| value.is_empty() || value.len() > LONGEST_NAME) {
            return bad(format!("`{name}` expects 1 to {LONGEST_NAME} bytes"));
        }
    }
    let strange = |letter: char| letter.is_control() || matches!(letter, '/' | '\\');
    if submission.id.as_ref().is_some_and(|id| id.contains(strange) || id.chars().all(|letter| letter == '.')) {
        return bad("`id` expects a name without slashes and control characters, it stands in addresses".to_owned());
    }
    if let Some(address) = &submission.webhook
        && let Err(error) = webhook::check(address, &app.options.webhook_hosts)
    {
        return bad(error.to_string());
    }
    Ok(())
}

/// The plan of the graph with its values set, or every fault.
fn plan(submission: Submission, registry: &Registry) -> Result<(Plan, Submission), Fail> {
    let bytes = submission.graph.to_string().into_bytes();
    let mut graph = formats::read(&bytes, registry).map_err(|error| match error {
        FormatError::Faults(faults) => {
            let view = |fault: &formats::Fault| fault_view(fault.to_string(), fault.problem.hint().map(str::to_owned));
            refused("the graph is malformed", faults.iter().map(view).collect())
        }
        error => refused(
            &error.to_string(),
            error.hint().map(|hint| fault_view(error.to_string(), Some(hint.into()))).into_iter().collect(),
        ),
    })?;
    let mut faults = Vec::new();
    for (place, value) in &submission.set {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if let Err(error) = formats::apply_set(&mut graph, registry, &format!("{place}={value}")) {
            faults.push(fault_view(format!("set {place}: {error}"), error.hint()));
        }
    }
    if !faults.is_empty() {
        return Err(refused("a value cannot be set", faults));
    }
    let planned = match &submission.outputs {
        Some(outputs) => Plan::for_outputs(graph, registry, outputs),
        None => Plan::new(graph, registry),
    };
    let plan =
        planned.map_err(|faults| refused("the graph has faults", faults.iter().map(FaultView::from).collect()))?;
    Ok((plan, submission))
}

fn fault_view(message: String, hint: Option<String>) -> FaultView {
    FaultView { node: None, class: None, input: None, message, hint }
}

impl From<&GraphError> for FaultView {
    fn from(error: &GraphError) -> Self {
        Self {
            node: error.node.clone(),
            class: Some(error.class.clone()).filter(|class| !class.is_empty()),
            input: error.fault.input().map(str::to_owned),
            message: error.to_string(),
            hint: error.hint(),
        }
    }
}

fn refused(message: &str, faults: Vec<FaultView>) -> Fail {
    let error = RefusalError { message: message.to_owned(), hint: None, faults };
    Fail::Json(StatusCode::UNPROCESSABLE_ENTITY, json!(Refusal { error }))
}

/// What ComfyUI keeps beside a prompt, so that the job looks to its clients like any other.
fn extra(submission: &Submission, workflow: Option<Json>) -> Json {
    let mut extra = Map::new();
    if let Some(workflow) = workflow {
        extra.insert("extra_pnginfo".into(), json!({ "workflow": workflow }));
    }
    if let Some(client) = &submission.client_id {
        extra.insert("client_id".into(), client.as_str().into());
    }
    if submission.previews {
        extra.insert("preview_method".into(), "auto".into());
    }
    Json::Object(extra)
}
