//! ComfyUI's newer view of queue and history together: `/api/jobs`.

use std::collections::HashMap;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Map, Value as Json, json};

use crate::app::App;
use crate::error::{Answer, Fail, answer};
use crate::queue::{Listing, Record, State as JobState};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/jobs", get(list)).route("/jobs/{id}", get(one))
}

const STATUSES: &[&str] = &["pending", "in_progress", "completed", "failed"];
/// What later versions of ComfyUI tell apart from `failed`; so do we where a client knows the word.
const CANCELLED: &str = "cancelled";

fn bad(text: impl Into<String>) -> Fail {
    Fail::error(StatusCode::BAD_REQUEST, text)
}

/// The question, checked.
fn listing(query: &HashMap<String, String>) -> Result<Listing, Fail> {
    let text = |name: &str| query.get(name).map(|value| value.trim().to_lowercase());
    let statuses: Vec<String> = text("status")
        .map(|list| list.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect())
        .unwrap_or_default();
    let wrong: Vec<&str> = statuses
        .iter()
        .map(String::as_str)
        .filter(|status| !STATUSES.contains(status) && *status != CANCELLED)
        .collect();
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
        Some(Ok(limit)) if limit > 0 => u64::try_from(limit).ok(),
        Some(Ok(_)) => return Err(bad("limit must be a positive integer")),
        Some(Err(_)) => return Err(bad("limit must be an integer")),
    };
    let offset = match text("offset").map(|offset| offset.parse::<i64>()) {
        None => 0,
        Some(Ok(offset)) => u64::try_from(offset).unwrap_or(0),
        Some(Err(_)) => return Err(bad("offset must be an integer")),
    };
    let states = statuses.iter().flat_map(|status| states(status)).copied().collect();
    Ok(Listing { states, workflow: query.get("workflow_id").cloned(), by_duration, ascending, limit, offset })
}

/// What stands in the books of jobs with that status.
fn states(status: &str) -> &'static [JobState] {
    match status {
        "pending" => &[JobState::Queued],
        "in_progress" => &[JobState::Running],
        "completed" => &[JobState::Done],
        CANCELLED => &[JobState::Cancelled],
        _ => &[JobState::Failed, JobState::Cancelled],
    }
}

async fn list(State(app): State<App>, Query(query): Query<HashMap<String, String>>) -> Answer {
    let asked = listing(&query)?;
    let (offset, limit) = (asked.offset, asked.limit);
    let (records, total) = app.queue.list(asked).await?;
    let mut jobs: Vec<Json> = records.iter().map(|record| describe(record, false)).collect();
    if query.get("status").is_some_and(|asked| asked.contains(CANCELLED)) {
        let stopped = jobs.iter_mut().zip(&records).filter(|(_, record)| record.state == JobState::Cancelled);
        stopped.for_each(|(job, _)| job["status"] = CANCELLED.into());
    }
    let has_more = offset.saturating_add(jobs.len() as u64) < total;
    let pagination = json!({"offset": offset, "limit": limit, "total": total, "has_more": has_more});
    Ok(answer(&json!({"jobs": jobs, "pagination": pagination})))
}

async fn one(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let missing = || Fail::error(StatusCode::NOT_FOUND, "Job not found");
    let record = app.queue.find(&id).await?.ok_or_else(missing)?;
    Ok(answer(&describe(&record, true)))
}

/// A job in ComfyUI's words; `whole`: with its prompt and all that it showed.
fn describe(record: &Record, whole: bool) -> Json {
    let status = match record.state {
        JobState::Queued => "pending",
        JobState::Running => "in_progress",
        JobState::Done => "completed",
        JobState::Failed | JobState::Cancelled => "failed",
    };
    let mut job = json!({
        "id": record.id, "status": status, "priority": record.number, "create_time": record.created,
        "outputs_count": 0, "workflow_id": record.workflow,
    });
    if record.state.is_over() {
        describe_end(&mut job, record, whole);
    }
    without_nulls(job)
}

fn describe_end(job: &mut Json, record: &Record, whole: bool) {
    let parse = |text: &str| serde_json::from_str::<Json>(text).unwrap_or_default();
    let outputs = record.outputs.as_deref().map(parse).unwrap_or_default();
    let status = record.status.as_deref().map(parse).unwrap_or_default();
    let messages = status["messages"].as_array().into_iter().flatten();
    let error = messages.rev().find(|message| message[0] == "execution_error").map(|message| message[1].clone());
    let (count, preview) = summarise(&outputs);
    job["execution_start_time"] = record.started.into();
    job["execution_end_time"] = record.ended.into();
    job["execution_error"] = error.into();
    job["outputs_count"] = count.into();
    job["preview_output"] = preview.into();
    if whole {
        job["outputs"] = outputs;
        job["execution_status"] = status;
        job["workflow"] = json!({"prompt": parse(&record.prompt), "extra_data": parse(&record.extra)});
    }
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
            match listing(&query) {
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
