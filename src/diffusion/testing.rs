//! What the tests of the networks share: weights drawn from their names, as `tests/golden/networks.py` draws them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use serde::Deserialize;

use crate::DeviceName;
use crate::nn::{Compute, Precision, Weights};

/// `count` numbers in [-1, 1): a splitmix64 stream seeded by the FNV-1a hash of `key`.
pub(crate) fn uniform(key: &str, count: usize) -> Vec<f64> {
    let seed = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let draw = |index: u64| {
        let z = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        2.0 * ((z ^ (z >> 31)) >> 11) as f64 * 2f64.powi(-53) - 1.0
    };
    (0..count as u64).map(draw).collect()
}

/// A tensor of such numbers, times `scale`.
pub(crate) fn value(key: &str, shape: &[usize], scale: f64) -> Tensor {
    let numbers = uniform(key, shape.iter().product()).into_iter().map(|u| (scale * u) as f32).collect();
    Tensor::from_vec::<_, f32>(numbers, shape, &Device::Cpu).unwrap()
}

/// A parameter that keeps the variance of what passes it: scales near 1, biases near 0.
fn parameter(key: &str, shape: &[usize]) -> Vec<f32> {
    let fan_in: usize = shape.iter().skip(1).product();
    let shaped = |u: f64| match shape {
        _ if key.ends_with("bias") => 0.1 * u,
        [_] => 1.0 + 0.1 * u,
        _ => u * (3.0 / fan_in as f64).sqrt(),
    };
    uniform(key, shape.iter().product()).into_iter().map(|u| shaped(u) as f32).collect()
}

/// A safetensors file of drawn parameters with these keys and shapes.
pub(crate) fn drawn_file(tensors: &BTreeMap<String, Vec<usize>>) -> Vec<u8> {
    let draw = |(key, shape): (&String, &Vec<usize>)| {
        (key.clone(), shape.clone(), parameter(key, shape).iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
    };
    let drawn: Vec<_> = tensors.iter().map(draw).collect();
    let views =
        drawn.iter().map(|(key, shape, bytes)| (key, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let metadata = HashMap::from([("modelspec.title".to_owned(), "drawn".to_owned())]);
    safetensors::serialize(views, Some(metadata)).unwrap()
}

/// Where else than through the kernels networks compute, and the relative error that is expected of each: candle's operations,
/// and the GPU that the tests were built for, if the machine has one.
pub(crate) fn elsewhere() -> Vec<(String, Compute, f64)> {
    let mut places = vec![("candle in f64".to_owned(), Compute::plain(&Device::Cpu, DType::F64), 1e-5)];
    let names = [(cfg!(feature = "cuda"), DeviceName::Cuda(0)), (cfg!(feature = "metal"), DeviceName::Metal(0))];
    for (_, name) in names.into_iter().filter(|(built, _)| *built) {
        match name.open() {
            Ok(device) => {
                places.push((format!("{name:?} in f32"), Compute::new(&device, Precision::Single), 1e-3));
                places.push((format!("{name:?} in bf16"), Compute::new(&device, Precision::Bf16), 5e-2));
            }
            Err(error) => println!("not compared: {error}"),
        }
    }
    places
}

/// One recording of `tests/golden/networks/`.
pub(crate) struct Golden {
    /// Keys and shapes of the model's tensors.
    pub(crate) tensors: BTreeMap<String, Vec<usize>>,
    /// Its recorded inputs and outputs.
    pub(crate) recorded: Weights,
    /// What the script was told, `{"size": [13, 21], ..}`.
    pub(crate) config: serde_json::Value,
}

impl Golden {
    pub(crate) fn open(case: &str) -> Self {
        #[derive(Deserialize)]
        struct Listing {
            config: serde_json::Value,
            tensors: BTreeMap<String, Vec<usize>>,
        }
        let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/networks")).join(case);
        let listing = std::fs::read_to_string(path.with_extension("json")).unwrap();
        let Listing { config, tensors } = serde_json::from_str(&listing).unwrap();
        Self { config, tensors, recorded: Weights::open(path.with_extension("safetensors")).unwrap() }
    }

    /// The model's file.
    pub(crate) fn weights(&self) -> Weights {
        Weights::from_bytes("drawn.safetensors", drawn_file(&self.tensors)).unwrap()
    }

    pub(crate) fn tensor(&self, name: &str) -> Tensor {
        self.recorded.tensor(name, self.recorded.shape(name).unwrap()).unwrap()
    }

    /// `config[name]` as a list of numbers.
    pub(crate) fn numbers(&self, name: &str) -> Vec<usize> {
        serde_json::from_value(self.config[name].clone()).unwrap()
    }
}

/// The length of the difference of two tensors, as a part of the expected one's length.
pub(crate) fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let length =
        |x: &Tensor| x.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
    let error = (length(&(found - expected).unwrap()) / length(expected)).sqrt();
    assert!(error.is_finite(), "{error}");
    error
}
