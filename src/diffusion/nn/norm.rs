//! Normalisation over channels: layer norm for sequences, group norm for pictures.

use candle_core::Tensor;

use super::weight::{Layers, Vector, Weight};
use super::weights::Weights;
use super::{fused, plain, silu};
use crate::error::{Error, Result};

/// Groups of every group norm in latent diffusion models.
const GROUPS: usize = 32;

/// `(x - mean) / √(variance + ε) · scale + shift` over the last dimension.
///
/// Ba et al. 2016, arXiv:1607.06450.
#[derive(Clone)]
pub struct LayerNorm {
    name: String,
    scale: Tensor,
    shift: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, both `[width]`.
    ///
    /// # Errors
    /// What [`Weights::tensor`] says.
    pub fn load(weights: &Weights, width: usize, epsilon: f64) -> Result<Self> {
        let (scale, shift) = (weights.tensor("weight", &[width])?, weights.tensor("bias", &[width])?);
        Ok(Self { name: weights.layer(), scale, shift, epsilon })
    }

    /// Applies the norm, `[.., width]` to the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`] when the last dimension is another.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        check_channels(&self.name, x, &self.scale)?;
        if is_trained(&self.scale, &self.shift) {
            let [one, zero] = unit(&self.scale)?;
            let normed = Self { scale: one, shift: zero, name: self.name.clone(), epsilon: self.epsilon }.forward(x)?;
            return Ok(normed.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)?);
        }
        if fused::takes(x) {
            return Ok(fused::layer_norm(x, &self.scale, &self.shift, self.epsilon)?);
        }
        plain::layer_norm(x, &self.scale, &self.shift, self.epsilon)
    }
}

/// The same statistics over all pixels of each of 32 groups of neighbouring channels, scale and shift per channel.
///
/// Wu and He 2018, arXiv:1803.08494.
#[derive(Clone)]
pub struct GroupNorm {
    name: String,
    scale: Tensor,
    shift: Tensor,
    epsilon: f64,
}

impl GroupNorm {
    /// Reads `weight` and `bias`, both `[channels]`.
    ///
    /// # Errors
    /// What [`Weights::tensor`] says, and [`Error::WrongShape`] when 32 does not divide `channels`.
    pub fn load(weights: &Weights, channels: usize, epsilon: f64) -> Result<Self> {
        if !channels.is_multiple_of(GROUPS) {
            return Err(Error::WrongShape {
                file: weights.file().to_owned(),
                name: weights.key("weight"),
                expected: format!("a number of channels that {GROUPS} groups divide"),
                found: vec![channels],
            });
        }
        let (scale, shift) = (weights.tensor("weight", &[channels])?, weights.tensor("bias", &[channels])?);
        Ok(Self { name: weights.layer(), scale, shift, epsilon })
    }

    /// Applies the norm, `[batch, .., channels]` to the same shape.
    ///
    /// # Errors
    /// [`Error::Shape`] when the last dimension is another.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, false)
    }

    /// The norm, then [`silu`](super::silu), in one pass over the picture.
    ///
    /// # Errors
    /// [`Error::Shape`] when the last dimension is another.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, true)
    }

    fn run(&self, x: &Tensor, activate: bool) -> Result<Tensor> {
        check_channels(&self.name, x, &self.scale)?;
        if is_trained(&self.scale, &self.shift) {
            let [one, zero] = unit(&self.scale)?;
            let frozen = Self { scale: one, shift: zero, name: self.name.clone(), epsilon: self.epsilon };
            let y = frozen.run(x, false)?.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)?;
            return if activate { silu(&y) } else { Ok(y) };
        }
        if fused::takes(x) {
            return Ok(fused::group_norm(x, GROUPS, &self.scale, &self.shift, self.epsilon, activate)?);
        }
        let y = plain::group_norm(x, GROUPS, &self.scale, &self.shift, self.epsilon)?;
        if activate { plain::silu(&y) } else { Ok(y) }
    }
}

/// Shows a norm's two parameters.
macro_rules! shows_vectors {
    ($($norm:ty),*) => {$(
        impl Layers for $norm {
            fn visit(&mut self, _: &mut dyn FnMut(&mut Weight)) {}

            fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
                visit(Vector { layer: &self.name, is_bias: false, numbers: &mut self.scale });
                visit(Vector { layer: &self.name, is_bias: true, numbers: &mut self.shift });
            }
        }
    )*};
}

shows_vectors!(LayerNorm, GroupNorm);

/// Whether somebody wants the gradient of a norm's parameters, which the kernels take as they are.
fn is_trained(scale: &Tensor, shift: &Tensor) -> bool {
    scale.track_op() || shift.track_op()
}

/// A scale and a shift that leave a norm's result as it is.
fn unit(like: &Tensor) -> Result<[Tensor; 2]> {
    Ok([like.ones_like()?, like.zeros_like()?])
}

fn check_channels(name: &str, x: &Tensor, scale: &Tensor) -> Result<()> {
    let channels = scale.elem_count();
    if x.rank() >= 2 && x.dims().last() == Some(&channels) {
        return Ok(());
    }
    let expected = format!("[.., {channels}]");
    Err(Error::Shape { layer: name.to_owned(), expected, found: x.dims().to_vec() })
}
