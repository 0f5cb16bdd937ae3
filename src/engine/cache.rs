//! Results of earlier runs by signature, within a budget of memory.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value as Json;

use crate::value::Value;

/// What stands for a node's result: a hash of the node, its literals, the files it reads, and all of that upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signature(pub(crate) [u8; 32]);

impl Hash for Signature {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(&self.0);
    }
}

/// What a node gave, over all its calls.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// By slot, the list on its wire.
    pub(crate) slots: Vec<Vec<Value>>,
    /// What it shows.
    pub(crate) ui: Option<Arc<Json>>,
}

impl Outcome {
    /// What the values take in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.values().map(Value::bytes).fold(0, usize::saturating_add)
    }

    fn values(&self) -> impl Iterator<Item = &Value> {
        self.slots.iter().flatten()
    }
}

/// Results of earlier runs, shared by all executors that have a clone of its `Arc`.
///
/// When they outgrow the budget, those go that no run has used for longest. A result that alone is larger than the
/// budget is not kept at all. Evicting a model is dropping its value: a run that still reads it keeps its own share.
pub struct Cache {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_signature: BySignature<Entry>,
    /// How many entries hold a share of the value, by its address: a value that several nodes hand on is there once.
    shares: HashMap<usize, usize>,
    budget_bytes: usize,
    bytes: usize,
    /// Runs so far.
    run: u64,
    /// Results kept so far.
    added: u64,
}

struct Entry {
    outcome: Arc<Outcome>,
    last_run: u64,
    /// Of those last used in one run, the older goes first.
    added: u64,
}

/// What an entry costs besides its values, so that a cache of small ones is bounded too.
const ENTRY_BYTES: usize = 256;

impl Cache {
    /// An empty cache for so many bytes.
    #[must_use]
    pub fn new(budget_bytes: usize) -> Self {
        Self { entries: Mutex::new(Entries { budget_bytes, ..Entries::default() }) }
    }

    /// How many bytes the results take, by their own count.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// How many results there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().by_signature.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes the budget, and drops what no longer fits.
    pub fn set_budget(&self, bytes: usize) {
        let mut entries = self.lock();
        entries.budget_bytes = bytes;
        entries.evict();
    }

    /// Drops everything.
    pub fn clear(&self) {
        let mut entries = self.lock();
        entries.by_signature.clear();
        entries.shares.clear();
        entries.bytes = 0;
    }

    /// A new run, by number: what is found or added from now on counts as used in it.
    pub(crate) fn begin_run(&self) -> u64 {
        let mut entries = self.lock();
        entries.run += 1;
        entries.run
    }

    /// The result of each signature, if it is there.
    pub(crate) fn find_all<'s>(&self, signatures: impl Iterator<Item = &'s Signature>) -> Vec<Option<Arc<Outcome>>> {
        let mut entries = self.lock();
        signatures.map(|signature| entries.find(signature)).collect()
    }

    pub(crate) fn find(&self, signature: &Signature) -> Option<Arc<Outcome>> {
        self.lock().find(signature)
    }

    pub(crate) fn insert(&self, signature: Signature, outcome: &Arc<Outcome>) {
        let alone = outcome.bytes().saturating_add(ENTRY_BYTES);
        let mut entries = self.lock();
        // Two runs at once may both have made it.
        if alone > entries.budget_bytes || entries.by_signature.contains_key(&signature) {
            return;
        }
        entries.added += 1;
        let entry = Entry { outcome: Arc::clone(outcome), last_run: entries.run, added: entries.added };
        entries.by_signature.insert(signature, entry);
        entries.count(outcome);
        entries.evict();
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Each change leaves the entries whole, so a panic elsewhere does not spoil them.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn find(&mut self, signature: &Signature) -> Option<Arc<Outcome>> {
        let entry = self.by_signature.get_mut(signature)?;
        entry.last_run = self.run;
        Some(Arc::clone(&entry.outcome))
    }

    /// Adds what the outcome takes to the sum.
    fn count(&mut self, outcome: &Outcome) {
        self.bytes += ENTRY_BYTES;
        for value in outcome.values() {
            let shares = self.shares.entry(value.address()).or_insert(0);
            *shares += 1;
            if *shares == 1 {
                self.bytes += value.bytes();
            }
        }
    }

    /// Takes what the outcome took off the sum.
    fn discount(&mut self, outcome: &Outcome) {
        self.bytes -= ENTRY_BYTES;
        for value in outcome.values() {
            let shares = self.shares.get_mut(&value.address()).expect("an entry's values are counted");
            *shares -= 1;
            if *shares == 0 {
                self.shares.remove(&value.address());
                self.bytes -= value.bytes();
            }
        }
    }

    /// Drops the longest unused until the rest fits, with an eighth to spare, so that the search is not for one entry.
    fn evict(&mut self) {
        if self.bytes <= self.budget_bytes {
            return;
        }
        let enough = self.budget_bytes - self.budget_bytes / 8;
        let mut oldest: Vec<(u64, u64, Signature)> =
            self.by_signature.iter().map(|(key, entry)| (entry.last_run, entry.added, *key)).collect();
        oldest.sort_unstable_by_key(|(last_run, added, _)| (*last_run, *added));
        for (.., signature) in oldest {
            if self.bytes <= enough {
                break;
            }
            let entry = self.by_signature.remove(&signature).expect("the signature is one of the map's");
            self.discount(&entry.outcome);
        }
    }
}

/// A map whose keys need no hashing: a signature is a hash.
pub(crate) type BySignature<T> = HashMap<Signature, T, BuildHasherDefault<Passthrough>>;

#[derive(Default)]
pub(crate) struct Passthrough(u64);

impl Hasher for Passthrough {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(word) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*word);
        }
    }
}
