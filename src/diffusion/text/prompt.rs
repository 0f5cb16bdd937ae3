//! ComfyUI's prompt syntax: round brackets that give their words more or less weight.
//!
//! `(words)` weighs 1.1 times what surrounds it, `(words:1.3)` weighs 1.3 wherever it stands, `\(` and `\)` are brackets to
//! be read as text. Follows ComfyUI's parser in its corners too: an equal prompt must mean an equal picture. Knows no tokens.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// What a pair of brackets without a number multiplies the weight by.
const EMPHASIS: f64 = 1.1;

/// Words of one weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// As it was written, the spaces beside a bracket included; escaped brackets are plain ones.
    pub text: String,
    /// How strongly it counts; 1 outside all brackets. Whatever number was written: infinite, too.
    pub weight: f64,
}

/// Cuts a prompt into words of equal weight, in their order. Empty brackets leave nothing.
///
/// Every string is a prompt: a bracket that is not closed is text, and so is whatever brackets follow one that was not
/// opened.
#[must_use]
pub fn parse_weights(prompt: &str) -> Vec<Segment> {
    let prompt = prompt.replace("\\)", PROTECTED_CLOSE).replace("\\(", PROTECTED_OPEN);
    let mut segments = Vec::new();
    let mut open = vec![];
    // A stack of our own: brackets may be nested deeper than a thread's stack reaches.
    push_pieces(&prompt, 1.0, &mut open);
    while let Some((piece, weight)) = open.pop() {
        match piece.strip_prefix('(').and_then(|piece| piece.strip_suffix(')')) {
            Some(inner) => {
                let (text, weight) = weigh(inner, weight);
                push_pieces(text, weight, &mut open);
            }
            None => {
                let text = piece.replace(PROTECTED_CLOSE, ")").replace(PROTECTED_OPEN, "(");
                segments.push(Segment { text, weight });
            }
        }
    }
    segments
}

/// What stands for an escaped bracket while the others are looked for; ComfyUI's choice, which a prompt could contain.
const PROTECTED_CLOSE: &str = "\0\x01";
const PROTECTED_OPEN: &str = "\0\x02";

/// The text between a pair of brackets without its number, and its weight.
fn weigh(inner: &str, surrounding: f64) -> (&str, f64) {
    let number = inner.rfind(':').filter(|&at| at > 0);
    match number.and_then(|at| Some((at, python_float(&inner[at + 1..])?))) {
        Some((at, weight)) => (&inner[..at], weight),
        None => (inner, surrounding * EMPHASIS),
    }
}

/// Pushes the pieces of a text, the first on top: each outermost pair of brackets with what is in it, and what is between
/// them. A bracket closed once too often keeps the count below zero, so the next one that opens does not begin a piece.
fn push_pieces<'a>(text: &'a str, weight: f64, open: &mut Vec<(&'a str, f64)>) {
    let bottom = open.len();
    let mut push = |piece: &'a str| {
        if !piece.is_empty() {
            open.push((piece, weight));
        }
    };
    let (mut level, mut start) = (0_i64, 0);
    for (at, bracket) in text.match_indices(['(', ')']) {
        if bracket == "(" {
            if level == 0 {
                push(&text[start..at]);
                start = at;
            }
            level += 1;
        } else {
            level -= 1;
            if level == 0 {
                push(&text[start..=at]);
                start = at + 1;
            }
        }
    }
    push(&text[start..]);
    open[bottom..].reverse();
}

/// A number as Python's `float` reads it: spaces around it, `_` between digits and digits of any script are allowed.
fn python_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_python_space);
    let mut number = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let after_digit = number.ends_with(|c: char| c.is_ascii_digit());
        match decimal_digit(c) {
            Some(digit) => number.push(digit),
            None if c == '_' && after_digit && characters.peek().copied().and_then(decimal_digit).is_some() => {}
            None => number.push(c),
        }
    }
    number.parse().ok()
}

/// What Python's `str.split` and `float` take for a space.
pub(super) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The ASCII digit of the same value.
fn decimal_digit(c: char) -> Option<char> {
    let is_digit = |c: char| c.general_category() == GeneralCategory::DecimalNumber;
    if c.is_ascii() || !is_digit(c) {
        return c.is_ascii_digit().then_some(c);
    }
    // Unicode keeps the ten digits of a script together and in order, and begins each run of scripts with a zero.
    let before = ('\u{80}'..c).rev().take_while(|&c| is_digit(c)).count();
    char::from_digit((before % 10) as u32, 10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(prompt: &str) -> Vec<(String, f64)> {
        parse_weights(prompt).into_iter().map(|segment| (segment.text, segment.weight)).collect()
    }

    fn check(prompt: &str, expected: &[(&str, f64)]) {
        let expected: Vec<_> = expected.iter().map(|&(text, weight)| (text.to_owned(), weight)).collect();
        assert_eq!(parsed(prompt), expected, "{prompt:?}");
    }

    #[test]
    fn brackets_multiply_and_numbers_replace() {
        check("a (b) c", &[("a ", 1.0), ("b", 1.1), (" c", 1.0)]);
        check("((a))", &[("a", 1.1 * 1.1)]);
        check("((a:1.2))", &[("a", 1.2)]);
        check("((a:1.2):1.5)", &[("a", 1.2)]);
        check("((a:1.2) b)", &[("a", 1.2), (" b", 1.1)]);
        check("(a:b:1.3)", &[("a:b", 1.3)]);
        check("(:1.3)", &[(":1.3", 1.1)]);
        check("(a:x)", &[("a:x", 1.1)]);
        check("()", &[]);
        check("[a]", &[("[a]", 1.0)]);
    }

    #[test]
    fn brackets_that_do_not_match_are_text() {
        check("(a", &[("(a", 1.0)]);
        check("a) (b)", &[("a) (b)", 1.0)]);
        check("a)) ((b:2))", &[("a)) ((b:2))", 1.0)]);
        // One closed too often and one opened cancel out; and what begins and ends with brackets is taken for a pair.
        check("a)( (b)", &[("a)( ", 1.0), ("b", 1.1)]);
        check("(a (b)", &[("a ", 1.1), ("(b", 1.1)]);
        check(r"\(a\) (b\):1.5)", &[("(a) ", 1.0), ("b)", 1.5)]);
    }

    #[test]
    fn numbers_are_pythons() {
        for (text, value) in
            [("1.5", 1.5), (" +1.5\n", 1.5), ("-.5", -0.5), ("5.", 5.0), ("1e-1", 0.1), ("1_0.5", 10.5)]
        {
            assert_eq!(python_float(text), Some(value), "{text}");
        }
        for (text, value) in [("１.２", 1.2), ("٣", 3.0), ("𝟗𝟘", 90.0), ("\x1c2\u{3000}", 2.0)] {
            assert_eq!(python_float(text), Some(value), "{text}");
        }
        for text in ["", ".", "1_", "_1", "1__0", "1._5", "0x10", "1,5", "e5", "1 5", "²"] {
            assert_eq!(python_float(text), None, "{text}");
        }
        assert_eq!(python_float("Infinity"), Some(f64::INFINITY));
        assert!(python_float("nan").is_some_and(f64::is_nan));
    }

    #[test]
    fn deep_brackets_do_not_overflow() {
        let deep = format!("{}a{}", "(".repeat(3_000), ")".repeat(3_000));
        let segments = parse_weights(&deep);
        assert_eq!((segments.len(), segments[0].text.as_str()), (1, "a"));
    }

    proptest! {
        #[test]
        fn no_prompt_panics_and_no_word_is_lost(prompt in r"[ab()\\:.1 ]{0,60}") {
            let words = |text: &str| text.matches(['a', 'b']).collect::<String>();
            let texts: String = parse_weights(&prompt).into_iter().map(|segment| segment.text).collect();
            prop_assert_eq!(words(&texts), words(&prompt));
        }

        #[test]
        fn any_text_is_a_prompt(prompt in any::<String>()) {
            let _ = parse_weights(&prompt);
        }
    }
}
