//! From the trainers on: what was trained goes on models and into files, and comes back as it was.

use super::*;
use crate::wires::{Image, Para, Subject, SubjectPicture};
use paraflow_engine::Value;

/// Two noisy pictures of a "bear".
pub(super) fn subject() -> Value {
    let picture = |seed: u64| {
        let pixels = ((drawn(seed, &[1, 64, 64, 3]) * 0.5).unwrap() + 0.5).unwrap();
        SubjectPicture { image: Image::new(pixels).unwrap(), caption: "a sks bear".to_owned(), hash: seed.to_string() }
    };
    Value::new(Subject { pictures: vec![picture(1), picture(2)], class: "bear".to_owned(), unique: "sks".to_owned() })
}

/// A graph that trains with `class` and puts the result on the model twice: as it is, and from its file.
fn train(class: &str, settings: Json, saved: Json, loaded: Json) -> Json {
    let mut inputs = json!({
        "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "subject": ["s", 0], "steps": 2, "batch_size": 1,
        "layers": "middle_block.*, *attn1.to_q", "validate_every": 0,
    });
    inputs.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let apply = match class {
        "PaRaTrain" => json!(["PaRaApply", {"model": ["1", 0], "para": ["t", 0]}]),
        "LoRATrain" => json!(["LoRAApply", {"model": ["1", 0], "lora": ["t", 0], "clip": ["1", 1]}]),
        _ => json!(["SVDiffApply", {"model": ["1", 0], "svdiff": ["t", 0]}]),
    };
    graph(
        json!({"s": ["Give", {"name": "subject"}], "t": [class, inputs], "a": apply, "save": saved, "made": loaded}),
        "a",
    )
}

fn header(bytes: &[u8]) -> Json {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Json = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header["__metadata__"].clone()
}

#[test]
fn every_mode_of_a_para_is_applied_saved_and_loaded_as_what_it_is() {
    for (mode, key) in [("projection", "para_q"), ("release", "lora_up.weight"), ("deft", "lora_up.weight")] {
        let bench = bench();
        bench.give("subject", subject());
        let settings = json!({"mode": mode, "rank": 2, "gamma": 0.5});
        let saved = json!(["PaRaSave", {"para": ["t", 0], "filename_prefix": "loras/made"}]);
        let outcome = bench.run(train("PaRaTrain", settings, saved, json!(["Catch", {"value": ["t", 0]}])));
        assert!(outcome.warnings().is_empty(), "{mode}: {:?}", outcome.warnings());
        let (base, adapted) = (predict(&outcome, "base"), predict(&outcome, "out"));
        assert!(distance(&adapted, &base) > 1e-3, "{mode}");
        match &*outcome.value::<Para>("made") {
            Para::Projection(para) => {
                assert_eq!(mode, "projection");
                assert!(
                    para.stages().all(|stage| stage.energy().is_some_and(|energy| energy.is_sorted_by(|a, b| a >= b)))
                );
            }
            Para::Free(lora) => assert!(mode != "projection" && lora.rank() == 2),
        }
        let bytes = std::fs::read(bench.path("output/loras/made_00001_.safetensors")).unwrap();
        let header = header(&bytes);
        for (key, value) in [("para.mode", mode), ("para.arch", "sd1"), ("para.trigger", "sks"), ("para.class", "bear")]
        {
            assert_eq!(header[key], value, "{mode}");
        }
        assert!(
            header["paraflow.prompt"].as_str().unwrap().contains("PaRaTrain") && header["para.base_print"].is_string()
        );
        assert!(String::from_utf8_lossy(&bytes).contains(key), "{mode}: tensors end in {key}");
        bench.write("models/loras/made.safetensors", &bytes);
        let nodes = json!({
            "2": ["PaRaLoad", {"para_name": "made.safetensors"}],
            "3": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0], "strict_base": true}],
        });
        let loaded = bench.run(graph(nodes, "3"));
        assert!(loaded.warnings().is_empty(), "{mode}: {:?}", loaded.warnings());
        // Directions are made orthonormal again, to the rounding of f32.
        assert!(distance(&predict(&loaded, "out"), &adapted) < 1e-5, "{mode}: saved and loaded");
    }
}

#[test]
fn a_trained_lora_goes_through_comfyui_s_nodes() {
    let bench = bench();
    bench.give("subject", subject());
    let saved = json!(["SaveLoRA", {"lora": ["t", 0], "prefix": "loras/made", "steps": 2}]);
    let again = json!(["LoraModelLoader", {"model": ["1", 0], "lora": ["t", 0], "strength_model": 1.0}]);
    let mut nodes = train("LoRATrain", json!({"rank": 2, "learning_rate": 0.1}), saved, again);
    nodes["loaded"] = json!(["Catch", {"value": ["made", 0]}]);
    let outcome = bench.run(nodes);
    let adapted = predict(&outcome, "out");
    assert!(distance(&adapted, &predict(&outcome, "base")) > 1e-3);
    assert_eq!(adapted, predict(&outcome, "loaded"));
    let bytes = std::fs::read(bench.path("output/loras/made_2_steps_00001_.safetensors")).unwrap();
    bench.write("models/loras/made.safetensors", &bytes);
    let nodes = json!({"2": ["LoraLoader", {
        "model": ["1", 0], "clip": ["1", 1], "lora_name": "made.safetensors", "strength_model": 1.0, "strength_clip": 1.0,
    }]});
    let loaded = bench.run(graph(nodes, "2"));
    assert!(loaded.warnings().is_empty(), "{:?}", loaded.warnings());
    assert!(distance(&predict(&loaded, "out"), &adapted) < 1e-6);
}

#[test]
fn trained_shifts_go_on_the_model_and_into_a_file_that_says_where_they_are_from() {
    let bench = bench();
    bench.give("subject", subject());
    let catch = json!(["Catch", {"value": ["t", 0]}]);
    let saved = json!(["SVDiffSave", {"svdiff": ["t", 0], "filename_prefix": "loras/made"}]);
    let outcome = bench.run(train("SVDiffTrain", json!({"learning_rate": 0.1}), saved, catch));
    assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
    let adapted = predict(&outcome, "out");
    assert!(distance(&adapted, &predict(&outcome, "base")) > 1e-3);
    let bytes = std::fs::read(bench.path("output/loras/made_00001_.safetensors")).unwrap();
    let header = header(&bytes);
    for (key, value) in [("paraflow.arch", "sd1"), ("paraflow.trigger", "sks"), ("ss_network_module", "svdiff")] {
        assert_eq!(header[key], value);
    }
    assert_eq!(header["modelspec.architecture"], "stable-diffusion-v1/svdiff");
    let told: Json = serde_json::from_str(header["paraflow.train"].as_str().unwrap()).unwrap();
    assert_eq!(told["pictures"][0]["blake3"], "1");
    let nodes = json!({
        "2": ["SVDiffLoad", {"svdiff_name": "made_00001_.safetensors"}],
        "3": ["SVDiffApply", {"model": ["1", 0], "svdiff": ["2", 0], "strict_base": true}],
    });
    let loaded = bench.run(graph(nodes, "3"));
    assert!(loaded.warnings().is_empty(), "{:?}", loaded.warnings());
    assert_eq!(predict(&loaded, "out"), adapted);
    let other = tiny::file(&tiny::tensors(), |_, values| values.iter().map(|value| value * 1.05).collect());
    bench.write("models/checkpoints/tiny.safetensors", &other);
    let nodes = json!({
        "2": ["SVDiffLoad", {"svdiff_name": "made_00001_.safetensors"}],
        "3": ["SVDiffApply", {"model": ["1", 0], "svdiff": ["2", 0], "strict_base": true}],
    });
    let refused = bench.run(graph(nodes, "3"));
    let told = refused.failure().1.to_string();
    assert!(told.contains("was trained on tiny.safetensors, and this checkpoint differs from it in"), "{told}");
}

/// Pictures of the class that the graph itself makes keep the class from becoming the individual.
#[test]
fn class_pictures_are_made_by_the_graph() {
    let bench = bench();
    bench.give("subject", subject());
    let trained = |weight: f64| {
        let settings = json!({"rank": 2, "learning_rate": 0.1, "class_images": ["d", 0], "prior_weight": weight});
        let saved = json!(["SaveLoRA", {"lora": ["t", 0], "prefix": "loras/prior"}]);
        let mut nodes = train("LoRATrain", settings, saved, json!(["Catch", {"value": ["t", 0]}]));
        nodes["p"] = json!(["CLIPTextEncode", {"clip": ["1", 1], "text": "a bear"}]);
        nodes["e"] = json!(["EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 3}]);
        nodes["k"] = json!(["KSampler", {
            "model": ["1", 0], "positive": ["p", 0], "negative": ["p", 0], "latent_image": ["e", 0], "seed": 1, "steps": 1,
            "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        }]);
        nodes["d"] = json!(["VAEDecode", {"samples": ["k", 0], "vae": ["1", 2]}]);
        let outcome = bench.run(nodes);
        assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
        predict(&outcome, "out")
    };
    assert_ne!(trained(1.0), trained(0.0), "they have a part in the result");
    let bytes = std::fs::read(bench.path("output/loras/prior_00001_.safetensors")).unwrap();
    let told: Json = serde_json::from_str(header(&bytes)["paraflow.train"].as_str().unwrap()).unwrap();
    assert_eq!(told["class_pictures"], 3);
}

/// The frozen network may multiply in fewer digits; the file says so.
#[test]
fn the_precision_of_a_training_is_its_own_and_told() {
    let bench = bench();
    bench.give("subject", subject());
    let trained = |precision: &str| {
        let settings = json!({"rank": 2, "gamma": 0.5, "precision": precision});
        let saved = json!(["PaRaSave", {"para": ["t", 0], "filename_prefix": format!("loras/{precision}")}]);
        let outcome = bench.run(train("PaRaTrain", settings, saved, json!(["Catch", {"value": ["t", 0]}])));
        let bytes = std::fs::read(bench.path(format!("output/loras/{precision}_00001_.safetensors"))).unwrap();
        let told: Json = serde_json::from_str(header(&bytes)["para.train"].as_str().unwrap()).unwrap();
        (predict(&outcome, "out"), told["precision"].as_str().unwrap().to_owned())
    };
    let (model, single, half) = (trained("model"), trained("f32"), trained("bf16"));
    assert_eq!((model.1.as_str(), single.1.as_str(), half.1.as_str()), ("as the program draws", "f32", "bf16"));
    assert_eq!(model.0, single.0, "the program draws in f32 unless it is told");
    let apart = distance(&half.0, &single.0);
    assert!(apart > 0.0 && apart < 0.2, "{apart}");
}

/// The chain that the program is for.
#[test]
fn a_para_then_a_lora_make_a_picture() {
    let bench = bench();
    bench.give("subject", subject());
    let common = json!({
        "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "subject": ["s", 0], "steps": 1, "batch_size": 1,
        "layers": "mid", "validate_every": 0,
    });
    let mut graph = json!({
        "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
        "s": ["Give", {"name": "subject"}],
        "para": ["PaRaTrain", common],
        "lora": ["LoRATrain", common],
        "2": ["PaRaApply", {"model": ["1", 0], "para": ["para", 0]}],
        "3": ["LoRAApply", {"model": ["2", 0], "clip": ["1", 1], "lora": ["lora", 0]}],
        "p": ["CLIPTextEncode", {"clip": ["3", 1], "text": "a sks bear"}],
        "e": ["EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}],
        "k": ["KSampler", {
            "model": ["3", 0], "positive": ["p", 0], "negative": ["p", 0], "latent_image": ["e", 0], "seed": 1, "steps": 2,
            "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        }],
        "d": ["VAEDecode", {"samples": ["k", 0], "vae": ["1", 2]}],
        "out": ["Catch", {"value": ["d", 0]}],
    });
    let picture = |outcome: &Outcome| -> Vec<f32> {
        outcome.value::<Image>("out").pixels().flatten_all().unwrap().to_vec1().unwrap()
    };
    let both = picture(&bench.run(graph.clone()));
    graph["k"][1]["model"] = json!(["1", 0]);
    let base = picture(&bench.run(graph));
    assert!(both.iter().all(|value| value.is_finite()) && both != base);
}
