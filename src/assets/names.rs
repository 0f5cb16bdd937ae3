//! Names below a folder, and the names nearest to a wrong one.

use crate::{BadName, Error, Result};
use std::path::{Path, PathBuf};

/// A relative name of a file, safe to join to a folder: no `..`, no root, no drive, no NUL.
///
/// `/` and `\` both separate, so that a workflow from another system finds its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelativeName(Vec<String>);

impl RelativeName {
    /// Reads a name as a workflow writes it.
    ///
    /// # Errors
    /// [`Error::BadName`] for a name that is empty, absolute, climbs, or holds a NUL.
    pub fn parse(name: &str) -> Result<Self> {
        let bad = |why| Error::BadName { name: name.to_owned(), why };
        if name.contains('\0') {
            return Err(bad(BadName::Nul));
        }
        if name.starts_with(['/', '\\']) {
            return Err(bad(BadName::Absolute));
        }
        let parts: Vec<_> = name.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.iter().any(|part| has_drive(part)) {
            return Err(bad(BadName::Absolute));
        }
        if parts.contains(&"..") {
            return Err(bad(BadName::Climbs));
        }
        if parts.is_empty() {
            return Err(bad(BadName::Empty));
        }
        Ok(Self(parts.into_iter().map(str::to_owned).collect()))
    }

    /// The path of this name in a folder.
    #[must_use]
    pub fn below(&self, folder: &Path) -> PathBuf {
        let mut path = folder.to_owned();
        path.extend(&self.0);
        path
    }

    /// The name with `/` between its parts.
    #[must_use]
    pub fn as_name(&self) -> String {
        self.0.join("/")
    }
}

/// `C:…`, which Windows reads as a place on that drive, wherever it is joined.
fn has_drive(part: &str) -> bool {
    matches!(part.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}

/// `path`, after links, must lie in `root`, after links. Both have to exist.
pub(crate) fn require_inside(root: &Path, path: &Path) -> Result<()> {
    let real_root = root.canonicalize().map_err(Error::reading(root))?;
    let real_path = path.canonicalize().map_err(Error::reading(path))?;
    if real_path.starts_with(&real_root) {
        Ok(())
    } else {
        Err(Error::Escapes { path: path.to_owned(), root: root.to_owned() })
    }
}

/// Up to three of `names` that `wrong` may have meant, best first: the same file in another folder, then the closest
/// spelling. Empty when nothing is close.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    /// Jaro-Winkler similarity below which a name is not a likely slip of the other.
    const CLOSE: f64 = 0.8;
    let wrong_stem = stem(wrong);
    let mut scored: Vec<_> = names
        .into_iter()
        .map(|name| {
            let name_stem = stem(name);
            let score = if name_stem == wrong_stem { 2.0 } else { strsim::jaro_winkler(&wrong_stem, &name_stem) };
            (score, name)
        })
        .filter(|(score, _)| *score >= CLOSE)
        .collect();
    scored.sort_by(|(a, a_name), (b, b_name)| b.total_cmp(a).then_with(|| a_name.cmp(b_name)));
    scored.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// The last part without its extension, lower case: what people remember of a file's name.
fn stem(name: &str) -> String {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    stem.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    fn fault(name: &str) -> BadName {
        match RelativeName::parse(name) {
            Err(Error::BadName { why, .. }) => why,
            other => panic!("{name:?} gave {other:?}"),
        }
    }

    #[test]
    fn names_are_read_alike_with_either_separator() {
        let slash = RelativeName::parse("sd/./1.5//v1.safetensors").unwrap();
        assert_eq!(slash, RelativeName::parse(r"sd\1.5\v1.safetensors").unwrap());
        assert_eq!(slash.as_name(), "sd/1.5/v1.safetensors");
        assert_eq!(slash.below(Path::new("m")), Path::new("m").join("sd").join("1.5").join("v1.safetensors"));
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        assert_eq!(fault(""), BadName::Empty);
        assert_eq!(fault("./"), BadName::Empty);
        assert_eq!(fault("/etc/passwd"), BadName::Absolute);
        assert_eq!(fault(r"\\server\share"), BadName::Absolute);
        assert_eq!(fault("c:model"), BadName::Absolute);
        assert_eq!(fault("./c:"), BadName::Absolute);
        assert_eq!(fault(r"loras\c:\model"), BadName::Absolute);
        assert_eq!(fault("a/../../b"), BadName::Climbs);
        assert_eq!(fault(r"a\..\b"), BadName::Climbs);
        assert_eq!(fault("a\0b"), BadName::Nul);
        assert_eq!(RelativeName::parse("..a/b..").unwrap().as_name(), "..a/b..");
    }

    proptest! {
        #[test]
        fn a_parsed_name_never_leaves_its_folder(name in r#"(\.|/|\\|[a-c]|:|\x00|~|\$|é| ){0,12}"#) {
            if let Ok(parsed) = RelativeName::parse(&name) {
                let root = Path::new("/models/loras");
                let path = parsed.below(root);
                let below = path.strip_prefix(root).unwrap();
                prop_assert!(below.components().count() > 0);
                prop_assert!(below.components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert_eq!(RelativeName::parse(&parsed.as_name()).unwrap(), parsed);
            }
        }
    }

    #[test]
    fn nearest_prefers_the_same_file_elsewhere() {
        let names = ["sd15/v1-5-pruned.safetensors", "v2-1.safetensors", "toyland.safetensors"];
        assert_eq!(nearest(r"old\v1-5-pruned.ckpt", names)[0], "sd15/v1-5-pruned.safetensors");
        assert_eq!(nearest("toylnad.safetensors", names), ["toyland.safetensors"]);
        assert!(nearest("xyzzy.safetensors", names).is_empty());
    }
}
