//! The network that predicts the noise in a latent: a UNet whose pixels look at the prompt.
//!
//! Rombach et al. 2022, arXiv:2112.10752, in the key names of its authors' checkpoints. Knows no prompts and no samplers.

mod config;
mod control;
mod control_lora;
mod embed;
mod gligen;
mod image_adapter;
mod pass;
pub mod patches;
mod prompt;
mod residual;
mod transformer;
mod union;

use candle_core::Tensor;

pub use config::{Config, Down, Up};
pub use control::{ControlNet, control_to_latent_diffusion};
pub use control_lora::ControlLora;
use embed::Embedder;
pub(crate) use embed::timestep_embedding;
pub use gligen::{BoxedWords, Gligen, Grounded, Grounding};
pub use image_adapter::{ImageAdapter, image_adapter_names};
pub use pass::{Back, Controls, Middle, Pass, Patch, Regrouped};
use residual::Residual;
use transformer::SpatialTransformer;

use crate::error::{Error, Result};
use crate::nn::{Conv2d, Geometry, GroupNorm, Layers, Vector, Weight, Weights, give_picture, silu, upsample_nearest};

const EPSILON: f64 = 1e-5;
/// How much wider the timestep's embedding is than the first level.
const TIME_WIDENING: usize = 4;

/// A latent-diffusion UNet. Cheap to clone: clones share the weights.
#[derive(Clone)]
pub struct UNet {
    config: Config,
    /// The tensors that it was found in.
    source: Weights,
    embedder: Embedder,
    conv_in: Conv2d,
    down: Vec<DownBlock>,
    middle: MiddleBlock,
    up: Vec<UpBlock>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

#[derive(Clone)]
enum DownBlock {
    Residual(Box<(Residual, Option<SpatialTransformer>)>),
    Halve(Conv2d),
}

#[derive(Clone)]
struct UpBlock {
    residual: Residual,
    transformer: Option<SpatialTransformer>,
    double: Option<Conv2d>,
}

/// What every block of a network is told beside the picture.
pub(crate) struct Told {
    /// The timestep and the label, `[batch, 4 · channels]`, activated.
    pub(crate) time: Tensor,
    /// The prompt, `[batch, tokens, width]`.
    pub(crate) context: Tensor,
}

impl UNet {
    /// Finds every tensor of the network below a prefix such as `model.diffusion_model.`, its architecture read off names
    /// and shapes. Numbers are read when a layer first runs.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongShape`] and [`Error::UnsupportedNumbers`], each with the tensor's key.
    pub fn load(weights: &Weights) -> Result<Self> {
        let config = Config::read(weights)?;
        let embedded = TIME_WIDENING * config.channels;
        let loader = Loader { weights, config: &config, embedded };
        let (mut down, mut widths) = loader.down()?;
        let width = widths.last().copied().unwrap_or(config.channels);
        let (mut middle, mut up) = (loader.middle(width)?, loader.up(width, &mut widths)?);
        number(&mut down, &mut middle, &mut up);
        let last = config.up.last().map_or(width, |block| block.width);
        Ok(Self {
            embedder: Embedder::load(weights, &config, embedded)?,
            conv_in: Conv2d::load(&weights.at("input_blocks.0.0"), config.input, config.channels, 3)?,
            down,
            middle,
            up,
            norm_out: GroupNorm::load(&weights.at("out.0"), last, EPSILON)?,
            conv_out: Conv2d::load(&weights.at("out.2"), last, config.output, 3)?,
            source: weights.clone(),
            config,
        })
    }

    /// The tensors that it was loaded from, without what adapters made of them.
    #[must_use]
    pub fn source(&self) -> &Weights {
        &self.source
    }

    /// Its architecture.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the network says of a noisy latent: for most models the noise in it.
    ///
    /// # Shapes
    /// - `x`: `[batch, input, height, width]`, f32, scaled to the variance that the network expects
    /// - `timesteps`: `[batch]`, f32, 0 to 999, fractions allowed
    /// - `context`: the prompt, `[batch, tokens, context]`, f32
    /// - `label`: `[batch, label]`, f32, for models that take one; `[batch, 1]` for those that are told a class
    /// - output: `[batch, output, height, width]`, f32
    ///
    /// # Errors
    /// [`Error::Shape`] when a value does not fit the network.
    pub fn forward(&self, x: &Tensor, timesteps: &Tensor, context: &Tensor, label: Option<&Tensor>) -> Result<Tensor> {
        self.forward_in(x, timesteps, context, label, &Pass::PLAIN)
    }

    /// The same with patches, a control network's answers, and what else a [`Pass`] brings.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); what comes from outside does not fit.
    pub fn forward_in(
        &self,
        x: &Tensor,
        timesteps: &Tensor,
        context: &Tensor,
        label: Option<&Tensor>,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        self.check(x, timesteps, context, label)?;
        let told = self.told(timesteps, context, label)?;
        let pass = &Pass { size: (x.dim(2)?, x.dim(3)?), ..*pass };
        let mut controls = pass.control.cloned().unwrap_or_else(Controls::none);
        let mut skips = Vec::new();
        let mut h = self.enter(x)?;
        for index in 0..=self.down.len() {
            if let Some(block) = index.checked_sub(1) {
                h = self.block_in(block, &h, None, None, &told, pass)?;
            }
            h = added(h, controls.down.pop().flatten(), "control (way down)")?;
            h = pass.before_skip(h, index)?;
            skips.push(h.clone());
            h = pass.after_skip(h, index)?;
        }
        h = self.block_in(self.down.len(), &h, None, None, &told, pass)?;
        h = added(h, controls.middle.take(), "control (middle)")?;
        for index in self.down.len() + 1..self.blocks() {
            let skip = skips.pop().expect("`load` pairs every block on the way up with one on the way down");
            let skip = added(skip, controls.skips.pop().flatten(), "control (way up)")?;
            let (below, skip) = pass.joining(h, skip)?;
            // The way down may have rounded an odd size up, so the next skip says how far to enlarge.
            let size = skips.last().map(|skip| skip.dims4()).transpose()?.map(|(_, height, width, _)| (height, width));
            h = self.block_in(index, &below, Some(&skip), size, &told, pass)?;
        }
        self.leave(&h)
    }

    /// What every block is told beside the picture.
    pub(crate) fn told(&self, timesteps: &Tensor, context: &Tensor, label: Option<&Tensor>) -> Result<Told> {
        let time = silu(&self.embedder.embed(timesteps, label, self.source.compute())?)?;
        Ok(Told { time, context: self.source.compute().take(context)? })
    }

    /// How many blocks there are: the way down, the middle, the way up. Those on the way up each take the last skip that is
    /// left of what [`enter`](Self::enter) and the blocks on the way down gave.
    pub(crate) fn blocks(&self) -> usize {
        self.down.len() + 1 + self.up.len()
    }

    /// How many of them lead down.
    pub(crate) fn down_blocks(&self) -> usize {
        self.down.len()
    }

    /// From a latent to what the first block takes.
    pub(crate) fn enter(&self, x: &Tensor) -> Result<Tensor> {
        self.conv_in.forward(&self.source.compute().take_picture(x)?)
    }

    /// One block. `size` is the height and width of the skip that comes after this one.
    pub(crate) fn block(
        &self,
        index: usize,
        h: &Tensor,
        skip: Option<&Tensor>,
        size: Option<(usize, usize)>,
        told: &Told,
    ) -> Result<Tensor> {
        self.block_in(index, h, skip, size, told, &Pass::PLAIN)
    }

    fn block_in(
        &self,
        index: usize,
        h: &Tensor,
        skip: Option<&Tensor>,
        size: Option<(usize, usize)>,
        told: &Told,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let Told { time, context } = told;
        // What is asked of the middle is asked of no other block.
        let elsewhere = &Pass { middle: Middle::Attends, ..*pass };
        if let Some(block) = self.down.get(index) {
            return block.forward(h, time, context, elsewhere);
        }
        if let Some(block) = (index - self.down.len()).checked_sub(1).map(|index| &self.up[index]) {
            let skip = skip.expect("`load` pairs every block on the way up with one on the way down");
            return block.forward(&Tensor::cat(&[h, skip], 3)?, time, context, size, elsewhere);
        }
        middle(&self.middle, h, told, pass)
    }

    /// From what the last block gives to what the network says.
    pub(crate) fn leave(&self, h: &Tensor) -> Result<Tensor> {
        give_picture(&self.conv_out.forward(&self.norm_out.forward_silu(h)?)?)
    }

    fn check(&self, x: &Tensor, timesteps: &Tensor, context: &Tensor, label: Option<&Tensor>) -> Result<()> {
        let (batch, config) = (x.dims().first().copied().unwrap_or(0), &self.config);
        let whole = |x: &Tensor| x.rank() == 4 && x.dims()[1] == config.input && x.elem_count() > 0;
        expect(x, whole(x), "UNet (latent)", || format!("[batch, {}, height, width]", config.input))?;
        expect(timesteps, timesteps.dims() == [batch], "UNet (timesteps)", || format!("[{batch}]"))?;
        if let Some(width) = config.context {
            let fits = matches!(context.dims(), &[b, tokens, w] if b == batch && tokens > 0 && w == width);
            expect(context, fits, "UNet (prompt)", || format!("[{batch}, tokens, {width}]"))?;
        }
        match (config.told(), label) {
            (Some(width), Some(label)) => {
                expect(label, label.dims() == [batch, width], "UNet (label)", || format!("[{batch}, {width}]"))
            }
            (None, None) => Ok(()),
            (wanted, given) => Err(Error::Shape {
                layer: "UNet (label)".to_owned(),
                expected: wanted.map_or_else(|| "none".to_owned(), |width| format!("[{batch}, {width}]")),
                found: given.map(|label| label.dims().to_vec()).unwrap_or_default(),
            }),
        }
    }
}

fn expect(x: &Tensor, holds: bool, layer: &str, expected: impl Fn() -> String) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::Shape { layer: layer.to_owned(), expected: expected(), found: x.dims().to_vec() })
}

/// The middle of a network: residual, attention, residual.
type MiddleBlock = (Residual, Option<SpatialTransformer>, Residual);

fn middle((first, transformer, second): &MiddleBlock, h: &Tensor, told: &Told, pass: &Pass<'_>) -> Result<Tensor> {
    let mut h = first.forward(h, &told.time)?;
    if let Some(transformer) = transformer {
        h = transformer.forward(&h, &told.context, pass)?;
    }
    second.forward(&h, &told.time)
}

/// A picture with what is added to it, if there is anything. What is of another size is left out, as the reference does
/// where a patch makes the picture smaller on its way.
fn added(h: Tensor, more: Option<Tensor>, place: &str) -> Result<Tensor> {
    let Some(more) = more else { return Ok(h) };
    let (batch, height, width, channels) = h.dims4()?;
    let fits = matches!(*more.dims(), [b, _, _, c] if b == batch && c == channels);
    expect(&more, fits, place, || format!("[{batch}, height, width, {channels}]"))?;
    if more.dims()[1..3] != [height, width] {
        return Ok(h);
    }
    // A control network may compute elsewhere.
    let more = more.to_device(h.device())?.to_dtype(h.dtype())?;
    Ok((h + more)?)
}

/// Counts the transformers in the order in which they run.
fn number(down: &mut [DownBlock], middle: &mut MiddleBlock, up: &mut [UpBlock]) {
    let of_down = down.iter_mut().filter_map(|block| match block {
        DownBlock::Residual(block) => block.1.as_mut(),
        DownBlock::Halve(_) => None,
    });
    let of_up = up.iter_mut().filter_map(|block| block.transformer.as_mut());
    for (index, transformer) in of_down.chain(middle.1.as_mut()).chain(of_up).enumerate() {
        transformer.index = index;
    }
}

/// Builds the blocks from one file.
struct Loader<'a> {
    weights: &'a Weights,
    config: &'a Config,
    /// Width of the timestep's embedding.
    embedded: usize,
}

impl Loader<'_> {
    /// The way down, and the widths of what is kept for the way up, the first convolution's first.
    fn down(&self) -> Result<(Vec<DownBlock>, Vec<usize>)> {
        let mut widths = vec![self.config.channels];
        let mut blocks = Vec::new();
        for (index, block) in self.config.down.iter().enumerate() {
            let weights = self.weights.at("input_blocks").at(index + 1);
            let input = widths[index];
            let (block, width) = match *block {
                Down::Residual { width, depth } => {
                    let residual = Residual::load(&weights.at(0), input, width, self.embedded)?;
                    let transformer = self.transformer(&weights, width, depth)?;
                    (DownBlock::Residual(Box::new((residual, transformer))), width)
                }
                Down::Halve => {
                    let geometry = Geometry::Conv2d { stride: 2, before: 1, after: 1 };
                    (DownBlock::Halve(Conv2d::load_with(&weights.at("0.op"), input, input, 3, geometry)?), input)
                }
            };
            blocks.push(block);
            widths.push(width);
        }
        Ok((blocks, widths))
    }

    fn middle(&self, width: usize) -> Result<MiddleBlock> {
        let weights = self.weights.at("middle_block");
        // Without attention the second residual block follows the first at once.
        let second = if self.config.middle > 0 { 2 } else { 1 };
        Ok((
            Residual::load(&weights.at(0), width, width, self.embedded)?,
            self.transformer(&weights, width, self.config.middle)?,
            Residual::load(&weights.at(second), width, width, self.embedded)?,
        ))
    }

    /// The way up; each block takes one of the kept widths, the last first.
    fn up(&self, mut width: usize, skips: &mut Vec<usize>) -> Result<Vec<UpBlock>> {
        let mut blocks = Vec::new();
        for (index, block) in self.config.up.iter().enumerate() {
            let weights = self.weights.at("output_blocks").at(index);
            let skip = skips.pop().ok_or_else(|| self.lopsided())?;
            let conv = weights.at(Up::conv(block.depth)).at("conv");
            blocks.push(UpBlock {
                residual: Residual::load(&weights.at(0), width + skip, block.width, self.embedded)?,
                transformer: self.transformer(&weights, block.width, block.depth)?,
                double: if block.double { Some(Conv2d::load(&conv, block.width, block.width, 3)?) } else { None },
            });
            width = block.width;
        }
        if skips.is_empty() { Ok(blocks) } else { Err(self.lopsided()) }
    }

    fn transformer(&self, weights: &Weights, width: usize, depth: usize) -> Result<Option<SpatialTransformer>> {
        if depth == 0 {
            return Ok(None);
        }
        SpatialTransformer::load(&weights.at(1), width, depth, self.config).map(Some)
    }

    /// The error for a file whose ways down and up do not pair.
    fn lopsided(&self) -> Error {
        self.weights.missing(&self.weights.key(&format!("output_blocks.{}.0.in_layers.0.weight", self.config.up.len())))
    }
}

impl DownBlock {
    fn forward(&self, x: &Tensor, time: &Tensor, context: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        match self {
            Self::Residual(block) => {
                let h = block.0.forward(x, time)?;
                block.1.as_ref().map_or(Ok(h.clone()), |transformer| transformer.forward(&h, context, pass))
            }
            Self::Halve(conv) => conv.forward(x),
        }
    }
}

impl UpBlock {
    /// `size` is the height and width to enlarge to, if there is anything above to fit.
    fn forward(
        &self,
        x: &Tensor,
        time: &Tensor,
        context: &Tensor,
        size: Option<(usize, usize)>,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let mut h = self.residual.forward(x, time)?;
        if let Some(transformer) = &self.transformer {
            h = transformer.forward(&h, context, pass)?;
        }
        let Some(conv) = &self.double else { return Ok(h) };
        let (_, height, width, _) = h.dims4()?;
        let (height, width) = size.unwrap_or((2 * height, 2 * width));
        conv.forward(&upsample_nearest(&h, height, width)?)
    }
}

impl Layers for UNet {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.embedder.visit(visit);
        self.conv_in.visit(visit);
        self.down.visit(visit);
        self.middle.0.visit(visit);
        self.middle.1.visit(visit);
        self.middle.2.visit(visit);
        self.up.visit(visit);
        self.conv_out.visit(visit);
    }

    fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
        self.embedder.visit_vectors(visit);
        self.conv_in.visit_vectors(visit);
        self.down.visit_vectors(visit);
        self.middle.0.visit_vectors(visit);
        self.middle.1.visit_vectors(visit);
        self.middle.2.visit_vectors(visit);
        self.up.visit_vectors(visit);
        self.norm_out.visit_vectors(visit);
        self.conv_out.visit_vectors(visit);
    }
}

impl Layers for DownBlock {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        match self {
            Self::Residual(block) => {
                block.0.visit(visit);
                block.1.visit(visit);
            }
            Self::Halve(conv) => conv.visit(visit),
        }
    }

    fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
        match self {
            Self::Residual(block) => {
                block.0.visit_vectors(visit);
                block.1.visit_vectors(visit);
            }
            Self::Halve(conv) => conv.visit_vectors(visit),
        }
    }
}

impl Layers for UpBlock {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.residual.visit(visit);
        self.transformer.visit(visit);
        self.double.visit(visit);
    }

    fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
        self.residual.visit_vectors(visit);
        self.transformer.visit_vectors(visit);
        self.double.visit_vectors(visit);
    }
}

#[cfg(test)]
mod tests;
