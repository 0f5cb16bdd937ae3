//! Models that are shown pictures: what their checkpoints bring, and what is refused.

use super::{Golden, caught};
use crate::testing::Outcome;
use crate::tiny::{self, Tensors};
use crate::wires::Image;
use paraflow_engine::Json;
use serde_json::json;

/// What is left of an autoencoder's listing when its coarsest level goes, as the upscaler's has it.
fn of_three_levels(vae: Tensors) -> Tensors {
    let gone = ["encoder.down.3.", "encoder.down.2.downsample.", "decoder.up.3."];
    vae.into_iter().filter(|(name, _)| !gone.iter().any(|start| name.starts_with(start))).collect()
}

#[test]
fn the_upscaler_s_pictures_are_four_times_the_size_of_its_latents() {
    let golden = Golden::open();
    let bench = golden.bench();
    let mut tensors = golden.shapes("x4");
    let vae = of_three_levels(golden.shapes("vae"));
    tensors.extend(vae.into_iter().map(|(name, shape)| (format!("first_stage_model.{name}"), shape)));
    bench.write("models/checkpoints/x4.safetensors", &tiny::drawn_by_name(&tensors));
    let graph = |images: &str, scale_ratio: f64| {
        json!({
            "load": ["CheckpointLoaderSimple", {"ckpt_name": "x4.safetensors"}],
            "images": ["Give", {"name": images}],
            "positive": ["Give", {"name": "positive_xl"}],
            "shown": ["SD_4XUpscale_Conditioning", {
                "images": ["images", 0], "positive": ["positive", 0], "negative": ["positive", 0], "scale_ratio": scale_ratio,
                "noise_augmentation": 0.1,
            }],
            "sample": ["KSampler", {
                "model": ["load", 0], "seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal",
                "positive": ["shown", 0], "negative": ["shown", 1], "latent_image": ["shown", 2], "denoise": 1.0,
            }],
            "decode": ["VAEDecode", {"samples": ["sample", 0], "vae": ["load", 2]}],
            "out": ["Catch", {"value": ["decode", 0]}],
        })
    };
    let outcome = bench.run(graph("small_picture", 4.0));
    assert_eq!(outcome.value::<Image>("out").dims(), (2, 4 * 9, 4 * 13, 3));
    let refused = |images: &str, ratio: f64| bench.run(graph(images, ratio)).failure().1.to_string();
    let clear = refused("clear", 4.0);
    assert!(clear.contains("pictures of three colours") && clear.contains("4 channels"), "{clear}");
    let nothing = refused("small_picture", 0.1);
    assert!(nothing.contains("a result of at least 4 x 4 pixels") && nothing.contains("0.1 of 13 x 9"), "{nothing}");
}

/// Under the names that ComfyUI writes, with the layer that it forgets.
#[test]
fn a_checkpoint_that_sees_is_saved_whole() {
    let golden = Golden::open();
    let bench = golden.whole_bench();
    let mut graph = golden.graph("other_side");
    let before = bench.run(graph.clone());
    let saved = bench.run(json!({
        "zero": ["ImageOnlyCheckpointLoader", {"ckpt_name": "zero.safetensors"}],
        "save": ["ImageOnlyCheckpointSave", {
            "model": ["zero", 0], "clip_vision": ["zero", 1], "vae": ["zero", 2], "filename_prefix": "whole",
        }],
    }));
    assert_eq!(saved.shown("save")["files"][0]["filename"], "whole_00001_.safetensors");
    let file = std::fs::read(bench.path("output/whole_00001_.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let place = "cond_stage_model.model.visual.";
    let shape = |name: &str| tensors.tensor(name).unwrap().shape().to_vec();
    assert_eq!(shape(&format!("{place}vision_model.embeddings.class_embedding")), [64]);
    assert_eq!(shape(&format!("{place}vision_model.encoder.layers.1.self_attn.k_proj.weight")), [64, 64]);
    assert_eq!(shape(&format!("{place}visual_projection.weight")), [768, 64]);
    assert_eq!(tensors.names().iter().filter(|name| name.starts_with(place)).count(), 40);
    assert_eq!(shape("cc_projection.weight"), [768, 772]);
    bench.write("models/checkpoints/again.safetensors", &file);
    graph["zero"] = json!(["ImageOnlyCheckpointLoader", {"ckpt_name": "again.safetensors"}]);
    let after = bench.run(graph);
    let numbers = |outcome: &Outcome| caught(outcome.caught("out_0")).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(numbers(&before), numbers(&after));
}

#[test]
fn what_zero123_cannot_be_shown_is_refused() {
    let golden = Golden::open();
    let bench = golden.whole_bench();
    let refused = |node: &str, input: &str, value: Json| {
        let mut graph = golden.graph("other_side");
        graph[node][1][input] = value;
        bench.refusal(graph)
    };
    let many = refused("shown", "init_image", json!(["small_picture", 0]));
    assert!(many.contains("one picture of three colours") && many.contains("2 of 3 channels"), "{many}");
    let words = refused("end", "positive", json!(["positive", 0]));
    assert!(words.contains("what StableZero123_Conditioning makes of a picture"), "{words}");
    let mut video = golden.shapes("zero");
    video.insert("model.diffusion_model.input_blocks.1.1.time_stack.0.norm1.weight".to_owned(), vec![32]);
    bench.write("models/checkpoints/svd.safetensors", &tiny::drawn_by_name(&video));
    let video = refused("zero", "ckpt_name", json!("svd.safetensors"));
    assert!(video.contains("Stable Video Diffusion") && video.contains("video networks are not supported"), "{video}");
}
