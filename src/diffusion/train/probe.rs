//! Where numbers stopped being numbers.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;

use super::batch::Chunk;
use crate::error::Result;
use crate::nn::{Adapter, Geometry, Layers as _, give};
use crate::tensors::is_finite;
use crate::unet::UNet;

/// Changes nothing, and notes the first layer whose output is not finite.
struct Probe {
    layer: String,
    found: Arc<Mutex<Option<String>>>,
}

impl Adapter for Probe {
    fn weight(&self, base: &Tensor) -> Result<Tensor> {
        Ok(base.clone())
    }

    fn output(&self, _: Geometry, _: &Tensor, y: Tensor) -> Result<Tensor> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.is_none() && !is_finite(&give(&y)?)? {
            *found = Some(self.layer.clone());
        }
        drop(found);
        Ok(y)
    }
}

/// The first layer of a network, in the order of its work, that makes something infinite or NaN of one of the chunks.
pub(super) fn first_not_finite(unet: &UNet, chunks: &[Chunk]) -> Result<Option<String>> {
    let found = Arc::new(Mutex::new(None));
    let mut probed = unet.clone();
    let mut outcome = Ok(());
    probed.visit(&mut |weight| {
        let probe = Probe { layer: weight.layer().to_owned(), found: Arc::clone(&found) };
        match weight.with(Arc::new(probe)) {
            Ok(with) => *weight = with,
            Err(error) => outcome = Err(error),
        }
    });
    outcome?;
    for chunk in chunks {
        probed.forward(&chunk.x, &chunk.timesteps, &chunk.context, chunk.label.as_ref())?;
    }
    let first = found.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(first)
}
