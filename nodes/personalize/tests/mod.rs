//! Adapters in graphs over a tiny checkpoint.

mod faults;
mod report;
mod samples;
mod saved;
mod trained;

use crate::testing::{Bench, Outcome};
use crate::tiny;
use crate::wires::Model;
use candle_core::{Device, Tensor};
use paraflow_diffusion::adapters::{Form, LoraModel, Module, Names, Para, Stage, Store, on_layers};
use paraflow_engine::Json;
use serde_json::json;
use std::collections::BTreeMap;

/// Layers that the tests' adapters are for: a Linear one and a convolution.
const LINEAR: &str = "input_blocks.1.1.transformer_blocks.0.attn1.to_q";
const CONVOLUTION: &str = "middle_block.2.out_layers.3";
/// Their names in files.
const IN_FILES: [&str; 2] =
    ["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", "lora_unet_mid_block_resnets_1_conv2"];

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("models/checkpoints/tiny.safetensors", tiny::checkpoint());
    bench
}

/// Numbers between -1 and 1.
fn drawn(seed: u64, shape: &[usize]) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    };
    let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| draw()).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

/// A PaRa of two directions for both layers.
fn para(seed: u64) -> Para {
    let stage =
        |name: &str, outputs: usize| Stage::new(name, &drawn(seed + outputs as u64, &[outputs, 2]), None).unwrap();
    let layers = BTreeMap::from([
        (IN_FILES[0].to_owned(), vec![stage("q", 32)]),
        (IN_FILES[1].to_owned(), vec![stage("conv", 64)]),
    ]);
    Para { layers, metadata: BTreeMap::new() }
}

/// A LoRA of rank 2 for both layers, strong enough to be seen.
fn lora(seed: u64) -> LoraModel {
    let module = |up: &[usize], down: &[usize]| Module {
        form: Form::LowRank { up: drawn(seed, up), down: drawn(seed + 1, down) },
        scale: 0.1,
        magnitude: None,
    };
    let modules = BTreeMap::from([
        (IN_FILES[0].to_owned(), module(&[32, 2], &[2, 32])),
        (IN_FILES[1].to_owned(), module(&[64, 2], &[2, 64, 3, 3])),
    ]);
    LoraModel { modules, ..LoraModel::default() }
}

fn write_para(bench: &Bench, name: &str, para: &Para) {
    bench.write(&format!("models/loras/{name}.safetensors"), &para.to_file(Store::F32).unwrap());
}

fn write_lora(bench: &Bench, name: &str, lora: &LoraModel) {
    bench.write(&format!("models/loras/{name}.safetensors"), &lora.to_file(None, Store::F32).unwrap());
}

/// A graph that catches model `last` as `out`.
fn graph(nodes: Json, last: &str) -> Json {
    let mut graph = json!({
        "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
        "base": ["Catch", {"value": ["1", 0]}],
        "out": ["Catch", {"value": [last, 0]}],
    });
    graph.as_object_mut().unwrap().extend(nodes.as_object().unwrap().clone());
    graph
}

/// The weight of a layer, `[out, the rest]`, with all that acts on it.
fn weight(outcome: &Outcome, catch: &str, layer: &str) -> Tensor {
    let model = outcome.value::<Model>(catch);
    let weight = on_layers(&model.unet).into_iter().find(|weight| weight.layer() == layer).unwrap();
    weight.effective().unwrap().flatten_from(1).unwrap()
}

fn length(tensor: &Tensor) -> f64 {
    f64::from(tensor.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()).sqrt()
}

/// What the network says of a latent.
fn predict(outcome: &Outcome, catch: &str) -> Vec<f32> {
    let model = outcome.value::<Model>(catch);
    let (x, time, context) =
        (drawn(5, &[1, 4, 8, 8]), Tensor::new(&[500f32], &Device::Cpu).unwrap(), drawn(6, &[1, 77, 64]));
    model.unet.forward(&x, &time, &context, None).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (difference / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

#[test]
fn a_para_removes_its_directions_and_the_base_stays_bit_for_bit() {
    let bench = bench();
    write_para(&bench, "p", &para(1));
    let nodes = json!({
        "2": ["PaRaLoad", {"para_name": "p.safetensors"}],
        "3": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0]}],
        "4": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0], "strength": 0.0}],
        "none": ["Catch", {"value": ["4", 0]}],
    });
    let outcome = bench.run(graph(nodes, "3"));
    assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
    for (layer, name) in [(LINEAR, IN_FILES[0]), (CONVOLUTION, IN_FILES[1])] {
        let q = para(1).layers[name][0].q().t().unwrap().contiguous().unwrap();
        let (base, changed) = (weight(&outcome, "base", layer), weight(&outcome, "out", layer));
        let (before, left) = (length(&q.matmul(&base).unwrap()), length(&q.matmul(&changed).unwrap()));
        assert!(before > 0.1 && left < 1e-6 * before, "{layer}: {before} {left}");
    }
    let (base, adapted, none) = (predict(&outcome, "base"), predict(&outcome, "out"), predict(&outcome, "none"));
    assert!(distance(&adapted, &base) > 1e-3);
    assert_eq!(none, base, "a strength of 0 is no adapter");
    let alone = bench.run(graph(json!({}), "1"));
    assert_eq!(predict(&alone, "out"), base, "the model on the wire never changed");
}

#[test]
fn a_changed_strength_runs_only_what_follows() {
    let bench = bench();
    write_para(&bench, "p", &para(1));
    let nodes = |strength: f64| {
        graph(
            json!({
                "2": ["PaRaLoad", {"para_name": "p.safetensors"}],
                "3": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0], "strength": strength}],
            }),
            "3",
        )
    };
    bench.run(nodes(1.0));
    let again = bench.run(nodes(0.5));
    let mut ran = again.ran();
    ran.sort_unstable();
    assert_eq!(ran, ["3", "base", "out"], "catches always run");
}

#[test]
fn the_exported_lora_does_what_the_para_does() {
    let bench = bench();
    write_para(&bench, "p", &para(1));
    write_para(&bench, "r", &para(9));
    let nodes = json!({
        "2": ["PaRaLoad", {"para_name": "p.safetensors"}],
        "3": ["PaRaLoad", {"para_name": "r.safetensors"}],
        "4": ["PaRaMerge", {"para_1": ["2", 0], "para_2": ["3", 0], "how": "sequential"}],
        "5": ["PaRaToLoRA", {"model": ["1", 0], "para": ["4", 0]}],
        "6": ["LoraModelLoader", {"model": ["1", 0], "lora": ["5", 0], "strength_model": 1.0}],
        "7": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0]}],
        "8": ["PaRaApply", {"model": ["7", 0], "para": ["3", 0]}],
        "para": ["Catch", {"value": ["8", 0]}],
        "9": ["SaveLoRA", {"lora": ["5", 0], "prefix": "loras/x"}],
    });
    let outcome = bench.run(graph(nodes, "6"));
    assert!(distance(&predict(&outcome, "out"), &predict(&outcome, "para")) < 1e-5);
    assert!(distance(&predict(&outcome, "out"), &predict(&outcome, "base")) > 1e-3);
    let saved = std::fs::read(bench.path("output/loras/x_00001_.safetensors")).unwrap();
    bench.write("models/loras/exported.safetensors", &saved);
    // It is bound to its base, and says how exact it is.
    let file = paraflow_diffusion::nn::Weights::from_bytes("x", saved.clone()).unwrap();
    let said = |key: &str| file.metadata().get(key).cloned().unwrap_or_default();
    assert_eq!(said("para.base_sha256"), paraflow_assets::sha256(tiny::checkpoint()));
    assert_eq!(said("para.base_name"), "tiny.safetensors");
    let errors: BTreeMap<String, f64> = serde_json::from_str(&said("para.export_error")).unwrap();
    assert!(errors.len() == 2 && errors.values().all(|error| *error < 1e-6), "{errors:?}");
    let nodes = json!({"2": ["LoraLoaderModelOnly", {"model": ["1", 0], "lora_name": "exported.safetensors"}]});
    let loaded = bench.run(graph(nodes, "2"));
    assert!(loaded.warnings().is_empty(), "{:?}", loaded.warnings());
    assert_eq!(predict(&loaded, "out"), predict(&outcome, "out"), "saved and loaded");

    let other = tiny::file(&tiny::tensors(), |_, values| values.iter().map(|value| value * 1.05).collect());
    bench.write("models/checkpoints/tiny.safetensors", &other);
    let nodes = json!({"2": ["LoraLoaderModelOnly", {"model": ["1", 0], "lora_name": "exported.safetensors"}]});
    let elsewhere = bench.run(graph(nodes, "2"));
    assert!(elsewhere.warnings()[0].contains("this checkpoint differs from it"), "{:?}", elsewhere.warnings());
}

/// Every adapter acts on the weight that those before it left, in whatever order the graph has them.
#[test]
fn chains_act_in_the_order_of_the_graph() {
    let bench = bench();
    write_para(&bench, "p", &para(1));
    write_lora(&bench, "l", &lora(3));
    let shifts = paraflow_diffusion::adapters::SvDiff {
        layers: [("mid_block.resnets.1.conv2".to_owned(), drawn(9, &[64]))].into(),
        metadata: BTreeMap::new(),
    };
    bench.give("shifts", paraflow_engine::Value::new(crate::wires::SpectralShifts(shifts.clone())));
    let node = |kind: char, below: &str| match kind {
        'p' => json!(["PaRaApply", {"model": [below, 0], "para": ["para", 0]}]),
        'l' => json!(["LoraLoaderModelOnly", {"model": [below, 0], "lora_name": "l.safetensors"}]),
        _ => json!(["SVDiffApply", {"model": [below, 0], "svdiff": ["shifts", 0]}]),
    };
    let base = bench.run(graph(json!({}), "1"));
    let names = base.value::<Model>("out").names(None);
    let unet = base.value::<Model>("out").unet.clone();
    for order in ["pls", "psl", "lps", "lsp", "spl", "slp"] {
        let mut nodes = json!({
            "para": ["PaRaLoad", {"para_name": "p.safetensors"}],
            "shifts": ["Give", {"name": "shifts"}],
        });
        let mut below = "1".to_owned();
        for (place, kind) in order.chars().enumerate() {
            let id = format!("c{place}");
            nodes[&id] = node(kind, &below);
            below = id;
        }
        let outcome = bench.run(graph(nodes, &below));
        // By hand: each one's own arithmetic on the weight that the one before left.
        let mut expected = weight(&base, "out", CONVOLUTION).reshape((64, 64, 3, 3)).unwrap();
        let on = paraflow_diffusion::adapters::OnPara {
            strength: 1.0,
            boundary: paraflow_diffusion::adapters::Boundary::NONE,
            excess: paraflow_diffusion::adapters::Excess::Ignore,
            subset: None,
        };
        for kind in order.chars() {
            let placement = match kind {
                'p' => para(1).place(&names, &unet, &on).unwrap(),
                'l' => lora(3).place(&names, |_| 1.0, None).unwrap(),
                _ => shifts.place(&names, 1.0).unwrap(),
            };
            let placed = placement.placed.iter().find(|placed| placed.layer == CONVOLUTION).unwrap();
            expected = placed.adapter.weight(&expected).unwrap();
        }
        let expected = expected.flatten_from(1).unwrap();
        let apart = length(&(weight(&outcome, "out", CONVOLUTION) - &expected).unwrap()) / length(&expected);
        // What a PaRa has taken out has singular values of zero and no singular vectors of its own: how a shift of them falls out
        // there is a matter of rounding.
        let bound = if order.find('p') < order.find('s') { 0.1 } else { 1e-5 };
        assert!(apart < bound, "{order}: {apart}");
    }
}

#[test]
fn a_lora_below_a_para_is_told_with_what_it_loses() {
    let bench = bench();
    write_para(&bench, "p", &para(1));
    write_lora(&bench, "l", &lora(3));
    let nodes = json!({
        "2": ["PaRaLoad", {"para_name": "p.safetensors"}],
        "3": ["LoraLoaderModelOnly", {"model": ["1", 0], "lora_name": "l.safetensors"}],
        "4": ["PaRaApply", {"model": ["3", 0], "para": ["2", 0]}],
        "5": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0]}],
        "6": ["LoraLoaderModelOnly", {"model": ["5", 0], "lora_name": "l.safetensors"}],
        "after": ["Catch", {"value": ["6", 0]}],
        "lora": ["Catch", {"value": ["3", 0]}],
    });
    let outcome = bench.run(graph(nodes, "4"));
    let warnings = outcome.warnings();
    assert_eq!(warnings.len(), 1, "only the order that loses warns: {warnings:?}");
    // PaRa after LoRA lacks P U A of LoRA after PaRa, layer by layer.
    let (mut gone, mut all) = (0.0, 0.0);
    for layer in [LINEAR, CONVOLUTION] {
        let difference = (weight(&outcome, "after", layer) - weight(&outcome, "out", layer)).unwrap();
        gone += length(&difference).powi(2);
        all += length(&(weight(&outcome, "lora", layer) - weight(&outcome, "base", layer)).unwrap()).powi(2);
    }
    let share = format!("cancels {:.1} %", 100.0 * gone / all);
    assert!(warnings[0].contains("on 2 layers") && warnings[0].contains(&share), "{share}: {}", warnings[0]);
}

#[test]
fn keys_that_fit_nothing_are_an_error_or_a_warning() {
    let bench = bench();
    let mut odd = lora(3);
    let stray = odd.modules[IN_FILES[0]].clone();
    odd.modules.insert(IN_FILES[0].replace("to_q", "to_w"), stray.clone());
    write_lora(&bench, "odd", &odd);
    write_lora(&bench, "wrong", &LoraModel { modules: [("lora_unet_x".to_owned(), stray)].into(), ..odd.clone() });
    let load = |name: &str| {
        let nodes = json!({"2": ["LoraLoaderModelOnly", {"model": ["1", 0], "lora_name": name}]});
        bench.run(graph(nodes, "2"))
    };
    let outcome = load("odd.safetensors");
    let warning = outcome.warnings()[0].to_owned();
    assert!(warning.starts_with("1 of 3 parts of the adapter were not used"), "{warning}");
    assert!(warning.contains("attn1_to_w") && warning.contains("the nearest is `lora_unet_"), "{warning}");
    let failed = load("wrong.safetensors");
    let (node, error) = failed.failure();
    assert!(node == "2" && error.to_string().contains("1 of 1 parts"), "{error}");

    let mut para = para(1);
    let stage = para.layers[IN_FILES[0]].clone();
    para.layers.insert("lora_unet_nowhere".to_owned(), stage);
    write_para(&bench, "odd-para", &para);
    let apply = |unmatched: &str| {
        let nodes = json!({
            "2": ["PaRaLoad", {"para_name": "odd-para.safetensors"}],
            "3": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0], "unmatched": unmatched}],
        });
        bench.run(graph(nodes, "3"))
    };
    assert!(apply("error").failure().1.to_string().contains("lora_unet_nowhere"));
    assert!(apply("ignore").warnings()[0].contains("lora_unet_nowhere"));
}

#[test]
fn bad_files_and_settings_are_told() {
    let bench = bench();
    write_para(&bench, "p", &para(1));
    let file = para(1).to_file(Store::F32).unwrap();
    bench.write("models/loras/cut.safetensors", &file[..file.len() - 100]);
    write_lora(&bench, "l", &lora(3));
    let applied = |name: &str, settings: Json| {
        let mut inputs = json!({"model": ["1", 0], "para": ["2", 0]});
        inputs.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        graph(json!({"2": ["PaRaLoad", {"para_name": name}], "3": ["PaRaApply", inputs]}), "3")
    };
    let apply = |name: &str, settings: Json| bench.run(applied(name, settings));
    let message = |name: &str, settings: Json| bench.refusal(applied(name, settings));
    assert!(message("cut.safetensors", json!({})).contains("cut short"));
    assert!(message("l.safetensors", json!({})).contains("it holds a LoRA, not a PaRa"));
    let over = message("p.safetensors", json!({"gamma": 0.04}));
    assert!(over.contains("2 directions would be removed, gamma 0.04 allows 1 of 32"), "{over}");
    let cut = apply("p.safetensors", json!({"gamma": 0.04, "rank_boundary": "truncate"}));
    assert!(cut.warnings()[0].contains("left 1 layers with fewer directions"), "{:?}", cut.warnings());
    assert!(message("p.safetensors", json!({"subset": "cao"})).contains("has none of the 2 layers"));
    assert!(message("p.safetensors", json!({"subset": "nonsense"})).contains("no name of a subset"));
}

#[test]
fn names_of_the_tiny_model_are_those_of_files() {
    let bench = bench();
    let outcome = bench.run(graph(json!({}), "1"));
    let names = Names::of(&outcome.value::<Model>("out").unet, None);
    let spelled: Vec<String> = [LINEAR, CONVOLUTION].map(|layer| names.kohya(names.find(layer).unwrap().1)).to_vec();
    assert_eq!(spelled, IN_FILES);
}
