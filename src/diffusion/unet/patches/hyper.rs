//! Hypernetworks: small networks that change what attention looks at.
//!
//! The kind that NovelAI described in October 2022 and the web interfaces of that time trained.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::nn::{LayerNorm, Linear, Weights};
use crate::unet::Patch;

const EPSILON: f64 = 1e-5;

/// A hypernetwork with its strength. Clones share the weights.
#[derive(Clone)]
pub struct Hyper {
    /// By the width of what is looked at: what changes keys and what changes values.
    networks: BTreeMap<usize, [Vec<Layer>; 2]>,
    strength: f64,
}

#[derive(Clone)]
enum Layer {
    Linear(Linear),
    Norm(LayerNorm),
    Activation(Activation),
}

/// A nonlinearity, by the name that files give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activation {
    Relu,
    LeakyRelu,
    Elu,
    /// Files mean the hard kind.
    Swish,
    Tanh,
    Sigmoid,
    Softsign,
    Mish,
}

/// Those that there are; `linear` is none.
const ACTIVATIONS: [(&str, Option<Activation>); 9] = [
    ("linear", None),
    ("relu", Some(Activation::Relu)),
    ("leakyrelu", Some(Activation::LeakyRelu)),
    ("elu", Some(Activation::Elu)),
    ("swish", Some(Activation::Swish)),
    ("tanh", Some(Activation::Tanh)),
    ("sigmoid", Some(Activation::Sigmoid)),
    ("softsign", Some(Activation::Softsign)),
    ("mish", Some(Activation::Mish)),
];

impl Hyper {
    /// Reads a hypernetwork: tensors `WIDTH.0.linear.N.weight` and `.bias` for keys, `WIDTH.1…` for values, as its pickled file
    /// nests them, and among the metadata `activation_func`, `is_layer_norm` and `activate_output`.
    ///
    /// # Errors
    /// [`Error::MissingPart`] for a file that holds none, [`Error::UnknownName`] for an unknown nonlinearity, and what
    /// [`Weights::tensor`] says.
    pub fn load(weights: &Weights, strength: f64) -> Result<Self> {
        let told = |key: &str| weights.metadata().get(key).map(String::as_str);
        let is_on = |key: &str| told(key).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let name = told("activation_func").unwrap_or("linear");
        let Some((_, activation)) = ACTIVATIONS.iter().find(|(known, _)| *known == name) else {
            return Err(Error::UnknownName {
                kind: "nonlinearity of a hypernetwork",
                name: name.to_owned(),
                known: ACTIVATIONS.iter().map(|(known, _)| *known).collect(),
            });
        };
        let how = How { activation: *activation, norms: is_on("is_layer_norm"), at_end: is_on("activate_output") };
        let widths: std::collections::BTreeSet<usize> =
            weights.names().filter_map(|name| name.split('.').next()?.parse().ok()).collect();
        if widths.is_empty() {
            return Err(Error::MissingPart {
                file: weights.file().to_owned(),
                part: "hypernetwork",
                hint: "its tensors are called like `768.0.linear.0.weight`; see docs/models.md for how one becomes safetensors"
                    .to_owned(),
            });
        }
        let network = |width: usize| -> Result<_> {
            let of = |half: usize| how.layers(&weights.at(width).at(half));
            Ok((width, [of(0)?, of(1)?]))
        };
        Ok(Self { networks: widths.into_iter().map(network).collect::<Result<_>>()?, strength })
    }
}

/// What all networks of a file have in common.
struct How {
    activation: Option<Activation>,
    norms: bool,
    at_end: bool,
}

impl How {
    fn layers(&self, weights: &Weights) -> Result<Vec<Layer>> {
        let mut names: Vec<(usize, String)> = weights
            .names()
            .filter_map(|name| {
                let layer = name.strip_suffix(".weight")?;
                Some((layer.rsplit('.').next()?.parse().ok()?, layer.to_owned()))
            })
            .collect();
        names.sort();
        let count = names.len();
        let mut layers = Vec::new();
        let mut names = names.into_iter().enumerate();
        while let Some((index, (_, name))) = names.next() {
            let place = weights.at(&name);
            let Some(&[output, input]) = place.shape("weight") else { return Err(place.missing(&place.key("weight"))) };
            layers.push(Layer::Linear(Linear::load(&place, input, output)?));
            if let Some(activation) = self.activation.filter(|_| index + 1 < count || self.at_end) {
                layers.push(Layer::Activation(activation));
            }
            if let Some((_, (_, name))) = self.norms.then(|| names.next()).flatten() {
                layers.push(Layer::Norm(LayerNorm::load(&weights.at(&name), output, EPSILON)?));
            }
        }
        Ok(layers)
    }
}

impl Patch for Hyper {
    fn changes_what_is_looked_at(&self) -> bool {
        self.strength != 0.0
    }

    fn looked_at(&self, [keys, values]: [Tensor; 2]) -> Result<[Tensor; 2]> {
        let Some([of_keys, of_values]) = self.networks.get(&keys.dim(2)?) else { return Ok([keys, values]) };
        let change = |x: Tensor, layers: &[Layer]| -> Result<Tensor> {
            let mut h = x.to_dtype(DType::F32)?;
            for layer in layers {
                h = match layer {
                    Layer::Linear(linear) => linear.forward(&h)?,
                    Layer::Norm(norm) => norm.forward(&h)?,
                    Layer::Activation(activation) => activation.apply(&h)?,
                };
            }
            Ok((&x + h.affine(self.strength, 0.0)?.to_dtype(x.dtype())?)?)
        };
        Ok([change(keys, of_keys)?, change(values, of_values)?])
    }
}

impl Activation {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Relu => x.relu()?,
            Self::LeakyRelu => x.maximum(&x.affine(0.01, 0.0)?)?,
            Self::Elu => x.elu(1.0)?,
            Self::Swish => (x * x.affine(1.0 / 6.0, 0.5)?.clamp(0.0, 1.0)?)?,
            Self::Tanh => x.tanh()?,
            Self::Sigmoid => sigmoid(x)?,
            Self::Softsign => (x / x.abs()?.affine(1.0, 1.0)?)?,
            Self::Mish => (x * x.exp()?.affine(1.0, 1.0)?.log()?.tanh()?)?,
        })
    }
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok(x.neg()?.exp()?.affine(1.0, 1.0)?.recip()?)
}
