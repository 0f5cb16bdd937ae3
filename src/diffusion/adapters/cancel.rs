//! How much of what lies below a PaRa it takes out.

use candle_core::DType;

use super::dense;
use super::names::Part;
use super::place::{Placement, on_layers};
use crate::error::Result;
use crate::nn::{Effect, Layers};

/// What a PaRa takes out of the adapters below it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cancelled {
    /// Layers on which it meets any.
    pub layers: usize,
    /// The part of the squared length of what they add there that lies in its directions: `‖Qᵀ Δ‖² / ‖Δ‖²`.
    pub share: f64,
}

/// How much of what adapters on a network add lies in the directions that those placed will take out: LoRA and its kin, baked in
/// or not. `None` where they do not meet.
///
/// # Errors
/// Out of memory.
pub fn cancelled<M: Layers + Clone>(network: &M, placement: &Placement) -> Result<Option<Cancelled>> {
    let (mut gone, mut all, mut layers) = (0.0, 0.0, 0);
    for weight in on_layers(network) {
        if weight.history().next().is_none() {
            continue;
        }
        let mut removed = Vec::new();
        let placed = placement.placed.iter().filter(|placed| placed.part == Part::Unet);
        for placed in placed.filter(|placed| placed.layer == weight.layer()) {
            if let Effect::Removes(q) = placed.adapter.effect()? {
                removed.push(q);
            }
        }
        let Some(q) = dense::union(removed.iter())? else { continue };
        let added = weight.additions()?;
        for change in &added {
            let change = change.to_dtype(DType::F64)?.to_device(q.device())?;
            all += dense::energy(&change)?;
            gone += dense::energy(&dense::transposed_product(&q, &change)?)?;
        }
        layers += usize::from(!added.is_empty());
    }
    Ok((all > 0.0).then(|| Cancelled { layers, share: gone / all }))
}
