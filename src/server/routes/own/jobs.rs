//! Jobs by id, lists of them, and the queue as a whole.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse as _;
use serde_json::json;

use super::shape::{
    Accepted, ArtefactView, Change, JobList, JobQuery, JobView, Prune, QueueChange, QueueView, Refusal, Removed,
    WaitQuery, asked, parse,
};
use crate::app::App;
use crate::artefacts;
use crate::error::{Answer, Fail, answer};
use crate::queue::{Job, Move, NewJob, Record, Search, State as JobState};
use crate::routes::view;
use crate::time::now_ms;

fn missing(id: &str) -> Fail {
    Fail::ours(StatusCode::NOT_FOUND, format!("there is no job `{id}`"), None)
}

fn bad(text: impl Into<String>) -> Fail {
    Fail::ours(StatusCode::BAD_REQUEST, text, None)
}

async fn find(app: &App, id: &str) -> Result<Record, Fail> {
    app.queue.find(id).await?.ok_or_else(|| missing(id))
}

fn waiting(job: &Job, state: JobState) -> JobView {
    JobView {
        id: job.id.clone(),
        state: state.as_str(),
        priority: job.priority,
        created: job.created,
        started: None,
        ended: None,
        attempts: job.attempts,
        error: None,
        outputs: None,
    }
}

/// Lists jobs.
#[utoipa::path(
    get, path = "/jobs", params(JobQuery), tag = "jobs",
    responses(
        (status = 200, description = "The jobs, and how many there are in all.", body = JobList),
        (status = 400, description = "The question is not what it should be.", body = Refusal),
    )
)]
pub(super) async fn list(State(app): State<App>, query: Result<Query<JobQuery>, QueryRejection>) -> Answer {
    let query = asked(query)?;
    let names = query.state.as_deref().unwrap_or("queued,running,done,failed,cancelled");
    let parse = |name: &str| JobState::parse(name.trim()).ok_or_else(|| bad(format!("there is no state `{name}`")));
    let states: Vec<JobState> = names.split(',').map(parse).collect::<Result<_, _>>()?;
    let (limit, offset) = (query.limit.unwrap_or(100).min(1000), query.offset.unwrap_or(0));
    let snapshot = app.queue.snapshot();
    let alive = |jobs: &[std::sync::Arc<Job>], state| {
        let fits = |job: &&std::sync::Arc<Job>| {
            states.contains(&state) && query.text.as_ref().is_none_or(|text| job.item.contains(text.as_str()))
        };
        jobs.iter().filter(fits).map(|job| waiting(job, state)).collect::<Vec<_>>()
    };
    let mut jobs = alive(&snapshot.running, JobState::Running);
    jobs.extend(alive(&snapshot.pending, JobState::Queued));
    if query.since.is_some() || query.until.is_some() {
        // They have not ended.
        jobs.clear();
    }
    let before = jobs.len() as u64;
    let mut jobs: Vec<JobView> = jobs.into_iter().skip(offset.try_into().unwrap_or(usize::MAX)).collect();
    jobs.truncate(limit.try_into().unwrap_or(usize::MAX));
    let over: Vec<JobState> = states.into_iter().filter(|state| state.is_over()).collect();
    let mut total = before;
    if !over.is_empty() {
        let search = Search {
            states: over,
            text: query.text,
            since: query.since,
            until: query.until,
            offset: offset.saturating_sub(before),
            limit: limit - jobs.len() as u64,
        };
        let (records, ended) = app.queue.search(search).await?;
        jobs.extend(records.iter().map(JobView::from));
        total += ended;
    }
    Ok(answer(&json!(JobList { jobs, total })))
}

/// Tells all about a job.
#[utoipa::path(
    get, path = "/jobs/{id}", params(("id" = String, Path, description = "The job's id")), tag = "jobs",
    responses(
        (status = 200, description = "The job.", body = JobView),
        (status = 404, description = "There is no such job.", body = Refusal),
    )
)]
pub(super) async fn one(State(app): State<App>, Path(id): Path<String>) -> Answer {
    Ok(answer(&json!(JobView::from(&find(&app, &id).await?))))
}

/// Waits for a job's end.
///
/// Answers at once where the job is over, else when it is, or when the time is.
#[utoipa::path(
    get, path = "/jobs/{id}/wait", tag = "jobs",
    params(("id" = String, Path, description = "The job's id"), WaitQuery),
    responses(
        (status = 200, description = "The job is over.", body = JobView),
        (status = 202, description = "It is not, and the time is.", body = JobView),
        (status = 404, description = "There is no such job.", body = Refusal),
    )
)]
pub(super) async fn wait(
    State(app): State<App>,
    Path(id): Path<String>,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Answer {
    let seconds = asked(query)?.timeout.unwrap_or(60.0);
    if seconds.is_nan() || seconds < 0.0 {
        return Err(bad("`timeout` expects seconds"));
    }
    let mut changes = app.queue.changes();
    let mut closing = app.closing.subscribe();
    let time = tokio::time::sleep(Duration::from_secs_f64(seconds.min(600.0)));
    tokio::pin!(time);
    loop {
        changes.borrow_and_update();
        let record = find(&app, &id).await?;
        if record.state.is_over() {
            return Ok(answer(&json!(JobView::from(&record))));
        }
        let again = tokio::select! {
            changed = changes.changed() => changed.is_ok(),
            () = &mut time => false,
            _ = closing.wait_for(|closing| *closing) => false,
        };
        if !again {
            return Ok((StatusCode::ACCEPTED, answer(&json!(JobView::from(&find(&app, &id).await?)))).into_response());
        }
    }
}

/// Cancels a job.
///
/// One that waits is taken out of the queue; one that runs is asked to stop, and then stands in the history.
#[utoipa::path(
    post, path = "/jobs/{id}/cancel", params(("id" = String, Path, description = "The job's id")), tag = "jobs",
    responses(
        (status = 202, description = "It waited and is gone, or it is asked to stop."),
        (status = 404, description = "There is no such job.", body = Refusal),
        (status = 409, description = "It is over.", body = Refusal),
    )
)]
pub(super) async fn cancel(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let removed = app.queue.remove(std::slice::from_ref(&id)).await?;
    if !removed.is_empty() || app.runner.interrupt(Some(&id)) {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    find(&app, &id).await?;
    Err(Fail::ours(StatusCode::CONFLICT, format!("job `{id}` does not wait or run"), None))
}

/// Forgets a job that waits or is over, with its place in the history. Files that it made stay.
#[utoipa::path(
    delete, path = "/jobs/{id}", params(("id" = String, Path, description = "The job's id")), tag = "jobs",
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, description = "There is no such job.", body = Refusal),
        (status = 409, description = "It runs.", body = Refusal),
    )
)]
pub(super) async fn remove(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let ids = [id];
    if !app.queue.remove(&ids).await?.is_empty() || app.queue.forget(&ids).await? > 0 {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let [id] = ids;
    find(&app, &id).await?;
    Err(Fail::ours(StatusCode::CONFLICT, format!("job `{id}` runs"), Some("cancel it first".into())))
}

/// Runs a job that is over once more, as a new job.
#[utoipa::path(
    post, path = "/jobs/{id}/retry", params(("id" = String, Path, description = "The job's id")), tag = "jobs",
    responses(
        (status = 201, description = "The new job.", body = Accepted),
        (status = 404, description = "There is no such job.", body = Refusal),
        (status = 409, description = "It is not over.", body = Refusal),
    )
)]
pub(super) async fn retry(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let record = find(&app, &id).await?;
    if !record.state.is_over() {
        return Err(Fail::ours(StatusCode::CONFLICT, format!("job `{id}` is not over"), None));
    }
    let extra: serde_json::Value = serde_json::from_str(&record.extra).map_err(Fail::unexpected)?;
    let job = NewJob {
        id: uuid::Uuid::new_v4().to_string(),
        number: None,
        front: false,
        priority: record.priority,
        prompt: serde_json::from_str(&record.prompt).map_err(Fail::unexpected)?,
        client: extra["client_id"].as_str().map(str::to_owned),
        extra,
        outputs: serde_json::from_str(&record.targets).map_err(Fail::unexpected)?,
        key: None,
        webhook: None,
        timeout_ms: None,
    };
    let receipt = app.queue.submit(job).await?;
    let accepted = Accepted { id: receipt.id, repeated: false, warnings: Vec::new() };
    Ok((StatusCode::CREATED, answer(&json!(accepted))).into_response())
}

/// Gives a waiting job another priority or place.
#[utoipa::path(
    put, path = "/jobs/{id}/queue", request_body = Change, tag = "queue",
    params(("id" = String, Path, description = "The job's id")),
    responses(
        (status = 204, description = "It is there."),
        (status = 400, description = "Not one of the three was given.", body = Refusal),
        (status = 404, description = "There is no such job.", body = Refusal),
        (status = 409, description = "It does not wait, or the other does not.", body = Refusal),
    )
)]
pub(super) async fn change(State(app): State<App>, Path(id): Path<String>, body: Bytes) -> Answer {
    let done = match parse(&body)? {
        Change { priority: Some(priority), position: None, before: None } => {
            app.queue.prioritise(&id, priority).await?
        }
        Change { priority: None, position: Some(position), before: None } => {
            let to = match position.as_str() {
                "first" => Move::First,
                "last" => Move::Last,
                other => return Err(bad(format!("`position` expects first or last, found `{other}`"))),
            };
            app.queue.reorder(&id, to).await?
        }
        Change { priority: None, position: None, before: Some(other) } => {
            app.queue.reorder(&id, Move::Before(other)).await?
        }
        Change { .. } => return Err(bad("give one of `priority`, `position`, `before`")),
    };
    if done {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    find(&app, &id).await?;
    Err(Fail::ours(StatusCode::CONFLICT, format!("job `{id}` does not wait, or the other does not"), None))
}

/// Lists the files that a job made.
#[utoipa::path(
    get, path = "/jobs/{id}/artefacts", params(("id" = String, Path, description = "The job's id")), tag = "jobs",
    responses(
        (status = 200, description = "The files, with size and hash.", body = [ArtefactView]),
        (status = 404, description = "There is no such job.", body = Refusal),
    )
)]
pub(super) async fn artefacts(State(app): State<App>, Path(id): Path<String>) -> Answer {
    find(&app, &id).await?;
    let files = app.queue.artefacts(&id).await?.into_iter().enumerate();
    Ok(answer(&json!(files.map(|(index, file)| ArtefactView::new(&id, index, file)).collect::<Vec<_>>())))
}

/// Gives one of the files that a job made.
#[utoipa::path(
    get, path = "/jobs/{id}/artefacts/{index}", tag = "jobs",
    params(("id" = String, Path, description = "The job's id"), ("index" = usize, Path, description = "Its number")),
    responses(
        (status = 200, description = "The file."),
        (status = 404, description = "There is no such job or file.", body = Refusal),
    )
)]
pub(super) async fn artefact(
    State(app): State<App>,
    Path((id, index)): Path<(String, String)>,
    request: Request,
) -> Answer {
    find(&app, &id).await?;
    let gone = || Fail::ours(StatusCode::NOT_FOUND, format!("job `{id}` has no file {index}"), None);
    let place = index.parse().map_err(|_| gone())?;
    let file = app.queue.artefacts(&id).await?.into_iter().nth(place).ok_or_else(gone)?;
    let path = artefacts::path(&file, &app.assets).filter(|path| path.is_file()).ok_or_else(gone)?;
    let mut response = view::raw(&path, request).await?;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    if let Some(tag) = file.blake3.and_then(|hash| HeaderValue::from_str(&format!("\"{hash}\"")).ok()) {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}

/// Tells what waits and runs.
#[utoipa::path(
    get, path = "/queue", tag = "queue",
    responses((status = 200, description = "The queue.", body = QueueView))
)]
pub(super) async fn queue(State(app): State<App>) -> Answer {
    let snapshot = app.queue.snapshot();
    let ids = |jobs: &[std::sync::Arc<Job>]| jobs.iter().map(|job| job.id.clone()).collect();
    let view = QueueView { paused: snapshot.paused, running: ids(&snapshot.running), pending: ids(&snapshot.pending) };
    Ok(answer(&json!(view)))
}

/// Pauses the queue, or lets it go on. What runs is not touched.
#[utoipa::path(
    put, path = "/queue", request_body = QueueChange, tag = "queue",
    responses(
        (status = 204, description = "So it is."),
        (status = 400, description = "The request is not what it should be.", body = Refusal),
    )
)]
pub(super) async fn change_queue(State(app): State<App>, body: Bytes) -> Answer {
    let QueueChange { paused } = parse(&body)?;
    app.queue.pause(paused).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Forgets older jobs.
#[utoipa::path(
    post, path = "/history/prune", request_body = Prune, tag = "queue",
    responses(
        (status = 200, description = "How many were forgotten.", body = Removed),
        (status = 400, description = "The request is not what it should be.", body = Refusal),
    )
)]
pub(super) async fn prune(State(app): State<App>, body: Bytes) -> Answer {
    let Prune { keep, max_age } = parse(&body)?;
    if keep.is_none() && max_age.is_none() {
        return Err(bad("give `keep` or `max_age`"));
    }
    if max_age.is_some_and(|age| age.is_nan() || age < 0.0) {
        return Err(bad("`max_age` expects seconds"));
    }
    let since = max_age.map(|age| now_ms() - (age * 1000.0) as i64);
    let removed = app.queue.prune(keep.unwrap_or(i64::MAX as u64), since).await?;
    Ok(answer(&json!(Removed { removed })))
}
