//! What the engine itself costs: a chain and a wide graph of trivial nodes, planned, run, and run again from the cache.
//!
//! `cargo bench -p paraflow-engine`

use std::sync::Arc;

use paraflow_engine::*;

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// A number.
#[derive(Node)]
#[node(category = "trivial")]
struct Number {
    /// Which.
    value: i64,
}

impl Run for Number {
    type Output = i64;

    fn run(self, _: &Context) -> Result<i64> {
        Ok(self.value)
    }
}

/// A sum.
#[derive(Node)]
#[node(category = "trivial")]
struct Add {
    /// One.
    a: i64,
    /// Another.
    b: i64,
}

impl Run for Add {
    type Output = i64;

    fn run(self, _: &Context) -> Result<i64> {
        Ok(self.a + self.b)
    }
}

/// Takes everything.
#[derive(Node)]
#[node(category = "trivial", sink)]
struct Take {
    /// Everything.
    #[input(rest)]
    all: Rest,
}

impl Run for Take {
    type Output = Sink;

    fn run(self, _: &Context) -> Result<Sink> {
        Ok(Sink(self.all.0.len().into()))
    }
}

fn registry() -> Registry {
    let nodes = [NodeDef::of::<Number>(), NodeDef::of::<Add>(), NodeDef::of::<Take>()];
    Registry::new(nodes, Services::new())
}

fn entry(class: &str, inputs: Vec<(String, Binding)>) -> Entry {
    Entry { class: class.into(), inputs, ..Entry::default() }
}

fn link(node: usize) -> Binding {
    Binding::Link { node: node.to_string(), slot: 0 }
}

fn literal(number: usize) -> Binding {
    Binding::Literal(number.into())
}

/// Each node adds one to the one before; the last is taken. `first` is the number that it begins with.
fn chain(nodes: usize, first: usize) -> Graph {
    let mut all = vec![("0".to_owned(), entry("Number", vec![("value".into(), literal(first))]))];
    for at in 1..nodes - 1 {
        let inputs = vec![("a".into(), link(at - 1)), ("b".into(), literal(1))];
        all.push((at.to_string(), entry("Add", inputs)));
    }
    all.push((nodes.to_string(), entry("Take", vec![("last".into(), link(nodes - 2))])));
    Graph { nodes: all, ..Graph::default() }
}

/// Nodes that know nothing of each other; one takes them all.
fn wide(nodes: usize, first: usize) -> Graph {
    let number = |at: usize| (at.to_string(), entry("Number", vec![("value".into(), literal(first + at))]));
    let mut all: Vec<_> = (0..nodes - 1).map(number).collect();
    let inputs = (0..nodes - 1).map(|at| (format!("input{at}"), link(at))).collect();
    all.push(("taker".into(), entry("Take", inputs)));
    Graph { nodes: all, ..Graph::default() }
}

const NODES: usize = 10_000;

fn planned(graph: &Arc<Graph>, registry: &Registry) -> Plan {
    Plan::new(Arc::clone(graph), registry).unwrap_or_else(|faults| panic!("{}", faults[0]))
}

fn executed(executor: &Executor, plan: &Plan) {
    let ended = executor.run(plan, &Cancel::new(), &|event| {
        divan::black_box(event);
    });
    assert_eq!(ended, Ended::Done);
}

fn executor() -> Executor {
    Executor::new(Cache::new(1 << 30).into())
}

/// Both shapes.
const SHAPES: [&str; 2] = ["chain", "wide"];

fn graph(shape: &str) -> Arc<Graph> {
    Arc::new(if shape == "chain" { chain(NODES, 0) } else { wide(NODES, 0) })
}

/// Checking and ordering alone.
#[divan::bench(args = SHAPES)]
fn plan(bencher: divan::Bencher, shape: &str) {
    let (graph, registry) = (graph(shape), registry());
    bencher.bench(|| planned(&graph, &registry));
}

/// Everything, with nothing known before.
#[divan::bench(args = SHAPES)]
fn plan_and_run(bencher: divan::Bencher, shape: &str) {
    let (graph, registry) = (graph(shape), registry());
    bencher.with_inputs(executor).bench_refs(|executor| executed(executor, &planned(&graph, &registry)));
}

/// The same plan again, everything cached.
#[divan::bench(args = SHAPES)]
fn run_cached(bencher: divan::Bencher, shape: &str) {
    let (plan, executor) = (planned(&graph(shape), &registry()), executor());
    executed(&executor, &plan);
    bencher.bench(|| executed(&executor, &plan));
}

/// The same graph again, planned anew, everything cached.
#[divan::bench(args = SHAPES)]
fn plan_and_run_cached(bencher: divan::Bencher, shape: &str) {
    let (graph, registry, executor) = (graph(shape), registry(), executor());
    executed(&executor, &planned(&graph, &registry));
    bencher.bench(|| executed(&executor, &planned(&graph, &registry)));
}

/// Five hundred nodes, where ComfyUI's figures are known: nothing cached, and everything.
#[divan::bench(args = [false, true])]
fn chain_of_500(bencher: divan::Bencher, cached: bool) {
    let (graph, registry, executor) = (Arc::new(chain(500, 0)), registry(), executor());
    bencher
        .with_inputs(|| {
            if !cached {
                executor.cache.clear();
            }
        })
        .bench_values(|()| executed(&executor, &planned(&graph, &registry)));
}

/// A thousand invalid outputs, refused.
#[divan::bench]
fn refuse_1000_outputs(bencher: divan::Bencher) {
    let output = |at: usize| (at.to_string(), entry("Take", vec![("all".into(), link(5000))]));
    let graph = Arc::new(Graph { nodes: (0..1000).map(output).collect(), ..Graph::default() });
    let registry = registry();
    bencher.bench(|| Plan::new(Arc::clone(&graph), &registry).map(|_| ()).expect_err("no node 5000"));
}
