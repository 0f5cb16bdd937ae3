//! CLIP's text encoder: a causal transformer over 77 tokens.
//!
//! Radford et al. 2021, arXiv:2103.00020, section 2.4. Widths, layers and vocabulary are read off the tensors' shapes, in the
//! key layout of transformers (`embeddings.token_embedding`, `encoder.layers.0.self_attn.q_proj`). Knows no prompts.

use candle_core::Tensor;

use super::tokenizer::END;
use crate::error::{Error, Result};
use crate::nn::{Embedding, LayerNorm, Layers, Linear, Mask, Weight, Weights, attention, gelu, quick_gelu};

/// Width of an attention head in every CLIP text encoder.
const HEAD_WIDTH: usize = 64;
const EPSILON: f64 = 1e-5;

/// The nonlinearity between the two products of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · σ(1.702 x)`: OpenAI's encoders.
    QuickGelu,
    /// `x · Φ(x)`: OpenCLIP's.
    Gelu,
}

/// Which state of the encoder is the conditioning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The last block's, after the final norm.
    Last,
    /// The state after the n-th block from the end, 1 being the last; [`Last`](Self::Last) where there are fewer blocks.
    /// ComfyUI's `stop_at_clip_layer` is this number with a minus sign.
    FromEnd(u32),
}

/// What the tensors of an encoder do not say about its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// What embedding files call it: `clip_l`, `clip_h`, `clip_g`.
    pub id: &'static str,
    /// The nonlinearity it was trained with.
    pub activation: Activation,
    /// Which state its UNet was trained on.
    pub layer: Layer,
    /// Whether the final norm acts on a state that [`Layer::FromEnd`] takes, too.
    pub norms_hidden: bool,
    /// The token that fills a chunk after its end.
    pub pad: u32,
    /// Whether the pooled state goes through the encoder's last matrix, `text_projection`.
    pub projects: bool,
}

/// CLIP ViT-L/14 as Stable Diffusion 1.x uses it.
pub const SD1: Family = Family {
    id: "clip_l",
    activation: Activation::QuickGelu,
    layer: Layer::Last,
    norms_hidden: true,
    pad: END,
    projects: false,
};

/// The same encoder as SDXL uses it: the last block but one, as it is.
pub const SDXL_L: Family = Family { layer: Layer::FromEnd(2), norms_hidden: false, ..SD1 };

/// OpenCLIP ViT-H/14 as Stable Diffusion 2.x uses it.
pub const SD2: Family = Family {
    id: "clip_h",
    activation: Activation::Gelu,
    layer: Layer::FromEnd(2),
    norms_hidden: true,
    pad: 0,
    projects: true,
};

/// OpenCLIP ViT-bigG/14 as SDXL and its refiner use it.
pub const SDXL_G: Family = Family { id: "clip_g", norms_hidden: false, ..SD2 };

/// The encoder. Cheap to clone; clones share the weights.
#[derive(Clone)]
pub struct ClipText {
    family: Family,
    /// The tensors that it was found in.
    source: Weights,
    pub(super) tokens: Embedding,
    /// Added to the tokens by place, `[77, width]`.
    pub(super) positions: Tensor,
    blocks: Vec<Block>,
    final_norm: LayerNorm,
    /// Applied to the pooled state, if the family does that.
    projection: Option<Linear>,
}

/// What the blocks make of a batch of sequences.
pub(super) struct States {
    /// The state that was asked for, `[batch, tokens, width]`.
    pub(super) chosen: Tensor,
    /// The last block's after the final norm, of the same shape.
    pub(super) last: Tensor,
}

impl ClipText {
    /// Finds an encoder's layers below `weights`, for a Stable Diffusion 1.x checkpoint the tensors below
    /// `cond_stage_model.transformer.`. A level `text_model.` in between may be there or not; layers are named without it.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongShape`], [`Error::UnsupportedNumbers`].
    pub fn load(weights: &Weights, family: Family) -> Result<Self> {
        let outer = weights;
        let nested = weights.names().any(|name| name.starts_with("text_model."));
        let weights = weights.part(if nested { "text_model." } else { "" });
        let embeddings = weights.at("embeddings");
        let (vocabulary, width) = table_shape(&embeddings, "token_embedding.weight")?;
        if !width.is_multiple_of(HEAD_WIDTH) {
            return Err(Error::WrongShape {
                file: weights.file().to_owned(),
                name: embeddings.key("token_embedding.weight"),
                expected: format!("a width that heads of {HEAD_WIDTH} divide"),
                found: vec![vocabulary, width],
            });
        }
        let (places, _) = table_shape(&embeddings, "position_embedding.weight")?;
        let layers = weights.at("encoder").at("layers");
        let blocks = (0..).map(|index| layers.at(index)).take_while(|layer| layer.contains("layer_norm1.weight"));
        let blocks = blocks.map(|layer| Block::load(&layer, width, family.activation)).collect::<Result<Vec<_>>>()?;
        if blocks.is_empty() {
            return Err(layers.missing(&layers.key("0.layer_norm1.weight")));
        }
        let projection = if family.projects {
            let projection = outer.at("text_projection");
            let (projected, _) = table_shape(&projection, "weight")?;
            Some(Linear::load_without_bias(&projection, width, projected)?)
        } else {
            None
        };
        Ok(Self {
            projection,
            family,
            source: outer.clone(),
            tokens: Embedding::load(&embeddings.at("token_embedding"), vocabulary, width)?,
            positions: embeddings.tensor("position_embedding.weight", &[places, width])?,
            blocks,
            final_norm: LayerNorm::load(&weights.at("final_layer_norm"), width, EPSILON)?,
        })
    }

    /// The tensors that it was loaded from, without what adapters made of them.
    #[must_use]
    pub fn source(&self) -> &Weights {
        &self.source
    }

    /// How it is used.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// The same encoder, whose pooled state does not go through the last matrix.
    #[must_use]
    pub fn unprojected(&self) -> Self {
        Self { projection: None, ..self.clone() }
    }

    /// Length of the vectors that it makes.
    #[must_use]
    pub fn width(&self) -> usize {
        self.tokens.width()
    }

    /// How many blocks it has.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// The pooled state as the family's UNet wants it, `[1, width]` to `[1, projected]`.
    pub(super) fn project(&self, pooled: Tensor) -> Result<Tensor> {
        self.projection.as_ref().map_or(Ok(pooled.clone()), |projection| projection.forward(&pooled))
    }

    /// Runs all blocks over `x`, `[batch, tokens, width]`, tokens and places already added.
    pub(super) fn run(&self, x: Tensor, layer: Layer) -> Result<States> {
        let stop = match layer {
            Layer::Last => None,
            // Of a layer before the first, ComfyUI makes the last.
            Layer::FromEnd(from_end) => self.depth().checked_sub(from_end as usize),
        };
        let (mut x, mut hidden) = (x, None);
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x)?;
            if Some(index) == stop {
                hidden = Some(x.clone());
            }
        }
        let last = self.final_norm.forward(&x)?;
        let chosen = match hidden {
            None => last.clone(),
            Some(hidden) if self.family.norms_hidden => self.final_norm.forward(&hidden)?,
            Some(hidden) => hidden,
        };
        Ok(States { chosen, last })
    }
}

impl Layers for ClipText {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        for block in &mut self.blocks {
            for linear in
                [&mut block.queries, &mut block.keys, &mut block.values, &mut block.out, &mut block.up, &mut block.down]
            {
                linear.visit(visit);
            }
        }
        self.projection.visit(visit);
    }
}

/// Rows and width of a table, as the file has it.
fn table_shape(weights: &Weights, name: &str) -> Result<(usize, usize)> {
    match weights.shape(name) {
        None => Err(weights.missing(&weights.key(name))),
        Some(&[rows, width]) if rows > 0 && width > 0 => Ok((rows, width)),
        Some(found) => Err(Error::WrongShape {
            file: weights.file().to_owned(),
            name: weights.key(name),
            expected: "[rows, width]".to_owned(),
            found: found.to_vec(),
        }),
    }
}

/// Attention, then two products with a nonlinearity between them, each after a norm and added to what came in.
#[derive(Clone)]
struct Block {
    before_attention: LayerNorm,
    queries: Linear,
    keys: Linear,
    values: Linear,
    out: Linear,
    before_products: LayerNorm,
    up: Linear,
    activation: Activation,
    down: Linear,
}

impl Block {
    fn load(weights: &Weights, width: usize, activation: Activation) -> Result<Self> {
        let (attention, mlp) = (weights.at("self_attn"), weights.at("mlp"));
        let square = |name: &str| Linear::load(&attention.at(name), width, width);
        let norm = |name: &str| LayerNorm::load(&weights.at(name), width, EPSILON);
        let (hidden, _) = table_shape(&mlp, "fc1.weight")?;
        Ok(Self {
            before_attention: norm("layer_norm1")?,
            queries: square("q_proj")?,
            keys: square("k_proj")?,
            values: square("v_proj")?,
            out: square("out_proj")?,
            before_products: norm("layer_norm2")?,
            up: Linear::load(&mlp.at("fc1"), width, hidden)?,
            activation,
            down: Linear::load(&mlp.at("fc2"), hidden, width)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.before_attention.forward(x)?;
        let (q, k, v) = (self.queries.forward(&normed)?, self.keys.forward(&normed)?, self.values.forward(&normed)?);
        let heads = q.dim(2)? / HEAD_WIDTH;
        let attended = attention(&q, &k, &v, heads, Mask::Causal)?;
        let x = (x + self.out.forward(&attended)?)?;
        let wide = self.up.forward(&self.before_products.forward(&x)?)?;
        let wide = match self.activation {
            Activation::QuickGelu => quick_gelu(&wide)?,
            Activation::Gelu => gelu(&wide)?,
        };
        Ok((x + self.down.forward(&wide)?)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Device, Var};

    use super::super::chunks::{Chunk, Chunks, Token};
    use super::super::testing::{self, Tensors, encoder, recorded, relative_error};
    use super::*;
    use crate::nn::{Adapter, Geometry, attach, layers};

    const PREFIX: &str = "cond_stage_model.transformer.";

    fn load(tensors: &Tensors, prefix: &str) -> Result<ClipText> {
        ClipText::load(&testing::file(tensors, prefix).part(PREFIX), SD1)
    }

    /// Every seventh token of a batch of sequences, as the recordings have them.
    fn thinned(states: &Tensor) -> Tensor {
        let places = Tensor::arange_step(0u32, 77, 7, &Device::Cpu).unwrap();
        states.index_select(&places, 1).unwrap()
    }

    #[test]
    fn agrees_with_transformers() {
        let golden = Weights::open(testing::golden("clip.safetensors")).unwrap();
        let ids: Vec<u32> = recorded(&golden, "ids")
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
            .into_iter()
            .map(|id| id as u32)
            .collect();
        let encoders = [("two-heads", 128, 3, 320, Activation::QuickGelu), ("one-head", 64, 2, 256, Activation::Gelu)];
        for (name, width, depth, hidden, activation) in encoders {
            let family = Family { activation, norms_hidden: false, ..SD1 };
            let file = testing::file(&encoder(width, depth, hidden), "text_model.");
            let clip = ClipText::load(&file, family).unwrap();
            assert_eq!((clip.width(), clip.depth(), file.unread()), (width, depth, vec![]));
            let tokens = clip.tokens.rows(&ids).unwrap().reshape((2, 77, width)).unwrap();
            let x = tokens.broadcast_add(&clip.positions).unwrap();
            let check = |found: &Tensor, key: &str| {
                let error = relative_error(&thinned(found), &recorded(&golden, &format!("{name}.{key}")));
                eprintln!("{name}.{key}: {error:e}");
                assert!(error < 1e-5, "{name}.{key}: {error}");
            };
            for n in 1..=depth {
                let states = clip.run(x.clone(), Layer::FromEnd((depth + 1 - n) as u32)).unwrap();
                check(&states.chosen, &format!("hidden.{n}"));
                check(&states.last, "last");
            }
            check(&clip.run(x.clone(), Layer::Last).unwrap().chosen, "last");
            let pooled = ids.chunks(77).map(|ids| {
                let chunk = Chunk { tokens: ids.iter().copied().map(Token::Id).collect(), weights: vec![1.0; 77] };
                let prompt = Chunks { chunks: vec![chunk], references: vec![] };
                clip.encode(&prompt, Layer::Last).unwrap().pooled
            });
            let pooled = Tensor::cat(&pooled.collect::<Vec<_>>(), 0).unwrap();
            let error = relative_error(&pooled, &recorded(&golden, &format!("{name}.pooled")));
            eprintln!("{name}.pooled: {error:e}");
            assert!(error < 1e-5, "{name}.pooled: {error}");
            check(&clip.run(x.clone(), Layer::FromEnd(24)).unwrap().chosen, "last");
        }
    }

    #[test]
    fn takes_both_layouts_of_sd1_and_names_layers_alike() {
        let mut tensors = encoder(64, 1, 64);
        let nested = load(&tensors, "cond_stage_model.transformer.text_model.").unwrap();
        // Old files carry the numbers of the places, which say nothing.
        tensors.insert("embeddings.position_ids".to_owned(), (vec![1, 77], vec![half::f16::ZERO; 77]));
        let flat = load(&tensors, PREFIX).unwrap();
        assert_eq!(layers(&nested), layers(&flat));
        let names: Vec<String> = layers(&nested).into_iter().map(|(name, _)| name).collect();
        let expected =
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"];
        assert_eq!(names, expected.map(|name| format!("encoder.layers.0.{name}")));
        let x = nested.positions.unsqueeze(0).unwrap();
        let run = |clip: &ClipText| clip.run(x.clone(), Layer::Last).unwrap().last;
        assert_eq!(relative_error(&run(&nested), &run(&flat)), 0.0);
    }

    #[test]
    fn says_what_a_broken_file_lacks() {
        let whole = encoder(64, 2, 64);
        let without = |name: &str| {
            let mut tensors = whole.clone();
            tensors.remove(name);
            load(&tensors, PREFIX).map(|_| ()).unwrap_err()
        };
        for name in [
            "embeddings.token_embedding.weight",
            "encoder.layers.1.mlp.fc1.weight",
            "encoder.layers.0.layer_norm1.weight",
            "final_layer_norm.bias",
        ] {
            let error = without(name);
            assert!(
                matches!(&error, Error::MissingTensor { name: missing, .. } if *missing == format!("{PREFIX}{name}")),
                "{error}"
            );
        }
        let reshaped = |name: &str, shape: &[usize]| {
            let mut tensors = whole.clone();
            tensors.get_mut(name).unwrap().0 = shape.to_vec();
            load(&tensors, PREFIX).map(|_| ()).unwrap_err()
        };
        for (name, shape) in [
            ("embeddings.token_embedding.weight", vec![98_816, 32]),
            ("encoder.layers.1.mlp.fc1.weight", vec![4096]),
            ("encoder.layers.1.self_attn.q_proj.weight", vec![32, 128]),
            ("embeddings.position_embedding.weight", vec![64, 77]),
        ] {
            let error = reshaped(name, &shape);
            assert!(
                matches!(&error, Error::WrongShape { name: found, .. } if *found == format!("{PREFIX}{name}")),
                "{error}"
            );
        }
    }

    /// `y + x Δᵀ`, the full-rank case of any additive adapter.
    struct Shift(Var);

    impl Adapter for Shift {
        fn weight(&self, base: &Tensor) -> Result<Tensor> {
            Ok((base + self.0.as_tensor())?)
        }
        fn output(&self, _: Geometry, x: &Tensor, y: Tensor) -> Result<Tensor> {
            Ok((y + x.broadcast_matmul(&self.0.t()?)?)?)
        }
    }

    #[test]
    fn adapters_on_every_layer_get_gradients() {
        let clip = ClipText::load(&testing::file(&encoder(64, 2, 128), ""), SD1).unwrap();
        let adapters: Vec<_> = layers(&clip)
            .into_iter()
            .map(|(name, shape)| (name, Var::zeros(shape, DType::F32, &Device::Cpu).unwrap()))
            .collect();
        let attached: Vec<_> = adapters
            .iter()
            .map(|(name, delta)| (name.clone(), Arc::new(Shift(delta.clone())) as Arc<dyn Adapter>))
            .collect();
        let adapted = attach(&clip, &attached).unwrap();
        let x = clip.positions.unsqueeze(0).unwrap();
        let last = adapted.run(x.clone(), Layer::Last).unwrap().last;
        // Beside a layer, bias and activation follow in steps of their own, and may round differently.
        assert!(relative_error(&last, &clip.run(x, Layer::Last).unwrap().last) < 1e-6);
        let gradients = last.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(adapters.len(), 12);
        for (name, delta) in &adapters {
            let gradient = gradients.get(delta).unwrap_or_else(|| panic!("{name} has no gradient"));
            let size = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(size.is_finite() && size > 0.0, "{name}: {size}");
        }
    }
}
