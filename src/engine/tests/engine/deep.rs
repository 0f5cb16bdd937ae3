//! Graphs deeper and wider than a stack.

use std::sync::atomic::{AtomicI64, Ordering};

use paraflow_engine::*;

use crate::toys::Room;

fn node(class: &str, inputs: &[(&str, usize)]) -> Entry {
    let link = |(name, from): &(&str, usize)| ((*name).to_owned(), Binding::Link { node: from.to_string(), slot: 0 });
    Entry { class: class.into(), inputs: inputs.iter().map(link).collect(), ..Entry::default() }
}

/// Node 0 is a number, each other one more than the one before, the last is shown.
fn chain(length: usize) -> Graph {
    let mut nodes = vec![("0".to_owned(), node("Number", &[]))];
    nodes.extend((1..length).map(|at| (at.to_string(), node("Add", &[("a", at - 1)]))));
    nodes.push((length.to_string(), node("Show", &[("value", length - 1)])));
    Graph { nodes, ..Graph::default() }
}

/// Plans and runs it on a stack that recursion over a hundred thousand nodes would overflow.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap().join().unwrap();
}

#[test]
fn a_chain_of_a_hundred_thousand_nodes_runs() {
    on_a_small_stack(|| {
        let length = 100_000;
        let room = Room::with_budget(1 << 30);
        let plan = Plan::new(chain(length), &room.registry).unwrap();
        let ran = AtomicI64::new(0);
        for expected in [length as i64 + 1, 0] {
            ran.store(0, Ordering::Relaxed);
            let ended = room.executor.run(&plan, &Cancel::new(), &|event| match event {
                Event::Finished { .. } => {
                    ran.fetch_add(1, Ordering::Relaxed);
                }
                Event::Output { ui, .. } => assert_eq!(ui["text"][0], (length - 1).to_string()),
                _ => {}
            });
            assert_eq!(ended, Ended::Done);
            assert_eq!(ran.load(Ordering::Relaxed), expected);
        }
    });
}

#[test]
fn a_cycle_of_a_hundred_thousand_nodes_is_found() {
    on_a_small_stack(|| {
        let length = 100_000;
        let mut graph = chain(length);
        graph.nodes[0].1 = node("Add", &[("a", length - 1)]);
        let faults = Plan::new(&graph, &Room::new().registry).unwrap_err();
        assert_eq!(faults.len(), 1);
        let Fault::Cycle { path } = &faults[0].fault else { panic!("{}", faults[0]) };
        assert_eq!((path.len(), &*path[0], &*path[1], &*path[length]), (length + 1, "0", "1", "0"));
    });
}

#[test]
fn values_that_nobody_reads_any_more_are_dropped_while_the_run_goes_on() {
    // Without a cache, a chain holds two values at any time.
    let room = Room::with_budget(0);
    let alive = std::sync::Arc::new(());
    let services = Services::new().with(std::sync::Arc::clone(&alive));
    let registry = Registry::new([NodeDef::of::<Hold>(), NodeDef::of::<Drain>()], services);
    let mut nodes = vec![("0".to_owned(), node("Hold", &[]))];
    nodes.extend((1..50).map(|at| (at.to_string(), node("Hold", &[("before", at - 1)]))));
    nodes.push(("50".to_owned(), node("Drain", &[("value", 49)])));
    let plan = Plan::new(&Graph { nodes, ..Graph::default() }, &registry).unwrap();
    let most = AtomicI64::new(0);
    let ended = room.executor.run(&plan, &Cancel::new(), &|_| {
        most.fetch_max(std::sync::Arc::strong_count(&alive) as i64 - 2, Ordering::Relaxed);
    });
    assert_eq!(ended, Ended::Done);
    assert_eq!(most.load(Ordering::Relaxed), 2);
}

/// A value that can be counted.
struct Held(#[expect(dead_code, reason = "its count is read")] std::sync::Arc<()>);

impl Port for Held {
    const KIND: &'static str = "HELD";
}

/// Holds on to a thing, and lets go of the one before.
#[derive(Node)]
#[node(category = "toys", volatile)]
#[expect(dead_code, reason = "read for its own sake")]
struct Hold {
    /// The one before.
    before: Option<Shared<Held>>,
}

impl Run for Hold {
    type Output = Held;

    fn run(self, cx: &Context) -> Result<Held> {
        Ok(Held(std::sync::Arc::clone(cx.service())))
    }
}

/// Takes the last.
#[derive(Node)]
#[node(category = "toys", sink)]
#[expect(dead_code, reason = "read for its own sake")]
struct Drain {
    /// The last one.
    value: Shared<Held>,
}

impl Run for Drain {
    type Output = ();

    fn run(self, _: &Context) -> Result<()> {
        Ok(())
    }
}
