//! `/prompt`: how many wait, and submitting.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use paraflow_engine::formats::{self, FormatError};
use paraflow_engine::graph::Graph;
use serde_json::{Map, Value as Json, json};

use crate::app::App;
use crate::error::{Answer, Fail, answer};
use crate::protocol::answers::Queued;
use crate::protocol::{ExecInfo, QueueStatus};
use crate::queue::{NewJob, QueueError};
use crate::validation::{self, Accepted, Wanted};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/prompt", get(remaining).post(submit))
}

async fn remaining(State(app): State<App>) -> Answer {
    let exec_info = ExecInfo { queue_remaining: app.queue.remaining() };
    Ok(answer(&json!(QueueStatus { exec_info })))
}

async fn submit(State(app): State<App>, body: Bytes) -> Answer {
    let body = read(&body)?;
    let number = number(&body)?;
    let (job, node_errors) = checked(&app, body, number).await.inspect_err(|_| {
        // ComfyUI's counter goes on with every request that brings no number, whatever the prompt is like.
        if number.is_none() {
            app.queue.skip_number();
        }
    })?;
    let receipt = app.queue.submit(job).await.map_err(|error| match error {
        QueueError::Taken(_) => {
            let body = validation::refusal("prompt_id_taken", "Prompt id is taken", &error.to_string(), &json!({}));
            Fail::Json(StatusCode::CONFLICT, body)
        }
        other => other.into(),
    })?;
    Ok(answer(&json!(Queued { prompt_id: receipt.id, number: receipt.number, node_errors })))
}

/// The body as Python reads it, which knows numbers that JSON does not.
fn read(body: &[u8]) -> Result<Json, Fail> {
    serde_json::from_slice(body).or_else(|strict| {
        let text = std::str::from_utf8(body).ok();
        text.and_then(|text| formats::json(text).ok()).ok_or_else(|| Fail::unexpected(strict))
    })
}

/// The job that the request asks for, and the faults of outputs that are left out.
async fn checked(app: &App, mut body: Json, number: Option<f64>) -> Result<(NewJob, Json), Fail> {
    let Some(prompt) = body.get_mut("prompt").map(Json::take) else {
        let text = "No prompt provided";
        return Err(Fail::Json(StatusCode::BAD_REQUEST, validation::refusal("no_prompt", text, text, &json!({}))));
    };
    let wanted = wanted(&body)?;
    let extra = extra(&body);
    let checking = app.clone();
    let carried = extra.get("extra_pnginfo").cloned();
    let check = move || {
        let mut graph = graph(prompt)?;
        graph.carry(carried.as_ref());
        let Accepted { plan, outputs, node_errors } = validation::check(graph, &checking.nodes.now().plain, &wanted)?;
        Ok((plan.prompt().clone(), outputs, node_errors))
    };
    let checked = tokio::task::spawn_blocking(check).await.map_err(Fail::unexpected)?;
    let (prompt, outputs, node_errors) = checked.map_err(|body| Fail::Json(StatusCode::BAD_REQUEST, body))?;
    let job = NewJob {
        id: id(&body),
        number,
        front: body.get("front").is_some_and(truthy),
        priority: 0,
        prompt,
        client: extra.get("client_id").and_then(Json::as_str).map(str::to_owned),
        extra,
        outputs,
        key: None,
        webhook: None,
        timeout_ms: None,
    };
    Ok((job, node_errors))
}

/// What to run for: `partial_execution_targets` are ComfyUI's, `paraflow_targets` go as far as any node.
fn wanted(body: &Json) -> Result<Wanted, Fail> {
    let list = |key: &str| match body.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(ids) => serde_json::from_value(ids.clone()).map(Some).map_err(Fail::unexpected),
    };
    Ok(match (list("paraflow_targets")?, list("partial_execution_targets")?) {
        (Some(nodes), _) => Wanted::Nodes(nodes),
        (None, Some(outputs)) => Wanted::Outputs(outputs),
        (None, None) => Wanted::Everything,
    })
}

/// The client's id as text, or a new one.
fn id(body: &Json) -> String {
    match body.get("prompt_id") {
        Some(Json::String(id)) => id.clone(),
        None | Some(Json::Null) => uuid::Uuid::new_v4().to_string(),
        Some(other) => other.to_string(),
    }
}

fn number(body: &Json) -> Result<Option<f64>, Fail> {
    match body.get("number") {
        None => Ok(None),
        Some(Json::Number(number)) => Ok(number.as_f64()),
        Some(Json::String(text)) => text.trim().parse().map(Some).map_err(Fail::unexpected),
        Some(other) => Err(Fail::unexpected(format!("`number` is {other}"))),
    }
}

fn truthy(value: &Json) -> bool {
    match value {
        Json::Null => false,
        Json::Bool(truth) => *truth,
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::String(text) => !text.is_empty(),
        Json::Array(list) => !list.is_empty(),
        Json::Object(map) => !map.is_empty(),
    }
}

/// What came beside the prompt, with the client's id; tokens of others' services are not kept anywhere.
fn extra(body: &Json) -> Json {
    let mut extra = match body.get("extra_data") {
        Some(Json::Object(extra)) => extra.clone(),
        _ => Map::new(),
    };
    for secret in ["auth_token_comfy_org", "api_key_comfy_org"] {
        extra.shift_remove(secret);
    }
    if let Some(client) = body.get("client_id") {
        extra.insert("client_id".into(), client.clone());
    }
    Json::Object(extra)
}

/// The prompt as a graph, or ComfyUI's refusal of a node without a class.
fn graph(prompt: Json) -> Result<Graph, Json> {
    let Json::Object(mut nodes) = prompt else {
        return Err(validation::refusal("prompt_no_outputs", "Prompt has no outputs", "", &json!({})));
    };
    for (id, node) in &mut nodes {
        if node.get("class_type").is_none() {
            return Err(validation::no_class(id));
        }
        if let Json::Object(node) = node {
            // Left over from an earlier run, in a prompt that was read from a picture.
            node.shift_remove("is_changed");
        }
    }
    formats::from_prompt(&nodes).map_err(|error| match error {
        FormatError::Faults(faults) => {
            let text = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            validation::refusal("invalid_prompt", &text, "", &json!({}))
        }
        other => validation::refusal("invalid_prompt", &other.to_string(), "", &json!({})),
    })
}
