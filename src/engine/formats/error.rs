//! Why a file is no graph.

use std::fmt;

use thiserror::Error;

use crate::graph::NodeId;

/// Why a file could not be read as a graph. [`FormatError::hint`] tells the way out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Neither a picture we know nor text.
    #[error("byte {offset} is not text (UTF-8)")]
    NotText {
        /// Where the text ends, from 0.
        offset: usize,
    },
    /// Text, but not JSON.
    #[error("line {line}, column {column}: {fact}, found {found}")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the parser wanted.
        fact: String,
        /// What stands there.
        found: String,
    },
    /// Nested deeper than any graph is.
    #[error("line {line}, column {column}: nested more than {} levels deep", super::json::MAX_DEPTH)]
    TooDeep {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// JSON, but neither of the two formats.
    #[error("expected a graph, found {found}")]
    NotAGraph {
        /// What the JSON looks like: `an array`, `an object without `nodes` or `class_type``.
        found: String,
    },
    /// A picture, whole as far as it was read, without a graph in it.
    #[error("this {picture} picture carries no graph{}", carries(.keys))]
    NoGraphInPicture {
        /// `PNG`, `WebP`, `JPEG`.
        picture: &'static str,
        /// The keys of the texts that it does carry.
        keys: Vec<String>,
    },
    /// A picture whose chunks do not add up, and no graph before that place.
    #[error("this {picture} picture is damaged at byte {offset}: {fact}")]
    BrokenPicture {
        /// `PNG`, `WebP`.
        picture: &'static str,
        /// Where, from 0.
        offset: usize,
        /// What is wrong there.
        fact: &'static str,
    },
    /// A graph with faults: all of them, in the file's order.
    #[error("{}", lines(.0))]
    Faults(Vec<Fault>),
}

impl FormatError {
    /// A way out, where one is known. Of several faults, the one they share; each also has [its own](Problem::hint).
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotText { .. } => Some("give a graph as JSON, or a PNG or WebP picture that carries one"),
            Self::NotJson { .. } | Self::TooDeep { .. } => None,
            Self::NotAGraph { .. } => {
                Some("export the workflow from the editor: both `Save` and `Export (API)` files are read")
            }
            Self::NoGraphInPicture { picture: "JPEG", .. } => Some("use the PNG that was saved by the graph itself"),
            Self::NoGraphInPicture { .. } => {
                Some("use the file as it was saved: editors and messengers strip what a picture carries")
            }
            Self::BrokenPicture { .. } => Some("copy or download the picture again"),
            Self::Faults(faults) => {
                let mut hints = faults.iter().map(|fault| fault.problem.hint());
                let first = hints.next().flatten();
                first.filter(|_| hints.all(|hint| hint == first))
            }
        }
    }
}

impl From<Fault> for FormatError {
    fn from(fault: Fault) -> Self {
        Self::Faults(vec![fault])
    }
}

fn carries(keys: &[String]) -> String {
    if keys.is_empty() { String::new() } else { format!(", only {}", super::quoted(keys.iter().map(String::as_str))) }
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// One thing wrong with a graph file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What.
    pub problem: Problem,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// Where in a graph a fault is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A node of the graph, by its flattened id, and its class if it has one.
    Node {
        /// Its id, flattened: `57:3` is node 3 inside node 57.
        id: NodeId,
        /// Its class, or nothing where the file does not say.
        class: String,
    },
    /// An element of a list of the file: `nodes[3]`, `links[0]`, of a subgraph or of the graph itself.
    Element {
        /// The subgraph's name; nothing for the graph itself.
        subgraph: Option<String>,
        /// `nodes`, `links`, `definitions.subgraphs`.
        list: &'static str,
        /// From 0.
        index: usize,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("the graph"),
            Self::Node { id, class } if class.is_empty() => write!(f, "node {id}"),
            Self::Node { id, class } => write!(f, "node {id} ({class})"),
            Self::Element { subgraph: None, list, index } => write!(f, "`{list}[{index}]`"),
            Self::Element { subgraph: Some(name), list, index } => write!(f, "`{list}[{index}]` of subgraph `{name}`"),
        }
    }
}

/// What can be wrong with a graph file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// A part of the file is of the wrong type.
    #[error("{part} should be {expected}, found {found}")]
    Malformed {
        /// `the node`, `` `inputs` ``.
        part: &'static str,
        /// `an object`, `a list`.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// Two nodes of one graph share an id, so links cannot tell them apart.
    #[error("another node has the same id")]
    DuplicateNode,
    /// Two subgraph definitions share an id.
    #[error("another subgraph has the same id")]
    DuplicateSubgraph,
    /// A link inside a subgraph uses a slot that the subgraph's border does not have.
    #[error("input `{input}` is wired to {side} {slot} of its subgraph, which has {count}")]
    MissingPort {
        /// The input.
        input: String,
        /// `input` or `output`.
        side: &'static str,
        /// Which, from 0.
        slot: usize,
        /// How many there are.
        count: usize,
    },
    /// Reroutes, bypassed nodes or subgraph borders lead in a circle.
    #[error("following the wire of input `{input}` through reroutes and bypassed nodes leads in a circle")]
    LinkLoop {
        /// The input.
        input: String,
    },
    /// The class is the id of a subgraph that the file does not define.
    #[error("its subgraph is not defined in the file")]
    MissingSubgraph,
    /// A subgraph contains itself.
    #[error("subgraph contains itself: {}", .path.join(" > "))]
    SubgraphCycle {
        /// Names, from the outermost to the repeated one.
        path: Vec<String>,
    },
    /// A legacy group node inside another.
    #[error("group node inside a group node")]
    NestedGroup,
    /// More nodes, once subgraphs are expanded, than we take.
    #[error("expanding the subgraphs gives more than {limit} nodes, or nests more than {depth} deep")]
    TooLarge {
        /// The most nodes.
        limit: usize,
        /// The deepest nesting.
        depth: usize,
    },
}

impl Problem {
    /// A way out, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Malformed { .. } => None,
            Self::DuplicateNode | Self::DuplicateSubgraph => Some("give one of them another id"),
            Self::MissingPort { .. } => Some("wire the input again, or remove its link"),
            Self::LinkLoop { .. } => Some("give the circle a source that is neither a reroute nor bypassed"),
            Self::MissingSubgraph => Some("save the workflow again where the subgraph is defined"),
            Self::SubgraphCycle { .. } => Some("remove the inner copy"),
            Self::NestedGroup => Some("convert the inner group node to nodes or to a subgraph"),
            Self::TooLarge { .. } => Some("use fewer copies of the subgraphs"),
        }
    }
}
