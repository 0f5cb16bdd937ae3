//! Pictures that graphs read.

use crate::names::{RelativeName, nearest, require_inside};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Endings of picture files, as a list of pictures shows them.
const PICTURES: &[&str] = &["png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "tif", "tiff"];

/// The input folders, and by annotation those of results.
#[derive(Debug)]
pub struct Inputs {
    /// `input/` in the base directory, then those of the settings.
    dirs: Vec<PathBuf>,
    output: PathBuf,
    temp: PathBuf,
}

impl Inputs {
    pub(crate) fn new(dirs: Vec<PathBuf>, output: PathBuf, temp: PathBuf) -> Self {
        Self { dirs, output, temp }
    }

    /// The file that a name in a graph means: `x.png`, `sub/x.png`, or with a folder behind it, `x.png [output]`,
    /// `x.png [temp]`, `x.png [input]`. The first input folder that has it wins.
    ///
    /// # Errors
    /// [`Error::InputNotFound`] with the nearest names, [`Error::BadName`], or [`Error::Escapes`] for a symbolic link
    /// that leads out of the folder.
    pub fn find(&self, name: &str) -> Result<PathBuf> {
        let (bare, dirs) = self.split(name);
        let wanted = RelativeName::parse(bare)?;
        for dir in dirs {
            let path = wanted.below(dir);
            if path.is_file() {
                require_inside(dir, &path)?;
                return Ok(path);
            }
        }
        let names: BTreeSet<_> = dirs.iter().flat_map(|dir| files(dir)).collect();
        Err(Error::InputNotFound {
            name: name.to_owned(),
            nearest: nearest(bare, names.iter().map(String::as_str)),
            searched: dirs.to_vec(),
        })
    }

    /// The folder that a name in a graph means, by the rules of [`find`](Self::find).
    ///
    /// # Errors
    /// As [`find`](Self::find), with the nearest names of folders.
    pub fn find_folder(&self, name: &str) -> Result<PathBuf> {
        let (bare, dirs) = self.split(name);
        let wanted = RelativeName::parse(bare)?;
        for dir in dirs {
            let path = wanted.below(dir);
            if path.is_dir() {
                require_inside(dir, &path)?;
                return Ok(path);
            }
        }
        let names: BTreeSet<_> = dirs.iter().flat_map(|dir| folders(dir)).collect();
        Err(Error::InputNotFound {
            name: name.to_owned(),
            nearest: nearest(bare, names.iter().map(String::as_str)),
            searched: dirs.to_vec(),
        })
    }

    /// Names of the folders at the top of the input folders, sorted.
    #[must_use]
    pub fn folders(&self) -> Vec<String> {
        let names: BTreeSet<_> = self.dirs.iter().flat_map(|dir| folders(dir)).collect();
        names.into_iter().collect()
    }

    /// Whether a file's name ends as one of a picture.
    #[must_use]
    pub fn is_picture(name: &str) -> bool {
        let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
        ending.is_some_and(|ending| PICTURES.contains(&ending.as_str()))
    }

    /// Names of the pictures at the top of the input folders, sorted: what `LoadImage` offers.
    #[must_use]
    pub fn pictures(&self) -> Vec<String> {
        self.all().into_iter().filter(|name| Self::is_picture(name)).collect()
    }

    /// Names of all files at the top of the input folders, sorted: what `LoadImageMask` offers.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let names: BTreeSet<_> = self.dirs.iter().flat_map(|dir| files(dir)).collect();
        names.into_iter().collect()
    }

    /// A name without its annotation, and the folders that this means.
    fn split<'a>(&'a self, name: &'a str) -> (&'a str, &'a [PathBuf]) {
        use std::slice::from_ref;
        let annotations =
            [("[output]", from_ref(&self.output)), ("[temp]", from_ref(&self.temp)), ("[input]", self.dirs.as_slice())];
        for (annotation, dirs) in annotations {
            if let Some(bare) = name.strip_suffix(annotation) {
                return (bare.trim_end(), dirs);
            }
        }
        (name, &self.dirs)
    }
}

/// Names of the files directly in a folder; none, if it is not there.
fn files(dir: &Path) -> Vec<String> {
    let entries = dir.read_dir().into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_file()).filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Names of the folders directly in a folder; none, if it is not there.
fn folders(dir: &Path) -> Vec<String> {
    let entries = dir.read_dir().into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Assets, Settings};
    use std::fs;

    fn setup(files: &[&str]) -> (tempfile::TempDir, Assets) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, file).unwrap();
        }
        let settings = Settings {
            base_dir: Some(dir.path().to_owned()),
            input_dirs: vec![dir.path().join("graphs/input")],
            ..Settings::default()
        };
        let assets = Assets::open(&settings).unwrap();
        (dir, assets)
    }

    #[test]
    fn annotations_choose_the_folder() {
        let (dir, assets) = setup(&["input/a.png", "output/a.png", "temp/t.png", "graphs/input/g.png"]);
        let find = |name: &str| assets.inputs().find(name).unwrap();
        assert_eq!(find("a.png"), dir.path().join("input/a.png"));
        assert_eq!(find("a.png [input]"), dir.path().join("input/a.png"));
        assert_eq!(find("a.png [output]"), dir.path().join("output/a.png"));
        assert_eq!(find("t.png [temp]"), dir.path().join("temp/t.png"));
        assert_eq!(find("g.png"), dir.path().join("graphs/input/g.png"));
    }

    #[test]
    fn what_is_missing_or_elsewhere_is_refused() {
        let (_dir, assets) = setup(&["input/portrait.png", "secret.png"]);
        match assets.inputs().find("portrat.png") {
            Err(Error::InputNotFound { nearest, .. }) => assert_eq!(nearest, ["portrait.png"]),
            other => panic!("{other:?}"),
        }
        assert!(matches!(assets.inputs().find("../secret.png"), Err(Error::BadName { .. })));
        assert!(matches!(assets.inputs().find("../secret.png [output]"), Err(Error::BadName { .. })));
        assert!(matches!(assets.inputs().find(" [output]"), Err(Error::InputNotFound { .. } | Error::BadName { .. })));
    }

    #[test]
    fn pictures_are_listed_without_other_files_or_folders() {
        let (_dir, assets) =
            setup(&["input/b.PNG", "input/a.webp", "input/x.txt", "input/sub/c.png", "graphs/input/a.webp"]);
        assert_eq!(assets.inputs().pictures(), ["a.webp", "b.PNG"]);
        assert_eq!(assets.inputs().all(), ["a.webp", "b.PNG", "x.txt"]);
    }

    #[test]
    fn folders_are_found_and_listed() {
        let (dir, assets) = setup(&["input/captain/0.png", "graphs/input/dog/0.png", "input/x.png"]);
        assert_eq!(assets.inputs().find_folder("dog").unwrap(), dir.path().join("graphs/input/dog"));
        assert_eq!(assets.inputs().folders(), ["captain", "dog"]);
        match assets.inputs().find_folder("captian") {
            Err(Error::InputNotFound { nearest, .. }) => assert_eq!(nearest, ["captain"]),
            other => panic!("{other:?}"),
        }
        assert!(assets.inputs().find_folder("x.png").is_err());
        assert!(matches!(assets.inputs().find_folder("../output"), Err(Error::BadName { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_refused_but_the_folder_may_be_one() {
        let (dir, assets) = setup(&["input/a.png", "secret.png", "real/b.png"]);
        std::os::unix::fs::symlink(dir.path().join("secret.png"), dir.path().join("input/s.png")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("input/a.png"), dir.path().join("input/again.png")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("real"), dir.path().join("temp")).unwrap();
        assert!(matches!(assets.inputs().find("s.png"), Err(Error::Escapes { .. })));
        assert!(assets.inputs().find("again.png").is_ok());
        assert!(assets.inputs().find("b.png [temp]").is_ok());
    }
}
