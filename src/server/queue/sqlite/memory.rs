//! What waits and runs, in memory: the order of the queue, and its answer to `/queue`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::queue::{Job, Move, Snapshot};

/// Order of waiting jobs: the highest priority, then the smallest number, then the smallest id.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) priority: i64,
    pub(super) position: f64,
    pub(super) id: String,
}

impl Eq for Place {}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_priority = other.priority.cmp(&self.priority);
        by_priority.then(self.position.total_cmp(&other.position)).then_with(|| self.id.cmp(&other.id))
    }
}

/// The queue in memory.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) pending: BTreeMap<Place, Arc<Job>>,
    /// Where each waiting job stands.
    pub(super) places: HashMap<String, Place>,
    pub(super) running: Vec<Arc<Job>>,
    /// Of those that run, the ones that nobody has fetched yet: they were begun with the commit that stored them.
    pub(super) handed: VecDeque<Arc<Job>>,
    /// How many wait for something to run.
    pub(super) idle: usize,
    /// How many of them a job is being stored for.
    pub(super) promised: usize,
    pub(super) paused: bool,
    pub(super) closed: bool,
    /// The next of ComfyUI's numbers.
    pub(super) counter: i64,
    /// The next of the history.
    pub(super) ended: i64,
    pub(super) snapshot: Option<Arc<Snapshot>>,
}

impl Memory {
    pub(super) fn remaining(&self) -> usize {
        self.pending.len() + self.running.len()
    }

    /// Whether a job that comes now would be begun at once, because someone waits for it and no other does. Then that one
    /// is promised to it.
    pub(super) fn promise(&mut self) -> bool {
        let free = self.idle > self.promised + self.handed.len();
        let begins = free && self.pending.is_empty() && !self.paused && !self.closed;
        self.promised += usize::from(begins);
        begins
    }

    /// A job that waits is begun; whoever fetches next gets it.
    pub(super) fn hand(&mut self, id: &str) {
        if let Some((_, job)) = self.take_out(id) {
            self.running.push(Arc::clone(&job));
            self.handed.push_back(job);
        }
    }

    pub(super) fn insert(&mut self, job: Arc<Job>) {
        let place = Place { priority: job.priority, position: job.position, id: job.id.clone() };
        self.places.insert(job.id.clone(), place.clone());
        self.pending.insert(place, job);
    }

    pub(super) fn take_out(&mut self, id: &str) -> Option<(Place, Arc<Job>)> {
        let place = self.places.remove(id)?;
        let job = self.pending.remove(&place)?;
        Some((place, job))
    }

    pub(super) fn snapshot(&mut self) -> Arc<Snapshot> {
        if let Some(snapshot) = &self.snapshot {
            return Arc::clone(snapshot);
        }
        let pending: Vec<_> = self.pending.values().cloned().collect();
        let body = queue_body(&self.running, &pending);
        let snapshot = Arc::new(Snapshot { running: self.running.clone(), pending, paused: self.paused, body });
        self.snapshot = Some(Arc::clone(&snapshot));
        snapshot
    }

    /// The job runs no more. Who tells of it is the one that ran it: after its last event.
    pub(super) fn retire(&mut self, job: &Arc<Job>) {
        self.running.retain(|running| !Arc::ptr_eq(running, job));
        self.snapshot = None;
    }

    /// Gives the new place, if both jobs wait.
    pub(super) fn reorder(&mut self, id: &str, to: &Move) -> Option<Place> {
        let place = self.places.get(id)?.clone();
        let (priority, position) = match to {
            Move::Before(other) if other == id => return Some(place),
            Move::Before(other) => {
                let other = self.places.get(other)?;
                let before = self.pending.range(..other.clone()).next_back().map(|(place, _)| place);
                let before = before.filter(|before| before.priority == other.priority);
                let position =
                    before.map_or(other.position - 1.0, |before| f64::midpoint(before.position, other.position));
                (other.priority, position)
            }
            Move::First | Move::Last => {
                let same = self.pending.keys().filter(|other| other.priority == place.priority && other.id != id);
                let positions = same.map(|other| other.position);
                let position = match to {
                    Move::First => positions.fold(f64::INFINITY, f64::min) - 1.0,
                    _ => positions.fold(f64::NEG_INFINITY, f64::max) + 1.0,
                };
                (place.priority, if position.is_finite() { position } else { place.position })
            }
        };
        let (_, job) = self.take_out(id)?;
        self.insert(Arc::new(Job { priority, position, ..(*job).clone() }));
        self.places.get(id).cloned()
    }
}

fn queue_body(running: &[Arc<Job>], pending: &[Arc<Job>]) -> Bytes {
    let list = |jobs: &[Arc<Job>]| jobs.iter().map(|job| job.item.as_str()).collect::<Vec<_>>().join(", ");
    format!("{{\"queue_running\": [{}], \"queue_pending\": [{}]}}", list(running), list(pending)).into()
}
