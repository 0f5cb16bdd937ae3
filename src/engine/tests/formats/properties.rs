//! Whatever a file holds, reading it ends, and ends in a graph or an error.

use paraflow_engine::formats::{apply_set, read};
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use crate::stock::stock;

/// Any JSON, with the words of our formats among its keys and texts.
fn any_json() -> impl Strategy<Value = Json> {
    let words = "nodes|links|id|type|class_type|inputs|outputs|mode|order|link|name|widget|definitions|subgraphs|extra|\
                 groupNodes|prompt|workflow|properties|proxyWidgets|widgets_values|external|linkIds|-10|-20|1|2|KSampler|\
                 PrimitiveNode|Reroute|SaveImage|workflow>g|g|[a-z%.{}|/*\\\\]{0,8}";
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-20_i64..30).prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        words.prop_map(Json::from),
    ];
    leaf.prop_recursive(6, 96, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Json::from),
            prop::collection::vec((words, inner), 0..8).prop_map(|pairs| Json::Object(pairs.into_iter().collect())),
        ]
    })
}

fn small_id() -> impl Strategy<Value = Json> {
    prop_oneof![(0..6_i64).prop_map(Json::from), (0..6_i64).prop_map(|id| id.to_string().into()), Just(json!(-10))]
}

/// A node of a workflow as editors write them, wired at random.
fn any_node() -> impl Strategy<Value = Json> {
    let class = prop::sample::select(vec![
        "KSampler",
        "SaveImage",
        "Reroute",
        "PrimitiveNode",
        "LoadImage",
        "Custom",
        "Note",
        "sub-a",
        "sub-b",
        "workflow>g",
    ]);
    let input = (prop::sample::select(vec!["model", "seed", "images", "", "x"]), 0..8_i64, any::<bool>()).prop_map(
        |(name, link, widget)| match widget {
            true => json!({"name": name, "type": "INT", "link": link, "widget": {"name": name}}),
            false => json!({"name": name, "type": "*", "link": link}),
        },
    );
    let values = prop::collection::vec(any_json(), 0..5);
    (small_id(), class, prop::sample::select(vec![0, 0, 2, 4]), prop::collection::vec(input, 0..4), values).prop_map(
        |(id, class, mode, inputs, values)| {
            json!({"id": id, "type": class, "mode": mode, "inputs": inputs, "outputs": [{"type": "*"}, {"type": "MODEL"}],
                   "widgets_values": values, "properties": {"proxyWidgets": [["-1", "x"]]}})
        },
    )
}

fn any_scope() -> impl Strategy<Value = Map<String, Json>> {
    let link = (0..8_i64, small_id(), 0..3_i64, small_id(), 0..3_i64)
        .prop_map(|(id, from, from_slot, to, to_slot)| json!([id, from, from_slot, to, to_slot, "*"]));
    let parts = (prop::collection::vec(any_node(), 0..6), prop::collection::vec(link, 0..8));
    parts.prop_map(|(mut nodes, links)| {
        // Ids of their own, so that the interesting faults are reached.
        for (index, node) in nodes.iter_mut().enumerate() {
            node["id"] = index.into();
        }
        let port = json!([{"name": "x", "type": "INT", "linkIds": [0, 1]}, {"name": "y", "type": "*", "linkIds": [2]}]);
        let scope = json!({"nodes": nodes, "links": links, "inputs": port, "outputs": port});
        scope.as_object().cloned().unwrap_or_default()
    })
}

fn any_workflow() -> impl Strategy<Value = Json> {
    (any_scope(), any_scope(), any_scope(), any_scope()).prop_map(|(mut root, mut a, mut b, mut group)| {
        a.insert("id".into(), "sub-a".into());
        b.insert("id".into(), "sub-b".into());
        group.insert("external".into(), json!([[0, 0, "*"], [1, 1, "*"]]));
        root.insert("definitions".into(), json!({"subgraphs": [a, b]}));
        root.insert("extra".into(), json!({"groupNodes": {"g": group}}));
        Json::Object(root)
    })
}

/// Reads; where that gives a graph, its prompt reads as the same graph.
fn reads_or_is_refused(bytes: &[u8]) {
    if let Ok(graph) = read(bytes, &stock()) {
        let prompt = graph.to_prompt();
        // An empty graph's prompt is an empty object, which is no prompt.
        if !graph.nodes.is_empty() {
            let again = read(prompt.to_string().as_bytes(), &stock()).expect("what we write, we read");
            assert_eq!(again.nodes, graph.nodes);
            assert_eq!(again.to_prompt().to_string(), prompt.to_string());
        }
    }
}

/// A subgraph within a subgraph, and so on, each input leading to both inputs of the next.
fn nested(levels: usize) -> Json {
    let id = |level: usize| format!("{level:08}-aaaa-4aaa-8aaa-000000000000");
    let definition = |level: usize| {
        let inner = |class: &str| {
            json!({"id": 1, "type": class, "inputs": [
                {"name": "seed", "type": "INT", "link": 1, "widget": {"name": "seed"}},
                {"name": "steps", "type": "INT", "link": 2, "widget": {"name": "steps"}},
            ], "widgets_values": [7, "fixed"]})
        };
        let ports = json!([{"name": "seed", "type": "INT", "linkIds": [2, 1]}, {"name": "steps", "type": "INT", "linkIds": [1, 2]}]);
        json!({"id": id(level), "name": "level", "inputs": ports, "outputs": [],
               "nodes": [inner(&if level + 1 < levels { id(level + 1) } else { "KSampler".to_owned() })],
               "links": [[1, -10, 0, 1, 0, "INT"], [2, -10, 1, 1, 1, "INT"]]})
    };
    let subgraphs: Vec<Json> = (0..levels).map(definition).collect();
    json!({"nodes": [{"id": 1, "type": id(0)}], "links": [], "definitions": {"subgraphs": subgraphs}})
}

#[test]
fn what_multiplies_with_depth_is_done_once() {
    let deepest = read(nested(64).to_string().as_bytes(), &stock()).expect("not too deep");
    assert_eq!(deepest.nodes[0].0, ["1"; 65].join(":"));
    let error = read(nested(65).to_string().as_bytes(), &stock()).expect_err("too deep").to_string();
    assert!(error.contains("nests more than 64 deep"), "{error}");
}

#[test]
fn long_chains_do_not_use_up_the_stack() {
    let many = 20_000;
    let reroute = |id: usize| json!({"id": id, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": id}], "outputs": [{"type": "*"}]});
    let mut nodes: Vec<Json> = (1..many).map(reroute).collect();
    nodes.push(json!({"id": 0, "type": "LoadImage", "widgets_values": ["a.png", "image"]}));
    nodes.push(json!({"id": many, "type": "SaveImage", "inputs": [{"name": "images", "type": "IMAGE", "link": many}]}));
    let links: Vec<Json> = (1..=many).map(|id| json!([id, id - 1, 0, id, 0, "IMAGE"])).collect();
    let graph = read(json!({"nodes": nodes, "links": links}).to_string().as_bytes(), &stock()).expect("a graph");
    assert_eq!(graph.to_prompt()[&many.to_string()]["inputs"]["images"], json!(["0", 0]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        reads_or_is_refused(&bytes);
        reads_or_is_refused(&[b"\x89PNG\r\n\x1a\n", bytes.as_slice()].concat());
        reads_or_is_refused(&[b"RIFF....WEBPEXIF", bytes.as_slice()].concat());
        reads_or_is_refused(&[b"RIFF....WEBPEXIF\x80\0\0\0II*\0\x08\0\0\0", bytes.as_slice()].concat());
    }

    #[test]
    fn text(text in "[{}\\[\\]\":,0-9a-zN \\\\\n-]{0,80}") {
        reads_or_is_refused(text.as_bytes());
    }

    #[test]
    fn json(json in any_json()) {
        reads_or_is_refused(json.to_string().as_bytes());
        reads_or_is_refused(json!({"nodes": [json], "links": [json]}).to_string().as_bytes());
        reads_or_is_refused(json!({"1": {"class_type": "KSampler", "inputs": {"a": json}, "b": json}}).to_string().as_bytes());
    }

    #[test]
    fn workflows(workflow in any_workflow()) {
        reads_or_is_refused(workflow.to_string().as_bytes());
    }

    #[test]
    fn damaged_workflows(workflow in any_workflow(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = workflow.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        reads_or_is_refused(&bytes);
    }

    #[test]
    fn assignments(assignment in "[0-9a-zK.=Sampler{}\"ü ]{0,24}") {
        let mut graph = read(crate::stock::text_to_image().to_string().as_bytes(), &stock()).expect("a graph");
        let before = graph.clone();
        if apply_set(&mut graph, &stock(), &assignment).is_err() {
            assert_eq!(graph, before);
        }
    }
}
