//! `/ws`: the stream of events.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{self, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value as Json;
use tokio::time::timeout;

use crate::app::App;
use crate::frames;
use crate::hub::{Client, Frame};
use crate::protocol::Message;
use crate::routes::system;

/// What clients send is a handshake, no more.
const LARGEST_MESSAGE: usize = 1 << 20;
/// A client that takes nothing for so long is gone.
const SEND_TIME: Duration = Duration::from_secs(30);

pub(super) fn routes() -> Router<App> {
    Router::new().route("/ws", get(connect))
}

async fn connect(
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let id = query.get("clientId").filter(|id| !id.is_empty()).cloned();
    let id = id.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    let upgrade = upgrade.max_message_size(LARGEST_MESSAGE).max_frame_size(LARGEST_MESSAGE);
    upgrade.on_upgrade(move |socket| serve(app, socket, id))
}

async fn serve(app: App, socket: WebSocket, id: String) {
    let mut welcome = vec![frames::status(app.queue.remaining(), Some(&id))];
    if let Some(node) = app.runner.node_of_client(&id) {
        welcome.push(frames::still_executing(&node));
    }
    let client = app.hub.join(id, welcome);
    tracing::debug!(client = client.id, "a WebSocket client came");
    let (mut outgoing, mut incoming) = socket.split();
    let mut closing = app.closing.subscribe();
    let send = async {
        while let Some(frames) = client.next().await {
            for frame in frames {
                let sent = timeout(SEND_TIME, outgoing.feed(message(frame))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
            if !matches!(timeout(SEND_TIME, outgoing.flush()).await, Ok(Ok(()))) {
                return;
            }
        }
    };
    let receive = async {
        let mut first = true;
        while let Some(Ok(message)) = incoming.next().await {
            if let ws::Message::Text(text) = message {
                take(&app, &client, &text, &mut first);
            }
        }
    };
    tokio::select! {
        () = send => {}
        () = receive => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    app.hub.leave(&client);
    tracing::debug!(client = client.id, "a WebSocket client went");
}

fn message(frame: Frame) -> ws::Message {
    match frame {
        // Every text is written by us, so it is UTF-8; what is not would be no text.
        Frame::Text(bytes) => Utf8Bytes::try_from(bytes.clone()).map_or(ws::Message::Binary(bytes), ws::Message::Text),
        Frame::Binary(bytes) => ws::Message::Binary(bytes),
    }
}

/// Only a handshake that comes first says anything. What is no JSON does not count as the first.
fn take(app: &App, client: &Client, text: &str, first: &mut bool) {
    let message: Json = match serde_json::from_str(text) {
        Ok(message) => message,
        Err(error) => {
            tracing::warn!(client = client.id, %error, "a client sent what is no JSON");
            return;
        }
    };
    if std::mem::take(first) && message["type"] == "feature_flags" {
        client.send(Frame::message(&Message::FeatureFlags(system::feature_flags(app))));
        app.kept.welcome(client, &message["data"]);
    }
}
