//! Whole checkpoints of each family against ComfyUI's: see `tests/golden/families.py`.

use crate::testing::Bench;
use crate::tiny;
use crate::wires::{Conditioning, Latent, Model};
use candle_core::{Device, Tensor};
use paraflow_diffusion::guidance::Picture;
use paraflow_engine::{Shared, Value};
use serde_json::json;
use std::collections::HashMap;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/families/");

struct Family {
    prompt: String,
    negative: String,
    file: Vec<u8>,
}

fn family(name: &str) -> Family {
    let text = std::fs::read_to_string(format!("{GOLDEN}{name}.json")).unwrap();
    let listing: serde_json::Value = serde_json::from_str(&text).unwrap();
    let tensors: tiny::Tensors = serde_json::from_value(listing["tensors"].clone()).unwrap();
    let text = |key: &str| listing[key].as_str().unwrap().to_owned();
    Family { prompt: text("prompt"), negative: text("negative"), file: tiny::drawn_by_name(&tensors) }
}

fn error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let length = |x: &Tensor| f64::from(x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()).sqrt();
    length(&(found - expected).unwrap()) / length(expected)
}

/// Rounding comes to about 1e-6; a wrong layer, norm or label to a tenth and more.
const BOUND: f64 = 1e-4;

fn check(name: &str) {
    let recorded = candle_core::safetensors::load(format!("{GOLDEN}tensors.safetensors"), &Device::Cpu).unwrap();
    let recorded: HashMap<&str, &Tensor> =
        recorded.iter().filter_map(|(key, x)| Some((key.strip_prefix(name)?.strip_prefix('/')?, x))).collect();
    let Family { prompt, negative, file } = family(name);
    let bench = Bench::new();
    bench.write("models/checkpoints/model.safetensors", &file);
    let outcome = bench.run(json!({
        "load": ["CheckpointLoaderSimple", {"ckpt_name": "model.safetensors"}],
        "positive": ["CLIPTextEncode", {"text": prompt, "clip": ["load", 1]}],
        "negative": ["CLIPTextEncode", {"text": negative, "clip": ["load", 1]}],
        "a": ["Catch", {"value": ["positive", 0]}],
        "b": ["Catch", {"value": ["negative", 0]}],
        "model": ["Catch", {"value": ["load", 0]}],
    }));
    let mut sides: [Shared<Conditioning>; 2] = [outcome.value("a"), outcome.value("b")];
    let places = Tensor::arange_step(0_u32, 77, 7, &Device::Cpu).unwrap();
    let cond = sides[0].0[0].condition.context.index_select(&places, 1).unwrap();
    let of_cond = error(&cond, recorded["cond"]);
    let of_pooled = error(sides[0].0[0].pooled.as_ref().unwrap(), recorded["pooled"]);

    if matches!(name, "inpaint" | "instruct") {
        let mask = (name == "inpaint").then(|| ((value("mask", &[1, 1, 64, 96], 1.0) + 1.0).unwrap() / 2.0).unwrap());
        let picture = Picture { latent: Some(value("picture", &[1, 4, 8, 12], 3.0)), mask, ..Picture::default() };
        sides = sides.map(|side| Shared::new(side.with_picture(&picture)));
    }
    if name == "upscaler" {
        sides = enlarging(&sides, [0.0, 0.0]);
    }
    let model: Shared<Model> = outcome.value("model");
    bench.give("model", Value::new(model));
    let of_end = error(&sampled(&bench, &sides), recorded["end"]);
    println!("{name}: prompt {of_cond:.1e}, pooled {of_pooled:.1e}, sampling {of_end:.1e}");
    assert!(of_cond < BOUND && of_pooled < BOUND && of_end < BOUND, "{name}: {of_cond} {of_pooled} {of_end}");
    if let Some(noised) = recorded.get("noised") {
        let of_noised = error(&sampled(&bench, &enlarging(&sides, [0.4, 0.15])), noised);
        println!("{name}: sampling beside a noised picture {of_noised:.1e}");
        assert!(of_noised < BOUND, "{name}: {of_noised}");
    }
}

/// The prompts with a picture to enlarge, and with so much noise on it.
fn enlarging(sides: &[Shared<Conditioning>; 2], noise: [f64; 2]) -> [Shared<Conditioning>; 2] {
    [0, 1].map(|side| {
        let small = Some(value("small", &[2, 3, 10, 9], 1.0));
        let picture = Picture { small, noise: noise[side], ..Picture::default() };
        Shared::new(sides[side].with_picture(&picture))
    })
}

/// What a model that the bench has makes of these prompts.
fn sampled(bench: &Bench, [positive, negative]: &[Shared<Conditioning>; 2]) -> Tensor {
    bench.give("positive", Value::new(Shared::clone(positive)));
    bench.give("negative", Value::new(Shared::clone(negative)));
    bench.give("latent", Value::new(Latent::new(value("latent", &[1, 4, 8, 12], 2.0)).unwrap()));
    let outcome = bench.run(json!({
        "model": ["Give", {"name": "model"}],
        "positive": ["Give", {"name": "positive"}],
        "negative": ["Give", {"name": "negative"}],
        "latent": ["Give", {"name": "latent"}],
        "sample": ["KSampler", {
            "model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0],
            "seed": 7, "steps": 4, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 0.8,
        }],
        "end": ["Catch", {"value": ["sample", 0]}],
    }));
    outcome.value::<Latent>("end").samples().clone()
}

fn value(key: &str, shape: &[usize], scale: f64) -> Tensor {
    let count = shape.iter().product();
    let numbers: Vec<f32> = tiny::uniform(key, count).into_iter().map(|u| (scale * u) as f32).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

#[test]
fn stable_diffusion_2_is_comfyuis() {
    check("sd2");
}

#[test]
fn sdxl_is_comfyuis() {
    check("sdxl");
}

#[test]
fn the_refiner_is_comfyuis() {
    check("refiner");
}

#[test]
fn inpainting_models_are_comfyuis() {
    check("inpaint");
}

#[test]
fn instruct_pix2pix_is_comfyuis() {
    check("instruct");
}

#[test]
fn the_upscaler_is_comfyuis() {
    check("upscaler");
}
