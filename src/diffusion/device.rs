//! Which device networks compute on, by the name that people give it.

use std::str::FromStr;

use candle_core::Device;

use crate::error::{Error, Result};

/// A device's name: `auto`, `cpu`, `cuda`, `cuda:1`, `metal`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceName {
    /// The first GPU that the program was built for and the machine has; else the CPU.
    #[default]
    Auto,
    /// The processor, through our kernels.
    Cpu,
    /// A GPU of NVIDIA's.
    Cuda(usize),
    /// A GPU of Apple's.
    Metal(usize),
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (kind, index) = text.split_once(':').unwrap_or((text, "0"));
        match (kind, index.parse::<usize>()) {
            ("auto", _) if text == "auto" => Ok(Self::Auto),
            ("cpu", _) if text == "cpu" => Ok(Self::Cpu),
            ("cuda", Ok(index)) => Ok(Self::Cuda(index)),
            ("metal", Ok(index)) => Ok(Self::Metal(index)),
            _ => Err(format!("expected auto, cpu, cuda, cuda:NUMBER or metal, found `{text}`")),
        }
    }
}

impl DeviceName {
    /// Opens the device.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when the program was not built for it or the machine does not have it. `auto` is always found.
    pub fn open(self) -> Result<Device> {
        let opened = |kind: &str, index: usize, built: bool, found: candle_core::Result<Device>| {
            let fault = match &found {
                Ok(_) => return found.map_err(Error::from),
                Err(_) if !built => format!("this program was built without {kind}"),
                Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
            };
            let hint = if built {
                format!("see whether the system's tools list GPU {index}, or compute with `--device cpu`")
            } else {
                format!("build it with `cargo build --release --features {kind}`, or compute with `--device cpu`")
            };
            Err(Error::NoDevice { device: format!("{kind}:{index}"), fault, hint })
        };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(index) => opened("cuda", index, cfg!(feature = "cuda"), Device::new_cuda(index)),
            Self::Metal(index) => opened("metal", index, cfg!(feature = "metal"), Device::new_metal(index)),
            Self::Auto if cfg!(feature = "cuda") => Ok(Device::new_cuda(0).unwrap_or(Device::Cpu)),
            Self::Auto if cfg!(feature = "metal") => Ok(Device::new_metal(0).unwrap_or(Device::Cpu)),
            Self::Auto => Ok(Device::Cpu),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_others_refused() {
        assert_eq!("auto".parse(), Ok(DeviceName::Auto));
        assert_eq!("cuda".parse(), Ok(DeviceName::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceName::Cuda(3)));
        assert_eq!("metal:1".parse(), Ok(DeviceName::Metal(1)));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cpu:1", "CUDA"] {
            assert!(wrong.parse::<DeviceName>().unwrap_err().contains("cuda:NUMBER"), "{wrong}");
        }
    }

    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    #[test]
    fn a_device_that_the_program_was_not_built_for_is_refused_with_the_way_to_build_it() {
        let error = DeviceName::Cuda(0).open().unwrap_err();
        assert_eq!(
            error.to_string(),
            "device `cuda:0`: this program was built without cuda\nhint: build it with `cargo build --release --features \
             cuda`, or compute with `--device cpu`"
        );
        assert!(DeviceName::Auto.open().unwrap().is_cpu());
    }
}
