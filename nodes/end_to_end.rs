//! Whole graphs over a tiny checkpoint: what they make, what they do not do again, and how they fail.

use crate::testing::{Bench, Outcome};
use crate::tiny;
use crate::wires::{Image, Latent, Mask};
use crate::{Previews, WholeCells};
use candle_core::{DType, Device, Tensor};
use paraflow_engine::{Event, Json, Value};
use serde_json::json;
use std::fs;

/// A bench with the tiny checkpoint in its folder.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("models/checkpoints/tiny.safetensors", tiny::checkpoint());
    bench
}

/// Text to image; node 5 samples, 6 decodes, 7 saves.
fn text_to_image() -> Json {
    json!({
        "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
        "2": ["CLIPTextEncode", {"text": "a red (bear:1.2) on the beach", "clip": ["1", 1]}],
        "3": ["CLIPTextEncode", {"text": "", "clip": ["1", 1]}],
        "4": ["EmptyLatentImage", {"width": 32, "height": 40, "batch_size": 2}],
        "5": ["KSampler", {
            "model": ["1", 0], "seed": 7, "steps": 4, "cfg": 5.0, "sampler_name": "euler_ancestral", "scheduler": "normal",
            "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0], "denoise": 1.0,
        }],
        "6": ["VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}],
        "7": ["SaveImage", {"images": ["6", 0], "filename_prefix": "a"}],
    })
}

/// The graph with one input changed.
fn with(mut graph: Json, node: &str, input: &str, value: Json) -> Json {
    graph[node][1][input] = value;
    graph
}

fn pixels(bench: &Bench, name: &str) -> Vec<u8> {
    let file = fs::File::open(bench.path("output").join(name)).unwrap();
    let mut reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut bytes).unwrap();
    assert_eq!((reader.info().width, reader.info().height), (32, 40));
    bytes
}

#[test]
fn equal_graphs_give_equal_bytes_and_seeds_matter() {
    let (one, other) = (bench(), bench());
    one.run(text_to_image());
    other.run(text_to_image());
    other.run(with(text_to_image(), "5", "seed", json!(8)));
    let file = |bench: &Bench, name: &str| fs::read(bench.path("output").join(name)).unwrap();
    assert_eq!(file(&one, "a_00001_.png"), file(&other, "a_00001_.png"));
    assert_eq!(file(&one, "a_00002_.png"), file(&other, "a_00002_.png"));
    let first = pixels(&one, "a_00001_.png");
    assert_ne!(first, pixels(&one, "a_00002_.png"), "each picture of a batch has noise of its own");
    assert_ne!(first, pixels(&other, "a_00003_.png"), "another seed gives another picture");
    assert!(first.iter().any(|byte| *byte != first[0]), "one colour is no picture");
}

#[test]
fn only_what_changed_runs_again() {
    let bench = bench();
    let ran = |graph: Json| bench.run(graph).ran().into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(ran(text_to_image()).len(), 7);
    assert!(ran(text_to_image()).is_empty());
    assert_eq!(ran(with(text_to_image(), "7", "filename_prefix", json!("b"))), ["7"]);
    assert_eq!(ran(with(text_to_image(), "5", "seed", json!(8))), ["5", "6", "7"]);
    bench.write(
        "models/checkpoints/tiny.safetensors",
        &tiny::file(&tiny::tensors(), |_, mut values| {
            values[0] += 1.0;
            values
        }),
    );
    let mut again = ran(text_to_image());
    again.sort();
    assert_eq!(again, ["1", "2", "3", "5", "6", "7"], "a checkpoint that was replaced is read again");
}

#[test]
fn progress_comes_with_each_step_and_stops_take_effect_between_them() {
    let bench = bench();
    let outcome = bench.run_until(text_to_image(), |event, cancel| {
        if matches!(event, Event::Progress { node, done: 2, .. } if node == "5") {
            cancel.cancel();
        }
    });
    let steps: Vec<_> = outcome
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Progress { done, total, .. } => Some((*done, *total)),
            _ => None,
        })
        .collect();
    assert_eq!(steps, [(1, 4), (2, 4)]);
    assert!(outcome.events.iter().any(|event| matches!(event, Event::Cancelled)));
    assert!(!bench.path("output").exists());
}

#[test]
fn previews_are_drawn_where_they_are_wanted() {
    let bench = bench();
    let count = |outcome: &Outcome| outcome.events.iter().filter(|e| matches!(e, Event::Preview { .. })).count();
    assert_eq!(count(&bench.run(text_to_image())), 0);

    let wanted = Bench::with_service(Previews { size_px: 64, tiny: false });
    wanted.write("models/checkpoints/tiny.safetensors", tiny::checkpoint());
    let outcome = wanted.run(text_to_image());
    assert_eq!(count(&outcome), 4);
    let shown = outcome.events.iter().find_map(|event| match event {
        Event::Preview { image, .. } => Some(image),
        _ => None,
    });
    let preview = image::load_from_memory(shown.unwrap()).unwrap();
    assert_eq!((preview.width(), preview.height()), (51, 64));
}

#[test]
fn inpainting_leaves_the_rest_as_it_was() {
    let bench = bench();
    let picture: Vec<f32> = (0..32 * 32 * 3).map(|i| (i * 37 % 101) as f32 / 100.0).collect();
    let picture = Image::new(Tensor::from_vec(picture, (1, 32, 32, 3), &Device::Cpu).unwrap()).unwrap();
    let mut mask = vec![0.0_f32; 32 * 32];
    (0..32).for_each(|y| mask[y * 32..y * 32 + 16].fill(1.0));
    let mask = Mask::new(Tensor::from_vec(mask, (1, 32, 32), &Device::Cpu).unwrap()).unwrap();
    bench.give("picture", Value::new(picture)).give("mask", Value::new(mask));
    let outcome = bench.run(json!({
        "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
        "2": ["CLIPTextEncode", {"text": "a duck", "clip": ["1", 1]}],
        "picture": ["Give", {"name": "picture"}],
        "mask": ["Give", {"name": "mask"}],
        "3": ["VAEEncode", {"pixels": ["picture", 0], "vae": ["1", 2]}],
        "4": ["SetLatentNoiseMask", {"samples": ["3", 0], "mask": ["mask", 0]}],
        "5": ["KSampler", {
            "model": ["1", 0], "seed": 1, "steps": 3, "cfg": 1.0, "sampler_name": "dpmpp_2m", "scheduler": "karras",
            "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["4", 0], "denoise": 1.0,
        }],
        "before": ["Catch", {"value": ["3", 0]}],
        "after": ["Catch", {"value": ["5", 0]}],
    }));
    let values = |id: &str, columns: usize| -> Vec<f32> {
        let latent = outcome.value::<Latent>(id);
        latent.samples().narrow(3, columns, 2).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let off = |columns| -> f32 {
        let pairs = values("before", columns).into_iter().zip(values("after", columns));
        pairs.map(|(before, after)| (before - after).abs()).fold(0.0, f32::max)
    };
    // Kept latents go through the model's scale and back.
    assert!(off(2) < 1e-5, "what was not selected moved by {}", off(2));
    assert!(off(0) > 0.05, "what was selected moved by only {}", off(0));
}

#[test]
fn two_advanced_samplers_finish_what_one_would() {
    let bench = bench();
    let sampler = |latent: Json, add_noise: &str, start: u32, end: u32, leftover: &str| {
        json!(["KSamplerAdvanced", {
            "model": ["1", 0], "add_noise": add_noise, "noise_seed": 3, "steps": 6, "cfg": 2.0, "sampler_name": "euler",
            "scheduler": "simple", "positive": ["2", 0], "negative": ["3", 0], "latent_image": latent,
            "start_at_step": start, "end_at_step": end, "return_with_leftover_noise": leftover,
        }])
    };
    let mut graph = text_to_image();
    let nodes = graph.as_object_mut().unwrap();
    nodes.remove("5");
    nodes.remove("6");
    nodes.remove("7");
    nodes.insert("whole".to_owned(), sampler(json!(["4", 0]), "enable", 0, 10_000, "disable"));
    nodes.insert("begin".to_owned(), sampler(json!(["4", 0]), "enable", 0, 2, "enable"));
    nodes.insert("finish".to_owned(), sampler(json!(["begin", 0]), "disable", 2, 10_000, "disable"));
    nodes.insert("none".to_owned(), sampler(json!(["finish", 0]), "disable", 8, 20, "disable"));
    for caught in ["whole", "finish", "none"] {
        nodes.insert(format!("{caught}?"), json!(["Catch", {"value": [caught, 0]}]));
    }
    let outcome = bench.run(graph);
    let values =
        |id: &str| -> Vec<f32> { outcome.value::<Latent>(id).samples().flatten_all().unwrap().to_vec1().unwrap() };
    let worst = values("whole?").into_iter().zip(values("finish?")).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "two halves are {worst} off the whole");
    assert_eq!(values("finish?"), values("none?"), "steps after the last one do nothing");
}

#[test]
fn a_part_that_the_checkpoint_lacks_fails_where_it_is_needed() {
    let bench = Bench::new();
    let without = |prefix: &str| {
        let mut tensors = tiny::tensors();
        tensors.retain(|name, _| !name.starts_with(prefix));
        tiny::file(&tensors, |_, values| values)
    };
    bench.write("models/checkpoints/tiny.safetensors", &without("first_stage_model"));
    let outcome = bench.run(text_to_image());
    let (node, error) = outcome.failure();
    assert_eq!(node, "6");
    assert!(error.to_string().ends_with("there is no VAE in this file"), "{error}");
    assert!(error.hint().unwrap().contains("VAELoader"));
    assert!(!bench.path("output").exists());

    bench.write("models/checkpoints/tiny.safetensors", &without("cond_stage_model"));
    let outcome = bench.run(text_to_image());
    let (node, error) = outcome.failure();
    assert!(matches!(node, "2" | "3"));
    assert!(error.to_string().ends_with("there is no text encoder in this file"), "{error}");
}

#[test]
fn bad_checkpoints_are_told_before_anything_runs() {
    let bench = Bench::new();
    let text = |content: &[u8]| {
        bench.write("models/checkpoints/tiny.safetensors", content);
        let faults = bench.plan(text_to_image()).expect_err("the file is bad");
        assert_eq!(faults.len(), 1, "{faults:?}");
        format!("{}; {}", faults[0], faults[0].hint().unwrap_or_default())
    };
    assert!(text(&tiny::checkpoint()[..1_000_000]).contains("cut short"));
    assert!(text(b"PK\x03\x04 and so on, as pickled checkpoints begin").contains("pickle"));
    assert!(text(b"").contains("empty"));
    assert!(text(b"\x08\0\0\0\0\0\0\0{\"a\": }!").contains("not a safetensors file"));
    let flux = [("model.diffusion_model.double_blocks.0.img_attn.proj.weight".to_owned(), vec![4, 4])];
    let flux = text(&tiny::file(&flux.into(), |_, values| values));
    assert!(flux.contains("looks like Flux") && flux.contains("Stable Diffusion XL"), "{flux}");
    let vae: tiny::Tensors =
        tiny::tensors().into_iter().filter(|(name, _)| name.starts_with("first_stage_model")).collect();
    let vae = text(&tiny::file(&vae, |_, values| values));
    assert!(vae.contains("no UNet in this file") && vae.contains("VAELoader"), "{vae}");
    // What only the numbers' places tell is found when they are looked for.
    let mut wrong = tiny::tensors();
    wrong.insert("model.diffusion_model.input_blocks.1.0.in_layers.2.weight".to_owned(), vec![32, 31, 3, 3]);
    bench.write("models/checkpoints/tiny.safetensors", &tiny::file(&wrong, |_, values| values));
    let outcome = bench.run(text_to_image());
    assert!(outcome.failure().0 == "1" && outcome.failure().1.to_string().contains("in_layers.2.weight"));
}

/// Eight-bit weights of a file that says of itself that they are scaled, without the scales.
#[test]
fn eight_bit_weights_without_their_scale_are_named() {
    use safetensors::tensor::{Dtype, TensorView};
    let bench = Bench::new();
    let (key, shape) =
        ("model.diffusion_model.out.2.weight", tiny::tensors()["model.diffusion_model.out.2.weight"].clone());
    let whole = safetensors::SafeTensors::deserialize(tiny::checkpoint()).unwrap();
    let bytes = vec![0x38; shape.iter().product()];
    let mut views: Vec<(String, TensorView<'_>)> =
        whole.tensors().into_iter().filter(|(name, _)| name != key).collect();
    views.push((key.to_owned(), TensorView::new(Dtype::F8_E4M3, shape, &bytes).unwrap()));
    views.push(("model.diffusion_model.scaled_fp8".to_owned(), TensorView::new(Dtype::F8_E4M3, vec![0], &[]).unwrap()));
    bench.write("models/checkpoints/tiny.safetensors", &safetensors::serialize(views, None).unwrap());
    let outcome = bench.run(text_to_image());
    let (node, error) = outcome.failure();
    assert_eq!(node, "1");
    assert!(error.to_string().contains("model.diffusion_model.out.2.scale_weight"), "{error}");
}

/// An autoencoder of sixteen channels, as Flux has it, and a latent of four.
#[test]
fn an_autoencoder_of_other_channels_is_refused_where_they_meet() {
    let bench = bench();
    let widen = |(name, mut shape): (String, Vec<usize>)| {
        match name.as_str() {
            "first_stage_model.decoder.conv_in.weight" => shape[1] = 16,
            "first_stage_model.encoder.conv_out.weight" | "first_stage_model.encoder.conv_out.bias" => shape[0] = 32,
            "first_stage_model.quant_conv.weight" => (shape[0], shape[1]) = (32, 32),
            "first_stage_model.quant_conv.bias" => shape[0] = 32,
            "first_stage_model.post_quant_conv.weight" => (shape[0], shape[1]) = (16, 16),
            "first_stage_model.post_quant_conv.bias" => shape[0] = 16,
            _ => {}
        }
        (name, shape)
    };
    let vae =
        tiny::tensors().into_iter().filter(|(name, _)| name.starts_with("first_stage_model")).map(widen).collect();
    bench.write("models/vae/wide.safetensors", &tiny::file(&vae, |_, values| values));
    let mut graph = text_to_image();
    graph["vae"] = json!(["VAELoader", {"vae_name": "wide.safetensors"}]);
    let outcome = bench.run(with(graph.clone(), "6", "vae", json!(["vae", 0])));
    let (node, error) = outcome.failure();
    assert_eq!(node, "6");
    assert!(error.to_string().contains("16") && error.to_string().contains('4'), "{error}");
    // The other way round: what it encodes is no latent of the model's.
    let picture = Tensor::ones((1, 32, 32, 3), DType::F32, &Device::Cpu).unwrap();
    bench.give("picture", Value::new(Image::new(picture).unwrap()));
    graph["picture"] = json!(["Give", {"name": "picture"}]);
    graph["encode"] = json!(["VAEEncode", {"pixels": ["picture", 0], "vae": ["vae", 0]}]);
    let outcome = bench.run(with(graph, "5", "latent_image", json!(["encode", 0])));
    let (node, error) = outcome.failure();
    assert_eq!(node, "5");
    assert!(error.to_string().contains("a latent [batch, 4, height, width]"), "{error}");
}

/// Ten thousand tokens are 134 chunks of 75; nothing of them is cut off.
#[test]
fn a_prompt_of_ten_thousand_tokens_is_read_to_its_end() {
    let bench = bench();
    let encode = |last: &str| {
        let text = format!("{}{last}", "bear ".repeat(9_999));
        let graph = json!({
            "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
            "2": ["CLIPTextEncode", {"text": text, "clip": ["1", 1]}],
            "3": ["Catch", {"value": ["2", 0]}],
        });
        let outcome = bench.run(graph);
        assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
        let prompts = outcome.value::<crate::wires::Conditioning>("3");
        let context = prompts.0[0].condition.context.clone();
        assert_eq!(context.dims()[1], 10_000_usize.div_ceil(75) * 77);
        context.narrow(1, 133 * 77, 77).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_ne!(encode("beach"), encode("snow"));
}

/// Masks of another size are brought to what they meet, as in ComfyUI: half a mask of any size selects half a latent.
#[test]
fn masks_of_another_size_are_brought_to_the_latent() {
    let bench = bench();
    let half = |rows: usize, columns: usize| {
        let values: Vec<f32> = (0..rows * columns).map(|at| f32::from(u8::from(at % columns >= columns / 2))).collect();
        Value::new(Mask::new(Tensor::from_vec(values, (1, rows, columns), &Device::Cpu).unwrap()).unwrap())
    };
    let sampled = |mask: Value| {
        bench.give("mask", mask);
        bench.give(
            "latent",
            Value::new(Latent::new(Tensor::ones((1, 4, 8, 8), DType::F32, &Device::Cpu).unwrap()).unwrap()),
        );
        let mut graph = text_to_image();
        graph["mask"] = json!(["Give", {"name": "mask"}]);
        graph["latent"] = json!(["Give", {"name": "latent"}]);
        graph["masked"] = json!(["SetLatentNoiseMask", {"samples": ["latent", 0], "mask": ["mask", 0]}]);
        graph["out"] = json!(["Catch", {"value": ["5", 0]}]);
        let outcome = bench.run(with(graph, "5", "latent_image", json!(["masked", 0])));
        outcome.value::<Latent>("out").samples().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let fitting = sampled(half(8, 8));
    assert!(sampled(half(64, 64)) == fitting && sampled(half(4, 80)) == fitting);
    let kept = fitting.iter().enumerate().filter(|(at, _)| at % 8 < 4).all(|(_, value)| (value - 1.0).abs() < 1e-4);
    assert!(kept && fitting.iter().any(|value| (value - 1.0).abs() > 0.1));
    assert!(Mask::new(Tensor::zeros((1, 0, 8), DType::F32, &Device::Cpu).unwrap()).is_err());
    assert!(Image::new(Tensor::zeros((1, 8, 0, 3), DType::F32, &Device::Cpu).unwrap()).is_err());
}

#[test]
fn numbers_that_are_none_stop_at_their_step() {
    let bench = Bench::new();
    let broken = tiny::file(&tiny::tensors(), |name, mut values| {
        if name == "model.diffusion_model.out.2.bias" {
            values[0] = f32::NAN;
        }
        values
    });
    bench.write("models/checkpoints/tiny.safetensors", &broken);
    let outcome = bench.run(text_to_image());
    let (node, error) = outcome.failure();
    assert_eq!(node, "5");
    assert!(error.to_string().starts_with("step 1 of 4"), "{error}");
    assert!(error.hint().is_some());

    let broken = tiny::file(&tiny::tensors(), |name, mut values| {
        if name == "first_stage_model.decoder.conv_out.bias" {
            values[0] = f32::NAN;
        }
        values
    });
    bench.write("models/checkpoints/tiny.safetensors", &broken);
    let outcome = bench.run(text_to_image());
    let (node, error) = outcome.failure();
    assert_eq!(node, "6");
    assert_eq!(error.to_string(), "decoded picture 1 of 2 holds NaN or infinite numbers");
    assert!(!bench.path("output").exists());
}

#[test]
fn sizes_are_checked_before_the_work() {
    let bench = bench();
    let faults = bench.plan(with(text_to_image(), "4", "width", json!(0))).err().unwrap();
    assert!(faults[0].to_string().contains("width"), "{}", faults[0]);

    let outcome = bench.run(with(text_to_image(), "4", "width", json!(39)));
    assert_eq!(outcome.warnings(), ["width 39 is no multiple of 8: the picture gets 32"]);

    // The command line takes no size that it would have to cut.
    let strict = Bench::with_service(WholeCells);
    strict.write("models/checkpoints/tiny.safetensors", tiny::checkpoint());
    let faults = strict.plan(with(text_to_image(), "4", "width", json!(39))).err().unwrap();
    let told: Vec<_> = faults.iter().map(|fault| (fault.to_string(), fault.hint())).collect();
    let fact = "node 4 (EmptyLatentImage): input `width` expects a multiple of 8 pixels, found 39";
    assert_eq!(told, [(fact.to_owned(), Some("take 32 or 40".to_owned()))]);

    // Over a wire, it is only seen at the node.
    let mut graph = with(text_to_image(), "4", "width", json!(["0", 0]));
    graph["0"] = json!(["PrimitiveInt", {"value": 7}]);
    let outcome = bench.run(graph);
    let (node, error) = outcome.failure();
    assert_eq!(node, "4");
    assert_eq!(error.to_string(), "input `width` expects 16 to 16384, found 7");
}

#[test]
fn pictures_too_large_for_the_memory_are_refused_at_the_node() {
    let bench = Bench::with_memory(100 << 20);
    bench.write("models/checkpoints/tiny.safetensors", tiny::checkpoint());
    bench.run(text_to_image());
    let large = with(with(text_to_image(), "4", "width", json!(8192)), "4", "height", json!(8192));
    let outcome = bench.run(large.clone());
    let (node, error) = outcome.failure();
    assert_eq!(node, "5");
    assert!(error.to_string().starts_with("sampling 2 x 8192 x 8192 pixels needs about"), "{error}");
    assert!(error.hint().unwrap().contains("smaller"));

    let outcome = bench.run(with(large, "4", "batch_size", json!(4096)));
    assert_eq!(outcome.failure().0, "4");
}

#[test]
fn encoding_cuts_pictures_to_whole_cells() {
    let bench = bench();
    let picture = Tensor::ones((2, 17, 30, 4), DType::F32, &Device::Cpu).unwrap();
    bench.give("picture", Value::new(Image::new(picture).unwrap()));
    let graph = |class: &str, extra: Json| {
        let mut inputs = json!({"pixels": ["picture", 0], "vae": ["1", 2]});
        inputs.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({
            "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
            "picture": ["Give", {"name": "picture"}],
            "mask": ["Give", {"name": "mask"}],
            "2": [class, inputs],
            "3": ["Catch", {"value": ["2", 0]}],
        })
    };
    bench.give("mask", Value::new(Mask::new(Tensor::ones((1, 64, 64), DType::F32, &Device::Cpu).unwrap()).unwrap()));
    let outcome = bench.run(graph("VAEEncode", json!({})));
    assert_eq!(outcome.value::<Latent>("3").dims(), (2, 4, 2, 3));
    assert_eq!(outcome.warnings().len(), 1);
    let outcome = bench.run(graph("VAEEncodeForInpaint", json!({"mask": ["mask", 0], "grow_mask_by": 6})));
    let latent = outcome.value::<Latent>("3");
    assert_eq!(latent.noise_mask().unwrap().dims(), [1, 1, 16, 24]);

    let tiny_picture = Tensor::ones((1, 7, 30, 3), DType::F32, &Device::Cpu).unwrap();
    bench.give("picture", Value::new(Image::new(tiny_picture).unwrap()));
    let outcome = bench.run(graph("VAEEncode", json!({})));
    assert!(outcome.failure().1.to_string().contains("at least 8 x 8 pixels"), "{}", outcome.failure().1);
}

#[test]
fn an_embedding_that_is_not_there_is_told_and_its_file_is_part_of_the_signature() {
    let bench = bench();
    let graph = json!({
        "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
        "2": ["CLIPTextEncode", {"text": "a bear embedding:style", "clip": ["1", 1]}],
        "3": ["Catch", {"value": ["2", 0]}],
    });
    let outcome = bench.run(graph.clone());
    assert!(outcome.warnings()[0].contains("no embedding `style`"), "{:?}", outcome.warnings());
    let embedding = tiny::file(&[("emb_params".to_owned(), vec![2, 64])].into(), |_, values| values);
    bench.write("models/embeddings/style.safetensors", &embedding);
    let outcome = bench.run(graph);
    assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
    assert!(outcome.ran().contains(&"2"), "the file came since");
}

/// The graphs that ship, with the model that the program brings. What the pictures show is for the judge to say.
#[test]
fn graphs_that_ship_run_with_the_embedded_model() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../graphs");
    let bench = Bench::with_inputs(folder);
    for name in ["text-to-image", "image-to-image", "inpaint"] {
        let outcome = bench.run_file(&fs::read(format!("{folder}/{name}.json")).unwrap());
        assert!(outcome.warnings().is_empty(), "{name}: {:?}", outcome.warnings());
        let picture = image::open(bench.path(format!("output/{name}_00001_.png"))).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (128, 128));
        let colours: std::collections::BTreeSet<_> = picture.pixels().map(|pixel| pixel.0.map(|c| c / 32)).collect();
        assert!(colours.len() > 8, "{name} has {} colours", colours.len());
    }
}

/// The graphs that train, cut to two steps each: every node of them runs, and nobody is warned. What they make is for eyes.
#[test]
fn graphs_that_train_run_with_the_embedded_model() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../graphs");
    for (name, files) in
        [("para-then-lora", 4), ("two-subjects", 2), ("edit-one-image", 1), ("para-vs-lora", 2), ("export-para", 2)]
    {
        let mut graph: Json = serde_json::from_slice(&fs::read(format!("{folder}/{name}.json")).unwrap()).unwrap();
        for node in graph.as_object_mut().unwrap().values_mut() {
            let class = node["class_type"].as_str().unwrap().to_owned();
            let set: &[(&str, u32)] = match class.as_str() {
                "PaRaTrain" | "LoRATrain" => &[("steps", 2), ("batch_size", 1), ("validate_every", 0)],
                "KSampler" => &[("steps", 1)],
                "EmptyLatentImage" => &[("batch_size", 1)],
                _ => &[],
            };
            set.iter().for_each(|(input, value)| node["inputs"][input] = (*value).into());
        }
        let bench = Bench::with_inputs(folder);
        let outcome = bench.run_file(graph.to_string().as_bytes());
        let failed = outcome.events.iter().any(|event| matches!(event, Event::Failed { .. }));
        assert!(!failed && outcome.warnings().is_empty(), "{name}: {:#?}", outcome.events);
        let saved =
            fs::read_dir(bench.path("output")).unwrap().flatten().filter(|entry| entry.path().is_file()).count();
        let adapters = fs::read_dir(bench.path("output/loras")).map_or(0, |folder| folder.flatten().count());
        assert_eq!(saved + adapters, files, "{name}");
    }
}
