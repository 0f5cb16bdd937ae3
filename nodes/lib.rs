//! The nodes: joins engine, diffusion and assets.
