//! Sample pictures of a training: whatever goes wrong with them, the training gives what it would have given without.

use super::trained::subject;
use super::*;
use crate::wires::Vae;
use paraflow_diffusion::nn::{Adapter, Geometry, Weights, attach};
use paraflow_engine::{Cancel, Event, Value};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// A training of three steps with a sample after each, saved, the samples saved too. `vae` gives the autoencoder.
fn training(vae: Json, settings: Json) -> Json {
    let mut inputs = json!({
        "model": ["1", 0], "clip": ["1", 1], "vae": vae, "subject": ["s", 0], "steps": 3, "batch_size": 1, "rank": 2,
        "gamma": 0.5, "layers": "middle_block.*", "validate_every": 0, "sample_steps": 1,
    });
    inputs.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    json!({
        "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
        "s": ["Give", {"name": "subject"}],
        "v": ["Give", {"name": "vae"}],
        "t": ["PaRaTrain", inputs],
        "saved": ["PaRaSave", {"para": ["t", 0], "filename_prefix": "loras/made"}],
        "pictures": ["SaveImage", {"images": ["t", 2], "filename_prefix": "sample"}],
    })
}

/// The tensors of the file that the last run saved.
fn made(bench: &Bench, number: u32) -> BTreeMap<String, Vec<u8>> {
    let file = Weights::open(bench.path(format!("output/loras/made_{number:05}_.safetensors"))).unwrap();
    file.names().map(|name| (name.to_owned(), file.bytes(name).unwrap().into_owned())).collect()
}

/// The steps of the sample pictures that were told.
fn told(outcome: &Outcome) -> Vec<u32> {
    let step = |event: &Event| if let Event::Sample { step, .. } = event { Some(*step) } else { None };
    outcome.events.iter().filter_map(step).collect()
}

fn ready(bench: &Bench) {
    bench.give("subject", subject());
    let model = bench.run(json!({
        "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}], "out": ["Catch", {"value": ["1", 2]}],
    }));
    bench.give("vae", Value::new((*model.value::<Vae>("out")).clone()));
}

/// Gives an autoencoder with that on the last layer of its decoder.
fn give_decoder(bench: &Bench, adapter: Arc<dyn Adapter>) {
    let model = bench.run(json!({
        "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}], "out": ["Catch", {"value": ["1", 2]}],
    }));
    let vae = model.value::<Vae>("out");
    let changed = attach(vae.autoencoder().unwrap(), &[("decoder.conv_out".to_owned(), adapter)]).unwrap();
    bench.give("vae", Value::new(Vae::new(Ok(changed), vae.numbers_per_pixel, 0)));
}

/// Three times the same warning, a step each, and no sample told or saved; the weights are those of `plain`.
fn only_warned(bench: &Bench, outcome: &Outcome, number: u32, plain: &BTreeMap<String, Vec<u8>>, why: &str) {
    assert_eq!(told(outcome), [] as [u32; 0], "{why}");
    let warnings: Vec<&str> = outcome.warnings().into_iter().filter(|text| text.contains("sample picture")).collect();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for (step, text) in (1..).zip(&warnings) {
        let start = format!("there is no sample picture of step {step}: ");
        assert!(text.starts_with(&start) && text.contains(why), "{why}: {text}");
    }
    assert!(made(bench, number) == *plain, "the weights are those of a training without samples: {why}");
    let shown = |event: &Event| matches!(event, Event::Output { node, .. } if node == "pictures");
    assert!(!outcome.events.iter().any(shown), "there is nothing to save");
    let blocked = |event: &Event| matches!(event, Event::Blocked { node, .. } if node == "pictures");
    assert!(outcome.events.iter().any(blocked), "what reads the samples is told why it is not run");
    assert!(outcome.events.iter().any(|event| matches!(event, Event::Done)), "the run is done");
}

/// An adapter that panics where it is asked.
struct Panics;

impl Adapter for Panics {
    fn weight(&self, _: &Tensor) -> paraflow_diffusion::Result<Tensor> {
        panic!("a layer fell over")
    }

    fn output(&self, _: Geometry, _: &Tensor, _: Tensor) -> paraflow_diffusion::Result<Tensor> {
        panic!("a layer fell over")
    }
}

#[test]
fn samples_change_nothing_and_nothing_of_them_ends_a_training() {
    let bench = bench();
    ready(&bench);
    let plain = bench.run(training(json!(["1", 2]), json!({"sample_every": 0})));
    assert!(plain.warnings().is_empty() && told(&plain).is_empty(), "{:?}", plain.warnings());
    let plain = made(&bench, 1);
    let sampled = bench.run(training(json!(["v", 0]), json!({"sample_every": 1})));
    assert!(sampled.warnings().is_empty(), "{:?}", sampled.warnings());
    assert_eq!(told(&sampled), [1, 2, 3]);
    assert_eq!(sampled.shown("pictures")["images"].as_array().unwrap().len(), 3, "one for each sample");
    assert!(made(&bench, 2) == plain, "samples change no bit");

    // Numbers that are none, in the decoder only.
    let broken = "first_stage_model.decoder.norm_out.weight";
    let holed = tiny::file(&tiny::tensors(), |name, mut values| {
        if name == broken {
            values[3] = f32::NAN;
        }
        values
    });
    bench.write("models/checkpoints/holed.safetensors", &holed);
    let mut graph = training(json!(["h", 2]), json!({"sample_every": 1}));
    graph["h"] = json!(["CheckpointLoaderSimple", {"ckpt_name": "holed.safetensors"}]);
    let outcome = bench.run(graph.clone());
    only_warned(&bench, &outcome, 3, &plain, "it holds NaN or infinite numbers; the training goes on");
    // Decoded by itself, such a picture is an error.
    let told_plainly = bench.run(json!({
        "h": graph["h"].clone(),
        "e": ["EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}],
        "d": ["VAEDecode", {"samples": ["e", 0], "vae": ["h", 2]}],
        "out": ["Catch", {"value": ["d", 0]}],
    }));
    let text = told_plainly.failure().1.to_string();
    assert_eq!(text, "decoded picture 1 of 1 holds NaN or infinite numbers");

    // A panic.
    give_decoder(&bench, Arc::new(Panics));
    let outcome = bench.run(training(json!(["v", 0]), json!({"sample_every": 1})));
    only_warned(&bench, &outcome, 4, &plain, "the program panicked (a layer fell over)");
}

/// A sample prompt that cannot be read: the training goes on without samples, and says why.
#[test]
fn a_sample_prompt_that_cannot_be_read_is_a_warning() {
    let bench = bench();
    ready(&bench);
    bench.run(training(json!(["v", 0]), json!({"sample_every": 0})));
    let plain = made(&bench, 1);
    bench.write("models/embeddings/torn.safetensors", b"{\"no\": header");
    let prompt = json!({"sample_every": 1, "sample_prompt": "a {unique} in the style of embedding:torn"});
    let outcome = bench.run(training(json!(["v", 0]), prompt));
    let [warning] = outcome.warnings()[..] else { panic!("{:?}", outcome.warnings()) };
    let start = "`sample_prompt` cannot be read, so the training goes on without sample pictures: ";
    assert!(warning.starts_with(start) && warning.contains("torn.safetensors"), "{warning}");
    assert!(told(&outcome).is_empty() && made(&bench, 2) == plain);
    // Nothing of a sample is read where none is wanted.
    let prompt = json!({"sample_every": 0, "sample_prompt": "embedding:torn"});
    assert!(bench.run(training(json!(["v", 0]), prompt)).warnings().is_empty());
}

/// No memory for the decoder: the training, which needs it not, goes on.
#[test]
fn a_sample_without_room_for_it_is_a_warning() {
    let bench = Bench::with_memory(1 << 16);
    bench.write("models/checkpoints/tiny.safetensors", tiny::checkpoint());
    ready(&bench);
    bench.run(training(json!(["v", 0]), json!({"sample_every": 0})));
    let plain = made(&bench, 1);
    let outcome = bench.run(training(json!(["v", 0]), json!({"sample_every": 1})));
    only_warned(&bench, &outcome, 2, &plain, "decoding 64 x 64 pixels needs about");
}

/// Stops the run where it is asked for the second time.
#[derive(Default)]
struct Stops {
    cancel: OnceLock<Cancel>,
    asked: AtomicUsize,
}

impl Adapter for Stops {
    fn weight(&self, base: &Tensor) -> paraflow_diffusion::Result<Tensor> {
        Ok(base.clone())
    }

    fn output(&self, _: Geometry, _: &Tensor, y: Tensor) -> paraflow_diffusion::Result<Tensor> {
        if self.asked.fetch_add(1, Ordering::SeqCst) == 1 {
            self.cancel.get().unwrap().cancel();
        }
        Ok(y)
    }
}

/// Stopped while a sample is drawn, a training keeps the step before it and draws the sample when it goes on.
#[test]
fn a_training_that_is_stopped_while_it_draws_goes_on_with_that_sample_and_its_whole_curve() {
    let bench = bench();
    ready(&bench);
    bench.run(training(json!(["1", 2]), json!({"sample_every": 1})));
    let stops = Arc::new(Stops::default());
    give_decoder(&bench, stops.clone());
    let settings = json!({"sample_every": 1, "state": "kept", "save_every": 0});
    let steps = |outcome: &Outcome| {
        let step = |event: &Event| if let Event::Loss { point, .. } = event { Some(point.step) } else { None };
        outcome.events.iter().filter_map(step).collect::<Vec<_>>()
    };
    let stopped = bench.run_until(training(json!(["v", 0]), settings.clone()), |_, cancel| {
        let _ = stops.cancel.set(cancel.clone());
    });
    assert!(stopped.events.iter().any(|event| matches!(event, Event::Cancelled)));
    assert!(stopped.warnings().is_empty(), "{:?}", stopped.warnings());
    assert_eq!((steps(&stopped), told(&stopped)), (vec![1, 2], vec![1]));
    let rest = bench.run(training(json!(["v", 0]), settings));
    assert_eq!(steps(&rest), [1, 2, 3], "the points of before are told again, then the new one");
    assert_eq!(told(&rest), [2, 3]);
    assert_eq!(rest.shown("pictures")["images"].as_array().unwrap().len(), 3, "that of before is among them");
    assert!(made(&bench, 1) == made(&bench, 2), "to the byte that of a training that was not stopped");
}
