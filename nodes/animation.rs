//! Pictures that move: a batch as one file.

use crate::error::{Error, tell};
use crate::files::FilenamePrefix;
use crate::pictures::to_byte;
use crate::wires::Image;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder as _};
use paraflow_assets::{Assets, Channels, Pixels, Series, python_json, write_animated_png};
use paraflow_engine::{Choice, Context, Json, Node, NodeDef, Result, Run, Shared, Sink};
use serde_json::json;
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<SaveAnimatedPNG>(), NodeDef::of::<SaveAnimatedWEBP>()]
}

/// Saves a batch of pictures as one PNG that moves, with this graph inside.
#[derive(Node)]
#[node(category = "image/animation", sink)]
struct SaveAnimatedPNG {
    /// The pictures, the first first.
    images: Shared<Image>,
    /// What the file's name begins with; `a/b` saves into folder `a`.
    #[input(default = "ComfyUI")]
    filename_prefix: FilenamePrefix,
    /// How many pictures a second.
    #[input(default = 6.0, range = 0.01..=1000.0, step = 0.01)]
    fps: f64,
    /// How hard to pack; higher is smaller and slower.
    #[input(default = 4, range = 0..=9)]
    compress_level: u32,
}

impl Run for SaveAnimatedPNG {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let save = || -> Result<Sink, Error> {
            let moving = Moving::of(&self.images)?;
            let texts = texts(cx);
            let texts: Vec<(&str, &str)> = texts.iter().map(|(key, text)| (*key, text.as_str())).collect();
            let Moving { width, height, channels, .. } = moving;
            let pixels: Vec<Pixels<'_>> =
                moving.frames.iter().map(|bytes| Pixels { bytes, width, height, channels }).collect();
            let duration = u16::try_from(milliseconds(self.fps)).unwrap_or(u16::MAX);
            let saved = series(&moving, &self.filename_prefix, cx)?
                .save("png", |file| write_animated_png(file, &pixels, duration, &texts, self.compress_level as u8))?;
            Ok(shown(&saved, &moving))
        };
        save().map_err(tell)
    }
}

/// Saves a batch of pictures as one WebP that moves, with this graph inside.
#[derive(Node)]
#[node(category = "image/animation", sink)]
struct SaveAnimatedWEBP {
    /// The pictures, the first first.
    images: Shared<Image>,
    /// What the file's name begins with; `a/b` saves into folder `a`.
    #[input(default = "ComfyUI")]
    filename_prefix: FilenamePrefix,
    /// How many pictures a second.
    #[input(default = 6.0, range = 0.01..=1000.0, step = 0.01)]
    fps: f64,
    /// Whether no detail may be lost.
    #[input(default = true)]
    lossless: bool,
    /// How much detail to keep where some may be lost.
    #[input(default = 80, range = 0..=100)]
    quality: u32,
    /// How hard to pack where detail may be lost: slower is smaller.
    #[input(choices = ["default", "fastest", "slowest"])]
    method: Choice<Effort>,
}

impl Run for SaveAnimatedWEBP {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let loss = (!self.lossless).then_some(Loss { quality: self.quality, effort: self.method.0 });
        let save = || -> Result<Sink, Error> {
            let moving = Moving::of(&self.images)?;
            let file = moving.webp(milliseconds(self.fps), &texts(cx), loss)?;
            let saved = series(&moving, &self.filename_prefix, cx)?.save("webp", |to| to.write_all(&file))?;
            Ok(shown(&saved, &moving))
        };
        save().map_err(tell)
    }
}

/// How hard a WebP is packed, 0 to 6.
struct Effort(i32);

impl std::str::FromStr for Effort {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "default" => Ok(Self(4)),
            "fastest" => Ok(Self(0)),
            "slowest" => Ok(Self(6)),
            _ => Err("no such way"),
        }
    }
}

/// How a picture is packed that may lose detail.
#[derive(Clone, Copy)]
struct Loss {
    quality: u32,
    effort: i32,
}

/// Pictures as bytes.
struct Moving {
    frames: Vec<Vec<u8>>,
    width: u32,
    height: u32,
    channels: Channels,
}

impl Moving {
    fn of(images: &Image) -> Result<Self, Error> {
        let (batch, height, width, channels) = images.dims();
        let frame = |picture: usize| -> Result<Vec<u8>, Error> {
            let values = images.values(picture)?;
            if values.iter().any(|value| !value.is_finite()) {
                return Err(Error::NotFinite { what: format!("picture {} of {batch}", picture + 1) });
            }
            Ok(values.into_iter().map(to_byte).collect())
        };
        let channels = match channels {
            1 => Channels::Grey,
            3 => Channels::Rgb,
            _ => Channels::Rgba,
        };
        let frames = (0..batch).map(frame).collect::<Result<_, Error>>()?;
        Ok(Self { frames, width: width as u32, height: height as u32, channels })
    }

    /// The bytes of a WebP: one picture, or frames that are shown one after another for ever. Texts are Exif's.
    fn webp(&self, milliseconds: u32, texts: &[(&str, String)], loss: Option<Loss>) -> Result<Vec<u8>, Error> {
        const ANIMATED: u8 = 0x02;
        const HAS_EXIF: u8 = 0x08;
        const HAS_ALPHA: u8 = 0x10;
        const REPLACES: u8 = 0x02;
        let moves = self.frames.len() > 1;
        let mut flags = if moves { ANIMATED } else { 0 };
        flags |= if texts.is_empty() { 0 } else { HAS_EXIF };
        flags |= if self.channels == Channels::Rgba { HAS_ALPHA } else { 0 };
        let size = [three(self.width - 1), three(self.height - 1)].concat();
        let mut body = chunk(b"VP8X", &[&[flags, 0, 0, 0][..], &size].concat());
        if moves {
            // No colour behind the frames, and no end.
            body.extend(chunk(b"ANIM", &[0; 6]));
        }
        for frame in &self.frames {
            let picture = match loss {
                None => self.packed(frame)?,
                Some(loss) => self.packed_with(loss, frame)?,
            };
            if moves {
                let place = [&[0; 6][..], &size, &three(milliseconds.min(0xff_ffff)), &[REPLACES], &picture].concat();
                body.extend(chunk(b"ANMF", &place));
            } else {
                body.extend(picture);
            }
        }
        if !texts.is_empty() {
            body.extend(chunk(b"EXIF", &exif(texts)));
        }
        Ok(chunk(b"RIFF", &[b"WEBP", body.as_slice()].concat()))
    }

    /// A picture's own chunk.
    fn packed(&self, frame: &[u8]) -> Result<Vec<u8>, Error> {
        const BEFORE_IT: usize = 12;
        let colour = match self.channels {
            Channels::Grey => ExtendedColorType::L8,
            Channels::Rgb => ExtendedColorType::Rgb8,
            Channels::Rgba => ExtendedColorType::Rgba8,
        };
        let mut file = Vec::new();
        let packed = WebPEncoder::new_lossless(&mut file).write_image(frame, self.width, self.height, colour);
        packed.map_err(|error| Error::Picture { name: "a frame".to_owned(), fault: error.to_string() })?;
        Ok(file.split_off(BEFORE_IT))
    }

    /// The same where detail may be lost; opacity is a chunk before it.
    fn packed_with(&self, loss: Loss, frame: &[u8]) -> Result<Vec<u8>, Error> {
        const BEFORE_IT: usize = 12;
        /// With opacity, a header of its own stands before both chunks.
        const EXTENDED: (&[u8; 4], usize) = (b"VP8X", 18);
        let fault = |fault: String| Error::Picture { name: "a frame".to_owned(), fault };
        let mut config = webp::WebPConfig::new().map_err(|()| fault("libwebp cannot be used".to_owned()))?;
        (config.lossless, config.quality, config.method) = (0, loss.quality as f32, loss.effort);
        let grey: Vec<u8>;
        let (layout, pixels) = match self.channels {
            Channels::Rgba => (webp::PixelLayout::Rgba, frame),
            Channels::Rgb => (webp::PixelLayout::Rgb, frame),
            Channels::Grey => {
                grey = frame.iter().flat_map(|value| [*value; 3]).collect();
                (webp::PixelLayout::Rgb, grey.as_slice())
            }
        };
        let packed = webp::Encoder::new(pixels, layout, self.width, self.height).encode_advanced(&config);
        let file = packed.map_err(|error| fault(format!("libwebp refuses it: {error:?}")))?;
        let chunks = &file[BEFORE_IT..];
        Ok(if chunks.starts_with(EXTENDED.0) { &chunks[EXTENDED.1..] } else { chunks }.to_vec())
    }
}

/// Three bytes, the lowest first.
fn three(number: u32) -> [u8; 3] {
    let [a, b, c, _] = number.to_le_bytes();
    [a, b, c]
}

fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let padding = &[0][..body.len() % 2];
    [&name[..], &length, body, padding].concat()
}

/// Texts as a directory of Exif: the first as the camera's model, the others as its maker and the tags before that.
fn exif(texts: &[(&str, String)]) -> Vec<u8> {
    const MODEL: u16 = 0x0110;
    const ASCII: u16 = 2;
    let mut entries: Vec<(u16, Vec<u8>)> = Vec::new();
    for (index, (key, text)) in texts.iter().enumerate() {
        entries.push((MODEL - index as u16, format!("{key}:{text}\0").into_bytes()));
    }
    entries.sort_by_key(|(tag, _)| *tag);
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    file.extend((entries.len() as u16).to_le_bytes());
    let mut place = file.len() + 12 * entries.len() + 4;
    for (tag, text) in &entries {
        file.extend(tag.to_le_bytes());
        file.extend(ASCII.to_le_bytes());
        file.extend((text.len() as u32).to_le_bytes());
        file.extend((place as u32).to_le_bytes());
        place += text.len();
    }
    file.extend([0; 4]);
    file.extend(entries.into_iter().flat_map(|(_, text)| text));
    file
}

fn milliseconds(fps: f64) -> u32 {
    (1000.0 / fps) as u32
}

/// The graph, as files carry it.
fn texts<'c>(cx: &'c Context<'_>) -> Vec<(&'c str, String)> {
    cx.provenance().into_iter().map(|(key, graph)| (key, python_json(graph))).collect()
}

fn series(moving: &Moving, prefix: &str, cx: &Context<'_>) -> Result<Series, Error> {
    Ok(cx.service::<Arc<Assets>>().outputs().series(prefix, (moving.width, moving.height))?)
}

fn shown(saved: &paraflow_assets::Saved, moving: &Moving) -> Sink {
    let place = saved.place.as_str();
    let mut shown = json!({"images": [{"filename": saved.filename, "subfolder": saved.subfolder, "type": place}]});
    if moving.frames.len() > 1 {
        shown["animated"] = Json::Array(vec![Json::Bool(true)]);
    }
    Sink(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use candle_core::{Device, Tensor};
    use paraflow_engine::Value;

    /// A smooth picture packed with loss: near to what it was, the nearer the better the quality, and small.
    #[test]
    fn packing_with_loss_follows_the_quality() {
        let (width, height) = (64, 48);
        let value = |i: usize| {
            let (x, y, channel) = (i / 4 % width, i / 4 / width % height, i % 4);
            let wave = (x as f32 * 0.2 + channel as f32).sin() * (y as f32 * 0.15).cos() * 0.4 + 0.5;
            if channel == 3 { (x as f32 / width as f32).clamp(0.2, 1.0) } else { wave }
        };
        for channels in [3, 4] {
            let values: Vec<f32> = (0..2 * width * height * 4).filter(|i| i % 4 < channels).map(value).collect();
            let batch = Tensor::from_vec(values.clone(), (2, height, width, channels), &Device::Cpu).unwrap();
            let moving = Moving::of(&Image::new(batch).unwrap()).unwrap();
            let packed = |loss| moving.webp(100, &[], loss).unwrap();
            let lossless = packed(None);
            let mut last = (f64::INFINITY, 0);
            for quality in [10, 60, 95] {
                let file = packed(Some(Loss { quality, effort: 4 }));
                assert!(file.len() < lossless.len() && file.len() > last.1, "{quality}: {}", file.len());
                let frames = crate::pictures::decode(&file, "x.webp", crate::memory::Memory::default()).unwrap();
                assert_eq!(frames.len(), 2);
                assert_eq!(frames[0].alpha.is_some(), channels == 4);
                let colours = values.chunks_exact(channels).flat_map(|pixel| pixel[..3].iter().copied());
                let found = frames.iter().flat_map(|frame| frame.rgb.iter().map(|byte| f32::from(*byte) / 255.0));
                let squares: f64 = colours.zip(found).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                let error = (squares / (2 * width * height * 3) as f64).sqrt();
                println!("{channels} channels, quality {quality}: {} bytes, {error:.4}", file.len());
                assert!(error < last.0 && error < 0.06, "{channels} {quality}: {error}");
                last = (error, file.len());
            }
            assert!(last.0 < 0.03, "{channels}: {}", last.0);
        }
    }

    /// What was saved is loaded as the batch that it was, eight bits a channel.
    #[test]
    fn a_batch_comes_back_from_either_kind_of_file() {
        let bench = Bench::new();
        let values: Vec<f32> = (0..3 * 4 * 5 * 3).map(|i| (i * 37 % 256) as f32 / 255.0).collect();
        let batch = Tensor::from_vec(values.clone(), (3, 4, 5, 3), &Device::Cpu).unwrap();
        bench.give("batch", Value::new(Image::new(batch).unwrap()));
        for (class, end, more) in [
            ("SaveAnimatedPNG", "png", json!({"compress_level": 4})),
            ("SaveAnimatedWEBP", "webp", json!({"lossless": true, "quality": 80, "method": "default"})),
        ] {
            let mut inputs = json!({"images": ["1", 0], "filename_prefix": "a/moving", "fps": 8.0});
            inputs.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let saved = bench.run(json!({"1": ["Give", {"name": "batch"}], "2": [class, inputs]}));
            assert_eq!(saved.shown("2")["animated"], json!([true]));
            let file = saved.shown("2")["images"][0]["filename"].as_str().unwrap().to_owned();
            assert!(file.ends_with(end), "{file}");
            let bytes = std::fs::read(bench.path(format!("output/a/{file}"))).unwrap();
            assert!(bytes.windows(10).any(|part| part == b"class_type"), "the graph is in it");
            let loaded = bench.run(json!({
                "1": ["LoadImage", {"image": format!("a/{file} [output]")}], "2": ["Catch", {"value": ["1", 0]}],
            }));
            let loaded = loaded.value::<Image>("2").pixels().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let byte = |value: &f32| (value * 255.0 + 0.5) as i32;
            let off = loaded.iter().zip(&values).map(|(a, b)| (byte(a) - byte(b)).abs()).max().unwrap();
            assert!(loaded.len() == values.len() && off <= 1, "{class}: {off}");
        }
    }
}
