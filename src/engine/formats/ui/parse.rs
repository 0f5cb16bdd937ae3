//! The file's JSON as scopes of nodes, links and ports. Lenient where ComfyUI is: ids and slots may be numbers or texts
//! of numbers, links arrays or objects, in any version.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::super::error::{Fault, FormatError, Place, Problem};
use super::super::{found, whole};
use super::groups;
use crate::spec::{NodeSpec, Specs};

/// The node that stands for a subgraph's inputs, inside it.
pub(super) const INPUTS_ID: &str = "-10";
/// The node that stands for a subgraph's outputs, inside it.
pub(super) const OUTPUTS_ID: &str = "-20";

/// Classes that were renamed, and their names today.
const RENAMED: [(&str, &str); 5] = [
    ("T2IAdapterLoader", "ControlNetLoader"),
    ("ConditioningAverage ", "ConditioningAverage"),
    ("SDV_img2vid_Conditioning", "SVD_img2vid_Conditioning"),
    ("Load3DAnimation", "Load3D"),
    ("Preview3DAnimation", "Preview3D"),
];

/// A whole file.
#[derive(Debug)]
pub(super) struct Workflow<'j> {
    /// The graph first, then the subgraph definitions, then one scope for each legacy group node.
    pub(super) scopes: Vec<Scope<'j>>,
}

/// The graph, or a subgraph's definition.
#[derive(Debug, Default)]
pub(super) struct Scope<'j> {
    /// A subgraph's name; nothing for the graph itself.
    pub(super) name: Option<String>,
    /// In the file's order.
    pub(super) nodes: Vec<Node<'j>>,
    pub(super) by_id: HashMap<String, usize>,
    pub(super) links: HashMap<String, Link>,
    /// A subgraph's inputs, in slot order.
    pub(super) inputs: Vec<Port>,
    /// A subgraph's outputs, in slot order.
    pub(super) outputs: Vec<Port>,
}

/// A node on the canvas.
#[derive(Debug, Default)]
pub(super) struct Node<'j> {
    pub(super) id: String,
    pub(super) class: String,
    /// What the user sees above it.
    pub(super) title: String,
    pub(super) mode: Mode,
    /// Its place in the order of execution, as the editor last computed it.
    pub(super) order: Option<f64>,
    /// As the editor shows them: of a known class all of its inputs, sockets before widgets, then any others of the
    /// file.
    pub(super) inputs: Vec<Input>,
    /// The kinds of its outputs.
    pub(super) outputs: Vec<String>,
    /// `widgets_values` as stored.
    pub(super) values: Option<&'j Json>,
    pub(super) properties: Option<&'j Map<String, Json>>,
    /// The scope that a subgraph instance or a legacy group node stands for.
    pub(super) inner: Option<usize>,
    /// Values of its widgets by name; filled in by [`super::widgets::align`].
    pub(super) widgets: Vec<(String, Json)>,
}

/// Whether a node takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// It does.
    #[default]
    Always,
    /// Its values are missing to others.
    Muted,
    /// Its inputs are passed on as its outputs.
    Bypassed,
}

/// One input slot of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Input {
    pub(super) name: String,
    /// `IMAGE`, `COMBO`, `*`.
    pub(super) kind: String,
    pub(super) link: Option<String>,
    /// The socket belongs to the widget of its name.
    pub(super) is_widget: bool,
}

/// A wire within a scope.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) origin: String,
    pub(super) origin_slot: usize,
    pub(super) target: String,
    pub(super) target_slot: usize,
}

/// An input or output of a subgraph.
#[derive(Clone, Debug, Default)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) kind: String,
    /// The links inside that begin or end here.
    pub(super) links: Vec<String>,
}

impl Node<'_> {
    /// It exists on the canvas only. Subgraph instances are told by [`Node::inner`].
    pub(super) fn is_virtual(&self) -> bool {
        matches!(self.class.as_str(), "Reroute" | "PrimitiveNode" | "Note" | "MarkdownNote")
    }
}

impl Scope<'_> {
    /// The nodes' indices in the order of execution that the editor stored; those without a place come last.
    pub(super) fn in_order(&self) -> Vec<usize> {
        let mut indices: Vec<usize> = (0..self.nodes.len()).collect();
        let place = |&index: &usize| self.nodes[index].order.unwrap_or(f64::INFINITY);
        indices.sort_by(|a, b| place(a).total_cmp(&place(b)));
        indices
    }

    /// Where a fault of a node is. Inside a definition it has no id of its own yet, so its place in the list counts.
    fn place(&self, node: usize) -> Place {
        match (&self.name, &self.nodes[node]) {
            (None, Node { id, class, .. }) => Place::Node { id: id.clone(), class: class.clone() },
            (Some(_), _) => self.element("nodes", node),
        }
    }

    /// Where a fault of an element of one of the scope's lists is.
    fn element(&self, list: &'static str, index: usize) -> Place {
        Place::Element { subgraph: self.name.clone(), list, index }
    }
}

impl<'j> Workflow<'j> {
    /// Reads the file; all faults of form at once.
    pub(super) fn parse(json: &'j Json, specs: &dyn Specs) -> Result<Self, FormatError> {
        let mut faults = Vec::new();
        let mut workflow = Self { scopes: vec![scope(json, None, &mut faults)] };
        let subgraphs = workflow.definitions(json, &mut faults);
        groups::expand(json, &mut workflow, specs, &mut faults);
        for scope in 0..workflow.scopes.len() {
            for node in 0..workflow.scopes[scope].nodes.len() {
                let class = workflow.scopes[scope].nodes[node].class.as_str();
                let inner = subgraphs.get(class).copied().or(workflow.scopes[scope].nodes[node].inner);
                if inner.is_none() && looks_like_uuid(class) && specs.spec(class).is_none() {
                    let place = workflow.scopes[scope].place(node);
                    faults.push(Fault { place, problem: Problem::MissingSubgraph });
                }
                workflow.settle(scope, node, inner, specs);
            }
        }
        if faults.is_empty() { Ok(workflow) } else { Err(FormatError::Faults(faults)) }
    }

    /// Reads the subgraph definitions, nested ones too; their scopes by id.
    fn definitions(&mut self, json: &'j Json, faults: &mut Vec<Fault>) -> HashMap<&'j str, usize> {
        let mut by_id = HashMap::new();
        let mut holders = vec![json];
        while let Some(holder) = holders.pop() {
            let list = holder.pointer("/definitions/subgraphs").and_then(Json::as_array);
            for (index, definition) in list.into_iter().flatten().enumerate() {
                let place = self.scopes[0].element("definitions.subgraphs", index);
                let Some(id) = definition.get("id").and_then(Json::as_str) else {
                    let found = found(definition.get("id").unwrap_or(&Json::Null));
                    let problem = Problem::Malformed { part: "`id`", expected: "a text", found };
                    faults.push(Fault { place, problem });
                    continue;
                };
                if by_id.insert(id, self.scopes.len()).is_some() {
                    faults.push(Fault { place, problem: Problem::DuplicateSubgraph });
                    continue;
                }
                let name = definition.get("name").and_then(Json::as_str).unwrap_or(id);
                self.scopes.push(scope(definition, Some(name), faults));
                holders.push(definition);
            }
        }
        by_id
    }

    /// Gives a node the inputs and outputs of its class or of the subgraph it stands for.
    fn settle(&mut self, scope: usize, node: usize, inner: Option<usize>, specs: &dyn Specs) {
        let stored = std::mem::take(&mut self.scopes[scope].nodes[node].inputs);
        let class = self.scopes[scope].nodes[node].class.clone();
        let (title, inputs, outputs): (_, _, Vec<_>) = match inner {
            Some(inner) => {
                let inner = &self.scopes[inner];
                let input =
                    |port: &Port| Input { name: port.name.clone(), kind: port.kind.clone(), ..Input::default() };
                let outputs = inner.outputs.iter().map(|port| port.kind.clone()).collect();
                (inner.name.clone(), merged(inner.inputs.iter().map(input).collect(), stored), outputs)
            }
            None => match specs.spec(&class) {
                Some(spec) => {
                    let mut inputs = merged(declared_inputs(spec), stored);
                    // The socket of a widget that the class no longer has.
                    inputs.retain(|input| !input.is_widget || spec.input(&input.name).is_some());
                    let title = spec.display_name.map(str::to_owned);
                    (title, inputs, spec.outputs.iter().map(|output| output.kind.to_owned()).collect())
                }
                None => (None, stored, Vec::new()),
            },
        };
        let node = &mut self.scopes[scope].nodes[node];
        if node.title.is_empty() {
            node.title = title.unwrap_or(class);
        }
        node.inner = inner;
        node.inputs = inputs;
        let stored = std::mem::replace(&mut node.outputs, outputs);
        node.outputs.extend(stored.into_iter().skip(node.outputs.len()));
    }
}

/// The inputs of a class as the editor lays them out: all sockets, then all widgets.
pub(super) fn declared_inputs(spec: &NodeSpec) -> Vec<Input> {
    let input = |is_widget: bool| {
        let declared =
            spec.inputs.iter().filter(move |input| (input.widget.has_value() && !input.force_input) == is_widget);
        declared.map(move |input| Input {
            name: input.name.to_owned(),
            kind: input.kind.to_owned(),
            link: None,
            is_widget,
        })
    };
    input(false).chain(input(true)).collect()
}

/// The declared inputs with the links that the file gives to their names, then the file's other inputs.
fn merged(mut declared: Vec<Input>, stored: Vec<Input>) -> Vec<Input> {
    for input in stored {
        match declared.iter_mut().find(|it| it.name == input.name) {
            Some(declared) => declared.link = input.link.or(declared.link.take()),
            None => declared.push(input),
        }
    }
    declared
}

fn looks_like_uuid(class: &str) -> bool {
    let parts: Vec<usize> = class.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && class.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// Reads the graph or a definition.
fn scope<'j>(json: &'j Json, name: Option<&str>, faults: &mut Vec<Fault>) -> Scope<'j> {
    let mut scope = Scope { name: name.map(str::to_owned), ..Scope::default() };
    for (index, json) in list(json, "nodes").iter().enumerate() {
        match node(json, None) {
            Ok(node) => {
                let repeated = scope.by_id.insert(node.id.clone(), scope.nodes.len()).is_some();
                scope.nodes.push(node);
                if repeated {
                    let place = scope.place(scope.nodes.len() - 1);
                    faults.push(Fault { place, problem: Problem::DuplicateNode });
                }
            }
            Err(problem) => faults.push(Fault { place: scope.element("nodes", index), problem }),
        }
    }
    // Old files hold `null` where a link was deleted.
    for (index, json) in list(json, "links").iter().enumerate().filter(|(_, json)| !json.is_null()) {
        match link(json) {
            Some((id, link)) => {
                scope.links.insert(id, link);
            }
            None => {
                let expected = "a link: its id, origin and target with their slots";
                let problem = Problem::Malformed { part: "the element", expected, found: found(json) };
                faults.push(Fault { place: scope.element("links", index), problem });
            }
        }
    }
    if name.is_some() {
        scope.inputs = list(json, "inputs").iter().map(port).collect();
        scope.outputs = list(json, "outputs").iter().map(port).collect();
    }
    scope
}

fn list<'j>(json: &'j Json, key: &str) -> &'j [Json] {
    json.get(key).and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

/// Reads a node as it is stored, class unknown; its own id unless one is given.
pub(super) fn node(json: &Json, given: Option<usize>) -> Result<Node<'_>, Problem> {
    let malformed = |part, expected, json: Option<&Json>| {
        Err(Problem::Malformed { part, expected, found: found(json.unwrap_or(&Json::Null)) })
    };
    let Json::Object(fields) = json else { return malformed("the node", "an object", Some(json)) };
    let given = given.map(|id| id.to_string());
    let Some(id) = given.or_else(|| fields.get("id").and_then(id)) else {
        return malformed("`id`", "a number or a text", fields.get("id"));
    };
    let Some(class) = fields.get("type").and_then(Json::as_str) else {
        return malformed("`type`", "the name of a node class", fields.get("type"));
    };
    let renamed = RENAMED.into_iter().find(|(old, _)| *old == class);
    let mode = match fields.get("mode").and_then(whole) {
        Some(2) => Mode::Muted,
        Some(4) => Mode::Bypassed,
        _ => Mode::Always,
    };
    Ok(Node {
        id,
        class: renamed.map_or(class, |(_, new)| new).to_owned(),
        title: fields.get("title").and_then(Json::as_str).unwrap_or("").to_owned(),
        mode,
        order: fields.get("order").and_then(whole).map(|order| order as f64),
        inputs: list(json, "inputs").iter().map(input).collect(),
        outputs: list(json, "outputs").iter().map(|output| kind(output.get("type"))).collect(),
        values: fields.get("widgets_values").filter(|values| values.is_array() || values.is_object()),
        properties: fields.get("properties").and_then(Json::as_object),
        ..Node::default()
    })
}

fn input(json: &Json) -> Input {
    Input {
        name: json.get("name").and_then(Json::as_str).unwrap_or("").to_owned(),
        kind: kind(json.get("type")),
        link: json.get("link").and_then(id),
        is_widget: json.get("widget").is_some_and(Json::is_object),
    }
}

fn port(json: &Json) -> Port {
    Port {
        name: json.get("name").and_then(Json::as_str).unwrap_or("").to_owned(),
        kind: kind(json.get("type")),
        links: list(json, "linkIds").iter().filter_map(id).collect(),
    }
}

/// A link in either form, with its id.
fn link(json: &Json) -> Option<(String, Link)> {
    let fields = match json {
        Json::Array(fields) => [0, 1, 2, 3, 4].map(|index| fields.get(index)),
        _ => ["id", "origin_id", "origin_slot", "target_id", "target_slot"].map(|key| json.get(key)),
    };
    let [own, origin, origin_slot, target, target_slot] = fields;
    let link = Link {
        origin: id(origin?)?,
        origin_slot: whole(origin_slot?)?,
        // Wires are followed from their targets back, so only the border of a subgraph needs these.
        target: target.and_then(id).unwrap_or_default(),
        target_slot: target_slot.and_then(whole).unwrap_or(usize::MAX),
    };
    Some((id(own?)?, link))
}

/// An id, number or text, as text.
fn id(json: &Json) -> Option<String> {
    match json {
        Json::String(text) => Some(text.trim().to_owned()),
        Json::Number(number) => match number.as_f64() {
            Some(float) if !number.is_i64() && !number.is_u64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                Some(format!("{float:.0}"))
            }
            _ => Some(number.to_string()),
        },
        _ => None,
    }
}

/// The kind of a slot: a list is an old spelling of `COMBO`, a missing one fits anything.
pub(super) fn kind(json: Option<&Json>) -> String {
    match json {
        Some(Json::String(kind)) => kind.clone(),
        Some(Json::Array(_)) => "COMBO".to_owned(),
        Some(Json::Number(number)) if number.as_f64() != Some(0.0) => number.to_string(),
        _ => "*".to_owned(),
    }
}
