//! Files below a folder, by names that strangers send.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use paraflow_assets::RelativeName;

/// The path of `name` below `root`: no `..`, nothing absolute, no drive, no NUL, and no link on the way that leads out.
/// It need not exist.
pub(crate) fn below(root: &Path, name: &str) -> Option<PathBuf> {
    let path = RelativeName::parse(name).ok()?.below(root);
    stays_inside(root, &path).then_some(path)
}

/// The folder `name` below `root`, or `root` itself where the name is empty.
pub(crate) fn folder_below(root: &Path, name: &str) -> Option<PathBuf> {
    if matches!(name.trim_matches(['/', '\\']), "" | ".") {
        return Some(root.to_owned());
    }
    below(root, name)
}

/// Whether what exists of the path lies inside the root, links followed.
fn stays_inside(root: &Path, path: &Path) -> bool {
    let Some(existing) = path.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok()) else { return true };
    if !existing.starts_with(root) {
        // The root itself does not exist yet.
        return true;
    }
    match (root.canonicalize(), existing.canonicalize()) {
        (Ok(root), Ok(existing)) => existing.starts_with(root),
        // A link that leads nowhere would make a file somewhere.
        _ => false,
    }
}

/// Writes a file whole or not at all. Makes its folder.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".paraflow-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_leave_their_folder_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        for bad in ["", "/etc/passwd", "../x", "a/../../x", r"..\x", r"a\..\..\x", r"C:\x", r"\\host\x", "a\0b", "c:x"]
        {
            assert_eq!(below(&root, bad), None, "{bad:?}");
        }
        assert_eq!(below(&root, r"a\b"), Some(root.join("a/b")));
        assert_eq!(folder_below(&root, ""), Some(root.clone()));
        assert_eq!(folder_below(&root, "./"), Some(root.clone()));
        assert_eq!(folder_below(&root, ".."), None);
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_out_are_not_followed() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("inside")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        symlink(dir.path().join("outside"), root.join("out")).unwrap();
        symlink(root.join("inside"), root.join("in")).unwrap();
        symlink(dir.path().join("nothing"), root.join("dangling")).unwrap();
        assert_eq!(below(&root, "out/x"), None);
        assert_eq!(below(&root, "out"), None);
        assert_eq!(below(&root, "dangling"), None);
        assert_eq!(below(&root, "in/x"), Some(root.join("in/x")));
    }

    proptest! {
        #[test]
        fn whatever_is_sent_the_path_stays_below(name in r#"(\.\.|\.|/|\\|[a-c]|:|\x00|%2e|~|é| ){0,12}"#) {
            let root = Path::new("/nowhere/root");
            if let Some(path) = below(root, &name) {
                prop_assert!(path.starts_with(root));
                prop_assert!(path.components().all(|part| !matches!(part, std::path::Component::ParentDir)));
            }
        }
    }
}
