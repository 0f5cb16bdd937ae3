//! Encoded collections in files: latents with their prompts, so many to a file.
//!
//! The files are `shard_0000.safetensors` and so on. Sample 3 of a file has the tensors `3.samples` and, where it has one, `3.noise_mask`;
//! its prompt 0 `3.0.context` and `3.0.pooled`. What else prompts say of the picture's size is text in the header. `metadata.json` beside
//! them, written last, says how many there are. ComfyUI's files of these nodes are pickles, and are refused.

use super::folders::one;
use crate::error::{Error, tell};
use crate::files::OutputFolderName;
use crate::wires::{Conditioning, Latent, Prompt};
use candle_core::Tensor;
use paraflow_assets::{Assets, RelativeName};
use paraflow_diffusion::adapters::{Store, write};
use paraflow_diffusion::guidance::PictureSize;
use paraflow_diffusion::nn::Weights;
use paraflow_engine::{Context, Json, Node, NodeDef, Result, Run, Shared, Sink};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<LoadTrainingDataset>(), NodeDef::of::<SaveTrainingDataset>()]
}

/// What the file that tells of the others is called.
const LISTING: &str = "metadata.json";
/// The text of a header that tells of the prompts.
const PROMPTS: &str = "paraflow.prompts";

/// Saves latents with their prompts, so that a training need not encode its pictures again. Files of an earlier collection of that
/// folder are replaced.
#[derive(Node)]
#[node(category = "dataset", display_name = "Save Training Dataset", sink, input_is_list, experimental)]
struct SaveTrainingDataset {
    /// The latents.
    latents: Vec<Shared<Latent>>,
    /// The prompts of each, of words alone.
    conditioning: Vec<Shared<Conditioning>>,
    /// The folder, among the outputs.
    #[input(default = "training_dataset")]
    folder_name: Vec<String>,
    /// How many go into a file.
    #[input(default = 1000, range = 1..=100_000)]
    shard_size: Vec<u32>,
}

impl Run for SaveTrainingDataset {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let (latents, prompts) = (self.latents.len(), self.conditioning.len());
        if latents != prompts {
            let (expected, found) = (format!("one for each of {latents} latents"), prompts.to_string());
            return Err(tell(Error::Unfit { what: "`conditioning`", expected, found }));
        }
        let outputs = cx.service::<Arc<Assets>>().outputs();
        let folder = RelativeName::parse(one(&self.folder_name)).map_err(tell)?;
        let size = self.shard_size.first().map_or(1000, |size| *size as usize);
        let samples: Vec<_> = self.latents.iter().zip(&self.conditioning).collect();
        for (index, samples) in samples.chunks(size).enumerate() {
            cx.progress((index * size) as u32, latents as u32)?;
            let shard = || -> Result<PathBuf, Error> {
                let bytes = packed(samples)?;
                Ok(outputs.write(&folder, &shard_name(index), |file| file.write_all(&bytes))?)
            };
            shard().map_err(tell)?;
        }
        let listing = json!({"num_samples": latents, "num_shards": latents.div_ceil(size), "shard_size": size});
        let told = outputs.write(&folder, LISTING, |file| write!(file, "{listing:#}"));
        told.map_err(tell)?;
        Ok(Sink(json!({})))
    }
}

fn shard_name(index: usize) -> String {
    format!("shard_{index:04}.safetensors")
}

/// The file of some samples.
fn packed(samples: &[(&Shared<Latent>, &Shared<Conditioning>)]) -> Result<Vec<u8>, Error> {
    let mut tensors: Vec<(String, Tensor, Store)> = Vec::new();
    let mut told = Vec::new();
    for (sample, (latent, prompts)) in samples.iter().enumerate() {
        let mut add =
            |name: String, tensor: &Tensor| tensors.push((format!("{sample}.{name}"), tensor.clone(), Store::F32));
        add("samples".to_owned(), latent.samples());
        if let Some(mask) = latent.noise_mask() {
            add("noise_mask".to_owned(), mask);
        }
        for (place, prompt) in prompts.0.iter().enumerate() {
            prompt.require_words("`conditioning`")?;
            add(format!("{place}.context"), &prompt.condition.context);
            if let Some(pooled) = &prompt.pooled {
                add(format!("{place}.pooled"), pooled);
            }
        }
        told.push(Json::Array(prompts.0.iter().map(said).collect()));
    }
    let metadata = BTreeMap::from([(PROMPTS.to_owned(), Json::Array(told).to_string())]);
    Ok(write(&tensors, &metadata)?)
}

/// What a prompt says beside its words.
fn said(prompt: &Prompt) -> Json {
    let PictureSize { size, crop, target, aesthetic_score } = prompt.size;
    json!({
        "strength": prompt.condition.strength, "size": size, "crop": crop, "target": target, "aesthetic_score": aesthetic_score,
    })
}

/// Loads what `SaveTrainingDataset` saved.
#[derive(Node)]
#[node(
    category = "dataset",
    display_name = "Load Training Dataset",
    outputs = ["latents", "conditioning"],
    experimental
)]
struct LoadTrainingDataset {
    /// The folder, among the outputs.
    #[input(default = "training_dataset")]
    folder_name: OutputFolderName,
}

impl Run for LoadTrainingDataset {
    type Output = (Vec<Latent>, Vec<Conditioning>);

    fn run(self, cx: &Context<'_>) -> Result<(Vec<Latent>, Vec<Conditioning>)> {
        let files = self.folder_name.files(cx.services()).map_err(tell)?;
        let (shards, expected) = listed(&files).map_err(tell)?;
        let (mut latents, mut prompts) = (Vec::with_capacity(expected), Vec::with_capacity(expected));
        for shard in shards {
            cx.check()?;
            let (more, their) = unpacked(&shard).map_err(tell)?;
            latents.extend(more);
            prompts.extend(their);
        }
        if latents.len() != expected {
            let (expected, found) =
                (format!("the {expected} samples that its `{LISTING}` tells of"), latents.len().to_string());
            return Err(tell(Error::Unfit { what: "the folder of a collection", expected, found }));
        }
        Ok((latents, prompts))
    }
}

/// The files of a collection, and how many samples they hold together.
fn listed(files: &[PathBuf]) -> Result<(Vec<PathBuf>, usize), Error> {
    let named = |name: &str| files.iter().find(|file| file.file_name().is_some_and(|found| found == name));
    let unfit = |expected: &str, found: String| Error::Unfit {
        what: "the folder of a collection",
        expected: expected.to_owned(),
        found,
    };
    let whole = "`metadata.json` and files `shard_0000.safetensors`, as SaveTrainingDataset writes them";
    if named("shard_0000.pkl").is_some() {
        let found =
            "ComfyUI's pickles, which can run any code: encode the pictures again, with MakeTrainingDataset".to_owned();
        return Err(unfit(whole, found));
    }
    let Some(listing) = named(LISTING) else { return Err(unfit(whole, format!("no `{LISTING}`"))) };
    let read = |source| paraflow_assets::Error::Read { path: listing.clone(), source };
    let told: Json = serde_json::from_slice(&std::fs::read(listing).map_err(read)?)
        .map_err(|error| unfit(whole, format!("`{LISTING}` that is no JSON: {error}")))?;
    let number = |key: &str| {
        let number = told[key].as_u64().and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| unfit(whole, format!("a `{LISTING}` without `{key}`")))
    };
    let shard = |index: usize| {
        let name = shard_name(index);
        named(&name).cloned().ok_or_else(|| unfit(whole, format!("no `{name}`")))
    };
    let shards = (0..number("num_shards")?).map(shard).collect::<Result<_, _>>()?;
    Ok((shards, number("num_samples")?))
}

/// The samples of a file.
fn unpacked(path: &Path) -> Result<(Vec<Latent>, Vec<Conditioning>), Error> {
    let file = Weights::open(path)?;
    let tensor = |name: String| -> Result<Option<Tensor>, Error> {
        let Some(shape) = file.shape(&name).map(<[usize]>::to_vec) else { return Ok(None) };
        Ok(Some(file.tensor(&name, &shape)?))
    };
    let unfit = |found: String| Error::Unfit {
        what: "a file of a collection",
        expected: "what SaveTrainingDataset wrote".to_owned(),
        found: format!("{found} in `{}`", path.display()),
    };
    let required = |name: String| tensor(name.clone())?.ok_or_else(|| unfit(format!("no tensor `{name}`")));
    let told = file.metadata().get(PROMPTS).and_then(|text| serde_json::from_str::<Vec<Vec<Json>>>(text).ok());
    let told = told.ok_or_else(|| unfit(format!("no list `{PROMPTS}`")))?;
    let (mut latents, mut all) = (Vec::new(), Vec::new());
    for (sample, prompts) in told.iter().enumerate() {
        let latent = Latent::new(required(format!("{sample}.samples"))?)?;
        latents.push(match tensor(format!("{sample}.noise_mask"))? {
            Some(mask) => latent.with_noise_mask(mask)?,
            None => latent,
        });
        let prompt = |(place, said): (usize, &Json)| {
            let context = required(format!("{sample}.{place}.context"))?;
            let mut prompt = Prompt::new(context, tensor(format!("{sample}.{place}.pooled"))?);
            let size = || unfit(format!("what is no prompt ({said})"));
            prompt.condition.strength = said["strength"].as_f64().ok_or_else(size)?;
            let read = |key: &str| serde_json::from_value::<Option<(u32, u32)>>(said[key].clone()).map_err(|_| size());
            prompt.size = PictureSize {
                size: read("size")?,
                crop: read("crop")?.unwrap_or_default(),
                target: read("target")?,
                aesthetic_score: said["aesthetic_score"].as_f64(),
            };
            Ok(prompt)
        };
        all.push(Conditioning(prompts.iter().enumerate().map(prompt).collect::<Result<_, Error>>()?));
    }
    Ok((latents, all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use candle_core::Device;
    use paraflow_engine::Value;

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// A bench with three latents, the first of them with a mask, and prompts for a model that is told sizes.
    fn bench() -> Bench {
        let bench = Bench::new();
        for (index, rows) in [4, 6, 4].into_iter().enumerate() {
            let samples = Tensor::arange(0.0_f32, (4 * rows * 5) as f32, &Device::Cpu).unwrap();
            let latent = Latent::new((samples * 0.5).unwrap().reshape((1, 4, rows, 5)).unwrap()).unwrap();
            let mask = Tensor::ones((1, 1, 8, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
            let latent = if index == 0 { latent.with_noise_mask(mask).unwrap() } else { latent };
            let context = Tensor::full(index as f32 + 0.1, (1, 77, 3), &Device::Cpu).unwrap();
            let pooled = (index > 0).then(|| Tensor::full(0.3_f32, (1, 2), &Device::Cpu).unwrap());
            let mut prompt = Prompt::new(context, pooled);
            prompt.size = PictureSize { size: Some((640, 480)), crop: (8, index as u32), ..PictureSize::default() };
            bench.give(&format!("latent {index}"), Value::new(latent));
            bench.give(&format!("prompt {index}"), Value::new(Conditioning(vec![prompt.clone(), prompt])));
        }
        bench
    }

    fn saving(index: usize, folder: &str) -> Json {
        json!({
            "latent": ["Give", {"name": format!("latent {index}")}], "prompt": ["Give", {"name": format!("prompt {index}")}],
            "save": ["SaveTrainingDataset", {
                "latents": ["latent", 0], "conditioning": ["prompt", 0], "folder_name": folder, "shard_size": 1,
            }],
        })
    }

    fn loading(folder: &str) -> Json {
        json!({
            "load": ["LoadTrainingDataset", {"folder_name": folder}],
            "latent": ["Catch", {"value": ["load", 0]}], "prompt": ["Catch", {"value": ["load", 1]}],
        })
    }

    #[test]
    fn a_collection_comes_back_as_it_was() {
        let bench = bench();
        for index in 0..3 {
            bench.run(saving(index, "set/a"));
            let loaded = bench.run(loading("set/a"));
            let latent = loaded.value::<Latent>("latent");
            assert_eq!(
                latent.dims(),
                (1, 4, if index == 1 { 6 } else { 4 }, 5),
                "the files changed, so they were read again"
            );
            assert_eq!(numbers(latent.samples())[7], 3.5);
            assert_eq!(latent.noise_mask().map(|mask| mask.dims().to_vec()), (index == 0).then(|| vec![1, 1, 8, 8]));
            let prompts = loaded.value::<Conditioning>("prompt");
            assert_eq!(prompts.0.len(), 2);
            let prompt = &prompts.0[1];
            assert_eq!(numbers(&prompt.condition.context)[5], index as f32 + 0.1);
            assert_eq!(prompt.pooled.is_some(), index > 0);
            let size = PictureSize { size: Some((640, 480)), crop: (8, index as u32), ..PictureSize::default() };
            assert_eq!(prompt.size, size);
        }
    }

    #[test]
    fn several_files_are_one_collection_and_older_ones_do_not_count() {
        let bench = bench();
        let sample = |index: usize| {
            let latent = Latent::new(Tensor::full(index as f32, (1, 4, 2, 2), &Device::Cpu).unwrap()).unwrap();
            let prompt = Prompt::new(Tensor::full(index as f32, (1, 77, 3), &Device::Cpu).unwrap(), None);
            (Shared::new(latent), Shared::new(Conditioning(vec![prompt])))
        };
        let all: Vec<_> = (0..5).map(sample).collect();
        let all: Vec<_> = all.iter().map(|(latent, prompts)| (latent, prompts)).collect();
        for (index, samples) in all.chunks(2).enumerate() {
            bench.write(&format!("output/many/{}", shard_name(index)), &packed(samples).unwrap());
        }
        let tell = |samples: usize, shards: usize| {
            let listing = json!({"num_samples": samples, "num_shards": shards, "shard_size": 2}).to_string();
            bench.write("output/many/metadata.json", listing.as_bytes());
            bench.run(loading("many"))
        };
        tell(5, 3).value::<Latent>("latent");
        tell(4, 2).value::<Latent>("latent");
        let files = crate::files::files_of(&bench.path("output/many")).unwrap();
        let (shards, samples) = listed(&files).unwrap();
        assert_eq!((shards.len(), samples), (2, 4), "the third is of an older collection");
        let broken = tell(7, 2);
        assert!(broken.failure().1.to_string().contains("the 7 samples"), "{:?}", broken.failure());
    }

    #[test]
    fn what_is_no_collection_is_told() {
        let bench = bench();
        let told = |folder: &str| bench.run(loading(folder)).failure().1.to_string();
        assert!(told("nowhere").contains("nowhere"));
        bench.write("output/theirs/shard_0000.pkl", b"PK");
        assert!(told("theirs").contains("ComfyUI's pickles"));
        bench.write("output/half/shard_0000.safetensors", b"");
        assert!(told("half").contains("no `metadata.json`"));
        bench.write("output/half/metadata.json", br#"{"num_samples": 1, "num_shards": 2}"#);
        assert!(told("half").contains("no `shard_0001.safetensors`"));
        bench.write("output/half/metadata.json", br#"{"num_samples": 1, "num_shards": 1}"#);
        assert!(told("half").contains("empty"));
        let escaping = bench.refusal(saving(0, "../x"));
        assert!(!escaping.is_empty() && !bench.path("x").exists());
    }
}
