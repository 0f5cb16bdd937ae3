//! ComfyUI's newer view of queue and history together: `/api/jobs`.

use std::collections::HashMap;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Map, Value as Json, json};

use crate::app::App;
use crate::error::{Answer, Fail, answer};
use crate::queue::{Job, Record, State as JobState, Window};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/jobs", get(list)).route("/jobs/{id}", get(one))
}

const STATUSES: &[&str] = &["pending", "in_progress", "completed", "failed"];

fn bad(text: impl Into<String>) -> Fail {
    Fail::error(StatusCode::BAD_REQUEST, text)
}

/// The question, checked.
#[derive(Debug)]
struct Asked {
    statuses: Vec<String>,
    workflow: Option<String>,
    by_duration: bool,
    ascending: bool,
    limit: Option<usize>,
    offset: usize,
}

impl Asked {
    fn parse(query: &HashMap<String, String>) -> Result<Self, Fail> {
        let text = |name: &str| query.get(name).map(|value| value.trim().to_lowercase());
        let statuses: Vec<String> = text("status")
            .map(|list| list.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect())
            .unwrap_or_default();
        let wrong: Vec<&str> =
            statuses.iter().map(String::as_str).filter(|status| !STATUSES.contains(status)).collect();
        if !wrong.is_empty() {
            let (wrong, valid) = (wrong.join(", "), STATUSES.join(", "));
            return Err(bad(format!("Invalid status value(s): {wrong}. Valid values: {valid}")));
        }
        let by_duration = match text("sort_by").as_deref() {
            None | Some("created_at") => false,
            Some("execution_duration") => true,
            Some(_) => return Err(bad("sort_by must be 'created_at' or 'execution_duration'")),
        };
        let ascending = match text("sort_order").as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(bad("sort_order must be 'asc' or 'desc'")),
        };
        let limit = match text("limit").map(|limit| limit.parse::<i64>()) {
            None => None,
            Some(Ok(limit)) if limit > 0 => usize::try_from(limit).ok(),
            Some(Ok(_)) => return Err(bad("limit must be a positive integer")),
            Some(Err(_)) => return Err(bad("limit must be an integer")),
        };
        let offset = match text("offset").map(|offset| offset.parse::<i64>()) {
            None => 0,
            Some(Ok(offset)) => usize::try_from(offset).unwrap_or(0),
            Some(Err(_)) => return Err(bad("offset must be an integer")),
        };
        Ok(Self { statuses, workflow: query.get("workflow_id").cloned(), by_duration, ascending, limit, offset })
    }

    fn takes(&self, job: &Json) -> bool {
        let status = job["status"].as_str().unwrap_or_default();
        (self.statuses.is_empty() || self.statuses.iter().any(|wanted| wanted == status))
            && self.workflow.as_ref().is_none_or(|workflow| job["workflow_id"] == *workflow)
    }

    fn key(&self, job: &Json) -> i64 {
        let time = |name: &str| job.get(name).and_then(Json::as_i64);
        if self.by_duration {
            return time("execution_end_time").zip(time("execution_start_time")).map_or(0, |(end, start)| end - start);
        }
        time("create_time").unwrap_or(0)
    }
}

async fn list(State(app): State<App>, Query(query): Query<HashMap<String, String>>) -> Answer {
    let asked = Asked::parse(&query)?;
    let snapshot = app.queue.snapshot();
    let mut jobs: Vec<Json> = snapshot.running.iter().map(|job| waiting(job, "in_progress")).collect();
    jobs.extend(snapshot.pending.iter().map(|job| waiting(job, "pending")));
    jobs.extend(app.queue.history(Window::default()).await?.iter().map(|record| ended(record, false)));
    jobs.retain(|job| asked.takes(job));
    jobs.sort_by_key(|job| asked.key(job));
    if !asked.ascending {
        jobs.reverse();
    }
    let total = jobs.len();
    let window: Vec<Json> = jobs.into_iter().skip(asked.offset).take(asked.limit.unwrap_or(usize::MAX)).collect();
    let has_more = asked.offset + window.len() < total;
    let pagination = json!({"offset": asked.offset, "limit": asked.limit, "total": total, "has_more": has_more});
    Ok(answer(&json!({"jobs": window, "pagination": pagination})))
}

async fn one(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let missing = || Fail::error(StatusCode::NOT_FOUND, "Job not found");
    let snapshot = app.queue.snapshot();
    if let Some(job) = snapshot.running.iter().find(|job| job.id == id) {
        return Ok(answer(&waiting(job, "in_progress")));
    }
    if let Some(job) = snapshot.pending.iter().find(|job| job.id == id) {
        return Ok(answer(&waiting(job, "pending")));
    }
    let record = app.queue.find(&id).await?.filter(|record| record.state.is_over()).ok_or_else(missing)?;
    Ok(answer(&ended(&record, true)))
}

fn waiting(job: &Job, status: &str) -> Json {
    without_nulls(json!({
        "id": job.id, "status": status, "priority": job.number, "create_time": job.created, "outputs_count": 0,
        "workflow_id": job.workflow_id(),
    }))
}

fn ended(record: &Record, whole: bool) -> Json {
    let parse = |text: &str| serde_json::from_str::<Json>(text).unwrap_or_default();
    let outputs = record.outputs.as_deref().map(parse).unwrap_or_default();
    let status = record.status.as_deref().map(parse).unwrap_or_default();
    let extra = parse(&record.extra);
    let message = |kinds: &[&str]| {
        let messages = status["messages"].as_array().into_iter().flatten();
        messages.rev().find(|message| kinds.iter().any(|kind| message[0] == *kind)).map(|message| message[1].clone())
    };
    let time = |message: &Option<Json>| message.as_ref().map(|data| data["timestamp"].clone());
    let start = message(&["execution_start"]);
    let end = message(&["execution_success", "execution_error", "execution_interrupted"]);
    let (count, preview) = summarise(&outputs);
    let mut job = json!({
        "id": record.id, "status": if record.state == JobState::Done { "completed" } else { "failed" },
        "priority": record.number, "create_time": record.created, "execution_start_time": time(&start),
        "execution_end_time": time(&end), "execution_error": message(&["execution_error"]),
        "outputs_count": count, "preview_output": preview,
        "workflow_id": extra.pointer("/extra_pnginfo/workflow/id"),
    });
    if whole {
        job["outputs"] = outputs;
        job["execution_status"] = status;
        job["workflow"] = json!({"prompt": parse(&record.prompt), "extra_data": extra});
    }
    without_nulls(job)
}

fn without_nulls(job: Json) -> Json {
    let Json::Object(fields) = job else { return job };
    Json::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>())
}

/// How many things there are, and which of them to show: a saved one rather than a preview.
fn summarise(outputs: &Json) -> (usize, Option<Json>) {
    let mut count = 0;
    let (mut saved, mut first) = (None, None);
    for (node, ui) in outputs.as_object().into_iter().flatten() {
        for (kind, items) in ui.as_object().into_iter().flatten().filter(|(kind, _)| *kind != "animated") {
            for item in items.as_array().into_iter().flatten().filter(|item| item.is_object()) {
                count += 1;
                if !is_previewable(kind, item) {
                    continue;
                }
                let mut shown = item.clone();
                shown["nodeId"] = node.as_str().into();
                shown["mediaType"] = kind.as_str().into();
                if item["type"] == "output" && saved.is_none() {
                    saved = Some(shown.clone());
                }
                first.get_or_insert(shown);
            }
        }
    }
    (count, saved.or(first))
}

fn is_previewable(kind: &str, item: &Json) -> bool {
    let text = |key: &str| item[key].as_str().unwrap_or_default().to_lowercase();
    let format = text("format");
    matches!(kind, "images" | "video" | "audio")
        || format.starts_with("video/")
        || format.starts_with("audio/")
        || [".obj", ".fbx", ".gltf", ".glb"].iter().any(|ending| text("filename").ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_saved_rather_than_temporary() {
        let outputs = json!({
            "1": {"images": [{"filename": "t.png", "type": "temp"}], "animated": [{"x": 1}], "text": ["a"]},
            "2": {"images": [{"filename": "o.png", "type": "output"}]},
            "3": {"3d": [{"filename": "M.GLB", "type": "temp"}], "files": [{"filename": "x.bin", "type": "output"}]},
        });
        let (count, preview) = summarise(&outputs);
        assert_eq!(count, 4);
        assert_eq!(
            preview.unwrap(),
            json!({"filename": "o.png", "type": "output", "nodeId": "2", "mediaType": "images"})
        );
        let (_, preview) = summarise(&json!({"3": {"3d": [{"filename": "M.GLB", "type": "temp"}]}}));
        assert_eq!(preview.unwrap()["nodeId"], "3");
    }

    #[test]
    fn questions_are_checked_with_the_contracts_words() {
        let ask = |pairs: &[(&str, &str)]| {
            let query = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            match Asked::parse(&query) {
                Err(Fail::Json(_, body)) => body["error"].as_str().unwrap().to_owned(),
                Err(other) => panic!("{other:?}"),
                Ok(asked) => format!("{:?} {}", asked.limit, asked.offset),
            }
        };
        assert_eq!(
            ask(&[("status", "completed,a,b")]),
            "Invalid status value(s): a, b. Valid values: pending, in_progress, completed, failed"
        );
        assert_eq!(ask(&[("sort_by", "x")]), "sort_by must be 'created_at' or 'execution_duration'");
        assert_eq!(ask(&[("sort_order", "x")]), "sort_order must be 'asc' or 'desc'");
        assert_eq!(ask(&[("limit", "0")]), "limit must be a positive integer");
        assert_eq!(ask(&[("limit", "x")]), "limit must be an integer");
        assert_eq!(ask(&[("offset", "x")]), "offset must be an integer");
        assert_eq!(ask(&[("limit", "3"), ("offset", "-5")]), "Some(3) 0");
    }
}
