//! Models whose network works otherwise: other weights on the way up, coarser attention, a smaller picture in the depth.

use crate::wires::Model;
use paraflow_diffusion::resize::Method;
use paraflow_diffusion::unet::patches::{Free, Merge, Shrink, Tile, Version};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<FreeU>(),
        NodeDef::of::<FreeU_V2>(),
        NodeDef::of::<HyperTile>(),
        NodeDef::of::<PatchModelAddDownscale>(),
        NodeDef::of::<TomePatchModel>(),
    ]
}

/// Lets the way up of the network listen more to what comes from below than to what it kept on the way down.
///
/// Si et al. 2023, arXiv:2309.11497.
#[derive(Node)]
#[node(category = "model_patches/unet")]
struct FreeU {
    /// The model.
    model: Shared<Model>,
    /// By how much what comes from below counts more, in the deepest blocks.
    #[input(default = 1.1, range = 0.0..=10.0, step = 0.01)]
    b1: f64,
    /// The same for the blocks above them.
    #[input(default = 1.2, range = 0.0..=10.0, step = 0.01)]
    b2: f64,
    /// What the coarse shapes of what was kept are multiplied by, in the deepest blocks.
    #[input(default = 0.9, range = 0.0..=10.0, step = 0.01)]
    s1: f64,
    /// The same for the blocks above them.
    #[input(default = 0.2, range = 0.0..=10.0, step = 0.01)]
    s2: f64,
}

impl Run for FreeU {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(free(&self.model, Version::First, [(self.b1, self.s1), (self.b2, self.s2)]))
    }
}

/// As `FreeU`, more where the picture has more to say.
#[derive(Node)]
#[node(category = "model_patches/unet")]
#[expect(non_camel_case_types, reason = "its name on the wire")]
struct FreeU_V2 {
    /// The model.
    model: Shared<Model>,
    /// By how much what comes from below counts more, in the deepest blocks.
    #[input(default = 1.3, range = 0.0..=10.0, step = 0.01)]
    b1: f64,
    /// The same for the blocks above them.
    #[input(default = 1.4, range = 0.0..=10.0, step = 0.01)]
    b2: f64,
    /// What the coarse shapes of what was kept are multiplied by, in the deepest blocks.
    #[input(default = 0.9, range = 0.0..=10.0, step = 0.01)]
    s1: f64,
    /// The same for the blocks above them.
    #[input(default = 0.2, range = 0.0..=10.0, step = 0.01)]
    s2: f64,
}

impl Run for FreeU_V2 {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(free(&self.model, Version::Second, [(self.b1, self.s1), (self.b2, self.s2)]))
    }
}

fn free(model: &Model, version: Version, [(b1, s1), (b2, s2)]: [(f64, f64); 2]) -> Model {
    let channels = model.unet.config().channels;
    model.patched(Free { version, stages: [(4 * channels, b1, s1), (2 * channels, b2, s2)] })
}

/// Lets the pixels of a large picture look at each other in tiles, which is faster, and coarser.
#[derive(Node)]
#[node(category = "model_patches/unet")]
struct HyperTile {
    /// The model.
    model: Shared<Model>,
    /// The smallest side of a tile in pixels.
    #[input(default = 256, range = 1..=2048)]
    tile_size: u32,
    /// Among how many sizes each layer draws one.
    #[input(default = 2, range = 1..=128)]
    swap_size: u32,
    /// How many times the picture may have been halved where tiles are still used.
    #[input(default = 0, range = 0..=10)]
    max_depth: u32,
    /// Whether tiles grow with the depth.
    #[input(default = false)]
    scale_depth: bool,
}

impl Run for HyperTile {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        /// The smallest tile in pixels, and how many of them a cell of a latent is.
        const LEAST: u32 = 32;
        const CELL: u32 = 8;
        Ok(self.model.patched(Tile {
            side: (self.tile_size.max(LEAST) / CELL) as usize,
            sizes: self.swap_size as usize,
            depth: self.max_depth as usize,
            grows: self.scale_depth,
        }))
    }
}

/// Shows the depth of the network a smaller picture for the first part of the way, so that a large picture keeps one
/// composition.
#[derive(Node)]
#[node(category = "model_patches/unet", display_name = "PatchModelAddDownscale (Kohya Deep Shrink)")]
struct PatchModelAddDownscale {
    /// The model.
    model: Shared<Model>,
    /// From which block on the way down.
    #[input(default = 3, range = 1..=32, step = 1)]
    block_number: u32,
    /// By what to divide width and height.
    #[input(default = 2.0, range = 0.1..=9.0, step = 0.001)]
    downscale_factor: f64,
    /// From this share of the way on.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.001)]
    start_percent: f64,
    /// Up to this share of the way.
    #[input(default = 0.35, range = 0.0..=1.0, step = 0.001)]
    end_percent: f64,
    /// Whether what is kept for the way up stays large.
    #[input(default = true)]
    downscale_after_skip: bool,
    /// How to make the picture smaller.
    #[input(choices = methods)]
    downscale_method: Choice<Method>,
    /// How to make it large again.
    #[input(choices = methods)]
    upscale_method: Choice<Method>,
}

/// ComfyUI's order here.
fn methods() -> Vec<&'static str> {
    const METHODS: [Method; 5] =
        [Method::Bicubic, Method::NearestExact, Method::Bilinear, Method::Area, Method::Bislerp];
    METHODS.iter().map(|method| method.name()).collect()
}

impl Run for PatchModelAddDownscale {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        let level = |share: f64| self.model.sampling.percent_to_sigma(share);
        Ok(self.model.patched(Shrink {
            block: self.block_number as usize,
            factor: self.downscale_factor,
            first_sigma: level(self.start_percent),
            last_sigma: level(self.end_percent),
            after_skip: self.downscale_after_skip,
            smaller: *self.downscale_method,
            larger: *self.upscale_method,
        }))
    }
}

/// Lets pixels that are alike look around as one, which is faster, and coarser.
///
/// Bolya and Hoffman 2023, arXiv:2303.17604.
#[derive(Node)]
#[node(category = "model_patches/unet")]
struct TomePatchModel {
    /// The model.
    model: Shared<Model>,
    /// What share of the pixels looks with another.
    #[input(default = 0.3, range = 0.0..=1.0, step = 0.01)]
    ratio: f64,
}

impl Run for TomePatchModel {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.patched(Merge { share: self.ratio }))
    }
}
