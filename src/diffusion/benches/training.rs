//! How long training steps take on a model of Toyland's size: four pictures of 128 pixels, every layer but cross-attention.
//!
//! `cargo bench -p paraflow-diffusion --bench training` measures on all cores; `RAYON_NUM_THREADS=1` on one. The counter is
//! steps.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use divan::Bencher;
use divan::counter::ItemsCount;
use paraflow_diffusion::nn::{Weights, layers};
use paraflow_diffusion::schedule::{ModelSampling, Prediction};
use paraflow_diffusion::train::{Decay, Example, Init, Method, ParaMode, Report, Settings, TrainRequest, Watch, train};
use paraflow_diffusion::unet::UNet;
use safetensors::tensor::{Dtype, TensorView};

fn main() {
    divan::main();
}

const STEPS: usize = 5;

/// Numbers in [-1, 1) that look random.
fn numbers(count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / 8_388_608.0 - 1.0).collect()
}

fn tensor(shape: &[usize]) -> Tensor {
    Tensor::from_vec(numbers(shape.iter().product()), shape, &Device::Cpu).expect("as many numbers as the shape has")
}

/// A network of the recorded one's measures with small numbers.
fn unet() -> UNet {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/networks/unet_narrow.json"));
    let listing = std::fs::read_to_string(path).expect("the recordings are beside the code");
    let mut listing: serde_json::Value = serde_json::from_str(&listing).expect("a listing of tensors");
    let tensors: BTreeMap<String, Vec<usize>> =
        serde_json::from_value(listing["tensors"].take()).expect("names and shapes");
    let fill = |(name, shape): (&String, &Vec<usize>)| {
        let bytes: Vec<u8> = numbers(shape.iter().product()).iter().flat_map(|x| (0.05 * x).to_le_bytes()).collect();
        (name.clone(), shape.clone(), bytes)
    };
    let filled: Vec<_> = tensors.iter().map(fill).collect();
    let view = |(name, shape, bytes): &'static (String, Vec<usize>, Vec<u8>)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many bytes as the shape has"))
    };
    let bytes = safetensors::serialize(filled.leak().iter().map(view), None).expect("fits in memory");
    let weights = Weights::from_bytes("bench.safetensors", bytes).expect("written a line ago");
    UNet::load(&weights.part("model.diffusion_model.")).expect("a whole UNet")
}

struct Silent;

impl Watch for Silent {
    fn step(&mut self, _: &Report) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn sample(&mut self, _: usize, _: &UNet) {}

    fn warn(&mut self, _: String) {}
}

fn steps(bencher: Bencher<'_, '_>, method: Method, checkpointing: bool) {
    let unet = unet();
    let names = layers(&unet).into_iter().map(|(name, _)| name);
    let adapted = |name: &String| {
        let attention = name.contains(".attn1.");
        let residual = ["in_layers.2", "out_layers.3", "emb_layers.1", "skip_connection", "op", "conv"];
        attention || residual.iter().any(|end| name.ends_with(end))
    };
    let settings = Settings {
        method,
        layers: names.filter(adapted).collect(),
        steps: STEPS,
        batch: 4,
        accumulate: 1,
        warmup: 0,
        decay: Decay::Constant,
        betas: (0.9, 0.999),
        epsilon: 1e-8,
        weight_decay: 0.0,
        clip: 1.0,
        min_snr: 0.0,
        noise_offset: 0.0,
        caption_dropout: 0.0,
        prior_weight: 1.0,
        ema: 0.0,
        checkpointing,
        validate_every: 0,
        sample_every: 0,
        seed: 1,
    };
    let sampling = ModelSampling::stable_diffusion(Prediction::Epsilon);
    let example = Example { latent: tensor(&[1, 4, 16, 16]), context: tensor(&[1, 77, 160]), label: None };
    let subject = vec![example; 4];
    let request = TrainRequest {
        unet: &unet,
        sampling: &sampling,
        latent_scale: 0.18215,
        subject: &subject,
        class: &[],
        empty: None,
        settings: &settings,
        state: None,
    };
    bencher.counter(ItemsCount::new(STEPS)).bench_local(|| train(&request, &mut Silent).expect("finite numbers"));
}

fn para(mode: ParaMode) -> Method {
    Method::Para { mode, rank: 4, gamma: 0.125, init: Init::Random, angular_rate: 0.05 }
}

#[divan::bench(sample_count = 10)]
fn para_step(bencher: Bencher<'_, '_>) {
    steps(bencher, para(ParaMode::Projection), false);
}

#[divan::bench(sample_count = 10)]
fn para_step_checkpointed(bencher: Bencher<'_, '_>) {
    steps(bencher, para(ParaMode::Projection), true);
}

#[divan::bench(sample_count = 10)]
fn lora_step(bencher: Bencher<'_, '_>) {
    steps(bencher, Method::Lora { rank: 4, alpha: 4.0, rate: 1e-3 }, false);
}

#[divan::bench(sample_count = 10)]
fn svdiff_step(bencher: Bencher<'_, '_>) {
    steps(bencher, Method::SvDiff { rate: 1e-2 }, false);
}
