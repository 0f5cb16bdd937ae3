//! Events of all jobs for those who follow them over our own API, as server-sent events.

use std::sync::Arc;

use serde_json::Value as Json;
use tokio::sync::broadcast;

/// One event of one job.
#[derive(Clone, Debug)]
pub(crate) struct JobEvent {
    pub(crate) job: Arc<str>,
    pub(crate) kind: Arc<str>,
    pub(crate) data: Arc<str>,
}

/// A follower that is further behind is told that it missed something.
const KEPT: usize = 4096;

/// Where events are told, and followed.
pub(crate) struct Feed(broadcast::Sender<JobEvent>);

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }
}

impl Feed {
    /// Tells an event to those who follow.
    pub(crate) fn tell(&self, job: &str, kind: &str, data: &Json) {
        if self.0.receiver_count() > 0 {
            let data = data.to_string().into();
            let _ = self.0.send(JobEvent { job: job.into(), kind: kind.into(), data });
        }
    }

    /// How many follow.
    #[cfg(test)]
    pub(crate) fn followers(&self) -> usize {
        self.0.receiver_count()
    }

    /// All events from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<JobEvent> {
        self.0.subscribe()
    }
}
