//! ComfyUI's UI workflow, the file behind the canvas, converted to what is run.
//!
//! The work is in five steps, a file each: [`parse`] reads the file into scopes (the graph and each subgraph
//! definition, and legacy group nodes as subgraphs, by [`groups`]); [`widgets`] gives each stored widget value its
//! name; [`expand`] makes a flat list of the nodes of all instances; [`links`] follows each wire to the node that makes
//! its value, through everything that only exists on the canvas; this file puts the results together. [`text`] fills in
//! what the editor fills in when it submits.
//!
//! The reference is the behaviour of ComfyUI's frontend 1.35.

mod expand;
mod groups;
mod links;
mod parse;
mod store;
mod text;
mod widgets;
mod write;

use std::collections::HashSet;

use serde_json::{Map, Value as Json};

use self::expand::{Expanded, Site};
use self::links::{Source, Wires};
use self::parse::{Mode, Workflow};
pub(super) use self::store::store;
use self::text::Filling;
pub(super) use self::write::workflow;
use super::{Conditions, FormatError};
use crate::graph::{Binding, Entry, Graph};
use crate::spec::{NodeSpec, Specs, Widget};

/// Converts a UI workflow of version 0.4 or 1.
pub(super) fn convert(json: &Json, specs: &dyn Specs, conditions: &Conditions) -> Result<Graph, FormatError> {
    let mut workflow = Workflow::parse(json, specs)?;
    let mut wires = Wires::default();
    widgets::align(&mut workflow, specs);
    widgets::apply_primitives(&mut workflow, &mut wires, conditions);
    let expanded = Expanded::new(&workflow)?;
    let filling = Filling::new(json, conditions);

    let mut faults = Vec::new();
    let mut graph =
        Graph { nodes: Vec::with_capacity(expanded.sites.len()), workflow: Some(json.clone()), ..Graph::default() };
    for &site in &expanded.sites {
        let node = workflow.node(&expanded, site);
        if node.is_virtual() || expanded.mode(&workflow, site) != Mode::Always || expanded.inner(site).is_some() {
            continue;
        }
        let id = expanded.id(&workflow, site);
        let spec = specs.spec(&node.class);
        let mut entry = Entry {
            class: node.class.clone(),
            inputs: literals(&workflow, &expanded, site, spec, &filling),
            title: Some(node.title.clone()),
            rest: Map::new(),
        };
        if let (None, Some(values)) = (spec, node.values) {
            // Without the class nobody knows which value is whose; they are kept as they are, and the plan names the
            // class.
            entry.rest.insert("widgets_values".to_owned(), values.clone());
        }
        for (index, input) in node.inputs.iter().enumerate() {
            match wires.resolve(&workflow, &expanded, site, index) {
                Ok(Some(source)) => entry.bind(&input.name, binding(&workflow, &expanded, source)),
                Ok(None) => {}
                Err(fault) => faults.push(fault),
            }
        }
        graph.nodes.push((id, entry));
    }
    if !faults.is_empty() {
        return Err(FormatError::Faults(faults));
    }
    remove_links_to_absent_nodes(&mut graph);
    Ok(graph)
}

/// The values of a node's own widgets, as they are submitted.
fn literals(
    workflow: &Workflow<'_>,
    expanded: &Expanded,
    site: Site,
    spec: Option<&NodeSpec>,
    filling: &Filling<'_>,
) -> Vec<(String, Binding)> {
    let class = &workflow.node(expanded, site).class;
    let submitted = |(name, value): &(String, Json)| {
        let dynamic = spec
            .and_then(|spec| spec.input(name))
            .is_some_and(|input| matches!(input.widget, Widget::Text { dynamic_prompts: true, .. }));
        let value = match value {
            Json::String(text) if dynamic => filling.dynamic_prompt(text, &expanded.id(workflow, site), name).into(),
            Json::String(text) if name == "filename_prefix" && text::is_save_node(class) => {
                text::replace(text, workflow, 0, &filling.conditions.now).into()
            }
            value => value.clone(),
        };
        (name.clone(), Binding::Literal(wrapped(value)))
    };
    workflow.values(expanded, site).iter().map(submitted).collect()
}

fn binding(workflow: &Workflow<'_>, expanded: &Expanded, source: Source) -> Binding {
    match source {
        Source::Output { site, slot } => Binding::Link { node: expanded.id(workflow, site), slot },
        Source::Value(value) => Binding::Literal(wrapped(value)),
    }
}

/// A list, which would read as a link, in its wrapper.
fn wrapped(value: Json) -> Json {
    if value.is_array() { serde_json::json!({ "__value__": value }) } else { value }
}

/// What a muted node would have made is missing: its consumers get nothing, and the plan says so where that matters.
fn remove_links_to_absent_nodes(graph: &mut Graph) {
    let present: HashSet<String> = graph.nodes.iter().map(|(id, _)| id.clone()).collect();
    for (_, entry) in &mut graph.nodes {
        entry.inputs.retain(|(_, binding)| match binding {
            Binding::Link { node, .. } => present.contains(node),
            Binding::Literal(_) => true,
        });
    }
}
