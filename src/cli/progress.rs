//! The events of a run as a person sees them: one moving line on a terminal, warnings and errors anywhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use paraflow_engine::graph::Graph;
use paraflow_engine::{Event, LossPoint};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::report;

/// Draws progress; on no terminal it stays silent but for warnings and errors.
pub(crate) struct Progress {
    names: BTreeMap<String, String>,
    bar: ProgressBar,
    /// The node that the bar shows.
    shown: Mutex<Option<String>>,
}

impl Progress {
    /// For a run of this graph, in this line.
    pub(crate) fn of(graph: &Graph, bar: ProgressBar) -> Self {
        let name = |entry: &paraflow_engine::graph::Entry| entry.title.clone().unwrap_or_else(|| entry.class.clone());
        Self {
            names: graph.nodes.iter().map(|(id, entry)| (id.clone(), name(entry))).collect(),
            bar,
            shown: Mutex::new(None),
        }
    }

    /// Draws one event. Called from several threads.
    pub(crate) fn show(&self, event: &Event) {
        match event {
            Event::Started { node } => self.begin(node),
            Event::Progress { node, done, total } => self.advance(node, *done, *total),
            Event::Loss { node, point } => self.tell_loss(node, point),
            Event::Warning { node, text } => {
                self.bar.suspend(|| report::warning(format_args!("{}: {text}", self.place(node))));
            }
            Event::Blocked { node, text } => {
                self.bar.suspend(|| report::warning(format_args!("{}: not run: {text}", self.place(node))));
            }
            Event::Failed { node, class, error } => {
                self.bar.finish_and_clear();
                report::error(format_args!("node {node} ({class}): {error}"), error.hint());
            }
            Event::Cancelled | Event::Done => self.bar.finish_and_clear(),
            Event::Planned { .. }
            | Event::Cached { .. }
            | Event::Preview { .. }
            | Event::Sample { .. }
            | Event::Output { .. }
            | Event::Finished { .. } => {}
        }
    }

    fn begin(&self, node: &str) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(node.to_owned());
        self.bar.unset_length();
        self.bar.set_style(style("{spinner} {msg}"));
        self.bar.set_message(self.name(node).to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    fn advance(&self, node: &str, done: u32, total: u32) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.as_deref() != Some(node) || self.bar.length() != Some(total.into()) {
            *shown = Some(node.to_owned());
            self.bar.set_style(style("{spinner} {msg} [{bar:30}] {pos}/{len}  {per_sec}  {eta} left"));
            self.bar.set_message(self.name(node).to_owned());
            self.bar.set_length(total.into());
            self.bar.reset_eta();
        }
        self.bar.set_position(done.into());
    }

    /// The loss takes its place in the moving line.
    fn tell_loss(&self, node: &str, point: &LossPoint) {
        let validation = point.validation.map_or_else(String::new, |loss| format!(", validation {loss:.4}"));
        self.advance(node, point.step, point.total);
        self.bar.set_message(format!("{}  loss {:.4}{validation}", self.name(node), point.loss));
    }

    fn name<'a>(&'a self, node: &'a str) -> &'a str {
        self.names.get(node).map_or(node, String::as_str)
    }

    fn place(&self, node: &str) -> String {
        format!("node {node} ({})", self.name(node))
    }
}

/// A line that moves, on a terminal.
pub(crate) fn bar() -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(None, target)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are well formed").progress_chars("=> ")
}
