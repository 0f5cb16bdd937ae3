//! Control-LoRA: a control network that is the guided model's own way down with thin changes, beside what it has of its own.
//! So its file is small, and the network exists only together with a model.

use std::sync::{Arc, Mutex};

use super::{ControlNet, UNet};
use crate::adapters;
use crate::error::Result;
use crate::nn::{Adapter, Layers, Weight, Weights};

/// The file of a control-LoRA. Clones share what was made of it.
#[derive(Clone)]
pub struct ControlLora {
    weights: Weights,
    made: Arc<Mutex<Option<Made>>>,
}

/// The network for one model. The model's weights live as long as it does, so that no other can be taken for them.
struct Made {
    of: Vec<usize>,
    network: ControlNet,
}

impl ControlLora {
    /// Whether a file is one.
    #[must_use]
    pub fn is_one(weights: &Weights) -> bool {
        weights.contains("lora_controlnet")
    }

    /// The network of a file, still without a model.
    #[must_use]
    pub fn new(weights: &Weights) -> Self {
        Self { weights: weights.clone(), made: Arc::default() }
    }

    /// The network for a model: its way down with whatever adapters are on it, and the changes of the file.
    ///
    /// # Errors
    /// What [`ControlNet::load`] says of both together; changes of a shape that the model does not have.
    pub fn of(&self, model: &UNet) -> Result<ControlNet> {
        let layers = adapters::on_layers(model);
        let of: Vec<usize> = layers.iter().flat_map(Weight::identity).collect();
        let mut made = self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(made) = made.as_ref().filter(|made| made.of == of) {
            return Ok(made.network.clone());
        }
        let network = self.make(model, &layers)?;
        *made = Some(Made { of, network: network.clone() });
        Ok(network)
    }

    fn make(&self, model: &UNet, layers: &[Weight]) -> Result<ControlNet> {
        let both = Weights::joined(self.weights.file().to_owned(), &[self.weights.clone(), model.source().clone()]);
        let both = both.on(model.source().compute());
        let mut network = ControlNet::load(&both)?;
        let mut outcome = Ok(());
        network.visit(&mut |weight| {
            let layer = weight.layer().to_owned();
            let own = self.weights.contains(&format!("{layer}.weight"));
            let Some(ours) = layers.iter().find(|ours| ours.layer() == layer).filter(|_| !own && outcome.is_ok())
            else {
                return;
            };
            outcome = self.changed(&layer, ours).map(|changed| *weight = changed);
        });
        outcome?;
        Ok(network)
    }

    /// A layer of the model with the file's change of it.
    fn changed(&self, layer: &str, ours: &Weight) -> Result<Weight> {
        let read = |half: &str| {
            let name = format!("{layer}.{half}");
            let shape = self.weights.shape(&name).map(<[usize]>::to_vec);
            shape.map(|shape| self.weights.tensor(&name, &shape)).transpose()
        };
        match (read("up")?, read("down")?) {
            (Some(up), Some(down)) => {
                let adapter: Arc<dyn Adapter> = adapters::low_rank(layer, ours.shape(), &up, &down)?;
                ours.with(adapter)
            }
            _ => Ok(ours.clone()),
        }
    }
}
