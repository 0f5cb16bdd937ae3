//! Writes a value back into the workflow that a graph was made from, so that a picture carries what made it.

use serde_json::Value as Json;

use super::widgets;
use crate::spec::Specs;

/// Puts `value` where the editor keeps it for `input` of the node `id`, `outer:inner` within subgraphs.
///
/// Nothing happens where no such place exists: the input is wired, or its subgraph has several instances, which share
/// their values. The prompt beside the workflow is exact in any case.
pub(in crate::formats) fn store(workflow: &mut Json, specs: &dyn Specs, id: &str, input: &str, value: &Json) {
    let Some(node) = node_mut(workflow, id) else { return };
    if is_wired(node, input) {
        return;
    }
    let Some(spec) = node["type"].as_str().and_then(|class| specs.spec(class)) else { return };
    match node.get_mut("widgets_values") {
        Some(Json::Array(values)) => {
            let index = widgets::index_of(spec, values, input);
            if let Some(stored) = index.and_then(|index| values.get_mut(index)) {
                *stored = value.clone();
            }
        }
        Some(Json::Object(values)) => {
            values.insert(input.to_owned(), value.clone());
        }
        _ => {}
    }
}

/// The node of an id, through subgraphs that are used once. Their definitions lie side by side, however deep the
/// instances are nested.
fn node_mut<'w>(workflow: &'w mut Json, id: &str) -> Option<&'w mut Json> {
    let mut path = id.split(':');
    let last = path.next_back()?;
    let mut definition: Option<String> = None;
    for instance in path {
        let scope = match &definition {
            None => &*workflow,
            Some(id) => find(workflow.pointer("/definitions/subgraphs")?, |graph| names(graph, "id", id))?,
        };
        let class = find(scope.get("nodes")?, |node| names(node, "id", instance))?["type"].as_str()?.to_owned();
        if uses(workflow, &class) != 1 {
            return None;
        }
        definition = Some(class);
    }
    let scope = match &definition {
        None => workflow,
        Some(id) => find_mut(workflow.pointer_mut("/definitions/subgraphs")?, |graph| names(graph, "id", id))?,
    };
    find_mut(scope.get_mut("nodes")?, |node| names(node, "id", last))
}

/// How many nodes anywhere are instances of a definition.
fn uses(workflow: &Json, definition: &str) -> usize {
    let subgraphs = workflow.pointer("/definitions/subgraphs").and_then(Json::as_array);
    let scopes = std::iter::once(workflow).chain(subgraphs.into_iter().flatten());
    let nodes = scopes.filter_map(|scope| scope.get("nodes")?.as_array()).flatten();
    nodes.filter(|node| names(node, "type", definition)).count()
}

/// Whether a wire leads to the input, whose value then does not count.
fn is_wired(node: &Json, input: &str) -> bool {
    let inputs = node.get("inputs").and_then(Json::as_array).into_iter().flatten();
    inputs.filter(|slot| names(slot, "name", input)).any(|slot| slot.get("link").is_some_and(|link| !link.is_null()))
}

/// Whether a field is this text, or a number that reads like it.
fn names(json: &Json, field: &str, text: &str) -> bool {
    match &json[field] {
        Json::String(found) => found == text,
        Json::Number(number) => number.to_string() == text,
        _ => false,
    }
}

fn find(list: &Json, fits: impl Fn(&Json) -> bool) -> Option<&Json> {
    list.as_array()?.iter().find(|item| fits(item))
}

fn find_mut(list: &mut Json, fits: impl Fn(&Json) -> bool) -> Option<&mut Json> {
    list.as_array_mut()?.iter_mut().find(|item| fits(item))
}
