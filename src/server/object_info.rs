//! Declarations of nodes in the shape of ComfyUI's `/object_info`.

use paraflow_engine::spec::{Dynamic, InputSpec, NodeSpec, Widget};
use paraflow_engine::{Json, Registry};
use serde_json::{Map, Number, json};

/// Every node.
pub(crate) fn all(registry: &Registry) -> Json {
    registry.specs().map(|spec| (spec.name.to_owned(), node(spec))).collect()
}

/// One node.
pub(crate) fn node(spec: &NodeSpec) -> Json {
    let (mut required, mut optional) = (Map::new(), Map::new());
    for field in spec.inputs.iter().filter(|field| !matches!(field.dynamic, Some(Dynamic::With(_)))) {
        let group = if field.required { &mut required } else { &mut optional };
        let told = match &field.widget {
            Widget::Choice(keys) if spec.parts_of(field.name).next().is_some() => branches(spec, field, keys),
            _ => input(field),
        };
        group.insert(field.name.to_owned(), told);
    }
    let names = |group: &Map<String, Json>| group.keys().cloned().map(Json::from).collect::<Json>();
    let mut order = json!({ "required": names(&required) });
    if !optional.is_empty() {
        order["optional"] = names(&optional);
    }
    let mut inputs = json!({ "required": required });
    if !optional.is_empty() {
        inputs["optional"] = optional.into();
    }
    if spec.sink {
        inputs["hidden"] = json!({"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"});
        order["hidden"] = json!(["prompt", "extra_pnginfo"]);
    }
    let mut info = json!({
        "input": inputs,
        "input_order": order,
        "output": spec.outputs.iter().map(|output| output_kind(spec, output.kind)).collect::<Vec<_>>(),
        "output_is_list": spec.outputs.iter().map(|output| output.is_list).collect::<Vec<_>>(),
        "output_name": spec.outputs.iter().map(|output| output.name).collect::<Vec<_>>(),
        "name": spec.name,
        "display_name": spec.display_name.unwrap_or(spec.name),
        "description": spec.doc,
        "python_module": "nodes",
        "category": spec.category,
        "output_node": spec.sink,
    });
    if let Some(template) = template(spec) {
        let matched = |kind| (kind == "*").then_some(template);
        info["output_matchtypes"] = spec.outputs.iter().map(|output| matched(output.kind)).collect();
    }
    if spec.deprecated {
        info["deprecated"] = true.into();
    }
    if spec.experimental {
        info["experimental"] = true.into();
    }
    info
}

/// The template that inputs of one kind share, if the node has such.
fn template(spec: &NodeSpec) -> Option<&'static str> {
    spec.inputs.iter().find_map(|input| match input.dynamic {
        Some(Dynamic::Matches(template)) => Some(template),
        _ => None,
    })
}

/// What may be anything is of the kind that the template's inputs turn out to be.
fn output_kind(spec: &NodeSpec, kind: &'static str) -> &'static str {
    if kind == "*" && template(spec).is_some() { "COMFY_MATCHTYPE_V3" } else { kind }
}

/// A choice that brings inputs of its own with each value.
fn branches(spec: &NodeSpec, choice: &InputSpec, keys: &[String]) -> Json {
    let option = |key: &String| {
        let parts = spec.parts_of(choice.name).filter(|(_, with)| with.contains(&key.as_str()));
        let own = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let parts: Map<_, _> = parts.map(|(part, _)| (own(part.name), input(part))).collect();
        json!({"key": key, "inputs": {"required": parts}})
    };
    json!(["COMFY_DYNAMICCOMBO_V3", {"options": keys.iter().map(option).collect::<Json>(), "tooltip": choice.doc}])
}

/// `[type]` or `[type, {options}]`; a list is its own type.
pub(crate) fn input(spec: &InputSpec) -> Json {
    let mut options = Map::new();
    let mut set = |key: &str, value: Json| {
        options.insert(key.to_owned(), value);
    };
    if let Some(default) = &spec.default {
        set("default", default.clone());
    }
    let mut kind = Json::from(spec.kind);
    match spec.dynamic {
        Some(Dynamic::Grows { prefix, min, max }) => {
            kind = "COMFY_AUTOGROW_V3".into();
            let one = json!({"required": {prefix: [spec.kind, {}]}});
            set("template", json!({"input": one, "prefix": prefix, "min": min, "max": max}));
        }
        Some(Dynamic::Matches(template)) => {
            kind = "COMFY_MATCHTYPE_V3".into();
            set("template", json!({"template_id": template, "allowed_types": spec.kind}));
        }
        Some(Dynamic::With(_)) | None => {}
    }
    match &spec.widget {
        Widget::Socket | Widget::Toggle => {}
        Widget::Integer { min, max, step } => {
            set("min", whole(*min));
            set("max", whole(*max));
            if let Some(step) = step {
                set("step", whole(*step));
            }
        }
        Widget::Number { min, max, step, round } => {
            set("min", (*min).into());
            set("max", (*max).into());
            set("step", (*step).into());
            if let Some(round) = round {
                set("round", (*round).into());
            }
        }
        Widget::Text { multiline, dynamic_prompts } => {
            set("multiline", (*multiline).into());
            if *dynamic_prompts {
                set("dynamicPrompts", true.into());
            }
        }
        Widget::Choice(names) => kind = names.clone().into(),
    }
    for (key, there) in [
        ("lazy", spec.lazy),
        ("forceInput", spec.force_input),
        ("control_after_generate", spec.control_after_generate),
        ("image_upload", spec.image_upload),
        ("advanced", spec.advanced),
    ] {
        if there {
            set(key, true.into());
        }
    }
    if let Some(display) = spec.display {
        set("display", display.into());
    }
    if let Some(folder) = spec.image_folder {
        set("image_folder", folder.into());
        // ComfyUI's front end then lists that folder itself, with a button to do so again.
        let route = format!("/internal/files/{folder}");
        set("remote", json!({"route": route, "refresh_button": true, "control_after_refresh": "first"}));
    }
    if let Some(folder) = spec.folder {
        set("model_folder", folder.into());
    }
    if !spec.doc.is_empty() {
        set("tooltip", spec.doc.into());
    }
    if options.is_empty() { json!([kind]) } else { json!([kind, options]) }
}

fn whole(number: i128) -> Json {
    Number::from_i128(number).map_or(Json::Null, Json::Number)
}
