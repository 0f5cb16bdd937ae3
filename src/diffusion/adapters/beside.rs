//! What networks hold beside the weights of their layers: biases, norms, embeddings. Files of LyCORIS add to the first two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use super::names::{Layer, Part, text_spellings, unet_spellings};
use crate::nn::Weights;

/// One place of a network, by what it holds that is no layer's weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// Where it is.
    pub part: Part,
    /// Its name as that of a [`Layer`]: `input_blocks.1.0.in_layers.0`.
    pub name: String,
    diffusers: String,
    /// Shape of its `weight`: a norm's scale, an embedding's table. `None` for a layer, whose weight is its own.
    pub weight: Option<Vec<usize>>,
    /// Length of its `bias`, if it has one.
    pub bias: Option<usize>,
}

impl Beside {
    /// Whether it is a norm or an embedding.
    #[must_use]
    pub fn is_no_layer(&self) -> bool {
        self.weight.is_some()
    }
}

/// All places of a model, and every name that files call them by.
#[derive(Debug, Clone, Default)]
pub(super) struct Besides {
    places: Vec<Beside>,
    /// Whether there is one text encoder only.
    alone: bool,
    /// Indices into `places`; made when the first file asks, for most never do.
    spellings: OnceLock<BTreeMap<String, usize>>,
}

impl Besides {
    pub(super) fn new(alone: bool) -> Self {
        Self { alone, ..Self::default() }
    }

    /// Takes in a network's tensors; `layers` are those that have a weight, `diffusers` gives diffusers' name of a place.
    pub(super) fn collect(
        &mut self,
        part: Part,
        tensors: &Weights,
        layers: &[Layer],
        diffusers: impl Fn(&str) -> String,
    ) {
        let layers: BTreeSet<&str> =
            layers.iter().filter(|layer| layer.part == part).map(|layer| layer.name.as_str()).collect();
        let mut places = BTreeMap::<&str, Beside>::new();
        for whole in tensors.names() {
            let Some((place, kind)) = whole.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))
            else {
                continue;
            };
            // Text encoders have this level in some files and not in others.
            let name = if part == Part::Unet { place } else { place.strip_prefix("text_model.").unwrap_or(place) };
            let shape = tensors.shape(whole).unwrap_or_default();
            if kind == "weight" && layers.contains(name) {
                continue;
            }
            let beside = places.entry(name).or_insert_with(|| Beside {
                part,
                name: name.to_owned(),
                diffusers: diffusers(name),
                weight: None,
                bias: None,
            });
            match kind {
                "weight" => beside.weight = Some(shape.to_vec()),
                _ => beside.bias = shape.first().copied(),
            }
        }
        self.places.extend(places.into_values());
    }

    /// The place of that name.
    pub(super) fn find(&self, name: &str) -> Option<&Beside> {
        let spellings = self.spellings.get_or_init(|| {
            let mut spellings = BTreeMap::new();
            for (index, place) in self.places.iter().enumerate() {
                let Beside { part, name, diffusers, .. } = place;
                let spelled = match part {
                    Part::Unet => unet_spellings(name, diffusers),
                    _ => text_spellings(*part, name, diffusers, self.alone),
                };
                for spelling in spelled {
                    spellings.entry(spelling).or_insert(index);
                }
            }
            spellings
        });
        spellings.get(name).map(|&index| &self.places[index])
    }
}
