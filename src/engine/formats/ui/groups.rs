//! Legacy group nodes, the forerunners of subgraphs: each is read as a subgraph of its own.
//!
//! A group node's class is `workflow>Name`, its definition `extra.groupNodes[Name]`: nodes by index, links between
//! them, and outputs that are used outside. Its inputs are the unwired inputs of its nodes and its widgets are theirs,
//! under names that the editor makes up to keep them apart, so these have to be made up in the same way here.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value as Json};

use super::super::error::{Fault, Place, Problem};
use super::super::whole;
use super::parse::{INPUTS_ID, Input, Link, Node, OUTPUTS_ID, Port, Scope, Workflow, declared_inputs, kind, node};
use super::widgets::{control_entries, has_upload};
use crate::spec::Specs;

/// Gives each group node a scope of its own, with the widgets' values in place.
pub(super) fn expand<'j>(json: &'j Json, workflow: &mut Workflow<'j>, specs: &dyn Specs, faults: &mut Vec<Fault>) {
    let Some(groups) = json.pointer("/extra/groupNodes").and_then(Json::as_object) else { return };
    for scope in 0..workflow.scopes.len() {
        for index in 0..workflow.scopes[scope].nodes.len() {
            let instance = &workflow.scopes[scope].nodes[index];
            let Some((name, definition)) = definition(groups, &instance.class) else { continue };
            let place = Place::Node { id: instance.id.clone(), class: instance.class.clone() };
            match Group::read(definition, groups, specs) {
                Ok(mut group) => {
                    group.give_values(instance.values);
                    let inner = workflow.scopes.len();
                    let instance = &mut workflow.scopes[scope].nodes[index];
                    instance.inner = Some(inner);
                    // They have arrived where they belong.
                    instance.values = None;
                    workflow.scopes.push(group.scope(name, specs));
                }
                Err(problem) => faults.push(Fault { place, problem }),
            }
        }
    }
}

/// The definition that a class names, with its name.
fn definition<'j>(groups: &'j Map<String, Json>, class: &str) -> Option<(&'j str, &'j Json)> {
    let name = class.strip_prefix("workflow>").or_else(|| class.strip_prefix("workflow/"))?;
    groups.get_key_value(name).map(|(name, definition)| (name.as_str(), definition))
}

/// A definition being turned into a scope.
#[derive(Default)]
struct Group<'j> {
    nodes: Vec<Node<'j>>,
    links: Vec<GroupLink>,
    /// Outputs that are used outside.
    external: HashSet<(usize, usize)>,
    /// The definition: labels, and what the user changed about inputs and outputs.
    json: Option<&'j Json>,
    /// How often a name was taken.
    seen: HashMap<String, usize>,
    border: Border,
    /// Sockets that belong to widgets come after all others.
    late: Border,
    /// What each output shows: inner node and its output.
    outputs: Vec<(usize, usize)>,
}

/// What a group node has on its left.
#[derive(Default)]
struct Border {
    inputs: Vec<GroupInput>,
    /// Entries of `widgets_values`: inner node and input, or nothing for what only the editor needs.
    entries: Vec<Option<(usize, String)>>,
}

/// An input of a group node.
struct GroupInput {
    name: String,
    node: usize,
    /// The input of the inner node.
    input: String,
    kind: String,
}

/// A wire between two nodes of a group, by their indices.
struct GroupLink {
    from: usize,
    from_slot: usize,
    to: usize,
    to_slot: usize,
    kind: String,
}

impl<'j> Group<'j> {
    fn read(definition: &'j Json, groups: &Map<String, Json>, specs: &dyn Specs) -> Result<Self, Problem> {
        let list = |key: &str| definition.get(key).and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        let mut group = Self { json: Some(definition), ..Self::default() };
        for (index, json) in list("nodes").iter().enumerate() {
            let mut inner = node(json, Some(index))?;
            if self::definition(groups, &inner.class).is_some() {
                return Err(Problem::NestedGroup);
            }
            // Links of the graph that the group was once made from.
            inner.inputs.iter_mut().for_each(|input| input.link = None);
            group.nodes.push(inner);
        }
        group.links = list("links").iter().filter_map(|json| link(json, group.nodes.len())).collect();
        let external = |json: &Json| Some((whole(json.get(0)?)?, whole(json.get(1)?)?));
        group.external = list("external").iter().filter_map(external).collect();
        for node in 0..group.nodes.len() {
            group.add_inputs(node, specs);
            group.add_outputs(node, specs);
        }
        Ok(group)
    }

    /// Adds what of a node's inputs and widgets shows on the group node.
    fn add_inputs(&mut self, node: usize, specs: &dyn Specs) {
        let class = self.nodes[node].class.clone();
        let spec = specs.spec(&class);
        let mut converted = Vec::new();
        for input in spec.iter().flat_map(|spec| &spec.inputs) {
            if input.force_input || !input.widget.has_value() {
                continue;
            }
            let stored = self.nodes[node].inputs.iter().position(|it| it.name == input.name && it.is_widget);
            match stored {
                Some(place) => converted.push((place.to_string(), input)),
                None => self.add_widget(node, input.name, input.kind, control_entries(input), false),
            }
        }
        if spec.is_some_and(has_upload) {
            self.border.entries.push(None);
        }
        for (name, kind) in self.sockets(node, specs) {
            if !self.is_wired(node, &name, specs) {
                self.add_socket(node, name, kind);
            }
        }
        // By place, compared as texts: the tenth before the second.
        converted.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (_, input) in converted {
            if !self.is_wired(node, input.name, specs) {
                self.add_widget(node, input.name, input.kind, control_entries(input), true);
            }
        }
        if let (true, Some(link)) = (class == "PrimitiveNode", self.links.iter().find(|link| link.from == node)) {
            let kind = link.kind.clone();
            let control_entries = match kind.as_str() {
                "INT" | "FLOAT" => 1,
                "COMBO" => 2,
                _ => 0,
            };
            self.add_widget(node, "value", &kind, control_entries, false);
        }
    }

    /// The inputs of a node that are no widgets, with their kinds.
    fn sockets(&self, node: usize, specs: &dyn Specs) -> Vec<(String, String)> {
        let inner = &self.nodes[node];
        let pair = |input: &Input| (input.name.clone(), input.kind.clone());
        match specs.spec(&inner.class) {
            Some(spec) => declared_inputs(spec).iter().filter(|input| !input.is_widget).map(pair).collect(),
            // A reroute that only passes on what comes from within does not show; another takes the kind of its target.
            None if inner.class == "Reroute" => {
                let to = self.links.iter().find(|link| link.from == node);
                let target = to.and_then(|link| self.nodes[link.to].inputs.get(link.to_slot));
                let name = inner.inputs.first().map_or_else(String::new, |input| input.name.clone());
                vec![(name, target.map_or_else(|| "*".to_owned(), |input| input.kind.clone()))]
            }
            None => inner.inputs.iter().filter(|input| !input.is_widget).map(pair).collect(),
        }
    }

    /// The name of the input that a link within the group leads to.
    fn target_name(&self, link: &GroupLink, specs: &dyn Specs) -> Option<String> {
        let stored = self.nodes[link.to].inputs.get(link.to_slot).map(|input| input.name.clone());
        stored.or_else(|| self.sockets(link.to, specs).into_iter().nth(link.to_slot).map(|(name, _)| name))
    }

    fn is_wired(&self, node: usize, input: &str, specs: &dyn Specs) -> bool {
        self.links.iter().any(|link| link.to == node && self.target_name(link, specs).as_deref() == Some(input))
    }

    fn add_widget(&mut self, node: usize, input: &str, kind: &str, control_entries: usize, late: bool) {
        let name = self.make_up_name(node, input);
        let border = if late { &mut self.late } else { &mut self.border };
        border.entries.push(Some((node, input.to_owned())));
        border.entries.extend(std::iter::repeat_n(None, control_entries));
        border.inputs.push(GroupInput { name, node, input: input.to_owned(), kind: kind.to_owned() });
    }

    fn add_socket(&mut self, node: usize, input: String, kind: String) {
        let shown_as = if self.nodes[node].class == "Reroute" { &kind } else { &input };
        let name = self.make_up_name(node, shown_as);
        if self.config(node, "input", shown_as).and_then(|it| it.get("visible")) != Some(&Json::Bool(false)) {
            self.border.inputs.push(GroupInput { name, node, input, kind });
        }
    }

    /// What the user changed about an input or output of an inner node.
    fn config(&self, node: usize, side: &str, slot: &str) -> Option<&'j Json> {
        let config = self.json?.get("config")?;
        let config = config.get(node.to_string()).or_else(|| config.get(node))?.get(side)?;
        config.get(slot).or_else(|| config.get(slot.parse::<usize>().ok()?))
    }

    /// The name under which an inner input shows, which is its own unless that is taken.
    fn make_up_name(&mut self, node: usize, input: &str) -> String {
        let inner = &self.nodes[node];
        let stored = || self.json?.get("nodes")?.get(node)?.get("inputs")?.as_array();
        let label = stored().and_then(|inputs| {
            let input = inputs.iter().find(|it| it.get("name").and_then(Json::as_str) == Some(input))?;
            input.get("label")?.as_str()
        });
        let renamed = self.config(node, "input", input).and_then(|config| config.get("name")?.as_str());
        let mut name = renamed.or(label).unwrap_or(input).to_owned();
        let mut key = name.clone();
        let titled_primitive = inner.class == "PrimitiveNode" && !inner.title.is_empty();
        if titled_primitive || self.seen.contains_key(&name) {
            let title = if inner.title.is_empty() { &inner.class } else { &inner.title };
            name = format!("{title} {input}");
            key.clone_from(&name);
            if let Some(times) = self.seen.get(&name) {
                name = format!("{title} {times} {input}");
            }
        }
        *self.seen.entry(key).or_insert(1) += 1;
        name
    }

    /// Adds the outputs of a node that show on the group node: those that no inner node takes, or that are used
    /// outside.
    fn add_outputs(&mut self, node: usize, specs: &dyn Specs) {
        let inner = &self.nodes[node];
        let count = specs.spec(&inner.class).map_or(inner.outputs.len(), |spec| spec.outputs.len());
        let from = |slot: usize| self.links.iter().any(|link| (link.from, link.from_slot) == (node, slot));
        let to = || self.links.iter().any(|link| link.to == node);
        for slot in 0..count {
            let external = self.external.contains(&(node, slot));
            if inner.class == "Reroute" && from(slot) && to() && !external {
                continue;
            }
            let config = self.config(node, "output", &slot.to_string()).and_then(|it| it.get("visible")?.as_bool());
            if config.unwrap_or(external || !from(slot)) {
                self.outputs.push((node, slot));
            }
        }
    }

    /// Gives the instance's values to the widgets that they stand for.
    fn give_values(&mut self, values: Option<&Json>) {
        let entries = self.border.entries.iter().chain(&self.late.entries);
        for (entry, value) in entries.zip(values.and_then(Json::as_array).into_iter().flatten()) {
            if let (Some((node, input)), false) = (entry, value.is_null()) {
                self.nodes[*node].widgets.push((input.clone(), value.clone()));
            }
        }
    }

    /// The scope: nodes wired to each other and to the border.
    fn scope(mut self, name: &str, specs: &dyn Specs) -> Scope<'j> {
        let mut scope = Scope { name: Some(name.to_owned()), ..Scope::default() };
        let targets: Vec<_> = self.links.iter().map(|link| self.target_name(link, specs)).collect();
        let mut wire = |origin: String, origin_slot, target: String, target_slot| {
            let id = scope.links.len().to_string();
            scope.links.insert(id.clone(), Link { origin, origin_slot, target, target_slot });
            id
        };
        for (link, name) in self.links.iter().zip(targets) {
            let Some(name) = name else { continue };
            let id = wire(link.from.to_string(), link.from_slot, link.to.to_string(), link.to_slot);
            connect(&mut self.nodes[link.to], name, &link.kind, id);
        }
        for (slot, input) in self.border.inputs.into_iter().chain(self.late.inputs).enumerate() {
            let id = wire(INPUTS_ID.to_owned(), slot, input.node.to_string(), 0);
            connect(&mut self.nodes[input.node], input.input, &input.kind, id.clone());
            scope.inputs.push(Port { name: input.name, kind: input.kind, links: vec![id] });
        }
        for (slot, (node, output)) in self.outputs.into_iter().enumerate() {
            let id = wire(node.to_string(), output, OUTPUTS_ID.to_owned(), slot);
            let declared = specs.spec(&self.nodes[node].class).and_then(|spec| spec.outputs.get(output));
            let stored = || self.nodes[node].outputs.get(output).cloned();
            let kind = declared.map(|output| output.kind.to_owned()).or_else(stored).unwrap_or_default();
            scope.outputs.push(Port { kind, links: vec![id], ..Port::default() });
        }
        scope.by_id = self.nodes.iter().enumerate().map(|(index, node)| (node.id.clone(), index)).collect();
        scope.nodes = self.nodes;
        scope
    }
}

/// Wires an input, which the file need not list.
fn connect(node: &mut Node<'_>, name: String, kind: &str, link: String) {
    match node.inputs.iter_mut().find(|input| input.name == name) {
        Some(input) => input.link = Some(link),
        None => node.inputs.push(Input { name, kind: kind.to_owned(), link: Some(link), is_widget: false }),
    }
}

/// A link of a definition, unless one end is outside the group.
fn link(json: &Json, nodes: usize) -> Option<GroupLink> {
    let field = |index| json.get(index).and_then(whole);
    let link =
        GroupLink { from: field(0)?, from_slot: field(1)?, to: field(2)?, to_slot: field(3)?, kind: kind(json.get(5)) };
    (link.from < nodes && link.to < nodes).then_some(link)
}
