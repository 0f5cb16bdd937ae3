//! ComfyUI's API prompt: what the server runs, and what a picture made by a graph carries.
//!
//! Nothing is checked here beyond what a [`Graph`] cannot hold; classes, inputs and links are the plan's business.

use serde_json::{Map, Value as Json};

use super::error::{Fault, FormatError, Place, Problem};
use super::found;
use crate::graph::{Binding, Entry, Graph};

/// Whether `json` looks like an API prompt: an object with a node in it.
pub(super) fn looks_like(json: &Json) -> bool {
    let is_node = |node: &Json| node.get("class_type").is_some();
    json.as_object().is_some_and(|nodes| nodes.values().any(is_node))
}

/// Reads an API prompt. `repeated` are the ids that the text gives to more than one node.
pub(super) fn read(nodes: &Map<String, Json>, repeated: &[String]) -> Result<Graph, FormatError> {
    let mut graph = Graph::default();
    let mut faults = Vec::new();
    for (id, node) in nodes {
        let mut fault = |class: &str, problem| {
            faults.push(Fault { place: Place::Node { id: id.clone(), class: class.to_owned() }, problem });
        };
        if repeated.contains(id) {
            let class = node.get("class_type").and_then(Json::as_str).unwrap_or("");
            fault(class, Problem::DuplicateNode);
        }
        match entry(node) {
            Ok(entry) => graph.nodes.push((id.clone(), entry)),
            Err((class, problem)) => fault(class, problem),
        }
    }
    if faults.is_empty() { Ok(graph) } else { Err(FormatError::Faults(faults)) }
}

/// One node, or its class as far as it is known and what is wrong.
fn entry(node: &Json) -> Result<Entry, (&str, Problem)> {
    let malformed = |part, expected, json| Problem::Malformed { part, expected, found: found(json) };
    let Json::Object(fields) = node else { return Err(("", malformed("the node", "an object", node))) };
    let class = match fields.get("class_type") {
        Some(Json::String(class)) => class,
        other => return Err(("", malformed("`class_type`", "the name of a node class", other.unwrap_or(&Json::Null)))),
    };
    let mut entry = Entry { class: class.clone(), ..Entry::default() };
    for (field, value) in fields {
        match (field.as_str(), value) {
            ("class_type", _) => {}
            ("inputs", Json::Object(inputs)) => {
                entry.inputs = inputs.iter().map(|(name, value)| (name.clone(), binding(value))).collect();
            }
            ("inputs", other) => return Err((class, malformed("`inputs`", "an object", other))),
            ("_meta", Json::Object(meta)) if meta.get("title").is_some_and(Json::is_string) => {
                let mut meta = meta.clone();
                entry.title = meta.shift_remove("title").and_then(|title| title.as_str().map(str::to_owned));
                if !meta.is_empty() {
                    entry.rest.insert(field.clone(), Json::Object(meta));
                }
            }
            _ => {
                entry.rest.insert(field.clone(), value.clone());
            }
        }
    }
    Ok(entry)
}

/// A link is a list of exactly two, a node's id and a slot, which is a whole number; a list that is none stays a
/// literal, for the plan to refuse.
fn binding(value: &Json) -> Binding {
    if let Json::Array(list) = value
        && let [Json::String(node), slot] = list.as_slice()
        && let Some(slot) = slot.as_u64().and_then(|slot| usize::try_from(slot).ok())
    {
        return Binding::Link { node: node.clone(), slot };
    }
    Binding::Literal(value.clone())
}

impl Graph {
    /// The graph as an API prompt, with everything that [`read`](super::read) found in one.
    #[must_use]
    pub fn to_prompt(&self) -> Json {
        self.nodes.iter().map(|(id, entry)| (id.clone(), entry.to_json())).collect()
    }
}

impl Entry {
    fn to_json(&self) -> Json {
        let mut node = Map::new();
        let inputs = self.inputs.iter().map(|(name, binding)| (name.clone(), binding.to_json())).collect();
        node.insert("inputs".to_owned(), inputs);
        node.insert("class_type".to_owned(), self.class.as_str().into());
        if let Some(title) = &self.title {
            node.insert("_meta".to_owned(), serde_json::json!({ "title": title }));
        }
        for (field, value) in &self.rest {
            match (node.get_mut(field), value) {
                (Some(Json::Object(meta)), Json::Object(others)) if field == "_meta" => {
                    meta.extend(others.iter().map(|(key, value)| (key.clone(), value.clone())));
                }
                (Some(_), _) => {}
                (None, value) => {
                    node.insert(field.clone(), value.clone());
                }
            }
        }
        Json::Object(node)
    }
}

impl Binding {
    fn to_json(&self) -> Json {
        match self {
            Self::Literal(value) => value.clone(),
            Self::Link { node, slot } => serde_json::json!([node, slot]),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(prompt: &Json, expected: &[&str]) {
        let faults = match read(prompt.as_object().unwrap(), &[]) {
            Err(FormatError::Faults(faults)) => faults.iter().map(ToString::to_string).collect(),
            Err(other) => vec![other.to_string()],
            Ok(graph) => {
                assert_eq!(&graph.to_prompt(), prompt);
                vec![]
            }
        };
        assert_eq!(faults, expected);
    }

    #[test]
    fn links_literals_titles_and_unknown_fields_come_and_go() {
        let prompt = json!({
            "9": {"inputs": {"b": ["4", 1], "a": 8.0, "seed": 18446744073709551615u64}, "class_type": "A",
                  "_meta": {"title": "My node", "colour": {"r": [1, 2]}}, "is_changed": [null], "x": {"y": []}},
            "4": {"inputs": {}, "class_type": "B"},
            "57:3": {"inputs": {"list": {"__value__": [1, 2]}}, "class_type": "B", "_meta": 5},
            "5": {"inputs": {}, "class_type": "B", "_meta": {"title": 7}},
        });
        let graph = read(prompt.as_object().unwrap(), &[]).unwrap();
        assert_eq!(graph.to_prompt().to_string(), prompt.to_string());
        let (id, first) = &graph.nodes[0];
        assert_eq!((id.as_str(), first.title.as_deref()), ("9", Some("My node")));
        assert_eq!(first.inputs[0], ("b".to_owned(), Binding::Link { node: "4".to_owned(), slot: 1 }));
        assert_eq!(first.inputs[1], ("a".to_owned(), Binding::Literal(json!(8.0))));
    }

    #[test]
    fn only_a_text_and_a_slot_are_a_link() {
        assert_eq!(binding(&json!(["4", 1])), Binding::Link { node: "4".to_owned(), slot: 1 });
        for none in
            [json!([4, 0]), json!(["4"]), json!(["4", 0, 0]), json!(["4", -1]), json!(["4", 1.0]), json!(["4", "0"])]
        {
            assert_eq!(binding(&none), Binding::Literal(none));
        }
    }

    #[test]
    fn malformed_nodes_are_told_all_at_once() {
        check(
            &json!({"1": 5, "2": {"inputs": {}}, "3": {"class_type": "A", "inputs": []}, "4": {"class_type": ["A"]}}),
            &[
                "node 1: the node should be an object, found the number 5",
                "node 2: `class_type` should be the name of a node class, found nothing",
                "node 3 (A): `inputs` should be an object, found an empty list",
                "node 4: `class_type` should be the name of a node class, found a list of 1",
            ],
        );
    }
}
