//! A UNet's architecture, read off the names and shapes of its tensors: no configuration file is needed, and a narrow
//! model is the same code as a wide one.

use crate::error::{Error, Result};
use crate::nn::Weights;

/// What the tensors of a latent-diffusion UNet say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Width of the first level; the timestep is embedded in as many numbers.
    pub channels: usize,
    /// Channels that go in: 4 for a latent, more for inpainting models.
    pub input: usize,
    /// Channels that come out.
    pub output: usize,
    /// Width of the prompt's vectors, if it looks at any.
    pub context: Option<usize>,
    /// Width of the extra conditioning vector (`label_emb`), if it takes one.
    pub label: Option<usize>,
    /// How many classes it tells apart, if it is told one of them (`label_emb` as a table).
    pub classes: Option<usize>,
    /// Whether it also looks along time: a network for videos.
    pub temporal: bool,
    /// Whether attention is entered and left by Linear layers (SD 2, SDXL) instead of 1x1 convolutions (SD 1).
    pub linear_projection: bool,
    /// The way down, after the first convolution.
    pub down: Vec<Down>,
    /// How many transformer blocks the middle has.
    pub middle: usize,
    /// The way up.
    pub up: Vec<Up>,
}

/// One `input_blocks` entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// A residual block to that many channels, then so many transformer blocks.
    Residual {
        /// Channels that it gives.
        width: usize,
        /// Transformer blocks after it.
        depth: usize,
    },
    /// Half the size.
    Halve,
}

/// One `output_blocks` entry: a residual block to that many channels, transformer blocks, perhaps twice the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Up {
    /// Channels that it gives.
    pub width: usize,
    /// Transformer blocks after the residual block.
    pub depth: usize,
    /// Whether the picture is enlarged at the end.
    pub double: bool,
}

impl Config {
    /// Reads the architecture off the tensors below a UNet's prefix.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] for a name that every such UNet has, [`Error::WrongShape`] for one of another rank.
    pub fn read(weights: &Weights) -> Result<Self> {
        let up: Vec<Up> = (0..).map_while(|index| Up::read(weights, index).transpose()).collect::<Result<_>>()?;
        let output = dims::<4>(weights, "out.2.weight")?[0];
        Ok(Self { output, up, ..Self::read_way_down(weights)? })
    }

    /// The same for a network that has the way down and the middle alone, as control networks do.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn read_way_down(weights: &Weights) -> Result<Self> {
        let first = dims::<4>(weights, "input_blocks.0.0.weight")?;
        let down: Vec<Down> = (1..).map_while(|index| Down::read(weights, index).transpose()).collect::<Result<_>>()?;
        let attention = weights.names().find_map(|name| name.strip_suffix("transformer_blocks.0.attn2.to_k.weight"));
        let (context, linear_projection) = match attention {
            Some(prefix) => {
                let key = dims::<2>(weights, &format!("{prefix}transformer_blocks.0.attn2.to_k.weight"))?;
                let projection = shape(weights, &format!("{prefix}proj_in.weight"))?;
                (Some(key[1]), projection.len() == 2)
            }
            None => (None, false),
        };
        let label = |name: &str, dim: usize| {
            let found = weights.contains(name).then(|| dims::<2>(weights, name));
            Ok::<_, Error>(found.transpose()?.map(|dims| dims[dim]))
        };
        Ok(Self {
            channels: first[0],
            input: first[1],
            output: 0,
            context,
            label: label("label_emb.0.0.weight", 1)?,
            classes: label("label_emb.weight", 0)?,
            temporal: weights.names().any(|name| name.contains(".time_stack.")),
            linear_projection,
            down,
            middle: depth(weights, "middle_block.1"),
            up: Vec::new(),
        })
    }

    /// Heads of an attention over that many channels: 8 whatever the width in SD 1 and in networks that are told a class, 64
    /// channels each in other later models.
    #[must_use]
    pub fn heads(&self, width: usize) -> usize {
        if self.linear_projection && self.classes.is_none() { (width / 64).max(1) } else { 8 }
    }

    /// How many numbers it is told beside the prompt: those of the extra vector, or that of a class.
    #[must_use]
    pub fn told(&self) -> Option<usize> {
        self.label.or(self.classes.map(|_| 1))
    }

    /// Transformer blocks after each residual block on the way down, which tells model families apart.
    #[must_use]
    pub fn depths(&self) -> Vec<usize> {
        let depth = |block: &Down| match block {
            Down::Residual { depth, .. } => Some(*depth),
            Down::Halve => None,
        };
        self.down.iter().filter_map(depth).collect()
    }

    /// How often the picture is halved on the way down.
    #[must_use]
    pub fn halvings(&self) -> usize {
        self.down.iter().filter(|block| **block == Down::Halve).count()
    }
}

impl Down {
    fn read(weights: &Weights, index: usize) -> Result<Option<Self>> {
        let block = format!("input_blocks.{index}");
        if weights.contains(&format!("{block}.0.op.weight")) {
            return Ok(Some(Self::Halve));
        }
        let Some(width) = residual_width(weights, &block)? else { return Ok(None) };
        Ok(Some(Self::Residual { width, depth: depth(weights, &format!("{block}.1")) }))
    }
}

impl Up {
    fn read(weights: &Weights, index: usize) -> Result<Option<Self>> {
        let block = format!("output_blocks.{index}");
        let Some(width) = residual_width(weights, &block)? else { return Ok(None) };
        let depth = depth(weights, &format!("{block}.1"));
        let double = weights.contains(&format!("{block}.{}.conv.weight", Self::conv(depth)));
        Ok(Some(Self { width, depth, double }))
    }

    /// Where in its block the enlarging convolution is numbered: after the transformer, if there is one.
    pub(super) fn conv(depth: usize) -> usize {
        if depth > 0 { 2 } else { 1 }
    }
}

/// Channels that a block's residual block gives; `None` when there is no such block.
fn residual_width(weights: &Weights, block: &str) -> Result<Option<usize>> {
    if !weights.contains(&format!("{block}.0.in_layers.0.weight")) {
        return Ok(None);
    }
    Ok(Some(dims::<4>(weights, &format!("{block}.0.out_layers.3.weight"))?[0]))
}

/// How many transformer blocks there are at a place.
fn depth(weights: &Weights, place: &str) -> usize {
    let norm = |index: &usize| weights.contains(&format!("{place}.transformer_blocks.{index}.norm1.weight"));
    (0..).take_while(norm).count()
}

fn shape<'a>(weights: &'a Weights, name: &str) -> Result<&'a [usize]> {
    weights.shape(name).ok_or_else(|| weights.missing(&weights.key(name)))
}

/// The dimensions of a tensor of known rank.
fn dims<const RANK: usize>(weights: &Weights, name: &str) -> Result<[usize; RANK]> {
    let found = shape(weights, name)?;
    <[usize; RANK]>::try_from(found).map_err(|_| Error::WrongShape {
        file: weights.file().to_owned(),
        name: weights.key(name),
        expected: format!("{RANK} dimensions"),
        found: found.to_vec(),
    })
}
