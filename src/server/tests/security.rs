//! Who is let in, and what never leaves its folder.

use axum::body::Body;
use axum::http::{HeaderName, Method, StatusCode, header};

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
