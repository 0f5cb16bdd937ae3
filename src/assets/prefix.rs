//! What a `filename_prefix` means: folder, name, and the numbers already taken.

use crate::{BadName, Error, Outputs, Result};
use jiff::civil::DateTime;
use std::path::Path;

/// A prefix with its `%…%` filled in, split at its last separator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// Folder below the output folder, parts joined by `/`; empty for the folder itself.
    pub(crate) subfolder: String,
    /// What file names begin with.
    pub(crate) name: String,
}

impl Prefix {
    /// Reads a prefix for pictures of `width` x `height` pixels (0 for anything else), made at `now`.
    ///
    /// ComfyUI's rules: `%width% %height% %year% %month% %day% %hour% %minute% %second%` are filled in, one after the
    /// other; then the path is cleaned (`a/./b//c/../d` is `a/b/d`) and must not lead out of `outputs`. `\` separates
    /// like `/`. An absolute path into the output folder is accepted.
    pub(crate) fn parse(prefix: &str, (width, height): (u32, u32), now: DateTime, outputs: &Outputs) -> Result<Self> {
        let filled = fill_in(prefix, width, height, now);
        if filled.contains('\0') {
            return Err(Error::BadName { name: filled, why: BadName::Nul });
        }
        let relative = match Path::new(&filled).strip_prefix(outputs.root()) {
            Ok(inside) => inside.to_string_lossy().into_owned(),
            Err(_) => filled.clone(),
        };
        let outside =
            || Error::OutsideOutput { prefix: filled.clone(), place: outputs.place(), root: outputs.root().to_owned() };
        if Path::new(&relative).is_absolute() || relative.starts_with(['/', '\\']) {
            return Err(outside());
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in relative.split(['/', '\\']) {
            match part {
                "" | "." => {}
                ".." if parts.pop().is_none() => return Err(outside()),
                ".." => {}
                part => parts.push(part),
            }
        }
        // A cleaned path of nothing is `.`, and so begin the names of its files.
        let name = parts.pop().unwrap_or(".").to_owned();
        Ok(Self { subfolder: parts.join("/"), name })
    }

    /// One more than the largest number that a file of this prefix in `dir` has, 1 if there is none.
    ///
    /// A file counts if it is named `{name}_{number}` up to its end or its next `_`; what is no number counts as 0.
    pub(crate) fn next_counter(&self, dir: &Path) -> u64 {
        let entries = dir.read_dir().into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|file| number_of(&file, &self.name)).max().map_or(1, |max| max.saturating_add(1))
    }
}

fn number_of(file: &str, name: &str) -> Option<u64> {
    let begins = file.get(..name.len())?;
    let same = if cfg!(windows) { begins.to_lowercase() == name.to_lowercase() } else { begins == name };
    let rest = file[name.len()..].strip_prefix('_').filter(|_| same)?;
    let digits = rest.split('_').next().unwrap_or_default();
    Some(digits.trim().parse().unwrap_or(0))
}

fn fill_in(prefix: &str, width: u32, height: u32, now: DateTime) -> String {
    if !prefix.contains('%') {
        return prefix.to_owned();
    }
    prefix
        .replace("%width%", &width.to_string())
        .replace("%height%", &height.to_string())
        .replace("%year%", &now.year().to_string())
        .replace("%month%", &format!("{:02}", now.month()))
        .replace("%day%", &format!("{:02}", now.day()))
        .replace("%hour%", &format!("{:02}", now.hour()))
        .replace("%minute%", &format!("{:02}", now.minute()))
        .replace("%second%", &format!("{:02}", now.second()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;
    use jiff::civil::date;
    use proptest::prelude::*;
    use std::fs;
    use std::path::PathBuf;

    fn parse(prefix: &str) -> Result<Prefix> {
        let now = date(2026, 1, 7).at(9, 5, 3, 0);
        Prefix::parse(prefix, (640, 480), now, &Outputs::new(PathBuf::from("/base/output"), Place::Output))
    }

    fn split(prefix: &str) -> (String, String) {
        let Prefix { subfolder, name } = parse(prefix).unwrap();
        (subfolder, name)
    }

    fn pair(subfolder: &str, name: &str) -> (String, String) {
        (subfolder.to_owned(), name.to_owned())
    }

    #[test]
    fn folders_and_names_are_told_apart() {
        assert_eq!(split("ComfyUI"), pair("", "ComfyUI"));
        assert_eq!(split("a/b/c"), pair("a/b", "c"));
        assert_eq!(split(r"a\b"), pair("a", "b"));
        assert_eq!(split("a//./b/../c/"), pair("a", "c"));
        assert_eq!(split("/base/output/a/b"), pair("a", "b"));
        assert_eq!(split(""), pair("", "."));
    }

    #[test]
    fn placeholders_are_filled_in() {
        assert_eq!(
            split("%year%-%month%-%day%/%hour%%minute%%second%_%width%x%height%"),
            pair("2026-01-07", "090503_640x480")
        );
        assert_eq!(split("100% %seed%"), pair("", "100% %seed%"));
    }

    #[test]
    fn nothing_leads_out() {
        for prefix in ["../x", "a/../../x", "/etc/x", "/base/outputs/x", r"\\server\x", r"..\x"] {
            assert!(matches!(parse(prefix), Err(Error::OutsideOutput { .. })), "{prefix}");
        }
        assert!(matches!(parse("a\0b"), Err(Error::BadName { .. })));
    }

    proptest! {
        #[test]
        fn a_prefix_never_leads_out(prefix in r"(\.|/|\\|[a-c]|%width%|%|\x00|é){0,12}") {
            if let Ok(parsed) = parse(&prefix) {
                let path = Path::new(&parsed.subfolder).join(format!("{}_00001_.png", parsed.name));
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{path:?}");
                prop_assert!(!parsed.name.contains(['/', '\\']));
            }
        }
    }

    #[test]
    fn counters_follow_the_largest_number_there() {
        let dir = tempfile::tempdir().unwrap();
        let next = |name: &str| Prefix { subfolder: String::new(), name: name.to_owned() }.next_counter(dir.path());
        assert_eq!(next("a"), 1);
        for file in ["a_00007_.png", "a_00012_.png", "a_x_.png", "a_99.png", "ab_00050_.png", "a", "é_00003_.png"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(next("a"), 13);
        assert_eq!(next("a_00012"), 1);
        assert_eq!(next("é"), 4);
        assert_eq!(next("b"), 1);
        assert_eq!(next("nowhere"), 1);
        fs::write(dir.path().join("b_99999_.png"), "").unwrap();
        assert_eq!(next("b"), 100_000);
    }
}
