//! What makes words of a picture's look: a few tokens for a prompt of Stable Diffusion 1, from what CLIP's picture half sees.
//!
//! Mou et al. 2023, arXiv:2302.08453 (the style adapter of T2I-Adapter), in the key names of its authors' file.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::nn::{LayerNorm, Linear, Mask, Renamed, Weights, attention, quick_gelu};

const EPSILON: f64 = 1e-5;
/// In the only network of this kind; the tensors do not tell.
const HEADS: usize = 8;

/// The network. Cheap to clone; clones share the weights.
#[derive(Clone)]
pub struct StyleModel {
    /// The tokens that become the result, `[1, tokens, width]`.
    asked: Tensor,
    before: LayerNorm,
    blocks: Vec<Block>,
    after: LayerNorm,
    projection: Linear,
}

#[derive(Clone)]
struct Block {
    norms: [LayerNorm; 2],
    /// Queries, keys, values, out.
    attention: [Linear; 4],
    up: Linear,
    down: Linear,
}

impl StyleModel {
    /// Finds the network in its file.
    ///
    /// # Errors
    /// [`Error::MissingPart`] for a file that holds none, and what [`Weights::tensor`] says.
    pub fn load(weights: &Weights) -> Result<Self> {
        let Some(&[1, tokens, width]) = weights.shape("style_embedding") else {
            let redux = weights.contains("redux_down.weight");
            let hint = if redux {
                "Redux is for Flux, which is not loaded"
            } else {
                "a style adapter has a tensor `style_embedding`"
            };
            return Err(Error::MissingPart {
                file: weights.file().to_owned(),
                part: "style model",
                hint: hint.to_owned(),
            });
        };
        let asked = weights.tensor("style_embedding", &[1, tokens, width])?;
        let weights = weights.renamed(rename);
        let Some(&[out, _]) = weights.shape("proj.weight") else { return Err(weights.missing("proj")) };
        let blocks =
            (0..).map(|index| weights.at("blocks").at(index)).take_while(|block| block.contains("ln_1.weight"));
        Ok(Self {
            asked,
            before: LayerNorm::load(&weights.at("ln_pre"), width, EPSILON)?,
            blocks: blocks.map(|block| Block::load(&block, width)).collect::<Result<_>>()?,
            after: LayerNorm::load(&weights.at("ln_post"), width, EPSILON)?,
            projection: Linear::load_without_bias(&weights.at("proj"), width, out)?,
        })
    }

    /// Words for a prompt.
    ///
    /// # Shapes
    /// - `seen`: what CLIP's last block makes of every token, `[batch, tokens, width]`
    /// - output: `[batch, words, width of prompts]`
    ///
    /// # Errors
    /// `seen` is of another width.
    pub fn words(&self, seen: &Tensor) -> Result<Tensor> {
        let (batch, _, width) = seen.dims3()?;
        let (_, words, wanted) = self.asked.dims3()?;
        if width != wanted {
            return Err(Error::Shape {
                layer: "the style model".to_owned(),
                expected: format!("what CLIP sees in a picture, of width {wanted}"),
                found: seen.dims().to_vec(),
            });
        }
        let asked = self.asked.broadcast_as((batch, words, width))?.contiguous()?;
        let mut x = self.before.forward(&Tensor::cat(&[seen, &asked], 1)?)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        let tokens = x.dim(1)?;
        self.projection.forward(&self.after.forward(&x.narrow(1, tokens - words, words)?.contiguous()?)?)
    }
}

impl Block {
    fn load(weights: &Weights, width: usize) -> Result<Self> {
        let square = |name: &str| Linear::load(&weights.at(name), width, width);
        let norm = |name: &str| LayerNorm::load(&weights.at(name), width, EPSILON);
        let Some(&[hidden, _]) = weights.shape("mlp.c_fc.weight") else {
            return Err(weights.missing(&weights.key("mlp.c_fc.weight")));
        };
        Ok(Self {
            norms: [norm("ln_1")?, norm("ln_2")?],
            attention: [square("attn.q")?, square("attn.k")?, square("attn.v")?, square("attn.out_proj")?],
            up: Linear::load(&weights.at("mlp.c_fc"), width, hidden)?,
            down: Linear::load(&weights.at("mlp.c_proj"), hidden, width)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [queries, keys, values, out] = &self.attention;
        let normed = self.norms[0].forward(x)?;
        let (q, k, v) = (queries.forward(&normed)?, keys.forward(&normed)?, values.forward(&normed)?);
        let x = (x + out.forward(&attention(&q, &k, &v, HEADS, Mask::None)?)?)?;
        let wide = quick_gelu(&self.up.forward(&self.norms[1].forward(&x)?)?)?;
        Ok((&x + self.down.forward(&wide)?)?)
    }
}

/// The authors' name as it is asked for here: queries, keys and values apart, the projection as a layer.
fn rename(name: &str) -> Vec<Renamed> {
    if name == "proj" {
        return vec![Renamed { transposed: true, ..Renamed::whole("proj.weight") }];
    }
    let name = name.replacen("transformer_layes.", "blocks.", 1);
    match name.split_once("attn.in_proj_") {
        Some((place, kind)) => {
            let third = |(part, third): (usize, &str)| Renamed {
                part: (3, part),
                ..Renamed::whole(format!("{place}attn.{third}.{kind}"))
            };
            ["q", "k", "v"].into_iter().enumerate().map(third).collect()
        }
        None => vec![Renamed::whole(name)],
    }
}
