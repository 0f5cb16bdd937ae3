//! Packed weights that are kept in a folder, so that the next process maps them instead of packing them once more.
//!
//! Each weight has a file of its own, named by a hash of all that decides its bytes: those of the tensor, how they are read,
//! and how they are packed. So equal layers of several checkpoints share a file, and a checkpoint that changed finds none of
//! its old ones. A file is hashed when it is opened, once a process: what was damaged is packed anew and replaced, with a word
//! about it. It is written under another name first, so that a reader never sees half of one.
//!
//! The hash of a tensor is remembered too, by what the system says of its file, so that a checkpoint is not read at all when
//! everything of it was packed before. Nothing that goes wrong here ends a run.

mod file;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use blake3::{Hash, Hasher};
use paraflow_kernels::{Form, Matrix};

use self::file::Fault;
use super::mapping::Mapping;
use super::weights::Stored;
use crate::error::{Error, Result};

/// Packed weights of fewer bytes are packed each time: that takes 0.2 ms at the most, and they are a small part of any model.
const SMALLEST: usize = 1 << 16;
/// Ending of a packed weight's file.
const PACKED: &str = "packed";
/// Ending of the file with a tensor's hash.
const SOURCE: &str = "source";
/// The folder inside of files that are being written.
const UNFINISHED: &str = "unfinished";
/// What lay there for so long is left of a process that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder of packed weights. Several processes may use one at a time.
pub struct Prepacked {
    folder: PathBuf,
    tell: Box<dyn Fn(String) + Send + Sync>,
    /// Nothing more is written: it failed once.
    ended: AtomicBool,
    /// Somebody was told that files are of another version.
    told_of_version: AtomicBool,
}

impl fmt::Debug for Prepacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Prepacked").field(&self.folder).finish()
    }
}

/// How much lies in a folder of packed weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packed weights.
    pub weights: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Prepacked {
    /// Uses a folder, which is made if it is not there. `tell` gets the warnings.
    ///
    /// # Errors
    /// [`Error::Unwritable`] where it cannot be made.
    pub fn open(folder: &Path, tell: impl Fn(String) + Send + Sync + 'static) -> Result<Self> {
        let unwritable = |source| Error::Unwritable { file: folder.display().to_string(), source };
        fs::create_dir_all(folder).map_err(unwritable)?;
        sweep(&folder.join(UNFINISHED));
        let (ended, told_of_version) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { folder: folder.to_owned(), tell: Box::new(tell), ended, told_of_version })
    }

    /// What lies in a folder.
    ///
    /// # Errors
    /// [`Error::Unreadable`] where it cannot be looked into.
    pub fn usage(folder: &Path) -> Result<Usage> {
        let unreadable = |source| Error::Unreadable { file: folder.display().to_string(), source };
        each(folder, |_| Ok(())).map_err(unreadable)
    }

    /// Removes every packed weight of a folder and nothing else, and says what that was. Processes that use them go on.
    ///
    /// # Errors
    /// [`Error::Unwritable`] for what cannot be removed.
    pub fn empty(folder: &Path) -> Result<Usage> {
        let unwritable = |source| Error::Unwritable { file: folder.display().to_string(), source };
        each(folder, |path| fs::remove_file(path)).map_err(unwritable)
    }

    /// The packed weight of a tensor: from its file if there is one, else packed, and from the file that is made then.
    pub(super) fn matrix(&self, stored: &Stored, form: &Form) -> Matrix {
        let mapped = stored.mapped().filter(|_| form.bytes() >= SMALLEST);
        let Some((mapping, range)) = mapped else { return stored.pack(form) };
        let bytes = &mapping.as_ref()[range.clone()];
        let content = self.content(mapping, range.start, bytes);
        let name =
            named("a packed weight", &[content.as_bytes(), format!("{:?} {form:?}", stored.reading()).as_bytes()]);
        let path = self.path(&name, PACKED);
        match file::read(&path, &name, form) {
            Ok(Some(matrix)) => return matrix,
            Ok(None) => {}
            Err(fault) => self.tell_of(&path, &fault),
        }
        let matrix = stored.pack(form);
        if self.ended() || !is_as_hashed(mapping, bytes, &content) {
            return matrix;
        }
        self.written(file::write(&self.folder.join(UNFINISHED), &path, &name, form, &matrix)).unwrap_or(matrix)
    }

    /// The hash of a tensor's bytes, remembered where its file can be told from what it may become.
    fn content(&self, mapping: &Mapping, start: usize, bytes: &[u8]) -> Hash {
        let Some(identity) = mapping.identity() else { return hash(bytes) };
        let range = [start, bytes.len()].map(|number| (number as u64).to_le_bytes()).concat();
        let name = named("a tensor's place", &[&identity.to_bytes(), &range]);
        let path = self.path(&name, SOURCE);
        match file::read_hash(&path, &name) {
            Ok(Some(content)) => return content,
            Ok(None) => {}
            Err(fault) => self.tell_of(&path, &fault),
        }
        let content = hash(bytes);
        if !self.ended() && mapping.is_untouched() {
            self.written(file::write_hash(&self.folder.join(UNFINISHED), &path, &name, &content));
        }
        content
    }

    fn path(&self, name: &Hash, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", name.to_hex()))
    }

    /// Whether writing failed before.
    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// What was written. When that fails, it is told, and not tried again.
    fn written<T>(&self, outcome: io::Result<T>) -> Option<T> {
        match outcome {
            Ok(written) => Some(written),
            Err(error) => {
                if !self.ended.swap(true, Ordering::Relaxed) {
                    let way_out = "from here on packed weights stay in memory; free some space, or name another folder";
                    self.tell(format_args!("`{}`: cannot be written: {error}; {way_out}", self.folder.display()));
                }
                None
            }
        }
    }

    /// Says what is wrong with a file that will be replaced; of those of another version, once.
    fn tell_of(&self, path: &Path, fault: &Fault) {
        match fault {
            Fault::Version if self.told_of_version.swap(true, Ordering::Relaxed) => {}
            Fault::Version => {
                let place = self.folder.display();
                self.tell(format_args!(
                    "`{place}`: a packed weight {fault}; it and its like are packed anew and replaced"
                ));
            }
            fault => self
                .tell(format_args!("`{}`: the packed weight {fault}; it is packed anew and replaced", path.display())),
        }
    }

    fn tell(&self, text: impl Display) {
        (self.tell)(text.to_string());
    }
}

/// A name for what such facts decide.
fn named(what: &str, facts: &[&[u8]]) -> Hash {
    let mut hasher = Hasher::new_derive_key(&format!("paraflow prepacked: {what}"));
    for fact in facts {
        hasher.update(&(fact.len() as u64).to_le_bytes()).update(fact);
    }
    hasher.finalize()
}

/// Whether what was packed is what was hashed: nobody wrote to the file in between.
fn is_as_hashed(mapping: &Mapping, bytes: &[u8], content: &Hash) -> bool {
    mapping.is_untouched() || hash(bytes) == *content
}

/// On all threads, since the layer waits for it.
fn hash(bytes: &[u8]) -> Hash {
    Hasher::new().update_rayon(bytes).finalize()
}

/// Walks over the files of packed weights in a folder, and counts them.
fn each(folder: &Path, act: impl Fn(&Path) -> io::Result<()>) -> io::Result<Usage> {
    let mut usage = Usage::default();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).filter(|_| is_named(&path));
        let Some(ending @ (PACKED | SOURCE)) = ending else { continue };
        // Another process may have removed it meanwhile.
        let Ok(metadata) = path.metadata() else { continue };
        usage.bytes += metadata.len();
        usage.weights += usize::from(ending == PACKED);
        act(&path)?;
    }
    Ok(usage)
}

/// Whether a file has a name as ours have them.
fn is_named(path: &Path) -> bool {
    path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| Hash::from_hex(stem).is_ok())
}

/// Removes what killed processes left.
fn sweep(unfinished: &Path) {
    let Ok(entries) = fs::read_dir(unfinished) else { return };
    for entry in entries.flatten() {
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
        if age.is_some_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
