//! The compute lane: one node at a time, over all runs of an executor.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Hands out one turn at a time.
#[derive(Default)]
pub(crate) struct ComputeLane {
    busy: Mutex<bool>,
    free: Condvar,
}

/// A turn on the lane, until it is dropped.
pub(crate) struct Turn<'l>(&'l ComputeLane);

/// How often someone who waits looks whether to go on waiting.
const LOOK: Duration = Duration::from_millis(20);

impl ComputeLane {
    /// Waits for a turn, or until there is no point in waiting any more.
    pub(crate) fn enter(&self, give_up: impl Fn() -> bool) -> Option<Turn<'_>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while *busy {
            if give_up() {
                return None;
            }
            (busy, _) = self.free.wait_timeout(busy, LOOK).unwrap_or_else(PoisonError::into_inner);
        }
        *busy = true;
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.busy.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_one();
    }
}
