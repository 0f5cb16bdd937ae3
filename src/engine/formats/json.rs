//! JSON as it is found in the wild: with a byte order mark, and with `NaN` and `Infinity` as Python's `json` writes
//! them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Error, Value as Json};

use super::FormatError;

/// How deep the parser follows brackets; no graph comes near.
pub(super) const MAX_DEPTH: usize = 127;

/// A parsed text, and the text that was parsed.
pub(super) struct Document<'t> {
    pub(super) json: Json,
    text: Cow<'t, str>,
}

impl<'t> Document<'t> {
    /// Parses. `NaN`, `Infinity` and `-Infinity`, which JSON cannot say, become `null`.
    pub(super) fn parse(text: &'t str) -> Result<Self, FormatError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let strict = match serde_json::from_str(text) {
            Ok(json) => return Ok(Self { json, text: text.into() }),
            Err(error) => error,
        };
        let (replaced, grown) = without_nan(text);
        if replaced == text {
            return Err(at(text, &strict, &[]));
        }
        match serde_json::from_str(&replaced) {
            Ok(json) => Ok(Self { json, text: replaced.into() }),
            Err(error) => Err(at(text, &error, &grown)),
        }
    }

    /// Keys that occur more than once in the object at `path`. The parsed value holds only the last of each.
    pub(super) fn repeated_keys(&self, path: &[&str]) -> Vec<String> {
        let mut repeated = Vec::new();
        let mut parser = serde_json::Deserializer::from_str(&self.text);
        // It parsed before, so the only error is a path that leads to something else than an object: no keys.
        let _ = Keys { path, repeated: &mut repeated }.deserialize(&mut parser);
        repeated
    }
}

/// The error with its place in `text`; `grown` lists the places (line, column) of the parsed text that are a byte
/// longer than in `text`.
fn at(text: &str, error: &Error, grown: &[(usize, usize)]) -> FormatError {
    let line = error.line();
    let shift = grown.iter().filter(|&&(at, column)| at == line && column < error.column()).count();
    let at_end = error.classify() == Category::Eof;
    let bytes = text.lines().nth(line.saturating_sub(1)).unwrap_or("").as_bytes();
    let offset = if at_end { bytes.len() } else { error.column().saturating_sub(shift + 1) };
    let before = String::from_utf8_lossy(&bytes[..offset.min(bytes.len())]);
    let column = before.trim_end_matches('\u{fffd}').chars().count() + 1;

    let message = error.to_string();
    let fact = message.split(" at line ").next().unwrap_or(&message);
    let fact = fact.replace("EOF while parsing", "expected the rest of");
    if fact == "recursion limit exceeded" {
        return FormatError::TooDeep { line, column };
    }
    let after = String::from_utf8_lossy(bytes.get(offset..).unwrap_or(&[]));
    let after: String = after.trim_start_matches('\u{fffd}').chars().take(20).collect();
    let found = match after.as_str() {
        _ if at_end => "the end".to_owned(),
        "" => "the end of the line".to_owned(),
        after => format!("`{after}`"),
    };
    FormatError::NotJson { line, column, fact, found }
}

/// The text with `null` for what Python writes and JSON does not know, and the line and column (in the new text) of
/// each `null` that is a byte longer than the `NaN` it stands for.
fn without_nan(text: &str) -> (String, Vec<(usize, usize)>) {
    const NULLS: [(&str, &str); 3] = [("NaN", "null"), ("-Infinity", "null     "), ("Infinity", "null    ")];
    let mut replaced = String::with_capacity(text.len() + 16);
    let mut grown = Vec::new();
    let (mut line, mut line_start) = (1, 0);
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let found = NULLS.into_iter().find(|(python, _)| !in_string && rest.starts_with(python));
        if let Some((python, null)) = found {
            if null.len() > python.len() {
                grown.push((line, replaced.len() - line_start + 1));
            }
            replaced.push_str(null);
            rest = &rest[python.len()..];
            continue;
        }
        replaced.push(next);
        rest = &rest[next.len_utf8()..];
        match next {
            _ if escaped => escaped = false,
            '"' => in_string = !in_string,
            '\\' => escaped = in_string,
            '\n' => (line, line_start) = (line + 1, replaced.len()),
            _ => {}
        }
    }
    (replaced, grown)
}

/// Collects the keys that an object repeats, following `path` down to it.
struct Keys<'k> {
    path: &'k [&'k str],
    repeated: &'k mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            match self.path {
                [first, path @ ..] if *first == key => {
                    map.next_value_seed(Keys { path, repeated: &mut *self.repeated })?;
                }
                path => {
                    map.next_value::<IgnoredAny>()?;
                    if path.is_empty() && !seen.insert(key.clone()) && !self.repeated.contains(&key) {
                        self.repeated.push(key);
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Document::parse(text).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn python_numbers_and_byte_order_marks_are_read() {
        let text = "\u{feff}{\"a\": [NaN, -Infinity, Infinity, 8.0], \"NaN \\\" NaN\": \"Infinity\"}";
        let json = Document::parse(text).unwrap().json;
        assert_eq!(json, serde_json::json!({"a": [null, null, null, 8.0], "NaN \" NaN": "Infinity"}));
    }

    #[test]
    fn errors_have_a_place_and_a_finding() {
        assert_eq!(error("{\"a\": 1,\n \"b\" 2}"), "line 2, column 6: expected `:`, found `2}`");
        assert_eq!(error("[NaN,\n NaN, NaN, x]"), "line 2, column 12: expected value, found `x]`");
        assert_eq!(error("[\"ü\", x]"), "line 1, column 7: expected value, found `x]`");
        assert_eq!(error(""), "line 1, column 1: expected the rest of a value, found the end");
        assert_eq!(error("{\"a\": "), "line 1, column 7: expected the rest of a value, found the end");
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(Document::parse(&deep(MAX_DEPTH)).is_ok());
        assert!(error(&deep(MAX_DEPTH + 1)).contains("nested more than 127 levels deep"));
        assert!(error(&deep(100_000)).contains("nested more than"));
    }

    #[test]
    fn repeated_keys_are_found_at_their_path_only() {
        let text = r#"{"a": {"x": NaN, "y": {"x": 1, "x": 2}, "x": 3, "x": 4}, "b": 1, "b": 2}"#;
        let document = Document::parse(text).unwrap();
        assert_eq!(document.repeated_keys(&["a"]), ["x"]);
        assert_eq!(document.repeated_keys(&[]), ["b"]);
        assert!(document.repeated_keys(&["b"]).is_empty());
    }
}
