//! The types of a node's fields: how each is drawn, and how it is taken from what arrived.

use std::fmt::Display;
use std::ops::Deref;
use std::str::FromStr;

use serde_json::Value as Json;

use crate::error::{Mismatch, Result, RunError};
use crate::services::Services;
use crate::spec::Widget;
use crate::value::{Port, Shared, Value};

/// A type that a node's field may have.
///
/// Numbers, `bool`, `String`, [`Choice`] and [`Json`] come from the file or over a wire; [`Shared`] and [`Value`] only
/// over a wire; `Option<_>` may be left out; [`Lazy`] is evaluated when the node asks for it; `Vec<_>` is the whole
/// list, in nodes with `input_is_list`. A crate of nodes adds its own, a model's file name for one:
///
/// ```
/// use paraflow_engine::{Given, Input, Mismatch, Result, Services, Value, Widget};
///
/// /// The name of a file in a folder that the services know.
/// struct FileName(String);
///
/// struct Folder(Vec<&'static str>);
///
/// impl Input for FileName {
///     const KIND: &'static str = "COMBO";
///     const NAMES_FILE: bool = true;
///
///     fn widget(services: &Services) -> Widget {
///         let names = services.get::<Folder>().map_or(&[][..], |folder| &folder.0);
///         Widget::Choice(names.iter().map(ToString::to_string).collect())
///     }
///
///     fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
///         let name = literal.get::<String>().map_or("", String::as_str);
///         if services.expect::<Folder>().0.contains(&name) { Ok(()) } else { Err(Mismatch::new("a file", name)) }
///     }
///
///     fn fingerprint(literal: &Value, services: &Services) -> Result<Option<Vec<u8>>> {
///         Ok(Some(b"a hash of the file's content".to_vec()))
///     }
///
///     fn take(given: Given<'_>) -> Result<Self, Mismatch> {
///         String::take(given).map(Self)
///     }
/// }
/// ```
///
/// A field of any other type does not compile, and neither does an attribute that its type has no use for:
///
/// ```compile_fail,E0277
/// # use paraflow_engine::{Context, Node, Result, Run};
/// /// Waits.
/// #[derive(Node)]
/// #[node(category = "toys")]
/// struct Wait {
///     /// How long.
///     time: std::time::Duration,
/// }
/// #
/// # impl Run for Wait {
/// #     type Output = ();
/// #
/// #     fn run(self, _: &Context) -> Result<()> {
/// #         Ok(())
/// #     }
/// # }
/// ```
///
/// ```compile_fail,E0277
/// # use paraflow_engine::{Context, Node, Result, Run};
/// /// Speaks.
/// #[derive(Node)]
/// #[node(category = "toys")]
/// struct Speak {
///     /// The words.
///     #[input(range = 0..=9)]
///     text: String,
/// }
/// #
/// # impl Run for Speak {
/// #     type Output = ();
/// #
/// #     fn run(self, _: &Context) -> Result<()> {
/// #         Ok(())
/// #     }
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an input of a node",
    label = "not an `Input`",
    note = "a value from a wire is a `Shared<T>` of some `T: Port`; a literal a number, `bool`, `String` or `Choice<T>`"
)]
pub trait Input: Sized {
    /// What a wire to it must carry; several joined by commas where any of them will do; `*` for anything.
    const KIND: &'static str;
    /// Whether it must be wired or given.
    const REQUIRED: bool = true;
    /// Whether it is only evaluated when the node asks for it.
    const LAZY: bool = false;
    /// Whether its literal names a file, checked by [`Input::check`] and not by the list of its widget.
    const NAMES_FILE: bool = false;
    /// The folder of models that its literal names a file in, by its key: `checkpoints`.
    const FOLDER: Option<&'static str> = None;

    /// How it is drawn, and which literals it takes, before the field's attributes.
    fn widget(services: &Services) -> Widget {
        let _ = services;
        Widget::Socket
    }

    /// Whether the literal will do, asked before anything runs, after kind, range and list were found right.
    ///
    /// # Errors
    ///
    /// What it takes, and what it found.
    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        let _ = (literal, services);
        Ok(())
    }

    /// What the literal stands for, where that can change while the literal stays: the content of a file. It is part of
    /// the node's signature, and asked once a run. (A name that comes over a wire is not asked for.)
    ///
    /// # Errors
    ///
    /// The node's, if it comes to run.
    fn fingerprint(literal: &Value, services: &Services) -> Result<Option<Vec<u8>>> {
        let _ = (literal, services);
        Ok(None)
    }

    /// Takes the field from what arrived.
    ///
    /// # Errors
    ///
    /// What it takes, and what it found.
    fn take(given: Given<'_>) -> Result<Self, Mismatch>;
}

/// What arrived at one input for one call of the node.
#[derive(Clone, Copy, Debug)]
pub enum Given<'a> {
    /// An optional input was left out.
    Absent,
    /// A lazy input was not evaluated.
    Waiting,
    /// One value, or all of them in a node with `input_is_list`.
    Values(&'a [Value]),
}

impl<'a> Given<'a> {
    /// The value, the first if there are several.
    ///
    /// # Errors
    ///
    /// Where there is none; `kind` says what was expected.
    pub fn one(self, kind: &str) -> Result<&'a Value, Mismatch> {
        match self {
            Self::Absent => Err(Mismatch::new(kind, "nothing")),
            Self::Waiting => Err(Mismatch::new(kind, "an input that was not evaluated")),
            Self::Values(values) => values.first().ok_or_else(|| Mismatch::new(kind, "a list without elements")),
        }
    }
}

/// All that arrived for one call of a node.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Declared inputs, by name.
    pub(crate) given: &'a [(&'static str, Given<'a>)],
    /// Undeclared wires, by name.
    pub(crate) rest: &'a [(&'a str, Given<'a>)],
}

impl Inputs<'_> {
    /// The field of that name.
    ///
    /// # Errors
    ///
    /// [`RunError::Mismatch`] where something else arrived.
    pub fn take<T: Input>(&self, input: &'static str) -> Result<T> {
        let given = self.given.iter().find(|(name, _)| *name == input).map_or(Given::Absent, |(_, given)| *given);
        T::take(given).map_err(|mismatch| RunError::Mismatch { input: input.into(), mismatch }.into())
    }

    /// The wires of a field that grows, `INPUT.PREFIX0` and so on, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// [`RunError::Mismatch`] where something else arrived.
    pub fn grown<T: Input>(&self, input: &'static str) -> Result<Vec<T>> {
        let number = |name: &str| -> Option<u32> {
            let place = name.strip_prefix(input)?.strip_prefix('.')?;
            place.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse().ok()
        };
        let mut found: Vec<_> =
            self.rest.iter().filter_map(|(name, given)| Some((number(name)?, name, *given))).collect();
        found.sort_by_key(|(number, ..)| *number);
        let take = |(_, name, given): (u32, &&str, Given<'_>)| {
            T::take(given).map_err(|mismatch| RunError::Mismatch { input: (*name).to_owned(), mismatch }.into())
        };
        found.into_iter().map(take).collect()
    }

    /// Every wire that the node did not declare, in the graph's order.
    #[must_use]
    pub fn rest(&self) -> Rest {
        let named = self.rest.iter().filter_map(|(name, given)| match given {
            Given::Values(values) => Some(((*name).to_owned(), values.to_vec())),
            Given::Absent | Given::Waiting => None,
        });
        Rest(named.collect())
    }
}

/// Wires that the node did not declare, as a field with `#[input(rest)]`: their names and values, in the graph's order.
#[derive(Clone, Debug, Default)]
pub struct Rest(pub Vec<(String, Vec<Value>)>);

/// Takes the value apart as a `T`, for an input of `kind`.
fn expect<'a, T: 'static>(given: Given<'a>, kind: &str) -> Result<&'a T, Mismatch> {
    let value = given.one(kind)?;
    value.get().ok_or_else(|| Mismatch::new(kind, value.kind()))
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Input for $integer {
            const KIND: &'static str = "INT";

            fn widget(_: &Services) -> Widget {
                Widget::Integer { min: <$integer>::MIN as i128, max: <$integer>::MAX as i128, step: None }
            }

            fn take(given: Given<'_>) -> Result<Self, Mismatch> {
                let integer = *expect::<i128>(given, "INT")?;
                Self::try_from(integer).map_err(|_| {
                    Mismatch::new(format!("{} to {}", <$integer>::MIN, <$integer>::MAX), integer.to_string())
                })
            }
        }

        impl Numeric for $integer {
            type Number = $integer;

            fn bound(widget: &mut Widget, range: std::ops::RangeInclusive<$integer>) {
                if let Widget::Integer { min, max, .. } = widget {
                    (*min, *max) = (*range.start() as i128, *range.end() as i128);
                }
            }

            fn step(widget: &mut Widget, by: $integer) {
                if let Widget::Integer { step, .. } = widget {
                    *step = Some(by as i128);
                }
            }
        }
    )*};
}

integers!(i32, i64, u32, u64, usize);

macro_rules! floats {
    ($($float:ty),*) => {$(
        impl Input for $float {
            const KIND: &'static str = "FLOAT";

            fn widget(_: &Services) -> Widget {
                Widget::Number { min: f64::from(<$float>::MIN), max: f64::from(<$float>::MAX), step: 0.01, round: None }
            }

            fn take(given: Given<'_>) -> Result<Self, Mismatch> {
                let value = given.one("FLOAT")?;
                value.as_f64().map(|number| number as $float).ok_or_else(|| Mismatch::new("FLOAT", value.kind()))
            }
        }

        impl Numeric for $float {
            type Number = f64;

            fn bound(widget: &mut Widget, range: std::ops::RangeInclusive<f64>) {
                if let Widget::Number { min, max, .. } = widget {
                    (*min, *max) = (*range.start(), *range.end());
                }
            }

            fn step(widget: &mut Widget, by: f64) {
                if let Widget::Number { step, .. } = widget {
                    *step = by;
                }
            }
        }
    )*};
}

floats!(f32, f64);

impl Input for bool {
    const KIND: &'static str = "BOOLEAN";

    fn widget(_: &Services) -> Widget {
        Widget::Toggle
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        expect(given, "BOOLEAN").copied()
    }
}

impl Input for String {
    const KIND: &'static str = "STRING";

    fn widget(_: &Services) -> Widget {
        Widget::Text { multiline: false, dynamic_prompts: false }
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        expect(given, "STRING").cloned()
    }
}

/// A value from a wire.
impl<T: Port> Input for Shared<T> {
    const KIND: &'static str = T::KIND;

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        let value = given.one(T::KIND)?;
        value.share().ok_or_else(|| Mismatch::new(T::KIND, value.kind()))
    }
}

/// Anything, from a wire or the file.
impl Input for Value {
    const KIND: &'static str = "*";

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        given.one("a value").cloned()
    }
}

/// Anything that a file could hold.
impl Input for Json {
    const KIND: &'static str = "*";

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        let value = given.one("a literal")?;
        value.to_json().ok_or_else(|| Mismatch::new("a literal", value.kind()))
    }
}

/// May be left out.
impl<T: Input> Input for Option<T> {
    const KIND: &'static str = T::KIND;
    const REQUIRED: bool = false;
    const LAZY: bool = T::LAZY;
    const NAMES_FILE: bool = T::NAMES_FILE;
    const FOLDER: Option<&'static str> = T::FOLDER;

    fn widget(services: &Services) -> Widget {
        T::widget(services)
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        T::check(literal, services)
    }

    fn fingerprint(literal: &Value, services: &Services) -> Result<Option<Vec<u8>>> {
        T::fingerprint(literal, services)
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        match given {
            Given::Absent => Ok(None),
            Given::Waiting | Given::Values(_) => T::take(given).map(Some),
        }
    }
}

/// The whole list, in nodes with `input_is_list`.
impl<T: Input> Input for Vec<T> {
    const KIND: &'static str = T::KIND;
    const REQUIRED: bool = T::REQUIRED;
    const NAMES_FILE: bool = T::NAMES_FILE;
    const FOLDER: Option<&'static str> = T::FOLDER;

    fn widget(services: &Services) -> Widget {
        T::widget(services)
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        T::check(literal, services)
    }

    fn fingerprint(literal: &Value, services: &Services) -> Result<Option<Vec<u8>>> {
        T::fingerprint(literal, services)
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        match given {
            Given::Values(values) => {
                values.iter().map(|value| T::take(Given::Values(std::slice::from_ref(value)))).collect()
            }
            Given::Absent | Given::Waiting => T::take(given).map(|one| vec![one]),
        }
    }
}

/// An input that is evaluated only when the node asks for it in [`Run::needs`](crate::Run::needs): `None` until then.
#[derive(Clone, Debug)]
pub struct Lazy<T>(pub Option<T>);

impl<T> Lazy<T> {
    /// The value that [`Run::needs`](crate::Run::needs) asked for.
    ///
    /// # Panics
    ///
    /// Where it did not ask, which is a bug of the node.
    #[must_use]
    pub fn expect(self) -> T {
        self.0.expect("a lazy input is used only where `needs` asked for it")
    }
}

impl<T: Input> Input for Lazy<T> {
    const KIND: &'static str = T::KIND;
    const REQUIRED: bool = T::REQUIRED;
    const LAZY: bool = true;
    const NAMES_FILE: bool = T::NAMES_FILE;
    const FOLDER: Option<&'static str> = T::FOLDER;

    fn widget(services: &Services) -> Widget {
        T::widget(services)
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        T::check(literal, services)
    }

    fn fingerprint(literal: &Value, services: &Services) -> Result<Option<Vec<u8>>> {
        T::fingerprint(literal, services)
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        match given {
            Given::Waiting => Ok(Self(None)),
            Given::Absent | Given::Values(_) => T::take(given).map(|value| Self(Some(value))),
        }
    }
}

/// One of a list, turned into a `T` by its [`FromStr`], so that the `T` need not know the engine. The list is the
/// field's `choices` attribute.
#[derive(Clone, Debug)]
pub struct Choice<T> {
    name: String,
    value: T,
}

impl<T> Choice<T> {
    /// The choice as it is written in the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it stands for.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Choice<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: FromStr<Err: Display>> Input for Choice<T> {
    const KIND: &'static str = "COMBO";

    fn widget(_: &Services) -> Widget {
        Widget::Choice(Vec::new())
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        let name = expect::<String>(given, "COMBO")?.clone();
        match name.parse() {
            Ok(value) => Ok(Self { name, value }),
            Err(error) => Err(Mismatch::new("one of its list", format!("{name:?} ({error})"))),
        }
    }
}

/// Inputs with a range: what the attributes `range`, `step` and `round` are for.
#[diagnostic::on_unimplemented(
    message = "`range`, `step` and `round` are for numbers, and `{Self}` is none",
    label = "not a number"
)]
pub trait Numeric {
    /// The type in which its range is written: the field's own for whole numbers, `f64` for others.
    type Number;

    /// Narrows the range.
    fn bound(widget: &mut Widget, range: std::ops::RangeInclusive<Self::Number>);

    /// Sets what one click of the arrow adds.
    fn step(widget: &mut Widget, by: Self::Number);
}

/// Inputs made of words: what the attributes `multiline` and `dynamic_prompts` are for.
#[diagnostic::on_unimplemented(
    message = "`multiline` and `dynamic_prompts` are for text, and `{Self}` is none",
    label = "not a `String`"
)]
pub trait Textual {}

/// Inputs that are one of a list: what the attribute `choices` is for.
#[diagnostic::on_unimplemented(
    message = "`choices` is for a `Choice<T>`, and `{Self}` is none",
    label = "not a `Choice`"
)]
pub trait Chosen {}

impl Textual for String {}
impl<T> Chosen for Choice<T> {}

macro_rules! within {
    ($($wrapper:ident),*) => {$(
        impl<T: Numeric> Numeric for $wrapper<T> {
            type Number = T::Number;

            fn bound(widget: &mut Widget, range: std::ops::RangeInclusive<Self::Number>) {
                T::bound(widget, range);
            }

            fn step(widget: &mut Widget, by: Self::Number) {
                T::step(widget, by);
            }
        }

        impl<T: Textual> Textual for $wrapper<T> {}
        impl<T: Chosen> Chosen for $wrapper<T> {}
    )*};
}

within!(Option, Vec, Lazy);

/// What the attribute `choices` takes: a list, a function that gives one, or a function that asks the services for one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no list of choices",
    label = "give a list of strings, `fn() -> list`, or `fn(&Services) -> list`"
)]
pub trait Choices<Marker> {
    /// The choices, now.
    fn list(self, services: &Services) -> Vec<String>;
}

/// Marks a list among the [`Choices`], so that the three ways do not overlap.
pub struct List;

impl<L: IntoIterator<Item: ToString>> Choices<List> for L {
    fn list(self, _: &Services) -> Vec<String> {
        self.into_iter().map(|choice| choice.to_string()).collect()
    }
}

impl<F: Fn() -> L, L: IntoIterator<Item: ToString>> Choices<fn() -> L> for F {
    fn list(self, _: &Services) -> Vec<String> {
        self().into_iter().map(|choice| choice.to_string()).collect()
    }
}

impl<F: Fn(&Services) -> L, L: IntoIterator<Item: ToString>> Choices<fn(&Services) -> L> for F {
    fn list(self, services: &Services) -> Vec<String> {
        self(services).into_iter().map(|choice| choice.to_string()).collect()
    }
}
