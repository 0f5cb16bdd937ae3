//! A PaRa: for each layer the directions that are taken out of its output, and what is known of its making.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::dense;
use super::fault::Fault;
use super::names::{Names, Part};
use super::qr::{Qr, qr, qr_repaired};
use crate::error::Result;
use crate::nn::{Adapter, Effect, Geometry, low_rank};

/// Parameter rank reduction: `W' = (I - s Q Qᵀ) W`, layer by layer, several stages one after another.
///
/// Chen et al. 2025, arXiv:2406.05641. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Para {
    /// Stages by the layer's name in kohya's spelling, which files have: `lora_unet_mid_block_resnets_0_conv1`.
    pub layers: BTreeMap<String, Vec<Stage>>,
    /// What the file's header says, `para.*` and the rest.
    pub metadata: BTreeMap<String, String>,
}

/// Directions that are taken out at once.
#[derive(Debug, Clone)]
pub struct Stage {
    /// `[out, rank]` f32 on the CPU, orthonormal columns.
    q: Tensor,
    /// Singular values of `Qᵀ W` on the checkpoint that it was trained on: the share of each column, falling.
    energy: Option<Vec<f32>>,
}

impl Stage {
    /// The directions that the columns of `b` `[out, rank]` span. `name` is told in errors.
    ///
    /// # Errors
    /// What [`qr`] says, and [`Fault::RankTooLarge`] for as many columns as rows.
    pub fn new(name: &str, b: &Tensor, energy: Option<Vec<f32>>) -> Result<Self> {
        let (rows, columns) = b.dims2()?;
        let numbers = flat_f64(b)?;
        Self::of(name, &qr(name, &numbers, rows, columns)?, energy)
    }

    /// The same, with columns that depend on others left out; gives their places too.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn repaired(name: &str, b: &Tensor) -> Result<(Self, Vec<usize>)> {
        let (rows, columns) = b.dims2()?;
        let (factors, dropped) = qr_repaired(name, &flat_f64(b)?, rows, columns)?;
        Ok((Self::of(name, &factors, None)?, dropped))
    }

    fn of(name: &str, factors: &Qr, energy: Option<Vec<f32>>) -> Result<Self> {
        if factors.columns >= factors.rows {
            let (rank, outputs) = (factors.columns, factors.rows);
            return Err(Fault::RankTooLarge { layer: name.to_owned(), rank, outputs }.into());
        }
        let q = Tensor::from_slice(&factors.q, (factors.rows, factors.columns), &Device::Cpu)?;
        let energy = energy.filter(|energy| energy.len() == factors.columns);
        Ok(Self { q: q.to_dtype(DType::F32)?, energy })
    }

    /// The same directions, those that take most from `weight` first, with their energies.
    ///
    /// # Errors
    /// [`Fault::ShapeMismatch`] when the weight has another number of outputs.
    pub fn sorted(&self, layer: &str, weight: &Tensor) -> Result<Self> {
        let flat = dense::matrix(weight)?;
        if flat.dim(0)? != self.outputs() {
            return Err(Fault::outputs(layer, self.outputs(), weight.dims()).into());
        }
        let q = self.q.to_dtype(DType::F64)?;
        let (turn, energies) = dense::left_singular(&dense::transposed_product(&q, &flat)?)?;
        let q = q.matmul(&turn)?.to_dtype(DType::F32)?;
        Ok(Self { q, energy: Some(energies.iter().map(|x| *x as f32).collect()) })
    }

    /// The first directions, at most `rank` of them and at least one.
    ///
    /// # Errors
    /// Out of memory.
    pub fn prefix(&self, rank: usize) -> Result<Self> {
        let rank = rank.clamp(1, self.rank());
        let energy = self.energy.as_ref().map(|energy| energy[..rank].to_vec());
        Ok(Self { q: dense::columns(&self.q, rank)?, energy })
    }

    /// `[out, rank]`, f32, orthonormal columns.
    #[must_use]
    pub fn q(&self) -> &Tensor {
        &self.q
    }

    /// Singular values of what the columns took from the weight that they were trained on, if that is known.
    #[must_use]
    pub fn energy(&self) -> Option<&[f32]> {
        self.energy.as_deref()
    }

    /// The same with energies, if they are as many as its directions.
    pub(super) fn with_energy(&self, energy: Vec<f32>) -> Self {
        Self { energy: Some(energy).filter(|energy| energy.len() == self.rank()), ..self.clone() }
    }

    /// Columns that are orthonormal already.
    pub(super) fn orthonormal(q: &Tensor) -> Result<Self> {
        Ok(Self { q: q.to_dtype(DType::F32)?.contiguous()?, energy: None })
    }

    /// How many directions.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.q.dims()[1]
    }

    /// Outputs of the layer that it is for.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.q.dims()[0]
    }
}

impl Para {
    /// A PaRa of one stage a layer, from checkpoint names of the UNet's layers.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchLayer`] for a name that the model does not have.
    pub fn new(
        names: &Names,
        layers: impl IntoIterator<Item = (String, Stage)>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut para = Self { layers: BTreeMap::new(), metadata };
        for (name, stage) in layers {
            let Some(layer) = names.layer(Part::Unet, &name) else {
                return Err(names.no_such_layer(&name));
            };
            para.layers.entry(names.kohya(layer)).or_default().push(stage);
        }
        Ok(para)
    }

    /// How many numbers it has.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.stages().map(|stage| stage.q.elem_count()).sum()
    }

    /// The greatest rank of a stage.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.stages().map(Stage::rank).max().unwrap_or(0)
    }

    /// The greatest number of stages that a layer has.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.layers.values().map(Vec::len).max().unwrap_or(0)
    }

    /// All stages of all layers.
    pub fn stages(&self) -> impl Iterator<Item = &Stage> {
        self.layers.values().flatten()
    }
}

/// Takes directions out of a layer's output, beside the layer: `y - s Q (Qᵀ y)`.
#[derive(Debug, Clone)]
pub(super) struct Projection {
    /// `[rank, out]`, orthonormal rows.
    rows: Tensor,
    strength: f64,
}

impl Projection {
    pub(super) fn of(stage: &Stage, strength: f64) -> Result<Arc<dyn Adapter>> {
        Ok(Arc::new(Self { rows: stage.q.t()?.contiguous()?, strength }))
    }
}

impl Adapter for Projection {
    /// `(I - s Q Qᵀ) W`.
    fn weight(&self, base: &Tensor) -> Result<Tensor> {
        let flat = base.flatten_from(1)?.to_dtype(DType::F32)?;
        let rows = self.rows.to_device(base.device())?;
        let removed = rows.t()?.matmul(&rows.matmul(&flat)?)?;
        Ok((flat - (removed * self.strength)?)?.reshape(base.shape())?.to_dtype(base.dtype())?)
    }

    fn output(&self, _: Geometry, _: &Tensor, y: Tensor) -> Result<Tensor> {
        let rows = self.rows.to_device(y.device())?;
        // In f32 also beside a model of half precision: there the rounding of the directions would leave some of them in.
        let removed = low_rank::project(&y.to_dtype(DType::F32)?, &rows, self.strength)?;
        Ok(removed.to_dtype(y.dtype())?)
    }

    fn effect(&self) -> Result<Effect> {
        Ok(Effect::Removes(self.rows.t()?.contiguous()?))
    }
}

/// All numbers of a tensor, row by row.
pub(super) fn flat_f64(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}
