//! Content hashes of model files, each computed once.

use crate::fingerprint::identity;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The hashes of one file's content, lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// SHA-256: what model sites and pictures' metadata quote, often its first ten digits.
    pub sha256: String,
    /// BLAKE3: ours.
    pub blake3: String,
}

/// Reads a whole file and hashes it.
///
/// # Errors
/// [`Error::Read`].
pub fn hash_file(path: &Path) -> Result<FileHash> {
    let mut file = File::open(path).map_err(Error::reading(path))?;
    let (mut sha256, mut blake3) = (Sha256::new(), blake3::Hasher::new());
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut chunk).map_err(Error::reading(path))?;
        if read == 0 {
            break;
        }
        sha256.update(&chunk[..read]);
        blake3.update(&chunk[..read]);
    }
    let sha256 = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(FileHash { sha256, blake3: blake3.finalize().to_hex().to_string() })
}

/// SHA-256 of bytes in memory, lower-case hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hash as a graph writes it in the place of a name: eight digits or more of SHA-256 or BLAKE3.
pub(crate) struct HashPrefix(String);

impl HashPrefix {
    /// Reads `a1b2c3d4e5` or `name [a1b2c3d4e5]`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let name = name.trim();
        let bracketed = name.strip_suffix(']').and_then(|rest| rest.rsplit_once('['));
        let digits = bracketed.map_or(name, |(_, digits)| digits);
        let is_hash = (8..=64).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then(|| Self(digits.to_ascii_lowercase()))
    }

    pub(crate) fn begins(&self, hash: &FileHash) -> bool {
        hash.sha256.starts_with(&self.0) || hash.blake3.starts_with(&self.0)
    }
}

/// Hashes by file, kept on disk: hashing a checkpoint takes seconds, and a lookup may need all of them.
#[derive(Debug)]
pub struct Hashes {
    file: PathBuf,
    known: Mutex<Option<Known>>,
}

type Known = BTreeMap<PathBuf, Entry>;

/// A hash with what the file looked like when it was taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    identity: [u128; 4],
    #[serde(flatten)]
    hash: FileHash,
}

impl Hashes {
    /// Remembers in `file`, which is read at the first question.
    pub(crate) fn kept_in(file: PathBuf) -> Self {
        Self { file, known: Mutex::new(None) }
    }

    /// The hash of a file, computed if the file is new or was touched since.
    ///
    /// # Errors
    /// [`Error::Read`] for that file. Not being able to remember is no error: the next run hashes again.
    pub fn of(&self, path: &Path) -> Result<FileHash> {
        let metadata = path.metadata().map_err(Error::reading(path))?;
        let identity = identity(&metadata);
        let known = self.lock().get_or_insert_with(|| read(&self.file)).get(path).cloned();
        if let Some(entry) = known
            && entry.identity == identity
        {
            return Ok(entry.hash);
        }
        let hash = hash_file(path)?;
        let mut known = self.lock();
        let known = known.get_or_insert_with(|| read(&self.file));
        known.insert(path.to_owned(), Entry { identity, hash: hash.clone() });
        let _ = write(&self.file, known);
        Ok(hash)
    }

    /// A map is whole after any panic, so a poisoned lock is as good as another.
    fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an earlier run remembered; nothing, if that is not readable.
fn read(file: &Path) -> Known {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn write(file: &Path, known: &Known) -> std::io::Result<()> {
    let dir = file.parent().expect("a file in the base directory");
    std::fs::create_dir_all(dir)?;
    let mut temp = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer(&mut temp, known)?;
    temp.flush()?;
    temp.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_published_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let hash = hash_file(&path).unwrap();
        assert_eq!(hash.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash.blake3, "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
    }

    #[test]
    fn a_damaged_memory_is_forgotten_not_fatal() {
        let dir = tempfile::tempdir().unwrap();
        let (memory, file) = (dir.path().join("user/hashes.json"), dir.path().join("abc"));
        std::fs::create_dir(dir.path().join("user")).unwrap();
        std::fs::write(&memory, "{ not json").unwrap();
        std::fs::write(&file, "abc").unwrap();
        let hash = Hashes::kept_in(memory.clone()).of(&file).unwrap();
        assert!(std::fs::read_to_string(&memory).unwrap().contains(&hash.blake3));
        assert_eq!(Hashes::kept_in(memory).of(&file).unwrap(), hash);
    }

    #[test]
    fn only_hexadecimal_reads_as_a_hash() {
        assert!(HashPrefix::parse("DEADBEEF").is_some());
        assert!(HashPrefix::parse("sd15.safetensors [deadbeef01]").is_some());
        assert!(HashPrefix::parse("deadbee").is_none());
        assert!(HashPrefix::parse("deadbeef.safetensors").is_none());
        assert!(HashPrefix::parse("épée [é]").is_none());
    }
}
