//! What can go wrong in a node, and how it is told to the engine.

use paraflow_engine::RunError;
use std::sync::Arc;

/// Why a node gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name leads to no file, or a file cannot be read or made.
    #[error(transparent)]
    Asset(#[from] paraflow_assets::Error),
    /// A model cannot be read or has not the part asked for, or the work with tensors failed.
    #[error("{}", fact(.0))]
    Diffusion(Arc<paraflow_diffusion::Error>),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A file is no picture, or a damaged one.
    #[error("picture \"{name}\": {fault}")]
    Picture {
        /// As the graph names it.
        name: String,
        /// What is wrong with it.
        fault: String,
    },
    /// The work needs more memory than there is.
    #[error("{work} needs about {} of memory, and {} are free", gibibytes(*needed_bytes), gibibytes(*available_bytes))]
    TooLarge {
        /// What was about to be done, with its size.
        work: String,
        /// The estimate.
        needed_bytes: u64,
        /// What was there.
        available_bytes: u64,
    },
    /// Two things that have to match do not.
    #[error("{what} expects {expected}, found {found}")]
    Unfit {
        /// The input or value.
        what: &'static str,
        /// What would do.
        expected: String,
        /// What came.
        found: String,
    },
    /// A model that the program brings is damaged: the program was built from a bad file.
    #[error("the embedded model `{name}` is damaged: {source}")]
    Embedded {
        /// Its name.
        name: &'static str,
        /// What unpacking says.
        source: std::io::Error,
    },
    /// There is no picture to train on.
    #[error("{place} holds no picture that can be read{}", listed(faults))]
    EmptySubject {
        /// The folder.
        place: String,
        /// What was wrong with the pictures that there are.
        faults: Vec<String>,
    },
    /// A description of a subject is not as it should be.
    #[error("`{file}`: {fault}")]
    Description {
        /// The file.
        file: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A node has not what it needs, found out before anything runs.
    #[error("node {node} ({class}): {error}")]
    AtNode {
        /// Its id.
        node: String,
        /// Its class.
        class: String,
        /// What is wrong.
        error: Box<Self>,
    },
    /// A picture or a latent holds numbers that are no numbers.
    #[error("{what} holds NaN or infinite numbers")]
    NotFinite {
        /// Which, with its place in the batch.
        what: String,
    },
}

/// Not a `source`: its message, told by [`Error`], already holds those of its causes.
impl From<paraflow_diffusion::Error> for Error {
    fn from(error: paraflow_diffusion::Error) -> Self {
        Self::Diffusion(Arc::new(error))
    }
}

impl Error {
    /// A way out, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Asset(error) => error.hint(),
            Self::Diffusion(error) => error.to_string().split_once(HINT).map(|(_, hint)| hint.to_owned()),
            Self::Picture { .. } => Some("save the picture again as PNG or JPEG, or choose another".to_owned()),
            Self::TooLarge { .. } => Some("make the picture or the batch smaller, or close other programs".to_owned()),
            Self::NotFinite { .. } => Some("lower cfg, weaken the adapters, or use another VAE".to_owned()),
            Self::Embedded { .. } => Some("get the program again".to_owned()),
            Self::EmptySubject { .. } => Some("put PNG or JPEG files of the subject into the folder".to_owned()),
            Self::Description { .. } => Some(
                r#"a description looks like {"class": "bear", "captions": ["a {unique} {class} on the beach"]}"#
                    .to_owned(),
            ),
            Self::AtNode { error, .. } => error.hint(),
            Self::Tensor(_) | Self::Unfit { .. } => None,
        }
    }
}

/// Where a message of `diffusion` goes over to its hint.
const HINT: &str = "\nhint: ";

/// A message of `diffusion` without its hint.
fn fact(error: &paraflow_diffusion::Error) -> String {
    let text = error.to_string();
    text.split_once(HINT).map_or(text.clone(), |(fact, _)| fact.to_owned())
}

/// `: a, b`, or nothing.
fn listed(faults: &[String]) -> String {
    if faults.is_empty() { String::new() } else { format!(": {}", faults.join("; ")) }
}

fn gibibytes(bytes: u64) -> String {
    match bytes {
        u64::MAX => "endless amounts".to_owned(),
        bytes => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

/// An error of this crate or of those below, as the engine takes it: with its hint, and a stop as a stop.
pub(crate) fn tell(error: impl Into<Error>) -> paraflow_engine::Error {
    match error.into() {
        Error::Diffusion(error) if matches!(*error, paraflow_diffusion::Error::Stopped) => RunError::Stopped.into(),
        error => match error.hint() {
            Some(hint) => paraflow_engine::Error::from(error).with_hint(hint),
            None => error.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_travel_apart_from_facts() {
        let error = tell(paraflow_diffusion::Error::MissingPart {
            file: "a.safetensors".to_owned(),
            part: "VAE",
            hint: "load one with VAELoader".to_owned(),
        });
        assert_eq!(error.to_string(), "`a.safetensors`: there is no VAE in this file");
        assert_eq!(error.hint(), Some("load one with VAELoader"));
    }

    #[test]
    fn a_stop_is_no_failure() {
        assert!(tell(paraflow_diffusion::Error::Stopped).is_stopped());
    }
}
