//! `/view`: files that graphs made or read, whole or as previews.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ImageFormat, ImageReader, ImageResult, Limits, RgbaImage};
use tower::ServiceExt as _;
use tower_http::services::ServeFile;

use crate::app::App;
use crate::error::{Answer, Fail};
use crate::paths;
use crate::routes::models::opening;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/view", get(view))
}

/// Larger pictures are not opened: a few bytes of a file can stand for all of the memory.
const LARGEST_SIDE: u32 = 16_384;
/// Nor those that would take more than this.
const LARGEST_BYTES: u64 = 1 << 30;

async fn view(State(app): State<App>, Query(query): Query<HashMap<String, String>>, request: Request) -> Answer {
    let file = find(&app, &query)?;
    let (preview, channel) = (query.get("preview").cloned(), query.get("channel").cloned());
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let mut response = if preview.is_some() || matches!(channel.as_deref(), Some("rgb" | "a")) {
        opening(move || changed(&file, preview.as_deref(), channel.as_deref().unwrap_or_default())).await?
    } else {
        raw(&file, request).await?
    };
    let headers = response.headers_mut();
    if let Ok(disposition) =
        HeaderValue::from_bytes(format!("filename=\"{}\"", name.replace(['"', '\r', '\n'], "_")).as_bytes())
    {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    // A drawing may hold scripts; here they do not run.
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'; style-src 'unsafe-inline'"),
    );
    Ok(response)
}

/// The file that the query names.
fn find(app: &App, query: &HashMap<String, String>) -> Result<PathBuf, Fail> {
    let text = |name: &str| query.get(name).map(String::as_str);
    let (name, annotated) = annotation(text("filename").ok_or(StatusCode::NOT_FOUND)?);
    if name.is_empty() || name.starts_with(['/', '\\']) || name.contains("..") || name.contains('\0') {
        return Err(StatusCode::BAD_REQUEST.into());
    }
    let root = root(app, annotated.or(text("type")).unwrap_or("output")).ok_or(StatusCode::BAD_REQUEST)?;
    let folder = paths::folder_below(&root, text("subfolder").unwrap_or_default()).ok_or(StatusCode::FORBIDDEN)?;
    let base = name.rsplit(['/', '\\']).next().unwrap_or(name);
    paths::below(&folder, base).filter(|path| path.is_file()).ok_or_else(|| StatusCode::NOT_FOUND.into())
}

/// `x.png [output]`: the name, and the folder that it chooses.
pub(super) fn annotation(name: &str) -> (&str, Option<&str>) {
    for place in ["output", "input", "temp"] {
        if let Some(bare) = name.strip_suffix(&format!("[{place}]")) {
            return (bare.trim_end(), Some(place));
        }
    }
    (name, None)
}

/// The folder of that type.
pub(super) fn root(app: &App, place: &str) -> Option<PathBuf> {
    match place {
        "output" => Some(app.assets.outputs().root().to_owned()),
        "temp" => Some(app.assets.previews().root().to_owned()),
        "input" => Some(app.assets.base_dir().join("input")),
        _ => None,
    }
}

/// Types that a browser would run as a page or a script.
const RUNS: &[&str] = &[
    "text/html",
    "text/html-sandboxed",
    "application/xhtml+xml",
    "text/javascript",
    "text/css",
    "application/javascript",
];

/// The file as it is, or a part of it.
pub(in crate::routes) async fn raw(file: &Path, request: Request) -> Result<Response, Fail> {
    let served = ServeFile::new(file).oneshot(request).await.map_err(Fail::unexpected)?;
    let mut response = served.into_response();
    if let Some(kind) = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) {
        let bare = kind.split(';').next().unwrap_or_default().trim();
        if RUNS.contains(&bare) {
            let data = HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(header::CONTENT_TYPE, data);
        }
    }
    Ok(response)
}

/// The picture in another format, or without a channel.
fn changed(file: &Path, preview: Option<&str>, channel: &str) -> Answer {
    let picture = open(file).ok_or_else(|| Fail::unexpected("no picture"))?;
    let (kind, bytes) = match preview {
        Some(preview) => encode_preview(&picture, preview, channel),
        None if channel == "rgb" => ("image/png", png(&picture.to_rgb8().into())),
        None => ("image/png", png(&alpha_as_black(&picture))),
    };
    let bytes = bytes.ok_or_else(|| Fail::unexpected("the picture cannot be encoded"))?;
    Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}

/// `FORMAT;QUALITY`; JPEG only where no channel with an `a` is asked for. WebP is written without loss, whatever the
/// quality.
fn encode_preview(picture: &DynamicImage, preview: &str, channel: &str) -> (&'static str, Option<Vec<u8>>) {
    let mut parts = preview.split(';');
    let format = parts.next().unwrap_or_default();
    let quality = parts.next_back().and_then(|part| part.parse::<u8>().ok()).unwrap_or(90).clamp(1, 100);
    if format != "jpeg" || channel.contains('a') {
        let picture = if channel == "rgb" { picture.to_rgb8().into() } else { picture.clone() };
        return ("image/webp", webp(&picture));
    }
    let mut bytes = Vec::new();
    let encoded = JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(&picture.to_rgb8());
    ("image/jpeg", encoded.ok().map(|()| bytes))
}

/// Opens a picture in memory within the limits.
pub(super) fn decode(bytes: &[u8]) -> Option<DynamicImage> {
    read(Cursor::new(bytes)).ok()
}

/// Opens a picture in a file within the limits. A file that is no picture is not read further than its first bytes.
pub(super) fn open(file: &Path) -> Option<DynamicImage> {
    read(BufReader::new(File::open(file).ok()?)).ok()
}

fn read(source: impl BufRead + Seek) -> ImageResult<DynamicImage> {
    let mut reader = ImageReader::new(source).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(LARGEST_BYTES);
    reader.limits(limits);
    reader.decode()
}

/// Any picture as WebP.
pub(super) fn as_webp(bytes: &[u8]) -> Option<Vec<u8>> {
    webp(&decode(bytes)?)
}

/// Any picture as JPEG.
pub(super) fn as_jpeg(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut jpeg = Cursor::new(Vec::new());
    DynamicImage::from(decode(bytes)?.to_rgb8()).write_to(&mut jpeg, ImageFormat::Jpeg).ok()?;
    Some(jpeg.into_inner())
}

fn webp(picture: &DynamicImage) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let encoder = WebPEncoder::new_lossless(&mut bytes);
    let picture = if picture.color().has_alpha() {
        DynamicImage::from(picture.to_rgba8())
    } else {
        DynamicImage::from(picture.to_rgb8())
    };
    picture.write_with_encoder(encoder).ok()?;
    Some(bytes)
}

fn png(picture: &DynamicImage) -> Option<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).ok()?;
    Some(bytes.into_inner())
}

/// Black, with the alpha of the source.
fn alpha_as_black(picture: &DynamicImage) -> DynamicImage {
    let source = picture.to_rgba8();
    let mut black = RgbaImage::new(source.width(), source.height());
    for (to, from) in black.pixels_mut().zip(source.pixels()) {
        to.0[3] = from.0[3];
    }
    black.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_choose_the_folder() {
        assert_eq!(annotation("a b.png [temp]"), ("a b.png", Some("temp")));
        assert_eq!(annotation("a.png[output]"), ("a.png", Some("output")));
        assert_eq!(annotation("a.png [other]"), ("a.png [other]", None));
        assert_eq!(annotation("[input]"), ("", Some("input")));
    }

    #[test]
    fn a_bomb_is_not_opened() {
        use image::ImageError;
        let header = |side: u32, colours, depth| {
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, side, side);
            encoder.set_color(colours);
            encoder.set_depth(depth);
            let mut writer = encoder.write_header().unwrap();
            writer.write_chunk(png::chunk::IDAT, &[]).unwrap();
            drop(writer);
            read(Cursor::new(bytes)).unwrap_err()
        };
        let (grey, rgba) = (png::ColorType::Grayscale, png::ColorType::Rgba);
        // Too long a side; sides that are allowed, with more bytes than are; and one that only lacks its numbers.
        assert!(matches!(header(LARGEST_SIDE + 1, grey, png::BitDepth::Eight), ImageError::Limits(_)));
        assert!(matches!(header(LARGEST_SIDE, rgba, png::BitDepth::Sixteen), ImageError::Limits(_)));
        assert!(!matches!(header(16, rgba, png::BitDepth::Sixteen), ImageError::Limits(_)));
        assert!(decode(b"no picture").is_none());
    }
}
