//! A graph known to run: literals parsed, kinds matched, order fixed.

mod check;
mod fault;
mod literal;
mod prompt;
mod suggest;

use std::sync::{Arc, OnceLock};

use serde_json::Value as Json;

pub use self::fault::{Fault, GraphError};
pub(crate) use self::literal::{is_whole, range, takes};

use self::check::{Checked, Part, check};
use crate::graph::{Entry, Graph, NodeId};
use crate::registry::{NodeType, Registry};
use crate::services::Services;
use crate::value::Value;

/// A graph known to run: what its outputs need, each node after those it reads.
pub struct Plan {
    graph: Arc<Graph>,
    tasks: Vec<Task>,
    edits: Vec<(usize, String, Json)>,
    warnings: Vec<Warning>,
    services: Arc<Services>,
    prompt: OnceLock<Json>,
}

/// One node of a plan.
pub(crate) struct Task {
    pub(crate) node: Arc<NodeType>,
    /// In the order of the node's inputs. Wires name tasks by position.
    pub(crate) inputs: Vec<Source>,
    /// Wires that the node did not declare: their position among the entry's inputs.
    pub(crate) rest: Vec<(usize, Wire)>,
    /// Asked for: the run is for its sake.
    pub(crate) target: bool,
    /// How soon it goes among those that are ready: outputs, then what feeds an output, then what feeds that.
    pub(crate) rank: u8,
    /// Its position in the graph.
    entry: usize,
}

/// Where an input gets its value.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Nowhere: it is optional.
    Absent,
    /// From the file.
    Literal(Value),
    /// From another node.
    Wire(Wire),
}

/// One output of another node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    pub(crate) from: usize,
    pub(crate) slot: usize,
    /// Only evaluated when the reader asks for it.
    pub(crate) lazy: bool,
}

/// Something about a graph that the user should know and that stops nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The node.
    pub node: NodeId,
    /// A sentence.
    pub text: String,
}

impl From<&Graph> for Arc<Graph> {
    fn from(graph: &Graph) -> Self {
        Self::new(graph.clone())
    }
}

impl Plan {
    /// Checks the graph and orders what its outputs need.
    ///
    /// Literals are converted as ComfyUI does (3.7 to 3, `"5"` to 5). A required input that the graph leaves out gets
    /// its default, if it has one: ComfyUI's server refuses it, our hand-written graphs may.
    ///
    /// A borrowed graph is copied into the plan; one that is given away or shared by its `Arc` is not.
    ///
    /// # Errors
    ///
    /// Every fault there is, in the graph's order, then in the order of the node's inputs. All nodes must have a known
    /// class; the inputs of those that neither an output nor a node of an unknown class needs are not looked at.
    pub fn new(graph: impl Into<Arc<Graph>>, registry: &Registry) -> Result<Self, Vec<GraphError>> {
        Self::whole(graph.into(), registry, None)
    }

    /// The same for these outputs only.
    ///
    /// # Errors
    ///
    /// As [`Plan::new`], and [`Fault::UnknownTarget`] for a target that is not in the graph.
    pub fn for_outputs(
        graph: impl Into<Arc<Graph>>,
        registry: &Registry,
        targets: &[NodeId],
    ) -> Result<Self, Vec<GraphError>> {
        Self::whole(graph.into(), registry, Some(targets))
    }

    /// A plan for the outputs that no fault lies under, if there are any, and every fault of the others: what ComfyUI's
    /// server makes of a graph that is partly broken.
    #[must_use]
    pub fn partial(
        graph: impl Into<Arc<Graph>>,
        registry: &Registry,
        targets: Option<&[NodeId]>,
    ) -> (Option<Self>, Vec<GraphError>) {
        let graph = graph.into();
        let mut checked = check(&graph, registry, targets);
        let errors = std::mem::take(&mut checked.errors);
        let sinks = checked.sound_sinks();
        let plan = (!sinks.is_empty()).then(|| Self::assemble(graph, registry, checked, &sinks));
        (plan, errors)
    }

    fn whole(graph: Arc<Graph>, registry: &Registry, targets: Option<&[NodeId]>) -> Result<Self, Vec<GraphError>> {
        let mut checked = check(&graph, registry, targets);
        if !checked.errors.is_empty() {
            return Err(checked.errors);
        }
        let sinks = std::mem::take(&mut checked.sinks);
        Ok(Self::assemble(graph, registry, checked, &sinks))
    }

    fn assemble(graph: Arc<Graph>, registry: &Registry, mut checked: Checked, sinks: &[usize]) -> Self {
        let order = checked.order(sinks);
        let mut position = vec![usize::MAX; graph.nodes.len()];
        for (task, &entry) in order.iter().enumerate() {
            position[entry] = task;
        }
        let mut part = |entry: usize| checked.parts[entry].take().expect("every needed entry was checked");
        let mut tasks: Vec<Task> = order.iter().map(|&entry| Task::new(part(entry), entry, &position)).collect();
        for &sink in sinks {
            tasks[position[sink]].target = true;
        }
        rank(&mut tasks);
        Self {
            graph,
            tasks,
            edits: checked.edits,
            warnings: checked.warnings,
            services: registry.shared_services(),
            prompt: OnceLock::new(),
        }
    }

    /// How many nodes it needs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether it needs none, which no plan does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The nodes that it needs, each after those it reads.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.tasks.iter().map(|task| self.id(task))
    }

    /// The outputs that it runs for.
    pub fn outputs(&self) -> impl Iterator<Item = &NodeId> {
        self.tasks.iter().filter(|task| task.target).map(|task| self.id(task))
    }

    /// What the user should know, in the graph's order; a run repeats it as events.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The whole graph as an API prompt, literals converted and defaults filled, every other field as it came.
    pub fn prompt(&self) -> &Json {
        self.prompt.get_or_init(|| prompt::write(&self.graph, &self.edits))
    }

    /// The UI workflow that the graph was made from, if it was.
    #[must_use]
    pub fn workflow(&self) -> Option<&Json> {
        self.graph.workflow.as_ref()
    }

    /// What else a client gave to be saved into pictures, by keyword.
    #[must_use]
    pub fn extra(&self) -> &serde_json::Map<String, Json> {
        &self.graph.extra
    }

    pub(crate) fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The positions of the tasks, in the order in which the graph lists their nodes.
    pub(crate) fn in_graph_order(&self) -> Vec<usize> {
        let mut positions: Vec<usize> = (0..self.tasks.len()).collect();
        positions.sort_unstable_by_key(|&position| self.tasks[position].entry);
        positions
    }

    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    pub(crate) fn id(&self, task: &Task) -> &NodeId {
        &self.graph.nodes[task.entry].0
    }

    pub(crate) fn entry(&self, task: &Task) -> &Entry {
        &self.graph.nodes[task.entry].1
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.nodes()).finish()
    }
}

impl Task {
    fn new(part: Part, entry: usize, position: &[usize]) -> Self {
        let Part { node, mut inputs, mut rest } = part;
        for wire in inputs.iter_mut().filter_map(Source::as_wire_mut).chain(rest.iter_mut().map(|(_, wire)| wire)) {
            wire.from = position[wire.from];
        }
        Self { node, inputs, rest, target: false, rank: LAST_RANK, entry }
    }

    /// Everything it reads from other nodes, declared or not.
    pub(crate) fn wires(&self) -> impl Iterator<Item = Wire> {
        let declared = self.inputs.iter().filter_map(Source::as_wire);
        declared.chain(self.rest.iter().map(|(_, wire)| *wire))
    }
}

impl Source {
    pub(crate) fn as_wire(&self) -> Option<Wire> {
        if let Self::Wire(wire) = self { Some(*wire) } else { None }
    }

    fn as_wire_mut(&mut self) -> Option<&mut Wire> {
        if let Self::Wire(wire) = self { Some(wire) } else { None }
    }
}

const LAST_RANK: u8 = 3;

/// Outputs first, then what feeds an output, then what feeds that, then the rest: pictures are shown as early as may
/// be.
fn rank(tasks: &mut [Task]) {
    for task in tasks.iter_mut().filter(|task| task.node.spec.sink) {
        task.rank = 0;
    }
    for rank in 1..LAST_RANK {
        let feeders: Vec<usize> =
            tasks.iter().filter(|task| task.rank == rank - 1).flat_map(Task::wires).map(|wire| wire.from).collect();
        for feeder in feeders {
            tasks[feeder].rank = tasks[feeder].rank.min(rank);
        }
    }
}
