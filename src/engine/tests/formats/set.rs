//! `--set NODE.INPUT=VALUE`.

use paraflow_engine::formats::{apply_set, read};
use paraflow_engine::graph::Graph;
use serde_json::{Value as Json, json};

use crate::stock::{stock, text_to_image};

fn graph() -> Graph {
    let mut prompt = text_to_image();
    prompt["my.node"] =
        json!({"class_type": "KSampler", "inputs": {"steps": ["5", 0]}, "_meta": {"title": "Second.pass"}});
    prompt["10"] = json!({"class_type": "Custom", "inputs": {"amount": 1, "on": true, "word": "a", "model": ["4", 0]}});
    read(prompt.to_string().as_bytes(), &stock()).unwrap()
}

/// Applies; the input's value afterwards, or the message.
fn check(assignment: &str, pointer: &str, expected: impl Into<Json>) {
    let mut graph = graph();
    apply_set(&mut graph, &stock(), assignment).unwrap_or_else(|error| panic!("{assignment}: {error}"));
    assert_eq!(graph.to_prompt().pointer(pointer), Some(&expected.into()), "{assignment}");
}

fn refused(assignment: &str, expected: &str) {
    let mut graph = graph();
    let error = apply_set(&mut graph, &stock(), assignment).expect_err(assignment);
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    assert_eq!(format!("{error}{hint}"), expected, "{assignment}");
    assert_eq!(graph, self::graph(), "{assignment}: nothing changed");
}

#[test]
fn a_node_is_named_by_id_title_or_class() {
    check("3.seed=7", "/3/inputs/seed", 7);
    check("Positive.text=a = b.c", "/6/inputs/text", "a = b.c");
    check("positive.TEXT=dog", "/6/inputs/text", "dog");
    check("EmptyLatentImage.width=640", "/5/inputs/width", 640);
    check("emptylatentimage.width= 640 ", "/5/inputs/width", 640);
    check("my.node.steps=5", "/my.node/inputs/steps", 5);
    check("Second.pass.steps=5", "/my.node/inputs/steps", 5);
}

#[test]
fn a_value_is_of_the_inputs_kind() {
    check("3.cfg=7", "/3/inputs/cfg", 7);
    check("3.cfg=7.25", "/3/inputs/cfg", 7.25);
    check("3.seed=18446744073709551615", "/3/inputs/seed", u64::MAX);
    check("3.sampler_name=ddim", "/3/inputs/sampler_name", "ddim");
    check("6.text=12", "/6/inputs/text", "12");
    check("6.text=", "/6/inputs/text", "");
    check("my.node.denoise=0.5", "/my.node/inputs/denoise", 0.5);
    refused("3.seed=1.5", "node 3 (KSampler): input `seed` expects a whole number, found `1.5`");
    refused("3.seed=", "node 3 (KSampler): input `seed` expects a whole number, found ``");
    refused("3.cfg=high", "node 3 (KSampler): input `cfg` expects a number, found `high`");
}

#[test]
fn of_an_unknown_class_the_literals_tell_the_kind() {
    check("10.amount=2", "/10/inputs/amount", 2);
    check("10.on=false", "/10/inputs/on", false);
    check("10.word=2", "/10/inputs/word", "2");
    check("10.amount=many", "/10/inputs/amount", "many");
    refused("10.model=x", "node 10 (Custom) has no input `model`\nhint: did you mean `model`?");
}

#[test]
fn a_wrong_name_is_answered_with_the_nearest() {
    refused("KSampller.seed=1", "no node has the id, title or class `KSampller`\nhint: did you mean `KSampler`?");
    refused("3.sede=1", "node 3 (KSampler) has no input `sede`\nhint: did you mean `seed`?");
    refused("Zebra.x=1", "no node has the id, title or class `Zebra`");
    refused("my.node.stesp=1", "node my.node (KSampler) has no input `stesp`\nhint: did you mean `steps`?");
    refused(
        "CLIPTextEncode.text=x",
        "`CLIPTextEncode` names several nodes: 6 (Positive), 7 (Negative)\nhint: name one by its id: `6`",
    );
    refused("3.model=x", "node 3 (KSampler): input `model` takes MODEL from a wire, not a value");
    for form in ["seed", "3=4", "seed=7", ".seed=7", "3.=7"] {
        refused(form, &format!("`{form}` is not of the form NODE.INPUT=VALUE\nhint: for example `KSampler.seed=7`"));
    }
}
