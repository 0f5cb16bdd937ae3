//! Frames in the contract's order, read from a real socket.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value as Json, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Bench, endless, sum, training};
use crate::Options;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A bench that listens, and where.
pub(super) async fn listening(options: Options) -> (Bench, u16) {
    let bench = Bench::with(Options { port: 0, ..options });
    let listener = bench.server.bind().await.unwrap().remove(0);
    let port = listener.local_addr().unwrap().port();
    let (router, closing) = (bench.router.clone(), bench.server.app.closing.subscribe());
    tokio::spawn(crate::listen::accept(vec![listener], router, 64, closing));
    (bench, port)
}

async fn client(port: u16, id: &str) -> Socket {
    connect_async(format!("ws://127.0.0.1:{port}/ws?clientId={id}")).await.unwrap().0
}

/// The next frame: a text as JSON, a binary one as its first word and its end.
async fn next(socket: &mut Socket) -> Json {
    let wait = std::time::Duration::from_secs(30);
    match tokio::time::timeout(wait, socket.next()).await.expect("a frame").unwrap().unwrap() {
        Message::Text(text) => {
            let declared = serde_json::from_str::<crate::protocol::Message>(&text);
            assert!(declared.is_ok(), "{declared:?}: {text}");
            serde_json::from_str(&text).unwrap()
        }
        Message::Binary(bytes) => {
            let kind = u32::from_be_bytes(bytes[..4].try_into().unwrap());
            json!({"type": format!("binary {kind}"), "data": String::from_utf8_lossy(&bytes[bytes.len() - 4..])})
        }
        other => panic!("{other:?}"),
    }
}

/// Frames up to the end of a prompt, told in short.
async fn until_end(socket: &mut Socket) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let frame = next(socket).await;
        seen.push(short(&frame));
        if frame["type"] == "executing" && frame["data"]["node"].is_null() {
            return seen;
        }
    }
}

fn short(frame: &Json) -> String {
    let (kind, data) = (frame["type"].as_str().unwrap(), &frame["data"]);
    match kind {
        "status" => format!("status {}", data["status"]["exec_info"]["queue_remaining"]),
        "execution_cached" => format!("{kind} {}", data["nodes"]),
        "executing" => format!("{kind} {}", data["node"]),
        "progress" => format!("{kind} {} {}/{}", data["node"], data["value"], data["max"]),
        "executed" => format!("{kind} {} {}", data["node"], data["output"]),
        "progress_state" => {
            let nodes = data["nodes"].as_object().unwrap().iter();
            let node = |(id, node): (&String, &Json)| format!("{id}:{}", node["state"].as_str().unwrap());
            format!("{kind} {}", nodes.map(node).collect::<Vec<_>>().join(" "))
        }
        "execution_error" => format!("{kind} {} {}", data["node_id"], data["exception_message"]),
        "execution_interrupted" => format!("{kind} {}", data["node_id"]),
        _ if kind.starts_with("binary") => format!("{kind} {data}"),
        _ => kind.to_owned(),
    }
}

async fn post(bench: &Bench, client: &str, prompt: &Json) -> String {
    let got = bench.post("/prompt", &json!({"prompt": prompt, "client_id": client})).await;
    got.json()["prompt_id"].as_str().unwrap_or_else(|| panic!("{}", got.text())).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_told_in_the_contracts_order_and_then_from_the_cache() {
    let (bench, port) = listening(Options::default()).await;
    let mut socket = client(port, "me").await;
    let first = next(&mut socket).await;
    assert_eq!(first["data"], json!({"status": {"exec_info": {"queue_remaining": 0}}, "sid": "me"}));
    let prompt = json!({
        "3": {"class_type": "ToySteps", "inputs": {"steps": 2}},
        "9": {"class_type": "ToyShow", "inputs": {"value": ["3", 0]}},
    });
    post(&bench, "me", &prompt).await;
    assert_eq!(
        until_end(&mut socket).await,
        [
            "status 1",
            "status 1",
            "execution_start",
            "execution_cached []",
            "progress_state 3:running",
            "executing \"3\"",
            "progress_state 3:running",
            "progress \"3\" 1/2",
            "progress_state 3:running",
            "progress \"3\" 2/2",
            "progress_state 3:finished",
            "progress_state 3:finished 9:running",
            "executing \"9\"",
            "executed \"9\" {\"text\":[\"2\"]}",
            "progress_state 3:finished 9:finished",
            "execution_success",
            "status 0",
            "executing null",
        ]
    );
    post(&bench, "me", &prompt).await;
    assert_eq!(
        until_end(&mut socket).await,
        [
            "status 1",
            "status 1",
            "execution_start",
            "execution_cached [\"3\",\"9\"]",
            "executed \"9\" {\"text\":[\"2\"]}",
            "progress_state 9:finished",
            "execution_success",
            "status 0",
            "executing null",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_there_before_the_end_is_told() {
    let (bench, port) = listening(Options::default()).await;
    let mut socket = client(port, "me").await;
    for b in 0..20 {
        let id = post(&bench, "me", &sum(b)).await;
        loop {
            let frame = next(&mut socket).await;
            if frame["type"] == "execution_success" {
                break;
            }
        }
        let history = bench.get(&format!("/history/{id}")).await.json();
        assert_eq!(history[&id]["outputs"]["2"]["text"][0], (1 + b).to_string());
        until_end(&mut socket).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn previews_come_in_the_form_that_the_client_takes() {
    let (bench, port) = listening(Options::default()).await;
    let prompt = json!({
        "3": {"class_type": "ToySteps", "inputs": {"steps": 1}},
        "9": {"class_type": "ToyShow", "inputs": {"value": ["3", 0]}},
    });
    for (flag, method, expected) in [
        (json!(true), "auto", &["binary 4 \"JPEG\"", "progress \"3\" 1/1"][..]),
        (json!(1), "latent2rgb", &["progress \"3\" 1/1", "binary 1 \"JPEG\""][..]),
        (json!(true), "none", &["progress \"3\" 1/1"][..]),
        (json!(true), "default", &["progress \"3\" 1/1"][..]),
    ] {
        let mut socket = client(port, "me").await;
        next(&mut socket).await;
        let flags = json!({"type": "feature_flags", "data": {"supports_preview_metadata": flag}});
        socket.send(Message::Text("no JSON".into())).await.unwrap();
        socket.send(Message::Text(flags.to_string().into())).await.unwrap();
        let reply = next(&mut socket).await;
        assert_eq!(reply["type"], "feature_flags");
        assert_eq!(reply["data"], bench.get("/features").await.json());
        // Every later handshake is ignored.
        socket.send(Message::Text(r#"{"type": "feature_flags", "data": {}}"#.into())).await.unwrap();
        bench.post("/free", &json!({"free_memory": true})).await;
        let body = json!({"prompt": prompt, "client_id": "me", "extra_data": {"preview_method": method}});
        bench.post("/prompt", &body).await;
        let seen = until_end(&mut socket).await;
        let round: Vec<&String> =
            seen.iter().filter(|text| text.starts_with("binary") || text.starts_with("progress \"")).collect();
        assert_eq!(round, expected, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_with_its_node_and_the_server_goes_on() {
    let (bench, port) = listening(Options::default()).await;
    let mut socket = client(port, "me").await;
    let prompt = json!({
        "1": {"class_type": "ToyFail", "inputs": {"text": "it broke"}},
        "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}},
    });
    let id = post(&bench, "me", &prompt).await;
    let seen = until_end(&mut socket).await;
    assert_eq!(
        seen[seen.len() - 3..],
        [r#"execution_error "1" "it broke\nhint: do not ask it\n""#, "status 0", "executing null"]
    );
    let entry = bench.ended(&id).await;
    assert_eq!(entry["status"]["status_str"], "error");
    assert_eq!(entry["status"]["completed"], false);
    let messages = entry["status"]["messages"].as_array().unwrap();
    let kinds: Vec<&str> = messages.iter().map(|message| message[0].as_str().unwrap()).collect();
    assert_eq!(kinds, ["execution_start", "execution_cached", "execution_error"]);
    let error = &messages[2][1];
    assert_eq!(error["node_type"], "ToyFail");
    assert_eq!(error["current_inputs"], json!({"text": ["it broke"]}));
    assert_eq!(error["prompt_id"], id);
    let next_one = bench.submit(&sum(1)).await;
    assert_eq!(bench.ended(&next_one).await["status"]["status_str"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_stops_the_prompt_that_is_meant() {
    let (bench, port) = listening(Options::default()).await;
    let mut socket = client(port, "me").await;
    let id = post(&bench, "me", &endless()).await;
    // The prompt begins a moment before its node does.
    while short(&next(&mut socket).await) != "executing \"1\"" {}
    bench.post("/interrupt", &json!({"prompt_id": "another"})).await;
    let waiting = bench.submit(&sum(1)).await;
    assert!(bench.get(&format!("/history/{id}")).await.json().get(&id).is_none());
    bench.method(axum::http::Method::POST, "/interrupt", "").await;
    let seen = until_end(&mut socket).await;
    assert!(seen.contains(&"execution_interrupted \"1\"".to_owned()), "{seen:?}");
    assert_eq!(bench.ended(&id).await["status"]["status_str"], "error");
    assert_eq!(bench.ended(&waiting).await["status"]["status_str"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_hears_what_runs() {
    let (bench, port) = listening(Options::default()).await;
    let first = client(port, "me").await;
    let id = post(&bench, "me", &endless()).await;
    bench.running(&id).await;
    drop(first);
    // The node begins a moment after the prompt does.
    let mut frames = Vec::new();
    for _ in 0..500 {
        let mut again = client(port, "me").await;
        frames = vec![next(&mut again).await];
        bench.post("/queue", &json!({"clear": true})).await;
        frames.push(next(&mut again).await);
        if frames[1]["type"] == "executing" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(frames[0]["data"]["status"]["exec_info"]["queue_remaining"], 1);
    assert_eq!(frames[1], json!({"type": "executing", "data": {"node": "1"}}));
    bench.post("/interrupt", &json!({})).await;
    bench.ended(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_one_client_never_reaches_another() {
    let (bench, port) = listening(Options::default()).await;
    let (mut mine, mut other) = (client(port, "me").await, client(port, "other").await);
    let prompt = json!({
        "3": {"class_type": "ToySteps", "inputs": {"steps": 5}},
        "9": {"class_type": "ToyShow", "inputs": {"value": ["3", 0]}},
    });
    post(&bench, "me", &prompt).await;
    until_end(&mut mine).await;
    let id = post(&bench, "other", &sum(3)).await;
    let mut seen = Vec::new();
    loop {
        let frame = next(&mut other).await;
        if frame["type"] != "status" {
            assert_eq!(frame["data"]["prompt_id"], id, "{frame}");
        }
        seen.push(short(&frame));
        if seen.last().unwrap() == "executing null" {
            break;
        }
    }
    assert_eq!(seen.iter().filter(|text| text.starts_with("status")).count(), 7, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_client_progress_goes_to_all_and_the_rest_to_none() {
    let (bench, port) = listening(Options::default()).await;
    let mut socket = client(port, "me").await;
    next(&mut socket).await;
    let id = bench.submit(&sum(4)).await;
    bench.ended(&id).await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "status 0") {
        seen.push(short(&next(&mut socket).await));
    }
    assert_eq!(
        seen,
        [
            "status 1",
            "status 1",
            "progress_state 1:running",
            "progress_state 1:finished",
            "progress_state 1:finished 2:running",
            "progress_state 1:finished 2:finished",
            "status 0"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_without_an_id_gets_one() {
    let (_bench, port) = listening(Options::default()).await;
    let (mut socket, _) = connect_async(format!("ws://127.0.0.1:{port}/api/ws")).await.unwrap();
    let first = next(&mut socket).await;
    let sid = first["data"]["sid"].as_str().unwrap();
    assert!(sid.len() == 32 && sid.chars().all(|letter| letter.is_ascii_hexdigit()), "{sid}");
}

/// A client that asked for our events, after the answer to its handshake.
async fn client_of_ours(port: u16, id: &str) -> Socket {
    let mut socket = client(port, id).await;
    let flags = json!({"type": "feature_flags", "data": {"paraflow_events": true}});
    socket.send(Message::Text(flags.to_string().into())).await.unwrap();
    while next(&mut socket).await["type"] != "feature_flags" {}
    socket
}

/// Our events, up to the warning that is the last of them.
async fn told_of_training(socket: &mut Socket) -> Vec<Json> {
    let mut told = Vec::new();
    while told.last().is_none_or(|last: &Json| last["type"] != "paraflow.warning") {
        let frame = next(socket).await;
        if frame["type"].as_str().unwrap().starts_with("paraflow.") {
            told.push(frame);
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainings_curve_and_samples_are_told_and_told_again_to_a_client_that_comes_back() {
    let (bench, port) = listening(Options::default()).await;
    let mut first = client_of_ours(port, "me").await;
    let mut stock = client(port, "stock").await;
    let id = post(&bench, "me", &training()).await;
    let told = told_of_training(&mut first).await;
    let point = json!({"node": "1", "step": 2, "total": 3, "loss": 0.5, "learning_rate": 0.125, "validation": 0.25,
                       "prompt_id": id});
    let kinds: Vec<&str> = told.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["paraflow.loss", "paraflow.loss", "paraflow.loss", "paraflow.sample", "paraflow.warning"]);
    assert_eq!(told[1]["data"], point);
    assert_eq!((&told[3]["data"]["step"], &told[3]["data"]["node"]), (&json!(3), &json!("1")));
    let image = &told[3]["data"]["image"];
    let text = |key: &str| image[key].as_str().unwrap().to_owned();
    let address = format!("/view?filename={}&subfolder={}&type={}", text("filename"), text("subfolder"), text("type"));
    assert_eq!(bench.get(&address).await.text(), "PICTURE");

    drop(first);
    let mut again = client_of_ours(port, "me").await;
    assert_eq!(told_of_training(&mut again).await, told);
    // Others were told nothing of it, before or after their handshake.
    let mut other = client_of_ours(port, "other").await;
    bench.post("/interrupt", &json!({})).await;
    bench.ended(&id).await;
    for socket in [&mut stock, &mut other] {
        loop {
            let frame = next(socket).await;
            assert_eq!(frame["type"], "status", "{frame}");
            if frame["data"]["status"]["exec_info"]["queue_remaining"] == 0 && frame["data"]["sid"].is_null() {
                break;
            }
        }
    }
    // What is over is in the books, and told no more.
    let mut late = client_of_ours(port, "me").await;
    bench.submit(&sum(1)).await;
    assert_eq!(next(&mut late).await["type"], "status");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_shapes_that_the_editor_is_told() {
    use crate::protocol::answers::{History, NodeFaults, Queue, Queued, Refused};

    let bench = Bench::new();
    let wrong = json!({
        "1": {"class_type": "ToyAdd", "inputs": {"a": "x", "b": 900}},
        "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}},
    });
    let refused = bench.post("/prompt", &json!({ "prompt": wrong })).await.json();
    let refused: Refused = serde_json::from_value(refused).unwrap();
    let faults: std::collections::BTreeMap<String, NodeFaults> = serde_json::from_value(refused.node_errors).unwrap();
    assert_eq!((faults["1"].errors.len(), refused.error.kind.as_str()), (2, "prompt_outputs_failed_validation"));

    let id = bench
        .submit(&json!({"1": {"class_type": "ToyFail", "inputs": {"text": "no"}},
                                  "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}}}))
        .await;
    bench.ended(&id).await;
    let queued = bench.post("/prompt", &json!({"prompt": endless()})).await.json();
    let queued: Queued = serde_json::from_value(queued).unwrap();
    bench.running(&queued.prompt_id).await;
    let queue: Queue = serde_json::from_value(bench.get("/queue").await.json()).unwrap();
    assert_eq!((queue.queue_running.len(), queue.queue_pending.len()), (1, 0));
    bench.post("/interrupt", &json!({})).await;
    bench.ended(&queued.prompt_id).await;
    let done = bench.submit(&sum(1)).await;
    bench.ended(&done).await;
    let history: History = serde_json::from_value(bench.get("/history").await.json()).unwrap();
    assert_eq!(history.len(), 3);
    assert_eq!(history[&done].outputs.len(), 1);
    assert!(history[&done].status.completed && history[&done].status.status_str == "success");
    for entry in history.values() {
        for (kind, data) in &entry.status.messages {
            let message = json!({"type": kind, "data": data});
            let _: crate::protocol::Message = serde_json::from_value(message).unwrap();
        }
    }
}
