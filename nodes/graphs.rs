//! Small graphs against ComfyUI's: see `tests/golden/graphs.py`.

use crate::testing::{Bench, Outcome};
use crate::tiny::{self, Tensors};
use crate::wires::{Conditioning, Image, Latent, Mask, Prompt};
use candle_core::{Device, Tensor};
use paraflow_engine::{Json, Value};
use serde_json::{Map, json};
use std::collections::{BTreeMap, HashMap};

mod shown;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/graphs/");
/// From this many numbers on, only every so manieth was recorded.
const LONG: usize = 2000;

/// Checkpoints with the parts that they bring along, each with what its names begin with.
const CHECKPOINTS_THAT_SEE: [(&str, &[(&str, &str)]); 2] = [
    ("unclip", &[("vision", "embedder.model.")]),
    ("zero", &[("zero_vision", "cond_stage_model.model."), ("vae", "first_stage_model.")]),
];

struct Golden {
    listing: Json,
    cases: Map<String, Json>,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    fn open() -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("{GOLDEN}{name}")).unwrap();
        Self {
            listing: serde_json::from_str(&read("models.json")).unwrap(),
            cases: serde_json::from_str(&read("cases.json")).unwrap(),
            tensors: candle_core::safetensors::load(format!("{GOLDEN}tensors.safetensors"), &Device::Cpu).unwrap(),
        }
    }

    fn shapes(&self, model: &str) -> Tensors {
        serde_json::from_value(self.listing["models"][model].clone()).unwrap()
    }

    /// A bench with every model and every value of the recording.
    fn bench(&self) -> Bench {
        let bench = Bench::new();
        let smaller = self.listing["smaller"].as_f64().unwrap() as f32;
        for (path, model, factor) in [
            ("checkpoints/sd1", "sd1", 1.0),
            ("checkpoints/sdxl", "sdxl", 1.0),
            ("vae/vae", "vae", 1.0),
            ("controlnet/control", "control", 1.0),
            ("controlnet/control_xl", "control_xl", 1.0),
            ("vae_approx/taesd_encoder", "taesd_encoder", smaller),
            ("vae_approx/taesd_decoder", "taesd_decoder", smaller),
            ("upscale_models/esrgan", "esrgan", smaller),
        ] {
            let file = tiny::drawn_as(&self.shapes(model), factor, &BTreeMap::new());
            bench.write(&format!("models/{path}.safetensors"), &file);
        }
        // The same two models in the names of others.
        for (path, model, factor) in [("controlnet/other", "control", 1.0), ("upscale_models/old", "esrgan", smaller)] {
            let names: BTreeMap<String, String> = serde_json::from_value(self.listing["names"][model].clone()).unwrap();
            let names = names.into_iter().map(|(theirs, ours)| (ours, theirs)).collect();
            bench.write(&format!("models/{path}.safetensors"), &tiny::drawn_as(&self.shapes(model), factor, &names));
        }
        for (name, value) in self.listing["values"].as_object().unwrap() {
            bench.give(name, given(value));
        }
        bench
    }

    /// The same with the models that few of the recordings need, which take longer to draw.
    fn whole_bench(&self) -> Bench {
        let bench = self.bench();
        let of = |model: &str, prefix: &str, of: &str| {
            let shapes = self.shapes(model);
            let drawn = shapes.iter().map(|(key, shape)| (format!("{of}{key}"), shape.clone())).collect();
            let names = shapes.into_keys().map(|key| (format!("{of}{key}"), format!("{prefix}{key}"))).collect();
            (drawn, names)
        };
        for (path, model, prefix, first) in [
            ("checkpoints/sd1_2", "sd1", "", "second/"),
            ("checkpoints/sdxl_2", "sdxl", "", "second/"),
            ("checkpoints/deep", "deep", "", ""),
            ("checkpoints/deep_xl", "deep_xl", "", ""),
            ("checkpoints/one", "one", "", ""),
            ("checkpoints/x4", "x4", "", ""),
            ("text_encoders/text", "text", "", ""),
            ("text_encoders/text_2", "text", "", "second/"),
            ("controlnet/union", "union", "", ""),
            ("controlnet/control_lora", "control_lora", "", ""),
            ("t2i_adapter/t2i", "t2i", "", ""),
            ("t2i_adapter/t2i_grey", "t2i_grey", "", ""),
            ("t2i_adapter/t2i_light", "t2i_light", "", ""),
            ("t2i_adapter/t2i_xl", "t2i_xl", "", ""),
            ("controlnet/difference", "control", "control_model.", "difference/"),
            ("clip_vision/vision", "vision", "", ""),
            ("style_models/style", "style", "", ""),
            ("gligen/gligen", "gligen", "", ""),
            ("loras/lora", "lora", "", ""),
            ("loras/lora_both", "lora_both", "", ""),
            ("diffusion_models/sd1", "sd1", "", ""),
        ] {
            let (mut tensors, names): (Tensors, BTreeMap<String, String>) = of(model, prefix, first);
            if path == "controlnet/difference" {
                tensors.insert("difference".to_owned(), vec![0]);
            }
            bench.write(&format!("models/{path}.safetensors"), &tiny::drawn_as(&tensors, 1.0, &names));
        }
        // Checkpoints that bring what sees pictures along.
        for (name, parts) in CHECKPOINTS_THAT_SEE {
            let (mut tensors, mut names): (Tensors, BTreeMap<String, String>) = of(name, "", "");
            for (part, prefix) in parts {
                let (more, more_names) = of(part, prefix, "");
                tensors.extend(more);
                names.extend(more_names);
            }
            bench.write(&format!("models/checkpoints/{name}.safetensors"), &tiny::drawn_as(&tensors, 1.0, &names));
        }
        // One that brings a text encoder along.
        let (mut tensors, mut names): (Tensors, BTreeMap<String, String>) = of("sd1", "", "second/");
        let (text, text_names) = of("text", "cond_stage_model.transformer.", "second/");
        tensors.extend(text);
        names.extend(text_names);
        bench.write("models/checkpoints/pair_2.safetensors", &tiny::drawn_as(&tensors, 1.0, &names));
        let hyper = tiny::drawn_as(&self.shapes("hyper"), 1.0, &BTreeMap::new());
        let told = [("activation_func", "mish"), ("is_layer_norm", "True"), ("activate_output", "True")];
        bench.write("models/hypernetworks/hyper.safetensors", &tiny::told(&hyper, &told));
        bench
    }

    /// A recorded graph with the nodes that make what it is given.
    fn graph(&self, case: &str) -> Json {
        let mut graph = self.cases[case]["graph"].clone();
        for (name, node) in [
            ("model", json!(["CheckpointLoaderSimple", {"ckpt_name": "sd1.safetensors"}])),
            ("xl", json!(["CheckpointLoaderSimple", {"ckpt_name": "sdxl.safetensors"}])),
            ("vae", json!(["VAELoader", {"vae_name": "vae.safetensors"}])),
            ("tiny", json!(["VAELoader", {"vae_name": "taesd"}])),
            ("control", json!(["ControlNetLoader", {"control_net_name": "control.safetensors"}])),
            ("control_xl", json!(["ControlNetLoader", {"control_net_name": "control_xl.safetensors"}])),
            ("upscaler", json!(["UpscaleModelLoader", {"model_name": "esrgan.safetensors"}])),
            (
                "control_difference",
                json!(["DiffControlNetLoader", {
                    "control_net_name": "difference.safetensors", "model": ["model", 0],
                }]),
            ),
        ] {
            graph[name] = node;
        }
        for (name, file) in [
            ("model_2", "sd1_2"),
            ("xl_2", "sdxl_2"),
            ("deep", "deep"),
            ("deep_xl", "deep_xl"),
            ("one", "one"),
            ("x4", "x4"),
        ] {
            graph[name] = json!(["CheckpointLoaderSimple", {"ckpt_name": format!("{file}.safetensors")}]);
        }
        for (name, dtype) in [("model_e4m3", "fp8_e4m3fn"), ("model_e5m2", "fp8_e5m2")] {
            graph[name] = json!(["UNETLoader", {"unet_name": "sd1.safetensors", "weight_dtype": dtype}]);
        }
        for (name, class, input) in [
            ("vision", "CLIPVisionLoader", "clip_name"),
            ("style", "StyleModelLoader", "style_model_name"),
            ("gligen", "GLIGENLoader", "gligen_name"),
            ("unclip", "unCLIPCheckpointLoader", "ckpt_name"),
            ("zero", "ImageOnlyCheckpointLoader", "ckpt_name"),
        ] {
            graph[name] = json!([class, {input: format!("{name}.safetensors")}]);
        }
        for name in ["control_lora", "union", "t2i", "t2i_grey", "t2i_light", "t2i_xl"] {
            graph[name] = json!(["ControlNetLoader", {"control_net_name": format!("{name}.safetensors")}]);
        }
        for (name, file) in [("clip", "text"), ("clip_2", "text_2")] {
            let file = format!("{file}.safetensors");
            graph[name] = json!(["CLIPLoader", {"clip_name": file, "type": "stable_diffusion"}]);
        }
        // Names of files are checked, needed or not.
        let used = self.cases[case]["graph"].to_string();
        let is_used = |name: &str| {
            used.contains(&format!("\"{name}\"")) || (name == "model" && used.contains("control_difference"))
        };
        graph.as_object_mut().unwrap().retain(|name, node| {
            let loads =
                node[0].as_str().is_some_and(|class| class.ends_with("Loader") || class == "CheckpointLoaderSimple");
            !loads || is_used(name) || self.cases[case]["graph"].get(name).is_some()
        });
        for name in self.listing["values"].as_object().unwrap().keys() {
            graph[name] = json!(["Give", {"name": name}]);
        }
        for slot in 0..self.cases[case]["shapes"].as_array().unwrap().len() {
            graph[format!("out_{slot}")] = json!(["Catch", {"value": ["end", slot]}]);
        }
        graph
    }

    /// The largest distance of what came out of a case, in parts of the recording's length.
    fn error(&self, case: &str, outcome: &Outcome) -> f64 {
        let shapes: Vec<Vec<usize>> = serde_json::from_value(self.cases[case]["shapes"].clone()).unwrap();
        let error = |(slot, shape): (usize, &Vec<usize>)| {
            let found = caught(outcome.caught(&format!("out_{slot}")));
            assert_eq!(found.dims(), shape.as_slice(), "{case}/{slot}");
            let expected = self.tensors[&format!("{case}/{slot}")].to_vec1::<f32>().unwrap();
            let found = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let step = if found.len() > LONG { self.listing["thin"].as_u64().unwrap() as usize } else { 1 };
            let found: Vec<f32> = found.into_iter().step_by(step).collect();
            assert_eq!(found.len(), expected.len(), "{case}/{slot}");
            distance(&found, &expected)
        };
        shapes.iter().enumerate().map(error).fold(0.0, f64::max)
    }
}

fn distance(found: &[f32], expected: &[f32]) -> f64 {
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = length(&mut found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / length(&mut expected.iter().map(|x| f64::from(*x))).max(1e-12)
}

/// A value of the recording's list: kind, key, and shape.
fn given(value: &Json) -> Value {
    let key = value[1].as_str().unwrap();
    let drawn = |key: &str, shape: &[usize], change: fn(f64) -> f64| {
        let numbers: Vec<f32> =
            tiny::uniform(key, shape.iter().product()).into_iter().map(|u| change(u) as f32).collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
    };
    let shape = || serde_json::from_value::<Vec<usize>>(value[2].clone()).unwrap();
    // The recording adds in single precision.
    let picture = || drawn(key, &shape(), |u| f64::from((u as f32 + 1.0) / 2.0));
    match value[0].as_str().unwrap() {
        "CONDITIONING" => {
            let size = |i: usize| value[i].as_u64().map(|size| size as usize);
            let pooled = size(4).map(|width| drawn(&format!("{key}/pooled"), &[1, width], |u| 1.5 * u));
            let context = drawn(key, &[1, size(2).unwrap(), size(3).unwrap()], |u| 1.5 * u);
            Value::new(Conditioning(vec![Prompt::new(context, pooled)]))
        }
        "LATENT" => Value::new(Latent::new(drawn(key, &shape(), |u| 2.0 * u)).unwrap()),
        "IMAGE" => Value::new(Image::new(picture()).unwrap()),
        "MASK" => Value::new(Mask::new(picture()).unwrap()),
        kind => panic!("{kind}"),
    }
}

fn caught(value: &Value) -> Tensor {
    if let Some(latent) = value.get::<Latent>() {
        return latent.samples().clone();
    }
    if let Some(image) = value.get::<Image>() {
        return image.pixels().clone();
    }
    if let Some(prompts) = value.get::<Conditioning>() {
        let condition = &prompts.0[0].condition;
        return condition.picture.latent.clone().unwrap_or_else(|| condition.context.clone());
    }
    if let Some(seen) = value.get::<crate::wires::ClipVisionOutput>() {
        let parts = [&seen.0.embeds, &seen.0.last].map(|part| part.flatten_all().unwrap());
        return Tensor::cat(&parts, 0).unwrap();
    }
    if let Some(sigmas) = value.get::<crate::wires::Sigmas>() {
        return Tensor::new(sigmas.0.as_slice(), &Device::Cpu).unwrap();
    }
    if let Some(number) = value.get::<f64>() {
        return Tensor::new(&[*number as f32], &Device::Cpu).unwrap();
    }
    value.get::<Mask>().unwrap_or_else(|| panic!("{value:?}")).values().clone()
}

/// Rounding comes to about 1e-5 after several steps of a network with random weights; noise along a Brownian path and steps
/// that adapt themselves to more.
fn bound(case: &str) -> f64 {
    match case {
        case if case.starts_with("dpm") || case.starts_with("seeds") || case.starts_with("sa_") => 1e-3,
        _ => 2e-4,
    }
}

#[test]
fn graphs_do_what_comfyuis_do() {
    let golden = Golden::open();
    let bench = golden.whole_bench();
    assert!(golden.cases.len() >= 175, "only {} were recorded", golden.cases.len());
    let mut worst: Vec<(f64, &str)> = Vec::new();
    for case in golden.cases.keys() {
        let error = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            golden.error(case, &bench.run(golden.graph(case)))
        }));
        worst.push((error.unwrap_or(f64::INFINITY), case));
    }
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (error, case) in &worst {
        println!("{case}: {error:.1e}");
    }
    let differing: Vec<_> = worst.iter().filter(|(error, case)| error.is_nan() || *error > bound(case)).collect();
    assert!(differing.is_empty(), "{differing:#?}");
}

/// A recording that a patch had no effect on would compare nothing.
#[test]
fn every_recorded_patch_has_an_effect() {
    let golden = Golden::open();
    let recorded = |case: &str| golden.tensors[&format!("{case}/0")].to_vec1::<f32>().unwrap();
    let plain = recorded("plain");
    let mut compared = 0;
    for case in golden.cases.keys().filter(|case| !matches!(case.as_str(), "plain" | "control_off")) {
        let found = recorded(case);
        // Of other models nothing can be said, and an edge of a picture is 0 or 1.
        let other = ["merge_sdxl", "control_t2i", "control_union", "control_xl", "unclip", "boxes"]
            .iter()
            .any(|start| case.starts_with(start));
        if found.len() == plain.len() && !other {
            assert!(distance(&found, &plain) > 1e-3, "{case} is as without it");
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} were compared");
}

/// Half precision keeps three digits; where factors are cut depends on the signs that a decomposition gives its vectors.
#[test]
fn what_two_models_differ_by_is_saved_as_comfyui_saves_it() {
    let golden = Golden::open();
    let bench = golden.whole_bench();
    let load = |name: &str| json!(["CheckpointLoaderSimple", {"ckpt_name": name}]);
    let text = |name: &str| json!(["CLIPLoader", {"clip_name": name, "type": "stable_diffusion"}]);
    let outcome = bench.run(json!({
        "a": load("sd1.safetensors"), "b": load("sd1_2.safetensors"),
        "c": text("text.safetensors"), "d": text("text_2.safetensors"),
        "less": ["ModelMergeSubtract", {"model1": ["a", 0], "model2": ["b", 0], "multiplier": 1.0}],
        "text_less": ["CLIPMergeSubtract", {"clip1": ["c", 0], "clip2": ["d", 0], "multiplier": 1.0}],
        "save": ["LoraSave", {
            "filename_prefix": "loras/less", "rank": 6, "lora_type": "standard", "bias_diff": true,
            "model_diff": ["less", 0], "text_encoder_diff": ["text_less", 0],
        }],
    }));
    let name = outcome.shown("save")["files"][0]["filename"].as_str().unwrap().to_owned();
    let saved = candle_core::safetensors::load(bench.path(format!("output/loras/{name}")), &Device::Cpu).unwrap();
    let saved =
        |name: &str| saved.get(name).unwrap_or_else(|| panic!("{name}")).to_dtype(candle_core::DType::F32).unwrap();
    let recorded = candle_core::safetensors::load(format!("{GOLDEN}extracted.safetensors"), &Device::Cpu).unwrap();
    let recorded: BTreeMap<_, _> = recorded.into_iter().collect();
    assert!(recorded.len() > 150, "only {} were recorded", recorded.len());
    let (mut products, mut wholes) = (Vec::new(), Vec::new());
    for (name, expected) in &recorded {
        let (found, step) = match name.strip_suffix(".product") {
            Some(layer) => {
                let (up, down) =
                    (saved(&format!("{layer}.lora_up.weight")), saved(&format!("{layer}.lora_down.weight")));
                (up.flatten_from(1).unwrap().matmul(&down.flatten_from(1).unwrap()).unwrap(), 997)
            }
            None => (saved(name), 23),
        };
        let found: Vec<f32> =
            found.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().step_by(step).collect();
        let expected = expected.to_vec1::<f32>().unwrap();
        let error = distance(&found, &expected);
        if step == 23 { &mut wholes } else { &mut products }.push((error, name.as_str(), expected.len()));
    }
    products.retain(|(_, _, numbers)| *numbers >= 20);
    for list in [&mut products, &mut wholes] {
        list.sort_by(|a, b| b.0.total_cmp(&a.0));
    }
    let (product, whole) = (products[0], wholes[0]);
    println!("products {product:?}, whole {whole:?}, {} products", products.len());
    // Both are exact. ComfyUI cuts both factors at the quantile of 0.99 of their numbers together, signs and all: where that quantile
    // lies depends on the sign that a decomposition happened to give each pair of vectors, and with it a few numbers of a layer.
    let close = products.iter().filter(|(error, ..)| *error < 0.1).count();
    for (error, name, _) in &products {
        println!("{name}: {error:.1e}");
    }
    assert!(
        whole.0 < 1e-3 && product.0 < 0.5 && 4 * close >= 3 * products.len(),
        "{product:?} {whole:?}, {close} close"
    );
}

/// A graph with another file in place of the recorded one.
fn with_file(golden: &Golden, case: &str, node: &str, input: &str, file: &str) -> Json {
    let mut graph = golden.graph(case);
    graph[node][1][input] = json!(file);
    graph
}

#[test]
fn other_layouts_of_the_same_weights_are_the_same() {
    let golden = Golden::open();
    let bench = golden.bench();
    for (case, node, input, file) in [
        ("control", "control", "control_net_name", "other.safetensors"),
        ("upscaled", "upscaler", "model_name", "old.safetensors"),
    ] {
        let error = golden.error(case, &bench.run(with_file(&golden, case, node, input, file)));
        assert!(error < bound(case), "{case} from {file}: {error:.1e}");
    }
}

#[test]
fn files_of_another_kind_are_refused_with_their_own() {
    let golden = Golden::open();
    let bench = golden.bench();
    bench.write("models/controlnet/unet.safetensors", &tiny::drawn_as(&golden.shapes("sd1"), 1.0, &BTreeMap::new()));
    bench.write(
        "models/upscale_models/control.safetensors",
        &tiny::drawn_as(&golden.shapes("control"), 1.0, &BTreeMap::new()),
    );
    let message = |case: &str, node: &str, input: &str, file: &str| {
        bench.run(with_file(&golden, case, node, input, file)).failure().1.to_string()
    };
    let unet = message("control", "control", "control_net_name", "unet.safetensors");
    assert!(unet.contains("expects a control network") && unet.contains("Stable Diffusion 1"), "{unet}");
    let upscaler = message("upscaled", "upscaler", "model_name", "control.safetensors");
    assert!(upscaler.contains("an upscale model with tensors such as"), "{upscaler}");
    let other_base = message("control", "control", "control_net_name", "control_xl.safetensors");
    assert!(other_base.contains("ControlNet"), "{other_base}");
}

#[test]
fn tiles_need_the_memory_of_a_tile() {
    let golden = Golden::open();
    let vae = tiny::drawn_as(&golden.shapes("vae"), 1.0, &BTreeMap::new());
    let graph = |class: &str, more: Json| {
        let mut inputs = json!({"samples": ["latent", 0], "vae": ["vae", 0]});
        inputs.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({
            "vae": ["VAELoader", {"vae_name": "vae.safetensors"}],
            "latent": ["EmptyLatentImage", {"width": 512, "height": 512, "batch_size": 1}],
            "end": [class, inputs],
            "out": ["Catch", {"value": ["end", 0]}],
        })
    };
    let tiled =
        graph("VAEDecodeTiled", json!({"tile_size": 128, "overlap": 32, "temporal_size": 64, "temporal_overlap": 8}));
    // Room for a tile and three pictures, and for half of the whole.
    let bench = Bench::with_memory(64 << 20);
    bench.write("models/vae/vae.safetensors", &vae);
    let whole = bench.run(graph("VAEDecode", json!({})));
    assert!(whole.failure().1.to_string().contains("decoding 512 x 512 pixels needs"), "{:?}", whole.failure());
    assert_eq!(bench.run(tiled).value::<Image>("out").dims(), (1, 512, 512, 3));
}

/// Keys and shapes of a checkpoint of SDXL's shape that is narrow.
fn narrow_sdxl() -> Tensors {
    let families = std::fs::read_to_string(format!("{GOLDEN}../families/sdxl.json")).unwrap();
    let families: Json = serde_json::from_str(&families).unwrap();
    let mut tensors: Tensors = serde_json::from_value(families["tensors"].clone()).unwrap();
    let vae = Golden::open().shapes("vae");
    tensors.extend(vae.into_iter().map(|(key, shape)| (format!("first_stage_model.{key}"), shape)));
    tensors
}

const GRAPHS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../graphs");

/// A graph that ships, with some of its inputs set.
fn shipped(name: &str, set: &[(&str, &str, Json)]) -> Vec<u8> {
    let graph = std::fs::read(format!("{GRAPHS}/{name}.json")).unwrap();
    let mut graph: Json = serde_json::from_slice(&graph).unwrap();
    for (node, input, value) in set {
        graph[node]["inputs"][input] = value.clone();
    }
    serde_json::to_vec(&graph).unwrap()
}

/// A picture that has something in it.
fn require_picture(path: &std::path::Path, dimensions: (u32, u32), colours_at_least: usize) {
    let picture = image::open(path).unwrap().to_rgb8();
    assert_eq!(picture.dimensions(), dimensions);
    let colours: std::collections::BTreeSet<_> = picture.pixels().map(|pixel| pixel.0.map(|c| c / 32)).collect();
    assert!(colours.len() >= colours_at_least, "{} colours", colours.len());
}

/// The graph that ships, on a checkpoint of SDXL's shape that is narrow; a smaller picture in fewer steps.
#[test]
fn the_sdxl_graph_runs_on_a_checkpoint_of_its_shape() {
    let bench = Bench::new();
    bench.write("models/checkpoints/sd_xl_base_1.0.safetensors", &tiny::drawn_by_name(&narrow_sdxl()));
    let set = [("4", "width", json!(128)), ("4", "height", json!(192)), ("5", "steps", json!(3))];
    let outcome = bench.run_file(&shipped("sdxl-text-to-image", &set));
    assert!(outcome.warnings().is_empty(), "{:?}", outcome.warnings());
    require_picture(&bench.path("output/sdxl-text-to-image_00001_.png"), (128, 192), 9);
}

/// A PaRa is trained by the one graph, and the other puts it and a LoRA of both parts on the same checkpoint.
#[test]
fn the_sdxl_graphs_train_a_para_and_put_a_lora_on_top() {
    let bench = Bench::with_inputs(GRAPHS);
    let tensors = narrow_sdxl();
    bench.write("models/checkpoints/sd_xl_base_1.0.safetensors", &tiny::drawn_by_name(&tensors));
    // Narrow layers need a larger share.
    let mut set = vec![("2", "size", json!(64)), ("3", "gamma", json!(0.25)), ("3", "steps", json!(2))];
    set.extend([("3", "sample_every", json!(2)), ("3", "sample_steps", json!(1)), ("3", "validate_every", json!(0))]);
    let outcome = bench.run_file(&shipped("sdxl-train-para", &set));
    let failed = outcome.events.iter().any(|event| matches!(event, paraflow_engine::Event::Failed { .. }));
    assert!(!failed && outcome.warnings().is_empty(), "{:#?}", outcome.events);
    require_picture(&bench.path("output/sdxl-train-para-loss_00001_.png"), (768, 448), 3);
    require_picture(&bench.path("output/sdxl-train-para_00001_.png"), (64, 64), 2);
    let trained =
        paraflow_diffusion::nn::Weights::open(bench.path("output/loras/sdxl-para_00001_.safetensors")).unwrap();
    assert_eq!(trained.metadata()["para.arch"], "sdxl");
    assert!(trained.names().any(|name| name.starts_with("lora_unet_input_blocks_") && name.ends_with(".para_q")));

    let (unet, text) =
        ("model.diffusion_model.", "conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_fc.weight");
    let layer = tensors.keys().find(|key| key.starts_with(unet) && key.ends_with(".attn1.to_q.weight")).unwrap();
    let name = format!("lora_unet_{}", layer[unet.len()..layer.len() - ".weight".len()].replace('.', "_"));
    let mut lora = Tensors::new();
    for (name, shape) in
        [(name, &tensors[layer]), ("lora_te2_text_model_encoder_layers_0_mlp_fc1".to_owned(), &tensors[text])]
    {
        lora.insert(format!("{name}.lora_up.weight"), vec![shape[0], 2]);
        lora.insert(format!("{name}.lora_down.weight"), vec![2, shape[1]]);
    }
    bench.write("models/loras/sd_xl_offset_example-lora_1.0.safetensors", &tiny::drawn_by_name(&lora));
    let mut set = vec![("7", "width", json!(128)), ("7", "height", json!(64)), ("8", "steps", json!(2))];
    set.push(("2", "para_name", json!("sdxl-para_00001_.safetensors")));
    let picture = |set: &[(&str, &str, Json)]| {
        let outcome = bench.run_file(&shipped("sdxl-para-then-lora", set));
        let failed = outcome.events.iter().any(|event| matches!(event, paraflow_engine::Event::Failed { .. }));
        assert!(!failed && outcome.warnings().is_empty(), "{:#?}", outcome.events);
    };
    picture(&set);
    require_picture(&bench.path("output/sdxl-para-then-lora_00001_.png"), (128, 64), 3);
    // Both act: without either the picture is another.
    for (node, input) in [("3", "strength"), ("4", "strength_model"), ("4", "strength_clip")] {
        picture(&[set.clone(), vec![(node, input, json!(0.0))]].concat());
    }
    let pixels = |index: usize| {
        image::open(bench.path(format!("output/sdxl-para-then-lora_0000{index}_.png"))).unwrap().to_rgb8().into_raw()
    };
    let all: Vec<_> = (1..=4).map(pixels).collect();
    assert!(all[1..].iter().all(|other| *other != all[0]), "an adapter has no part in the picture");
}

/// A preview by the tiny autoencoder is the picture that it decodes, of the model's own latents; without its file there are
/// colours.
#[test]
fn previews_are_drawn_by_the_tiny_autoencoder_where_there_is_one() {
    let golden = Golden::open();
    let shown = |with_file: bool| {
        let bench = Bench::with_service(crate::Previews { size_px: 96, tiny: true });
        bench.write("models/checkpoints/tiny.safetensors", tiny::checkpoint());
        if with_file {
            let smaller = golden.listing["smaller"].as_f64().unwrap() as f32;
            let file = tiny::drawn_as(&golden.shapes("taesd_decoder"), smaller, &BTreeMap::new());
            bench.write("models/vae_approx/taesd_decoder.safetensors", &file);
        }
        let outcome = bench.run(json!({
            "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
            "2": ["CLIPTextEncode", {"text": "a bear", "clip": ["1", 1]}],
            "3": ["EmptyLatentImage", {"width": 64, "height": 96, "batch_size": 1}],
            "4": ["KSampler", {
                "model": ["1", 0], "seed": 7, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal",
                "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0], "denoise": 1.0,
            }],
            "out": ["Catch", {"value": ["4", 0]}],
        }));
        outcome.events.iter().find_map(|event| match event {
            paraflow_engine::Event::Preview { image, .. } => Some(image::load_from_memory(image).unwrap().to_rgb8()),
            _ => None,
        })
    };
    let (colours, drawn) = (shown(false).unwrap(), shown(true).unwrap());
    assert_eq!((colours.dimensions(), drawn.dimensions()), ((64, 96), (64, 96)));
    assert_ne!(colours.as_raw(), drawn.as_raw());
}
