//! Where a network computes, and in which numbers.

use candle_core::{DType, Device, Tensor};
use paraflow_kernels::Precision;

use crate::error::Result;

/// Where a network computes, and in which numbers. The default is the CPU in single precision.
///
/// On the CPU the kernels multiply in the precision and hand on f32. Elsewhere candle computes, weights and all that layers
/// hand on being of one type.
#[derive(Clone, Debug)]
pub struct Compute {
    device: Device,
    dtype: DType,
    precision: Precision,
    halves: bool,
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
        Self { device: device.clone(), dtype, precision, halves: false }
    }

    /// On a device through candle's own operations, in a type of choice: on the CPU the kernels take f32 only.
    #[must_use]
    pub fn plain(device: &Device, dtype: DType) -> Self {
        Self { device: device.clone(), dtype, precision: Precision::Single, halves: false }
    }

    /// The same place, other numbers.
    #[must_use]
    pub fn multiplying_in(&self, precision: Precision) -> Self {
        // A type that was chosen by itself stays.
        let other = if precision == self.precision { self.clone() } else { Self::new(&self.device, precision) };
        Self { halves: self.halves, ..other }
    }

    /// The same place and numbers for a network whose weights are kept in half precision, as ComfyUI keeps those of text encoders:
    /// wider numbers of a file are rounded to it, and so is what adapters make of a weight.
    #[must_use]
    pub fn keeping_halves(&self) -> Self {
        Self { halves: true, ..self.clone() }
    }

    /// The same for weights that are kept as they are stored.
    #[must_use]
    pub fn keeping_all(&self) -> Self {
        Self { halves: false, ..self.clone() }
    }

    /// Whether weights are kept in half precision.
    #[must_use]
    pub fn keeps_halves(&self) -> bool {
        self.halves
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
