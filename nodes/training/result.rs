//! What a training gave, as the adapter that goes on models and into files.

use super::header::Header;
use crate::error::Error;
use crate::wires::{Lora, Model, Para, SpectralShifts};
use candle_core::Tensor;
use paraflow_diffusion::adapters::{self, LoraModel, Names, Stage, SvDiff, on_layers};
use paraflow_diffusion::train::{Method, ParaMode, Trained, TrainedLayer};

/// The result of a training of a PaRa: a projection, or for the modes that put something in as well, a LoRA.
pub(crate) fn para(trained: &Trained, model: &Model, header: Header) -> Result<Para, Error> {
    let Method::Para { mode, .. } = trained.method else { unreachable!("only PaRaTrain asks for a PaRa") };
    if mode != ParaMode::Projection {
        return Ok(Para::Free(lora_model(trained, model, header)?));
    }
    let weights = on_layers(&model.unet);
    let mut stages = Vec::new();
    for layer in &trained.layers {
        let stage = Stage::new(&layer.name, tensor(layer, "q"), None)?;
        let weight = weights.iter().find(|weight| weight.layer() == layer.name);
        let weight = weight.expect("the layers of a training are the model's").effective()?;
        stages.push((layer.name.clone(), stage.sorted(&layer.name, &weight)?));
    }
    Ok(Para::Projection(adapters::Para::new(&Names::of(&model.unet, None), stages, header)?))
}

/// The result of a training of a LoRA.
pub(crate) fn lora(trained: &Trained, model: &Model, header: Header) -> Result<Lora, Error> {
    lora_model(trained, model, header).map(Lora)
}

fn lora_model(trained: &Trained, model: &Model, header: Header) -> Result<LoraModel, Error> {
    let halves =
        |layer: &TrainedLayer| (layer.name.clone(), tensor(layer, "up").clone(), tensor(layer, "down").clone());
    Ok(LoraModel::new(&Names::of(&model.unet, None), trained.layers.iter().map(halves), header)?)
}

/// The result of a training of spectral shifts.
pub(crate) fn shifts(trained: &Trained, model: &Model, header: Header) -> Result<SpectralShifts, Error> {
    let layers = trained.layers.iter().map(|layer| (layer.name.clone(), tensor(layer, "delta").clone()));
    Ok(SpectralShifts(SvDiff::new(&Names::of(&model.unet, None), layers, header)?))
}

fn tensor<'a>(layer: &'a TrainedLayer, name: &str) -> &'a Tensor {
    let found = layer.tensors.iter().find(|(of, _)| *of == name);
    &found.expect("a training gives each layer the tensors of its method").1
}
