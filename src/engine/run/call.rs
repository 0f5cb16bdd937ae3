//! The calls of one node: ComfyUI's rules for lists, blocked branches, and panics.
//!
//! Every value on a wire is a list. A node is called once an element of the longest, the last element of shorter ones
//! standing in for the missing; a node with `input_is_list` is called once with all of it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::Value as Json;

use crate::cache::Outcome;
use crate::context::Context;
use crate::error::{Error, Mismatch, Result, RunError};
use crate::event::Event;
use crate::input::{Given, Inputs};
use crate::node::Returned;
use crate::registry::NodeType;
use crate::spec::{InputSpec, Widget};
use crate::value::Value;

/// One node with all that arrived: whole lists, by input.
pub(crate) struct Call<'a> {
    node: &'a NodeType,
    given: Vec<(&'static str, Given<'a>)>,
    rest: Vec<(&'a str, Given<'a>)>,
    /// How many times the node is called.
    times: usize,
}

impl<'a> Call<'a> {
    /// `given` in the order of the node's inputs, `rest` in that of the graph's.
    pub(crate) fn new(node: &'a NodeType, given: Vec<Given<'a>>, rest: Vec<(&'a str, Given<'a>)>) -> Result<Self> {
        let given: Vec<_> = node.spec.inputs.iter().map(|spec| spec.name).zip(given).collect();
        for (spec, (_, given)) in node.spec.inputs.iter().zip(&given) {
            check_range(spec, *given)?;
        }
        let mut times = 1;
        if !node.spec.input_is_list {
            for (name, given) in given.iter().copied().chain(rest.iter().copied()) {
                let Given::Values(values) = given else { continue };
                if values.is_empty() {
                    return Err(RunError::EmptyList { input: name.to_owned() }.into());
                }
                times = times.max(values.len());
            }
        }
        Ok(Self { node, given, rest, times })
    }

    /// Which of the waiting lazy inputs the node needs, over all its calls.
    pub(crate) fn needs(&self) -> Result<Vec<&'static str>> {
        let waiting: Vec<&'static str> =
            self.given.iter().filter(|(_, given)| matches!(given, Given::Waiting)).map(|(name, _)| *name).collect();
        let mut needed = Vec::new();
        for index in 0..self.times {
            let (given, rest) = self.element(index);
            if block(&given, &rest).is_some() {
                continue;
            }
            let inputs = Inputs { given: &given, rest: &rest };
            for name in guarded(|| (self.node.def.needs)(&inputs, &waiting))? {
                match self.given.iter().find(|(input, _)| *input == name) {
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
            let (given, rest) = self.element(index);
            let returned = match block(&given, &rest) {
                None => guarded(|| (self.node.def.run)(&Inputs { given: &given, rest: &rest }, cx))?,
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
    #[expect(clippy::type_complexity, reason = "the two halves of `Inputs`, which borrows them")]
    fn element(&self, index: usize) -> (Vec<(&'static str, Given<'a>)>, Vec<(&'a str, Given<'a>)>) {
        let pick = |given| if self.node.spec.input_is_list { given } else { nth(given, index) };
        let given = self.given.iter().map(|(name, given)| (*name, pick(*given))).collect();
        (given, self.rest.iter().map(|(name, given)| (*name, pick(*given))).collect())
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

/// The message of the first blocked value, if there is one.
fn block<'a>(given: &[(&'static str, Given<'a>)], rest: &[(&'a str, Given<'a>)]) -> Option<Option<&'a str>> {
    let all = given.iter().map(|(_, given)| *given).chain(rest.iter().map(|(_, given)| *given));
    let values = all.flat_map(|given| if let Given::Values(values) = given { values } else { &[] });
    values.into_iter().find_map(Value::block)
}

/// Numbers from a wire keep to the range too; those of the file are known to.
fn check_range(spec: &InputSpec, given: Given<'_>) -> Result<()> {
    let Given::Values(values) = given else { return Ok(()) };
    let wrong = match spec.widget {
        Widget::Integer { min, max, .. } => values
            .iter()
            .filter_map(Value::get::<i128>)
            .find(|value| !(min..=max).contains(*value))
            .map(|value| Mismatch::new(format!("{min} to {max}"), value.to_string())),
        Widget::Number { min, max, .. } => values
            .iter()
            .filter_map(Value::get::<f64>)
            .find(|value| !(min..=max).contains(*value))
            .map(|value| Mismatch::new(format!("{min} to {max}"), value.to_string())),
        Widget::Socket | Widget::Toggle | Widget::Text { .. } | Widget::Choice(_) => None,
    };
    match wrong {
        Some(mismatch) => Err(RunError::Mismatch { input: spec.name.to_owned(), mismatch }.into()),
        None => Ok(()),
    }
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
