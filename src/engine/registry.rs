//! Every node there is, by class name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::node::{Field, NodeDef};
use crate::plan::takes;
use crate::services::Services;
use crate::spec::{NodeSpec, Specs};

/// Every node there is, with the services that their lists and their runs ask.
#[derive(Clone)]
pub struct Registry {
    by_name: BTreeMap<&'static str, Arc<NodeType>>,
    services: Arc<Services>,
}

/// A registered node: its declaration as the services filled it, and its code.
pub(crate) struct NodeType {
    pub(crate) spec: NodeSpec,
    /// In the order of `spec.inputs`.
    pub(crate) fields: Vec<Field>,
    pub(crate) def: NodeDef,
}

impl Registry {
    /// A registry of these nodes. The lists that services know (file names) are asked for now.
    ///
    /// # Panics
    ///
    /// Where two nodes have one name: the program was put together wrongly.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = NodeDef>, services: Services) -> Self {
        let mut by_name = BTreeMap::new();
        for def in nodes {
            let node = NodeType::new(def, &services);
            let name = node.spec.name;
            assert!(by_name.insert(name, Arc::new(node)).is_none(), "two nodes are called `{name}`");
        }
        Self { by_name, services: Arc::new(services) }
    }

    /// The same nodes, their lists asked for anew.
    #[must_use]
    pub fn refreshed(&self) -> Self {
        let services = Arc::clone(&self.services);
        let renew = |node: &Arc<NodeType>| Arc::new(NodeType::new(node.def, &services));
        Self { by_name: self.by_name.iter().map(|(&name, node)| (name, renew(node))).collect(), services }
    }

    /// Every declaration, by name.
    pub fn specs(&self) -> impl Iterator<Item = &NodeSpec> {
        self.by_name.values().map(|node| &node.spec)
    }

    /// What is wrong with the declarations themselves, for a test that every crate of nodes has: defaults that the
    /// input would refuse, names that come twice, texts that say nothing. A sentence each.
    #[must_use]
    pub fn misdeclared(&self) -> Vec<String> {
        self.specs().flat_map(misdeclared).collect()
    }

    /// The services that it was made with.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    pub(crate) fn shared_services(&self) -> Arc<Services> {
        Arc::clone(&self.services)
    }

    pub(crate) fn node(&self, class: &str) -> Option<&Arc<NodeType>> {
        self.by_name.get(class)
    }
}

impl Specs for Registry {
    fn spec(&self, class: &str) -> Option<&NodeSpec> {
        self.node(class).map(|node| &node.spec)
    }

    fn names(&self) -> Vec<&str> {
        self.by_name.keys().copied().collect()
    }
}

fn misdeclared(spec: &NodeSpec) -> Vec<String> {
    let mut told = Vec::new();
    if spec.doc.is_empty() {
        told.push(format!("{} does not say what it is for", spec.name));
    }
    for (position, input) in spec.inputs.iter().enumerate() {
        let place = format!("input `{}` of {}", input.name, spec.name);
        if input.doc.is_empty() {
            told.push(format!("{place} does not say what it is for"));
        }
        if spec.inputs[..position].iter().any(|before| before.name == input.name) {
            told.push(format!("{place} is there twice"));
        }
        if let Some(default) = &input.default
            && !takes(input, default)
        {
            told.push(format!("{place} does not take its own default, {default}"));
        }
    }
    told
}

impl NodeType {
    fn new(def: NodeDef, services: &Services) -> Self {
        let mut fields = (def.fields)(services);
        // The editor draws them in this order, and `widgets_values` counts on it.
        fields.sort_by_key(|field| !field.spec.required);
        let inputs = fields.iter().map(|field| field.spec.clone()).collect();
        Self { spec: NodeSpec { inputs, ..(def.spec)() }, fields, def }
    }
}
