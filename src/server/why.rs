//! Why nodes run: what each node of a graph was when it last gave a result, against what it is now. Knows nothing of how
//! the engine decides; it says what a user can see of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value as Json;

use crate::protocol::Why;
use crate::queue::Job;

/// So many graphs are remembered, the latest.
const GRAPHS: usize = 64;

/// For each graph, the job in which each node last gave a result.
#[derive(Default)]
pub(crate) struct Memory(Mutex<VecDeque<(String, Results)>>);

type Results = HashMap<String, Arc<Job>>;

/// The cause, inputs whose values or wires are others, and nodes upstream that ran.
pub(crate) type Reason = (Why, Vec<String>, Vec<String>);

impl Memory {
    /// Why the node runs, of which `has_run` tells the nodes of this run that did.
    pub(crate) fn why(&self, job: &Job, node: &str, has_run: impl Fn(&str) -> bool) -> Reason {
        let graphs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, results)) = graphs.iter().find(|(graph, _)| graph == graph_of(job)) else {
            return (Why::First, Vec::new(), Vec::new());
        };
        let now = &job.prompt[node];
        let before = results.get(node).map(|job| &job.prompt[node]);
        let Some(before) = before.filter(|before| before["class_type"] == now["class_type"]) else {
            return (Why::New, Vec::new(), Vec::new());
        };
        let changed = differing(&before["inputs"], &now["inputs"]);
        let upstream: Vec<String> = sources(&now["inputs"]).filter(|id| has_run(id)).map(str::to_owned).collect();
        let cause = match (changed.is_empty(), upstream.is_empty()) {
            (false, _) => Why::Changed,
            (true, false) => Why::Upstream,
            (true, true) => Why::Again,
        };
        (cause, changed, upstream)
    }

    /// The node gave its result, or it was there.
    pub(crate) fn learn(&self, job: &Arc<Job>, node: &str) {
        let mut graphs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let graph = graph_of(job);
        let position = graphs.iter().position(|(known, _)| known == graph).unwrap_or_else(|| {
            graphs.truncate(GRAPHS - 1);
            graphs.push_front((graph.to_owned(), Results::new()));
            0
        });
        graphs[position].1.insert(node.to_owned(), Arc::clone(job));
    }
}

/// Jobs of one workflow are of one graph; so are all without one.
fn graph_of(job: &Job) -> &str {
    job.extra.pointer("/extra_pnginfo/workflow/id").and_then(Json::as_str).unwrap_or_default()
}

fn differing(before: &Json, now: &Json) -> Vec<String> {
    let names = |inputs: &Json| inputs.as_object().into_iter().flat_map(|it| it.keys().cloned()).collect::<Vec<_>>();
    let gone = names(before).into_iter().filter(|name| now[name.as_str()].is_null());
    names(now).into_iter().filter(|name| before[name.as_str()] != now[name.as_str()]).chain(gone).collect()
}

/// Ids of the nodes that these inputs are wired to.
fn sources(inputs: &Json) -> impl Iterator<Item = &str> {
    let link = |value: &'_ Json| value.as_array().is_some_and(|link| link.len() == 2);
    let wired = inputs.as_object().into_iter().flat_map(|it| it.values()).filter(move |value| link(value));
    wired.filter_map(|value| value[0].as_str())
}
