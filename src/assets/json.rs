//! JSON as Python writes it by default, which is what pictures carry.

use crate::{Error, Result};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

/// Writes a value as Python's `json.dumps` does: `", "` and `": "` between parts, everything outside printable ASCII as
/// `\uXXXX` (so that the text fits a `tEXt` chunk), floats as Python's `repr`, keys in their order.
#[must_use]
pub fn python_json(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

/// Reads a YAML file: a configuration that models are trained with.
///
/// # Errors
/// [`Error::Read`] and [`Error::Yaml`].
pub fn read_yaml(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(Error::reading(path))?;
    serde_norway::from_str(&text).map_err(|error| Error::Yaml { path: path.to_owned(), fault: error.to_string() })
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => write_float(text, float),
            _ => write!(text, "{number}").expect("a string takes all"),
        },
        Value::String(string) => write_string(text, string),
        Value::Array(items) => write_parts(text, ['[', ']'], items, write_value),
        Value::Object(fields) => write_parts(text, ['{', '}'], fields, |text, (key, value)| {
            write_string(text, key);
            text.push_str(": ");
            write_value(text, value);
        }),
    }
}

/// `[a, b]` or `{a, b}`.
fn write_parts<T>(
    text: &mut String,
    [open, close]: [char; 2],
    parts: impl IntoIterator<Item = T>,
    write: impl Fn(&mut String, T),
) {
    text.push(open);
    for (place, part) in parts.into_iter().enumerate() {
        if place > 0 {
            text.push_str(", ");
        }
        write(text, part);
    }
    text.push(close);
}

fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for letter in string.chars() {
        match letter {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            ' '..='~' => text.push(letter),
            _ => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    write!(text, "\\u{unit:04x}").expect("a string takes all");
                }
            }
        }
    }
    text.push('"');
}

/// Python's `repr`: the shortest digits that read back the same, with an exponent of at least two digits below 1e-4 and
/// from 1e16 on, else with a decimal point.
fn write_float(text: &mut String, float: f64) {
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let scientific = format!("{float:e}");
        let (digits, exponent) = scientific.split_once('e').expect("the format has an exponent");
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        write!(text, "{digits}e{sign}{exponent:0>2}").expect("a string takes all");
    } else {
        write!(text, "{float:?}").expect("a string takes all");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pair was printed by CPython 3: `json.dumps(json.loads(left)) == right`.
    #[test]
    fn text_is_pythons() {
        for (json, python) in [
            (r#"{"b":1,"a":[1,2.5,{"c":null}]}"#, r#"{"b": 1, "a": [1, 2.5, {"c": null}]}"#),
            (
                r#"[8.0,0.1,1e16,1e15,1.5e-5,0.0001,-0.0]"#,
                r#"[8.0, 0.1, 1e+16, 1000000000000000.0, 1.5e-05, 0.0001, -0.0]"#,
            ),
            ("[1e22, 5e-324, 1.7976931348623157e308]", "[1e+22, 5e-324, 1.7976931348623157e+308]"),
            ("[123456789012345680.0, 9007199254740993]", "[1.2345678901234568e+17, 9007199254740993]"),
            ("[18446744073709551615, -1, true, false]", "[18446744073709551615, -1, true, false]"),
            (
                r#"["ä€😀","\u007f\u0001/\"\\\n\t\b\f\r"]"#,
                r#"["\u00e4\u20ac\ud83d\ude00", "\u007f\u0001/\"\\\n\t\b\f\r"]"#,
            ),
            ("[[], {}]", "[[], {}]"),
        ] {
            assert_eq!(python_json(&serde_json::from_str(json).unwrap()), python);
        }
    }
}
