//! The attentive half of a UNet: pixels look at each other, then at the prompt.

use candle_core::{DType, Tensor};

use super::config::Config;
use super::pass::{Middle, Pass};
use super::prompt::Remembered;
use crate::error::{Error, Result};
use crate::nn::{GroupNorm, LayerNorm, Layers, Linear, Mask, Vector, Weight, Weights, attention_in, geglu};

/// Smaller than in the residual blocks.
const GROUP_EPSILON: f64 = 1e-6;
const LAYER_EPSILON: f64 = 1e-5;
/// How much wider the feed-forward layers are than the rest.
const WIDENING: usize = 4;

/// Takes a picture apart into pixels, runs transformer blocks over them, and adds the result to the picture.
#[derive(Clone)]
pub(super) struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<Block>,
    proj_out: Linear,
    /// Which one it is in its network, in the order in which they run.
    pub(super) index: usize,
}

impl SpatialTransformer {
    /// `depth` blocks over `width` channels. The projections are Linear layers or 1x1 convolutions, which are the same thing.
    pub(super) fn load(weights: &Weights, width: usize, depth: usize, config: &Config) -> Result<Self> {
        let block = |index| Block::load(&weights.at("transformer_blocks").at(index), width, config);
        Ok(Self {
            norm: GroupNorm::load(&weights.at("norm"), width, GROUP_EPSILON)?,
            proj_in: Linear::load(&weights.at("proj_in"), width, width)?,
            blocks: (0..depth).map(block).collect::<Result<_>>()?,
            proj_out: Linear::load(&weights.at("proj_out"), width, width)?,
            index: 0,
        })
    }

    /// # Shapes
    /// - `x` and output: `[batch, height, width, channels]`
    /// - `context`: `[batch, tokens, context]`
    pub(super) fn forward(&self, x: &Tensor, context: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let pixels = x.reshape((batch, height * width, channels))?;
        let mut h = self.proj_in.forward(&self.norm.forward(&pixels)?)?;
        for (index, block) in self.blocks.iter().enumerate() {
            // Only the first block is watched.
            let middle = match pass.middle {
                Middle::Watched(_) if index > 0 => Middle::Attends,
                middle => middle,
            };
            h = block.forward(&h, context, self.index, &Pass { middle, ..*pass })?;
        }
        Ok(self.proj_out.forward_add(&h, &pixels)?.reshape((batch, height, width, channels))?)
    }
}

impl Layers for SpatialTransformer {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.proj_in.visit(visit);
        self.blocks.visit(visit);
        self.proj_out.visit(visit);
    }

    fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
        self.norm.visit_vectors(visit);
        self.proj_in.visit_vectors(visit);
        self.blocks.visit_vectors(visit);
        self.proj_out.visit_vectors(visit);
    }
}

/// Self-attention, cross-attention, feed-forward, each after a layer norm and added to what came in.
///
/// In some networks the first attention is no self-attention: it looks at the prompt as the second does.
#[derive(Clone)]
struct Block {
    norm1: LayerNorm,
    attn1: Attention,
    /// Whether the first attention looks at the prompt.
    only_prompt: bool,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    widen: Linear,
    narrow: Linear,
}

impl Block {
    fn load(weights: &Weights, width: usize, config: &Config) -> Result<Self> {
        let heads = config.heads(width);
        let context = config.context.unwrap_or(width);
        let norm = |name| LayerNorm::load(&weights.at(name), width, LAYER_EPSILON);
        // Its keys' width says what it looks at. Where both are of one width it is the picture.
        let keys = weights.shape("attn1.to_k.weight");
        let only_prompt = context != width && matches!(keys, Some(&[_, input]) if input == context);
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::load(&weights.at("attn1"), width, if only_prompt { context } else { width }, heads)?,
            only_prompt,
            norm2: norm("norm2")?,
            attn2: Attention::load(&weights.at("attn2"), width, context, heads)?,
            norm3: norm("norm3")?,
            widen: Linear::load(&weights.at("ff.net.0.proj"), width, 2 * WIDENING * width)?,
            narrow: Linear::load(&weights.at("ff.net.2"), WIDENING * width, width)?,
        })
    }

    fn forward(&self, x: &Tensor, context: &Tensor, transformer: usize, pass: &Pass<'_>) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let mut x = self.attn1.forward_self(&h, self.only_prompt.then_some(context), x, pass)?;
        if let Some(grounded) = pass.grounded {
            x = grounded.apply(transformer, &x)?;
        }
        let x = self.attn2.forward_prompt(&self.norm2.forward(&x)?, context, &x, pass)?;
        let h = geglu(&self.widen.forward(&self.norm3.forward(&x)?)?)?;
        self.narrow.forward_add(&h, &x)
    }
}

impl Layers for Block {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.attn1.visit(visit);
        self.attn2.visit(visit);
        self.widen.visit(visit);
        self.narrow.visit(visit);
    }

    fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
        for norm in [&mut self.norm1, &mut self.norm2, &mut self.norm3] {
            norm.visit_vectors(visit);
        }
        self.attn1.visit_vectors(visit);
        self.attn2.visit_vectors(visit);
        self.widen.visit_vectors(visit);
        self.narrow.visit_vectors(visit);
    }
}

/// Several heads of attention, queries from one sequence, keys and values from another.
#[derive(Clone)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
    prompt: Remembered,
}

impl Attention {
    fn load(weights: &Weights, width: usize, context: usize, heads: usize) -> Result<Self> {
        if !width.is_multiple_of(heads) {
            return Err(Error::WrongShape {
                file: weights.file().to_owned(),
                name: weights.key("to_q.weight"),
                expected: format!("a width that {heads} heads divide"),
                found: vec![width, width],
            });
        }
        Ok(Self {
            to_q: Linear::load_without_bias(&weights.at("to_q"), width, width)?,
            to_k: Linear::load_without_bias(&weights.at("to_k"), context, width)?,
            to_v: Linear::load_without_bias(&weights.at("to_v"), context, width)?,
            to_out: Linear::load(&weights.at("to_out.0"), width, width)?,
            heads,
            prompt: Remembered::default(),
        })
    }

    /// What `x` `[batch, queries, width]` finds in `prompt` `[batch, keys, context]`, which stays the same for many calls,
    /// added to `residual`.
    fn forward_prompt(&self, x: &Tensor, prompt: &Tensor, residual: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let keys_and_values = match pass.looked_at(prompt)? {
            Some([keys, values]) => [self.to_k.forward(&keys)?, self.to_v.forward(&values)?],
            None => self.prompt.of(prompt, || self.keys_and_values(prompt))?,
        };
        self.find(x, &keys_and_values, residual)
    }

    fn keys_and_values(&self, context: &Tensor) -> Result<[Tensor; 2]> {
        Ok([self.to_k.forward(context)?, self.to_v.forward(context)?])
    }

    fn find(&self, x: &Tensor, [k, v]: &[Tensor; 2], residual: &Tensor) -> Result<Tensor> {
        let precision = self.to_q.weight().precision();
        let found = attention_in(precision, &self.to_q.forward(x)?, k, v, self.heads, Mask::None)?;
        self.to_out.forward_add(&found, residual)
    }

    /// What `x` `[batch, tokens, width]` finds in itself, or in the `prompt` if it looks there, as far as a pass lets it, added to
    /// `residual`.
    fn forward_self(&self, x: &Tensor, prompt: Option<&Tensor>, residual: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        if matches!(pass.middle, Middle::Passes) {
            return self.to_out.forward_add(&self.to_v.forward(x)?, residual);
        }
        let (mut tokens, mut ways_back) = (x.clone(), Vec::new());
        for patch in pass.patches {
            if let Some(regrouped) = patch.queries(&tokens, pass)? {
                tokens = regrouped.tokens;
                ways_back.push(regrouped.back);
            }
        }
        let q = self.to_q.forward(&tokens)?;
        let [mut k, mut v] = match (pass.looked_at(prompt.unwrap_or(x))?, prompt) {
            (Some([keys, values]), _) => [self.to_k.forward(&keys)?, self.to_v.forward(&values)?],
            (None, Some(prompt)) => self.prompt.of(prompt, || self.keys_and_values(prompt))?,
            (None, None) => self.keys_and_values(x)?,
        };
        if let Middle::Watched(seen) = pass.middle {
            *seen.borrow_mut() = Some(self.looked_at(&q, &k)?);
        }
        let (groups, batch) = (q.dim(0)?, x.dim(0)?);
        if groups != batch {
            let (_, keys, width) = k.dims3()?;
            let part = (groups, batch * keys / groups, width);
            (k, v) = (k.reshape(part)?, v.reshape(part)?);
        }
        let precision = self.to_q.weight().precision();
        let found = attention_in(precision, &q, &k, &v, self.heads, Mask::None)?;
        if ways_back.is_empty() {
            return self.to_out.forward_add(&found, residual);
        }
        let found = self.to_out.forward(&found)?;
        let found = ways_back.into_iter().try_fold(found, |found, back| back(&found))?;
        Ok((found + residual)?)
    }

    /// How much each token is looked at: the sum over queries and the mean over heads of the attention, `[batch, tokens]`.
    fn looked_at(&self, q: &Tensor, k: &Tensor) -> Result<Tensor> {
        let (batch, tokens, width) = q.dims3()?;
        let dim = width / self.heads;
        let apart = |x: &Tensor| -> Result<Tensor> {
            let heads = x.reshape((batch, tokens, self.heads, dim))?.transpose(1, 2)?;
            Ok(heads.contiguous()?.to_dtype(DType::F32)?)
        };
        let scores = (apart(q)?.matmul(&apart(k)?.t()?)? * (dim as f64).powf(-0.5))?;
        let exponents = scores.broadcast_sub(&scores.max_keepdim(3)?)?.exp()?;
        let shares = exponents.broadcast_div(&exponents.sum_keepdim(3)?)?;
        Ok(shares.mean(1)?.sum(1)?)
    }
}

impl Layers for Attention {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.prompt.forget();
        for linear in [&mut self.to_q, &mut self.to_k, &mut self.to_v, &mut self.to_out] {
            linear.visit(visit);
        }
    }

    fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
        self.prompt.forget();
        for linear in [&mut self.to_q, &mut self.to_k, &mut self.to_v, &mut self.to_out] {
            linear.visit_vectors(visit);
        }
    }
}
