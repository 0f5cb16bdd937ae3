//! PNG files with text in them.

use std::io::{self, Write};

/// How many numbers a pixel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Grey.
    Grey = 1,
    /// Red, green, blue.
    Rgb = 3,
    /// Red, green, blue, opacity.
    Rgba = 4,
}

/// A picture of eight bits a channel.
#[derive(Clone, Copy, Debug)]
pub struct Pixels<'a> {
    /// Row by row, pixel by pixel, `width * height * channels` bytes.
    pub bytes: &'a [u8],
    /// In pixels, not 0.
    pub width: u32,
    /// In pixels, not 0.
    pub height: u32,
    /// What a pixel holds.
    pub channels: Channels,
}

/// Writes a PNG: one `tEXt` chunk a pair of `texts` (keyword, text), in their order and before the pixels, which are
/// packed at `zlib_level` (ComfyUI saves at 4 and previews at 1).
///
/// # Errors
/// Those of `to`; [`io::ErrorKind::InvalidInput`] for a text outside Latin-1, a keyword that PNG does not allow, or
/// bytes that do not fit the size.
pub fn write_png(to: &mut dyn Write, pixels: Pixels<'_>, texts: &[(&str, &str)], zlib_level: u8) -> io::Result<()> {
    encode(to, pixels, texts, zlib_level).map_err(|error| match error {
        png::EncodingError::IoError(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidInput, other),
    })
}

fn encode(
    to: &mut dyn Write,
    pixels: Pixels<'_>,
    texts: &[(&str, &str)],
    zlib_level: u8,
) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(to, pixels.width, pixels.height);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_color(match pixels.channels {
        Channels::Grey => png::ColorType::Grayscale,
        Channels::Rgb => png::ColorType::Rgb,
        Channels::Rgba => png::ColorType::Rgba,
    });
    encoder.set_deflate_compression(png::DeflateCompression::Level(zlib_level));
    encoder.set_filter(png::Filter::Adaptive);
    for (keyword, text) in texts {
        encoder.add_text_chunk((*keyword).to_owned(), (*text).to_owned())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels.bytes)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types of the chunks of a PNG, in order, with the content of those that hold text.
    fn chunks(png: &[u8]) -> Vec<String> {
        let mut rest = &png[8..];
        let mut chunks = Vec::new();
        while let [a, b, c, d, kind @ ..] = rest {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let (kind, body) = (&kind[..4], &kind[4..4 + length]);
            let body = if kind == b"tEXt" { String::from_utf8_lossy(body).replace('\0', "=") } else { String::new() };
            chunks.push(format!("{}{body}", String::from_utf8_lossy(kind)));
            rest = &rest[12 + length..];
        }
        chunks
    }

    #[test]
    fn texts_stand_before_the_pixels_in_order() {
        let pixels = Pixels { bytes: &[1, 2, 3, 4, 5, 6], width: 2, height: 1, channels: Channels::Rgb };
        let mut file = Vec::new();
        write_png(&mut file, pixels, &[("prompt", "{}"), ("workflow", "[1]")], 4).unwrap();
        assert_eq!(chunks(&file), ["IHDR", "tEXtprompt={}", "tEXtworkflow=[1]", "IDAT", "IEND"]);

        let mut reader = png::Decoder::new(io::Cursor::new(&file)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        assert_eq!(bytes, pixels.bytes);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let pixels = Pixels { bytes: &[0; 5], width: 2, height: 1, channels: Channels::Rgb };
        let kind = |pixels, texts: &[(&str, &str)]| write_png(&mut Vec::new(), pixels, texts, 4).unwrap_err().kind();
        assert_eq!(kind(pixels, &[]), io::ErrorKind::InvalidInput);
        let pixels = Pixels { bytes: &[0; 6], ..pixels };
        assert_eq!(kind(pixels, &[("prompt", "€")]), io::ErrorKind::InvalidInput);
        assert_eq!(kind(pixels, &[("", "x")]), io::ErrorKind::InvalidInput);
    }
}
