//! Literals of a file as values of an input: ComfyUI's conversions, then range and list.

use serde_json::{Number, Value as Json};

use crate::python::{python_float, python_str};
use crate::spec::{InputSpec, Widget};
use crate::value::Value;

/// Why a literal will not do.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    /// Only a wire fits.
    Socket,
    /// It cannot become the input's kind.
    Type,
    /// Below the range: the number that the literal is, whole ones of any size.
    Small(String),
    /// Above the range.
    Big(String),
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
        // A kind with a widget of its own, whose value is written as text.
        _ if matches!(spec.widget, Widget::Text { .. }) => "STRING",
        kinds => among(kinds, literal)?,
    };
    match kind {
        "INT" => integer(literal).and_then(|it| bounded_integer(spec, it)),
        "FLOAT" => float(literal).ok_or(Refusal::Type).and_then(|it| bounded_float(spec, it)),
        "STRING" => Ok(Value::new(python_str(literal))),
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
        _ if matches!(spec.widget, Widget::Text { .. }) => literal.is_string(),
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

/// Python's `int()`: truncates, reads digits. What has more than an `i128` holds is out of every range.
fn integer(literal: &Json) -> Result<i128, Refusal> {
    match literal {
        Json::Number(number) => match (number.as_i128(), number.as_f64()) {
            (Some(whole), _) => Ok(whole),
            (None, Some(float)) if float.abs() < i128::MAX as f64 => Ok(float as i128),
            (None, Some(float)) => Err(beyond(format!("{float:.0}"))),
            (None, None) => Err(Refusal::Type),
        },
        Json::String(text) => match text.trim().parse() {
            Ok(whole) => Ok(whole),
            Err(_) if is_whole(text) => Err(beyond(text.trim().trim_start_matches('+').to_owned())),
            Err(_) => Err(Refusal::Type),
        },
        Json::Bool(truth) => Ok(i128::from(*truth)),
        Json::Null | Json::Array(_) | Json::Object(_) => Err(Refusal::Type),
    }
}

/// Whether the text is a whole number, of any size.
pub(crate) fn is_whole(text: &str) -> bool {
    let text = text.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn beyond(digits: String) -> Refusal {
    if digits.starts_with('-') { Refusal::Small(digits) } else { Refusal::Big(digits) }
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
        _ if integer < min => Err(Refusal::Small(integer.to_string())),
        _ if integer > max => Err(Refusal::Big(integer.to_string())),
        _ => Ok(Value::new(integer)),
    }
}

fn bounded_float(spec: &InputSpec, number: f64) -> Result<Value, Refusal> {
    match spec.widget {
        Widget::Number { min, .. } if number < min => Err(Refusal::Small(python_float(number))),
        Widget::Number { max, .. } if number > max => Err(Refusal::Big(python_float(number))),
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
            image_folder: None,
            display: None,
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
        Widget::Integer { min: 0, max: i128::from(u64::MAX), step: None }
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
        let (small, big) = (|it: &str| Err(Refusal::Small(it.into())), |it: &str| Err(Refusal::Big(it.into())));
        assert_eq!(read("INT", seed(), json!(-1)), small("-1"));
        assert_eq!(read("INT", seed(), json!("18446744073709551616")), big("18446744073709551616"));
        assert_eq!(read("INT", seed(), json!(18_446_744_073_709_551_616.0)), big("18446744073709551616"));
        let digits = "7".repeat(60);
        assert_eq!(read("INT", seed(), json!(format!(" +{digits}"))), big(&digits));
        assert_eq!(read("INT", seed(), json!(format!("-{digits}"))), small(&format!("-{digits}")));
        assert_eq!(read("INT", seed(), json!(format!("{digits}x"))), Err(Refusal::Type));
        let Err(Refusal::Big(digits)) = read("INT", seed(), json!(1e300)) else { panic!("it is too big") };
        assert_eq!((digits.len(), digits.parse()), (301, Ok(1e300)));
        assert_eq!(range(&spec("INT", seed())), (json!(0), json!(18_446_744_073_709_551_615_u64)));
        let strength = Widget::Number { min: 0.0, max: 1.0, step: 0.01, round: None };
        assert_eq!(read("FLOAT", strength.clone(), json!(1)), Ok(json!(1.0)));
        assert_eq!(read("FLOAT", strength.clone(), json!("0.5")), Ok(json!(0.5)));
        assert_eq!(read("FLOAT", strength.clone(), json!(1.0001)), big("1.0001"));
        assert_eq!(read("FLOAT", strength.clone(), json!(1000)), big("1000.0"));
        assert_eq!(read("FLOAT", strength.clone(), json!("-1e20")), small("-1e+20"));
        assert_eq!(range(&spec("FLOAT", strength.clone())), (json!(0.0), json!(1.0)));
        assert_eq!(read("FLOAT", strength, json!("nan")), Err(Refusal::Type));
    }

    #[test]
    fn everything_is_a_text_and_a_truth() {
        let line = || Widget::Text { multiline: false, dynamic_prompts: false };
        for (literal, value) in [
            (json!(5), "5"),
            (json!(5.0), "5.0"),
            (json!(1e16), "1e+16"),
            (json!(true), "True"),
            (json!(null), "None"),
            (json!({"a": 1, "b": ["it's"]}), r#"{'a': 1, 'b': ["it's"]}"#),
        ] {
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
