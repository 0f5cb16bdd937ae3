//! Makes `web/src/protocol.ts` from the schemas of the server's types, and fails when it was another.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value as Json;
use utoipa::OpenApi;

use super::Message;
use super::answers::{FileRef, HistoryEntry, Queue, Queued, Refused};

#[derive(OpenApi)]
#[openapi(components(schemas(Message, FileRef, Queued, Refused, Queue, HistoryEntry)))]
struct Wire;

const HEAD: &str = "\
// What the server says, made by `cargo test -p paraflow-server protocol` from its types. Do not edit.
//
// `Message` is every text frame of `/ws`; types that no message has are bodies of answers, ComfyUI's and those of
// `/paraflow/v1`.

import type { Json, JsonObject } from \"./graph/json.ts\";
";

/// The file as today's types have it.
fn protocol() -> String {
    let mut document = Wire::openapi();
    document.merge(crate::routes::own_document());
    let document: Json = serde_json::from_str(&document.to_json().unwrap()).unwrap();
    let mut text = HEAD.to_owned();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        text.push('\n');
        declare(&mut text, name, schema);
    }
    text
}

/// An object becomes an interface, all else a type.
fn declare(text: &mut String, name: &str, schema: &Json) {
    comment(text, "", schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        let _ = writeln!(text, "export type {name} =");
        let lines: Vec<String> = choices.iter().map(|choice| format!("  | {}", kind(choice))).collect();
        let _ = writeln!(text, "{};", lines.join("\n"));
        return;
    }
    if schema["properties"].is_null() {
        let _ = writeln!(text, "export type {name} = {};", kind(schema));
        return;
    }
    let _ = writeln!(text, "export interface {name} {{");
    for (key, field) in schema["properties"].as_object().into_iter().flatten() {
        comment(text, "  ", field);
        let _ = writeln!(text, "  {}{}: {};", property(key), optional(schema, key), kind(field));
    }
    text.push_str("}\n");
}

fn comment(text: &mut String, indent: &str, schema: &Json) {
    if let Some(words) = schema["description"].as_str() {
        let _ = writeln!(text, "{indent}/** {} */", words.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}

fn optional(schema: &Json, key: &str) -> &'static str {
    let required = schema["required"].as_array().is_some_and(|list| list.iter().any(|name| name == key));
    if required { "" } else { "?" }
}

fn property(name: &str) -> String {
    let is_word = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if is_word { name.to_owned() } else { format!("{name:?}") }
}

/// A schema as a type within another.
fn kind(schema: &Json) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or_default().to_owned();
    }
    for (key, joined) in [("oneOf", " | "), ("anyOf", " | "), ("allOf", " & ")] {
        if let Some(list) = schema[key].as_array() {
            return list.iter().map(kind).collect::<Vec<_>>().join(joined);
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(Json::to_string).collect::<Vec<_>>().join(" | ");
    }
    match &schema["type"] {
        Json::String(name) => named(name, schema),
        Json::Array(names) => {
            names.iter().map(|name| named(name.as_str().unwrap(), schema)).collect::<Vec<_>>().join(" | ")
        }
        _ => "Json".to_owned(),
    }
}

fn named(name: &str, schema: &Json) -> String {
    match name {
        "integer" | "number" => "number".to_owned(),
        "array" => match schema["prefixItems"].as_array() {
            Some(items) => format!("[{}]", items.iter().map(kind).collect::<Vec<_>>().join(", ")),
            None => list(&kind(&schema["items"])),
        },
        "object" => object(schema),
        // string, boolean, null
        other => other.to_owned(),
    }
}

fn list(item: &str) -> String {
    if item.contains(' ') && !item.starts_with(['{', '[']) { format!("({item})[]") } else { format!("{item}[]") }
}

fn object(schema: &Json) -> String {
    if let Some(value) = schema.get("additionalProperties").filter(|value| value.is_object()) {
        return format!("Record<string, {}>", kind(value));
    }
    match schema["properties"].as_object() {
        None => "JsonObject".to_owned(),
        Some(fields) => {
            let field =
                |(key, field): (&String, &Json)| format!("{}{}: {}", property(key), optional(schema, key), kind(field));
            format!("{{ {} }}", fields.iter().map(field).collect::<Vec<_>>().join("; "))
        }
    }
}

#[test]
fn the_editors_types_are_the_servers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web/src/protocol.ts");
    let (now, before) = (protocol(), fs::read_to_string(&path).unwrap_or_default());
    if now != before {
        fs::write(&path, &now).unwrap();
        panic!("web/src/protocol.ts was stale and is written anew: look at it and commit it");
    }
}
