//! Vector graphics.

use crate::error::tell;
use crate::files::FilenamePrefix;
use crate::wires::Svg;
use paraflow_assets::Assets;
use paraflow_engine::{Context, Json, Node, NodeDef, Result, Run, Shared, Sink};
use serde_json::json;
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<SaveSVGNode>()]
}

/// Saves vector graphics to the output folder as SVG, each with this graph inside.
#[derive(Node)]
#[node(category = "image/save", sink)]
struct SaveSVGNode {
    /// The graphics.
    svg: Shared<Svg>,
    /// What file names begin with; `a/b` saves into folder `a`.
    #[input(default = "svg/ComfyUI")]
    filename_prefix: FilenamePrefix,
}

impl Run for SaveSVGNode {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let told: Vec<(&str, &Json)> = cx.provenance();
        let told: serde_json::Map<String, Json> =
            told.into_iter().map(|(keyword, value)| (keyword.to_owned(), value.clone())).collect();
        let told = if told.is_empty() { None } else { Some(format!("{:#}", Json::Object(told))) };
        // ComfyUI fills the size of a graphic in as 0 as well.
        let mut series = cx.service::<Arc<Assets>>().outputs().series(&self.filename_prefix, (0, 0)).map_err(tell)?;
        let mut shown = Vec::with_capacity(self.svg.0.len());
        for graphic in &self.svg.0 {
            let text = told.as_ref().map_or_else(|| graphic.clone(), |told| with_metadata(graphic, told));
            let saved = series.save("svg", |file| file.write_all(text.as_bytes())).map_err(tell)?;
            shown.push(json!({"filename": saved.filename, "subfolder": saved.subfolder, "type": saved.place.as_str()}));
        }
        Ok(Sink(json!({"images": shown})))
    }
}

/// A graphic with a text in the `metadata` of its first `svg` element.
fn with_metadata(graphic: &str, told: &str) -> String {
    let tag = graphic.find("<svg").and_then(|start| graphic[start..].find('>').map(|end| start + end + 1));
    let Some(inside) = tag else { return graphic.to_owned() };
    // The end of such a section cannot be written inside it: it is cut in two.
    let told = told.replace("]]>", "]]]]><![CDATA[>");
    let (head, rest) = graphic.split_at(inside);
    format!("{head}\n  <metadata><![CDATA[\n{told}\n]]></metadata>{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use paraflow_engine::Value;

    #[test]
    fn graphics_are_saved_with_their_graph() {
        let bench = Bench::new();
        let graphic = "<?xml version=\"1.0\"?>\n<svg width=\"4\"><path d=\"M0 0\"/></svg>";
        bench.give("drawn", Value::new(Svg(vec![graphic.to_owned(), graphic.to_owned()])));
        let outcome = bench.run(json!({
            "give": ["Give", {"name": "drawn"}],
            "save": ["SaveSVGNode", {"svg": ["give", 0], "filename_prefix": "svg/a]]>b"}],
        }));
        let shown = outcome.shown("save");
        assert_eq!(shown["images"].as_array().unwrap().len(), 2);
        assert_eq!(shown["images"][0]["subfolder"], "svg");
        let name = shown["images"][1]["filename"].as_str().unwrap();
        let text = std::fs::read_to_string(bench.path(format!("output/svg/{name}"))).unwrap();
        assert!(text.starts_with("<?xml version=\"1.0\"?>\n<svg width=\"4\">\n  <metadata><![CDATA["), "{text}");
        assert!(text.contains("\"class_type\": \"SaveSVGNode\"") && text.contains("a]]]]><![CDATA[>b"), "{text}");
        assert!(text.ends_with("]]></metadata><path d=\"M0 0\"/></svg>"), "{text}");
    }

    #[test]
    fn what_is_no_graphic_is_left_as_it_is() {
        assert_eq!(with_metadata("<html>", "{}"), "<html>");
    }
}
