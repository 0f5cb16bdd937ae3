//! A graph as the workflow that an editor opens: nodes in columns by how much comes before them, with their slots, wires
//! and stored values.
//!
//! It converts back to the graph, but for what a workflow cannot say: a widget always has a value, and a comment in a prompt
//! is none of it.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value as Json, json};

use super::widgets::{control_entries, has_upload, initial};
use crate::graph::{Binding, Entry, Graph};
use crate::spec::{Dynamic, InputSpec, NodeSpec, Specs, Widget};

/// The workflow of version 0.4. Values of nodes that nobody knows stand by the names of their inputs.
pub(in crate::formats) fn workflow(graph: &Graph, specs: &dyn Specs) -> Json {
    let positions = graph.nodes.iter().enumerate().map(|(position, (id, _))| (id.as_str(), position)).collect();
    let mut drawn: Vec<Drawn<'_>> =
        graph.nodes.iter().map(|(id, entry)| Drawn::new(id, entry, specs.spec(&entry.class))).collect();
    let links = wire(graph, &positions, &mut drawn);
    let order = topological(graph, &positions);
    let places = places(graph, &positions, &order, &drawn);
    let mut nodes: Vec<Json> = drawn.iter().zip(places).map(|(node, place)| node.json(place)).collect();
    for (order, &position) in order.iter().enumerate() {
        nodes[position]["order"] = order.into();
    }
    let last = graph.nodes.iter().filter_map(|(id, _)| id.parse::<u64>().ok()).max().unwrap_or(0);
    json!({
        "revision": 0, "last_node_id": last, "last_link_id": links.len(), "nodes": nodes, "links": links,
        "groups": [], "config": {}, "extra": {}, "version": 0.4,
    })
}

/// A node on the canvas.
struct Drawn<'g> {
    id: &'g str,
    entry: &'g Entry,
    spec: Option<&'g NodeSpec>,
    inputs: Vec<Json>,
    /// The wires that leave each output.
    outputs: Vec<Vec<usize>>,
}

/// Where a node stands, in pixels, and how large it is.
#[derive(Clone, Copy)]
struct Place {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

impl<'g> Drawn<'g> {
    fn new(id: &'g str, entry: &'g Entry, spec: Option<&'g NodeSpec>) -> Self {
        let inputs = spec.map(|spec| spec.inputs.as_slice()).unwrap_or_default();
        let socket = |input: &&InputSpec| {
            !has_widget(input) && !matches!(input.dynamic, Some(Dynamic::Grows { .. } | Dynamic::With(_)))
        };
        let inputs = inputs.iter().filter(socket).map(|input| {
            let mut slot = json!({"name": input.name, "type": input.kind, "link": null});
            if !input.required {
                // Drawn as one that may stay open.
                slot["shape"] = 7.into();
            }
            slot
        });
        let outputs = vec![Vec::new(); spec.map_or(0, |spec| spec.outputs.len())];
        Self { id, entry, spec, inputs: inputs.collect(), outputs }
    }

    /// The place of the input among the slots; one that is none yet becomes one, a widget's or that of an unknown node.
    fn slot(&mut self, name: &str) -> usize {
        if let Some(position) = self.inputs.iter().position(|slot| slot["name"] == name) {
            return position;
        }
        let spec = self.spec.and_then(|spec| spec.inputs.iter().find(|input| input.name == name));
        let grown = self.spec.and_then(|spec| spec.growing(name));
        self.inputs.push(match spec.filter(|input| has_widget(input)) {
            Some(input) => json!({"name": name, "type": input.kind, "link": null, "widget": {"name": name}}),
            None => json!({"name": name, "type": spec.or(grown).map_or("*", |input| input.kind), "link": null}),
        });
        self.inputs.len() - 1
    }

    fn literal(&self, name: &str) -> Option<Json> {
        let (_, binding) = self.entry.inputs.iter().find(|(input, _)| input == name)?;
        match binding {
            Binding::Literal(value) => Some(value.get("__value__").unwrap_or(value).clone()),
            Binding::Link { .. } => None,
        }
    }

    /// What the editor stores of the widgets, in their order.
    fn values(&self) -> Json {
        let Some(spec) = self.spec else {
            let named = self.entry.inputs.iter().filter_map(|(name, _)| Some((name.clone(), self.literal(name)?)));
            return Json::Object(named.collect());
        };
        let mut values = Vec::new();
        let standing = |input: &InputSpec| self.literal(input.name).or_else(|| initial(input));
        let is_there = |input: &&InputSpec| input.is_there(|choice| standing(spec.input(choice)?));
        for input in spec.inputs.iter().filter(|input| has_widget(input)).filter(is_there) {
            let value = standing(input).unwrap_or(Json::Null);
            values.push(escaped(input, value));
            // The same numbers in every run, as the graph says; of a list, all of it.
            values.extend(["fixed", ""].into_iter().take(control_entries(input)).map(Json::from));
        }
        values.extend(has_upload(spec).then(|| Json::from("image")));
        Json::Array(values)
    }

    /// Width and height on the canvas: a title, a row for each slot and each widget, room for texts and pictures.
    fn size(&self) -> (u32, u32) {
        const ROW: u32 = 26;
        const TEXT: u32 = 110;
        const PICTURE: u32 = 280;
        let widgets = self.spec.map(|spec| spec.inputs.as_slice()).unwrap_or_default().iter();
        let (mut height, mut wide) = (0, false);
        for input in widgets.filter(|input| has_widget(input)) {
            let is_text = matches!(input.widget, Widget::Text { multiline: true, .. });
            wide |= is_text;
            height += if is_text { TEXT } else { ROW };
            height += if input.image_upload { PICTURE } else { 0 };
        }
        height += ROW * u32::try_from(self.inputs.len().max(self.outputs.len())).unwrap_or(u32::MAX / ROW);
        height += if self.spec.is_some_and(|spec| spec.sink) { PICTURE } else { 0 };
        (if wide { 400 } else { 315 }, height + ROW)
    }

    /// Its id as the editor has it: a number where it is one.
    fn json_id(&self) -> Json {
        let number = self.id.parse::<u64>().ok().filter(|number| number.to_string() == self.id);
        number.map_or_else(|| Json::from(self.id), Json::from)
    }

    fn json(&self, place: Place) -> Json {
        let kinds = self.spec.map(|spec| spec.outputs.as_slice()).unwrap_or_default();
        let output = |(slot, links): (usize, &Vec<usize>)| {
            let (name, kind) = kinds.get(slot).map_or(("*", "*"), |output| (output.name, output.kind));
            let links = if links.is_empty() { Json::Null } else { json!(links) };
            json!({"name": name, "type": kind, "links": links, "slot_index": slot})
        };
        let mut node = Map::new();
        node.insert("id".into(), self.json_id());
        node.insert("type".into(), self.entry.class.as_str().into());
        node.insert("pos".into(), json!([place.x, place.y]));
        node.insert("size".into(), json!([place.width, place.height]));
        node.insert("flags".into(), json!({}));
        node.insert("order".into(), 0.into());
        node.insert("mode".into(), 0.into());
        node.insert("inputs".into(), self.inputs.clone().into());
        node.insert("outputs".into(), self.outputs.iter().enumerate().map(output).collect());
        if let Some(title) = &self.entry.title {
            node.insert("title".into(), title.as_str().into());
        }
        node.insert("properties".into(), json!({"Node name for S&R": self.entry.class}));
        node.insert("widgets_values".into(), self.values());
        Json::Object(node)
    }
}

/// A text whose braces stand for themselves, as the editor would take them for a choice of branches otherwise.
fn escaped(input: &InputSpec, value: Json) -> Json {
    match (&input.widget, value) {
        (Widget::Text { dynamic_prompts: true, .. }, Json::String(text)) => {
            ["{", "|", "}"].into_iter().fold(text, |text, bare| text.replace(bare, &format!("\\{bare}"))).into()
        }
        (_, value) => value,
    }
}

fn has_widget(input: &InputSpec) -> bool {
    input.widget.has_value() && !input.force_input
}

/// Draws all wires: `[id, from, slot, to, slot, kind]`. One that leads from nowhere is none.
fn wire(graph: &Graph, positions: &HashMap<&str, usize>, drawn: &mut [Drawn<'_>]) -> Vec<Json> {
    let mut links = Vec::new();
    for (to, (_, entry)) in graph.nodes.iter().enumerate() {
        for (name, binding) in &entry.inputs {
            let Binding::Link { node, slot } = binding else { continue };
            let Some(&from) = positions.get(node.as_str()) else { continue };
            let number = links.len() + 1;
            let input = drawn[to].slot(name);
            drawn[to].inputs[input]["link"] = number.into();
            let kind = drawn[from].spec.and_then(|spec| spec.outputs.get(*slot)).map_or("*", |output| output.kind);
            let missing = (slot + 1).saturating_sub(drawn[from].outputs.len());
            // A slot that nobody has is a fault for the plan to tell, and no reason to draw a million.
            drawn[from].outputs.extend(vec![Vec::new(); missing.min(64)]);
            if let Some(output) = drawn[from].outputs.get_mut(*slot) {
                output.push(number);
            }
            links.push(json!([number, drawn[from].json_id(), slot, drawn[to].json_id(), input, kind]));
        }
    }
    links
}

/// Positions in an order of execution; nodes of a circle come last.
fn topological(graph: &Graph, positions: &HashMap<&str, usize>) -> Vec<usize> {
    let mut waits = vec![0_usize; graph.nodes.len()];
    let mut followers = vec![Vec::new(); graph.nodes.len()];
    for (to, from) in wires(graph, positions) {
        waits[to] += 1;
        followers[from].push(to);
    }
    let mut ready: VecDeque<usize> = (0..waits.len()).filter(|&position| waits[position] == 0).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(position) = ready.pop_front() {
        order.push(position);
        for &follower in &followers[position] {
            waits[follower] -= 1;
            if waits[follower] == 0 {
                ready.push_back(follower);
            }
        }
    }
    order.extend((0..waits.len()).filter(|&position| waits[position] > 0));
    order
}

/// Whose wires go where: `(to, from)`.
fn wires<'g>(graph: &'g Graph, positions: &'g HashMap<&str, usize>) -> impl Iterator<Item = (usize, usize)> + use<'g> {
    graph.nodes.iter().enumerate().flat_map(move |(to, (_, entry))| {
        entry.inputs.iter().filter_map(move |(_, binding)| match binding {
            Binding::Link { node, .. } => positions.get(node.as_str()).map(|&from| (to, from)),
            Binding::Literal(_) => None,
        })
    })
}

/// Columns from left to right by the longest way that leads to a node, each filled from top to bottom.
fn places(graph: &Graph, positions: &HashMap<&str, usize>, order: &[usize], drawn: &[Drawn<'_>]) -> Vec<Place> {
    const GAP: u32 = 60;
    let mut sources = vec![Vec::new(); drawn.len()];
    for (to, from) in wires(graph, positions) {
        sources[to].push(from);
    }
    let mut columns = vec![0_usize; drawn.len()];
    for &position in order {
        columns[position] = sources[position].iter().map(|&from| columns[from] + 1).max().unwrap_or(0);
    }
    let count = columns.iter().max().map_or(0, |last| last + 1);
    let (mut widths, mut filled) = (vec![0_u32; count], vec![GAP; count]);
    for (node, &column) in drawn.iter().zip(&columns) {
        widths[column] = widths[column].max(node.size().0);
    }
    let left = |column: usize| widths[..column].iter().fold(GAP, |x, width| x.saturating_add(width + GAP));
    let place = |(node, &column): (&Drawn<'_>, &usize)| {
        let (width, height) = node.size();
        let place = Place { x: left(column), y: filled[column], width, height };
        // The title stands above the place.
        filled[column] = filled[column].saturating_add(height + GAP);
        place
    };
    drawn.iter().zip(&columns).map(place).collect()
}
