//! Which stored value belongs to which widget.
//!
//! `widgets_values` is positional over the widgets in the order in which the editor creates them, which is the order of
//! the declaration, with further entries between them that are never submitted: how a seed moves between runs, the
//! filter of a list, the upload button.

use serde_json::Value as Json;

use super::links::Wires;
use super::parse::{Node, Workflow};
use super::text;
use crate::formats::Conditions;
use crate::spec::{InputSpec, NodeSpec, Specs, Widget};

/// Fills in [`Node::widgets`] of all nodes whose class is known. Values that are there already count more.
pub(super) fn align(workflow: &mut Workflow<'_>, specs: &dyn Specs) {
    for node in workflow.scopes.iter_mut().flat_map(|scope| &mut scope.nodes) {
        let mut widgets = match specs.spec(&node.class) {
            _ if node.inner.is_some() => continue,
            Some(spec) => named(spec, node.values),
            None if node.class == "PrimitiveNode" => primitive(node.values).into_iter().collect(),
            None => continue,
        };
        for (name, value) in std::mem::take(&mut node.widgets) {
            set(&mut widgets, &name, value);
        }
        if node.class.starts_with("KSampler") {
            mend_sampler(&mut widgets);
        }
        node.widgets = widgets;
    }
}

/// Copies the value of each primitive into the widgets that it is wired to.
pub(super) fn apply_primitives(workflow: &mut Workflow<'_>, wires: &mut Wires, conditions: &Conditions) {
    for scope in 0..workflow.scopes.len() {
        for index in 0..workflow.scopes[scope].nodes.len() {
            for input in 0..workflow.scopes[scope].nodes[index].inputs.len() {
                let Some(value) = primitive_behind(workflow, scope, index, input, conditions) else { continue };
                let node = &mut workflow.scopes[scope].nodes[index];
                let input_name = &node.inputs[input].name;
                if node.inner.is_some() {
                    wires.promote(scope, index, input, value);
                } else if node.inputs[input].is_widget
                    && let Some((_, widget)) = node.widgets.iter_mut().find(|(name, _)| name == input_name)
                {
                    *widget = value;
                }
            }
        }
    }
}

/// The value of the primitive that an input is wired to, if it is.
fn primitive_behind(
    workflow: &Workflow<'_>,
    scope: usize,
    node: usize,
    input: usize,
    conditions: &Conditions,
) -> Option<Json> {
    let Workflow { scopes } = workflow;
    let link = scopes[scope].links.get(scopes[scope].nodes[node].inputs[input].link.as_ref()?)?;
    let primitive = &scopes[scope].nodes[*scopes[scope].by_id.get(&link.origin)?];
    if primitive.class != "PrimitiveNode" {
        return None;
    }
    let (_, value) = primitive.widgets.first()?;
    let replaces = |node: &Node<'_>| node.properties?.get("Run widget replace on values")?.as_bool();
    match value {
        Json::String(text) if replaces(primitive) == Some(true) => {
            Some(text::replace(text, workflow, scope, &conditions.now).into())
        }
        value => Some(value.clone()),
    }
}

/// Sets the value of a name, in its place or at the end.
fn set(widgets: &mut Vec<(String, Json)>, name: &str, value: Json) {
    match widgets.iter_mut().find(|(widget, _)| widget == name) {
        Some((_, widget)) => *widget = value,
        None => widgets.push((name.to_owned(), value)),
    }
}

/// Samplers once had names like `sample_euler`.
fn mend_sampler(widgets: &mut [(String, Json)]) {
    for (name, value) in widgets {
        let short = value.as_str().and_then(|value| value.strip_prefix("sample_")).map(str::to_owned);
        if let Some(short) = short.filter(|_| name == "sampler_name") {
            *value = short.into();
        }
    }
}

/// A primitive's only widget.
fn primitive(values: Option<&Json>) -> Option<(String, Json)> {
    let value = values?.get(0).or_else(|| values?.get("value")).filter(|value| !value.is_null())?;
    Some(("value".to_owned(), value.clone()))
}

/// An entry of `widgets_values`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slot<'s> {
    /// An input's value.
    Value(&'s InputSpec),
    /// Something that only the editor needs.
    Editor,
}

/// The entries of a class, of which `values` are stored. Before frontend 1.16 inputs that only take a wire had one too,
/// `with_forced`.
fn slots<'s>(spec: &'s NodeSpec, with_forced: bool, values: &[Json]) -> Vec<Slot<'s>> {
    let mut slots = Vec::new();
    for input in &spec.inputs {
        let choice = |name: &str| {
            let stored = place_of(&slots, name).and_then(|place| values.get(place)).cloned();
            stored.or_else(|| initial(spec.input(name)?))
        };
        if !input.is_there(choice) {
            continue;
        }
        match (input.force_input, input.widget.has_value()) {
            (false, true) => slots.push(Slot::Value(input)),
            (true, _) if with_forced => slots.push(Slot::Editor),
            _ => continue,
        }
        slots.extend(std::iter::repeat_n(Slot::Editor, control_entries(input)));
    }
    slots.extend(has_upload(spec).then_some(Slot::Editor));
    slots
}

/// Whether the editor adds an upload button, as one more input after all that are declared.
pub(super) fn has_upload(spec: &NodeSpec) -> bool {
    spec.inputs.iter().any(|input| input.required && input.image_upload)
}

/// How many entries after the input's own say how it moves between runs: for a list, also a filter.
pub(super) fn control_entries(input: &InputSpec) -> usize {
    match input.widget {
        Widget::Choice(_) if input.control_after_generate => 2,
        Widget::Integer { .. } if matches!(input.name, "seed" | "noise_seed") => 1,
        _ => usize::from(input.control_after_generate),
    }
}

/// The entries of a list of stored values.
fn slots_of<'s>(spec: &'s NodeSpec, values: &[Json]) -> Vec<Slot<'s>> {
    let with_forced = slots(spec, true, values);
    if with_forced.len() == values.len() { with_forced } else { slots(spec, false, values) }
}

/// Where among the stored values that of an input stands.
pub(super) fn index_of(spec: &NodeSpec, values: &[Json], input: &str) -> Option<usize> {
    place_of(&slots_of(spec, values), input)
}

fn place_of(slots: &[Slot<'_>], input: &str) -> Option<usize> {
    slots.iter().position(|slot| matches!(slot, Slot::Value(found) if found.name == input))
}

/// All widgets of a class with their values: the stored one, else what the editor starts with.
fn named(spec: &NodeSpec, values: Option<&Json>) -> Vec<(String, Json)> {
    let empty = Vec::new();
    let list = values.and_then(Json::as_array).unwrap_or(&empty);
    let slots = slots_of(spec, list);
    let value = |(index, slot)| {
        let Slot::Value(input) = slot else { return None };
        let stored = list.get(index).or_else(|| values?.as_object()?.get(input.name)).cloned();
        let value = match (stored, &input.widget) {
            // A box of text cannot hold nothing.
            (Some(Json::Null), Widget::Text { multiline: true, .. }) => "".into(),
            (Some(value), _) => value,
            (None, _) => initial(input)?,
        };
        Some((input.name.to_owned(), value))
    };
    slots.into_iter().enumerate().filter_map(value).collect()
}

/// What the editor puts into a new node.
pub(super) fn initial(input: &InputSpec) -> Option<Json> {
    input.default.clone().or_else(|| match &input.widget {
        Widget::Socket => None,
        Widget::Toggle => Some(false.into()),
        Widget::Integer { .. } | Widget::Number { .. } => Some(0.into()),
        Widget::Text { .. } => Some("".into()),
        Widget::Choice(names) => names.first().map(|name| name.as_str().into()),
    })
}
