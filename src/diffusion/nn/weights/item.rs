//! Tensors as they lie in a mapped file.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::super::header::Entry;
use super::super::mapping::Mapping;
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
    Mapped(Mapping),
    Shared(Arc<[u8]>),
}

impl Bytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping.as_ref(),
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Maps a file; an empty one, which cannot be mapped, is read as no bytes.
pub(super) fn map(path: &Path) -> std::io::Result<Bytes> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory));
    }
    if metadata.len() == 0 {
        return Ok(Bytes::Shared(Arc::from([])));
    }
    Ok(Bytes::Mapped(Mapping::of(file)?))
}
