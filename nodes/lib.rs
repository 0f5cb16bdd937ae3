//! The nodes: joins engine, diffusion and assets.
//!
//! [`wires`] is what travels between nodes; every other public thing is made by [`registry`]. Knows no command line and
//! no HTTP.

mod embedded;
mod error;
mod files;
mod image;
mod latent;
mod memory;
mod pictures;
mod primitives;
mod resize;
mod scaling;
pub mod wires;

pub use error::Error;
pub use memory::Memory;

use paraflow_engine::{Registry, Services};

/// A file of nodes is a word here.
macro_rules! families {
    [$($family:ident),* $(,)?] => {
        [$($family::nodes()),*].into_iter().flatten()
    };
}

/// Every node there is.
///
/// `services` holds what running nodes reach: [`Arc<Assets>`](paraflow_assets::Assets), without which nothing that names
/// a file can run, and optionally a [`Memory`]. The lists of files in the declarations are those of this moment
/// ([`Registry::refreshed`] renews them).
#[must_use]
pub fn registry(services: Services) -> Registry {
    Registry::new(families![image, latent, primitives, scaling], services)
}
