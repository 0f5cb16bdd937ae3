//! Adapters on wires.

use paraflow_diffusion::adapters::{self, LoraModel, SvDiff};
use paraflow_engine::Port;

/// Directions that are taken out of a model's layers.
#[derive(Clone)]
pub struct Para(pub adapters::Para);

impl Port for Para {
    const KIND: &'static str = "PARA";

    fn bytes(&self) -> usize {
        self.0.parameters() * size_of::<f32>()
    }
}

/// What a LoRA, or one of its kin, adds to a model's layers.
#[derive(Clone)]
pub struct Lora(pub LoraModel);

impl Port for Lora {
    const KIND: &'static str = "LORA_MODEL";

    fn bytes(&self) -> usize {
        self.0.parameters() * size_of::<f32>()
    }
}

/// What is added to the singular values of a model's layers.
#[derive(Clone)]
pub struct SpectralShifts(pub SvDiff);

impl Port for SpectralShifts {
    const KIND: &'static str = "SVDIFF";

    fn bytes(&self) -> usize {
        self.0.layers.values().map(|shifts| shifts.elem_count() * size_of::<f32>()).sum()
    }
}
