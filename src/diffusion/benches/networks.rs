//! How long the networks take, and the convolution that most of it is, beside candle's own.
//!
//! `cargo bench -p paraflow-diffusion` measures on all cores; `RAYON_NUM_THREADS=1` on one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use divan::Bencher;
use divan::counter::ItemsCount;
use paraflow_diffusion::nn::{Conv2d, Mask, Weights, attention};
use paraflow_diffusion::unet::UNet;
use paraflow_diffusion::vae::Vae;
use safetensors::tensor::{Dtype, TensorView};

fn main() {
    divan::main();
}

/// Numbers in [-1, 1) that look random.
fn numbers(count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / 8_388_608.0 - 1.0).collect()
}

fn tensor(shape: &[usize]) -> Tensor {
    Tensor::from_vec(numbers(shape.iter().product()), shape, &Device::Cpu).expect("as many numbers as the shape has")
}

/// A file with small numbers in these tensors.
fn file(tensors: &BTreeMap<String, Vec<usize>>) -> Weights {
    let fill = |(name, shape): (&String, &Vec<usize>)| {
        let bytes: Vec<u8> = numbers(shape.iter().product()).iter().flat_map(|x| (0.05 * x).to_le_bytes()).collect();
        (name.clone(), shape.clone(), bytes)
    };
    let filled: Vec<_> = tensors.iter().map(fill).collect();
    let view = |(name, shape, bytes): &'static (String, Vec<usize>, Vec<u8>)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many bytes as the shape has"))
    };
    let bytes = safetensors::serialize(filled.leak().iter().map(view), None).expect("fits in memory");
    Weights::from_bytes("bench.safetensors", bytes).expect("written a line ago")
}

/// The tensors of a recorded network.
fn golden(case: &str) -> Weights {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/networks")).join(case);
    let listing = std::fs::read_to_string(path).expect("the recordings are beside the code");
    let mut listing: serde_json::Value = serde_json::from_str(&listing).expect("a listing of tensors");
    file(&serde_json::from_value(listing["tensors"].take()).expect("names and shapes"))
}

/// A step of a model of Toyland's size: both halves of guidance at 128 pixels.
#[divan::bench]
fn unet_step(bencher: Bencher<'_, '_>) {
    let unet = UNet::load(&golden("unet_narrow.json").part("model.diffusion_model.")).expect("a whole UNet");
    let (x, timesteps, context) = (tensor(&[2, 4, 16, 16]), tensor(&[2]), tensor(&[2, 77, 160]));
    bencher.bench_local(|| unet.forward(&x, &timesteps, &context, None).expect("shapes that fit"));
}

/// A picture of 128 pixels out of a narrow autoencoder.
#[divan::bench]
fn vae_decode(bencher: Bencher<'_, '_>) {
    let vae = Vae::load(&golden("vae.json").part("first_stage_model.")).expect("a whole autoencoder");
    let latent = tensor(&[1, 4, 16, 16]);
    bencher.bench_local(|| vae.decode(&latent).expect("shapes that fit"));
}

/// The convolution of Stable Diffusion 1.5's second level, 15.1 GFLOP; the counter is FLOP.
const CONV: (usize, usize, usize) = (2, 32, 640);

fn flop() -> ItemsCount {
    let (batch, side, channels) = CONV;
    ItemsCount::new(2 * batch * side * side * channels * channels * 9)
}

#[divan::bench(sample_count = 10)]
fn conv_ours(bencher: Bencher<'_, '_>) {
    let (batch, side, channels) = CONV;
    let tensors = [("weight", vec![channels, channels, 3, 3]), ("bias", vec![channels])];
    let weights = file(&tensors.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect());
    let conv = Conv2d::load(&weights, channels, channels, 3).expect("a whole layer");
    let x = tensor(&[batch, side, side, channels]);
    bencher.counter(flop()).bench_local(|| conv.forward(&x).expect("shapes that fit"));
}

#[divan::bench(sample_count = 10)]
fn conv_candle(bencher: Bencher<'_, '_>) {
    let (batch, side, channels) = CONV;
    let (x, weight) = (tensor(&[batch, channels, side, side]), tensor(&[channels, channels, 3, 3]));
    bencher.counter(flop()).bench_local(|| x.conv2d(&weight, 1, 1, 1, 1).expect("shapes that fit"));
}

/// Self-attention of Stable Diffusion 1.5's first level at 512 pixels: 4096 tokens, 8 heads of 40; the counter is FLOP.
#[divan::bench(sample_count = 10)]
fn attention_ours(bencher: Bencher<'_, '_>) {
    let x = tensor(&[1, 4096, 320]);
    let count = ItemsCount::new(4usize * 4096 * 4096 * 320);
    bencher.counter(count).bench_local(|| attention(&x, &x, &x, 8, Mask::None).expect("shapes that fit"));
}
