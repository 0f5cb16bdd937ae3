//! A file of named tensors. Opening one reads its header only; the rest stays in the mapping until a layer asks.
//!
//! Names are looked up below a prefix ([`Weights::at`]), so a network's code spells a checkpoint's keys the way that the
//! checkpoint does. What was never asked for can be listed ([`Weights::unread`]): no tensor is dropped silently.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::header::{Entry, Header};
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
    device: Device,
    dtype: DType,
}

struct Source {
    name: String,
    bytes: Bytes,
    entries: BTreeMap<String, (Entry, AtomicBool)>,
    metadata: BTreeMap<String, String>,
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
        let entries = header.tensors.into_iter().map(|(name, entry)| (name, (entry, AtomicBool::new(false)))).collect();
        let source = Arc::new(Source { name, bytes, entries, metadata: header.metadata });
        Ok(Self { source, prefix: String::new(), root: 0, device: Device::Cpu, dtype: DType::F32 })
    }

    /// The same tensors, to be computed with on another device in another type. The default is the CPU in f32.
    #[must_use]
    pub fn on(&self, device: &Device, dtype: DType) -> Self {
        Self { device: device.clone(), dtype, ..self.clone() }
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

    /// Where layers are placed.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What layers compute in.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The free-form strings of the file's header.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.source.metadata
    }

    /// What the file says of a tensor, if it has it. Looking does not count as reading.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<TensorInfo> {
        let (entry, _) = self.source.entries.get(&self.key(name))?;
        Some(TensorInfo { dtype: entry.dtype.clone(), shape: entry.shape.clone() })
    }

    /// The dimensions of a tensor, if the file has it.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.source.entries.get(&self.key(name)).map(|(entry, _)| entry.shape.as_slice())
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
        below.sort_by_key(|(_, (entry, _))| entry.range.start);
        below.into_iter().map(|(name, _)| &name[self.prefix.len()..]).collect()
    }

    /// Whole keys below this prefix that no layer has asked for, sorted.
    #[must_use]
    pub fn unread(&self) -> Vec<String> {
        let unread = self.below().filter(|(_, (_, read))| !read.load(Ordering::Relaxed));
        unread.map(|(name, _)| name.clone()).collect()
    }

    /// Whole keys below this prefix and what they name, sorted.
    fn below(&self) -> impl Iterator<Item = (&String, &(Entry, AtomicBool))> {
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

    /// The place of a tensor that has one of these shapes, to be read later; it counts as read.
    pub(super) fn claim(&self, name: &str, shapes: &[&[usize]]) -> Result<Stored> {
        let key = self.key(name);
        let Some((entry, read)) = self.source.entries.get(&key) else {
            return Err(self.missing(&key));
        };
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
        read.store(true, Ordering::Relaxed);
        Ok(Stored { weights: self.clone(), key, numbers })
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

/// The types that weights are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    F16,
    Bf16,
    F32,
    F64,
}

impl Numbers {
    fn named(dtype: &str) -> Option<Self> {
        match dtype {
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::Bf16),
            "F32" => Some(Self::F32),
            "F64" => Some(Self::F64),
            _ => None,
        }
    }

    fn width(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// One tensor's place in its file: known to be there, of a fitting shape and a readable type.
#[derive(Clone)]
pub(super) struct Stored {
    weights: Weights,
    key: String,
    numbers: Numbers,
}

impl Stored {
    pub(super) fn shape(&self) -> &[usize] {
        &self.entry().shape
    }

    fn entry(&self) -> &Entry {
        &self.weights.source.entries.get(&self.key).expect("only `claim` makes one, of a key that it found").0
    }

    /// All its numbers in order.
    pub(super) fn to_f32(&self) -> Vec<f32> {
        let mut numbers = vec![0.0; self.shape().iter().product()];
        self.read(0, &mut numbers);
        numbers
    }

    /// Its numbers from the `start`-th on, as many as `out` takes. Panics beyond the end.
    pub(super) fn read(&self, start: usize, out: &mut [f32]) {
        let width = self.numbers.width();
        let all = &self.weights.source.bytes.as_slice()[self.entry().range.clone()];
        let bytes = &all[start * width..(start + out.len()) * width];
        match self.numbers {
            Numbers::F16 => convert_f16(bytes, out),
            Numbers::Bf16 => convert(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Numbers::F32 => convert(bytes, out, f32::from_le_bytes),
            Numbers::F64 => convert(bytes, out, |b| f64::from_le_bytes(b) as f32),
        }
    }

    /// The whole tensor in the type and on the device of its [`Weights`].
    pub(super) fn tensor(&self) -> Result<Tensor> {
        let tensor = Tensor::from_vec(self.to_f32(), self.shape(), &Device::Cpu)?;
        Ok(tensor.to_dtype(self.weights.dtype)?.to_device(&self.weights.device)?)
    }
}

/// A few numbers at a time, because the machine has an instruction for many.
fn convert_f16(bytes: &[u8], out: &mut [f32]) {
    let mut block = [f16::ZERO; 256];
    let (elements, _) = bytes.as_chunks::<2>();
    for (out, elements) in out.chunks_mut(block.len()).zip(elements.chunks(block.len())) {
        let block = &mut block[..elements.len()];
        block.iter_mut().zip(elements).for_each(|(number, bytes)| *number = f16::from_le_bytes(*bytes));
        block.convert_to_f32_slice(out);
    }
}

fn convert<const WIDTH: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; WIDTH]) -> f32) {
    let (elements, _) = bytes.as_chunks::<WIDTH>();
    for (out, element) in out.iter_mut().zip(elements) {
        *out = number(*element);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
        let half = stored(Dtype::F32).on(&Device::Cpu, DType::F16).tensor("x", &[3]).unwrap();
        assert_eq!(half.dtype(), DType::F16);
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
