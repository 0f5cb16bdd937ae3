//! Captions: changed one by one.
//!
//! ComfyUI's nodes give each text within a list of its own, which few nodes can read; ours give the text.

use paraflow_engine::{Context, Node, NodeDef, Result, Run};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<AddTextPrefix>(),
        NodeDef::of::<AddTextSuffix>(),
        NodeDef::of::<ReplaceText>(),
        NodeDef::of::<StripWhitespace>(),
        NodeDef::of::<TextToLowercase>(),
        NodeDef::of::<TextToUppercase>(),
        NodeDef::of::<TruncateText>(),
    ]
}

/// Puts words before a text.
#[derive(Node)]
#[node(category = "dataset/text", display_name = "Add Text Prefix", outputs = ["texts"], experimental)]
struct AddTextPrefix {
    /// The text.
    texts: String,
    /// What to put before it.
    #[input(default = "")]
    prefix: String,
}

impl Run for AddTextPrefix {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok(self.prefix + &self.texts)
    }
}

/// Puts words behind a text.
#[derive(Node)]
#[node(category = "dataset/text", display_name = "Add Text Suffix", outputs = ["texts"], experimental)]
struct AddTextSuffix {
    /// The text.
    texts: String,
    /// What to put behind it.
    #[input(default = "")]
    suffix: String,
}

impl Run for AddTextSuffix {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok(self.texts + &self.suffix)
    }
}

/// Replaces words of a text.
#[derive(Node)]
#[node(category = "dataset/text", display_name = "Replace Text", outputs = ["texts"], experimental)]
struct ReplaceText {
    /// The text.
    texts: String,
    /// What to look for.
    #[input(default = "")]
    find: String,
    /// What to put in its place.
    #[input(default = "")]
    replace: String,
}

impl Run for ReplaceText {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok(self.texts.replace(&self.find, &self.replace))
    }
}

/// Takes the blanks off both ends of a text.
#[derive(Node)]
#[node(category = "dataset/text", display_name = "Strip Whitespace", outputs = ["texts"], experimental)]
struct StripWhitespace {
    /// The text.
    texts: String,
}

impl Run for StripWhitespace {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok(self.texts.trim().to_owned())
    }
}

/// Writes a text in small letters.
#[derive(Node)]
#[node(category = "dataset/text", display_name = "Text to Lowercase", outputs = ["texts"], experimental)]
struct TextToLowercase {
    /// The text.
    texts: String,
}

impl Run for TextToLowercase {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok(self.texts.to_lowercase())
    }
}

/// Writes a text in capitals.
#[derive(Node)]
#[node(category = "dataset/text", display_name = "Text to Uppercase", outputs = ["texts"], experimental)]
struct TextToUppercase {
    /// The text.
    texts: String,
}

impl Run for TextToUppercase {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok(self.texts.to_uppercase())
    }
}

/// Cuts a text after so many letters.
#[derive(Node)]
#[node(category = "dataset/text", display_name = "Truncate Text", outputs = ["texts"], experimental)]
struct TruncateText {
    /// The text.
    texts: String,
    /// How many letters stay.
    #[input(default = 77, range = 1..=10_000)]
    max_length: u32,
}

impl Run for TruncateText {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok(self.texts.chars().take(self.max_length as usize).collect())
    }
}
