//! The checks of a graph: every fault at once, in the graph's order, then in the order of the node's inputs.

use std::collections::HashMap;
use std::sync::Arc;

use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{DfsPostOrder, EdgeRef, Reversed};
use serde_json::Value as Json;

use crate::graph::{Binding, Entry, Graph, NodeId};
use crate::nearest::nearest;
use crate::plan::fault::{Fault, GraphError};
use crate::plan::literal::{self, Refusal};
use crate::plan::suggest::Suggestions;
use crate::plan::{Source, Warning, Wire};
use crate::registry::{NodeType, Registry};
use crate::spec::{Dynamic, InputSpec, NodeSpec, Widget};
use crate::value::Value;

/// An entry of the graph that is needed, its inputs resolved. Wires name entries by position.
pub(crate) struct Part {
    pub(crate) node: Arc<NodeType>,
    /// In the order of the node's inputs.
    pub(crate) inputs: Vec<Source>,
    /// Wires that the node did not declare: their position among the entry's inputs.
    pub(crate) rest: Vec<(usize, Wire)>,
}

/// What the checks found out.
pub(crate) struct Checked {
    /// Every fault.
    pub(crate) errors: Vec<GraphError>,
    /// What stops nothing.
    pub(crate) warnings: Vec<Warning>,
    /// By entry: what is needed, broken or not.
    pub(crate) parts: Vec<Option<Part>>,
    /// The entries to run for.
    pub(crate) sinks: Vec<usize>,
    /// Literals that were converted or filled in: entry, input, new literal.
    pub(crate) edits: Vec<(usize, String, Json)>,
    /// Who reads whom, an edge from the maker to the reader; a node an entry.
    wires: DiGraph<(), ()>,
    /// By entry: whether it has a fault of its own.
    faulty: Vec<bool>,
}

impl Checked {
    /// The sinks that no fault lies under.
    pub(crate) fn sound_sinks(&self) -> Vec<usize> {
        let mut broken = self.faulty.clone();
        let mut stack: Vec<usize> = (0..broken.len()).filter(|&entry| broken[entry]).collect();
        while let Some(entry) = stack.pop() {
            for reader in self.wires.neighbors(NodeIndex::new(entry)) {
                if !std::mem::replace(&mut broken[reader.index()], true) {
                    stack.push(reader.index());
                }
            }
        }
        self.sinks.iter().copied().filter(|&sink| !broken[sink]).collect()
    }

    /// The entries that these sinks need, each after those it reads: one sink's branch after another, depth first, so
    /// that a branch is finished, and its values dropped, before the next one starts.
    pub(crate) fn order(&self, sinks: &[usize]) -> Vec<usize> {
        let upstream = Reversed(&self.wires);
        let mut walk = DfsPostOrder::empty(upstream);
        let mut order = Vec::new();
        for &sink in sinks {
            walk.move_to(NodeIndex::new(sink));
            while let Some(entry) = walk.next(upstream) {
                order.push(entry.index());
            }
        }
        order
    }
}

/// Checks what the targets need, or what all outputs need if there are no targets.
pub(crate) fn check(graph: &Graph, registry: &Registry, targets: Option<&[NodeId]>) -> Checked {
    let mut checker = Checker::new(graph, registry);
    checker.choose_sinks(targets);
    checker.walk();
    for entry in 0..graph.nodes.len() {
        checker.check_entry(entry);
    }
    checker.find_cycles();
    checker.errors.sort_by_key(|(entry, _)| *entry);
    Checked {
        faulty: checker.faulty,
        errors: checker.errors.into_iter().map(|(_, error)| error).collect(),
        warnings: checker.warnings,
        parts: checker.parts,
        sinks: checker.sinks,
        edits: checker.edits,
        wires: checker.wires,
    }
}

struct Checker<'a> {
    graph: &'a Graph,
    registry: &'a Registry,
    suggest: Suggestions<'a>,
    positions: HashMap<&'a str, usize>,
    /// By entry; `None` where the class is unknown.
    nodes: Vec<Option<&'a Arc<NodeType>>>,
    /// By entry: whether a sink needs it.
    needed: Vec<bool>,
    sinks: Vec<usize>,
    wires: DiGraph<(), ()>,
    parts: Vec<Option<Part>>,
    faulty: Vec<bool>,
    errors: Vec<(usize, GraphError)>,
    warnings: Vec<Warning>,
    edits: Vec<(usize, String, Json)>,
}

/// Sorts faults of the whole graph after those of nodes.
const WHOLE_GRAPH: usize = usize::MAX;

impl<'a> Checker<'a> {
    fn new(graph: &'a Graph, registry: &'a Registry) -> Self {
        let entries = graph.nodes.len();
        let mut wires = DiGraph::with_capacity(entries, entries);
        for _ in 0..entries {
            wires.add_node(());
        }
        Self {
            graph,
            registry,
            suggest: Suggestions::new(registry),
            positions: graph.nodes.iter().enumerate().map(|(at, (id, _))| (id.as_str(), at)).collect(),
            nodes: graph.nodes.iter().map(|(_, entry)| registry.node(&entry.class)).collect(),
            needed: vec![false; entries],
            sinks: Vec::new(),
            wires,
            parts: (0..entries).map(|_| None).collect(),
            faulty: vec![false; entries],
            errors: Vec::new(),
            warnings: Vec::new(),
            edits: Vec::new(),
        }
    }

    fn entry(&self, at: usize) -> (&'a NodeId, &'a Entry) {
        let (id, entry) = &self.graph.nodes[at];
        (id, entry)
    }

    fn fault(&mut self, at: usize, fault: Fault) {
        let (node, class, title) = match self.graph.nodes.get(at) {
            Some((id, entry)) => (Some(id.clone()), entry.class.clone(), entry.title.clone()),
            None => (None, String::new(), None),
        };
        if let Some(faulty) = self.faulty.get_mut(at) {
            *faulty = true;
        }
        let title = title.filter(|title| *title != class && !self.is_display_name(at, title));
        self.errors.push((at, GraphError { node, class, title, fault }));
    }

    /// Whether that is what everyone calls the node.
    fn is_display_name(&self, at: usize, title: &str) -> bool {
        self.nodes.get(at).copied().flatten().is_some_and(|node| node.spec.display_name == Some(title))
    }

    /// The nodes to run for, in the graph's order: all outputs, or whatever was asked for.
    fn choose_sinks(&mut self, targets: Option<&[NodeId]>) {
        let Some(targets) = targets else {
            let is_sink = |&at: &usize| self.nodes[at].is_some_and(|node| node.spec.sink);
            let every: Vec<usize> = (0..self.nodes.len()).filter(is_sink).collect();
            // Without its class, a node may well be the output.
            if every.is_empty() && self.nodes.iter().all(Option::is_some) {
                let sinks = self.suggest.sinks();
                self.fault(WHOLE_GRAPH, Fault::NoOutputs { sinks });
            }
            self.sinks = every;
            return;
        };
        for target in targets {
            match self.positions.get(target.as_str()) {
                Some(at) => self.sinks.push(*at),
                None => self.fault(WHOLE_GRAPH, Fault::UnknownTarget { target: target.clone() }),
            }
        }
        if targets.is_empty() {
            self.fault(WHOLE_GRAPH, Fault::NoOutputs { sinks: Vec::new() });
        }
        self.sinks.sort_unstable();
        self.sinks.dedup();
    }

    /// Marks what the sinks need, and draws the wires between. A node of an unknown class may well be an output: what it
    /// reads is looked at too, so that its faults do not wait until the class is put right.
    fn walk(&mut self) {
        let unknown = (0..self.nodes.len()).filter(|&at| self.nodes[at].is_none());
        let mut stack: Vec<usize> = self.sinks.iter().copied().chain(unknown).collect();
        for &at in &stack {
            self.needed[at] = true;
        }
        while let Some(at) = stack.pop() {
            for (_, binding) in &self.entry(at).1.inputs {
                let Binding::Link { node, .. } = binding else { continue };
                let Some(&from) = self.positions.get(node.as_str()) else { continue };
                self.wires.add_edge(NodeIndex::new(from), NodeIndex::new(at), ());
                if !std::mem::replace(&mut self.needed[from], true) {
                    stack.push(from);
                }
            }
        }
    }

    fn check_entry(&mut self, at: usize) {
        let (_, entry) = self.entry(at);
        let Some(node) = self.nodes[at] else {
            let fault = match entry.class.as_str() {
                "" => Fault::NoClass,
                class => Fault::UnknownClass { nearest: self.suggest.class(class) },
            };
            return self.fault(at, fault);
        };
        if !self.needed[at] {
            return;
        }
        let mut inputs = Vec::with_capacity(node.spec.inputs.len());
        for position in 0..node.spec.inputs.len() {
            match self.resolve(at, node, position) {
                Ok(source) => inputs.push(source),
                Err(fault) => self.fault(at, *fault),
            }
        }
        let rest = self.undeclared(at, node);
        self.parts[at] = Some(Part { node: Arc::clone(node), inputs, rest });
    }

    /// Where one declared input gets its value.
    fn resolve(&mut self, at: usize, node: &NodeType, position: usize) -> Result<Source, Box<Fault>> {
        let spec = &node.spec.inputs[position];
        let (_, entry) = self.entry(at);
        if let Some(Dynamic::Grows { prefix, .. }) = spec.dynamic {
            let grown = entry.inputs.iter().any(|(name, _)| node.spec.growing(name) == Some(spec));
            return if grown {
                Ok(Source::Absent)
            } else {
                Err(self.missing(at, node, spec, format!("{}.{prefix}0", spec.name)))
            };
        }
        if !spec.is_there(|choice| standing(entry, &node.spec, choice)) {
            return Ok(Source::Absent);
        }
        match entry.inputs.iter().find(|(name, _)| name == spec.name) {
            None => self.fill(at, node, spec),
            Some((_, Binding::Link { node: from, slot })) => {
                self.wire((spec.name, spec.kind, spec.lazy), from, *slot).map(Source::Wire)
            }
            Some((name, Binding::Literal(literal))) => {
                if literal.is_array() {
                    return Err(Box::new(Fault::BadLink { input: name.clone(), found: literal.clone() }));
                }
                let value = self.literal(spec, literal)?;
                (node.fields[position].check)(&value, self.registry.services())
                    .map_err(|mismatch| Box::new(Fault::Rejected { input: name.clone(), mismatch }))?;
                if !is_as_written(&value, literal::unwrapped(literal)) {
                    self.convert(at, spec, literal, &value);
                }
                Ok(Source::Literal(value))
            }
        }
    }

    /// An input that the graph leaves out: its default where it is required and has one.
    fn fill(&mut self, at: usize, node: &NodeType, spec: &InputSpec) -> Result<Source, Box<Fault>> {
        if !spec.required {
            return Ok(Source::Absent);
        }
        if let Some(default) = &spec.default
            && let Ok(value) = literal::parse(spec, default)
        {
            let written = value.to_json().unwrap_or_else(|| default.clone());
            self.edits.push((at, spec.name.to_owned(), written));
            return Ok(Source::Literal(value));
        }
        Err(self.missing(at, node, spec, spec.name.to_owned()))
    }

    /// The fault of an input that is neither wired nor given.
    fn missing(&mut self, at: usize, node: &NodeType, spec: &InputSpec, input: String) -> Box<Fault> {
        let (_, entry) = self.entry(at);
        let undeclared =
            entry.inputs.iter().map(|(name, _)| name.as_str()).filter(|name| node.spec.input(name).is_none());
        Box::new(Fault::MissingInput {
            expected: spec.kind.to_owned(),
            misspelt: nearest(&input, undeclared).map(str::to_owned),
            source_class: self.suggest.source(spec.kind),
            input,
        })
    }

    /// A link, from a node that is there and gives what fits.
    fn wire(&mut self, (name, kind, lazy): (&str, &str, bool), from: &NodeId, slot: usize) -> Result<Wire, Box<Fault>> {
        let (input, expected) = (name.to_owned(), kind.to_owned());
        let Some(&source) = self.positions.get(from.as_str()) else {
            return Err(Box::new(Fault::Dangling { input, expected, target: from.clone() }));
        };
        let wire = Wire { from: source, slot, lazy };
        let Some(maker) = self.nodes[source] else { return Ok(wire) };
        let outputs = &maker.spec.outputs;
        let fitting = || outputs.iter().position(|output| fits(output.kind, kind));
        let Some(output) = outputs.get(slot) else {
            let (slots, fitting) = (outputs.len(), fitting());
            return Err(Box::new(Fault::NoSlot { input, expected, from: from.clone(), slot, slots, fitting }));
        };
        if fits(output.kind, kind) {
            return Ok(wire);
        }
        let (found, fitting) = (output.kind.to_owned(), fitting());
        let bridge = self.suggest.bridge(output.kind, kind);
        Err(Box::new(Fault::WrongKind { input, expected, found, from: from.clone(), fitting, bridge }))
    }

    fn literal(&mut self, spec: &InputSpec, literal: &Json) -> Result<Value, Box<Fault>> {
        let refusal = match literal::parse(spec, literal) {
            Ok(value) => return Ok(value),
            Err(refusal) => refusal,
        };
        let (input, found, expected) = (spec.name.to_owned(), literal.clone(), spec.kind.to_owned());
        let fault = match refusal {
            Refusal::Socket => Fault::NotALink { input, expected, found, source_class: self.suggest.source(spec.kind) },
            Refusal::Type => Fault::WrongType { input, expected, found },
            Refusal::Small(found) => {
                let (min, max) = literal::range(spec);
                Fault::TooSmall { input, found, min, max }
            }
            Refusal::Big(found) => {
                let (min, max) = literal::range(spec);
                Fault::TooBig { input, found, min, max }
            }
            Refusal::List => {
                let choices = if let Widget::Choice(choices) = &spec.widget { choices.clone() } else { Vec::new() };
                let close = found.as_str().and_then(|name| nearest(name, choices.iter().map(String::as_str)));
                let nearest = close.map(str::to_owned);
                Fault::NotInList { input, found, choices, nearest }
            }
        };
        Err(Box::new(fault))
    }

    /// Keeps the converted literal for the saved prompt, and tells of the conversion that surprises.
    fn convert(&mut self, at: usize, spec: &InputSpec, literal: &Json, value: &Value) {
        if literal.as_str().is_some_and(|text| text.eq_ignore_ascii_case("false")) && value.get() == Some(&true) {
            let text = format!(
                "input `{}` is the word \"false\", which counts as true; write false without quotes",
                spec.name
            );
            self.warn(at, text);
        }
        if let Some(written) = value.to_json() {
            self.edits.push((at, spec.name.to_owned(), written));
        }
    }

    /// Links that the node did not declare: for a node that takes any, wires, for others a fault. Literals are dropped,
    /// as in ComfyUI, with a warning where one looks like a slip.
    fn undeclared(&mut self, at: usize, node: &NodeType) -> Vec<(usize, Wire)> {
        let (_, entry) = self.entry(at);
        let mut rest = Vec::new();
        let declared = || node.spec.inputs.iter().map(|spec| spec.name);
        for (position, (input, binding)) in entry.inputs.iter().enumerate() {
            if node.spec.input(input).is_some() {
                continue;
            }
            let kind = match node.spec.growing(input) {
                Some(grown) => Some(grown.kind),
                None => node.def.variadic.then_some("*"),
            };
            match (binding, kind) {
                (Binding::Link { node: from, slot }, Some(kind)) => {
                    match self.wire((input, kind, false), from, *slot) {
                        Ok(wire) => rest.push((position, wire)),
                        Err(fault) => self.fault(at, *fault),
                    }
                }
                (Binding::Link { .. }, None) => {
                    let nearest = nearest(input, declared()).map(str::to_owned);
                    self.fault(at, Fault::UnknownInput { input: input.clone(), nearest });
                }
                (Binding::Literal(_), _) => {
                    let left_out = declared().filter(|name| entry.inputs.iter().all(|(given, _)| given != name));
                    if let Some(meant) = nearest(input, left_out) {
                        self.warn(at, format!("it has no input `{input}`; did you mean `{meant}`?"));
                    }
                }
            }
        }
        rest
    }

    fn warn(&mut self, at: usize, text: String) {
        self.warnings.push(Warning { node: self.entry(at).0.clone(), text });
    }

    /// One fault for each knot of nodes that wait for one another, at its first node.
    fn find_cycles(&mut self) {
        if toposort(&self.wires, None).is_ok() {
            return;
        }
        for knot in kosaraju_scc(&self.wires) {
            if knot.len() == 1 && !self.wires.contains_edge(knot[0], knot[0]) {
                continue;
            }
            let mut knot: Vec<usize> = knot.into_iter().map(NodeIndex::index).collect();
            knot.sort_unstable();
            let cycle = self.shortest_cycle(&knot);
            let path = cycle.into_iter().map(|at| self.entry(at).0.clone()).collect();
            self.fault(knot[0], Fault::Cycle { path });
            for member in knot {
                self.faulty[member] = true;
            }
        }
    }

    /// The shortest way along the wires from the knot's first node back to it, that node at both ends.
    fn shortest_cycle(&self, knot: &[usize]) -> Vec<usize> {
        let first = knot[0];
        let mut came_from: HashMap<usize, usize> = HashMap::new();
        let mut queue = std::collections::VecDeque::from([first]);
        while let Some(at) = queue.pop_front() {
            let mut readers: Vec<usize> =
                self.wires.edges(NodeIndex::new(at)).map(|wire| wire.target().index()).collect();
            readers.sort_unstable();
            for reader in readers {
                if reader == first {
                    return path_to(first, at, &came_from);
                }
                if knot.binary_search(&reader).is_ok() && !came_from.contains_key(&reader) {
                    came_from.insert(reader, at);
                    queue.push_back(reader);
                }
            }
        }
        vec![first]
    }
}

/// What a choice of the node stands at: what the graph says, else what it starts with.
fn standing(entry: &Entry, spec: &NodeSpec, choice: &str) -> Option<Json> {
    match entry.inputs.iter().find(|(name, _)| name == choice) {
        Some((_, Binding::Literal(literal))) => Some(literal::unwrapped(literal).clone()),
        Some((_, Binding::Link { .. })) => None,
        None => spec.input(choice)?.default.clone(),
    }
}

/// `first … last, first`.
fn path_to(first: usize, last: usize, came_from: &HashMap<usize, usize>) -> Vec<usize> {
    let mut path = vec![first, last];
    let mut at = last;
    while at != first {
        at = came_from[&at];
        path.push(at);
    }
    path.reverse();
    path
}

/// Whether a wire may join an output of one kind to an input of the other: equal, anything, or a kind in common.
fn fits(found: &str, expected: &str) -> bool {
    let any = |kind: &str| kind == "*";
    let kinds = |kinds| str::split(kinds, ',').map(str::trim);
    found == expected
        || kinds(found).any(|found| any(found) || kinds(expected).any(|expected| any(expected) || found == expected))
}

/// Whether the value is the literal as it stands, so that the prompt need not change.
fn is_as_written(value: &Value, literal: &Json) -> bool {
    match literal {
        Json::String(_) => value.get::<String>().is_some(),
        Json::Bool(_) => value.get::<bool>().is_some(),
        Json::Number(number) if number.is_f64() => value.get::<f64>().is_some(),
        Json::Number(_) => value.get::<i128>().is_some(),
        Json::Null | Json::Array(_) | Json::Object(_) => value.get::<Json>().is_some(),
    }
}
