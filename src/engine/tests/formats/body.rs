//! Everything that is not a bare workflow: prompts, bodies of requests, pictures.

use paraflow_engine::formats::{FormatError, read};
use paraflow_engine::graph::{Binding, Graph};
use serde_json::{Value as Json, json};

use crate::stock::{stock, text_to_image, without_titles};

fn graph(bytes: impl AsRef<[u8]>) -> Graph {
    read(bytes.as_ref(), &stock()).unwrap()
}

#[test]
fn a_prompt_comes_back_as_it_was() {
    let mut prompt = text_to_image();
    prompt["9"]["is_changed"] = json!(["ab12"]);
    prompt["3"]["inputs"]["seed"] = json!(u64::MAX);
    prompt["9"]["extra"] = json!({"deep": [1.5, 0.1, 1e-7, {"ü": null}], "z": "\u{1}", "a": 0.30000000000000004});
    let text = prompt.to_string();
    let graph = graph(&text);
    let ids: Vec<_> = graph.nodes.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["4", "5", "6", "7", "3", "8", "9"], "in the file's order");
    assert_eq!(graph.to_prompt(), prompt);
    let again = read(graph.to_prompt().to_string().as_bytes(), &stock()).unwrap();
    assert_eq!(again.to_prompt().to_string(), graph.to_prompt().to_string());
    let extra = prompt["9"]["extra"].to_string();
    assert!(graph.to_prompt().to_string().contains(&extra), "unknown fields to the byte");
}

#[test]
fn numbers_are_read_to_the_last_bit() {
    // Parsers that round twice get these wrong.
    for number in
        ["0.1", "7.1", "2.2250738585072011e-308", "9007199254740993.0", "1.7976931348623157e308", "0.000244140625"]
    {
        let text = format!(r#"{{"1": {{"class_type": "A", "inputs": {{"x": {number}}}}}}}"#);
        let Binding::Literal(Json::Number(read)) = graph(text).nodes[0].1.inputs[0].1.clone() else {
            panic!("{number}")
        };
        assert_eq!(read.as_f64().unwrap().to_bits(), number.parse::<f64>().unwrap().to_bits(), "{number}");
    }
}

#[test]
fn the_body_of_a_request_gives_prompt_and_workflow() {
    let body = json!({
        "client_id": "c", "front": true, "prompt": text_to_image(),
        "extra_data": {"extra_pnginfo": {"workflow": {"nodes": [], "mine": 1}}},
    });
    let graph = graph(body.to_string());
    assert_eq!(graph.to_prompt(), text_to_image());
    assert_eq!(graph.workflow, Some(json!({"nodes": [], "mine": 1})));
    assert_eq!(self::graph(json!({"prompt": text_to_image()}).to_string()).workflow, None);
}

#[test]
fn a_node_may_be_called_prompt() {
    let prompt = json!({"prompt": {"inputs": {}, "class_type": "LoadImage"}});
    assert_eq!(graph(prompt.to_string()).nodes[0].0, "prompt");
}

/// A picture of nothing with these texts.
fn png(texts: &[(&str, &str)]) -> Vec<u8> {
    let chunk = |kind: &[u8], data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&length, kind, data, &[0; 4]].concat()
    };
    let texts = texts.iter().map(|(key, text)| chunk(b"tEXt", &[key.as_bytes(), b"\0", text.as_bytes()].concat()));
    let texts = texts.collect::<Vec<_>>().concat();
    [b"\x89PNG\r\n\x1a\n", texts.as_slice(), &chunk(b"IEND", b"")].concat()
}

#[test]
fn a_picture_runs_what_made_it_and_keeps_its_canvas() {
    let ui = include_str!("../../../../tests/workflows/text-to-image.ui.json");
    let workflow: Json = serde_json::from_str(ui).unwrap();
    let prompt = text_to_image();

    let both = graph(png(&[("prompt", &prompt.to_string()), ("workflow", ui)]));
    assert_eq!((both.to_prompt(), both.workflow.as_ref()), (prompt.clone(), Some(&workflow)));

    let canvas = graph(png(&[("workflow", ui)]));
    assert_eq!(canvas.nodes.len(), 7);
    assert_eq!(without_titles(&canvas)["5"]["inputs"]["height"], 768);
    assert_eq!(canvas.workflow, Some(workflow));

    let bare = graph(png(&[("prompt", &prompt.to_string()), ("workflow", "broken")]));
    assert_eq!((bare.to_prompt(), bare.workflow), (prompt, None));
}

#[test]
fn what_python_writes_into_pictures_is_read() {
    let prompt =
        r#"{"1": {"inputs": {"image": "a.png", "x": Infinity}, "class_type": "LoadImage", "is_changed": [NaN]}}"#;
    let graph = graph(png(&[("prompt", prompt)]));
    assert_eq!(graph.nodes[0].1.inputs[1], ("x".to_owned(), Binding::Literal(Json::Null)));
    assert_eq!(graph.nodes[0].1.rest["is_changed"], json!([null]));
}

#[test]
fn what_is_neither_text_nor_picture_is_told_by_its_bytes() {
    assert_eq!(read(b"{\"a\xff", &stock()), Err(FormatError::NotText { offset: 3 }));
    let error = read(&png(&[("parameters", "steps: 20")]), &stock()).unwrap_err();
    assert_eq!(error.to_string(), "this PNG picture carries no graph, only `parameters`");
}
