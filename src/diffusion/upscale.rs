//! Networks that enlarge pictures: ESRGAN and its kin.
//!
//! Wang et al. 2018, arXiv:1809.00219, in the key names of its authors' files, of BSRGAN's and of Real-ESRGAN's.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::nn::{Compute, Conv2d, Layers, Renamed, Weight, Weights, give_picture, upsample_nearest};

/// How much of a block's result is added to what came in.
const SHARE: f64 = 0.2;
/// What is left of a number below 0.
const LEAK: f64 = 0.2;
/// Dense blocks in each residual block, and convolutions in each of those.
const DENSE: usize = 3;
const CONVS: usize = 5;

/// A network that enlarges pictures. Cheap to clone: clones share the weights.
#[derive(Clone)]
pub struct Upscaler {
    conv_first: Conv2d,
    body: Vec<[[Conv2d; CONVS]; DENSE]>,
    conv_body: Conv2d,
    doublings: Vec<Conv2d>,
    conv_hr: Conv2d,
    conv_last: Conv2d,
    /// Side of the squares that become channels before the first convolution.
    unshuffle: usize,
    compute: Compute,
}

impl Upscaler {
    /// Finds every tensor of the network; widths, blocks and how often it doubles are read off names and shapes.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] for a network of another kind; [`Error::MissingTensor`], [`Error::WrongShape`] and
    /// [`Error::UnsupportedNumbers`], each with the tensor's key.
    pub fn load(weights: &Weights) -> Result<Self> {
        let weights = &to_later_names(weights)?;
        let shape = |name: &str| {
            let found = weights.shape(name).ok_or_else(|| weights.missing(&weights.key(name)))?;
            <[usize; 4]>::try_from(found).map_err(|_| Error::WrongShape {
                file: weights.file().to_owned(),
                name: weights.key(name),
                expected: "4 dimensions".to_owned(),
                found: found.to_vec(),
            })
        };
        let [features, input, ..] = shape("conv_first.weight")?;
        let output = shape("conv_last.weight")?[0];
        let grow = shape("body.0.rdb1.conv1.weight")?[0];
        let unshuffle = (1..=4).find(|side| output * side * side == input).ok_or_else(|| Error::WrongShape {
            file: weights.file().to_owned(),
            name: weights.key("conv_first.weight"),
            expected: format!("{output} channels that go in, or 4 or 16 times as many"),
            found: vec![features, input],
        })?;
        let conv = |place: Weights, input, output| Conv2d::load(&place, input, output, 3);
        let dense = |place: Weights| -> Result<[Conv2d; CONVS]> {
            let layer = |index: usize| {
                let output = if index + 1 < CONVS { grow } else { features };
                conv(place.at(format!("conv{}", index + 1)), features + index * grow, output)
            };
            Ok([layer(0)?, layer(1)?, layer(2)?, layer(3)?, layer(4)?])
        };
        let block = |index: usize| -> Result<[[Conv2d; CONVS]; DENSE]> {
            let place = weights.at("body").at(index);
            Ok([dense(place.at("rdb1"))?, dense(place.at("rdb2"))?, dense(place.at("rdb3"))?])
        };
        let count = |name: &dyn Fn(usize) -> String| (0..).take_while(|i| weights.contains(&name(*i))).count();
        let blocks = count(&|i| format!("body.{i}.rdb1.conv1.weight"));
        let doublings = count(&|i| format!("conv_up{}.weight", i + 1));
        let doubling = |index: usize| conv(weights.at(format!("conv_up{}", index + 1)), features, features);
        Ok(Self {
            conv_first: conv(weights.at("conv_first"), input, features)?,
            body: (0..blocks).map(block).collect::<Result<_>>()?,
            conv_body: conv(weights.at("conv_body"), features, features)?,
            doublings: (0..doublings).map(doubling).collect::<Result<_>>()?,
            conv_hr: conv(weights.at("conv_hr"), features, features)?,
            conv_last: conv(weights.at("conv_last"), features, output)?,
            unshuffle,
            compute: weights.compute().clone(),
        })
    }

    /// How many times larger pictures become. A network that gathers squares first may give 1.
    #[must_use]
    pub fn scale(&self) -> usize {
        (1 << self.doublings.len()) / self.unshuffle
    }

    /// How many numbers a pixel of the result takes while the network works: measured in full-size tensors, of which the last
    /// convolutions hold three.
    #[must_use]
    pub fn numbers_per_pixel(&self) -> usize {
        3 * self.conv_hr.bias().elem_count() + 6
    }

    /// A larger picture.
    ///
    /// # Shapes
    /// - `picture`: `[1, 3, height, width]`, f32, 0 to 1
    /// - output: `[1, 3, scale · height, scale · width]`, f32, 0 to 1
    ///
    /// # Errors
    /// [`Error::Shape`] when the picture has other colours, or is smaller than what the network gathers.
    pub fn forward(&self, picture: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = picture.dims4()?;
        let colours = self.conv_last.bias().elem_count();
        let side = self.unshuffle;
        if channels != colours || height.min(width) < side {
            return Err(Error::Shape {
                layer: "upscale model".to_owned(),
                expected: format!("[batch, {colours}, height, width], sides of at least {side}"),
                found: picture.dims().to_vec(),
            });
        }
        let x = self.compute.take_picture(&self.gathered(picture)?)?;
        let first = self.conv_first.forward(&x)?;
        let body = self.body.iter().try_fold(first.clone(), |x, block| residual(&x, block))?;
        let mut h = self.conv_body.forward_add(&body, &first)?;
        for conv in &self.doublings {
            let (_, height, width, _) = h.dims4()?;
            h = leaky(&conv.forward(&upsample_nearest(&h, 2 * height, 2 * width)?)?)?;
        }
        let h = leaky(&self.conv_hr.forward(&h)?)?;
        let y = give_picture(&self.conv_last.forward(&h)?)?.clamp(0_f32, 1_f32)?;
        let scale = self.scale();
        Ok(y.narrow(2, 0, height * scale)?.narrow(3, 0, width * scale)?.contiguous()?)
    }

    /// Squares of pixels side by side as channels; sides that are no multiple are mirrored on.
    fn gathered(&self, picture: &Tensor) -> Result<Tensor> {
        let side = self.unshuffle;
        if side == 1 {
            return Ok(picture.clone());
        }
        let mirrored = |x: &Tensor, dim: usize| -> Result<Tensor> {
            let size = x.dim(dim)?;
            let place = |i: usize| (if i < size { i } else { 2 * (size - 1) - i }) as u32;
            let places: Vec<u32> = (0..size.next_multiple_of(side)).map(place).collect();
            Ok(x.index_select(&Tensor::new(places, x.device())?, dim)?)
        };
        let whole = mirrored(&mirrored(picture, 2)?, 3)?;
        let (batch, channels, height, width) = whole.dims4()?;
        let split = whole.reshape(&[batch, channels, height / side, side, width / side, side][..])?;
        let split = split.permute(&[0, 1, 3, 5, 2, 4][..])?.contiguous()?;
        Ok(split.reshape((batch, channels * side * side, height / side, width / side))?)
    }
}

fn leaky(x: &Tensor) -> Result<Tensor> {
    Ok(x.maximum(&(x * LEAK)?)?)
}

fn residual(x: &Tensor, block: &[[Conv2d; CONVS]; DENSE]) -> Result<Tensor> {
    let h = block.iter().try_fold(x.clone(), |x, convs| dense(&x, convs))?;
    Ok(((h * SHARE)? + x)?)
}

/// Each convolution sees what came in and what all before it made.
fn dense(x: &Tensor, convs: &[Conv2d; CONVS]) -> Result<Tensor> {
    let mut seen = x.clone();
    for conv in &convs[..CONVS - 1] {
        let made = leaky(&conv.forward(&seen)?)?;
        seen = Tensor::cat(&[&seen, &made], 3)?;
    }
    Ok(((convs[CONVS - 1].forward(&seen)? * SHARE)? + x)?)
}

/// The names of Real-ESRGAN's files for any of the three layouts, inside `params_ema` or `params` or not.
fn to_later_names(weights: &Weights) -> Result<Weights> {
    let nested = ["params_ema.", "params."].map(|prefix| weights.part(prefix));
    let inside = nested.into_iter().find(|part| part.names().next().is_some());
    let weights = inside.unwrap_or_else(|| weights.clone());
    let has = |name: &str| weights.contains(name);
    if has("conv_first.weight") && (has("body.0.rdb1.conv1.weight") || has("RRDB_trunk.0.RDB1.conv1.weight")) {
        return Ok(weights.renamed(|name| vec![Renamed::whole(of_bsrgan(name))]));
    }
    if has("model.0.weight") && has("model.1.sub.0.RDB1.conv1.0.weight") {
        let blocks = (0..).take_while(|i| weights.contains(&format!("model.1.sub.{i}.RDB1.conv1.0.weight"))).count();
        let doublings = (1..).take_while(|i| weights.contains(&format!("model.{}.weight", 3 * i))).count();
        return Ok(weights.renamed(|name| of_first(name, blocks, doublings).map(Renamed::whole).into_iter().collect()));
    }
    Err(Error::UnknownModel {
        file: weights.file().to_owned(),
        found: format!("an upscale model with tensors such as `{}`", weights.names().next().unwrap_or("none")),
        known: "ESRGAN, BSRGAN and Real-ESRGAN".to_owned(),
    })
}

fn of_bsrgan(name: &str) -> String {
    let name = name.replace("RRDB_trunk.", "body.").replace("trunk_conv.", "conv_body.").replace(".RDB", ".rdb");
    let name = if let Some(rest) = name.strip_prefix("upconv") { format!("conv_up{rest}") } else { name };
    if let Some(kind) = name.strip_prefix("HRconv.") { format!("conv_hr.{kind}") } else { name }
}

fn of_first(name: &str, blocks: usize, doublings: usize) -> Option<String> {
    let (layer, kind) = name.strip_prefix("model.")?.rsplit_once('.')?;
    let place = match layer.split_once(".sub.") {
        None => {
            let index: usize = layer.parse().ok()?;
            let last = 3 * doublings;
            match index {
                0 => "conv_first".to_owned(),
                _ if index == last + 2 => "conv_hr".to_owned(),
                _ if index == last + 4 => "conv_last".to_owned(),
                _ if index.is_multiple_of(3) && index <= last => format!("conv_up{}", index / 3),
                _ => return None,
            }
        }
        Some((_, inner)) if inner.parse::<usize>().is_ok_and(|index| index == blocks) => "conv_body".to_owned(),
        Some((_, inner)) => format!("body.{}", inner.strip_suffix(".0")?.replace("RDB", "rdb")),
    };
    Some(format!("{place}.{kind}"))
}

impl Layers for Upscaler {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.conv_first.visit(visit);
        self.body.iter_mut().flatten().flatten().for_each(|conv| conv.visit(visit));
        self.conv_body.visit(visit);
        self.doublings.visit(visit);
        self.conv_hr.visit(visit);
        self.conv_last.visit(visit);
    }
}
