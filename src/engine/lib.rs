//! Graph to plan to run: the dataflow engine. Knows no tensors, files or HTTP.
//!
//! A [`Graph`] is a file as it was written. [`Plan::new`] checks it against a [`Registry`] of nodes, telling every
//! fault at once, and orders what its outputs need. [`Executor::run`] runs the plan: what an earlier run left in the
//! [`Cache`] is not done again, and all that happens is told as [`Event`]s, of which terminal, server and tests are but
//! readers.
//!
//! # A node, from its declaration to its run
//!
//! ```
//! use std::str::FromStr;
//! use std::sync::Mutex;
//!
//! use paraflow_engine::*;
//!
//! /// What travels on wires of the kind `LATENT`. Others may read it at the same time, so it never changes.
//! struct Latent(Vec<f32>);
//!
//! impl Port for Latent {
//!     const KIND: &'static str = "LATENT";
//!
//!     fn bytes(&self) -> usize {
//!         self.0.len() * size_of::<f32>()
//!     }
//! }
//!
//! /// Makes a latent of zeros.
//! #[derive(Node)]
//! #[node(category = "latent", display_name = "Empty Latent")]
//! struct EmptyLatent {
//!     /// How many numbers it has.
//!     #[input(default = 4, range = 1..=16_384)]
//!     length: u32,
//! }
//!
//! impl Run for EmptyLatent {
//!     type Output = Latent;
//!
//!     fn run(self, _: &Context) -> Result<Latent> {
//!         Ok(Latent(vec![0.0; self.length as usize]))
//!     }
//! }
//!
//! /// What an algorithm's name stands for. Its crate needs only `FromStr`, and does not know the engine.
//! struct Step(f32);
//!
//! impl FromStr for Step {
//!     type Err = &'static str;
//!
//!     fn from_str(name: &str) -> Result<Self, Self::Err> {
//!         match name {
//!             "up" => Ok(Self(1.0)),
//!             "down" => Ok(Self(-1.0)),
//!             _ => Err("no such step"),
//!         }
//!     }
//! }
//!
//! /// Walks from a latent to another.
//! ///
//! /// Paragraphs after the first are details for the reference.
//! #[derive(Node)]
//! #[node(category = "sampling", compute, version = 1, outputs = ["walked"])]
//! struct Walk {
//!     /// Where to start. A wire: it is shared, and read through `Deref`.
//!     latent_image: Shared<Latent>,
//!     /// Equal seeds give equal walks. As wide as ComfyUI's.
//!     #[input(default = 0, control_after_generate)]
//!     seed: u64,
//!     /// How many steps to take.
//!     #[input(default = 20, range = 1..=10_000)]
//!     steps: u32,
//!     /// How far a step goes.
//!     #[input(default = 1.0, range = 0.0..=10.0, step = 0.1, round = 0.01)]
//!     length: f64,
//!     /// Where to. The list may also be `function` or `|services: &Services| list`.
//!     #[input(choices = ["up", "down"], default = "up")]
//!     direction: Choice<Step>,
//!     /// What to write beside it. An `Option` may be left out.
//!     #[input(multiline, dynamic_prompts)]
//!     note: Option<String>,
//! }
//!
//! impl Run for Walk {
//!     type Output = Latent; // several slots are a tuple, a list is a `Vec`
//!
//!     fn run(self, cx: &Context) -> Result<Latent> {
//!         let mut walked = self.latent_image.0.clone();
//!         for step in 0..self.steps {
//!             walked.iter_mut().for_each(|number| *number += self.direction.0 * self.length as f32);
//!             cx.progress(step + 1, self.steps)?; // also checks whether the run is to stop
//!         }
//!         Ok(Latent(walked))
//!     }
//! }
//!
//! /// A service: the outside world, as `main` hands it to nodes.
//! struct Shelf(Mutex<Vec<f32>>);
//!
//! /// Puts a latent on the shelf. The prompt and the workflow are there for files that carry them.
//! #[derive(Node)]
//! #[node(category = "latent", sink)]
//! struct SaveLatent {
//!     /// What to save.
//!     samples: Shared<Latent>,
//! }
//!
//! impl Run for SaveLatent {
//!     type Output = Sink;
//!
//!     fn run(self, cx: &Context) -> Result<Sink> {
//!         cx.service::<Shelf>().0.lock().unwrap().extend(&self.samples.0);
//!         let prompt = cx.prompt().to_string();
//!         std::fs::metadata("/").hint("make a root directory")?; // any error, and a way out
//!         Ok(Sink(serde_json::json!({"text": [format!("{} of {}", self.samples.0.len(), prompt.len())]})))
//!     }
//! }
//!
//! // A family's list, and what `main` does with it.
//! fn nodes() -> Vec<NodeDef> {
//!     vec![NodeDef::of::<EmptyLatent>(), NodeDef::of::<Walk>(), NodeDef::of::<SaveLatent>()]
//! }
//!
//! let registry = Registry::new(nodes(), Services::new().with(Shelf(Mutex::default())));
//! let file = br#"{
//!     "1": {"class_type": "EmptyLatent", "inputs": {}},
//!     "2": {"class_type": "Walk", "inputs": {"latent_image": ["1", 0], "steps": "3"}},
//!     "3": {"class_type": "SaveLatent", "inputs": {"samples": ["2", 0]}}
//! }"#;
//! let graph = formats::read(file, &registry).unwrap();
//! let plan = Plan::new(graph, &registry).unwrap();
//! assert_eq!(plan.prompt()["2"]["inputs"]["steps"], 3); // converted, and so saved
//!
//! let executor = Executor::new(Cache::new(1 << 30).into());
//! let shown = Mutex::new(Vec::new());
//! let ended = executor.run(&plan, &Cancel::new(), &|event| {
//!     if let Event::Output { node, ui } = event {
//!         shown.lock().unwrap().push((node, ui));
//!     }
//! });
//! assert_eq!(ended, Ended::Done);
//! assert_eq!(*registry.services().expect::<Shelf>().0.lock().unwrap(), [3.0; 4]);
//! assert_eq!(shown.lock().unwrap()[0].0, "3");
//! ```
//!
//! # What else a field may be
//!
//! [`Lazy<T>`](Lazy) is evaluated only where [`Run::needs`] asks for it; [`Value`] takes anything; `Vec<T>` is the
//! whole list in a node with `input_is_list`; [`Rest`] with `#[input(rest)]` takes wires that no other field declares.
//! A `Vec<T>` with `#[input(grows = ("image", 2, 50))]` takes as many wires as there are, `NAME.image0` and so on; an
//! `Option<T>` with `#[input(with = ["a", "b"])]` and a name like `choice.size` is there while the choice is one of
//! these.
//! A type of one's own is an [`Input`], which is how a file's name brings its list, its check and its content's
//! fingerprint, so that no node writes cache code. The attributes are listed at [`derive@Node`].

// The derive macro writes paths that begin with the crate's name; in this crate's own tests they must lead here.
extern crate self as paraflow_engine;

mod cache;
mod cancel;
mod context;
mod error;
mod event;
pub mod formats;
pub mod graph;
mod input;
mod nearest;
mod node;
mod plan;
mod python;
mod registry;
mod run;
mod services;
pub mod spec;
mod value;

pub use paraflow_derive::Node;
pub use serde_json::Value as Json;

pub use self::cache::Cache;
pub use self::cancel::Cancel;
pub use self::context::Context;
pub use self::error::{Error, Hint, Mismatch, Result, RunError};
pub use self::event::{Emit, Event, ImageFormat, LossPoint};
pub use self::graph::{Binding, Entry, Graph, NodeId};
pub use self::input::{Choice, Choices, Chosen, Given, Input, Inputs, Lazy, Numeric, Rest, Textual};
pub use self::nearest::{nearest, nearest_few};
pub use self::node::{Field, Node, NodeDef, Outputs, Returned, Run, Shown, Sink, Slot, named_outputs};
pub use self::plan::{Fault, GraphError, Plan, Warning};
pub use self::python::{python_repr, python_str};
pub use self::registry::Registry;
pub use self::run::{Ended, Executor};
pub use self::services::Services;
pub use self::spec::{Dynamic, InputSpec, Lane, NodeSpec, OutputSpec, Specs, Widget};
pub use self::value::{Port, Shared, Value};
