//! Which of several branches goes on.

use paraflow_engine::{Context, Given, Input, Lazy, Mismatch, Node, NodeDef, Result, Run, Services, Value, Widget};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<ComfySwitchNode>(), NodeDef::of::<CustomCombo>()]
}

/// Gives on one of two inputs. What the other one needs is never made.
#[derive(Node)]
#[node(category = "logic", display_name = "Switch", outputs = ["output"], experimental)]
struct ComfySwitchNode {
    /// On or off.
    switch: bool,
    /// What comes out when it is off.
    #[input(matches = "switch")]
    on_false: Lazy<Value>,
    /// What comes out when it is on.
    #[input(matches = "switch")]
    on_true: Lazy<Value>,
}

impl Run for ComfySwitchNode {
    type Output = Value;

    fn run(self, _: &Context<'_>) -> Result<Value> {
        Ok(if self.switch { self.on_true } else { self.on_false }.expect())
    }

    fn needs(&self, waiting: &[&'static str]) -> Vec<&'static str> {
        let wanted = if self.switch { "on_true" } else { "on_false" };
        waiting.iter().copied().filter(|name| *name == wanted).collect()
    }
}

/// A list of one's own: its options are kept by the editor, and the text that is chosen comes out.
#[derive(Node)]
#[node(category = "utils", display_name = "Custom Combo", experimental)]
struct CustomCombo {
    /// The text that was chosen.
    choice: AnyOption,
}

impl Run for CustomCombo {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        Ok(self.choice.0)
    }
}

/// One of a list that only the editor knows.
struct AnyOption(String);

impl Input for AnyOption {
    const KIND: &'static str = "COMBO";
    /// So that no list is asked.
    const NAMES_FILE: bool = true;

    fn widget(_: &Services) -> Widget {
        Widget::Choice(Vec::new())
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        String::take(given).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use serde_json::json;

    #[test]
    fn what_a_switch_leaves_out_is_never_made() {
        let bench = Bench::new();
        let graph = |switch: bool| {
            json!({
                "good": ["StringConcatenate", {"string_a": "a", "string_b": "b", "delimiter": "-"}],
                "bad": ["RegexReplace", {
                    "string": "a", "regex_pattern": "(", "replace": "b", "case_insensitive": true, "multiline": false,
                    "dotall": false, "count": 0,
                }],
                "switch": ["ComfySwitchNode", {"switch": switch, "on_false": ["good", 0], "on_true": ["bad", 0]}],
                "end": ["Catch", {"value": ["switch", 0]}],
            })
        };
        assert_eq!(*bench.run(graph(false)).value::<String>("end"), "a-b");
        assert_eq!(bench.run(graph(true)).failure().0, "bad");
    }

    #[test]
    fn a_combo_of_ones_own_takes_any_choice() {
        let outcome = Bench::new().run(json!({
            "combo": ["CustomCombo", {"choice": "neither listed nor known"}],
            "end": ["Catch", {"value": ["combo", 0]}],
        }));
        assert_eq!(*outcome.value::<String>("end"), "neither listed nor known");
    }
}
