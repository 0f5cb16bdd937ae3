//! What can be wrong with an adapter, a model or a setting: each with its message, and the base as it was.

use super::*;
use paraflow_engine::Value;

/// A stage for a layer, of any shape.
fn stage(seed: u64, outputs: usize, rank: usize) -> Stage {
    Stage::new("q", &drawn(seed, &[outputs, rank]), None).unwrap()
}

fn apply(bench: &Bench, settings: Json) -> Outcome {
    let mut inputs = json!({"model": ["1", 0], "para": ["2", 0]});
    inputs.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let nodes = json!({"2": ["PaRaLoad", {"para_name": "p.safetensors"}], "3": ["PaRaApply", inputs]});
    bench.run(graph(nodes, "3"))
}

#[test]
fn a_para_of_another_model_is_refused_with_both_shapes_and_changes_nothing() {
    let bench = bench();
    let before = predict(&bench.run(graph(json!({}), "1")), "base");
    let layers = [(IN_FILES[0].to_owned(), vec![stage(1, 48, 2)])];
    write_para(&bench, "p", &Para { layers: layers.into(), metadata: BTreeMap::new() });
    let outcome = apply(&bench, json!({}));
    let (node, error) = outcome.failure();
    let told = error.to_string();
    assert!(
        node == "3" && told.contains("it is made for 48 outputs, the model has 32 (its weight is [32, 32])"),
        "{told}"
    );
    assert!(error.hint().unwrap().contains("it was made for another kind of model"));
    assert_eq!(predict(&bench.run(graph(json!({}), "1")), "base"), before);
}

#[test]
fn a_strength_that_is_no_number_is_refused_and_one_out_of_range_told() {
    let bench = bench();
    write_para(&bench, "p", &para(1));
    bench.give("nan", Value::new(f64::NAN));
    let nodes = json!({
        "n": ["Give", {"name": "nan"}],
        "2": ["PaRaLoad", {"para_name": "p.safetensors"}],
        "3": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0], "strength": ["n", 0]}],
    });
    let told = bench.run(graph(nodes, "3")).failure().1.to_string();
    assert!(told.contains("`strength` expects -10.0 to 10.0, found NaN"), "{told}");
    for strength in [-0.5, 1.5] {
        let outcome = apply(&bench, json!({"strength": strength}));
        let expected = format!("a strength of {strength} lies outside 0 to 1");
        assert_eq!(outcome.warnings(), [expected.as_str()]);
    }
}

#[test]
fn the_same_para_twice_is_told_to_do_nothing_more() {
    let bench = bench();
    write_para(&bench, "p", &para(1));
    write_para(&bench, "other", &para(77));
    let nodes = |second: &str| {
        json!({
            "2": ["PaRaLoad", {"para_name": "p.safetensors"}],
            "s": ["PaRaLoad", {"para_name": second}],
            "3": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0]}],
            "4": ["PaRaApply", {"model": ["3", 0], "para": ["s", 0]}],
            "once": ["Catch", {"value": ["3", 0]}],
        })
    };
    let twice = bench.run(graph(nodes("p.safetensors"), "4"));
    assert!(twice.warnings()[0].contains("takes all of these directions out already"), "{:?}", twice.warnings());
    assert!(distance(&predict(&twice, "out"), &predict(&twice, "once")) < 1e-5);
    let two = bench.run(graph(nodes("other.safetensors"), "4"));
    assert!(two.warnings().is_empty(), "{:?}", two.warnings());
    // Together they take four directions of 32 out, each alone two.
    let mut over = nodes("other.safetensors");
    over["4"][1]["gamma"] = json!(0.1);
    let told = bench.run(graph(over, "4")).failure().1.to_string();
    assert!(told.contains("4 directions would be removed, gamma 0.1 allows 3 of 32"), "{told}");
}

#[test]
fn another_checkpoint_is_told_or_refused() {
    let bench = bench();
    let mut made = para(1);
    let model = bench.run(graph(json!({}), "1")).value::<Model>("out");
    let print = paraflow_diffusion::adapters::fingerprint(&model.unet).unwrap();
    made.metadata.insert("para.base_print".to_owned(), print.to_string());
    made.metadata.insert("para.base_name".to_owned(), "first.safetensors".to_owned());
    write_para(&bench, "p", &made);
    assert!(apply(&bench, json!({"strict_base": true})).warnings().is_empty(), "its own");
    let other = tiny::file(&tiny::tensors(), |_, values| values.iter().map(|value| value * 1.05).collect());
    bench.write("models/checkpoints/tiny.safetensors", &other);
    let told = apply(&bench, json!({}));
    let expected = "the adapter was trained on first.safetensors, and this checkpoint differs from it in `conv_in`";
    assert_eq!(told.warnings(), [expected]);
    let refused = apply(&bench, json!({"strict_base": true}));
    assert_eq!(refused.failure().1.to_string(), expected);
    assert!(refused.failure().1.hint().unwrap().contains("turn `strict_base` off"));
}

/// The header says which kind of model a file is for; that is told where its layers do not fit.
#[test]
fn a_para_of_another_architecture_is_refused_in_a_word() {
    let bench = bench();
    let mut made = para(1);
    let stage = made.layers.remove(IN_FILES[0]).unwrap();
    made.layers.insert("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q".to_owned(), stage);
    made.metadata.insert("para.arch".to_owned(), "sdxl".to_owned());
    write_para(&bench, "p", &made);
    let refused = apply(&bench, json!({}));
    assert_eq!(refused.failure().1.to_string(), "the adapter was made for sdxl, the model is sd1");
    assert_eq!(refused.failure().1.hint(), Some("load the checkpoint that it was made for"));
    let told = apply(&bench, json!({"unmatched": "ignore"}));
    assert!(told.warnings()[0].contains("1 of 2 parts"), "{:?}", told.warnings());
}

/// A PaRa for a norm or an embedding, which no projection acts on.
#[test]
fn a_para_of_a_norm_or_an_embedding_is_refused_for_that() {
    let bench = bench();
    let mut made = para(1);
    made.layers.insert("lora_unet_mid_block_resnets_1_norm2".to_owned(), vec![stage(1, 64, 1)]);
    write_para(&bench, "p", &made);
    let told = apply(&bench, json!({})).failure().1.to_string();
    let row = "`lora_unet_mid_block_resnets_1_norm2`: it is a norm or an embedding, and such adapters act on linear layers and \
               convolutions only";
    assert!(told.contains(row), "{told}");
    assert!(apply(&bench, json!({"unmatched": "ignore"})).warnings()[0].contains(row));
    let embedding = "lora_te_text_model_embeddings_token_embedding";
    let module = lora(1).modules[IN_FILES[0]].clone();
    let mut made = lora(1);
    made.modules.insert(embedding.to_owned(), module);
    write_lora(&bench, "l", &made);
    let nodes = json!({"2": ["LoraLoader", {
        "model": ["1", 0], "clip": ["1", 1], "lora_name": "l.safetensors", "strength_model": 1.0, "strength_clip": 1.0,
    }]});
    let told = bench.run(graph(nodes, "2")).warnings()[0].to_owned();
    assert!(told.contains(&format!("`{embedding}`: it is a norm or an embedding")), "{told}");
}

/// A file whose weights of two layers are of eight bits, with a scale or without.
fn in_eight_bits(layers: [&str; 2], scaled: bool) -> Vec<u8> {
    use safetensors::tensor::{Dtype, TensorView};
    let whole = safetensors::SafeTensors::deserialize(tiny::checkpoint()).unwrap();
    let bytes = |name: &str| -> (Vec<usize>, Vec<u8>) {
        let shape = tiny::tensors()[&format!("{name}.weight")].clone();
        // From 0.5 to 1.75, and the same below zero.
        let numbers =
            (0..shape.iter().product::<usize>()).map(|at| 0x30 + (at % 13) as u8 + if at % 3 == 0 { 0x80 } else { 0 });
        (shape, numbers.collect())
    };
    let eights = layers.map(|layer| (layer, bytes(layer)));
    let scale = 0.25f32.to_le_bytes();
    let eighth = |name: &str| layers.iter().any(|layer| name == format!("{layer}.weight"));
    let mut views: Vec<(String, TensorView<'_>)> =
        whole.tensors().into_iter().filter(|(name, _)| !eighth(name)).collect();
    for (layer, (shape, bytes)) in &eights {
        views.push((format!("{layer}.weight"), TensorView::new(Dtype::F8_E4M3, shape.clone(), bytes).unwrap()));
        if scaled {
            views.push((format!("{layer}.scale_weight"), TensorView::new(Dtype::F32, vec![], &scale).unwrap()));
        }
    }
    safetensors::serialize(views, None).unwrap()
}

/// A PaRa acts beside weights of eight bits and is never merged into them. The LoRA that it comes to, as any other, is: the weight
/// is then one of single precision.
#[test]
fn a_para_acts_beside_weights_of_eight_bits_and_is_not_merged_into_them() {
    use paraflow_diffusion::nn::Weights;
    let bench = bench();
    write_para(&bench, "p", &para(1));
    let (small, other) = (format!("model.diffusion_model.{LINEAR}"), "model.diffusion_model.out.2".to_owned());
    for scaled in [false, true] {
        bench.write("models/checkpoints/tiny.safetensors", &in_eight_bits([&small, &other], scaled));
        let nodes = json!({
            "2": ["PaRaLoad", {"para_name": "p.safetensors"}],
            "3": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0]}],
        });
        let outcome = bench.run(graph(nodes.clone(), "3"));
        let (adapted, base) = (predict(&outcome, "out"), predict(&outcome, "base"));
        assert!(distance(&adapted, &base) > 1e-3);

        for save in [
            json!(["CheckpointSave", {"model": ["3", 0], "clip": ["1", 1], "vae": ["1", 2], "filename_prefix": "no"}]),
            json!(["ModelSave", {"model": ["3", 0], "filename_prefix": "no"}]),
        ] {
            let mut nodes = nodes.clone();
            nodes["save"] = save;
            let outcome = bench.run(graph(nodes, "3"));
            let (node, error) = outcome.failure();
            let told =
                format!("layer `{LINEAR}` is stored as F8_E4M3, and a PaRa cannot be merged into a quantised weight");
            assert_eq!((node, error.to_string()), ("save", told));
            assert!(error.hint().unwrap().contains("PaRaApply, export it with PaRaToLoRA"), "{:?}", error.hint());
        }
        assert!(!bench.path("output/no_00001_.safetensors").exists());

        let nodes = json!({
            "2": ["PaRaLoad", {"para_name": "p.safetensors"}],
            "l": ["PaRaToLoRA", {"model": ["1", 0], "para": ["2", 0]}],
            "3": ["LoRAApply", {"model": ["1", 0], "lora": ["l", 0]}],
            "save": ["CheckpointSave", {"model": ["3", 0], "clip": ["1", 1], "vae": ["1", 2], "filename_prefix": "c"}],
        });
        let outcome = bench.run(graph(nodes, "3"));
        assert!(distance(&predict(&outcome, "out"), &adapted) < 1e-4);
        let name = outcome.shown("save")["files"][0]["filename"].as_str().unwrap();
        let saved = std::fs::read(bench.path("output").join(name)).unwrap();
        let file = Weights::from_bytes("saved", saved.clone()).unwrap();
        let dtype = |name: &str| file.info(name).map(|info| info.dtype).unwrap_or_default();
        assert_eq!(
            (dtype(&format!("{small}.weight")).as_str(), dtype(&format!("{other}.weight")).as_str()),
            ("F32", "F8_E4M3")
        );
        // Other programs take a scale for the sign of eight bits.
        assert_eq!(
            (dtype(&format!("{small}.scale_weight")), dtype(&format!("{other}.scale_weight")).is_empty()),
            (String::new(), !scaled)
        );
        bench.write("models/checkpoints/tiny.safetensors", &saved);
        let again = bench.run(graph(json!({}), "1"));
        assert!(distance(&predict(&again, "out"), &adapted) < 1e-4, "scaled: {scaled}");
    }
}

#[test]
fn broken_and_foreign_files_are_told_for_what_they_are() {
    let bench = bench();
    let file = para(1).to_file(Store::F32).unwrap();
    let newer = {
        let mut para = para(1);
        para.metadata.insert("para.note".to_owned(), "x".to_owned());
        let text = para.to_file(Store::F32).unwrap();
        // The version is written by `to_file`; one digit of it is changed.
        let at = text.windows(16).position(|part| part == br#""para.version":""#).unwrap() + 16;
        let mut text = text;
        text[at] = b'7';
        text
    };
    let mut holed = file.clone();
    let length = holed.len();
    holed[length - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    for (content, expected) in [
        (newer, "the file is of PaRa version 7, this program reads version 1"),
        (holed, "holds NaN or infinite numbers, the first at place 127"),
        (file[..file.len() - 9].to_vec(), "cut short"),
        (b"<!DOCTYPE html><html>".to_vec(), "web page"),
        (b"PK\x03\x04 archive/data.pkl and more of a pickle".to_vec(), "pickle"),
        (Vec::new(), "p.safetensors"),
    ] {
        bench.write("models/loras/p.safetensors", &content);
        let nodes = json!({
            "2": ["PaRaLoad", {"para_name": "p.safetensors"}],
            "3": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0]}],
        });
        let told = bench.refusal(graph(nodes, "3"));
        assert!(told.contains(expected), "{expected}: {told}");
    }
    // One layer under two names.
    let mut twice = para(1);
    let stages = twice.layers[IN_FILES[0]].clone();
    twice.layers.insert(format!("lora_unet_{}", LINEAR.replace('.', "_")), stages);
    write_para(&bench, "p", &twice);
    let told = apply(&bench, json!({})).failure().1.to_string();
    assert!(told.contains("comes twice, as `") && told.contains(LINEAR), "{told}");
    // Columns that depend on each other: refused, or left out on demand.
    let columns = drawn(4, &[32, 1]);
    let q = Tensor::cat(&[&columns, &columns], 1).unwrap();
    let key = format!("{}.para_q", IN_FILES[0]);
    let tensors = [(key, q, Store::F32)];
    bench
        .write("models/loras/p.safetensors", &paraflow_diffusion::adapters::write(&tensors, &BTreeMap::new()).unwrap());
    let told = apply(&bench, json!({})).failure().1.to_string();
    assert!(told.contains("column 1 depends on those before it"), "{told}");
    let nodes = json!({
        "2": ["PaRaLoad", {"para_name": "p.safetensors", "repair": true}],
        "3": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0]}],
    });
    let repaired = bench.run(graph(nodes, "3"));
    assert!(repaired.warnings()[0].contains("1 dependent columns"), "{:?}", repaired.warnings());
}

#[test]
fn narrow_layers_are_skipped_by_gamma_and_nothing_left_is_an_error() {
    let bench = bench();
    bench.give("subject", super::trained::subject());
    let train = |rank: u32, gamma: f64, layers: &str| {
        bench.run(json!({
            "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
            "s": ["Give", {"name": "subject"}],
            "t": ["PaRaTrain", {
                "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "subject": ["s", 0], "steps": 1, "batch_size": 1,
                "rank": rank, "gamma": gamma, "layers": layers, "validate_every": 0,
            }],
            "out": ["Catch", {"value": ["t", 0]}],
        }))
    };
    // Layers of 32 outputs are too narrow for 0.02, those of 64 are not; ranks are bounded.
    let outcome = train(4, 0.02, "*attn1.to_q");
    let warnings = outcome.warnings();
    assert!(warnings.iter().any(|text| text.contains("gamma 0.02 bounds the rank below 4")), "{warnings:?}");
    assert!(
        warnings.iter().any(|text| text.contains("gamma 0.02 leaves out") && text.contains("too narrow")),
        "{warnings:?}"
    );
    let crate::wires::Para::Projection(made) = &*outcome.value("out") else { panic!("a projection") };
    assert!(made.stages().all(|stage| stage.outputs() == 64 && stage.rank() == 1));
    let none = train(4, 0.001, "*attn1.to_q");
    assert!(none.failure().1.to_string().contains("too narrow"), "{}", none.failure().1);
    // A rank that would leave a layer no output is refused, the one below it is not.
    let told = train(1024, 1.0, "middle_block.1.proj_in").failure().1.to_string();
    assert!(told.contains("`middle_block.1.proj_in` has 64 outputs") && told.contains("would erase it"), "{told}");
    let outcome = train(63, 1.0, "middle_block.1.proj_in");
    let crate::wires::Para::Projection(made) = &*outcome.value("out") else { panic!("a projection") };
    assert_eq!(made.rank(), 63, "one direction is left");
}
