//! Our own API.

use axum::http::{Method, StatusCode, header};
use serde_json::{Value as Json, json};

use super::{Bench, Got, endless, request, sum, training};

fn save(value: i64) -> Json {
    json!({
        "1": {"class_type": "ToyAdd", "inputs": {"a": value, "b": 0}, "_meta": {"title": "Adder"}},
        "2": {"class_type": "ToySave", "inputs": {"value": ["1", 0]}},
    })
}

async fn submit(bench: &Bench, body: Json) -> Got {
    bench.post("/paraflow/v1/jobs", &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_submitted_waited_for_and_its_files_are_there() {
    let bench = Bench::new();
    let got = submit(&bench, json!({"graph": save(1), "set": {"Adder.b": 41}, "id": "j"})).await;
    assert_eq!(got.status, StatusCode::CREATED, "{}", got.text());
    assert_eq!(got.json(), json!({"id": "j", "repeated": false, "warnings": []}));
    let job = bench.get("/paraflow/v1/jobs/j/wait?timeout=30").await;
    assert_eq!(job.status, StatusCode::OK);
    assert_eq!(job.json()["state"], "done");
    let files = bench.get("/paraflow/v1/jobs/j/artefacts").await.json();
    assert_eq!((&files[0]["bytes"], &files[0]["type"]), (&json!(2), &json!("output")));
    assert_eq!(files[0]["blake3"], blake3::hash(b"42").to_hex().as_str());
    let file = bench.get(files[0]["url"].as_str().unwrap()).await;
    assert_eq!(file.text(), "42");
    assert_eq!(bench.get("/paraflow/v1/jobs/j/artefacts/1").await.status, StatusCode::NOT_FOUND);
    let again = bench.method(Method::POST, "/paraflow/v1/jobs/j/retry", "").await.json();
    let id = again["id"].as_str().unwrap();
    bench.get(&format!("/paraflow/v1/jobs/{id}/wait")).await;
    let list = bench.get("/paraflow/v1/jobs?state=done").await.json();
    assert_eq!((&list["total"], &list["jobs"][1]["id"]), (&json!(2), &json!("j")));
    assert_eq!(bench.method(Method::DELETE, "/paraflow/v1/jobs/j", "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.get("/paraflow/v1/jobs/j").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_told_all_at_once_and_nothing_is_stored() {
    let bench = Bench::new();
    let graph = json!({
        "1": {"class_type": "ToyAdd", "inputs": {"a": "x", "b": 900}},
        "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}},
        "3": {"class_type": "ToyShow", "inputs": {"value": ["9", 0]}},
    });
    let got = submit(&bench, json!({ "graph": graph })).await;
    assert_eq!(got.status, StatusCode::UNPROCESSABLE_ENTITY);
    let faults = got.json()["error"]["faults"].clone();
    let places: Vec<_> =
        faults.as_array().unwrap().iter().map(|fault| format!("{}.{}", fault["node"], fault["input"])).collect();
    assert_eq!(places, [r#""1"."a""#, r#""1"."b""#, r#""3"."value""#]);
    for (body, status) in [
        (json!({}), 400),
        (json!({"graph": sum(1), "nonsense": 1}), 400),
        (json!([sum(1)]), 400),
        (json!({"graph": sum(1), "timeout": 0}), 400),
        (json!({"graph": sum(1), "id": "../x"}), 400),
        (json!({"graph": sum(1), "id": ".."}), 400),
        (json!({"graph": sum(1), "id": "a\u{0}b"}), 400),
        (json!({"graph": sum(1), "webhook": "http://10.0.0.1/"}), 400),
        (json!({"graph": sum(1), "set": {"Nobody.b": 1}}), 422),
        (json!({"graph": sum(1), "outputs": ["9"]}), 422),
        (json!({"graph": [1]}), 422),
    ] {
        let got = submit(&bench, body.clone()).await;
        assert_eq!(got.status.as_u16(), status, "{body}: {}", got.text());
        assert!(got.json()["error"]["message"].is_string());
    }
    assert_eq!(bench.get("/paraflow/v1/jobs").await.json()["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_addresses_are_told_in_our_shape() {
    let bench = Bench::new();
    let id = submit(&bench, json!({"graph": sum(1)})).await.json()["id"].as_str().unwrap().to_owned();
    bench.ended(&id).await;
    for (address, status, told) in [
        (format!("jobs/{id}/wait?timeout=soon"), 400, "timeout"),
        ("jobs?limit=many".to_owned(), 400, "limit"),
        (format!("jobs/{id}/artefacts/first"), 404, "has no file first"),
    ] {
        let got = bench.get(&format!("/paraflow/v1/{address}")).await;
        let message = got.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(got.status.as_u16(), status, "{address}");
        assert!(message.contains(told) && !message.contains("deserialize"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_keys_make_one_job() {
    let bench = Bench::new();
    let first = submit(&bench, json!({"graph": sum(1), "idempotency_key": "k"})).await;
    let second = submit(&bench, json!({"graph": sum(1), "idempotency_key": "k"})).await;
    assert_eq!((first.status, second.status), (StatusCode::CREATED, StatusCode::OK));
    assert_eq!(first.json()["id"], second.json()["id"]);
    let other = submit(&bench, json!({"graph": sum(2), "idempotency_key": "k"})).await;
    assert_eq!(other.status, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_cancelled_timed_out_moved_and_paused() {
    let bench = Bench::new();
    assert_eq!(
        bench.method(Method::PUT, "/paraflow/v1/queue", r#"{"paused": true}"#).await.status,
        StatusCode::NO_CONTENT
    );
    for id in ["a", "b", "c"] {
        submit(&bench, json!({"graph": endless(), "id": id})).await;
    }
    let change = async |id: &str, body: Json| {
        bench.method(Method::PUT, &format!("/paraflow/v1/jobs/{id}/queue"), &body.to_string()).await.status.as_u16()
    };
    assert_eq!(change("c", json!({"position": "first"})).await, 204);
    assert_eq!(change("a", json!({"priority": -1})).await, 204);
    assert_eq!(change("a", json!({"priority": 1, "position": "last"})).await, 400);
    assert_eq!(change("x", json!({"priority": 1})).await, 404);
    assert_eq!(change("b", json!({"before": "x"})).await, 409);
    let queue = bench.get("/paraflow/v1/queue").await.json();
    assert_eq!(queue, json!({"paused": true, "running": [], "pending": ["c", "b", "a"]}));
    bench.method(Method::PUT, "/paraflow/v1/queue", r#"{"paused": false}"#).await;
    bench.running("c").await;
    let cancel = async |id: &str| {
        bench.method(Method::POST, &format!("/paraflow/v1/jobs/{id}/cancel"), "").await.status.as_u16()
    };
    assert_eq!(bench.method(Method::DELETE, "/paraflow/v1/jobs/c", "").await.status, StatusCode::CONFLICT);
    assert_eq!(bench.get("/paraflow/v1/jobs/c/wait?timeout=0").await.status, StatusCode::ACCEPTED);
    assert_eq!(cancel("a").await, 202);
    assert_eq!(cancel("c").await, 202);
    assert_eq!(bench.get("/paraflow/v1/jobs/c/wait").await.json()["state"], "cancelled");
    assert_eq!(cancel("c").await, 409);
    assert_eq!(cancel("x").await, 404);
    bench.running("b").await;
    cancel("b").await;
    submit(&bench, json!({"graph": endless(), "id": "slow", "timeout": 0.05})).await;
    let slow = bench.get("/paraflow/v1/jobs/slow/wait").await.json();
    assert_eq!((&slow["state"], &slow["error"]), (&json!("failed"), &json!("out of time after 50 ms")));
    let pruned = bench.post("/paraflow/v1/history/prune", &json!({"keep": 1})).await.json();
    assert_eq!(pruned, json!({"removed": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_side_by_side_and_are_stopped_one_by_one() {
    let bench = Bench::with(crate::Options { jobs_at_once: 2, ..crate::Options::default() });
    for id in ["a", "b", "c"] {
        submit(&bench, json!({"graph": endless(), "id": id})).await;
    }
    bench.running("a").await;
    bench.running("b").await;
    assert_eq!(bench.get("/paraflow/v1/queue").await.json()["pending"], json!(["c"]));
    bench.method(Method::POST, "/paraflow/v1/jobs/a/cancel", "").await;
    bench.running("c").await;
    assert_eq!(bench.get("/paraflow/v1/jobs/a/wait").await.json()["state"], "cancelled");
    let queue = bench.get("/paraflow/v1/queue").await.json();
    assert_eq!((&queue["running"], &queue["pending"]), (&json!(["b", "c"]), &json!([])));
    bench.post("/interrupt", &json!({})).await;
    for id in ["b", "c"] {
        assert_eq!(bench.get(&format!("/paraflow/v1/jobs/{id}/wait")).await.json()["state"], "cancelled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_followed_to_the_end() {
    let bench = Bench::new();
    bench.method(Method::PUT, "/paraflow/v1/queue", r#"{"paused": true}"#).await;
    submit(&bench, json!({"graph": sum(1), "id": "j"})).await;
    let following = tokio::spawn({
        let router = bench.router.clone();
        async move {
            let request = request(Method::GET, "/paraflow/v1/jobs/j/events", axum::body::Body::empty());
            let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
            let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
            String::from_utf8(body.to_bytes().to_vec()).unwrap()
        }
    });
    // Until it follows, nothing may happen.
    while bench.server.app.feed.followers() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    bench.method(Method::PUT, "/paraflow/v1/queue", r#"{"paused": false}"#).await;
    let text = following.await.unwrap();
    let kinds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let started = ["state", "execution_start", "execution_cached"];
    let ran = ["executing", "paraflow.ran", "executing", "executed", "paraflow.ran"];
    assert_eq!(kinds, [&started[..], &ran, &["execution_success"]].concat());
    let over = bench.get("/paraflow/v1/jobs/j/events").await.text();
    assert!(over.starts_with("event: state\n") && over.contains("\"state\":\"done\""), "{over}");
    assert_eq!(bench.get("/paraflow/v1/jobs/x/events").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_training_late_is_told_its_curve_first() {
    let bench = Bench::new();
    submit(&bench, json!({"graph": training(), "id": "j"})).await;
    let told = |bench: &Bench| bench.server.app.kept.follow("j").0.len();
    while told(&bench) < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let request = request(Method::GET, "/paraflow/v1/jobs/j/events", axum::body::Body::empty());
    let response = tower::ServiceExt::oneshot(bench.router.clone(), request).await.unwrap();
    bench.method(Method::POST, "/paraflow/v1/jobs/j/cancel", "").await;
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let kinds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let ours = ["state", "paraflow.loss", "paraflow.loss", "paraflow.loss", "paraflow.sample", "paraflow.warning"];
    assert_eq!(kinds[..6], ours);
    assert_eq!(kinds.last(), Some(&"execution_interrupted"));
    assert_eq!(kinds.iter().filter(|kind| kind.starts_with("paraflow.")).count(), 5);
    // What was kept for late followers goes soon after the end was told.
    while told(&bench) > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// A sample picture for which there is no room on the disk is a warning for whoever follows, and the training goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_sample_that_cannot_be_kept_is_told_and_the_training_goes_on() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.dir.path().join("temp")).unwrap();
    std::fs::write(bench.dir.path().join("temp/samples"), "in the folder's place").unwrap();
    submit(&bench, json!({"graph": training(), "id": "j"})).await;
    let told = || bench.server.app.kept.follow("j").0;
    while told().len() < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let kinds: Vec<String> = told().iter().map(|message| message.parts().0).collect();
    assert_eq!(kinds[3..], ["paraflow.warning"; 2], "no sample, and what the toy says after it");
    let text = told()[3].parts().1["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("the sample picture of step 3 cannot be kept: "), "{text}");
    assert!(text.ends_with("; the training goes on"), "{text}");
    assert_eq!(bench.get("/paraflow/v1/jobs/j").await.json()["state"], "running");
    bench.method(Method::POST, "/paraflow/v1/jobs/j/cancel", "").await;
    bench.get("/paraflow/v1/jobs/j/wait").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_that_the_history_shows_outlive_a_restart_and_others_do_not() {
    let bench = Bench::new();
    submit(&bench, json!({"graph": training(), "id": "j"})).await;
    while bench.server.app.kept.follow("j").0.len() < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    // It is in the books while the training goes on.
    let files = bench.get("/paraflow/v1/jobs/j/artefacts").await.json();
    let facts = (&files[0]["kind"], &files[0]["step"], &files[0]["bytes"], &files[0]["type"]);
    assert_eq!(facts, (&json!("samples"), &json!(3), &json!(7), &json!("temp")));
    assert_eq!(files[0]["blake3"], blake3::hash(b"PICTURE").to_hex().as_str());
    bench.method(Method::POST, "/paraflow/v1/jobs/j/cancel", "").await;
    bench.get("/paraflow/v1/jobs/j/wait").await;
    let temp = bench.dir.path().join("temp");
    for orphan in ["a.png", "deep/er/b.png", "samples/c.png"] {
        std::fs::create_dir_all(temp.join(orphan).parent().unwrap()).unwrap();
        std::fs::write(temp.join(orphan), "x").unwrap();
    }

    let bench = bench.restarted().await;
    assert_eq!(bench.get("/paraflow/v1/jobs/j/artefacts").await.json(), files);
    assert_eq!(bench.get(files[0]["url"].as_str().unwrap()).await.text(), "PICTURE");
    let name = files[0]["filename"].as_str().unwrap();
    let view = format!("/view?filename={name}&subfolder=samples&type=temp");
    assert_eq!(bench.get(&view).await.text(), "PICTURE");
    let left = |folder: &std::path::Path| std::fs::read_dir(folder).unwrap().count();
    assert_eq!((left(&temp), left(&temp.join("samples"))), (1, 1));
    // Forgotten by the history, it goes with the next start.
    assert_eq!(bench.method(Method::DELETE, "/paraflow/v1/jobs/j", "").await.status, StatusCode::NO_CONTENT);
    let bench = bench.restarted().await;
    assert_eq!(bench.get(&view).await.status, StatusCode::NOT_FOUND);
    assert_eq!(left(&temp), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_of_a_run_that_was_broken_off_are_told_again_when_it_goes_on() {
    let bench = Bench::new();
    submit(&bench, json!({"graph": training(), "id": "j"})).await;
    let samples = |bench: &Bench| {
        let told = bench.server.app.kept.follow("j").0;
        told.into_iter().filter(|message| message.parts().0 == "paraflow.sample").collect::<Vec<_>>()
    };
    while samples(&bench).is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let record = bench.server.app.queue.find("j").await.unwrap().unwrap();
    assert_eq!(record.attempts, 1);
    // The books as a kill leaves them: the job runs.
    let Bench { dir, server, router } = bench;
    let copy = tempfile::tempdir().unwrap();
    copy_all(dir.path(), copy.path());
    server.app.runner.interrupt(None);
    drop((server, router, dir));
    let bench = Bench::over(copy, crate::Options::default());
    while samples(&bench).len() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    // The toy begins anew, so its picture is drawn again, and takes the place of the old one in the books.
    let files = bench.get("/paraflow/v1/jobs/j/artefacts").await.json();
    assert_eq!(files.as_array().unwrap().len(), 1, "{files}");
    assert_eq!(bench.get("/paraflow/v1/jobs/j").await.json()["attempts"], 2);
    bench.method(Method::POST, "/paraflow/v1/jobs/j/cancel", "").await;
    bench.get("/paraflow/v1/jobs/j/wait").await;
}

/// Copies a folder.
fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_of_the_end() {
    let bench = Bench::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/hook", listener.local_addr().unwrap());
    submit(&bench, json!({"graph": sum(1), "id": "j", "webhook": address})).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains("done") {
        assert!(tokio::io::AsyncReadExt::read_buf(&mut stream, &mut got).await.unwrap() > 0);
    }
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 204 OK\r\n\r\n").await.unwrap();
    drop(stream);
    let text = String::from_utf8(got).unwrap();
    assert!(text.starts_with("POST /hook HTTP/1.1\r\n") && text.contains(r#""id":"j""#), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_health_and_the_document_are_there() {
    let bench = Bench::new();
    let figures = bench.get("/paraflow/v1/metrics").await;
    assert!(figures.header(header::CONTENT_TYPE).starts_with("text/plain"));
    assert!(figures.text().contains("paraflow_jobs{state=\"queued\"} 0\n"), "{}", figures.text());
    assert_eq!(bench.get("/paraflow/v1/ready").await.json(), json!({"status": "ready"}));
    let document = bench.get("/paraflow/v1/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert!(bench.get("/paraflow/v1/").await.text().contains("openapi.json"));
}

/// From the first word of the end on, while the running job still has its time of grace.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_down_is_not_ready() {
    let grace = std::time::Duration::from_secs(60);
    let Bench { dir: _dir, server, router } = Bench::with(crate::Options { grace, ..crate::Options::default() });
    let ask = async |method: Method, path: &str, body: String| {
        let request = request(method, path, axum::body::Body::from(body));
        let response = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
        let status = response.status();
        (status, http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes())
    };
    let body = json!({"graph": endless(), "id": "j"}).to_string();
    assert_eq!(ask(Method::POST, "/paraflow/v1/jobs", body).await.0, StatusCode::CREATED);
    while server.app.runner.busy() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let ready = async || ask(Method::GET, "/paraflow/v1/ready", String::new()).await;
    assert_eq!(ready().await.0, StatusCode::OK);
    let app = server.app.clone();
    let down = tokio::spawn(server.shut_down());
    let (status, body) = loop {
        let told = ready().await;
        if told.0 != StatusCode::OK {
            break told;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    };
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let told: Json = serde_json::from_slice(&body).unwrap();
    assert_eq!(told, json!({"status": "not ready", "reason": "the server is going down"}));
    assert_eq!(app.runner.busy(), 1, "the job has not ended");
    assert_eq!(ask(Method::GET, "/paraflow/v1/health", String::new()).await.0, StatusCode::OK, "it lives");
    assert_eq!(ask(Method::POST, "/paraflow/v1/jobs/j/cancel", String::new()).await.0, StatusCode::ACCEPTED);
    down.await.unwrap();
    assert_eq!(ready().await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_database_fails_is_not_ready() {
    let bench = Bench::new();
    assert_eq!(bench.get("/paraflow/v1/ready").await.status, StatusCode::OK);
    let file = rusqlite::Connection::open(bench.dir.path().join("user/paraflow.db")).unwrap();
    file.execute_batch("PRAGMA foreign_keys = off; ALTER TABLE jobs RENAME TO lost").unwrap();
    let got = bench.get("/paraflow/v1/ready").await;
    assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(got.json()["reason"], "the job database does not answer; the log says why");
    file.execute_batch("ALTER TABLE lost RENAME TO jobs").unwrap();
    assert_eq!(bench.get("/paraflow/v1/ready").await.status, StatusCode::OK, "it is asked anew each time");
}

/// As on a disk that fills up while a job runs.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_cannot_be_written_is_told_to_nobody_until_it_can() {
    let bench = Bench::new();
    let file = rusqlite::Connection::open(bench.dir.path().join("user/paraflow.db")).unwrap();
    file.execute_batch(
        "CREATE TRIGGER full BEFORE UPDATE ON jobs WHEN NEW.state = 'done' BEGIN SELECT RAISE(ABORT, 'full'); END",
    )
    .unwrap();
    assert_eq!(submit(&bench, json!({"graph": sum(2), "id": "j"})).await.status, StatusCode::CREATED);
    while bench.get("/paraflow/v1/ready").await.status == StatusCode::OK {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(bench.get("/paraflow/v1/jobs/j").await.json()["state"], "running");
    assert_eq!(bench.get("/history").await.json(), json!({}));
    let queue = bench.get("/queue").await.json();
    assert_eq!(queue["queue_running"][0][1], "j", "{queue}");
    file.execute_batch("DROP TRIGGER full").unwrap();
    while bench.get("/paraflow/v1/jobs/j").await.json()["state"] != "done" {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(bench.get("/paraflow/v1/ready").await.status, StatusCode::OK);
    assert_eq!(bench.get("/history").await.json()["j"]["status"]["completed"], true);
}
