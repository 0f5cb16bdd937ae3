//! Adapters: small files that change a model's layers. PaRa takes directions out of a layer's output, the LoRA family adds to
//! its weight, spectral shifts stretch its singular values.
//!
//! [`Names`] finds the layers that a file means, [`Subset`] and [`Boundary`] choose those that are trained. Knows no folders.

mod beside;
mod cancel;
mod combine;
mod compare;
mod convert;
mod dense;
mod export;
mod extract;
mod fault;
#[cfg(test)]
mod file_tests;
mod fingerprint;
#[cfg(test)]
mod golden;
mod inverse;
mod lora;
mod lora_file;
mod names;
mod oft;
mod para;
mod para_file;
mod place;
mod qr;
mod released;
mod report;
mod subset;
mod svdiff;
#[cfg(test)]
mod tests;
mod write;

pub use beside::Beside;
pub use cancel::{Cancelled, cancelled};
pub use combine::{Merge, merge};
pub use compare::{AnyAdapter, Common, Comparison, Summary, compare, relative_changes};
pub use convert::{Converted, Style, Tensor as ConvertedTensor, convert};
pub use export::{ExportError, to_lora};
pub use extract::{Extracted, Extraction, extract};
pub use fault::{Fault, Unmatched, table};
pub use fingerprint::{check_base, difference, fingerprint};
pub(crate) use lora::low_rank;
pub use lora::{Form, LoraModel, Magnitude, Module, Vectors};
pub use names::{Layer, Listing, Names, Pairs, Part};
pub(crate) use oft::{rotations, turned, turned_weight};
pub use para::{Para, Stage};
pub use para_file::Read;
pub use place::{By, Excess, Moved, OnPara, Placed, Placement, on_layers};
pub use qr::{DEFICIENT, Qr, qr, qr_repaired};
pub use report::{LayerReport, Overlap, Report, Touch, report};
pub use subset::{Boundary, NAMED, Subset};
pub use svdiff::SvDiff;
pub use write::{Store, write};
