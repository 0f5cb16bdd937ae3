//! Tensors as they lie in a mapped file.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::super::header::Entry;
use super::{Renamed, Stored};

/// One tensor under one name. The same bytes may have several names, in several sources.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) bytes: Arc<Bytes>,
    pub(super) entry: Entry,
    /// Stored as `[columns, rows]`; `entry` speaks of what is read.
    pub(super) transposed: bool,
    pub(super) read: Arc<AtomicBool>,
    /// Of a tensor that lies in no file: the tensors that it is the sum of, each times its factor.
    pub(super) sum: Option<Arc<[(f32, Stored)]>>,
}

impl Item {
    /// Its bytes as they lie in the file.
    pub(super) fn stored(&self) -> &[u8] {
        &self.bytes.as_slice()[self.entry.range.clone()]
    }

    /// A tensor of the same shape that is a sum.
    pub(super) fn summed(&self, terms: &[(f32, Stored)]) -> Self {
        let end = self.entry.shape.iter().product::<usize>() * size_of::<f32>();
        let entry = Entry { dtype: "F32".to_owned(), shape: self.entry.shape.clone(), range: Range { start: 0, end } };
        let bytes = Arc::new(Bytes::Shared(Arc::from([])));
        Self { bytes, entry, transposed: false, read: Arc::default(), sum: Some(terms.into()) }
    }

    /// The tensor under another name; `None` where it has no such part.
    pub(super) fn seen_as(&self, renamed: &Renamed) -> Option<Self> {
        let mut item = self.clone();
        if let Some(terms) = &self.sum {
            let seen = |(factor, stored): &(f32, Stored)| {
                Some((*factor, Stored { item: stored.item.seen_as(renamed)?, ..stored.clone() }))
            };
            item.sum = Some(terms.iter().map(seen).collect::<Option<Vec<_>>>()?.into());
        }
        let (parts, index) = renamed.part;
        if parts > 1 {
            let rows = item.entry.shape.first_mut()?;
            let length = item.entry.range.len();
            if self.transposed || !rows.is_multiple_of(parts) || !length.is_multiple_of(parts) || index >= parts {
                return None;
            }
            *rows /= parts;
            let start = item.entry.range.start + index * (length / parts);
            item.entry.range = Range { start, end: start + length / parts };
        }
        if renamed.transposed {
            if item.entry.shape.len() != 2 {
                return None;
            }
            item.entry.shape.reverse();
            item.transposed = !item.transposed;
        }
        if let Some(rank) = renamed.rank {
            while item.entry.shape.len() > rank && item.entry.shape.last() == Some(&1) {
                item.entry.shape.pop();
            }
            item.entry.shape.resize(rank.max(item.entry.shape.len()), 1);
        }
        Some(item)
    }
}

pub(super) enum Bytes {
    Mapped(memmap2::Mmap),
    Shared(Arc<[u8]>),
}

impl Bytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Shared(bytes) => bytes,
        }
    }

    /// Gives the whole pages of a range back to the system; they are read from the file again when somebody asks.
    #[cfg(unix)]
    #[expect(unsafe_code, reason = "the system has no other word for it")]
    pub(super) fn release(&self, range: Range<usize>) {
        /// Of any system that we know; where pages are larger, the system widens or refuses, and nothing is lost.
        const PAGE: usize = 1 << 16;
        let (start, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
        if let (Self::Mapped(map), true) = (self, start < end) {
            // SAFETY: the mapping is of a file and read-only, so what is forgotten is read anew, the same bytes as before.
            // A refusal changes nothing.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }

    #[cfg(not(unix))]
    pub(super) fn release(&self, _: Range<usize>) {}
}

/// Maps a file; an empty one, which cannot be mapped, is read as no bytes.
#[expect(unsafe_code, reason = "mapping a checkpoint is the one way to load gigabytes without a copy")]
pub(super) fn map(path: &Path) -> std::io::Result<Bytes> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory));
    }
    if metadata.len() == 0 {
        return Ok(Bytes::Shared(Arc::from([])));
    }
    // SAFETY: the mapping is read-only and private to `Source`. Another process that writes to the file changes the numbers
    // that we read, never their meaning as plain bytes; one that cuts it short is warned of in `Weights::open`.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::Mapped(map))
}
