//! What our own API takes and gives.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::{IntoParams, ToSchema};

use crate::error::Fail;
use crate::queue::{Artefact, Record, State};

/// A graph to run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Submission {
    /// The graph: ComfyUI's API prompt, or a workflow as its editor saves it.
    #[schema(value_type = Object)]
    pub(super) graph: Json,
    /// Values to give to inputs first, by `NODE.INPUT`; a node is named by id, title or class.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub(super) set: serde_json::Map<String, Json>,
    /// Run only for these outputs, by node id.
    pub(super) outputs: Option<Vec<String>>,
    /// The job's id; made up if not given.
    pub(super) id: Option<String>,
    /// Requests with equal keys are one job. Also as the header `Idempotency-Key`.
    pub(super) idempotency_key: Option<String>,
    /// A higher one goes first; 0 if not given.
    #[serde(default)]
    pub(super) priority: i64,
    /// An address on this machine, or on a host that the operator allowed, that is told of the end.
    pub(super) webhook: Option<String>,
    /// How long it may run, in seconds.
    pub(super) timeout: Option<f64>,
    /// Whose WebSocket gets the events.
    pub(super) client_id: Option<String>,
    /// Whether samplers draw previews.
    #[serde(default)]
    pub(super) previews: bool,
}

/// A job, whatever its state.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobView {
    /// Its id.
    pub(super) id: String,
    /// `queued`, `running`, `done`, `failed` or `cancelled`.
    pub(super) state: &'static str,
    /// A higher one goes first.
    pub(super) priority: i64,
    /// When it was submitted, in milliseconds since 1970.
    pub(super) created: i64,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started: Option<i64>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<i64>,
    /// How often it was begun.
    pub(super) attempts: u32,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// What each output showed, by node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(super) outputs: Option<Json>,
}

impl From<&Record> for JobView {
    fn from(record: &Record) -> Self {
        Self {
            id: record.id.clone(),
            state: record.state.as_str(),
            priority: record.priority,
            created: record.created,
            started: record.started.filter(|_| record.state != State::Queued),
            ended: record.ended,
            attempts: record.attempts,
            error: record.error.clone(),
            outputs: record.outputs.as_deref().and_then(|text| serde_json::from_str(text).ok()),
        }
    }
}

/// A job that was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// Its id.
    pub(super) id: String,
    /// Whether the idempotency key was known, so that nothing new was made.
    pub(super) repeated: bool,
    /// What the user should know and what stops nothing.
    pub(super) warnings: Vec<String>,
}

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobList {
    /// The jobs, those that run first, then those that wait in their order, then the ended ones, newest first.
    pub(super) jobs: Vec<JobView>,
    /// How many there are in all.
    pub(super) total: u64,
}

/// Which jobs to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct JobQuery {
    /// Only these states, separated by commas.
    pub(super) state: Option<String>,
    /// Only jobs whose graph or id holds this text.
    pub(super) text: Option<String>,
    /// Ended at this time or later, in milliseconds since 1970.
    pub(super) since: Option<i64>,
    /// Ended before this time.
    pub(super) until: Option<i64>,
    /// At most so many; 100 if not given, 1000 at most.
    pub(super) limit: Option<u64>,
    /// How many to leave out.
    pub(super) offset: Option<u64>,
}

/// How long to wait.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitQuery {
    /// In seconds; 60 if not given, 600 at most.
    pub(super) timeout: Option<f64>,
}

/// A file that a job made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ArtefactView {
    /// Its number among the job's files, from 0.
    pub(super) index: usize,
    /// The node that showed it.
    pub(super) node: String,
    /// Under which key: `images`; `samples` for pictures of a training.
    pub(super) kind: String,
    /// After which step of a training it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<u32>,
    /// Its name.
    pub(super) filename: String,
    /// Its folder below `output/` or `temp/`.
    pub(super) subfolder: String,
    /// `output` or `temp`.
    #[serde(rename = "type")]
    pub(super) place: String,
    /// Its size when the job ended.
    pub(super) bytes: Option<u64>,
    /// Its BLAKE3 when the job ended.
    pub(super) blake3: Option<String>,
    /// Where to get it.
    pub(super) url: String,
}

impl ArtefactView {
    pub(super) fn new(job: &str, index: usize, file: Artefact) -> Self {
        let Artefact { node, kind, step, filename, subfolder, place, bytes, blake3 } = file;
        let job: String = form_urlencoded::byte_serialize(job.as_bytes()).collect();
        let url = format!("/paraflow/v1/jobs/{}/artefacts/{index}", job.replace('+', "%20"));
        Self { index, node, kind, step, filename, subfolder, place, bytes, blake3, url }
    }
}

/// Another place for a waiting job: one of the three.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// Another priority.
    pub(super) priority: Option<i64>,
    /// `first` or `last` among those of its priority.
    pub(super) position: Option<String>,
    /// Right before this job.
    pub(super) before: Option<String>,
}

/// The queue as a whole.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueView {
    /// Whether nothing new is begun.
    pub(super) paused: bool,
    /// Ids of those that run.
    pub(super) running: Vec<String>,
    /// Ids of those that wait, the next one first.
    pub(super) pending: Vec<String>,
}

/// What to do with the queue.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueChange {
    /// Begin nothing new, or go on.
    pub(super) paused: bool,
}

/// What to keep of the history.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Prune {
    /// The newest so many.
    pub(super) keep: Option<u64>,
    /// Those that ended at most so many seconds ago.
    pub(super) max_age: Option<f64>,
}

/// How many were removed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Removed {
    /// How many.
    pub(super) removed: usize,
}

/// What is wrong with a request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Refusal {
    /// What is wrong.
    pub(super) error: RefusalError,
}

/// What is wrong, in words.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RefusalError {
    /// A sentence.
    pub(super) message: String,
    /// A way out, where one is known.
    pub(super) hint: Option<String>,
    /// Every fault of the graph.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) faults: Vec<FaultView>,
}

/// A fault of a graph.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FaultView {
    /// The node, unless it is a fault of the whole graph.
    pub(super) node: Option<String>,
    /// Its class.
    pub(super) class: Option<String>,
    /// The input, if it is about one.
    pub(super) input: Option<String>,
    /// What is wrong.
    pub(super) message: String,
    /// A way out.
    pub(super) hint: Option<String>,
}

/// A body of ours, or what is wrong with it.
pub(super) fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Fail> {
    let wrong = |error: serde_json::Error| {
        Fail::ours(axum::http::StatusCode::BAD_REQUEST, error.to_string(), Some("read /paraflow/v1/".into()))
    };
    // Else a list would be taken for the fields in their order.
    if body.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        let text = "the body is no JSON object";
        return Err(Fail::ours(axum::http::StatusCode::BAD_REQUEST, text, Some("read /paraflow/v1/".into())));
    }
    serde_json::from_slice(body).map_err(wrong)
}

/// What follows the `?`, or what is wrong with it.
pub(super) fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Fail> {
    query.map(|Query(query)| query).map_err(|error| {
        let text = error.body_text();
        let fact = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        Fail::ours(
            axum::http::StatusCode::BAD_REQUEST,
            format!("what follows the `?`: {fact}"),
            Some("read /paraflow/v1/".into()),
        )
    })
}
