//! Pieces of work whose time is worth knowing: a step, a decoding, a training step, as the program does them. Numbers that
//! go in are arbitrary; nobody looks at what comes out.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::str::FromStr;

use candle_core::{Device, Tensor};

use crate::adapters::{Boundary, Excess, Names, OnPara, Para, Part, Stage};
use crate::checkpoint::{Checkpoint, text_encoder, unet_to_latent_diffusion, vae_to_latent_diffusion};
use crate::error::Result;
use crate::nn::{Compute, Conv2d, Geometry, Layers as _, Mask, Precision, Weight, Weights, attention_in, layers};
use crate::schedule::{ModelSampling, Prediction};
use crate::text::{ClipText, Encoders};
use crate::train::{Decay, Example, Init, Method, ParaMode, Report, Settings, TrainRequest, Watch, train};
use crate::unet::UNet;
use crate::vae::Vae;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// A call of a UNet with so many latents of so many latent pixels a side, each time for the same prompt.
    Step {
        /// Latent pixels a side.
        side: usize,
        /// Latents.
        batch: usize,
    },
    /// The picture of a latent of that side.
    Decode {
        /// Latent pixels a side.
        side: usize,
    },
    /// The same tile by tile, tiles of 64 latent pixels with 8 in common.
    Tiled {
        /// Latent pixels a side.
        side: usize,
    },
    /// A prompt's encoding.
    Text,
    /// A whole checkpoint's picture: a prompt, guided steps, the decoding.
    Picture {
        /// Latent pixels a side.
        side: usize,
        /// Steps, each with both halves of guidance.
        steps: usize,
    },
    /// A training step of PaRa on every layer but cross-attention's, rank 4.
    Para(Training),
    /// The same of a LoRA.
    Lora(Training),
    /// The same of spectral shifts.
    SvDiff(Training),
    /// Putting a PaRa of that rank on every layer of a UNet.
    Apply {
        /// Directions a layer.
        rank: usize,
    },
    /// A step as above, with a PaRa on every layer.
    Adapted {
        /// Latent pixels a side.
        side: usize,
        /// Latents.
        batch: usize,
        /// Directions a layer.
        rank: usize,
        /// Whether it is worked into the weights, and not beside them.
        baked: bool,
    },
    /// The convolution of Stable Diffusion 1.5's second level: 3x3, 640 to 640 channels, 32x32 pixels, two pictures. Needs no
    /// model.
    Convolution,
    /// Self-attention of its first level at 512 pixels: 4096 tokens, 8 heads of 40 channels. Needs no model.
    Attention,
}

/// A training's measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Training {
    /// Latent pixels a side.
    pub side: usize,
    /// Latents a step.
    pub batch: usize,
    /// Whether each block's forward pass is done twice, to save memory.
    pub checkpointing: bool,
}

impl FromStr for Workload {
    type Err = String;

    /// `step 32 2`, `decode 64`, `tiled 128`, `text`, `picture 64 2`, `para 32 1`, `lora 32 1 checkpointing`, `svdiff 32 1`, `apply 8`,
    /// `adapted 32 2 8 beside`, `adapted 32 2 8 baked`, `convolution`, `attention`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |word: &str| word.parse::<usize>().ok().filter(|number| *number > 0);
        let training = |side: &str, batch: &str, checkpointing| {
            Some(Training { side: number(side)?, batch: number(batch)?, checkpointing })
        };
        let found = match words.as_slice() {
            ["step", side, batch] => number(side).zip(number(batch)).map(|(side, batch)| Self::Step { side, batch }),
            ["decode", side] => number(side).map(|side| Self::Decode { side }),
            ["tiled", side] => number(side).map(|side| Self::Tiled { side }),
            ["text"] => Some(Self::Text),
            ["picture", side, steps] => {
                number(side).zip(number(steps)).map(|(side, steps)| Self::Picture { side, steps })
            }
            ["para", side, batch] => training(side, batch, false).map(Self::Para),
            ["para", side, batch, "checkpointing"] => training(side, batch, true).map(Self::Para),
            ["lora", side, batch] => training(side, batch, false).map(Self::Lora),
            ["lora", side, batch, "checkpointing"] => training(side, batch, true).map(Self::Lora),
            ["svdiff", side, batch] => training(side, batch, false).map(Self::SvDiff),
            ["svdiff", side, batch, "checkpointing"] => training(side, batch, true).map(Self::SvDiff),
            ["apply", rank] => number(rank).map(|rank| Self::Apply { rank }),
            ["adapted", side, batch, rank, how @ ("beside" | "baked")] => {
                let numbers = number(side).zip(number(batch)).zip(number(rank));
                numbers.map(|((side, batch), rank)| Self::Adapted { side, batch, rank, baked: *how == "baked" })
            }
            ["convolution"] => Some(Self::Convolution),
            ["attention"] => Some(Self::Attention),
            _ => None,
        };
        found.ok_or_else(|| {
            format!("expects `step SIDE BATCH`, `decode SIDE`, `tiled SIDE`, `text`, `picture SIDE STEPS`, `para`, `lora` or `svdiff SIDE BATCH [checkpointing]`, `apply RANK`, `adapted SIDE BATCH RANK beside|baked`, `convolution` or `attention`, found `{text}`")
        })
    }
}

impl Workload {
    /// Floating-point operations of the pieces that need no model.
    #[must_use]
    pub fn operations(&self) -> Option<f64> {
        match self {
            Self::Convolution => Some(2.0 * 2.0 * 32.0 * 32.0 * 640.0 * 640.0 * 9.0),
            Self::Attention => Some(4.0 * 4096.0 * 4096.0 * 320.0),
            _ => None,
        }
    }

    /// Makes ready: finds the model's tensors in a file of any layout. What comes back does the work as often as it is told.
    ///
    /// # Errors
    /// What the file lacks; what the work then says, when it is done.
    pub fn prepare(self, file: Option<&Weights>, compute: &Compute) -> Result<Prepared> {
        let empty = Weights::from_bytes("no model", no_tensors())?;
        let file = &file.unwrap_or(&empty).on(compute);
        match self {
            Self::Step { side, batch } => step(&unet(file)?, side, batch),
            Self::Decode { side } => decode(file, side),
            Self::Tiled { side } => tiled(file, side),
            Self::Text => text(file),
            Self::Picture { side, steps } => picture(file, side, steps),
            Self::Para(training) => {
                let mode = ParaMode::Projection;
                let method = Method::Para { mode, rank: 4, gamma: 0.125, init: Init::Random, angular_rate: 0.05 };
                Ok(train_with(unet(file)?, method, training))
            }
            Self::Lora(training) => {
                let method = Method::Lora { rank: 4, alpha: 4.0, rate: 1e-3 };
                Ok(train_with(unet(file)?, method, training))
            }
            Self::SvDiff(training) => Ok(train_with(unet(file)?, Method::SvDiff { rate: 1e-2 }, training)),
            Self::Apply { rank } => {
                let unet = unet(file)?;
                let (names, para) = (Names::of(&unet, None), para(&unet, rank)?);
                Ok(Box::new(move |times| (0..times).try_for_each(|_| put(&unet, &names, &para).map(drop))))
            }
            Self::Adapted { side, batch, rank, baked } => {
                let base = unet(file)?;
                let mut adapted = put(&base, &Names::of(&base, None), &para(&base, rank)?)?;
                if baked {
                    let mut outcome = Ok(());
                    adapted.visit(&mut |weight| match weight.baked() {
                        Ok(done) => *weight = done,
                        Err(error) => outcome = Err(error),
                    });
                    outcome?;
                }
                step(&adapted, side, batch)
            }
            Self::Convolution => convolution(compute.precision()),
            Self::Attention => {
                let (x, precision) = (tensor(&[1, 4096, 320])?, compute.precision());
                Ok(each(move || attention_in(precision, &x, &x, &x, 8, Mask::None)))
            }
        }
    }
}

/// A PaRa of arbitrary directions for every layer, of less than all its outputs.
fn para(unet: &UNet, rank: usize) -> Result<Para> {
    let mut stages = Vec::new();
    for (name, shape) in layers(unet) {
        let rank = rank.min(shape[0] - 1);
        stages.push((name.clone(), Stage::new(&name, &tensor(&[shape[0], rank])?, None)?));
    }
    Para::new(&Names::of(unet, None), stages, BTreeMap::new())
}

fn put(unet: &UNet, names: &Names, para: &Para) -> Result<UNet> {
    let on = OnPara { strength: 1.0, boundary: Boundary::NONE, excess: Excess::Ignore, subset: None };
    para.place(names, unet, &on)?.attach(Part::Unet, unet)
}

/// Work made ready; the argument says how often it is to be done.
pub type Prepared = Box<dyn FnMut(usize) -> Result<()>>;

fn each(work: impl Fn() -> Result<Tensor> + 'static) -> Prepared {
    Box::new(move |times| (0..times).try_for_each(|_| work().map(drop)))
}

/// A file without tensors.
fn no_tensors() -> Vec<u8> {
    let header = b"{}      ";
    [&(header.len() as u64).to_le_bytes()[..], header].concat()
}

/// Numbers in [-1, 1) that look random.
fn tensor(shape: &[usize]) -> Result<Tensor> {
    let number = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / 8_388_608.0 - 1.0;
    let count = shape.iter().product::<usize>() as u64;
    Ok(Tensor::from_vec((0..count).map(number).collect::<Vec<f32>>(), shape, &Device::Cpu)?)
}

fn unet(file: &Weights) -> Result<UNet> {
    Checkpoint::from_weights(unet_to_latent_diffusion(file))?.unet()
}

fn step(unet: &UNet, side: usize, batch: usize) -> Result<Prepared> {
    let (unet, config) = (unet.clone(), unet.config());
    let x = tensor(&[batch, config.input, side, side])?;
    let timesteps = tensor(&[batch])?.affine(400.0, 500.0)?;
    let context = tensor(&[batch, 77, config.context.unwrap_or(1)])?;
    let label = config.label.map(|width| tensor(&[batch, width])).transpose()?;
    Ok(each(move || unet.forward(&x, &timesteps, &context, label.as_ref())))
}

fn vae(file: &Weights) -> Result<Vae> {
    let whole = file.part("first_stage_model.");
    let weights = if whole.names().next().is_some() { whole } else { vae_to_latent_diffusion(file) };
    Vae::load(&weights)
}

fn decode(file: &Weights, side: usize) -> Result<Prepared> {
    let vae = vae(file)?;
    let latent = tensor(&[1, vae.channels(), side, side])?;
    Ok(each(move || vae.decode(&latent)))
}

fn tiled(file: &Weights, side: usize) -> Result<Prepared> {
    let vae = vae(file)?;
    let latent = tensor(&[1, vae.channels(), side, side])?;
    Ok(each(move || vae.decode_tiled(&latent, 64, 8, &mut || Ok(()))))
}

fn text(file: &Weights) -> Result<Prepared> {
    let encoders = match Checkpoint::from_weights(file.clone()) {
        Ok(checkpoint) => checkpoint.clip()?,
        Err(_) => {
            let (weights, family) = text_encoder(&file.on(&file.compute().for_texts()))?;
            Encoders::new(vec![ClipText::load(&weights, family)?])
        }
    };
    Ok(each(move || encoded(&encoders, "a bear with a striped scarf on the beach")))
}

fn encoded(encoders: &Encoders, prompt: &str) -> Result<Tensor> {
    Ok(encoders.encode(prompt, encoders.layer(), &|_, _| Ok(None))?.cond)
}

/// Euler's steps without a schedule: what a picture costs does not depend on its levels.
fn picture(file: &Weights, side: usize, steps: usize) -> Result<Prepared> {
    let checkpoint = Checkpoint::from_weights(file.clone())?;
    let (encoders, unet, vae) = (checkpoint.clip()?, checkpoint.unet()?, checkpoint.vae()?);
    let noise = tensor(&[1, vae.channels(), side, side])?;
    let label = unet.config().label.map(|width| tensor(&[2, width])).transpose()?;
    Ok(each(move || {
        let prompts = [encoded(&encoders, "a bear on the beach")?, encoded(&encoders, "")?];
        let context = Tensor::cat(&prompts, 0)?;
        let mut latent = noise.clone();
        for step in 0..steps {
            let timesteps = Tensor::new(&[999.0 - step as f32; 2], &Device::Cpu)?;
            let said = unet.forward(&Tensor::cat(&[&latent, &latent], 0)?, &timesteps, &context, label.as_ref())?;
            let (with, without) = (said.narrow(0, 0, 1)?, said.narrow(0, 1, 1)?);
            let guided = ((with * 7.0)? - (without * 6.0)?)?;
            latent = (latent - (guided / steps as f64)?)?;
        }
        vae.decode(&latent)
    }))
}

fn convolution(precision: Precision) -> Result<Prepared> {
    let weight = tensor(&[640, 640, 3, 3])?;
    let geometry = Geometry::Conv2d { stride: 1, before: 1, after: 1 };
    let conv = Conv2d::of(Weight::of_in(precision, "convolution", geometry, weight), tensor(&[640])?);
    let x = tensor(&[2, 32, 32, 640])?;
    Ok(each(move || conv.forward(&x)))
}

/// Trains anew from the start at every call, as many steps as it is told.
fn train_with(unet: UNet, method: Method, training: Training) -> Prepared {
    let names = layers(&unet).into_iter().map(|(name, _)| name);
    let adapted = names.filter(|name| !name.contains(".attn2.")).collect();
    let mut settings = Settings {
        method,
        layers: adapted,
        steps: 0,
        batch: training.batch,
        accumulate: 1,
        warmup: 0,
        decay: Decay::Constant,
        betas: (0.9, 0.999),
        epsilon: 1e-8,
        weight_decay: 0.0,
        clip: 1.0,
        min_snr: 0.0,
        noise_offset: 0.0,
        caption_dropout: 0.0,
        prior_weight: 1.0,
        ema: 0.0,
        checkpointing: training.checkpointing,
        validate_every: 0,
        sample_every: 0,
        seed: 1,
    };
    let sampling = ModelSampling::stable_diffusion(Prediction::Epsilon);
    Box::new(move |steps| {
        let (side, config) = (training.side, unet.config());
        let latent = tensor(&[1, config.input, side, side])?;
        let context = tensor(&[1, 77, config.context.unwrap_or(1)])?;
        let label = config.label.map(|width| tensor(&[1, width])).transpose()?;
        let subject = vec![Example { latent, context, label }; 4];
        settings.steps = steps;
        let request = TrainRequest {
            unet: &unet,
            sampling: &sampling,
            latent_scale: 0.18215,
            subject: &subject,
            class: &[],
            empty: None,
            settings: &settings,
            state: None,
        };
        train(&request, &mut Silent).map(drop)
    })
}

struct Silent;

impl Watch for Silent {
    fn step(&mut self, _: &Report) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn sample(&mut self, _: usize, _: &UNet) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn warn(&mut self, _: String) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Golden;

    #[test]
    fn is_named_as_it_is_read() {
        let training = Training { side: 32, batch: 1, checkpointing: true };
        assert_eq!("step 32 2".parse(), Ok(Workload::Step { side: 32, batch: 2 }));
        assert_eq!("picture 64 3".parse(), Ok(Workload::Picture { side: 64, steps: 3 }));
        assert_eq!("lora 32 1 checkpointing".parse(), Ok(Workload::Lora(training)));
        assert!("step 32".parse::<Workload>().is_err() && "decode 0".parse::<Workload>().is_err());
    }

    #[test]
    fn every_piece_runs() {
        let (unet, vae) = (Golden::open("unet_narrow").weights(), Golden::open("vae").weights());
        for (work, file) in [
            ("step 8 2", Some(&unet)),
            ("decode 4", Some(&vae)),
            ("tiled 12", Some(&vae)),
            ("para 8 2", Some(&unet)),
            ("lora 8 1 checkpointing", Some(&unet)),
            ("svdiff 8 1", Some(&unet)),
            ("apply 8", Some(&unet)),
            ("adapted 8 1 8 beside", Some(&unet)),
            ("adapted 8 1 8 baked", Some(&unet)),
            ("convolution", None),
        ] {
            for precision in [Precision::Single, Precision::Bf16] {
                let compute = Compute::new(&Device::Cpu, precision);
                work.parse::<Workload>().unwrap().prepare(file, &compute).unwrap()(1).unwrap();
            }
        }
    }
}
