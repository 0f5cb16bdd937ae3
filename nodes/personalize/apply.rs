//! Putting adapters that are on a wire on a model.

use super::wires::{Lora, Para, SpectralShifts};
use super::{Strictness, settle};
use crate::error::{Error, tell};
use crate::wires::{Clip, Model};
use paraflow_diffusion::adapters::{
    Boundary, Cancelled, Excess, Fault, OnPara, Part, Placement, Subset, cancelled, check_base, fingerprint,
};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};
use std::collections::BTreeMap;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<PaRaApply>(), NodeDef::of::<LoRAApply>(), NodeDef::of::<SVDiffApply>()]
}

fn fault(fault: Fault) -> paraflow_engine::Error {
    tell(paraflow_diffusion::Error::from(fault))
}

/// Puts a PaRa on a model: the directions that it learned are taken out of the output of each layer.
///
/// Adapters act in the order of their nodes. A LoRA below a PaRa loses what it has in those directions, of which this node warns.
#[derive(Node)]
#[node(category = "personalize", display_name = "Apply PaRa")]
struct PaRaApply {
    /// The model to personalise.
    model: Shared<Model>,
    /// What to put on it.
    para: Shared<Para>,
    /// How much of it: 0 nothing, 1 all.
    #[input(default = 1.0, range = -10.0..=10.0, step = 0.01)]
    strength: f64,
    /// The part of its outputs that a layer may lose at most, to all PaRas of the chain together.
    #[input(default = 1.0, range = 0.001..=1.0, step = 0.001, advanced)]
    gamma: f64,
    /// What to do with directions beyond gamma.
    #[input(choices = ["error", "truncate", "ignore"], default = "error", advanced)]
    rank_boundary: Choice<Excess>,
    /// The layers that take part: `file` for all that it was made for, the name of a subset, or patterns such as `*attn1.to_q`.
    #[input(default = "file", advanced)]
    subset: String,
    /// What to do with parts of the file that fit no layer of the model.
    #[input(choices = ["error", "ignore"], default = "error", advanced)]
    unmatched: Choice<Strictness>,
    /// Whether to refuse a model that the PaRa was not trained on instead of warning.
    #[input(default = false, advanced)]
    strict_base: bool,
}

impl Run for PaRaApply {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        let subset = match self.subset.trim() {
            "file" | "" => None,
            name => Some(Subset::parse(name).map_err(fault)?),
        };
        let boundary = Boundary::new(self.gamma).map_err(fault)?;
        require_base(self.para.header(), &self.model, self.strict_base, cx).map_err(tell)?;
        let names = self.model.names(None);
        let placement = match &*self.para {
            Para::Projection(para) => {
                let on = OnPara { strength: self.strength, boundary, excess: *self.rank_boundary, subset };
                para.place(&names, &self.model.unet, &on)
            }
            Para::Free(lora) => lora.place(&names, |_| self.strength, subset.as_ref()),
        };
        let placement = placement.map_err(tell)?;
        require_arch(self.para.header(), &self.model, &placement, *self.unmatched).map_err(tell)?;
        settle(&placement, *self.unmatched, cx).map_err(tell)?;
        warn_cancelled(&self.model, &placement, cx).map_err(tell)?;
        self.model.with_adapters(&placement).map_err(tell)
    }
}

/// Warns of a model that an adapter was not trained on, or refuses it.
pub(crate) fn require_base(
    header: &BTreeMap<String, String>,
    model: &Model,
    strict: bool,
    cx: &Context<'_>,
) -> Result<(), Error> {
    match check_base(header, &fingerprint(&model.unet)?) {
        Err(differs) if strict => Err(paraflow_diffusion::Error::from(differs).into()),
        Err(differs) => {
            cx.warn(differs.to_string().lines().next().unwrap_or_default());
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Says in one sentence why parts of an adapter fit no layer, where its file is for another kind of model.
fn require_arch(
    header: &BTreeMap<String, String>,
    model: &Model,
    placement: &Placement,
    strictness: Strictness,
) -> Result<(), Error> {
    let missed = placement.unmatched.len();
    if missed == 0 || (strictness == Strictness::Ignore && missed < placement.parts) {
        return Ok(());
    }
    match ["para.arch", "paraflow.arch"].iter().find_map(|key| header.get(*key)) {
        Some(file) if *file != model.layout.id => {
            let fault = Fault::ArchMismatch { file: file.clone(), model: model.layout.id.to_owned() };
            Err(paraflow_diffusion::Error::from(fault).into())
        }
        _ => Ok(()),
    }
}

/// Warns of what is placed taking out a part of the adapters that are on a model.
fn warn_cancelled(model: &Model, placement: &Placement, cx: &Context<'_>) -> Result<(), Error> {
    if let Some(Cancelled { layers, share }) = cancelled(&model.unet, placement)? {
        cx.warn(format!(
            "a LoRA lies below this PaRa on {layers} layers, and the PaRa cancels {:.1} % of it there (squared length of the \
             change); put the PaRa first and the LoRA after it to keep all of it",
            100.0 * share
        ));
    }
    Ok(())
}

/// Puts a LoRA on a model, and on the text encoder if it has parts for one.
#[derive(Node)]
#[node(category = "personalize", display_name = "Apply LoRA")]
struct LoRAApply {
    /// The model to change.
    model: Shared<Model>,
    /// What to put on it.
    lora: Shared<Lora>,
    /// How much of it the model gets.
    #[input(default = 1.0, range = -100.0..=100.0, step = 0.01)]
    strength_model: f64,
    /// How much of it the text encoder gets.
    #[input(default = 1.0, range = -100.0..=100.0, step = 0.01)]
    strength_clip: f64,
    /// What to do with parts of the file that fit no layer of the model.
    #[input(choices = ["error", "ignore"], default = "error", advanced)]
    unmatched: Choice<Strictness>,
    /// The text encoder to change.
    clip: Option<Shared<Clip>>,
}

impl Run for LoRAApply {
    type Output = (Model, Clip);

    fn run(self, cx: &Context<'_>) -> Result<(Model, Clip)> {
        let strengths = [self.strength_model, self.strength_clip];
        put(&self.model, self.clip.as_deref(), &self.lora, strengths, *self.unmatched, cx).map_err(tell)
    }
}

/// A model and a text encoder with a LoRA. Without an encoder, the one that comes back says when it is used that there is none.
pub(crate) fn put(
    model: &Model,
    clip: Option<&Clip>,
    lora: &Lora,
    [on_model, on_clip]: [f64; 2],
    strictness: Strictness,
    cx: &Context<'_>,
) -> Result<(Model, Clip), Error> {
    // A PaRa that was exported is exact on its own checkpoint only.
    if lora.0.metadata.contains_key("para.export_error") {
        require_base(&lora.0.metadata, model, false, cx)?;
    }
    let strength = |part| if part == Part::Unet { on_model } else { on_clip };
    let placement = lora.0.place(&model.names(clip), strength, None)?;
    settle(&placement, strictness, cx)?;
    let clip = match clip {
        Some(clip) => clip.with_adapters(&placement)?,
        None => Clip::missing("LoRAApply without a text encoder"),
    };
    Ok((model.with_adapters(&placement)?, clip))
}

impl Clip {
    /// This encoder with adapters on its layers; the weights are shared.
    fn with_adapters(&self, placement: &Placement) -> Result<Self, Error> {
        let Ok(encoders) = self.encoders() else { return Ok(self.clone()) };
        let bytes =
            encoders.parts().iter().map(|encoder| super::baked_bytes(placement, encoder, Part::of(encoder))).sum();
        let adapted = encoders.map(|encoder| placement.attach(Part::of(encoder), encoder))?;
        Ok(self.with_encoders(adapted, bytes))
    }
}

/// Puts spectral shifts on a model. Every layer that they change gets a weight of its own.
#[derive(Node)]
#[node(category = "personalize", display_name = "Apply SVDiff", compute)]
struct SVDiffApply {
    /// The model to change: the checkpoint that they were trained on.
    model: Shared<Model>,
    /// What to put on it.
    svdiff: Shared<SpectralShifts>,
    /// How much of it.
    #[input(default = 1.0, range = -10.0..=10.0, step = 0.01)]
    strength: f64,
    /// What to do with parts of the file that fit no layer of the model.
    #[input(choices = ["error", "ignore"], default = "error", advanced)]
    unmatched: Choice<Strictness>,
    /// Whether to refuse a model that they were not trained on instead of warning.
    #[input(default = false, advanced)]
    strict_base: bool,
}

impl Run for SVDiffApply {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        require_base(&self.svdiff.0.metadata, &self.model, self.strict_base, cx).map_err(tell)?;
        let placement = self.svdiff.0.place(&self.model.names(None), self.strength).map_err(tell)?;
        require_arch(&self.svdiff.0.metadata, &self.model, &placement, *self.unmatched).map_err(tell)?;
        settle(&placement, *self.unmatched, cx).map_err(tell)?;
        self.model.with_adapters(&placement).map_err(tell)
    }
}
