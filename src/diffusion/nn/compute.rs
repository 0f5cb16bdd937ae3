//! Where a network computes, and in which numbers.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use paraflow_kernels::Precision;

use super::prepacked::Prepacked;
use crate::error::Result;

/// In which numbers weights are kept. Wider ones of a file are rounded to them when they are read, as torch rounds them; those that a file
/// multiplies by a scale stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// As they are stored.
    #[default]
    AsStored,
    /// In half precision, as ComfyUI keeps those of text encoders. What adapters make of a weight is rounded too.
    Half,
    /// In eight bits, four of them exponent, three fraction.
    E4m3,
    /// In eight bits, five of them exponent, two fraction.
    E5m2,
}

/// Where a network computes, and in which numbers. The default is the CPU in single precision.
///
/// On the CPU the kernels multiply in the precision and hand on f32. Elsewhere candle computes, weights and all that layers
/// hand on being of one type.
#[derive(Clone, Debug)]
pub struct Compute {
    device: Device,
    dtype: DType,
    precision: Precision,
    kept: Kept,
    prepacked: Option<Arc<Prepacked>>,
}

impl Default for Compute {
    fn default() -> Self {
        Self::new(&Device::Cpu, Precision::Single)
    }
}

impl Compute {
    /// On a device, in numbers of choice.
    #[must_use]
    pub fn new(device: &Device, precision: Precision) -> Self {
        let dtype = match precision {
            Precision::Bf16 if !device.is_cpu() => DType::BF16,
            _ => DType::F32,
        };
        Self { device: device.clone(), dtype, precision, kept: Kept::AsStored, prepacked: None }
    }

    /// On a device through candle's own operations, in a type of choice: on the CPU the kernels take f32 only.
    #[must_use]
    pub fn plain(device: &Device, dtype: DType) -> Self {
        Self { device: device.clone(), dtype, precision: Precision::Single, kept: Kept::AsStored, prepacked: None }
    }

    /// The same place, other numbers.
    #[must_use]
    pub fn multiplying_in(&self, precision: Precision) -> Self {
        // A type that was chosen by itself stays.
        let other = if precision == self.precision { self.clone() } else { Self::new(&self.device, precision) };
        Self { kept: self.kept, prepacked: self.prepacked.clone(), ..other }
    }

    /// The same place and numbers for a network whose weights are kept so.
    #[must_use]
    pub fn keeping(&self, kept: Kept) -> Self {
        Self { kept, ..self.clone() }
    }

    /// In which numbers weights are kept.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// The same, with packed weights of mapped files kept in a folder.
    #[must_use]
    pub fn prepacked_in(&self, prepacked: Arc<Prepacked>) -> Self {
        Self { prepacked: Some(prepacked), ..self.clone() }
    }

    /// Where text encoders compute that belong to networks computing here: on the CPU in single precision.
    #[must_use]
    pub fn for_texts(&self) -> Self {
        Self { prepacked: self.prepacked.clone(), ..Self::default() }
    }

    /// Where packed weights are kept, if they are.
    pub(super) fn prepacked(&self) -> Option<&Prepacked> {
        self.prepacked.as_deref()
    }

    /// Where layers are placed.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type of what layers hand on.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// In which numbers the CPU's kernels multiply.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// A value from outside, where the network computes and in its type. Differentiable.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn take(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.to_device(&self.device)?.to_dtype(self.dtype)?)
    }

    /// A picture from outside, `[batch, channels, height, width]`, as layers take it: channels-last.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_picture(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.take(x)?.permute((0, 2, 3, 1))?.contiguous()?)
    }
}

/// A result of layers for the world outside, f32 on the CPU. Differentiable.
///
/// # Errors
/// When the device fails.
pub fn give(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(DType::F32)?.to_device(&Device::Cpu)?)
}

/// The same for a picture, which becomes `[batch, channels, height, width]` again.
///
/// # Errors
/// When the device fails.
pub fn give_picture(x: &Tensor) -> Result<Tensor> {
    give(&x.permute((0, 3, 1, 2))?.contiguous()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_place_is_not_copied() {
        let x = Tensor::new(&[[1.0_f32, 2.0]], &Device::Cpu).unwrap();
        let taken = Compute::default().take(&x).unwrap();
        assert_eq!(taken.id(), x.id());
        assert_eq!(give(&x).unwrap().id(), x.id());
        let wide = Compute::plain(&Device::Cpu, DType::F64);
        assert_eq!(wide.take(&x).unwrap().dtype(), DType::F64);
        assert_eq!(wide.multiplying_in(Precision::Single).dtype(), DType::F64);
        assert_eq!(Compute::default().multiplying_in(Precision::Bf16).dtype(), DType::F32);
    }
}
