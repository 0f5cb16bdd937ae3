//! Bodies and codes of ComfyUI's routes.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use serde_json::{Value as Json, json};

use super::{Bench, endless, request, sum};

/// Posts a prompt that is refused, and gives the body.
async fn refused(bench: &Bench, prompt: &Json) -> Json {
    let got = bench.post("/prompt", &json!({ "prompt": prompt })).await;
    assert_eq!(got.status, StatusCode::BAD_REQUEST, "{}", got.text());
    got.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_without_sense_is_refused_in_comfyuis_words() {
    let bench = Bench::new();
    let error = |kind: &str, message: &str, details: &str| json!({"error": {"type": kind, "message": message, "details": details, "extra_info": {}}, "node_errors": {}});
    let got = bench.post("/prompt", &json!({})).await;
    assert_eq!(got.status, StatusCode::BAD_REQUEST);
    assert_eq!(got.json(), error("no_prompt", "No prompt provided", "No prompt provided"));
    assert_eq!(got.header(header::CONTENT_TYPE), "application/json; charset=utf-8");
    assert_eq!(
        refused(&bench, &json!({"7": {"inputs": {}}})).await,
        error("invalid_prompt", "Cannot execute because a node is missing the class_type property.", "Node ID '#7'")
    );
    assert_eq!(
        refused(&bench, &json!({"7": {"class_type": "Nope", "inputs": {}}})).await,
        error("invalid_prompt", "Cannot execute because node Nope does not exist.", "Node ID '#7'")
    );
    let none = error("prompt_no_outputs", "Prompt has no outputs", "");
    assert_eq!(refused(&bench, &json!({"1": {"class_type": "ToyAdd", "inputs": {"a": 1, "b": 2}}})).await, none);
    let got = bench.post("/prompt", &json!({"prompt": sum(1), "partial_execution_targets": []})).await;
    assert_eq!((got.status, got.json()), (StatusCode::BAD_REQUEST, none.clone()));
    let got = bench.post("/prompt", &json!({"prompt": sum(1), "partial_execution_targets": ["1"]})).await;
    assert_eq!((got.status, got.json()), (StatusCode::BAD_REQUEST, none));
    let got = bench.method(Method::POST, "/prompt", "{no json").await;
    assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(got.text().starts_with("500 Internal Server Error"));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_values_have_the_contracts_types_messages_and_details() {
    let bench = Bench::new();
    let with = |inputs: Json| {
        json!({"1": {"class_type": "ToyAdd", "inputs": inputs},
               "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}}})
    };
    for (inputs, kind, message, details) in [
        (json!({"a": 1}), "required_input_missing", "Required input is missing", "b"),
        (
            json!({"a": 1, "b": [1]}),
            "bad_linked_input",
            "Bad linked input, must be a length-2 list of [node_id, slot_index]",
            "b",
        ),
        (
            json!({"a": 1, "b": "x"}),
            "invalid_input_type",
            "Failed to convert an input value to a INT value",
            "b, x, invalid literal for int() with base 10: 'x'",
        ),
        (json!({"a": 1, "b": -101}), "value_smaller_than_min", "Value -101 smaller than min of -100", "b"),
        (json!({"a": 1, "b": 101}), "value_bigger_than_max", "Value 101 bigger than max of 100", "b"),
        (
            json!({"a": 1, "b": ["9", 0]}),
            "exception_during_inner_validation",
            "Exception when validating inner node",
            "'9'",
        ),
        (
            json!({"a": 1, "b": ["1", 7]}),
            "exception_during_inner_validation",
            "Exception when validating inner node",
            "tuple index out of range",
        ),
    ] {
        let body = refused(&bench, &with(inputs)).await;
        assert_eq!(body["error"]["type"], "prompt_outputs_failed_validation");
        assert_eq!(body["error"]["details"], "", "the faults are upstream");
        let node = &body["node_errors"]["1"];
        assert_eq!(node["class_type"], "ToyAdd");
        assert_eq!(node["dependent_outputs"], json!(["2"]));
        let told = node["errors"].as_array().unwrap();
        let fits = |error: &&Json| error["type"] == kind && error["message"] == message && error["details"] == details;
        assert!(told.iter().any(|error| fits(&error)), "{kind}: {told:?}");
    }
    let body = refused(&bench, &json!({"2": {"class_type": "ToyShow", "inputs": {}}})).await;
    assert_eq!(body["error"]["details"], "Required input is missing: value");
    let extra = &body["node_errors"]["2"]["errors"][0]["extra_info"];
    assert_eq!(*extra, json!({"input_name": "value"}));
    let files = json!({"1": {"class_type": "ToyRead", "inputs": {"file": "none.txt"}},
                       "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}}});
    let body = refused(&bench, &files).await;
    assert_eq!(body["node_errors"]["1"]["errors"][0]["details"], "file - Invalid image file: none.txt");
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_outputs_run_though_others_are_broken() {
    let bench = Bench::new();
    let mut prompt = sum(4);
    prompt["3"] = json!({"class_type": "ToyShow", "inputs": {"value": ["gone", 0]}});
    let got = bench.post("/api/prompt", &json!({"prompt": prompt, "prompt_id": "mine", "number": 3})).await;
    assert_eq!(got.status, StatusCode::OK);
    let body = got.json();
    assert_eq!((&body["prompt_id"], &body["number"]), (&json!("mine"), &json!(3.0)));
    assert_eq!(body["node_errors"]["3"]["errors"][0]["type"], "exception_during_validation");
    let entry = bench.ended("mine").await;
    assert_eq!(entry["outputs"], json!({"2": {"text": ["5"]}}));
    assert_eq!(entry["prompt"][4], json!(["2"]));
    assert_eq!(
        entry["meta"]["2"],
        json!({"node_id": "2", "display_node": "2", "parent_node": null, "real_node_id": "2"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn history_tells_what_was_run_and_secrets_are_not_kept() {
    let bench = Bench::new();
    let body = json!({
        "prompt": {"1": {"class_type": "ToyAdd", "inputs": {"a": "20", "b": 3.7}},
                   "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}, "_meta": {"title": "T"}}},
        "client_id": "me",
        "extra_data": {"extra_pnginfo": {"workflow": {"id": "w"}}, "auth_token_comfy_org": "secret", "other": 1},
        "prompt_id": "p",
    });
    bench.post("/prompt", &body).await;
    let entry = bench.ended("p").await;
    let [_, id, prompt, extra, _] = entry["prompt"].as_array().unwrap().as_slice() else { panic!("{entry}") };
    assert_eq!(id, "p");
    assert_eq!(prompt["1"]["inputs"], json!({"a": 20, "b": 3}));
    assert_eq!(prompt["2"]["_meta"]["title"], "T");
    assert_eq!((&extra["client_id"], &extra["other"]), (&json!("me"), &json!(1)));
    assert!(extra["create_time"].is_i64() && extra.get("auth_token_comfy_org").is_none());
    let file = std::fs::read(bench.dir.path().join("user/paraflow.db-wal")).unwrap();
    assert!(!String::from_utf8_lossy(&file).contains("secret"));
    let job = bench.get("/api/jobs/p").await.json();
    assert_eq!((&job["status"], &job["workflow_id"]), (&json!("completed"), &json!("w")));
    assert_eq!(job["outputs"], json!({"2": {"text": ["23"]}}));

    assert_eq!(bench.get("/history/nobody").await.json(), json!({}));
    assert_eq!(bench.get("/history?max_items=x").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(bench.get("/history?offset=0").await.json().as_object().unwrap().len(), 1);
    assert_eq!(bench.post("/history", &json!({"delete": ["p"]})).await.status, StatusCode::OK);
    assert_eq!(bench.get("/history").await.json(), json!({}));
}

/// Python's `json` writes `NaN`, which is no JSON; its clients send it.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_nan_is_read_and_its_value_refused() {
    let bench = Bench::new();
    let sent = |value: &str| {
        format!(
            r#"{{"prompt": {{"1": {{"class_type": "ToyAdd", "inputs": {{"a": {value}, "b": 1}}}},
                                 "2": {{"class_type": "ToyShow", "inputs": {{"value": ["1", 0]}}}}}}, "extra_data": {{"x": NaN}}}}"#
        )
    };
    assert_eq!(bench.method(Method::POST, "/prompt", &sent("1")).await.status, StatusCode::OK);
    let got = bench.method(Method::POST, "/prompt", &sent("NaN")).await;
    assert_eq!(
        (got.status, got.json()["error"]["type"].as_str()),
        (StatusCode::BAD_REQUEST, Some("prompt_outputs_failed_validation"))
    );
    let got = bench.method(Method::POST, "/prompt", "{NaN").await;
    assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_listed_cut_and_cleared() {
    let bench = Bench::new();
    let running = bench.submit(&endless()).await;
    bench.running(&running).await;
    let waiting = [bench.submit(&sum(1)).await, bench.submit(&sum(2)).await];
    assert_eq!(bench.get("/prompt").await.json(), json!({"exec_info": {"queue_remaining": 3}}));
    let queue = bench.get("/api/queue").await.json();
    assert_eq!(queue["queue_running"][0][1], running);
    let pending: Vec<&Json> = queue["queue_pending"].as_array().unwrap().iter().map(|item| &item[1]).collect();
    assert_eq!(pending, waiting.iter().collect::<Vec<_>>());
    let got = bench.post("/queue", &json!({"delete": [waiting[0]]})).await;
    assert_eq!((got.status, got.bytes.len()), (StatusCode::OK, 0));
    let jobs = bench.get("/api/jobs?status=pending,in_progress&sort_order=asc").await.json();
    assert_eq!(jobs["pagination"], json!({"offset": 0, "limit": null, "total": 2, "has_more": false}));
    assert_eq!(jobs["jobs"][0]["status"], "in_progress");
    bench.post("/queue", &json!({"clear": true})).await;
    assert_eq!(bench.get("/queue").await.json()["queue_pending"], json!([]));
    bench.post("/interrupt", &json!({})).await;
    let entry = bench.ended(&running).await;
    assert_eq!(entry["status"]["messages"].as_array().unwrap().last().unwrap()[0], "execution_interrupted");
    let status = async |asked: &str| {
        let jobs = bench.get(&format!("/api/jobs?status={asked}")).await.json();
        jobs["jobs"][0]["status"].as_str().unwrap_or("none").to_owned()
    };
    // A later front end knows a word for it, and asks with it.
    for (asked, told) in [("failed", "failed"), ("failed,cancelled", "cancelled"), ("completed", "none")] {
        assert_eq!(status(asked).await, told, "{asked}");
    }
    assert_eq!(bench.get("/api/jobs/nobody").await.json(), json!({"error": "Job not found"}));
    assert_eq!(bench.get("/api/jobs/nobody").await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.get("/jobs").await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.get("/api/api/jobs").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn declarations_are_told_and_follow_the_folders() {
    let bench = Bench::new();
    let all = bench.get("/object_info").await;
    let tag = all.header(header::ETAG).to_owned();
    let all = all.json();
    assert_eq!(all["ToyAdd"]["input"]["required"]["a"][0], "INT");
    assert_eq!(all["ToyAdd"]["input"]["required"]["a"][1]["min"], -100);
    assert_eq!(all["ToyAdd"]["input_order"], json!({"required": ["a", "b"]}));
    assert_eq!(all["ToyShow"]["output_node"], true);
    assert_eq!(all["ToyShow"]["display_name"], "Toy Show");
    assert_eq!(all["ToyRead"]["input"]["required"]["file"][0], json!([]));
    // Of our own: what an editor folds away, and where the pictures of a model's file are to be asked for.
    assert_eq!(all["ToyRead"]["input"]["required"]["file"][1]["model_folder"], "loras");
    assert_eq!(all["ToyEndless"]["input"]["optional"]["pause"][1]["advanced"], true);
    assert_eq!(all["ToyAdd"]["input"]["required"]["a"][1].get("advanced"), None);
    assert_eq!(bench.get("/object_info/Nope").await.json(), json!({}));
    let mut again = request(Method::GET, "/api/object_info", Body::empty());
    again.headers_mut().insert(header::IF_NONE_MATCH, tag.parse().unwrap());
    assert_eq!(bench.send(again).await.status, StatusCode::NOT_MODIFIED);

    std::fs::write(bench.dir.path().join("input/new.txt"), "x").unwrap();
    for attempt in 0.. {
        let one = bench.get("/object_info/ToyRead").await.json();
        if one["ToyRead"]["input"]["required"]["file"][0] == json!(["new.txt"]) {
            break;
        }
        assert!(attempt < 1000, "the list was not renewed: {one}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_replaced_on_disk_invalidates_what_read_it() {
    let bench = Bench::new();
    let path = bench.dir.path().join("input/a.txt");
    let prompt = json!({
        "1": {"class_type": "ToyRead", "inputs": {"file": "a.txt"}},
        "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}},
        "3": {"class_type": "ToyAdd", "inputs": {"a": 1, "b": 1}},
        "4": {"class_type": "ToyShow", "inputs": {"value": ["3", 0]}},
    });
    let cached = |entry: &Json| entry["status"]["messages"][1][1]["nodes"].clone();
    for (content, expected, from_cache) in
        [("abc", "3", json!([])), ("abc", "3", json!(["1", "2", "3", "4"])), ("abcd", "4", json!(["3", "4"]))]
    {
        std::fs::write(&path, content).unwrap();
        let id = bench.submit(&prompt).await;
        let entry = bench.ended(&id).await;
        assert_eq!(entry["outputs"]["2"]["text"][0], expected);
        assert_eq!(cached(&entry), from_cache);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_may_go_as_far_as_any_node_and_the_next_begins_there() {
    let bench = Bench::new();
    let cached = |entry: &Json| entry["status"]["messages"][1][1]["nodes"].clone();
    let got = bench.post("/prompt", &json!({"prompt": sum(41), "paraflow_targets": ["1"]})).await.json();
    let entry = bench.ended(got["prompt_id"].as_str().unwrap()).await;
    assert_eq!((entry["status"]["status_str"].as_str(), &entry["outputs"]), (Some("success"), &json!({})));
    assert_eq!(entry["prompt"][4], json!(["1"]));
    let entry = bench.ended(&bench.submit(&sum(41)).await).await;
    assert_eq!((&entry["outputs"]["2"]["text"][0], cached(&entry)), (&json!("42"), json!(["1"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_where_that_is_on_and_wanted() {
    let encoding = async |compress: bool, path: &str, accepted: &str| {
        let bench = Bench::with(crate::Options { compress, ..crate::Options::default() });
        let mut request = request(Method::GET, path, Body::empty());
        request.headers_mut().insert(header::ACCEPT_ENCODING, accepted.parse().unwrap());
        let got = bench.send(request).await;
        let is_gzip = got.bytes.starts_with(&[0x1f, 0x8b]);
        assert_eq!(is_gzip, got.header(header::CONTENT_ENCODING) == "gzip");
        is_gzip
    };
    assert!(encoding(true, "/object_info", "gzip, deflate").await);
    assert!(encoding(true, "/paraflow/v1/metrics", "gzip").await);
    assert!(!encoding(true, "/object_info", "identity").await);
    assert!(!encoding(true, "/paraflow/v1/", "gzip").await);
    assert!(!encoding(false, "/object_info", "gzip").await);
    assert!(encoding(false, "/object_info?packed", "gzip, deflate").await);
    assert!(!encoding(false, "/object_info?packed", "identity").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_is_there_too() {
    let bench = Bench::new();
    let stats = bench.get("/system_stats").await.json();
    assert!(stats["system"]["ram_total"].as_u64().unwrap() > 1 << 20);
    assert!(stats["system"]["ram_free"].as_u64() <= stats["system"]["ram_total"].as_u64());
    assert_eq!(stats["devices"][0]["type"], "cpu");
    assert_eq!(bench.get("/features").await.json()["max_upload_size"], 104_857_600);
    assert_eq!(bench.get("/extensions").await.json(), json!([]));
    assert_eq!(bench.get("/i18n").await.json(), json!({}));
    let templates = bench.get("/workflow_templates").await.json();
    let name = templates["paraflow"][0].as_str().unwrap();
    let template = bench.get(&format!("/api/workflow_templates/paraflow/{name}.json")).await;
    assert!(template.json().is_object());
    let looked = bench.get(&format!("/workflow_templates/paraflow/{name}.json?look")).await;
    let shipped = bench.get(&format!("/workflow_templates/paraflow/{name}.json")).await;
    assert_eq!(looked.json(), shipped.json());
    for none in ["paraflow/none.json", "paraflow/none.jpg", "other/none.json"] {
        assert_eq!(bench.get(&format!("/workflow_templates/{none}")).await.status, StatusCode::NOT_FOUND);
    }
    let card = bench.get("/workflow_templates/paraflow/text-to-image.jpg").await;
    assert!(card.bytes.starts_with(&[0xff, 0xd8]));
    assert_eq!(bench.get("/templates/index.json").await.json(), json!([]));
    assert_eq!(bench.get("/global_subgraphs").await.json(), json!({}));
    assert_eq!(bench.get("/global_subgraphs/none").await.json(), Json::Null);
    assert_eq!(bench.get("/internal/files/output").await.json(), json!([]));
    let wrong = bench.get("/internal/files/other").await;
    assert_eq!((wrong.status, wrong.json()), (StatusCode::BAD_REQUEST, json!({"error": "Invalid directory type"})));
    assert!(bench.get("/internal/folder_paths").await.json()["loras"].is_array());
    assert!(bench.get("/internal/logs").await.json().is_string());
    assert_eq!(bench.get("/api/internal/logs").await.status, StatusCode::NOT_FOUND);
    for unknown in ["/api/nope", "/nope.html", "/paraflow/v1/nope", "/paraflow/nope"] {
        assert_eq!(bench.get(unknown).await.status, StatusCode::NOT_FOUND, "{unknown}");
    }
    let index = bench.get("/").await;
    assert_eq!((index.status, index.header(header::CACHE_CONTROL)), (StatusCode::OK, "no-cache"));
    assert_eq!(index.header(header::EXPIRES), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_front_end_is_served_from_its_folder() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("extensions/core")).unwrap();
    std::fs::write(root.path().join("index.html"), "<p>theirs").unwrap();
    std::fs::write(root.path().join("extensions/core/a.js"), "1").unwrap();
    let front_end_root = Some(root.path().to_owned());
    let bench = Bench::with(crate::Options { front_end_root, ..crate::Options::default() });
    assert_eq!(bench.get("/").await.text(), "<p>theirs");
    assert_eq!(bench.get("/extensions").await.json(), json!(["/extensions/core/a.js"]));
    let script = bench.get("/extensions/core/a.js").await;
    assert_eq!(script.header(header::CONTENT_TYPE), "application/javascript; charset=utf-8");
    assert_eq!(script.header(header::CACHE_CONTROL), "no-cache");
    assert_eq!(bench.get("/..%2f..%2fetc/passwd").await.status, StatusCode::NOT_FOUND);
}

/// Every route of ComfyUI's that exists with and without `/api`: as the page about the server names it, a request, and
/// the answer's code.
const ROUTES: &[(&str, Method, &str, &str, u16)] = &[
    ("/prompt", Method::GET, "/prompt", "", 200),
    ("/prompt", Method::POST, "/prompt", "{}", 400),
    ("/queue", Method::GET, "/queue", "", 200),
    ("/queue", Method::POST, "/queue", r#"{"delete": ["nobody"]}"#, 200),
    ("/interrupt", Method::POST, "/interrupt", r#"{"prompt_id": "nobody"}"#, 200),
    ("/free", Method::POST, "/free", "{}", 200),
    ("/history", Method::GET, "/history", "", 200),
    ("/history", Method::POST, "/history", r#"{"delete": ["nobody"]}"#, 200),
    ("/history/{id}", Method::GET, "/history/nobody", "", 200),
    ("/object_info", Method::GET, "/object_info", "", 200),
    ("/object_info/{class}", Method::GET, "/object_info/ToyAdd", "", 200),
    ("/view", Method::GET, "/view?filename=none.png", "", 404),
    ("/upload/image", Method::POST, "/upload/image", "", 400),
    ("/upload/mask", Method::POST, "/upload/mask", "", 400),
    ("/view_metadata/{folder}", Method::GET, "/view_metadata/loras?filename=none.safetensors", "", 404),
    ("/models", Method::GET, "/models", "", 200),
    ("/models/{folder}", Method::GET, "/models/loras", "", 200),
    ("/embeddings", Method::GET, "/embeddings", "", 200),
    ("/experiment/models", Method::GET, "/experiment/models", "", 200),
    ("/experiment/models/{folder}", Method::GET, "/experiment/models/loras", "", 200),
    (
        "/experiment/models/preview/{folder}/{index}/{file}",
        Method::GET,
        "/experiment/models/preview/loras/0/x",
        "",
        404,
    ),
    ("/system_stats", Method::GET, "/system_stats", "", 200),
    ("/features", Method::GET, "/features", "", 200),
    ("/extensions", Method::GET, "/extensions", "", 200),
    ("/i18n", Method::GET, "/i18n", "", 200),
    ("/workflow_templates", Method::GET, "/workflow_templates", "", 200),
    ("/workflow_templates/{module}/{file}", Method::GET, "/workflow_templates/paraflow/text-to-image.json", "", 200),
    ("/global_subgraphs", Method::GET, "/global_subgraphs", "", 200),
    ("/global_subgraphs/{id}", Method::GET, "/global_subgraphs/none", "", 200),
    ("/settings", Method::GET, "/settings", "", 200),
    ("/settings", Method::POST, "/settings", r#"{"a": 1}"#, 200),
    ("/settings/{id}", Method::GET, "/settings/a", "", 200),
    ("/settings/{id}", Method::POST, "/settings/a", "2", 200),
    ("/userdata", Method::GET, "/userdata?dir=.", "", 200),
    ("/v2/userdata", Method::GET, "/v2/userdata", "", 200),
    ("/userdata/{file}", Method::POST, "/userdata/a.txt", "x", 200),
    ("/userdata/{file}", Method::GET, "/userdata/a.txt", "", 200),
    ("/userdata/{file}/move/{dest}", Method::POST, "/userdata/a.txt/move/b.txt", "", 200),
    ("/userdata/{file}", Method::DELETE, "/userdata/b.txt", "", 204),
    ("/users", Method::GET, "/users", "", 200),
    ("/users", Method::POST, "/users", r#"{"username": "__x"}"#, 400),
    // Without the headers of a WebSocket.
    ("/ws", Method::GET, "/ws", "", 400),
];

/// Those that have no twin.
const SINGLE: &[(&str, Method, &str, &str, u16)] = &[
    ("/api/jobs", Method::GET, "/api/jobs", "", 200),
    ("/api/jobs/{id}", Method::GET, "/api/jobs/nobody", "", 404),
    ("/internal/logs", Method::GET, "/internal/logs", "", 200),
    ("/internal/logs/raw", Method::GET, "/internal/logs/raw", "", 200),
    (
        "/internal/logs/subscribe",
        Method::PATCH,
        "/internal/logs/subscribe",
        r#"{"clientId": "c", "enabled": true}"#,
        200,
    ),
    ("/internal/folder_paths", Method::GET, "/internal/folder_paths", "", 200),
    ("/internal/files/{place}", Method::GET, "/internal/files/output", "", 200),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_core_route_is_there_with_and_without_api_and_stands_in_the_table() {
    let bench = Bench::new();
    for prefix in ["", "/api"] {
        for (route, method, path, body, expected) in ROUTES {
            let got = bench.method(method.clone(), &format!("{prefix}{path}"), body).await;
            assert_eq!(got.status.as_u16(), *expected, "{method} {prefix}{route}: {}", got.text());
            if *expected != 404 {
                continue;
            }
            // A route that says that there is no such thing, and not that there is no such route.
            let other = bench.method(Method::PUT, &format!("{prefix}{path}"), body).await;
            assert_eq!(other.status, StatusCode::METHOD_NOT_ALLOWED, "{prefix}{route}");
        }
    }
    for (route, method, path, body, expected) in SINGLE {
        let got = bench.method(method.clone(), path, body).await;
        assert_eq!(got.status.as_u16(), *expected, "{method} {route}: {}", got.text());
        let twin = path.strip_prefix("/api").map_or_else(|| format!("/api{path}"), str::to_owned);
        assert_eq!(bench.method(method.clone(), &twin, body).await.status, StatusCode::NOT_FOUND, "{twin}");
    }

    let page = include_str!("../../../docs/server.md");
    let table = page.split("## ComfyUI's routes").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    let mut named: Vec<&str> = Vec::new();
    for row in &rows {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [routes, covered, test] = cells.as_slice() else { panic!("{row}") };
        named.extend(routes.split('`').skip(1).step_by(2));
        assert!(!covered.is_empty() && test.contains('`'), "{row}");
        let here = concat!(
            include_str!("beside_comfyui.rs"),
            include_str!("files.rs"),
            include_str!("protocol.rs"),
            include_str!("routes.rs"),
            include_str!("security.rs"),
            include_str!("users.rs")
        );
        for name in test.split('`').skip(1).step_by(2) {
            assert!(here.contains(&format!("async fn {name}(")), "there is no test `{name}`: {row}");
        }
    }
    let mut routes: Vec<&str> = ROUTES.iter().chain(SINGLE).map(|(route, ..)| *route).collect();
    routes.dedup();
    let missing: Vec<_> = routes.iter().filter(|route| !named.contains(route)).collect();
    let unknown: Vec<_> = named.iter().filter(|route| !routes.contains(route)).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing in the table: {missing:?}; only there: {unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_404_on_our_own_routes() {
    let bench = Bench::new();
    for (method, path) in [
        (Method::GET, "/jobs/nobody"),
        (Method::DELETE, "/jobs/nobody"),
        (Method::GET, "/jobs/nobody/wait"),
        (Method::GET, "/jobs/nobody/events"),
        (Method::GET, "/jobs/nobody/artefacts"),
        (Method::GET, "/jobs/nobody/artefacts/0"),
        (Method::POST, "/jobs/nobody/cancel"),
        (Method::POST, "/jobs/nobody/retry"),
        (Method::PUT, "/jobs/nobody/queue"),
        (Method::GET, "/nothing"),
        (Method::POST, "/jobs/nobody/nothing"),
    ] {
        let body = if method == Method::PUT { r#"{"priority": 1}"# } else { "" };
        let got = bench.method(method.clone(), &format!("/paraflow/v1{path}"), body).await;
        assert_eq!(got.status, StatusCode::NOT_FOUND, "{method} {path}: {}", got.text());
        assert!(got.json()["error"]["message"].is_string(), "{method} {path}: {}", got.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_all_graphs_that_ship() {
    let bench = Bench::new();
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../graphs")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut shipped: Vec<String> = names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
    shipped.sort();
    assert!(shipped.len() >= 10, "{shipped:?}");
    let mut listed: Vec<String> =
        serde_json::from_value(bench.get("/workflow_templates").await.json()["paraflow"].clone()).unwrap();
    listed.sort();
    assert_eq!(listed, shipped);
    for name in listed {
        let graph = bench.get(&format!("/workflow_templates/paraflow/{name}.json")).await.json();
        assert!(graph.as_object().is_some_and(|graph| !graph.is_empty()), "{name}");
        // ComfyUI's front end asks under `/api`, and opens workflows only.
        let workflow = bench.get(&format!("/api/workflow_templates/paraflow/{name}.json")).await.json();
        assert_eq!(workflow["version"], 0.4, "{name}");
        assert_eq!(workflow["nodes"].as_array().unwrap().len(), graph.as_object().unwrap().len(), "{name}");
    }
}
