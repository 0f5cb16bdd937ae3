//! Several PaRas as one.

use std::collections::BTreeMap;

use super::dense;
use super::fault::Fault;
use super::names::Names;
use super::para::{Para, Stage};
use super::place::Excess;
use super::subset::Boundary;
use crate::error::Result;

/// How PaRas are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// One after another, each on what the one before left.
    Sequential,
    /// All that any of them takes out, at once: one projection.
    Union,
}

impl std::str::FromStr for Merge {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "sequential" => Ok(Self::Sequential),
            "union" => Ok(Self::Union),
            _ => Err("no such way"),
        }
    }
}

impl Merge {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Union => "union",
        }
    }
}

/// Combines PaRas in their order, with the rank boundary of every layer kept. `names`, if given, tells under which names two files
/// mean one layer; without them names have to be equal.
///
/// # Errors
/// [`Fault::ShapeMismatch`] for PaRas of different models, [`Fault::RankBoundary`].
pub fn merge(paras: &[&Para], how: Merge, names: Option<&Names>, boundary: Boundary, excess: Excess) -> Result<Para> {
    let mut layers: BTreeMap<String, Vec<Stage>> = BTreeMap::new();
    for para in paras {
        for (spelling, stages) in &para.layers {
            let found = names.and_then(|names| names.find(spelling).map(|(_, layer)| names.kohya(layer)));
            layers.entry(found.unwrap_or_else(|| spelling.clone())).or_default().extend(stages.iter().cloned());
        }
    }
    for (name, stages) in &mut layers {
        let outputs = stages[0].outputs();
        if let Some(other) = stages.iter().find(|stage| stage.outputs() != outputs) {
            return Err(Fault::outputs(name, other.outputs(), &[outputs]).into());
        }
        let union = dense::union(stages.iter().map(Stage::q))?.expect("a layer has at least one stage");
        let rank = union.dim(1)?;
        if rank >= outputs {
            return Err(Fault::RankTooLarge { layer: name.clone(), rank, outputs }.into());
        }
        let over = boundary.check(name, rank, outputs).err();
        match (over, excess) {
            (Some(fault), Excess::Refuse) => return Err(fault.into()),
            (Some(_), Excess::Truncate) => {
                let cap = boundary.cap(outputs);
                *stages = match how {
                    Merge::Union => leave(Stage::orthonormal(&union)?, cap)?,
                    Merge::Sequential => shorten(stages, cap)?,
                };
            }
            _ if how == Merge::Union && stages.len() > 1 => *stages = vec![Stage::orthonormal(&union)?],
            _ => {}
        }
    }
    layers.retain(|_, stages| !stages.is_empty());
    if layers.is_empty() {
        return Err(Fault::NothingToAdapt { why: "gamma leaves no layer a direction".to_owned() }.into());
    }
    Ok(Para { layers, metadata: combined(paras, how)? })
}

fn leave(stage: Stage, cap: usize) -> Result<Vec<Stage>> {
    if cap == 0 { Ok(Vec::new()) } else { Ok(vec![stage.prefix(cap)?]) }
}

/// The first directions of the stages in turn, `cap` in all.
fn shorten(stages: &[Stage], mut cap: usize) -> Result<Vec<Stage>> {
    let mut kept = Vec::new();
    for stage in stages {
        let rank = stage.rank().min(cap);
        if rank > 0 {
            kept.push(stage.prefix(rank)?);
        }
        cap -= rank;
    }
    Ok(kept)
}

/// What is known of the making of all of them. What they agree on stays.
fn combined(paras: &[&Para], how: Merge) -> Result<BTreeMap<String, String>> {
    let mut metadata = paras.first().map(|para| para.metadata.clone()).unwrap_or_default();
    metadata.retain(|key, value| paras.iter().all(|para| para.metadata.get(key) == Some(value)));
    metadata.remove("para.rank");
    let source = |para: &&Para| -> Result<serde_json::Value> {
        let said = |key: &str| para.metadata.get(key).cloned();
        Ok(serde_json::json!({
            "sha256": para.tensors_sha256()?, "rank": para.rank(), "parameters": para.parameters(),
            "class": said("para.class"), "trigger": said("para.trigger"), "base_name": said("para.base_name"),
        }))
    };
    let sources = paras.iter().map(source).collect::<Result<Vec<_>>>()?;
    metadata.insert("para.sources".to_owned(), serde_json::Value::from(sources).to_string());
    metadata.insert("para.merge".to_owned(), how.name().to_owned());
    Ok(metadata)
}
