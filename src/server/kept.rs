//! What runs under way have told of ours: loss curves, sample pictures, warnings. Whoever comes back, or begins to
//! follow late, gets it again before anything new, each message once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::feed::{Feed, JobEvent};
use crate::hub::{Client, Frame, Hub, To};
use crate::protocol::{Loss, Message};

/// A longer curve is thinned out: every second point without a validation goes.
const MOST_POINTS: usize = 4096;

/// What runs have told so far.
pub(crate) struct Kept {
    hub: Arc<Hub>,
    feed: Arc<Feed>,
    runs: Mutex<HashMap<String, Story>>,
}

/// What one run has told.
#[derive(Default)]
struct Story {
    client: Option<String>,
    losses: Vec<Loss>,
    others: Vec<Message>,
}

impl Story {
    fn add(&mut self, message: &Message) {
        let Message::Loss(point) = message else {
            self.others.push(message.clone());
            return;
        };
        self.losses.push(point.clone());
        if self.losses.len() > MOST_POINTS {
            let mut number = 0;
            self.losses.retain(|point| {
                number += 1;
                number % 2 == 1 || point.validation.is_some()
            });
        }
    }

    fn messages(&self) -> impl Iterator<Item = Message> {
        let losses = self.losses.iter().cloned().map(Message::Loss);
        losses.chain(self.others.iter().cloned())
    }
}

impl Kept {
    pub(crate) fn new(hub: Arc<Hub>, feed: Arc<Feed>) -> Self {
        Self { hub, feed, runs: Mutex::default() }
    }

    /// A run begins, of which a process that died has told that already.
    pub(crate) fn begin(&self, job: &str, client: Option<&str>, others: Vec<Message>) {
        let story = Story { client: client.map(str::to_owned), others, ..Story::default() };
        self.runs().insert(job.to_owned(), story);
    }

    /// The run is over; what it showed is in the books.
    pub(crate) fn end(&self, job: &str) {
        self.runs().remove(job);
    }

    /// Tells it to those who follow, and keeps it for those who will.
    pub(crate) fn tell(&self, job: &str, message: &Message) {
        let mut runs = self.runs();
        let (kind, data) = message.parts();
        if let Some(story) = runs.get_mut(job) {
            story.add(message);
            self.hub.send_ours(story.client.as_deref().map_or(To::All, To::One), &Frame::event(&kind, &data));
        }
        self.feed.tell(job, &kind, &data);
    }

    /// Takes in a client's handshake. One that wants our events also gets those that its runs told before.
    pub(crate) fn welcome(&self, client: &Client, flags: &serde_json::Value) {
        let runs = self.runs();
        client.set_flags(flags);
        if !client.wants_ours() {
            return;
        }
        for story in runs.values().filter(|story| story.client.as_ref().is_none_or(|id| *id == client.id)) {
            story.messages().for_each(|message| client.send(Frame::message(&message)));
        }
    }

    /// What the job has told, and all events of all jobs from then on.
    pub(crate) fn follow(&self, job: &str) -> (Vec<Message>, broadcast::Receiver<JobEvent>) {
        let runs = self.runs();
        let told = runs.get(job).map(|story| story.messages().collect()).unwrap_or_default();
        (told, self.feed.follow())
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<String, Story>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_is_thinned_out_and_keeps_its_validations_and_its_end() {
        let mut story = Story::default();
        for step in 1..=20_000 {
            let validation = (step % 100 == 0).then_some(0.5);
            story.add(&Message::Loss(Loss {
                node: "1".into(),
                step,
                total: 20_000,
                loss: 1.0,
                learning_rate: 1e-4,
                validation,
                prompt_id: "p".into(),
            }));
        }
        assert!(story.losses.len() <= MOST_POINTS);
        assert_eq!(story.losses.iter().filter(|point| point.validation.is_some()).count(), 200);
        assert_eq!(story.losses.last().unwrap().step, 20_000);
        assert!(story.losses.is_sorted_by_key(|point| point.step));
    }
}
