//! Events as server-sent events: of one job until it ends, or of all jobs.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _};
use serde_json::json;
use tokio_stream::wrappers::BroadcastStream;

use super::shape::{JobView, Refusal};
use crate::app::App;
use crate::error::{Answer, Fail};
use crate::feed::JobEvent;
use crate::protocol::Message;

type Events = Pin<Box<dyn Stream<Item = Result<Event, Infallible>> + Send>>;

/// Follows a job.
///
/// First `state`, then what a training has told before, then the events as they come, each with the type and the data
/// of a `Message`; the stream ends with the job.
#[utoipa::path(
    get, path = "/jobs/{id}/events", params(("id" = String, Path, description = "The job's id")), tag = "events",
    responses(
        (status = 200, description = "The events.", content_type = "text/event-stream", body = Message),
        (status = 404, description = "There is no such job.", body = Refusal),
    )
)]
pub(super) async fn of_job(State(app): State<App>, Path(id): Path<String>) -> Answer {
    // Followed before it is looked at, so that nothing falls between.
    let (told, events) = app.kept.follow(&id);
    let missing = || Fail::ours(StatusCode::NOT_FOUND, format!("there is no job `{id}`"), None);
    let record = app.queue.find(&id).await?.ok_or_else(missing)?;
    let over = record.state.is_over();
    let first = Event::default().event("state").data(json!(JobView::from(&record)).to_string());
    let told = told.iter().map(|message| {
        let (kind, data) = message.parts();
        Event::default().event(kind).data(data.to_string())
    });
    let first = futures_util::stream::iter(std::iter::once(first).chain(told).map(Ok).collect::<Vec<_>>());
    if over {
        return Ok(stream(&app, Box::pin(first)));
    }
    let mine = BroadcastStream::new(events).filter_map(move |event| {
        let event = match event {
            Ok(event) if *event.job == *id => Some(event),
            Ok(_) => None,
            Err(_) => return std::future::ready(Some((missed(), false))),
        };
        std::future::ready(event.map(|event| {
            let last = matches!(&*event.kind, "execution_success" | "execution_error" | "execution_interrupted");
            (to_sse(&event), last)
        }))
    });
    Ok(stream(&app, Box::pin(first.chain(end_after_last(mine).map(Ok)))))
}

/// Ends with the event that is marked as the last, without waiting for another.
fn end_after_last(events: impl Stream<Item = (Event, bool)> + Send + 'static) -> impl Stream<Item = Event> + Send {
    futures_util::stream::unfold(Some(Box::pin(events)), |events| async {
        let mut events = events?;
        let (event, last) = events.next().await?;
        Some((event, (!last).then_some(events)))
    })
}

/// Follows all jobs.
#[utoipa::path(
    get, path = "/events", tag = "events",
    responses((status = 200, description = "The events of all jobs.", content_type = "text/event-stream"))
)]
pub(super) async fn all(State(app): State<App>) -> Response {
    let events = BroadcastStream::new(app.feed.follow());
    let events = events.map(|event| Ok(event.map_or_else(|_| missed(), |event| to_sse(&event))));
    stream(&app, Box::pin(events))
}

fn to_sse(event: &JobEvent) -> Event {
    Event::default().event(&*event.kind).data(&*event.data)
}

/// The follower was so slow that events are gone.
fn missed() -> Event {
    Event::default().event("missed").data("{}")
}

fn stream(app: &App, events: Events) -> Response {
    let mut closing = app.closing.subscribe();
    let closed = async move {
        let _ = closing.wait_for(|closing| *closing).await;
    };
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
    Sse::new(events.take_until(Box::pin(closed))).keep_alive(keep_alive).into_response()
}
