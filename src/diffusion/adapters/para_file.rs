//! Files of PaRas: ours, and PEFT's folders.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde_json::Value;

use super::dense;
use super::fault::{Fault, Unmatched};
use super::para::{Para, Stage};
use super::write::{Store, tensors_sha256, write};
use crate::error::Result;
use crate::nn::Weights;

/// The version of the format that is written, and the greatest major one that is read.
const VERSION: u32 = 1;
/// PEFT's name for a projection's directions.
const PEFT: &str = ".deft_P";

/// What was read.
pub struct Read {
    /// The adapter.
    pub para: Para,
    /// Keys that are no part of one.
    pub unknown: Vec<Unmatched>,
    /// What was repaired.
    pub notes: Vec<String>,
}

impl Para {
    /// Reads a file. With `repair`, columns that depend on others are left out instead of refused.
    ///
    /// # Errors
    /// [`Fault::NotAnAdapter`], [`Fault::UnsupportedVersion`], [`Fault::RankDeficient`], [`Fault::NonFinite`],
    /// [`Fault::RankTooLarge`], [`Fault::BadModule`].
    pub fn read(file: &Weights, repair: bool) -> Result<Read> {
        let metadata = file.metadata();
        if let Some(version) = metadata.get("para.version") {
            let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
            if major.is_none_or(|major| major > VERSION) {
                return Err(Fault::UnsupportedVersion { found: version.clone(), known: VERSION }.into());
            }
        }
        let mut reader = Reader {
            file,
            repair,
            layers: BTreeMap::new(),
            energies: BTreeMap::new(),
            unknown: Vec::new(),
            notes: Vec::new(),
        };
        for key in file.names() {
            reader.key(key)?;
        }
        let layers = reader.finish()?;
        if layers.is_empty() {
            return Err(not_a_para(file));
        }
        let para = Self { layers, metadata: metadata.clone() };
        Ok(Read { para, unknown: reader.unknown, notes: reader.notes })
    }

    /// Reads PEFT's `adapter_model.safetensors` beside its `adapter_config.json`.
    ///
    /// # Errors
    /// [`Fault::NotAnAdapter`] when the settings are not those of a projection, and as [`read`](Self::read).
    pub fn read_peft(file: &Weights, config: &Value, repair: bool) -> Result<Read> {
        let refuse = |fact: String, hint: &str| -> crate::Error {
            Fault::NotAnAdapter { file: file.file().to_owned(), fact, hint: hint.to_owned() }.into()
        };
        if config["para"] != Value::Bool(true) {
            return Err(refuse("its adapter_config.json does not say `para: true`".to_owned(), ""));
        }
        let method = config["decomposition_method"].as_str().unwrap_or("relu");
        if method != "qr" {
            let hint = "train it with decomposition_method=\"qr\"";
            return Err(refuse(format!("its decomposition_method is `{method}`, which is no projection"), hint));
        }
        Self::read(file, repair)
    }

    /// SHA-256 of the bytes after the header of its file in f32: what the ModelSpec calls `hash_sha256`, without `0x`. It tells
    /// one PaRa from another, whatever their headers say.
    ///
    /// # Errors
    /// Out of memory.
    pub fn tensors_sha256(&self) -> Result<String> {
        let file = self.to_file(Store::F32)?;
        Ok(tensors_sha256(&file))
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// Out of memory.
    pub fn to_file(&self, store: Store) -> Result<Vec<u8>> {
        let mut tensors = Vec::new();
        for (name, stages) in &self.layers {
            for (index, stage) in stages.iter().enumerate() {
                let end = if index == 0 { "para_q".to_owned() } else { format!("para_q.{index}") };
                tensors.push((format!("{name}.{end}"), stage.q().clone(), store));
            }
            if let [stage] = &stages[..]
                && let Some(energy) = stage.energy()
            {
                let energy = Tensor::from_slice(energy, energy.len(), &candle_core::Device::Cpu)?;
                tensors.push((format!("{name}.para_energy"), energy, Store::F32));
            }
        }
        let mut metadata = self.metadata.clone();
        let rank = self.rank().to_string();
        for (key, value) in [
            ("para.version", VERSION.to_string()),
            ("para.side", "output".to_owned()),
            ("para.mode", "projection".to_owned()),
            ("para.stages", self.depth().to_string()),
            ("ss_network_module", "para".to_owned()),
            ("ss_network_dim", rank.clone()),
        ] {
            metadata.insert(key.to_owned(), value);
        }
        metadata.entry("para.rank".to_owned()).or_insert(rank);
        write(&tensors, &metadata)
    }
}

struct Reader<'a> {
    file: &'a Weights,
    repair: bool,
    layers: BTreeMap<String, BTreeMap<usize, Stage>>,
    energies: BTreeMap<String, Vec<f32>>,
    unknown: Vec<Unmatched>,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn key(&mut self, key: &str) -> Result<()> {
        let shape = self.file.shape(key).unwrap_or_default().to_vec();
        if let Some(module) = key.strip_suffix(".para_energy") {
            let energy = self.file.tensor(key, &shape)?;
            dense::require_finite(key, &energy)?;
            self.energies.insert(module.to_owned(), energy.flatten_all()?.to_vec1()?);
            return Ok(());
        }
        let Some((module, index)) = stage_of(key) else {
            let why = "it is no tensor of a PaRa".to_owned();
            self.unknown.push(Unmatched { name: key.to_owned(), why, nearest: Vec::new() });
            return Ok(());
        };
        let &[_, _] = &shape[..] else {
            let fact = format!("`{key}` has shape {shape:?}, directions are [out, rank]");
            return Err(Fault::BadModule { module: module.to_owned(), fact }.into());
        };
        let columns = self.file.tensor(key, &shape)?;
        let stage = if self.repair {
            let (stage, dropped) = Stage::repaired(key, &columns)?;
            if !dropped.is_empty() {
                self.notes.push(format!("{} dependent columns of {key} were left out", dropped.len()));
            }
            stage
        } else {
            Stage::new(key, &columns, None)?
        };
        self.layers.entry(module.to_owned()).or_default().insert(index, stage);
        Ok(())
    }

    /// Stages in their order, energies with the first if they are as many as its columns.
    fn finish(&mut self) -> Result<BTreeMap<String, Vec<Stage>>, Fault> {
        let mut layers = BTreeMap::new();
        for (module, stages) in std::mem::take(&mut self.layers) {
            if let Some(gap) = stages.keys().enumerate().find(|(place, index)| place != *index) {
                return Err(Fault::BadModule { module, fact: format!("its stage {} is missing", gap.0) });
            }
            let mut stages: Vec<Stage> = stages.into_values().collect();
            if let Some(energy) = self.energies.remove(&module) {
                stages[0] = stages[0].with_energy(energy);
            }
            layers.insert(module, stages);
        }
        for module in std::mem::take(&mut self.energies).into_keys() {
            let why = "there are no directions that these energies belong to".to_owned();
            self.unknown.push(Unmatched { name: format!("{module}.para_energy"), why, nearest: Vec::new() });
        }
        Ok(layers)
    }
}

/// The module and the stage that a key names.
fn stage_of(key: &str) -> Option<(&str, usize)> {
    if let Some(module) = key.strip_suffix(".para_q").or_else(|| key.strip_suffix(PEFT)) {
        return Some((module, 0));
    }
    let (module, index) = key.split_once(".para_q.")?;
    Some((module, index.parse().ok().filter(|index| *index > 0)?))
}

fn not_a_para(file: &Weights) -> crate::Error {
    let lora = file.names().any(|name| name.contains("lora_") || name.contains("hada_") || name.contains("lokr_"));
    let (fact, hint) = if lora {
        ("it holds a LoRA, not a PaRa", "load it with LoraLoader, from models/loras")
    } else {
        ("it holds no PaRa: no key ends in `.para_q`", "")
    };
    Fault::NotAnAdapter { file: file.file().to_owned(), fact: fact.to_owned(), hint: hint.to_owned() }.into()
}
