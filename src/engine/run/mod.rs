//! Runs plans: ready nodes side by side, one at a time on the compute lane, results through the cache.

mod call;
mod lane;
mod schedule;
mod sign;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use self::call::{Arrived, Call};
use self::lane::ComputeLane;
use self::schedule::{Schedule, Work};
use crate::cache::{Cache, Outcome};
use crate::cancel::Cancel;
use crate::context::{Afterwards, Context};
use crate::error::Error;
use crate::event::{Emit, Event};
use crate::plan::{Plan, Task, Wire};
use crate::spec::Lane;

/// Runs plans, one after another or several at once, over one cache.
pub struct Executor {
    /// Results of earlier runs.
    pub cache: Arc<Cache>,
    workers: usize,
    compute: ComputeLane,
}

/// How a run ended. The events say why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Ended {
    /// Every output is made.
    Done,
    /// A node failed.
    Failed,
    /// It was stopped from outside.
    Cancelled,
}

/// At least so many nodes side by side: those of [`Lane::Any`](crate::Lane::Any) wait for disks more than they compute.
const FEWEST_WORKERS: usize = 4;

impl Executor {
    /// An executor over that cache, with a worker a core.
    #[must_use]
    pub fn new(cache: Arc<Cache>) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { cache, workers: cores.max(FEWEST_WORKERS), compute: ComputeLane::default() }
    }

    /// The same with at most so many nodes side by side. With one, the order of all events is the same in every run.
    #[must_use]
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Runs the plan on this thread and, where nodes are ready side by side, on others; returns when all have stopped.
    ///
    /// `emit` is called from several threads. A node's failure stops the run: nodes that still run are asked to stop,
    /// and what finished before stays in the cache.
    pub fn run(&self, plan: &Plan, cancel: &Cancel, emit: Emit<'_>) -> Ended {
        let number = self.cache.begin_run();
        let work = Work::new(sign::sign(plan, number));
        let found = self.cache.find_all(work.signed.signatures.iter());
        let schedule = Schedule::new(plan, &work, &self.cache, found.clone());
        let cached = found.iter().flatten().count();
        emit(Event::Planned { total: cached + schedule.total, cached });
        for warning in plan.warnings() {
            emit(Event::Warning { node: warning.node.clone(), text: warning.text.clone() });
        }
        for position in plan.in_graph_order() {
            if let Some(outcome) = &found[position] {
                tell_cached(plan, position, outcome, emit);
            }
        }
        drop(found);
        let state = State { schedule, cached, running: 0, idle: 0, threads: 1, ended: None };
        let run = Run {
            plan,
            work: &work,
            cache: &self.cache,
            compute: &self.compute,
            cancel,
            emit,
            workers: self.workers,
            state: Mutex::new(state),
            wake: Condvar::new(),
            stopping: AtomicBool::new(false),
            afterwards: Afterwards::default(),
        };
        thread::scope(|scope| run.work(scope));
        let ended = run.lock().ended.unwrap_or(Ended::Done);
        match ended {
            Ended::Done => {
                run.afterwards.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().for_each(|work| work());
                emit(Event::Done);
            }
            Ended::Cancelled => emit(Event::Cancelled),
            Ended::Failed => {}
        }
        ended
    }
}

/// A run under way, shared by its workers.
struct Run<'r> {
    plan: &'r Plan,
    work: &'r Work,
    cache: &'r Cache,
    compute: &'r ComputeLane,
    cancel: &'r Cancel,
    emit: Emit<'r>,
    workers: usize,
    state: Mutex<State<'r>>,
    /// Told when there may be something to do, or nothing ever again.
    wake: Condvar,
    /// A node failed: the others are to stop.
    stopping: AtomicBool,
    /// What nodes want done once all is made.
    afterwards: Afterwards,
}

struct State<'r> {
    schedule: Schedule<'r>,
    /// How many results were there at the start.
    cached: usize,
    /// Workers with a task.
    running: usize,
    /// Workers that wait for one.
    idle: usize,
    /// Workers.
    threads: usize,
    /// Why no task starts any more.
    ended: Option<Ended>,
}

/// What became of a task.
enum Step {
    /// It gave its result.
    Finished(Arc<Outcome>),
    /// It cannot go on before these lazy wires are there.
    Needs(Vec<Wire>),
    /// It failed, and said so.
    Failed,
    /// It was asked to stop, and did.
    Stopped,
}

impl<'r> Run<'r> {
    /// A worker: takes one ready task after another until nothing is left to do. A chain of nodes stays on one thread;
    /// others start only when something is ready for them.
    fn work<'scope>(&'scope self, scope: &'scope thread::Scope<'scope, '_>) {
        let _release = Release(self);
        let mut state = self.lock();
        while !state.is_over(self.cancel) {
            let Some((position, results)) = state.schedule.next() else {
                debug_assert!(state.running > 0, "without cycles, something is ready or under way");
                state.idle += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            state.running += 1;
            let start_another = self.share_out(&mut state);
            drop(state);
            if start_another {
                // If the system has no thread for us, this one does it all.
                let _ = thread::Builder::new().spawn_scoped(scope, || self.work(scope));
            }
            let step = self.execute(position, results);
            state = self.lock();
            state.running -= 1;
            if let Some(planned) = state.settle(position, step) {
                drop(state);
                (self.emit)(planned);
                state = self.lock();
            }
        }
    }

    /// Wakes a worker if one more task is ready; gives whether to start one instead.
    fn share_out(&self, state: &mut State<'_>) -> bool {
        if !state.schedule.has_ready() {
            return false;
        }
        if state.idle > 0 {
            self.wake.notify_one();
            return false;
        }
        let start = state.threads < self.workers;
        state.threads += usize::from(start);
        start
    }

    /// Runs one task, and tells of it.
    fn execute(&self, position: usize, results: Vec<Option<Arc<Outcome>>>) -> Step {
        let task = &self.plan.tasks()[position];
        match self.call(position, task, &results) {
            Ok(step) => step,
            // An error of a node that was stopped says only that it was stopped.
            Err(_) if self.cancel.is_cancelled() => Step::Stopped,
            Err(error) if error.is_stopped() && self.stopping.load(Ordering::Relaxed) => Step::Stopped,
            Err(error) => {
                self.stopping.store(true, Ordering::Relaxed);
                let (node, class) = (self.plan.id(task).clone(), task.node.spec.name.to_owned());
                (self.emit)(Event::Failed { node, class, error });
                Step::Failed
            }
        }
    }

    fn call(&self, position: usize, task: &Task, results: &[Option<Arc<Outcome>>]) -> Result<Step, Arc<Error>> {
        if let Some(error) = self.work.signed.faults.get(&position) {
            return Err(Arc::clone(error));
        }
        let mut asked = Vec::new();
        let call = loop {
            let call = Call::new(&task.node, Arrived::new(self.plan, task, results, &asked))?;
            let needs = call.needs()?;
            if needs.is_empty() {
                break call;
            }
            let missing = missing(task, results, &needs);
            if !missing.is_empty() {
                return Ok(Step::Needs(missing));
            }
            asked.extend(needs);
        };
        let entry = self.plan.entry(task);
        let cx = Context {
            node: self.plan.id(task),
            class: task.node.spec.name,
            title: entry.title.as_deref(),
            plan: Some(self.plan),
            services: self.plan.services(),
            cancel: self.cancel,
            stopping: &self.stopping,
            emit: self.emit,
            signature: self.work.signed.lasting[position].then(|| self.work.signed.signatures[position].0),
            afterwards: Some(&self.afterwards),
        };
        // Held until all is told of the node.
        let turn = (task.node.spec.lane == Lane::Compute).then(|| self.compute.enter(|| cx.check().is_err()));
        if let Some(None) = turn {
            return Ok(Step::Stopped);
        }
        (self.emit)(Event::Started { node: cx.node.into() });
        let start = Instant::now();
        let outcome = Arc::new(call.run(&cx)?);
        self.keep(position, &outcome);
        if let Some(ui) = &outcome.ui {
            (self.emit)(Event::Output { node: cx.node.into(), ui: Arc::clone(ui) });
        }
        (self.emit)(Event::Finished { node: cx.node.into(), elapsed: start.elapsed(), bytes: outcome.bytes() });
        for &follower in self.work.followers(position) {
            tell_cached(self.plan, follower, &outcome, self.emit);
        }
        Ok(Step::Finished(outcome))
    }

    fn keep(&self, position: usize, outcome: &Arc<Outcome>) {
        if self.work.signed.lasting[position] {
            self.cache.insert(self.work.signed.signatures[position], outcome);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<'r>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the other workers go when one leaves, be it by a panic of whoever listens to the events.
struct Release<'w, 'r>(&'w Run<'r>);

impl Drop for Release<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stopping.store(true, Ordering::Relaxed);
            self.0.lock().ended = Some(Ended::Failed);
        }
        self.0.wake.notify_all();
    }
}

impl State<'_> {
    /// Whether no task is to start any more.
    fn is_over(&mut self, cancel: &Cancel) -> bool {
        if self.schedule.is_finished() {
            return true;
        }
        if self.ended.is_none() && cancel.is_cancelled() {
            self.ended = Some(Ended::Cancelled);
        }
        self.ended.is_some()
    }

    /// Takes in what became of a task. Where more is needed than was known, gives the event that says so.
    fn settle(&mut self, position: usize, step: Step) -> Option<Event> {
        match step {
            Step::Finished(outcome) => self.schedule.finish(position, outcome),
            Step::Needs(wires) => {
                let before = self.schedule.total;
                self.schedule.demand(position, &wires);
                let (total, cached) = (self.cached + self.schedule.total, self.cached);
                return (self.schedule.total > before).then_some(Event::Planned { total, cached });
            }
            Step::Failed => {
                self.schedule.abandon(position);
                self.ended = Some(Ended::Failed);
            }
            Step::Stopped => {
                self.schedule.abandon(position);
                self.ended.get_or_insert(Ended::Cancelled);
            }
        }
        None
    }
}

/// The wires to those inputs that have brought nothing yet.
fn missing(task: &Task, results: &[Option<Arc<Outcome>>], inputs: &[&str]) -> Vec<Wire> {
    let declared = task.node.spec.inputs.iter().zip(&task.inputs);
    let wired = declared.filter_map(|(spec, source)| source.as_wire().map(|wire| (spec.name, wire)));
    let missing = wired.zip(results).filter(|((name, _), result)| result.is_none() && inputs.contains(name));
    missing.map(|((_, wire), _)| wire).collect()
}

/// The result was there before the node was called, and so is what it shows.
fn tell_cached(plan: &Plan, position: usize, outcome: &Outcome, emit: Emit<'_>) {
    let node = plan.id(&plan.tasks()[position]);
    emit(Event::Cached { node: node.clone() });
    if let Some(ui) = &outcome.ui {
        emit(Event::Output { node: node.clone(), ui: Arc::clone(ui) });
    }
}
