//! Faults of a graph in the words of ComfyUI's `/prompt`: one table from our faults to its errors.

use std::collections::{HashMap, HashSet};

use paraflow_engine::graph::{Binding, Graph};
use paraflow_engine::spec::{InputSpec, Widget};
use paraflow_engine::{Fault, GraphError, NodeId, Plan, Registry, Specs as _, python_repr, python_str};
use serde_json::{Map, Value as Json, json};

use crate::object_info;
use crate::protocol::answers::{self as protocol, NodeFaults, Refused};

/// A prompt that may run, and what is wrong with the rest of it.
pub(crate) struct Accepted {
    pub(crate) plan: Plan,
    pub(crate) outputs: Vec<NodeId>,
    pub(crate) node_errors: Json,
}

/// What a prompt is to be run for.
pub(crate) enum Wanted {
    /// Every output.
    Everything,
    /// Those of these that are outputs, as in ComfyUI.
    Outputs(Vec<NodeId>),
    /// These nodes, outputs or not.
    Nodes(Vec<NodeId>),
}

/// Checks a prompt as ComfyUI does: outputs that no fault lies under are accepted, and the faults of the others told.
/// Otherwise gives the body of the refusal.
pub(crate) fn check(graph: Graph, registry: &Registry, wanted: &Wanted) -> Result<Accepted, Json> {
    for (id, entry) in &graph.nodes {
        if registry.spec(&entry.class).is_none() {
            return Err(no_such_class(id, &entry.class));
        }
    }
    let checker = Checker::new(&graph, registry);
    let sinks = checker.sinks(wanted);
    if sinks.is_empty() {
        return Err(refusal("prompt_no_outputs", "Prompt has no outputs", "", &json!({})));
    }
    let (_, mut errors) = Plan::partial(&graph, registry, Some(&sinks));
    checker.drop_untravelled_cycles(&mut errors);
    errors.extend(checker.missing_though_defaulted(&sinks));
    if errors.is_empty() {
        let plan = Plan::for_outputs(graph, registry, &sinks).map_err(|_| unplannable())?;
        return Ok(Accepted { plan, outputs: sinks, node_errors: json!({}) });
    }
    let faulty: HashSet<&str> = errors.iter().filter_map(|error| error.node.as_deref()).collect();
    let (bad, good): (Vec<NodeId>, Vec<NodeId>) =
        sinks.into_iter().partition(|sink| checker.upstream(sink).iter().any(|node| faulty.contains(node)));
    let node_errors = checker.node_errors(&errors, &bad);
    if good.is_empty() {
        let details = checker.details_of(&bad, &node_errors);
        return Err(refusal(
            "prompt_outputs_failed_validation",
            "Prompt outputs failed validation",
            &details,
            &node_errors,
        ));
    }
    let plan = Plan::for_outputs(graph.clone(), registry, &good).map_err(|_| unplannable())?;
    Ok(Accepted { plan, outputs: good, node_errors })
}

/// `{"error": …, "node_errors": …}`.
pub(crate) fn refusal(kind: &str, message: &str, details: &str, node_errors: &Json) -> Json {
    let error = told(kind, message, details, json!({}));
    json!(Refused { error, node_errors: node_errors.clone() })
}

/// A node without a class.
pub(crate) fn no_class(id: &str) -> Json {
    let message = "Cannot execute because a node is missing the class_type property.";
    refusal("invalid_prompt", message, &format!("Node ID '#{id}'"), &json!({}))
}

fn no_such_class(id: &str, class: &str) -> Json {
    let message = format!("Cannot execute because node {class} does not exist.");
    refusal("invalid_prompt", &message, &format!("Node ID '#{id}'"), &json!({}))
}

/// What was found sound a moment ago is planned, so this is never seen.
fn unplannable() -> Json {
    refusal("invalid_prompt", "The prompt cannot be planned", "", &json!({}))
}

struct Checker<'a> {
    graph: &'a Graph,
    registry: &'a Registry,
    positions: HashMap<&'a str, usize>,
}

impl<'a> Checker<'a> {
    fn new(graph: &'a Graph, registry: &'a Registry) -> Self {
        let positions = graph.nodes.iter().enumerate().map(|(at, (id, _))| (id.as_str(), at)).collect();
        Self { graph, registry, positions }
    }

    /// The nodes to run for, in the prompt's order.
    fn sinks(&self, wanted: &Wanted) -> Vec<NodeId> {
        let is_sink = |class: &str| self.registry.spec(class).is_some_and(|spec| spec.sink);
        let sinks = self.graph.nodes.iter().filter(|(id, entry)| match wanted {
            Wanted::Everything => is_sink(&entry.class),
            Wanted::Outputs(ids) => is_sink(&entry.class) && ids.contains(id),
            Wanted::Nodes(ids) => ids.contains(id),
        });
        sinks.map(|(id, _)| id.clone()).collect()
    }

    /// The node and all that it reads, near or far.
    fn upstream(&self, node: &str) -> HashSet<&'a str> {
        let mut seen = HashSet::new();
        let mut open: Vec<usize> = self.positions.get(node).copied().into_iter().collect();
        while let Some(at) = open.pop() {
            let (id, entry) = &self.graph.nodes[at];
            if !seen.insert(id.as_str()) {
                continue;
            }
            for (_, binding) in &entry.inputs {
                if let Binding::Link { node, .. } = binding {
                    open.extend(self.positions.get(node.as_str()));
                }
            }
        }
        seen
    }

    /// ComfyUI follows no link that does not fit, so it meets no cycle that has such a link in it.
    fn drop_untravelled_cycles(&self, errors: &mut Vec<GraphError>) {
        let faulty: HashSet<(String, String)> = errors
            .iter()
            .filter(|error| matches!(error.fault, Fault::WrongKind { .. } | Fault::NoSlot { .. }))
            .filter_map(|error| Some((error.node.clone()?, error.fault.input()?.to_owned())))
            .collect();
        let travelled = |maker: &NodeId, reader: &NodeId| {
            let entry = self.positions.get(reader.as_str()).map(|&at| &self.graph.nodes[at].1);
            entry.into_iter().flat_map(|entry| &entry.inputs).any(|(input, binding)| {
                matches!(binding, Binding::Link { node, .. } if node == maker)
                    && !faulty.contains(&(reader.clone(), input.clone()))
            })
        };
        errors.retain(|error| match &error.fault {
            Fault::Cycle { path } => path.windows(2).all(|wire| travelled(&wire[0], &wire[1])),
            _ => true,
        });
    }

    /// A hand-written graph may leave out what has a default; over this API it may not.
    fn missing_though_defaulted(&self, sinks: &[NodeId]) -> Vec<GraphError> {
        let needed: HashSet<&str> = sinks.iter().flat_map(|sink| self.upstream(sink)).collect();
        let mut errors = Vec::new();
        for (id, entry) in self.graph.nodes.iter().filter(|(id, _)| needed.contains(id.as_str())) {
            let Some(spec) = self.registry.spec(&entry.class) else { continue };
            let given = |name: &str| entry.inputs.iter().any(|(input, _)| input == name);
            for input in spec.inputs.iter().filter(|input| input.required && input.default.is_some()) {
                if !given(input.name) {
                    let fault = Fault::MissingInput {
                        input: input.name.to_owned(),
                        expected: input.kind.to_owned(),
                        misspelt: None,
                        source_class: None,
                    };
                    let (node, class) = (Some(id.clone()), entry.class.clone());
                    errors.push(GraphError { node, class, title: None, fault });
                }
            }
        }
        errors
    }

    /// `node_errors`: an entry for every node with errors of its own.
    fn node_errors(&self, errors: &[GraphError], bad: &[NodeId]) -> Json {
        let mut by_node: Map<String, Json> = Map::new();
        let upstream: Vec<(&NodeId, HashSet<&str>)> = bad.iter().map(|sink| (sink, self.upstream(sink))).collect();
        for error in errors {
            let Some(id) = &error.node else { continue };
            let entry = by_node.entry(id.clone()).or_insert_with(|| {
                let dependent = upstream.iter().filter(|(_, nodes)| nodes.contains(id.as_str()));
                let dependent_outputs = dependent.map(|(sink, _)| (*sink).clone()).collect();
                json!(NodeFaults { errors: Vec::new(), dependent_outputs, class_type: error.class.clone() })
            });
            if let Some(list) = entry["errors"].as_array_mut() {
                let mut fault = self.describe(error, bad.contains(id));
                if let Some(hint) = error.hint() {
                    // Ours: a way out. Clients look up the keys that they know.
                    fault.extra_info["hint"] = hint.into();
                }
                list.push(json!(fault));
            }
        }
        Json::Object(by_node)
    }

    /// The outputs' own errors, a line each.
    fn details_of(&self, bad: &[NodeId], node_errors: &Json) -> String {
        let errors = bad.iter().flat_map(|id| node_errors[id]["errors"].as_array().into_iter().flatten());
        let line = |error: &Json| {
            let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", text("message"), text("details"))
        };
        errors.map(line).collect::<Vec<_>>().join("\n")
    }

    fn describe(&self, error: &GraphError, is_output: bool) -> protocol::Fault {
        let spec = self.registry.spec(&error.class);
        let input = error.fault.input().and_then(|name| spec?.input(name));
        let config = input.map_or(Json::Null, input_config);
        let id = error.node.as_deref().unwrap_or_default();
        let raised = |exception: &str, details: &str| match self.reader(id).filter(|_| !is_output) {
            // Blamed on the node, told by whoever reads it.
            Some((name, config, link)) => told(
                "exception_during_inner_validation",
                "Exception when validating inner node",
                details,
                json!({"input_name": name, "input_config": config, "exception_message": details,
                       "exception_type": exception, "traceback": [], "linked_node": link}),
            ),
            None => told(
                "exception_during_validation",
                "Exception when validating node",
                details,
                json!({"exception_type": exception, "traceback": []}),
            ),
        };
        match &error.fault {
            Fault::Dangling { target, .. } => raised("KeyError", &format!("'{target}'")),
            Fault::NoSlot { .. } => raised("IndexError", "tuple index out of range"),
            Fault::Cycle { .. } => raised("RecursionError", "maximum recursion depth exceeded"),
            fault => match self.exception_of(fault) {
                Some((exception, details)) => raised(exception, &details),
                None => describe_value(fault, input, &config, self.received(id, fault.input())),
            },
        }
    }

    /// What Python raises when it follows a list of two that is no link. (A negative slot it counts from the end.)
    fn exception_of(&self, fault: &Fault) -> Option<(&'static str, String)> {
        let Fault::BadLink { found, .. } = fault else { return None };
        let [node, slot] = found.as_array()?.as_slice() else { return None };
        Some(match (node, slot) {
            (Json::Array(_) | Json::Object(_), _) => ("TypeError", format!("unhashable type: '{}'", python_type(node))),
            (Json::String(id), Json::Number(slot)) if self.positions.contains_key(id.as_str()) && !slot.is_f64() => {
                ("IndexError", "tuple index out of range".into())
            }
            (Json::String(id), slot) if self.positions.contains_key(id.as_str()) => {
                ("TypeError", format!("tuple indices must be integers or slices, not {}", python_type(slot)))
            }
            (id, _) => ("KeyError", python_repr(id)),
        })
    }

    /// What the graph gives to an input, as it is written.
    fn received(&self, id: &str, input: Option<&str>) -> Json {
        let entry = self.positions.get(id).map(|&at| &self.graph.nodes[at].1);
        let binding = entry.and_then(|entry| entry.inputs.iter().find(|(name, _)| Some(name.as_str()) == input));
        match binding {
            Some((_, Binding::Literal(value))) => value.clone(),
            Some((_, Binding::Link { node, slot })) => json!([node, slot]),
            None => Json::Null,
        }
    }

    /// Some input that reads the node: its name, its configuration, its link.
    fn reader(&self, id: &str) -> Option<(String, Json, Json)> {
        self.graph.nodes.iter().find_map(|(_, entry)| {
            entry.inputs.iter().find_map(|(name, binding)| match binding {
                Binding::Link { node, slot } if node == id => {
                    let config = self.registry.spec(&entry.class).and_then(|spec| spec.input(name)).map(input_config);
                    Some((name.clone(), config.unwrap_or(Json::Null), json!([node, slot])))
                }
                _ => None,
            })
        })
    }
}

fn told(kind: &str, message: &str, details: &str, extra_info: Json) -> protocol::Fault {
    protocol::Fault { kind: kind.into(), message: message.into(), details: details.into(), extra_info }
}

/// `[type, options]`, always both.
fn input_config(spec: &InputSpec) -> Json {
    let mut config = object_info::input(spec);
    if let Some(list) = config.as_array_mut()
        && list.len() == 1
    {
        list.push(json!({}));
    }
    config
}

/// Faults of one value.
fn describe_value(fault: &Fault, spec: Option<&InputSpec>, config: &Json, received: Json) -> protocol::Fault {
    let name = fault.input().unwrap_or_default();
    let with_value = |received: &Json| json!({"input_name": name, "input_config": config, "received_value": received});
    match fault {
        Fault::MissingInput { .. } => {
            told("required_input_missing", "Required input is missing", name, json!({"input_name": name}))
        }
        Fault::BadLink { found, .. } => told(
            "bad_linked_input",
            "Bad linked input, must be a length-2 list of [node_id, slot_index]",
            name,
            with_value(found),
        ),
        Fault::WrongKind { expected, found, .. } => told(
            "return_type_mismatch",
            "Return type mismatch between linked nodes",
            &format!("{name}, received_type({found}) mismatch input_type({expected})"),
            json!({"input_name": name, "input_config": config, "received_type": found, "linked_node": received}),
        ),
        Fault::NotALink { expected, found, .. } | Fault::WrongType { expected, found, .. } => {
            let exception = python_refusal(expected, found);
            told(
                "invalid_input_type",
                &format!("Failed to convert an input value to a {expected} value"),
                &format!("{name}, {}, {exception}", python_str(found)),
                json!({"input_name": name, "input_config": config, "received_value": found,
                       "exception_message": exception}),
            )
        }
        Fault::TooSmall { found, min, .. } => {
            let message = format!("Value {found} smaller than min of {}", python_str(min));
            told("value_smaller_than_min", &message, name, with_value(&number(found)))
        }
        Fault::TooBig { found, max, .. } => {
            let message = format!("Value {found} bigger than max of {}", python_str(max));
            told("value_bigger_than_max", &message, name, with_value(&number(found)))
        }
        Fault::NotInList { found, choices, .. } => not_in_list(name, config, found, choices),
        Fault::Rejected { mismatch, .. } => match spec {
            // A file that is in the list and still will not do is told for what is wrong with it.
            Some(InputSpec { widget: Widget::Choice(choices), names_file: true, image_upload: false, .. })
                if !received.as_str().is_some_and(|name| choices.iter().any(|choice| choice == name)) =>
            {
                not_in_list(name, config, &received, choices)
            }
            Some(InputSpec { image_upload: true, .. }) => {
                custom(name, &format!("Invalid image file: {}", python_str(&received)))
            }
            _ => custom(name, &format!("expects {}, found {}", mismatch.expected, mismatch.found)),
        },
        other => custom(name, &other.to_string()),
    }
}

fn custom(name: &str, text: &str) -> protocol::Fault {
    let details = format!("{name} - {text}");
    told("custom_validation_failed", "Custom validation failed for node", &details, json!({"input_name": name}))
}

fn not_in_list(name: &str, config: &Json, found: &Json, choices: &[String]) -> protocol::Fault {
    /// A longer list is only counted.
    const LISTED: usize = 20;
    let long = choices.len() > LISTED;
    let list = if long {
        format!("(list of length {})", choices.len())
    } else {
        format!(
            "[{}]",
            choices.iter().map(|choice| python_repr(&choice.as_str().into())).collect::<Vec<_>>().join(", ")
        )
    };
    let config = if long { &Json::Null } else { config };
    told(
        "value_not_in_list",
        "Value not in list",
        &format!("{name}: '{}' not in {list}", python_str(found)),
        json!({"input_name": name, "input_config": config, "received_value": found}),
    )
}

/// A number that a fault tells, as JSON holds it: beyond 64 bits the nearest float.
fn number(told: &str) -> Json {
    told.parse().map_or(Json::Null, Json::Number)
}

/// The name of its type in Python.
fn python_type(value: &Json) -> &'static str {
    match value {
        Json::Null => "NoneType",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_f64() => "float",
        Json::Number(_) => "int",
        Json::String(_) => "str",
        Json::Array(_) => "list",
        Json::Object(_) => "dict",
    }
}

/// What Python says when the value does not convert.
fn python_refusal(expected: &str, found: &Json) -> String {
    let kind = python_type(found);
    match (expected, found) {
        ("INT", Json::String(_)) => format!("invalid literal for int() with base 10: {}", python_repr(found)),
        ("FLOAT", Json::String(_)) => format!("could not convert string to float: {}", python_repr(found)),
        ("INT", _) => {
            format!("int() argument must be a string, a bytes-like object or a real number, not '{kind}'")
        }
        ("FLOAT", _) => format!("float() argument must be a string or a real number, not '{kind}'"),
        _ => format!("expected {expected}"),
    }
}
