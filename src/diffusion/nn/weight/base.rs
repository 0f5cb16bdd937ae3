//! The frozen numbers of a weight: where they are from, and their copies in the kernels' order.

use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use paraflow_kernels::{Matrix, Precision, Right};

use super::{Adapter, Weight};
use crate::error::Result;
use crate::nn::compute::Kept;
use crate::nn::eights::round_at_random;
use crate::nn::numbers::round_to_half;
use crate::nn::weights::Stored;

/// The frozen numbers, in the file or in memory, and their copies in the kernels' order once a layer has run.
pub(in crate::nn) struct Base {
    pub(super) origin: Origin,
    pub(super) shape: Vec<usize>,
    pub(super) precision: Precision,
    pub(super) keeping: Keeping,
    forth: OnceLock<Arc<Matrix>>,
    /// Packed for the way back; only where that costs next to nothing.
    back: OnceLock<Arc<Matrix>>,
    /// For devices without kernels.
    whole: OnceLock<Tensor>,
}

/// In which numbers a weight is kept, whatever acts on it.
#[derive(Clone)]
pub(super) struct Keeping {
    pub(super) kept: Kept,
    /// The layer, by whose name numbers of eight bits are rounded.
    pub(super) layer: Arc<str>,
}

impl Keeping {
    /// As it is stored.
    pub(super) fn any() -> Self {
        Self { kept: Kept::AsStored, layer: "".into() }
    }

    /// Whether a weight takes an adapter in that could act beside it, because ComfyUI rounds what both make.
    pub(super) fn takes_in(&self, adapter: &dyn Adapter) -> bool {
        match self.kept {
            Kept::AsStored => false,
            Kept::Half => true,
            Kept::E4m3 | Kept::E5m2 => adapter.rounds_with_its_weight(),
        }
    }

    /// Rounds what adapters made of a weight.
    pub(super) fn round(&self, numbers: &mut [f32]) {
        match self.kept {
            Kept::AsStored => {}
            Kept::Half => round_to_half(numbers),
            Kept::E4m3 | Kept::E5m2 => {
                round_at_random(numbers, self.kept, &format!("diffusion_model.{}.weight", self.layer));
            }
        }
    }
}

/// How many numbers a weight has before memory counts for more than a few percent of time: from here on it stays in a file's
/// 16 bits, and the way back turns it instead of packing it once more. What it gives is the same to the bit.
pub(crate) const LARGE: usize = 1 << 18;

/// The matrix of a way back.
pub(in crate::nn) enum Back {
    Packed(Arc<Matrix>),
    /// That of the way forth, to be turned.
    Turned(Arc<Matrix>),
}

impl Back {
    pub(in crate::nn) fn right(&self) -> Right<'_> {
        match self {
            Self::Packed(matrix) => (&**matrix).into(),
            Self::Turned(matrix) => matrix.turned().into(),
        }
    }
}

#[derive(Clone)]
pub(super) enum Origin {
    File(Stored),
    Memory(Tensor),
    /// The sum of other weights with all that acts on them, each times its factor; made when it is asked for.
    Sum(Vec<(f64, Weight)>),
}

/// The sum that [`Origin::Sum`] stands for.
pub(super) fn sum(terms: &[(f64, Weight)]) -> Result<Tensor> {
    let mut whole: Option<Tensor> = None;
    for (factor, weight) in terms {
        let term = weight.effective()?.affine(*factor, 0.0)?;
        whole = Some(match whole {
            None => term,
            Some(whole) => (whole + term)?,
        });
    }
    Ok(whole.expect("`Weight::mixed` sums two weights"))
}

impl Origin {
    pub(super) fn tensor(&self, shape: &[usize]) -> Result<Tensor> {
        match self {
            Self::File(stored) => Ok(stored.tensor_to_change()?.reshape(shape)?),
            Self::Memory(tensor) => Ok(tensor.clone()),
            Self::Sum(terms) => sum(terms),
        }
    }
}

impl Base {
    pub(super) fn new(origin: Origin, shape: &[usize], precision: Precision, keeping: &Keeping) -> Arc<Self> {
        let (forth, back, whole) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let (shape, keeping) = (shape.to_vec(), keeping.clone());
        Arc::new(Self { origin, shape, precision, keeping, forth, back, whole })
    }

    /// Numbers that are in memory already.
    pub(in crate::nn) fn in_memory(numbers: Tensor) -> Arc<Self> {
        let shape = numbers.dims().to_vec();
        Self::new(Origin::Memory(numbers), &shape, Precision::Single, &Keeping::any())
    }

    /// `[out, in]` or `[out, in, kernel, kernel]`.
    pub(in crate::nn) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The weight for the layer's product, packed at the first call.
    pub(in crate::nn) fn forth(&self) -> Result<Arc<Matrix>> {
        if let Some(matrix) = self.forth.get() {
            return Ok(matrix.clone());
        }
        let matrix = match &self.origin {
            Origin::File(stored) => {
                let form = stored.form(self.measures(), self.precision);
                let matrix = match stored.compute().prepacked() {
                    Some(prepacked) => prepacked.matrix(stored, &form),
                    None => stored.pack(&form),
                };
                stored.release();
                matrix
            }
            Origin::Memory(_) | Origin::Sum(_) => {
                let numbers = self.numbers()?;
                let (output, input, kernel) = self.measures();
                let read = |start: usize, out: &mut [f32]| out.copy_from_slice(&numbers[start..start + out.len()]);
                Matrix::read(output, input, kernel, self.precision, &read)
            }
        };
        // Two threads that come here at once do the same work once too often, and agree.
        Ok(self.forth.get_or_init(|| Arc::new(matrix)).clone())
    }

    /// The weight for the product that takes a gradient back.
    pub(in crate::nn) fn back(&self) -> Result<Back> {
        if self.is_large() && self.precision == Precision::Single {
            return Ok(Back::Turned(self.forth()?));
        }
        if let Some(matrix) = self.back.get() {
            return Ok(Back::Packed(matrix.clone()));
        }
        let numbers = match &self.origin {
            Origin::File(stored) => stored.to_f32(),
            Origin::Memory(_) | Origin::Sum(_) => self.numbers()?,
        };
        let matrix = match self.measures() {
            (output, input, 1) => Matrix::linear_back(&numbers, output, input),
            (output, input, kernel) => Matrix::conv_back(&numbers, output, input, kernel),
        };
        Ok(Back::Packed(self.back.get_or_init(|| Arc::new(matrix)).clone()))
    }

    /// What is in memory, in order, as it is multiplied with.
    pub(super) fn numbers(&self) -> Result<Vec<f32>> {
        let mut numbers = self.tensor()?.flatten_all()?.to_vec1()?;
        self.keeping.round(&mut numbers);
        Ok(numbers)
    }

    pub(super) fn is_large(&self) -> bool {
        self.shape.iter().product::<usize>() >= LARGE
    }

    /// Output, input and kernel.
    pub(super) fn measures(&self) -> (usize, usize, usize) {
        let dim = |index: usize| self.shape.get(index).copied().unwrap_or(1);
        (dim(0), dim(1), dim(2))
    }

    /// Where the layer computes, and in which type.
    pub(super) fn place(&self) -> (&Device, DType) {
        match &self.origin {
            Origin::File(stored) => (stored.compute().device(), stored.compute().dtype()),
            Origin::Memory(tensor) => (tensor.device(), tensor.dtype()),
            Origin::Sum(terms) => terms.first().map_or((&Device::Cpu, DType::F32), |(_, weight)| weight.base.place()),
        }
    }

    /// Numbers from the CPU, where the layer computes.
    pub(super) fn take(&self, numbers: &Tensor) -> Result<Tensor> {
        let (device, dtype) = self.place();
        Ok(numbers.to_dtype(dtype)?.to_device(device)?)
    }

    pub(super) fn tensor(&self) -> Result<Tensor> {
        self.take(&self.origin.tensor(&self.shape)?)
    }

    /// The whole weight on its device, kept from the first call on.
    pub(super) fn kept(&self) -> Result<Tensor> {
        if let Some(whole) = self.whole.get() {
            return Ok(whole.clone());
        }
        let whole = match (&self.origin, self.keeping.kept) {
            (Origin::File(_), _) | (_, Kept::AsStored) => self.tensor()?,
            _ => self.take(&Tensor::from_vec(self.numbers()?, self.shape(), &Device::Cpu)?)?,
        };
        Ok(self.whole.get_or_init(|| whole).clone())
    }

    /// Whether somebody wants the gradient of the weight itself.
    pub(super) fn is_trained(&self) -> bool {
        matches!(&self.origin, Origin::Memory(tensor) if tensor.track_op())
    }
}
