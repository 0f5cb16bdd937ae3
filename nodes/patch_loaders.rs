//! What changes how a model looks, from files: boxes with words in them, hypernetworks.

use crate::conditioning::encode_once;
use crate::error::{Error, tell};
use crate::files::{GligenModels, Hypernetworks, ModelName};
use crate::loaders::{bytes, open};
use crate::prompt::PromptText;
use crate::wires::{Clip, Conditioning, MAX_SIZE, Model, TextBoxes};
use paraflow_diffusion::text::ClipText;
use paraflow_diffusion::unet::patches::Hyper;
use paraflow_diffusion::unet::{BoxedWords, Gligen, Grounding};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};
use std::convert::Infallible;
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<GLIGENLoader>(), NodeDef::of::<GLIGENTextBoxApply>(), NodeDef::of::<HypernetworkLoader>()]
}

/// Loads GLIGEN: layers that let Stable Diffusion 1 look at boxes with words in them.
#[derive(Node)]
#[node(category = "loaders")]
struct GLIGENLoader {
    /// The file, from `models/gligen`.
    gligen_name: ModelName<GligenModels>,
}

impl Run for GLIGENLoader {
    type Output = TextBoxes;

    fn run(self, cx: &Context<'_>) -> Result<TextBoxes> {
        let load = || -> Result<TextBoxes, Error> {
            let weights = open(&self.gligen_name.find(cx.services())?)?;
            Ok(TextBoxes { layers: Gligen::load(&weights)?, bytes: bytes(&weights) })
        };
        load().map_err(tell)
    }
}

/// Puts words into a box of the picture, with a GLIGEN model.
#[derive(Node)]
#[node(category = "conditioning/gligen", compute)]
struct GLIGENTextBoxApply {
    /// The prompts, which say what the whole picture shows.
    conditioning_to: Shared<Conditioning>,
    /// The text encoder.
    clip: Shared<Clip>,
    /// The GLIGEN model.
    gligen_textbox_model: Shared<TextBoxes>,
    /// What is to be in the box.
    #[input(multiline, dynamic_prompts)]
    text: PromptText,
    /// Width of the box in pixels.
    #[input(default = 64, range = 8..=MAX_SIZE, step = 8)]
    width: u32,
    /// Height of the box in pixels.
    #[input(default = 64, range = 8..=MAX_SIZE, step = 8)]
    height: u32,
    /// Distance of the box from the left in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    x: u32,
    /// Distance of the box from the top in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    y: u32,
}

impl Run for GLIGENTextBoxApply {
    type Output = Conditioning;

    fn run(self, cx: &Context<'_>) -> Result<Conditioning> {
        let encoders = self.clip.encoders().map_err(tell)?;
        let Ok(plain) = encoders.map(|part: &ClipText| Ok::<_, Infallible>(part.unprojected()));
        let clip = self.clip.with_encoders(plain, 0);
        let prompts: Vec<&str> = encoders.parts().iter().map(|_| self.text.text()).collect();
        let encoded = encode_once(&clip, &prompts, cx)?;
        let words = encoded.pooled.expect("an encoder sums words up");
        let wanted = self.gligen_textbox_model.layers.words_width();
        let found = words.dims().last().copied().unwrap_or_default();
        if found != wanted {
            return Err(tell(Error::Unfit {
                what: "the GLIGEN model",
                expected: format!("a text encoder of width {wanted}, that of Stable Diffusion 1"),
                found: format!("width {found}"),
            }));
        }
        let cells = |pixels: u32| pixels as usize / 8;
        let boxed = BoxedWords {
            words,
            height: cells(self.height),
            width: cells(self.width),
            y: cells(self.y),
            x: cells(self.x),
        };
        Ok(self.conditioning_to.map(|condition| {
            let mut boxes = condition.grounding.as_ref().map(|before| before.boxes.clone()).unwrap_or_default();
            boxes.push(boxed.clone());
            let layers = self.gligen_textbox_model.layers.clone();
            condition.grounding = Some(Arc::new(Grounding { layers, boxes }));
        }))
    }
}

/// Puts a hypernetwork on a model.
#[derive(Node)]
#[node(category = "loaders")]
struct HypernetworkLoader {
    /// The model.
    model: Shared<Model>,
    /// The hypernetwork, from `models/hypernetworks`.
    hypernetwork_name: ModelName<Hypernetworks>,
    /// How strongly it acts.
    #[input(default = 1.0, range = -10.0..=10.0, step = 0.01)]
    strength: f64,
}

impl Run for HypernetworkLoader {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        let load = || -> Result<Model, Error> {
            let weights = open(&self.hypernetwork_name.find(cx.services())?)?;
            Ok(self.model.patched(Hyper::load(&weights, self.strength)?))
        };
        load().map_err(tell)
    }
}
