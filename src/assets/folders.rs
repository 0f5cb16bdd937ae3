//! Which directories and file endings belong to which kind of model: ComfyUI's table, and the places that users add.

use crate::names::nearest;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// One row of the table: a kind of model, and where its files lie below a `models` folder.
struct Kind {
    /// What nodes and `extra_model_paths.yaml` call it.
    key: &'static str,
    /// Sub-folders of `models`, in order of search.
    dirs: &'static [&'static str],
    /// Endings of its files, lower case with the dot; empty: any.
    endings: &'static [&'static str],
}

/// Files that hold tensors. Pickled ones are listed too, so that loading one can say why it is refused.
const TENSORS: &[&str] = &[".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"];

/// In ComfyUI's order; `para` is ours.
#[rustfmt::skip]
static KINDS: &[Kind] = &[
    Kind { key: "checkpoints",           dirs: &["checkpoints"],                endings: TENSORS },
    Kind { key: "configs",               dirs: &["configs"],                    endings: &[".yaml"] },
    Kind { key: "loras",                 dirs: &["loras"],                      endings: TENSORS },
    Kind { key: "vae",                   dirs: &["vae"],                        endings: TENSORS },
    Kind { key: "text_encoders",         dirs: &["text_encoders", "clip"],      endings: TENSORS },
    Kind { key: "diffusion_models",      dirs: &["unet", "diffusion_models"],   endings: TENSORS },
    Kind { key: "clip_vision",           dirs: &["clip_vision"],                endings: TENSORS },
    Kind { key: "style_models",          dirs: &["style_models"],               endings: TENSORS },
    Kind { key: "embeddings",            dirs: &["embeddings"],                 endings: TENSORS },
    Kind { key: "diffusers",             dirs: &["diffusers"],                  endings: &[".folder"] },
    Kind { key: "vae_approx",            dirs: &["vae_approx"],                 endings: TENSORS },
    Kind { key: "controlnet",            dirs: &["controlnet", "t2i_adapter"],  endings: TENSORS },
    Kind { key: "gligen",                dirs: &["gligen"],                     endings: TENSORS },
    Kind { key: "upscale_models",        dirs: &["upscale_models"],             endings: TENSORS },
    Kind { key: "latent_upscale_models", dirs: &["latent_upscale_models"],      endings: TENSORS },
    Kind { key: "hypernetworks",         dirs: &["hypernetworks"],              endings: TENSORS },
    Kind { key: "photomaker",            dirs: &["photomaker"],                 endings: TENSORS },
    Kind { key: "model_patches",         dirs: &["model_patches"],              endings: TENSORS },
    Kind { key: "audio_encoders",        dirs: &["audio_encoders"],             endings: TENSORS },
    Kind { key: "para",                  dirs: &["para"],                       endings: TENSORS },
];

/// Names that older workflows and configurations use for a key.
static ALIASES: &[(&str, &str)] = &[("unet", "diffusion_models"), ("clip", "text_encoders")];

/// Below the output folder, saved models lie where loaders find them again.
static OUTPUT_DIRS: &[(&str, &str)] = &[
    ("checkpoints", "checkpoints"),
    ("text_encoders", "clip"),
    ("vae", "vae"),
    ("diffusion_models", "diffusion_models"),
    ("loras", "loras"),
    ("para", "para"),
];

/// The directories of one key, searched in order.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) key: String,
    pub(crate) dirs: Vec<PathBuf>,
    pub(crate) endings: &'static [&'static str],
}

impl Folder {
    /// Whether a file of that name belongs to this kind, by its ending.
    pub(crate) fn takes(&self, file_name: &str) -> bool {
        let ending = file_name.rfind('.').map_or("", |dot| &file_name[dot..]).to_ascii_lowercase();
        self.endings.is_empty() || self.endings.contains(&ending.as_str())
    }
}

/// Every model folder by key.
#[derive(Clone, Debug)]
pub(crate) struct Folders(Vec<Folder>);

impl Folders {
    /// The folders of `models/` in the base directory.
    pub(crate) fn below(base_dir: &Path) -> Self {
        let folder = |kind: &Kind| Folder {
            key: kind.key.to_owned(),
            dirs: kind.dirs.iter().map(|dir| base_dir.join("models").join(dir)).collect(),
            endings: kind.endings,
        };
        Self(KINDS.iter().map(folder).collect())
    }

    /// Searches a further `models` folder, after all that is there.
    pub(crate) fn add_models_dir(&mut self, models: &Path) -> Result<()> {
        if !models.is_dir() {
            return Err(Error::NoSuchFolder { path: models.to_owned() });
        }
        for kind in KINDS {
            for dir in kind.dirs {
                self.add(kind.key, models.join(dir), false);
            }
        }
        Ok(())
    }

    /// Searches the sub-folders of `output/` into which models are saved, last.
    pub(crate) fn add_output_dirs(&mut self, output: &Path) {
        for (key, dir) in OUTPUT_DIRS {
            self.add(key, output.join(dir), false);
        }
    }

    /// Searches one more directory for `key`: last, or first where it is the default (and then moved there, if it is
    /// known already). An unknown key becomes a folder that takes any ending.
    pub(crate) fn add(&mut self, key: &str, dir: PathBuf, first: bool) {
        let key = canonical(key);
        if !self.0.iter().any(|folder| folder.key == key) {
            self.0.push(Folder { key: key.to_owned(), dirs: Vec::new(), endings: &[] });
        }
        let folder = self.0.iter_mut().find(|folder| folder.key == key).expect("pushed above");
        let known = folder.dirs.iter().position(|old| *old == dir);
        match (known, first) {
            (Some(_), false) => {}
            (Some(at), true) => folder.dirs[..=at].rotate_right(1),
            (None, false) => folder.dirs.push(dir),
            (None, true) => folder.dirs.insert(0, dir),
        }
    }

    /// The folder of that key or alias.
    pub(crate) fn get(&self, key: &str) -> Result<&Folder> {
        let wanted = canonical(key);
        self.0
            .iter()
            .find(|folder| folder.key == wanted)
            .ok_or_else(|| Error::UnknownFolder { key: key.to_owned(), nearest: nearest(key, self.keys()) })
    }

    /// Every key, ComfyUI's first and in its order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|folder| folder.key.as_str())
    }
}

fn canonical(key: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(folders: &Folders, key: &str) -> Vec<String> {
        let folder = folders.get(key).unwrap();
        folder.dirs.iter().map(|dir| dir.to_str().unwrap().replace('\\', "/")).collect()
    }

    #[test]
    fn old_names_lead_to_the_new_folders() {
        let folders = Folders::below(Path::new("b"));
        assert_eq!(dirs(&folders, "unet"), ["b/models/unet", "b/models/diffusion_models"]);
        assert_eq!(dirs(&folders, "clip"), dirs(&folders, "text_encoders"));
        assert!(matches!(
            folders.get("checkpoint"),
            Err(Error::UnknownFolder { nearest, .. }) if nearest == ["checkpoints"]
        ));
    }

    #[test]
    fn a_default_directory_goes_first_and_a_known_one_is_not_repeated() {
        let mut folders = Folders::below(Path::new("b"));
        folders.add("loras", "x".into(), false);
        folders.add("loras", "y".into(), true);
        folders.add("loras", "x".into(), false);
        assert_eq!(dirs(&folders, "loras"), ["y", "b/models/loras", "x"]);
        folders.add("loras", "x".into(), true);
        assert_eq!(dirs(&folders, "loras"), ["x", "y", "b/models/loras"]);
    }

    #[test]
    fn endings_are_compared_without_case_and_unknown_keys_take_all() {
        let mut folders = Folders::below(Path::new("b"));
        folders.add("wildcards", "w".into(), false);
        assert!(folders.get("checkpoints").unwrap().takes("A.SafeTensors"));
        assert!(!folders.get("checkpoints").unwrap().takes("readme.txt"));
        assert!(folders.get("wildcards").unwrap().takes("colours"));
    }
}
