//! Whether a file is still the one that was read before.

use crate::{Error, Result};
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Up to this size a file is told by its content; above it, by size, time of change and place on the disk, so that
/// asking about a checkpoint costs no reading. Pictures and adapters are mostly below.
const READ_WHOLE_BYTES: u64 = 4 << 20;

/// Equal for equal content (small files) or for the same untouched file (big ones).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Its 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Fingerprints a file.
///
/// # Errors
/// [`Error::Read`].
pub fn fingerprint(path: &Path) -> Result<Fingerprint> {
    let mut file = File::open(path).map_err(Error::reading(path))?;
    let metadata = file.metadata().map_err(Error::reading(path))?;
    let mut hasher = blake3::Hasher::new();
    if metadata.len() <= READ_WHOLE_BYTES {
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(Error::reading(path))?;
        hasher.update(b"content").update(&content);
    } else {
        hasher.update(b"place");
        for fact in identity(&metadata) {
            hasher.update(&fact.to_le_bytes());
        }
    }
    Ok(Fingerprint(hasher.finalize().into()))
}

/// Size, time of change in nanoseconds, and where the system tells, the file's number and device.
pub(crate) fn identity(metadata: &Metadata) -> [u128; 4] {
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    #[cfg(unix)]
    let (file, device) = {
        use std::os::unix::fs::MetadataExt as _;
        (metadata.ino(), metadata.dev())
    };
    #[cfg(not(unix))]
    let (file, device) = (0, 0);
    [metadata.len().into(), changed.map_or(0, |time| time.as_nanos()), file.into(), device.into()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn small_files_are_told_by_content() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "same").unwrap();
        fs::write(&b, "same").unwrap();
        assert_eq!(fingerprint(&a).unwrap(), fingerprint(&b).unwrap());
        fs::write(&b, "sama").unwrap();
        assert_ne!(fingerprint(&a).unwrap(), fingerprint(&b).unwrap());
    }

    #[test]
    fn big_files_change_when_they_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        let content = vec![7_u8; usize::try_from(READ_WHOLE_BYTES).unwrap() + 1];
        fs::write(&path, &content).unwrap();
        let before = fingerprint(&path).unwrap();
        assert_eq!(before, fingerprint(&path).unwrap());

        let new = dir.path().join("new");
        fs::write(&new, &content).unwrap();
        fs::rename(&new, &path).unwrap();
        assert_ne!(before, fingerprint(&path).unwrap());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = fingerprint(Path::new("/no/such/file")).unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
    }
}
