//! The nodes: joins engine, diffusion and assets.
//!
//! [`wires`] is what travels between nodes; every other public thing is made by [`registry`]. Knows no command line and
//! no HTTP.

#[cfg(test)]
mod behaviour;
mod conditioning;
mod embedded;
#[cfg(test)]
mod end_to_end;
mod error;
mod files;
mod image;
mod latent;
mod loaders;
mod memory;
mod pictures;
mod previews;
mod primitives;
mod prompt;
mod sampling;
mod scaling;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tiny;
mod vae;
pub mod wires;

pub use embedded::{embedded_file, embedded_names};
pub use error::Error;
pub use memory::Memory;
pub use previews::Previews;

use paraflow_engine::{NodeDef, Registry, Services};

/// A file of nodes is a word here.
macro_rules! families {
    [$($family:ident),* $(,)?] => {
        [$($family::nodes()),*].into_iter().flatten()
    };
}

/// Every node there is.
///
/// `services` holds what running nodes reach: [`Arc<Assets>`](paraflow_assets::Assets), without which nothing that names
/// a file can run, and optionally a [`Memory`] and [`Previews`]. The lists of files in the declarations are those of this moment
/// ([`Registry::refreshed`] renews them).
#[must_use]
pub fn registry(services: Services) -> Registry {
    Registry::new(all_nodes(), services)
}

fn all_nodes() -> impl Iterator<Item = NodeDef> {
    families![conditioning, image, latent, loaders, primitives, sampling, scaling, vae]
}
