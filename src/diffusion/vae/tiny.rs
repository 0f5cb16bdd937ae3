//! The tiny autoencoder: convolutions alone, a hundredth of the work, nearly the same pictures.
//!
//! Bohan, <https://github.com/madebyollin/taesd>, in the key names of its author's files.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::nn::{Conv2d, Geometry, Layers, Weight, Weights, upsample_nearest};

/// One step of a coder.
#[derive(Clone)]
enum Step {
    /// A convolution.
    Conv(Box<Conv2d>),
    /// Three convolutions with the input added at the end.
    Block(Box<[Conv2d; 3]>),
    /// Twice the size.
    Double,
    /// Nothing below 0.
    Positive,
    /// Nothing far from 0.
    Clamp,
}

/// A way between pictures and latents.
#[derive(Clone)]
pub(super) struct Tiny(Vec<Step>);

/// Channels within.
const WIDTH: usize = 64;
/// Three tanh of a third: the range of latents.
const RANGE: f64 = 3.0;

impl Tiny {
    /// From pictures to latents of so many channels.
    pub(super) fn encoder(weights: &Weights, channels: usize) -> Result<Self> {
        let mut loader = Loader { weights, steps: Vec::new() };
        loader.conv(3, WIDTH)?;
        loader.blocks(1)?;
        for _ in 0..3 {
            loader.halve()?;
            loader.blocks(3)?;
        }
        loader.conv(WIDTH, channels)?;
        Ok(Self(loader.steps))
    }

    /// From latents of so many channels to pictures.
    pub(super) fn decoder(weights: &Weights, channels: usize) -> Result<Self> {
        let mut loader = Loader { weights, steps: vec![Step::Clamp] };
        loader.conv(channels, WIDTH)?;
        loader.steps.push(Step::Positive);
        for _ in 0..3 {
            loader.blocks(3)?;
            loader.double()?;
        }
        loader.blocks(1)?;
        loader.conv(WIDTH, 3)?;
        Ok(Self(loader.steps))
    }

    /// Pictures `[batch, height, width, channels]`, 0 to 1, to or from latents at the model's scale.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(x.clone(), |x, step| step.forward(&x))
    }
}

impl Step {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Block(convs) => {
                let h = convs[0].forward(x)?.relu()?;
                let h = convs[1].forward(&h)?.relu()?;
                Ok(convs[2].forward_add(&h, x)?.relu()?)
            }
            Self::Double => {
                let (_, height, width, _) = x.dims4()?;
                upsample_nearest(x, 2 * height, 2 * width)
            }
            Self::Positive => Ok(x.relu()?),
            Self::Clamp => Ok(((x / RANGE)?.tanh()? * RANGE)?),
        }
    }
}

/// Builds the steps in the file's order; each has the number of its place, those without parameters, too.
struct Loader<'a> {
    weights: &'a Weights,
    steps: Vec<Step>,
}

impl Loader<'_> {
    fn next(&self) -> Weights {
        self.weights.at(self.steps.len())
    }

    fn conv(&mut self, input: usize, output: usize) -> Result<()> {
        let conv = Conv2d::load(&self.next(), input, output, 3)?;
        self.steps.push(Step::Conv(Box::new(conv)));
        Ok(())
    }

    fn blocks(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let place = self.next().at("conv");
            let conv = |index: usize| Conv2d::load(&place.at(index), WIDTH, WIDTH, 3);
            self.steps.push(Step::Block(Box::new([conv(0)?, conv(2)?, conv(4)?])));
        }
        Ok(())
    }

    fn halve(&mut self) -> Result<()> {
        let geometry = Geometry::Conv2d { stride: 2, before: 1, after: 1 };
        let conv = Conv2d::load_without_bias(&self.next(), WIDTH, WIDTH, 3, geometry)?;
        self.steps.push(Step::Conv(Box::new(conv)));
        Ok(())
    }

    fn double(&mut self) -> Result<()> {
        self.steps.push(Step::Double);
        let geometry = Geometry::Conv2d { stride: 1, before: 1, after: 1 };
        let conv = Conv2d::load_without_bias(&self.next(), WIDTH, WIDTH, 3, geometry)?;
        self.steps.push(Step::Conv(Box::new(conv)));
        Ok(())
    }
}

/// Channels of the latents that a decoder's file is for.
pub(super) fn latent_channels(decoder: &Weights) -> Result<usize> {
    match decoder.shape("1.weight") {
        Some(&[_, channels, _, _]) => Ok(channels),
        Some(found) => Err(Error::WrongShape {
            file: decoder.file().to_owned(),
            name: decoder.key("1.weight"),
            expected: "4 dimensions".to_owned(),
            found: found.to_vec(),
        }),
        None => Err(decoder.missing(&decoder.key("1.weight"))),
    }
}

impl Layers for Tiny {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        for step in &mut self.0 {
            match step {
                Step::Conv(conv) => conv.visit(visit),
                Step::Block(convs) => convs.iter_mut().for_each(|conv| conv.visit(visit)),
                Step::Double | Step::Positive | Step::Clamp => {}
            }
        }
    }
}
