//! Saving: a file is whole or absent, and never replaces another but where its whole name was asked for.
//!
//! Content is written to a hidden file beside its place, flushed to the disk, and then moved to a name that nobody has.
//! The move fails when the name was taken meanwhile, by another thread or process; the next number is tried.

use crate::names::{RelativeName, require_inside};
use crate::prefix::Prefix;
use crate::{Error, Result};
use jiff::ZonedDateTime;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which folder a file was saved into, by ComfyUI's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `output/`: results.
    Output,
    /// `temp/`: previews.
    Temp,
}

impl Place {
    /// `output` or `temp`, as results are reported.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Temp => "temp",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A folder for results.
#[derive(Clone, Debug)]
pub struct Outputs {
    root: PathBuf,
    place: Place,
    preview_prefix: String,
}

/// A file that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Its name without folders.
    pub filename: String,
    /// Its folder below the root, parts joined by `/`, empty for the root itself.
    pub subfolder: String,
    /// Which root.
    pub place: Place,
    /// Where it lies.
    pub path: PathBuf,
}

/// Consecutive files of one prefix, such as the pictures of a batch.
#[derive(Debug)]
pub struct Series {
    dir: PathBuf,
    prefix: Prefix,
    place: Place,
    counter: u64,
    saved: usize,
}

impl Outputs {
    pub(crate) fn new(root: PathBuf, place: Place) -> Self {
        Self { root, place, preview_prefix: format!("ComfyUI_temp_{}", random_letters()) }
    }

    /// The folder, absolute. It may not exist yet.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Which folder it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// The prefix of previews: `ComfyUI_temp_` and five letters, the same until the program ends, so that counters go up.
    #[must_use]
    pub fn preview_prefix(&self) -> &str {
        &self.preview_prefix
    }

    /// Whether files of a prefix stay in the folder, as far as its name tells; asked before there is anything to save.
    ///
    /// # Errors
    /// [`Error::OutsideOutput`].
    pub fn check_prefix(&self, prefix: &str) -> Result<()> {
        Prefix::parse(prefix, (0, 0), ZonedDateTime::now().datetime(), self).map(drop)
    }

    /// Begins to save files of `prefix`, pictures of `size` = (width, height) in pixels, (0, 0) for anything else. Makes
    /// the folder.
    ///
    /// # Errors
    /// [`Error::OutsideOutput`] and [`Error::Escapes`] for a prefix or a link that leads elsewhere, [`Error::ReadOnly`],
    /// [`Error::Denied`], [`Error::DiskFull`] or [`Error::Write`] when the folder cannot be made.
    pub fn series(&self, prefix: &str, size: (u32, u32)) -> Result<Series> {
        let prefix = Prefix::parse(prefix, size, ZonedDateTime::now().datetime(), self)?;
        let dir = prefix
            .subfolder
            .split('/')
            .filter(|part| !part.is_empty())
            .fold(self.root.clone(), |dir, part| dir.join(part));
        fs::create_dir_all(&self.root).map_err(|source| Error::writing(&self.root, source))?;
        let existing = dir.ancestors().find(|dir| dir.exists()).expect("the root was just made");
        require_inside(&self.root, existing)?;
        fs::create_dir_all(&dir).map_err(|source| Error::writing(&dir, source))?;
        sweep(&dir);
        let counter = prefix.next_counter(&dir);
        Ok(Series { dir, prefix, place: self.place, counter, saved: 0 })
    }
}

impl Outputs {
    /// Writes a file of a name of its own in a folder below this one, in place of any that has it. Makes the folder.
    ///
    /// # Errors
    /// [`Error::Escapes`] for a link that leads elsewhere, [`Error::ReadOnly`], [`Error::Denied`], [`Error::DiskFull`] or
    /// [`Error::Write`]. Whatever happens, no half-written file is left.
    pub fn write(
        &self,
        folder: &RelativeName,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<PathBuf> {
        let dir = folder.below(&self.root);
        fs::create_dir_all(&self.root).map_err(|source| Error::writing(&self.root, source))?;
        let existing = dir.ancestors().find(|dir| dir.exists()).expect("the root was just made");
        require_inside(&self.root, existing)?;
        fs::create_dir_all(&dir).map_err(|source| Error::writing(&dir, source))?;
        let path = dir.join(name);
        let file = write_aside(&dir, write).map_err(|source| Error::writing(&path, source))?;
        file.persist(&path).map_err(|failed| Error::writing(&path, failed.error))?;
        Ok(path)
    }
}

impl Series {
    /// Saves the next file: `{name}_{counter:05}_.{ending}`, with `%batch_num%` in the name replaced by the number of
    /// files this series has saved before. `write` is called once and gives the content.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::ReadOnly`], [`Error::Denied`] or [`Error::Write`], with the path that was meant.
    /// Whatever happens, no half-written file is left.
    pub fn save(&mut self, ending: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Saved> {
        let name = self.prefix.name.replace("%batch_num%", &self.saved.to_string());
        let prefix = Prefix { name, subfolder: self.prefix.subfolder.clone() };
        let path_of = |counter: u64| self.dir.join(format!("{}_{counter:05}_.{ending}", prefix.name));

        let mut counter = self.counter;
        let mut temp = write_aside(&self.dir, write).map_err(|source| Error::writing(&path_of(counter), source))?;
        let path = loop {
            let path = path_of(counter);
            match temp.persist_noclobber(&path) {
                Ok(_) => break path,
                Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists => {
                    temp = taken.file;
                    counter = prefix.next_counter(&self.dir).max(counter + 1);
                }
                Err(failed) => return Err(Error::writing(&path, failed.error)),
            }
        };
        self.counter = counter + 1;
        self.saved += 1;
        let filename = path.file_name().expect("joined above").to_string_lossy().into_owned();
        Ok(Saved { filename, subfolder: prefix.subfolder, place: self.place, path })
    }
}

/// How the names of files that are being written begin and end.
const ASIDE: &str = ".paraflow-";
const UNFINISHED: &str = ".part";

/// No file takes that long to be written.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Removes what a process left that was killed while it wrote. Nobody misses what cannot be removed.
fn sweep(dir: &Path) {
    for entry in dir.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with(ASIDE) && name.ends_with(UNFINISHED));
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if is_ours && age().is_some_and(|age| age > ABANDONED_AFTER) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A hidden file in `dir` with its content on the disk. It is removed when dropped.
fn write_aside(
    dir: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(ASIDE).suffix(UNFINISHED);
    #[cfg(unix)]
    {
        // As any new file: the user's mask decides, where temporary files would be private.
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let temp = builder.tempfile_in(dir)?;
    let mut buffered = BufWriter::new(temp.as_file());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    temp.as_file().sync_all()?;
    Ok(temp)
}

/// Five letters that differ from run to run, from ComfyUI's alphabet for them.
fn random_letters() -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstupvxyz";
    let mut bits = RandomState::new().hash_one(std::process::id());
    let mut letters = String::new();
    for _ in 0..5 {
        let count = LETTERS.len() as u64;
        letters.push(char::from(LETTERS[usize::try_from(bits % count).expect("below 26")]));
        bits /= count;
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn outputs(dir: &Path) -> Outputs {
        Outputs::new(dir.join("output"), Place::Output)
    }

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_series_counts_on_from_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = outputs(dir.path());
        let mut series = outputs.series("sub/a", (0, 0)).unwrap();
        let first = series.save("png", |file| file.write_all(b"1")).unwrap();
        let second = series.save("png", |file| file.write_all(b"2")).unwrap();
        assert_eq!((first.filename.as_str(), first.subfolder.as_str()), ("a_00001_.png", "sub"));
        assert_eq!(second.path, outputs.root().join("sub/a_00002_.png"));
        let third = outputs.series("sub/a", (0, 0)).unwrap().save("png", |file| file.write_all(b"3")).unwrap();
        assert_eq!(third.filename, "a_00003_.png");
        assert_eq!(fs::read(&third.path).unwrap(), b"3");
    }

    #[test]
    fn the_place_in_the_batch_can_be_part_of_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = outputs(dir.path());
        for expected in [["b0_00001_.png", "b1_00002_.png"], ["b0_00002_.png", "b1_00003_.png"]] {
            let mut series = outputs.series("b%batch_num%", (0, 0)).unwrap();
            let names = [(); 2].map(|()| series.save("png", |file| file.write_all(b"x")).unwrap().filename);
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn threads_that_save_at_once_lose_nothing() {
        const THREADS: usize = 8;
        const EACH: usize = 25;
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let outputs = outputs(dir.path());
                scope.spawn(move || {
                    for file in 0..EACH {
                        let content = format!("{thread}-{file}").repeat(1000);
                        let mut series = outputs.series("same", (0, 0)).unwrap();
                        series.save("txt", |to| to.write_all(content.as_bytes())).unwrap();
                    }
                });
            }
        });
        let root = dir.path().join("output");
        let names = files(&root);
        assert_eq!(names.len(), THREADS * EACH, "every save made a file of its own: {names:?}");
        let contents: BTreeSet<_> = names.iter().map(|name| fs::read_to_string(root.join(name)).unwrap()).collect();
        let expected: BTreeSet<_> = (0..THREADS)
            .flat_map(|thread| (0..EACH).map(move |file| format!("{thread}-{file}").repeat(1000)))
            .collect();
        assert_eq!(contents, expected);
    }

    #[test]
    fn a_failed_write_leaves_nothing_and_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = outputs(dir.path());
        let mut series = outputs.series("a", (0, 0)).unwrap();
        let full = series.save("png", |file| {
            file.write_all(&[0; 100_000])?;
            Err(io::ErrorKind::StorageFull.into())
        });
        match full.unwrap_err() {
            Error::DiskFull { path } => assert_eq!(path, outputs.root().join("a_00001_.png")),
            other => panic!("{other}"),
        }
        assert!(files(outputs.root()).is_empty());
        let after = series.save("png", |file| file.write_all(b"x")).unwrap();
        assert_eq!(after.filename, "a_00001_.png");
    }

    #[test]
    fn what_a_killed_process_left_is_removed_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = outputs(dir.path());
        fs::create_dir(outputs.root()).unwrap();
        let yesterday = std::time::SystemTime::now() - 2 * ABANDONED_AFTER;
        for (name, is_old) in [(".paraflow-a.part", true), (".paraflow-b.part", false), ("c.part", true)] {
            let file = fs::File::create(outputs.root().join(name)).unwrap();
            if is_old {
                file.set_modified(yesterday).unwrap();
            }
        }
        outputs.series("a", (0, 0)).unwrap();
        assert_eq!(files(outputs.root()), [".paraflow-b.part", "c.part"], "old, and ours");
    }

    #[test]
    fn causes_are_told_apart() {
        let cause = |kind: io::ErrorKind| Error::writing(Path::new("a.png"), kind.into());
        assert!(matches!(cause(io::ErrorKind::ReadOnlyFilesystem), Error::ReadOnly { .. }));
        assert!(matches!(cause(io::ErrorKind::PermissionDenied), Error::Denied { .. }));
        assert!(matches!(cause(io::ErrorKind::StorageFull), Error::DiskFull { .. }));
        assert!(matches!(cause(io::ErrorKind::QuotaExceeded), Error::DiskFull { .. }));
        assert!(matches!(cause(io::ErrorKind::NotADirectory), Error::Write { .. }));
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = outputs(dir.path());
        fs::create_dir(outputs.root()).unwrap();
        fs::write(outputs.root().join("taken"), "").unwrap();
        let error = outputs.series("taken/a", (0, 0)).unwrap_err();
        assert!(matches!(&error, Error::Write { path, .. } if path.ends_with("taken")), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn files_get_the_usual_permissions_and_links_out_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let outputs = outputs(dir.path());
        let saved = outputs.series("a", (0, 0)).unwrap().save("png", |file| file.write_all(b"x")).unwrap();
        let plain = dir.path().join("plain");
        fs::write(&plain, "x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&saved.path), mode(&plain));

        fs::create_dir(dir.path().join("far")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("far"), outputs.root().join("link")).unwrap();
        assert!(matches!(outputs.series("link/deeper/a", (0, 0)), Err(Error::Escapes { .. })));
        assert!(files(&dir.path().join("far")).is_empty());
    }

    #[test]
    fn previews_have_a_prefix_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = Outputs::new(dir.path().join("temp"), Place::Temp);
        let letters = outputs.preview_prefix().strip_prefix("ComfyUI_temp_").unwrap();
        assert_eq!(letters.len(), 5);
        assert!(letters.bytes().all(|letter| letter.is_ascii_lowercase()));
    }
}
