//! All nodes of all subgraph instances as one flat list.
//!
//! A definition is read once and may be used many times; a [`Frame`] is one use of it, a [`Site`] one node in one
//! frame.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::super::error::{Fault, Place, Problem};
use super::parse::{Mode, Node, Workflow};

/// More nodes than anyone draws, few enough to hold: subgraphs within subgraphs multiply.
const MAX_NODES: usize = 200_000;
/// Deeper than anyone nests; what follows borders of subgraphs may recurse this deep.
pub(super) const MAX_DEPTH: usize = 64;

/// A node in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Site {
    pub(super) frame: usize,
    pub(super) node: usize,
}

/// One use of a scope: the graph itself, or a subgraph instance.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) scope: usize,
    /// The instance's own site; nothing for the graph itself.
    pub(super) instance: Option<Site>,
    /// What the ids of its nodes begin with: `57:`.
    prefix: String,
    /// Muted or bypassed with its instance.
    mode: Mode,
    depth: usize,
}

/// The flat list.
#[derive(Debug)]
pub(super) struct Expanded {
    pub(super) frames: Vec<Frame>,
    /// In the order of execution, an instance's nodes in its place, the instance itself too.
    pub(super) sites: Vec<Site>,
    inner: HashMap<Site, usize>,
}

impl Expanded {
    /// Expands all instances.
    pub(super) fn new(workflow: &Workflow<'_>) -> Result<Self, Fault> {
        let root = Frame { scope: 0, instance: None, prefix: String::new(), mode: Mode::Always, depth: 0 };
        let mut expanded = Self { frames: vec![root], sites: Vec::new(), inner: HashMap::new() };
        let mut pending = vec![(0, workflow.scopes[0].in_order().into_iter())];
        while let Some((frame, order)) = pending.last_mut() {
            let Some(node) = order.next() else {
                pending.pop();
                continue;
            };
            let site = Site { frame: *frame, node };
            expanded.sites.push(site);
            if let Some(scope) = workflow.node(&expanded, site).inner {
                let frame = expanded.enter(workflow, site, scope)?;
                pending.push((frame, workflow.scopes[scope].in_order().into_iter()));
            }
            if expanded.sites.len() > MAX_NODES {
                return Err(too_large());
            }
        }
        Ok(expanded)
    }

    /// Adds the frame of an instance.
    fn enter(&mut self, workflow: &Workflow<'_>, site: Site, scope: usize) -> Result<usize, Fault> {
        let name = |scope: usize| workflow.scopes[scope].name.clone().unwrap_or_default();
        let mut path = vec![name(scope)];
        let mut outer = Some(site);
        while let Some(Site { frame, .. }) = outer {
            let frame = &self.frames[frame];
            path.push(name(frame.scope));
            if frame.scope == scope {
                path.reverse();
                let place = Place::Node { id: self.id(workflow, site), class: String::new() };
                return Err(Fault { place, problem: Problem::SubgraphCycle { path } });
            }
            outer = frame.instance;
        }
        let depth = self.frames[site.frame].depth + 1;
        if depth > MAX_DEPTH {
            return Err(too_large());
        }
        let prefix = self.id(workflow, site) + ":";
        let mode = self.mode(workflow, site);
        self.inner.insert(site, self.frames.len());
        self.frames.push(Frame { scope, instance: Some(site), prefix, mode, depth });
        Ok(self.frames.len() - 1)
    }

    /// The frame that an instance opens.
    pub(super) fn inner(&self, site: Site) -> Option<usize> {
        self.inner.get(&site).copied()
    }

    /// Its id in the prompt: `57:3` is node 3 of instance 57.
    pub(super) fn id(&self, workflow: &Workflow<'_>, site: Site) -> String {
        format!("{}{}", self.frames[site.frame].prefix, workflow.node(self, site).id)
    }

    /// Whether it takes part: what is inside a muted or bypassed instance does not.
    pub(super) fn mode(&self, workflow: &Workflow<'_>, site: Site) -> Mode {
        match self.frames[site.frame].mode {
            Mode::Always => workflow.node(self, site).mode,
            inherited => inherited,
        }
    }
}

fn too_large() -> Fault {
    Fault { place: Place::File, problem: Problem::TooLarge { limit: MAX_NODES, depth: MAX_DEPTH } }
}

impl<'j> Workflow<'j> {
    /// The node at a site.
    pub(super) fn node(&self, expanded: &Expanded, site: Site) -> &Node<'j> {
        &self.scopes[expanded.frames[site.frame].scope].nodes[site.node]
    }

    /// The values of the widgets of the node at a site.
    pub(super) fn values(&self, expanded: &Expanded, site: Site) -> &[(String, Json)] {
        &self.node(expanded, site).widgets
    }
}
