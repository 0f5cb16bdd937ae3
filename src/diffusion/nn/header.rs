//! The header of a safetensors file: eight bytes of length, then JSON that says where each tensor lies. Every claim in it
//! is checked against the file before anything is read by it. Knows no tensors, only their places.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::error::FileFault;

/// No published model comes near it, and the format's own library draws the line at the same place.
const LONGEST_HEADER: u64 = 100_000_000;
/// Its word for the free-form strings beside the tensors.
const METADATA: &str = "__metadata__";

/// Where one tensor lies and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The header's word: `F16`, `F32`.
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    /// Its bytes, counted from the start of the file.
    pub(super) range: Range<usize>,
}

/// A checked header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) tensors: BTreeMap<String, Entry>,
    pub(super) metadata: BTreeMap<String, String>,
}

impl Header {
    /// Reads and checks the header of a whole file. No input makes it panic.
    pub(super) fn parse(file: &[u8]) -> Result<Self, FileFault> {
        let (json, data_start) = split(file)?;
        let raw: Raw =
            serde_json::from_slice(json).map_err(|error| FileFault::BadHeader { reason: error.to_string() })?;
        let mut tensors = BTreeMap::new();
        for (name, tensor) in raw.tensors {
            let entry = tensor.place(&name, file.len(), data_start)?;
            tensors.insert(name, entry);
        }
        check_coverage(&tensors, file.len(), data_start)?;
        Ok(Self { tensors, metadata: raw.metadata })
    }
}

/// The header's JSON and the offset of the first tensor's byte.
fn split(file: &[u8]) -> Result<(&[u8], usize), FileFault> {
    let bytes = file.len() as u64;
    let Some(prefix) = file.first_chunk::<8>() else {
        return Err(recognise(file).unwrap_or(FileFault::HeaderCut { bytes, needed: 8 }));
    };
    let length = u64::from_le_bytes(*prefix);
    let opens = file.get(8) == Some(&b'{');
    if let Some(fault) = recognise(file).filter(|_| !opens || length > LONGEST_HEADER) {
        return Err(fault);
    }
    if length > LONGEST_HEADER {
        return Err(FileFault::HeaderTooLong { bytes: length, limit: LONGEST_HEADER });
    }
    let needed = length + 8;
    if needed > bytes {
        return Err(FileFault::HeaderCut { bytes, needed });
    }
    let end = needed as usize; // At most the file's length, which is a usize.
    Ok((&file[8..end], end))
}

/// What the first bytes betray, for files that are something else.
fn recognise(file: &[u8]) -> Option<FileFault> {
    let text = file.trim_ascii_start();
    match file {
        [] => Some(FileFault::Empty),
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => Some(FileFault::Pickle),
        [b'G', b'G', b'U', b'F', ..] => Some(FileFault::OtherFormat { format: "a GGUF file" }),
        [0x89, b'H', b'D', b'F', ..] => Some(FileFault::OtherFormat { format: "an HDF5 file" }),
        _ if text.starts_with(b"version https://git-lfs") => Some(FileFault::LfsPointer),
        _ if text.starts_with(b"<") => Some(FileFault::WebPage),
        _ => None,
    }
}

/// The tensors must follow one another without gap or overlap to the end of the file, as every writer lays them: anything
/// else is damage.
fn check_coverage(tensors: &BTreeMap<String, Entry>, file_length: usize, data_start: usize) -> Result<(), FileFault> {
    let mut by_place: Vec<(&String, &Entry)> = tensors.iter().collect();
    by_place.sort_by_key(|(_, entry)| (entry.range.start, entry.range.end));
    let mut expected = data_start;
    for (name, entry) in &by_place {
        if entry.range.start != expected {
            return Err(FileFault::NotContiguous {
                name: (*name).clone(),
                expected: (expected - data_start) as u64,
                found: (entry.range.start - data_start) as u64,
            });
        }
        expected = entry.range.end;
    }
    if expected == file_length {
        return Ok(());
    }
    let name = by_place.last().map_or_else(String::new, |(name, _)| (*name).clone());
    Err(FileFault::NotContiguous {
        name,
        expected: (file_length - data_start) as u64,
        found: (expected - data_start) as u64,
    })
}

/// The JSON as it is written, nothing checked but that no name comes twice.
struct Raw {
    tensors: Vec<(String, RawTensor)>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl RawTensor {
    /// Checks the tensor against its file.
    fn place(self, name: &str, file_length: usize, data_start: usize) -> Result<Entry, FileFault> {
        let (start, end) = self.data_offsets;
        let available = (file_length - data_start) as u64;
        let name = || name.to_owned();
        if end > available {
            return Err(FileFault::OutOfRange { name: name(), end, available });
        }
        let found = end.checked_sub(start).ok_or_else(|| FileFault::NotContiguous {
            name: name(),
            expected: start,
            found: end,
        })?;
        let elements = self.shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
        // Types that we do not know are listed by `inspect` and refused when read; their size cannot be checked.
        if let Some(width) = bytes_per_element(&self.dtype) {
            let expected = elements.and_then(|elements| elements.checked_mul(width));
            if expected != Some(found) {
                return Err(FileFault::SizeMismatch { name: name(), expected, found });
            }
        }
        let shape = self.shape.iter().map(|&dim| usize::try_from(dim)).collect::<Result<_, _>>();
        let shape = shape.map_err(|_| FileFault::SizeMismatch { name: name(), expected: None, found })?;
        // Both ends were found to be within the file, whose length is a usize.
        Ok(Entry { dtype: self.dtype, shape, range: data_start + start as usize..data_start + end as usize })
    }
}

/// Bytes of one element of a type, by the header's word for it.
fn bytes_per_element(dtype: &str) -> Option<u64> {
    match dtype {
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" => Some(1),
        "F16" | "BF16" | "I16" | "U16" => Some(2),
        "F32" | "I32" | "U32" => Some(4),
        "F64" | "I64" | "U64" => Some(8),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object that describes tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut raw = Raw { tensors: Vec::new(), metadata: BTreeMap::new() };
        let mut seen = std::collections::BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("`{name}` is described twice")));
            }
            if name == METADATA {
                raw.metadata = map.next_value()?;
            } else {
                raw.tensors.push((name, map.next_value()?));
            }
        }
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with this header and that many bytes of tensors.
    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + data, 0);
        file
    }

    const TWO: &str = r#"{"__metadata__":{"format":"pt"},
        "a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[],"data_offsets":[12,16]}} "#;

    #[test]
    fn finds_tensors_and_metadata() {
        let header = Header::parse(&file(TWO, 16)).unwrap();
        let start = 8 + TWO.len();
        assert_eq!(header.metadata["format"], "pt");
        assert_eq!(header.tensors["a"], Entry { dtype: "F16".into(), shape: vec![2, 3], range: start..start + 12 });
        assert_eq!(header.tensors["b"].shape, [] as [usize; 0]);
    }

    #[test]
    fn tells_what_else_a_file_may_be() {
        let fault = |bytes: &[u8]| Header::parse(bytes).unwrap_err();
        assert_eq!(fault(b""), FileFault::Empty);
        assert_eq!(fault(b"PK\x03\x04 archive/data.pkl"), FileFault::Pickle);
        assert_eq!(fault(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."), FileFault::Pickle);
        assert_eq!(fault(b"  <!DOCTYPE html><html>"), FileFault::WebPage);
        assert_eq!(fault(b"<h"), FileFault::WebPage);
        assert_eq!(fault(b"GGUF\x03\0\0\0\0\0\0\0"), FileFault::OtherFormat { format: "a GGUF file" });
        assert_eq!(fault(b"version https://git-lfs.github.com/spec/v1\n"), FileFault::LfsPointer);
        assert_eq!(fault(&[7, 0]), FileFault::HeaderCut { bytes: 2, needed: 8 });
        assert_eq!(fault(&[200, 0, 0, 0, 0, 0, 0, 0, b'{']), FileFault::HeaderCut { bytes: 9, needed: 208 });
        let long = fault(&[255, 255, 255, 255, 0, 0, 0, 0, b'{']);
        assert_eq!(long, FileFault::HeaderTooLong { bytes: 0xffff_ffff, limit: LONGEST_HEADER });
    }

    #[test]
    fn a_header_whose_length_looks_like_a_pickle_is_read() {
        let mut text = TWO.to_owned();
        text.extend(std::iter::repeat_n(' ', 0x280 - TWO.len()));
        assert_eq!(file(&text, 16)[..2], [0x80, 2]);
        assert!(Header::parse(&file(&text, 16)).is_ok());
    }

    #[test]
    fn refuses_tensors_that_do_not_add_up() {
        let fault = |header: &str, data| Header::parse(&file(header, data)).unwrap_err();
        assert!(matches!(fault(TWO, 15), FileFault::OutOfRange { end: 16, available: 15, .. }));
        assert!(matches!(fault(TWO, 17), FileFault::NotContiguous { expected: 17, found: 16, .. }));
        let overlap = TWO.replace("[12,16]", "[8,12]");
        assert!(matches!(fault(&overlap, 12), FileFault::NotContiguous { expected: 12, found: 8, .. }));
        let backwards = TWO.replace("[12,16]", "[16,12]");
        assert!(matches!(fault(&backwards, 16), FileFault::NotContiguous { .. }));
        let wrong_shape = TWO.replace("[2,3]", "[2,4]");
        assert!(matches!(fault(&wrong_shape, 16), FileFault::SizeMismatch { expected: Some(16), found: 12, .. }));
        let endless = TWO.replace("[2,3]", "[9223372036854775807,9223372036854775807]");
        assert!(matches!(fault(&endless, 16), FileFault::SizeMismatch { expected: None, .. }));
        let twice = TWO.replace("\"b\"", "\"a\"");
        assert!(matches!(fault(&twice, 16), FileFault::BadHeader { reason } if reason.contains("twice")));
        assert!(matches!(fault("[1, 2]", 0), FileFault::BadHeader { .. }));
        assert!(matches!(fault("{\"a\": 3}", 0), FileFault::BadHeader { .. }));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Header::parse(&bytes);
        }

        #[test]
        fn mutated_headers_never_panic(place in 0..TWO.len(), byte in any::<u8>(), cut in 0..300usize) {
            let mut bytes = file(TWO, 16);
            bytes[8 + place] = byte;
            let _ = Header::parse(&bytes);
            bytes.truncate(cut);
            let _ = Header::parse(&bytes);
        }

        #[test]
        fn random_numbers_never_panic(dims in proptest::collection::vec(any::<u64>(), 0..4), start: u64, end: u64) {
            let header = format!(r#"{{"a":{{"dtype":"F32","shape":{dims:?},"data_offsets":[{start},{end}]}}}}"#);
            let _ = Header::parse(&file(&header, 64));
        }
    }
}
