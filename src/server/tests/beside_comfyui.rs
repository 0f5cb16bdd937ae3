//! The finer points of ComfyUI's answers, each as a ComfyUI 0.8.0 that ran beside gave it.

use axum::http::{Method, StatusCode, header};
use serde_json::{Value as Json, json};

use super::{Bench, Got, sum};

/// A scaled number, shown.
fn scaled(inputs: &Json) -> Json {
    json!({
        "1": {"class_type": "ToyScale", "inputs": inputs},
        "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}},
    })
}

/// The body of the refusal of a prompt.
async fn refused(bench: &Bench, prompt: &Json) -> Json {
    refusal(&bench.post("/prompt", &json!({ "prompt": prompt })).await)
}

#[track_caller]
fn refusal(got: &Got) -> Json {
    assert_eq!(got.status, StatusCode::BAD_REQUEST, "{}", got.text());
    got.json()
}

/// The one fault of a node in a refusal.
#[track_caller]
fn only_fault<'a>(body: &'a Json, node: &str) -> &'a Json {
    let faults = body["node_errors"][node]["errors"].as_array().unwrap_or_else(|| panic!("{node} has faults: {body}"));
    assert_eq!(faults.len(), 1, "{faults:?}");
    &faults[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_out_of_range_is_told_as_python_reads_it() {
    let bench = Bench::new();
    let digits = format!("{:.0}", 1e300);
    let beyond = "18446744073709551616";
    for (inputs, message, received) in [
        (json!({"value": 1, "by": 1000}), "Value 1000.0 bigger than max of 100.0".to_owned(), json!(1000.0)),
        (json!({"value": 1, "by": -1}), "Value -1.0 smaller than min of 0.0".to_owned(), json!(-1.0)),
        (json!({"value": 1, "by": 1e300}), "Value 1e+300 bigger than max of 100.0".to_owned(), json!(1e300)),
        (json!({"value": "-5", "by": 1}), "Value -5 smaller than min of 0".to_owned(), json!(-5)),
        (
            json!({"value": beyond, "by": 1}),
            format!("Value {beyond} bigger than max of 16777215"),
            json!(2_f64.powi(64)),
        ),
        (json!({"value": 1e300, "by": 1}), format!("Value {digits} bigger than max of 16777215"), json!(1e300)),
    ] {
        let body = refused(&bench, &scaled(&inputs)).await;
        let fault = only_fault(&body, "1");
        assert_eq!((&fault["message"], &fault["extra_info"]["received_value"]), (&json!(message), &received));
    }
    // As Python's clients write it: digits that only a float holds.
    let written = json!({"prompt": scaled(&json!({"value": "HERE", "by": 1}))}).to_string();
    let body = refusal(&bench.method(Method::POST, "/prompt", &written.replace("\"HERE\"", beyond)).await);
    assert_eq!(only_fault(&body, "1")["message"], format!("Value {beyond} bigger than max of 16777215"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_two_that_is_no_link_is_followed_as_python_would() {
    let bench = Bench::new();
    for (list, exception, details) in [
        (json!([1, 0]), "KeyError", "1"),
        (json!(["9", "0"]), "KeyError", "'9'"),
        (json!([null, 0]), "KeyError", "None"),
        (json!([["1"], 0]), "TypeError", "unhashable type: 'list'"),
        (json!(["1", "0"]), "TypeError", "tuple indices must be integers or slices, not str"),
        (json!(["1", 0.0]), "TypeError", "tuple indices must be integers or slices, not float"),
        // Python counts this from the end; here it is refused like any other that is out of range.
        (json!(["1", -1]), "IndexError", "tuple index out of range"),
    ] {
        let mut prompt = sum(1);
        prompt["2"]["inputs"]["value"] = list.clone();
        let body = refused(&bench, &prompt).await;
        assert_eq!(body["error"]["details"], format!("Exception when validating node: {details}"), "{list}");
        let fault = only_fault(&body, "2");
        assert_eq!((&fault["type"], &fault["details"]), (&json!("exception_during_validation"), &json!(details)));
        assert_eq!(fault["extra_info"]["exception_type"], exception, "{list}");
    }
    let mut prompt = sum(1);
    prompt["1"]["inputs"]["b"] = json!([1, 0]);
    let body = refused(&bench, &prompt).await;
    let fault = only_fault(&body, "1");
    assert_eq!(fault["type"], "exception_during_inner_validation");
    assert_eq!(
        (&fault["extra_info"]["linked_node"], &fault["extra_info"]["hint"]),
        (&json!(["1", 0]), &json!("write it [\"1\",0]"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_over_a_link_that_does_not_fit_is_not_met() {
    let bench = Bench::new();
    let body = refused(&bench, &scaled(&json!({"value": 1, "by": ["1", 0]}))).await;
    assert_eq!(only_fault(&body, "1")["type"], "return_type_mismatch");
    let body = refused(&bench, &json!({"2": {"class_type": "ToyShow", "inputs": {"value": ["2", 0]}}})).await;
    assert_eq!(only_fault(&body, "2")["details"], "tuple index out of range");
    assert_eq!(body["error"]["details"], "Exception when validating node: tuple index out of range");
    let body = refused(
        &bench,
        &json!({
            "1": {"class_type": "ToyScale", "inputs": {"value": ["2", 0], "by": 1.0}},
            "2": {"class_type": "ToyScale", "inputs": {"value": 1, "by": ["1", 0]}},
            "3": {"class_type": "ToyShow", "inputs": {"value": ["2", 0]}},
        }),
    )
    .await;
    assert_eq!(only_fault(&body, "2")["type"], "return_type_mismatch");
    assert_eq!(body["node_errors"].as_object().unwrap().len(), 1);
    // Where both fit, it is.
    let mut prompt = sum(1);
    prompt["1"]["inputs"]["b"] = json!(["1", 0]);
    assert_eq!(only_fault(&refused(&bench, &prompt).await, "1")["extra_info"]["exception_type"], "RecursionError");
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_that_are_refused_take_a_number_too() {
    let bench = Bench::new();
    let accepted = async || bench.post("/prompt", &json!({ "prompt": sum(1) })).await.json()["number"].clone();
    assert_eq!(accepted().await, 0);
    refusal(&bench.post("/prompt", &json!({})).await);
    refused(&bench, &sum(900)).await;
    assert_eq!(accepted().await, 3);
    // Not those that bring one of their own, nor what is no request at all.
    refusal(&bench.post("/prompt", &json!({"prompt": sum(900), "number": 70})).await);
    bench.method(Method::POST, "/prompt", "{no json").await;
    assert_eq!(accepted().await, 4);
}

/// This is ours: there, both would run.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_taken_is_refused_in_comfyuis_shape() {
    let bench = Bench::new();
    let again = json!({"prompt": sum(1), "prompt_id": "mine"});
    assert_eq!(bench.post("/prompt", &again).await.status, StatusCode::OK);
    let got = bench.post("/prompt", &again).await;
    let error = json!({"type": "prompt_id_taken", "message": "Prompt id is taken",
                       "details": "there is a job `mine` already", "extra_info": {}});
    assert_eq!((got.status, got.json()), (StatusCode::CONFLICT, json!({"error": error, "node_errors": {}})));
}

#[tokio::test(flavor = "multi_thread")]
async fn literals_become_text_as_in_python() {
    let bench = Bench::new();
    let failing = json!({
        "1": {"class_type": "ToyFail", "inputs": {"text": {"a": [1, true, null]}}},
        "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}},
    });
    let id = bench.submit(&failing).await;
    assert_eq!(bench.ended(&id).await["prompt"][2]["1"]["inputs"]["text"], "{'a': [1, True, None]}");
    for (file, name) in [(json!(5), "5"), (json!(true), "True")] {
        let reading = json!({
            "1": {"class_type": "ToyRead", "inputs": {"file": file}},
            "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}},
        });
        let body = refused(&bench, &reading).await;
        assert_eq!(only_fault(&body, "1")["details"], format!("file - Invalid image file: {name}"));
    }
    let body = refused(&bench, &scaled(&json!({"value": {"a": "b"}, "by": 1}))).await;
    let details =
        "value, {'a': 'b'}, int() argument must be a string, a bytes-like object or a real number, not 'dict'";
    assert_eq!(only_fault(&body, "1")["details"], details);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_is_a_jpeg_unless_the_channels_forbid_it() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.dir.path().join("input")).unwrap();
    let picture = image::RgbaImage::from_pixel(8, 8, image::Rgba([200, 100, 50, 128]));
    picture.save(bench.dir.path().join("input/p.png")).unwrap();
    for (query, kind) in [
        ("preview=jpeg;50", "image/jpeg"),
        ("preview=jpeg", "image/jpeg"),
        ("preview=jpeg&channel=rgb", "image/jpeg"),
        ("preview=jpeg&channel=rgba", "image/webp"),
        ("preview=jpeg&channel=a", "image/webp"),
        ("preview=xyz", "image/webp"),
        ("preview=webp;80", "image/webp"),
    ] {
        let got = bench.get(&format!("/view?filename=p.png&type=input&{query}")).await;
        assert_eq!((got.status, got.header(header::CONTENT_TYPE)), (StatusCode::OK, kind), "{query}");
        let shown = image::load_from_memory(&got.bytes).unwrap();
        assert_eq!((shown.width(), shown.height()), (8, 8), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_says_no_more_and_no_less_than_the_node() {
    let bench = Bench::new();
    let told = bench.get("/object_info").await.json();
    let mut value = told["ToyScale"]["input"]["required"]["value"][1].clone();
    assert_eq!(value.as_object_mut().unwrap().remove("tooltip"), Some("What is scaled.".into()));
    assert_eq!(value, json!({"default": 1, "min": 0, "max": 16_777_215, "step": 1, "display": "color"}));
    assert_eq!(told["ToyAdd"]["input"]["required"]["a"][1].get("step"), None);
    assert_eq!(told["ToyAdd"]["input"]["required"]["a"][1].get("display"), None);
    let file = &told["ToyScale"]["input"]["optional"]["file"][1];
    assert_eq!((&file["image_upload"], &file["image_folder"]), (&json!(true), &json!("output")));
    let remote = json!({"route": "/internal/files/output", "refresh_button": true, "control_after_refresh": "first"});
    assert_eq!(file["remote"], remote);
    assert_eq!(bench.get("/internal/files/output").await.status, StatusCode::OK);
    assert_eq!(told["ToyRead"]["input"]["required"]["file"][1].get("remote"), None);
}
