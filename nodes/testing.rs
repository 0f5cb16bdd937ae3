//! Running graphs in tests: a base directory of its own, an executor, and nodes that hand in and catch values.

use crate::memory::Memory;
use paraflow_assets::{Assets, Settings};
use paraflow_engine::{
    Cache, Cancel, Context, Ended, Error, Event, Executor, GraphError, Json, Node, NodeDef, Plan, Registry, Result,
    Run, Services, Shared, Value, formats,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// All that a graph needs to run.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    registry: Registry,
    executor: Executor,
    caught: Caught,
    given: Given,
}

#[derive(Clone, Default)]
struct Caught(Arc<Mutex<BTreeMap<String, Value>>>);

#[derive(Clone, Default)]
struct Given(Arc<Mutex<BTreeMap<String, Value>>>);

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) events: Vec<Event>,
    caught: BTreeMap<String, Value>,
}

/// Keeps what arrives, under the name of its node.
#[derive(Node)]
#[node(category = "test", sink, volatile)]
struct Catch {
    /// Whatever.
    value: Value,
}

impl Run for Catch {
    type Output = ();

    fn run(self, cx: &Context<'_>) -> Result<()> {
        cx.service::<Caught>().0.lock().unwrap().insert(cx.node().to_owned(), self.value);
        Ok(())
    }
}

/// Gives the value that the test put under that name.
#[derive(Node)]
#[node(category = "test", volatile)]
struct Give {
    /// The value's name.
    name: String,
}

impl Run for Give {
    type Output = Value;

    fn run(self, cx: &Context<'_>) -> Result<Value> {
        Ok(cx.service::<Given>().0.lock().unwrap()[&self.name].clone())
    }
}

/// Gives the values that the test put under those names, which blanks divide, as a list.
#[derive(Node)]
#[node(category = "test", volatile)]
struct GiveList {
    /// The values' names.
    names: String,
}

impl Run for GiveList {
    type Output = Vec<Value>;

    fn run(self, cx: &Context<'_>) -> Result<Vec<Value>> {
        let given = cx.service::<Given>().0.lock().unwrap();
        Ok(self.names.split(' ').map(|name| given[name].clone()).collect())
    }
}

impl Bench {
    /// A base directory of its own, and no services beside it.
    pub(crate) fn new() -> Self {
        Self::with_services(Services::new())
    }

    pub(crate) fn with_memory(limit_bytes: u64) -> Self {
        Self::with_service(Memory { limit_bytes: Some(limit_bytes) })
    }

    pub(crate) fn with_service<T: Send + Sync + 'static>(service: T) -> Self {
        Self::with_services(Services::new().with(service))
    }

    /// A bench that finds pictures in `input/` and `subjects/` of a folder of graphs, too.
    pub(crate) fn with_inputs(graphs: &str) -> Self {
        let input_dirs = ["input", "subjects"].map(|name| Path::new(graphs).join(name)).to_vec();
        Self::with(Services::new(), Settings { input_dirs, ..Settings::default() })
    }

    fn with_services(services: Services) -> Self {
        Self::with(services, Settings::default())
    }

    fn with(services: Services, settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { base_dir: Some(dir.path().to_owned()), ..settings };
        let assets = Assets::open(&settings).unwrap();
        let (caught, given) = (Caught::default(), Given::default());
        let services = services.with(Arc::new(assets)).with(caught.clone()).with(given.clone());
        let nodes =
            crate::all_nodes().chain([NodeDef::of::<Catch>(), NodeDef::of::<Give>(), NodeDef::of::<GiveList>()]);
        let registry = Registry::new(nodes, services);
        Self { dir, registry, executor: Executor::new(Cache::new(1 << 30).into()), caught, given }
    }

    /// What its nodes can reach.
    pub(crate) fn services(&self) -> &Services {
        self.registry.services()
    }

    /// A path in the base directory.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into the base directory.
    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// What `Give` gives under a name.
    pub(crate) fn give(&self, name: &str, value: Value) -> &Self {
        self.given.0.lock().unwrap().insert(name.to_owned(), value);
        self
    }

    /// Plans a graph.
    pub(crate) fn plan(&self, graph: Json) -> Result<Plan, Vec<GraphError>> {
        Plan::new(formats::read(&write_out(&graph), &self.registry).unwrap(), &self.registry)
    }

    /// Plans a graph as a file has it.
    pub(crate) fn plan_file(&self, file: &[u8]) -> Result<Plan, Vec<GraphError>> {
        Plan::new(formats::read(file, &self.registry).unwrap(), &self.registry)
    }

    /// What the first node, or the plan before it, has to say against a graph that cannot run.
    pub(crate) fn refusal(&self, graph: Json) -> String {
        match self.plan(graph) {
            Ok(plan) => self.run_plan(Ok(plan), |_, _| {}).failure().1.to_string(),
            Err(faults) => faults[0].to_string(),
        }
    }

    /// Plans and runs a graph; its faults are the test's.
    pub(crate) fn run(&self, graph: Json) -> Outcome {
        self.run_until(graph, |_, _| {})
    }

    /// The same; `watch` sees each event as it happens, and may cancel.
    pub(crate) fn run_until(&self, graph: Json, watch: impl Fn(&Event, &Cancel) + Sync) -> Outcome {
        self.run_plan(self.plan(graph), watch)
    }

    /// The same for a graph as a file has it.
    pub(crate) fn run_file(&self, file: &[u8]) -> Outcome {
        let graph = formats::read(file, &self.registry).unwrap();
        self.run_plan(Plan::new(&graph, &self.registry), |_, _| {})
    }

    fn run_plan(&self, plan: Result<Plan, Vec<GraphError>>, watch: impl Fn(&Event, &Cancel) + Sync) -> Outcome {
        let plan = plan.unwrap_or_else(|faults| panic!("{faults:#?}"));
        let (events, cancel) = (Mutex::new(Vec::new()), Cancel::new());
        let ended = self.executor.run(&plan, &cancel, &|event| {
            watch(&event, &cancel);
            events.lock().unwrap().push(event);
        });
        let events = events.into_inner().unwrap();
        let failed = events.iter().any(|event| matches!(event, Event::Failed { .. }));
        assert_eq!(ended == Ended::Failed, failed);
        Outcome { events, caught: std::mem::take(&mut self.caught.0.lock().unwrap()) }
    }
}

impl Outcome {
    /// The value that the `Catch` of that id got.
    pub(crate) fn value<T: paraflow_engine::Port>(&self, node: &str) -> Shared<T> {
        let value = self.caught.get(node).unwrap_or_else(|| panic!("{node} caught nothing: {:#?}", self.events));
        value.share().unwrap_or_else(|| panic!("{node} caught {value:?}"))
    }

    /// What the `Catch` of that id got, of any kind.
    pub(crate) fn caught(&self, node: &str) -> &Value {
        self.caught.get(node).unwrap_or_else(|| panic!("{node} caught nothing: {:#?}", self.events))
    }

    /// The node that failed, and why.
    pub(crate) fn failure(&self) -> (&str, &Error) {
        let failed = self.events.iter().find_map(|event| match event {
            Event::Failed { node, error, .. } => Some((node.as_str(), &**error)),
            _ => None,
        });
        failed.unwrap_or_else(|| panic!("nothing failed: {:#?}", self.events))
    }

    /// Warnings, in their order.
    pub(crate) fn warnings(&self) -> Vec<&str> {
        let text = |event: &'_ Event| matches!(event, Event::Warning { .. });
        let warnings = self.events.iter().filter(|event| text(event));
        warnings.map(|event| if let Event::Warning { text, .. } = event { text.as_str() } else { "" }).collect()
    }

    /// What a sink showed.
    pub(crate) fn shown(&self, id: &str) -> &Json {
        let shown = self.events.iter().find_map(|event| match event {
            Event::Output { node, ui } if node == id => Some(&**ui),
            _ => None,
        });
        shown.unwrap_or_else(|| panic!("{id} showed nothing: {:#?}", self.events))
    }

    /// Ids of the nodes that ran.
    pub(crate) fn ran(&self) -> Vec<&str> {
        let ran = self.events.iter().filter_map(|event| match event {
            Event::Finished { node, .. } => Some(node.as_str()),
            _ => None,
        });
        ran.collect()
    }
}

/// A graph in short, `{"1": ["LoadImage", {"image": "a.png"}], …}`, written out as a file has it.
fn write_out(short: &Json) -> Vec<u8> {
    let entry = |node: &Json| json!({"class_type": node[0], "inputs": node[1]});
    let nodes = short.as_object().unwrap().iter().map(|(id, node)| (id.clone(), entry(node)));
    serde_json::to_vec(&Json::Object(nodes.collect())).unwrap()
}
