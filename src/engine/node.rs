//! What `#[derive(Node)]` writes and what a node's author writes: [`Node`], [`Run`], and what a run may return.

use std::ops::RangeInclusive;

use serde_json::Value as Json;

use crate::context::Context;
use crate::error::{Mismatch, Result};
use crate::input::{Choices, Chosen, Input, Inputs, Numeric, Textual};
use crate::services::Services;
use crate::spec::{Dynamic, InputSpec, NodeSpec, OutputSpec, Widget};
use crate::value::{Port, Value};

/// A declared node. Write `#[derive(Node)]`, not this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not declared as a node",
    note = "put `#[derive(Node)]` and `#[node(category = \"…\")]` above the struct"
)]
pub trait Node: Sized {
    /// Its class name.
    const NAME: &'static str;
    /// Never reused from an earlier run.
    const VOLATILE: bool = false;
    /// Takes wires that it does not declare.
    const VARIADIC: bool = false;

    /// All about it but its inputs.
    fn spec() -> NodeSpec;

    /// Its inputs in the order of its fields, with the lists that the services know.
    fn fields(services: &Services) -> Vec<Field>;

    /// The struct, from what arrived.
    ///
    /// # Errors
    ///
    /// [`RunError::Mismatch`](crate::RunError::Mismatch) where a field takes something else.
    fn take(inputs: &Inputs<'_>) -> Result<Self>;
}

/// What a node does.
pub trait Run: Node {
    /// A [`Port`], a `Vec` of them (a list), a tuple of either, `()`, [`Sink`] or [`Shown`].
    type Output: Outputs;

    /// Does it. Called once, or once an element where lists arrive.
    ///
    /// # Errors
    ///
    /// Why there is no result; [`Context::check`] gives the error of a run that is to stop.
    fn run(self, cx: &Context<'_>) -> Result<Self::Output>;

    /// Which of the lazy inputs that are still `waiting` it needs after all: all of them, unless it says otherwise.
    /// Asked again once they are there, until it needs no more.
    fn needs(&self, waiting: &[&'static str]) -> Vec<&'static str> {
        waiting.to_vec()
    }
}

/// One declared input, with what its type knows to do.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its declaration.
    pub spec: InputSpec,
    pub(crate) check: fn(&Value, &Services) -> Result<(), Mismatch>,
    pub(crate) fingerprint: fn(&Value, &Services) -> Result<Option<Vec<u8>>>,
}

impl Field {
    /// The input of a field of type `T`, before its attributes.
    #[must_use]
    pub fn new<T: Input>(name: &'static str, doc: &'static str, services: &Services) -> Self {
        Self {
            spec: InputSpec {
                name,
                kind: T::KIND,
                doc,
                required: T::REQUIRED,
                default: None,
                widget: T::widget(services),
                lazy: T::LAZY,
                force_input: false,
                control_after_generate: false,
                image_upload: false,
                image_folder: None,
                display: None,
                advanced: false,
                names_file: T::NAMES_FILE,
                folder: T::FOLDER,
                dynamic: None,
            },
            check: T::check,
            fingerprint: T::fingerprint,
        }
    }
}

/// What a field's attributes do to it.
impl Field {
    /// The literal that a graph may leave out.
    #[must_use]
    pub fn default_to(mut self, literal: impl Into<Json>) -> Self {
        self.spec.default = Some(literal.into());
        self
    }

    /// The numbers it takes, both ends included.
    #[must_use]
    pub fn range<T: Numeric>(mut self, range: RangeInclusive<T::Number>) -> Self {
        T::bound(&mut self.spec.widget, range);
        self
    }

    /// What one click of the arrow adds.
    #[must_use]
    pub fn step<T: Numeric>(mut self, step: T::Number) -> Self {
        T::step(&mut self.spec.widget, step);
        self
    }

    /// What the editor rounds to.
    #[must_use]
    pub fn round<T: Numeric<Number = f64>>(mut self, to: f64) -> Self {
        if let Widget::Number { round, .. } = &mut self.spec.widget {
            *round = Some(to);
        }
        self
    }

    /// The list that it is one of.
    #[must_use]
    pub fn choices<T: Chosen, M>(mut self, choices: impl Choices<M>, services: &Services) -> Self {
        self.spec.widget = Widget::Choice(choices.list(services));
        self
    }

    /// A box of several lines.
    #[must_use]
    pub fn multiline<T: Textual>(mut self) -> Self {
        if let Widget::Text { multiline, .. } = &mut self.spec.widget {
            *multiline = true;
        }
        self
    }

    /// The client replaces `{a|b}` by one branch.
    #[must_use]
    pub fn dynamic_prompts<T: Textual>(mut self) -> Self {
        if let Widget::Text { dynamic_prompts, .. } = &mut self.spec.widget {
            *dynamic_prompts = true;
        }
        self
    }

    /// Another kind than its type's: a list of kinds, for a field that takes any [`Value`].
    #[must_use]
    pub fn kind(mut self, kind: &'static str) -> Self {
        self.spec.kind = kind;
        self
    }

    /// A wire only, although the kind has a widget.
    #[must_use]
    pub fn force_input(mut self) -> Self {
        self.spec.force_input = true;
        self
    }

    /// The editor moves the value between runs.
    #[must_use]
    pub fn control_after_generate(mut self) -> Self {
        self.spec.control_after_generate = true;
        self
    }

    /// A choice among uploaded pictures.
    #[must_use]
    pub fn image_upload(mut self) -> Self {
        self.spec.image_upload = true;
        self
    }

    /// The folder that its pictures lie in.
    #[must_use]
    pub fn image_folder(mut self, folder: &'static str) -> Self {
        self.spec.image_folder = Some(folder);
        self
    }

    /// How the editor is to draw it.
    #[must_use]
    pub fn display(mut self, how: &'static str) -> Self {
        self.spec.display = Some(how);
        self
    }

    /// Seldom set: folded away while it stands at its default.
    #[must_use]
    pub fn advanced(mut self) -> Self {
        self.spec.advanced = true;
        self
    }

    /// As many wires as there are, named by a prefix and a number.
    #[must_use]
    pub fn grows(mut self, prefix: &'static str, min: u32, max: u32) -> Self {
        self.spec.dynamic = Some(Dynamic::Grows { prefix, min, max });
        self
    }

    /// Only there, and then required, with these values of the choice that its name begins with.
    #[must_use]
    pub fn with(mut self, keys: &'static [&'static str]) -> Self {
        self.spec.dynamic = Some(Dynamic::With(keys));
        self.spec.required = true;
        self
    }

    /// Of one kind with the other inputs of this template.
    #[must_use]
    pub fn matches(mut self, template: &'static str) -> Self {
        self.spec.dynamic = Some(Dynamic::Matches(template));
        self
    }
}

/// The slots of a node, with the names that the node gives them if it does.
///
/// # Panics
///
/// Where there are names, but not one for each slot.
#[must_use]
pub fn named_outputs<O: Outputs>(names: &[&'static str]) -> Vec<OutputSpec> {
    let mut specs = O::specs();
    assert!(names.is_empty() || names.len() == specs.len(), "{} slots have the names {names:?}", specs.len());
    for (spec, name) in specs.iter_mut().zip(names) {
        spec.name = name;
    }
    specs
}

/// What one call of a node gave.
#[derive(Clone, Debug, Default)]
pub struct Returned {
    /// By slot, one value, or several where the slot is a list.
    pub slots: Vec<Vec<Value>>,
    /// What the node shows.
    pub ui: Option<Json>,
}

/// What a node's `run` may return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the output of a node",
    label = "not an output",
    note = "return a `Port`, a `Vec` of them, a tuple of either, `()`, `Sink` or `Shown`"
)]
pub trait Outputs {
    /// The slots, named after their kinds.
    fn specs() -> Vec<OutputSpec>;

    /// The values by slot, and what to show.
    fn into_returned(self) -> Returned;
}

/// What one slot of a node may hold.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an output slot of a node",
    label = "not a `Port`, and not a `Vec` of one"
)]
pub trait Slot {
    /// Its kind, and whether it is a list.
    const SPEC: OutputSpec;

    /// Its values.
    fn into_values(self) -> Vec<Value>;
}

impl<T: Port> Slot for T {
    const SPEC: OutputSpec = OutputSpec { kind: T::KIND, name: T::KIND, is_list: false };

    fn into_values(self) -> Vec<Value> {
        vec![self.into_value()]
    }
}

/// A list: a consumer is called for each element.
impl<T: Port> Slot for Vec<T> {
    const SPEC: OutputSpec = OutputSpec { kind: T::KIND, name: T::KIND, is_list: true };

    fn into_values(self) -> Vec<Value> {
        self.into_iter().map(Port::into_value).collect()
    }
}

impl<T: Slot> Outputs for T {
    fn specs() -> Vec<OutputSpec> {
        vec![T::SPEC]
    }

    fn into_returned(self) -> Returned {
        Returned { slots: vec![self.into_values()], ui: None }
    }
}

macro_rules! tuples {
    ($(($($slot:ident $value:ident),*)),*) => {$(
        impl<$($slot: Slot),*> Outputs for ($($slot,)*) {
            fn specs() -> Vec<OutputSpec> {
                vec![$($slot::SPEC),*]
            }

            fn into_returned(self) -> Returned {
                let ($($value,)*) = self;
                Returned { slots: vec![$($value.into_values()),*], ui: None }
            }
        }
    )*};
}

tuples!((), (A a), (A a, B b), (A a, B b, C c), (A a, B b, C c, D d), (A a, B b, C c, D d, E e));

/// A result that has no slots, only something to show: ComfyUI's `ui` dictionary, each key a list.
///
/// ```
/// use paraflow_engine::Sink;
///
/// let saved = Sink(serde_json::json!({"images": [{"filename": "a_00001_.png", "subfolder": "", "type": "output"}]}));
/// ```
#[derive(Clone, Debug)]
pub struct Sink(pub Json);

impl Outputs for Sink {
    fn specs() -> Vec<OutputSpec> {
        Vec::new()
    }

    fn into_returned(self) -> Returned {
        Returned { slots: Vec::new(), ui: Some(self.0) }
    }
}

/// A result, and something to show beside it.
#[derive(Clone, Debug)]
pub struct Shown<T>(pub T, pub Json);

impl<T: Outputs> Outputs for Shown<T> {
    fn specs() -> Vec<OutputSpec> {
        T::specs()
    }

    fn into_returned(self) -> Returned {
        Returned { ui: Some(self.1), ..self.0.into_returned() }
    }
}

/// A node for the registry: the way from its class name to its code.
#[derive(Clone, Copy)]
pub struct NodeDef {
    pub(crate) volatile: bool,
    pub(crate) variadic: bool,
    pub(crate) spec: fn() -> NodeSpec,
    pub(crate) fields: fn(&Services) -> Vec<Field>,
    pub(crate) run: fn(&Inputs<'_>, &Context<'_>) -> Result<Returned>,
    pub(crate) needs: fn(&Inputs<'_>, &[&'static str]) -> Result<Vec<&'static str>>,
}

impl NodeDef {
    /// The node that `N` declares.
    #[must_use]
    pub const fn of<N: Run>() -> Self {
        Self {
            volatile: N::VOLATILE,
            variadic: N::VARIADIC,
            spec: N::spec,
            fields: N::fields,
            run: |inputs, cx| Ok(N::take(inputs)?.run(cx)?.into_returned()),
            needs: |inputs, waiting| Ok(N::take(inputs)?.needs(waiting)),
        }
    }
}
