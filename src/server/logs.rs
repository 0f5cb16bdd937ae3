//! The last lines of the log, for `/internal/logs` and those who subscribed to it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::protocol::LogLine as Line;

/// So many lines are kept, as in ComfyUI.
const KEPT: usize = 300;

/// The last lines. A writer for a `tracing` subscriber that also writes to stderr.
pub struct Logs {
    lines: Mutex<VecDeque<Line>>,
    new: broadcast::Sender<Line>,
}

impl Default for Logs {
    fn default() -> Self {
        Self { lines: Mutex::default(), new: broadcast::Sender::new(KEPT) }
    }
}

impl Logs {
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lock().iter().cloned().collect()
    }

    pub(crate) fn follow(&self) -> broadcast::Receiver<Line> {
        self.new.subscribe()
    }

    /// Keeps a line, and prints it to stderr.
    ///
    /// # Errors
    ///
    /// Never: a stderr that is closed is no reason to stop.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().lock().write_all(bytes);
        let time = jiff::Timestamp::now().to_string();
        let line = Line { time, text: String::from_utf8_lossy(bytes).into_owned() };
        let mut lines = self.lock();
        if lines.len() >= KEPT {
            lines.pop_front();
        }
        lines.push_back(line.clone());
        drop(lines);
        let _ = self.new.send(line);
        Ok(bytes.len())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A share of the log to write to.
pub struct LogWriter(pub std::sync::Arc<Logs>);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
