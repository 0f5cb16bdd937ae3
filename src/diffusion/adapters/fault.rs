//! What can be wrong with an adapter, its file, or the model that it is put on. Every message names the layer, what was
//! expected and what was found.

use std::fmt;

/// Why an adapter cannot be read, combined or applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A rank that is none.
    #[error("a rank of {rank} removes nothing\nhint: ranks begin at 1")]
    InvalidRank {
        /// What was asked for.
        rank: usize,
    },
    /// A PaRa that would remove all outputs of a layer.
    #[error(
        "layer `{layer}` has {outputs} outputs, and a PaRa of rank {rank} would erase it\nhint: take a rank below {outputs}"
    )]
    RankTooLarge {
        /// The layer or the tensor.
        layer: String,
        /// Columns.
        rank: usize,
        /// Rows.
        outputs: usize,
    },
    /// More directions are removed than gamma lets go.
    #[error(
        "layer `{layer}`: {rank} directions would be removed, gamma {gamma} allows {cap} of {outputs}\nhint: truncate to \
         the cap, raise gamma, or ignore the boundary"
    )]
    RankBoundary {
        /// The layer.
        layer: String,
        /// Dimension of all that is removed.
        rank: usize,
        /// `floor(gamma · outputs)`.
        cap: usize,
        /// The boundary.
        gamma: f64,
        /// Output dimension.
        outputs: usize,
    },
    /// A rank boundary that is no part of a whole.
    #[error("gamma is {gamma}, it has to be above 0 and at most 1")]
    InvalidGamma {
        /// What was asked for.
        gamma: f64,
    },
    /// A strength that is no number.
    #[error("the strength {strength} is no number")]
    InvalidStrength {
        /// What was asked for.
        strength: f64,
    },
    /// Every layer is too narrow for its gamma, or none is in the subset.
    #[error("no layer is left to adapt: {why}")]
    NothingToAdapt {
        /// What took them away.
        why: String,
    },
    /// NaN or infinite numbers in a file.
    #[error(
        "tensor `{tensor}` holds NaN or infinite numbers, the first at place {index}\nhint: train or download it again"
    )]
    NonFinite {
        /// The tensor.
        tensor: String,
        /// The first such number.
        index: usize,
    },
    /// Directions that are not independent.
    #[error(
        "`{layer}`: column {column} depends on those before it (ratio {ratio:.1e}, at least 1e-6 is needed)\nhint: load it \
         with repair to drop such columns"
    )]
    RankDeficient {
        /// The layer or tensor.
        layer: String,
        /// The first such column.
        column: usize,
        /// How much of it is new.
        ratio: f64,
    },
    /// A tensor that is made for a layer of another size.
    #[error("layer `{layer}`: the adapter is made for {file}, the model has {model}{}", hint_line(hint))]
    ShapeMismatch {
        /// The layer.
        layer: String,
        /// What the file's tensors fit.
        file: String,
        /// The layer's shape.
        model: String,
        /// Which model would fit, if that is known.
        hint: String,
    },
    /// Parts of a file that fit no layer of the model.
    #[error("{} of {of} parts of the adapter fit no layer of the model:\n{}\nhint: {}", table.len(), Rows(table), unmatched_hint(table, *of))]
    UnmatchedKeys {
        /// The parts, with what they may have meant.
        table: Vec<Unmatched>,
        /// How many parts there are.
        of: usize,
    },
    /// A file for another kind of model.
    #[error("the adapter was made for {file}, the model is {model}\nhint: load the checkpoint that it was made for")]
    ArchMismatch {
        /// What the file says.
        file: String,
        /// What the model is.
        model: String,
    },
    /// A file for another checkpoint, where that was not allowed.
    #[error(
        "the adapter was trained on {file}, and this checkpoint differs from it in `{layer}`\nhint: load that checkpoint, or \
         turn `strict_base` off"
    )]
    BaseDiffers {
        /// The checkpoint that it was trained on.
        file: String,
        /// The first layer that differs.
        layer: String,
    },
    /// A PaRa that would have to be written into numbers that cannot hold what is left.
    #[error(
        "layer `{layer}` is stored as {dtype}, and a PaRa cannot be merged into a quantised weight\nhint: keep it beside the \
         weights with PaRaApply, export it with PaRaToLoRA, or take the checkpoint in f16 or f32"
    )]
    MergeUnsupportedDtype {
        /// The layer.
        layer: String,
        /// What its file stores.
        dtype: String,
    },
    /// Two parts of a file for one layer.
    #[error("layer `{layer}` comes twice, as `{first}` and as `{second}`\nhint: remove one of the two from the file")]
    DuplicateModule {
        /// The layer.
        layer: String,
        /// One name.
        first: String,
        /// The other.
        second: String,
    },
    /// A file of a later format.
    #[error("the file is of PaRa version {found}, this program reads version {known}\nhint: get a newer program")]
    UnsupportedVersion {
        /// What the file says.
        found: String,
        /// What is read.
        known: u32,
    },
    /// A file that holds no such adapter.
    #[error("`{file}`: {fact}{}", hint_line(hint))]
    NotAnAdapter {
        /// The file.
        file: String,
        /// What it holds.
        fact: String,
        /// Where it belongs.
        hint: String,
    },
    /// A part of a file whose tensors do not belong together.
    #[error("`{module}`: {fact}")]
    BadModule {
        /// The part.
        module: String,
        /// What is wrong with it.
        fact: String,
    },
    /// A pattern of layers that is no pattern.
    #[error(
        "the layer subset {pattern:?} is not understood: {why}\nhint: there are {known}, or a pattern such as `*attn1.to_q`"
    )]
    BadSubset {
        /// What was asked for.
        pattern: String,
        /// What is wrong with it.
        why: String,
        /// The subsets that have a name.
        known: String,
    },
}

impl Fault {
    /// Directions of another number of outputs than the layer has.
    pub(super) fn outputs(layer: &str, outputs: usize, shape: &[usize]) -> Self {
        Self::ShapeMismatch {
            layer: layer.to_owned(),
            file: format!("{outputs} outputs"),
            model: format!("{} (its weight is {shape:?})", shape.first().copied().unwrap_or(0)),
            hint: "this adapter belongs to another kind of model".to_owned(),
        }
    }
}

/// A part of a file that fits no layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmatched {
    /// Its name in the file.
    pub name: String,
    /// Why it was not used.
    pub why: String,
    /// Names that would have fitted, most alike first.
    pub nearest: Vec<String>,
}

/// How many rows of a table are printed.
const SHOWN: usize = 12;

struct Rows<'a>(&'a [Unmatched]);

impl fmt::Display for Rows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, row) in self.0.iter().take(SHOWN).enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            let nearest = row.nearest.first().map(|name| format!("; the nearest is `{name}`")).unwrap_or_default();
            write!(f, "{gap}  `{}`: {}{nearest}", row.name, row.why)?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// A table of parts that were not used, as a message shows it.
#[must_use]
pub fn table(rows: &[Unmatched]) -> String {
    Rows(rows).to_string()
}

fn unmatched_hint(table: &[Unmatched], of: usize) -> &'static str {
    if table.len() == of {
        "nothing of the file fits: it was made for another kind of model"
    } else {
        "set `unmatched` to `ignore` to use the rest without them"
    }
}

fn hint_line(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("\nhint: {hint}") }
}
