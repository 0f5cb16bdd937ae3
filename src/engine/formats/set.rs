//! `--set NODE.INPUT=VALUE`: one literal of a graph, changed from outside.

use serde_json::{Number, Value as Json};
use thiserror::Error;

use super::ui;
use crate::graph::{Binding, Entry, Graph, NodeId};
use crate::nearest;
use crate::plan::{is_whole, range};
use crate::spec::{InputSpec, Specs, Widget};

/// Why an assignment could not be made. [`SetError::hint`] tells the way out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SetError {
    /// Not of the form `NODE.INPUT=VALUE`.
    #[error("`{assignment}` is not of the form NODE.INPUT=VALUE")]
    Form {
        /// What was given.
        assignment: String,
    },
    /// No node has that id, title or class.
    #[error("no node has the id, title or class `{name}`")]
    NoNode {
        /// What was given.
        name: String,
        /// The most similar id, title or class.
        nearest: Option<String>,
    },
    /// Several nodes have that title or class.
    #[error("`{name}` names several nodes: {}", listed(.candidates))]
    Ambiguous {
        /// What was given.
        name: String,
        /// Id and title (or class) of each, in the graph's order.
        candidates: Vec<(NodeId, String)>,
    },
    /// The node has no input of that name.
    #[error("node {id} ({class}) has no input `{name}`")]
    NoInput {
        /// The node.
        id: NodeId,
        /// Its class.
        class: String,
        /// What was given.
        name: String,
        /// The most similar input that takes a value.
        nearest: Option<String>,
    },
    /// The input only takes a wire.
    #[error("node {id} ({class}): input `{input}` takes {kind} from a wire, not a value")]
    WireOnly {
        /// The node.
        id: NodeId,
        /// Its class.
        class: String,
        /// The input.
        input: String,
        /// What it takes.
        kind: String,
    },
    /// The value is not of the input's kind.
    #[error("node {id} ({class}): input `{input}` expects {expected}, found `{found}`")]
    Value {
        /// The node.
        id: NodeId,
        /// Its class.
        class: String,
        /// The input.
        input: String,
        /// `a whole number`, `a number`, `true or false`.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// The value is a number so large that a graph cannot hold it.
    #[error("node {id} ({class}): input `{input}` expects {range}, found `{found}`")]
    OutOfRange {
        /// The node.
        id: NodeId,
        /// Its class.
        class: String,
        /// The input.
        input: String,
        /// What it takes: `0 to 100`.
        range: String,
        /// What was given.
        found: String,
    },
}

impl SetError {
    /// A way out, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Form { .. } => Some("for example `KSampler.seed=7`".to_owned()),
            Self::NoNode { nearest, .. } | Self::NoInput { nearest, .. } => {
                nearest.as_ref().map(|name| format!("did you mean `{name}`?"))
            }
            Self::Ambiguous { candidates, .. } => {
                candidates.first().map(|(id, _)| format!("name one by its id: `{id}`"))
            }
            Self::WireOnly { .. } | Self::Value { .. } | Self::OutOfRange { .. } => None,
        }
    }
}

/// Whether a text has the form `NODE.INPUT=VALUE`, without a graph to set anything in.
///
/// # Errors
///
/// [`SetError::Form`] where it has not.
pub fn check_form(assignment: &str) -> Result<(), SetError> {
    let names_input = |target: &str| {
        let target = target.trim();
        target.match_indices('.').any(|(dot, _)| dot > 0 && dot + 1 < target.len())
    };
    match assignment.split_once('=') {
        Some((target, _)) if names_input(target) => Ok(()),
        _ => Err(SetError::Form { assignment: assignment.to_owned() }),
    }
}

fn listed(candidates: &[(NodeId, String)]) -> String {
    candidates.iter().map(|(id, title)| format!("{id} ({title})")).collect::<Vec<_>>().join(", ")
}

/// Gives an input of a node a value, in place of a literal or of a wire; returns the node's id and the input's name.
///
/// `assignment` is `NODE.INPUT=VALUE`. `NODE` is an id, else the title or the class of one node only, and case counts
/// unless nothing matches otherwise. `VALUE` is read as JSON where the input is a number or a truth, and else taken as
/// it stands, so a text needs no quotes. Range and list are the plan's to check. Where the graph was made from a UI
/// workflow, the value is written there too, so that a picture's two graphs agree.
///
/// # Errors
///
/// When no node or input, or more than one node, has the name, or the input does not take such a value. The graph is
/// then as it was.
pub fn apply_set(graph: &mut Graph, specs: &dyn Specs, assignment: &str) -> Result<(NodeId, String), SetError> {
    let form = || SetError::Form { assignment: assignment.to_owned() };
    let (target, value) = assignment.split_once('=').ok_or_else(form)?;
    let target = target.trim();
    // Titles, ids and inputs may have dots of their own: of all ways to read it the first that fits counts, or else the
    // error of the last one that at least names a node.
    let mut failure = None;
    for (dot, _) in target.match_indices('.') {
        let (node, input) = (&target[..dot], &target[dot + 1..]);
        if node.is_empty() || input.is_empty() {
            continue;
        }
        let attempt = find_node(graph, node).and_then(|index| {
            let (id, entry) = &graph.nodes[index];
            let (input, value) = literal(id, entry, specs, input, value)?;
            Ok((index, input, value))
        });
        match attempt {
            Ok((index, input, value)) => {
                if let Some(workflow) = &mut graph.workflow {
                    ui::store(workflow, specs, &graph.nodes[index].0, &input, &value);
                }
                let (id, entry) = &mut graph.nodes[index];
                entry.bind(&input, Binding::Literal(value));
                return Ok((id.clone(), input));
            }
            Err(SetError::NoNode { .. }) if failure.is_some() => {}
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(form))
}

/// The index of the one node that `name` is the id, title or class of.
fn find_node(graph: &Graph, name: &str) -> Result<usize, SetError> {
    let indices = |fits: &dyn Fn(&NodeId, &Entry) -> bool| -> Vec<usize> {
        let nodes = graph.nodes.iter().enumerate();
        nodes.filter(|(_, (id, entry))| fits(id, entry)).map(|(index, _)| index).collect()
    };
    let lower = name.to_lowercase();
    let is = |text: &str| text.to_lowercase() == lower;
    let rounds = [
        indices(&|id, _| id == name),
        indices(&|_, entry| entry.title.as_deref() == Some(name)),
        indices(&|_, entry| entry.class == name),
        indices(&|_, entry| entry.title.as_deref().is_some_and(is)),
        indices(&|_, entry| is(&entry.class)),
    ];
    match rounds.into_iter().find(|found| !found.is_empty()).as_deref() {
        Some(&[index]) => Ok(index),
        Some(several) => {
            let described = |&index: &usize| {
                let (id, entry) = &graph.nodes[index];
                (id.clone(), entry.title.clone().unwrap_or_else(|| entry.class.clone()))
            };
            Err(SetError::Ambiguous { name: name.to_owned(), candidates: several.iter().map(described).collect() })
        }
        None => {
            let names =
                |(id, entry): &'_ (NodeId, Entry)| [Some(id.clone()), entry.title.clone(), Some(entry.class.clone())];
            let names: Vec<String> = graph.nodes.iter().flat_map(names).flatten().collect();
            let nearest = nearest(name, names.iter().map(String::as_str)).map(str::to_owned);
            Err(SetError::NoNode { name: name.to_owned(), nearest })
        }
    }
}

/// The input's own spelling and the value as its kind wants it.
fn literal(id: &NodeId, entry: &Entry, specs: &dyn Specs, name: &str, value: &str) -> Result<(String, Json), SetError> {
    let spec = specs.spec(&entry.class);
    let class = || entry.class.clone();
    let declared = spec.into_iter().flat_map(|spec| &spec.inputs);
    if let Some(input) = pick(declared.map(|input| (input.name, input)), name) {
        if !input.widget.has_value() || input.force_input {
            let (input, kind) = (input.name.to_owned(), input.kind.to_owned());
            return Err(SetError::WireOnly { id: id.clone(), class: class(), input, kind });
        }
        let mismatch = |unfit| {
            let (id, class, name, found) = (id.clone(), class(), input.name.to_owned(), value.to_owned());
            match unfit {
                Unfit::Kind(expected) => SetError::Value { id, class, input: name, expected, found },
                Unfit::Size => {
                    let (min, max) = range(input);
                    SetError::OutOfRange { id, class, input: name, range: format!("{min} to {max}"), found }
                }
            }
        };
        return parse(input, value).map(|value| (input.name.to_owned(), value)).map_err(mismatch);
    }
    // An input that the class does not declare, or a class that we do not know: what stands there tells the kind.
    let stored = entry.inputs.iter().filter_map(|(name, binding)| match binding {
        Binding::Literal(literal) => Some((name.as_str(), literal)),
        Binding::Link { .. } => None,
    });
    if let Some((stored_name, literal)) = pick(stored.map(|pair| (pair.0, pair)), name) {
        let parsed = serde_json::from_str(value.trim()).ok().filter(|it| same_kind(it, literal));
        return Ok((stored_name.to_owned(), parsed.unwrap_or_else(|| value.into())));
    }
    let declared = spec.into_iter().flat_map(|spec| &spec.inputs).filter(|input| input.widget.has_value());
    let names: Vec<&str> =
        declared.map(|input| input.name).chain(entry.inputs.iter().map(|(name, _)| name.as_str())).collect();
    let nearest = nearest(name, names).map(str::to_owned);
    Err(SetError::NoInput { id: id.clone(), class: class(), name: name.to_owned(), nearest })
}

/// What has that name, or else has it but for case.
fn pick<'n, T: Copy>(named: impl Iterator<Item = (&'n str, T)>, name: &str) -> Option<T> {
    let named: Vec<(&str, T)> = named.collect();
    let exact = named.iter().find(|(it, _)| *it == name);
    let found = exact.or_else(|| named.iter().find(|(it, _)| it.to_lowercase() == name.to_lowercase()));
    found.map(|&(_, found)| found)
}

fn same_kind(a: &Json, b: &Json) -> bool {
    (a.is_number() && b.is_number()) || (a.is_boolean() && b.is_boolean())
}

/// Why a text is no value of an input.
enum Unfit {
    /// It should be `a whole number`, `a number`, `true or false`.
    Kind(&'static str),
    /// It is a number larger than a graph holds.
    Size,
}

/// The value as the input's kind wants it.
fn parse(input: &InputSpec, value: &str) -> Result<Json, Unfit> {
    let number = || value.trim().parse::<Number>().ok();
    match &input.widget {
        Widget::Integer { .. } => number()
            .filter(|number| !number.is_f64())
            .map(Json::Number)
            .ok_or_else(|| if is_whole(value) { Unfit::Size } else { Unfit::Kind("a whole number") }),
        Widget::Number { .. } => number().map(Json::Number).ok_or_else(|| {
            // Of the texts that are read as infinite, those with digits are numbers.
            let endless = value.trim().parse().is_ok_and(f64::is_infinite);
            let digits = value.contains(|letter: char| letter.is_ascii_digit());
            if endless && digits { Unfit::Size } else { Unfit::Kind("a number") }
        }),
        Widget::Toggle => value.trim().parse::<bool>().map(Json::Bool).map_err(|_| Unfit::Kind("true or false")),
        Widget::Text { .. } | Widget::Choice(_) | Widget::Socket => Ok(value.into()),
    }
}
