//! `/global_subgraphs`: blueprints that lie in `user/default/global_subgraphs`.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};

use crate::app::App;
use crate::error::{Answer, answer};
use crate::routes::models::blocking;
use crate::routes::users::default_dir;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/global_subgraphs", get(list)).route("/global_subgraphs/{id}", get(one))
}

/// Id, description and path of each.
fn blueprints(app: &App) -> Vec<(String, Json, PathBuf)> {
    let folder = default_dir(app).join("global_subgraphs");
    let mut files: Vec<PathBuf> = folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "json") && path.is_file());
    files.sort();
    let describe = |path: PathBuf| {
        let digest = Sha256::digest(format!("custom_node{}", path.display()));
        let id: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let info = json!({"source": "custom_node", "name": name, "info": {"node_pack": "paraflow"}});
        (id, info, path)
    };
    files.into_iter().map(describe).collect()
}

async fn list(State(app): State<App>) -> Answer {
    blocking(move || {
        let all = blueprints(&app).into_iter().map(|(id, info, _)| (id, info));
        Ok(answer(&Json::Object(all.collect::<Map<_, _>>())))
    })
    .await
}

async fn one(State(app): State<App>, Path(id): Path<String>) -> Answer {
    blocking(move || {
        let found = blueprints(&app).into_iter().find(|(known, _, _)| *known == id);
        let with_data = found.and_then(|(_, mut info, path)| {
            info["data"] = std::fs::read_to_string(path).ok()?.into();
            Some(info)
        });
        Ok(answer(&with_data.unwrap_or(Json::Null)))
    })
    .await
}
