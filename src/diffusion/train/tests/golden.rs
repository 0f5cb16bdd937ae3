//! Beside torch: `tests/golden/training.py` tells how the recordings were made.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};

use super::super::adamw::{Moments, Step};
use super::super::backward;
use super::super::batch::Chunk;
use super::super::frame::Frame;
use super::super::layer::Layer;
use super::super::trainer::attached;
use super::*;
use crate::nn::{Geometry, Layers as _, Weight, low_rank};
use crate::testing::{relative_error, uniform};

type Recorded = HashMap<String, Tensor>;

fn recording(name: &str) -> Recorded {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/training");
    candle_core::safetensors::load(format!("{folder}/{name}.safetensors"), &Device::Cpu).unwrap()
}

fn single(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::F32).unwrap()
}

/// The layers of the recording: name, weight's shape, input's shape, geometry.
fn cases() -> Vec<(String, Vec<usize>, Vec<usize>, Geometry)> {
    let mut cases = vec![("linear".to_owned(), vec![12, 9], vec![2, 5, 9], Geometry::Linear)];
    for (stride, before, after) in [(1, 1, 1), (2, 1, 1), (2, 0, 1)] {
        let geometry = Geometry::Conv2d { stride, before, after };
        cases.push((format!("conv {stride} {before} {after}"), vec![10, 6, 3, 3], vec![2, 5, 7, 6], geometry));
    }
    cases
}

fn method_of(name: &str, rank: usize) -> Method {
    match name {
        "para" => Method::Para { mode: ParaMode::Projection, rank, gamma: 1.0, init: Init::Random, angular_rate: 0.05 },
        "deft" => Method::Para { mode: ParaMode::Deft, rank, gamma: 1.0, init: Init::Random, angular_rate: 0.05 },
        "lora" => Method::Lora { rank, alpha: rank as f64, rate: 1e-3 },
        _ => Method::SvDiff { rate: 1e-3 },
    }
}

/// A layer in training with the numbers that the recording draws for it.
fn drawn_layer(name: &str, method: &str, weight: &Weight, rank: usize) -> Layer {
    let mut layer = Layer::new(&method_of(method, rank), weight, 1, 1).unwrap().unwrap();
    let inputs: usize = weight.shape()[1..].iter().product();
    for slot in &mut layer.slots {
        let scale = match slot.name {
            "down" => 1.0 / (inputs as f64).sqrt(),
            "delta" => 0.3,
            _ => 1.0,
        };
        slot.numbers = uniform(&format!("{name} {}", slot.name), slot.numbers.len())
            .into_iter()
            .map(|u| (scale * u) as f32)
            .collect();
        assert!(!slot.show(|| panic!("drawn directions are independent")).unwrap());
    }
    layer
}

/// `Σ tanh(W' x) · weights`, its gradients by the layer's numbers and by `x`.
fn run(case: &str, layer: &Layer, weight: &Weight, x: &Tensor) -> (Tensor, Vec<Vec<f32>>, Tensor) {
    let x = Var::from_tensor(x).unwrap();
    let y = layer.attach(weight, true).unwrap().forward(&x).unwrap();
    let weights = value(&format!("{case} weights"), y.dims(), 1.0);
    let gradients = (y.tanh().unwrap() * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let of = |slot: &super::super::layer::Slot| {
        let leaf: Vec<f32> = gradients.get(slot.leaf()).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        slot.gradient(&leaf)
    };
    (y.detach(), layer.slots.iter().map(of).collect(), gradients.get(&x).unwrap().clone())
}

fn drawn_weight(case: &str, shape: &[usize], geometry: Geometry) -> Weight {
    let scale = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
    Weight::of(case, geometry, value(&format!("{case} weight"), shape, scale))
}

#[test]
fn outputs_gradients_and_steps_of_one_layer_are_torch_s() {
    let recorded = recording("layers");
    let mut worst = 0.0_f64;
    for (case, shape, inputs, geometry) in cases() {
        let weight = drawn_weight(&case, &shape, geometry);
        let x = value(&format!("{case} x"), &inputs, 1.0);
        for method in ["para", "deft", "lora", "svdiff"] {
            let mut check = |what: &str, found: &[f32]| {
                let expected = single(&recorded[&format!("{case}.{method}.{what}")]);
                let found = Tensor::from_slice(found, expected.shape(), &Device::Cpu).unwrap();
                let error = relative_error(&found, &expected);
                worst = worst.max(error);
                assert!(error < 1e-5, "{case}, {method}, {what}: {error:.1e}");
            };
            let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let mut layer = drawn_layer(&case, method, &weight, 3);
            let (y, gradients, to_x) = run(&case, &layer, &weight, &x);
            check("output", &flat(&y));
            check("x_gradient", &flat(&to_x));
            // The changed weight gives the same output as what acts beside it.
            let baked = layer.attach(&weight, false).unwrap().baked().unwrap().forward(&x).unwrap();
            check("output", &flat(&baked));
            let mut moments: Vec<Moments> = layer.slots.iter().map(|slot| Moments::new(slot.numbers.len())).collect();
            for (slot, gradient) in layer.slots.iter().zip(&gradients) {
                check(&format!("{}_gradient", slot.name), gradient);
            }
            for number in 1..=10 {
                let (_, gradients, _) = run(&case, &layer, &weight, &x);
                let step = Step { number, rate: 1e-3, betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.01 };
                for ((slot, gradient), moments) in layer.slots.iter_mut().zip(&gradients).zip(&mut moments) {
                    moments.step(&mut slot.numbers, gradient, step);
                    slot.show(|| 0.0).unwrap();
                    if number == 1 || number == 10 {
                        check(&format!("{}_{number}", slot.name), &slot.numbers);
                    }
                }
            }
        }
    }
    println!("one layer: relative error at most {worst:.1e}");
}

/// In f64 and in candle's own operations: what is left is no rounding of f32.
#[test]
fn in_double_precision_a_projection_is_torch_s_to_the_last_digits() {
    let recorded = recording("layers");
    for (case, shape, inputs, geometry) in cases() {
        let double = |x: Tensor| x.to_dtype(DType::F64).unwrap();
        let weight = double(drawn_weight(&case, &shape, geometry).base().unwrap());
        let x = Var::from_tensor(&double(value(&format!("{case} x"), &inputs, 1.0))).unwrap();
        let rounded: Vec<f64> =
            uniform(&format!("{case} b"), 3 * shape[0]).into_iter().map(|u| f64::from(u as f32)).collect();
        let frame = Frame::of(&rounded, shape[0]).unwrap();
        let q = Var::from_slice(&frame.q, (3, shape[0]), &Device::Cpu).unwrap();
        let y = low_rank::project(&low_rank::down(&x, &weight, geometry).unwrap(), &q, 1.0).unwrap();
        let weights = double(value(&format!("{case} weights"), y.dims(), 1.0));
        let gradients = (y.tanh().unwrap() * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let to_q: Vec<f64> = gradients.get(&q).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let to_b = Tensor::from_vec(frame.back(&to_q), (3, shape[0]), &Device::Cpu).unwrap();
        let found = [("output", y.detach()), ("b_gradient", to_b), ("x_gradient", gradients.get(&x).unwrap().clone())];
        for (what, found) in found {
            let error = relative_error(&found, &recorded[&format!("{case}.para.{what}")]);
            assert!(error < 1e-13, "{case}, {what}: {error:.1e}");
        }
    }
}

#[test]
fn peft_s_projection_is_ours() {
    let recorded = recording("layers");
    let weight = drawn_weight("linear", &[12, 9], Geometry::Linear);
    let layer = drawn_layer("linear", "para", &weight, 3);
    let x = value("linear x", &[2, 5, 9], 1.0);
    let y = layer.attach(&weight, true).unwrap().forward(&x).unwrap();
    let y = y.broadcast_add(&value("linear bias", &[12], 1.0)).unwrap();
    let error = relative_error(&y.detach(), &single(&recorded["peft.output"]));
    assert!(error < 1e-6, "output: {error:.1e}");
    let loss = (y.tanh().unwrap() * value("linear weights", y.dims(), 1.0)).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let slot = &layer.slots[0];
    let leaf: Vec<f32> = gradients.get(slot.leaf()).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let gradient = Tensor::from_vec(slot.gradient(&leaf), (3, 12), &Device::Cpu).unwrap();
    let error = relative_error(&gradient, &single(&recorded["peft.b_gradient"]));
    assert!(error < 1e-5, "gradient: {error:.1e}");
}

#[test]
fn every_trained_tensor_of_a_unet_gets_torch_s_gradient() {
    let recorded = recording("unet");
    let golden = Golden::open("unet_deep");
    let unet = UNet::load(&golden.weights().part("model.diffusion_model.")).unwrap();
    let chunk = Chunk {
        x: value("x", &[2, 4, 12, 20], 1.5),
        timesteps: Tensor::from_slice(&[981.0_f32, 37.0], 2, &Device::Cpu).unwrap(),
        context: value("context", &[2, 77, 64], 1.5),
        label: None,
        target: value("target", &[2, 4, 12, 20], 1.0),
        weights: (value("weights", &[2, 1, 1, 1], 0.5) + 0.5).unwrap(),
    };
    for (method, rank) in [("para", 2), ("lora", 1), ("svdiff", 1)] {
        let mut layers = Vec::new();
        unet.clone().visit(&mut |weight| layers.push(drawn_layer(weight.layer(), method, weight, rank)));
        let attached = attached(&unet, &layers, true).unwrap();
        let slots = || layers.iter().flat_map(|layer| layer.slots.iter().map(move |slot| (layer, slot)));
        let leaves: Vec<&Tensor> = slots().map(|(_, slot)| slot.leaf()).collect();
        let expected_loss = f64::from(recorded[&format!("{method}.loss")].to_vec1::<f32>().unwrap()[0]);
        let (mut worst, mut compared) = (0.0_f64, 0);
        for by in [backward::whole, backward::by_blocks] {
            let (loss, gradients) = by(&attached, &chunk, &leaves).unwrap();
            assert!((loss - expected_loss).abs() < 1e-4 * expected_loss, "{method}: {loss} for {expected_loss}");
            for ((layer, slot), gradient) in slots().zip(gradients) {
                let key = format!("{method}.{}.{}", layer.name, slot.name);
                let gradient = slot.gradient(&gradient.unwrap_or_else(|| panic!("{key} has no gradient")));
                let expected = &recorded[&key];
                let found = Tensor::from_vec(gradient, expected.shape(), &Device::Cpu).unwrap();
                compared += 1;
                // A norm with a group a channel takes out what the timestep adds to it: there the gradient is zero, and torch
                // records the rounding of f64.
                let most =
                    |x: &Tensor| x.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
                let is_zero = layer.name.ends_with("emb_layers.1") && layer.outputs() == 32;
                assert_eq!(is_zero, most(expected) < 1e-9, "{key}");
                if is_zero {
                    assert!(most(&found) < 1e-4, "{key}: {}", most(&found));
                    continue;
                }
                let error = relative_error(&found, expected);
                worst = worst.max(error);
                assert!(error < 2e-3, "{key}: {error:.1e}");
            }
        }
        println!("{method}: {compared} gradients, relative error at most {worst:.1e}");
        let names = recorded.keys().filter(|key| key.starts_with(method) && !key.ends_with(".loss"));
        assert_eq!(compared, 2 * names.count(), "every recorded tensor is compared, twice");
    }
}
