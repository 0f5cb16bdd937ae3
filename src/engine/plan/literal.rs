//! Literals of a file as values of an input: ComfyUI's conversions, then range and list.

use serde_json::{Number, Value as Json};

use crate::spec::{InputSpec, Widget};
use crate::value::Value;

/// Why a literal will not do.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    /// Only a wire fits.
    Socket,
    /// It cannot become the input's kind.
    Type,
    /// Below the range.
    Small,
    /// Above the range.
    Big,
    /// Not one of the list.
    List,
}

/// The value that the literal stands for.
///
/// As in ComfyUI: 3.7 and `"3"` are whole numbers, every literal is a text and a truth, and `{"__value__": …}` protects
/// a list from being read as a link.
pub(crate) fn parse(spec: &InputSpec, literal: &Json) -> Result<Value, Refusal> {
    let literal = unwrapped(literal);
    let kind = match spec.kind {
        kind @ ("INT" | "FLOAT" | "STRING" | "BOOLEAN" | "COMBO") => kind,
        kinds => among(kinds, literal)?,
    };
    match kind {
        "INT" => integer(literal).ok_or(Refusal::Type).and_then(|it| bounded_integer(spec, it)),
        "FLOAT" => float(literal).ok_or(Refusal::Type).and_then(|it| bounded_float(spec, it)),
        "STRING" => Ok(Value::new(text(literal))),
        "BOOLEAN" => Ok(Value::new(truth(literal))),
        "COMBO" => choice(spec, literal),
        _ => Ok(Value::new(literal.clone())),
    }
}

/// Whether the input takes the literal as it is written, in kind, range and list.
pub(crate) fn takes(spec: &InputSpec, literal: &Json) -> bool {
    let same_kind = match spec.kind {
        "INT" => literal.is_i64() || literal.is_u64(),
        "FLOAT" => literal.is_number(),
        "STRING" | "COMBO" => literal.is_string(),
        "BOOLEAN" => literal.is_boolean(),
        _ => true,
    };
    same_kind && parse(spec, literal).is_ok()
}

/// What is inside `{"__value__": …}`, which is how a file writes a list that is no link.
pub(crate) fn unwrapped(literal: &Json) -> &Json {
    match literal {
        Json::Object(map) if map.len() == 1 => map.get("__value__").unwrap_or(literal),
        _ => literal,
    }
}

/// Which of several kinds the literal is: its own, else the first that a literal can become.
fn among(kinds: &str, literal: &Json) -> Result<&'static str, Refusal> {
    let own = match literal {
        Json::Bool(_) => "BOOLEAN",
        Json::Number(number) if number.is_f64() => "FLOAT",
        Json::Number(_) => "INT",
        Json::String(_) => "STRING",
        Json::Null | Json::Array(_) | Json::Object(_) => "*",
    };
    let kinds = || kinds.split(',').map(str::trim);
    if kinds().any(|kind| kind == own || kind == "*") {
        return Ok(own);
    }
    let can_become = |kind| ["INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"].into_iter().find(|it| *it == kind);
    kinds().find_map(can_become).ok_or(Refusal::Socket)
}

/// Python's `int()`: truncates, reads digits.
fn integer(literal: &Json) -> Option<i128> {
    match literal {
        Json::Number(number) => number.as_i128().or_else(|| number.as_f64().and_then(truncated)),
        Json::String(text) => text.trim().parse().ok(),
        Json::Bool(truth) => Some(i128::from(*truth)),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// Whole part, where the number is of a size that an integer has.
fn truncated(number: f64) -> Option<i128> {
    (number.abs() < i128::MAX as f64).then_some(number as i128)
}

/// Python's `float()`, without what a file cannot hold (infinity and NaN).
fn float(literal: &Json) -> Option<f64> {
    let number = match literal {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.trim().parse().ok(),
        Json::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    };
    number.filter(|number| number.is_finite())
}

/// Python's `str()` for what has a short one.
fn text(literal: &Json) -> String {
    match literal {
        Json::String(text) => text.clone(),
        Json::Bool(true) => "True".into(),
        Json::Bool(false) => "False".into(),
        Json::Null => "None".into(),
        Json::Number(_) | Json::Array(_) | Json::Object(_) => literal.to_string(),
    }
}

/// Python's `bool()`: whatever is not empty or zero, the word "false" included.
fn truth(literal: &Json) -> bool {
    match literal {
        Json::Bool(truth) => *truth,
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::String(text) => !text.is_empty(),
        Json::Null => false,
        Json::Array(list) => !list.is_empty(),
        Json::Object(map) => !map.is_empty(),
    }
}

fn bounded_integer(spec: &InputSpec, integer: i128) -> Result<Value, Refusal> {
    let (min, max) = integer_range(spec);
    match integer {
        _ if integer < min => Err(Refusal::Small),
        _ if integer > max => Err(Refusal::Big),
        _ => Ok(Value::new(integer)),
    }
}

fn bounded_float(spec: &InputSpec, number: f64) -> Result<Value, Refusal> {
    match spec.widget {
        Widget::Number { min, .. } if number < min => Err(Refusal::Small),
        Widget::Number { max, .. } if number > max => Err(Refusal::Big),
        _ => Ok(Value::new(number)),
    }
}

/// Without a range of its own, an input takes what 64 bits hold.
fn integer_range(spec: &InputSpec) -> (i128, i128) {
    match spec.widget {
        Widget::Integer { min, max, .. } => (min, max),
        _ => (i128::from(i64::MIN), i128::from(u64::MAX)),
    }
}

/// The smallest and the largest number that the input takes.
pub(crate) fn range(spec: &InputSpec) -> (Json, Json) {
    if let Widget::Number { min, max, .. } = spec.widget {
        return (min.into(), max.into());
    }
    let (min, max) = integer_range(spec);
    (integer_json(min), integer_json(max))
}

/// One of the list, which a number or a truth of the same spelling is too. A file name is checked by its own type.
fn choice(spec: &InputSpec, literal: &Json) -> Result<Value, Refusal> {
    let name = match literal {
        Json::String(name) => name.clone(),
        Json::Number(_) | Json::Bool(_) => literal.to_string(),
        Json::Null | Json::Array(_) | Json::Object(_) => return Err(Refusal::List),
    };
    match &spec.widget {
        Widget::Choice(choices) if !spec.names_file && !choices.contains(&name) => Err(Refusal::List),
        _ => Ok(Value::new(name)),
    }
}

/// A whole number as JSON, which holds those of 64 bits exactly.
fn integer_json(integer: i128) -> Json {
    Number::from_i128(integer).map_or_else(|| Json::from(integer as f64), Json::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(kind: &'static str, widget: Widget) -> InputSpec {
        InputSpec {
            name: "input",
            kind,
            doc: "An input.",
            required: true,
            default: None,
            widget,
            lazy: false,
            force_input: false,
            control_after_generate: false,
            image_upload: false,
            advanced: false,
            names_file: false,
            folder: None,
            dynamic: None,
        }
    }

    fn read(kind: &'static str, widget: Widget, literal: Json) -> Result<Json, Refusal> {
        parse(&spec(kind, widget), &literal).map(|value| value.to_json().expect("a literal"))
    }

    fn seed() -> Widget {
        Widget::Integer { min: 0, max: i128::from(u64::MAX), step: 1 }
    }

    #[test]
    fn whole_numbers_are_converted_as_python_does() {
        let converted = [
            (json!(3.7), json!(3)),
            (json!("5"), json!(5)),
            (json!(true), json!(1)),
            (json!(18_446_744_073_709_551_615_u64), json!(18_446_744_073_709_551_615_u64)),
            (json!("18446744073709551615"), json!(18_446_744_073_709_551_615_u64)),
            (json!({"__value__": 4}), json!(4)),
        ];
        for (literal, value) in converted {
            assert_eq!(read("INT", seed(), literal), Ok(value));
        }
        for refused in [json!("5.5"), json!(null), json!({"a": 1}), json!("many"), json!({"__value__": [1]})] {
            assert_eq!(read("INT", seed(), refused), Err(Refusal::Type));
        }
    }

    #[test]
    fn ranges_include_their_ends_and_name_them_exactly() {
        assert_eq!(read("INT", seed(), json!(-1)), Err(Refusal::Small));
        assert_eq!(read("INT", seed(), json!("18446744073709551616")), Err(Refusal::Big));
        assert_eq!(range(&spec("INT", seed())), (json!(0), json!(18_446_744_073_709_551_615_u64)));
        let strength = Widget::Number { min: 0.0, max: 1.0, step: 0.01, round: None };
        assert_eq!(read("FLOAT", strength.clone(), json!(1)), Ok(json!(1.0)));
        assert_eq!(read("FLOAT", strength.clone(), json!("0.5")), Ok(json!(0.5)));
        assert_eq!(read("FLOAT", strength.clone(), json!(1.0001)), Err(Refusal::Big));
        assert_eq!(range(&spec("FLOAT", strength.clone())), (json!(0.0), json!(1.0)));
        assert_eq!(read("FLOAT", strength, json!("nan")), Err(Refusal::Type));
    }

    #[test]
    fn everything_is_a_text_and_a_truth() {
        let line = || Widget::Text { multiline: false, dynamic_prompts: false };
        for (literal, value) in [(json!(5), "5"), (json!(5.0), "5.0"), (json!(true), "True"), (json!(null), "None")] {
            assert_eq!(read("STRING", line(), literal), Ok(json!(value)));
        }
        for (literal, value) in [(json!("false"), true), (json!(""), false), (json!(0.0), false), (json!(2), true)] {
            assert_eq!(read("BOOLEAN", Widget::Toggle, literal), Ok(json!(value)));
        }
    }

    #[test]
    fn a_choice_is_in_its_list() {
        let sizes = || Widget::Choice(vec!["512".into(), "full".into()]);
        assert_eq!(read("COMBO", sizes(), json!("full")), Ok(json!("full")));
        assert_eq!(read("COMBO", sizes(), json!(512)), Ok(json!("512")));
        for refused in [json!("half"), json!(513), json!(null)] {
            assert_eq!(read("COMBO", sizes(), refused), Err(Refusal::List));
        }
    }

    #[test]
    fn of_several_kinds_a_literal_is_its_own_first() {
        let read = |kinds, literal| read(kinds, Widget::Socket, literal);
        assert_eq!(read("FLOAT,INT", json!(5)), Ok(json!(5)));
        assert_eq!(read("INT, FLOAT", json!(5.5)), Ok(json!(5.5)));
        assert_eq!(read("IMAGE,FLOAT", json!(5)), Ok(json!(5.0)));
        assert_eq!(read("IMAGE,FLOAT", json!("foo")), Err(Refusal::Type));
        assert_eq!(read("IMAGE,MASK", json!(5)), Err(Refusal::Socket));
        assert_eq!(read("*", json!({"a": [1]})), Ok(json!({"a": [1]})));
    }
}
