//! The declarations of all nodes: documented, consistent, and ComfyUI's where ComfyUI has the node.

use paraflow_engine::{Dynamic, Graph, InputSpec, NodeSpec, Plan, Registry, Services, Specs as _, Widget, formats};
use serde_json::{Map, Value, json};

fn registry() -> Registry {
    paraflow_nodes::registry(Services::new())
}

#[test]
fn every_node_and_input_is_documented_in_sentences() {
    for spec in registry().specs() {
        for (what, doc) in std::iter::once((spec.name, spec.doc)).chain(spec.inputs.iter().map(|i| (i.name, i.doc))) {
            let doc = doc.trim();
            let name = spec.name;
            assert!(doc.ends_with('.'), "{name}: the text on {what} is no sentence: {doc:?}");
            assert!(doc.starts_with(|first: char| first.is_uppercase() || first == '`'), "{name}: {what}: {doc:?}");
        }
    }
}

#[test]
fn every_default_is_inside_its_range() {
    for spec in registry().specs() {
        for input in &spec.inputs {
            let Some(default) = &input.default else { continue };
            let inside = match &input.widget {
                Widget::Socket => false,
                Widget::Toggle => default.is_boolean(),
                Widget::Integer { min, max, .. } => default
                    .as_number()
                    .and_then(serde_json::Number::as_i128)
                    .is_some_and(|d| (*min..=*max).contains(&d)),
                Widget::Number { min, max, .. } => default.as_f64().is_some_and(|d| (*min..=*max).contains(&d)),
                Widget::Text { .. } => default.is_string(),
                Widget::Choice(names) => default.as_str().is_some_and(|d| names.iter().any(|name| name == d)),
            };
            assert!(inside, "{}: {} starts with {default}", spec.name, input.name);
        }
    }
}

#[test]
fn a_graph_that_ends_nowhere_is_sent_to_pictures() {
    let faults = Plan::new(Graph::default(), &registry()).unwrap_err();
    let hint = faults[0].hint().expect("there are nodes to end with");
    assert!(hint.starts_with("end it with one of PreviewImage, SaveImage, "), "{hint}");
}

/// Recorded from ComfyUI 0.8.0; see `tests/golden/nodes.py`.
#[test]
fn stock_nodes_are_declared_as_in_comfyui() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/nodes/object_info.json");
    let recorded: Map<String, Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let registry = registry();
    let mut compared = 0;
    for spec in registry.specs() {
        let Some(theirs) = recorded.get(spec.name) else { continue };
        assert_eq!(describe(spec), adjusted(spec, theirs.clone()), "{}", spec.name);
        compared += 1;
    }
    let ours: Vec<_> = registry.specs().map(|spec| spec.name).collect();
    let missing: Vec<_> = recorded.keys().filter(|name| !ours.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "recorded but not declared: {missing:?}");
    assert_eq!(compared, recorded.len());
}

/// `docs/stock-nodes.md` tells each of them, with its category and their number.
#[test]
fn the_table_of_stock_nodes_is_whole() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../");
    let read = |name: &str| std::fs::read_to_string(format!("{folder}{name}")).unwrap();
    let recorded: Map<String, Value> = serde_json::from_str(&read("tests/golden/nodes/object_info.json")).unwrap();
    let table = read("docs/stock-nodes.md");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.to_owned()))
    };
    let told: std::collections::BTreeMap<_, _> = table.lines().filter_map(row).collect();
    let category = |declared: &Value| match declared["category"].as_str().expect("a category was recorded") {
        "" => "(none)".to_owned(),
        category => category.to_owned(),
    };
    let expected = recorded.iter().map(|(name, declared)| (name.clone(), category(declared))).collect();
    assert_eq!(told, expected);
    assert!(table.contains(&format!("that paraflow has: {}.", recorded.len())));
}

/// A declaration in the shape of the recording.
fn describe(spec: &NodeSpec) -> Value {
    let matches = spec.inputs.iter().any(|input| matches!(input.dynamic, Some(Dynamic::Matches(_))));
    let kind = |kind| if kind == "*" && matches { "COMFY_MATCHTYPE_V3" } else { kind };
    let outputs: Vec<_> = spec
        .outputs
        .iter()
        .map(|output| json!({"kind": kind(output.kind), "name": output.name, "is_list": output.is_list}))
        .collect();
    json!({
        "display_name": spec.display_name.unwrap_or(spec.name),
        "category": spec.category,
        "output_node": spec.sink,
        "deprecated": spec.deprecated,
        "experimental": spec.experimental,
        "inputs": in_order_of_parts(spec.inputs.iter().map(|input| describe_input(spec, input)).collect()),
        "outputs": outputs,
    })
}

/// What a choice brings stands in the order of its values there, in ours where several share it: by name for both.
fn in_order_of_parts(mut inputs: Vec<Value>) -> Vec<Value> {
    for run in inputs.chunk_by_mut(|a, b| a.get("with").is_some() && b.get("with").is_some()) {
        run.sort_by_key(|input| input["name"].to_string());
    }
    inputs
}

fn describe_input(spec: &NodeSpec, input: &InputSpec) -> Value {
    let mut told = json!({"name": input.name, "kind": input.kind, "required": input.required});
    match input.dynamic {
        Some(Dynamic::Grows { prefix, min, max }) => {
            told["kind"] = "COMFY_AUTOGROW_V3".into();
            let one = json!({"required": {prefix: [input.kind, {}]}});
            told["template"] = json!({"input": one, "prefix": prefix, "min": min, "max": max});
        }
        Some(Dynamic::Matches(template)) => {
            told["kind"] = "COMFY_MATCHTYPE_V3".into();
            told["template"] = json!({"template_id": template, "allowed_types": input.kind});
        }
        Some(Dynamic::With(keys)) => told["with"] = json!(keys),
        None if spec.parts_of(input.name).next().is_some() => told["kind"] = "COMFY_DYNAMICCOMBO_V3".into(),
        None => {}
    }
    let mut tell = |key: &str, value: Value| {
        if value != Value::Bool(false) && !value.is_null() {
            told[key] = value;
        }
    };
    tell("default", input.default.clone().unwrap_or_default());
    tell("control_after_generate", input.control_after_generate.into());
    tell("image_upload", input.image_upload.into());
    tell("image_folder", input.image_folder.into());
    tell("display", input.display.into());
    tell("forceInput", input.force_input.into());
    tell("lazy", input.lazy.into());
    match &input.widget {
        Widget::Socket | Widget::Toggle => {}
        Widget::Integer { min, max, step } => {
            let number =
                |value: &i128| serde_json::Number::from_i128(*value).map(Value::Number).expect("bounds are 64 bits");
            tell("min", number(min));
            tell("max", number(max));
            tell("step", step.as_ref().map_or(Value::Null, number));
        }
        Widget::Number { min, max, step, round } => {
            tell("min", (*min).into());
            tell("max", (*max).into());
            tell("step", (*step).into());
            tell("round", (*round).into());
        }
        Widget::Text { multiline, dynamic_prompts } => {
            tell("multiline", (*multiline).into());
            tell("dynamicPrompts", (*dynamic_prompts).into());
        }
        Widget::Choice(_) if input.names_file => {}
        Widget::Choice(names) => tell("choices", names.clone().into()),
    }
    told
}

/// The recording with what it leaves to defaults filled in, and with the lists cut to what we have.
fn adjusted(spec: &NodeSpec, mut theirs: Value) -> Value {
    let inputs = theirs["inputs"].as_array().expect("a list was recorded").clone();
    theirs["inputs"] = in_order_of_parts(inputs).into();
    for input in theirs["inputs"].as_array_mut().expect("a list was recorded") {
        let ours = spec.inputs.iter().find(|ours| input["name"] == ours.name);
        // Where a front end asks for the files of a folder. The server says it of every input that has one.
        if let Some(remote) = input.as_object_mut().and_then(|input| input.remove("remote")) {
            let folder = input["image_folder"].as_str().expect("it is a folder of pictures");
            let expected = json!({"route": format!("/internal/files/{folder}"), "refresh_button": true,
                                  "control_after_refresh": "first"});
            assert_eq!(remote, expected, "{}", spec.name);
        }
        match input["kind"].as_str().expect("a name was recorded") {
            // Whole numbers here have 64 bits.
            "INT" => {
                for (key, unsaid) in [("min", i64::MIN), ("max", i64::MAX)] {
                    if input.get(key).is_none() {
                        input[key] = unsaid.into();
                    }
                }
            }
            "FLOAT" => {
                // 2^63 - 1 is no float; the nearest one is what an editor makes of it. Whole bounds may be written as such.
                for key in ["min", "max", "default", "step"] {
                    if let Some(number) = input.get(key).and_then(Value::as_f64) {
                        input[key] = number.into();
                    }
                }
                // Editors step by a half where nothing is said.
                if input.get("step").is_none() {
                    input["step"] = 0.5.into();
                }
            }
            // A wire only: nobody sees a widget that these would bound.
            "FLOATS" => {
                for key in ["min", "default", "step"] {
                    input.as_object_mut().expect("an input was recorded").remove(key);
                }
            }
            // Samplers and schedules: those that we have, in ComfyUI's order.
            "COMBO" => {
                if let (Some(Widget::Choice(have)), Some(names)) =
                    (ours.map(|ours| &ours.widget), input.get_mut("choices").and_then(Value::as_array_mut))
                {
                    names.retain(|name| have.iter().any(|have| name == have));
                }
            }
            _ => {}
        }
    }
    theirs
}

/// ComfyUI's editor opens workflows and no prompts, so the server gives it our graphs as such.
#[test]
fn every_shipped_graph_is_the_same_as_a_workflow() {
    let registry = registry();
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../graphs")).unwrap();
    let files =
        folder.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == "json"));
    let mut count = 0;
    for file in files {
        let graph = formats::read(&std::fs::read(&file).unwrap(), &registry).unwrap();
        let workflow = formats::as_workflow(&graph, &registry);
        let again = formats::read(workflow.to_string().as_bytes(), &registry).unwrap().to_prompt();
        let before = graph.to_prompt();
        let (before, again) = (before.as_object().unwrap(), again.as_object().unwrap());
        assert_eq!(before.len(), again.len(), "{file:?}");
        for (id, node) in before {
            let other = &again[id];
            assert_eq!((&node["class_type"], &node["_meta"]), (&other["class_type"], &other["_meta"]), "{file:?} {id}");
            let (inputs, others) = (node["inputs"].as_object().unwrap(), other["inputs"].as_object().unwrap());
            for (name, value) in inputs {
                assert_eq!(others.get(name), Some(value), "{file:?} {id}.{name}");
            }
            let spec = registry.spec(node["class_type"].as_str().unwrap()).unwrap();
            for (name, value) in others.iter().filter(|(name, _)| !inputs.contains_key(*name)) {
                let input = spec.inputs.iter().find(|input| input.name == name).unwrap();
                // A widget cannot be left out: what has no default shows the least that it takes.
                assert!(
                    Some(value) == input.default.as_ref() || (input.default.is_none() && !input.required),
                    "{file:?} {id}.{name} is what it was without being said"
                );
            }
        }
        let boxes: Vec<[f64; 4]> = workflow["nodes"].as_array().unwrap().iter().map(rectangle).collect();
        for (index, [x, y, width, height]) in boxes.iter().enumerate() {
            for [left, top, ..] in &boxes[index + 1..] {
                let apart = left >= &(x + width) || left < x || top >= &(y + height) || top < y;
                assert!(apart, "{file:?}: nodes lie upon each other");
            }
        }
        count += 1;
    }
    assert!(count >= 10, "the files are found: {count}");
}

/// Left, top, width and height of a node on the canvas.
fn rectangle(node: &Value) -> [f64; 4] {
    let number = |field: &str, index: usize| node[field][index].as_f64().expect("a node has a place and a size");
    [number("pos", 0), number("pos", 1), number("size", 0), number("size", 1)]
}
