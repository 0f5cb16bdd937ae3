//! Networks that enlarge pictures.

use crate::error::tell;
use crate::files::{ModelName, Upscalers};
use crate::loaders;
use crate::memory::Memory;
use crate::wires::{Image, UpscaleModel};
use candle_core::Tensor;
use paraflow_diffusion::tiles::{Tiling, tiled};
use paraflow_diffusion::upscale::Upscaler;
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<ImageUpscaleWithModel>(), NodeDef::of::<UpscaleModelLoader>()]
}

/// Loads a network that enlarges pictures: ESRGAN, BSRGAN or Real-ESRGAN.
#[derive(Node)]
#[node(category = "loaders", display_name = "Load Upscale Model")]
struct UpscaleModelLoader {
    /// The network, from `models/upscale_models`.
    model_name: ModelName<Upscalers>,
}

impl Run for UpscaleModelLoader {
    type Output = UpscaleModel;

    fn run(self, cx: &Context<'_>) -> Result<UpscaleModel> {
        let weights = loaders::open(&self.model_name.find(cx.services()).map_err(tell)?).map_err(tell)?;
        let weights = weights.on(&loaders::compute(cx.services()));
        let network = Upscaler::load(&weights).map_err(tell)?;
        Ok(UpscaleModel { network, bytes: loaders::bytes(&weights) })
    }
}

/// Enlarges pictures with a network, in tiles where they are large.
#[derive(Node)]
#[node(category = "image/upscaling", display_name = "Upscale Image (using Model)", compute)]
struct ImageUpscaleWithModel {
    /// The network.
    upscale_model: Shared<UpscaleModel>,
    /// The pictures.
    image: Shared<Image>,
}

impl Run for ImageUpscaleWithModel {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        /// Pixels that neighbouring tiles share.
        const OVERLAP: usize = 32;
        let network = &self.upscale_model.network;
        let (batch, height, width, _) = self.image.dims();
        let tile = self.tile(cx)?;
        let tiling = Tiling { tile: (tile, tile), overlap: OVERLAP, scale: network.scale() as f64 };
        let (total, mut done) = (batch * tiling.count(height, width), 0);
        let mut enlarged = Vec::with_capacity(batch);
        for picture in 0..batch {
            let planes = || self.image.pixels().narrow(0, picture, 1)?.permute((0, 3, 1, 2))?.contiguous();
            let made = tiled(&planes().map_err(tell)?, &tiling, &mut |tile| {
                let made = network.forward(tile)?;
                done += 1;
                cx.progress(done as u32, total as u32).map_err(|_| paraflow_diffusion::Error::Stopped)?;
                Ok(made)
            });
            let made =
                made.map_err(tell)?.clamp(0_f32, 1_f32).and_then(|made| made.permute((0, 2, 3, 1))?.contiguous());
            enlarged.push(made.map_err(tell)?);
        }
        Image::new(Tensor::cat(&enlarged, 0).map_err(tell)?).map_err(tell)
    }
}

impl ImageUpscaleWithModel {
    /// Side of the tiles: the largest that there is room for.
    fn tile(&self, cx: &Context<'_>) -> Result<usize> {
        const LARGEST: usize = 512;
        const SMALLEST: usize = 128;
        let network = &self.upscale_model.network;
        let (_, height, width, _) = self.image.dims();
        let needed = |tile: usize| {
            let pixels = height.min(tile) * width.min(tile) * network.scale().pow(2);
            (pixels * network.numbers_per_pixel() * size_of::<f32>()) as u64
        };
        let memory = Memory::of(cx.services());
        let mut tile = LARGEST;
        while memory.require(needed(tile), String::new).is_err() && tile > SMALLEST {
            tile /= 2;
        }
        let work = || format!("enlarging {width} x {height} pixels in tiles of {tile}");
        memory.require(needed(tile), work).map_err(tell)?;
        Ok(tile)
    }
}
