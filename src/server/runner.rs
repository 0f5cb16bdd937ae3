//! Takes jobs from the queue and runs them, each on a thread of its own kind: planning, running, writing down the end.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use paraflow_assets::Assets;
use paraflow_engine::{Cache, Cancel, Ended, Executor, Plan, formats};
use serde_json::{Value as Json, json};

use crate::artefacts;
use crate::feed::Feed;
use crate::frames::{Ears, Report, Told, status};
use crate::hub::{Hub, Keep, To};
use crate::kept::Kept;
use crate::nodes::Nodes;
use crate::options::PreviewMethod;
use crate::queue::{End, Job, Queue, QueueError, Retention, State};
use crate::time::now_ms;
use crate::webhook::Webhooks;
use crate::why::Memory;

/// What runs jobs.
pub(crate) struct Runner {
    queue: Arc<dyn Queue>,
    hub: Arc<Hub>,
    feed: Arc<Feed>,
    kept: Arc<Kept>,
    memory: Memory,
    nodes: Arc<Nodes>,
    assets: Arc<Assets>,
    executor: Executor,
    default_previews: PreviewMethod,
    keep: (u64, Option<Duration>),
    webhooks: Webhooks,
    running: Mutex<Runs>,
    free: AtomicBool,
    /// The server goes down.
    closing: AtomicBool,
    /// Whether an end waits to be written down.
    waiting: AtomicBool,
}

/// What is under way.
#[derive(Default)]
struct Runs {
    by_id: HashMap<String, Arc<Running>>,
    /// Jobs that run by the books, and were stopped before anyone had fetched them.
    stopped: HashSet<String>,
}

/// A job under way, and the ways to end it early.
struct Running {
    cancel: Cancel,
    /// It is to wait again: the server is going down.
    park: AtomicBool,
    /// Its time is over.
    out_of_time: AtomicBool,
    client: Option<String>,
    last_node: Mutex<Option<String>>,
}

/// What [`Runner`] is made of.
pub(crate) struct Parts {
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) assets: Arc<Assets>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) default_previews: PreviewMethod,
    /// How many ended jobs to keep, and for how long.
    pub(crate) keep: (u64, Option<Duration>),
    pub(crate) webhooks: Webhooks,
}

impl Runner {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { queue, hub, feed, kept, nodes, assets, cache, default_previews, keep, webhooks } = parts;
        let executor = Executor::new(cache);
        let running = Mutex::default();
        let (free, closing, waiting) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        Self {
            queue,
            hub,
            feed,
            kept,
            memory: Memory::default(),
            nodes,
            assets,
            executor,
            default_previews,
            keep,
            webhooks,
            running,
            free,
            closing,
            waiting,
        }
    }

    /// Starts `count` threads that run jobs until the queue is closed.
    pub(crate) fn start(self: &Arc<Self>, count: usize) -> std::io::Result<Vec<thread::JoinHandle<()>>> {
        let spawn = |number| {
            let runner = Arc::clone(self);
            thread::Builder::new().name(format!("job-{number}")).spawn(move || runner.work())
        };
        (0..count.max(1)).map(spawn).collect()
    }

    fn work(&self) {
        while let Some(job) = self.queue.take() {
            self.run(&job);
            self.running().stopped.remove(&job.id);
            if self.free.swap(false, Ordering::Relaxed) {
                self.executor.cache.clear();
            }
        }
    }

    /// Stops running jobs: that one, or all. Gives whether there was one.
    pub(crate) fn interrupt(&self, id: Option<&str>) -> bool {
        let mut running = self.running();
        let mut found = false;
        for job in self.queue.snapshot().running.iter().filter(|job| id.is_none_or(|id| id == job.id)) {
            found = true;
            match running.by_id.get(&job.id) {
                Some(run) => run.cancel.cancel(),
                None => drop(running.stopped.insert(job.id.clone())),
            }
        }
        found
    }

    /// Lets go of what earlier runs left, now or once the running job is over.
    pub(crate) fn free(&self) {
        if self.running().by_id.is_empty() {
            self.executor.cache.clear();
        } else {
            self.free.store(true, Ordering::Relaxed);
        }
    }

    /// Bytes and number of results that are kept.
    pub(crate) fn cached(&self) -> (usize, usize) {
        (self.executor.cache.bytes(), self.executor.cache.len())
    }

    /// The node that the running job of this client is at.
    pub(crate) fn node_of_client(&self, client: &str) -> Option<String> {
        let running = self.running();
        let run = running.by_id.values().find(|run| run.client.as_deref() == Some(client))?;
        lock(&run.last_node).clone()
    }

    /// How many jobs run.
    pub(crate) fn busy(&self) -> usize {
        self.running().by_id.len()
    }

    /// Stops all that runs; it waits again.
    pub(crate) fn park_all(&self) {
        self.closing.store(true, Ordering::Relaxed);
        #[expect(clippy::iter_over_hash_type, reason = "all are told the same")]
        for run in self.running().by_id.values() {
            run.park.store(true, Ordering::Relaxed);
            run.cancel.cancel();
        }
    }

    fn run(&self, job: &Arc<Job>) {
        let span = tracing::info_span!("job", id = job.id);
        let _in = span.enter();
        let run = Arc::new(Running {
            cancel: Cancel::new(),
            park: AtomicBool::new(false),
            out_of_time: AtomicBool::new(false),
            client: job.client.clone(),
            last_node: Mutex::default(),
        });
        {
            let mut running = self.running();
            if running.stopped.contains(&job.id) {
                run.cancel.cancel();
            }
            running.by_id.insert(job.id.clone(), Arc::clone(&run));
        }
        tracing::info!(number = %job.number, attempts = job.attempts, "job begins");
        let begun = std::time::Instant::now();
        let _timer = job.timeout_ms.map(|ms| Timer::start(Duration::from_millis(ms), &run));

        let method = PreviewMethod::of(&job.extra).unwrap_or(self.default_previews);
        let nodes = self.nodes.now();
        let registry = match method {
            PreviewMethod::None => &nodes.plain,
            PreviewMethod::Latent2Rgb => &nodes.previewing,
            PreviewMethod::Taesd => &nodes.previewing_sharply,
        };
        let ears = Ears {
            hub: &self.hub,
            feed: &self.feed,
            kept: &self.kept,
            memory: &self.memory,
            assets: &self.assets,
            queue: &*self.queue,
        };
        let report = Report::new(ears, job, registry, method != PreviewMethod::None);
        report.start();
        let ended = match plan(job, registry) {
            Ok(plan) => self.execute(&plan, &run, &report),
            Err((node, class, text)) => {
                report.fail(&node, &class, &text, "paraflow.GraphError");
                Ended::Failed
            }
        };
        self.running().by_id.remove(&job.id);
        if ended == Ended::Cancelled && run.park.load(Ordering::Relaxed) {
            tracing::info!("job is parked");
            self.kept.end(&job.id);
            if let Err(error) = self.queue.park(job).wait() {
                tracing::error!(%error, "the job could not be parked; it waits again at the next start");
            }
            return;
        }
        let out_of_time = ended == Ended::Cancelled && run.out_of_time.load(Ordering::Relaxed);
        let state = match ended {
            Ended::Done => State::Done,
            Ended::Cancelled if !out_of_time => State::Cancelled,
            Ended::Cancelled | Ended::Failed => State::Failed,
        };
        let mut told = report.close(ended);
        if out_of_time {
            told.error = Some(format!("out of time after {} ms", job.timeout_ms.unwrap_or_default()));
        }
        tracing::info!(state = state.as_str(), seconds = begun.elapsed().as_secs_f64(), "job ends");
        if !self.write_down(job, state, told) {
            // Nobody is told an end that the next start does not know.
            self.kept.end(&job.id);
            return;
        }
        report.end();
        self.hub.send(To::All, &status(self.queue.remaining(), None), Keep::Always);
        report.over();
        if let Some(address) = &job.webhook {
            self.webhooks.tell(job.id.clone(), address.clone());
        }
    }

    fn execute(&self, plan: &Plan, run: &Running, report: &Report<'_>) -> Ended {
        let emit = |event| {
            report.take(event);
            let node = report.last_node();
            *lock(&run.last_node) = node;
        };
        // A panic in here is a bug of ours; it must cost this job and no other.
        let run = || self.executor.run(plan, &run.cancel, &emit);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|_| {
            report.fail("", "", "the engine panicked; the log has more", "paraflow.Panic");
            Ended::Failed
        })
    }

    /// Puts the end into the books, and returns when it is there. While they cannot be written, as on a full disk, it tries again.
    /// `false`: the server goes down before that.
    fn write_down(&self, job: &Arc<Job>, state: State, told: Told) -> bool {
        /// The longest pause between two tries.
        const MOST: Duration = Duration::from_secs(5);
        let Told { outputs, messages, meta, error, ran } = told;
        let done = state == State::Done;
        let artefacts = artefacts::of(&outputs, &self.assets);
        let status = json!({"status_str": if done { "success" } else { "error" }, "completed": done,
                            "messages": messages, "ran": ran});
        let end = End { state, outputs, status, meta, error, artefacts };
        let since = self.keep.1.map(|age| now_ms() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let keep = Retention { count: self.keep.0, since };
        let mut pause = Duration::from_millis(50);
        loop {
            let Err(error) = self.queue.finish(job, end.clone(), keep).wait() else { break };
            if matches!(error, QueueError::Closed) || self.closing.load(Ordering::Relaxed) {
                tracing::error!(%error, "the end of the job is not in the books; it runs again at the next start");
                return false;
            }
            if !self.waiting.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "the end of the job cannot be written down; it waits until it can: make room on the disk");
            }
            thread::sleep(pause);
            pause = (2 * pause).min(MOST);
        }
        if self.waiting.swap(false, Ordering::Relaxed) {
            tracing::info!("the end of the job is written down");
        }
        true
    }

    /// Whether the end of a job cannot be written down.
    pub(crate) fn is_stuck(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    fn running(&self) -> MutexGuard<'_, Runs> {
        lock(&self.running)
    }
}

/// The plan that was checked when the job was submitted; folders may have changed since. Else node, class and fault.
fn plan(job: &Job, registry: &paraflow_engine::Registry) -> Result<Plan, (String, String, String)> {
    let nothing = String::new;
    let empty = serde_json::Map::new();
    let mut graph = formats::from_prompt(job.prompt.as_object().unwrap_or(&empty))
        .map_err(|error| (nothing(), nothing(), error.to_string()))?;
    graph.carry(job.extra.get("extra_pnginfo"));
    Plan::for_outputs(graph, registry, &job.outputs).map_err(|faults| {
        let first = faults.first();
        let node = first.and_then(|fault| fault.node.clone()).unwrap_or_default();
        let class = first.map(|fault| fault.class.clone()).unwrap_or_default();
        let line = |fault: &paraflow_engine::GraphError| match fault.hint() {
            Some(hint) => format!("{fault}\nhint: {hint}"),
            None => fault.to_string(),
        };
        (node, class, faults.iter().map(line).collect::<Vec<_>>().join("\n"))
    })
}

/// Cancels a run when its time is over, unless it is dropped before.
struct Timer(Option<std::sync::mpsc::Sender<()>>);

impl Timer {
    fn start(time: Duration, run: &Arc<Running>) -> Self {
        let (alive, ended) = std::sync::mpsc::channel();
        let run: Weak<Running> = Arc::downgrade(run);
        let wait = move || {
            if ended.recv_timeout(time) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                && let Some(run) = run.upgrade()
            {
                run.out_of_time.store(true, Ordering::Relaxed);
                run.cancel.cancel();
            }
        };
        Self(thread::Builder::new().name("timeout".into()).spawn(wait).ok().map(|_| alive))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.take();
    }
}

impl PreviewMethod {
    /// The one that the prompt asks for, if it is one.
    fn of(extra: &Json) -> Option<Self> {
        match extra.get("preview_method")?.as_str()? {
            "none" => Some(Self::None),
            "auto" | "latent2rgb" => Some(Self::Latent2Rgb),
            "taesd" => Some(Self::Taesd),
            _ => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
