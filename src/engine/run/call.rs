//! The calls of one node: ComfyUI's rules for lists, blocked branches, and panics.
//!
//! Every value on a wire is a list. A node is called once an element of the longest, the last element of shorter ones
//! standing in for the missing; a node with `input_is_list` is called once with all of it.

use std::any::Any;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::Value as Json;

use crate::cache::Outcome;
use crate::context::Context;
use crate::error::{Error, Mismatch, Result, RunError};
use crate::event::Event;
use crate::input::{Given, Inputs};
use crate::node::Returned;
use crate::plan::{Plan, Source, Task, Wire, range};
use crate::registry::NodeType;
use crate::spec::{InputSpec, Widget};
use crate::value::Value;

/// What arrived at a node, by input: whole lists, or what one call of it gets.
#[derive(Clone)]
pub(crate) struct Arrived<'a> {
    /// In the order of the node's inputs.
    given: Vec<(&'static str, Given<'a>)>,
    /// Wires that the node did not declare, in the graph's order.
    rest: Vec<(&'a str, Given<'a>)>,
}

/// One node with all that arrived.
pub(crate) struct Call<'a> {
    node: &'a NodeType,
    arrived: Arrived<'a>,
    /// How many times the node is called.
    times: usize,
}

impl<'a> Arrived<'a> {
    /// Literals from the task; results in the order of [`Task::wires`]. Of the lazy ones, only those that were asked
    /// for arrive: another may be there by chance, and what a node gives must not depend on chance.
    pub(crate) fn new(plan: &'a Plan, task: &'a Task, results: &'a [Option<Arc<Outcome>>], asked: &[&str]) -> Self {
        let mut results = results.iter();
        let mut from_wire = |wire: &Wire| match results.next() {
            Some(Some(outcome)) => Given::Values(outcome.slots.get(wire.slot).map_or(&[], Vec::as_slice)),
            _ => Given::Waiting,
        };
        let mut from_anywhere = |spec: &InputSpec, source: &'a Source| match source {
            Source::Absent => Given::Absent,
            Source::Literal(value) => Given::Values(std::slice::from_ref(value)),
            Source::Wire(wire) => match from_wire(wire) {
                Given::Values(_) if wire.lazy && !asked.contains(&spec.name) => Given::Waiting,
                given => given,
            },
        };
        let declared = task.node.spec.inputs.iter().zip(&task.inputs);
        let given = declared.map(|(spec, source)| (spec.name, from_anywhere(spec, source))).collect();
        let names = &plan.entry(task).inputs;
        let rest = task.rest.iter().map(|(input, wire)| (names[*input].0.as_str(), from_wire(wire))).collect();
        Self { given, rest }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs { given: &self.given, rest: &self.rest }
    }

    fn map(&self, change: impl Fn(Given<'a>) -> Given<'a>) -> Self {
        let given = self.given.iter().map(|(name, given)| (*name, change(*given))).collect();
        Self { given, rest: self.rest.iter().map(|(name, given)| (*name, change(*given))).collect() }
    }

    fn lists(&self) -> impl Iterator<Item = (&'a str, &'a [Value])> {
        let all = self.given.iter().map(|(name, given)| (*name as &'a str, *given)).chain(self.rest.iter().copied());
        all.filter_map(|(name, given)| if let Given::Values(values) = given { Some((name, values)) } else { None })
    }

    /// The message of the first blocked value, if there is one.
    fn block(&self) -> Option<Option<&'a str>> {
        self.lists().flat_map(|(_, values)| values).find_map(Value::block)
    }
}

impl<'a> Call<'a> {
    /// Checks what arrived as far as no file could tell, and counts the calls.
    pub(crate) fn new(node: &'a NodeType, arrived: Arrived<'a>) -> Result<Self> {
        for (spec, (_, given)) in node.spec.inputs.iter().zip(&arrived.given) {
            check_range(spec, *given)?;
        }
        let mut times = 1;
        if !node.spec.input_is_list {
            for (name, values) in arrived.lists() {
                if values.is_empty() {
                    return Err(RunError::EmptyList { input: name.to_owned() }.into());
                }
                times = times.max(values.len());
            }
        }
        Ok(Self { node, arrived, times })
    }

    /// Which of the waiting lazy inputs the node needs, over all its calls.
    pub(crate) fn needs(&self) -> Result<Vec<&'static str>> {
        if !self.node.spec.inputs.iter().any(|spec| spec.lazy) {
            return Ok(Vec::new());
        }
        let given = &self.arrived.given;
        let waiting: Vec<&'static str> =
            given.iter().filter(|(_, given)| matches!(given, Given::Waiting)).map(|(name, _)| *name).collect();
        let mut needed = Vec::new();
        for index in 0..self.times {
            let element = self.element(index);
            if element.block().is_some() {
                continue;
            }
            for name in guarded(|| (self.node.def.needs)(&element.inputs(), &waiting))? {
                match given.iter().find(|(input, _)| *input == name) {
                    None | Some((_, Given::Absent)) => return Err(RunError::NoSuchInput { input: name.into() }.into()),
                    Some((_, Given::Waiting)) if !needed.contains(&name) => needed.push(name),
                    Some(_) => {}
                }
            }
        }
        Ok(needed)
    }

    /// Calls the node for every element, and joins what it gives.
    pub(crate) fn run(&self, cx: &Context<'_>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut ui: Option<Json> = None;
        for index in 0..self.times {
            cx.check()?;
            let element = self.element(index);
            let returned = match element.block() {
                None => guarded(|| (self.node.def.run)(&element.inputs(), cx))?,
                Some(message) => {
                    if let Some(text) = message {
                        (cx.emit)(Event::Blocked { node: cx.node.into(), text: text.into() });
                    }
                    let blocked = |_: &_| vec![Value::blocked(None)];
                    Returned { slots: self.node.spec.outputs.iter().map(blocked).collect(), ui: None }
                }
            };
            if outcome.slots.is_empty() {
                outcome.slots = returned.slots;
            } else {
                for (slot, values) in outcome.slots.iter_mut().zip(returned.slots) {
                    slot.extend(values);
                }
            }
            match (&mut ui, returned.ui) {
                (Some(all), Some(more)) => append(all, more),
                (ui @ None, more) => *ui = more,
                (Some(_), None) => {}
            }
        }
        outcome.ui = ui.map(Arc::new);
        Ok(outcome)
    }

    /// What one call gets.
    fn element(&self, index: usize) -> Cow<'_, Arrived<'a>> {
        if self.times == 1 {
            // All lists have one element, or the node takes them whole.
            return Cow::Borrowed(&self.arrived);
        }
        Cow::Owned(self.arrived.map(|given| nth(given, index)))
    }
}

/// The element of that call, the last where the list is shorter.
fn nth(given: Given<'_>, index: usize) -> Given<'_> {
    match given {
        Given::Values(values) => {
            let index = index.min(values.len() - 1);
            Given::Values(&values[index..=index])
        }
        Given::Absent | Given::Waiting => given,
    }
}

/// Numbers from a wire keep to the range too; those of the file are known to.
fn check_range(spec: &InputSpec, given: Given<'_>) -> Result<()> {
    let Given::Values(values) = given else { return Ok(()) };
    let beyond = |value: &&Value| match spec.widget {
        Widget::Integer { min, max, .. } => value.get::<i128>().is_some_and(|number| !(min..=max).contains(number)),
        Widget::Number { min, max, .. } => value.as_f64().is_some_and(|number| !(min..=max).contains(&number)),
        Widget::Socket | Widget::Toggle | Widget::Text { .. } | Widget::Choice(_) => false,
    };
    let Some(found) = values.iter().find(beyond) else { return Ok(()) };
    let (min, max) = range(spec);
    let mismatch = Mismatch::new(format!("{min} to {max}"), format!("{found:?}"));
    Err(RunError::Mismatch { input: spec.name.to_owned(), mismatch }.into())
}

/// Appends the lists of one `ui` dictionary to those of another.
fn append(all: &mut Json, more: Json) {
    let (Json::Object(all), Json::Object(mut more)) = (all, more) else { return };
    for (key, list) in all.iter_mut() {
        if let (Json::Array(list), Some(Json::Array(more))) = (list, more.remove(key)) {
            list.extend(more);
        }
    }
}

/// A panic inside becomes an error.
fn guarded<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    // What the node shares with others is behind locks or never changes, so nothing half-done is seen after a panic.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let message = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message");
    RunError::Panicked { message: message.to_owned() }.into()
}
