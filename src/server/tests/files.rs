//! Files by their routes: uploads, pictures as they are and changed, models.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use serde_json::json;

use super::{Bench, request};

fn form(parts: &[(&str, Option<&str>, &[u8])]) -> axum::http::Request<Body> {
    let mut body = Vec::new();
    for (name, filename, content) in parts {
        let filename = filename.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
        body.extend(format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"{filename}\r\n\r\n").bytes());
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"--B--\r\n");
    let mut request = request(Method::POST, "/upload/image", Body::from(body));
    request.headers_mut().insert(header::CONTENT_TYPE, "multipart/form-data; boundary=B".parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_keep_what_is_there_and_are_seen_at_once() {
    let bench = Bench::new();
    let name = |got: super::Got| (got.status.as_u16(), got.json()["name"].as_str().unwrap().to_owned());
    assert_eq!(name(bench.send(form(&[("image", Some("a.png"), b"1")])).await), (200, "a.png".into()));
    assert_eq!(name(bench.send(form(&[("image", Some("a.png"), b"1")])).await), (200, "a.png".into()));
    assert_eq!(name(bench.send(form(&[("image", Some("a.png"), b"2")])).await), (200, "a (1).png".into()));
    let overwrite = form(&[("image", Some("a.png"), b"3"), ("overwrite", None, b"true")]);
    assert_eq!(name(bench.send(overwrite).await), (200, "a.png".into()));
    assert_eq!(std::fs::read(bench.dir.path().join("input/a.png")).unwrap(), b"3");
    let below = form(&[("image", Some("b.png"), b"4"), ("subfolder", None, b"x/y"), ("type", None, b"temp")]);
    let got = bench.send(below).await.json();
    assert_eq!(got, json!({"name": "b.png", "subfolder": "x/y", "type": "temp"}));
    assert_eq!(bench.send(form(&[("other", None, b"")])).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(bench.send(form(&[("image", Some(""), b"1")])).await.status, StatusCode::BAD_REQUEST);
    let listed = bench.get("/object_info/ToyRead").await.json();
    assert_eq!(listed["ToyRead"]["input"]["required"]["file"][0], json!(["a (1).png", "a.png"]));
    let got = bench.get("/view?filename=b.png&subfolder=x/y&type=temp").await;
    assert_eq!((got.status, got.bytes.as_slice()), (StatusCode::OK, &b"4"[..]));
    assert_eq!(got.header(header::CONTENT_DISPOSITION), "filename=\"b.png\"");
    assert_eq!(got.header(header::CONTENT_TYPE), "image/png");
}

fn picture(alpha: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(png::ColorType::Rgba);
    encoder.add_text_chunk("prompt".into(), "{}".into()).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[10, 20, 30, alpha, 40, 50, 60, alpha]).unwrap();
    writer.finish().unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_shown_as_previews_and_by_channel() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.dir.path().join("output")).unwrap();
    std::fs::write(bench.dir.path().join("output/p.png"), picture(7)).unwrap();
    let read = |got: &super::Got| image::load_from_memory(&got.bytes).unwrap().to_rgba8();
    let rgb = bench.get("/view?filename=p.png&channel=rgb").await;
    assert_eq!(read(&rgb).get_pixel(1, 0).0, [40, 50, 60, 255]);
    let alpha = bench.get("/api/view?filename=p.png&channel=a").await;
    assert_eq!(read(&alpha).get_pixel(1, 0).0, [0, 0, 0, 7]);
    let webp = bench.get("/view?filename=p.png&preview=webp;80").await;
    assert_eq!(webp.header(header::CONTENT_TYPE), "image/webp");
    assert_eq!(read(&webp).get_pixel(0, 0).0, [10, 20, 30, 7]);
    let jpeg = bench.get("/view?filename=p.png%20%5Boutput%5D&preview=jpeg;50&channel=rgb&type=input").await;
    assert_eq!(jpeg.header(header::CONTENT_TYPE), "image/jpeg");
    assert_eq!(&jpeg.bytes[..2], b"\xff\xd8");
    let mut part = request(Method::GET, "/view?filename=p.png", Body::empty());
    part.headers_mut().insert(header::RANGE, "bytes=0-3".parse().unwrap());
    let part = bench.send(part).await;
    assert_eq!((part.status, part.bytes.len()), (StatusCode::PARTIAL_CONTENT, 4));
    assert_eq!(bench.get("/view").await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.get("/view?filename=x.png").await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.get("/view?filename=p.png&type=other").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_becomes_the_alpha_of_its_original() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.dir.path().join("output")).unwrap();
    std::fs::write(bench.dir.path().join("output/p.png"), picture(255)).unwrap();
    let original = br#"{"filename": "p.png"}"#;
    let parts: [(&str, Option<&str>, &[u8]); 2] =
        [("image", Some("m.png"), &picture(9)), ("original_ref", None, original)];
    let mut request = form(&parts);
    *request.uri_mut() = "/upload/mask".parse().unwrap();
    let got = bench.send(request).await;
    assert_eq!(got.json(), json!({"name": "m.png", "subfolder": "", "type": "input"}));
    let bytes = std::fs::read(bench.dir.path().join("input/m.png")).unwrap();
    assert_eq!(image::load_from_memory(&bytes).unwrap().to_rgba8().get_pixel(1, 0).0, [40, 50, 60, 9]);
    assert!(String::from_utf8_lossy(&bytes).contains("tEXtprompt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_by_folder() {
    let bench = Bench::new();
    let loras = bench.dir.path().join("models/loras/sub");
    std::fs::create_dir_all(&loras).unwrap();
    let header = br#"{"__metadata__":{"made":"by hand"}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    std::fs::write(loras.join("l.safetensors"), file).unwrap();
    let folders = bench.get("/models").await.json();
    assert_eq!(folders[0], "checkpoints");
    assert!(folders.as_array().unwrap().contains(&json!("custom_nodes")));
    assert_eq!(bench.get("/models/loras").await.json(), json!(["sub/l.safetensors"]));
    assert_eq!(bench.get("/models/checkpoints").await.json(), json!(["toy.safetensors"]));
    for unknown in ["unet", "clip", "nope"] {
        assert_eq!(bench.get(&format!("/models/{unknown}")).await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(bench.get("/embeddings").await.json(), json!([]));
    let metadata = bench.get("/view_metadata/loras?filename=sub/l.safetensors").await;
    assert_eq!(metadata.json(), json!({"made": "by hand"}));
    assert_eq!(bench.get("/view_metadata/loras?filename=x.safetensors").await.status, StatusCode::NOT_FOUND);
    let listed = bench.get("/experiment/models/loras").await.json();
    assert_eq!((&listed[0]["name"], &listed[0]["pathIndex"]), (&json!("sub/l.safetensors"), &json!(0)));
    assert_eq!(bench.get("/experiment/models/configs").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_models_preview_lies_beside_it_or_in_it() {
    use base64::Engine as _;

    let bench = Bench::new();
    let loras = bench.dir.path().join("models/loras");
    std::fs::create_dir_all(&loras).unwrap();
    let covers = json!([base64::engine::general_purpose::STANDARD.encode(picture(255))]).to_string();
    let header = json!({"__metadata__": {"ssmd_cover_images": covers}}).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    std::fs::write(loras.join("covered.safetensors"), file).unwrap();
    for name in ["beside.safetensors", "bare.safetensors"] {
        std::fs::write(loras.join(name), "").unwrap();
    }
    std::fs::write(loras.join("beside.preview.png"), picture(255)).unwrap();
    for (name, status) in [("covered", 200), ("beside", 200), ("bare", 404), ("none", 404)] {
        let got = bench.get(&format!("/experiment/models/preview/loras/0/{name}.safetensors")).await;
        assert_eq!(got.status.as_u16(), status, "{name}");
        assert!(status != 200 || (got.bytes.starts_with(b"RIFF") && got.header(header::CONTENT_TYPE) == "image/webp"));
    }
    assert_eq!(bench.get("/experiment/models/preview/loras/9/bare.safetensors").await.status, StatusCode::NOT_FOUND);
}
