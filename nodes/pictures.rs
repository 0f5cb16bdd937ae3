//! Picture files into pixels, and pixels into bytes: what loading and saving share.
//!
//! Reads as Pillow would for ComfyUI: turned upright, eight bits a channel, opacity apart.

use crate::error::Error;
use crate::memory::Memory;
use image::codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};
use image::error::{DecodingError, ImageFormatHint};
use image::metadata::Orientation;
use image::{AnimationDecoder, DynamicImage, Frames, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use libjpeg_turbo_rs::{PixelFormat, decompress_to};
use std::io::Cursor;

/// The most pixels that a file may unfold to, all its frames together: where Pillow suspects a decompression bomb.
const MOST_PIXELS: u64 = 178_956_970;

/// One frame of a picture file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Red, green, blue of each pixel, row by row.
    pub(crate) rgb: Vec<u8>,
    /// Opacity of each pixel, if the file has any.
    pub(crate) alpha: Option<Vec<u8>>,
    /// The opacity is a channel or part of the palette, and not one colour marked as transparent, which ComfyUI's
    /// `LoadImage` leaves unseen.
    pub(crate) alpha_is_channel: bool,
}

/// What a pixel takes: four bytes as decoded, four numbers as the wires carry it.
const PIXEL_BYTES: u64 = 4 + 16;

/// Decodes a file: its picture, or all frames of an animation that have the first one's size.
///
/// # Errors
/// [`Error::Picture`] for a file that is damaged, no picture, or larger than anyone's; [`Error::TooLarge`].
pub(crate) fn decode(bytes: &[u8], name: &str, memory: Memory) -> Result<Vec<Frame>, Error> {
    let fail = |fault: String| Error::Picture { name: name.to_owned(), fault };
    if bytes.is_empty() {
        return Err(fail("the file is empty".to_owned()));
    }
    let format = image::guess_format(bytes).map_err(|_| fail("this is no picture that can be read".to_owned()))?;
    if format == ImageFormat::Jpeg && is_cut_jpeg(bytes) {
        return Err(fail("the file is cut short".to_owned()));
    }
    let (width, height) = ImageReader::with_format(Cursor::new(bytes), format)
        .into_dimensions()
        .map_err(|error| fail(explain(&error)))?;
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(fail("it has no pixels".to_owned()));
    }
    if pixels > MOST_PIXELS {
        return Err(fail(format!(
            "it unfolds to {width} x {height} pixels, more than the {MOST_PIXELS} that are read"
        )));
    }
    let room_for = |frames: u64| {
        memory.require(frames * pixels * PIXEL_BYTES, || format!("{frames} x {width} x {height} pixels of \"{name}\""))
    };
    room_for(1)?;
    let Some(animation) = animation(bytes, format).map_err(|error| fail(explain(&error)))? else {
        return Ok(vec![still(bytes, format).map_err(|error| fail(explain(&error)))?]);
    };
    let mut frames: Vec<Frame> = Vec::new();
    for frame in animation {
        let count = frames.len() as u64 + 1;
        if count * pixels > MOST_PIXELS {
            return Err(fail(format!("its frames unfold to more than the {MOST_PIXELS} pixels that are read")));
        }
        room_for(count)?;
        let frame = animated(frame.map_err(|error| fail(explain(&error)))?);
        if frames.first().is_none_or(|first| (first.width, first.height) == (frame.width, frame.height)) {
            frames.push(frame);
        }
    }
    if frames.is_empty() { Err(fail("it holds no picture".to_owned())) } else { Ok(frames) }
}

/// The frames of a file that may have several; `None` for a still.
fn animation(bytes: &[u8], format: ImageFormat) -> Result<Option<Frames<'_>>, ImageError> {
    Ok(match format {
        ImageFormat::Gif => Some(GifDecoder::new(Cursor::new(bytes))?.into_frames()),
        ImageFormat::WebP => {
            let decoder = WebPDecoder::new(Cursor::new(bytes))?;
            decoder.has_animation().then(|| decoder.into_frames())
        }
        ImageFormat::Png => {
            let decoder = PngDecoder::new(Cursor::new(bytes))?;
            if decoder.is_apng()? { Some(decoder.apng()?.into_frames()) } else { None }
        }
        _ => None,
    })
}

fn animated(frame: image::Frame) -> Frame {
    let mut frame = split(&DynamicImage::ImageRgba8(frame.into_buffer()), true);
    // Frames are painted onto a canvas that may be clear, whatever the file says of itself.
    if frame.alpha.as_ref().is_some_and(|alpha| alpha.iter().all(|a| *a == 255)) {
        frame.alpha = None;
    }
    frame
}

fn still(bytes: &[u8], format: ImageFormat) -> Result<Frame, ImageError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    // Sixteen bits and four channels, twice: the decoder's and the result's.
    limits.max_alloc = Some(MOST_PIXELS * 8 * 2);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = match format {
        ImageFormat::Jpeg => as_libjpeg(bytes)?,
        _ => DynamicImage::from_decoder(decoder)?,
    };
    picture.apply_orientation(orientation);
    // Byte 25 of a PNG tells grey (0) or colours (2) without a channel for opacity.
    let marked_colour = format == ImageFormat::Png && matches!(bytes.get(25), Some(0 | 2));
    Ok(split(&picture, !marked_colour))
}

/// A JPEG as libjpeg-turbo decodes it, and so Pillow: decoders differ in how they round and in how they enlarge colours of half
/// the resolution.
fn as_libjpeg(bytes: &[u8]) -> Result<DynamicImage, ImageError> {
    let damaged = |error: Box<dyn std::error::Error + Send + Sync>| {
        ImageError::Decoding(DecodingError::new(ImageFormatHint::Exact(ImageFormat::Jpeg), error))
    };
    let picture = decompress_to(bytes, PixelFormat::Rgb).map_err(|error| damaged(error.into()))?;
    let (width, height) = (picture.width as u32, picture.height as u32);
    let pixels = image::RgbImage::from_raw(width, height, picture.data);
    pixels.map(DynamicImage::ImageRgb8).ok_or_else(|| damaged("it holds fewer pixels than it says".into()))
}

/// Colours and opacity, eight bits each. Sixteen bits are cut to the upper eight, as Pillow does; grey alone is divided
/// by 255, as ComfyUI does.
fn split(picture: &DynamicImage, alpha_is_channel: bool) -> Frame {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let upper = |value: u16| (value >> 8) as u8;
    let grey = |value: u16| (value / 255).min(255) as u8;
    let (rgb, alpha): (Vec<u8>, Option<Vec<u8>>) = match picture {
        DynamicImage::ImageLuma16(pixels) => (pixels.iter().flat_map(|l| [grey(*l); 3]).collect(), None),
        DynamicImage::ImageLumaA16(pixels) => (
            pixels.pixels().flat_map(|p| [upper(p.0[0]); 3]).collect(),
            Some(pixels.pixels().map(|p| upper(p.0[1])).collect()),
        ),
        DynamicImage::ImageRgb16(pixels) => (pixels.iter().map(|value| upper(*value)).collect(), None),
        DynamicImage::ImageRgba16(pixels) => (
            pixels.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(upper)).collect(),
            Some(pixels.pixels().map(|p| upper(p.0[3])).collect()),
        ),
        other if other.color().has_alpha() => {
            let rgba = other.to_rgba8();
            (
                rgba.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]]).collect(),
                Some(rgba.pixels().map(|p| p.0[3]).collect()),
            )
        }
        other => (other.to_rgb8().into_raw(), None),
    };
    Frame { width, height, rgb, alpha, alpha_is_channel }
}

/// Whether a JPEG stops before its end mark, which its decoder would paint over in grey. Inside compressed data the two
/// marks cannot occur.
fn is_cut_jpeg(bytes: &[u8]) -> bool {
    let last = |mark: [u8; 2]| bytes.windows(2).rposition(|pair| pair == mark);
    match (last([0xff, 0xda]), last([0xff, 0xd9])) {
        (Some(scan), Some(end)) => end < scan,
        (_, None) => true,
        (None, Some(_)) => false,
    }
}

/// What a decoder says, in a sentence without its own name.
fn explain(error: &ImageError) -> String {
    match error {
        ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => "the file is cut short".to_owned(),
        ImageError::Limits(_) => format!("it unfolds to more than the {MOST_PIXELS} pixels that are read"),
        ImageError::Decoding(fault) => match std::error::Error::source(fault) {
            Some(source) => format!("the file is damaged: {}", source.to_string().to_lowercase()),
            None => "the file is damaged".to_owned(),
        },
        ImageError::Unsupported(_) => "this kind of picture is not read".to_owned(),
        other => other.to_string(),
    }
}

/// The byte of a value in 0..1: cut off, not rounded, as ComfyUI writes pictures.
pub(crate) fn to_byte(value: f32) -> u8 {
    // The cast cuts at 0 and 255 and drops the fraction.
    (value * 255.0) as u8
}
