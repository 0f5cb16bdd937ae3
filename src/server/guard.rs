//! Who may come in: the token, the host name, the origin. And the headers that every answer gets.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::app::App;
use crate::options::Options;

/// Name of the cookie that carries the token for browsers.
const COOKIE: &str = "paraflow_token";

/// Lets a request in or answers it: cross-origin rules as ComfyUI has them, then host, then token.
pub(crate) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let options = &app.options;
    let path = request.uri().path().to_owned();
    let cors = options.cors_origin.as_deref();
    let refused = cross_origin(request.method(), request.headers(), cors).or_else(|| host(&request, options));
    let response = if let Some(status) = refused {
        status.into_response()
    } else if request.method() == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else if let Some(answer) = token(&request, options) {
        answer
    } else {
        next.run(request).await
    };
    finish(response, &path, cors)
}

/// Pages of other sites may not use the API, unless the operator named theirs.
fn cross_origin(method: &Method, headers: &HeaderMap, allowed: Option<&str>) -> Option<StatusCode> {
    let origin = headers.get(header::ORIGIN).map(|value| value.to_str().unwrap_or("null"));
    if let Some(allowed) = allowed {
        let fits = allowed == "*" || origin.is_none_or(|origin| origin.eq_ignore_ascii_case(allowed));
        if fits {
            return None;
        }
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    match origin {
        Some(origin) => (!same_site(host, origin)).then_some(StatusCode::FORBIDDEN),
        None => {
            let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
            let reads = method == Method::GET || method == Method::HEAD;
            (!reads && site == Some("cross-site")).then_some(StatusCode::FORBIDDEN)
        }
    }
}

/// Host and origin agree; a port counts where both name one.
fn same_site(host: &str, origin: &str) -> bool {
    let Some((_, netloc)) = origin.split_once("://") else { return false };
    let (host, origin) = (host.to_ascii_lowercase(), netloc.to_ascii_lowercase());
    let ((host_name, host_port), (origin_name, origin_port)) = (split_port(&host), split_port(&origin));
    host_name == origin_name && (host_port.is_none() || origin_port.is_none() || host_port == origin_port)
}

/// `name:port`, `[v6]:port`.
fn split_port(host: &str) -> (&str, Option<&str>) {
    let from = host.rfind(']').unwrap_or(0);
    match host[from..].rfind(':') {
        Some(colon) => (&host[..from + colon], Some(&host[from + colon + 1..])),
        None => (host, None),
    }
}

/// Without a token, the server answers only to names that no stranger can point at it. That is what stops a page whose
/// name was re-bound to 127.0.0.1.
fn host(request: &Request, options: &Options) -> Option<StatusCode> {
    let hosts: Vec<&HeaderValue> = request.headers().get_all(header::HOST).iter().collect();
    let asked = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    if hosts.len() > 1 || asked.is_some_and(|asked| hosts.iter().any(|host| host.as_bytes() != asked)) {
        // It says two things of where it wants to go.
        return Some(StatusCode::BAD_REQUEST);
    }
    if options.token.is_some() {
        // A page of a foreign name has no cookie for it.
        return None;
    }
    let Some(host) = hosts.first() else { return Some(StatusCode::BAD_REQUEST) };
    let host = host.to_str().unwrap_or_default().to_ascii_lowercase();
    let (name, _) = split_port(&host);
    let allowed = is_local_name(name) || options.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    (!allowed).then_some(StatusCode::FORBIDDEN)
}

/// Names that always mean this machine, and addresses, which no name server can re-bind.
fn is_local_name(name: &str) -> bool {
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The answer to someone without the token; `None` for everyone else.
fn token(request: &Request, options: &Options) -> Option<Response> {
    let wanted = options.token.as_deref()?;
    if request.uri().path() == "/paraflow/v1/health" {
        return None;
    }
    let given = bearer(request.headers()).or_else(|| cookie(request.headers()));
    if given.is_some_and(|given| same(given, wanted)) {
        return None;
    }
    let in_query = query_token(request.uri());
    if in_query.as_deref().is_some_and(|given| same(given, wanted)) {
        let is_page = request.uri().path() == "/" && request.method() == Method::GET;
        return is_page.then(|| welcome(wanted));
    }
    let body =
        "This server wants its token: as `Authorization: Bearer TOKEN`, or once in the browser as /?token=TOKEN.";
    Some((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response())
}

/// Gives the browser the cookie, and an address without the token.
fn welcome(token: &str) -> Response {
    let encoded: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
    let cookie = format!("{COOKIE}={encoded}; HttpOnly; SameSite=Strict; Path=/");
    let headers = [(header::SET_COOKIE, cookie), (header::LOCATION, "/".to_owned())];
    (StatusCode::SEE_OTHER, headers).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(|token| token.trim().to_owned())
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let value = cookies
        .flat_map(|line| line.split(';'))
        .find_map(|part| part.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    form_urlencoded::parse(format!("v={value}").as_bytes()).next().map(|(_, value)| value.into_owned())
}

fn query_token(uri: &Uri) -> Option<String> {
    let query = uri.query()?;
    form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "token").map(|(_, value)| value.into_owned())
}

/// Takes the same time wherever they differ: hashes are compared, in constant time.
fn same(given: impl AsRef<str>, wanted: &str) -> bool {
    blake3::hash(given.as_ref().as_bytes()) == blake3::hash(wanted.as_bytes())
}

/// Headers of every answer: caching as in ComfyUI's table, CORS where it is on, and what keeps browsers from guessing.
fn finish(mut response: Response<Body>, path: &str, cors: Option<&str>) -> Response {
    let status = response.status();
    let headers = response.headers_mut();
    if !headers.contains_key(header::CACHE_CONTROL)
        && let Some(value) = cache_control(path, status)
    {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(value));
    }
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("same-origin"));
    if let Some(origin) = cors.and_then(|origin| HeaderValue::from_str(origin).ok()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let methods = HeaderValue::from_static("POST, GET, DELETE, PUT, OPTIONS, PATCH");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Content-Type, Authorization"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    response
}

const PICTURES: &[&str] = &[".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"];

/// ComfyUI's table, by the path of the address.
fn cache_control(path: &str, status: StatusCode) -> Option<&'static str> {
    let last = path.rsplit('/').next().unwrap_or_default();
    if path.ends_with(".js") || path.ends_with(".css") || (last.starts_with("index") && last.ends_with(".json")) {
        return Some("no-cache");
    }
    let lower = path.to_ascii_lowercase();
    if !PICTURES.iter().any(|ending| lower.ends_with(ending)) {
        return None;
    }
    match status.as_u16() {
        404 => Some("public, max-age=3600"),
        200..=206 | 301 | 308 => Some("public, max-age=86400"),
        302 | 303 | 307 => Some("no-cache"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn caching_follows_the_contracts_table() {
        let check = |path, status: u16| cache_control(path, StatusCode::from_u16(status).unwrap());
        assert_eq!(check("/a/b.js", 404), Some("no-cache"));
        assert_eq!(check("/a/b.css", 200), Some("no-cache"));
        assert_eq!(check("/templates/index.fr.json", 200), Some("no-cache"));
        assert_eq!(check("/templates/other.json", 200), None);
        for path in ["/x.JPG", "/x.jpeg", "/x.png", "/x.ppm", "/x.bmp", "/x.pgm", "/x.tif", "/x.TIFF", "/x.webp"] {
            assert_eq!(check(path, 404), Some("public, max-age=3600"), "{path}");
            for status in [200, 201, 202, 203, 204, 205, 206, 301, 308] {
                assert_eq!(check(path, status), Some("public, max-age=86400"), "{path} {status}");
            }
            for status in [302, 303, 307] {
                assert_eq!(check(path, status), Some("no-cache"), "{path} {status}");
            }
            for status in [304, 400, 403, 500] {
                assert_eq!(check(path, status), None, "{path} {status}");
            }
        }
        assert_eq!(check("/view", 200), None);
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        for name in ["localhost", "127.0.0.1", "127.8.8.8", "[::1]", "a.localhost"] {
            assert!(is_local_name(name), "{name}");
        }
        for name in ["", "localhost.evil.com", "evil.com", "10.0.0.1", "127.0.0.1.nip.io", "[::2]"] {
            assert!(!is_local_name(name), "{name}");
        }
    }

    #[test]
    fn origins_are_compared_as_in_comfyui_and_null_is_none() {
        assert!(same_site("127.0.0.1:8188", "http://127.0.0.1:8188"));
        assert!(same_site("127.0.0.1:8188", "http://127.0.0.1"));
        assert!(same_site("127.0.0.1", "http://127.0.0.1:8188"));
        assert!(same_site("LOCALHOST:8188", "http://localhost:8188"));
        assert!(same_site("[::1]:8188", "http://[::1]:8188"));
        assert!(!same_site("127.0.0.1:8188", "http://127.0.0.1:3000"));
        assert!(!same_site("127.0.0.1:8188", "https://evil.example"));
        assert!(!same_site("127.0.0.1:8188", "null"));
    }

    #[test]
    fn a_token_is_compared_whole() {
        assert!(same("a-long-token", "a-long-token"));
        for wrong in ["", "a-long-toke", "a-long-token ", "A-long-token"] {
            assert!(!same(wrong, "a-long-token"), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn splitting_a_port_never_panics_and_loses_nothing(host in r"[\[\]:a-z0-9.é]{0,20}") {
            let (name, port) = split_port(&host);
            prop_assert_eq!(port.map_or(name.to_owned(), |port| format!("{name}:{port}")), host.clone());
        }

        #[test]
        fn a_foreign_origin_is_never_the_same_site(name in r"[a-z]{1,10}\.[a-z]{2,3}", port in 1_u16..) {
            let origin = format!("http://{name}:{port}");
            prop_assert!(!same_site("127.0.0.1:8188", &origin));
            prop_assert!(!is_local_name(&name));
        }
    }
}
