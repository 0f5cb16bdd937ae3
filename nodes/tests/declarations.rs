//! The declarations of all nodes: documented, consistent, and ComfyUI's where ComfyUI has the node.

use paraflow_engine::{InputSpec, NodeSpec, Registry, Services, Widget};
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

/// A declaration in the shape of the recording.
fn describe(spec: &NodeSpec) -> Value {
    let outputs: Vec<_> = spec
        .outputs
        .iter()
        .map(|output| json!({"kind": output.kind, "name": output.name, "is_list": output.is_list}))
        .collect();
    json!({
        "display_name": spec.display_name.unwrap_or(spec.name),
        "category": spec.category,
        "output_node": spec.sink,
        "deprecated": spec.deprecated,
        "inputs": spec.inputs.iter().map(describe_input).collect::<Vec<_>>(),
        "outputs": outputs,
    })
}

fn describe_input(input: &InputSpec) -> Value {
    let mut told = json!({"name": input.name, "kind": input.kind, "required": input.required});
    let mut tell = |key: &str, value: Value| {
        if value != Value::Bool(false) && !value.is_null() {
            told[key] = value;
        }
    };
    tell("default", input.default.clone().unwrap_or_default());
    tell("control_after_generate", input.control_after_generate.into());
    tell("image_upload", input.image_upload.into());
    tell("forceInput", input.force_input.into());
    tell("lazy", input.lazy.into());
    match &input.widget {
        Widget::Socket | Widget::Toggle => {}
        Widget::Integer { min, max, step } => {
            let number =
                |value: &i128| serde_json::Number::from_i128(*value).map(Value::Number).expect("bounds are 64 bits");
            tell("min", number(min));
            tell("max", number(max));
            tell("step", number(step));
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
    for input in theirs["inputs"].as_array_mut().expect("a list was recorded") {
        let ours = spec.inputs.iter().find(|ours| input["name"] == ours.name);
        match input["kind"].as_str().expect("a name was recorded") {
            // Editors step by one where nothing is said, and whole numbers here have 64 bits.
            "INT" => {
                for (key, unsaid) in [("step", 1), ("min", i64::MIN), ("max", i64::MAX)] {
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
