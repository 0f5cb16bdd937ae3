//! Control networks: pictures that lead a model beside the prompts.

use crate::error::{Error, tell};
use crate::files::{ControlNets, ModelName, Place};
use crate::loaders;
use crate::wires::{Conditioning, Control, Image, Model, Vae};
use candle_core::Tensor;
use paraflow_diffusion::guidance;
use paraflow_diffusion::unet::{ControlNet, control_to_latent_diffusion};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Services, Shared};
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<ControlNetApply>(),
        NodeDef::of::<ControlNetApplyAdvanced>(),
        NodeDef::of::<ControlNetLoader>(),
        NodeDef::of::<DiffControlNetLoader>(),
    ]
}

/// Loads a control network: of its authors' names, or of those of diffusers.
#[derive(Node)]
#[node(category = "loaders", display_name = "Load ControlNet Model")]
struct ControlNetLoader {
    /// The network, from `models/controlnet` or `models/t2i_adapter`.
    control_net_name: ModelName<ControlNets>,
}

impl Run for ControlNetLoader {
    type Output = Control;

    fn run(self, cx: &Context<'_>) -> Result<Control> {
        load(&self.control_net_name, cx.services()).map_err(tell)
    }
}

/// Loads a control network for a model. Files that hold only the difference to the model are refused.
#[derive(Node)]
#[node(category = "loaders", display_name = "Load ControlNet Model (diff)")]
struct DiffControlNetLoader {
    /// The model that the network belongs to.
    model: Shared<Model>,
    /// The network, from `models/controlnet` or `models/t2i_adapter`.
    control_net_name: ModelName<ControlNets>,
}

impl Run for DiffControlNetLoader {
    type Output = Control;

    fn run(self, cx: &Context<'_>) -> Result<Control> {
        let control = load(&self.control_net_name, cx.services()).map_err(tell)?;
        let widths = (self.model.unet.config().context, control.network.config().context);
        if widths.0 != widths.1 {
            return Err(tell(Error::Unfit {
                what: "`control_net_name`",
                expected: format!("a network for prompts of width {}, as the model's", widths.0.unwrap_or_default()),
                found: format!("one for width {}", widths.1.unwrap_or_default()),
            }));
        }
        Ok(control)
    }
}

fn load(name: &ModelName<ControlNets>, services: &Services) -> Result<Control, Error> {
    let place = name.find(services)?;
    let weights = loaders::open(&place)?;
    if weights.contains("difference") {
        return Err(Error::Unfit {
            what: "`control_net_name`",
            expected: "a network with weights of its own".to_owned(),
            found: "a file with the difference to a model".to_owned(),
        });
    }
    let renamed = control_to_latent_diffusion(&weights);
    if !renamed.contains("input_hint_block.0.weight") {
        return Err(Error::Unfit {
            what: "`control_net_name`",
            expected: "a control network of Stable Diffusion or SDXL, with `input_hint_block` and `zero_convs`"
                .to_owned(),
            found: paraflow_diffusion::checkpoint::inspect(&weights).architecture,
        });
    }
    // Those that follow a picture's style look at its colours and not at their places, which only their name tells.
    let stem = match &place {
        Place::File(model) => model.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()),
        Place::Embedded(_) => None,
    };
    let averaged = stem.is_some_and(|stem| stem.ends_with("_shuffle") || stem.ends_with("_shuffle_fp16"));
    Ok(Control { network: ControlNet::load(&renamed)?, averaged, bytes: loaders::bytes(&weights) })
}

/// Lets a picture lead the model beside the prompts, positive and negative alike, all the way.
#[derive(Node)]
#[node(category = "conditioning/controlnet", display_name = "Apply ControlNet (OLD)", deprecated)]
struct ControlNetApply {
    /// The prompts.
    conditioning: Shared<Conditioning>,
    /// The network.
    control_net: Shared<Control>,
    /// What the network was trained to see: edges, depth, a pose.
    image: Shared<Image>,
    /// How much it leads; 0 not at all.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    strength: f64,
}

impl Run for ControlNetApply {
    type Output = Conditioning;

    fn run(self, _: &Context<'_>) -> Result<Conditioning> {
        if self.strength == 0.0 {
            return Ok(Conditioning::clone(&self.conditioning));
        }
        let led = Led { control: &self.control_net, image: &self.image, strength: self.strength, span: (0.0, 1.0) };
        let mut led = led.sides(&[&self.conditioning], true).map_err(tell)?;
        Ok(led.remove(0))
    }
}

/// Lets a picture lead the model beside the prompts.
#[derive(Node)]
#[node(category = "conditioning/controlnet", display_name = "Apply ControlNet", outputs = ["positive", "negative"])]
struct ControlNetApplyAdvanced {
    /// What the picture should show.
    positive: Shared<Conditioning>,
    /// What it should not show.
    negative: Shared<Conditioning>,
    /// The network.
    control_net: Shared<Control>,
    /// What the network was trained to see: edges, depth, a pose.
    image: Shared<Image>,
    /// How much it leads; 0 not at all.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    strength: f64,
    /// From this share of the way on.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.001)]
    start_percent: f64,
    /// Up to this share of the way.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.001)]
    end_percent: f64,
    /// For networks that see latents; those of Stable Diffusion and SDXL see pictures.
    vae: Option<Shared<Vae>>,
}

impl Run for ControlNetApplyAdvanced {
    type Output = (Conditioning, Conditioning);

    fn run(self, _: &Context<'_>) -> Result<(Conditioning, Conditioning)> {
        let _ = self.vae;
        if self.strength == 0.0 {
            return Ok((Conditioning::clone(&self.positive), Conditioning::clone(&self.negative)));
        }
        let span = (self.start_percent, self.end_percent);
        let led = Led { control: &self.control_net, image: &self.image, strength: self.strength, span };
        let mut led = led.sides(&[&self.positive, &self.negative], false).map_err(tell)?;
        let negative = led.remove(1);
        Ok((led.remove(0), negative))
    }
}

/// A network with its picture, about to lead prompts.
struct Led<'a> {
    control: &'a Control,
    image: &'a Image,
    strength: f64,
    span: (f64, f64),
}

impl Led<'_> {
    /// The prompts led, after whatever leads them already. Prompts that shared a control go on sharing one, so that the model
    /// is asked about them together.
    fn sides(&self, sides: &[&Conditioning], everywhere: bool) -> Result<Vec<Conditioning>, Error> {
        let picture = self.picture()?;
        let mut made: Vec<(Option<Arc<guidance::Control>>, Arc<guidance::Control>)> = Vec::new();
        let same = |a: &Option<Arc<guidance::Control>>, b: &Option<Arc<guidance::Control>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        let mut led = |before: &Option<Arc<guidance::Control>>| {
            if let Some((_, control)) = made.iter().find(|(of, _)| same(of, before)) {
                return Arc::clone(control);
            }
            let control = Arc::new(guidance::Control {
                network: self.control.network.clone(),
                picture: picture.clone(),
                strength: self.strength,
                averaged: self.control.averaged,
                start: self.span.0,
                end: self.span.1,
                before: before.clone(),
            });
            made.push((before.clone(), Arc::clone(&control)));
            control
        };
        let mut changed: Vec<Conditioning> = sides.iter().copied().cloned().collect();
        for prompt in changed.iter_mut().flat_map(|side| &mut side.0) {
            prompt.condition.control = Some(led(&prompt.condition.control));
            prompt.condition.control_everywhere = everywhere;
        }
        Ok(changed)
    }

    /// The picture as planes of three colours.
    fn picture(&self) -> Result<Tensor, Error> {
        let (batch, height, width, channels) = self.image.dims();
        let planes = self.image.pixels().permute((0, 3, 1, 2))?;
        let colours = match channels {
            1 => planes.broadcast_as((batch, 3, height, width))?,
            _ => planes.narrow(1, 0, 3)?,
        };
        Ok(colours.contiguous()?)
    }
}
