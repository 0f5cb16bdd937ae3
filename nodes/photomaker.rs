//! PhotoMaker: a prompt in which one word stands for the person in a picture.

use crate::conditioning::encode_without;
use crate::error::{Error, tell};
use crate::files::{Folder, ModelName, Place};
use crate::loaders::bytes;
use crate::prompt::PromptText;
use crate::vision::require_colours;
use crate::wires::{Clip, Conditioning, Face, Image};
use paraflow_diffusion::text::CONTEXT;
use paraflow_diffusion::vision::PhotoMaker;
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};
use std::path::Path;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<PhotoMakerEncode>(), NodeDef::of::<PhotoMakerLoader>()]
}

/// The word that stands for the person. It is found where spaces are on both sides of it, or the text's ends.
const WORD: &str = "photomaker";

/// `models/photomaker`.
struct PhotoMakers;

impl Folder for PhotoMakers {
    const KEY: &'static str = "photomaker";

    fn examine(file: &Path) -> Result<(), Error> {
        PhotoMaker::open(file)?;
        Ok(())
    }
}

/// Loads a network that puts the person in a picture into a prompt for SDXL.
#[derive(Node)]
#[node(category = "_for_testing/photomaker", experimental)]
struct PhotoMakerLoader {
    /// The network, from `models/photomaker`: the first version's `id_encoder` as safetensors.
    photomaker_model_name: ModelName<PhotoMakers>,
}

impl Run for PhotoMakerLoader {
    type Output = Face;

    fn run(self, cx: &Context<'_>) -> Result<Face> {
        let load = || -> Result<Face, Error> {
            let weights = match self.photomaker_model_name.find(cx.services())? {
                Place::File(model) => PhotoMaker::open(&model.path)?,
                place @ Place::Embedded(_) => crate::loaders::open(&place)?,
            };
            Ok(Face { network: PhotoMaker::load(&weights)?, bytes: bytes(&weights) })
        };
        load().map_err(tell)
    }
}

/// Turns a prompt into what SDXL understands, with the word `photomaker` in it standing for the person in a picture.
///
/// The word needs a space on each side, or an end of the text. Every word before it should be one of CLIP's tokens: the person
/// is put where as many tokens come before as words do.
#[derive(Node)]
#[node(category = "_for_testing/photomaker", compute, experimental)]
struct PhotoMakerEncode {
    /// The network.
    photomaker: Shared<Face>,
    /// The person. Of several pictures the first.
    image: Shared<Image>,
    /// SDXL's text encoders.
    clip: Shared<Clip>,
    /// What the picture should show.
    #[input(multiline, dynamic_prompts, default = "photograph of photomaker")]
    text: PromptText,
}

impl Run for PhotoMakerEncode {
    type Output = Conditioning;

    fn run(self, cx: &Context<'_>) -> Result<Conditioning> {
        let text = self.text.text();
        let place = text.split(' ').position(|word| word == WORD);
        if place.is_some() {
            self.require_width().map_err(tell)?;
        }
        // ComfyUI's doing: the number of the word is taken for that of a stretch of words of equal weight, which is left out.
        let mut prompt = encode_without(&self.clip, text, place.map(|place| place + 1), cx)?;
        let Some(place) = place else {
            cx.warn("the text has no word `photomaker` between spaces, so the person is not in it");
            return Ok(Conditioning(vec![prompt]));
        };
        cx.check()?;
        let put = || -> Result<Option<_>, Error> {
            require_colours(&self.image)?;
            let context = &prompt.condition.context;
            if context.dim(1)? > CONTEXT {
                return Err(Error::Unfit {
                    what: "PhotoMaker",
                    expected: format!("a text of at most {} tokens: shorten it", CONTEXT - 2),
                    found: format!("one that takes {} with those around it", context.dim(1)?),
                });
            }
            if place >= CONTEXT {
                return Ok(None);
            }
            Ok(Some(self.photomaker.network.put(self.image.pixels(), context, place)?))
        };
        match put().map_err(tell)? {
            Some(context) => prompt.condition.context = context,
            None => cx.warn("the word `photomaker` comes too late in the text, so the person is not in it"),
        }
        let pictures = self.image.dims().0;
        if pictures > 1 {
            cx.warn(format!("PhotoMakerEncode looks at the first of the {pictures} pictures only"));
        }
        Ok(Conditioning(vec![prompt]))
    }
}

impl PhotoMakerEncode {
    fn require_width(&self) -> Result<(), Error> {
        let (wanted, found) = (self.photomaker.network.width(), self.clip.encoders()?.width());
        if wanted == found {
            return Ok(());
        }
        Err(Error::Unfit {
            what: "PhotoMaker",
            expected: format!("SDXL's two text encoders, of width {wanted} together"),
            found: format!("text encoders of width {found}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use crate::tiny;
    use candle_core::{Device, Tensor};
    use paraflow_diffusion::nn::{Kept, Weights};
    use paraflow_diffusion::text::{ClipText, Encoders, SD1, SDXL_G, SDXL_L};
    use paraflow_engine::{Json, Value};
    use serde_json::json;
    use std::collections::HashMap;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/photomaker/");

    /// Rounding comes to about 1e-6; a word at another place or other tokens to a tenth and more.
    const BOUND: f64 = 1e-4;

    struct Golden {
        listing: Json,
        tensors: HashMap<String, Tensor>,
        texts: Vec<u8>,
    }

    impl Golden {
        fn open() -> Self {
            let listing = std::fs::read_to_string(format!("{GOLDEN}models.json")).unwrap();
            let listing: Json = serde_json::from_str(&listing).unwrap();
            let tensors = candle_core::safetensors::load(format!("{GOLDEN}tensors.safetensors"), &Device::Cpu).unwrap();
            let texts = tiny::drawn_by_name(&serde_json::from_value(listing["texts"].clone()).unwrap());
            Self { listing, tensors, texts }
        }

        /// A bench with the network, two text encoders side by side, one alone, and the pictures.
        fn bench(&self) -> Bench {
            let bench = Bench::new();
            let shapes = serde_json::from_value(self.listing["id_encoder"].clone()).unwrap();
            bench.write("models/photomaker/narrow.safetensors", &tiny::drawn_by_name(&shapes));
            let texts = Weights::from_bytes("texts", self.texts.clone()).unwrap().keeping(Kept::Half);
            let text = |name: &str, family| ClipText::load(&texts.part(name), family).unwrap();
            let both = Encoders::new(vec![text("l/", SDXL_L), text("g/", SDXL_G)]);
            bench.give("clip", Value::new(Clip::new(Ok(both), 0)));
            bench.give("small", Value::new(Clip::new(Ok(Encoders::new(vec![text("l/", SD1)])), 0)));
            for (name, shape) in self.listing["pictures"].as_object().unwrap() {
                let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
                let numbers = tiny::uniform(&format!("picture/{name}"), shape.iter().product());
                // The recording adds in single precision.
                let numbers: Vec<f32> = numbers.into_iter().map(|u| (u as f32 + 1.0) / 2.0).collect();
                let picture = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap();
                bench.give(name, Value::new(Image::new(picture).unwrap()));
            }
            let grey = Tensor::zeros((1, 8, 8, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
            bench.give("grey", Value::new(Image::new(grey).unwrap()));
            bench
        }
    }

    fn graph(file: &str, clip: &str, picture: &str, text: &str) -> Json {
        json!({
            "load": ["PhotoMakerLoader", {"photomaker_model_name": file}],
            "clip": ["Give", {"name": clip}],
            "image": ["Give", {"name": picture}],
            "encode": ["PhotoMakerEncode", {
                "photomaker": ["load", 0], "image": ["image", 0], "clip": ["clip", 0], "text": text,
            }],
            "out": ["Catch", {"value": ["encode", 0]}],
        })
    }

    fn error(found: &Tensor, expected: &Tensor) -> f64 {
        assert_eq!(found.dims(), expected.dims());
        let length = |x: &Tensor| f64::from(x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()).sqrt();
        length(&(found - expected).unwrap()) / length(expected)
    }

    /// See `tests/golden/photomaker.py`.
    #[test]
    fn prompts_with_a_person_are_comfyuis() {
        let golden = Golden::open();
        let bench = golden.bench();
        let places: Vec<u32> = serde_json::from_value(golden.listing["places"].clone()).unwrap();
        let mut worst = 0_f64;
        for (name, case) in golden.listing["cases"].as_object().unwrap() {
            let (text, picture) = (case["text"].as_str().unwrap(), case["picture"].as_str().unwrap());
            let outcome = bench.run(graph("narrow.safetensors", "clip", picture, text));
            let prompt = outcome.value::<Conditioning>("out").0[0].clone();
            let context = &prompt.condition.context;
            assert_eq!(context.dim(1).unwrap() as u64, case["tokens"].as_u64().unwrap(), "{name}");
            let chunks = (0..context.dim(1).unwrap() as u32).step_by(CONTEXT);
            let all: Vec<u32> = chunks.flat_map(|start| places.iter().map(move |place| start + place)).collect();
            let found = context.index_select(&Tensor::new(all, &Device::Cpu).unwrap(), 1).unwrap();
            let recorded = &golden.tensors[&format!("{name}/cond")];
            let of_pooled = error(prompt.pooled.as_ref().unwrap(), &golden.tensors[&format!("{name}/pooled")]);
            let of_token = (0..recorded.dim(1).unwrap())
                .map(|at| error(&found.narrow(1, at, 1).unwrap(), &recorded.narrow(1, at, 1).unwrap()));
            let of_tokens = of_token.fold(0.0, f64::max);
            println!("{name}: every token within {of_tokens:.1e}, pooled {of_pooled:.1e}");
            worst = worst.max(of_tokens).max(of_pooled);
            let told = outcome.warnings().join("; ");
            for (fact, cases) in [
                ("no word `photomaker`", &["absent", "long"][..]),
                ("comes too late", &["far"]),
                ("first of the 2 pictures", &["first"]),
            ] {
                assert_eq!(told.contains(fact), cases.contains(&name.as_str()), "{name}: {told}");
            }
        }
        assert!(worst < BOUND, "{worst}");
    }

    #[test]
    fn the_person_is_in_one_word_and_nowhere_else() {
        let golden = Golden::open();
        let bench = golden.bench();
        let context = |picture: &str| {
            let outcome = bench.run(graph("narrow.safetensors", "clip", picture, "photograph of photomaker"));
            outcome.value::<Conditioning>("out").0[0].condition.context.clone()
        };
        let (one, other) = (context("wide"), context("square"));
        for place in 0..CONTEXT {
            let at = |x: &Tensor| x.narrow(1, place, 1).unwrap();
            let changed = error(&at(&one), &at(&other)) > 0.0;
            assert_eq!(changed, place == 2, "{place}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let golden = Golden::open();
        let bench = golden.bench();
        let failed =
            |file: &str, clip: &str, picture: &str, text: &str| bench.refusal(graph(file, clip, picture, text));
        let long = format!("photomaker {}", "a bear ".repeat(60));
        for (told, expected) in [
            (
                failed("narrow.safetensors", "small", "wide", "photomaker"),
                "expects SDXL's two text encoders, of width 128",
            ),
            (failed("narrow.safetensors", "clip", "wide", &long), "a text of at most 75 tokens"),
            (failed("narrow.safetensors", "clip", "grey", "photomaker"), "pictures of three colours"),
        ] {
            assert!(told.contains(expected), "{told:?}: {expected}");
        }
        // Without the word nothing is asked of the encoders.
        let plain = bench.run(graph("narrow.safetensors", "small", "wide", "a bear"));
        assert_eq!(plain.value::<Conditioning>("out").0[0].condition.context.dims(), [1, CONTEXT, 64]);
        bench.write("models/photomaker/other.safetensors", tiny::checkpoint());
        let fault = failed("other.safetensors", "clip", "wide", "photomaker");
        assert!(fault.contains("there is no PhotoMaker id encoder"), "{fault}");
        bench.write("models/photomaker/photomaker-v1.bin", b"PK\x03\x04photomaker-v1/data.pkl");
        let fault = failed("photomaker-v1.bin", "clip", "wide", "photomaker");
        assert!(fault.contains("is a pickle"), "{fault}");
    }
}
