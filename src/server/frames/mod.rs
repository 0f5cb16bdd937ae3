//! Events of a run as the messages that ComfyUI's clients know, in their order.
//!
//! `table.rs` is the state of all nodes in one message, `binary.rs` the frames with pictures, `samples.rs` what becomes of a
//! training's sample pictures.
//!
//! The only place that knows both vocabularies. Everything about one run goes through one [`Report`], which also keeps
//! what the history will say of it.

mod binary;
mod samples;
mod table;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use paraflow_assets::Assets;
use paraflow_engine::{Ended, Event, ImageFormat, LossPoint, Registry, Specs as _};
use serde_json::{Map, Value as Json, json};

use self::binary::{preview_image, preview_with_metadata};
use self::table::Table;
use crate::feed::Feed;
use crate::hub::{Frame, Hub, Keep, To};
use crate::kept::Kept;
use crate::protocol::{
    Cached, ExecInfo, Executed, Executing, ExecutionError, Interrupted, Loss, Message, Moment, NodeState, Progress,
    QueueStatus, Ran, Status, Warning, Why,
};
use crate::queue::{Job, Queue};
use crate::time::now_ms;
use crate::why::{Memory, Reason};

/// What becomes of one run's events.
pub(crate) struct Report<'a> {
    hub: &'a Hub,
    feed: &'a Feed,
    kept: &'a Kept,
    memory: &'a Memory,
    assets: &'a Assets,
    queue: &'a dyn Queue,
    job: &'a Arc<Job>,
    previews: bool,
    state: Mutex<State>,
}

/// Where a [`Report`] sends what it is told.
#[derive(Clone, Copy)]
pub(crate) struct Ears<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) feed: &'a Feed,
    pub(crate) kept: &'a Kept,
    /// What ran before.
    pub(crate) memory: &'a Memory,
    /// Where sample pictures are put.
    pub(crate) assets: &'a Assets,
    /// The books that they stand in.
    pub(crate) queue: &'a dyn Queue,
}

/// What is known of the run so far.
#[derive(Default)]
struct State {
    /// Nodes by id: whether a graph runs for their sake, and their class.
    nodes: HashMap<String, Class>,
    /// Ids in the prompt's order.
    order: Vec<String>,
    /// Events before the first node starts: what is there already.
    opening: Option<Opening>,
    table: Table,
    /// Previews that wait for their node's next progress.
    previews: HashMap<String, (Arc<[u8]>, ImageFormat)>,
    /// Nodes that are told as run or reused, in that order.
    executed: Vec<String>,
    /// Begun and not ended.
    running: Vec<String>,
    last_node: Option<String>,
    outputs: Map<String, Json>,
    messages: Vec<Json>,
    error: Option<String>,
    /// Why each node runs that has begun.
    reasons: HashMap<String, Reason>,
    ran: Vec<Ran>,
}

struct Class {
    name: String,
    sink: bool,
}

#[derive(Default)]
struct Opening {
    cached: HashSet<String>,
    /// In the order of the events.
    reused: Vec<(String, Option<Arc<Json>>)>,
}

/// What the history says of a run.
pub(crate) struct Told {
    pub(crate) outputs: Json,
    pub(crate) messages: Vec<Json>,
    pub(crate) meta: Json,
    pub(crate) error: Option<String>,
    pub(crate) ran: Vec<Ran>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(ears: Ears<'a>, job: &'a Arc<Job>, registry: &Registry, previews: bool) -> Self {
        let mut state = State { opening: Some(Opening::default()), ..State::default() };
        for (id, node) in job.prompt.as_object().into_iter().flatten() {
            let name = node["class_type"].as_str().unwrap_or_default().to_owned();
            let sink = registry.spec(&name).is_some_and(|spec| spec.sink);
            state.nodes.insert(id.clone(), Class { name, sink });
            state.order.push(id.clone());
        }
        let Ears { hub, feed, kept, memory, assets, queue } = ears;
        Self { hub, feed, kept, memory, assets, queue, job, previews, state: Mutex::new(state) }
    }

    /// `execution_start`.
    pub(crate) fn start(&self) {
        self.kept.begin(&self.job.id, self.job.client.as_deref(), self.samples_of_before());
        self.tell(&mut self.lock(), &Message::ExecutionStart(self.now()));
    }

    /// The last node that began, for a client that comes back.
    pub(crate) fn last_node(&self) -> Option<String> {
        self.lock().last_node.clone()
    }

    /// Takes in one event.
    pub(crate) fn take(&self, event: Event) {
        let mut state = self.lock();
        let state = &mut *state;
        match event {
            Event::Planned { .. } => {}
            Event::Cached { node } => self.cached(state, node),
            Event::Output { node, ui } => self.output(state, node, &ui),
            Event::Warning { node, text } => self.warn(node, text),
            Event::Started { node } => self.started(state, node),
            Event::Progress { node, done, total } => self.progress(state, &node, done, total),
            Event::Loss { node, point } => self.ours(&self.loss(node, point)),
            Event::Sample { node, step, image, format } => {
                self.sample(&node, step, &image, format);
                // Stock clients show it as any preview; the node's output has all of them.
                self.preview(state, node, image, format);
            }
            Event::Preview { node, image, format } => self.preview(state, node, image, format),
            Event::Finished { node, elapsed, bytes } => {
                tracing::debug!(job = self.job.id, node, seconds = elapsed.as_secs_f64(), bytes, "node done");
                self.finished(state, &node);
                self.ran(state, node, elapsed, bytes);
            }
            Event::Blocked { node, text } => self.blocked(state, &node, &text),
            Event::Failed { node, class, error } => {
                let hint = error.hint().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
                self.failed(state, &node, &class, &format!("{error}\n{hint}"), "paraflow.NodeError");
            }
            Event::Cancelled | Event::Done => self.open(state),
        }
    }

    /// The run failed before the engine could say so.
    pub(crate) fn fail(&self, node: &str, class: &str, text: &str, kind: &str) {
        self.failed(&mut self.lock(), node, class, &format!("{text}\n"), kind);
    }

    /// Takes the last words down. They are sent by [`Report::end`], once they are in the books.
    pub(crate) fn close(&self, ended: Ended) -> Told {
        let mut state = self.lock();
        let state = &mut *state;
        self.open(state);
        self.send_table(state, true);
        let last = match ended {
            Ended::Done => Some(Message::ExecutionSuccess(self.now())),
            Ended::Cancelled => Some(Message::ExecutionInterrupted(self.interrupted(state))),
            // It is in the messages already.
            Ended::Failed => None,
        };
        state.messages.extend(last.as_ref().map(pair));
        let meta = Json::Object(state.meta());
        Told {
            outputs: Json::Object(std::mem::take(&mut state.outputs)),
            messages: state.messages.clone(),
            meta,
            error: state.error.clone(),
            ran: std::mem::take(&mut state.ran),
        }
    }

    /// Sends the last words, `executing` without a node apart.
    pub(crate) fn end(&self) {
        let state = self.lock();
        let Some([kind, data]) = state.messages.last().and_then(Json::as_array).map(Vec::as_slice) else { return };
        let kind = kind.as_str().unwrap_or_default();
        let to = match &self.job.client {
            Some(client) => Some(To::One(client)),
            None => (kind == "execution_interrupted").then_some(To::All),
        };
        if let Some(to) = to {
            self.hub.send(to, &Frame::event(kind, data), Keep::Always);
        }
        self.feed.tell(&self.job.id, kind, data);
        self.kept.end(&self.job.id);
    }

    /// `executing` without a node: the prompt is over, and its history is there.
    pub(crate) fn over(&self) {
        self.send_to_owner(&Message::Executing(Executing {
            node: None,
            display_node: None,
            prompt_id: Some(self.id()),
        }));
    }

    fn interrupted(&self, state: &State) -> Interrupted {
        let node = state.running.last().or(state.executed.last()).cloned().unwrap_or_default();
        Interrupted {
            prompt_id: self.id(),
            node_type: state.class(&node).to_owned(),
            node_id: node,
            executed: state.executed.clone(),
            timestamp: now_ms(),
        }
    }

    /// Before the first node starts, what is there already is told in one message.
    fn open(&self, state: &mut State) {
        let Some(opening) = state.opening.take() else { return };
        let nodes = state.order.iter().filter(|id| opening.cached.contains(*id)).cloned().collect();
        let cached = Cached { nodes, prompt_id: self.id(), timestamp: now_ms() };
        self.tell(state, &Message::ExecutionCached(cached));
        for (node, ui) in opening.reused {
            if state.nodes.get(&node).is_some_and(|class| class.sink) {
                self.reused(state, node, ui.as_deref());
            }
        }
    }

    /// The node gave its result: how long it took, what it keeps, and why it ran at all.
    fn ran(&self, state: &mut State, node: String, elapsed: Duration, bytes: usize) {
        self.memory.learn(self.job, &node);
        let (why, inputs, nodes) = state.reasons.get(&node).cloned().unwrap_or((Why::Again, Vec::new(), Vec::new()));
        // To a hundredth: more would be noise.
        let elapsed_ms = (elapsed.as_secs_f64() * 1e5).round() / 100.0;
        let ran = Ran { node, elapsed_ms, bytes, why, inputs, nodes, prompt_id: self.id() };
        self.ours(&Message::Ran(ran.clone()));
        state.ran.push(ran);
    }

    fn cached(&self, state: &mut State, node: String) {
        self.memory.learn(self.job, &node);
        if let Some(opening) = &mut state.opening {
            opening.cached.insert(node.clone());
            opening.reused.push((node, None));
            return;
        }
        // An equal node of this run did its work. What an output shows comes with the next event.
        if !state.nodes.get(&node).is_some_and(|class| class.sink) {
            self.reused(state, node, None);
        }
    }

    /// A cached node that the run came to.
    fn reused(&self, state: &mut State, node: String, ui: Option<&Json>) {
        self.executed(state, &node, ui);
        state.executed.push(node.clone());
        state.table.set(&self.job.id, &node, 1.0, 1.0, NodeState::Finished);
        self.send_table(state, false);
    }

    fn output(&self, state: &mut State, node: String, ui: &Arc<Json>) {
        if let Some(opening) = &mut state.opening {
            if let Some((_, shown)) = opening.reused.iter_mut().rev().find(|(id, _)| *id == node) {
                *shown = Some(Arc::clone(ui));
            }
            return;
        }
        if state.table.has(&node) {
            self.executed(state, &node, Some(ui));
        } else {
            self.reused(state, node, Some(ui));
        }
    }

    fn started(&self, state: &mut State, node: String) {
        self.open(state);
        let reason = self.memory.why(self.job, &node, |id| state.reasons.contains_key(id));
        state.reasons.insert(node.clone(), reason);
        state.table.set(&self.job.id, &node, 0.0, 1.0, NodeState::Running);
        self.send_table(state, false);
        let executing =
            Executing { node: Some(node.clone()), display_node: Some(node.clone()), prompt_id: Some(self.id()) };
        self.send_to_owner(&Message::Executing(executing));
        state.last_node = Some(node.clone());
        state.running.push(node);
    }

    fn progress(&self, state: &mut State, node: &str, done: u32, total: u32) {
        state.table.set(&self.job.id, node, done.into(), total.into(), NodeState::Running);
        self.send_table(state, false);
        let preview = state.previews.remove(node);
        let to = self.owner_or_all();
        if let Some((image, format)) = &preview {
            self.hub.send_preview(to, true, &preview_with_metadata(&self.job.id, node, image, *format));
        }
        let progress = Progress { value: done, max: total, prompt_id: self.id(), node: node.to_owned() };
        let (kind, data) = Message::Progress(progress).parts();
        self.hub.send(to, &Frame::event(&kind, &data), Keep::UntilNext);
        self.feed.tell(&self.job.id, &kind, &data);
        if let Some((image, format)) = &preview {
            self.hub.send_preview(to, false, &preview_image(image, *format));
        }
    }

    fn finished(&self, state: &mut State, node: &str) {
        state.running.retain(|running| running != node);
        state.previews.remove(node);
        state.executed.push(node.to_owned());
        state.table.finish(&self.job.id, node);
        self.send_table(state, false);
    }

    fn executed(&self, state: &mut State, node: &str, ui: Option<&Json>) {
        let (output, node) = (ui.cloned(), node.to_owned());
        let executed = Executed { display_node: node.clone(), node: node.clone(), output, prompt_id: self.id() };
        self.send_to_owner(&Message::Executed(executed));
        if let Some(ui) = ui {
            state.outputs.insert(node, ui.clone());
        }
    }

    /// The branch ends here, the run goes on: sent, but no part of the history.
    fn blocked(&self, state: &mut State, node: &str, text: &str) {
        self.open(state);
        let error = ExecutionError {
            exception_message: format!("Execution Blocked: {text}"),
            exception_type: "ExecutionBlocked".to_owned(),
            ..self.error(state, node, state.class(node))
        };
        self.send_to_owner(&Message::ExecutionError(error));
    }

    /// An error without its words.
    fn error(&self, state: &State, node: &str, class: &str) -> ExecutionError {
        ExecutionError {
            prompt_id: self.id(),
            node_id: node.to_owned(),
            node_type: class.to_owned(),
            executed: state.executed.clone(),
            exception_message: String::new(),
            exception_type: String::new(),
            traceback: Vec::new(),
            current_inputs: json!({}),
            current_outputs: Vec::new(),
            timestamp: None,
        }
    }

    fn failed(&self, state: &mut State, node: &str, class: &str, text: &str, kind: &str) {
        self.open(state);
        if state.error.is_some() {
            // Two nodes side by side may both fail; the first one ended the run.
            return;
        }
        tracing::error!(job = self.job.id, node, class, "{}", text.trim_end());
        state.error = Some(format!("node {node} ({class}): {}", text.trim_end()));
        let error = ExecutionError {
            exception_message: text.to_owned(),
            exception_type: kind.to_owned(),
            current_inputs: current_inputs(&self.job.prompt[node]["inputs"]),
            current_outputs: state.executed.clone(),
            timestamp: Some(now_ms()),
            ..self.error(state, node, class)
        };
        state.messages.push(pair(&Message::ExecutionError(error)));
    }

    /// A message that the history keeps.
    fn tell(&self, state: &mut State, message: &Message) {
        self.send_to_owner(message);
        state.messages.push(pair(message));
    }

    fn ours(&self, message: &Message) {
        self.kept.tell(&self.job.id, message);
    }

    fn warn(&self, node: String, text: String) {
        tracing::warn!(job = self.job.id, node, "{text}");
        self.ours(&Message::Warning(Warning { node, text, prompt_id: self.id() }));
    }

    fn loss(&self, node: String, point: LossPoint) -> Message {
        let LossPoint { step, total, loss, validation, learning_rate } = point;
        Message::Loss(Loss { node, step, total, loss, learning_rate, validation, prompt_id: self.id() })
    }

    fn preview(&self, state: &mut State, node: String, image: Arc<[u8]>, format: ImageFormat) {
        if self.previews {
            state.previews.insert(node, (image, format));
        }
    }

    fn id(&self) -> String {
        self.job.id.clone()
    }

    fn now(&self) -> Moment {
        Moment { prompt_id: self.id(), timestamp: now_ms() }
    }

    fn send_table(&self, state: &mut State, last: bool) {
        let to = self.owner_or_all();
        if state.table.is_due(last) && self.hub.reaches(to) {
            self.hub.send(to, &state.table.frame(&self.job.id), Keep::UntilNext);
        }
    }

    fn owner_or_all(&self) -> To<'_> {
        self.job.client.as_deref().map_or(To::All, To::One)
    }

    fn send_to_owner(&self, message: &Message) {
        let (kind, data) = message.parts();
        if let Some(client) = &self.job.client {
            self.hub.send(To::One(client), &Frame::event(&kind, &data), Keep::Always);
        }
        self.feed.tell(&self.job.id, &kind, &data);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn class(&self, node: &str) -> &str {
        self.nodes.get(node).map_or("", |class| &class.name)
    }

    fn meta(&self) -> Map<String, Json> {
        let meta = |node: &String| {
            let meta = json!({"node_id": node, "display_node": node, "parent_node": null, "real_node_id": node});
            (node.clone(), meta)
        };
        self.executed.iter().filter(|node| self.outputs.contains_key(*node)).map(meta).collect()
    }
}

/// A message as the history keeps it: `[type, data]`.
fn pair(message: &Message) -> Json {
    let (kind, data) = message.parts();
    json!([kind, data])
}

/// The literals of a node, each in a list as the executor holds it.
fn current_inputs(inputs: &Json) -> Json {
    let list = |(name, value): (&String, &Json)| (!value.is_array()).then(|| (name.clone(), json!([value])));
    Json::Object(inputs.as_object().into_iter().flatten().filter_map(list).collect())
}

/// `executing` as a client that comes back gets it: without the prompt's id.
pub(crate) fn still_executing(node: &str) -> Frame {
    let node = Some(node.to_owned());
    Frame::message(&Message::Executing(Executing { node, display_node: None, prompt_id: None }))
}

/// `status`, with the client's id in the first one that it gets.
pub(crate) fn status(remaining: usize, sid: Option<&str>) -> Frame {
    let status = QueueStatus { exec_info: ExecInfo { queue_remaining: remaining } };
    Frame::message(&Message::Status(Status { status, sid: sid.map(str::to_owned) }))
}
