//! What can be wrong with a graph, each fault with its place, the fact and, where one is known, a way out.

use std::fmt;

use serde_json::Value as Json;

use crate::error::Mismatch;
use crate::graph::NodeId;

/// A fault of a graph, and where it is.
///
/// Displayed as ``node 5 (KSampler): input `latent_image` expects LATENT, found IMAGE from node 3``; the way out is
/// [`GraphError::hint`], for a line of its own.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}{fault}", Place(self))]
pub struct GraphError {
    /// The node, or `None` for a fault of the whole graph.
    pub node: Option<NodeId>,
    /// Its class as the graph names it.
    pub class: String,
    /// What the user calls it.
    pub title: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a node.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The node says no class.
    #[error("it has no `class_type`")]
    NoClass,
    /// No node has that class.
    #[error("there is no such class")]
    UnknownClass {
        /// A class with a name like it.
        nearest: Option<String>,
    },
    /// A required input is neither wired nor given.
    #[error("input `{input}` expects {expected}, found nothing")]
    MissingInput {
        /// The input.
        input: String,
        /// The kind it takes.
        expected: String,
        /// An undeclared input of the graph with a name like it.
        misspelt: Option<String>,
        /// A class that gives what is missing.
        source_class: Option<String>,
    },
    /// A list that is not a link.
    #[error("input `{input}` expects a link `[\"node\", slot]`, found {}", short(found))]
    BadLink {
        /// The input.
        input: String,
        /// What is there.
        found: Json,
    },
    /// A link to a node that is not there.
    #[error("input `{input}` expects {expected}, found a link to node {target}, which is not in the graph")]
    Dangling {
        /// The input.
        input: String,
        /// The kind it takes.
        expected: String,
        /// The node that is not there.
        target: NodeId,
    },
    /// A link to an output that the node does not have.
    #[error("input `{input}` expects {expected}, found a link to output {slot} of node {from}, which has {slots}")]
    NoSlot {
        /// The input.
        input: String,
        /// The kind it takes.
        expected: String,
        /// The node linked to.
        from: NodeId,
        /// The output linked to.
        slot: usize,
        /// How many it has.
        slots: usize,
        /// An output of it that would fit.
        fitting: Option<usize>,
    },
    /// A link that brings another kind.
    #[error("input `{input}` expects {expected}, found {found} from node {from}")]
    WrongKind {
        /// The input.
        input: String,
        /// The kind it takes.
        expected: String,
        /// The kind it gets.
        found: String,
        /// The node linked to.
        from: NodeId,
        /// Another output of that node that would fit.
        fitting: Option<usize>,
        /// A class that makes the one from the other.
        bridge: Option<String>,
    },
    /// A literal where only a wire fits.
    #[error("input `{input}` expects a link to {expected}, found {}", short(found))]
    NotALink {
        /// The input.
        input: String,
        /// The kind it takes.
        expected: String,
        /// The literal.
        found: Json,
        /// A class that gives what is expected.
        source_class: Option<String>,
    },
    /// A literal that cannot become what the input takes.
    #[error("input `{input}` expects {expected}, found {}", short(found))]
    WrongType {
        /// The input.
        input: String,
        /// The kind it takes.
        expected: String,
        /// The literal.
        found: Json,
    },
    /// A number below the range.
    #[error("input `{input}` expects {min} to {max}, found {}", cut(found))]
    TooSmall {
        /// The input.
        input: String,
        /// The number that the input made of the literal: `1000.0` of 1000 where it is a FLOAT.
        found: String,
        /// The smallest it takes.
        min: Json,
        /// The largest it takes.
        max: Json,
    },
    /// A number above the range.
    #[error("input `{input}` expects {min} to {max}, found {}", cut(found))]
    TooBig {
        /// The input.
        input: String,
        /// The number that the input made of the literal: `1000.0` of 1000 where it is a FLOAT.
        found: String,
        /// The smallest it takes.
        min: Json,
        /// The largest it takes.
        max: Json,
    },
    /// Not one of the list.
    #[error("input `{input}` expects {}, found {}", one_of(choices), short(found))]
    NotInList {
        /// The input.
        input: String,
        /// The literal.
        found: Json,
        /// The list.
        choices: Vec<String>,
        /// The one of the list that is like it.
        nearest: Option<String>,
    },
    /// The literal did not please the input itself.
    #[error("input `{input}` expects {}, found {}", mismatch.expected, mismatch.found)]
    Rejected {
        /// The input.
        input: String,
        /// What it takes, and what it found.
        mismatch: Mismatch,
    },
    /// A link to an input that the node does not have.
    #[error("it has no input `{input}`")]
    UnknownInput {
        /// The input of the graph.
        input: String,
        /// An input of the node with a name like it.
        nearest: Option<String>,
    },
    /// Nodes that wait for one another.
    #[error("it waits for its own result: {}", path.join(" -> "))]
    Cycle {
        /// From the node along the wires, and back to it.
        path: Vec<NodeId>,
    },
    /// Nothing to run for.
    #[error("the graph has no output: nothing in it is saved or shown")]
    NoOutputs {
        /// Some classes that save or show.
        sinks: Vec<String>,
    },
    /// A node that was asked for is not there.
    #[error("node {target} was asked for, but is not in the graph")]
    UnknownTarget {
        /// The node that was asked for.
        target: NodeId,
    },
}

impl GraphError {
    /// A way out, if one is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.fault.hint()
    }
}

impl Fault {
    /// A way out, if one is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownClass { nearest } | Self::NotInList { nearest, .. } | Self::UnknownInput { nearest, .. } => {
                did_you_mean(nearest.as_ref())
            }
            Self::MissingInput { misspelt: Some(name), .. } => Some(format!("the graph gives `{name}`; rename it")),
            Self::MissingInput { expected, source_class, .. } | Self::NotALink { expected, source_class, .. } => {
                source_class.as_ref().map(|class| format!("{class} gives {expected}"))
            }
            Self::NoSlot { from, fitting: Some(slot), .. } => Some(format!("output {slot} of node {from} would fit")),
            Self::NoSlot { .. } => Some("outputs are counted from 0".into()),
            Self::WrongKind { from, fitting: Some(slot), .. } => {
                Some(format!("output {slot} of node {from} would fit"))
            }
            Self::WrongKind { bridge, .. } => bridge.as_ref().map(|class| format!("put a {class} between them")),
            Self::BadLink { found, .. } => Some(link_hint(found)),
            Self::Rejected { mismatch, .. } => mismatch.hint.clone(),
            Self::NoOutputs { sinks } if !sinks.is_empty() => Some(format!("end it with one of {}", sinks.join(", "))),
            Self::NoClass
            | Self::Dangling { .. }
            | Self::WrongType { .. }
            | Self::TooSmall { .. }
            | Self::TooBig { .. }
            | Self::Cycle { .. }
            | Self::NoOutputs { .. }
            | Self::UnknownTarget { .. } => None,
        }
    }

    /// The input it is about, if it is about one.
    #[must_use]
    pub fn input(&self) -> Option<&str> {
        match self {
            Self::MissingInput { input, .. }
            | Self::BadLink { input, .. }
            | Self::Dangling { input, .. }
            | Self::NoSlot { input, .. }
            | Self::WrongKind { input, .. }
            | Self::NotALink { input, .. }
            | Self::WrongType { input, .. }
            | Self::TooSmall { input, .. }
            | Self::TooBig { input, .. }
            | Self::NotInList { input, .. }
            | Self::Rejected { input, .. }
            | Self::UnknownInput { input, .. } => Some(input),
            Self::NoClass
            | Self::UnknownClass { .. }
            | Self::Cycle { .. }
            | Self::NoOutputs { .. }
            | Self::UnknownTarget { .. } => None,
        }
    }

    /// What the place takes, in words, if that is what the fault is about.
    #[must_use]
    pub fn expected(&self) -> Option<String> {
        match self {
            Self::MissingInput { expected, .. }
            | Self::Dangling { expected, .. }
            | Self::NoSlot { expected, .. }
            | Self::WrongKind { expected, .. }
            | Self::NotALink { expected, .. }
            | Self::WrongType { expected, .. } => Some(expected.clone()),
            Self::TooSmall { min, max, .. } | Self::TooBig { min, max, .. } => Some(format!("{min} to {max}")),
            Self::NotInList { choices, .. } => Some(one_of(choices)),
            Self::Rejected { mismatch, .. } => Some(mismatch.expected.clone()),
            Self::BadLink { .. } => Some("a link".into()),
            Self::NoClass
            | Self::UnknownClass { .. }
            | Self::UnknownInput { .. }
            | Self::Cycle { .. }
            | Self::NoOutputs { .. }
            | Self::UnknownTarget { .. } => None,
        }
    }

    /// What is there instead, in words, if that is what the fault is about.
    #[must_use]
    pub fn found(&self) -> Option<String> {
        match self {
            Self::WrongKind { found, .. } => Some(found.clone()),
            Self::TooSmall { found, .. } | Self::TooBig { found, .. } => Some(cut(found)),
            Self::NotALink { found, .. }
            | Self::WrongType { found, .. }
            | Self::NotInList { found, .. }
            | Self::BadLink { found, .. } => Some(short(found)),
            Self::Rejected { mismatch, .. } => Some(mismatch.found.clone()),
            Self::MissingInput { .. } => Some("nothing".into()),
            Self::Dangling { target, .. } => Some(format!("a link to node {target}")),
            Self::NoSlot { from, slot, .. } => Some(format!("output {slot} of node {from}")),
            Self::NoClass
            | Self::UnknownClass { .. }
            | Self::UnknownInput { .. }
            | Self::Cycle { .. }
            | Self::NoOutputs { .. }
            | Self::UnknownTarget { .. } => None,
        }
    }

    /// The `type` that ComfyUI gives to a fault of this sort.
    #[must_use]
    pub fn comfy_type(&self) -> &'static str {
        match self {
            Self::NoClass | Self::UnknownClass { .. } => "invalid_prompt",
            Self::MissingInput { .. } => "required_input_missing",
            Self::BadLink { .. } => "bad_linked_input",
            Self::Dangling { .. } | Self::NoSlot { .. } | Self::Cycle { .. } => "exception_during_inner_validation",
            Self::WrongKind { .. } => "return_type_mismatch",
            Self::NotALink { .. } | Self::WrongType { .. } => "invalid_input_type",
            Self::TooSmall { .. } => "value_smaller_than_min",
            Self::TooBig { .. } => "value_bigger_than_max",
            Self::NotInList { .. } => "value_not_in_list",
            Self::Rejected { .. } | Self::UnknownInput { .. } => "custom_validation_failed",
            Self::NoOutputs { .. } | Self::UnknownTarget { .. } => "prompt_no_outputs",
        }
    }
}

/// `node 5 (KSampler, "second pass"): `, or nothing for the whole graph.
struct Place<'a>(&'a GraphError);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GraphError { node: Some(node), class, title, .. } = self.0 else { return Ok(()) };
        match title {
            _ if class.is_empty() => write!(f, "node {node}: "),
            Some(title) => write!(f, "node {node} ({class}, \"{title}\"): "),
            None => write!(f, "node {node} ({class}): "),
        }
    }
}

fn did_you_mean(name: Option<&String>) -> Option<String> {
    name.map(|name| format!("did you mean `{name}`?"))
}

/// What a list that is no link was probably meant as.
fn link_hint(found: &Json) -> String {
    let Some([node, slot]) = found.as_array().map(Vec::as_slice) else {
        return "a list that is meant as a value is written {\"__value__\": [...]}".into();
    };
    let id = match node {
        Json::String(id) => Some(id.clone()),
        Json::Number(id) => Some(id.to_string()),
        _ => None,
    };
    let output = match slot {
        Json::Number(slot) => slot.as_f64().filter(|slot| slot.fract() == 0.0 && *slot >= 0.0).map(|slot| slot as u64),
        Json::String(slot) => slot.trim().parse().ok(),
        _ => None,
    };
    match (id, output) {
        (Some(id), Some(output)) => format!("write it {}", serde_json::json!([id, output])),
        _ => "a node's id is a text, and its outputs are counted from 0".into(),
    }
}

/// `one of euler, euler_ancestral, dpmpp_2m, …`
fn one_of(choices: &[String]) -> String {
    const SHOWN: usize = 6;
    let shown = choices.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match choices.len() {
        0 => "one of a list that is empty".into(),
        1 => shown,
        2..=SHOWN => format!("one of {shown}"),
        _ => format!("one of {shown}, … ({} in all)", choices.len()),
    }
}

/// The literal as in the file, cut where it is long.
fn short(json: &Json) -> String {
    cut(&json.to_string())
}

fn cut(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
