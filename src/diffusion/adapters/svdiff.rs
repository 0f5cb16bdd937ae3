//! Spectral shifts: what is added to the singular values of a layer's weight.
//!
//! Han et al. 2023, arXiv:2303.11305. The singular vectors are those of the checkpoint, so a file is small and needs its base.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::dense;
use super::fault::Fault;
use super::names::{Names, Part};
use crate::error::{Error, Result};
use crate::nn::{Adapter, Geometry};

/// Shifts by the layer's name in any spelling. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SvDiff {
    /// One shift for each singular value, the greatest value's first.
    pub layers: BTreeMap<String, Tensor>,
    /// What the file's header says.
    pub metadata: BTreeMap<String, String>,
}

impl SvDiff {
    /// Of checkpoint names of a UNet's layers, renamed as files spell them.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], and [`Fault::NonFinite`].
    pub fn new(
        names: &Names,
        layers: impl IntoIterator<Item = (String, Tensor)>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut made = Self { layers: BTreeMap::new(), metadata };
        for (name, shifts) in layers {
            dense::require_finite(&name, &shifts)?;
            let layer = names.layer(Part::Unet, &name).ok_or_else(|| names.no_such_layer(&name))?;
            made.layers.insert(names.kohya(layer), shifts);
        }
        Ok(made)
    }
}

/// Shifts of one layer.
pub(super) struct Shift {
    pub(super) layer: String,
    pub(super) shifts: Tensor,
    pub(super) strength: f64,
}

impl Shift {
    pub(super) fn on(layer: &str, shape: &[usize], shifts: &Tensor, strength: f64) -> Result<Arc<dyn Adapter>, Error> {
        let expected = shape[0].min(shape[1..].iter().product());
        if shifts.elem_count() != expected {
            return Err(Fault::ShapeMismatch {
                layer: layer.to_owned(),
                file: format!("{} singular values", shifts.elem_count()),
                model: format!("{expected}, its weight is {shape:?}"),
                hint: String::new(),
            }
            .into());
        }
        Ok(Arc::new(Self { layer: layer.to_owned(), shifts: shifts.clone(), strength }))
    }
}

impl Adapter for Shift {
    /// `W + U diag(relu(σ + s δ) - σ) Vᵀ`, which keeps the directions of singular value 0 as they are.
    fn weight(&self, base: &Tensor) -> Result<Tensor> {
        let flat = dense::matrix(base)?;
        let (outputs, inputs) = flat.dims2()?;
        let tall = outputs > inputs;
        let wide = if tall { flat.t()?.contiguous()? } else { flat.clone() };
        let (left, values) = dense::left_singular(&wide)?;
        let shifts: Vec<f64> = self.shifts.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
        if shifts.len() != values.len() {
            return Err(Error::Shape {
                layer: self.layer.clone(),
                expected: format!("{} singular values", values.len()),
                found: vec![shifts.len()],
            });
        }
        // W = Σ u (uᵀ W), and uᵀ W = σ vᵀ: what is added is a part of uᵀ W.
        let strongest = values.first().copied().unwrap_or(0.0);
        let part = |(value, shift): (&f64, &f64)| {
            let change = (value + self.strength * shift).max(0.0) - value;
            // A direction of no strength has no partner; it stays without.
            if *value > 1e-9 * strongest { change / value } else { 0.0 }
        };
        let parts: Vec<f64> = values.iter().zip(&shifts).map(part).collect();
        let parts = Tensor::from_vec(parts, (values.len(), 1), &Device::Cpu)?;
        let seen = dense::transposed_product(&left, &wide)?.broadcast_mul(&parts)?;
        let changed = (wide + left.matmul(&seen)?)?;
        let changed = if tall { changed.t()?.contiguous()? } else { changed };
        Ok(changed.to_dtype(base.dtype())?.reshape(base.shape())?)
    }

    fn output(&self, _: Geometry, _: &Tensor, _: Tensor) -> Result<Tensor> {
        unreachable!("baked in when it is attached")
    }

    fn acts_beside(&self) -> bool {
        false
    }
}
