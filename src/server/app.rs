//! What every handler may reach.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use paraflow_assets::Assets;

use crate::feed::Feed;
use crate::hub::Hub;
use crate::kept::Kept;
use crate::logs::Logs;
use crate::nodes::Nodes;
use crate::options::Options;
use crate::queue::Queue;
use crate::runner::Runner;

/// The state of the server, shared by all handlers.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

/// What is behind an [`App`].
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) assets: Arc<Assets>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) embedded_models: fn(&str) -> Vec<String>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) runner: Arc<Runner>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) started: Instant,
    /// Nothing new is begun: the server is going down.
    pub(crate) going: AtomicBool,
    /// Told once when the server is down, so that what waits for long lets go.
    pub(crate) closing: tokio::sync::watch::Sender<bool>,
}

impl App {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
