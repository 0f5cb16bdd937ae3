//! How long the networks take, and the convolution that most of it is, beside candle's own.
//!
//! `cargo bench -p paraflow-diffusion` measures on all cores; `RAYON_NUM_THREADS=1` on one.

mod drawn;

use candle_core::{Device, Tensor};
use divan::Bencher;
use divan::counter::ItemsCount;
use drawn::{file, golden, numbers};
use paraflow_diffusion::nn::{Conv2d, Mask, attention};
use paraflow_diffusion::unet::UNet;
use paraflow_diffusion::vae::Vae;

fn main() {
    divan::main();
}

fn tensor(shape: &[usize]) -> Tensor {
    Tensor::from_vec(numbers(shape.iter().product()), shape, &Device::Cpu).expect("as many numbers as the shape has")
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
