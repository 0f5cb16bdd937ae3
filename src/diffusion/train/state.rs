//! A training's state on disk: what is trained, the optimiser's memory, the losses and sample pictures so far. Random
//! numbers need none: they follow from the step.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use candle_core::Tensor;
use safetensors::tensor::{Dtype, TensorView};

use super::adamw::Moments;
use super::fault::Fault;
use super::layer::Layer;
use super::trainer::TrainRequest;
use crate::error::Result;
use crate::nn::{Layers as _, Precision, Weights};

/// Where a training keeps its state: `name.para-state.safetensors`.
#[derive(Debug, Clone)]
pub struct StateFile {
    /// The file.
    pub path: PathBuf,
    /// Steps between two writings. 0: only at the end and when the training is stopped.
    pub every: usize,
    /// Go on from a state that is there. Otherwise it is overwritten.
    pub resume: bool,
}

/// What changes from step to step, beside the trained numbers themselves.
pub(super) struct Progress {
    /// Steps done.
    pub(super) step: usize,
    /// The optimiser's memory, by slot.
    pub(super) moments: Vec<Moments>,
    /// Running means of the numbers, by slot, if they are wanted.
    pub(super) averages: Option<Vec<Vec<f32>>>,
    /// By step.
    pub(super) losses: Vec<(f32, Option<f32>)>,
}

/// Sample pictures by step.
type Samples = Vec<(usize, Tensor)>;

const VERSION: &str = "1";
/// No state takes that long to be written.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);
/// How the names of sample pictures begin.
const SAMPLE: &str = "sample.";

impl Progress {
    pub(super) fn new(lengths: impl Iterator<Item = usize>, averages: bool) -> Self {
        let moments: Vec<Moments> = lengths.map(Moments::new).collect();
        let averages = averages.then(|| vec![Vec::new(); moments.len()]);
        Self { step: 0, moments, averages, losses: Vec::new() }
    }

    /// Takes the numbers of a step into the running means, which forget faster at first.
    pub(super) fn average(&mut self, layers: &[Layer], memory: f64) {
        let Some(averages) = &mut self.averages else { return };
        let keep = memory.min((1 + self.step) as f64 / (10 + self.step) as f64) as f32;
        let slots = layers.iter().flat_map(|layer| &layer.slots);
        for (average, slot) in averages.iter_mut().zip(slots) {
            if average.is_empty() {
                average.clone_from(&slot.numbers);
            }
            average.iter_mut().zip(&slot.numbers).for_each(|(mean, x)| *mean = keep * *mean + (1.0 - keep) * x);
        }
    }

    /// All lists of numbers, by their names in the file.
    fn named<'a>(&'a self, layers: &'a [Layer]) -> Vec<(String, &'a [f32])> {
        let slots = layers.iter().flat_map(|layer| layer.slots.iter().map(move |slot| (layer, slot)));
        let mut named = Vec::new();
        for (index, (layer, slot)) in slots.enumerate() {
            let name = format!("{}.{}", layer.name, slot.name);
            named.push((format!("{name}.mean"), self.moments[index].first.as_slice()));
            named.push((format!("{name}.square"), self.moments[index].second.as_slice()));
            if let Some(averages) = &self.averages {
                named.push((format!("{name}.average"), averages[index].as_slice()));
            }
            named.push((name, slot.numbers.as_slice()));
        }
        named
    }
}

impl StateFile {
    /// Writes beside the file, then moves: whatever happens, there is a whole state, the old one or the new. `samples` are
    /// the pictures so far, by step.
    pub(super) fn save(
        &self,
        request: &TrainRequest<'_>,
        layers: &[Layer],
        progress: &Progress,
        samples: &[(usize, Tensor)],
    ) -> Result<()> {
        let bytes_of = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let losses: Vec<f32> =
            progress.losses.iter().flat_map(|(loss, validation)| [*loss, validation.unwrap_or(f32::NAN)]).collect();
        let list = |name: String, numbers: &[f32]| (name, vec![numbers.len()], bytes_of(numbers));
        let mut lists: Vec<(String, Vec<usize>, Vec<u8>)> =
            progress.named(layers).into_iter().map(|(name, numbers)| list(name, numbers)).collect();
        lists.push(list("losses".to_owned(), &losses));
        for (step, picture) in samples {
            let numbers = picture.flatten_all()?.to_vec1::<f32>()?;
            lists.push((format!("{SAMPLE}{step}"), picture.dims().to_vec(), bytes_of(&numbers)));
        }
        let views = lists.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many bytes as numbers"))
        });
        let views: Vec<_> = views.collect();
        let metadata = HashMap::from([("para-state".to_owned(), header(request, progress.step))]);
        let bytes = safetensors::serialize(views, Some(metadata))
            .map_err(|error| Fault::Unwritable { file: self.name(), source: std::io::Error::other(error) })?;
        write_whole(&self.path, &bytes).map_err(|source| Fault::Unwritable { file: self.name(), source }.into())
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Removes what a process left that was killed while it wrote this state.
    fn sweep(&self) {
        let (Some(folder), Some(stem)) = (self.path.parent(), self.path.file_stem().and_then(|stem| stem.to_str()))
        else {
            return;
        };
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(stem)).unwrap_or_default();
            let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
            if rest.starts_with('.') && rest.ends_with(".part") && age().is_some_and(|age| age > ABANDONED_AFTER) {
                // What cannot be removed is in nobody's way.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The state, its trained numbers put into the layers, and the sample pictures by step. `None` where none is wanted or
    /// there.
    pub(super) fn load(&self, request: &TrainRequest<'_>, layers: &mut [Layer]) -> Result<Option<(Progress, Samples)>> {
        self.sweep();
        if !self.resume || !self.path.exists() {
            return Ok(None);
        }
        let weights = Weights::open(&self.path)?;
        let step = self.check(request, weights.metadata().get("para-state").map_or("", String::as_str))?;
        let read = |name: &str, count: usize| -> Result<Vec<f32>> { Ok(weights.tensor(name, &[count])?.to_vec1()?) };
        let lengths: Vec<usize> = layers.iter().flat_map(|layer| &layer.slots).map(|slot| slot.numbers.len()).collect();
        let mut progress = Progress::new(lengths.into_iter(), request.settings.ema > 0.0);
        progress.step = step;
        let mut index = 0;
        for layer in layers {
            for slot in &mut layer.slots {
                let (name, count) = (format!("{}.{}", layer.name, slot.name), slot.numbers.len());
                let read = |name: &str, count: usize| -> Result<Vec<f32>> {
                    let numbers = read(name, count)?;
                    if numbers.iter().all(|x| x.is_finite()) {
                        return Ok(numbers);
                    }
                    Err(Fault::BrokenState { file: self.name(), tensor: name.to_owned() }.into())
                };
                progress.moments[index] = Moments {
                    first: read(&format!("{name}.mean"), count)?,
                    second: read(&format!("{name}.square"), count)?,
                };
                if let Some(averages) = &mut progress.averages {
                    averages[index] = read(&format!("{name}.average"), count)?;
                }
                slot.numbers = read(&name, count)?;
                index += 1;
            }
        }
        let losses = read("losses", 2 * step)?;
        let (losses, _) = losses.as_chunks::<2>();
        progress.losses = losses.iter().map(|[loss, of]| (*loss, of.is_finite().then_some(*of))).collect();
        Ok(Some((progress, samples(&weights)?)))
    }

    /// The step of a state that is this training's.
    fn check(&self, request: &TrainRequest<'_>, found: &str) -> Result<usize> {
        let other = |differs: String| Err(Fault::OtherTraining { file: self.name(), differs }.into());
        let Ok(found) = serde_json::from_str::<serde_json::Value>(found) else {
            return other("its header does not say of which".to_owned());
        };
        let ours: serde_json::Value =
            serde_json::from_str(&header(request, 0)).expect("written by the same function a line ago");
        for part in ["version", "settings", "data", "precision"] {
            // States of before there was a choice say nothing of it.
            if found[part] == ours[part] || (part == "precision" && found[part].is_null() && ours[part] == "single") {
                continue;
            }
            return other(match part {
                "data" => "its pictures, captions or model were others".to_owned(),
                part => difference(part, &found[part], &ours[part]),
            });
        }
        let step = found["step"].as_u64().and_then(|step| usize::try_from(step).ok());
        match step {
            Some(step) if step <= request.settings.steps => Ok(step),
            _ => other(format!("its step is {}", found["step"])),
        }
    }
}

/// The sample pictures of a state, by step.
fn samples(weights: &Weights) -> Result<Samples> {
    let mut samples = Vec::new();
    for name in weights.names() {
        if let (Some(Ok(step)), Some(shape)) = (name.strip_prefix(SAMPLE).map(str::parse), weights.shape(name)) {
            samples.push((step, weights.tensor(name, shape)?));
        }
    }
    samples.sort_by_key(|(step, _)| *step);
    Ok(samples)
}

/// All that tells this training from others, the network's own numbers apart, as text: the version of its state, settings,
/// data.
#[must_use]
pub fn identity(request: &TrainRequest<'_>) -> String {
    header(request, 0)
}

/// What a state says of itself, in JSON.
fn header(request: &TrainRequest<'_>, step: usize) -> String {
    let header = serde_json::json!({
        "version": VERSION,
        "step": step,
        "settings": request.settings,
        "data": print(request),
        "precision": precision(request),
    });
    header.to_string()
}

/// In which numbers the network multiplies: another one takes other steps.
fn precision(request: &TrainRequest<'_>) -> &'static str {
    let mut found = Precision::Single;
    request.unet.clone().visit(&mut |weight| found = weight.precision());
    match found {
        Precision::Single => "single",
        Precision::Bf16 => "bf16",
    }
}

/// What tells data apart: FNV-1a over all latents and prompts.
fn print(request: &TrainRequest<'_>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |tensor: &candle_core::Tensor| {
        let numbers = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).unwrap_or_default();
        for byte in numbers.iter().flat_map(|x| x.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for example in request.subject.iter().chain(request.class) {
        add(&example.latent);
        add(&example.context);
    }
    format!("{hash:016x}")
}

/// Replaces a file by a whole one.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Of its own for each: two trainings may keep the same state.
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let aside = path.with_extension(format!("{}-{number}.part", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().inspect_err(|_| {
        // Nobody can use a part of a state.
        let _ = fs::remove_file(&aside);
    })
}

/// The innermost setting in which two trainings differ, in words.
fn difference(name: &str, theirs: &serde_json::Value, ours: &serde_json::Value) -> String {
    let none = serde_json::Value::Null;
    if let (Some(left), Some(right)) = (theirs.as_object(), ours.as_object()) {
        let differing = right.iter().find(|(key, value)| left.get(*key) != Some(*value));
        // Of two methods each is the only key of its own.
        return match (differing, left.keys().next()) {
            (Some((key, _)), Some(other)) if left.len() == 1 && right.len() == 1 && key != other => {
                format!("`{name}` was {other}, and is {key}")
            }
            (Some((key, value)), _) => difference(key, left.get(key).unwrap_or(&none), value),
            (None, _) => format!("its {name} holds more than ours"),
        };
    }
    format!("`{name}` was {theirs}, and is {ours}")
}
