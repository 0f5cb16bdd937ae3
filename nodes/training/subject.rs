//! Pictures of an individual, from a folder or from the graph.

use crate::error::{Error, tell};
use crate::files::FolderName;
use crate::memory::Memory;
use crate::pictures::decode;
use crate::wires::{Image, Subject, SubjectPicture};
use candle_core::{Device, Tensor};
use paraflow_assets::Inputs;
use paraflow_diffusion::resize::{Method, resize};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Services, Shared};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<LoadSubject>()]
}

/// Loads a few pictures of one individual (your dog, your mug, a character) to train on, each with a caption.
///
/// A folder may hold a `subject.json` with the class and a caption for each picture, or a text file beside each picture,
/// `3.txt` for `3.png`. Pictures without either get the caption template.
#[derive(Node)]
#[node(category = "personalize", display_name = "Load Subject")]
struct LoadSubject {
    /// What the individual is called in captions and prompts: a word that the model gives no meaning of its own.
    #[input(default = "sks")]
    unique_token: String,
    /// What kind of thing it is: bear, mug, person. Left empty, the folder's `subject.json` says.
    #[input(default = "")]
    class_word: String,
    /// The caption of pictures that have none. `{unique}` and `{class}` are filled in.
    #[input(default = "a {unique} {class}", advanced)]
    caption: String,
    /// Captions for the pictures, a line for each in the order of their names. They come before those of files and of the
    /// template.
    #[input(default = "", multiline, advanced)]
    captions: String,
    /// How many pictures to take, in the order of their names. 0 takes all.
    #[input(default = 0, range = 0..=10_000)]
    count: u32,
    /// The side of the trained pictures in pixels, a multiple of 8. 0 leaves pictures as large as they are.
    #[input(default = 0, range = 0..=2048, step = 8, advanced)]
    size: u32,
    /// How to bring pictures to that size. `crop` cuts the middle square out; `bucket` keeps the whole picture and its
    /// proportions, at about as many pixels.
    #[input(choices = ["crop", "bucket"], advanced)]
    fit: Choice<Fit>,
    /// A folder below `input` with pictures of the individual.
    folder: Option<FolderName>,
    /// Pictures from the graph, in place of a folder.
    images: Option<Shared<Image>>,
}

/// How to bring a picture to a size.
#[derive(Clone, Copy, PartialEq)]
enum Fit {
    Crop,
    Bucket,
}

impl std::str::FromStr for Fit {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "crop" => Ok(Self::Crop),
            "bucket" => Ok(Self::Bucket),
            _ => Err("neither crop nor bucket"),
        }
    }
}

/// A picture before it has a size and a caption.
struct Raw {
    /// Its place among the folder's pictures, those that cannot be read among them.
    index: usize,
    pixels: Tensor,
    caption: Option<String>,
    hash: String,
}

impl Run for LoadSubject {
    type Output = Subject;

    fn run(self, cx: &Context<'_>) -> Result<Subject> {
        let (described, raw) = match (&self.images, &self.folder) {
            (Some(images), _) => (Description::default(), split(images).map_err(tell)?),
            (None, Some(folder)) => read(folder, cx).map_err(tell)?,
            (None, None) => {
                let expected = "a folder of pictures, or pictures on `images`".to_owned();
                return Err(tell(Error::Unfit { what: "`folder`", expected, found: "neither".to_owned() }));
            }
        };
        let class = if self.class_word.trim().is_empty() { described.class } else { self.class_word.clone() };
        let subject = Subject { pictures: Vec::new(), class, unique: self.unique_token.clone() };
        let take = if self.count == 0 { raw.len() } else { self.count as usize };
        let lines: Vec<&str> = self.captions.lines().map(str::trim).collect();
        let (mut own, mut of_template) = (0, 0);
        let picture = |raw: Raw| -> Result<SubjectPicture, Error> {
            let line = lines.get(raw.index).filter(|line| !line.is_empty()).map(|line| (*line).to_owned());
            let caption = line.or(raw.caption);
            *(if caption.is_some() { &mut own } else { &mut of_template }) += 1;
            let caption = caption.unwrap_or_else(|| self.caption.clone());
            let (image, caption) = (Image::new(self.fit(&raw.pixels)?)?, subject.fill(caption.trim()));
            Ok(SubjectPicture { image, caption, hash: raw.hash })
        };
        let pictures = raw.into_iter().take(take).map(picture).collect::<Result<_, _>>().map_err(tell)?;
        // Where none has a caption, the template is what was meant.
        if own > 0 && of_template > 0 {
            let all = own + of_template;
            cx.warn(format!("{of_template} of {all} pictures have no caption of their own and get the template's"));
        }
        Ok(Subject { pictures, ..subject })
    }
}

impl LoadSubject {
    /// A picture `[1, height, width, 3]` of the size asked for, both sides multiples of 8.
    fn fit(&self, pixels: &Tensor) -> Result<Tensor, Error> {
        const CELL: usize = 8;
        let (_, height, width, _) = pixels.dims4()?;
        let cells = |side: f64| (side / CELL as f64).round().max(1.0) as usize * CELL;
        let (target_width, target_height) = match (self.size as usize, *self.fit) {
            (0, _) if width < CELL || height < CELL => {
                let expected = format!("a picture of at least {CELL} x {CELL} pixels");
                return Err(Error::Unfit { what: "a subject", expected, found: format!("{width} x {height}") });
            }
            (0, Fit::Bucket) => (width / CELL * CELL, height / CELL * CELL),
            (0, Fit::Crop) => {
                let side = width.min(height) / CELL * CELL;
                (side, side)
            }
            (size, Fit::Crop) => (cells(size as f64), cells(size as f64)),
            (size, Fit::Bucket) => {
                let proportion = (width as f64 / height as f64).sqrt();
                (cells(size as f64 * proportion), cells(size as f64 / proportion))
            }
        };
        // Enlarged or made smaller until it just covers the target, then cut to it in the middle.
        let scale = (target_width as f64 / width as f64).max(target_height as f64 / height as f64);
        let scale = if self.size == 0 { 1.0 } else { scale };
        let scaled = |side: usize, least: usize| ((side as f64 * scale).round() as usize).max(least);
        let (new_width, new_height) = (scaled(width, target_width), scaled(height, target_height));
        let mut planes = pixels.permute((0, 3, 1, 2))?.contiguous()?;
        if (new_width, new_height) != (width, height) {
            planes = resize(&planes, new_width, new_height, Method::Lanczos)?;
        }
        let (x, y) = ((new_width - target_width) / 2, (new_height - target_height) / 2);
        let cut = planes.narrow(2, y, target_height)?.narrow(3, x, target_width)?;
        Ok(cut.permute((0, 2, 3, 1))?.contiguous()?)
    }
}

/// What a `subject.json` says.
#[derive(Default)]
struct Description {
    class: String,
    captions: Vec<String>,
}

impl Description {
    fn read(path: &Path) -> Result<Self, Error> {
        let fail = |fault: String| Error::Description { file: path.display().to_string(), fault };
        let text =
            std::fs::read(path).map_err(|source| paraflow_assets::Error::Read { path: path.to_owned(), source })?;
        let json: Json = serde_json::from_slice(&text).map_err(|error| fail(error.to_string()))?;
        let class = json["class"].as_str().ok_or_else(|| fail("`class` is no text".to_owned()))?;
        let captions = match &json["captions"] {
            Json::Null => Vec::new(),
            Json::Array(captions) => captions
                .iter()
                .map(|caption| caption.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or_else(|| fail("a caption is no text".to_owned()))?,
            _ => return Err(fail("`captions` is no list".to_owned())),
        };
        Ok(Self { class: class.to_owned(), captions })
    }
}

/// The pictures of a batch.
fn split(images: &Image) -> Result<Vec<Raw>, Error> {
    let (batch, height, width, channels) = images.dims();
    let colours = match channels {
        1 => images.pixels().broadcast_as((batch, height, width, 3))?,
        _ => images.pixels().narrow(3, 0, 3)?,
    };
    let one = |index| -> Result<Raw, Error> {
        let pixels = colours.narrow(0, index, 1)?.contiguous()?;
        let numbers: Vec<u8> = pixels.flatten_all()?.to_vec1::<f32>()?.iter().flat_map(|x| x.to_le_bytes()).collect();
        Ok(Raw { index, pixels, caption: None, hash: blake3::hash(&numbers).to_hex().to_string() })
    };
    (0..batch).map(one).collect()
}

/// The pictures of a folder that can be read, with a warning for each that cannot.
fn read(folder: &FolderName, cx: &Context<'_>) -> Result<(Description, Vec<Raw>), Error> {
    let files = folder.files(cx.services())?;
    let named = |path: &PathBuf, name: &str| path.file_name().is_some_and(|file| file == name);
    let described = match files.iter().find(|path| named(path, "subject.json")) {
        Some(path) => Description::read(path)?,
        None => Description::default(),
    };
    let is_picture = |path: &&PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(Inputs::is_picture);
    let (mut raw, mut faults) = (Vec::new(), Vec::new());
    for (index, path) in files.iter().filter(is_picture).enumerate() {
        match picture(path, cx.services()) {
            Ok((pixels, hash)) => {
                let caption = caption(path)?.or_else(|| described.captions.get(index).cloned());
                raw.push(Raw { index, pixels, caption, hash });
            }
            Err(error) => faults.push(error.to_string()),
        }
    }
    if raw.is_empty() {
        return Err(Error::EmptySubject { place: format!("folder `{}`", folder.0), faults });
    }
    faults.iter().for_each(|fault| cx.warn(format!("{fault}; the training goes without it")));
    Ok((described, raw))
}

/// The first frame of a picture, `[1, height, width, 3]`, and its file's hash.
fn picture(path: &Path, services: &Services) -> Result<(Tensor, String), Error> {
    let bytes = std::fs::read(path).map_err(|source| paraflow_assets::Error::Read { path: path.to_owned(), source })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let frames = decode(&bytes, &name, Memory::of(services))?;
    let frame = &frames[0];
    let values: Vec<f32> = frame.rgb.iter().map(|byte| f32::from(*byte) / 255.0).collect();
    let pixels = Tensor::from_vec(values, (1, frame.height, frame.width, 3), &Device::Cpu)?;
    Ok((pixels, blake3::hash(&bytes).to_hex().to_string()))
}

/// The text beside a picture, if there is one.
fn caption(picture: &Path) -> Result<Option<String>, Error> {
    let path = picture.with_extension("txt");
    if !path.is_file() {
        return Ok(None);
    }
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(source) => Err(paraflow_assets::Error::Read { path, source }.into()),
    }
}
