//! Nodes against ComfyUI's, on small values: each case of `tests/golden/nodes/behaviour.json`.

use crate::testing::{Bench, Outcome};
use crate::vae::prepare_for_inpainting;
use crate::wires::{Conditioning, Image, Latent, Mask, Prompt, Sigmas};
use candle_core::{Device, Tensor};
use paraflow_engine::{Cancel, Context, Json, Services, Shared, Value};
use serde_json::json;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/nodes/");

struct Golden {
    cases: Json,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    fn open() -> Self {
        let cases = std::fs::read_to_string(format!("{GOLDEN}behaviour.json")).unwrap();
        let tensors = candle_core::safetensors::load(format!("{GOLDEN}behaviour.safetensors"), &Device::Cpu).unwrap();
        Self { cases: serde_json::from_str(&cases).unwrap(), tensors }
    }

    fn tensor(&self, name: &str) -> Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("{name} was not recorded")).clone()
    }

    /// The value that a wire carries, `kind:name`.
    fn value(&self, wire: &str) -> Value {
        let (kind, name) = wire.split_once(':').unwrap();
        let tensor = self.tensor(name);
        match kind {
            "IMAGE" => Value::new(Image::new(tensor).unwrap()),
            "MASK" => Value::new(Mask::new(tensor).unwrap()),
            "LATENT" => Value::new(self.latent(name)),
            "SIGMAS" => Value::new(Sigmas(tensor.to_vec1().unwrap())),
            "CONDITIONING" => {
                let pooled = tensor.narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
                Value::new(Conditioning(vec![Prompt::new(tensor, Some(pooled))]))
            }
            _ => panic!("{wire}"),
        }
    }

    fn latent(&self, name: &str) -> Latent {
        let mut latent = Latent::new(self.tensor(name)).unwrap();
        if let Some(mask) = self.tensors.get(&format!("{name}/noise_mask")) {
            latent = latent.with_noise_mask(mask.clone()).unwrap();
        }
        match self.cases["places"][name].as_array() {
            Some(places) => latent.with_places(places.iter().map(|place| place.as_u64().unwrap() as usize).collect()),
            None => latent,
        }
    }
}

#[test]
fn nodes_do_what_comfyuis_do() {
    let golden = Golden::open();
    let cases = golden.cases["cases"].as_array().unwrap();
    assert!(cases.len() >= 155);
    // All that differ, not the first alone.
    let differs = |case: &&Json| catch_unwind(AssertUnwindSafe(|| compare_case(&golden, case))).is_err();
    let differing: Vec<_> =
        cases.iter().filter(differs).map(|case| format!("{} {}", case["class"], case["literals"])).collect();
    assert!(differing.is_empty(), "{differing:#?}");
}

fn compare_case(golden: &Golden, case: &Json) {
    let class = case["class"].as_str().unwrap();
    if class == "VAEEncodeForInpaint" {
        compare_inpainting(golden, case);
        return;
    }
    let bench = Bench::new();
    let mut inputs = case["literals"].clone();
    let mut graph = json!({});
    for (name, wire) in case["wires"].as_object().unwrap() {
        bench.give(name, golden.value(wire.as_str().unwrap()));
        graph[name] = json!(["Give", {"name": name}]);
        inputs[name] = json!([name, 0]);
    }
    graph["node"] = json!([class, inputs]);
    let outputs = case["outputs"].as_array().unwrap();
    for slot in 0..outputs.len() {
        graph[slot.to_string()] = json!(["Catch", {"value": ["node", slot]}]);
    }
    let outcome = bench.run(graph);
    for (slot, expected) in outputs.iter().enumerate() {
        compare_output(golden, &format!("{class} {}", case["literals"]), &outcome, slot, expected);
    }
}

fn compare_output(golden: &Golden, case: &str, outcome: &Outcome, slot: usize, expected: &Json) {
    if let Some(value) = expected.get("value") {
        let found: Option<Json> = outcome.caught(&slot.to_string()).to_json();
        assert_eq!(found.as_ref(), Some(value), "{case}");
        return;
    }
    let (slot, name) = (slot.to_string(), expected["tensor"].as_str().unwrap());
    match expected["kind"].as_str().unwrap() {
        "IMAGE" => same(case, outcome.value::<Image>(&slot).pixels(), &golden.tensor(name)),
        "MASK" => same(case, outcome.value::<Mask>(&slot).values(), &golden.tensor(name)),
        "SIGMAS" => {
            let found = outcome.value::<Sigmas>(&slot).0.clone();
            let expected = golden.tensor(name).to_vec1::<f32>().unwrap();
            assert_eq!(found.len(), expected.len(), "{case}");
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 2e-6 * b.abs();
            assert!(found.iter().zip(&expected).all(near), "{case}: {found:?} for {expected:?}");
        }
        "CONDITIONING" => {
            let found: Shared<Conditioning> = outcome.value(&slot);
            same(case, &found.0[0].condition.context, &golden.tensor(name));
            let pooled = golden.tensor(expected["pooled"].as_str().unwrap());
            same(case, found.0[0].pooled.as_ref().unwrap(), &pooled);
        }
        _ => {
            let found: Shared<Latent> = outcome.value(&slot);
            same(case, found.samples(), &golden.tensor(name));
            let places: Option<Vec<u64>> =
                found.batch_index().map(|places| places.iter().map(|place| *place as u64).collect());
            assert_eq!(json!(places), expected["batch_index"], "{case}: places in the batch");
            match (found.noise_mask(), golden.tensors.get(&format!("{name}/noise_mask"))) {
                (Some(found), Some(expected)) => same(case, found, expected),
                (None, None) => {}
                (found, _) => panic!("{case}: the noise mask is {found:?}"),
            }
        }
    }
}

/// The pictures that go into the autoencoder, and the noise mask; the recording's autoencoder hands on what it gets.
fn compare_inpainting(golden: &Golden, case: &Json) {
    let tensor = |wire: &str| golden.tensor(case["wires"][wire].as_str().unwrap().split_once(':').unwrap().1);
    let (pixels, mask) = (Image::new(tensor("pixels")).unwrap(), Mask::new(tensor("mask")).unwrap());
    let grow = case["literals"]["grow_mask_by"].as_u64().unwrap() as usize;
    let (services, cancel) = (Services::new(), Cancel::new());
    let cx = Context::alone(&services, &cancel, &|_| {});
    let (planes, noise_mask) = prepare_for_inpainting(&pixels, &mask, grow, 8, &cx).unwrap();
    let expected = case["outputs"][0]["tensor"].as_str().unwrap();
    same("inpainting", &planes.permute((0, 2, 3, 1)).unwrap(), &golden.tensor(expected));
    same(&format!("mask grown by {grow}"), &noise_mask, &golden.tensor(&format!("{expected}/noise_mask")));
}

/// Within the rounding of a few operations. Resizing itself is compared to the bit in `diffusion`.
fn same(case: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims(), "{case}");
    let worst = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    let worst = worst.to_scalar::<f32>().unwrap();
    assert!(worst <= 2e-6, "{case} is off by {worst}");
}
