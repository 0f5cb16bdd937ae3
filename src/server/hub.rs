//! Who listens: the WebSocket clients, each with a queue of its own that is bounded, so that a slow one costs only
//! itself.
//!
//! Frames keep their order for every client. A client that reads too slowly is first spared what later frames make
//! obsolete (progress, previews), and then let go.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value as Json;
use tokio::sync::Notify;

use crate::protocol::Message;

/// What is sent at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// JSON.
    Text(Bytes),
    /// A picture with its header.
    Binary(Bytes),
}

impl Frame {
    fn len(&self) -> usize {
        let (Self::Text(bytes) | Self::Binary(bytes)) = self;
        bytes.len()
    }

    /// A text frame: `{"type": kind, "data": data}`.
    pub(crate) fn event(kind: &str, data: &Json) -> Self {
        Self::Text(format!("{{\"type\": {}, \"data\": {data}}}", Json::from(kind)).into())
    }

    /// The text frame of a message.
    pub(crate) fn message(message: &Message) -> Self {
        let (kind, data) = message.parts();
        Self::event(&kind, &data)
    }
}

/// Whether a later frame makes this one obsolete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It tells something once.
    Always,
    /// The state of progress, which the next one tells again.
    UntilNext,
}

/// More frames than this wait for a client only if none of them is obsolete.
const COALESCE_FROM: usize = 256;
/// A client with more frames than this is let go.
const MOST_FRAMES: usize = 20_000;
/// A client with more bytes than this is let go.
const MOST_BYTES: usize = 64 << 20;

/// One open socket.
pub(crate) struct Client {
    /// What it calls itself, or was called.
    pub(crate) id: String,
    serial: u64,
    outbox: Mutex<Outbox>,
    wake: Notify,
    previews_with_metadata: AtomicBool,
    ours: AtomicBool,
    logs: AtomicBool,
}

#[derive(Default)]
struct Outbox {
    frames: VecDeque<(Frame, Keep)>,
    bytes: usize,
    closed: bool,
}

impl Client {
    fn push(&self, frame: Frame, keep: Keep) {
        let mut outbox = lock(&self.outbox);
        if outbox.closed {
            return;
        }
        if keep == Keep::UntilNext && outbox.frames.len() >= COALESCE_FROM {
            outbox.drop_obsolete();
        }
        outbox.bytes += frame.len();
        outbox.frames.push_back((frame, keep));
        if outbox.frames.len() > MOST_FRAMES || outbox.bytes > MOST_BYTES {
            tracing::warn!(client = self.id, "a WebSocket client reads too slowly and is let go");
            outbox.close();
        }
        drop(outbox);
        self.wake.notify_one();
    }

    /// What waits, in order; waits for something. `None` once the client is let go.
    pub(crate) async fn next(&self) -> Option<Vec<Frame>> {
        loop {
            let woken = self.wake.notified();
            {
                let mut outbox = lock(&self.outbox);
                if outbox.closed {
                    return None;
                }
                if !outbox.frames.is_empty() {
                    outbox.bytes = 0;
                    return Some(outbox.frames.drain(..).map(|(frame, _)| frame).collect());
                }
            }
            woken.await;
        }
    }

    /// Takes in the flags of the client's handshake.
    pub(crate) fn set_flags(&self, flags: &Json) {
        let is_set = |name: &str| flags.get(name) == Some(&Json::Bool(true));
        self.previews_with_metadata.store(is_set("supports_preview_metadata"), Ordering::Relaxed);
        self.ours.store(is_set("paraflow_events"), Ordering::Relaxed);
    }

    /// Whether its handshake asked for events of ours.
    pub(crate) fn wants_ours(&self) -> bool {
        self.ours.load(Ordering::Relaxed)
    }

    /// Sends to this client alone.
    pub(crate) fn send(&self, frame: Frame) {
        self.push(frame, Keep::Always);
    }
}

impl Outbox {
    /// Only the last of the obsolete frames stays.
    fn drop_obsolete(&mut self) {
        self.frames.retain(|(_, keep)| *keep == Keep::Always);
        self.bytes = self.frames.iter().map(|(frame, _)| frame.len()).sum();
    }

    fn close(&mut self) {
        self.closed = true;
        self.frames = VecDeque::new();
        self.bytes = 0;
    }
}

/// To whom.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To<'a> {
    /// Everyone.
    All,
    /// The client of that id, if it is there.
    One(&'a str),
}

/// All open sockets by client id.
#[derive(Default)]
pub(crate) struct Hub {
    clients: Mutex<HashMap<String, Arc<Client>>>,
    serial: AtomicU64,
}

impl Hub {
    /// A new socket. One that used the same id gets nothing more. `welcome` is put before all that comes.
    pub(crate) fn join(&self, id: String, welcome: Vec<Frame>) -> Arc<Client> {
        let client = Arc::new(Client {
            id: id.clone(),
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
            outbox: Mutex::default(),
            wake: Notify::new(),
            previews_with_metadata: AtomicBool::new(false),
            ours: AtomicBool::new(false),
            logs: AtomicBool::new(false),
        });
        let mut clients = self.clients();
        for frame in welcome {
            client.push(frame, Keep::Always);
        }
        clients.insert(id, Arc::clone(&client));
        client
    }

    /// The socket is gone.
    pub(crate) fn leave(&self, client: &Client) {
        let mut clients = self.clients();
        if clients.get(&client.id).is_some_and(|there| there.serial == client.serial) {
            clients.remove(&client.id);
        }
        drop(clients);
        lock(&client.outbox).close();
    }

    /// How many sockets there are.
    pub(crate) fn len(&self) -> usize {
        self.clients().len()
    }

    /// Whether anyone would get it.
    pub(crate) fn reaches(&self, to: To<'_>) -> bool {
        match to {
            To::All => !self.clients().is_empty(),
            To::One(id) => self.clients().contains_key(id),
        }
    }

    /// Sends a frame.
    pub(crate) fn send(&self, to: To<'_>, frame: &Frame, keep: Keep) {
        self.send_where(to, |_| true, frame, keep);
    }

    /// Sends a frame of ours, which other programs' clients would not know, to those that asked for such.
    pub(crate) fn send_ours(&self, to: To<'_>, frame: &Frame) {
        self.send_where(to, Client::wants_ours, frame, Keep::Always);
    }

    /// Sends a preview to those that take it in this form.
    pub(crate) fn send_preview(&self, to: To<'_>, with_metadata: bool, frame: &Frame) {
        let takes = |client: &Client| client.previews_with_metadata.load(Ordering::Relaxed) == with_metadata;
        self.send_where(to, takes, frame, Keep::UntilNext);
    }

    /// Sends lines of the log to those that subscribed.
    pub(crate) fn send_logs(&self, frame: &Frame) {
        self.send_where(To::All, |client| client.logs.load(Ordering::Relaxed), frame, Keep::Always);
    }

    /// Whether the client of that id gets the log.
    pub(crate) fn subscribe_logs(&self, id: &str, enabled: bool) {
        if let Some(client) = self.clients().get(id) {
            client.logs.store(enabled, Ordering::Relaxed);
        }
    }

    fn send_where(&self, to: To<'_>, takes: impl Fn(&Client) -> bool, frame: &Frame, keep: Keep) {
        let clients = self.clients();
        let push = |client: &Arc<Client>| {
            if takes(client) {
                client.push(frame.clone(), keep);
            }
        };
        match to {
            To::One(id) => clients.get(id).into_iter().for_each(push),
            To::All => {
                // Each client has a queue of its own, so the order among clients is nobody's business.
                #[expect(clippy::iter_over_hash_type, reason = "every client gets the same frame")]
                for client in clients.values() {
                    push(client);
                }
            }
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<String, Arc<Client>>> {
        lock(&self.clients)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(frames: Vec<Frame>) -> Vec<String> {
        let text = |frame| match frame {
            Frame::Text(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Frame::Binary(bytes) => format!("{} bytes", bytes.len()),
        };
        frames.into_iter().map(text).collect()
    }

    fn text(text: &'static str) -> Frame {
        Frame::Text(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn messages_reach_whom_they_are_for_in_order() {
        let hub = Hub::default();
        let (a, b) = (hub.join("a".into(), vec![text("hello")]), hub.join("b".into(), vec![]));
        hub.send(To::One("a"), &text("1"), Keep::Always);
        hub.send(To::One("nobody"), &text("2"), Keep::Always);
        hub.send(To::All, &text("3"), Keep::Always);
        assert_eq!(texts(a.next().await.unwrap()), ["hello", "1", "3"]);
        assert_eq!(texts(b.next().await.unwrap()), ["3"]);
    }

    #[tokio::test]
    async fn a_second_socket_takes_the_id_and_the_first_one_may_still_leave() {
        let hub = Hub::default();
        let first = hub.join("a".into(), vec![]);
        let second = hub.join("a".into(), vec![]);
        hub.leave(&first);
        hub.send(To::One("a"), &text("1"), Keep::Always);
        assert_eq!(texts(second.next().await.unwrap()), ["1"]);
        assert!(first.next().await.is_none());
    }

    #[tokio::test]
    async fn flags_must_be_true_and_choose_the_form_of_previews() {
        let hub = Hub::default();
        let (a, b) = (hub.join("a".into(), vec![]), hub.join("b".into(), vec![]));
        a.set_flags(&json!({"supports_preview_metadata": true, "paraflow_events": true}));
        b.set_flags(&json!({"supports_preview_metadata": 1}));
        hub.send_preview(To::All, true, &text("new"));
        hub.send_preview(To::All, false, &text("old"));
        hub.send_ours(To::All, &text("ours"));
        assert_eq!(texts(a.next().await.unwrap()), ["new", "ours"]);
        assert_eq!(texts(b.next().await.unwrap()), ["old"]);
    }

    #[tokio::test]
    async fn a_slow_client_loses_progress_before_anything_else_and_is_let_go_at_last() {
        let hub = Hub::default();
        let slow = hub.join("a".into(), vec![]);
        for _ in 0..COALESCE_FROM {
            hub.send(To::All, &text("progress"), Keep::UntilNext);
            hub.send(To::All, &text("event"), Keep::Always);
        }
        let got = texts(slow.next().await.unwrap());
        assert_eq!(got.iter().filter(|text| *text == "event").count(), COALESCE_FROM);
        assert!(got.iter().filter(|text| *text == "progress").count() < COALESCE_FROM);
        for _ in 0..=MOST_FRAMES {
            hub.send(To::All, &text("event"), Keep::Always);
        }
        assert!(slow.next().await.is_none());
        assert_eq!(lock(&slow.outbox).frames.len(), 0);
    }
}
