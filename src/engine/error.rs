//! Why a node gave no result. The faults of a graph, found before anything runs, are [`GraphError`](crate::GraphError).

use std::fmt;

/// What a node's `run` returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a node gave no result: any error type, kept as it is, and perhaps a way out.
///
/// `?` turns every [`std::error::Error`] into one, so a crate of nodes has its own enum and this one carries it;
/// [`Error::downcast_ref`] gives it back. [`Hint::hint`] adds the way out.
#[derive(Debug)]
pub struct Error {
    source: Box<dyn std::error::Error + Send + Sync>,
    hint: Option<String>,
}

impl Error {
    /// The error, if it is an `E`.
    #[must_use]
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.source.downcast_ref()
    }

    /// A way out, on a line of its own below the error.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The same with a way out.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the node merely obeyed a [`Cancel`](crate::Cancel).
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.downcast_ref(), Some(RunError::Stopped))
    }

    /// The error as the standard library knows it, with its sources.
    #[must_use]
    pub fn as_std(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.source
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Error {
    fn from(source: E) -> Self {
        let source: Box<dyn std::error::Error + Send + Sync> = Box::new(source);
        let hint = match source.downcast_ref() {
            Some(RunError::Mismatch { mismatch, .. }) => mismatch.hint.clone(),
            _ => None,
        };
        Self { source, hint }
    }
}

/// The error, then what caused it, down to the first cause: `cannot read the checkpoint: permission denied`.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.source.to_string();
        f.write_str(&text)?;
        let mut cause = self.source.source();
        while let Some(error) = cause {
            // An error that already tells its cause is not told twice.
            let next = error.to_string();
            if !text.contains(&next) {
                write!(f, ": {next}")?;
            }
            text = next;
            cause = error.source();
        }
        Ok(())
    }
}

/// Adds a way out to a failed result.
pub trait Hint<T> {
    /// The same result; an error gets the hint.
    ///
    /// # Errors
    ///
    /// The error that was there.
    fn hint(self, hint: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Error>> Hint<T> for Result<T, E> {
    fn hint(self, hint: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.into().with_hint(hint))
    }
}

/// What the engine itself has to say against a node's run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The run was stopped, and the node obeyed.
    #[error("stopped")]
    Stopped,
    /// A value arrived that the input does not take. Kinds are checked before the run; this happens behind `*`.
    #[error("input `{input}` expects {}, found {}", mismatch.expected, mismatch.found)]
    Mismatch {
        /// The input.
        input: String,
        /// What it takes, and what came.
        mismatch: Mismatch,
    },
    /// A list without elements arrived where the node is called for each element.
    #[error("input `{input}` got a list without elements")]
    EmptyList {
        /// The input.
        input: String,
    },
    /// The node asked for a lazy input that it does not have.
    #[error("the node says it needs input `{input}`, but there is no such input in the graph")]
    NoSuchInput {
        /// The input.
        input: String,
    },
    /// The node panicked: a bug in it, not in the graph.
    #[error("the node panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
}

/// A value or a literal that an input does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What it takes: `LATENT`, `one of euler, heun`, `a file in models/loras`.
    pub expected: String,
    /// What came: `IMAGE`, `"dpm++"`.
    pub found: String,
    /// A way out, if one is known.
    pub hint: Option<String>,
}

impl Mismatch {
    /// Expected this, found that.
    #[must_use]
    pub fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { expected: expected.into(), found: found.into(), hint: None }
    }

    /// The same with a way out.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the checkpoint")]
    struct Unreadable(#[source] std::io::Error);

    #[test]
    fn an_error_keeps_its_type_its_causes_and_its_hint() {
        let denied = std::io::Error::other("permission denied");
        let failed: Result<(), _> = Err(Unreadable(denied));
        let error = failed.hint("change its owner").unwrap_err();
        assert_eq!(error.to_string(), "cannot read the checkpoint: permission denied");
        assert_eq!(error.hint(), Some("change its owner"));
        assert!(error.downcast_ref::<Unreadable>().is_some());
        assert!(!error.is_stopped());
        assert!(Error::from(RunError::Stopped).is_stopped());
    }
}
