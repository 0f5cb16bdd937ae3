//! Spectral shifts: what is added to the singular values of a layer's weight.
//!
//! Han et al. 2023, arXiv:2303.11305. The singular vectors are those of the checkpoint, so a file is small and needs its base.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::dense;
use super::fault::{Fault, Unmatched};
use super::names::{Names, Part};
use super::write::{Store, write};
use crate::error::{Error, Result};
use crate::nn::{Adapter, Geometry, Weights};

/// How a shift's key ends, as in the files of svdiff-pytorch.
const END: &str = ".delta";

/// Shifts by the layer's name in any spelling. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SvDiff {
    /// One shift for each singular value, the greatest value's first.
    pub layers: BTreeMap<String, Tensor>,
    /// What the file's header says.
    pub metadata: BTreeMap<String, String>,
}

impl SvDiff {
    /// Of checkpoint names of a UNet's layers, renamed as files spell them: in diffusers' names.
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
            made.layers.insert(layer.diffusers.clone(), shifts);
        }
        Ok(made)
    }

    /// Whether a file holds spectral shifts.
    #[must_use]
    pub fn is_in(file: &Weights) -> bool {
        file.names().any(|name| name.ends_with(END))
    }

    /// Reads a file, ours or svdiff-pytorch's. The second value is keys that are no shifts.
    ///
    /// # Errors
    /// [`Fault::NotAnAdapter`], [`Fault::BadModule`], [`Fault::NonFinite`].
    pub fn read(file: &Weights) -> Result<(Self, Vec<Unmatched>)> {
        let (mut read, mut unknown) = (Self { layers: BTreeMap::new(), metadata: file.metadata().clone() }, Vec::new());
        for key in file.names() {
            let Some(layer) = key.strip_suffix(END) else {
                let why = "it is no shift of singular values".to_owned();
                unknown.push(Unmatched { name: key.to_owned(), why, nearest: Vec::new() });
                continue;
            };
            let shape = file.shape(key).unwrap_or_default().to_vec();
            if shape.len() != 1 {
                let fact = format!("its shifts have shape {shape:?}, one number for each singular value is expected");
                return Err(Fault::BadModule { module: layer.to_owned(), fact }.into());
            }
            let shifts = file.tensor(key, &shape)?;
            dense::require_finite(key, &shifts)?;
            read.layers.insert(layer.to_owned(), shifts);
        }
        if read.layers.is_empty() {
            let (file, fact) = (file.file().to_owned(), "it holds no spectral shifts".to_owned());
            let hint = "the keys of SVDiff's files end in `.delta`".to_owned();
            return Err(Fault::NotAnAdapter { file, fact, hint }.into());
        }
        Ok((read, unknown))
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// Out of memory.
    pub fn to_file(&self, store: Store) -> Result<Vec<u8>> {
        let tensors: Vec<_> =
            self.layers.iter().map(|(name, shifts)| (format!("{name}{END}"), shifts.clone(), store)).collect();
        let mut metadata = self.metadata.clone();
        metadata.insert("ss_network_module".to_owned(), "svdiff".to_owned());
        write(&tensors, &metadata)
    }

    /// How many numbers it has.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.layers.values().map(Tensor::elem_count).sum()
    }

    /// The shifts of several, added: all are shifts of the same checkpoint's singular values.
    ///
    /// # Errors
    /// [`Fault::ShapeMismatch`] for shifts of different models.
    pub fn added(all: &[&Self], names: Option<&Names>) -> Result<Self> {
        let mut layers: BTreeMap<String, Tensor> = BTreeMap::new();
        for one in all {
            for (spelling, shifts) in &one.layers {
                let found = names.and_then(|names| names.find(spelling).map(|(_, layer)| layer.diffusers.clone()));
                let name = found.unwrap_or_else(|| spelling.clone());
                let sum = match layers.get(&name) {
                    None => shifts.clone(),
                    Some(sum) if sum.dims() == shifts.dims() => (sum + shifts)?,
                    Some(sum) => {
                        let count = |shifts: &Tensor| format!("{} singular values", shifts.elem_count());
                        let (file, model) = (count(shifts), count(sum));
                        let hint = "these belong to different kinds of model".to_owned();
                        return Err(Fault::ShapeMismatch { layer: name, file, model, hint }.into());
                    }
                };
                layers.insert(name, sum);
            }
        }
        let mut metadata = all.first().map(|one| one.metadata.clone()).unwrap_or_default();
        metadata.retain(|key, value| all.iter().all(|one| one.metadata.get(key) == Some(value)));
        metadata.insert("paraflow.merge".to_owned(), "added".to_owned());
        Ok(Self { layers, metadata })
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
