//! GLIGEN: layers that let a picture's tokens look at boxes and at what is to be in them.
//!
//! Li et al. 2023, arXiv:2301.07093, section 3, in the key names of its authors' checkpoints.

use std::fmt;

use candle_core::{D, DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::nn::{LayerNorm, Linear, Mask, Weights, attention, geglu, silu};
use crate::tensors::repeat_to_batch;

const EPSILON: f64 = 1e-5;
/// So many boxes are looked at; those that are not given are taken to be empty.
const BOXES: usize = 30;
/// Frequencies of a box's edges, from 1 up towards this one.
const FREQUENCIES: usize = 8;
const HIGHEST: f32 = 100.0;
/// How wide Stable Diffusion 1's words are, whose layers have eight heads; others have heads of 64 channels.
const WIDTH_OF_SD1: usize = 768;

/// The layers. Cheap to clone; clones share the weights.
#[derive(Clone)]
pub struct Gligen {
    /// One for each transformer of a network, in the order in which they run.
    fusers: Vec<Fuser>,
    positions: [Linear; 3],
    no_words: Tensor,
    no_place: Tensor,
}

/// What is to be in a box.
#[derive(Clone, Debug)]
pub struct BoxedWords {
    /// What sums up the words, `[1, width]`.
    pub words: Tensor,
    /// Height of the box in cells of the latent.
    pub height: usize,
    /// Its width.
    pub width: usize,
    /// Its distance from the top.
    pub y: usize,
    /// Its distance from the left.
    pub x: usize,
}

/// Boxes, and the layers that look at them.
#[derive(Clone)]
pub struct Grounding {
    /// The layers.
    pub layers: Gligen,
    /// The boxes.
    pub boxes: Vec<BoxedWords>,
}

impl fmt::Debug for Grounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grounding").field("boxes", &self.boxes).finish_non_exhaustive()
    }
}

/// Boxes as the layers look at them, for latents of one size.
pub struct Grounded<'a> {
    layers: &'a Gligen,
    /// `[1, boxes, width]`
    boxes: Tensor,
}

impl Gligen {
    /// Finds the layers in a file: those named `fuser` in the blocks of a UNet, and `position_net`.
    ///
    /// # Errors
    /// [`Error::MissingPart`] for a file that holds none, and what [`Weights::tensor`] says.
    pub fn load(weights: &Weights) -> Result<Self> {
        let mut fusers = Vec::new();
        for part in ["input_blocks", "middle_block", "output_blocks"] {
            for block in 0..20 {
                let start = format!("{part}.{block}.");
                let place = weights.names().find_map(|name| {
                    let at = name.find(&start)?;
                    let end = name[at..].find(".fuser.")? + at + ".fuser.".len();
                    Some(name[..end].to_owned())
                });
                if let Some(place) = place {
                    fusers.push(Fuser::load(&weights.part(&place))?);
                }
            }
        }
        let net = weights.part("position_net.");
        let (Some(&[words]), Some(&[place])) = (net.shape("null_positive_feature"), net.shape("null_position_feature"))
        else {
            return Err(Error::MissingPart {
                file: weights.file().to_owned(),
                part: "GLIGEN",
                hint: "its text box model has a tensor `position_net.null_positive_feature`".to_owned(),
            });
        };
        let layer = |index: usize| {
            let weights = net.at("linears").at(index);
            match weights.shape("weight") {
                Some(&[output, input]) => Linear::load(&weights, input, output),
                _ => Err(weights.missing(&weights.key("weight"))),
            }
        };
        Ok(Self {
            fusers,
            positions: [layer(0)?, layer(2)?, layer(4)?],
            no_words: net.tensor("null_positive_feature", &[words])?,
            no_place: net.tensor("null_position_feature", &[place])?,
        })
    }

    /// Width of the vectors that sum up words.
    #[must_use]
    pub fn words_width(&self) -> usize {
        self.no_words.elem_count()
    }
}

impl<'a> Grounded<'a> {
    /// What the layers look at, for latents like `x`, `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// There are more boxes than the layers look at, or words of another width.
    pub fn new(grounding: &'a Grounding, x: &Tensor) -> Result<Self> {
        let Grounding { layers, boxes } = grounding;
        if boxes.len() > BOXES {
            return Err(Error::Shape {
                layer: "GLIGEN".to_owned(),
                expected: format!("{BOXES} boxes at most"),
                found: vec![boxes.len()],
            });
        }
        let (_, _, rows, columns) = x.dims4()?;
        let (no_words, no_place) = (layers.no_words.to_dtype(DType::F32)?, layers.no_place.to_dtype(DType::F32)?);
        let mut tokens = Vec::with_capacity(BOXES);
        for boxed in boxes {
            if boxed.words.dims() != [1, no_words.elem_count()] {
                return Err(Error::Shape {
                    layer: "GLIGEN".to_owned(),
                    expected: format!(
                        "words of width {}, from the text encoder of Stable Diffusion 1",
                        no_words.elem_count()
                    ),
                    found: boxed.words.dims().to_vec(),
                });
            }
            let share = |cells: usize, of: usize| cells as f32 / of as f32;
            let edges = [
                share(boxed.x, columns),
                share(boxed.y, rows),
                share(boxed.x + boxed.width, columns),
                share(boxed.y + boxed.height, rows),
            ];
            let words = boxed.words.to_dtype(DType::F32)?;
            tokens.push(Tensor::cat(&[&words, &waves(edges, x.device())?], 1)?);
        }
        let empty = Tensor::cat(&[&no_words, &no_place], 0)?.unsqueeze(0)?;
        tokens.resize(BOXES, empty);
        let [first, second, last] = &layers.positions;
        let h = silu(&first.forward(&Tensor::cat(&tokens, 0)?)?)?;
        let boxes = last.forward(&silu(&second.forward(&h)?)?)?.unsqueeze(0)?;
        Ok(Self { layers, boxes })
    }

    /// What a transformer's tokens `[batch, tokens, width]` become after they looked at each other.
    pub(super) fn apply(&self, transformer: usize, x: &Tensor) -> Result<Tensor> {
        let Some(fuser) = self.layers.fusers.get(transformer) else {
            return Err(Error::Shape {
                layer: format!("GLIGEN (transformer {transformer})"),
                expected: format!("a network of {} transformers, which this file is for", self.layers.fusers.len()),
                found: vec![transformer + 1],
            });
        };
        fuser.forward(x, &self.boxes)
    }
}

/// Sines and cosines of a box's edges.
fn waves(edges: [f32; 4], device: &Device) -> Result<Tensor> {
    let mut waves = Vec::with_capacity(2 * FREQUENCIES * edges.len());
    for index in 0..FREQUENCIES {
        let frequency = HIGHEST.powf(index as f32 / FREQUENCIES as f32);
        waves.extend(edges.iter().map(|edge| (frequency * edge).sin()));
        waves.extend(edges.iter().map(|edge| (frequency * edge).cos()));
    }
    let count = waves.len();
    Ok(Tensor::from_vec(waves, (1, count), device)?)
}

/// One layer: tokens look at each other and at the boxes, then each at itself, both as far as two learnt numbers let them.
#[derive(Clone)]
struct Fuser {
    boxes: Linear,
    norms: [LayerNorm; 2],
    /// Queries, keys, values, out.
    attention: [Linear; 4],
    heads: usize,
    widen: Linear,
    narrow: Linear,
    /// How much comes of attention, and of the rest.
    gates: [f64; 2],
}

impl Fuser {
    fn load(weights: &Weights) -> Result<Self> {
        let boxes = weights.at("linear");
        let Some(&[width, words]) = boxes.shape("weight") else { return Err(boxes.missing(&boxes.key("weight"))) };
        let square = |name: &str| Linear::load_without_bias(&weights.at("attn").at(name), width, width);
        let norm = |name: &str| LayerNorm::load(&weights.at(name), width, EPSILON);
        let gate = |name: &str| -> Result<f64> {
            let shape = weights.shape(name).unwrap_or_default().to_vec();
            let alpha = weights.tensor(name, &shape)?.to_dtype(DType::F32)?.flatten_all()?;
            Ok(f64::from(alpha.get(0)?.to_scalar::<f32>()?.tanh()))
        };
        let widen = weights.at("ff.net.0.proj");
        let Some(&[wide, _]) = widen.shape("weight") else { return Err(widen.missing(&widen.key("weight"))) };
        Ok(Self {
            boxes: Linear::load(&boxes, words, width)?,
            norms: [norm("norm1")?, norm("norm2")?],
            attention: [
                square("to_q")?,
                square("to_k")?,
                square("to_v")?,
                Linear::load(&weights.at("attn.to_out.0"), width, width)?,
            ],
            heads: if words == WIDTH_OF_SD1 { 8 } else { (width / 64).max(1) },
            widen: Linear::load(&widen, width, wide)?,
            narrow: Linear::load(&weights.at("ff.net.2"), wide / 2, width)?,
            gates: [gate("alpha_attn")?, gate("alpha_dense")?],
        })
    }

    fn forward(&self, x: &Tensor, boxes: &Tensor) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let fits = self.boxes.weight().shape()[0] == width;
        if !fits {
            return Err(Error::Shape {
                layer: "GLIGEN".to_owned(),
                expected: format!("tokens of width {}", self.boxes.weight().shape()[0]),
                found: x.dims().to_vec(),
            });
        }
        let boxes = repeat_to_batch(&self.boxes.forward(boxes)?.to_dtype(x.dtype())?, batch)?;
        let all = self.norms[0].forward(&Tensor::cat(&[x, &boxes], 1)?)?;
        let [queries, keys, values, out] = &self.attention;
        // Only the picture's own tokens are used, so only they ask.
        let q = queries.forward(&all.narrow(1, 0, tokens)?.contiguous()?)?;
        let found = attention(&q, &keys.forward(&all)?, &values.forward(&all)?, self.heads, Mask::None)?;
        let x = (x + out.forward(&found)?.affine(self.gates[0], 0.0)?)?;
        let h = geglu(&self.widen.forward(&self.norms[1].forward(&x)?)?)?;
        debug_assert_eq!(h.dim(D::Minus1)?, self.narrow.weight().shape()[1]);
        Ok((&x + self.narrow.forward(&h)?.affine(self.gates[1], 0.0)?)?)
    }
}
