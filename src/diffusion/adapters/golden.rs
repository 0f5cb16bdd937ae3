//! The LoRA family against ComfyUI and PEFT, and our files in theirs and theirs in ours: see `tests/golden/adapters.py`.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde_json::{Map, Value};

use super::tests::{layers_of, sd1, sdxl};
use super::*;
use crate::nn::{Geometry, Weight, Weights};
use crate::testing::{Golden, relative_error, uniform, value};
use crate::unet::UNet;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/adapters/");

fn listing(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(format!("{GOLDEN}{name}.json")).unwrap()).unwrap()
}

fn recorded(file: &str, key: &str) -> Tensor {
    let file = Weights::open(format!("{GOLDEN}{file}.safetensors")).unwrap();
    file.tensor(key, file.shape(key).unwrap()).unwrap()
}

fn shape_of(value: &Value) -> Vec<usize> {
    serde_json::from_value(value.clone()).unwrap()
}

/// A model that has the recorded layers only.
fn names(layers: &Map<String, Value>) -> Names {
    let (mut unet, mut text) = (Vec::new(), Vec::new());
    for (name, layer) in layers {
        let key = layer["key"].as_str().unwrap();
        // A convolution of one pixel is held as the matrix that it is.
        let shape = if name == "pixel" { vec![8, 6] } else { shape_of(&layer["shape"]) };
        if let Some(layer) = key.strip_prefix("diffusion_model.") {
            unet.push((layer.to_owned(), shape));
        } else {
            let (part, layer) = key.split_once(".transformer.text_model.").unwrap();
            let part = if part == "clip_l" { Part::TextL } else { Part::TextG };
            text.push((part, vec![(layer.to_owned(), shape)]));
        }
    }
    Names::new(&sd1(), unet, text)
}

/// The case's file: its tensors drawn from their names.
fn file(name: &str, case: &Value) -> Weights {
    let module = case["module"].as_str().unwrap();
    let mut tensors = Vec::new();
    for (end, shape) in case["tensors"].as_object().unwrap() {
        let shape = shape_of(shape);
        let offset = if end == "dora_scale" || end.contains("magnitude") { 2.0 } else { 0.0 };
        let numbers = uniform(&format!("{name}/{end}"), shape.iter().product());
        let numbers: Vec<f32> = numbers.into_iter().map(|u| (0.5 * u + offset) as f32).collect();
        let key = if end.starts_with("_lora") { format!("{module}{end}") } else { format!("{module}.{end}") };
        tensors.push((key, Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap(), Store::F32));
    }
    if let Some(alpha) = case["alpha"].as_f64() {
        tensors.push((format!("{module}.alpha"), Tensor::new(alpha as f32, &Device::Cpu).unwrap(), Store::F32));
    }
    Weights::from_bytes(name, Arc::<[u8]>::from(write(&tensors, &BTreeMap::new()).unwrap())).unwrap()
}

/// ComfyUI's `comfy/weight_adapter` and PEFT's merge, every form under every naming.
#[test]
fn the_lora_family_changes_weights_as_comfyui_and_peft() {
    let family = listing("family");
    let layers = family["layers"].as_object().unwrap();
    let names = names(layers);
    let cases = family["cases"].as_object().unwrap();
    assert!(cases.len() >= 40, "{} cases", cases.len());
    for (name, case) in cases {
        let layer = case["layer"].as_str().unwrap();
        let shape = shape_of(&layers[layer]["shape"]);
        let held = if layer == "pixel" { vec![8, 6] } else { shape.clone() };
        let base = value(&format!("base {layer}"), &shape, 1.0).reshape(held).unwrap();
        let (lora, unknown) = match &case["settings"] {
            Value::Null => LoraModel::read(&file(name, case)).unwrap(),
            settings => LoraModel::read_peft(&file(name, case), settings).unwrap(),
        };
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        let strength = case["strength"].as_f64().unwrap();
        let placement = lora.place(&names, |_| strength, None).unwrap();
        placement.require(false).unwrap();
        let [placed] = &placement.placed[..] else { panic!("{name}: one layer") };
        assert!(layers[layer]["key"].as_str().unwrap().ends_with(&placed.layer), "{name}: {}", placed.layer);
        let expected = recorded("family", name).reshape(base.dims()).unwrap();
        let found = placed.adapter.weight(&base).unwrap();
        let error = relative_error(&(&found - &base).unwrap(), &(&expected - &base).unwrap());
        println!("{name}: {error:.1e}");
        assert!(error < 1e-5, "{name}: {error}");
        beside_is_the_same(name, &base, placed, &found);
    }
}

/// What acts beside a layer gives what its weight gives.
fn beside_is_the_same(name: &str, base: &Tensor, placed: &Placed, changed: &Tensor) {
    if !placed.adapter.acts_beside() {
        return;
    }
    let geometry = match base.rank() {
        2 => Geometry::Linear,
        _ => Geometry::Conv2d { stride: 1, before: 1, after: 1 },
    };
    let x = value("x", &[2, 5, 7, base.dims()[1]], 1.0);
    let beside = Weight::of(&placed.layer, geometry, base.clone()).with(placed.adapter.clone()).unwrap();
    let worked_in = Weight::of(&placed.layer, geometry, changed.clone());
    let error = relative_error(&beside.forward(&x).unwrap(), &worked_in.forward(&x).unwrap());
    assert!(error < 1e-5, "{name}, beside: {error}");
}

#[test]
fn spellings_mean_the_layers_that_comfyui_takes_them_for() {
    let sd2 = crate::unet::Config { context: Some(1024), linear_projection: true, ..sd1() };
    let text =
        || ["encoder.layers.0.mlp.fc1", "encoder.layers.0.self_attn.q_proj"].map(|name| (name.to_owned(), vec![4, 4]));
    for (family, config, encoders) in [
        ("sd1", sd1(), vec![("clip_l", Part::TextL)]),
        ("sd2", sd2, vec![("clip_h", Part::TextH)]),
        ("sdxl", sdxl(), vec![("clip_l", Part::TextL), ("clip_g", Part::TextG)]),
    ] {
        let listed = listing("names")[family].clone();
        let parts = encoders.iter().map(|(_, part)| {
            let mut layers = text().to_vec();
            if *part == Part::TextG {
                layers.push(("text_projection".to_owned(), vec![4, 4]));
            }
            (*part, layers)
        });
        let unet = layers_of(&config);
        assert_eq!(listed["layers"], unet.len(), "{family}");
        let norms = listed["norms"].as_object().unwrap();
        let norm = |key: &String| {
            (key.strip_prefix("diffusion_model.").unwrap().to_owned(), value(key, &[4], 1.0), Store::F32)
        };
        let tensors = write(&norms.keys().map(norm).collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
        let tensors = Weights::from_bytes("norms", tensors).unwrap();
        let names = Names::new(&config, unet, parts.collect()).with_besides(&config, &tensors, &[]);
        let mut compared = 0;
        for (target, spellings) in norms {
            let place = target.strip_prefix("diffusion_model.").unwrap().strip_suffix(".weight").unwrap();
            for spelling in spellings.as_array().unwrap() {
                let found = names.beside(spelling.as_str().unwrap()).unwrap_or_else(|| panic!("{family}: {spelling}"));
                assert_eq!((found.part, found.name.as_str()), (Part::Unet, place), "{family}: {spelling}");
                compared += 1;
            }
        }
        for (target, spellings) in listed["spellings"].as_object().unwrap() {
            let target = target.strip_suffix(".weight").unwrap();
            let (part, layer) = match target.strip_prefix("diffusion_model.") {
                Some(layer) => (Part::Unet, layer),
                None => {
                    let (id, layer) = target.split_once(".transformer.").unwrap();
                    let (_, part) = encoders.iter().find(|(encoder, _)| *encoder == id).unwrap();
                    (*part, layer.strip_prefix("text_model.").unwrap_or(layer))
                }
            };
            for spelling in spellings.as_array().unwrap() {
                let spelling = spelling.as_str().unwrap();
                let (_, found) =
                    names.find(spelling).unwrap_or_else(|| panic!("{family}: {:?}", names.unmatched(spelling)));
                assert_eq!((found.part, found.name.as_str()), (part, layer), "{family}: {spelling}");
                compared += 1;
            }
        }
        println!("{family}: {compared} spellings");
        assert!(compared > 60, "{family}: {compared}");
    }
}

/// What the recorded network says of the recorded latent.
fn output(unet: &UNet) -> Tensor {
    let times = Tensor::new(&[981f32, 37.0], &Device::Cpu).unwrap();
    let x = value("x", &[2, 4, 12, 20], 1.5);
    unet.forward(&x, &times, &value("context", &[2, 77, 64], 1.5), None).unwrap()
}

fn deep() -> UNet {
    crate::checkpoint::Checkpoint::from_bytes("drawn", crate::testing::drawn_file(&Golden::open("unet_deep").tensors))
        .unwrap()
        .unet()
        .unwrap()
}

fn with_para(unet: &UNet, para: &Para) -> UNet {
    let on = OnPara { strength: 1.0, boundary: Boundary::NONE, excess: Excess::Ignore, subset: None };
    let placement = para.place(&Names::of(unet, None), unet, &on).unwrap();
    placement.require(false).unwrap();
    placement.attach(Part::Unet, unet).unwrap()
}

/// A folder that PEFT saved gives what PEFT gave.
#[test]
fn a_para_of_peft_does_here_what_it_did_there() {
    let unet = deep();
    let error = relative_error(&output(&unet), &recorded("peft", "base"));
    assert!(error < 1e-5, "base: {error}");
    let (adapter, unknown) = AnyAdapter::open(format!("{GOLDEN}peft-para").as_ref()).unwrap();
    assert!(unknown.is_empty(), "{unknown:?}");
    let AnyAdapter::Para(para) = adapter else { panic!("a PaRa") };
    assert_eq!((para.layers.len(), para.rank()), (3, 3));
    let expected = recorded("peft", "peft para");
    let error = relative_error(&output(&with_para(&unet, &para)), &expected);
    let moved = relative_error(&expected, &recorded("peft", "base"));
    println!("peft's PaRa: {error:.1e}, it moves the output by {moved:.1e}");
    assert!(error < 1e-5 && moved > 1e-2, "{error} {moved}");
}

/// The LoRA that we export is loaded by diffusers and PEFT, and does there what the PaRa does here.
#[test]
fn our_export_does_in_peft_what_the_para_does_here() {
    let unet = deep();
    let names = Names::of(&unet, None);
    let file = Weights::open(format!("{GOLDEN}exported.safetensors")).unwrap();
    let (theirs, _) = LoraModel::read(&file).unwrap();
    let mut stages = Vec::new();
    // Every layer has been filled up to one rank; the columns that are not zeros tell its own.
    let own_rank = |module: &Module| {
        let Form::LowRank { up, .. } = &module.form else { panic!("a LoRA") };
        let columns = up.sqr().unwrap().sum(0).unwrap().to_vec1::<f32>().unwrap();
        columns.into_iter().filter(|length| *length > 0.0).count()
    };
    let mut ranks = Vec::new();
    for (name, module) in &theirs.modules {
        assert_eq!(module.rank(), Some(5), "{name}");
        ranks.push(own_rank(module));
        let layer = names.find(name).unwrap().1;
        let b = value(&format!("para {}", layer.diffusers), &[layer.shape[0], own_rank(module)], 1.0);
        stages.push((layer.name.clone(), Stage::new(name, &b, None).unwrap()));
    }
    let para = Para::new(&names, stages, BTreeMap::new()).unwrap();
    assert_eq!(para.layers.len(), 6, "linear layers and convolutions");
    ranks.sort_unstable();
    assert_eq!(ranks, [1, 2, 2, 3, 4, 5]);
    // What PEFT loaded is what is written now.
    let (ours, errors) = to_lora(&para, &unet, Store::F32).unwrap();
    assert!(errors.iter().all(|error| error.relative < 1e-6), "{errors:?}");
    assert_eq!(ours.modules.keys().collect::<Vec<_>>(), theirs.modules.keys().collect::<Vec<_>>());
    for (name, module) in &ours.modules {
        let shape = names.find(name).unwrap().1.shape.clone();
        let (found, expected) = (module.change(name, &shape), theirs.modules[name].change(name, &shape));
        let error = relative_error(&found.unwrap(), &expected.unwrap());
        assert!(error < 1e-6, "{name}: {error}");
    }
    let said: Map<String, Value> = serde_json::from_str(&file.metadata()["para.export_error"]).unwrap();
    assert!(said.len() == 6 && said.values().all(|error| error.as_f64().unwrap() < 1e-6), "{said:?}");
    let expected = recorded("peft", "exported");
    let error = relative_error(&output(&with_para(&unet, &para)), &expected);
    let moved = relative_error(&expected, &recorded("peft", "base"));
    println!("our export in PEFT: {error:.1e}, it moves the output by {moved:.1e}");
    assert!(error < 1e-5 && moved > 1e-2, "{error} {moved}");
}

/// A network of the same tensors but for some.
fn with_tensors(unet: &UNet, others: &BTreeMap<String, Tensor>) -> UNet {
    let source = unet.source();
    let tensor = |name: &str| {
        let shape = source.shape(name).unwrap();
        let tensor = others.get(name).cloned().unwrap_or_else(|| source.tensor(name, shape).unwrap());
        (name.to_owned(), tensor.reshape(shape).unwrap(), Store::F32)
    };
    let tensors: Vec<_> = source.names().map(tensor).collect();
    UNet::load(&Weights::from_bytes("other", write(&tensors, &BTreeMap::new()).unwrap()).unwrap()).unwrap()
}

/// ComfyUI's `comfy/lora.py`: differences of biases and norms, and weights that take another's place.
#[test]
fn biases_and_norms_change_as_in_comfyui() {
    let unet = deep();
    let names = Names::of(&unet, None);
    let recorded = Weights::open(format!("{GOLDEN}beside.safetensors")).unwrap();
    let before = output(&unet);
    for (name, case) in listing("beside").as_object().unwrap() {
        let (lora, unknown) = LoraModel::read(&file(name, case)).unwrap();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        let placement = lora.place(&names, |_| case["strength"].as_f64().unwrap(), None).unwrap();
        placement.require(false).unwrap();
        let changed = placement.attach(Part::Unet, &unet).unwrap();
        let mut expected = BTreeMap::new();
        for key in recorded.names() {
            if let Some(target) = key.strip_prefix(&format!("{name}/")) {
                let numbers = recorded.tensor(key, recorded.shape(key).unwrap()).unwrap();
                let layer = target.strip_suffix(".weight");
                let weight = on_layers(&changed).into_iter().find(|weight| Some(weight.layer()) == layer);
                let found = match weight {
                    Some(weight) => weight.effective().unwrap().reshape(numbers.shape()).unwrap(),
                    None => changed.source().tensor(target, numbers.dims()).unwrap(),
                };
                let error = relative_error(&found, &numbers);
                assert!(error < 1e-6, "{name}, {target}: {error}");
                expected.insert(target.to_owned(), numbers);
            }
        }
        assert_eq!(expected.len(), placement.placed.len() + placement.moved.len(), "{name}");
        let (found, expected) = (output(&changed), output(&with_tensors(&unet, &expected)));
        let (error, moved) = (relative_error(&found, &expected), relative_error(&before, &expected));
        println!("{name}: {error:.1e}, it moves the output by {moved:.1e}");
        assert!(error < 1e-5 && moved > 1e-4, "{name}: {error} {moved}");
    }
    assert!(relative_error(&output(&unet), &before) == 0.0, "the base is as it was");
}

/// A LoHa, a LoKr or a DoRA is worked into the weight, and a PaRa above it is still told what it cancels.
#[test]
fn what_a_para_cancels_is_known_of_every_form() {
    let family = listing("family");
    let layers = family["layers"].as_object().unwrap();
    let names = names(layers);
    let mut checked = 0;
    for (name, case) in family["cases"].as_object().unwrap() {
        let layer = case["layer"].as_str().unwrap();
        if !matches!(layer, "linear" | "conv" | "square") || !case["settings"].is_null() {
            continue;
        }
        let base = value(&format!("base {layer}"), &shape_of(&layers[layer]["shape"]), 1.0);
        let (lora, _) = LoraModel::read(&file(name, case)).unwrap();
        let placement = lora.place(&names, |_| case["strength"].as_f64().unwrap(), None).unwrap();
        let placed = &placement.placed[0];
        let below = Weight::of(&placed.layer, Geometry::Linear, base.clone()).with(placed.adapter.clone()).unwrap();
        let [added] = &below.additions().unwrap()[..] else { panic!("{name}: one addition") };
        let change = (placed.adapter.weight(&base).unwrap() - &base).unwrap().flatten_from(1).unwrap();
        let error = relative_error(added, &change);
        assert!(error < 1e-5, "{name}: {error}");
        // Below a PaRa that acts in between, what that one left counts.
        let outputs = base.dims()[0];
        let stage = Stage::new(name, &value("q", &[outputs, 2], 1.0), None).unwrap();
        let between = below.with(super::para::Projection::of(&stage, 1.0).unwrap()).unwrap();
        let [left] = &between.additions().unwrap()[..] else { panic!("{name}: one addition") };
        let q = stage.q();
        let seen = q.t().unwrap().contiguous().unwrap().matmul(left).unwrap();
        let length = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        assert!(length(&seen) < 1e-5 * length(added), "{name}");
        checked += 1;
    }
    assert!(checked > 25, "{checked}");
}
