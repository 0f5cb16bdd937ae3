//! The stock nodes that the test files use, as far as a file's conversion depends on them.

use paraflow_engine::graph::Graph;
use paraflow_engine::spec::{Dynamic, InputSpec, Lane, NodeSpec, OutputSpec, Specs, Widget};
use serde_json::{Value as Json, json};

/// A list of specs, looked up by class.
pub(crate) struct Stock(Vec<NodeSpec>);

impl Specs for Stock {
    fn spec(&self, class: &str) -> Option<&NodeSpec> {
        self.0.iter().find(|spec| spec.name == class)
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.iter().map(|spec| spec.name).collect();
        names.sort_unstable();
        names
    }
}

/// A wire.
fn wire(name: &'static str, kind: &'static str) -> InputSpec {
    InputSpec {
        name,
        kind,
        doc: "",
        required: true,
        default: None,
        widget: Widget::Socket,
        lazy: false,
        force_input: false,
        control_after_generate: false,
        image_upload: false,
        image_folder: None,
        display: None,
        advanced: false,
        names_file: false,
        folder: None,
        dynamic: None,
    }
}

fn int(name: &'static str, default: i64) -> InputSpec {
    let widget = Widget::Integer { min: i128::from(i64::MIN), max: i128::from(u64::MAX), step: None };
    InputSpec { widget, default: Some(default.into()), ..wire(name, "INT") }
}

fn float(name: &'static str, default: f64) -> InputSpec {
    let widget = Widget::Number { min: -100.0, max: 100.0, step: 0.01, round: None };
    InputSpec { widget, default: Some(default.into()), ..wire(name, "FLOAT") }
}

fn text(name: &'static str, default: Option<&str>) -> InputSpec {
    let widget = Widget::Text { multiline: false, dynamic_prompts: false };
    InputSpec { widget, default: default.map(Json::from), ..wire(name, "STRING") }
}

fn prompt(name: &'static str) -> InputSpec {
    let widget = Widget::Text { multiline: true, dynamic_prompts: true };
    InputSpec { widget, ..wire(name, "STRING") }
}

fn choice(name: &'static str, choices: &[&str]) -> InputSpec {
    let widget = Widget::Choice(choices.iter().map(|&choice| choice.to_owned()).collect());
    InputSpec { widget, ..wire(name, "COMBO") }
}

fn upload(name: &'static str) -> InputSpec {
    InputSpec { image_upload: true, names_file: true, ..choice(name, &[]) }
}

fn controlled(input: InputSpec) -> InputSpec {
    InputSpec { control_after_generate: true, ..input }
}

fn forced(input: InputSpec) -> InputSpec {
    InputSpec { force_input: true, ..input }
}

fn node(name: &'static str, display: &'static str, inputs: Vec<InputSpec>, outputs: &[&'static str]) -> NodeSpec {
    NodeSpec {
        name,
        display_name: (!display.is_empty()).then_some(display),
        category: "",
        doc: "",
        version: 1,
        lane: Lane::Any,
        sink: outputs.is_empty(),
        input_is_list: false,
        deprecated: false,
        experimental: false,
        inputs,
        outputs: outputs.iter().map(|&kind| OutputSpec { kind, name: kind, is_list: false }).collect(),
    }
}

const SAMPLERS: [&str; 3] = ["euler", "heun", "ddim"];
const SCHEDULERS: [&str; 3] = ["simple", "karras", "normal"];

fn samplers() -> Vec<NodeSpec> {
    let [positive, negative] = ["positive", "negative"].map(|name| wire(name, "CONDITIONING"));
    let latent = wire("latent_image", "LATENT");
    let simple = vec![
        wire("model", "MODEL"),
        controlled(int("seed", 0)),
        int("steps", 20),
        float("cfg", 8.0),
        choice("sampler_name", &SAMPLERS),
        choice("scheduler", &SCHEDULERS),
        positive.clone(),
        negative.clone(),
        latent.clone(),
        float("denoise", 1.0),
    ];
    let advanced = vec![
        wire("model", "MODEL"),
        choice("add_noise", &["enable", "disable"]),
        // Its name alone gives it the control entry.
        int("noise_seed", 0),
        int("steps", 20),
        float("cfg", 8.0),
        choice("sampler_name", &SAMPLERS),
        choice("scheduler", &SCHEDULERS),
        positive,
        negative,
        latent,
        int("start_at_step", 0),
        int("end_at_step", 10_000),
        choice("return_with_leftover_noise", &["disable", "enable"]),
    ];
    vec![
        node("KSampler", "KSampler", simple, &["LATENT"]),
        node("KSamplerAdvanced", "KSampler (Advanced)", advanced, &["LATENT"]),
    ]
}

fn latents_and_images() -> Vec<NodeSpec> {
    let sizes = vec![int("width", 512), int("height", 512), int("batch_size", 1)];
    let decode = vec![wire("samples", "LATENT"), wire("vae", "VAE")];
    let repeat = vec![wire("samples", "LATENT"), int("amount", 1)];
    let save = vec![wire("images", "IMAGE"), text("filename_prefix", Some("ComfyUI"))];
    let mask = vec![upload("image"), choice("channel", &["alpha", "red", "green", "blue"])];
    vec![
        node("EmptyLatentImage", "Empty Latent Image", sizes, &["LATENT"]),
        node("VAEDecode", "VAE Decode", decode, &["IMAGE"]),
        node("RepeatLatentBatch", "Repeat Latent Batch", repeat, &["LATENT"]),
        node("SaveImage", "Save Image", save, &[]),
        node("PreviewImage", "Preview Image", vec![wire("images", "IMAGE")], &[]),
        node("LoadImage", "Load Image", vec![upload("image")], &["IMAGE", "MASK"]),
        node("LoadImageMask", "Load Image (as Mask)", mask, &["MASK"]),
    ]
}

fn models_and_conditioning() -> Vec<NodeSpec> {
    let lora = vec![
        wire("model", "MODEL"),
        wire("clip", "CLIP"),
        choice("lora_name", &["style.safetensors"]),
        float("strength_model", 1.0),
        float("strength_clip", 1.0),
    ];
    let conditioning = |name| wire(name, "CONDITIONING");
    let combine = vec![conditioning("conditioning_1"), conditioning("conditioning_2")];
    let average = vec![
        conditioning("conditioning_to"),
        conditioning("conditioning_from"),
        float("conditioning_to_strength", 1.0),
    ];
    let checkpoint = vec![choice("ckpt_name", &["v1-5.safetensors"])];
    let encode = vec![prompt("text"), wire("clip", "CLIP")];
    vec![
        node("CheckpointLoaderSimple", "Load Checkpoint", checkpoint, &["MODEL", "CLIP", "VAE"]),
        node("LoraLoader", "Load LoRA", lora, &["MODEL", "CLIP"]),
        node("CLIPTextEncode", "CLIP Text Encode (Prompt)", encode, &["CONDITIONING"]),
        node("ConditioningCombine", "Conditioning (Combine)", combine, &["CONDITIONING"]),
        node("ConditioningAverage", "", average, &["CONDITIONING"]),
    ]
}

fn primitives() -> Vec<NodeSpec> {
    let concatenate = vec![text("string_a", None), text("string_b", None), text("delimiter", None)];
    vec![
        node("PrimitiveInt", "Int", vec![controlled(int("value", 0))], &["INT"]),
        node("PrimitiveFloat", "Float", vec![float("value", 0.0)], &["FLOAT"]),
        node("PrimitiveString", "String", vec![text("value", None)], &["STRING"]),
        node("StringConcatenate", "Concatenate", concatenate, &["STRING"]),
    ]
}

/// Classes for rules that no stock node needs.
fn own() -> Vec<NodeSpec> {
    let between = vec![text("first", None), forced(int("count", 0)), text("last", None), int("seed", 0)];
    let list = vec![controlled(choice("name", &["a", "b"])), int("count", 1)];
    vec![node("ForcedBetween", "", between, &[]), node("ControlledList", "", list, &[])]
}

/// Classes whose inputs change.
fn dynamic() -> Vec<NodeSpec> {
    let with = |input: InputSpec, keys| InputSpec { dynamic: Some(Dynamic::With(keys)), ..input };
    let grows = Some(Dynamic::Grows { prefix: "image", min: 2, max: 50 });
    let matches = Some(Dynamic::Matches("input_type"));
    let resize = vec![
        InputSpec { dynamic: matches, ..wire("input", "IMAGE,MASK") },
        choice("resize_type", &["scale by multiplier", "scale dimensions", "match size"]),
        with(float("resize_type.multiplier", 1.0), &["scale by multiplier"]),
        with(int("resize_type.width", 512), &["scale dimensions"]),
        with(int("resize_type.height", 512), &["scale dimensions"]),
        with(wire("resize_type.match", "IMAGE,MASK"), &["match size"]),
        with(choice("resize_type.crop", &["disabled", "center"]), &["scale dimensions", "match size"]),
        choice("scale_method", &["nearest-exact", "area"]),
    ];
    vec![
        node(
            "BatchImagesNode",
            "Batch Images",
            vec![InputSpec { dynamic: grows, ..wire("images", "IMAGE") }],
            &["IMAGE"],
        ),
        node("ResizeImageMaskNode", "Resize Image/Mask", resize, &["*"]),
    ]
}

/// All of them.
pub(crate) fn stock() -> Stock {
    Stock([samplers(), latents_and_images(), models_and_conditioning(), primitives(), own(), dynamic()].concat())
}

/// A prompt without its titles, which most tests do not care about.
pub(crate) fn without_titles(graph: &Graph) -> Json {
    let mut prompt = graph.to_prompt();
    for node in prompt.as_object_mut().into_iter().flat_map(|nodes| nodes.values_mut()) {
        node.as_object_mut().map(|node| node.remove("_meta"));
    }
    prompt
}

/// The text-to-image graph that everyone knows, as an API prompt.
pub(crate) fn text_to_image() -> Json {
    json!({
        "4": {"inputs": {"ckpt_name": "v1-5.safetensors"}, "class_type": "CheckpointLoaderSimple"},
        "5": {"inputs": {"width": 512, "height": 512, "batch_size": 1}, "class_type": "EmptyLatentImage"},
        "6": {"inputs": {"text": "a cat", "clip": ["4", 1]}, "class_type": "CLIPTextEncode", "_meta": {"title": "Positive"}},
        "7": {"inputs": {"text": "blurry", "clip": ["4", 1]}, "class_type": "CLIPTextEncode", "_meta": {"title": "Negative"}},
        "3": {"inputs": {"seed": 1, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
                         "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]},
              "class_type": "KSampler"},
        "8": {"inputs": {"samples": ["3", 0], "vae": ["4", 2]}, "class_type": "VAEDecode"},
        "9": {"inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}, "class_type": "SaveImage"},
    })
}
