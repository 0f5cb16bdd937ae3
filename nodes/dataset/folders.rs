//! Collections in folders: pictures with a caption in a text file beside each.

use crate::error::{Error, tell};
use crate::files::{FolderName, files_of};
use crate::memory::Memory;
use crate::pictures::{decode, to_byte};
use crate::wires::Image;
use candle_core::{Device, Tensor};
use paraflow_assets::{Assets, Channels, Pixels, RelativeName, write_png};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Services, Shared, Sink};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<LoadImageDataSetFromFolder>(),
        NodeDef::of::<LoadImageTextDataSetFromFolder>(),
        NodeDef::of::<SaveImageDataSetToFolder>(),
        NodeDef::of::<SaveImageTextDataSetToFolder>(),
    ]
}

/// What counts as a picture of a collection.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Loads all pictures of a folder, in the order of their names.
#[derive(Node)]
#[node(category = "dataset", display_name = "Load Image Dataset from Folder", outputs = ["images"], experimental)]
struct LoadImageDataSetFromFolder {
    /// The folder, among the inputs.
    folder: FolderName,
}

impl Run for LoadImageDataSetFromFolder {
    type Output = Vec<Image>;

    fn run(self, cx: &Context<'_>) -> Result<Vec<Image>> {
        let files = self.folder.files(cx.services()).map_err(tell)?;
        load(files.iter().filter(|file| is_picture(file)), &self.folder.0, cx)
    }
}

/// Loads all pictures of a folder with their captions: the text file beside a picture that has its name. Of folders within it whose
/// names begin with a number, as `10_bear` does, pictures come so many times.
#[derive(Node)]
#[node(
    category = "dataset",
    display_name = "Load Image and Text Dataset from Folder",
    outputs = ["images", "texts"],
    experimental
)]
struct LoadImageTextDataSetFromFolder {
    /// The folder, among the inputs.
    folder: FolderName,
}

impl Run for LoadImageTextDataSetFromFolder {
    type Output = (Vec<Image>, Vec<String>);

    fn run(self, cx: &Context<'_>) -> Result<(Vec<Image>, Vec<String>)> {
        let files = self.repeated(cx.services()).map_err(tell)?;
        let captions = files.iter().map(|file| caption(file)).collect::<Result<_, Error>>().map_err(tell)?;
        Ok((load(files.iter(), &self.folder.0, cx)?, captions))
    }
}

impl LoadImageTextDataSetFromFolder {
    fn repeated(&self, services: &Services) -> Result<Vec<PathBuf>, Error> {
        let mut files = self.folder.files(services)?;
        files.retain(|file| is_picture(file));
        for folder in self.folder.folders(services)? {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let times = name.split('_').next().and_then(|number| number.parse().ok()).unwrap_or(1);
            let mut within = files_of(&folder)?;
            within.retain(|file| is_picture(file));
            for _ in 0..times {
                files.extend(within.iter().cloned());
            }
        }
        Ok(files)
    }
}

/// Saves pictures into a folder, numbered from 0; files of these names are replaced.
#[derive(Node)]
#[node(category = "dataset", display_name = "Save Image Dataset to Folder", sink, input_is_list, experimental)]
struct SaveImageDataSetToFolder {
    /// The pictures.
    images: Vec<Shared<Image>>,
    /// The folder, among the outputs.
    #[input(default = "dataset")]
    folder_name: Vec<String>,
    /// What the names of the files begin with.
    #[input(default = "image")]
    filename_prefix: Vec<String>,
}

impl Run for SaveImageDataSetToFolder {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let save = || save(&self.images, None, one(&self.folder_name), one(&self.filename_prefix), cx);
        save().map_err(tell)
    }
}

/// Saves pictures into a folder, numbered from 0, with a text file beside each; files of these names are replaced.
#[derive(Node)]
#[node(category = "dataset", display_name = "Save Image and Text Dataset to Folder", sink, input_is_list, experimental)]
struct SaveImageTextDataSetToFolder {
    /// The pictures.
    images: Vec<Shared<Image>>,
    /// A text for each.
    texts: Vec<String>,
    /// The folder, among the outputs.
    #[input(default = "dataset")]
    folder_name: Vec<String>,
    /// What the names of the files begin with.
    #[input(default = "image")]
    filename_prefix: Vec<String>,
}

impl Run for SaveImageTextDataSetToFolder {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let texts = Some(self.texts.as_slice());
        save(&self.images, texts, one(&self.folder_name), one(&self.filename_prefix), cx).map_err(tell)
    }
}

pub(super) fn one(texts: &[String]) -> &str {
    texts.first().map_or("", String::as_str)
}

fn is_picture(file: &Path) -> bool {
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// The colours of pictures; of those that move, of the first frame.
fn load<'a>(files: impl Iterator<Item = &'a PathBuf>, folder: &str, cx: &Context<'_>) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for path in files {
        cx.check()?;
        let read = || -> Result<Image, Error> {
            let bytes =
                std::fs::read(path).map_err(|source| paraflow_assets::Error::Read { path: path.clone(), source })?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let frames = decode(&bytes, &name, Memory::of(cx.services()))?;
            let frame = &frames[0];
            let values: Vec<f32> = frame.rgb.iter().map(|value| f32::from(*value) / 255.0).collect();
            Image::new(Tensor::from_vec(values, (1, frame.height, frame.width, 3), &Device::Cpu)?)
        };
        images.push(read().map_err(tell)?);
    }
    if images.is_empty() {
        return Err(tell(Error::EmptySubject { place: format!("the folder \"{folder}\""), faults: Vec::new() }));
    }
    Ok(images)
}

/// The text beside a picture, without blanks around it; empty where there is none.
fn caption(picture: &Path) -> Result<String, Error> {
    let path = picture.with_extension("txt");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(paraflow_assets::Error::Read { path, source }.into()),
    }
}

fn save(
    images: &[Shared<Image>],
    texts: Option<&[String]>,
    folder: &str,
    prefix: &str,
    cx: &Context<'_>,
) -> Result<Sink, Error> {
    let outputs = cx.service::<Arc<Assets>>().outputs();
    let folder = RelativeName::parse(folder)?;
    // A prefix is the beginning of a name, not a way to another folder.
    RelativeName::parse(prefix)?;
    if prefix.contains(['/', '\\']) {
        return Err(Error::Unfit {
            what: "`filename_prefix`",
            expected: "the beginning of a name; the folder is `folder_name`".to_owned(),
            found: format!("\"{prefix}\""),
        });
    }
    let mut shown = Vec::new();
    for (index, image) in images.iter().enumerate() {
        let (_, height, width, channels) = image.dims();
        let bytes: Vec<u8> = image.values(0)?.into_iter().map(to_byte).collect();
        let channels = match channels {
            1 => Channels::Grey,
            3 => Channels::Rgb,
            _ => Channels::Rgba,
        };
        let pixels = Pixels { bytes: &bytes, width: width as u32, height: height as u32, channels };
        let name = format!("{prefix}_{index:05}");
        outputs.write(&folder, &format!("{name}.png"), |file| write_png(file, pixels, &[], 6))?;
        if let Some(text) = texts.and_then(|texts| texts.get(index)) {
            outputs.write(&folder, &format!("{name}.txt"), |file| file.write_all(text.as_bytes()))?;
        }
        shown.push(json!({"filename": format!("{name}.png"), "subfolder": folder.as_name(), "type": "output"}));
    }
    Ok(Sink(json!({"images": shown})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use paraflow_engine::Value;

    fn picture(value: f32) -> Value {
        Value::new(Image::new(Tensor::full(value, (1, 3, 4, 3), &Device::Cpu).unwrap()).unwrap())
    }

    /// What is saved is loaded again, captions with their pictures, and a numbered folder counts as often as it says.
    #[test]
    fn a_collection_goes_to_a_folder_and_comes_back() {
        let bench = Bench::new();
        bench.give("dark", picture(0.25)).give("bright", picture(0.75));
        let saved = bench.run(json!({
            "dark": ["Give", {"name": "dark"}],
            "save": ["SaveImageTextDataSetToFolder", {
                "images": ["dark", 0], "texts": "a dark bear ", "folder_name": "bears/3_dark", "filename_prefix": "x",
            }],
        }));
        assert_eq!(saved.shown("save")["images"][0]["filename"], "x_00000.png");
        let folder = bench.path("input/bears");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::rename(bench.path("output/bears/3_dark"), folder.join("3_dark")).unwrap();
        bench.run(json!({
            "bright": ["Give", {"name": "bright"}],
            "save": ["SaveImageDataSetToFolder", {
                "images": ["bright", 0], "folder_name": "here", "filename_prefix": "y",
            }],
        }));
        std::fs::rename(bench.path("output/here/y_00000.png"), folder.join("y.PNG")).unwrap();
        let loaded = bench.run(json!({
            "load": ["LoadImageTextDataSetFromFolder", {"folder": "bears"}],
            "words": ["AddTextPrefix", {"texts": ["load", 1], "prefix": "<"}],
            "all": ["RebatchImages", {"images": ["load", 0], "batch_size": 9}],
            "order": ["ShuffleImageTextDataset", {"images": ["load", 0], "texts": ["words", 0], "seed": 0}],
            "save": ["SaveImageTextDataSetToFolder", {
                "images": ["order", 0], "texts": ["order", 1], "folder_name": "again", "filename_prefix": "z",
            }],
            "out": ["Catch", {"value": ["all", 0]}],
        }));
        let all = loaded.value::<Image>("out");
        let first: Vec<f32> = (0..4).map(|i| (all.values(i).unwrap()[0] * 255.0).round()).collect();
        assert_eq!((all.dims().0, first), (4, vec![191.0, 63.0, 63.0, 63.0]));
        let texts: Vec<String> = (0..4)
            .map(|i| std::fs::read_to_string(bench.path(format!("output/again/z_0000{i}.txt"))).unwrap())
            .collect();
        assert_eq!(texts.iter().filter(|text| *text == "<a dark bear").count(), 3, "{texts:?}");
        assert_eq!(texts.iter().filter(|text| *text == "<").count(), 1, "{texts:?}");
    }

    #[test]
    fn a_collection_stays_among_the_outputs() {
        let bench = Bench::new();
        bench.give("dark", picture(0.25));
        for (folder, prefix) in [("../x", "a"), ("/x", "a"), ("x", "../a"), ("x", "b/a"), ("", "a")] {
            let refused = bench.refusal(json!({
                "dark": ["Give", {"name": "dark"}],
                "save": ["SaveImageDataSetToFolder", {
                    "images": ["dark", 0], "folder_name": folder, "filename_prefix": prefix,
                }],
            }));
            assert!(!refused.is_empty(), "{folder} {prefix}");
        }
        assert!(!bench.path("output").join("b").exists() && !bench.path("x").exists());
    }
}
