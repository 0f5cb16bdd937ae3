//! The model that the program brings: what it draws is what diffusers draws with the same weights.

use crate::Previews;
use crate::testing::Bench;
use crate::wires::{Image, Latent};
use candle_core::{DType, Device};
use paraflow_engine::Event;
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
