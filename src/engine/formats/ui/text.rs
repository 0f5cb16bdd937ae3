//! What the editor fills in when it submits: dynamic prompts, dates and values of other nodes in file names.

use std::cell::OnceCell;
use std::collections::HashSet;

use jiff::civil::DateTime;
use serde_json::Value as Json;

use super::parse::{Node, Workflow};
use crate::formats::Conditions;

/// Whether the `filename_prefix` of a class may hold `%…%`.
pub(super) fn is_save_node(class: &str) -> bool {
    const SAVE_NODES: [&str; 12] = [
        "SaveImage",
        "SaveAnimatedWEBP",
        "SaveAnimatedPNG",
        "SaveWEBM",
        "SaveVideo",
        "SaveGLB",
        "SaveSVGNode",
        "CLIPSave",
        "VAESave",
        "ModelSave",
        "LoraSave",
        "SaveLatent",
    ];
    SAVE_NODES.contains(&class) || class.starts_with("SaveAudio")
}

/// Fills in texts of one file.
pub(super) struct Filling<'f> {
    json: &'f Json,
    pub(super) conditions: &'f Conditions,
    /// Decides the branches of dynamic prompts; made when one is met.
    key: OnceCell<[u8; 32]>,
}

impl<'f> Filling<'f> {
    /// For this file. Without a seed its content decides which branches are taken.
    pub(super) fn new(json: &'f Json, conditions: &'f Conditions) -> Self {
        Self { json, conditions, key: OnceCell::new() }
    }

    /// The prompt without comments and with one branch of each `{a|b}`, which the file (or the seed), the node and the
    /// input decide. `\{`, `\|` and `\}` stand for themselves.
    pub(super) fn dynamic_prompt(&self, text: &str, node: &str, input: &str) -> String {
        let key = self.key.get_or_init(|| match self.conditions.seed {
            Some(seed) => *blake3::hash(&seed.to_le_bytes()).as_bytes(),
            None => *blake3::hash(self.json.to_string().as_bytes()).as_bytes(),
        });
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(node.as_bytes()).update(&[0]).update(input.as_bytes());
        let mut dice = hasher.finalize_xof();
        dynamic_prompt(text, &mut |branches| {
            let mut roll = [0; 8];
            dice.fill(&mut roll);
            // Of 2^64 rolls a few more fall on the first branches: too few to see.
            (u64::from_le_bytes(roll) % branches as u64) as usize
        })
    }
}

/// Takes one branch of each block; `choose` says which of so many.
fn dynamic_prompt(text: &str, choose: &mut dyn FnMut(usize) -> usize) -> String {
    let mut done = String::new();
    // Blocks that are open: branches so far, of which the last one is being read.
    let mut open: Vec<Vec<String>> = Vec::new();
    let text = without_comments(text);
    let mut characters = text.chars();
    let mut close = |open: &mut Vec<Vec<String>>, done: &mut String| {
        if let Some(mut branches) = open.pop() {
            let chosen = branches.swap_remove(choose(branches.len()));
            open.last_mut().and_then(|outer| outer.last_mut()).unwrap_or(done).push_str(&chosen);
        }
    };
    while let Some(character) = characters.next() {
        match (character, open.last_mut()) {
            ('{', _) => open.push(vec![String::new()]),
            ('}', Some(_)) => close(&mut open, &mut done),
            ('|', Some(branches)) => branches.push(String::new()),
            (character, block) => {
                let text = block.and_then(|branches| branches.last_mut()).unwrap_or(&mut done);
                text.push(character);
                if character == '\\' {
                    text.extend(characters.next());
                }
            }
        }
    }
    while !open.is_empty() {
        close(&mut open, &mut done);
    }
    ["{", "}", "|"].into_iter().fold(done, |text, bare| text.replace(&format!("\\{bare}"), bare))
}

/// The text without `/* … */` and without `// …` up to the end of the line.
fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(slash) = rest.find('/') {
        let (before, comment) = rest.split_at(slash);
        kept.push_str(before);
        let block_end = comment.strip_prefix("/*").and_then(|inside| inside.find("*/")).map(|end| end + 4);
        let line_end = || {
            let is_line_comment = comment.starts_with("//");
            is_line_comment.then(|| comment.find(['\n', '\r', '\u{2028}', '\u{2029}']).unwrap_or(comment.len()))
        };
        let skipped = block_end.or_else(line_end).unwrap_or(0);
        if skipped == 0 {
            kept.push('/');
        }
        rest = &comment[skipped.max(1)..];
    }
    kept + rest
}

/// The text with each `%date:…%` replaced by the time and each `%node.widget%` by that widget's value, as far as there
/// are such nodes in the scope or in the subgraphs below it.
pub(super) fn replace(text: &str, workflow: &Workflow<'_>, scope: usize, now: &DateTime) -> String {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('%') {
        let (before, after) = (&rest[..start], &rest[start + 1..]);
        replaced.push_str(before);
        let Some(end) = after.find('%').filter(|&end| end > 0) else {
            replaced.push('%');
            rest = after;
            continue;
        };
        let pattern = &after[..end];
        match replacement(pattern, workflow, scope, now) {
            Some(value) => replaced.push_str(&value),
            None => replaced.extend(["%", pattern, "%"]),
        }
        rest = &after[end + 1..];
    }
    replaced + rest
}

/// What stands between two `%`, replaced; nothing if it is none of ours: `%width%` is the server's.
fn replacement(pattern: &str, workflow: &Workflow<'_>, scope: usize, now: &DateTime) -> Option<String> {
    let mut parts = pattern.split('.');
    match (parts.next()?, parts.next(), parts.next()) {
        (name, Some(widget), None) => {
            let node = find(workflow, scope, name)?;
            let (_, value) = node.widgets.iter().find(|(name, _)| name == widget)?;
            let forbidden =
                |it: char| matches!(it, '/' | '?' | '<' | '>' | '\\' | ':' | '*' | '|' | '"') || it.is_ascii_control();
            Some(written(value).replace(forbidden, "_"))
        }
        (date, _, _) => Some(format_date(date.strip_prefix("date:")?, now)),
    }
}

/// The first node of that alias (`Node name for S&R`), else of that title; what is in a subgraph comes before it.
fn find<'w, 'j>(workflow: &'w Workflow<'j>, scope: usize, name: &str) -> Option<&'w Node<'j>> {
    let mut nodes = Vec::new();
    let mut entered = HashSet::from([scope]);
    let mut pending = vec![(scope, 0)];
    while let Some((scope, index)) = pending.pop() {
        let Some(node) = workflow.scopes[scope].nodes.get(index) else { continue };
        match node.inner {
            Some(inner) if entered.insert(inner) => pending.extend([(scope, index), (inner, 0)]),
            _ => {
                nodes.push(node);
                pending.push((scope, index + 1));
            }
        }
    }
    let alias = |node: &Node<'_>| match node.properties.and_then(|properties| properties.get("Node name for S&R")) {
        Some(alias) => alias.as_str() == Some(name),
        None => node.class == name && !is_save_node(name),
    };
    nodes.iter().find(|node| alias(node)).or_else(|| nodes.iter().find(|node| node.title == name)).copied()
}

/// A value as the editor writes it into a text, which is how JavaScript does.
fn written(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        Json::Array(list) => list.iter().map(written).collect::<Vec<_>>().join(","),
        Json::Object(_) => "[object Object]".to_owned(),
        Json::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => {
                let size = float.abs();
                if size == 0.0 || (1e-6..1e21).contains(&size) {
                    (float + 0.0).to_string()
                } else {
                    format!("{float:e}").replace("e", "e+").replace("e+-", "e-")
                }
            }
            _ => number.to_string(),
        },
        Json::Bool(truth) => truth.to_string(),
    }
}

/// The time in a format of `d dd M MM h hh m mm s ss yy yyyy`; other characters stand for themselves.
fn format_date(format: &str, now: &DateTime) -> String {
    let mut written = String::new();
    let mut rest = format;
    while let Some(letter) = rest.chars().next() {
        let longest = if letter == 'y' { 4 } else { 2 };
        let run = rest.chars().take(longest).take_while(|&it| it == letter).count();
        let number = match letter {
            'd' => Some(i16::from(now.day())),
            'M' => Some(i16::from(now.month())),
            'h' => Some(i16::from(now.hour())),
            'm' => Some(i16::from(now.minute())),
            's' => Some(i16::from(now.second())),
            'y' if run == 2 => Some(now.year() % 100),
            'y' if run == 4 => Some(now.year()),
            _ => None,
        };
        match number {
            Some(number) => written += &format!("{number:0run$}"),
            None => written.extend(rest.chars().take(run)),
        }
        rest = &rest[run * letter.len_utf8()..];
    }
    written
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_branch_of_each_block_is_taken() {
        let check = |text: &str, first: &str, last: &str| {
            assert_eq!(dynamic_prompt(text, &mut |_| 0), first, "{text}");
            assert_eq!(dynamic_prompt(text, &mut |branches| branches - 1), last, "{text}");
        };
        check("a {red|blue} cat", "a red cat", "a blue cat");
        check("{a|{b|c} d}{e|}", "ae", "c d");
        check(r"\{a\|b\} | }", "{a|b} | }", "{a|b} | }");
        check(r"{x\|y|z}", "x|y", "z");
        check("open {a|b", "open a", "open b");
        check("{one}", "one", "one");
        check("end \\", "end \\", "end \\");
        check("a /* {x|y} */ b // {z}\nc / d /* e", "a  b \nc / d /* e", "a  b \nc / d /* e");
        let deep = "{".repeat(100_000);
        check(&deep, "", "");
    }

    #[test]
    fn the_same_file_node_and_input_take_the_same_branch() {
        let now = jiff::civil::date(2026, 1, 7).at(8, 9, 5, 0);
        let branch = |file: &Json, seed, node: &str| {
            Filling::new(file, &Conditions { now, seed }).dynamic_prompt(&"{a|b}".repeat(40), node, "text")
        };
        let (file, other) = (json!({"a": 1}), json!({"a": 2}));
        assert_eq!(branch(&file, None, "6"), branch(&file, None, "6"));
        assert_ne!(branch(&file, None, "6"), branch(&other, None, "6"));
        assert_ne!(branch(&file, None, "6"), branch(&file, None, "7"));
        assert_eq!(branch(&file, Some(1), "6"), branch(&other, Some(1), "6"));
        assert_ne!(branch(&file, Some(1), "6"), branch(&file, Some(2), "6"));
        let (a, b): (Vec<_>, Vec<_>) = branch(&file, None, "6").chars().partition(|&it| it == 'a');
        assert!(a.len() > 8 && b.len() > 8, "both branches are taken: {a:?} {b:?}");
    }

    #[test]
    fn dates_are_written_in_the_format() {
        let now = jiff::civil::date(2026, 1, 7).at(18, 9, 5, 0);
        for (format, expected) in [
            ("yyyy-MM-dd", "2026-01-07"),
            ("d.M.yy hh:mm:ss", "7.1.26 18:09:05"),
            ("yyMMddhhmmss", "260107180905"),
            ("y yyy yyyyy ddd", "y yyy 2026y 077"),
            ("hm's", "189'5"),
        ] {
            assert_eq!(format_date(format, &now), expected);
        }
    }

    #[test]
    fn values_are_written_as_javascript_does() {
        let value = json!([null, "a", 8.0, 0.5, 1e21, 1e-7, -0.0, 18446744073709551615u64, true, {}]);
        assert_eq!(written(&value), ",a,8,0.5,1e+21,1e-7,0,18446744073709551615,true,[object Object]");
    }
}
