//! Everything that can go wrong between a name and a file.

use crate::Place;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// A name that leads to no file, a file that cannot be read, or one that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The platform has no data directory, and the working directory no `models/`.
    #[error("there is no `models` folder here, and this system names no data directory")]
    NoDataDirectory,
    /// A folder that the user named.
    #[error("folder `{}` does not exist", path.display())]
    NoSuchFolder {
        /// As given, made absolute.
        path: PathBuf,
    },
    /// A folder to write to that is something else.
    #[error("`{}` is a file, not a folder", path.display())]
    NotAFolder {
        /// What is there.
        path: PathBuf,
    },
    /// A name that may not be joined to a folder.
    #[error("name \"{}\" {why}", name.escape_debug())]
    BadName {
        /// As given.
        name: String,
        /// What is wrong with it.
        why: BadName,
    },
    /// No folder of models has that key.
    #[error("there is no model folder `{key}`")]
    UnknownFolder {
        /// As given.
        key: String,
        /// Close keys, best first.
        nearest: Vec<String>,
    },
    /// No file of that name in any directory of a model folder, and no hash that begins so.
    #[error("no file \"{name}\" among the {folder}")]
    ModelNotFound {
        /// The folder's key, `checkpoints`.
        folder: String,
        /// As given.
        name: String,
        /// Close names, best first.
        nearest: Vec<String>,
        /// The directories that were searched.
        searched: Vec<PathBuf>,
    },
    /// No such input picture.
    #[error("no file \"{name}\" in {}", paths(searched))]
    InputNotFound {
        /// As given.
        name: String,
        /// Close names, best first.
        nearest: Vec<String>,
        /// The directories that were searched.
        searched: Vec<PathBuf>,
    },
    /// A symbolic link below `root` leads out of it.
    #[error("`{}` leads out of `{}` through a symbolic link", path.display(), root.display())]
    Escapes {
        /// The path before links are followed.
        path: PathBuf,
        /// The folder it has to stay in.
        root: PathBuf,
    },
    /// A `filename_prefix` that points elsewhere.
    #[error("prefix \"{}\" leads out of the {place} folder `{}`", prefix.escape_debug(), root.display())]
    OutsideOutput {
        /// As given, with its `%…%` filled in.
        prefix: String,
        /// Which folder.
        place: Place,
        /// Where that is.
        root: PathBuf,
    },
    /// A file that is there but cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No space is left where a file was to be made. Nothing is left behind.
    #[error("no space is left for `{}`", path.display())]
    DiskFull {
        /// The file that was not made.
        path: PathBuf,
    },
    /// The file system is mounted read-only.
    #[error("cannot make `{}`: the file system is read-only", path.display())]
    ReadOnly {
        /// The file or folder that was not made.
        path: PathBuf,
    },
    /// The user may not write there.
    #[error("cannot make `{}`: permission denied", path.display())]
    Denied {
        /// The file or folder that was not made.
        path: PathBuf,
    },
    /// Any other fault while a file was made. Nothing is left behind.
    #[error("cannot make `{}`: {source}", path.display())]
    Write {
        /// The file or folder that was not made.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A configuration that is no YAML.
    #[error("`{}`: not YAML: {fault}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        fault: String,
    },
    /// A file of extra model paths that says something else.
    #[error("`{}`: {fault}", path.display())]
    ExtraPaths {
        /// The YAML file.
        path: PathBuf,
        /// Section, key and what is wrong.
        fault: String,
    },
}

/// Why a name may not be joined to a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    /// Nothing, or only dots and separators.
    Empty,
    /// `/…`, `\…`, or a drive letter.
    Absolute,
    /// Has a `..`.
    Climbs,
    /// Holds a NUL character.
    Nul,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "names no file",
            Self::Absolute => "is an absolute path, but has to be relative to its folder",
            Self::Climbs => "climbs out of its folder with `..`",
            Self::Nul => "holds a NUL character",
        })
    }
}

impl Error {
    /// A way out, where one is known: printed on a line of its own. Lower case, no full stop.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoDataDirectory => Some("name a base directory with `--base-dir`".to_owned()),
            Self::NotAFolder { .. } => Some("results go into a folder; it is made if it is not there".to_owned()),
            Self::UnknownFolder { nearest, .. } => did_you_mean(nearest),
            Self::ModelNotFound { nearest, searched, .. } => Some(
                did_you_mean(nearest)
                    .unwrap_or_else(|| format!("put it in {}, or add a folder with `--models DIR`", paths(searched))),
            ),
            Self::InputNotFound { nearest, searched, .. } => Some(did_you_mean(nearest).unwrap_or_else(|| {
                searched.first().map_or_else(String::new, |dir| format!("put it in `{}`", dir.display()))
            })),
            Self::Escapes { root, .. } => Some(format!("put the file itself into `{}`", root.display())),
            Self::OutsideOutput { .. } => Some("use a relative prefix without `..`".to_owned()),
            Self::DiskFull { .. } => Some("free some space, or save elsewhere with `--out DIR`".to_owned()),
            Self::ReadOnly { .. } | Self::Denied { .. } => Some("save elsewhere with `--out DIR`".to_owned()),
            _ => None,
        }
    }

    /// The error of a failed write of `path`, told apart by cause.
    pub(crate) fn writing(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            io::ErrorKind::PermissionDenied => Self::Denied { path },
            _ => Self::Write { path, source },
        }
    }

    /// The error of a failed read of `path`.
    pub(crate) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Read { path, source }
    }
}

fn did_you_mean(nearest: &[String]) -> Option<String> {
    let quoted: Vec<_> = nearest.iter().map(|name| format!("\"{name}\"")).collect();
    (!quoted.is_empty()).then(|| format!("did you mean {}?", quoted.join(" or ")))
}

fn paths(paths: &[PathBuf]) -> String {
    let quoted: Vec<_> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    quoted.join(" or ")
}
