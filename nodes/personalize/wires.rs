//! Adapters on wires.

use paraflow_diffusion::adapters::{self, LoraModel, SvDiff};
use paraflow_engine::Port;
use std::collections::BTreeMap;

/// What a training of a PaRa gave, or what its file holds.
#[derive(Clone, Debug)]
pub enum Para {
    /// Directions that are taken out of a model's layers: PaRa itself.
    Projection(adapters::Para),
    /// What the modes `release` and `deft` train: directions are taken out and others put in, each freely, which comes to
    /// a LoRA. Its header says which mode it was.
    Free(LoraModel),
}

impl Para {
    /// What its file's header says.
    #[must_use]
    pub fn header(&self) -> &BTreeMap<String, String> {
        match self {
            Self::Projection(para) => &para.metadata,
            Self::Free(lora) => &lora.metadata,
        }
    }
}

impl Port for Para {
    const KIND: &'static str = "PARA";

    fn bytes(&self) -> usize {
        let parameters = match self {
            Self::Projection(para) => para.parameters(),
            Self::Free(lora) => lora.parameters(),
        };
        parameters * size_of::<f32>()
    }
}

/// What a LoRA, or one of its kin, adds to a model's layers.
#[derive(Clone, Debug)]
pub struct Lora(pub LoraModel);

impl Port for Lora {
    const KIND: &'static str = "LORA_MODEL";

    fn bytes(&self) -> usize {
        self.0.parameters() * size_of::<f32>()
    }
}

/// What is added to the singular values of a model's layers.
#[derive(Clone, Debug)]
pub struct SpectralShifts(pub SvDiff);

impl Port for SpectralShifts {
    const KIND: &'static str = "SVDIFF";

    fn bytes(&self) -> usize {
        self.0.layers.values().map(|shifts| shifts.elem_count() * size_of::<f32>()).sum()
    }
}
