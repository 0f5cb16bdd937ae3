//! The machine and what this server can do: `/system_stats`, `/features`, `/extensions`, `/i18n`.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde_json::json;
use sysinfo::{MemoryRefreshKind, System};

use crate::app::App;
use crate::error::{Answer, answer};
use crate::protocol::FeatureFlags;
use crate::routes::models::blocking;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/system_stats", get(stats))
        .route("/features", get(features))
        .route("/extensions", get(extensions))
        .route("/i18n", get(translations))
}

/// The version whose API this is.
const COMFYUI: &str = "0.8.0";

async fn stats(State(app): State<App>) -> Answer {
    let (total, free) = memory();
    let os = match std::env::consts::OS {
        "windows" => "win32",
        "macos" => "darwin",
        other => other,
    };
    // What the cache holds is this program's share, as torch's is there.
    let (cached, _) = app.runner.cached();
    let device = json!({"name": "cpu", "type": "cpu", "index": null, "vram_total": total, "vram_free": free,
                        "torch_vram_total": total, "torch_vram_free": free});
    Ok(answer(&json!({
        "system": {
            "os": os, "ram_total": total, "ram_free": free, "comfyui_version": COMFYUI,
            "required_frontend_version": "1.35.9", "installed_templates_version": "0.7.67",
            "required_templates_version": "0.7.67",
            "python_version": concat!("none (paraflow ", env!("CARGO_PKG_VERSION"), ")"), "pytorch_version": "none",
            "embedded_python": false, "argv": arguments(&app.options.arguments), "paraflow_cache_bytes": cached,
        },
        "devices": [device],
    })))
}

/// All memory and what is free of it, of the container where we are in one.
fn memory() -> (u64, u64) {
    let Ok(mut system) = System::new() else { return (0, 0) };
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    match system.cgroup_limits() {
        Some(limits) => (limits.total_memory, limits.free_memory),
        None => (system.total_memory(), system.available_memory()),
    }
}

/// The arguments without the token.
fn arguments(given: &[String]) -> Vec<String> {
    let mut hide_next = false;
    let mut shown = Vec::new();
    for argument in given {
        let hide = std::mem::replace(&mut hide_next, argument == "--token");
        shown.push(match argument.strip_prefix("--token=") {
            Some(_) => "--token=…".to_owned(),
            None if hide => "…".to_owned(),
            None => argument.clone(),
        });
    }
    shown
}

/// What this server can do, for the handshake too.
pub(super) fn feature_flags(app: &App) -> FeatureFlags {
    let manager = json!({"supports_v4": true});
    FeatureFlags {
        supports_preview_metadata: true,
        max_upload_size: app.options.max_upload_bytes,
        extension: [("manager".to_owned(), manager)].into_iter().collect(),
    }
}

async fn features(State(app): State<App>) -> Answer {
    Ok(answer(&json!(feature_flags(&app))))
}

/// Scripts below `extensions/` of the front end.
async fn extensions(State(app): State<App>) -> Answer {
    blocking(move || {
        let mut found = Vec::new();
        if let Some(root) = &app.options.front_end_root {
            collect_scripts(&root.join("extensions"), "/extensions", 0, &mut found);
        }
        found.sort();
        Ok(answer(&found.into()))
    })
    .await
}

fn collect_scripts(folder: &std::path::Path, shown: &str, depth: usize, found: &mut Vec<String>) {
    /// Deeper than any front end, and an end to links in circles.
    const DEEPEST: usize = 16;
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let (path, shown) = (entry.path(), format!("{shown}/{name}"));
        if path.is_dir() && depth < DEEPEST {
            collect_scripts(&path, &shown, depth + 1, found);
        } else if name.ends_with(".js") {
            found.push(shown);
        }
    }
}

async fn translations() -> Answer {
    Ok(answer(&json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_not_shown() {
        let given = ["paraflow", "serve", "--token", "secret-secret-secret", "--token=secret", "--port", "1"];
        let shown = arguments(&given.map(str::to_owned)).join(" ");
        assert_eq!(shown, "paraflow serve --token … --token=… --port 1");
    }
}
