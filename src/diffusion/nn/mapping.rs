//! Files in memory without a copy. The only place of this crate that maps one.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;

/// A mapped file, read-only.
pub(super) struct Mapping {
    bytes: memmap2::Mmap,
    file: File,
    identity: Option<Identity>,
}

/// Tells a file and its content from all others of this machine: whoever writes to the file makes another one of it. The
/// system's numbers of device and file, its length, and when it was last touched, in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity([u64; 5]);

impl Mapping {
    /// Maps a file that is not empty.
    #[expect(unsafe_code, reason = "mapping a checkpoint is the one way to load gigabytes without a copy")]
    pub(super) fn of(file: File) -> io::Result<Self> {
        let identity = Identity::of(&file.metadata()?);
        // SAFETY: the mapping is read-only and private to `Mapping`. Another process that writes to the file changes the numbers
        // that we read, never their meaning as plain bytes; one that cuts it short is warned of in `Weights::open`.
        let bytes = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self { bytes, file, identity: identity.filter(Identity::is_settled) })
    }

    /// What tells it from other files, if the system says that and nobody touched the file a moment before it was opened.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Whether the file is known to hold what it held when it was opened.
    pub(super) fn is_untouched(&self) -> bool {
        let now = || Identity::of(&self.file.metadata().ok()?);
        self.identity.is_some() && self.identity == now()
    }

    /// Gives the whole pages of a range back to the system; they are read from the file again when somebody asks.
    #[cfg(unix)]
    #[expect(unsafe_code, reason = "the system has no other word for it")]
    pub(super) fn release(&self, range: Range<usize>) {
        /// Of any system that we know; where pages are larger, the system widens or refuses, and nothing is lost.
        const PAGE: usize = 1 << 16;
        let (start, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
        if start < end {
            // SAFETY: the mapping is of a file and read-only, so what is forgotten is read anew, the same bytes as before.
            // A refusal changes nothing.
            let _ =
                unsafe { self.bytes.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }

    #[cfg(not(unix))]
    pub(super) fn release(&self, _: Range<usize>) {}
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Identity {
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let touched = [u64::try_from(metadata.ctime()).ok()?, u64::try_from(metadata.ctime_nsec()).ok()?];
        Some(Self([metadata.dev(), metadata.ino(), metadata.len(), touched[0], touched[1]]))
    }

    /// Elsewhere the time of the last touch can be set at will.
    #[cfg(not(unix))]
    fn of(_: &Metadata) -> Option<Self> {
        None
    }

    /// Whether the next writing would be seen in it: a clock has its ticks, of two seconds on some disks.
    fn is_settled(&self) -> bool {
        const TICK: u64 = 2;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.is_ok_and(|now| self.0[3].saturating_add(TICK) < now.as_secs())
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        self.0.iter().flat_map(|number| number.to_le_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    #[test]
    #[cfg(unix)]
    fn whoever_writes_to_a_file_makes_another_of_it() {
        let path = std::env::temp_dir().join(format!("paraflow-identity-{}", std::process::id()));
        std::fs::write(&path, "before").unwrap();
        let open = || Mapping::of(File::open(&path).unwrap()).unwrap();
        let fresh = open();
        assert!(fresh.identity().is_none() && !fresh.is_untouched(), "written a moment ago");
        std::thread::sleep(Duration::from_millis(3100));
        let settled = open();
        assert!(settled.is_untouched() && settled.identity() == open().identity());
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        let mut file = File::options().write(true).open(&path).unwrap();
        file.write_all(b"behind").unwrap();
        file.set_modified(before).unwrap();
        assert!(!settled.is_untouched(), "the old time of change does not hide it");
        std::fs::remove_file(&path).unwrap();
    }
}
