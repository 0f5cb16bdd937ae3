//! The model that the program brings: what it draws is what diffusers draws with the same weights.

use crate::Previews;
use crate::testing::Bench;
use crate::tiny;
use crate::wires::{Image, Latent, Model, Para};
use candle_core::{DType, Device, Tensor};
use paraflow_diffusion::adapters::{self, Names, Part, Stage, Subset};
use paraflow_engine::{Event, Value};
use serde_json::json;
use std::fs;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/toyland/");

/// `tests/golden/toyland.py` recorded the whole way from the prompt's tokens to the picture. Measured: 2.7e-6 of the
/// latent, and one step of 255 where rounding falls the other way: 89 dB.
#[test]
fn toyland_draws_what_diffusers_draws_with_its_weights() {
    let bench = Bench::new();
    let outcome = bench.run(json!({
        "1": ["CheckpointLoaderSimple", {"ckpt_name": "toyland.safetensors"}],
        "2": ["CLIPTextEncode", {"text": "a red bear on the beach", "clip": ["1", 1]}],
        "3": ["CLIPTextEncode", {"text": "", "clip": ["1", 1]}],
        "4": ["EmptyLatentImage", {"width": 128, "height": 128, "batch_size": 1}],
        "5": ["KSampler", {
            "model": ["1", 0], "seed": 7, "steps": 20, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple",
            "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0], "denoise": 1.0,
        }],
        "6": ["VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}],
        "latent": ["Catch", {"value": ["5", 0]}],
        "picture": ["Catch", {"value": ["6", 0]}],
    }));
    let recorded = candle_core::safetensors::load(format!("{GOLDEN}latent.safetensors"), &Device::Cpu).unwrap();
    let wanted: Vec<f32> = recorded["latent"].flatten_all().unwrap().to_vec1().unwrap();
    let found: Vec<f32> = outcome.value::<Latent>("latent").samples().flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(found.len(), wanted.len());
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0_f32, |most, value| most.max(value.abs()));
    let error = largest(&mut found.iter().zip(&wanted).map(|(a, b)| a - b)) / largest(&mut wanted.iter().copied());

    let wanted = image::open(format!("{GOLDEN}picture.png")).unwrap().to_rgb8().into_raw();
    let pixels = outcome.value::<Image>("picture").pixels().to_dtype(DType::F32).unwrap();
    let found: Vec<f32> = (pixels * 255.0).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(found.len(), wanted.len());
    let apart = |(found, wanted): (&f32, &u8)| f64::from(found.round()) - f64::from(*wanted);
    let most = found.iter().zip(&wanted).map(apart).fold(0.0_f64, |most, apart| most.max(apart.abs()));
    let squares: f64 = found.iter().zip(&wanted).map(|pair| apart(pair).powi(2)).sum();
    let signal_to_noise = 10.0 * (255.0 * 255.0 * found.len() as f64 / squares).log10();
    println!("diffusers: latent {error:.1e}, picture at most {most} of 255 apart, {signal_to_noise:.1} dB");
    assert!(error < 1e-3 && most <= 2.0 && signal_to_noise > 55.0);
}

/// Peak signal to noise of two pictures, in dB.
fn psnr(a: &Image, b: &Image) -> f64 {
    let (a, b) = (a.values(0).unwrap(), b.values(0).unwrap());
    let square: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    -10.0 * (square / a.len() as f64).log10()
}

/// A PaRa of four directions for each layer but cross-attention, put on as it is, as the LoRA that it is exported to, and as
/// that LoRA's file.
#[test]
fn an_exported_lora_draws_the_picture_of_its_para() {
    let bench = Bench::new();
    let load = json!({"ckpt_name": "toyland.safetensors"});
    let model = bench.run(json!({"1": ["CheckpointLoaderSimple", load], "m": ["Catch", {"value": ["1", 0]}]}));
    let unet = model.value::<Model>("m").unet.clone();
    let (names, subset) = (Names::of(&unet, None), Subset::parse("exca").unwrap());
    let chosen = names.layers().iter().filter(|layer| layer.part == Part::Unet && subset.contains(layer));
    let stages = chosen.map(|layer| {
        let numbers: Vec<f32> = tiny::uniform(&layer.name, layer.shape[0] * 4).into_iter().map(|u| u as f32).collect();
        let columns = Tensor::from_vec(numbers, (layer.shape[0], 4), &Device::Cpu).unwrap();
        (layer.name.clone(), Stage::new(&layer.name, &columns, None).unwrap())
    });
    let para = adapters::Para::new(&names, stages, std::collections::BTreeMap::new()).unwrap();
    assert!(para.layers.len() > 40, "{} layers", para.layers.len());
    bench.give("para", Value::new(Para::Projection(para)));
    let mut graph = json!({
        "1": ["CheckpointLoaderSimple", load],
        "para": ["Give", {"name": "para"}],
        "export": ["PaRaToLoRA", {"model": ["1", 0], "para": ["para", 0], "dtype": "f32"}],
        "save": ["SaveLoRA", {"lora": ["export", 0], "prefix": "loras/exported"}],
        "with_para": ["PaRaApply", {"model": ["1", 0], "para": ["para", 0]}],
        "with_lora": ["LoraModelLoader", {"model": ["1", 0], "lora": ["export", 0], "strength_model": 1.0}],
        "prompt": ["CLIPTextEncode", {"text": "a red bear on the beach", "clip": ["1", 1]}],
        "none": ["CLIPTextEncode", {"text": "", "clip": ["1", 1]}],
        "canvas": ["EmptyLatentImage", {"width": 128, "height": 128, "batch_size": 1}],
    });
    draw(&mut graph, "base", "1");
    draw(&mut graph, "as_para", "with_para");
    draw(&mut graph, "as_lora", "with_lora");
    let drawn = bench.run(graph);
    let saved = fs::read(bench.path("output/loras/exported_00001_.safetensors")).unwrap();
    bench.write("models/loras/exported.safetensors", &saved);
    let mut graph = json!({
        "1": ["CheckpointLoaderSimple", load],
        "with_file": ["LoraLoader", {
            "model": ["1", 0], "clip": ["1", 1], "lora_name": "exported.safetensors", "strength_model": 1.0, "strength_clip": 1.0,
        }],
        "prompt": ["CLIPTextEncode", {"text": "a red bear on the beach", "clip": ["with_file", 1]}],
        "none": ["CLIPTextEncode", {"text": "", "clip": ["with_file", 1]}],
        "canvas": ["EmptyLatentImage", {"width": 128, "height": 128, "batch_size": 1}],
    });
    draw(&mut graph, "as_file", "with_file");
    let loaded = bench.run(graph);
    assert!(drawn.warnings().is_empty() && loaded.warnings().is_empty());
    let (base, para) = (drawn.value::<Image>("base"), drawn.value::<Image>("as_para"));
    let lora = psnr(&drawn.value::<Image>("as_lora"), &para);
    let file = psnr(&loaded.value::<Image>("as_file"), &para);
    let moved = psnr(&base, &para);
    println!("PaRa and its LoRA: {lora:.1} dB, its file: {file:.1} dB; PaRa and base: {moved:.1} dB");
    assert!(lora >= 60.0 && file >= 60.0 && moved < 30.0, "{lora} {file} {moved}");
}

/// Samples with a model and catches the picture under a name.
fn draw(graph: &mut serde_json::Value, name: &str, model: &str) {
    let (sampler, decoder) = (format!("{name} sampled"), format!("{name} decoded"));
    graph[&sampler] = json!(["KSampler", {
        "model": [model, 0], "seed": 7, "steps": 12, "cfg": 4.0, "sampler_name": "dpmpp_2m", "scheduler": "karras",
        "positive": ["prompt", 0], "negative": ["none", 0], "latent_image": ["canvas", 0], "denoise": 1.0,
    }]);
    graph[&decoder] = json!(["VAEDecode", {"samples": [sampler, 0], "vae": ["1", 2]}]);
    graph[name] = json!(["Catch", {"value": [decoder, 0]}]);
}

/// Toyland's autoencoder has latents of its own, in which Stable Diffusion's colours mean nothing.
#[test]
fn a_preview_has_the_colours_of_the_picture_that_comes() {
    let bench = Bench::with_service(Previews { size_px: 128, tiny: false });
    let graph = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../graphs/text-to-image.json")).unwrap();
    let outcome = bench.run_file(&graph);
    let mut previews = outcome.events.iter().filter_map(|event| match event {
        Event::Preview { image, .. } => Some(image::load_from_memory(image).unwrap().to_rgb8()),
        _ => None,
    });
    let last = previews.next_back().unwrap();
    let picture = image::open(bench.path("output/text-to-image_00001_.png")).unwrap().to_rgb8();
    assert_eq!(last.dimensions(), picture.dimensions());
    // The mean over each cell of 8 x 8 pixels.
    let coarse = |picture| image::imageops::resize(picture, 16, 16, image::imageops::FilterType::Triangle);
    let (shown, came) = (coarse(&last), coarse(&picture));
    let squares = shown.iter().zip(came.iter()).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    let error = (squares.sum::<f64>() / shown.len() as f64).sqrt();
    println!("preview: {error:.1} of 255 from the picture");
    assert!(error < 25.0, "{error}");
}
