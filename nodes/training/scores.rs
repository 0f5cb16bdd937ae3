//! How alike pictures are, and how well they fit a prompt, by networks that the user supplies.

use crate::error::{Error, tell};
use crate::files::{Folder, ModelName, Place};
use crate::wires::Image;
use candle_core::Tensor;
use paraflow_diffusion::nn::Weights;
use paraflow_diffusion::text::Activation;
use paraflow_diffusion::vision::{ClipPair, Vision, mean_cosine};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared, Shown};
use serde_json::json;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<CLIPScore>(), NodeDef::of::<DINOScore>()]
}

/// `models/clip_vision`.
struct VisionModels;

impl Folder for VisionModels {
    const KEY: &'static str = "clip_vision";
}

/// The nonlinearity of CLIP's blocks.
#[derive(Clone, Copy)]
struct Nonlinearity(Option<Activation>);

impl std::str::FromStr for Nonlinearity {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        Ok(Self(match name {
            "auto" => None,
            "quick_gelu" => Some(Activation::QuickGelu),
            "gelu" => Some(Activation::Gelu),
            _ => return Err("no such nonlinearity"),
        }))
    }
}

/// Measures by CLIP how well pictures fit a prompt (CLIP-T), or how alike they are to other pictures (CLIP-I): the mean cosine
/// of their vectors, 1 for equal ones.
///
/// CLIP itself is not shipped: put the `model.safetensors` of one, such as openai/clip-vit-base-patch32, into
/// `models/clip_vision`. Radford et al. 2021, Hessel et al. 2021.
#[derive(Node)]
#[node(category = "personalize", display_name = "CLIP Score", sink, compute, outputs = ["score"])]
struct CLIPScore {
    /// The pictures to judge.
    images: Shared<Image>,
    /// A file of CLIP in `models/clip_vision`, with its text half if a prompt is judged.
    model_name: ModelName<VisionModels>,
    /// What the pictures should show. It is taken literally and has no part in it where there are `references`.
    #[input(default = "", multiline)]
    prompt: String,
    /// The nonlinearity of the network, which its file does not tell. `auto` takes `quick_gelu`, which all of OpenAI's have, and
    /// `gelu` for wider ones than ViT-L. OpenCLIP's have `gelu`.
    #[input(default = "auto", choices = ["auto", "quick_gelu", "gelu"])]
    activation: Choice<Nonlinearity>,
    /// Pictures to compare with in place of a prompt, every one with every one of `images`.
    references: Option<Shared<Image>>,
}

impl Run for CLIPScore {
    type Output = Shown<f64>;

    fn run(self, cx: &Context<'_>) -> Result<Shown<f64>> {
        let score = || -> Result<(f64, &str), Error> {
            let clip = ClipPair::load(&open(&self.model_name, cx)?, self.activation.0)?;
            let vectors = embed(&self.images, cx, &|picture| clip.embed(picture))?;
            let (other, what) = match &self.references {
                Some(references) => (embed(references, cx, &|picture| clip.embed(picture))?, "CLIP-I"),
                None if self.prompt.trim().is_empty() => {
                    let expected = "what the pictures should show, or pictures on `references`".to_owned();
                    return Err(Error::Unfit { what: "`prompt`", expected, found: "neither".to_owned() });
                }
                None => (clip.embed_text(self.prompt.trim())?, "CLIP-T"),
            };
            Ok((mean_cosine(&vectors, &other)?, what))
        };
        let (score, what) = score().map_err(tell)?;
        Ok(Shown(score, json!({"text": [format!("{what} {score:.4}")]})))
    }
}

/// Measures by DINO how alike pictures are in what they show, down to the individual: the mean cosine of the vectors of every
/// picture with every other, 1 for equal ones.
///
/// DINO itself is not shipped: put the `model.safetensors` of one, such as facebook/dino-vits16 or facebook/dinov2-small, into
/// `models/clip_vision`. Caron et al. 2021, Oquab et al. 2023.
#[derive(Node)]
#[node(category = "personalize", display_name = "DINO Score", sink, compute, outputs = ["score"])]
struct DINOScore {
    /// The pictures to judge.
    images: Shared<Image>,
    /// Pictures of the individual that they should show.
    references: Shared<Image>,
    /// A file of DINO or DINOv2 in `models/clip_vision`.
    model_name: ModelName<VisionModels>,
}

impl Run for DINOScore {
    type Output = Shown<f64>;

    fn run(self, cx: &Context<'_>) -> Result<Shown<f64>> {
        let score = || -> Result<(f64, &str), Error> {
            let dino = Vision::load(&open(&self.model_name, cx)?, Activation::Gelu)?;
            if dino.name() == "CLIP" {
                let expected = "a file of DINO or DINOv2".to_owned();
                return Err(Error::Unfit {
                    what: "DINOScore",
                    expected,
                    found: "CLIP, which CLIPScore takes".to_owned(),
                });
            }
            let vectors = embed(&self.images, cx, &|picture| dino.embed(picture))?;
            let references = embed(&self.references, cx, &|picture| dino.embed(picture))?;
            Ok((mean_cosine(&vectors, &references)?, dino.name()))
        };
        let (score, what) = score().map_err(tell)?;
        Ok(Shown(score, json!({"text": [format!("{what} {score:.4}")]})))
    }
}

fn open(name: &ModelName<VisionModels>, cx: &Context<'_>) -> Result<Weights, Error> {
    Ok(match name.find(cx.services())? {
        Place::File(model) => Weights::open(&model.path)?,
        Place::Embedded(model) => Weights::from_bytes(model.name, model.file()?)?,
    })
}

/// A vector for each picture, one by one, so that many take no more memory than one.
fn embed(
    image: &Image,
    cx: &Context<'_>,
    network: &dyn Fn(&Tensor) -> paraflow_diffusion::Result<Tensor>,
) -> Result<Tensor, Error> {
    let colours = super::judge::colours(image)?;
    let one = |index| -> Result<Tensor, Error> {
        cx.check().map_err(|_| paraflow_diffusion::Error::Stopped)?;
        Ok(network(&colours.narrow(0, index, 1)?)?)
    };
    let vectors = (0..image.dims().0).map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::cat(&vectors, 0)?)
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use crate::tiny::{self, Tensors};
    use crate::wires::Image;
    use candle_core::{Device, Tensor};
    use paraflow_engine::{Json, Value};
    use serde_json::json;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/vision/");

    fn bench() -> Bench {
        let bench = Bench::new();
        let listing: Json =
            serde_json::from_str(&std::fs::read_to_string(format!("{GOLDEN}models.json")).unwrap()).unwrap();
        for model in ["clip", "dino", "dino2"] {
            let shapes: Tensors = serde_json::from_value(listing["models"][model].clone()).unwrap();
            bench.write(&format!("models/clip_vision/{model}.safetensors"), &tiny::drawn_by_name(&shapes));
        }
        for (name, count) in [("one", 1), ("three", 3)] {
            let numbers: Vec<f32> =
                tiny::uniform(name, count * 60 * 50 * 3).into_iter().map(|u| (u as f32 + 1.0) / 2.0).collect();
            let pixels = Tensor::from_vec(numbers, (count, 60, 50, 3), &Device::Cpu).unwrap();
            bench.give(name, Value::new(Image::new(pixels).unwrap()));
        }
        bench
    }

    fn score(class: &str, inputs: Json) -> Result<(f64, String), String> {
        let bench = bench();
        let outcome = bench.run(json!({
            "one": ["Give", {"name": "one"}],
            "three": ["Give", {"name": "three"}],
            "s": [class, inputs],
            "out": ["Catch", {"value": ["s", 0]}],
        }));
        let failed = outcome.events.iter().any(|event| matches!(event, paraflow_engine::Event::Failed { .. }));
        if failed {
            return Err(outcome.failure().1.to_string());
        }
        let text = outcome.shown("s")["text"][0].as_str().unwrap().to_owned();
        Ok((*outcome.caught("out").get::<f64>().unwrap(), text))
    }

    #[test]
    fn equal_pictures_have_a_cosine_of_one_and_others_less() {
        for (class, model) in [("CLIPScore", "clip"), ("DINOScore", "dino"), ("DINOScore", "dino2")] {
            let model = format!("{model}.safetensors");
            let of = |references: &str| {
                score(class, json!({"images": ["one", 0], "references": [references, 0], "model_name": model})).unwrap()
            };
            let (same, text) = of("one");
            assert!((same - 1.0).abs() < 1e-5, "{model}: {same}");
            assert!(text.ends_with("1.0000"), "{text}");
            let (other, _) = of("three");
            assert!(other < 0.9999 && other > -1.0, "{model}: {other}");
        }
    }

    #[test]
    fn a_prompt_is_judged_too_and_what_cannot_be_is_told() {
        let clip = |inputs: Json| {
            let mut all = json!({"images": ["three", 0], "model_name": "clip.safetensors"});
            all.as_object_mut().unwrap().extend(inputs.as_object().unwrap().clone());
            score("CLIPScore", all)
        };
        let (bear, text) = clip(json!({"prompt": "a bear"})).unwrap();
        assert!(text.starts_with("CLIP-T") && bear.abs() <= 1.0, "{text}");
        assert_ne!(bear, clip(json!({"prompt": "a duck"})).unwrap().0);
        assert_ne!(bear, clip(json!({"prompt": "a bear", "activation": "gelu"})).unwrap().0);
        assert!(clip(json!({})).unwrap_err().contains("expects what the pictures should show"));
        let wrong = json!({"images": ["one", 0], "references": ["one", 0], "model_name": "clip.safetensors"});
        assert!(score("DINOScore", wrong).unwrap_err().contains("CLIP, which CLIPScore takes"));
        assert!(
            clip(json!({"model_name": "dino.safetensors", "prompt": "x"})).unwrap_err().contains("no CLIP in this")
        );
    }
}
