//! What travels along a wire: any Rust value that names its kind, shared and never changed.

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value as Json;

/// A type that may travel along a wire.
///
/// ```
/// use paraflow_engine::Port;
///
/// struct Latent {
///     numbers: Vec<f32>,
/// }
///
/// impl Port for Latent {
///     const KIND: &'static str = "LATENT";
///
///     fn bytes(&self) -> usize {
///         self.numbers.len() * size_of::<f32>()
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel along a wire",
    label = "not a `Port`",
    note = "implement `Port` for it, with the `KIND` that both ends of the wire agree on"
)]
pub trait Port: Any + Send + Sync + Sized {
    /// What both ends must agree on: `LATENT`, `MODEL`, `INT`; `*` for anything.
    const KIND: &'static str;

    /// The memory that dropping this value would free, for the budget of the [`Cache`](crate::Cache). Of memory that
    /// several values share (the weights under two adapted models), count the part that this one adds.
    fn bytes(&self) -> usize {
        0
    }

    /// Puts it on a wire. Types that the engine carries in another form (every whole number is an `i128`) override it.
    fn into_value(self) -> Value {
        Value { kind: Self::KIND, bytes: self.bytes(), data: Arc::new(self) }
    }
}

/// A value on a wire: cheap to clone, opaque to the engine, and the same for everyone who reads it.
#[derive(Clone)]
pub struct Value {
    kind: &'static str,
    bytes: usize,
    data: Arc<dyn Any + Send + Sync>,
}

impl Value {
    /// A value of the kind that its type names.
    pub fn new(port: impl Port) -> Self {
        port.into_value()
    }

    /// The mark that stops a branch without failing the run: a node that would read it is not called, and gives the
    /// mark on. With a message, the first such node tells the user of it.
    #[must_use]
    pub fn blocked(message: Option<String>) -> Self {
        Self { kind: "*", bytes: 0, data: Arc::new(Block(message)) }
    }

    /// What it is: the kind that its type names.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The memory that it keeps, as its type counted it when it was made.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The value itself, if it is a `T`.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.data.downcast_ref()
    }

    /// A share of the value, if it is a `T`.
    #[must_use]
    pub fn share<T: Port>(&self) -> Option<Shared<T>> {
        Arc::clone(&self.data).downcast().ok().map(Shared)
    }

    /// The literal that it would be in a file, if it is a number, a word, a truth or a JSON value.
    #[must_use]
    pub fn to_json(&self) -> Option<Json> {
        if let Some(json) = self.get::<Json>() {
            return Some(json.clone());
        }
        if let Some(&integer) = self.get::<i128>() {
            return serde_json::Number::from_i128(integer).map(Json::Number);
        }
        if let Some(&number) = self.get::<f64>() {
            return serde_json::Number::from_f64(number).map(Json::Number);
        }
        if let Some(text) = self.get::<String>() {
            return Some(Json::String(text.clone()));
        }
        self.get::<bool>().copied().map(Json::Bool)
    }

    /// The number, if it is one: behind a `*`, a whole one may arrive where any is taken.
    pub(crate) fn as_f64(&self) -> Option<f64> {
        self.get().copied().or_else(|| self.get::<i128>().map(|&integer| integer as f64))
    }

    /// The same for all shares of one value, and for no other value that is alive.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.data).cast::<()>().addr()
    }

    /// The message of a [`Value::blocked`], or `None` for every other value.
    pub(crate) fn block(&self) -> Option<Option<&str>> {
        self.get::<Block>().map(|block| block.0.as_deref())
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.to_json() {
            Some(json) => write!(f, "{json}"),
            // NaN and infinity are no JSON.
            None => match self.get::<f64>() {
                Some(number) => write!(f, "{number}"),
                None => write!(f, "<{}>", self.kind),
            },
        }
    }
}

struct Block(Option<String>);

/// A share of a value on a wire, read through `Deref`. As a node's field it is a socket; returned, it goes on without a
/// copy.
#[derive(Debug)]
pub struct Shared<T>(pub(crate) Arc<T>);

impl<T> Shared<T> {
    /// Wraps a value that did not come from a wire, as a test does.
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Port> Port for Shared<T> {
    const KIND: &'static str = T::KIND;

    fn bytes(&self) -> usize {
        self.0.bytes()
    }

    fn into_value(self) -> Value {
        Value { kind: T::KIND, bytes: self.0.bytes(), data: self.0 }
    }
}

/// Anything goes: what a switch or a printer reads and gives.
impl Port for Value {
    const KIND: &'static str = "*";

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn into_value(self) -> Value {
        self
    }
}

impl Port for i128 {
    const KIND: &'static str = "INT";
}

impl Port for f64 {
    const KIND: &'static str = "FLOAT";
}

impl Port for bool {
    const KIND: &'static str = "BOOLEAN";
}

impl Port for String {
    const KIND: &'static str = "STRING";

    fn bytes(&self) -> usize {
        self.capacity()
    }
}

/// Data without a type of its own: what a file gives to an input that takes anything.
impl Port for Json {
    const KIND: &'static str = "*";
}

macro_rules! carried_as {
    ($carrier:ty: $($number:ty),*) => {$(
        #[doc = concat!("Carried as `", stringify!($carrier), "`.")]
        impl Port for $number {
            const KIND: &'static str = <$carrier as Port>::KIND;

            fn into_value(self) -> Value {
                Value::new(self as $carrier)
            }
        }
    )*};
}

carried_as!(i128: i32, i64, u32, u64, usize);
carried_as!(f64: f32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_carried_exactly() {
        for value in [Value::new(u64::MAX), Value::new(u64::MAX as i128)] {
            assert_eq!(value.kind(), "INT");
            assert_eq!(value.to_json(), Some(Json::from(u64::MAX)));
        }
        assert_eq!(Value::new(-3_i32).get::<i128>(), Some(&-3));
    }

    #[test]
    fn a_share_goes_on_without_a_copy() {
        let value = Value::new(String::from("a bear"));
        let share = value.share::<String>().expect("a string");
        let again = Value::new(share.clone());
        assert!(std::ptr::eq(&*again.share::<String>().expect("a string"), &*share));
        assert!(value.share::<bool>().is_none());
    }
}
