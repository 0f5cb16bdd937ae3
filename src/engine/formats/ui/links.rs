//! Where the value of an input comes from, followed through everything that exists on the canvas only.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use super::super::error::{Fault, Place, Problem};
use super::expand::{Expanded, Site};
use super::parse::{INPUTS_ID, Input, Link, Mode, Node, OUTPUTS_ID, Scope, Workflow};

/// What an input gets.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    /// The output of a node that runs.
    Output {
        /// The node.
        site: Site,
        /// Its output, from 0.
        slot: usize,
    },
    /// The value of a widget promoted to a subgraph's border.
    Value(Json),
}

/// A place on the way from an input back to its source.
enum Step {
    /// An input, and the kind wanted at the end if it is known.
    Input(Site, usize, Option<String>),
    /// An output, and the kind wanted at the end.
    Output(Site, usize, String),
}

/// Follows wires.
#[derive(Debug, Default)]
pub(super) struct Wires {
    /// Values that primitives give to promoted widgets: by scope, node and input of the instance.
    promoted: HashMap<(usize, usize, usize), Json>,
    /// What [`Wires::widget_inside`] found, by scope and slot: asked again for each widget after it, at each level.
    inside: RefCell<HashMap<(usize, usize), Option<Json>>>,
}

impl Wires {
    /// A primitive gives the promoted widget at `input` of an instance this value.
    pub(super) fn promote(&mut self, scope: usize, node: usize, input: usize, value: Json) {
        self.promoted.insert((scope, node, input), value);
    }

    /// Where the value at an input comes from; nothing where it is not wired, or where the wire ends at nothing.
    pub(super) fn resolve(
        &self,
        workflow: &Workflow<'_>,
        expanded: &Expanded,
        site: Site,
        input: usize,
    ) -> Result<Option<Source>, Fault> {
        let mut step = Step::Input(site, input, None);
        let mut visited = HashSet::new();
        loop {
            let next = match step {
                Step::Input(site, input, kind) => self.leave_input(workflow, expanded, site, input, kind)?,
                Step::Output(site, slot, kind) => leave_output(workflow, expanded, site, slot, kind)?,
            };
            step = match next {
                Next::Step(step) => step,
                Next::Source(source) => return Ok(source),
            };
            let here = match step {
                Step::Input(site, slot, _) => (site, slot, true),
                Step::Output(site, slot, _) => (site, slot, false),
            };
            if !visited.insert(here) {
                let input = workflow.node(expanded, site).inputs[input].name.clone();
                return Err(fault(workflow, expanded, site, Problem::LinkLoop { input }));
            }
        }
    }

    /// From an input to the output that it is wired to.
    fn leave_input(
        &self,
        workflow: &Workflow<'_>,
        expanded: &Expanded,
        site: Site,
        index: usize,
        kind: Option<String>,
    ) -> Result<Next, Fault> {
        let frame = &expanded.frames[site.frame];
        let scope = &workflow.scopes[frame.scope];
        let Some(input) = workflow.node(expanded, site).inputs.get(index) else { return Ok(Next::Source(None)) };
        let Some(id) = &input.link else { return Ok(Next::Source(None)) };
        // As ComfyUI's editor has it: a link that the file does not have is none, nor is one from a node that it does not have.
        let Some(link) = scope.links.get(id) else { return Ok(Next::Source(None)) };
        if let (Some(instance), INPUTS_ID) = (frame.instance, link.origin.as_str()) {
            let slot = link.origin_slot;
            if slot >= scope.inputs.len() {
                let count = scope.inputs.len();
                let problem = Problem::MissingPort { input: input.name.clone(), side: "input", slot, count };
                return Err(fault(workflow, expanded, site, problem));
            }
            let outer = expanded.frames[instance.frame].scope;
            let wired = workflow.node(expanded, instance).inputs[slot].link.is_some();
            let by_primitive = self.promoted.get(&(outer, instance.node, slot));
            return Ok(match (wired, by_primitive) {
                (true, None) => Next::Step(Step::Input(instance, slot, None)),
                _ => Next::Source(self.promoted_value(workflow, outer, instance.node, slot).map(Source::Value)),
            });
        }
        let Some(&node) = scope.by_id.get(&link.origin) else { return Ok(Next::Source(None)) };
        let kind = kind.unwrap_or_else(|| input.kind.clone());
        Ok(Next::Step(Step::Output(Site { frame: site.frame, node }, link.origin_slot, kind)))
    }

    /// The value of the widget promoted to an instance's input: given by a primitive, stored with the instance, or that
    /// of the first widget inside that it stands for. Nothing if it stands for none.
    fn promoted_value(&self, workflow: &Workflow<'_>, scope: usize, node: usize, input: usize) -> Option<Json> {
        if let Some(value) = self.promoted.get(&(scope, node, input)) {
            return Some(value.clone());
        }
        let instance = &workflow.scopes[scope].nodes[node];
        let inside = self.widget_inside(workflow, instance.inner?, input)?;
        let values = instance.values.and_then(Json::as_array);
        let stored = |index: usize| values.and_then(|values| values.get(index)).filter(|value| !value.is_null());
        let listed =
            proxies(instance).iter().position(|(id, widget)| id == "-1" && *widget == instance.inputs[input].name);
        let position = || {
            let promoted = |&input: &usize| self.widget_inside(workflow, instance.inner?, input);
            (0..input).filter(|input| promoted(input).is_some()).count()
        };
        Some(listed.and_then(stored).or_else(|| stored(position())).cloned().unwrap_or(inside))
    }

    /// The value of the first widget that a subgraph's input leads to. Recurses no deeper than subgraphs are nested.
    fn widget_inside(&self, workflow: &Workflow<'_>, scope: usize, slot: usize) -> Option<Json> {
        let known = self.inside.borrow().get(&(scope, slot)).cloned();
        known.unwrap_or_else(|| {
            let inner = &workflow.scopes[scope];
            let port = inner.inputs.get(slot);
            let value = port.and_then(|port| port.links.iter().find_map(|id| self.widget_at(workflow, scope, id)));
            self.inside.borrow_mut().insert((scope, slot), value.clone());
            value
        })
    }

    /// The value of the widget that a link from a subgraph's border leads to, if it leads to one.
    fn widget_at(&self, workflow: &Workflow<'_>, scope: usize, link: &String) -> Option<Json> {
        let inner = &workflow.scopes[scope];
        let index = *inner.by_id.get(&inner.links.get(link)?.target)?;
        let node = &inner.nodes[index];
        let input = node.inputs.iter().position(|input| input.link.as_ref() == Some(link))?;
        let Input { name, is_widget, .. } = &node.inputs[input];
        match node.inner {
            Some(_) => self.promoted_value(workflow, scope, index, input),
            None if *is_widget => {
                node.widgets.iter().find(|(widget, _)| widget == name).map(|(_, value)| value.clone())
            }
            None => None,
        }
    }
}

/// What following a wire one step further gives.
enum Next {
    Step(Step),
    /// The end of the way.
    Source(Option<Source>),
}

/// From an output to the input that it passes on, or to the end if its node runs.
fn leave_output(
    workflow: &Workflow<'_>,
    expanded: &Expanded,
    site: Site,
    slot: usize,
    kind: String,
) -> Result<Next, Fault> {
    let node = workflow.node(expanded, site);
    if expanded.mode(workflow, site) == Mode::Bypassed {
        let passed_on = bypass(node, slot, &kind).map(|input| Next::Step(Step::Input(site, input, None)));
        return Ok(passed_on.unwrap_or(Next::Source(None)));
    }
    if let Some(frame) = expanded.inner(site) {
        let scope = &workflow.scopes[expanded.frames[frame].scope];
        let Some(link) = link_to_output(scope, slot) else { return Ok(Next::Source(None)) };
        if link.origin == INPUTS_ID {
            return Ok(Next::Step(Step::Input(site, link.origin_slot, Some(kind))));
        }
        let Some(&node) = scope.by_id.get(&link.origin) else { return Ok(Next::Source(None)) };
        return Ok(Next::Step(Step::Output(Site { frame, node }, link.origin_slot, kind)));
    }
    Ok(match node.class.as_str() {
        // Its value was copied into the widget.
        "PrimitiveNode" => Next::Source(None),
        _ if node.is_virtual() => Next::Step(Step::Input(site, slot, Some(kind))),
        _ => Next::Source(Some(Source::Output { site, slot })),
    })
}

/// The link inside a subgraph that makes its output.
fn link_to_output<'s>(scope: &'s Scope<'_>, slot: usize) -> Option<&'s Link> {
    let listed = scope.outputs.get(slot)?.links.iter().find_map(|id| scope.links.get(id));
    let leads_here = |link: &&Link| link.target == OUTPUTS_ID && link.target_slot == slot;
    // A file in order lists the link at the port. In others only one leads there; if not, choose the same one each
    // time.
    listed.or_else(|| {
        scope.links.iter().filter(|(_, link)| leads_here(link)).min_by_key(|(id, _)| *id).map(|(_, link)| link)
    })
}

/// Which input of a bypassed node takes the place of an output, for a consumer that wants `kind`.
fn bypass(node: &Node<'_>, slot: usize, kind: &str) -> Option<usize> {
    let inputs = &node.inputs;
    if matches!(kind, "*" | "") {
        return (!inputs.is_empty()).then_some(if slot < inputs.len() { slot } else { 0 });
    }
    let output = node.outputs.get(slot).map_or("*", String::as_str);
    let fits = |input: &Input| compatible(&input.kind, output) && compatible(&input.kind, kind);
    if inputs.get(slot).is_some_and(fits) {
        return Some(slot);
    }
    let same_kind = inputs.iter().position(|input| input.kind == kind);
    same_kind.or_else(|| inputs.iter().position(fits))
}

/// Whether the editor lets slots of these kinds be wired: case does not count, `*` fits all, and of kinds joined by
/// commas one is enough.
fn compatible(a: &str, b: &str) -> bool {
    let any = |kind: &str| matches!(kind, "" | "*" | "0");
    let same = |a: &str, b: &str| any(a) || any(b) || a.eq_ignore_ascii_case(b);
    same(a, b) || a.split(',').any(|a| b.split(',').any(|b| same(a, b)))
}

/// The promoted widgets of an instance, in the order of its stored values: inner node, or `-1` for those that are
/// inputs of the subgraph, and name.
fn proxies(instance: &Node<'_>) -> Vec<(String, String)> {
    let parsed;
    let list = match instance.properties.and_then(|properties| properties.get("proxyWidgets")) {
        Some(Json::String(text)) => {
            parsed = serde_json::from_str(text).unwrap_or(Json::Null);
            parsed.as_array()
        }
        other => other.and_then(Json::as_array),
    };
    let text = |json: Option<&Json>| match json {
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    list.into_iter().flatten().map(|pair| (text(pair.get(0)), text(pair.get(1)))).collect()
}

fn fault(workflow: &Workflow<'_>, expanded: &Expanded, site: Site, problem: Problem) -> Fault {
    let class = workflow.node(expanded, site).class.clone();
    Fault { place: Place::Node { id: expanded.id(workflow, site), class }, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(inputs: &[&str], outputs: &[&str]) -> Node<'static> {
        let input = |kind: &&str| Input { kind: (*kind).to_owned(), ..Input::default() };
        let outputs = outputs.iter().map(|kind| (*kind).to_owned()).collect();
        Node { inputs: inputs.iter().map(input).collect(), outputs, ..Node::default() }
    }

    #[test]
    fn a_bypassed_output_takes_the_best_input() {
        let upscale = node(&["IMAGE", "COMBO", "INT"], &["IMAGE"]);
        assert_eq!(bypass(&upscale, 0, "IMAGE"), Some(0), "same slot");
        let lora = node(&["MODEL", "CLIP"], &["MODEL", "CLIP"]);
        assert_eq!(bypass(&lora, 1, "CLIP"), Some(1), "same slot");
        let swapped = node(&["CLIP", "MODEL"], &["MODEL", "CLIP"]);
        assert_eq!(bypass(&swapped, 0, "MODEL"), Some(1), "the only one of that kind");
        let union = node(&["CLIP", "IMAGE,MASK", "MASK"], &["MASK"]);
        assert_eq!(bypass(&union, 0, "MASK"), Some(2), "exactly that kind before one that fits");
        let loose = node(&["CLIP", "IMAGE,MASK"], &["MASK"]);
        assert_eq!(bypass(&loose, 0, "MASK"), Some(1), "one that fits");
        let encode = node(&["IMAGE", "VAE"], &["LATENT"]);
        assert_eq!(bypass(&encode, 0, "LATENT"), None, "none");
        assert_eq!(bypass(&encode, 1, "*"), Some(1), "anything wanted: same slot");
        assert_eq!(bypass(&encode, 5, "*"), Some(0), "anything wanted, no such slot: the first");
        assert_eq!(bypass(&node(&[], &["LATENT"]), 0, "*"), None, "no input at all");
    }

    #[test]
    fn kinds_fit_as_the_editor_wires_them() {
        for (a, b) in [("IMAGE", "image"), ("*", "MODEL"), ("MODEL", ""), ("A,B", "C,B"), ("0", "X")] {
            assert!(compatible(a, b) && compatible(b, a), "{a} {b}");
        }
        assert!(!compatible("IMAGE", "MASK") && !compatible("A,B", "C,D"));
    }
}
