//! Bodies of answers that the editor reads.

use serde::Serialize;
use serde_json::{Number, Value as Json};
use utoipa::ToSchema;

/// A file that the server keeps.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct FileRef {
    pub(crate) filename: String,
    /// Below the folder of its type, without a slash at either end.
    pub(crate) subfolder: String,
    /// `input`, `output` or `temp`.
    #[serde(rename = "type")]
    pub(crate) place: String,
}

/// Something that is wrong with a prompt or a node of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Fault {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) details: String,
    /// The input, what it expects and what was found, as the type has it.
    #[schema(value_type = Object)]
    pub(crate) extra_info: Json,
}

/// What is wrong with one node.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct NodeFaults {
    pub(crate) errors: Vec<Fault>,
    /// Outputs that are not run for, because of it.
    pub(crate) dependent_outputs: Vec<String>,
    pub(crate) class_type: String,
}

/// The answer to a prompt that is taken.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Queued {
    pub(crate) prompt_id: String,
    #[schema(value_type = f64)]
    pub(crate) number: Number,
    /// Faults of outputs that are left out.
    #[schema(value_type = std::collections::BTreeMap<String, NodeFaults>)]
    pub(crate) node_errors: Json,
}

/// The answer to a prompt that is refused.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Refused {
    pub(crate) error: Fault,
    #[schema(value_type = std::collections::BTreeMap<String, NodeFaults>)]
    pub(crate) node_errors: Json,
}

#[cfg(test)]
pub(crate) use written::{History, HistoryEntry, Queue};

/// Answers that are put together from stored text. These are their shapes; tests read real answers with them.
#[cfg(test)]
mod written {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::{Map, Number, Value as Json};
    use utoipa::openapi::schema::{ArrayBuilder, ArrayItems};
    use utoipa::openapi::{Array, Object, RefOr, Schema, Type};
    use utoipa::{PartialSchema, ToSchema};

    /// `[number, prompt_id, prompt, extra_data, outputs]`
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its shape is looked at")]
    pub(crate) struct QueueItem(Number, String, Map<String, Json>, Map<String, Json>, Vec<String>);

    impl PartialSchema for QueueItem {
        fn schema() -> RefOr<Schema> {
            let plain = |kind: Type| Schema::from(Object::with_type(kind));
            let outputs = Schema::from(Array::new(Object::with_type(Type::String)));
            let object = || plain(Type::Object);
            ArrayBuilder::new()
                .description(Some("`[number, prompt_id, prompt, extra_data, outputs]`"))
                .items(ArrayItems::False)
                .prefix_items([plain(Type::Number), plain(Type::String), object(), object(), outputs])
                .into()
        }
    }

    impl ToSchema for QueueItem {}

    /// What waits and runs.
    #[derive(Debug, Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct Queue {
        pub(crate) queue_running: Vec<QueueItem>,
        /// The next one first.
        pub(crate) queue_pending: Vec<QueueItem>,
    }

    /// What became of prompts, by id, the oldest first.
    pub(crate) type History = BTreeMap<String, HistoryEntry>;

    /// What became of a prompt.
    #[derive(Debug, Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct HistoryEntry {
        #[expect(dead_code, reason = "only its shape is looked at")]
        prompt: QueueItem,
        /// What each output showed, by node.
        #[schema(value_type = BTreeMap<String, Object>)]
        pub(crate) outputs: BTreeMap<String, Map<String, Json>>,
        pub(crate) status: HistoryStatus,
        /// By node, which nodes it stands for.
        #[schema(value_type = BTreeMap<String, Object>)]
        #[expect(dead_code, reason = "only its shape is looked at")]
        meta: BTreeMap<String, Map<String, Json>>,
    }

    /// How a prompt ended.
    #[derive(Debug, Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct HistoryStatus {
        /// `success` or `error`.
        pub(crate) status_str: String,
        pub(crate) completed: bool,
        /// Type and data of the messages that tell how it began and ended.
        pub(crate) messages: Vec<(String, Map<String, Json>)>,
        /// Ours: the nodes that ran, in the order in which they gave their results.
        #[serde(default)]
        #[expect(dead_code, reason = "only its shape is looked at")]
        ran: Vec<super::super::Ran>,
    }
}
