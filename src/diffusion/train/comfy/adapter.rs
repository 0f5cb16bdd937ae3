//! What acts on a layer while its adapter is trained.

use candle_core::{DType, Tensor};

use super::settings::Algorithm;
use crate::adapters::{rotations, turned, turned_weight};
use crate::error::Result;
use crate::nn::{Adapter, Geometry, low_rank};

/// An adapter of trained tensors, in the order in which [`names`] has them.
pub(super) struct Beside {
    pub(super) algorithm: Algorithm,
    /// Of the layer's weight.
    pub(super) shape: Vec<usize>,
    /// All f32; tracked in training.
    pub(super) leaves: Vec<Tensor>,
}

/// What the tensors of an adapter are called in a file, behind the name of their layer.
///
/// # Shapes
/// - LoRA: `[]`, `[out, rank]`, `[rank, in]`
/// - LoHa: `[out, rank]` and `[rank, in]`, twice, `[]`
/// - LoKr: `[a, b]`, `[c, d]` with `a c = out` and `b d = in`, `[]`
/// - OFT: `[blocks, size, size]` with `blocks · size = out`, `[]`
///
/// `in` is `input · kernel · kernel` for a convolution.
pub(super) fn names(algorithm: Algorithm) -> &'static [&'static str] {
    match algorithm {
        Algorithm::Lora => &["alpha", "lora_up.weight", "lora_down.weight"],
        Algorithm::Loha => &["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"],
        Algorithm::Lokr => &["lokr_w1", "lokr_w2", "alpha"],
        Algorithm::Oft => &["oft_blocks", "alpha"],
    }
}

impl Beside {
    /// What is added to the weight, of its shape. An OFT adds nothing, it turns.
    fn change(&self) -> Result<Tensor> {
        let leaf = |index: usize| &self.leaves[index];
        let product = |a: usize, b: usize| leaf(a).matmul(leaf(b));
        let scaled = |change: Tensor, alpha: usize, rank: usize| change.broadcast_mul(&(leaf(alpha) / rank as f64)?);
        let change = match self.algorithm {
            Algorithm::Lora => scaled(product(1, 2)?, 0, leaf(2).dim(0)?)?,
            Algorithm::Loha => scaled((product(0, 1)? * product(2, 3)?)?, 4, leaf(1).dim(0)?)?,
            Algorithm::Lokr => {
                let ((a, b), (c, d)) = (leaf(0).dims2()?, leaf(1).dims2()?);
                leaf(0).reshape((a, 1, b, 1))?.broadcast_mul(&leaf(1).reshape((1, c, 1, d))?)?
            }
            Algorithm::Oft => unreachable!("asked for by those that add only"),
        };
        Ok(change.reshape(self.shape.as_slice())?)
    }

    fn rotations(&self) -> Result<Tensor> {
        let constraint = f64::from(self.leaves[1].to_scalar::<f32>()?);
        rotations(&self.leaves[0], constraint)
    }
}

impl Adapter for Beside {
    fn weight(&self, base: &Tensor) -> Result<Tensor> {
        let weight = base.to_dtype(DType::F32)?;
        let changed = match self.algorithm {
            Algorithm::Oft => turned_weight(&weight, &self.rotations()?)?,
            _ => (weight + self.change()?)?,
        };
        Ok(changed.to_dtype(base.dtype())?)
    }

    fn output(&self, geometry: Geometry, x: &Tensor, y: Tensor) -> Result<Tensor> {
        match self.algorithm {
            Algorithm::Lora => {
                let (alpha, up, down) = (&self.leaves[0], &self.leaves[1], &self.leaves[2]);
                let rank = down.dim(0)?;
                let down = down.reshape([&[rank], &self.shape[1..]].concat())?;
                let seen = low_rank::down(x, &down, geometry)?.broadcast_mul(&(alpha / rank as f64)?)?;
                low_rank::up(&y, &seen, &up.t()?.contiguous()?, 1.0)
            }
            Algorithm::Loha | Algorithm::Lokr => Ok((y + low_rank::down(x, &self.change()?, geometry)?)?),
            Algorithm::Oft => turned(&y, &self.rotations()?),
        }
    }
}
