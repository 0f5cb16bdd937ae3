//! A file of named tensors. Opening one reads its header only; the rest stays in the mapping until a layer asks.
//!
//! Names are looked up below a prefix ([`Weights::at`]), so a network's code spells a checkpoint's keys the way that the
//! checkpoint does. What was never asked for can be listed ([`Weights::unread`]): no tensor is dropped silently.

mod item;
mod saved;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use candle_core::Tensor;
use paraflow_kernels::Precision;

use self::item::{Bytes, Item, map};
pub(super) use self::stored::Stored;
use super::compute::{Compute, Kept};
use super::header::Header;
use super::numbers::Numbers;
use crate::error::{Error, Result};

/// What a file says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The header's word for the type: `F16`, `F32`, `I64`.
    pub dtype: String,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// How many numbers it holds, as far as a `usize` counts.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().fold(1, |product, &dim| product.saturating_mul(dim))
    }
}

/// The tensors of one file below one prefix. Cheap to clone; clones share the file.
#[derive(Clone)]
pub struct Weights {
    source: Arc<Source>,
    prefix: String,
    /// Length of the part of the prefix that layers leave out of their names.
    root: usize,
    compute: Compute,
}

struct Source {
    name: String,
    entries: BTreeMap<String, Item>,
    metadata: BTreeMap<String, String>,
}

/// What a stored tensor, or some rows of it, is called from now on; see [`Weights::renamed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// The new name.
    pub name: String,
    /// Of how many equal parts of the rows, and which: `(3, 0)` is the first third. `(1, 0)` is all of them.
    pub part: (usize, usize),
    /// Whether rows and columns change places.
    pub transposed: bool,
    /// How many dimensions it has, if that changes: those at the end that are 1 come and go.
    pub rank: Option<usize>,
}

impl Renamed {
    /// The whole tensor under another name.
    #[must_use]
    pub fn whole(name: impl Into<String>) -> Self {
        Self { name: name.into(), part: (1, 0), transposed: false, rank: None }
    }
}

impl Weights {
    /// Maps a safetensors file into memory and checks its header.
    ///
    /// The file must not be cut shorter while it is in use: the system would end the process. Replacing it (write beside
    /// it, then rename) is safe.
    ///
    /// # Errors
    /// [`Error::Unreadable`] and [`Error::BadFile`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let bytes = map(path).map_err(|source| Error::Unreadable { file: name.clone(), source })?;
        Self::parse(name, bytes)
    }

    /// The same for a file that is in memory, as an embedded model is.
    ///
    /// # Errors
    /// [`Error::BadFile`].
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Result<Self> {
        Self::parse(name.into(), Bytes::Shared(bytes.into()))
    }

    fn parse(name: String, bytes: Bytes) -> Result<Self> {
        let header = Header::parse(bytes.as_slice()).map_err(|fault| Error::BadFile { file: name.clone(), fault })?;
        let bytes = Arc::new(bytes);
        let item = |entry| Item { bytes: bytes.clone(), entry, transposed: false, read: Arc::default(), sum: None };
        let entries = header.tensors.into_iter().map(|(name, entry)| (name, item(entry))).collect();
        Ok(Self::of(Source { name, entries, metadata: header.metadata }))
    }

    fn of(source: Source) -> Self {
        let source = Arc::new(source);
        Self { source, prefix: String::new(), root: 0, compute: Compute::default() }
    }

    /// The tensors below this prefix under other names, as another layout of the same model has them. `rename` gets each
    /// name without the prefix; what it gives no name is left out. Nothing is copied, and what is read from here counts as
    /// read there.
    #[must_use]
    pub fn renamed(&self, rename: impl Fn(&str) -> Vec<Renamed>) -> Self {
        let mut entries = BTreeMap::new();
        for (key, item) in self.below() {
            for renamed in rename(&key[self.prefix.len()..]) {
                if let Some(item) = item.seen_as(&renamed) {
                    entries.insert(renamed.name, item);
                }
            }
        }
        let (name, metadata) = (self.source.name.clone(), self.source.metadata.clone());
        Self::of(Source { name, entries, metadata }).on(&self.compute)
    }

    /// The tensors of all these files in one, under the name of the first. Of equal keys the first counts.
    ///
    /// # Panics
    /// When there are none.
    #[must_use]
    pub fn joined(name: impl Into<String>, files: &[Self]) -> Self {
        let mut entries = BTreeMap::new();
        let mut metadata = BTreeMap::new();
        for file in files {
            for (key, item) in file.below() {
                entries.entry(key[file.prefix.len()..].to_owned()).or_insert_with(|| item.clone());
            }
            for (key, value) in &file.source.metadata {
                metadata.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        let first = files.first().expect("a caller joins at least one file");
        Self::of(Source { name: name.into(), entries, metadata }).on(&first.compute)
    }

    /// This file with the tensors of another in the places of those of the same names below its prefix.
    #[must_use]
    pub(crate) fn overlaid(&self, other: &Self) -> Self {
        let mut entries = self.source.entries.clone();
        for (key, item) in other.below() {
            entries.insert(self.key(&key[other.prefix.len()..]), item.clone());
        }
        let (name, metadata) = (self.source.name.clone(), self.source.metadata.clone());
        Self { source: Arc::new(Source { name, entries, metadata }), ..self.clone() }
    }

    /// The tensors of this file, those below its prefix mixed with those of the same names below another's: `ours · a +
    /// theirs · b`, with the factors that `factors` gives for a name without the prefix. Numbers are read and mixed when a
    /// layer asks for them, in single precision.
    ///
    /// What has no factors, is of no numbers or is missing from the other file stays as it is. So does a tensor of another
    /// shape there, if our factor is 1, as when what two models differ by is added to one that sees more channels; the
    /// second value names these.
    ///
    /// # Errors
    /// [`Error::WrongShape`] for a tensor of another shape whose factor is not 1, and what reading the scales of eight-bit
    /// numbers says.
    pub fn mixed(&self, other: &Self, factors: &dyn Fn(&str) -> Option<[f64; 2]>) -> Result<(Self, Vec<String>)> {
        let mut entries = self.source.entries.clone();
        let mut kept = Vec::new();
        for (key, item) in self.below() {
            let name = &key[self.prefix.len()..];
            let shape = item.entry.shape.as_slice();
            let theirs = other.shape(name).filter(|_| Numbers::named(&item.entry.dtype).is_some());
            let (Some([a, b]), Some(theirs)) = (factors(name), theirs) else { continue };
            if shape.contains(&0) || (a, b) == (1.0, 0.0) {
                continue;
            }
            if without_ones(shape) != without_ones(theirs) {
                if (a - 1.0).abs() > f64::EPSILON {
                    return Err(Error::WrongShape {
                        file: other.source.name.clone(),
                        name: other.key(name),
                        expected: format!("{shape:?}, as in `{}`", self.source.name),
                        found: theirs.to_vec(),
                    });
                }
                kept.push(name.to_owned());
                continue;
            }
            let terms = [(a as f32, self.claim(name, &[shape])?), (b as f32, other.claim(name, &[theirs])?)];
            let terms: Vec<_> = terms.into_iter().filter(|(factor, _)| *factor != 0.0).collect();
            entries.insert(key.clone(), item.summed(&terms));
        }
        let name = match &self.source.name {
            name if *name == other.source.name => name.clone(),
            name => format!("{name} with {}", other.source.name),
        };
        let source = Arc::new(Source { name, entries, metadata: self.source.metadata.clone() });
        Ok((Self { source, ..self.clone() }, kept))
    }

    /// The same tensors, to be computed with elsewhere or in other numbers. The default is the CPU in single precision.
    #[must_use]
    pub fn on(&self, compute: &Compute) -> Self {
        Self { compute: compute.clone(), ..self.clone() }
    }

    /// The same tensors in the same place, multiplied with in other numbers. On the CPU, what layers hand on and all sums
    /// stay f32.
    #[must_use]
    pub fn multiplying_in(&self, precision: Precision) -> Self {
        self.on(&self.compute.multiplying_in(precision))
    }

    /// The same tensors, kept in numbers of choice.
    #[must_use]
    pub fn keeping(&self, kept: Kept) -> Self {
        self.on(&self.compute.keeping(kept))
    }

    /// In which numbers layers multiply.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.compute.precision()
    }

    /// The tensors below one more step of the path: `weights.at("input_blocks").at(1)`.
    #[must_use]
    pub fn at(&self, step: impl Display) -> Self {
        Self { prefix: format!("{}{step}.", self.prefix), ..self.clone() }
    }

    /// The tensors of one part of a file, `model.diffusion_model.` say. Layers below it are named from here on.
    #[must_use]
    pub fn part(&self, prefix: &str) -> Self {
        let prefix = format!("{}{prefix}", self.prefix);
        Self { root: prefix.len(), prefix, ..self.clone() }
    }

    /// All tensors of the file.
    #[must_use]
    pub fn whole(&self) -> Self {
        Self { prefix: String::new(), root: 0, ..self.clone() }
    }

    /// The file's name, for messages.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// The whole key of a name below this prefix.
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The layer that this prefix names, as adapters address it: `input_blocks.1.1.proj_in`.
    #[must_use]
    pub fn layer(&self) -> String {
        self.prefix[self.root..].trim_end_matches('.').to_owned()
    }

    /// Where layers compute, and in which numbers.
    #[must_use]
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// The free-form strings of the file's header.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.source.metadata
    }

    /// What the file says of a tensor, if it has it. Looking does not count as reading.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<TensorInfo> {
        let Item { entry, .. } = self.source.entries.get(&self.key(name))?;
        Some(TensorInfo { dtype: entry.dtype.clone(), shape: entry.shape.clone() })
    }

    /// The dimensions of a tensor, if the file has it.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.source.entries.get(&self.key(name)).map(|item| item.entry.shape.as_slice())
    }

    /// Whether the file has a tensor of that name here.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.source.entries.contains_key(&self.key(name))
    }

    /// Every name below this prefix, sorted, without the prefix.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.below().map(|(name, _)| &name[self.prefix.len()..])
    }

    /// Every name below this prefix, without it, in the order of the tensors' bytes.
    #[must_use]
    pub fn names_in_file_order(&self) -> Vec<&str> {
        let mut below: Vec<_> = self.below().collect();
        below.sort_by_key(|(_, item)| item.entry.range.start);
        below.into_iter().map(|(name, _)| &name[self.prefix.len()..]).collect()
    }

    /// Whole keys below this prefix that no layer has asked for, sorted.
    #[must_use]
    pub fn unread(&self) -> Vec<String> {
        let unread = self.below().filter(|(_, item)| !item.read.load(Ordering::Relaxed));
        unread.map(|(name, _)| name.clone()).collect()
    }

    /// Whole keys below this prefix and what they name, sorted.
    fn below(&self) -> impl Iterator<Item = (&String, &Item)> {
        let from = (Bound::Included(self.prefix.as_str()), Bound::Unbounded);
        let entries = self.source.entries.range::<str, _>(from);
        entries.take_while(|(name, _)| name.starts_with(&self.prefix))
    }

    /// A whole tensor in the type and on the device of these weights.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongShape`], [`Error::UnsupportedNumbers`].
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.claim(name, &[shape])?.tensor()
    }

    /// The bytes of a tensor as its type and shape say, for writing it to another file; it counts as read.
    ///
    /// # Errors
    /// [`Error::MissingTensor`]; [`Error::UnsupportedNumbers`] for a transposed tensor whose numbers are of no known width.
    pub fn bytes(&self, name: &str) -> Result<std::borrow::Cow<'_, [u8]>> {
        use std::borrow::Cow;
        let key = self.key(name);
        let Some(item) = self.source.entries.get(&key) else { return Err(self.missing(&key)) };
        item.read.store(true, Ordering::Relaxed);
        if item.sum.is_some() {
            let numbers = self.claim(name, &[item.entry.shape.as_slice()])?.to_f32();
            return Ok(Cow::Owned(numbers.into_iter().flat_map(f32::to_le_bytes).collect()));
        }
        let (true, &[rows, columns]) = (item.transposed, item.entry.shape.as_slice()) else {
            return Ok(Cow::Borrowed(item.stored()));
        };
        let Some(numbers) = Numbers::named(&item.entry.dtype) else {
            let (file, dtype) = (self.source.name.clone(), item.entry.dtype.clone());
            return Err(Error::UnsupportedNumbers { file, name: key, dtype });
        };
        let (width, stored) = (numbers.width(), item.stored());
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| column * rows + row));
        Ok(Cow::Owned(cells.flat_map(|at| stored[at * width..(at + 1) * width].iter().copied()).collect()))
    }

    /// Whether [`bytes`](Self::bytes) can give a tensor's; it counts as read.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub(crate) fn readable(&self, name: &str) -> Result<()> {
        let key = self.key(name);
        let Some(item) = self.source.entries.get(&key) else { return Err(self.missing(&key)) };
        item.read.store(true, Ordering::Relaxed);
        if item.transposed && Numbers::named(&item.entry.dtype).is_none() {
            let (file, dtype) = (self.source.name.clone(), item.entry.dtype.clone());
            return Err(Error::UnsupportedNumbers { file, name: key, dtype });
        }
        Ok(())
    }

    /// The place of a tensor that has one of these shapes, to be read later; it counts as read.
    pub(super) fn claim(&self, name: &str, shapes: &[&[usize]]) -> Result<Stored> {
        let key = self.key(name);
        let Some(item) = self.source.entries.get(&key) else {
            return Err(self.missing(&key));
        };
        let entry = &item.entry;
        if !shapes.contains(&entry.shape.as_slice()) || entry.shape.contains(&0) {
            let shapes: Vec<String> = shapes.iter().map(|shape| format!("{shape:?}")).collect();
            return Err(Error::WrongShape {
                file: self.source.name.clone(),
                name: key,
                expected: shapes.join(" or "),
                found: entry.shape.clone(),
            });
        }
        let Some(numbers) = Numbers::named(&entry.dtype) else {
            return Err(Error::UnsupportedNumbers {
                file: self.source.name.clone(),
                name: key,
                dtype: entry.dtype.clone(),
            });
        };
        let scale = if numbers.is_eight_bits() { self.scale_of(name)? } else { 1.0 };
        item.read.store(true, Ordering::Relaxed);
        Ok(Stored { weights: self.clone(), item: item.clone(), numbers, scale })
    }

    /// What the numbers of an 8-bit weight are multiplied by: `scale_weight` beside it. A file that says of itself that its
    /// weights are scaled (`scaled_fp8`) must have one for each matrix.
    fn scale_of(&self, name: &str) -> Result<f32> {
        let marked = |prefix: &str| self.source.entries.get(&format!("{prefix}scaled_fp8"));
        let key = self.key(name);
        let ends = std::iter::once(0).chain(key.match_indices('.').map(|(at, _)| at + 1));
        let marker = ends.filter_map(|end| marked(&key[..end])).next();
        if let Some(marker) = marker {
            marker.read.store(true, Ordering::Relaxed);
        }
        let Some(layer) = key.strip_suffix("weight") else { return Ok(1.0) };
        if let Some(input) = self.source.entries.get(&format!("{layer}scale_input")) {
            // The scale of inputs matters to 8-bit products only.
            input.read.store(true, Ordering::Relaxed);
        }
        let scale = format!("{layer}scale_weight");
        match self.source.entries.get(&scale) {
            Some(item) if item.entry.shape.iter().product::<usize>() == 1 => {
                let numbers = Numbers::named(&item.entry.dtype).filter(|numbers| !numbers.is_eight_bits());
                let numbers = numbers.ok_or_else(|| Error::UnsupportedNumbers {
                    file: self.source.name.clone(),
                    name: scale,
                    dtype: item.entry.dtype.clone(),
                })?;
                item.read.store(true, Ordering::Relaxed);
                let stored = Stored { weights: self.clone(), item: item.clone(), numbers, scale: 1.0 };
                Ok(stored.to_f32()[0])
            }
            None if marker.is_none() || self.source.entries[&key].entry.shape.len() < 2 => Ok(1.0),
            Some(item) => Err(Error::WrongShape {
                file: self.source.name.clone(),
                name: scale,
                expected: "[] or [1]".to_owned(),
                found: item.entry.shape.clone(),
            }),
            None => Err(self.missing(&scale)),
        }
    }

    /// The error for a key that is not there, with the keys that resemble it.
    pub(crate) fn missing(&self, key: &str) -> Error {
        let names = self.source.entries.keys().map(String::as_str);
        Error::MissingTensor { file: self.source.name.clone(), name: key.to_owned(), nearest: nearest(key, names) }
    }
}

/// Up to three names that resemble one, most alike first.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut scored: Vec<(f64, &str)> =
        names.map(|other| (strsim::normalized_damerau_levenshtein(name, other), other)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.iter().take(3).filter(|(score, _)| *score > 0.6).map(|(_, name)| (*name).to_owned()).collect()
}

/// A shape without ones at its end: a convolution of one pixel is a matrix.
fn without_ones(shape: &[usize]) -> &[usize] {
    let end = shape.iter().rposition(|&dim| dim != 1).map_or(0, |last| last + 1);
    &shape[..end]
}
