//! Control networks: pictures that lead a model beside the prompts.

use crate::conditioning::encode_once;
use crate::error::{Error, tell};
use crate::files::{ControlNets, ModelName, Place};
use crate::loaders;
use crate::prompt::PromptText;
use crate::wires::{Clip, Conditioning, Control, Image, Mask, Model, Vae};
use candle_core::Tensor;
use paraflow_diffusion::guidance::{self, ControlKind};
use paraflow_diffusion::nn::Weights;
use paraflow_diffusion::unet::{
    ControlLora, ControlNet, ImageAdapter, control_to_latent_diffusion, image_adapter_names,
};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Services, Shared};
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<CLIPTextEncodeControlnet>(),
        NodeDef::of::<ControlNetApply>(),
        NodeDef::of::<ControlNetApplyAdvanced>(),
        NodeDef::of::<ControlNetApplySD3>(),
        NodeDef::of::<ControlNetInpaintingAliMamaApply>(),
        NodeDef::of::<ControlNetLoader>(),
        NodeDef::of::<DiffControlNetLoader>(),
        NodeDef::of::<SetUnionControlNetType>(),
    ]
}

/// Loads a control network: of its authors' names, or of those of diffusers; one that is a part of the model (control-LoRA),
/// and T2I-adapters.
#[derive(Node)]
#[node(category = "loaders", display_name = "Load ControlNet Model")]
struct ControlNetLoader {
    /// The network, from `models/controlnet` or `models/t2i_adapter`.
    control_net_name: ModelName<ControlNets>,
}

impl Run for ControlNetLoader {
    type Output = Control;

    fn run(self, cx: &Context<'_>) -> Result<Control> {
        load(&self.control_net_name, None, cx.services()).map_err(tell)
    }
}

/// Loads a control network for a model, also from a file that holds only the difference to the model.
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
        load(&self.control_net_name, Some(&self.model), cx.services()).map_err(tell)
    }
}

fn load(name: &ModelName<ControlNets>, model: Option<&Model>, services: &Services) -> Result<Control, Error> {
    let place = name.find(services)?;
    let weights = loaders::open(&place)?.on(&loaders::compute(services));
    let network = network(&weights, model)?;
    if let (ControlKind::Network(network), Some(model)) = (&network, model) {
        let widths = (model.unet.config().context, network.config().context);
        if widths.0 != widths.1 {
            return Err(Error::Unfit {
                what: "`control_net_name`",
                expected: format!("a network for prompts of width {}, as the model's", widths.0.unwrap_or_default()),
                found: format!("one for width {}", widths.1.unwrap_or_default()),
            });
        }
    }
    // Those that follow a picture's style look at its colours and not at their places, which only their name tells.
    let stem = match &place {
        Place::File(model) => model.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()),
        Place::Embedded(_) => None,
    };
    let averaged = stem.is_some_and(|stem| stem.ends_with("_shuffle") || stem.ends_with("_shuffle_fp16"));
    Ok(Control { network, kinds: Vec::new(), averaged, bytes: loaders::bytes(&weights) })
}

fn network(weights: &Weights, model: Option<&Model>) -> Result<ControlKind, Error> {
    if ControlLora::is_one(weights) {
        return Ok(ControlKind::OfModel(ControlLora::new(weights)));
    }
    let renamed = control_to_latent_diffusion(weights);
    if renamed.contains("input_hint_block.0.weight") {
        if !weights.contains("difference") {
            return Ok(ControlKind::Network(Box::new(ControlNet::load(&renamed)?)));
        }
        let Some(model) = model else {
            return Err(Error::Unfit {
                what: "`control_net_name`",
                expected: "a network with weights of its own".to_owned(),
                found: "a file with the difference to a model, which DiffControlNetLoader takes".to_owned(),
            });
        };
        let (network, misfits) = ControlNet::of_difference(&renamed, &model.unet)?;
        return match misfits.first() {
            None => Ok(ControlKind::Network(Box::new(network))),
            Some(first) => Err(Error::Unfit {
                what: "`control_net_name`",
                expected: "the difference to a model of the architecture of `model`".to_owned(),
                found: format!("{} tensors of another shape, the first {first}", misfits.len()),
            }),
        };
    }
    if let Some(adapter) = image_adapter_names(weights) {
        return Ok(ControlKind::Adapter(Box::new(ImageAdapter::load(&adapter)?)));
    }
    Err(Error::Unfit {
        what: "`control_net_name`",
        expected:
            "a control network of Stable Diffusion or SDXL, with `input_hint_block` and `zero_convs`, or a T2I-adapter"
                .to_owned(),
        found: paraflow_diffusion::checkpoint::inspect(weights).architecture,
    })
}

/// Says of which kind the picture is, for networks that were trained on several kinds.
#[derive(Node)]
#[node(category = "conditioning/controlnet")]
struct SetUnionControlNetType {
    /// The network.
    control_net: Shared<Control>,
    /// The kind; `auto` says nothing.
    #[input(name = "type", choices = [
        "auto", "openpose", "depth", "hed/pidi/scribble/ted", "canny/lineart/anime_lineart/mlsd", "normal", "segment", "tile",
        "repaint"
    ])]
    kind: Choice<String>,
}

impl Run for SetUnionControlNetType {
    type Output = Control;

    fn run(self, cx: &Context<'_>) -> Result<Control> {
        const KINDS: [&str; 8] = [
            "openpose",
            "depth",
            "hed/pidi/scribble/ted",
            "canny/lineart/anime_lineart/mlsd",
            "normal",
            "segment",
            "tile",
            "repaint",
        ];
        let kind = KINDS.iter().position(|kind| *kind == self.kind.name());
        let trained_on = match &self.control_net.network {
            ControlKind::Network(network) => network.kinds(),
            ControlKind::OfModel(_) | ControlKind::Adapter(_) => None,
        };
        match (kind, trained_on) {
            (Some(kind), Some(kinds)) if kind >= kinds => {
                return Err(tell(Error::Unfit {
                    what: "`type`",
                    expected: format!("one of the network's {kinds} kinds, {}", KINDS[..kinds.min(8)].join(", ")),
                    found: format!("{}: the network's ProMax version knows it", self.kind.name()),
                }));
            }
            (Some(_), None) => {
                cx.warn("this network sees pictures of one kind only: `type` changes nothing".to_owned())
            }
            _ => {}
        }
        Ok(Control { kinds: kind.into_iter().collect(), ..Control::clone(&self.control_net) })
    }
}

/// Lets a picture lead the model beside the prompts, and a mask where it does, for networks that see both.
#[derive(Node)]
#[node(category = "conditioning/controlnet", outputs = ["positive", "negative"])]
struct ControlNetInpaintingAliMamaApply {
    /// What the picture should show.
    positive: Shared<Conditioning>,
    /// What it should not show.
    negative: Shared<Conditioning>,
    /// The network.
    control_net: Shared<Control>,
    /// For networks that see latents; those of Stable Diffusion and SDXL see pictures.
    vae: Shared<Vae>,
    /// The picture.
    image: Shared<Image>,
    /// Where to paint anew, for networks that see a mask; those of Stable Diffusion and SDXL see none.
    mask: Shared<Mask>,
    /// How much it leads; 0 not at all.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    strength: f64,
    /// From this share of the way on.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.001)]
    start_percent: f64,
    /// Up to this share of the way.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.001)]
    end_percent: f64,
}

impl Run for ControlNetInpaintingAliMamaApply {
    type Output = (Conditioning, Conditioning);

    fn run(self, cx: &Context<'_>) -> Result<(Conditioning, Conditioning)> {
        cx.warn("control networks of Stable Diffusion and SDXL see no mask: the whole picture leads".to_owned());
        let _ = (self.vae, self.mask);
        let span = (self.start_percent, self.end_percent);
        both(&self.control_net, &self.image, self.strength, span, [&self.positive, &self.negative]).map_err(tell)
    }
}

/// Both sides led by a picture.
fn both(
    control: &Control,
    image: &Image,
    strength: f64,
    span: (f64, f64),
    [positive, negative]: [&Conditioning; 2],
) -> Result<(Conditioning, Conditioning), Error> {
    if strength == 0.0 {
        return Ok((positive.clone(), negative.clone()));
    }
    let mut led = Led { control, image, strength, span }.sides(&[positive, negative], false)?;
    let negative = led.remove(1);
    Ok((led.remove(0), negative))
}

/// A prompt of its own for control networks, beside the model's.
#[derive(Node)]
#[node(category = "_for_testing/conditioning", compute, experimental)]
struct CLIPTextEncodeControlnet {
    /// The text encoder, from a checkpoint.
    clip: Shared<Clip>,
    /// The prompts that the model reads.
    conditioning: Shared<Conditioning>,
    /// What control networks read instead.
    #[input(multiline, dynamic_prompts)]
    text: PromptText,
}

impl Run for CLIPTextEncodeControlnet {
    type Output = Conditioning;

    fn run(self, cx: &Context<'_>) -> Result<Conditioning> {
        let encoders = self.clip.encoders().map_err(tell)?;
        let prompts: Vec<&str> = encoders.parts().iter().map(|_| self.text.text()).collect();
        let prompt = encode_once(&self.clip, &prompts, cx)?;
        let context = prompt.condition.context;
        Ok(self.conditioning.map(|condition| condition.control_context = Some(context.clone())))
    }
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
        let span = (self.start_percent, self.end_percent);
        both(&self.control_net, &self.image, self.strength, span, [&self.positive, &self.negative]).map_err(tell)
    }
}

/// Lets a picture lead the model beside the prompts: as `ControlNetApplyAdvanced`, with an autoencoder that is always there.
#[derive(Node)]
#[node(
    category = "conditioning/controlnet",
    display_name = "Apply Controlnet with VAE",
    outputs = ["positive", "negative"],
    deprecated
)]
struct ControlNetApplySD3 {
    /// What the picture should show.
    positive: Shared<Conditioning>,
    /// What it should not show.
    negative: Shared<Conditioning>,
    /// The network.
    control_net: Shared<Control>,
    /// For networks that see latents; those of Stable Diffusion and SDXL see pictures.
    vae: Shared<Vae>,
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
}

impl Run for ControlNetApplySD3 {
    type Output = (Conditioning, Conditioning);

    fn run(self, _: &Context<'_>) -> Result<(Conditioning, Conditioning)> {
        let _ = self.vae;
        let span = (self.start_percent, self.end_percent);
        both(&self.control_net, &self.image, self.strength, span, [&self.positive, &self.negative]).map_err(tell)
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
                kinds: self.control.kinds.clone(),
                said: Arc::default(),
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
