//! Values as Python prints them: how ComfyUI makes a text of a literal, and tells of one that will not do.

use std::fmt::Write as _;

use serde_json::Value as Json;

/// Python's `str()` of a value: a text as it stands, everything else as a program would write it.
///
/// ```
/// use paraflow_engine::python_str;
/// use serde_json::json;
///
/// assert_eq!(python_str(&json!("a 'b'")), "a 'b'");
/// assert_eq!(python_str(&json!({"a": [1, true, null, "it's"]})), r#"{'a': [1, True, None, "it's"]}"#);
/// ```
#[must_use]
pub fn python_str(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => python_repr(other),
    }
}

/// Python's `repr()` of a value: texts in quotes.
#[must_use]
pub fn python_repr(value: &Json) -> String {
    let mut written = String::new();
    write_value(&mut written, value);
    written
}

/// Python's `repr()` of a float: the shortest digits that read back the same, with an exponent of at least two digits
/// below 1e-4 and from 1e16 on, else with a decimal point.
pub(crate) fn python_float(float: f64) -> String {
    let size = float.abs();
    if size == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{float:?}");
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

fn write_value(written: &mut String, value: &Json) {
    match value {
        Json::Null => written.push_str("None"),
        Json::Bool(true) => written.push_str("True"),
        Json::Bool(false) => written.push_str("False"),
        Json::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => written.push_str(&python_float(float)),
            _ => written.push_str(&number.to_string()),
        },
        Json::String(text) => write_text(written, text),
        Json::Array(list) => {
            written.push('[');
            for (place, element) in list.iter().enumerate() {
                written.push_str(if place > 0 { ", " } else { "" });
                write_value(written, element);
            }
            written.push(']');
        }
        Json::Object(fields) => {
            written.push('{');
            for (place, (key, value)) in fields.iter().enumerate() {
                written.push_str(if place > 0 { ", " } else { "" });
                write_text(written, key);
                written.push_str(": ");
                write_value(written, value);
            }
            written.push('}');
        }
    }
}

/// In single quotes, unless there are such inside and no double ones.
fn write_text(written: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    written.push(quote);
    for letter in text.chars() {
        match letter {
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            _ if letter == quote => written.extend(['\\', quote]),
            _ if letter.is_control() || (letter.is_whitespace() && letter != ' ') => {
                let code = u32::from(letter);
                let escaped =
                    if code < 0x100 { write!(written, "\\x{code:02x}") } else { write!(written, "\\u{code:04x}") };
                escaped.expect("a string takes all");
            }
            _ => written.push(letter),
        }
    }
    written.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each right side was printed by CPython 3.11: `repr(json.loads(left))`.
    #[test]
    fn values_are_written_as_python_writes_them() {
        for (json, python) in [
            (r#"{"b":1,"a":[1,2.5,{"c":null}],"d":{}}"#, "{'b': 1, 'a': [1, 2.5, {'c': None}], 'd': {}}"),
            ("[true, false, []]", "[True, False, []]"),
            (r#"["it's", "\"", "it's \"", "\\"]"#, r#"["it's", '"', 'it\'s "', '\\']"#),
            (r#""a\nb\t\r\u0001\u007f\u00a0\u2028 ä€😀""#, r"'a\nb\t\r\x01\x7f\xa0\u2028 ä€😀'"),
            (
                "[8.0, 1e16, 1e15, 1.5e-5, 0.0001, -0.0, 1e300]",
                "[8.0, 1e+16, 1000000000000000.0, 1.5e-05, 0.0001, -0.0, 1e+300]",
            ),
            ("[18446744073709551615, -1]", "[18446744073709551615, -1]"),
        ] {
            assert_eq!(python_repr(&serde_json::from_str(json).unwrap()), python);
        }
        assert_eq!(python_str(&"it's".into()), "it's");
    }
}
