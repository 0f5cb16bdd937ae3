//! How long training steps take on a model of Toyland's size: four pictures of 128 pixels, every layer but cross-attention.
//!
//! `cargo bench -p paraflow-diffusion --bench training` measures on all cores; `RAYON_NUM_THREADS=1` on one. The counter is
//! steps.

mod drawn;

use divan::Bencher;
use divan::counter::ItemsCount;
use paraflow_diffusion::nn::Compute;
use paraflow_diffusion::workload::{Training, Workload};

fn main() {
    divan::main();
}

const STEPS: usize = 5;

fn steps(bencher: Bencher<'_, '_>, work: impl Fn(Training) -> Workload, checkpointing: bool) {
    let work = work(Training { side: 16, batch: 4, checkpointing });
    let file = drawn::golden("unet_narrow.json");
    let mut prepared = work.prepare(Some(&file), &Compute::default()).expect("a whole UNet");
    bencher.counter(ItemsCount::new(STEPS)).bench_local(|| prepared(STEPS).expect("finite numbers"));
}

#[divan::bench(sample_count = 10)]
fn para_step(bencher: Bencher<'_, '_>) {
    steps(bencher, Workload::Para, false);
}

#[divan::bench(sample_count = 10)]
fn para_step_checkpointed(bencher: Bencher<'_, '_>) {
    steps(bencher, Workload::Para, true);
}

#[divan::bench(sample_count = 10)]
fn lora_step(bencher: Bencher<'_, '_>) {
    steps(bencher, Workload::Lora, false);
}

#[divan::bench(sample_count = 10)]
fn svdiff_step(bencher: Bencher<'_, '_>) {
    steps(bencher, Workload::SvDiff, false);
}
