//! Users, their settings, and their files.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use serde_json::{Value as Json, json};

use super::{Bench, request};

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_merged_and_kept() {
    let bench = Bench::new();
    assert_eq!(bench.get("/settings").await.json(), json!({}));
    assert_eq!(bench.post("/settings", &json!({"a": 1, "b": [2]})).await.status, StatusCode::OK);
    assert_eq!(bench.post("/settings/a", &json!({"deep": true})).await.status, StatusCode::OK);
    assert_eq!(bench.get("/api/settings/a").await.json(), json!({"deep": true}));
    assert_eq!(bench.get("/settings/none").await.json(), Json::Null);
    let file = std::fs::read_to_string(bench.dir.path().join("user/default/comfy.settings.json")).unwrap();
    assert!(file.starts_with("{\n    \"a\""), "{file}");
    assert_eq!(bench.get("/users").await.json()["storage"], "server");
    let got = bench.post("/users", &json!({"username": "__x"})).await;
    assert_eq!((got.status, got.json()), (StatusCode::BAD_REQUEST, json!({"error": "System User prefix not allowed"})));
    assert_eq!(bench.post("/users", &json!({})).await.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_users_have_settings_and_files_of_their_own() {
    let bench = Bench::with(crate::Options { multi_user: true, ..crate::Options::default() });
    assert_eq!(bench.get("/users").await.json(), json!({"storage": "server", "users": {}}));
    let add = async |name: &str| bench.post("/users", &json!({ "username": name })).await;
    let (ann, bob) = (add("Ann!").await.json(), add("bob").await.json());
    let (ann, bob) = (ann.as_str().unwrap(), bob.as_str().unwrap());
    assert!(ann.starts_with("Ann-_") && bob.starts_with("bob_"), "{ann} {bob}");
    assert_eq!(bench.get("/users").await.json()["users"], json!({ann: "Ann!", bob: "bob"}));
    let again = add("bob").await;
    assert_eq!((again.status, again.json()), (StatusCode::BAD_REQUEST, json!({"error": "Duplicate username."})));
    assert_eq!(add("").await.json(), json!({"error": "username not provided"}));
    assert_eq!(add("!__x").await.status, StatusCode::OK);
    assert_eq!(add("__x").await.json(), json!({"error": "System User prefix not allowed"}));

    let ask = async |user: &str, method: Method, path: &str, body: &str| {
        let mut request = request(method, path, Body::from(body.to_owned()));
        request.headers_mut().insert("comfy-user", user.parse().unwrap());
        bench.send(request).await
    };
    assert_eq!(ask(ann, Method::POST, "/settings/a", "1").await.status, StatusCode::OK);
    assert_eq!(ask(ann, Method::GET, "/settings", "").await.json(), json!({"a": 1}));
    assert_eq!(ask(bob, Method::GET, "/settings", "").await.json(), json!({}));
    assert_eq!(ask(ann, Method::POST, "/userdata/x.txt", "hers").await.status, StatusCode::OK);
    assert_eq!(ask(ann, Method::GET, "/userdata/x.txt", "").await.text(), "hers");
    assert_eq!(ask(bob, Method::GET, "/userdata/x.txt", "").await.status, StatusCode::NOT_FOUND);
    for stranger in ["nobody", "default", "__system", "../default", ""] {
        let status = async |path: &str| ask(stranger, Method::GET, path, "").await.status.as_u16();
        assert_eq!(status("/settings").await, 401, "{stranger:?}");
        assert_eq!(status("/userdata/x.txt").await, 500, "{stranger:?}");
        assert_eq!(status("/userdata?dir=a").await, 500, "{stranger:?}");
        assert_eq!(status("/v2/userdata").await, 403, "{stranger:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn userdata_has_the_contracts_codes() {
    let bench = Bench::new();
    let file = "/userdata/workflows%2Fa%20b.json";
    let put = bench.method(Method::POST, file, "{}").await;
    assert_eq!((put.status, put.json()), (StatusCode::OK, json!("workflows/a b.json")));
    assert_eq!(bench.get(file).await.text(), "{}");
    let all = bench.get("/userdata?dir=.&recurse=true").await;
    assert_eq!(all.json(), json!(["workflows/a b.json"]));
    let again = bench.method(Method::POST, &format!("{file}?overwrite=false"), "[]").await;
    assert_eq!((again.status, again.text()), (StatusCode::CONFLICT, "File already exists".into()));
    assert_eq!(bench.get(file).await.text(), "{}");
    let info = bench.method(Method::POST, &format!("{file}?full_info=true"), "[1]").await.json();
    assert_eq!((&info["path"], &info["size"]), (&json!("workflows/a b.json"), &json!(3)));
    let tag = bench.get(file).await.header(header::ETAG).to_owned();
    let write_if = async |tag: &str, body: &str| {
        let mut request = request(Method::POST, file, Body::from(body.to_owned()));
        request.headers_mut().insert(header::IF_MATCH, tag.parse().unwrap());
        bench.send(request).await.status
    };
    assert_eq!(write_if(&tag, "[2]").await, StatusCode::OK);
    assert_eq!(write_if(&tag, "[3]").await, StatusCode::PRECONDITION_FAILED);
    assert_eq!(bench.get(file).await.text(), "[2]");
    let get = async |path: &str| {
        let got = bench.get(path).await;
        (got.status.as_u16(), got.text())
    };
    assert_eq!(get("/userdata").await, (400, "Directory not provided".into()));
    assert_eq!(get("/userdata?dir=../..").await, (403, "Invalid directory".into()));
    assert_eq!(get("/userdata?dir=nope").await, (404, "Directory not found".into()));
    assert_eq!(get("/userdata?dir=workflows").await, (200, r#"["a b.json"]"#.into()));
    assert_eq!(get("/userdata?dir=workflows&split=true").await.1, r#"[["a b.json","a b.json"]]"#);
    let moved = bench.method(Method::POST, &format!("{file}/move/workflows%2Fdeep%2Fc.json"), "").await;
    assert_eq!(moved.json(), "workflows/deep/c.json");
    assert_eq!(get("/userdata?dir=workflows&recurse=true&split=true").await.1, r#"[["deep/c.json","deep","c.json"]]"#);
    assert_eq!(get("/userdata?dir=workflows").await.1, "[]");
    let listed = bench.get("/v2/userdata?path=workflows").await.json();
    assert_eq!(listed[0], json!({"name": "deep", "path": "workflows/deep", "type": "directory"}));
    assert_eq!(get("/v2/userdata?path=..").await, (400, "Invalid path requested".into()));
    assert_eq!(get("/v2/userdata?path=none").await, (404, "Requested path not found".into()));
    assert_eq!(get("/userdata/..%2F..%2Fx").await.0, 403);
    assert_eq!(bench.method(Method::POST, "/userdata/..%252F..%252Fx", "x").await.status, StatusCode::FORBIDDEN);
    assert_eq!(
        bench.method(Method::DELETE, "/userdata/workflows%2Fdeep%2Fc.json", "").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        bench.method(Method::DELETE, "/userdata/workflows%2Fdeep%2Fc.json", "").await.status,
        StatusCode::NOT_FOUND
    );
}
