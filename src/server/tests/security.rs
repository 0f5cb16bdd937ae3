//! Who is let in, and what never leaves its folder.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, Method, StatusCode, header};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::protocol::listening;
use super::{Bench, Got, request};
use crate::{Error, Options};

async fn with(bench: &Bench, method: Method, path: &str, headers: &[(HeaderName, &str)]) -> Got {
    let mut request = request(method, path, Body::empty());
    for (name, value) in headers {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    bench.send(request).await
}

const TOKEN: &str = "a-token-of-some-length";

#[tokio::test(flavor = "multi_thread")]
async fn other_names_and_other_sites_are_refused() {
    let bench = Bench::new();
    for host in ["evil.example", "evil.example:8188", "127.0.0.1.evil.example", "192.168.0.1"] {
        let got = with(&bench, Method::GET, "/queue", &[(header::HOST, host)]).await;
        assert_eq!(got.status, StatusCode::FORBIDDEN, "{host}");
    }
    for host in ["localhost:8188", "127.0.0.1", "[::1]:8188"] {
        assert_eq!(with(&bench, Method::GET, "/queue", &[(header::HOST, host)]).await.status, StatusCode::OK, "{host}");
    }
    // A request that names two hosts is none.
    let mut twice = request(Method::GET, "/queue", Body::empty());
    twice.headers_mut().append(header::HOST, "evil.example".parse().unwrap());
    assert_eq!(bench.send(twice).await.status, StatusCode::BAD_REQUEST);
    let elsewhere = request(Method::GET, "http://evil.example/queue", Body::empty());
    assert_eq!(bench.send(elsewhere).await.status, StatusCode::BAD_REQUEST);
    for origin in ["https://evil.example", "http://127.0.0.1:9999", "null"] {
        let got = with(&bench, Method::POST, "/interrupt", &[(header::ORIGIN, origin)]).await;
        assert_eq!((got.status, got.bytes.len()), (StatusCode::FORBIDDEN, 0), "{origin}");
    }
    let own = [(header::ORIGIN, "http://127.0.0.1:8188")];
    assert_eq!(with(&bench, Method::POST, "/interrupt", &own).await.status, StatusCode::OK);
    let form = [(HeaderName::from_static("sec-fetch-site"), "cross-site")];
    assert_eq!(with(&bench, Method::POST, "/interrupt", &form).await.status, StatusCode::FORBIDDEN);
    assert_eq!(with(&bench, Method::GET, "/queue", &form).await.status, StatusCode::OK);
    assert_eq!(with(&bench, Method::OPTIONS, "/queue", &[]).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_name_hosts_and_origins() {
    let options = Options {
        allowed_hosts: vec!["box.lan".into()],
        cors_origin: Some("https://page.example".into()),
        ..Options::default()
    };
    let bench = Bench::with(options);
    assert_eq!(with(&bench, Method::GET, "/queue", &[(header::HOST, "box.lan:8188")]).await.status, StatusCode::OK);
    let got = with(&bench, Method::POST, "/interrupt", &[(header::ORIGIN, "https://page.example")]).await;
    assert_eq!(got.status, StatusCode::OK);
    assert_eq!(got.header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "https://page.example");
    let got = with(&bench, Method::POST, "/interrupt", &[(header::ORIGIN, "https://other.example")]).await;
    assert_eq!(got.status, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_wanted_everywhere_but_for_health() {
    let bench = Bench::with(Options { token: Some(TOKEN.into()), ..Options::default() });
    for path in ["/", "/queue", "/api/object_info", "/ws", "/view?filename=x", "/paraflow/v1/jobs", "/internal/logs"] {
        let got = with(&bench, Method::GET, path, &[]).await;
        assert_eq!(got.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(with(&bench, Method::GET, "/paraflow/v1/health", &[]).await.status, StatusCode::OK);
    let good = format!("Bearer {TOKEN}");
    // With a token, the name under which the server is reached does not matter.
    let headers = [(header::AUTHORIZATION, good.as_str()), (header::HOST, "any.example")];
    assert_eq!(with(&bench, Method::GET, "/queue", &headers).await.status, StatusCode::OK);
    for wrong in ["Bearer ", "Bearer a-token-of-some-lengtH", "Basic x", "a-token-of-some-length"] {
        let got = with(&bench, Method::GET, "/queue", &[(header::AUTHORIZATION, wrong)]).await;
        assert_eq!(got.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    let got = with(&bench, Method::GET, &format!("/?token={TOKEN}"), &[]).await;
    assert_eq!((got.status, got.header(header::LOCATION)), (StatusCode::SEE_OTHER, "/"));
    let cookie = got.header(header::SET_COOKIE).to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(with(&bench, Method::GET, "/queue", &[(header::COOKIE, cookie)]).await.status, StatusCode::OK);
    let got = with(&bench, Method::GET, "/queue", &[(header::COOKIE, "paraflow_token=x")]).await;
    assert_eq!(got.status, StatusCode::UNAUTHORIZED);
    assert_eq!(with(&bench, Method::GET, &format!("/queue?token={TOKEN}"), &[]).await.status, StatusCode::OK);
}

#[test]
fn an_open_address_needs_a_good_token() {
    let open = Options { listen: vec!["0.0.0.0".parse().unwrap()], ..Options::default() };
    assert!(matches!(crate::check(&open), Err(Error::Open { .. })));
    let short = Options { token: Some("short".into()), ..open.clone() };
    assert!(matches!(crate::check(&short), Err(Error::ShortToken { .. })));
    assert!(crate::check(&Options { token: Some(TOKEN.into()), ..open }).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leaves_its_folder() {
    let bench = Bench::new();
    let dir = bench.dir.path();
    std::fs::write(dir.join("secret.txt"), "secret").unwrap();
    std::fs::create_dir_all(dir.join("output/sub")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(dir.join("secret.txt"), dir.join("output/link.txt")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(dir, dir.join("output/up")).unwrap();
    for path in [
        "/view?filename=../secret.txt",
        "/view?filename=..%2Fsecret.txt",
        "/view?filename=%2e%2e%2fsecret.txt",
        "/view?filename=..%5Csecret.txt",
        "/view?filename=/etc/passwd",
        "/view?filename=%5Cetc%5Cpasswd",
        "/view?filename=secret.txt&subfolder=..",
        "/view?filename=secret.txt&subfolder=..%5C",
        "/view?filename=secret.txt&subfolder=sub/../..",
        "/view?filename=secret.txt&subfolder=/etc",
        "/view?filename=secret.txt&subfolder=C:%5C",
        "/view?filename=secret.txt&subfolder=up",
        "/view?filename=link.txt",
        "/view?filename=secret.txt%00.png",
        "/view_metadata/loras?filename=../../secret.safetensors",
        "/userdata/..%2F..%2Fsecret.txt",
        "/userdata/%2Fetc%2Fpasswd",
        "/userdata/..%5C..%5Csecret.txt",
        "/experiment/models/preview/loras/0/..%2F..%2Fsecret",
        "/workflow_templates/paraflow/..%2F..%2Fsecret.txt",
        "/internal/files/..%2F",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
    ] {
        let got = bench.get(path).await;
        assert!(got.status.is_client_error(), "{path}: {}", got.status);
        assert!(!got.text().contains("secret") || got.text().contains("expects"), "{path}: {}", got.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_scripts_do_not_run() {
    let bench = Bench::new();
    let output = bench.dir.path().join("output");
    std::fs::create_dir_all(&output).unwrap();
    for (name, kind) in [
        ("a.html", "application/octet-stream"),
        ("a.xhtml", "application/octet-stream"),
        ("a.js", "application/octet-stream"),
        ("a.css", "application/octet-stream"),
        ("a.svg", "image/svg+xml"),
    ] {
        std::fs::write(output.join(name), "<script>").unwrap();
        let got = bench.get(&format!("/view?filename={name}")).await;
        assert_eq!(got.header(header::CONTENT_TYPE).split(';').next(), Some(kind), "{name}");
        assert!(got.header(header::CONTENT_SECURITY_POLICY).starts_with("sandbox"), "{name}");
        assert_eq!(got.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
    }
    bench.method(Method::POST, "/userdata/x.html", "<script>").await;
    let got = bench.get("/userdata/x.html").await;
    assert_eq!(got.header(header::CONTENT_TYPE), "application/octet-stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_limit_is_refused() {
    let bench = Bench::with(Options { max_upload_bytes: 1000, ..Options::default() });
    for path in ["/prompt", "/userdata/x.json", "/paraflow/v1/jobs", "/settings"] {
        let got = bench.method(Method::POST, path, &"x".repeat(1001)).await;
        assert_eq!(got.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
    }
    assert_eq!(bench.method(Method::POST, "/userdata/x.json", &"x".repeat(1000)).await.status, StatusCode::OK);
}

/// A form with one file, and other fields.
fn upload(path: &str, name: &str, content: &[u8], fields: &[(&str, &str)]) -> axum::http::Request<Body> {
    let mut body = Vec::new();
    for (field, value) in fields {
        body.extend(format!("--B\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n").bytes());
    }
    let head = format!("--B\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\r\n");
    body.extend(head.bytes());
    body.extend(content);
    body.extend(b"\r\n--B--\r\n");
    let mut request = request(Method::POST, path, Body::from(body));
    request.headers_mut().insert(header::CONTENT_TYPE, "multipart/form-data; boundary=B".parse().unwrap());
    request
}

/// Every file below a folder, but for the books.
fn files(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path()).into_iter().map(|below| format!("{name}/{below}"))),
            false if name.starts_with("paraflow.") => {}
            false => found.push(name),
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_outside_of_its_folder() {
    let outer = tempfile::tempdir().unwrap();
    let base = tempfile::Builder::new().prefix("base").tempdir_in(outer.path()).unwrap();
    let bench = Bench::over(base, Options::default());
    let dir = bench.dir.path().to_owned();
    std::fs::create_dir_all(dir.join("user/default")).unwrap();
    std::fs::create_dir_all(dir.join("input")).unwrap();
    #[cfg(unix)]
    for folder in ["input", "user/default"] {
        std::os::unix::fs::symlink(outer.path(), dir.join(folder).join("link")).unwrap();
    }
    let before = files(outer.path());
    for name in ["../x.png", r"..\x.png", "/tmp/x.png", r"C:\x.png", "c:x.png", "..", ".", ".hidden", "link/x.png"] {
        let got = bench.send(upload("/upload/image", name, b"1", &[])).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{name}");
    }
    for subfolder in ["..", "a/../..", "/tmp", r"..\..", r"C:\", "link", "a\0b", "%2e%2e/.."] {
        let got = bench.send(upload("/upload/image", "x.png", b"1", &[("subfolder", subfolder)])).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{subfolder:?}");
    }
    for (reference, status) in [
        (r#"{"filename": "../x.png"}"#, 400),
        (r#"{"filename": "/etc/passwd"}"#, 400),
        (r#"{"filename": "x.png", "subfolder": "../.."}"#, 403),
        (r#"{"filename": "x.png", "type": "other"}"#, 400),
        ("no JSON", 400),
    ] {
        let got = bench.send(upload("/upload/mask", "m.png", b"1", &[("original_ref", reference)])).await;
        assert_eq!(got.status.as_u16(), status, "{reference}");
    }
    for path in [
        "/userdata/..%2Fx.txt",
        "/userdata/..%252Fx.txt",
        "/userdata/..%5Cx.txt",
        "/userdata/%2Ftmp%2Fx.txt",
        "/userdata/C:%5Cx.txt",
        "/userdata/link%2Fx.txt",
        "/userdata/a%00b.txt",
    ] {
        let status = bench.method(Method::POST, path, "x").await.status;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(bench.method(Method::DELETE, path, "").await.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(bench.method(Method::POST, "/userdata/kept.txt", "x").await.status, StatusCode::OK);
    for target in ["..%2Fx.txt", "%2Ftmp%2Fx.txt", "link%2Fx.txt", "..%5Cx.txt", "a%00b"] {
        let path = format!("/userdata/kept.txt/move/{target}");
        assert_eq!(bench.method(Method::POST, &path, "").await.status, StatusCode::FORBIDDEN, "{path}");
    }
    let prompt = serde_json::json!({
        "1": {"class_type": "ToyAdd", "inputs": {"a": 1, "b": 1}},
        "2": {"class_type": "ToySave", "inputs": {"value": ["1", 0], "filename_prefix": "../../x"}},
    });
    let id = bench.submit(&prompt).await;
    assert_eq!(bench.ended(&id).await["status"]["status_str"], "error");
    let written: Vec<String> = files(outer.path()).into_iter().filter(|file| !before.contains(file)).collect();
    let base = dir.file_name().unwrap().to_str().unwrap();
    assert_eq!(written, [format!("{base}/user/default/kept.txt")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_that_would_fill_the_memory_are_not_opened() {
    let bench = Bench::new();
    let output = bench.dir.path().join("output");
    std::fs::create_dir_all(&output).unwrap();
    // Its header says ten gigapixels; the file has a hundred bytes.
    let mut bomb = Vec::new();
    let mut encoder = png::Encoder::new(&mut bomb, 100_000, 100_000);
    encoder.set_color(png::ColorType::Rgba);
    drop(encoder.write_header().unwrap());
    std::fs::write(output.join("bomb.png"), &bomb).unwrap();
    // Within the side, but beyond the bytes: 16,000 x 16,000 in four times two bytes.
    let mut wide = Vec::new();
    let mut encoder = png::Encoder::new(&mut wide, 16_000, 16_000);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Sixteen);
    drop(encoder.write_header().unwrap());
    std::fs::write(output.join("wide.png"), &wide).unwrap();
    // No picture at all, and long: only its beginning is looked at.
    std::fs::File::create(output.join("long.png")).unwrap().set_len(1 << 40).unwrap();
    for name in ["bomb.png", "wide.png", "long.png"] {
        for how in ["preview=webp", "preview=jpeg;50&channel=rgb", "channel=rgb", "channel=a"] {
            let got = bench.get(&format!("/view?filename={name}&{how}")).await;
            assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR, "{name} {how}");
        }
        let reference = format!(r#"{{"filename": "{name}"}}"#);
        let got = bench.send(upload("/upload/mask", "m.png", &bomb, &[("original_ref", &reference)])).await;
        assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR, "{name}");
    }
    assert!(!bench.dir.path().join("input/m.png").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_installs_or_executes() {
    let bench = Bench::new();
    for path in [
        "/customnode/install",
        "/manager/queue/install",
        "/manager/reboot",
        "/v2/manager/queue/start",
        "/install/git_url",
        "/install/pip",
        "/eval",
        "/shutdown",
        "/restart",
        "/models/install",
        "/paraflow/v1/run",
        "/paraflow/v1/models",
    ] {
        for path in [path.to_owned(), format!("/api{path}")] {
            for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
                let status = bench.method(method.clone(), &path, "{}").await.status;
                let refused = matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
                assert!(refused, "{method} {path}: {status}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_jobs_do_not_run_either() {
    let bench = Bench::new();
    let prompt = serde_json::json!({
        "1": {"class_type": "ToyAdd", "inputs": {"a": 1, "b": 1}},
        "2": {"class_type": "ToySave", "inputs": {"value": ["1", 0]}},
    });
    let body = serde_json::json!({"graph": prompt, "id": "j"});
    assert_eq!(bench.post("/paraflow/v1/jobs", &body).await.status, StatusCode::CREATED);
    bench.get("/paraflow/v1/jobs/j/wait").await;
    let got = bench.get("/paraflow/v1/jobs/j/artefacts/0").await;
    assert!(got.header(header::CONTENT_SECURITY_POLICY).starts_with("sandbox"));
    assert_eq!(got.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
}

/// What the server says to this, up to the end of the connection.
async fn said(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is cut has said what it said.
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(60), read).await.expect("it is let go");
    String::from_utf8_lossy(&answer).into_owned()
}

const QUEUE: &[u8] = b"GET /queue HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_dawdle_are_let_go_and_the_others_get_their_turn() {
    let (_bench, port) = listening(Options::default()).await;
    // As many as there may be at once: with nothing, with half a header, with half a body.
    let halves = [
        &b""[..],
        b"GET /queue HTTP/1.1\r\nHost: 127",
        b"POST /prompt HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n{",
    ];
    let mut slow = Vec::new();
    for half in halves.iter().cycle().take(64) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(half).await.unwrap();
        slow.push(stream);
    }
    let answer = said(port, QUEUE).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for mut stream in slow {
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(60), read).await.expect("it is let go");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_frames_have_a_limit() {
    let (_bench, port) = listening(Options::default()).await;
    let long = format!("GET /queue HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}\r\n\r\n", "x".repeat(70 << 10));
    let answer = said(port, long.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let address = format!("ws://127.0.0.1:{port}/ws?clientId=me");
    let (mut socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
    let large = tokio_tungstenite::tungstenite::Message::Text("x".repeat((1 << 20) + 1).into());
    // It may be cut while it is sent.
    let _ = socket.send(large).await;
    let closed = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(Duration::from_secs(60), closed).await.expect("it is let go");
    assert!(said(port, QUEUE).await.starts_with("HTTP/1.1 200 OK\r\n"));
}
