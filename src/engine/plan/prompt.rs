//! The API prompt that is saved into pictures.

use serde_json::{Map, Value as Json, json};

use crate::graph::{Binding, Entry, Graph};

/// The graph as ComfyUI's API prompt, with these literals (entry, input, literal) in place of those of the file.
pub(crate) fn write(graph: &Graph, edits: &[(usize, String, Json)]) -> Json {
    let mut nodes: Vec<(&str, Map<String, Json>)> =
        graph.nodes.iter().map(|(id, entry)| (id.as_str(), inputs(entry))).collect();
    for (entry, input, literal) in edits {
        nodes[*entry].1.insert(input.clone(), literal.clone());
    }
    let written =
        nodes.into_iter().zip(&graph.nodes).map(|((id, inputs), (_, entry))| (id.to_owned(), node(entry, inputs)));
    Json::Object(written.collect())
}

fn inputs(entry: &Entry) -> Map<String, Json> {
    let written = |binding: &Binding| match binding {
        Binding::Literal(literal) => literal.clone(),
        Binding::Link { node, slot } => json!([node, slot]),
    };
    entry.inputs.iter().map(|(name, binding)| (name.clone(), written(binding))).collect()
}

fn node(entry: &Entry, inputs: Map<String, Json>) -> Json {
    let mut fields = Map::new();
    fields.insert("inputs".into(), Json::Object(inputs));
    fields.insert("class_type".into(), entry.class.clone().into());
    let mut rest = entry.rest.clone();
    if let Some(title) = &entry.title {
        let mut meta = match rest.shift_remove("_meta") {
            Some(Json::Object(meta)) => meta,
            _ => Map::new(),
        };
        meta.insert("title".into(), title.clone().into());
        fields.insert("_meta".into(), Json::Object(meta));
    }
    fields.extend(rest);
    Json::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_stay_and_edits_take_the_place_of_literals() {
        let entry = Entry {
            class: "KSampler".into(),
            inputs: vec![
                ("steps".into(), Binding::Literal(json!("20"))),
                ("model".into(), Binding::Link { node: "4".into(), slot: 0 }),
            ],
            title: Some("second pass".into()),
            rest: Map::from_iter([("is_changed".into(), json!([1])), ("_meta".into(), json!({"colour": "red"}))]),
        };
        let graph = Graph { nodes: vec![("3".into(), entry)], ..Graph::default() };
        let edits = [(0, "steps".to_owned(), json!(20)), (0, "denoise".to_owned(), json!(1.0))];
        assert_eq!(
            write(&graph, &edits).to_string(),
            r#"{"3":{"inputs":{"steps":20,"model":["4",0],"denoise":1.0},"class_type":"KSampler","#.to_owned()
                + r#""_meta":{"colour":"red","title":"second pass"},"is_changed":[1]}}"#
        );
    }
}
