//! Answers that are no success, and why a server does not start.

use std::net::SocketAddr;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

use crate::queue::QueueError;

/// Why the server does not start or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that others reach, and no token.
    #[error("listening on {address} would let everyone in the network run and delete jobs")]
    Open {
        /// The address.
        address: std::net::IpAddr,
    },
    /// A token that is easily guessed.
    #[error("the token is too short: {length} characters, at least {least} are needed")]
    ShortToken {
        /// Its length.
        length: usize,
        /// The least.
        least: usize,
    },
    /// The port is taken, or may not be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The folder of the front end.
    #[error("`{path}` has no index.html, so it is no front end")]
    NoFrontEnd {
        /// The folder.
        path: String,
    },
    /// The books.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The system gives no thread or no socket.
    #[error("the system refused: {0}")]
    System(#[from] std::io::Error),
}

impl Error {
    /// A way out, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Open { .. } => Some("give `--token` (or PARAFLOW_TOKEN), or put a reverse proxy before 127.0.0.1"),
            Self::ShortToken { .. } => Some("`openssl rand -hex 24` makes a good one"),
            Self::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
                Some("another program uses the port, ComfyUI perhaps; choose another with `--port`")
            }
            Self::NoFrontEnd { .. } => Some("name the folder of an unpacked front end, the one with index.html"),
            Self::Queue(QueueError::InUse(_)) => Some("stop it, or name another folder with `--base-dir`"),
            Self::Queue(QueueError::TooNew { .. }) => Some("use the newer paraflow, or move the file away"),
            Self::Queue(QueueError::Open { .. }) => {
                Some("a file that is damaged may be moved away: a new one is made, without its jobs and its history")
            }
            Self::Listen { .. } | Self::Queue(_) | Self::System(_) => None,
        }
    }
}

/// An answer that is no success.
#[derive(Debug)]
pub(crate) enum Fail {
    /// Nothing but its status.
    Empty(StatusCode),
    /// A sentence.
    Text(StatusCode, String),
    /// ComfyUI's shapes, or ours.
    Json(StatusCode, Json),
}

impl Fail {
    /// ComfyUI's answer to what it did not expect, a body that is no JSON for example.
    pub(crate) fn unexpected(fact: impl std::fmt::Display) -> Self {
        tracing::debug!("answered with 500: {fact}");
        Self::Text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "500 Internal Server Error\n\nServer got itself in trouble".into(),
        )
    }

    /// `{"error": text}`.
    pub(crate) fn error(status: StatusCode, text: impl Into<String>) -> Self {
        Self::Json(status, json!({"error": text.into()}))
    }

    /// Our own shape: what is wrong, and a way out.
    pub(crate) fn ours(status: StatusCode, text: impl Into<String>, hint: Option<String>) -> Self {
        Self::Json(status, json!({"error": {"message": text.into(), "hint": hint}}))
    }
}

impl From<StatusCode> for Fail {
    fn from(status: StatusCode) -> Self {
        Self::Empty(status)
    }
}

impl From<QueueError> for Fail {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Taken(_) | QueueError::KeyReused(_) => {
                Self::ours(StatusCode::CONFLICT, error.to_string(), None)
            }
            QueueError::Closed => Self::ours(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), None),
            error => {
                tracing::error!(%error, "the queue failed");
                Self::ours(StatusCode::INTERNAL_SERVER_ERROR, "the job database failed; the log has more", None)
            }
        }
    }
}

impl IntoResponse for Fail {
    fn into_response(self) -> Response {
        match self {
            Self::Empty(status) => status.into_response(),
            Self::Text(status, text) => (status, text).into_response(),
            Self::Json(status, json) => (status, [(header::CONTENT_TYPE, JSON)], json.to_string()).into_response(),
        }
    }
}

/// The content type of JSON, as ComfyUI writes it.
pub(crate) const JSON: &str = "application/json; charset=utf-8";

/// A JSON answer.
pub(crate) fn json_response(body: impl Into<axum::body::Body>) -> Response {
    ([(header::CONTENT_TYPE, JSON)], body.into()).into_response()
}

/// The value as a JSON answer.
pub(crate) fn answer(json: &Json) -> Response {
    json_response(json.to_string())
}

/// What handlers give.
pub(crate) type Answer = Result<Response, Fail>;
