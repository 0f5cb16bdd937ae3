//! Plain values as nodes, for one value that several inputs read.

use paraflow_engine::{Context, Json, Node, NodeDef, Result, Run, Sink, Value};
use serde_json::json;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<PrimitiveBoolean>(),
        NodeDef::of::<PrimitiveFloat>(),
        NodeDef::of::<PrimitiveInt>(),
        NodeDef::of::<PrimitiveString>(),
        NodeDef::of::<PrimitiveStringMultiline>(),
        NodeDef::of::<PreviewAny>(),
    ]
}

/// The largest number that both ends of a primitive's range reach, ComfyUI's `sys.maxsize`.
const MOST: i64 = i64::MAX;

/// Shows whatever arrives as text.
#[derive(Node)]
#[node(category = "utils", display_name = "Preview as Text", sink)]
struct PreviewAny {
    /// What to show.
    source: Value,
}

impl Run for PreviewAny {
    type Output = Sink;

    fn run(self, _: &Context<'_>) -> Result<Sink> {
        Ok(Sink(json!({"text": [shown(&self.source)]})))
    }
}

/// A value as ComfyUI shows it: words as they are, numbers as Python writes them, anything else that a file could hold as JSON.
/// Of what no file could hold, the kind.
fn shown(value: &Value) -> String {
    match value.to_json() {
        Some(Json::String(text)) => text,
        Some(Json::Bool(truth)) => if truth { "True" } else { "False" }.to_owned(),
        Some(number @ Json::Number(_)) => paraflow_assets::python_json(&number),
        Some(other) => indented(&other),
        None => value.kind().to_owned(),
    }
}

/// JSON with four spaces to a level, two of which each are `serde_json`'s.
fn indented(value: &Json) -> String {
    let pretty = serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
    let twice = |line: &str| {
        let text = line.trim_start_matches(' ');
        format!("{}{text}", " ".repeat(2 * (line.len() - text.len())))
    };
    pretty.lines().map(twice).collect::<Vec<_>>().join("\n")
}

/// A line of text.
#[derive(Node)]
#[node(category = "utils/primitive", display_name = "String")]
struct PrimitiveString {
    /// The text that every connected input reads.
    value: String,
}

impl Run for PrimitiveString {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok(self.value)
    }
}

/// Text of several lines.
#[derive(Node)]
#[node(category = "utils/primitive", display_name = "String (Multiline)")]
struct PrimitiveStringMultiline {
    /// The text that every connected input reads.
    #[input(multiline)]
    value: String,
}

impl Run for PrimitiveStringMultiline {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok(self.value)
    }
}

/// A whole number.
#[derive(Node)]
#[node(category = "utils/primitive", display_name = "Int")]
struct PrimitiveInt {
    /// The number that every connected input reads.
    #[input(range = -MOST..=MOST, control_after_generate)]
    value: i64,
}

impl Run for PrimitiveInt {
    type Output = i64;

    fn run(self, _: &Context<'_>) -> Result<i64> {
        Ok(self.value)
    }
}

/// A number with a fraction.
#[derive(Node)]
#[node(category = "utils/primitive", display_name = "Float")]
struct PrimitiveFloat {
    /// The number that every connected input reads.
    #[input(range = -(MOST as f64)..=MOST as f64, step = 0.1)]
    value: f64,
}

impl Run for PrimitiveFloat {
    type Output = f64;

    fn run(self, _: &Context<'_>) -> Result<f64> {
        Ok(self.value)
    }
}

/// Yes or no.
#[derive(Node)]
#[node(category = "utils/primitive", display_name = "Boolean")]
struct PrimitiveBoolean {
    /// The answer that every connected input reads.
    value: bool,
}

impl Run for PrimitiveBoolean {
    type Output = bool;

    fn run(self, _: &Context<'_>) -> Result<bool> {
        Ok(self.value)
    }
}
