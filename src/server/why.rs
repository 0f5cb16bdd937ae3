//! Why nodes run: what each node of a graph was when it last gave a result, against what it is now. Knows nothing of how
//! the engine decides; it says what a user can see of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value as Json;

use crate::protocol::Why;
use crate::queue::Job;

/// So many graphs are remembered, those that ran last.
const GRAPHS: usize = 64;

/// For each graph, the job in which each node last gave a result. The graph that ran last is the first.
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
        let known = graphs.iter().position(|(known, _)| known == graph).and_then(|position| graphs.remove(position));
        let (graph, mut results) = known.unwrap_or_else(|| (graph.to_owned(), Results::new()));
        results.insert(node.to_owned(), Arc::clone(job));
        graphs.push_front((graph, results));
        graphs.truncate(GRAPHS);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A job of that workflow: a number, its double, and the sum of both.
    fn job(workflow: &str, number: i64, doubler: &str) -> Arc<Job> {
        let prompt = json!({
            "1": {"class_type": "Number", "inputs": {"value": number}},
            "2": {"class_type": doubler, "inputs": {"value": ["1", 0], "factor": 2}},
            "3": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": ["2", 0]}},
        });
        of(workflow, prompt)
    }

    fn of(workflow: &str, prompt: Json) -> Arc<Job> {
        Arc::new(Job {
            id: "j".into(),
            number: 0.into(),
            priority: 0,
            position: 0.0,
            prompt,
            extra: json!({"extra_pnginfo": {"workflow": {"id": workflow}}}),
            outputs: vec!["3".into()],
            client: None,
            created: 0,
            timeout_ms: None,
            webhook: None,
            attempts: 0,
            begun: false,
            item: String::new(),
        })
    }

    fn learn_all(memory: &Memory, job: &Arc<Job>) {
        ["1", "2", "3"].iter().for_each(|node| memory.learn(job, node));
    }

    fn reason(why: Why, inputs: &[&str], nodes: &[&str]) -> Reason {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        (why, owned(inputs), owned(nodes))
    }

    #[test]
    fn a_graph_that_never_ran_is_told_as_such_and_so_is_a_node_that_never_did() {
        let memory = Memory::default();
        let first = job("w", 1, "Double");
        assert_eq!(memory.why(&first, "1", |_| false), reason(Why::First, &[], &[]));
        memory.learn(&first, "1");
        // Node 2 did not get that far; node 1 did.
        assert_eq!(memory.why(&first, "2", |_| false), reason(Why::New, &[], &[]));
        learn_all(&memory, &first);
        // Another class under the same id is another node.
        assert_eq!(memory.why(&job("w", 1, "Triple"), "2", |_| false), reason(Why::New, &[], &[]));
        assert_eq!(memory.why(&job("other", 1, "Double"), "2", |_| false), reason(Why::First, &[], &[]));
    }

    #[test]
    fn a_change_is_told_where_it_is_and_followed_downstream() {
        let memory = Memory::default();
        learn_all(&memory, &job("w", 1, "Double"));
        let changed = job("w", 5, "Double");
        assert_eq!(memory.why(&changed, "1", |_| false), reason(Why::Changed, &["value"], &[]));
        assert_eq!(memory.why(&changed, "2", |id| id == "1"), reason(Why::Upstream, &[], &["1"]));
        assert_eq!(memory.why(&changed, "3", |id| id != "3"), reason(Why::Upstream, &[], &["1", "2"]));
        // Nothing that can be seen: the result is not kept any more, or a file is another.
        assert_eq!(memory.why(&job("w", 1, "Double"), "2", |_| false), reason(Why::Again, &[], &[]));
    }

    #[test]
    fn inputs_that_came_went_or_are_wired_otherwise_are_changes() {
        let memory = Memory::default();
        let node = |inputs: Json| of("w", json!({"2": {"class_type": "Double", "inputs": inputs}}));
        memory.learn(&node(json!({"value": ["1", 0], "factor": 2})), "2");
        for (inputs, changed) in [
            (json!({"value": ["1", 0], "factor": 2}), &[][..]),
            (json!({"value": ["1", 1], "factor": 2}), &["value"]),
            (json!({"value": ["7", 0], "factor": 2}), &["value"]),
            (json!({"value": ["1", 0], "factor": ["7", 0]}), &["factor"]),
            (json!({"value": ["1", 0]}), &["factor"]),
            (json!({"value": ["1", 0], "factor": 2, "offset": 1}), &["offset"]),
        ] {
            let (why, told, _) = memory.why(&node(inputs.clone()), "2", |_| false);
            assert_eq!(told, changed, "{inputs}");
            assert_eq!(why, if changed.is_empty() { Why::Again } else { Why::Changed }, "{inputs}");
        }
    }

    #[test]
    fn what_a_node_was_is_what_it_was_when_it_last_gave_its_result() {
        let memory = Memory::default();
        learn_all(&memory, &job("w", 1, "Double"));
        // The second run changes the number, and fails before the sum.
        let second = job("w", 5, "Double");
        memory.learn(&second, "1");
        memory.learn(&second, "2");
        let third = job("w", 5, "Double");
        assert_eq!(memory.why(&third, "1", |_| false), reason(Why::Again, &[], &[]));
        assert_eq!(memory.why(&third, "3", |_| false), reason(Why::Again, &[], &[]));
    }

    #[test]
    fn the_graphs_that_ran_last_are_remembered() {
        let memory = Memory::default();
        for number in 0..GRAPHS {
            learn_all(&memory, &job(&number.to_string(), 1, "Double"));
        }
        // The oldest of them runs once more, and then another comes.
        learn_all(&memory, &job("0", 1, "Double"));
        learn_all(&memory, &job("new", 1, "Double"));
        let known = |graph: &str| memory.why(&job(graph, 1, "Double"), "1", |_| false).0 == Why::Again;
        assert!(known("0") && known("new") && known("2"));
        assert!(!known("1"), "it has not run for the longest time");
    }
}
