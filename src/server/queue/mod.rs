//! Jobs that wait, run and have ended, behind one narrow interface: [`Queue`].
//!
//! A job is stored before its submission is answered. Whoever runs jobs only takes one and says how it ended, so that
//! workers elsewhere may one day do it over a broker. Knows no HTTP and runs nothing.

mod db;
mod schema;
mod sqlite;
#[cfg(test)]
mod tests;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value as Json;
use tokio::sync::{oneshot, watch};

pub use self::sqlite::{OnChange, SqliteQueue};

/// Why the books could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// The database refused.
    #[error("the job database failed: {0}")]
    Database(Arc<rusqlite::Error>),
    /// Another server uses the same database.
    #[error("another paraflow server already uses `{0}`")]
    InUse(String),
    /// The file cannot be opened.
    #[error("cannot open `{path}`: {fact}")]
    Open {
        /// Which file.
        path: String,
        /// The system's words.
        fact: String,
    },
    /// The database was made by a later version.
    #[error("`{path}` was made by a later paraflow (schema {found}, this one knows {known})")]
    TooNew {
        /// Which file.
        path: String,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A job of that id is there already.
    #[error("there is a job `{0}` already")]
    Taken(String),
    /// The idempotency key was used for another request.
    #[error("the idempotency key `{0}` was used for another request")]
    KeyReused(String),
    /// The queue is closing.
    #[error("the server is shutting down")]
    Closed,
}

impl From<rusqlite::Error> for QueueError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

/// An answer that comes when the books are written: awaited by requests, waited for by threads.
pub struct Reply<T>(oneshot::Receiver<Result<T, QueueError>>);

impl<T> Reply<T> {
    fn new() -> (oneshot::Sender<Result<T, QueueError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// Blocks this thread until the answer is there. Not for asynchronous code.
    ///
    /// # Errors
    ///
    /// The one that the books gave.
    pub fn wait(self) -> Result<T, QueueError> {
        self.0.blocking_recv().unwrap_or(Err(QueueError::Closed))
    }
}

impl<T: Send + 'static> IntoFuture for Reply<T> {
    type Output = Result<T, QueueError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async { self.0.await.unwrap_or(Err(QueueError::Closed)) })
    }
}

/// A job as it is submitted.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its id, chosen by the client or made up.
    pub id: String,
    /// ComfyUI's order: a client's number, or `None` for the next of the counter.
    pub number: Option<f64>,
    /// Goes before all that wait: the counter's number is negated.
    pub front: bool,
    /// Ours: a higher one goes first, whatever the number. 0 where nothing is said.
    pub priority: i64,
    /// The API prompt, literals converted.
    pub prompt: Json,
    /// What came beside the prompt, tokens of others' services removed.
    pub extra: Json,
    /// The outputs to run for.
    pub outputs: Vec<String>,
    /// Where its events go.
    pub client: Option<String>,
    /// Ours: equal keys are one job.
    pub key: Option<Key>,
    /// Ours: who is told of the end.
    pub webhook: Option<String>,
    /// Ours: how long it may run.
    pub timeout_ms: Option<u64>,
}

/// An idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The client's word.
    pub name: String,
    /// A hash of the request that used it.
    pub request: String,
}

/// What a submission is answered with.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The job's id: an earlier job's where the idempotency key was known.
    pub id: String,
    /// Its number.
    pub number: serde_json::Number,
    /// Whether it was there before.
    pub repeated: bool,
}

/// A job that waits or runs.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// ComfyUI's number.
    pub number: serde_json::Number,
    /// Ours: a higher one goes first.
    pub priority: i64,
    /// Among those of its priority, the smallest goes first: the number, until someone moves the job.
    pub position: f64,
    /// The API prompt.
    pub prompt: Json,
    /// What came beside it, with `client_id` and `create_time`.
    pub extra: Json,
    /// The outputs to run for.
    pub outputs: Vec<String>,
    /// Where its events go.
    pub client: Option<String>,
    /// When it was submitted, in milliseconds since 1970.
    pub created: i64,
    /// How long it may run.
    pub timeout_ms: Option<u64>,
    /// Who is told of the end.
    pub webhook: Option<String>,
    /// How often it was begun and not ended, because the process died.
    pub attempts: u32,
    /// Whether a process before this one began it, and died or was stopped.
    pub begun: bool,
    /// `[number, id, prompt, extra, outputs]` as it is sent.
    pub item: String,
}

impl Job {
    /// The UI workflow's id, if a workflow came along.
    #[must_use]
    pub fn workflow_id(&self) -> Option<&str> {
        self.extra.pointer("/extra_pnginfo/workflow/id").and_then(Json::as_str)
    }
}

/// What stands in the books of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits.
    Queued,
    /// It runs.
    Running,
    /// Every output was made.
    Done,
    /// A node failed.
    Failed,
    /// Someone stopped it.
    Cancelled,
}

impl State {
    /// As it is stored and told.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Queued, Self::Running, Self::Done, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|state| state.as_str() == name)
    }

    /// Whether it will not change any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// How a job ended, for the books.
#[derive(Clone, Debug)]
pub struct End {
    /// [`State::Done`], [`State::Failed`] or [`State::Cancelled`].
    pub state: State,
    /// What each output showed, by node.
    pub outputs: Json,
    /// ComfyUI's `status`: `status_str`, `completed`, `messages`.
    pub status: Json,
    /// ComfyUI's `meta`, by node.
    pub meta: Json,
    /// Why it failed, in words.
    pub error: Option<String>,
    /// The files it made.
    pub artefacts: Vec<Artefact>,
}

/// How much of the history to keep.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// So many, the newest.
    pub count: u64,
    /// Of those, what ended at this time or later, in milliseconds since 1970.
    pub since: Option<i64>,
}

/// A file that a job made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artefact {
    /// The node.
    pub node: String,
    /// The key under which the node showed it: `images`; `samples` for pictures of a training.
    pub kind: String,
    /// After which step of a training it was made.
    pub step: Option<u32>,
    /// Its name without folders.
    pub filename: String,
    /// Its folder below the root.
    pub subfolder: String,
    /// `output` or `temp`.
    pub place: String,
    /// Its size, if it was there when the job ended.
    pub bytes: Option<u64>,
    /// Its BLAKE3, if it was there when the job ended.
    pub blake3: Option<String>,
}

/// All that is known of a job, waiting, running or ended.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// ComfyUI's number.
    pub number: serde_json::Number,
    /// Ours: a higher one goes first.
    pub priority: i64,
    /// JSON: the API prompt.
    pub prompt: String,
    /// JSON: what came beside it.
    pub extra: String,
    /// JSON: the outputs to run for.
    pub targets: String,
    /// When it was submitted, in milliseconds since 1970.
    pub created: i64,
    /// When it began.
    pub started: Option<i64>,
    /// When it ended.
    pub ended: Option<i64>,
    /// How often it was begun.
    pub attempts: u32,
    /// JSON: what each output showed.
    pub outputs: Option<String>,
    /// JSON: ComfyUI's status.
    pub status: Option<String>,
    /// JSON: ComfyUI's meta.
    pub meta: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// The UI workflow's id, if a workflow came along.
    pub workflow: Option<String>,
}

/// Which jobs to list, in which order.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Only these states; none: all.
    pub states: Vec<State>,
    /// Only those of the workflow with this id.
    pub workflow: Option<String>,
    /// By how long they ran instead of when they were submitted.
    pub by_duration: bool,
    /// The smallest first.
    pub ascending: bool,
    /// How many to leave out.
    pub offset: u64,
    /// At most so many.
    pub limit: Option<u64>,
}

/// Which jobs of the past to list.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Only these states; none: all that are over.
    pub states: Vec<State>,
    /// Only those whose prompt, workflow or id holds this text.
    pub text: Option<String>,
    /// Ended at this time or later, in milliseconds since 1970.
    pub since: Option<i64>,
    /// Ended before this time.
    pub until: Option<i64>,
    /// How many to leave out, newest first.
    pub offset: u64,
    /// At most so many.
    pub limit: u64,
}

/// A window of the history, oldest first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    /// At most so many; without an offset, the last ones.
    pub max_items: Option<i64>,
    /// How many to leave out from the oldest on.
    pub offset: Option<i64>,
}

/// The queue as it is now.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Those that run.
    pub running: Vec<Arc<Job>>,
    /// Those that wait, the next one first.
    pub pending: Vec<Arc<Job>>,
    /// Whether nothing new is begun.
    pub paused: bool,
    /// `GET /queue`, as it is sent.
    pub body: bytes::Bytes,
}

/// Where a waiting job is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Before all others of its priority.
    First,
    /// After all others of its priority.
    Last,
    /// Right before that job, with its priority.
    Before(String),
}

/// The queue and the history.
pub trait Queue: Send + Sync {
    /// Stores a job. Answered when it is stored.
    fn submit(&self, job: NewJob) -> Reply<Receipt>;
    /// The next number of the counter is nobody's: a prompt that would have had it was refused.
    fn skip_number(&self);
    /// The next job, which then runs; waits for one. `None` once the queue is closed.
    fn take(&self) -> Option<Arc<Job>>;
    /// Writes down how a job ended, after the files that were shown before, and forgets what of the history is not to be
    /// kept any more. Answered when it is stored.
    fn finish(&self, job: &Arc<Job>, end: End, keep: Retention) -> Reply<()>;
    /// Writes down a file that a running job made, in the place of an earlier one of that node, kind and step.
    fn show(&self, id: &str, artefact: Artefact) -> Reply<()>;
    /// A running job waits again, as if it had not begun.
    fn park(&self, job: &Arc<Job>) -> Reply<()>;
    /// Takes waiting jobs out. Gives the ids of those that were there.
    fn remove(&self, ids: &[String]) -> Reply<Vec<String>>;
    /// Takes all waiting jobs out.
    fn clear(&self) -> Reply<usize>;
    /// Gives a waiting job another place. `false`: it does not wait, or the other does not.
    fn reorder(&self, id: &str, to: Move) -> Reply<bool>;
    /// Gives a waiting job another priority. `false`: it does not wait.
    fn prioritise(&self, id: &str, priority: i64) -> Reply<bool>;
    /// Begins nothing new, or goes on.
    fn pause(&self, paused: bool) -> Reply<()>;
    /// What waits and runs.
    fn snapshot(&self) -> Arc<Snapshot>;
    /// How many wait or run.
    fn remaining(&self) -> usize;
    /// A number that grows with every change of any job.
    fn changes(&self) -> watch::Receiver<u64>;
    /// A job by id, whatever its state.
    fn find(&self, id: &str) -> Reply<Option<Record>>;
    /// The history in ComfyUI's order.
    fn history(&self, window: Window) -> Reply<Vec<Record>>;
    /// The history by content, newest first, and how many there are in all.
    fn search(&self, search: Search) -> Reply<(Vec<Record>, u64)>;
    /// Jobs of any state, and how many there are in all.
    fn list(&self, listing: Listing) -> Reply<(Vec<Record>, u64)>;
    /// Forgets jobs that are over. Gives how many there were.
    fn forget(&self, ids: &[String]) -> Reply<usize>;
    /// Forgets all jobs that are over.
    fn forget_all(&self) -> Reply<usize>;
    /// Keeps the newest `keep` of the history, and of those what ended at `since` or later.
    fn prune(&self, keep: u64, since: Option<i64>) -> Reply<usize>;
    /// The files that a job made.
    fn artefacts(&self, id: &str) -> Reply<Vec<Artefact>>;
    /// The files below `output` or `temp` that any job made.
    fn artefacts_in(&self, place: &str) -> Reply<Vec<Artefact>>;
    /// Ended jobs whose webhook has not been told: id and address.
    fn untold(&self) -> Reply<Vec<(String, String)>>;
    /// The webhook of this job was told, or given up.
    fn told(&self, id: &str) -> Reply<()>;
    /// Begins nothing more; whoever waits in [`Queue::take`] gets `None`.
    fn close(&self);
}
