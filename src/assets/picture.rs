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

/// Writes pictures of one size as an animation that starts over at its end, each shown for so many thousandths of a second; one
/// picture alone is a plain PNG. The texts stand after the pixels in chunks of ComfyUI's own kind, `comf`.
///
/// # Errors
/// As [`write_png`], and for no pictures.
pub fn write_animated_png(
    to: &mut dyn Write,
    frames: &[Pixels<'_>],
    milliseconds: u16,
    texts: &[(&str, &str)],
    zlib_level: u8,
) -> io::Result<()> {
    encode_frames(to, frames, milliseconds, texts, zlib_level).map_err(|error| match error {
        png::EncodingError::IoError(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidInput, other),
    })
}

fn encode_frames(
    to: &mut dyn Write,
    frames: &[Pixels<'_>],
    milliseconds: u16,
    texts: &[(&str, &str)],
    zlib_level: u8,
) -> Result<(), png::EncodingError> {
    let Some(first) = frames.first() else { return Err(io::Error::from(io::ErrorKind::InvalidInput).into()) };
    let mut encoder = png::Encoder::new(to, first.width, first.height);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_color(match first.channels {
        Channels::Grey => png::ColorType::Grayscale,
        Channels::Rgb => png::ColorType::Rgb,
        Channels::Rgba => png::ColorType::Rgba,
    });
    encoder.set_deflate_compression(png::DeflateCompression::Level(zlib_level));
    encoder.set_filter(png::Filter::Adaptive);
    if frames.len() > 1 {
        let count = u32::try_from(frames.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        encoder.set_animated(count, 0)?;
        encoder.set_frame_delay(milliseconds, 1000)?;
    }
    let mut writer = encoder.write_header()?;
    for frame in frames {
        writer.write_image_data(frame.bytes)?;
    }
    for (keyword, text) in texts {
        let body = [keyword.as_bytes(), b"\0", text.as_bytes()].concat();
        writer.write_chunk(png::chunk::ChunkType(*b"comf"), &body)?;
    }
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
    fn an_animation_has_every_frame_and_its_texts_after_them() {
        let bytes = [[1_u8, 2, 3, 4, 5, 6], [9, 8, 7, 6, 5, 4]];
        let frames = bytes.each_ref().map(|bytes| Pixels { bytes, width: 2, height: 1, channels: Channels::Rgb });
        let mut file = Vec::new();
        write_animated_png(&mut file, &frames, 166, &[("prompt", "{}")], 4).unwrap();
        assert_eq!(chunks(&file), ["IHDR", "acTL", "fcTL", "IDAT", "fcTL", "fdAT", "comf", "IEND"]);
        let mut reader = png::Decoder::new(io::Cursor::new(&file)).read_info().unwrap();
        for frame in &bytes {
            let mut found = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut found).unwrap();
            assert_eq!(found, frame);
            let control = reader.info().frame_control.unwrap();
            assert_eq!((control.delay_num, control.delay_den), (166, 1000));
        }
        let mut still = Vec::new();
        write_animated_png(&mut still, &frames[..1], 166, &[("prompt", "{}")], 4).unwrap();
        assert_eq!(chunks(&still), ["IHDR", "IDAT", "comf", "IEND"]);
        assert!(write_animated_png(&mut Vec::new(), &[], 166, &[], 4).is_err());
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
