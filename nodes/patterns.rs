//! Words searched and replaced by regular expressions, in Python's syntax and with Python's rules.

use fancy_regex::{Captures, Regex, RegexBuilder};
use paraflow_engine::{Choice, Context, Error, Hint as _, Node, NodeDef, Result, Run};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<RegexExtract>(), NodeDef::of::<RegexMatch>(), NodeDef::of::<RegexReplace>()]
}

/// Tells whether a pattern is found in a text. A pattern that makes no sense is not found.
#[derive(Node)]
#[node(category = "utils/string", display_name = "Regex Match", outputs = ["matches"])]
struct RegexMatch {
    /// The text.
    #[input(multiline)]
    string: String,
    /// The pattern, a regular expression.
    #[input(multiline)]
    regex_pattern: String,
    /// Whether capitals do not matter.
    #[input(default = true)]
    case_insensitive: bool,
    /// Whether `^` and `$` stand for the ends of every line.
    #[input(default = false)]
    multiline: bool,
    /// Whether a dot also stands for a line's end.
    #[input(default = false)]
    dotall: bool,
}

impl Run for RegexMatch {
    type Output = bool;

    fn run(self, _: &Context<'_>) -> Result<bool> {
        let pattern = pattern(&self.regex_pattern, [self.case_insensitive, self.multiline, self.dotall]);
        Ok(pattern.and_then(|it| it.is_match(&self.string)).unwrap_or(false))
    }
}

/// Gives what a pattern finds in a text, one line for each. Where it finds nothing or makes no sense, the result is empty.
#[derive(Node)]
#[node(category = "utils/string", display_name = "Regex Extract")]
struct RegexExtract {
    /// The text.
    #[input(multiline)]
    string: String,
    /// The pattern, a regular expression.
    #[input(multiline)]
    regex_pattern: String,
    /// What to give: all that matched or one of its groups, the first time or every time.
    #[input(choices = ["First Match", "All Matches", "First Group", "All Groups"])]
    mode: Choice<String>,
    /// Whether capitals do not matter.
    #[input(default = true)]
    case_insensitive: bool,
    /// Whether `^` and `$` stand for the ends of every line.
    #[input(default = false)]
    multiline: bool,
    /// Whether a dot also stands for a line's end.
    #[input(default = false)]
    dotall: bool,
    /// Which group to give.
    #[input(default = 1, range = 0..=100)]
    group_index: u32,
}

impl Run for RegexExtract {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        let Ok(pattern) = pattern(&self.regex_pattern, [self.case_insensitive, self.multiline, self.dotall]) else {
            return Ok(String::new());
        };
        let groups = pattern.captures_len() - 1;
        let (every, group) = match self.mode.name() {
            "First Match" => (false, Some(0)),
            // Python's `findall` gives the first group where there are any.
            "All Matches" => (true, Some(groups.min(1))),
            mode => {
                let (every, group) = (mode == "All Groups", self.group_index as usize);
                (every, (group <= groups && !(every && groups == 0)).then_some(group))
            }
        };
        let (Some(group), Ok(found)) = (group, all(&pattern, &self.string, if every { usize::MAX } else { 1 })) else {
            return Ok(String::new());
        };
        let text = |captures: &Captures<'_>| captures.get(group).map_or_else(String::new, |it| it.as_str().to_owned());
        Ok(found.iter().map(text).collect::<Vec<_>>().join("\n"))
    }
}

/// Replaces what a pattern finds in a text.
#[derive(Node)]
#[node(category = "utils/string", display_name = "Regex Replace")]
struct RegexReplace {
    /// The text.
    #[input(multiline)]
    string: String,
    /// The pattern, a regular expression.
    #[input(multiline)]
    regex_pattern: String,
    /// What to put in its place: `\1` stands for the first group, `\g<name>` for a named one.
    #[input(multiline)]
    replace: String,
    /// Whether capitals do not matter.
    #[input(default = true)]
    case_insensitive: Option<bool>,
    /// Whether `^` and `$` stand for the ends of every line.
    #[input(default = false)]
    multiline: Option<bool>,
    /// Whether a dot also stands for a line's end.
    #[input(default = false)]
    dotall: Option<bool>,
    /// How many to replace; 0 for all.
    #[input(default = 0, range = 0..=100)]
    count: Option<u32>,
}

impl Run for RegexReplace {
    type Output = String;

    fn run(self, _: &Context<'_>) -> Result<String> {
        let on = |given: Option<bool>, otherwise: bool| given.unwrap_or(otherwise);
        let flags = [on(self.case_insensitive, true), on(self.multiline, false), on(self.dotall, false)];
        let pattern = pattern(&self.regex_pattern, flags)
            .hint("write `regex_pattern` as Python's regular expressions are written")?;
        let template = Template::read(&self.replace, &pattern)?;
        let most = self.count.filter(|count| *count > 0).map_or(usize::MAX, |count| count as usize);
        let found = all(&pattern, &self.string, most).hint("make the pattern simpler, or the text shorter")?;
        Ok(template.replace(&self.string, &found))
    }
}

fn pattern(text: &str, [case_insensitive, multiline, dotall]: [bool; 3]) -> Result<Regex, fancy_regex::Error> {
    let mut builder = RegexBuilder::new(text);
    builder.case_insensitive(case_insensitive).multi_line(multiline).dot_matches_new_line(dotall).build()
}

/// The first so many places where the pattern is found. One of nothing may directly follow another, as in Python.
fn all<'t>(pattern: &Regex, text: &'t str, most: usize) -> Result<Vec<Captures<'t>>, fancy_regex::Error> {
    let (mut found, mut at, mut after_nothing) = (Vec::new(), 0, false);
    while found.len() < most && at <= text.len() {
        let Some(captures) = pattern.captures_from_pos(text, at)? else { break };
        let whole = captures.get(0).expect("the whole always takes part").range();
        if after_nothing && whole.is_empty() && whole.start == at {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
            after_nothing = false;
            continue;
        }
        (at, after_nothing) = (whole.end, whole.is_empty());
        found.push(captures);
    }
    Ok(found)
}

/// What is put in place of a match: texts and groups.
struct Template(Vec<Part>);

enum Part {
    Text(String),
    Group(usize),
}

/// A replacement that Python would refuse.
#[derive(Debug, thiserror::Error)]
enum BadTemplate {
    #[error("`replace` names the group {name}, and the pattern has {}", groups(*.count))]
    NoGroup { name: String, count: usize },
    #[error("`replace` holds `\\{letter}`, which stands for nothing")]
    Escape { letter: char },
    #[error("`replace` begins a group with `\\g` and does not end it")]
    Open,
}

fn groups(count: usize) -> String {
    if count == 0 { "none".to_owned() } else { format!("{count}") }
}

impl Template {
    fn read(text: &str, pattern: &Regex) -> Result<Self> {
        let mut parts = Vec::new();
        let mut letters = text.chars().peekable();
        let mut plain = String::new();
        while let Some(letter) = letters.next() {
            if letter != '\\' {
                plain.push(letter);
                continue;
            }
            let group = match letters.next() {
                None => return Err(bad(BadTemplate::Escape { letter: ' ' })),
                Some('g') => {
                    let name: String = letters.by_ref().take_while(|letter| *letter != '>').collect();
                    let Some(name) = name.strip_prefix('<').filter(|name| !name.is_empty()) else {
                        return Err(bad(BadTemplate::Open));
                    };
                    group(name, pattern)?
                }
                Some(digit) if digit.is_ascii_digit() && digit != '0' => {
                    let mut name = digit.to_string();
                    name.extend(letters.next_if(char::is_ascii_digit));
                    group(&name, pattern)?
                }
                Some(letter) => {
                    plain.push(escaped(letter).ok_or_else(|| bad(BadTemplate::Escape { letter }))?);
                    continue;
                }
            };
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Group(group));
        }
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// The text with this in place of what was found.
    fn replace(&self, text: &str, found: &[Captures<'_>]) -> String {
        let (mut replaced, mut end) = (String::new(), 0);
        for captures in found {
            let whole = captures.get(0).expect("the whole always takes part");
            replaced.push_str(&text[end..whole.start()]);
            for part in &self.0 {
                match part {
                    Part::Text(text) => replaced.push_str(text),
                    Part::Group(group) => replaced.push_str(captures.get(*group).map_or("", |found| found.as_str())),
                }
            }
            end = whole.end();
        }
        replaced.push_str(&text[end..]);
        replaced
    }
}

/// What a letter after a backslash stands for: itself, unless it is one of the alphabet.
fn escaped(letter: char) -> Option<char> {
    Some(match letter {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'f' => '\x0c',
        'v' => '\x0b',
        'a' => '\x07',
        'b' => '\x08',
        '0' => '\0',
        letter if letter.is_ascii_alphabetic() => return None,
        letter => letter,
    })
}

/// The number of a group by its number or its name.
fn group(name: &str, pattern: &Regex) -> Result<usize> {
    let count = pattern.captures_len() - 1;
    let number = name.parse().ok().or_else(|| pattern.capture_names().position(|it| it == Some(name)));
    number.filter(|number| *number <= count).ok_or_else(|| bad(BadTemplate::NoGroup { name: name.to_owned(), count }))
}

fn bad(error: BadTemplate) -> Error {
    Error::from(error).with_hint(r"write `\1` for the first group of the pattern, and `\\` for a backslash")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str, search: &str, replace: &str) -> String {
        let pattern = pattern(search, [false; 3]).unwrap();
        let found = all(&pattern, text, usize::MAX).unwrap();
        Template::read(replace, &pattern).unwrap().replace(text, &found)
    }

    /// What Python's `re.sub` gives.
    #[test]
    fn replacing_follows_python() {
        assert_eq!(replaced("abxd", "x*", "-"), "-a-b--d-");
        assert_eq!(replaced("a bear", r"(\w) (\w)", r"\2\g<1>\n"), "ba\near");
        assert_eq!(replaced("2026-11", r"(?P<year>\d+)", r"<\g<year>>"), "<2026>-<11>");
        assert_eq!(replaced("ü", "", "."), ".ü.");
    }

    #[test]
    fn what_python_refuses_is_refused_with_a_way_out() {
        let pattern = pattern("(a)", [false; 3]).unwrap();
        for (text, told) in [(r"\2", "the group 2"), (r"\q", r"`\q`"), (r"\g1", "does not end")] {
            let error = Template::read(text, &pattern).err().unwrap();
            assert!(error.to_string().contains(told) && error.hint().is_some(), "{text}: {error}");
        }
    }
}
