//! The nodes: joins engine, diffusion and assets.
//!
//! [`wires`] is what travels between nodes; every other public thing is made by [`registry`]. Knows no command line and
//! no HTTP.

mod animation;
mod batches;
#[cfg(test)]
mod behaviour;
mod canny;
mod composite;
mod conditioning;
mod context_windows;
mod control;
mod custom_sampling;
mod dataset;
mod embedded;
#[cfg(test)]
mod end_to_end;
mod error;
mod estimate;
#[cfg(test)]
mod families;
mod files;
mod folder_loaders;
#[cfg(test)]
mod graphs;
mod guidance_patches;
mod hook_conditioning;
mod hooks;
mod image;
mod image_ops;
mod latent;
mod latent_files;
mod latent_maths;
mod loaders;
mod logic;
mod masks;
mod memory;
mod merging;
mod model_patches;
mod morphology;
mod network_patches;
mod patch_loaders;
mod patterns;
mod personalize;
mod photomaker;
mod picture_prompts;
mod pictures;
mod planes;
mod previews;
mod primitives;
mod prompt;
mod quantize;
mod sampler_choice;
mod sampling;
mod save_models;
mod scaling;
mod schedulers;
mod sdxl;
mod step_patches;
mod strings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tiny;
#[cfg(test)]
mod toyland;
mod training;
mod transform;
mod upscale;
mod vae;
mod vector;
mod video;
mod vision;
pub mod wires;

pub use embedded::{embedded_file, embedded_names};
pub use error::Error;
pub use estimate::{Estimate, estimate};
pub use latent::WholeCells;
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
/// a file can run, and optionally a [`Memory`], [`Previews`] and the
/// [`Precision`](paraflow_diffusion::nn::Precision) that networks multiply in. The lists of files in the declarations are those of this moment
/// ([`Registry::refreshed`] renews them).
#[must_use]
pub fn registry(services: Services) -> Registry {
    Registry::new(all_nodes(), services)
}

fn all_nodes() -> impl Iterator<Item = NodeDef> {
    families![
        animation,
        batches,
        canny,
        composite,
        conditioning,
        context_windows,
        control,
        custom_sampling,
        dataset,
        folder_loaders,
        guidance_patches,
        hook_conditioning,
        hooks,
        image,
        image_ops,
        latent,
        latent_files,
        latent_maths,
        loaders,
        logic,
        masks,
        merging,
        model_patches,
        morphology,
        network_patches,
        patch_loaders,
        patterns,
        personalize,
        photomaker,
        picture_prompts,
        primitives,
        quantize,
        sampler_choice,
        sampling,
        save_models,
        scaling,
        schedulers,
        sdxl,
        step_patches,
        strings,
        training,
        transform,
        upscale,
        vae,
        vector,
        video,
        vision,
    ]
}
