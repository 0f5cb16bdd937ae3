//! Control networks: a copy of a UNet's way down that sees a picture and tells the UNet what to add to its own.
//!
//! Zhang et al. 2023, arXiv:2302.05543, in the key names of its authors' files.

use candle_core::Tensor;

use super::union::Union;
use super::{
    Config, Controls, DownBlock, Embedder, Layers, Loader, MiddleBlock, Pass, TIME_WIDENING, Told, UNet, Weight,
    expect, middle,
};
use crate::adapters::on_layers;
use crate::checkpoint::unet_to_latent_diffusion;
use crate::error::{Error, Result};
use crate::nn::{Compute, Conv2d, Geometry, Linear, Renamed, Weights, silu};

/// Strides of the convolutions that bring a picture to the size of its latent.
const HINT_STRIDES: [usize; 8] = [1, 1, 2, 1, 2, 1, 2, 1];

/// A control network. Cheap to clone: clones share the weights.
#[derive(Clone)]
pub struct ControlNet {
    config: Config,
    compute: Compute,
    embedder: Embedder,
    conv_in: Conv2d,
    hint: Vec<Conv2d>,
    down: Vec<DownBlock>,
    /// One for the first convolution and one for every block on the way down.
    outs: Vec<Linear>,
    middle: MiddleBlock,
    middle_out: Linear,
    union: Option<Union>,
}

impl ControlNet {
    /// Finds every tensor of the network; its architecture is read off names and shapes.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongShape`] and [`Error::UnsupportedNumbers`], each with the tensor's key.
    pub fn load(weights: &Weights) -> Result<Self> {
        let config = Config::read_way_down(weights)?;
        let embedded = TIME_WIDENING * config.channels;
        let loader = Loader { weights, config: &config, embedded };
        let (down, widths) = loader.down()?;
        let width = widths.last().copied().unwrap_or(config.channels);
        let out =
            |(index, width): (usize, &usize)| Linear::load(&weights.at("zero_convs").at(index).at(0), *width, *width);
        Ok(Self {
            embedder: Embedder::load(weights, &config, embedded)?,
            conv_in: Conv2d::load(&weights.at("input_blocks.0.0"), config.input, config.channels, 3)?,
            hint: load_hint(weights)?,
            down,
            outs: widths.iter().enumerate().map(out).collect::<Result<_>>()?,
            middle: loader.middle(width)?,
            middle_out: Linear::load(&weights.at("middle_block_out.0"), width, width)?,
            union: Union::load(weights, embedded)?,
            compute: weights.compute().clone(),
            config,
        })
    }

    /// The network of a file that holds what it differs by from a model; whatever adapters are on the model count.
    ///
    /// The second value names tensors that are of another shape in the model, for which the file was not made then.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn of_difference(weights: &Weights, model: &UNet) -> Result<(Self, Vec<String>)> {
        let (sum, misfits) = weights.mixed(model.source(), &|_| Some([1.0, 1.0]))?;
        let mut network = Self::load(&sum)?;
        let changed: Vec<Weight> = on_layers(model).into_iter().filter(Weight::is_changed).collect();
        if changed.is_empty() {
            return Ok((network, misfits));
        }
        let own = on_layers(&Self::load(weights)?);
        let mut outcome = Ok(());
        network.visit(&mut |weight| {
            let named = |list: &[Weight]| list.iter().find(|other| other.layer() == weight.layer()).cloned();
            if let (Some(own), Some(theirs)) = (named(&own), named(&changed))
                && own.shape() == theirs.shape()
                && outcome.is_ok()
            {
                outcome = own.mixed(&theirs, [1.0, 1.0]).map(|sum| *weight = sum);
            }
        });
        outcome?;
        Ok((network, misfits))
    }

    /// Its architecture; there is no way up.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the network adds to one that is asked the same.
    ///
    /// # Shapes
    /// - `x`, `timesteps`, `context`, `label`: as [`UNet::forward`](super::UNet::forward) takes them
    /// - `hint`: `[batch, 3, 8 · height, 8 · width]`, f32, 0 to 1
    /// - `kinds`: of which kind the picture is, for networks that were trained on several; nothing where that is not known
    ///
    /// # Errors
    /// [`Error::Shape`] when a value does not fit the network.
    pub fn forward(
        &self,
        x: &Tensor,
        hint: &Tensor,
        timesteps: &Tensor,
        context: &Tensor,
        label: Option<&Tensor>,
        kinds: &[usize],
    ) -> Result<Controls> {
        self.check(x, hint, context, label)?;
        let mut time = self.embedder.embed(timesteps, label, &self.compute)?;
        let mut seen = self.seen(hint)?;
        if let Some(union) = &self.union {
            time = time.broadcast_add(&union.told(kinds, &self.compute)?)?;
            if let Some(kind) = kinds.first() {
                seen = union.of_kind(&seen, *kind)?;
            }
        }
        let time = silu(&time)?;
        let told = Told { time, context: self.compute.take(context)? };
        let mut h = (self.conv_in.forward(&self.compute.take_picture(x)?)? + seen)?;
        let mut skips = Vec::with_capacity(self.outs.len());
        for (index, out) in self.outs.iter().enumerate() {
            if let Some(block) = index.checked_sub(1) {
                h = self.down[block].forward(&h, &told.time, &told.context, &Pass::PLAIN)?;
            }
            skips.push(Some(out.forward(&h)?));
        }
        let h = middle(&self.middle, &h, &told, &Pass::PLAIN)?;
        Ok(Controls { skips, middle: Some(self.middle_out.forward(&h)?), down: Vec::new() })
    }

    /// How many kinds of pictures it was trained on, if it tells them apart.
    #[must_use]
    pub fn kinds(&self) -> Option<usize> {
        self.union.as_ref().map(Union::kinds)
    }

    /// The picture at the size of its latent, `[batch, height, width, channels]`.
    fn seen(&self, hint: &Tensor) -> Result<Tensor> {
        let last = self.hint.len() - 1;
        self.hint.iter().enumerate().try_fold(self.compute.take_picture(hint)?, |h, (index, conv)| {
            let h = conv.forward(&h)?;
            if index < last { silu(&h) } else { Ok(h) }
        })
    }

    fn check(&self, x: &Tensor, hint: &Tensor, context: &Tensor, label: Option<&Tensor>) -> Result<()> {
        let config = &self.config;
        let (batch, _, rows, columns) = x.dims4()?;
        let channels = x.dim(1)?;
        expect(x, channels == config.input, "ControlNet (latent)", || format!("[batch, {}, ..]", config.input))?;
        let colours = self.hint[0].weight().shape()[1];
        let size = [batch, colours, 8 * rows, 8 * columns];
        expect(hint, hint.dims() == size, "ControlNet (picture)", || format!("{size:?}"))?;
        if let Some(width) = config.context {
            let fits = context.rank() == 3 && context.dims()[2] == width;
            expect(context, fits, "ControlNet (prompt)", || format!("[{batch}, tokens, {width}]"))?;
        }
        match (config.told(), label) {
            (Some(width), Some(label)) => {
                expect(label, label.dims() == [batch, width], "ControlNet (label)", || format!("[{batch}, {width}]"))
            }
            (None, _) => Ok(()),
            (Some(width), None) => Err(Error::Shape {
                layer: "ControlNet (label)".to_owned(),
                expected: format!("[{batch}, {width}], as models of SDXL are told"),
                found: Vec::new(),
            }),
        }
    }
}

fn load_hint(weights: &Weights) -> Result<Vec<Conv2d>> {
    let load = |(index, stride): (usize, &usize)| {
        let place = weights.at("input_hint_block").at(2 * index);
        let shape = place.shape("weight").ok_or_else(|| place.missing(&place.key("weight")))?;
        let &[output, input, kernel, _] = shape else {
            return Err(Error::WrongShape {
                file: weights.file().to_owned(),
                name: place.key("weight"),
                expected: "4 dimensions".to_owned(),
                found: shape.to_vec(),
            });
        };
        Conv2d::load_with(&place, input, output, kernel, Geometry::Conv2d { stride: *stride, before: 1, after: 1 })
    };
    HINT_STRIDES.iter().enumerate().map(load).collect()
}

/// A control network in the names of its authors, if it has those of diffusers; any other without the prefix that some
/// files put before them.
#[must_use]
pub fn control_to_latent_diffusion(weights: &Weights) -> Weights {
    let inside = weights.part("control_model.");
    if inside.contains("zero_convs.0.0.weight") {
        return inside;
    }
    if !weights.contains("controlnet_cond_embedding.conv_in.weight") {
        return weights.clone();
    }
    let blocks =
        (0..).take_while(|i| weights.contains(&format!("controlnet_cond_embedding.blocks.{i}.weight"))).count();
    let own = weights.renamed(|name| own_name(name, blocks).map(Renamed::whole).into_iter().collect());
    let rest = unet_to_latent_diffusion(weights);
    Weights::joined(weights.file().to_owned(), &[rest, own])
}

/// The name in its authors' files of what a control network has beside its copy of the UNet, for one whose picture passes
/// so many blocks between the first convolution and the last.
fn own_name(name: &str, blocks: usize) -> Option<String> {
    const UNION: [&str; 4] = ["task_embedding", "transformer_layes.", "spatial_ch_projs.", "control_add_embedding."];
    if UNION.iter().any(|start| name.starts_with(start)) {
        return Some(name.to_owned());
    }
    let (layer, kind) = name.rsplit_once('.')?;
    let place = if layer == "controlnet_mid_block" {
        "middle_block_out.0".to_owned()
    } else if let Some(index) = layer.strip_prefix("controlnet_down_blocks.") {
        format!("zero_convs.{index}.0")
    } else {
        let index = match layer.strip_prefix("controlnet_cond_embedding.")? {
            "conv_in" => 0,
            "conv_out" => blocks + 1,
            block => block.strip_prefix("blocks.")?.parse::<usize>().ok()? + 1,
        };
        format!("input_hint_block.{}", 2 * index)
    };
    Some(format!("{place}.{kind}"))
}

impl Layers for ControlNet {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.embedder.visit(visit);
        self.conv_in.visit(visit);
        self.hint.visit(visit);
        self.down.visit(visit);
        self.outs.visit(visit);
        self.middle.0.visit(visit);
        self.middle.1.visit(visit);
        self.middle.2.visit(visit);
        self.middle_out.visit(visit);
        self.union.visit(visit);
    }
}
