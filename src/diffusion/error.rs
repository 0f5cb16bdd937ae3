//! What can go wrong with tensors, models and their files. Variants are situations and carry typed facts; a message has a
//! place, a fact and, on a second line that starts with `hint:`, a way out where one is known.

use std::fmt;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A situation that ends a load or a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model file cannot be opened or mapped.
    #[error("`{file}`: cannot be read: {source}")]
    Unreadable {
        /// The file, as it was asked for.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A model file cannot be written.
    #[error("`{file}`: cannot be written: {source}")]
    Unwritable {
        /// The file, as it was asked for.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not the safetensors file that it claims to be.
    #[error("`{file}`: {fault}")]
    BadFile {
        /// The file, as it was asked for.
        file: String,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// A model file lacks a tensor that its layout calls for.
    #[error("`{file}`: tensor `{name}` is missing{}", nearest_names(nearest))]
    MissingTensor {
        /// The file.
        file: String,
        /// The whole key that was looked for.
        name: String,
        /// Keys of the file that resemble it, most alike first.
        nearest: Vec<String>,
    },
    /// A tensor of a model file has another shape than its layer.
    #[error("`{file}`: tensor `{name}` has shape {found:?}, its layer needs {expected}")]
    WrongShape {
        /// The file.
        file: String,
        /// The tensor's whole key.
        name: String,
        /// What the layer takes, in words or as a shape.
        expected: String,
        /// What the file holds.
        found: Vec<usize>,
    },
    /// A tensor of a model file is stored in numbers that this build does not compute with.
    #[error("`{file}`: tensor `{name}` is stored as {dtype}\nhint: convert the file to f16, bf16 or f32")]
    UnsupportedNumbers {
        /// The file.
        file: String,
        /// The tensor's whole key.
        name: String,
        /// The header's word for its type.
        dtype: String,
    },
    /// A device that networks should compute on is not there.
    #[error("device `{device}`: {fault}\nhint: {hint}")]
    NoDevice {
        /// Its name.
        device: String,
        /// What is wrong with it.
        fault: String,
        /// The way out.
        hint: String,
    },
    /// A file holds tensors, but of no architecture that this build loads.
    #[error("`{file}`: {found}\nhint: this build loads {known}")]
    UnknownModel {
        /// The file.
        file: String,
        /// What the keys and shapes look like.
        found: String,
        /// The architectures that would do.
        known: String,
    },
    /// A file of a known architecture lacks a whole part.
    #[error("`{file}`: there is no {part} in this file\nhint: {hint}")]
    MissingPart {
        /// The file.
        file: String,
        /// `UNet`, `text encoder` or `VAE`.
        part: &'static str,
        /// Which loader takes the part from a file of its own.
        hint: String,
    },
    /// A model cannot be written in a layout that has no words for it.
    #[error("`{file}`: {format} has no words for {fact}\nhint: keep it as one file")]
    Inexpressible {
        /// The file that the model is from.
        file: String,
        /// What cannot be said.
        fact: String,
        /// The layout.
        format: &'static str,
    },
    /// A value handed to a layer has a shape that it does not take.
    #[error("{layer}: expects {expected}, found a tensor of shape {found:?}")]
    Shape {
        /// The layer or function.
        layer: String,
        /// Its demand, in words: `[batch, height, width, 64]`.
        expected: String,
        /// The shape that came.
        found: Vec<usize>,
    },
    /// An adapter names a layer that the model does not have.
    #[error("no layer is called `{name}`{}", nearest_names(nearest))]
    NoSuchLayer {
        /// The name that was asked for.
        name: String,
        /// Layers that resemble it, most alike first.
        nearest: Vec<String>,
    },
    /// Sampling was stopped from outside. Not a failure.
    #[error("stopped")]
    Stopped,
    /// A step of sampling left numbers that are no numbers.
    #[error("step {step} of {steps} (sigma {sigma}) made NaN or infinite numbers\nhint: {NOT_FINITE_HINT}")]
    NotFinite {
        /// The step, from 1.
        step: usize,
        /// How many there are.
        steps: usize,
        /// The noise level that the step started from.
        sigma: f32,
    },
    /// A value handed to sampling holds numbers that are no numbers.
    #[error("{value} holds NaN or infinite numbers")]
    InputNotFinite {
        /// `the latent to start from`, for one.
        value: &'static str,
    },
    /// A sampler or a schedule is asked for by a name that none has.
    #[error("no {kind} is called `{name}`{}\nhint: there are {}", did_you_mean(name, known), known.join(", "))]
    UnknownName {
        /// `sampler` or `schedule`.
        kind: &'static str,
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<&'static str>,
    },
    /// A schedule has no levels for a number of steps.
    #[error(
        "schedule `{schedule}` cannot be spread over {steps} steps\nhint: use between 2 and 10000, and no tiny `denoise`"
    )]
    Schedule {
        /// Its name.
        schedule: &'static str,
        /// How many steps were to be planned.
        steps: usize,
    },
    /// A picture or latent would have no cells.
    #[error("a size of {width} x {height} has no pixels")]
    EmptySize {
        /// Width asked for or left.
        width: usize,
        /// Height asked for or left.
        height: usize,
    },
    /// A latent says of another number of pictures than it holds which noise each is to get.
    #[error("the latent is a batch of {batch}, its `batch_index` names {indices}")]
    BatchIndex {
        /// How many pictures the latent holds.
        batch: usize,
        /// How many numbers were given.
        indices: usize,
    },
    /// A prompt is confined to an area that has no cell on the canvas.
    #[error(
        "an area of {height} x {width} cells at row {y}, column {x} lies outside a latent of {rows} x {columns}\nhint: \
         a cell is 8 pixels; move the area inside the picture"
    )]
    AreaOutside {
        /// Height of the area.
        height: usize,
        /// Width of the area.
        width: usize,
        /// Its first row.
        y: usize,
        /// Its first column.
        x: usize,
        /// Height of the latent.
        rows: usize,
        /// Width of the latent.
        columns: usize,
    },
    /// A prompt weighs words by a number that no picture can be made with.
    #[error(
        "`{text}` in the prompt has the weight {weight}\nhint: write a number like 1.2, or `\\(` and `\\)` for brackets that are text"
    )]
    PromptWeight {
        /// The words.
        text: String,
        /// Infinite, or no number.
        weight: f64,
    },
    /// An adapter cannot be read, combined or applied.
    #[error(transparent)]
    Adapter(#[from] crate::adapters::Fault),
    /// A training cannot begin, or cannot go on.
    #[error(transparent)]
    Training(#[from] crate::train::Fault),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// What is wrong with a file that should be safetensors.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFault {
    /// It has no bytes at all.
    Empty,
    /// It ends before its header does.
    HeaderCut {
        /// Length of the file.
        bytes: u64,
        /// Length that it would need for its header.
        needed: u64,
    },
    /// The first eight bytes declare a header larger than any model's.
    HeaderTooLong {
        /// The declared length.
        bytes: u64,
        /// The greatest length that is read.
        limit: u64,
    },
    /// The header is not JSON, or not JSON of a safetensors file.
    BadHeader {
        /// The parser's word, with its place.
        reason: String,
    },
    /// A Python pickle: loading one may run any code that its author put there.
    Pickle,
    /// No file as torch saves it, where one is read.
    BadSaved {
        /// What is wrong with it.
        reason: String,
    },
    /// A web page saved under a model's name: usually an error or log-in page.
    WebPage,
    /// The stand-in that a Git LFS checkout leaves where the file was not fetched.
    LfsPointer,
    /// Another format's first bytes.
    OtherFormat {
        /// Its name.
        format: &'static str,
    },
    /// A tensor lies outside the file.
    OutOfRange {
        /// The tensor.
        name: String,
        /// Where it should end, counted from the first tensor's byte.
        end: u64,
        /// How many bytes of tensors the file has.
        available: u64,
    },
    /// A tensor's bytes are not as many as its shape and type say.
    SizeMismatch {
        /// The tensor.
        name: String,
        /// What shape and type come to; `None` when that is more than 64 bits can say.
        expected: Option<u64>,
        /// What its offsets come to.
        found: u64,
    },
    /// Two tensors share bytes, or there are bytes that no tensor owns.
    NotContiguous {
        /// The tensor before which the bytes do not add up, or the last one.
        name: String,
        /// Where it should begin or the file should end.
        expected: u64,
        /// Where it does.
        found: u64,
    },
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the file is empty\nhint: download or copy it again"),
            Self::HeaderCut { bytes, needed } => write!(
                f,
                "the file is cut short: it has {bytes} bytes and its header alone needs {needed}\nhint: download or copy it again"
            ),
            Self::HeaderTooLong { bytes, limit } => {
                write!(f, "not a safetensors file: its header would be {bytes} bytes long, the limit is {limit}")
            }
            Self::BadHeader { reason } => write!(f, "not a safetensors file: {reason}"),
            Self::Pickle => write!(
                f,
                "this is a pickled checkpoint (.ckpt, .pt, .bin), and loading one can run any code hidden in it, so it is \
                 refused\nhint: look for the same model as .safetensors, or convert it in Python: \
                 safetensors.torch.save_file(torch.load(path, weights_only=True)[\"state_dict\"], \"model.safetensors\")"
            ),
            Self::BadSaved { reason } => {
                write!(
                    f,
                    "this is no file that torch saved, or a damaged one: {reason}\nhint: download or copy it again"
                )
            }
            Self::WebPage => write!(
                f,
                "this is a web page, not a model: the download was answered with an error or a log-in page\nhint: open \
                 the link in a browser, log in if asked, and download the file again"
            ),
            Self::LfsPointer => write!(
                f,
                "this is a Git LFS pointer, not the file that it points to\nhint: run `git lfs pull` where it came from"
            ),
            Self::OtherFormat { format } => {
                write!(f, "this is {format}, not safetensors\nhint: look for the same model as .safetensors")
            }
            Self::OutOfRange { name, end, available } => write!(
                f,
                "the file is cut short: tensor `{name}` ends at byte {end} of the tensors' part, which has {available}\nhint: \
                 download or copy it again"
            ),
            Self::SizeMismatch { name, expected: Some(expected), found } => {
                write!(f, "tensor `{name}` has {found} bytes, its shape and type come to {expected}")
            }
            Self::SizeMismatch { name, expected: None, found } => {
                write!(f, "tensor `{name}` has {found} bytes, and its shape more elements than can be counted")
            }
            Self::NotContiguous { name, expected, found } => {
                write!(f, "the bytes do not add up at tensor `{name}`: expected offset {expected}, found {found}")
            }
        }
    }
}

/// What to try when a latent overflows.
const NOT_FINITE_HINT: &str = "lower cfg, weaken the adapters, or use a model and VAE in f32";

/// `, perhaps you mean …`, or nothing.
fn did_you_mean(name: &str, known: &[&'static str]) -> String {
    let likeness = |candidate: &str| strsim::jaro_winkler(name, candidate);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        Some(nearest) if likeness(nearest) > 0.7 => format!(", perhaps you mean `{nearest}`"),
        _ => String::new(),
    }
}

/// `; the nearest are …`, or nothing.
fn nearest_names(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => {
            let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            format!("\nhint: the nearest names are {}", quoted.join(", "))
        }
    }
}
