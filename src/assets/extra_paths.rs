//! ComfyUI's `extra_model_paths.yaml`: where else models lie.

use crate::folders::Folders;
use crate::{Error, Result};
use serde_norway::{Mapping, Value};
use std::env;
use std::path::{Component, Path, PathBuf};

/// Adds every directory that the file names.
///
/// The top level holds sections of any name. In one, `base_path` (with `~`, `$NAME` and `${NAME}` filled in) is what its
/// paths are relative to, by default the file's own folder; `is_default` puts them before all others; every other key is
/// a model folder with one path a line.
pub(crate) fn add(folders: &mut Folders, file: &Path) -> Result<()> {
    let fault = |fault: String| Error::ExtraPaths { path: file.to_owned(), fault };
    let text = std::fs::read_to_string(file).map_err(Error::reading(file))?;
    let document: Value = serde_norway::from_str(&text).map_err(|error| fault(error.to_string()))?;
    let sections = match document {
        Value::Null => return Ok(()),
        Value::Mapping(sections) => sections,
        _ => return Err(fault("expected sections, found something else".to_owned())),
    };
    let beside = file.parent().unwrap_or(Path::new("."));
    for (name, section) in &sections {
        let name = name.as_str().unwrap_or("?");
        match section {
            Value::Null => {}
            Value::Mapping(section) => {
                add_section(folders, section, beside).map_err(|wrong| fault(format!("section `{name}`: {wrong}")))?;
            }
            _ => return Err(fault(format!("section `{name}`: expected keys with paths"))),
        }
    }
    Ok(())
}

fn add_section(folders: &mut Folders, section: &Mapping, beside: &Path) -> std::result::Result<(), String> {
    let mut base = beside.to_owned();
    let mut first = false;
    for (key, value) in section {
        match (key.as_str(), value) {
            (Some("base_path"), Value::Null) => {}
            (Some("base_path"), Value::String(path)) => base = beside.join(expand(path)),
            (Some("base_path"), _) => return Err("`base_path` has to be a path".to_owned()),
            (Some("is_default"), Value::Bool(value)) => first = *value,
            (Some("is_default"), _) => {
                return Err("`is_default` has to be true or false".to_owned());
            }
            _ => {}
        }
    }
    for (key, value) in section {
        let Some(key) = key.as_str() else {
            return Err("every key has to be text".to_owned());
        };
        if matches!(key, "base_path" | "is_default") {
            continue;
        }
        let Some(lines) = value.as_str() else {
            return Err(format!("`{key}` has to be one path a line"));
        };
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            folders.add(key, normal(&base.join(line)), first);
        }
    }
    Ok(())
}

/// Fills in a leading `~` and every `$NAME` and `${NAME}` that is set; what is not set stays as it is written.
fn expand(path: &str) -> String {
    let home = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with(['/', '\\']));
    let path = match (home, env::home_dir()) {
        (Some(rest), Some(home)) => format!("{}{rest}", home.display()),
        _ => path.to_owned(),
    };
    let mut expanded = String::new();
    let mut rest = path.as_str();
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        let (name, length) = match rest[1..].strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some((name, _)) => (name, name.len() + 3),
            None => {
                let name = &rest[1..];
                let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
                (&name[..end], end + 1)
            }
        };
        match env::var(name).ok().filter(|_| !name.is_empty()) {
            Some(value) => expanded.push_str(&value),
            None => expanded.push_str(&rest[..length]),
        }
        rest = &rest[length..];
    }
    expanded + rest
}

/// Without `.` and `..`, as written: links are not looked at.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(normal.components().next_back(), Some(Component::Normal(_))) => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The directories of `key` after reading `yaml` from a file in `/y`, which is what `.` in the answer stands for.
    fn dirs(yaml: &str, key: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("paths.yaml");
        fs::write(&file, yaml).unwrap();
        let mut folders = Folders::below(Path::new("/b"));
        add(&mut folders, &file).unwrap();
        let here = dir.path().to_str().unwrap().to_owned();
        let folder = folders.get(key).unwrap();
        folder.dirs.iter().map(|dir| dir.to_str().unwrap().replace(&here, ".")).collect()
    }

    fn fault(yaml: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("paths.yaml");
        fs::write(&file, yaml).unwrap();
        match add(&mut Folders::below(Path::new("/b")), &file).unwrap_err() {
            Error::ExtraPaths { fault, .. } => fault,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn paths_are_relative_to_the_base_path_or_to_the_file() {
        let with_base = "comfyui:\n  base_path: /c/ComfyUI/\n  checkpoints: models/checkpoints/\n";
        assert_eq!(dirs(with_base, "checkpoints"), ["/b/models/checkpoints", "/c/ComfyUI/models/checkpoints"]);
        assert_eq!(
            dirs("mine:\n  loras: ../far/./loras\n", "loras").last().unwrap().split('/').next_back(),
            Some("loras")
        );
        assert_eq!(dirs("mine:\n  loras: sub/loras\n", "loras"), ["/b/models/loras", "./sub/loras"]);
        assert_eq!(dirs("mine:\n  base_path: sub\n  loras: x\n", "loras"), ["/b/models/loras", "./sub/x"]);
        assert_eq!(dirs("mine:\n  base_path: sub\n  loras: /abs\n", "loras"), ["/b/models/loras", "/abs"]);
    }

    #[test]
    fn blocks_hold_a_path_a_line_and_empty_sections_are_ignored() {
        let yaml = "empty:\nmine:\n  base_path: /m\n  unet: |\n    a\n\n    b\n";
        assert_eq!(dirs(yaml, "diffusion_models"), ["/b/models/unet", "/b/models/diffusion_models", "/m/a", "/m/b"]);
        assert_eq!(dirs("", "vae"), ["/b/models/vae"]);
    }

    #[test]
    fn defaults_go_first_wherever_the_key_stands() {
        assert_eq!(dirs("m:\n  vae: /v\n  is_default: true\n", "vae"), ["/v", "/b/models/vae"]);
    }

    #[test]
    fn variables_and_home_are_filled_in() {
        let home = env::home_dir().unwrap();
        let path = env::var("PATH").unwrap();
        assert_eq!(expand("~/x"), format!("{}/x", home.display()));
        assert_eq!(expand("~other/x"), "~other/x");
        assert_eq!(expand("a${PATH}b/$PATH"), format!("a{path}b/{path}"));
        assert_eq!(expand("$NO_SUCH_VARIABLE/${nor_this}/$"), "$NO_SUCH_VARIABLE/${nor_this}/$");
    }

    #[test]
    fn faults_name_section_and_key() {
        assert!(fault("a: [").contains("line"), "{}", fault("a: ["));
        assert_eq!(fault("- a"), "expected sections, found something else");
        assert_eq!(fault("m: 3"), "section `m`: expected keys with paths");
        assert_eq!(fault("m:\n  vae: [a, b]"), "section `m`: `vae` has to be one path a line");
        assert_eq!(fault("m:\n  is_default: 1"), "section `m`: `is_default` has to be true or false");
    }
}
