//! The server without weights: its router as a function, its socket with a real client, nodes that add two numbers.

mod beside_comfyui;
mod files;
mod own;
mod protocol;
mod routes;
mod security;
mod toys;
mod users;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt as _;
use paraflow_assets::{Assets, Settings};
use serde_json::{Value as Json, json};
use tower::ServiceExt as _;

use crate::{Logs, Options, Server, World};

/// A server in a folder of its own.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) server: Server,
    pub(crate) router: Router,
}

/// An answer, read to its end.
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Got {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        Self::over(tempfile::tempdir().unwrap(), options)
    }

    /// A server over a folder that there was before.
    pub(crate) fn over(dir: tempfile::TempDir, options: Options) -> Self {
        let settings = Settings { base_dir: Some(dir.path().to_owned()), ..Settings::default() };
        let assets = Arc::new(Assets::open(&settings).unwrap());
        let world = World {
            plain: toys::registry(&assets, false),
            previewing: toys::registry(&assets, true),
            previewing_sharply: toys::registry(&assets, true),
            embedded_models: |folder| if folder == "checkpoints" { vec!["toy.safetensors".into()] } else { vec![] },
            cache_bytes: 1 << 20,
            assets,
            logs: Arc::new(Logs::default()),
        };
        let server = Server::open(Options { durable: false, ..options }, world).unwrap();
        let router = server.router();
        Self { dir, server, router }
    }

    /// A server over the same folder, after this one went down in good order.
    pub(crate) async fn restarted(self) -> Self {
        let Self { dir, server, router } = self;
        drop(router);
        server.shut_down().await;
        Self::over(dir, Options::default())
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Got {
        let response: Response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        Got { status, headers, bytes }
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.send(request(Method::GET, path, Body::empty())).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Json) -> Got {
        self.send(request(Method::POST, path, Body::from(body.to_string()))).await
    }

    pub(crate) async fn method(&self, method: Method, path: &str, body: &str) -> Got {
        self.send(request(method, path, Body::from(body.to_owned()))).await
    }

    /// Submits a prompt, and gives its id.
    pub(crate) async fn submit(&self, prompt: &Json) -> String {
        let got = self.post("/prompt", &json!({ "prompt": prompt })).await;
        assert_eq!(got.status, StatusCode::OK, "{}", got.text());
        got.json()["prompt_id"].as_str().unwrap().to_owned()
    }

    /// The history of a prompt, once it is over.
    pub(crate) async fn ended(&self, id: &str) -> Json {
        for _ in 0..3000 {
            let history = self.get(&format!("/history/{id}")).await.json();
            if let Some(entry) = history.get(id) {
                return entry.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the prompt {id} did not end");
    }

    /// Until the prompt runs.
    pub(crate) async fn running(&self, id: &str) {
        for _ in 0..3000 {
            let queue = self.get("/queue").await.json();
            if queue["queue_running"].as_array().unwrap().iter().any(|item| item[1] == id) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the prompt {id} did not begin");
    }
}

/// A request as a client on this machine sends it.
pub(crate) fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(path).header(header::HOST, "127.0.0.1:8188").body(body).unwrap()
}

/// `1 + b`, shown.
pub(crate) fn sum(b: i64) -> Json {
    json!({
        "1": {"class_type": "ToyAdd", "inputs": {"a": 1, "b": b}},
        "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}},
    })
}

/// Tells of a training, and then takes its time until it is stopped.
pub(crate) fn training() -> Json {
    json!({
        "1": {"class_type": "ToyTrain", "inputs": {}},
        "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}},
    })
}

/// Takes its time until it is stopped.
pub(crate) fn endless() -> Json {
    json!({
        "1": {"class_type": "ToyEndless", "inputs": {}},
        "2": {"class_type": "ToyShow", "inputs": {"value": ["1", 0]}},
    })
}
