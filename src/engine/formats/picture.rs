//! What pictures carry: the texts of a PNG and of a WebP's EXIF block. Knows nothing of pixels or graphs.
//!
//! ComfyUI writes one `tEXt` chunk a key; other programs that pass a picture on rewrite them as `zTXt` or `iTXt`.
//! Animated PNGs have `comf` chunks, WebP pictures EXIF strings of the form `key:json`. A damaged or truncated picture
//! still gives the texts before the damage, since it is the graph that is wanted here.

use std::io::Read;

use flate2::read::ZlibDecoder;

use super::FormatError;

/// A compressed text longer than this is not unpacked: no graph comes near, and a few kilobytes can unpack to
/// terabytes.
const MAX_TEXT: u64 = 64 << 20;

/// The keys whose texts are read; of others only the key is noted.
const GRAPHS: [&str; 2] = ["prompt", "workflow"];

/// The texts of a picture, by key, in the file's order.
pub(super) struct Texts {
    picture: &'static str,
    texts: Vec<(String, String)>,
    damage: Option<Damage>,
}

/// Where a picture turned out to be damaged, and how.
struct Damage(usize, &'static str);

impl Texts {
    /// The text under `key`.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.texts.iter().find(|(name, _)| name == key).map(|(_, text)| text.as_str())
    }

    /// Why there is no graph in it.
    pub(super) fn without_graph(self) -> FormatError {
        match self.damage {
            Some(Damage(offset, fact)) => FormatError::BrokenPicture { picture: self.picture, offset, fact },
            None => {
                let keys = self.texts.into_iter().map(|(key, _)| key).collect();
                FormatError::NoGraphInPicture { picture: self.picture, keys }
            }
        }
    }
}

/// Collects the texts of one kind of picture.
type Reader = fn(&[u8], &mut Vec<(String, String)>) -> Result<(), Damage>;

/// The texts that a picture carries; nothing if `bytes` are no picture that we know.
pub(super) fn texts(bytes: &[u8]) -> Option<Texts> {
    let read = |picture, read: Reader| {
        let mut texts = Vec::new();
        let damage = read(bytes, &mut texts).err();
        Some(Texts { picture, texts, damage })
    };
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        read("PNG", png)
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        read("WebP", webp)
    } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        read("JPEG", |_, _| Ok(()))
    } else {
        None
    }
}

fn png(bytes: &[u8], texts: &mut Vec<(String, String)>) -> Result<(), Damage> {
    let mut offset = 8;
    while offset < bytes.len() {
        let (length, kind) = match bytes.get(offset..offset + 8) {
            Some(&[a, b, c, d, ref kind @ ..]) => (u32::from_be_bytes([a, b, c, d]) as usize, kind),
            _ => return Err(Damage(offset, "a chunk ends early")),
        };
        let start = offset + 8;
        let Some(chunk) = start.checked_add(length).and_then(|end| bytes.get(start..end)) else {
            return Err(Damage(offset, "a chunk ends early"));
        };
        if let Some((key, value)) = split_at_nul(chunk) {
            let key = latin1(key);
            if let Some(text) = png_text(kind, value, is_new(&key, texts)) {
                texts.push((key, text));
            }
        }
        if kind == b"IEND" {
            return Ok(());
        }
        offset = start + length + 4;
    }
    Err(Damage(bytes.len(), "the last chunk is missing"))
}

/// Whether the text under `key` is one that we read and do not have yet: what is not needed is not unpacked.
fn is_new(key: &str, texts: &[(String, String)]) -> bool {
    GRAPHS.contains(&key) && texts.iter().all(|(have, _)| have != key)
}

/// The text of a chunk, if it is one with text; empty unless `wanted`.
fn png_text(kind: &[u8], value: &[u8], wanted: bool) -> Option<String> {
    match kind {
        b"tEXt" | b"comf" | b"zTXt" | b"iTXt" if !wanted => Some(String::new()),
        b"tEXt" | b"comf" => Some(decoded(value.to_vec())),
        b"zTXt" => Some(decoded(inflate(value.strip_prefix(&[0])?)?)),
        b"iTXt" => {
            // Compression flag and method, then language and translated key, each ended by a NUL.
            let (&[compressed, method], value) = value.split_first_chunk::<2>()?;
            let (_, value) = split_at_nul(value)?;
            let (_, value) = split_at_nul(value)?;
            match (compressed, method) {
                (0, _) => Some(decoded(value.to_vec())),
                (1, 0) => Some(decoded(inflate(value)?)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn split_at_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let nul = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..nul], &bytes[nul + 1..]))
}

fn inflate(zlib: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    ZlibDecoder::new(zlib).take(MAX_TEXT + 1).read_to_end(&mut text).ok()?;
    (text.len() as u64 <= MAX_TEXT).then_some(text)
}

/// `tEXt` is Latin-1 by its standard, and UTF-8 where programs did not know.
fn decoded(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| latin1(error.as_bytes()))
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn webp(bytes: &[u8], texts: &mut Vec<(String, String)>) -> Result<(), Damage> {
    let mut offset = 12;
    while offset < bytes.len() {
        let Some((kind, length)) = bytes.get(offset..offset + 8).and_then(|header| header.split_first_chunk::<4>())
        else {
            return Err(Damage(offset, "a chunk ends early"));
        };
        let length = length.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte));
        let start = offset + 8;
        let Some(chunk) = start.checked_add(length).and_then(|end| bytes.get(start..end)) else {
            return Err(Damage(offset, "a chunk ends early"));
        };
        if kind == b"EXIF" {
            exif(chunk.strip_prefix(b"Exif\0\0").unwrap_or(chunk), texts)
                .ok_or(Damage(start, "the EXIF block ends early"))?;
        }
        offset = start + length + length % 2;
    }
    Ok(())
}

/// The strings of a TIFF structure's first directory that read `key:text`.
fn exif(tiff: &[u8], texts: &mut Vec<(String, String)>) -> Option<()> {
    let little = tiff.starts_with(b"II");
    let number = |offset: usize, length: usize| -> Option<usize> {
        let bytes = tiff.get(offset..offset.checked_add(length)?)?;
        let add = |number: usize, &byte: &u8| number << 8 | usize::from(byte);
        Some(if little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    };
    let directory = number(4, 4)?;
    for entry in 0..number(directory, 2)? {
        let entry = directory.checked_add(2 + entry * 12)?;
        const ASCII: usize = 2;
        if number(entry + 2, 2)? != ASCII {
            continue;
        }
        let length = number(entry + 4, 4)?;
        // Up to four bytes stand in the entry itself.
        let start = if length > 4 { number(entry + 8, 4)? } else { entry + 8 };
        let bytes = tiff.get(start..start.checked_add(length)?)?;
        let Some(colon) = bytes.iter().position(|&byte| byte == b':') else { continue };
        let (key, value) = (latin1(&bytes[..colon]), &bytes[colon + 1..]);
        if is_new(&key, texts) {
            texts.push((key, decoded(value.strip_suffix(&[0]).unwrap_or(value).to_vec())));
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&length[..], kind, data, &[0; 4]].concat()
    }

    fn deflated(text: &[u8]) -> Vec<u8> {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(text).unwrap();
        zlib.finish().unwrap()
    }

    fn png_of(chunks: &[Vec<u8>]) -> Vec<u8> {
        [&b"\x89PNG\r\n\x1a\n"[..], &chunks.concat()].concat()
    }

    fn end() -> Vec<u8> {
        chunk(b"IEND", b"")
    }

    #[test]
    fn every_text_chunk_of_a_png_is_read() {
        let chunks = [
            chunk(b"tEXt", b"prompt\0{}"),
            chunk(b"zTXt", &[b"prompt\0\0".as_slice(), &deflated(b"{}")].concat()),
            chunk(b"iTXt", b"prompt\0\0\0\0\0{}"),
            chunk(b"iTXt", &[b"prompt\0\x01\0en\0Prompt\0".as_slice(), &deflated(b"{}")].concat()),
            chunk(b"comf", b"prompt\0{}"),
        ];
        for text in chunks {
            let picture = png_of(&[chunk(b"IDAT", b"pixels"), text.clone(), end()]);
            assert_eq!(texts(&picture).unwrap().get("prompt"), Some("{}"), "{text:?}");
        }
    }

    #[test]
    fn texts_are_utf8_or_latin1_and_the_first_of_a_key_counts() {
        let utf8 = chunk(b"tEXt", "prompt\0\"ü\"".as_bytes());
        let latin1 = chunk(b"tEXt", b"workflow\0\"\xfc\"");
        let again = chunk(b"tEXt", b"prompt\0other");
        let texts = texts(&png_of(&[utf8, latin1, again, end()])).unwrap();
        assert_eq!((texts.get("prompt"), texts.get("workflow")), (Some("\"ü\""), Some("\"ü\"")));
    }

    #[test]
    fn a_truncated_picture_gives_what_came_before() {
        let text = chunk(b"tEXt", b"prompt\0{}");
        let whole = png_of(&[text.clone(), chunk(b"IDAT", b"pixels"), end()]);
        assert_eq!(texts(&whole[..8 + text.len() + 3]).unwrap().get("prompt"), Some("{}"));
        let broken = texts(&whole[..20]).unwrap().without_graph();
        let fact = "a chunk ends early";
        assert_eq!(broken, FormatError::BrokenPicture { picture: "PNG", offset: 8, fact });
    }

    #[test]
    fn a_picture_without_graph_tells_what_it_carries() {
        let picture = texts(&png_of(&[chunk(b"tEXt", b"parameters\0steps"), end()])).unwrap();
        assert_eq!(picture.without_graph().to_string(), "this PNG picture carries no graph, only `parameters`");
        let jpeg = texts(&[0xff, 0xd8, 0xff, 0xe0]).unwrap();
        assert_eq!(jpeg.without_graph().to_string(), "this JPEG picture carries no graph");
        assert!(texts(b"{}").is_none());
    }

    #[test]
    fn a_small_chunk_does_not_unpack_to_more_than_the_limit() {
        let zeros = deflated(&vec![b' '; MAX_TEXT as usize + 1]);
        assert!(zeros.len() < 1 << 20);
        assert_eq!(inflate(&zeros), None);
    }

    /// A WebP whose EXIF block holds these strings under consecutive tags.
    fn webp_of(strings: &[&str], little: bool) -> Vec<u8> {
        let int = |number: usize, length: usize| {
            let bytes = (number as u32).to_le_bytes()[..length].to_vec();
            if little { bytes } else { bytes.into_iter().rev().collect() }
        };
        let count = strings.len();
        let mut tiff = [if little { b"II" } else { b"MM" }.to_vec(), int(42, 2), int(8, 4), int(count, 2)].concat();
        let mut heap = Vec::new();
        for (index, string) in strings.iter().enumerate() {
            let start = 10 + 12 * count + heap.len();
            tiff.extend([int(0x0110 - index, 2), int(2, 2), int(string.len() + 1, 4), int(start, 4)].concat());
            heap.extend([string.as_bytes(), &[0]].concat());
        }
        tiff.extend(heap);
        let exif = [b"Exif\0\0".as_slice(), &tiff].concat();
        let size = (exif.len() as u32).to_le_bytes();
        [b"RIFF....WEBPVP8 \x03\0\0\0abc\0EXIF".as_slice(), &size, &exif].concat()
    }

    #[test]
    fn the_exif_strings_of_a_webp_are_read_in_both_byte_orders() {
        for little in [true, false] {
            let picture = webp_of(&["prompt:{\"a\": 1}", "workflow:{}"], little);
            let texts = texts(&picture).unwrap();
            assert_eq!((texts.get("prompt"), texts.get("workflow")), (Some("{\"a\": 1}"), Some("{}")));
        }
        let picture = webp_of(&["prompt:{}"], true);
        let damaged = texts(&picture[..picture.len() - 4]).unwrap();
        assert!(matches!(damaged.without_graph(), FormatError::BrokenPicture { picture: "WebP", .. }));
    }
}
