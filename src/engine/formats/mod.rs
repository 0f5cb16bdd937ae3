//! Files as graphs: ComfyUI's API prompt and UI workflow, by themselves or inside a picture.
//!
//! [`read`] recognises the format by content. A [`Graph`] is in the API's terms, so a UI workflow is converted as
//! ComfyUI's own editor does when one presses *Run*: widgets become literals, and everything that only exists on the
//! canvas (reroutes, primitives, muted and bypassed nodes, subgraphs) is resolved away. The workflow itself is kept
//! beside the result, so that pictures carry both.
//!
//! Whether the graph makes sense (classes, kinds, ranges, cycles) is not decided here but by the plan. Faults are told
//! here when a graph cannot even be formed, all of them at once.

mod api;
mod error;
mod json;
mod picture;
mod set;
mod ui;

use jiff::ZonedDateTime;
use jiff::civil::DateTime;
use serde_json::Value as Json;

pub use self::error::{Fault, FormatError, Place, Problem};
use self::json::Document;
pub use self::set::{SetError, apply_set, check_form};
use crate::graph::Graph;
use crate::spec::Specs;

/// What converting a UI workflow needs to know of the world. An API prompt needs none of it.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// What `%date:…%` in the file names of save nodes stands for.
    pub now: DateTime,
    /// Which branches of dynamic prompts, `{a|b}`, are taken. Nothing: the file's content decides, so that the same
    /// file gives the same prompt.
    pub seed: Option<u64>,
}

/// Reads a graph: an API prompt, the body that an editor posts, a UI workflow of version 0.4 or 1, or a PNG or WebP
/// picture that carries one of them.
///
/// A picture usually carries two: `prompt` is exactly what made it, with the branches of its dynamic prompts taken and
/// the dates filled in, and needs no knowledge of the nodes to be read; `workflow` is what the canvas looked like. So
/// `prompt` is what is run, and `workflow` is kept beside it ([`Graph::workflow`]). An editor does the opposite, since
/// it has a canvas to restore.
///
/// `NaN` and `Infinity`, as Python writes them into pictures, are read as `null`. Of a dynamic prompt the same file
/// always takes the same branches, and dates are the local time of this call; [`read_under`] lets both be chosen.
///
/// # Errors
///
/// When `bytes` are no text, no JSON, no graph, or a graph with [faults](Fault) that leave nothing to plan.
pub fn read(bytes: &[u8], specs: &dyn Specs) -> Result<Graph, FormatError> {
    read_under(bytes, specs, &Conditions { now: ZonedDateTime::now().datetime(), seed: None })
}

/// [`read`] under given [`Conditions`].
///
/// # Errors
///
/// As [`read`].
pub fn read_under(bytes: &[u8], specs: &dyn Specs, conditions: &Conditions) -> Result<Graph, FormatError> {
    let Some(picture) = picture::texts(bytes) else {
        let text = std::str::from_utf8(bytes).map_err(|error| FormatError::NotText { offset: error.valid_up_to() })?;
        return graph(&Document::parse(text)?, specs, conditions);
    };
    let workflow = picture.get("workflow").map(Document::parse);
    match (picture.get("prompt"), workflow) {
        (Some(prompt), workflow) => {
            let mut graph = graph(&Document::parse(prompt)?, specs, conditions)?;
            if let Some(Ok(workflow)) = workflow {
                graph.workflow = Some(workflow.json);
            }
            Ok(graph)
        }
        (None, Some(workflow)) => graph(&workflow?, specs, conditions),
        (None, None) => Err(picture.without_graph()),
    }
}

/// An API prompt that is parsed already, as a server finds it in a request.
///
/// # Errors
///
/// [`FormatError::Faults`] where a node is no node.
pub fn from_prompt(nodes: &serde_json::Map<String, Json>) -> Result<Graph, FormatError> {
    api::read(nodes, &[])
}

/// A JSON text as Python writes it: `NaN` and the infinities, which JSON cannot say, become `null`.
///
/// # Errors
///
/// [`FormatError`] with the place.
pub fn json(text: &str) -> Result<Json, FormatError> {
    Ok(Document::parse(text)?.json)
}

/// The graph as a UI workflow of version 0.4, for editors that open no other: the one that it was made from, else one with
/// its nodes in columns. Read again it is the same graph, but that every widget has a value.
#[must_use]
pub fn as_workflow(graph: &Graph, specs: &dyn Specs) -> Json {
    graph.workflow.clone().unwrap_or_else(|| ui::workflow(graph, specs))
}

/// Tells the formats apart and reads.
fn graph(document: &Document<'_>, specs: &dyn Specs, conditions: &Conditions) -> Result<Graph, FormatError> {
    let json = &document.json;
    if json.get("nodes").is_some_and(Json::is_array) {
        return ui::convert(json, specs, conditions);
    }
    if let Some(nodes) = json.as_object().filter(|_| api::looks_like(json)) {
        return api::read(nodes, &document.repeated_keys(&[]));
    }
    if let Some(prompt @ Json::Object(nodes)) = json.get("prompt")
        && api::looks_like(prompt)
    {
        let mut graph = api::read(nodes, &document.repeated_keys(&["prompt"]))?;
        graph.carry(json.pointer("/extra_data/extra_pnginfo"));
        return Ok(graph);
    }
    Err(FormatError::NotAGraph { found: looks(json) })
}

/// What JSON that is no graph looks like.
fn looks(json: &Json) -> String {
    match json {
        Json::Object(map) if !map.is_empty() => {
            let shown = quoted(map.keys().take(5).map(String::as_str));
            let more = if map.len() > 5 { ", …" } else { "" };
            format!("an object without `nodes` or `class_type`, with the keys {shown}{more}")
        }
        other => found(other),
    }
}

/// A value in a few words, for errors.
fn found(json: &Json) -> String {
    match json {
        Json::Null => "nothing".to_owned(),
        Json::Bool(truth) => format!("`{truth}`"),
        Json::Number(number) => format!("the number {number}"),
        Json::String(text) if text.chars().count() <= 40 => format!("{text:?}"),
        Json::String(_) => "a long text".to_owned(),
        Json::Array(list) if list.is_empty() => "an empty list".to_owned(),
        Json::Array(list) => format!("a list of {}", list.len()),
        Json::Object(map) if map.is_empty() => "an empty object".to_owned(),
        Json::Object(_) => "an object".to_owned(),
    }
}

/// Names in backticks, joined by commas.
fn quoted<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A count or a slot: a whole number from 0, or a text of one.
fn whole(json: &Json) -> Option<usize> {
    match json {
        Json::Number(number) => match number.as_u64() {
            Some(whole) => usize::try_from(whole).ok(),
            // Exact up to here, and no slot is larger.
            None => number.as_f64().filter(|it| it.fract() == 0.0 && (0.0..1e15).contains(it)).map(|it| it as usize),
        },
        Json::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}
