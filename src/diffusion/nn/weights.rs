//! A file of named tensors. Opening one reads its header only; the rest stays in the mapping until a layer asks.
//!
//! Names are looked up below a prefix ([`Weights::at`]), so a network's code spells a checkpoint's keys the way that the
//! checkpoint does. What was never asked for can be listed ([`Weights::unread`]): no tensor is dropped silently.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::ops::{Bound, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device, Tensor};
use paraflow_kernels::{Halves, Precision};

use super::compute::Compute;
use super::header::{Entry, Header};
use super::numbers::{Numbers, round_to_half};
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

/// One tensor under one name. The same bytes may have several names, in several sources.
#[derive(Clone)]
struct Item {
    bytes: Arc<Bytes>,
    entry: Entry,
    /// Stored as `[columns, rows]`; `entry` speaks of what is read.
    transposed: bool,
    read: Arc<AtomicBool>,
    /// Of a tensor that lies in no file: the tensors that it is the sum of, each times its factor.
    sum: Option<Arc<[(f32, Stored)]>>,
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

enum Bytes {
    Mapped(memmap2::Mmap),
    Shared(Arc<[u8]>),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Shared(bytes) => bytes,
        }
    }

    /// Gives the whole pages of a range back to the system; they are read from the file again when somebody asks.
    #[cfg(unix)]
    #[expect(unsafe_code, reason = "the system has no other word for it")]
    fn release(&self, range: Range<usize>) {
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
    fn release(&self, _: Range<usize>) {}
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

    /// The same tensors, kept in half precision: [`Compute::keeping_halves`].
    #[must_use]
    pub fn in_halves(&self) -> Self {
        self.on(&self.compute.keeping_halves())
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

impl Item {
    /// Its bytes as they lie in the file.
    fn stored(&self) -> &[u8] {
        &self.bytes.as_slice()[self.entry.range.clone()]
    }

    /// A tensor of the same shape that is a sum.
    fn summed(&self, terms: &[(f32, Stored)]) -> Self {
        let end = self.entry.shape.iter().product::<usize>() * size_of::<f32>();
        let entry = Entry { dtype: "F32".to_owned(), shape: self.entry.shape.clone(), range: Range { start: 0, end } };
        let bytes = Arc::new(Bytes::Shared(Arc::from([])));
        Self { bytes, entry, transposed: false, read: Arc::default(), sum: Some(terms.into()) }
    }

    /// The tensor under another name; `None` where it has no such part.
    fn seen_as(&self, renamed: &Renamed) -> Option<Self> {
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

/// Maps a file; an empty one, which cannot be mapped, is read as no bytes.
#[expect(unsafe_code, reason = "mapping a checkpoint is the one way to load gigabytes without a copy")]
fn map(path: &Path) -> std::io::Result<Bytes> {
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

/// One tensor's place in its file: known to be there, of a fitting shape and a readable type.
#[derive(Clone)]
pub(super) struct Stored {
    weights: Weights,
    item: Item,
    numbers: Numbers,
    /// What every number is multiplied by.
    scale: f32,
}

impl Stored {
    pub(super) fn shape(&self) -> &[usize] {
        &self.item.entry.shape
    }

    /// All its numbers in order.
    pub(super) fn to_f32(&self) -> Vec<f32> {
        let mut numbers = vec![0.0; self.shape().iter().product()];
        self.read(0, &mut numbers);
        numbers
    }

    /// Its numbers from the `start`-th on, as many as `out` takes. Panics beyond the end.
    pub(super) fn read(&self, start: usize, out: &mut [f32]) {
        self.read_as_stored(start, out);
        // What is multiplied by a scale is kept as it lies in the file.
        if self.weights.compute.keeps_halves() && self.numbers != Numbers::F16 && self.scale == 1.0 {
            round_to_half(out);
        }
    }

    fn read_as_stored(&self, start: usize, out: &mut [f32]) {
        if let Some(terms) = &self.item.sum {
            out.fill(0.0);
            let mut term = vec![0.0; out.len()];
            for (factor, stored) in terms.iter() {
                stored.read(start, &mut term);
                out.iter_mut().zip(&term).for_each(|(sum, number)| *sum += factor * number);
            }
            return;
        }
        let width = self.numbers.width();
        let all = self.item.stored();
        if let (true, &[rows, columns]) = (self.item.transposed, self.shape()) {
            let mut number = [0.0];
            for (at, out) in (start..).zip(out) {
                let from = at % columns * rows + at / columns;
                self.numbers.convert(self.scale, &all[from * width..(from + 1) * width], &mut number);
                *out = number[0];
            }
            return;
        }
        self.numbers.convert(self.scale, &all[start * width..(start + out.len()) * width], out);
    }

    /// Where it is computed with.
    pub(super) fn compute(&self) -> &Compute {
        &self.weights.compute
    }

    /// Which numbers of 16 bits it has, if they can be read as they are.
    pub(super) fn halves(&self) -> Option<Halves> {
        match self.numbers {
            _ if self.item.transposed => None,
            Numbers::F16 => Some(Halves::F16),
            Numbers::Bf16 if !self.weights.compute.keeps_halves() => Some(Halves::Bf16),
            _ => None,
        }
    }

    /// The bits of its numbers from the `start`-th on, as many as `out` takes. Panics beyond the end.
    pub(super) fn read_halves(&self, start: usize, out: &mut [u16]) {
        let (stored, _) = self.item.stored()[2 * start..2 * (start + out.len())].as_chunks::<2>();
        out.iter_mut().zip(stored).for_each(|(out, bytes)| *out = u16::from_le_bytes(*bytes));
    }

    /// Tells the system that nobody will read it soon, so that its pages do not count as this process's memory. They stay in
    /// the system's cache of files.
    pub(super) fn release(&self) {
        match &self.item.sum {
            Some(terms) => terms.iter().for_each(|(_, stored)| stored.release()),
            None => self.item.bytes.release(self.item.entry.range.clone()),
        }
    }

    /// The whole tensor in the type and on the device of its [`Weights`].
    pub(super) fn tensor(&self) -> Result<Tensor> {
        let tensor = Tensor::from_vec(self.to_f32(), self.shape(), &Device::Cpu)?;
        self.weights.compute.take(&tensor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use candle_core::DType;
    use half::{bf16, f16};
    use safetensors::tensor::{Dtype, TensorView};

    use super::super::{Conv2d, Embedding, GroupNorm, Linear};
    use super::*;
    use crate::error::FileFault;
    use crate::testing::drawn_file;

    fn drawn(tensors: &[(&str, &[usize])]) -> Weights {
        let tensors: BTreeMap<String, Vec<usize>> =
            tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
        Weights::from_bytes("model.safetensors", drawn_file(&tensors)).unwrap()
    }

    /// A file with the numbers 0.5, -2 and 300 in one type.
    fn stored(dtype: Dtype) -> Weights {
        let numbers = [0.5f64, -2.0, 300.0];
        let bytes: Vec<u8> = match dtype {
            Dtype::F16 => numbers.iter().flat_map(|&x| f16::from_f64(x).to_le_bytes()).collect(),
            Dtype::BF16 => numbers.iter().flat_map(|&x| bf16::from_f64(x).to_le_bytes()).collect(),
            Dtype::F32 => numbers.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
            Dtype::F64 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            _ => vec![0; 24],
        };
        let view = TensorView::new(dtype, vec![3], &bytes).unwrap();
        Weights::from_bytes("model.safetensors", safetensors::serialize([("x", view)], None).unwrap()).unwrap()
    }

    #[test]
    fn every_type_of_number_is_read() {
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64] {
            let x = stored(dtype).tensor("x", &[3]).unwrap();
            assert_eq!(x.to_vec1::<f32>().unwrap(), [0.5, -2.0, 300.0], "{dtype:?}");
        }
        assert_eq!(
            stored(Dtype::I64).tensor("x", &[3]).unwrap_err().to_string(),
            "`model.safetensors`: tensor `x` is stored as I64\nhint: convert the file to f16, bf16 or f32"
        );
        let half = stored(Dtype::F32).on(&Compute::plain(&Device::Cpu, DType::F16)).tensor("x", &[3]).unwrap();
        assert_eq!(half.dtype(), DType::F16);
    }

    /// The values that torch gives these bytes.
    fn eight_bits(scale: Option<f32>, marked: bool) -> Weights {
        let numbers = [0x38, 0x40, 0xb8, 0x30];
        let scale = scale.map(f32::to_le_bytes);
        let mut views = vec![("proj.weight", TensorView::new(Dtype::F8_E4M3, vec![2, 2], &numbers).unwrap())];
        if let Some(scale) = &scale {
            views.push(("proj.scale_weight", TensorView::new(Dtype::F32, vec![1], scale).unwrap()));
        }
        if marked {
            views.push(("scaled_fp8", TensorView::new(Dtype::F8_E4M3, vec![0], &[]).unwrap()));
        }
        Weights::from_bytes("model.safetensors", safetensors::serialize(views, None).unwrap()).unwrap()
    }

    #[test]
    fn eight_bit_weights_have_a_scale_where_their_file_says_so() {
        let numbers = |weights: &Weights| weights.tensor("proj.weight", &[2, 2]).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(numbers(&eight_bits(None, false)), [[1.0, 2.0], [-1.0, 0.5]]);
        let scaled = eight_bits(Some(3.0), true);
        assert_eq!(numbers(&scaled), [[3.0, 6.0], [-3.0, 1.5]]);
        assert_eq!(scaled.unread(), [] as [String; 0]);
        let error = eight_bits(None, true).tensor("proj.weight", &[2, 2]).unwrap_err();
        assert!(matches!(&error, Error::MissingTensor { name, .. } if name == "proj.scale_weight"), "{error}");
    }

    #[test]
    fn tensors_are_renamed_cut_and_turned_without_a_copy() {
        let weights = drawn(&[("a.in.weight", &[6, 2]), ("a.turn", &[2, 3]), ("b", &[1])]);
        let other = weights.part("a.").renamed(|name| match name {
            "in.weight" => {
                (0..3).map(|third| Renamed { part: (3, third), ..Renamed::whole(format!("{third}.weight")) }).collect()
            }
            "turn" => vec![Renamed { transposed: true, ..Renamed::whole("turned.weight") }],
            _ => Vec::new(),
        });
        assert_eq!(other.names().collect::<Vec<_>>(), ["0.weight", "1.weight", "2.weight", "turned.weight"]);
        let whole = weights.tensor("a.in.weight", &[6, 2]).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(other.tensor("1.weight", &[2, 2]).unwrap().to_vec2::<f32>().unwrap(), whole[2..4]);
        let turned = other.tensor("turned.weight", &[3, 2]).unwrap();
        let stored = weights.tensor("a.turn", &[2, 3]).unwrap();
        assert_eq!(turned.t().unwrap().to_vec2::<f32>().unwrap(), stored.to_vec2::<f32>().unwrap());
        let bytes: Vec<u8> =
            turned.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(*other.bytes("turned.weight").unwrap(), *bytes);
        let joined = Weights::joined("both", &[weights.part("b"), other]);
        assert_eq!(joined.names().count(), 5);
        assert_eq!(weights.unread(), ["b"]);
    }

    #[test]
    fn names_are_found_below_their_prefix() {
        let weights = drawn(&[("unet.in.0.bias", &[2]), ("unet.in.0.weight", &[2, 3]), ("vae.bias", &[1])]);
        let layer = weights.part("unet.").at("in").at(0);
        assert_eq!(layer.layer(), "in.0");
        assert_eq!(layer.key("weight"), "unet.in.0.weight");
        assert_eq!(layer.names().collect::<Vec<_>>(), ["bias", "weight"]);
        assert_eq!(layer.shape("weight"), Some(&[2, 3][..]));
        assert!(!layer.contains("in.0.weight"));
        Linear::load(&layer, 3, 2).unwrap();
        assert_eq!(weights.unread(), ["vae.bias"]);
        assert_eq!(weights.metadata()["modelspec.title"], "drawn");
    }

    #[test]
    fn a_tensor_that_is_missing_or_misshapen_is_named() {
        let weights = drawn(&[("proj.bias", &[2]), ("proj.weight", &[2, 3])]);
        let message = |result: Result<Linear>| result.map(|_| ()).unwrap_err().to_string();
        assert_eq!(
            message(Linear::load(&weights.at("proj"), 4, 2)),
            "`model.safetensors`: tensor `proj.weight` has shape [2, 3], its layer needs [2, 4] or [2, 4, 1, 1]"
        );
        assert_eq!(
            message(Linear::load(&weights.at("prog"), 3, 2)),
            "`model.safetensors`: tensor `prog.bias` is missing\nhint: the nearest names are `proj.bias`"
        );
        assert!(Conv2d::load(&weights.at("proj"), 3, 2, 3).is_err());
        let empty = drawn(&[("norm.bias", &[0]), ("norm.weight", &[0])]);
        assert!(GroupNorm::load(&empty.at("norm"), 0, 1e-5).is_err());
        let odd = drawn(&[("norm.bias", &[40]), ("norm.weight", &[40])]);
        assert!(GroupNorm::load(&odd.at("norm"), 40, 1e-5).is_err());
    }

    #[test]
    fn files_that_cannot_be_read_say_why() {
        let folder = std::env::temp_dir().join(format!("paraflow-weights-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let fault = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).unwrap();
            let Err(Error::BadFile { file, fault }) = Weights::open(&path) else { panic!("{name} was opened") };
            assert_eq!(file, path.display().to_string());
            fault
        };
        let whole = drawn_file(&BTreeMap::from([("x".to_owned(), vec![4])]));
        assert_eq!(fault("empty.safetensors", b""), FileFault::Empty);
        assert_eq!(fault("model.ckpt", b"PK\x03\x04archive/data.pkl"), FileFault::Pickle);
        assert_eq!(fault("page.safetensors", b"<!DOCTYPE html>"), FileFault::WebPage);
        assert!(matches!(fault("cut.safetensors", &whole[..whole.len() - 3]), FileFault::OutOfRange { .. }));
        assert!(matches!(fault("cut short.safetensors", &whole[..20]), FileFault::HeaderCut { .. }));
        let path = folder.join("whole.safetensors");
        std::fs::write(&path, &whole).unwrap();
        let mapped = Weights::open(&path).unwrap().tensor("x", &[4]).unwrap();
        let held = Weights::from_bytes("x", whole).unwrap().tensor("x", &[4]).unwrap();
        assert_eq!(mapped.to_vec1::<f32>().unwrap(), held.to_vec1::<f32>().unwrap());
        for path in [folder.clone(), folder.join("nothing.safetensors")] {
            assert!(matches!(Weights::open(path), Err(Error::Unreadable { .. })));
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_was_let_go_of_is_read_again() {
        let path = std::env::temp_dir().join(format!("paraflow-forgotten-{}.safetensors", std::process::id()));
        std::fs::write(&path, drawn_file(&BTreeMap::from([("x".to_owned(), vec![300, 1000])]))).unwrap();
        let weights = Weights::open(&path).unwrap();
        let read = || weights.tensor("x", &[300, 1000]).unwrap().to_vec2::<f32>().unwrap();
        let before = read();
        weights.claim("x", &[&[300, 1000]]).unwrap().release();
        assert!(read() == before);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_embedding_reads_the_rows_it_is_asked_for() {
        let weights = drawn(&[("tokens.weight", &[5, 3])]);
        let table = weights.tensor("tokens.weight", &[5, 3]).unwrap().to_vec2::<f32>().unwrap();
        let embedding = Embedding::load(&weights.at("tokens"), 5, 3).unwrap();
        let rows = embedding.rows(&[4, 0, 4]).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows, [table[4].clone(), table[0].clone(), table[4].clone()]);
        assert!(embedding.rows(&[5]).is_err());
        assert_eq!(embedding.rows(&[]).unwrap().dims(), [0, 3]);
    }
}
