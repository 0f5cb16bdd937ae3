//! Adapters: small files that change a model's layers. PaRa takes directions out of a layer's output, the LoRA family adds to
//! its weight, spectral shifts stretch its singular values.
//!
//! [`Names`] finds the layers that a file means, [`Subset`] and [`Boundary`] choose those that are trained. Knows no folders.

mod fault;
mod names;
mod qr;
mod subset;
#[cfg(test)]
mod tests;

pub use fault::{Fault, Unmatched, table};
pub use names::{Layer, Listing, Names, Pairing, Part};
pub use qr::{DEFICIENT, Qr, qr, qr_repaired};
pub use subset::{Boundary, NAMED, Subset};
