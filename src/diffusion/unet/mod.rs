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
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::nn::{Adapter, attach, layers};
    use crate::testing::{Golden, relative_error, value};

    /// The network of a recording run on the recording's inputs, and its distance from the reference.
    fn error_of(case: &str) -> f64 {
        let golden = Golden::open(case);
        let weights = golden.weights();
        let unet = UNet::load(&weights.part("model.diffusion_model.")).unwrap();
        assert_eq!(weights.unread(), [] as [String; 0]);
        let (size, context) = (golden.numbers("size"), unet.config().context.unwrap());
        let x = value("x", &[2, 4, size[0], size[1]], 1.5);
        let context = value("context", &[2, 77, context], 1.5);
        let y = unet.forward(&x, &golden.tensor("timesteps"), &context, None).unwrap();
        let error = relative_error(&y, &golden.tensor("output"));
        println!("{case}: relative error {error:.2e}");
        error
    }

    // f32 sums in another order than the reference's differ by about 1e-6; a wrong formula by 1e-2 and more.
    #[test]
    fn predicts_what_the_reference_predicts() {
        for case in ["unet_narrow", "unet_odd", "unet_deep"] {
            assert!(error_of(case) < 1e-5, "{case}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let golden = Golden::open("unet_odd");
        let unet = UNet::load(&golden.weights().part("model.diffusion_model.")).unwrap();
        let (x, context) = (value("x", &[2, 4, 29, 31], 1.5), value("context", &[2, 77, 96], 1.5));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let y = pool.install(|| unet.forward(&x, &golden.tensor("timesteps"), &context, None)).unwrap();
            y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let one = run(1);
        assert!(run(2) == one && run(3) == one);
    }

    /// Gradients by the latent and by the prompt pass every kind of layer on their way.
    #[test]
    fn has_the_reference_s_gradients() {
        let golden = Golden::open("unet_narrow");
        let unet = UNet::load(&golden.weights().part("model.diffusion_model.")).unwrap();
        let x = Var::from_tensor(&value("x", &[2, 4, 16, 16], 1.5)).unwrap();
        let context = Var::from_tensor(&value("context", &[2, 77, 160], 1.5)).unwrap();
        let y = unet.forward(&x, &golden.tensor("timesteps"), &context, None).unwrap();
        let loss = (&y * value("weights", y.dims(), 1.0)).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        let error = |var: &Var, name: &str| relative_error(gradients.get(var).unwrap(), &golden.tensor(name));
        let (x, context) = (error(&x, "x_gradient"), error(&context, "context_gradient"));
        println!("gradients: relative error {x:.2e} by the latent, {context:.2e} by the prompt");
        assert!(x < 1e-5 && context < 1e-5);
    }

    /// `y + factor · y`, one factor an output channel.
    struct Beside(Var);

    impl Adapter for Beside {
        fn weight(&self, base: &Tensor) -> Result<Tensor> {
            Ok((base + base.flatten_from(1)?.broadcast_mul(&self.0)?.reshape(base.shape())?)?)
        }

        fn output(&self, _: Geometry, _: &Tensor, y: Tensor) -> Result<Tensor> {
            Ok((&y + y.broadcast_mul(&self.0.flatten_all()?)?)?)
        }
    }

    /// A small factor for every output channel of every layer.
    fn adapters(unet: &UNet) -> Vec<(String, Var)> {
        let factor = |(name, shape): (String, Vec<usize>)| {
            let factor = Var::from_tensor(&value(&name, &[shape[0], 1], 0.01)).unwrap();
            (name, factor)
        };
        layers(unet).into_iter().map(factor).collect()
    }

    fn attached(unet: &UNet, factors: &[(String, Var)]) -> UNet {
        let adapter =
            |(name, factor): &(String, Var)| (name.clone(), Arc::new(Beside(factor.clone())) as Arc<dyn Adapter>);
        attach(unet, &factors.iter().map(adapter).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_layer_takes_an_adapter_and_gives_it_a_gradient() {
        let golden = Golden::open("unet_narrow");
        let unet = UNet::load(&golden.weights().part("model.diffusion_model.")).unwrap();
        let factors = adapters(&unet);
        assert!(factors.iter().any(|(name, _)| name == "input_blocks.1.1.transformer_blocks.0.attn2.to_out.0"));
        let adapted = attached(&unet, &factors);
        let (x, context) = (value("x", &[2, 4, 8, 8], 1.5), value("context", &[2, 77, 160], 1.5));
        let run = |unet: &UNet| unet.forward(&x, &golden.tensor("timesteps"), &context, None).unwrap();

        let beside = run(&adapted);
        assert!(relative_error(&beside, &run(&unet)) > 1e-3, "the adapters act");
        let mut baked = adapted.clone();
        baked.visit(&mut |weight| *weight = weight.baked().unwrap());
        assert!(relative_error(&run(&baked), &beside) < 1e-5, "and mean the same baked in");

        let gradients =
            (&beside * value("weights", beside.dims(), 1.0)).unwrap().sum_all().unwrap().backward().unwrap();
        for (name, factor) in &factors {
            let gradient = gradients.get(factor).unwrap_or_else(|| panic!("`{name}` has no gradient"));
            let size = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(size.is_finite() && size > 0.0, "`{name}`: {size}");
        }
    }

    #[test]
    fn an_adapter_for_no_layer_is_an_error() {
        let unet = UNet::load(&Golden::open("unet_narrow").weights().part("model.diffusion_model.")).unwrap();
        let factor = Var::from_tensor(&value("factor", &[64, 1], 0.01)).unwrap();
        let adapter: Arc<dyn Adapter> = Arc::new(Beside(factor));
        let Err(error) = attach(&unet, &[("middle_block.1.proj_inn".to_owned(), adapter)]) else { panic!("attached") };
        let message = error.to_string();
        assert!(message.starts_with("no layer is called `middle_block.1.proj_inn`"), "{message}");
        assert!(message.contains("`middle_block.1.proj_in`"), "{message}");
    }

    #[test]
    fn reads_its_architecture_off_the_shapes() {
        let golden = Golden::open("unet_odd");
        let config = Config::read(&golden.weights().part("model.diffusion_model.")).unwrap();
        assert_eq!((config.channels, config.input, config.output), (64, 4, 4));
        assert_eq!((config.context, config.label, config.linear_projection), (Some(96), None, false));
        assert_eq!((config.depths(), config.middle, config.halvings()), (vec![1, 1, 0], 1, 2));
        let up: Vec<_> = config.up.iter().map(|block| (block.width, block.depth, block.double)).collect();
        assert_eq!(up[..3], [(192, 0, false), (192, 0, true), (128, 1, false)]);
        assert_eq!(config.heads(192), 8);
    }

    #[test]
    fn refuses_values_that_do_not_fit() {
        let unet = UNet::load(&Golden::open("unet_narrow").weights().part("model.diffusion_model.")).unwrap();
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let (x, time, prompt) = (zeros(&[2, 4, 8, 8]), zeros(&[2]), zeros(&[2, 77, 160]));
        let message = |x: &Tensor, time: &Tensor, prompt: &Tensor, label: Option<&Tensor>| {
            unet.forward(x, time, prompt, label).unwrap_err().to_string()
        };
        assert_eq!(
            message(&zeros(&[2, 9, 8, 8]), &time, &prompt, None),
            "UNet (latent): expects [batch, 4, height, width], found a tensor of shape [2, 9, 8, 8]"
        );
        assert!(message(&zeros(&[2, 4, 0, 8]), &time, &prompt, None).contains("[2, 4, 0, 8]"));
        assert!(message(&x, &zeros(&[3]), &prompt, None).starts_with("UNet (timesteps)"));
        assert!(message(&x, &time, &zeros(&[2, 77, 768]), None).starts_with("UNet (prompt)"));
        assert!(message(&x, &time, &prompt, Some(&time)).starts_with("UNet (label): expects none"));
    }

    #[test]
    fn a_file_that_lacks_a_tensor_is_told_which() {
        let mut golden = Golden::open("unet_narrow");
        golden.tensors.remove("model.diffusion_model.middle_block.1.norm.weight");
        let Err(error) = UNet::load(&golden.weights().part("model.diffusion_model.")) else { panic!("loaded") };
        let message = error.to_string();
        assert!(message.contains("tensor `model.diffusion_model.middle_block.1.norm.weight` is missing"), "{message}");
        assert!(
            message.contains("hint: the nearest names are `model.diffusion_model.middle_block.1.norm.bias`"),
            "{message}"
        );
    }
}
