//! Checkpoints with adapters worked in.

use super::*;
use crate::wires::Image;
use paraflow_diffusion::adapters::Vectors;
use paraflow_diffusion::nn::Weights;

const ENCODER: &str = "lora_te_text_model_encoder_layers_0_mlp_fc1";

/// Text to image from a checkpoint, and from it with a PaRa and a LoRA, the LoRA on the text encoder, too.
fn pictures(checkpoint: &str) -> Json {
    let picture = |model: Json, clip: Json| {
        json!({
            "text": ["CLIPTextEncode", {"text": "a red bear", "clip": clip}],
            "none": ["CLIPTextEncode", {"text": "", "clip": clip}],
            "latent": ["EmptyLatentImage", {"width": 32, "height": 32, "batch_size": 1}],
            "sampled": ["KSampler", {
                "model": model, "seed": 7, "steps": 4, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal",
                "positive": ["text", 0], "negative": ["none", 0], "latent_image": ["latent", 0], "denoise": 1.0,
            }],
            "decoded": ["VAEDecode", {"samples": ["sampled", 0], "vae": ["1", 2]}],
        })
    };
    let mut graph = json!({
        "1": ["CheckpointLoaderSimple", {"ckpt_name": checkpoint}],
        "2": ["PaRaLoad", {"para_name": "p.safetensors"}],
        "3": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0]}],
        "4": ["LoraLoader", {"model": ["3", 0], "clip": ["1", 1], "lora_name": "l.safetensors"}],
    });
    for (name, model, clip) in
        [("plain", json!(["1", 0]), json!(["1", 1])), ("adapted", json!(["4", 0]), json!(["4", 1]))]
    {
        for (node, made) in picture(model, clip).as_object().unwrap() {
            // Links within a picture are to nodes of its own.
            let text = made.to_string();
            let own = ["text", "none", "latent", "sampled", "decoded"]
                .iter()
                .fold(text, |text, node| text.replace(&format!("[\"{node}\""), &format!("[\"{name}-{node}\"")));
            graph[format!("{name}-{node}")] = serde_json::from_str(&own).unwrap();
        }
        graph[name] = json!(["Catch", {"value": [format!("{name}-decoded"), 0]}]);
    }
    graph
}

/// Peak signal to noise of two pictures, in dB.
fn psnr(a: &Image, b: &Image) -> f64 {
    let (a, b) = (a.values(0).unwrap(), b.values(0).unwrap());
    let square: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    -10.0 * (square / a.len() as f64).log10()
}

fn adapted_bench() -> Bench {
    let bench = bench();
    write_para(&bench, "p", &para(1));
    let mut lora = lora(3);
    let form = Form::LowRank { up: drawn(4, &[256, 2]), down: drawn(5, &[2, 64]) };
    lora.modules.insert(ENCODER.to_owned(), Module { form, scale: 1.0, magnitude: None });
    lora.modules.values_mut().for_each(|module| module.scale = 1.0);
    write_lora(&bench, "l", &lora);
    bench
}

#[test]
fn a_saved_checkpoint_paints_what_the_adapters_did() {
    let bench = adapted_bench();
    let mut graph = pictures("tiny.safetensors");
    graph["save"] =
        json!(["CheckpointSave", {"model": ["4", 0], "clip": ["4", 1], "vae": ["1", 2], "filename_prefix": "c"}]);
    let outcome = bench.run(graph);
    assert_eq!(outcome.shown("save")["files"][0]["filename"], "c_00001_.safetensors");
    let (plain, adapted) = (outcome.value::<Image>("plain"), outcome.value::<Image>("adapted"));
    let saved = std::fs::read(bench.path("output/c_00001_.safetensors")).unwrap();
    bench.write("models/checkpoints/saved.safetensors", &saved);
    let again = bench.run(pictures("saved.safetensors"));
    let near = psnr(&again.value::<Image>("plain"), &adapted);
    let far = psnr(&plain, &adapted);
    assert!(near >= 60.0 && far < 40.0, "saved {near:.1} dB, without adapters {far:.1} dB");

    let (before, after) = (
        Weights::from_bytes("tiny", tiny::checkpoint()).unwrap(),
        Weights::from_bytes("saved", saved.clone()).unwrap(),
    );
    assert_eq!(after.names().collect::<Vec<_>>(), before.names().collect::<Vec<_>>());
    let changed: Vec<&str> =
        before.names().filter(|name| after.bytes(name).unwrap() != before.bytes(name).unwrap()).collect();
    let expected = [
        "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight".to_owned(),
        format!("model.diffusion_model.{LINEAR}.weight"),
        format!("model.diffusion_model.{CONVOLUTION}.weight"),
    ];
    assert_eq!(changed, expected, "all else is as it was");
    assert!(before.names().all(|name| after.shape(name) == before.shape(name)));
    let prompt: Json = serde_json::from_str(&after.metadata()["prompt"]).unwrap();
    assert_eq!(prompt["save"]["class_type"], "CheckpointSave");
    assert_eq!(after.metadata()["modelspec.predict_key"], "epsilon");
}

#[test]
fn parts_are_saved_alone_and_loaded_again() {
    let bench = adapted_bench();
    let mut graph = pictures("tiny.safetensors");
    graph["5"] = json!(["ModelSave", {"model": ["4", 0], "filename_prefix": "m"}]);
    graph["6"] = json!(["CLIPSave", {"clip": ["4", 1], "filename_prefix": "t"}]);
    graph["7"] = json!(["VAESave", {"vae": ["1", 2], "filename_prefix": "v"}]);
    let outcome = bench.run(graph);
    assert_eq!(outcome.shown("6")["files"][0]["filename"], "t_clip_l_00001_.safetensors");
    for (from, to) in
        [("m_00001_", "diffusion_models/m"), ("t_clip_l_00001_", "text_encoders/t"), ("v_00001_", "vae/v")]
    {
        let saved = std::fs::read(bench.path(format!("output/{from}.safetensors"))).unwrap();
        bench.write(&format!("models/{to}.safetensors"), &saved);
    }
    let mut parts = pictures("tiny.safetensors");
    parts["u"] = json!(["UNETLoader", {"unet_name": "m.safetensors", "weight_dtype": "default"}]);
    parts["t"] = json!(["CLIPLoader", {"clip_name": "t.safetensors", "type": "stable_diffusion"}]);
    parts["v"] = json!(["VAELoader", {"vae_name": "v.safetensors"}]);
    parts["plain-sampled"][1]["model"] = json!(["u", 0]);
    parts["plain-text"][1]["clip"] = json!(["t", 0]);
    parts["plain-none"][1]["clip"] = json!(["t", 0]);
    parts["plain-decoded"][1]["vae"] = json!(["v", 0]);
    let again = bench.run(parts);
    let near = psnr(&again.value::<Image>("plain"), &outcome.value::<Image>("adapted"));
    assert!(near >= 60.0, "{near:.1} dB");
}

/// What two models differ by, biases and norms too, saved as a LoRA and put on the one: the other, also after `CheckpointSave`.
#[test]
fn a_difference_with_biases_and_norms_gives_the_other_model_back() {
    let bench = bench();
    let other = tiny::file(&tiny::tensors(), |name, values| {
        let factor = if name.starts_with("model.diffusion_model.") { 1.25 } else { 1.0 };
        values.into_iter().map(|value| factor * value).collect()
    });
    bench.write("models/checkpoints/other.safetensors", &other);
    let outcome = bench.run(graph(
        json!({
            "o": ["CheckpointLoaderSimple", {"ckpt_name": "other.safetensors"}],
            "less": ["ModelMergeSubtract", {"model1": ["o", 0], "model2": ["1", 0], "multiplier": 1.0}],
            "save": ["LoraSave", {
                "filename_prefix": "d", "rank": 8, "lora_type": "full_diff", "bias_diff": true, "model_diff": ["less", 0],
            }],
        }),
        "o",
    ));
    let (base, expected) = (predict(&outcome, "base"), predict(&outcome, "out"));
    let saved = std::fs::read(bench.path("output/d_00001_.safetensors")).unwrap();
    bench.write("models/loras/d.safetensors", &saved);
    let load = |strength: f64| {
        bench.run(graph(
            json!({
                "2": ["LoraLoaderModelOnly", {"model": ["1", 0], "lora_name": "d.safetensors", "strength_model": strength}],
                "save": ["CheckpointSave", {"model": ["2", 0], "clip": ["1", 1], "vae": ["1", 2], "filename_prefix": "c"}],
            }),
            "2",
        ))
    };
    let with = load(1.0);
    assert!(with.warnings().is_empty(), "every key is used: {:?}", with.warnings());
    // The file holds half precision.
    let (near, far) = (distance(&predict(&with, "out"), &expected), distance(&base, &expected));
    assert!(near < 5e-3 && far > 0.2, "{near} {far}");
    assert_eq!(predict(&with, "base"), base, "the model on the wire never changed");
    let saved = std::fs::read(bench.path("output/c_00001_.safetensors")).unwrap();
    bench.write("models/checkpoints/saved.safetensors", &saved);
    let mut again = graph(json!({}), "1");
    again["1"][1]["ckpt_name"] = json!("saved.safetensors");
    assert!(distance(&predict(&bench.run(again), "out"), &predict(&with, "out")) < 1e-6);
    let half = distance(&predict(&load(0.5), "out"), &expected);
    assert!(half > 10.0 * near && half < far, "{half}");
}

/// Norms of a text encoder, by the names of ComfyUI's generic form.
#[test]
fn a_norm_of_a_text_encoder_is_moved_too() {
    let bench = bench();
    let norm = "text_model.final_layer_norm";
    let vectors = Vectors { shift: Some(drawn(1, &[64])), ..Vectors::default() };
    let name = format!("text_encoders.clip_l.transformer.{norm}");
    let file = LoraModel { vectors: [(name, vectors)].into(), ..LoraModel::default() };
    write_lora(&bench, "l", &file);
    let nodes = json!({
        "2": ["LoraLoader", {
            "model": ["1", 0], "clip": ["1", 1], "lora_name": "l.safetensors", "strength_model": 1.0, "strength_clip": 0.5,
        }],
        "before": ["Catch", {"value": ["1", 1]}],
        "after": ["Catch", {"value": ["2", 1]}],
    });
    let outcome = bench.run(graph(nodes, "2"));
    assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
    let bias = |catch: &str| -> Vec<f32> {
        let clip = outcome.value::<crate::wires::Clip>(catch);
        let encoder = &clip.encoders().unwrap().parts()[0];
        encoder.source().tensor(&format!("{norm}.bias"), &[64]).unwrap().to_vec1().unwrap()
    };
    let added: Vec<f32> = drawn(1, &[64]).to_vec1().unwrap();
    for ((before, after), added) in bias("before").iter().zip(bias("after")).zip(added) {
        // To the nearest number of half precision, in which ComfyUI keeps text encoders.
        let exact = before + 0.5 * added;
        assert!((exact - after).abs() <= exact.abs() * 2f32.powi(-11), "{exact} {after}");
    }
    // Without its encoder, it fits nothing.
    let nodes = json!({"2": ["LoraLoaderModelOnly", {"model": ["1", 0], "lora_name": "l.safetensors"}]});
    let told = bench.run(graph(nodes, "2")).failure().1.to_string();
    assert!(told.contains("it is for a text encoder, and none was given"), "{told}");
}
