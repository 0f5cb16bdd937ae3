//! Captions: changed one by one.
//!
//! ComfyUI's nodes give each text within a list of its own, which few nodes can read; ours give the text. Where it gives a list of
//! texts within a list, ours give the texts.

use paraflow_engine::{Context, Node, NodeDef, OutputSpec, Result, Run, Slot, Value};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<AddTextPrefix>(),
        NodeDef::of::<AddTextSuffix>(),
        NodeDef::of::<MergeTextLists>(),
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

/// Gives the texts of a list as they are.
#[derive(Node)]
#[node(category = "dataset/text", display_name = "Merge Text Lists", input_is_list, outputs = ["texts"], experimental)]
struct MergeTextLists {
    /// The texts.
    texts: Vec<String>,
}

/// Texts one by one, in an output that ComfyUI does not declare as a list.
struct Texts(Vec<String>);

impl Slot for Texts {
    const SPEC: OutputSpec = <String as Slot>::SPEC;

    fn into_values(self) -> Vec<Value> {
        self.0.into_values()
    }
}

impl Run for MergeTextLists {
    type Output = Texts;

    fn run(self, _: &Context<'_>) -> Result<Texts> {
        Ok(Texts(self.texts))
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

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use paraflow_assets::{Channels, Pixels, write_png};
    use serde_json::json;

    /// Every text reaches the node behind, one by one.
    #[test]
    fn merged_texts_stay_a_list() {
        let bench = Bench::new();
        let pixels = Pixels { bytes: &[0, 0, 0], width: 1, height: 1, channels: Channels::Rgb };
        let mut picture = Vec::new();
        write_png(&mut picture, pixels, &[], 6).unwrap();
        for (name, text) in [("a", "a bear"), ("b", "a mug")] {
            bench.write(&format!("input/set/{name}.png"), &picture);
            bench.write(&format!("input/set/{name}.txt"), text.as_bytes());
        }
        let outcome = bench.run(json!({
            "set": ["LoadImageTextDataSetFromFolder", {"folder": "set"}],
            "merged": ["MergeTextLists", {"texts": ["set", 1]}],
            "again": ["MergeTextLists", {"texts": ["merged", 0]}],
            "said": ["AddTextPrefix", {"texts": ["again", 0], "prefix": "photo of "}],
            "shown": ["PreviewAny", {"source": ["said", 0]}],
        }));
        let shown = outcome.shown("shown").to_string();
        assert!(shown.contains("photo of a bear") && shown.contains("photo of a mug"), "{shown}");
    }
}
