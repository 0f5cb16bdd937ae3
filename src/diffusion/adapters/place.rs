//! Which adapter goes on which layer of a model: names resolved, shapes checked, ranks bounded.

use std::sync::Arc;

use super::dense;
use super::fault::{Fault, Unmatched};
use super::lora::{Added, LoraModel, Vectors};
use super::names::{Layer, Names, Part};
use super::para::{Para, Projection, Stage};
use super::subset::{Boundary, Subset};
use super::svdiff::{Shift, SvDiff};
use crate::error::{Error, Result};
use crate::merge::{self, Network};
use crate::nn::{Adapter, Effect, Layers, Weight, attach};

/// An adapter and the layer that it is for.
pub struct Placed {
    /// The network.
    pub part: Part,
    /// The layer's name in the checkpoint.
    pub layer: String,
    /// What acts on it.
    pub adapter: Arc<dyn Adapter>,
}

/// What becomes of a bias or of a norm's scale.
#[derive(Debug, Clone)]
pub struct Moved {
    /// The network.
    pub part: Part,
    /// The name of the layer or the norm in the checkpoint.
    pub place: String,
    /// Whether it is its bias, or the scale of a norm.
    pub is_bias: bool,
    /// How.
    pub by: By,
}

/// How the numbers of a bias or a norm change, `[channels]` f32.
#[derive(Debug, Clone)]
pub enum By {
    /// These are added.
    Add(candle_core::Tensor),
    /// These take their place.
    Set(candle_core::Tensor),
}

/// What became of a file's parts.
#[derive(Default)]
pub struct Placement {
    /// Those that fit, in the model's order of layers.
    pub placed: Vec<Placed>,
    /// What is added beside weights.
    pub moved: Vec<Moved>,
    /// Those that fit no layer, or none of their shape.
    pub unmatched: Vec<Unmatched>,
    /// How many parts the file has.
    pub parts: usize,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// What to do with directions beyond the rank boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// Say so and stop.
    Refuse,
    /// Leave those out that take the least.
    Truncate,
    /// Let them be.
    Ignore,
}

impl std::str::FromStr for Excess {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "error" => Ok(Self::Refuse),
            "truncate" => Ok(Self::Truncate),
            "ignore" => Ok(Self::Ignore),
            _ => Err("no such way"),
        }
    }
}

/// How a PaRa is put on a model.
#[derive(Debug, Clone)]
pub struct OnPara {
    /// 0 nothing, 1 all of it.
    pub strength: f64,
    /// How many directions a layer may lose.
    pub boundary: Boundary,
    /// What to do beyond that.
    pub excess: Excess,
    /// The layers that take part; `None` for all that the file has.
    pub subset: Option<Subset>,
}

/// A strength is a number.
fn check_strength(strength: f64) -> Result<(), Fault> {
    if strength.is_finite() { Ok(()) } else { Err(Fault::InvalidStrength { strength }) }
}

/// A subset that leaves out all layers that an adapter is for is a mistake.
fn check_chosen(subset: Option<&Subset>, outside: usize, layers: usize) -> Result<(), Fault> {
    match subset {
        Some(subset) if layers > 0 && outside == layers => {
            let why =
                format!("the subset `{}` has none of the {layers} layers that this adapter is for", subset.text());
            Err(Fault::NothingToAdapt { why })
        }
        _ => Ok(()),
    }
}

impl Placement {
    /// What is for one network.
    #[must_use]
    pub fn of(&self, part: Part) -> Vec<(String, Arc<dyn Adapter>)> {
        let of_part = self.placed.iter().filter(|placed| placed.part == part);
        of_part.map(|placed| (placed.layer.clone(), placed.adapter.clone())).collect()
    }

    /// A network with what is for it. Where there is nothing, it is the same.
    ///
    /// # Errors
    /// What [`attach`] says, and tensors that cannot be read.
    pub fn attach<M: Network>(&self, part: Part, network: &M) -> Result<M> {
        let moved: Vec<&Moved> = self.moved.iter().filter(|moved| moved.part == part).collect();
        attach(&merge::moved(network, &moved)?, &self.of(part))
    }

    /// The fault for parts that fit nothing.
    ///
    /// # Errors
    /// [`Fault::UnmatchedKeys`] if there are any; with `some_may_miss` only if nothing fits.
    pub fn require(&self, some_may_miss: bool) -> Result<(), Fault> {
        if self.unmatched.is_empty() || (some_may_miss && self.unmatched.len() < self.parts) {
            return Ok(());
        }
        Err(Fault::UnmatchedKeys { table: self.unmatched.clone(), of: self.parts })
    }

    /// Puts what one module adds beside weights in its place.
    fn vectors(
        &mut self,
        names: &Names,
        module: &str,
        vectors: &Vectors,
        strength: impl Fn(Part) -> f64,
    ) -> Result<()> {
        let Some(place) = names.beside(module) else {
            self.unmatched.push(names.unmatched(module));
            return Ok(());
        };
        for (end, numbers) in vectors.tensors() {
            let is_bias = end == "diff_b";
            let found = if is_bias { place.bias } else { place.weight.as_ref().filter(|w| w.len() == 1).map(|w| w[0]) };
            if found != Some(numbers.elem_count()) {
                let kind = if is_bias { "bias" } else { "norm" };
                let found = found.map_or(format!("no {kind} there"), |found| format!("a {kind} of {found}"));
                self.unmatched.push(Unmatched {
                    name: format!("{module}.{end}"),
                    why: format!("it is made for {} numbers, the model has {found}", numbers.elem_count()),
                    nearest: Vec::new(),
                });
                continue;
            }
            let strength = strength(place.part);
            if strength == 0.0 {
                continue;
            }
            let by = if end == "set_weight" { By::Set(numbers.clone()) } else { By::Add((numbers * strength)?) };
            self.moved.push(Moved { part: place.part, place: place.name.clone(), is_bias, by });
        }
        Ok(())
    }

    /// Pairs a file's modules with layers; `place` makes the adapters of one, none of it if the module is not wanted. A module
    /// whose shape fits another model is a row of the table.
    fn pair<'a, T>(
        names: &Names,
        modules: impl Iterator<Item = (&'a String, &'a T)>,
        mut place: impl FnMut(&Layer, &'a T) -> Result<Vec<Arc<dyn Adapter>>>,
    ) -> Result<Self>
    where
        T: 'a,
    {
        let modules: std::collections::BTreeMap<&str, &T> =
            modules.map(|(name, module)| (name.as_str(), module)).collect();
        let (paired, unmatched) = names.pair(modules.keys().copied())?;
        let mut placement = Self { unmatched, parts: modules.len(), ..Self::default() };
        for (module, layer) in paired {
            match place(layer, modules[module]) {
                Ok(adapters) => placement.placed.extend(adapters.into_iter().map(|adapter| Placed {
                    part: layer.part,
                    layer: layer.name.clone(),
                    adapter,
                })),
                Err(Error::Adapter(Fault::ShapeMismatch { file, model, .. })) => placement.unmatched.push(Unmatched {
                    name: module.to_owned(),
                    why: format!("it is made for {file}, the model has {model}"),
                    nearest: Vec::new(),
                }),
                Err(error) => return Err(error),
            }
        }
        Ok(placement)
    }
}

impl LoraModel {
    /// Its modules on a model's layers, at a strength for each network; with a subset, on its layers only.
    ///
    /// # Errors
    /// [`Fault::InvalidStrength`], [`Fault::DuplicateModule`], [`Fault::NothingToAdapt`] when the subset has none of its
    /// layers.
    pub fn place(&self, names: &Names, strength: impl Fn(Part) -> f64, subset: Option<&Subset>) -> Result<Placement> {
        for part in [Part::Unet, Part::TextL, Part::TextH, Part::TextG] {
            check_strength(strength(part))?;
        }
        let mut outside = 0;
        let mut placement = Placement::pair(names, self.modules.iter(), |layer, module| {
            let strength = strength(layer.part);
            let adapter = Added::on(&layer.name, &layer.shape, module, strength)?;
            let chosen = subset.is_none_or(|subset| subset.contains(layer));
            outside += usize::from(!chosen);
            Ok(if strength == 0.0 || !chosen { Vec::new() } else { vec![adapter] })
        })?;
        check_chosen(subset, outside, self.modules.len())?;
        let mut taken = std::collections::BTreeMap::new();
        for (name, vectors) in &self.vectors {
            // The bias of a layer that the subset leaves out, or a norm, which is in none.
            if subset.is_some_and(|subset| names.find(name).is_none_or(|(_, layer)| !subset.contains(layer))) {
                continue;
            }
            placement.parts += 1;
            if let Some(place) = names.beside(name)
                && let Some(first) = taken.insert((place.part, &place.name), name.clone())
            {
                return Err(Fault::DuplicateModule { layer: place.name.clone(), first, second: name.clone() }.into());
            }
            placement.vectors(names, name, vectors, &strength)?;
        }
        Ok(placement)
    }
}

impl SvDiff {
    /// Its shifts on a model's layers.
    ///
    /// # Errors
    /// [`Fault::InvalidStrength`], [`Fault::DuplicateModule`].
    pub fn place(&self, names: &Names, strength: f64) -> Result<Placement> {
        check_strength(strength)?;
        Placement::pair(names, self.layers.iter(), |layer, shifts| {
            let adapter = Shift::on(&layer.name, &layer.shape, shifts, strength)?;
            Ok(if strength == 0.0 { Vec::new() } else { vec![adapter] })
        })
    }
}

impl Para {
    /// Its stages on a model's layers, each acting on what the one before left. `network` is what it goes on: directions that
    /// PaRas on it take out already count for the boundary.
    ///
    /// # Errors
    /// [`Fault::InvalidStrength`], [`Fault::DuplicateModule`], [`Fault::RankBoundary`] when directions beyond it are refused,
    /// [`Fault::NothingToAdapt`] when the subset has none of its layers, or the boundary leaves none of them a direction.
    pub fn place<M: Layers + Clone>(&self, names: &Names, network: &M, on: &OnPara) -> Result<Placement> {
        check_strength(on.strength)?;
        let (mut shortened, mut outside, mut acting, mut idle) = (Vec::new(), 0, 0, 0);
        let mut placement = Placement::pair(names, self.layers.iter(), |layer, stages: &Vec<Stage>| {
            if let Some(stage) = stages.iter().find(|stage| stage.outputs() != layer.shape[0]) {
                return Err(Fault::outputs(&layer.name, stage.outputs(), &layer.shape).into());
            }
            if on.subset.as_ref().is_some_and(|subset| !subset.contains(layer)) {
                outside += 1;
                return Ok(Vec::new());
            }
            let before = removed(network, &layer.name)?;
            let bounded = bound(layer, stages, &before, on)?;
            let joint = dense::joint_rank(before.iter().chain(bounded.iter().map(Stage::q)))?;
            acting += usize::from(!bounded.is_empty());
            idle += usize::from(!bounded.is_empty() && joint == dense::joint_rank(before.iter())?);
            let (rank, left) = (total(stages), total(&bounded));
            if left < rank {
                shortened.push(format!("{} {rank} to {left}", layer.name));
            }
            if on.strength == 0.0 {
                return Ok(Vec::new());
            }
            bounded.iter().map(|stage| Projection::of(stage, on.strength)).collect()
        })?;
        check_chosen(on.subset.as_ref(), outside, self.layers.len())?;
        if !shortened.is_empty() {
            let cap = on.boundary.gamma();
            if acting == 0 {
                let why = format!("gamma {cap} leaves none of {} layers a direction; raise it", shortened.len());
                return Err(Fault::NothingToAdapt { why }.into());
            }
            placement.notes.push(format!(
                "gamma {cap} left {} layers with fewer directions, the first {}",
                shortened.len(),
                shortened[0]
            ));
        }
        if idle > 0 && idle == acting {
            placement.notes.push(
                "a PaRa below takes all of these directions out already: at strength 1 the same one does nothing more"
                    .to_owned(),
            );
        }
        if !(0.0..=1.0).contains(&on.strength) {
            placement.notes.push(format!("a strength of {} lies outside 0 to 1", on.strength));
        }
        Ok(placement)
    }
}

fn total(stages: &[Stage]) -> usize {
    stages.iter().map(Stage::rank).sum()
}

/// Directions that adapters on a layer take out already.
fn removed<M: Layers + Clone>(network: &M, layer: &str) -> Result<Vec<candle_core::Tensor>> {
    let mut found = Vec::new();
    for adapter in
        on_layers(network).into_iter().find(|weight| weight.layer() == layer).iter().flat_map(Weight::history)
    {
        if let Effect::Removes(q) = adapter.effect()? {
            found.push(q);
        }
    }
    Ok(found)
}

/// Every weight of a network, with the adapters on it.
#[must_use]
pub fn on_layers<M: Layers + Clone>(network: &M) -> Vec<Weight> {
    let mut weights = Vec::new();
    network.clone().visit(&mut |weight| weights.push(weight.clone()));
    weights
}

/// The stages that the boundary leaves. What counts is the dimension of all that is removed.
fn bound(layer: &Layer, stages: &[Stage], before: &[candle_core::Tensor], on: &OnPara) -> Result<Vec<Stage>> {
    let outputs = layer.shape[0];
    let rank = dense::joint_rank(before.iter().chain(stages.iter().map(Stage::q)))?;
    match (on.boundary.check(&layer.name, rank, outputs), on.excess) {
        (Ok(()), _) | (Err(_), Excess::Ignore) => Ok(stages.to_vec()),
        (Err(fault), Excess::Refuse) => Err(fault.into()),
        (Err(_), Excess::Truncate) => {
            let mut room = on.boundary.cap(outputs).saturating_sub(dense::joint_rank(before.iter())?);
            let mut kept = Vec::new();
            for stage in stages {
                let rank = stage.rank().min(room);
                if rank > 0 {
                    kept.push(stage.prefix(rank)?);
                }
                room -= rank;
            }
            Ok(kept)
        }
    }
}
