//! What can be wrong with a graph: every fault at once, in the graph's order, in these words.

use std::collections::BTreeMap;

use paraflow_engine::*;
use serde_json::json;

use crate::toys::{Room, read};

/// Nodes as people know them, which are only looked at here.
macro_rules! only_declared {
    ($(
        $(#[$attribute:meta])*
        struct $name:ident { $($(#[$field:meta])* $input:ident: $ty:ty,)* } gives $output:ty;
    )*) => {$(
        $(#[$attribute])*
        #[expect(dead_code, reason = "never run")]
        struct $name { $($(#[$field])* $input: $ty,)* }

        impl Run for $name {
            type Output = $output;

            fn run(self, _: &Context) -> Result<Self::Output> {
                unreachable!("only planned")
            }
        }
    )*};
}

macro_rules! ports {
    ($($name:ident $kind:literal),*) => {$(
        struct $name;

        impl Port for $name {
            const KIND: &'static str = $kind;
        }
    )*};
}

ports!(Model "MODEL", Clip "CLIP", Vae "VAE", Latent "LATENT", Image "IMAGE", Conditioning "CONDITIONING");

only_declared! {
    /// Loads a model.
    #[derive(Node)]
    #[node(category = "loaders")]
    struct CheckpointLoaderSimple {
        /// Its name.
        #[input(choices = ["toyland.safetensors", "other.safetensors"])]
        ckpt_name: Choice<String>,
    } gives (Model, Clip, Vae);

    /// Encodes words.
    #[derive(Node)]
    #[node(category = "conditioning")]
    struct CLIPTextEncode {
        /// The words.
        text: String,
        /// The encoder.
        clip: Shared<Clip>,
    } gives Conditioning;

    /// Makes a latent.
    #[derive(Node)]
    #[node(category = "latent")]
    struct EmptyLatentImage {
        /// Its width.
        #[input(default = 512, range = 16..=16_384)]
        width: u32,
    } gives Latent;

    /// Samples.
    #[derive(Node)]
    #[node(category = "sampling")]
    struct KSampler {
        /// The model.
        model: Shared<Model>,
        /// The seed.
        #[input(default = 0)]
        seed: u64,
        /// The steps.
        #[input(default = 20, range = 1..=10_000)]
        steps: u32,
        /// The strength.
        #[input(default = 1.0, range = 0.0..=1.0)]
        denoise: f64,
        /// The sampler.
        #[input(choices = ["euler", "heun", "dpmpp_2m", "lms", "ddim", "lcm", "ipndm"])]
        sampler_name: Choice<String>,
        /// What to make.
        positive: Shared<Conditioning>,
        /// Where to start.
        latent_image: Shared<Latent>,
    } gives Latent;

    /// Decodes.
    #[derive(Node)]
    #[node(category = "latent")]
    struct VAEDecode {
        /// The latent.
        samples: Shared<Latent>,
        /// The decoder.
        vae: Shared<Vae>,
    } gives Image;

    /// Encodes.
    #[derive(Node)]
    #[node(category = "latent")]
    struct VAEEncode {
        /// The picture.
        pixels: Shared<Image>,
        /// The encoder.
        vae: Shared<Vae>,
    } gives Latent;

    /// Saves.
    #[derive(Node)]
    #[node(category = "image", sink, display_name = "Save Image")]
    struct SaveImage {
        /// The picture.
        images: Shared<Image>,
        /// What its name begins with.
        #[input(default = "paraflow")]
        filename_prefix: String,
    } gives ();

    /// Takes a picture or a number.
    #[derive(Node)]
    #[node(category = "image", sink)]
    struct TakesEither {
        /// Either.
        #[input(kind = "IMAGE, FLOAT")]
        either: Value,
    } gives ();
}

fn registry() -> Registry {
    let nodes = [
        NodeDef::of::<CheckpointLoaderSimple>(),
        NodeDef::of::<CLIPTextEncode>(),
        NodeDef::of::<EmptyLatentImage>(),
        NodeDef::of::<KSampler>(),
        NodeDef::of::<VAEDecode>(),
        NodeDef::of::<VAEEncode>(),
        NodeDef::of::<SaveImage>(),
        NodeDef::of::<TakesEither>(),
    ];
    Registry::new(nodes.into_iter().chain(crate::toys::toys()), crate::toys::services())
}

const GOOD: &str = "
    4 CheckpointLoaderSimple ckpt_name=toyland.safetensors
    6 CLIPTextEncode text=bear clip=@4.1
    5 EmptyLatentImage width=128
    3 KSampler model=@4 seed=18446744073709551615 steps=4 sampler_name=euler positive=@6 latent_image=@5
    8 VAEDecode samples=@3 vae=@4.2
    9 SaveImage images=@8";

#[track_caller]
fn check(graph: &str, expected: &str) {
    check_graph(&read(graph), expected);
}

#[track_caller]
fn check_graph(graph: &Graph, expected: &str) {
    let told: Vec<String> = match Plan::new(graph, &registry()) {
        Ok(_) => Vec::new(),
        Err(faults) => faults
            .iter()
            .flat_map(|it| [Some(it.to_string()), it.hint().map(|it| format!("hint: {it}"))])
            .flatten()
            .collect(),
    };
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(told, expected);
}

#[test]
fn a_good_graph_has_none() {
    check(GOOD, "");
}

#[test]
fn every_fault_is_told_at_once_in_the_graphs_order() {
    check(
        "4 CheckpointLoaderSimple ckpt_name=toyland
         6 CLIPTextEncode text=bear clip=@4.0
         7 VAEDecode samples=@3.1 vae=@4.2
         3 KSampler steps=0 model=@44 sampler_name=dpm++ positive=@6 latent_image=@7 denoise=1.5
         8 VAEDekode samples=@3 vae=@4.2
         9 SaveImage images=@7 filename_prefix=[1]
         10 SaveImage images=5",
        "node 4 (CheckpointLoaderSimple): input `ckpt_name` expects one of toyland.safetensors, other.safetensors, found \"toyland\"
         hint: did you mean `toyland.safetensors`?
         node 6 (CLIPTextEncode): input `clip` expects CLIP, found MODEL from node 4
         hint: output 1 of node 4 would fit
         node 7 (VAEDecode): input `samples` expects LATENT, found a link to output 1 of node 3, which has 1
         hint: output 0 of node 3 would fit
         node 7 (VAEDecode): it waits for its own result: 7 -> 3 -> 7
         node 3 (KSampler): input `model` expects MODEL, found a link to node 44, which is not in the graph
         node 3 (KSampler): input `steps` expects 1 to 10000, found 0
         node 3 (KSampler): input `denoise` expects 0.0 to 1.0, found 1.5
         node 3 (KSampler): input `sampler_name` expects one of euler, heun, dpmpp_2m, lms, ddim, lcm, … (7 in all), found \"dpm++\"
         hint: did you mean `dpmpp_2m`?
         node 3 (KSampler): input `latent_image` expects LATENT, found IMAGE from node 7
         hint: put a VAEEncode between them
         node 8 (VAEDekode): there is no such class
         hint: did you mean `VAEDecode`?
         node 9 (SaveImage): input `filename_prefix` expects a link `[\"node\", slot]`, found [1]
         hint: a list that is meant as a value is written {\"__value__\": [...]}
         node 10 (SaveImage): input `images` expects a link to IMAGE, found 5
         hint: VAEDecode gives IMAGE",
    );
}

#[test]
fn a_missing_input_is_told_with_what_would_give_it() {
    check(
        "1 KSampler modle=@2 seed=1 sampler_name=euler latent_image=@3
         2 CheckpointLoaderSimple
         3 EmptyLatentImage
         4 VAEDecode samples=@1
         5 SaveImage images=@4",
        "node 1 (KSampler): input `model` expects MODEL, found nothing
         hint: the graph gives `modle`; rename it
         node 1 (KSampler): input `positive` expects CONDITIONING, found nothing
         hint: CLIPTextEncode gives CONDITIONING
         node 1 (KSampler): it has no input `modle`
         hint: did you mean `model`?
         node 2 (CheckpointLoaderSimple): input `ckpt_name` expects COMBO, found nothing
         node 4 (VAEDecode): input `vae` expects VAE, found nothing
         hint: CheckpointLoaderSimple gives VAE",
    );
}

#[test]
fn a_required_input_that_is_left_out_gets_its_default() {
    let room = Room::new();
    let plan = room.plan("1 Number\n2 Show value=@1");
    assert_eq!(plan.prompt()["1"]["inputs"], json!({"value": 0}));
    // An optional one stays out, whatever its editor starts with.
    assert_eq!(plan.prompt()["2"]["inputs"], json!({"value": ["1", 0]}));
}

#[test]
fn a_literal_that_cannot_become_the_kind_is_told() {
    check(
        &GOOD.replace("steps=4", "steps=\"many\"").replace("seed=18446744073709551615", "seed=18446744073709551616"),
        "node 3 (KSampler): input `seed` expects 0 to 18446744073709551615, found 18446744073709551616
         node 3 (KSampler): input `steps` expects INT, found \"many\"",
    );
}

#[test]
fn a_number_out_of_range_is_told_as_the_input_understood_it() {
    let digits = format!("{:.0}", -1e300);
    check(
        &GOOD.replace("steps=4", "steps=\"0\" denoise=2").replace("seed=18446744073709551615", "seed=-1e300"),
        &format!(
            "node 3 (KSampler): input `seed` expects 0 to 18446744073709551615, found {}…
             node 3 (KSampler): input `steps` expects 1 to 10000, found 0
             node 3 (KSampler): input `denoise` expects 0.0 to 1.0, found 2.0",
            &digits[..60]
        ),
    );
}

#[test]
fn a_list_that_is_almost_a_link_is_told_with_the_link() {
    for (list, hint) in [
        ("[5, 0]", "write it [\"5\",0]"),
        ("[\"5\", \"0\"]", "write it [\"5\",0]"),
        ("[\"5\", 0.0]", "write it [\"5\",0]"),
        ("[\"5\", -1]", "a node's id is a text, and its outputs are counted from 0"),
        ("[null, 0]", "a node's id is a text, and its outputs are counted from 0"),
        ("[\"5\"]", "a list that is meant as a value is written {\"__value__\": [...]}"),
    ] {
        let mut graph = read(GOOD);
        let found: Json = serde_json::from_str(list).unwrap();
        let latent = graph.nodes.iter_mut().find(|(id, _)| id == "3").unwrap();
        latent.1.bind("latent_image", Binding::Literal(found.clone()));
        check_graph(
            &graph,
            &format!(
                "node 3 (KSampler): input `latent_image` expects a link `[\"node\", slot]`, found {found}\nhint: {hint}"
            ),
        );
    }
}

#[test]
fn converted_literals_are_saved() {
    let graph = read(&GOOD.replace("steps=4", "steps=4.7 denoise=\"0.5\"").replace("text=bear", "text=12"));
    let plan = Plan::new(&graph, &registry()).unwrap();
    assert_eq!(plan.prompt()["3"]["inputs"]["steps"], json!(4));
    assert_eq!(plan.prompt()["3"]["inputs"]["denoise"], json!(0.5));
    assert_eq!(plan.prompt()["3"]["inputs"]["seed"], json!(18_446_744_073_709_551_615_u64));
    assert_eq!(plan.prompt()["6"]["inputs"]["text"], json!("12"));
    assert_eq!(plan.prompt()["9"]["inputs"]["filename_prefix"], json!("paraflow"));
}

#[test]
fn a_word_that_surprises_is_warned_of() {
    let plan = Room::new().plan("1 Switch pick=\"false\" on_true=1 on_false=2\n2 Show value=@1");
    let text = "input `pick` is the word \"false\", which counts as true; write false without quotes";
    assert_eq!(plan.warnings(), [Warning { node: "1".into(), text: text.into() }]);
}

#[test]
fn a_cycle_is_told_once_with_its_shortest_path_from_its_first_node() {
    check(
        "3 Add a=@1
         1 Add a=@2 b=@3
         2 Add a=@3 b=@1
         4 Show value=@2
         5 Add a=@5
         6 Show value=@5",
        "node 3 (Add): it waits for its own result: 3 -> 1 -> 3
         node 5 (Add): it waits for its own result: 5 -> 5",
    );
}

#[test]
fn several_kinds_meet_where_they_have_one_in_common() {
    check(
        "1 VAEDecode samples=@2 vae=@4.2
         2 EmptyLatentImage
         3 TakesEither either=@1
         4 CheckpointLoaderSimple ckpt_name=other.safetensors",
        "",
    );
    check("3 TakesEither either=5.5\n4 TakesEither either=5", "");
    check(
        "1 Number\n2 EmptyLatentImage\n3 TakesEither either=@1\n4 TakesEither either=@2\n5 TakesEither either=foo",
        "node 3 (TakesEither): input `either` expects IMAGE, FLOAT, found INT from node 1
         node 4 (TakesEither): input `either` expects IMAGE, FLOAT, found LATENT from node 2
         hint: put a VAEDecode between them
         node 5 (TakesEither): input `either` expects IMAGE, FLOAT, found \"foo\"",
    );
}

#[test]
fn a_graph_without_an_output_is_told_of_some() {
    check(
        "1 Number",
        "the graph has no output: nothing in it is saved or shown
         hint: end it with one of TakesEither, SaveImage, Show",
    );
    check(
        "",
        "the graph has no output: nothing in it is saved or shown\nhint: end it with one of TakesEither, SaveImage, Show",
    );
    // The class that nobody knows may well be the output.
    check("1 SaveImages images=5", "node 1 (SaveImages): there is no such class\nhint: did you mean `SaveImage`?");
}

#[test]
fn what_no_output_needs_is_not_looked_at_but_for_its_class() {
    check(
        "1 Number value=100000
         2 Show value=1
         3",
        "node 3: it has no `class_type`",
    );
}

#[test]
fn what_an_unknown_node_reads_is_looked_at_all_the_same() {
    check(
        "1 CLIPTextEncode text=bear clip=@44
         2 KSampler steps=0 model=@3 positive=@1 sampler_name=euler latent_image=@5
         3 CheckpointLoaderSimple ckpt_name=toyland.safetensors
         4 VAEDecod samples=@2 vae=@3.2
         5 EmptyLatentImage
         6 SaveImage images=@4
         7 SaveImagee images=@8
         8 CLIPTextEncode text=bear",
        "node 1 (CLIPTextEncode): input `clip` expects CLIP, found a link to node 44, which is not in the graph
         node 2 (KSampler): input `steps` expects 1 to 10000, found 0
         node 4 (VAEDecod): there is no such class
         hint: did you mean `VAEDecode`?
         node 7 (SaveImagee): there is no such class
         hint: did you mean `SaveImage`?
         node 8 (CLIPTextEncode): input `clip` expects CLIP, found nothing
         hint: CheckpointLoaderSimple gives CLIP",
    );
}

#[test]
fn titles_help_to_find_the_node() {
    let mut graph = read("1 Show");
    for (title, place) in [("second pass", "node 1 (Show, \"second pass\")"), ("Show", "node 1 (Show)")] {
        graph.nodes[0].1.title = Some(title.into());
        check_graph(&graph, &format!("{place}: input `value` expects *, found nothing"));
    }
}

#[test]
fn a_file_that_is_not_there_is_found_before_anything_runs() {
    let room = Room::new();
    *room.disk.0.lock().unwrap() = BTreeMap::from([("a".into(), "one".into())]);
    // The list was asked for when there was no file yet; the check asks the disk.
    let faults = Plan::new(read("1 ReadFile file=b\n2 Show value=@1"), &room.registry).unwrap_err();
    assert_eq!(faults[0].to_string(), "node 1 (ReadFile): input `file` expects a file on the disk, found \"b\"");
    assert_eq!(faults[0].hint().unwrap(), "write it first");
    room.plan("1 ReadFile file=a\n2 Show value=@1");
}

#[test]
fn facts_are_there_for_programs() {
    let faults = Plan::new(read(&GOOD.replace("latent_image=@5", "latent_image=@8 steps=0")), &registry());
    let faults = faults.unwrap_err();
    let facts: Vec<_> = faults
        .iter()
        .map(|it| (it.node.as_deref(), it.fault.input(), it.fault.expected(), it.fault.found(), it.fault.comfy_type()))
        .collect();
    let of = |input, expected: &str, found: &str, name| {
        (Some("3"), Some(input), Some(expected.to_owned()), Some(found.to_owned()), name)
    };
    assert_eq!(facts[0], of("latent_image", "LATENT", "IMAGE", "return_type_mismatch"));
    assert_eq!(facts[1].4, "exception_during_inner_validation");
}

#[test]
fn only_what_was_asked_for_is_planned_and_checked() {
    let registry = registry();
    let graph = read("1 Number\n2 Show value=@1\n3 Number value=5000\n4 Show value=@3");
    let plan = Plan::for_outputs(&graph, &registry, &["2".into()]).unwrap();
    assert_eq!(plan.nodes().collect::<Vec<_>>(), ["1", "2"]);
    // As far as a node that is no output.
    let plan = Plan::for_outputs(&graph, &registry, &["1".into()]).unwrap();
    assert_eq!(plan.nodes().collect::<Vec<_>>(), ["1"]);
    let told = |targets: &[NodeId]| match Plan::for_outputs(&graph, &registry, targets) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
    };
    assert_eq!(told(&["9".into()]), ["node 9 was asked for, but is not in the graph"]);
    assert_eq!(told(&[]), ["the graph has no output: nothing in it is saved or shown"]);
    assert_eq!(told(&["4".into()]), ["node 3 (Number): input `value` expects -1000 to 1000, found 5000"]);
}

#[test]
fn what_is_sound_of_a_broken_graph_can_run() {
    let graph = read("1 Number\n2 Show value=@1\n3 Number value=5000\n4 Add a=@3 b=@1\n5 Show value=@4");
    let (plan, faults) = Plan::partial(&graph, &registry(), None);
    assert_eq!(plan.unwrap().nodes().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(faults.len(), 1);
    let (plan, faults) = Plan::partial(read("1 Add a=@1\n2 Show value=@1"), &registry(), None);
    assert!(plan.is_none());
    assert_eq!(faults.len(), 1);
}
