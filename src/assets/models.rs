//! Models by folder and name: lists for choosing, paths for loading.

use crate::folders::{Folder, Folders};
use crate::hashes::{HashPrefix, Hashes};
use crate::names::{RelativeName, nearest};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The model folders.
#[derive(Debug)]
pub struct Models {
    folders: Folders,
    hashes: Hashes,
}

/// A file of a model folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name below its directory, parts joined by `/`.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
}

impl Models {
    pub(crate) fn new(folders: Folders, hashes: Hashes) -> Self {
        Self { folders, hashes }
    }

    /// The keys of all folders: `checkpoints`, `configs`, `loras` …
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.folders.keys()
    }

    /// The directories of a folder, in the order in which they are searched. They may not exist.
    ///
    /// # Errors
    /// [`Error::UnknownFolder`].
    pub fn dirs(&self, folder: &str) -> Result<&[PathBuf]> {
        Ok(&self.folders.get(folder)?.dirs)
    }

    /// The names in a folder, sorted, each once, parts joined by `/`: what a node offers to choose from.
    ///
    /// # Errors
    /// [`Error::UnknownFolder`]. A directory that is missing or cannot be read counts as empty.
    pub fn list(&self, folder: &str) -> Result<Vec<String>> {
        Ok(self.files(folder)?.into_iter().map(|model| model.name).collect())
    }

    /// Every file of a folder, sorted by name; of two with one name, the one that [`find`](Self::find) gives.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn files(&self, folder: &str) -> Result<Vec<Model>> {
        let folder = self.folders.get(folder)?;
        let mut found = BTreeMap::new();
        for dir in &folder.dirs {
            for (name, path) in walk(dir, folder) {
                found.entry(name).or_insert(path);
            }
        }
        Ok(found.into_iter().map(|(name, path)| Model { name, path }).collect())
    }

    /// The file that a name in a graph means: the first directory that has it wins, `/` and `\` are alike. A name that
    /// is no file but reads as a hash (`a1b2c3d4e5`, `name [a1b2c3d4e5]`; eight hexadecimal digits or more of SHA-256 or
    /// BLAKE3) finds the file whose hash begins so.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] with the nearest names, [`Error::BadName`], [`Error::UnknownFolder`], or
    /// [`Error::Read`] when a file could not be hashed.
    pub fn find(&self, folder: &str, name: &str) -> Result<Model> {
        let wanted = RelativeName::parse(name)?;
        let searched = &self.folders.get(folder)?.dirs;
        let path = searched.iter().map(|dir| wanted.below(dir)).find(|path| path.is_file());
        if let Some(path) = path {
            return Ok(Model { name: wanted.as_name(), path });
        }
        let files = self.files(folder)?;
        if let Some(prefix) = HashPrefix::parse(name) {
            for model in &files {
                if prefix.begins(&self.hashes.of(&model.path)?) {
                    return Ok(model.clone());
                }
            }
        }
        Err(Error::ModelNotFound {
            folder: folder.to_owned(),
            name: name.to_owned(),
            nearest: nearest(name, files.iter().map(|model| model.name.as_str())),
            searched: searched.clone(),
        })
    }

    /// The directories below a folder's that hold a file of a name, sorted: models that are folders.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn folders_with(&self, folder: &str, marker: &str) -> Result<Vec<Model>> {
        let any = Folder { endings: &[], ..self.folders.get(folder)?.clone() };
        let mut found = BTreeMap::new();
        for dir in &any.dirs {
            for (name, path) in walk(dir, &any) {
                if let Some((name, last)) = name.rsplit_once('/')
                    && last == marker
                {
                    found.entry(name.to_owned()).or_insert(path.with_file_name(""));
                }
            }
        }
        Ok(found.into_iter().map(|(name, path)| Model { name, path }).collect())
    }

    /// The model of a name that is a folder with a file of another name in it.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_folder(&self, folder: &str, name: &str, marker: &str) -> Result<Model> {
        let wanted = RelativeName::parse(name)?;
        let searched = &self.folders.get(folder)?.dirs;
        let path = searched.iter().map(|dir| wanted.below(dir)).find(|path| path.join(marker).is_file());
        if let Some(path) = path {
            return Ok(Model { name: wanted.as_name(), path });
        }
        let names = self.folders_with(folder, marker)?;
        Err(Error::ModelNotFound {
            folder: folder.to_owned(),
            name: name.to_owned(),
            nearest: nearest(name, names.iter().map(|model| model.name.as_str())),
            searched: searched.clone(),
        })
    }

    /// Hashes of model files, remembered between runs.
    #[must_use]
    pub fn hashes(&self) -> &Hashes {
        &self.hashes
    }
}

/// All files below `dir` that `folder` takes, with their names. Symbolic links are followed, but not in circles; `.git`
/// and names that are no text are skipped.
fn walk(dir: &Path, folder: &Folder) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    let mut open = vec![(dir.to_owned(), String::new(), vec![])];
    while let Some((dir, prefix, above)) = open.pop() {
        let (Ok(real), Ok(entries)) = (dir.canonicalize(), dir.read_dir()) else {
            continue;
        };
        if above.contains(&real) {
            continue;
        }
        for entry in entries.flatten() {
            let path = entry.path();
            let Some(file_name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let name = format!("{prefix}{file_name}");
            if path.is_dir() && file_name != ".git" {
                let mut above = above.clone();
                above.push(real.clone());
                open.push((path, format!("{name}/"), above));
            } else if path.is_file() && folder.takes(file_name) {
                files.push((name, path));
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Assets, Settings, hash_file};
    use std::fs;

    /// A base directory, a second `models` folder, and files in both.
    fn setup(files: &[&str]) -> (tempfile::TempDir, Assets) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, file).unwrap();
        }
        fs::create_dir_all(dir.path().join("more")).unwrap();
        let settings = Settings {
            base_dir: Some(dir.path().join("base")),
            model_dirs: vec![dir.path().join("more")],
            ..Settings::default()
        };
        let assets = Assets::open(&settings).unwrap();
        (dir, assets)
    }

    #[test]
    fn lists_are_recursive_sorted_and_filtered() {
        let (_dir, assets) = setup(&[
            "base/models/checkpoints/z.safetensors",
            "base/models/checkpoints/sd/b.ckpt",
            "base/models/checkpoints/sd/notes.txt",
            "base/models/checkpoints/.git/x.bin",
            "more/checkpoints/a.safetensors",
            "more/checkpoints/z.safetensors",
            "base/output/checkpoints/mine.safetensors",
        ]);
        let names = assets.models().list("checkpoints").unwrap();
        assert_eq!(names, ["a.safetensors", "mine.safetensors", "sd/b.ckpt", "z.safetensors"]);
        assert!(assets.models().list("loras").unwrap().is_empty());
    }

    #[test]
    fn the_first_directory_wins_and_separators_are_alike() {
        let (dir, assets) =
            setup(&["base/models/loras/sub/a.safetensors", "more/loras/sub/a.safetensors", "more/loras/b.safetensors"]);
        let found = assets.models().find("loras", r"sub\a.safetensors").unwrap();
        assert_eq!(found.name, "sub/a.safetensors");
        assert_eq!(found.path, dir.path().join("base/models/loras/sub/a.safetensors"));
        let found = assets.models().find("loras", "b.safetensors").unwrap();
        assert_eq!(found.path, dir.path().join("more/loras/b.safetensors"));
    }

    #[test]
    fn a_missing_name_is_answered_with_the_nearest() {
        let (_dir, assets) = setup(&["base/models/vae/kl-f8.safetensors"]);
        match assets.models().find("vae", "kl_f8.safetensors") {
            Err(Error::ModelNotFound { nearest, .. }) => assert_eq!(nearest, ["kl-f8.safetensors"]),
            other => panic!("{other:?}"),
        }
        assert!(matches!(assets.models().find("vae", "../x"), Err(Error::BadName { .. })));
    }

    #[test]
    fn a_hash_finds_its_file_and_is_remembered() {
        let (dir, assets) = setup(&["base/models/vae/a.safetensors", "base/models/vae/b.safetensors"]);
        let path = dir.path().join("base/models/vae/b.safetensors");
        let hash = hash_file(&path).unwrap();
        for name in [&hash.sha256[..10], &hash.blake3[..12], &format!("other [{}]", &hash.sha256[..10])] {
            assert_eq!(assets.models().find("vae", name).unwrap().path, path, "{name}");
        }
        let kept = fs::read_to_string(dir.path().join("base/user/hashes.json")).unwrap();
        assert!(kept.contains(&hash.sha256), "{kept}");

        fs::write(&path, "something longer than before").unwrap();
        assert!(matches!(assets.models().find("vae", &hash.sha256), Err(Error::ModelNotFound { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_in_circles() {
        let (dir, assets) = setup(&["base/models/loras/a.safetensors", "far/b.safetensors"]);
        let loras = dir.path().join("base/models/loras");
        std::os::unix::fs::symlink(&loras, loras.join("again")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("far"), loras.join("far")).unwrap();
        std::os::unix::fs::symlink("/nowhere", loras.join("dangling.safetensors")).unwrap();
        assert_eq!(assets.models().list("loras").unwrap(), ["a.safetensors", "far/b.safetensors"]);
        assert!(assets.models().find("loras", "far/b.safetensors").is_ok());
        assert!(assets.models().find("loras", "dangling.safetensors").is_err());
    }
}
