//! Pictures in and out: loading, saving, previews.

use crate::error::{Error, tell};
use crate::files::{AnyPictureName, PictureName};
use crate::memory::Memory;
use crate::pictures::{Frame, decode, to_byte};
use crate::wires::{Image, Mask};
use candle_core::{DType, Device, Tensor};
use paraflow_assets::{Assets, Channels, Outputs, Pixels, python_json, write_png};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Services, Shared, Sink};
use serde_json::json;
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<LoadImage>(),
        NodeDef::of::<LoadImageMask>(),
        NodeDef::of::<PreviewImage>(),
        NodeDef::of::<SaveImage>(),
    ]
}

/// Loads a picture from the input folder, and what is see-through in it as a mask.
///
/// PNG, JPEG, WebP, GIF, BMP and TIFF; turned upright where the camera says so. An animation becomes a batch.
#[derive(Node)]
#[node(category = "image", display_name = "Load Image")]
struct LoadImage {
    /// The picture. A name may end in `[output]` or `[temp]` for a picture of that folder.
    #[input(image_upload)]
    image: PictureName,
}

impl Run for LoadImage {
    type Output = (Image, Mask);

    fn run(self, cx: &Context<'_>) -> Result<(Image, Mask)> {
        let frames = read(&self.image, cx.services()).map_err(tell)?;
        to_wires(&frames).map_err(tell)
    }
}

/// Loads one channel of a picture as a mask.
#[derive(Node)]
#[node(category = "mask", display_name = "Load Image (as Mask)")]
struct LoadImageMask {
    /// The picture. A name may end in `[output]` or `[temp]` for a picture of that folder.
    #[input(image_upload)]
    image: AnyPictureName,
    /// What the mask is: `alpha` selects what is see-through, a colour selects where it is strong.
    #[input(choices = ["alpha", "red", "green", "blue"])]
    channel: Choice<ChannelName>,
}

/// A channel of a picture.
#[derive(Clone, Copy)]
enum ChannelName {
    Alpha,
    Colour(usize),
}

impl std::str::FromStr for ChannelName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        Ok(match name {
            "alpha" => Self::Alpha,
            "red" => Self::Colour(0),
            "green" => Self::Colour(1),
            "blue" => Self::Colour(2),
            _ => return Err("no such channel"),
        })
    }
}

impl Run for LoadImageMask {
    type Output = Mask;

    fn run(self, cx: &Context<'_>) -> Result<Mask> {
        let frames = read(&self.image.0, cx.services()).map_err(tell)?;
        let frame = &frames[0];
        let values: Vec<f32> = match (*self.channel, &frame.alpha) {
            (ChannelName::Colour(place), _) => frame.rgb[place..].iter().step_by(3).map(|c| unit(*c)).collect(),
            (ChannelName::Alpha, Some(alpha)) => alpha.iter().map(|a| 1.0 - unit(*a)).collect(),
            (ChannelName::Alpha, None) => vec![0.0; frame.width * frame.height],
        };
        let values = Tensor::from_vec(values, (1, frame.height, frame.width), &Device::Cpu).map_err(tell)?;
        Mask::new(values).map_err(tell)
    }
}

/// Saves pictures to the output folder as PNG, each with this graph inside.
#[derive(Node)]
#[node(category = "image", display_name = "Save Image", sink)]
struct SaveImage {
    /// The pictures to save.
    images: Shared<Image>,
    /// What file names begin with; `a/b` saves into folder `a`. `%year%`, `%month%`, `%day%`, `%hour%`, `%minute%`,
    /// `%second%`, `%width%`, `%height%` and `%batch_num%` are filled in.
    #[input(default = "ComfyUI")]
    filename_prefix: String,
}

impl Run for SaveImage {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let outputs = cx.service::<Arc<Assets>>().outputs();
        save(&self.images, outputs, &self.filename_prefix, 4, cx)
    }
}

/// Shows pictures without keeping them: they are saved to the folder for temporary files.
#[derive(Node)]
#[node(category = "image", display_name = "Preview Image", sink)]
struct PreviewImage {
    /// The pictures to show.
    images: Shared<Image>,
}

impl Run for PreviewImage {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let previews = cx.service::<Arc<Assets>>().previews();
        save(&self.images, previews, previews.preview_prefix(), 1, cx)
    }
}

/// Reads and decodes a picture file.
fn read(picture: &PictureName, services: &Services) -> Result<Vec<Frame>, Error> {
    let path = picture.find(services)?;
    let read = std::fs::read(&path).map_err(|source| paraflow_assets::Error::Read { path, source })?;
    let frames = decode(&read, picture.name())?;
    let values = frames.len() as u64 * frames[0].width as u64 * frames[0].height as u64 * 4;
    Memory::of(services).require(values * DType::F32.size_in_bytes() as u64, || {
        format!("a picture of {} x {} pixels", frames[0].width, frames[0].height)
    })?;
    Ok(frames)
}

/// Frames as a batch, and as masks what is see-through in them: 64 x 64 zeros, ComfyUI's sign for nothing, where a frame
/// has no opacity.
fn to_wires(frames: &[Frame]) -> Result<(Image, Mask), Error> {
    let (width, height) = (frames[0].width, frames[0].height);
    let colours: Vec<f32> = frames.iter().flat_map(|frame| frame.rgb.iter().map(|c| unit(*c))).collect();
    let image = Tensor::from_vec(colours, (frames.len(), height, width, 3), &Device::Cpu)?;
    let has_alpha = |frame: &Frame| frame.alpha.is_some() && frame.alpha_is_channel;
    let mask = if frames.iter().any(has_alpha) {
        let clear = |frame: &Frame| match &frame.alpha {
            Some(alpha) => alpha.iter().map(|a| 1.0 - unit(*a)).collect(),
            None => vec![0.0; width * height],
        };
        let values: Vec<f32> = frames.iter().flat_map(clear).collect();
        Tensor::from_vec(values, (frames.len(), height, width), &Device::Cpu)?
    } else {
        Tensor::zeros((frames.len(), 64, 64), DType::F32, &Device::Cpu)?
    };
    Ok((Image::new(image)?, Mask::new(mask)?))
}

fn unit(byte: u8) -> f32 {
    f32::from(byte) / 255.0
}

/// Saves every picture of a batch and tells where.
fn save(images: &Image, outputs: &Outputs, prefix: &str, zlib_level: u8, cx: &Context<'_>) -> Result<Sink> {
    let (batch, height, width, channels) = images.dims();
    let prompt = (!cx.prompt().is_null()).then(|| python_json(cx.prompt()));
    let workflow = cx.workflow().map(python_json);
    let texts: Vec<(&str, &str)> = [("prompt", prompt.as_deref()), ("workflow", workflow.as_deref())]
        .into_iter()
        .filter_map(|(keyword, text)| text.map(|text| (keyword, text)))
        .collect();
    let channels = match channels {
        1 => Channels::Grey,
        3 => Channels::Rgb,
        _ => Channels::Rgba,
    };
    let (width, height) = (width as u32, height as u32);

    let mut series = outputs.series(prefix, (width, height)).map_err(tell)?;
    let mut shown = Vec::with_capacity(batch);
    for picture in 0..batch {
        cx.check()?;
        let values = images.values(picture).map_err(tell)?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(tell(Error::NotFinite { what: format!("picture {} of {batch}", picture + 1) }));
        }
        let bytes: Vec<u8> = values.into_iter().map(to_byte).collect();
        let pixels = Pixels { bytes: &bytes, width, height, channels };
        let saved = series.save("png", |file| write_png(file, pixels, &texts, zlib_level)).map_err(tell)?;
        shown.push(json!({"filename": saved.filename, "subfolder": saved.subfolder, "type": saved.place.as_str()}));
    }
    Ok(Sink(json!({"images": shown})))
}
