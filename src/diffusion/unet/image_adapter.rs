//! T2I-adapters: a small network that sees a picture once and tells a UNet's way down what to add.
//!
//! Mou et al. 2023, arXiv:2302.08453, in the key names of its authors' files. They see neither latent nor prompt.

use candle_core::Tensor;

use super::{Controls, expect};
use crate::error::{Error, Result};
use crate::nn::{Conv2d, Geometry, Renamed, Weights};

/// Levels of every adapter.
const LEVELS: usize = 4;
/// Residual blocks of a level of the large adapters.
const BLOCKS: usize = 2;
/// Blocks on the way down of a UNet whose answers go without, before each level's.
const SKIPPED: usize = 2;

/// A T2I-adapter. Cheap to clone: clones share the weights.
#[derive(Clone)]
pub struct ImageAdapter {
    /// Pixels of a side that become channels of one cell.
    unshuffle: usize,
    /// Colours of the picture: 1 or 3.
    colours: usize,
    conv_in: Option<Conv2d>,
    levels: Vec<Level>,
    /// Whether it is one of SDXL's.
    wide: bool,
}

#[derive(Clone)]
struct Level {
    /// Whether the picture is halved before it, by means of four pixels or by a convolution.
    halves: Option<Halving>,
    conv_in: Option<Conv2d>,
    blocks: Vec<Block>,
    conv_out: Option<Conv2d>,
}

#[derive(Clone)]
enum Halving {
    Mean,
    Conv(Conv2d),
}

/// Two convolutions beside the way through.
#[derive(Clone)]
struct Block {
    first: Conv2d,
    second: Conv2d,
}

impl ImageAdapter {
    /// Finds every tensor of an adapter in the names of its authors ([`image_adapter_names`]).
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongShape`] and [`Error::UnsupportedNumbers`], each with the tensor's key.
    pub fn load(weights: &Weights) -> Result<Self> {
        if weights.contains("body.0.in_conv.weight") && !weights.contains("conv_in.weight") {
            return Self::load_light(weights);
        }
        let [_, input, kernel, _] = shape(weights, "conv_in.weight")?;
        // What the picture's cells hold tells how large they are: of grey or of three colours.
        let wide = matches!(input, 256 | 768);
        let unshuffle = if wide { 16 } else { 8 };
        let halving = |level: usize| if wide { level == 2 } else { level > 0 };
        let levels = (0..LEVELS).map(|level| {
            let first = weights.at("body").at(level * BLOCKS);
            let width = shape(&first, "block1.weight")?[0];
            let halves = match (halving(level), first.contains("down_opt.op.weight")) {
                (false, _) => None,
                (true, false) => Some(Halving::Mean),
                (true, true) => {
                    let geometry = Geometry::Conv2d { stride: 2, before: 1, after: 1 };
                    let [out, input, kernel, _] = shape(&first, "down_opt.op.weight")?;
                    let conv = Conv2d::load_with(&first.at("down_opt").at("op"), input, out, kernel, geometry)?;
                    Some(Halving::Conv(conv))
                }
            };
            let conv_in = if first.contains("in_conv.weight") { Some(conv(&first.at("in_conv"))?) } else { None };
            let blocks = (0..BLOCKS).map(|block| Block::load(&weights.at("body").at(level * BLOCKS + block), width));
            Ok(Level { halves, conv_in, blocks: blocks.collect::<Result<_>>()?, conv_out: None })
        });
        let levels = levels.collect::<Result<_>>()?;
        let (conv_in, colours) = (Some(conv(&weights.at("conv_in"))?), colours(weights, "conv_in", input, unshuffle)?);
        debug_assert!(kernel > 0);
        Ok(Self { unshuffle, colours, conv_in, levels, wide })
    }

    fn load_light(weights: &Weights) -> Result<Self> {
        let levels = (0..LEVELS).map(|level| {
            let place = weights.at("body").at(level);
            let width = shape(&place, "in_conv.weight")?[0];
            let blocks =
                (0..).map(|block| place.at("body").at(block)).take_while(|block| block.contains("block1.weight"));
            Ok(Level {
                halves: (level > 0).then_some(Halving::Mean),
                conv_in: Some(conv(&place.at("in_conv"))?),
                blocks: blocks.map(|block| Block::load(&block, width)).collect::<Result<_>>()?,
                conv_out: Some(conv(&place.at("out_conv"))?),
            })
        });
        let levels = levels.collect::<Result<_>>()?;
        let input = shape(weights, "body.0.in_conv.weight")?[1];
        Ok(Self {
            unshuffle: 8,
            colours: colours(weights, "body.0.in_conv", input, 8)?,
            conv_in: None,
            levels,
            wide: false,
        })
    }

    /// Both sides of the picture are multiples of this.
    #[must_use]
    pub fn multiple(&self) -> usize {
        self.unshuffle
    }

    /// What a UNet adds on its way down, the first block's last as [`Controls`] has it, and for an adapter of SDXL to its
    /// middle.
    ///
    /// # Shapes
    /// `hint` is `[batch, 3, height, width]`, f32, 0 to 1, of sides that are multiples of [`multiple`](Self::multiple).
    ///
    /// # Errors
    /// [`Error::Shape`] for another.
    pub fn forward(&self, hint: &Tensor) -> Result<Controls> {
        let (_, _, height, width) = hint.dims4()?;
        let fits = height.is_multiple_of(self.unshuffle) && width.is_multiple_of(self.unshuffle) && hint.dim(1)? == 3;
        expect(hint, fits && hint.elem_count() > 0, "T2I-adapter (picture)", || {
            format!("[batch, 3, height, width], both multiples of {}", self.unshuffle)
        })?;
        let hint = if self.colours == 1 { hint.mean_keepdim(1)? } else { hint.clone() };
        let mut h = unshuffled(&hint, self.unshuffle)?;
        if let Some(conv) = &self.conv_in {
            h = conv.forward(&h)?;
        }
        let mut down: Vec<Option<Tensor>> = Vec::new();
        for (index, level) in self.levels.iter().enumerate() {
            h = level.forward(&h)?;
            let before = match (self.wide, index) {
                (false, _) => SKIPPED,
                (true, 0) => 3,
                (true, 2) => 2,
                (true, _) => 1,
            };
            down.extend(std::iter::repeat_n(None, before));
            down.push(Some(h.clone()));
        }
        let middle = if self.wide { down.pop().flatten() } else { None };
        down.reverse();
        Ok(Controls { skips: Vec::new(), middle, down })
    }
}

impl Level {
    fn forward(&self, h: &Tensor) -> Result<Tensor> {
        let mut h = match &self.halves {
            None => h.clone(),
            Some(Halving::Mean) => halved(h)?,
            Some(Halving::Conv(conv)) => conv.forward(h)?,
        };
        if let Some(conv) = &self.conv_in {
            h = conv.forward(&h)?;
        }
        for block in &self.blocks {
            h = block.second.forward_add(&block.first.forward(&h)?.relu()?, &h)?;
        }
        self.conv_out.as_ref().map_or(Ok(h.clone()), |conv| conv.forward(&h))
    }
}

impl Block {
    fn load(weights: &Weights, width: usize) -> Result<Self> {
        let load = |name: &str| {
            let [_, _, kernel, _] = shape(weights, &format!("{name}.weight"))?;
            Conv2d::load(&weights.at(name), width, width, kernel)
        };
        Ok(Self { first: load("block1")?, second: load("block2")? })
    }
}

/// A convolution of whatever widths the file has.
fn conv(weights: &Weights) -> Result<Conv2d> {
    let [output, input, kernel, _] = shape(weights, "weight")?;
    Conv2d::load(weights, input, output, kernel)
}

fn shape(weights: &Weights, name: &str) -> Result<[usize; 4]> {
    let found = weights.shape(name).ok_or_else(|| weights.missing(&weights.key(name)))?;
    found.try_into().map_err(|_| Error::WrongShape {
        file: weights.file().to_owned(),
        name: weights.key(name),
        expected: "4 dimensions".to_owned(),
        found: found.to_vec(),
    })
}

/// How many colours cells of so many channels hold.
fn colours(weights: &Weights, layer: &str, input: usize, unshuffle: usize) -> Result<usize> {
    match input / (unshuffle * unshuffle) {
        colours @ (1 | 3) if colours * unshuffle * unshuffle == input => Ok(colours),
        _ => Err(Error::WrongShape {
            file: weights.file().to_owned(),
            name: weights.key(&format!("{layer}.weight")),
            expected: "64, 192, 256 or 768 channels: cells of grey pixels or of three colours".to_owned(),
            found: weights.shape(&format!("{layer}.weight")).unwrap_or_default().to_vec(),
        }),
    }
}

/// Squares of pixels as channels, colour by colour: `[batch, colours, height, width]` to `[batch, height / side, width / side,
/// colours · side²]`.
fn unshuffled(hint: &Tensor, side: usize) -> Result<Tensor> {
    let (batch, colours, height, width) = hint.dims4()?;
    let (rows, columns) = (height / side, width / side);
    let cells = hint.contiguous()?.reshape(&[batch, colours, rows, side, columns, side][..])?;
    let cells = cells.permute(vec![0, 2, 4, 1, 3, 5])?.contiguous()?;
    Ok(cells.reshape((batch, rows, columns, colours * side * side))?)
}

/// Means of four pixels. An odd side gets a zero before and one after it, which count.
fn halved(h: &Tensor) -> Result<Tensor> {
    let (_, height, width, _) = h.dims4()?;
    let (below, beside) = (height % 2, width % 2);
    let planes = h.permute((0, 3, 1, 2))?.pad_with_zeros(2, below, below)?.pad_with_zeros(3, beside, beside)?;
    Ok(planes.contiguous()?.avg_pool2d(2)?.permute((0, 2, 3, 1))?.contiguous()?)
}

/// An adapter in the names of its authors, if it has those of diffusers or lies below `adapter.`; `None` for a file that holds
/// none.
#[must_use]
pub fn image_adapter_names(weights: &Weights) -> Option<Weights> {
    let inside = weights.part("adapter.");
    let weights = if inside.names().next().is_some() {
        inside.renamed(|name| vec![Renamed::whole(name)])
    } else {
        weights.clone()
    };
    let weights = if weights.contains("body.0.resnets.0.block1.weight") {
        weights.renamed(|name| vec![Renamed::whole(own_name(name))])
    } else {
        weights
    };
    let has = |name: &str| weights.contains(name);
    (has("body.0.in_conv.weight") || (has("conv_in.weight") && has("body.0.block1.weight"))).then_some(weights)
}

/// `body.1.resnets.0.block1` of diffusers is the third block.
fn own_name(name: &str) -> String {
    let parts = || {
        let (level, rest) = name.strip_prefix("body.")?.split_once('.')?;
        let level: usize = level.parse().ok()?;
        match rest.strip_prefix("resnets.").and_then(|rest| rest.split_once('.')) {
            Some((block, rest)) => Some(format!("body.{}.{rest}", level * BLOCKS + block.parse::<usize>().ok()?)),
            None => Some(format!("body.{}.{rest}", level * BLOCKS)),
        }
    };
    parts().unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn an_odd_side_is_padded_on_both_ends() {
        let h = Tensor::new(&[1.0_f32, 2.0, 3.0], &Device::Cpu).unwrap().reshape((1, 1, 3, 1)).unwrap();
        let h = h.broadcast_as((1, 2, 3, 1)).unwrap();
        assert_eq!(halved(&h).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.5, 2.5]);
    }

    #[test]
    fn names_of_diffusers_become_its_authors() {
        assert_eq!(own_name("body.1.resnets.1.block2.bias"), "body.3.block2.bias");
        assert_eq!(own_name("body.2.in_conv.weight"), "body.4.in_conv.weight");
        assert_eq!(own_name("conv_in.weight"), "conv_in.weight");
        let hint = Tensor::arange(0.0_f32, 48.0, &Device::Cpu).unwrap().reshape((1, 3, 4, 4)).unwrap();
        let cells = unshuffled(&hint, 2).unwrap();
        assert_eq!((cells.dims(), cells.dtype()), (&[1, 2, 2, 12][..], DType::F32));
        let first = cells.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(first[..8], [0.0, 1.0, 4.0, 5.0, 16.0, 17.0, 20.0, 21.0]);
    }
}
