//! Words: cut, joined, compared.

use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<CaseConverter>(),
        NodeDef::of::<StringCompare>(),
        NodeDef::of::<StringConcatenate>(),
        NodeDef::of::<StringContains>(),
        NodeDef::of::<StringLength>(),
        NodeDef::of::<StringReplace>(),
        NodeDef::of::<StringSubstring>(),
        NodeDef::of::<StringTrim>(),
    ]
}

/// Changes the capitals of a text.
#[derive(Node)]
#[node(category = "utils/string", display_name = "Case Converter")]
struct CaseConverter {
    /// The text.
    #[input(multiline)]
    string: String,
    /// All, none, the first, or the first of each word.
    #[input(choices = ["UPPERCASE", "lowercase", "Capitalize", "Title Case"])]
    mode: Choice<String>,
}

impl Run for CaseConverter {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok(match self.mode.name() {
            "UPPERCASE" => self.string.to_uppercase(),
            "lowercase" => self.string.to_lowercase(),
            "Capitalize" => capitalized(&self.string),
            _ => titled(&self.string),
        })
    }
}

/// Compares two texts.
#[derive(Node)]
#[node(category = "utils/string", display_name = "Compare")]
struct StringCompare {
    /// The text.
    #[input(multiline)]
    string_a: String,
    /// What it is compared with.
    #[input(multiline)]
    string_b: String,
    /// What must hold.
    #[input(choices = ["Starts With", "Ends With", "Equal"])]
    mode: Choice<String>,
    /// Whether capitals matter.
    #[input(default = true)]
    case_sensitive: bool,
}

impl Run for StringCompare {
    type Output = bool;

    fn run(self, _: &Context<'_>) -> Result<bool> {
        let (a, b) = (folded(&self.string_a, self.case_sensitive), folded(&self.string_b, self.case_sensitive));
        Ok(match self.mode.name() {
            "Starts With" => a.starts_with(&b),
            "Ends With" => a.ends_with(&b),
            _ => a == b,
        })
    }
}

/// Joins two texts.
#[derive(Node)]
#[node(category = "utils/string", display_name = "Concatenate")]
struct StringConcatenate {
    /// The first text.
    #[input(multiline)]
    string_a: String,
    /// The second text.
    #[input(multiline)]
    string_b: String,
    /// What stands between them.
    #[input(default = "")]
    delimiter: String,
}

impl Run for StringConcatenate {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok([self.string_a, self.string_b].join(&self.delimiter))
    }
}

/// Tells whether a text holds another.
#[derive(Node)]
#[node(category = "utils/string", display_name = "Contains", outputs = ["contains"])]
struct StringContains {
    /// The text.
    #[input(multiline)]
    string: String,
    /// What is looked for.
    #[input(multiline)]
    substring: String,
    /// Whether capitals matter.
    #[input(default = true)]
    case_sensitive: bool,
}

impl Run for StringContains {
    type Output = bool;

    fn run(self, _: &Context<'_>) -> Result<bool> {
        let (text, part) = (folded(&self.string, self.case_sensitive), folded(&self.substring, self.case_sensitive));
        Ok(text.contains(&part))
    }
}

/// Counts the characters of a text.
#[derive(Node)]
#[node(category = "utils/string", display_name = "Length", outputs = ["length"])]
struct StringLength {
    /// The text.
    #[input(multiline)]
    string: String,
}

impl Run for StringLength {
    type Output = u64;

    fn run(self, _: &Context<'_>) -> Result<u64> {
        Ok(self.string.chars().count() as u64)
    }
}

/// Replaces part of a text, wherever it stands.
#[derive(Node)]
#[node(category = "utils/string", display_name = "Replace")]
struct StringReplace {
    /// The text.
    #[input(multiline)]
    string: String,
    /// What is replaced.
    #[input(multiline)]
    find: String,
    /// What takes its place.
    #[input(multiline)]
    replace: String,
}

impl Run for StringReplace {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok(self.string.replace(&self.find, &self.replace))
    }
}

/// Cuts a part out of a text.
#[derive(Node)]
#[node(category = "utils/string", display_name = "Substring")]
struct StringSubstring {
    /// The text.
    #[input(multiline)]
    string: String,
    /// The first character, counted from 0; less than 0 counts from the end.
    start: i64,
    /// The first character not to take.
    end: i64,
}

impl Run for StringSubstring {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        let characters: Vec<char> = self.string.chars().collect();
        // As Python counts: from the end below 0, and never beyond either end.
        let place = |at: i64| {
            let at = if at < 0 { at + characters.len() as i64 } else { at };
            at.clamp(0, characters.len() as i64) as usize
        };
        let (start, end) = (place(self.start), place(self.end));
        Ok(characters.get(start..end).map(|part| part.iter().collect()).unwrap_or_default())
    }
}

/// Takes spaces off the ends of a text.
#[derive(Node)]
#[node(category = "utils/string", display_name = "Trim")]
struct StringTrim {
    /// The text.
    #[input(multiline)]
    string: String,
    /// At which end.
    #[input(choices = ["Both", "Left", "Right"])]
    mode: Choice<String>,
}

impl Run for StringTrim {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok(match self.mode.name() {
            "Left" => self.string.trim_start(),
            "Right" => self.string.trim_end(),
            _ => self.string.trim(),
        }
        .to_owned())
    }
}

/// The text as it is compared.
fn folded(text: &str, case_sensitive: bool) -> String {
    if case_sensitive { text.to_owned() } else { text.to_lowercase() }
}

/// The first letter large, all others small.
fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    first + &characters.as_str().to_lowercase()
}

/// The first letter of each word large, all others small; a word is a run of letters.
fn titled(text: &str) -> String {
    let mut within = false;
    let mut titled = String::new();
    for character in text.chars() {
        if within {
            titled.extend(character.to_lowercase());
        } else {
            titled.extend(character.to_uppercase());
        }
        within = character.is_alphabetic();
    }
    titled
}
