//! The table of `progress_state`: how far each node is, sent whole at every change.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::hub::Frame;
use crate::protocol::{NodeProgress, NodeState};

/// From so many nodes on, their whole table is not sent at every change, but at most every [`TABLE_PAUSE`].
const LARGE_TABLE: usize = 200;
const TABLE_PAUSE: Duration = Duration::from_millis(50);

/// An entry a node that is not pending.
#[derive(Default)]
pub(super) struct Table {
    positions: HashMap<String, usize>,
    /// An entry's maximum, and the entry as it is sent.
    entries: Vec<(f64, String)>,
    sent: Option<Instant>,
    unsent: bool,
}

impl Table {
    /// Whether the node is in it.
    pub(super) fn has(&self, node: &str) -> bool {
        self.positions.contains_key(node)
    }

    /// What is to be told of a node from now on.
    pub(super) fn set(&mut self, job: &str, node: &str, value: f64, max: f64, state: NodeState) {
        let entry = (max, entry(job, node, value, max, state));
        match self.positions.get(node) {
            Some(&position) => self.entries[position] = entry,
            None => {
                self.positions.insert(node.to_owned(), self.entries.len());
                self.entries.push(entry);
            }
        }
    }

    /// A finished node's value is its maximum, which may have become another than 1.
    pub(super) fn finish(&mut self, job: &str, node: &str) {
        let max = self.positions.get(node).map_or(1.0, |&position| self.entries[position].0);
        self.set(job, node, max, max, NodeState::Finished);
    }

    /// Whether it is sent now, which then counts as done: a large one not at every change, but the `last` time if it has
    /// changed since.
    pub(super) fn is_due(&mut self, last: bool) -> bool {
        let pause = self.entries.len() >= LARGE_TABLE && self.sent.is_some_and(|sent| sent.elapsed() < TABLE_PAUSE);
        if last && !self.unsent {
            return false;
        }
        self.unsent = pause && !last;
        if self.unsent {
            return false;
        }
        self.sent = Some(Instant::now());
        true
    }

    /// The message: written by hand, since most of it was written before.
    pub(super) fn frame(&self, job: &str) -> Frame {
        let mut text =
            String::with_capacity(self.entries.iter().map(|(_, entry)| entry.len() + 2).sum::<usize>() + 120);
        let job = Json::from(job);
        let _ = write!(text, "{{\"type\": \"progress_state\", \"data\": {{\"prompt_id\": {job}, \"nodes\": {{");
        for (at, (_, entry)) in self.entries.iter().enumerate() {
            text.push_str(if at > 0 { ", " } else { "" });
            text.push_str(entry);
        }
        text.push_str("}}}");
        Frame::Text(text.into())
    }
}

/// `"id": {…}` of the table.
fn entry(job: &str, node: &str, value: f64, max: f64, state: NodeState) -> String {
    let node = node.to_owned();
    let progress = NodeProgress {
        value,
        max,
        state,
        node_id: node.clone(),
        prompt_id: job.to_owned(),
        display_node_id: node.clone(),
        parent_node_id: None,
        real_node_id: node.clone(),
    };
    format!("{}: {}", Json::from(node), serde_json::to_string(&progress).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Message;

    #[test]
    fn a_table_is_json_with_floats() {
        let mut table = Table::default();
        table.set("p", "a\"b", 3.0, 20.0, NodeState::Running);
        table.finish("p", "a\"b");
        let Frame::Text(text) = table.frame("p") else { panic!("text") };
        let json: Json = serde_json::from_slice(&text).unwrap();
        let node = &json["data"]["nodes"]["a\"b"];
        assert_eq!((node["value"].as_f64(), node["max"].as_f64()), (Some(20.0), Some(20.0)));
        assert!(String::from_utf8(text.to_vec()).unwrap().contains("\"value\":20.0"));
        let Ok(Message::ProgressState(_)) = serde_json::from_slice(&text) else { panic!("not of its shape") };
    }

    #[test]
    fn a_large_table_is_sent_seldom_and_its_last_state_always() {
        let mut table = Table::default();
        for node in 0..LARGE_TABLE {
            table.set("p", &node.to_string(), 0.0, 1.0, NodeState::Running);
        }
        assert!(table.is_due(false), "the first");
        assert!(!table.is_due(false), "so soon");
        assert!(table.is_due(true), "the last is not lost");
        assert!(!table.is_due(true), "nor told twice");
    }
}
