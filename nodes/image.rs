//! Pictures in and out: loading, saving, previews.

use crate::error::{Error, tell};
use crate::files::{AnyPictureName, CaptureName, FilenamePrefix, PictureName};
use crate::memory::Memory;
use crate::pictures::{Frame, decode, to_byte};
use crate::wires::{Image, MAX_SIZE, Mask};
use candle_core::{DType, Device, Tensor};
use paraflow_assets::{Assets, Channels, Outputs, Pixels, python_json, write_png};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Services, Shared, Sink};
use serde_json::json;
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<LoadImage>(),
        NodeDef::of::<LoadImageMask>(),
        NodeDef::of::<LoadImageOutput>(),
        NodeDef::of::<MaskPreview>(),
        NodeDef::of::<PreviewImage>(),
        NodeDef::of::<SaveImage>(),
        NodeDef::of::<WebcamCapture>(),
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

/// Loads a picture that was saved, and what is see-through in it as a mask.
#[derive(Node)]
#[node(category = "image", display_name = "Load Image (from Outputs)", experimental)]
struct LoadImageOutput {
    /// The picture: `x.png [output]`.
    #[input(image_upload, image_folder = "output")]
    image: PictureName,
}

impl Run for LoadImageOutput {
    type Output = (Image, Mask);

    fn run(self, cx: &Context<'_>) -> Result<(Image, Mask)> {
        let frames = read(&self.image, cx.services()).map_err(tell)?;
        to_wires(&frames).map_err(tell)
    }
}

/// Loads what an editor's camera took.
#[derive(Node)]
#[node(category = "image", display_name = "Webcam Capture", outputs = ["IMAGE"])]
struct WebcamCapture {
    /// The picture that the editor uploaded: `webcam/x.png [temp]`. Without a camera, the name of any picture.
    image: CaptureName,
    /// Width that the editor takes pictures in; 0 for the camera's.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 1)]
    width: u32,
    /// Height that it takes them in; 0 for the camera's.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 1)]
    height: u32,
    /// Whether it takes one when the graph is queued, and not by hand.
    #[input(default = true)]
    capture_on_queue: bool,
}

impl Run for WebcamCapture {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        // The editor has seen to these when the picture arrives.
        let _ = (self.width, self.height, self.capture_on_queue);
        let frames = read(&self.image.0, cx.services()).map_err(tell)?;
        Ok(to_wires(&frames).map_err(tell)?.0)
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
    filename_prefix: FilenamePrefix,
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

/// Shows masks without keeping them, in shades of grey.
#[derive(Node)]
#[node(category = "mask", display_name = "Preview Mask", sink)]
struct MaskPreview {
    /// The masks to show.
    mask: Shared<Mask>,
}

impl Run for MaskPreview {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let (batch, height, width) = self.mask.dims();
        let grey = self.mask.values().unsqueeze(3).and_then(|mask| mask.broadcast_as((batch, height, width, 3)));
        let previews = cx.service::<Arc<Assets>>().previews();
        save(&Image::new(grey.map_err(tell)?).map_err(tell)?, previews, previews.preview_prefix(), 1, cx)
    }
}

/// Reads and decodes a picture file.
fn read(picture: &PictureName, services: &Services) -> Result<Vec<Frame>, Error> {
    let path = picture.find(services)?;
    let read = std::fs::read(&path).map_err(|source| paraflow_assets::Error::Read { path, source })?;
    decode(&read, picture.name(), Memory::of(services))
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

/// Whether a PNG can name a text so.
fn is_keyword(word: &str) -> bool {
    let fits = |letter: char| matches!(letter, ' '..='~' | '\u{a1}'..='\u{ff}');
    (1..=79).contains(&word.chars().count()) && word.chars().all(fits)
}

/// Saves every picture of a batch and tells where.
pub(crate) fn save(images: &Image, outputs: &Outputs, prefix: &str, zlib_level: u8, cx: &Context<'_>) -> Result<Sink> {
    let (batch, height, width, channels) = images.dims();
    let told = cx.provenance();
    let told: Vec<(&str, String)> = told.into_iter().map(|(keyword, value)| (keyword, python_json(value))).collect();
    let (texts, left): (Vec<_>, Vec<_>) =
        told.iter().map(|(keyword, text)| (*keyword, text.as_str())).partition(|(keyword, _)| is_keyword(keyword));
    for (keyword, _) in left {
        cx.warn(format!("{keyword:?} is no keyword of a PNG (1 to 79 letters of Latin-1), and is not written"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use paraflow_engine::Value;
    use std::fs;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/nodes/");

    #[test]
    fn a_capture_is_the_picture_that_was_uploaded() {
        let bench = Bench::new();
        let picture = fs::read(format!("{GOLDEN}pictures/{}", first_picture())).unwrap();
        bench.write("temp/webcam/shot.png", &picture);
        let captured = json!({"image": "webcam/shot.png [temp]", "width": 0, "height": 0, "capture_on_queue": true});
        let outcome = bench.run(json!({
            "capture": ["WebcamCapture", captured], "load": ["LoadImage", {"image": "webcam/shot.png [temp]"}],
            "a": ["Catch", {"value": ["capture", 0]}], "b": ["Catch", {"value": ["load", 0]}],
        }));
        let values = |id: &str| outcome.value::<Image>(id).values(0).unwrap();
        assert_eq!(values("a"), values("b"));
        let missing = json!({"image": "webcam/gone.png [temp]", "width": 0, "height": 0, "capture_on_queue": true});
        let told =
            bench.refusal(json!({"capture": ["WebcamCapture", missing], "a": ["Catch", {"value": ["capture", 0]}]}));
        assert!(told.contains("gone.png"), "{told}");
    }

    fn first_picture() -> String {
        let names = fs::read_dir(format!("{GOLDEN}pictures")).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.ends_with(".png"));
        names.sort();
        names.swap_remove(0)
    }

    /// Recorded from ComfyUI; see `tests/golden/nodes.py`.
    #[test]
    fn pictures_load_as_in_comfyui() {
        let recorded = candle_core::safetensors::load(format!("{GOLDEN}pictures.safetensors"), &Device::Cpu).unwrap();
        let bench = Bench::new();
        let mut names: Vec<_> = fs::read_dir(format!("{GOLDEN}pictures")).unwrap().map(|e| e.unwrap()).collect();
        names.sort_by_key(fs::DirEntry::file_name);
        assert!(names.len() >= 30);
        for entry in names {
            let name = entry.file_name().into_string().unwrap();
            bench.write(&format!("input/{name}"), &fs::read(entry.path()).unwrap());
            let outcome = bench.run(json!({
                "1": ["LoadImage", {"image": name}],
                "2": ["LoadImageMask", {"image": name, "channel": "red"}],
                "3": ["LoadImageMask", {"image": name, "channel": "alpha"}],
                "image": ["Catch", {"value": ["1", 0]}],
                "mask": ["Catch", {"value": ["1", 1]}],
                "red": ["Catch", {"value": ["2", 0]}],
                "alpha": ["Catch", {"value": ["3", 0]}],
            }));
            let image = outcome.value::<Image>("image");
            // Frames are blended onto their canvas, and rounded there.
            let tolerance = if name == "moving.webp" { 1.01 / 255.0 } else { 0.0 };
            compare(&name, "image", image.pixels(), &recorded, tolerance);
            for mask in ["mask", "red", "alpha"] {
                compare(&name, mask, outcome.value::<Mask>(mask).values(), &recorded, tolerance);
            }
        }
    }

    fn compare(
        name: &str,
        what: &str,
        found: &Tensor,
        recorded: &std::collections::HashMap<String, Tensor>,
        tolerance: f32,
    ) {
        let expected = &recorded[&format!("{name}/{what}")];
        // ComfyUI's alpha is never of another size here, but a mask without alpha is always 64 x 64.
        assert_eq!(found.dims(), expected.dims(), "{name}: {what}");
        let worst = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        let worst = worst.to_scalar::<f32>().unwrap();
        assert!(worst <= tolerance, "{name}: {what} is off by {worst}");
    }

    #[test]
    fn sixteen_bit_grey_is_divided_by_255() {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 3, 1);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Sixteen);
        let bytes: Vec<u8> = [0_u16, 25_755, 65_535].iter().flat_map(|value| value.to_be_bytes()).collect();
        encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
        let frames = decode(&file, "grey", Memory::default()).unwrap();
        assert_eq!(frames[0].rgb, [0, 0, 0, 101, 101, 101, 255, 255, 255]);
    }

    #[test]
    fn what_cannot_be_read_is_told_before_or_at_the_node() {
        let bench = Bench::new();
        let whole = fs::read(format!("{GOLDEN}pictures/rgb.png")).unwrap();
        let jpeg = fs::read(format!("{GOLDEN}pictures/rgb.jpg")).unwrap();
        bench.write("input/portrait.png", &whole);
        let graph =
            |name: &str| json!({"1": ["LoadImage", {"image": name}], "2": ["PreviewImage", {"images": ["1", 0]}]});

        let faults = bench.plan(graph("portrat.png")).err().unwrap();
        let text = faults[0].to_string();
        assert!(text.contains("portrat.png"), "{text}");
        assert!(bench.plan(graph("../portrait.png")).is_err());

        bench.write("input/empty.png", b"");
        bench.write("input/text.png", b"this is no picture");
        bench.write("input/cut.png", &whole[..whole.len() - 40]);
        bench.write("input/cut.jpg", &jpeg[..jpeg.len() - 40]);
        for name in ["empty.png", "text.png", "cut.png", "cut.jpg"] {
            let outcome = bench.run(graph(name));
            let (node, error) = outcome.failure();
            assert_eq!(node, "1");
            assert!(error.to_string().starts_with(&format!("picture \"{name}\": ")), "{error}");
            assert!(error.hint().is_some());
            assert!(!bench.path("temp").exists(), "{name} left something behind");
        }
    }

    #[test]
    fn decompression_bombs_do_not_unfold() {
        // A valid PNG of 200,000 x 200,000 pixels begins like this; nothing of it is read but the size.
        let mut bomb = fs::read(format!("{GOLDEN}pictures/rgb.png")).unwrap();
        bomb[16..24].copy_from_slice(&[0, 3, 13, 64, 0, 3, 13, 64]);
        let crc = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&crc.to_be_bytes());
        let error = decode(&bomb, "bomb.png", Memory::default()).unwrap_err();
        assert!(error.to_string().contains("200000 x 200000 pixels"), "{error}");

        let bench = Bench::with_memory(100);
        for name in ["rgb_marked.png", "rgb.png"] {
            bench.write(&format!("input/{name}"), &fs::read(format!("{GOLDEN}pictures/{name}")).unwrap());
        }
        let graph = |name: &str| json!({"1": ["LoadImage", {"image": name}], "2": ["Catch", {"value": ["1", 0]}]});
        assert_eq!(bench.run(graph("rgb_marked.png")).value::<Image>("2").dims(), (1, 1, 2, 3));
        let outcome = bench.run(graph("rgb.png"));
        assert!(outcome.failure().1.to_string().starts_with("1 x 5 x 4 pixels of \"rgb.png\" needs"), "{outcome:?}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
    }

    #[test]
    fn pictures_are_saved_cut_off_not_rounded_and_carry_the_graph() {
        let bench = Bench::new();
        let values = [0.0_f32, 0.999, 1.0, -3.0, 7.0, 0.5];
        let image = Tensor::from_slice(&values, (2, 1, 1, 3), &Device::Cpu).unwrap();
        bench.give("image", Value::new(Image::new(image).unwrap()));
        let graph = json!({
            "1": ["Give", {"name": "image"}],
            "2": ["SaveImage", {"images": ["1", 0], "filename_prefix": "a/ä%width%"}],
        });
        let outcome = bench.run(graph.clone());
        assert_eq!(
            outcome.shown("2")["images"],
            json!([
                {"filename": "ä1_00001_.png", "subfolder": "a", "type": "output"},
                {"filename": "ä1_00002_.png", "subfolder": "a", "type": "output"},
            ])
        );
        let mut reader =
            png::Decoder::new(std::io::Cursor::new(fs::read(bench.path("output/a/ä1_00001_.png")).unwrap()))
                .read_info()
                .unwrap();
        let mut bytes = [0; 3];
        reader.next_frame(&mut bytes).unwrap();
        assert_eq!(bytes, [0, 254, 255]);
        let texts = &reader.info().uncompressed_latin1_text;
        assert_eq!(texts.len(), 1, "no workflow was there");
        assert_eq!(texts[0].keyword, "prompt");
        assert!(texts[0].text.contains(r#""filename_prefix": "a/\u00e4%width%""#), "{}", texts[0].text);

        let again = bench.run(graph);
        assert_eq!(again.shown("2")["images"][0]["filename"], "ä1_00003_.png");
    }

    #[test]
    fn a_workflow_is_carried_beside_the_prompt() {
        let slot = json!({"name": "images", "type": "IMAGE", "link": 1});
        let workflow = json!({
            "last_node_id": 2, "last_link_id": 1, "version": 0.4, "groups": [], "config": {}, "extra": {"note": "ü😀"},
            "links": [[1, 1, 0, 2, 0, "IMAGE"]],
            "nodes": [
                {"id": 1, "type": "EmptyImage", "pos": [0, 0], "size": [1, 1], "mode": 0, "order": 0, "inputs": [],
                 "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}], "widgets_values": [2, 1, 1, 255]},
                {"id": 2, "type": "SaveImage", "pos": [9, 0], "size": [1, 1], "mode": 0, "order": 1, "inputs": [slot],
                 "outputs": [], "widgets_values": ["x"]},
            ],
        });
        let bench = Bench::new();
        bench.run_file(&serde_json::to_vec(&workflow).unwrap());
        let file = fs::read(bench.path("output/x_00001_.png")).unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let texts: Vec<_> = reader
            .info()
            .uncompressed_latin1_text
            .iter()
            .map(|text| (text.keyword.as_str(), text.text.as_str()))
            .collect();
        assert_eq!(texts.len(), 2);
        assert_eq!(texts[0].0, "prompt");
        assert!(
            texts[0].1.contains(r#""inputs": {"width": 2, "height": 1, "batch_size": 1, "color": 255}"#),
            "{}",
            texts[0].1
        );
        assert_eq!(texts[1], ("workflow", python_json(&workflow).as_str()));
    }

    /// Programs that talk to the server put their own words there, and ComfyUI writes them.
    #[test]
    fn what_else_a_client_gave_is_carried_too() {
        let bench = Bench::new();
        let body = json!({
            "prompt": {
                "1": {"class_type": "EmptyImage", "inputs": {"width": 2, "height": 1}},
                "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
            },
            "extra_data": {"extra_pnginfo": {"mine": {"a": ["ü", 1.0]}, "prompt": "another", "☃": 1, "workflow": {"nodes": []}}},
        });
        let outcome = bench.run_file(&serde_json::to_vec(&body).unwrap());
        let told = "\"☃\" is no keyword of a PNG (1 to 79 letters of Latin-1), and is not written";
        assert_eq!(outcome.warnings(), [told]);
        let file = fs::read(bench.path("output/x_00001_.png")).unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let texts = &reader.info().uncompressed_latin1_text;
        let keywords: Vec<_> = texts.iter().map(|text| text.keyword.as_str()).collect();
        assert_eq!(keywords, ["prompt", "workflow", "mine"]);
        assert!(texts[0].text.contains("EmptyImage"), "the prompt that ran");
        assert_eq!(texts[2].text, r#"{"a": ["\u00fc", 1.0]}"#);
    }

    #[test]
    fn previews_go_to_the_temporary_folder() {
        let bench = Bench::new();
        let image = Tensor::ones((1, 2, 2, 1), DType::F32, &Device::Cpu).unwrap();
        bench.give("image", Value::new(Image::new(image).unwrap()));
        let outcome = bench.run(json!({"1": ["Give", {"name": "image"}], "2": ["PreviewImage", {"images": ["1", 0]}]}));
        let shown = &outcome.shown("2")["images"][0];
        assert_eq!(shown["type"], "temp");
        let name = shown["filename"].as_str().unwrap();
        assert!(name.starts_with("ComfyUI_temp_") && name.ends_with("_00001_.png"), "{name}");
        assert!(bench.path("temp").join(name).is_file());
    }

    #[test]
    fn a_picture_of_no_numbers_is_not_saved() {
        let bench = Bench::new();
        let image = Tensor::full(f32::NAN, (1, 2, 2, 3), &Device::Cpu).unwrap();
        bench.give("image", Value::new(Image::new(image).unwrap()));
        let outcome = bench.run(json!({
            "1": ["Give", {"name": "image"}],
            "2": ["SaveImage", {"images": ["1", 0]}],
        }));
        assert_eq!(outcome.failure().1.to_string(), "picture 1 of 1 holds NaN or infinite numbers");
        assert_eq!(fs::read_dir(bench.path("output")).unwrap().count(), 0);
    }

    #[test]
    fn a_prefix_that_leads_out_saves_nothing() {
        let bench = Bench::new();
        let image = Tensor::ones((1, 2, 2, 3), DType::F32, &Device::Cpu).unwrap();
        bench.give("image", Value::new(Image::new(image).unwrap()));
        let faults = bench.plan(json!({
            "1": ["Give", {"name": "image"}],
            "2": ["SaveImage", {"images": ["1", 0], "filename_prefix": "../out"}],
        }));
        let faults = faults.err().unwrap();
        assert!(faults[0].to_string().contains("leads out of the output folder"), "{}", faults[0]);
        assert!(!bench.path("out_00001_.png").exists());
    }
}
