//! What encoder and decoder are both made of.

use candle_core::Tensor;

use crate::error::Result;
use crate::nn::{Conv2d, GroupNorm, Layers, Linear, Mask, Weight, Weights, attention_in};

pub(super) const EPSILON: f64 = 1e-6;

/// Two convolutions with the input added at the end.
#[derive(Clone)]
pub(super) struct Residual {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    /// Only where the width changes.
    shortcut: Option<Linear>,
    /// Channels that it gives.
    pub(super) output: usize,
}

impl Residual {
    /// The block below this prefix, its output width read off its tensors; `None` when there is no block.
    pub(super) fn find(weights: &Weights, input: usize) -> Result<Option<Self>> {
        let Some(&[output, ..]) = weights.shape("conv1.weight") else { return Ok(None) };
        Self::load(weights, input, output).map(Some)
    }

    pub(super) fn load(weights: &Weights, input: usize, output: usize) -> Result<Self> {
        let shortcut = weights.at("nin_shortcut");
        Ok(Self {
            norm1: GroupNorm::load(&weights.at("norm1"), input, EPSILON)?,
            conv1: Conv2d::load(&weights.at("conv1"), input, output, 3)?,
            norm2: GroupNorm::load(&weights.at("norm2"), output, EPSILON)?,
            conv2: Conv2d::load(&weights.at("conv2"), output, output, 3)?,
            shortcut: if input == output { None } else { Some(Linear::load(&shortcut, input, output)?) },
            output,
        })
    }

    /// `[batch, height, width, input]` to `[batch, height, width, output]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.conv1.forward(&self.norm1.forward_silu(x)?)?;
        let h = self.norm2.forward_silu(&h)?;
        match &self.shortcut {
            Some(shortcut) => self.conv2.forward_add(&h, &shortcut.forward(x)?),
            None => self.conv2.forward_add(&h, x),
        }
    }
}

/// One level of a coder: residual blocks, then a change of size.
#[derive(Clone)]
pub(super) struct Level {
    pub(super) blocks: Vec<Residual>,
    pub(super) resize: Option<Conv2d>,
}

impl Level {
    /// The blocks below `block.0`, `block.1` … as many as there are, and the width they give.
    pub(super) fn blocks(weights: &Weights, mut width: usize) -> Result<(Vec<Residual>, usize)> {
        let mut blocks = Vec::new();
        while let Some(block) = Residual::find(&weights.at("block").at(blocks.len()), width)? {
            width = block.output;
            blocks.push(block);
        }
        Ok((blocks, width))
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.blocks.iter().try_fold(x.clone(), |x, block| block.forward(&x))
    }
}

/// The smallest picture's own level: a residual block, one head of attention over all pixels, a residual block.
#[derive(Clone)]
pub(super) struct Middle {
    block_1: Residual,
    norm: GroupNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    proj_out: Linear,
    block_2: Residual,
}

impl Middle {
    pub(super) fn load(weights: &Weights, width: usize) -> Result<Self> {
        let attn = weights.at("attn_1");
        let linear = |name: &str| Linear::load(&attn.at(name), width, width);
        Ok(Self {
            block_1: Residual::load(&weights.at("block_1"), width, width)?,
            norm: GroupNorm::load(&attn.at("norm"), width, EPSILON)?,
            q: linear("q")?,
            k: linear("k")?,
            v: linear("v")?,
            proj_out: linear("proj_out")?,
            block_2: Residual::load(&weights.at("block_2"), width, width)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.block_1.forward(x)?;
        let (batch, height, width, channels) = x.dims4()?;
        let pixels = x.reshape((batch, height * width, channels))?;
        let h = self.norm.forward(&pixels)?;
        let (q, k, v) = (self.q.forward(&h)?, self.k.forward(&h)?, self.v.forward(&h)?);
        let found = attention_in(self.q.weight().precision(), &q, &k, &v, 1, Mask::None)?;
        let pixels = self.proj_out.forward_add(&found, &pixels)?;
        self.block_2.forward(&pixels.reshape((batch, height, width, channels))?)
    }
}

impl Layers for Residual {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.conv1.visit(visit);
        self.conv2.visit(visit);
        self.shortcut.visit(visit);
    }
}

impl Layers for Level {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.blocks.visit(visit);
        self.resize.visit(visit);
    }
}

impl Layers for Middle {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.block_1.visit(visit);
        for linear in [&mut self.q, &mut self.k, &mut self.v, &mut self.proj_out] {
            linear.visit(visit);
        }
        self.block_2.visit(visit);
    }
}
