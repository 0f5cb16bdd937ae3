//! Ways out of a fault, found in the declarations: no node is known here by name.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::nearest::nearest;
use crate::registry::Registry;
use crate::spec::{NodeSpec, Specs, Widget};

/// Looks ways out up, each once: a graph may have a thousand faults of one sort.
pub(crate) struct Suggestions<'r> {
    registry: &'r Registry,
    classes: HashMap<String, Option<String>>,
    sources: HashMap<String, Option<String>>,
    bridges: HashMap<(String, String), Option<String>>,
}

impl<'r> Suggestions<'r> {
    pub(crate) fn new(registry: &'r Registry) -> Self {
        Self { registry, classes: HashMap::new(), sources: HashMap::new(), bridges: HashMap::new() }
    }

    /// The class with a name like this one.
    pub(crate) fn class(&mut self, name: &str) -> Option<String> {
        let registry = self.registry;
        let find = || nearest(name, registry.names()).map(str::to_owned);
        self.classes.entry(name.to_owned()).or_insert_with(find).clone()
    }

    /// The plainest class that makes an `expected` from a `found`: it needs the one, and does not need the other.
    pub(crate) fn bridge(&mut self, found: &str, expected: &str) -> Option<String> {
        let registry = self.registry;
        let find = || {
            let crosses = |spec: &NodeSpec| needs(spec, found) && !needs(spec, expected) && gives(spec, expected);
            plainest(registry.specs().filter(|spec| crosses(spec)))
        };
        self.bridges.entry((found.to_owned(), expected.to_owned())).or_insert_with(find).clone()
    }

    /// The plainest class that gives a `kind` out of other things. None for what a file can hold.
    pub(crate) fn source(&mut self, kind: &str) -> Option<String> {
        if ["INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "*"].contains(&kind) {
            return None;
        }
        let registry = self.registry;
        let makes = |spec: &NodeSpec| gives(spec, kind) && !needs(spec, kind);
        let find = || plainest(registry.specs().filter(|spec| makes(spec)));
        self.sources.entry(kind.to_owned()).or_insert_with(find).clone()
    }

    /// Some classes that save or show. What most of them take is what graphs are mostly made for, so those that take it
    /// come first, the plainest before the others.
    pub(crate) fn sinks(&self) -> Vec<String> {
        const ENOUGH: usize = 3;
        let mut sinks: Vec<&NodeSpec> = self.registry.specs().filter(|spec| spec.sink && !spec.deprecated).collect();
        let takers = |kind: &str| sinks.iter().filter(|spec| needs(spec, kind)).count();
        let wanted = |spec: &NodeSpec| sockets(spec).map(takers).max().unwrap_or(0);
        let ranks: HashMap<&str, usize> = sinks.iter().map(|spec| (spec.name, wanted(spec))).collect();
        sinks.sort_by_key(|spec| (Reverse(ranks[spec.name]), plainness(spec)));
        sinks.into_iter().take(ENOUGH).map(|spec| spec.name.to_owned()).collect()
    }
}

/// Whether a wire of that kind must go in. (A `*` does not count: anything would be a way to anything.)
fn needs(spec: &NodeSpec, kind: &str) -> bool {
    sockets(spec).any(|input| shares_kind(input, kind))
}

fn gives(spec: &NodeSpec, kind: &str) -> bool {
    spec.outputs.iter().any(|output| shares_kind(output.kind, kind))
}

fn sockets(spec: &NodeSpec) -> impl Iterator<Item = &str> {
    let sockets = spec.inputs.iter().filter(|input| input.required && input.widget == Widget::Socket);
    sockets.map(|input| input.kind)
}

fn shares_kind(kinds: &str, wanted: &str) -> bool {
    kinds.split(',').any(|kind| kind.trim() != "*" && wanted.split(',').any(|wanted| wanted.trim() == kind.trim()))
}

/// The one that needs least.
fn plainest<'s>(specs: impl Iterator<Item = &'s NodeSpec>) -> Option<String> {
    let plain = specs.filter(|spec| !spec.deprecated);
    plain.min_by_key(|spec| plainness(spec)).map(|spec| spec.name.to_owned())
}

/// What a node needs and gives: the less, the plainer.
fn plainness(spec: &NodeSpec) -> (usize, usize, usize) {
    (sockets(spec).count(), spec.outputs.len(), spec.inputs.len())
}
