//! What the server says, as types: ComfyUI's names on the wire, and ours beside them.
//!
//! Every text frame of `/ws` and every server-sent event is a [`Message`]; [`answers`] are the bodies that the editor
//! reads. A test makes `web/src/protocol.ts` from these declarations, so that the editor cannot know another shape.

pub(crate) mod answers;
#[cfg(test)]
mod typescript;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value as Json};
use utoipa::ToSchema;

use answers::FileRef;

/// A text frame of `/ws`: its `type`, and the `data` that belongs to it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub(crate) enum Message {
    Status(Status),
    ExecutionStart(Moment),
    ExecutionCached(Cached),
    Executing(Executing),
    Progress(Progress),
    // It is written an entry at a time, see `frames::Table`.
    #[cfg_attr(not(test), expect(dead_code, reason = "declared for its shape"))]
    ProgressState(ProgressState),
    Executed(Executed),
    ExecutionSuccess(Moment),
    ExecutionError(ExecutionError),
    ExecutionInterrupted(Interrupted),
    FeatureFlags(FeatureFlags),
    Logs(Logs),
    #[serde(rename = "paraflow.loss")]
    Loss(Loss),
    #[serde(rename = "paraflow.sample")]
    Sample(Sample),
    #[serde(rename = "paraflow.ran")]
    Ran(Ran),
    #[serde(rename = "paraflow.warning")]
    Warning(Warning),
    #[serde(rename = "paraflow.nodes")]
    Nodes(Nodes),
}

impl Message {
    /// The type and the data, apart.
    pub(crate) fn parts(&self) -> (String, Json) {
        let Ok(Json::Object(mut whole)) = serde_json::to_value(self) else { return Default::default() };
        let kind = whole.get("type").and_then(Json::as_str).unwrap_or_default().to_owned();
        (kind, whole.get_mut("data").map(Json::take).unwrap_or_default())
    }
}

/// How many jobs wait or run.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Status {
    pub(crate) status: QueueStatus,
    /// The client's id, in the first frame that it gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) sid: Option<String>,
}

/// What `status` and `GET /prompt` say.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct QueueStatus {
    pub(crate) exec_info: ExecInfo,
}

/// What is counted.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct ExecInfo {
    pub(crate) queue_remaining: usize,
}

/// A run begins, or ended well.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Moment {
    pub(crate) prompt_id: String,
    /// In milliseconds since 1970.
    pub(crate) timestamp: i64,
}

/// Nodes whose results were there before the run.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Cached {
    /// In the prompt's order.
    pub(crate) nodes: Vec<String>,
    pub(crate) prompt_id: String,
    /// In milliseconds since 1970.
    pub(crate) timestamp: i64,
}

/// A node begins; without a node, the prompt is over.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Executing {
    #[schema(required, nullable)]
    pub(crate) node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) display_node: Option<String>,
    /// Missing in the frame that tells a client which comes back where its prompt is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) prompt_id: Option<String>,
}

/// A node is so far.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Progress {
    /// Steps done, from 1.
    pub(crate) value: u32,
    /// Steps in all.
    pub(crate) max: u32,
    pub(crate) prompt_id: String,
    pub(crate) node: String,
}

/// All nodes that have begun.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct ProgressState {
    pub(crate) prompt_id: String,
    pub(crate) nodes: BTreeMap<String, NodeProgress>,
}

/// How far one node is.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct NodeProgress {
    pub(crate) value: f64,
    pub(crate) max: f64,
    pub(crate) state: NodeState,
    pub(crate) node_id: String,
    pub(crate) prompt_id: String,
    pub(crate) display_node_id: String,
    #[schema(required, nullable)]
    pub(crate) parent_node_id: Option<String>,
    pub(crate) real_node_id: String,
}

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeState {
    Running,
    Finished,
}

/// A node has something to show, or was reused.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Executed {
    pub(crate) node: String,
    pub(crate) display_node: String,
    /// What it shows: files under `images`, words under `text`.
    #[schema(required, nullable, value_type = Option<Object>)]
    pub(crate) output: Option<Json>,
    pub(crate) prompt_id: String,
}

/// A node failed, and the run with it; or a branch was blocked, and the run goes on.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct ExecutionError {
    pub(crate) prompt_id: String,
    pub(crate) node_id: String,
    pub(crate) node_type: String,
    pub(crate) executed: Vec<String>,
    pub(crate) exception_message: String,
    /// `ExecutionBlocked` where the run goes on.
    pub(crate) exception_type: String,
    pub(crate) traceback: Vec<String>,
    /// The node's literals, each in a list.
    #[schema(value_type = Object)]
    pub(crate) current_inputs: Json,
    pub(crate) current_outputs: Vec<String>,
    /// In milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) timestamp: Option<i64>,
}

/// The run was stopped.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Interrupted {
    pub(crate) prompt_id: String,
    pub(crate) node_id: String,
    pub(crate) node_type: String,
    pub(crate) executed: Vec<String>,
    /// In milliseconds since 1970.
    pub(crate) timestamp: i64,
}

/// What the server can do: the answer to a handshake, and `GET /features`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct FeatureFlags {
    pub(crate) supports_preview_metadata: bool,
    /// In bytes.
    pub(crate) max_upload_size: usize,
    #[schema(value_type = Object)]
    pub(crate) extension: Map<String, Json>,
}

/// Lines of the log, for those who subscribed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Logs {
    pub(crate) entries: Vec<LogLine>,
    pub(crate) size: LogSize,
}

/// A line of the log.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct LogLine {
    /// When it was written.
    #[serde(rename = "t")]
    pub(crate) time: String,
    /// The line.
    #[serde(rename = "m")]
    pub(crate) text: String,
}

/// The window that the log is said to be written to.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct LogSize {
    pub(crate) cols: u32,
    pub(crate) rows: u32,
}

/// Ours: a point of a training's loss curve.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Loss {
    pub(crate) node: String,
    /// From 1.
    pub(crate) step: u32,
    /// Steps in all.
    pub(crate) total: u32,
    /// Of this step's pictures and noise.
    pub(crate) loss: f32,
    pub(crate) learning_rate: f64,
    /// On noise that stays the same all through the training, where this step measured it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) validation: Option<f32>,
    pub(crate) prompt_id: String,
}

/// Ours: what a training has learnt by now.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Sample {
    pub(crate) node: String,
    /// Steps that were trained before it.
    pub(crate) step: u32,
    /// The picture, until the server starts again.
    pub(crate) image: FileRef,
    pub(crate) prompt_id: String,
}

/// Ours: a node gave its result.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Ran {
    pub(crate) node: String,
    /// How long it took, in milliseconds.
    pub(crate) elapsed_ms: f64,
    /// What its results take in memory, by their own count; a model that shares weights with another counts them too.
    pub(crate) bytes: usize,
    /// Why it ran, although a result of an earlier run might have served.
    pub(crate) why: Why,
    /// Of its inputs, those that were others when it last gave a result.
    pub(crate) inputs: Vec<String>,
    /// Nodes that it reads and that ran in this run.
    pub(crate) nodes: Vec<String>,
    pub(crate) prompt_id: String,
}

/// Why a node ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// The graph was not run before, since the server started.
    First,
    /// The node was not in the graph when it ran before, or was of another class.
    New,
    /// Its own inputs are others.
    Changed,
    /// A node that it reads ran.
    Upstream,
    /// Nothing of this: it runs each time, a file that it reads is another, or its result was not kept.
    Again,
}

/// Ours: a node tells something that stops nothing.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Warning {
    pub(crate) node: String,
    pub(crate) text: String,
    pub(crate) prompt_id: String,
}

/// Ours: a folder changed, so `/object_info` is another.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Nodes {}
