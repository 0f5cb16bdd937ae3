//! The file: names and literals, nothing checked.
//!
//! A [`Graph`] is ComfyUI's API prompt as it was written, in its order, with every field that we do not know kept.

use serde_json::{Map, Value as Json};

/// A node's id, any string. Flattened subgraphs join theirs with `:`.
pub type NodeId = String;

/// Where an input's value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Binding {
    /// A value written in the file, as it was written: a list that is meant as a value stands in its wrapper,
    /// `{"__value__": [...]}`, and a bare list is a link that went wrong.
    Literal(Json),
    /// `["4", 0]`: output 0 of node 4.
    Link {
        /// The node that makes the value.
        node: NodeId,
        /// Which of its outputs, from 0.
        slot: usize,
    },
}

/// One node of a graph.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Entry {
    /// The class of node, `class_type` in the file.
    pub class: String,
    /// Inputs by name, in the file's order.
    pub inputs: Vec<(String, Binding)>,
    /// `_meta.title`, what the user calls the node.
    pub title: Option<String>,
    /// Every other field of the node, kept as it came.
    pub rest: Map<String, Json>,
}

impl Entry {
    /// Gives an input its binding, in the place it has or at the end.
    pub fn bind(&mut self, input: &str, binding: Binding) {
        match self.inputs.iter_mut().find(|(name, _)| name == input) {
            Some((_, bound)) => *bound = binding,
            None => self.inputs.push((input.to_owned(), binding)),
        }
    }
}

/// A workflow ready to be planned: nodes by id in the file's order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Graph {
    /// Nodes by id, ids unique, in the file's order.
    pub nodes: Vec<(NodeId, Entry)>,
    /// The UI workflow that this graph was made from, if it was: saved into pictures beside the prompt.
    pub workflow: Option<Json>,
    /// What else a client gave to be saved into pictures, by keyword.
    pub extra: Map<String, Json>,
}

impl Graph {
    /// Takes over what a client gave to be saved into pictures: `extra_pnginfo`, a workflow and whatever else.
    pub fn carry(&mut self, given: Option<&Json>) {
        for (keyword, value) in given.and_then(Json::as_object).into_iter().flatten() {
            match keyword.as_str() {
                "workflow" => self.workflow = Some(value).filter(|it| it.is_object()).cloned(),
                // The prompt in a file is the one that ran.
                "prompt" => {}
                _ => drop(self.extra.insert(keyword.clone(), value.clone())),
            }
        }
    }
}
