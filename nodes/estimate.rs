//! What a run will take, said before it begins: from the graph, the files' headers and the networks' shapes.
//!
//! An estimate of what is known beforehand. Sizes that only a running node finds out (a picture's, say), adapters and control
//! networks are left out, and it says which nodes it could not count.

use crate::error::Error;
use crate::files::{Checkpoints, DiffusionModels, Folder, FolderName, Place, place};
use crate::loaders::{compute, open};
use crate::memory::Memory;
use paraflow_diffusion::checkpoint::{Checkpoint, inspect};
use paraflow_diffusion::cost::{self, Cost};
use paraflow_diffusion::nn::Precision;
use paraflow_engine::{Plan, Services};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What the program takes with no model: measured, about 30 MiB, and what its threads work with.
const PROGRAM_BYTES: f64 = (64 << 20) as f64;
/// How much memory a number that layers hand on takes with what the allocator keeps beside it. Measured: 1.27 for a picture of
/// 512 pixels by Stable Diffusion 1.5.
const KEPT: f64 = 1.3;
/// Pixels of a picture's side for one cell of a latent's.
const CELL: usize = crate::latent::CELL;
/// Links that are followed before a graph is taken for one in a circle.
const FARTHEST: usize = 1000;

/// What a run will take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Memory at its fullest.
    pub peak_bytes: u64,
    /// How much of it is weights.
    pub weight_bytes: u64,
    /// Floating-point operations.
    pub operations: f64,
    /// Nodes that work and that could not be counted.
    pub unknown: Vec<String>,
}

impl Estimate {
    /// Refuses a run for which there is no room.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn require(&self, services: &Services) -> Result<(), Error> {
        Memory::of(services).require(self.peak_bytes, || "this graph".to_owned())
    }
}

/// The estimate of a plan; `None` where it has nothing to do with networks.
///
/// # Errors
/// [`Error::AtNode`] for a model's file that cannot be read, or that lacks the part which a node needs of it.
pub fn estimate(plan: &Plan, services: &Services) -> Result<Option<Estimate>, Error> {
    let Json::Object(nodes) = plan.prompt() else { return Ok(None) };
    let graph = Graph { nodes };
    let mut sum = Sum { services, models: BTreeMap::new(), estimate: Estimate::default(), working: 0.0, any: false };
    for id in plan.nodes() {
        let id = id.to_string();
        let class = graph.class(&id);
        let at = |error| Error::AtNode { node: id.clone(), class: class.to_owned(), error: Box::new(error) };
        sum.needs(&graph, &id).and_then(|()| sum.node(&graph, &id)).map_err(at)?;
    }
    Ok(sum.any.then(|| sum.finish()))
}

/// The graph by its nodes' ids.
struct Graph<'a> {
    nodes: &'a serde_json::Map<String, Json>,
}

impl<'a> Graph<'a> {
    fn class(&self, id: &str) -> &'a str {
        self.nodes.get(id).and_then(|node| node["class_type"].as_str()).unwrap_or_default()
    }

    fn input(&self, id: &str, name: &str) -> Option<&'a Json> {
        self.nodes.get(id)?.get("inputs")?.get(name)
    }

    fn number(&self, id: &str, name: &str) -> Option<usize> {
        self.input(id, name)?.as_u64().and_then(|number| usize::try_from(number).ok())
    }

    /// The node at the other end of a wire.
    fn source(&self, id: &str, name: &str) -> Option<&'a str> {
        self.input(id, name)?.as_array()?.first()?.as_str()
    }

    /// Follows the wires of these names, whichever a node has, until `found` finds something.
    fn follow<T>(&self, from: &str, wires: &[&str], found: impl Fn(&str) -> Option<T>) -> Option<T> {
        let next = |id: &str| wires.iter().find_map(|wire| self.source(id, wire));
        let path = std::iter::successors(next(from), |id| next(id));
        path.take(FARTHEST).find_map(found)
    }

    /// The checkpoint that a wire of a model comes from.
    fn model(&self, id: &str, wires: &[&str]) -> Option<Named> {
        self.follow(id, wires, |id| match self.class(id) {
            "UNETLoader" => Named::of(DiffusionModels::KEY, self.input(id, "unet_name")?),
            class if class.contains("CheckpointLoader") => Named::of(Checkpoints::KEY, self.input(id, "ckpt_name")?),
            _ => None,
        })
    }

    /// Batch, rows and columns of the latent at the end of a wire.
    fn latent(&self, id: &str, wires: &[&str]) -> Option<(usize, usize, usize)> {
        self.follow(id, wires, |id| {
            let (width, height) = (self.number(id, "width")?, self.number(id, "height")?);
            Some((self.number(id, "batch_size").unwrap_or(1), height.div_ceil(CELL), width.div_ceil(CELL)))
        })
    }
}

/// A model by its folder and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    folder: &'static str,
    name: String,
}

impl Named {
    fn of(folder: &'static str, name: &Json) -> Option<Self> {
        Some(Self { folder, name: name.as_str()?.to_owned() })
    }

    fn find(&self, services: &Services) -> Result<Place, Error> {
        if self.folder == Checkpoints::KEY {
            place::<Checkpoints>(&self.name, services)
        } else {
            place::<DiffusionModels>(&self.name, services)
        }
    }
}

/// Which of a checkpoint's networks the graph uses.
#[derive(Default)]
struct Used {
    checkpoint: Option<Checkpoint>,
    /// By the names that `inspect` gives them.
    parts: [bool; 3],
}

const PARTS: [&str; 3] = ["UNet", "text encoder", "VAE"];

struct Sum<'a> {
    services: &'a Services,
    models: BTreeMap<Named, Used>,
    estimate: Estimate,
    working: f64,
    any: bool,
}

impl Sum<'_> {
    /// Notes the parts of checkpoints that come to a node, wherever they come from.
    fn needs(&mut self, graph: &Graph<'_>, id: &str) -> Result<(), Error> {
        for (part, wire) in ["model", "clip", "vae"].into_iter().enumerate() {
            if let Some(model) = graph.model(id, &[wire]) {
                self.used(model, part)?;
            }
        }
        Ok(())
    }

    fn node(&mut self, graph: &Graph<'_>, id: &str) -> Result<(), Error> {
        let class = graph.class(id);
        match class {
            "KSampler" | "KSamplerAdvanced" => {
                let calls = graph.number(id, "steps").unwrap_or(1) * evaluations(graph, id);
                let sides = if graph.input(id, "cfg").and_then(Json::as_f64) == Some(1.0) { 1 } else { 2 };
                let (model, latent) = (graph.model(id, &["model"]), graph.latent(id, &["latent_image", "samples"]));
                self.count(id, class, 0, model, latent, |checkpoint, (batch, rows, columns)| {
                    let weights = checkpoint.unet_weights();
                    let cost = cost::unet(&weights, checkpoint.config(), sides * batch, (rows, columns));
                    Cost { operations: cost.operations * calls as f64, ..cost }
                })
            }
            "VAEDecode" => {
                let (model, latent) = (graph.model(id, &["vae"]), graph.latent(id, &["samples", "latent_image"]));
                self.count(id, class, 2, model, latent, |checkpoint, (batch, rows, columns)| {
                    let cost = cost::decode(&checkpoint.vae_weights(), (rows, columns));
                    Cost { operations: cost.operations * batch as f64, ..cost }
                })
            }
            "PaRaTrain" | "LoRATrain" | "SVDiffTrain" => {
                let steps = graph.number(id, "steps").unwrap_or(1);
                let accumulated = graph.number(id, "grad_accumulation_steps").unwrap_or(1);
                let batch = graph.number(id, "batch_size").unwrap_or(1);
                let checkpointing = graph.input(id, "gradient_checkpointing") == Some(&Json::Bool(true));
                let size = self.subject(graph, id).map(|(rows, columns)| (batch, rows, columns));
                self.count(id, class, 0, graph.model(id, &["model"]), size, |checkpoint, (batch, rows, columns)| {
                    let (weights, config) = (checkpoint.unet_weights(), checkpoint.config());
                    let cost = cost::training_step(&weights, config, batch, (rows, columns), checkpointing);
                    Cost { operations: cost.operations * (steps * accumulated) as f64, ..cost }
                })
            }
            // Its part is noted.
            "CLIPTextEncode" => Ok(()),
            _ if ["Sampler", "Decode", "Encode", "Train", "ControlNet"].iter().any(|word| class.contains(word)) => {
                self.estimate.unknown.push(format!("{class} ({id})"));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Rows and columns of the latents of a subject's pictures: those that they are brought to, else the first one's own.
    fn subject(&self, graph: &Graph<'_>, id: &str) -> Option<(usize, usize)> {
        let subject = graph.source(id, "subject").filter(|id| graph.class(id) == "LoadSubject")?;
        if let Some(size) = graph.number(subject, "size").filter(|size| *size > 0) {
            return Some((size / CELL, size / CELL));
        }
        let folder = FolderName(graph.input(subject, "folder")?.as_str()?.to_owned());
        let files = folder.files(self.services).ok()?;
        let (width, height) = files.iter().find_map(|file| image::image_dimensions(file).ok())?;
        Some((height as usize / CELL, width as usize / CELL))
    }

    fn count(
        &mut self,
        id: &str,
        class: &str,
        part: usize,
        model: Option<Named>,
        latent: Option<(usize, usize, usize)>,
        cost: impl FnOnce(&Checkpoint, (usize, usize, usize)) -> Cost,
    ) -> Result<(), Error> {
        let used = match model {
            Some(model) => self.used(model, part)?,
            None => None,
        };
        let (Some(checkpoint), Some(latent)) = (used, latent) else {
            self.estimate.unknown.push(format!("{class} ({id})"));
            return Ok(());
        };
        let cost = cost(checkpoint, latent);
        self.estimate.operations += cost.operations;
        self.working = self.working.max(cost.working_bytes);
        Ok(())
    }

    /// Notes that a part of a model works, and looks whether it is there and whole. `None` where the file is no checkpoint.
    fn used(&mut self, model: Named, part: usize) -> Result<Option<&Checkpoint>, Error> {
        self.any = true;
        if !self.models.contains_key(&model) {
            let weights = open(&model.find(self.services)?)?;
            let checkpoint = Checkpoint::from_weights(weights).ok();
            self.models.insert(model.clone(), Used { checkpoint, parts: [false; 3] });
        }
        let used = self.models.entry(model).or_default();
        if let Some(checkpoint) = used.checkpoint.as_ref().filter(|_| !used.parts[part]) {
            match part {
                0 => checkpoint.unet().map(drop)?,
                1 => checkpoint.clip().map(drop)?,
                _ => checkpoint.vae().map(drop)?,
            }
        }
        used.parts[part] = true;
        Ok(used.checkpoint.as_ref())
    }

    fn finish(mut self) -> Estimate {
        let precision = compute(self.services).precision();
        let mut weights = 0.0;
        for Used { checkpoint, parts } in self.models.values() {
            let Some(checkpoint) = checkpoint else { continue };
            let summary = inspect(checkpoint.weights());
            for (name, _) in PARTS.iter().zip(parts).filter(|(_, used)| **used) {
                let precision = if *name == "text encoder" { Precision::Single } else { precision };
                for part in summary.parts.iter().filter(|part| part.name == *name) {
                    weights += cost::weight_bytes(&checkpoint.weights().part(part.prefix), precision);
                }
            }
        }
        self.estimate.weight_bytes = weights as u64;
        self.estimate.peak_bytes = (PROGRAM_BYTES + weights + KEPT * self.working) as u64;
        self.estimate
    }
}

/// How often a sampler asks the network in a step.
fn evaluations(graph: &Graph<'_>, id: &str) -> usize {
    let name = graph.input(id, "sampler_name").and_then(Json::as_str).unwrap_or_default();
    let twice = ["heun", "dpm_2", "dpmpp_2s", "dpmpp_sde", "exp_heun", "seeds_2"];
    if twice.iter().any(|start| name.starts_with(start)) { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use serde_json::json;

    /// The estimate of the shipped graph with other inputs.
    fn estimate_of(sets: &[(&str, &str, u32)]) -> Estimate {
        let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../graphs/text-to-image.json")).unwrap();
        let mut graph: Json = serde_json::from_slice(&bytes).unwrap();
        for (class, input, number) in sets {
            let mut nodes = graph.as_object_mut().unwrap().values_mut();
            let node = nodes.find(|node| node["class_type"] == *class).unwrap();
            node["inputs"][*input] = Json::from(*number);
        }
        let bench = Bench::new();
        let plan = bench.plan_file(graph.to_string().as_bytes()).unwrap();
        estimate(&plan, bench.services()).unwrap().expect("a graph of networks")
    }

    #[test]
    fn work_grows_with_steps_and_memory_with_the_picture() {
        let plain = estimate_of(&[("KSampler", "steps", 10)]);
        assert_eq!(plain.unknown, [] as [String; 0]);
        let steps = estimate_of(&[("KSampler", "steps", 20)]);
        assert!(steps.operations > 1.8 * plain.operations && steps.peak_bytes == plain.peak_bytes);
        let wide = estimate_of(&[
            ("KSampler", "steps", 10),
            ("EmptyLatentImage", "width", 256),
            ("EmptyLatentImage", "height", 256),
        ]);
        assert!(wide.operations > 4.0 * plain.operations && wide.peak_bytes > plain.peak_bytes);
        assert_eq!(wide.weight_bytes, plain.weight_bytes);
        let unguided = estimate_of(&[("KSampler", "steps", 10), ("KSampler", "cfg", 1)]);
        assert!(unguided.operations < 0.7 * plain.operations);
    }

    /// All of it where the size is said, nothing where a picture decides.
    #[test]
    fn models_that_are_shown_pictures_are_counted_as_far_as_sizes_are_known() {
        let bench = Bench::new();
        let mut tensors = crate::tiny::tensors();
        tensors.get_mut("model.diffusion_model.input_blocks.0.0.weight").unwrap()[1] = 8;
        let width = tensors["cond_stage_model.transformer.text_model.final_layer_norm.bias"][0];
        tensors.insert("cc_projection.weight".to_owned(), vec![width, width + 4]);
        tensors.insert("cc_projection.bias".to_owned(), vec![width]);
        bench.write("models/checkpoints/zero.safetensors", &crate::tiny::drawn_by_name(&tensors));
        let estimate_of = |model: Json, vae: Json, shown: Json| {
            let graph = json!({
                "1": ["ImageOnlyCheckpointLoader", {"ckpt_name": "zero.safetensors"}],
                "2": ["EmptyImage", {"width": 64, "height": 64, "batch_size": 1, "color": 0}],
                "3": shown,
                "4": ["KSampler", {
                    "model": model, "seed": 0, "steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal",
                    "positive": ["3", 0], "negative": ["3", 1], "latent_image": ["3", 2], "denoise": 1.0,
                }],
                "5": ["VAEDecode", {"samples": ["4", 0], "vae": vae}],
                "6": ["PreviewImage", {"images": ["5", 0]}],
                "7": ["CheckpointLoaderSimple", {"ckpt_name": "toyland.safetensors"}],
                "8": ["CLIPTextEncode", {"text": "a bear", "clip": ["7", 1]}],
            });
            estimate(&bench.plan(graph).unwrap(), bench.services()).unwrap().unwrap()
        };
        let turned = json!(["StableZero123_Conditioning", {
            "clip_vision": ["1", 1], "init_image": ["2", 0], "vae": ["1", 2], "width": 64, "height": 64, "batch_size": 1,
            "elevation": 0.0, "azimuth": 30.0,
        }]);
        let turned = estimate_of(json!(["1", 0]), json!(["1", 2]), turned);
        assert!(turned.unknown.is_empty() && turned.operations > 0.0 && turned.weight_bytes > 0, "{turned:?}");
        let enlarged = json!(["SD_4XUpscale_Conditioning", {
            "images": ["2", 0], "positive": ["8", 0], "negative": ["8", 0], "scale_ratio": 4.0, "noise_augmentation": 0.0,
        }]);
        let enlarged = estimate_of(json!(["7", 0]), json!(["7", 2]), enlarged);
        assert_eq!(enlarged.unknown, ["KSampler (4)", "VAEDecode (5)"]);
    }

    #[test]
    fn a_training_is_counted_and_checkpointing_trades_time_for_memory() {
        let with = |checkpointing: bool| {
            let bench = Bench::new();
            let mut png = std::io::Cursor::new(Vec::new());
            image::RgbImage::new(128, 64).write_to(&mut png, image::ImageFormat::Png).unwrap();
            bench.write("input/bear/a.png", png.get_ref());
            let graph = json!({
                "4": ["CheckpointLoaderSimple", {"ckpt_name": "toyland.safetensors"}],
                "5": ["LoadSubject", {"folder": "bear", "fit": "crop"}],
                "6": ["PaRaTrain", {
                    "model": ["4", 0], "clip": ["4", 1], "vae": ["4", 2], "subject": ["5", 0],
                    "steps": 10, "gradient_checkpointing": checkpointing,
                }],
                "7": ["PaRaSave", {"para": ["6", 0], "filename_prefix": "x"}],
            });
            let plan = bench.plan(graph).unwrap();
            estimate(&plan, bench.services()).unwrap().unwrap()
        };
        let (plain, checkpointed) = (with(false), with(true));
        assert!(plain.unknown.is_empty(), "{:?}", plain.unknown);
        assert!(checkpointed.operations > 1.4 * plain.operations, "{plain:?} {checkpointed:?}");
        assert!(checkpointed.peak_bytes < plain.peak_bytes);
    }

    #[test]
    fn a_graph_without_room_is_refused_with_a_way_out() {
        let huge = estimate_of(&[("EmptyLatentImage", "width", 4096), ("EmptyLatentImage", "height", 4096)]);
        let services = Services::new().with(Memory { limit_bytes: Some(1 << 30) });
        let error = huge.require(&services).unwrap_err();
        assert!(error.to_string().starts_with("this graph needs about") && error.hint().is_some(), "{error}");
        assert!(estimate_of(&[]).require(&services).is_ok());
    }
}
