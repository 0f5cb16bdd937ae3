//! The loop on a small network, and its numbers beside torch's.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use candle_core::Tensor;

use super::settings::plain;
use super::*;
use crate::error::{Error, Result};
use crate::nn::{Compute, layers};
use crate::schedule::{ModelSampling, Prediction};
use crate::testing::{Golden, elsewhere, value};
use crate::unet::UNet;

/// A network of every kind of layer, as narrow as its norms let it be.
struct Bench {
    unet: UNet,
    sampling: ModelSampling,
    subject: Vec<Example>,
}

impl Bench {
    fn new() -> Self {
        Self::on(&Compute::default())
    }

    fn on(compute: &Compute) -> Self {
        let golden = Golden::open("unet_narrow");
        let unet = UNet::load(&golden.weights().part("model.diffusion_model.").on(compute)).unwrap();
        let example = |index: usize| Example {
            latent: value(&format!("latent {index}"), &[1, 4, 8, 8], 5.0),
            context: value(&format!("context {index}"), &[1, 77, 160], 1.0),
            label: None,
        };
        let sampling = ModelSampling::stable_diffusion(Prediction::Epsilon);
        Self { unet, sampling, subject: (0..3).map(example).collect() }
    }

    /// Some layers of every kind: linear, convolution, strided, of the embedding.
    fn layers(&self) -> Vec<String> {
        let kinds = ["attn1.to_q", "attn2.to_v", "in_layers.2", "emb_layers.1", "op", "time_embed.0"];
        let names: Vec<String> = layers(&self.unet).into_iter().map(|(name, _)| name).collect();
        let first = |kind: &str| names.iter().find(|name| name.ends_with(kind)).cloned();
        kinds.into_iter().filter_map(first).collect()
    }

    fn train_on(&self, settings: &Settings, state: Option<&StateFile>, watch: &mut dyn Watch) -> Result<Trained> {
        let request = TrainRequest {
            unet: &self.unet,
            sampling: &self.sampling,
            latent_scale: 0.18215,
            subject: &self.subject,
            class: &[],
            empty: None,
            settings,
            state,
        };
        train(&request, watch)
    }

    fn train(&self, settings: &Settings) -> Result<Trained> {
        self.train_on(settings, None, &mut Log::default())
    }
}

/// Notes what it is told, and may stop after a step.
#[derive(Default)]
struct Log {
    reports: Vec<Report>,
    /// The steps of those that were drawn.
    samples: Vec<usize>,
    pictures: Vec<(usize, Tensor)>,
    warnings: Vec<String>,
    stop_after: Option<usize>,
    stop_at_sample: Option<usize>,
    /// What was reported before this process.
    before: Vec<Report>,
}

impl Watch for Log {
    fn step(&mut self, report: &Report) -> ControlFlow<()> {
        self.reports.push(*report);
        if self.stop_after == Some(report.step) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn resumed(&mut self, before: &[Report]) {
        self.before.extend(before);
    }

    fn sample(&mut self, step: usize, _: &UNet) -> ControlFlow<()> {
        self.samples.push(step);
        if self.stop_at_sample == Some(step) {
            return ControlFlow::Break(());
        }
        self.pictures.push((step, Tensor::full(step as f32, (1, 2, 3), &candle_core::Device::Cpu).unwrap()));
        ControlFlow::Continue(())
    }

    fn samples(&self) -> Vec<(usize, Tensor)> {
        self.pictures.clone()
    }

    fn restore(&mut self, step: usize, picture: Tensor) {
        self.pictures.push((step, picture));
    }

    fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }
}

fn para(mode: ParaMode, init: Init) -> Method {
    Method::Para { mode, rank: 3, gamma: 1.0, init, angular_rate: 0.05 }
}

fn methods() -> Vec<Method> {
    vec![
        para(ParaMode::Projection, Init::Random),
        para(ParaMode::Projection, Init::MinEnergy),
        para(ParaMode::Release, Init::Unit),
        para(ParaMode::Deft, Init::Random),
        Method::Lora { rank: 3, alpha: 3.0, rate: 1e-3 },
        Method::SvDiff { rate: 1e-2 },
        Method::Weights { rate: 1e-4 },
    ]
}

/// All numbers of a result, by name.
fn numbers(trained: &Trained) -> BTreeMap<String, Vec<u32>> {
    let tensors = trained
        .layers
        .iter()
        .flat_map(|layer| layer.tensors.iter().map(move |(name, tensor)| (format!("{}.{name}", layer.name), tensor)));
    let bits =
        |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect();
    tensors.map(|(name, tensor)| (name, bits(tensor))).collect()
}

#[test]
fn every_method_learns() {
    let bench = Bench::new();
    for method in methods() {
        let mut settings = plain(method, bench.layers());
        (settings.steps, settings.validate_every) = (6, 1);
        let trained = bench.train(&settings).unwrap();
        let validation: Vec<f32> = trained.losses.iter().map(|(_, validation)| validation.unwrap()).collect();
        println!("{method:?}: {validation:?}");
        assert!(validation[5] < validation[0], "{method:?}: {validation:?}");
        assert_eq!(trained.layers.len(), 6);
    }
}

/// Adam's first steps follow the gradients' signs, so the tolerance is that of the loss and not of each number.
#[test]
fn training_agrees_wherever_the_network_computes() {
    let losses = |compute: &Compute, method, checkpointing| {
        let bench = Bench::on(compute);
        let mut settings = plain(method, bench.layers());
        (settings.steps, settings.validate_every, settings.checkpointing) = (2, 1, checkpointing);
        let trained = bench.train(&settings).unwrap();
        let each = trained.losses.iter().map(|(loss, validation)| [*loss, validation.unwrap()]);
        each.collect::<Vec<_>>().concat()
    };
    for (method, checkpointing) in methods().into_iter().zip([true, false].into_iter().cycle()) {
        let expected = losses(&Compute::default(), method, checkpointing);
        for (place, compute, tolerance) in elsewhere() {
            let found = losses(&compute, method, checkpointing);
            for (found, expected) in found.iter().zip(&expected) {
                let error = f64::from((found - expected).abs() / expected);
                assert!(error < tolerance, "{place}, {method:?}: {found} for {expected}");
            }
        }
    }
}

/// The losses of a training that moves nothing.
fn losses_at_rest(bench: &Bench, class: &[Example], change: &dyn Fn(&mut Settings)) -> Vec<f64> {
    let mut settings = plain(Method::Lora { rank: 1, alpha: 1.0, rate: 1e-30 }, bench.layers());
    (settings.steps, settings.batch) = (1, 2);
    change(&mut settings);
    let request = TrainRequest {
        unet: &bench.unet,
        sampling: &bench.sampling,
        latent_scale: 0.18215,
        subject: &bench.subject,
        class,
        empty: None,
        settings: &settings,
        state: None,
    };
    let trained = train(&request, &mut Log::default()).unwrap();
    trained.losses.iter().map(|(loss, _)| f64::from(*loss)).collect()
}

#[test]
fn pictures_of_the_class_count_as_much_as_they_are_told_to() {
    let bench = Bench::new();
    let example = |index: usize| Example {
        latent: value(&format!("class {index}"), &[1, 4, 8, 8], 5.0),
        context: value(&format!("class context {index}"), &[1, 77, 160], 1.0),
        label: None,
    };
    let class: Vec<Example> = (0..5).map(example).collect();
    let with = |weight: f64| losses_at_rest(&bench, &class, &|it| it.prior_weight = weight)[0];
    let alone = losses_at_rest(&bench, &[], &|_| {})[0];
    let (once, thrice, none) = (with(1.0) - alone, with(3.0) - alone, with(0.0) - alone);
    println!("subject {alone}, class {once}");
    assert!(once > 0.01 * alone, "{once}");
    assert!((thrice - 3.0 * once).abs() < 1e-4 * thrice && none.abs() < 1e-5 * alone, "{once} {thrice} {none}");
}

#[test]
fn accumulated_batches_are_their_mean() {
    let bench = Bench::new();
    let one_by_one = losses_at_rest(&bench, &[], &|it| it.steps = 3);
    let together = losses_at_rest(&bench, &[], &|it| it.accumulate = 3)[0];
    let mean = one_by_one.iter().sum::<f64>() / 3.0;
    assert!((together - mean).abs() < 1e-5 * mean, "{together} {mean}");
}

#[test]
fn threads_change_no_bit() {
    let bench = Bench::new();
    for method in [para(ParaMode::Deft, Init::Random), Method::SvDiff { rate: 1e-2 }] {
        let mut settings = plain(method, bench.layers());
        (settings.steps, settings.batch, settings.accumulate) = (2, 3, 2);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            numbers(&pool.install(|| bench.train(&settings)).unwrap())
        };
        assert!(run(1) == run(3), "{method:?}");
    }
}

#[test]
fn a_training_that_was_stopped_anywhere_ends_with_the_same_bytes() {
    let bench = Bench::new();
    let dir = std::env::temp_dir().join(format!("paraflow-train-{}", std::process::id()));
    for (index, method) in methods().into_iter().enumerate() {
        let mut settings = plain(method, bench.layers());
        (settings.steps, settings.ema, settings.validate_every) = (4, 0.9, 2);
        (settings.caption_dropout, settings.noise_offset, settings.min_snr) = (0.3, 0.1, 5.0);
        let file = |name: &str| StateFile {
            path: dir.join(format!("{name}-{index}.para-state.safetensors")),
            every: 0,
            resume: true,
        };
        let (whole, parts) = (file("whole"), file("parts"));
        let mut whole_log = Log::default();
        let expected = bench.train_on(&settings, Some(&whole), &mut whole_log).unwrap();
        for stop in [1, 3] {
            let mut log = Log { stop_after: Some(stop), ..Log::default() };
            assert!(matches!(bench.train_on(&settings, Some(&parts), &mut log), Err(Error::Stopped)));
        }
        let mut log = Log::default();
        let found = bench.train_on(&settings, Some(&parts), &mut log).unwrap();
        assert_eq!(log.reports.len(), 1, "only the last step is left to do");
        assert_eq!([log.before, log.reports].concat(), whole_log.reports, "and what was reported before is told again");
        assert!(numbers(&found) == numbers(&expected), "{method:?}");
        assert_eq!(format!("{:?}", found.losses), format!("{:?}", expected.losses));
        assert!(std::fs::read(&parts.path).unwrap() == std::fs::read(&whole.path).unwrap(), "{method:?}");
        assert_eq!(bench.train_on(&settings, Some(&parts), &mut Log::default()).unwrap().losses.len(), 4, "all done");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_training_that_goes_on_has_the_sample_pictures_of_before() {
    let bench = Bench::new();
    let dir = std::env::temp_dir().join(format!("paraflow-samples-{}", std::process::id()));
    let state = StateFile { path: dir.join("a.para-state.safetensors"), every: 0, resume: true };
    let mut settings =
        plain(Method::Lora { rank: 2, alpha: 2.0, rate: 1e-3 }, vec!["middle_block.1.proj_in".to_owned()]);
    (settings.steps, settings.sample_every) = (5, 2);
    // At the fourth step it is stopped before its picture is drawn, then twice while it is drawn: when the training has just
    // come there, and when it goes on from there.
    for (stop, at_sample, drawn) in [
        (Some(3), None, &[2][..]),
        (None, Some(4), &[4]),
        (None, Some(4), &[4]),
        (None, None, &[4, 5]),
        (None, None, &[]),
    ] {
        let mut log = Log { stop_after: stop, stop_at_sample: at_sample, ..Log::default() };
        let ended = bench.train_on(&settings, Some(&state), &mut log);
        let stops = stop.is_some() || at_sample.is_some();
        assert_eq!(matches!(ended, Err(Error::Stopped)), stops);
        assert_eq!(log.samples, drawn);
        let steps: Vec<usize> = log.pictures.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, if stops { &[2][..] } else { &[2, 4, 5] });
        for (step, picture) in &log.pictures {
            assert_eq!(picture.dims(), [1, 2, 3]);
            assert_eq!(picture.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [*step as f32; 6]);
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_state_of_another_training_is_refused_and_a_broken_one_named() {
    let bench = Bench::new();
    let dir = std::env::temp_dir().join(format!("paraflow-state-{}", std::process::id()));
    let state = StateFile { path: dir.join("a.para-state.safetensors"), every: 1, resume: true };
    let mut settings =
        plain(Method::Lora { rank: 2, alpha: 2.0, rate: 1e-3 }, vec!["middle_block.1.proj_in".to_owned()]);
    settings.steps = 2;
    bench.train_on(&settings, Some(&state), &mut Log::default()).unwrap();
    settings.seed = 9;
    let error = bench.train_on(&settings, Some(&state), &mut Log::default()).unwrap_err().to_string();
    assert!(
        error.contains("a.para-state.safetensors` is the state of another training: `seed` was 1, and is 9"),
        "{error}"
    );
    settings.seed = 1;
    let mut other = Bench::new();
    other.subject.pop();
    let error = other.train_on(&settings, Some(&state), &mut Log::default()).unwrap_err().to_string();
    assert!(error.contains("its pictures, captions or model were others"), "{error}");
    settings.method = Method::Lora { rank: 3, alpha: 2.0, rate: 1e-3 };
    let error = bench.train_on(&settings, Some(&state), &mut Log::default()).unwrap_err().to_string();
    assert!(error.contains("`rank` was 2, and is 3"), "{error}");
    settings.method = Method::SvDiff { rate: 1e-3 };
    let error = bench.train_on(&settings, Some(&state), &mut Log::default()).unwrap_err().to_string();
    assert!(error.contains("`method` was Lora, and is SvDiff"), "{error}");
    settings.method = Method::Lora { rank: 2, alpha: 2.0, rate: 1e-3 };
    let whole = std::fs::read(&state.path).unwrap();
    std::fs::write(&state.path, &whole[..whole.len() - 9]).unwrap();
    let error = bench.train_on(&settings, Some(&state), &mut Log::default()).unwrap_err();
    assert!(matches!(error, Error::BadFile { .. }), "{error}");
    let again = StateFile { resume: false, ..state };
    bench.train_on(&settings, Some(&again), &mut Log::default()).unwrap();
    assert!(std::fs::read(&again.path).unwrap() == whole);
    std::fs::remove_dir_all(dir).unwrap();
}

/// Directions of a state that depend on each other are drawn anew, which is told; numbers that are none are refused.
#[test]
fn a_state_that_was_tampered_with_is_mended_or_refused() {
    let bench = Bench::new();
    let dir = std::env::temp_dir().join(format!("paraflow-tampered-{}", std::process::id()));
    let state = StateFile { path: dir.join("a.para-state.safetensors"), every: 0, resume: true };
    let layer = "middle_block.1.proj_in";
    let mut settings = plain(para(ParaMode::Projection, Init::Random), vec![layer.to_owned()]);
    settings.steps = 3;
    let stopped = Log { stop_after: Some(1), ..Log::default() };
    assert!(bench.train_on(&settings, Some(&state), &mut { stopped }).is_err());
    let whole = std::fs::read(&state.path).unwrap();
    let file = crate::nn::Weights::from_bytes("state", whole).unwrap();
    let changed = |change: &dyn Fn(&mut Vec<f32>)| {
        let tensor = |name: &str| {
            let tensor = file.tensor(name, file.shape(name).unwrap()).unwrap();
            let mut numbers: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            if name == format!("{layer}.b") {
                change(&mut numbers);
            }
            let tensor = Tensor::from_vec(numbers, tensor.shape(), &candle_core::Device::Cpu).unwrap();
            (name.to_owned(), tensor, crate::adapters::Store::F32)
        };
        let tensors: Vec<_> = file.names().map(tensor).collect();
        std::fs::write(&state.path, crate::adapters::write(&tensors, file.metadata()).unwrap()).unwrap();
    };
    for factor in [0.0, -2.0] {
        // The second of three directions becomes nothing, or the first.
        changed(&|numbers| {
            let width = numbers.len() / 3;
            let (first, others) = numbers.split_at_mut(width);
            others[..width].iter_mut().zip(first).for_each(|(to, from)| *to = factor * *from);
        });
        let mut log = Log { stop_after: Some(2), ..Log::default() };
        assert!(matches!(bench.train_on(&settings, Some(&state), &mut log), Err(Error::Stopped)));
        let told = format!("step 1: a direction of layer `{layer}` depended on others and was drawn anew");
        assert_eq!(log.warnings, [told]);
        assert!(log.reports[0].loss.is_finite());
    }
    changed(&|numbers| numbers[7] = f32::NAN);
    let error = bench.train_on(&settings, Some(&state), &mut Log::default()).unwrap_err().to_string();
    assert!(error.contains(&format!("`{layer}.b` of the training's state holds NaN")), "{error}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_state_that_cannot_be_written_costs_a_warning_and_not_the_training() {
    let bench = Bench::new();
    let state = StateFile { path: PathBuf::from("/dev/null/a.para-state.safetensors"), every: 1, resume: false };
    let mut settings =
        plain(Method::Lora { rank: 2, alpha: 2.0, rate: 1e-3 }, vec!["middle_block.1.proj_in".to_owned()]);
    settings.steps = 2;
    let mut log = Log::default();
    bench.train_on(&settings, Some(&state), &mut log).unwrap();
    assert_eq!(log.warnings.len(), 2);
    assert!(log.warnings[0].contains("the training's state cannot be written"), "{:?}", log.warnings);
}

#[test]
fn checkpointing_changes_memory_and_not_gradients() {
    let bench = Bench::new();
    for method in [para(ParaMode::Projection, Init::Random), Method::Lora { rank: 3, alpha: 3.0, rate: 1e-3 }] {
        let mut settings = plain(method, layers(&bench.unet).into_iter().map(|(name, _)| name).collect());
        settings.layers.retain(|name| name != "out.2");
        settings.steps = 2;
        let expected = bench.train(&settings).unwrap();
        settings.checkpointing = true;
        let found = bench.train(&settings).unwrap();
        for (found, expected) in found.layers.iter().zip(&expected.layers) {
            for ((name, found), (_, expected)) in found.tensors.iter().zip(&expected.tensors) {
                let worst = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
                let (worst, layer) = (worst.to_scalar::<f32>().unwrap(), &found.dims());
                assert!(worst < 2e-4, "{name} {layer:?}: {worst}");
            }
        }
        assert!((found.losses[1].0 - expected.losses[1].0).abs() < 1e-5);
    }
}

#[test]
fn a_training_that_diverges_names_step_and_layer_and_keeps_its_state() {
    let bench = Bench::new();
    let dir = std::env::temp_dir().join(format!("paraflow-diverge-{}", std::process::id()));
    let state = StateFile { path: dir.join("a.para-state.safetensors"), every: 0, resume: true };
    let mut settings = plain(Method::Weights { rate: 3.3e37 }, vec!["middle_block.1.proj_in".to_owned()]);
    settings.steps = 6;
    let error = bench.train_on(&settings, Some(&state), &mut Log::default()).unwrap_err();
    let Error::Training(Fault::Diverged { step, layer, .. }) = &error else { panic!("{error}") };
    assert!(*step == 2 && layer == "middle_block.1.proj_in", "{error}");
    assert!(state.path.exists());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_cannot_be_trained_is_told() {
    let bench = Bench::new();
    let told = |settings: &Settings| bench.train(settings).unwrap_err().to_string();
    let mut settings = plain(para(ParaMode::Projection, Init::Random), vec!["middle_block.1.proj_on".to_owned()]);
    let error = told(&settings);
    assert!(
        error.contains("no layer is called `middle_block.1.proj_on`") && error.contains("`middle_block.1.proj_in`")
    );
    settings.layers = vec!["out.2".to_owned()];
    let narrow =
        |rank, gamma| Method::Para { mode: ParaMode::Projection, rank, gamma, init: Init::Random, angular_rate: 0.1 };
    settings.method = narrow(2, 0.1);
    assert!(told(&settings).starts_with("none of the 1 chosen layers is trained: each is too narrow"));
    settings.method = narrow(4, 1.0);
    assert!(told(&settings).starts_with("layer `out.2` has 4 outputs, rank 4 would erase it"));
    settings.layers.clear();
    assert!(told(&settings).starts_with("none of the 0 chosen layers"));
    let request = TrainRequest {
        unet: &bench.unet,
        sampling: &bench.sampling,
        latent_scale: 1.0,
        subject: &[],
        class: &[],
        empty: None,
        settings: &settings,
        state: None,
    };
    let error = train(&request, &mut Log::default()).unwrap_err();
    assert!(matches!(error, Error::Training(Fault::EmptyDataset)), "{error}");
    settings.layers = vec!["out.2".to_owned(), "middle_block.1.proj_in".to_owned()];
    settings.method = narrow(64, 0.2);
    settings.steps = 1;
    let mut log = Log::default();
    let trained = bench.train_on(&settings, None, &mut log).unwrap();
    assert_eq!(log.warnings, trained.notes);
    assert!(trained.notes[0].starts_with("gamma 0.2 bounds the rank below 64 in 1 of 1 layers"), "{:?}", trained.notes);
    assert!(trained.notes[1].contains("leaves out 1 layers that are too narrow, `out.2` first"), "{:?}", trained.notes);
}

#[test]
fn samples_come_when_they_are_due_and_after_the_last_step() {
    let bench = Bench::new();
    let mut settings = plain(para(ParaMode::Projection, Init::Random), vec!["middle_block.1.proj_in".to_owned()]);
    (settings.steps, settings.sample_every) = (5, 2);
    let mut log = Log::default();
    bench.train_on(&settings, None, &mut log).unwrap();
    assert_eq!(log.samples, [2, 4, 5]);
    assert_eq!(log.reports.iter().map(|report| report.step).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

mod golden;
