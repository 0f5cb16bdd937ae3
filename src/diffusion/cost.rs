//! What work will take before it is begun: operations and memory, from a network's shapes alone. Nothing is read but headers.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::nn::{Geometry, LARGE, Precision, TensorInfo, Weight, Weights};
use crate::unet::{Config, Down};

/// Tokens of a prompt, as most have them.
const TOKENS: usize = 77;

/// What a piece of work takes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Floating-point operations, a multiplication and an addition as two.
    pub operations: f64,
    /// Bytes of what the layers hand on, at the moment when it is most.
    pub working_bytes: f64,
}

/// Bytes of a part's weights once they are read: as the kernels keep them, in the file's 16 bits where it has no more and the
/// weight is large, and in f32 else; in `bf16` pairs.
#[must_use]
pub fn weight_bytes(weights: &Weights, precision: Precision) -> f64 {
    let infos = weights.names().filter_map(|name| weights.info(name));
    let bytes = |info: TensorInfo| {
        let narrow = info.elements() >= LARGE && matches!(info.dtype.as_str(), "F16" | "BF16");
        let halved = info.shape.len() > 1 && (narrow || precision == Precision::Bf16);
        info.elements() as f64 * if halved { 2.0 } else { 4.0 }
    };
    infos.map(bytes).sum()
}

/// How many operations this machine does in a second, as networks do them: the best of a few products of a Linear layer, a few
/// milliseconds each. What else it does meanwhile makes it less.
///
/// # Errors
/// Out of memory.
pub fn operations_per_second(precision: Precision) -> Result<f64> {
    const ROWS: usize = 1024;
    const WIDTH: usize = 640;
    let weight = Tensor::full(0.5f32, (WIDTH, WIDTH), &Device::Cpu)?;
    let weight = Weight::of_in(precision, "a trial", Geometry::Linear, weight);
    let x = Tensor::ones((ROWS, WIDTH), DType::F32, &Device::Cpu)?;
    // The first one packs the weight.
    weight.forward(&x)?;
    let mut shortest = f64::INFINITY;
    for _ in 0..4 {
        let begun = Instant::now();
        weight.forward(&x)?;
        shortest = shortest.min(begun.elapsed().as_secs_f64());
    }
    Ok(2.0 * (ROWS * WIDTH * WIDTH) as f64 / shortest)
}

/// One call of a UNet with `batch` latents of so many rows and columns of cells. `weights` are those below the network's
/// prefix.
#[must_use]
pub fn unet(weights: &Weights, config: &Config, batch: usize, (rows, columns): (usize, usize)) -> Cost {
    walk_unet(weights, config, batch, (rows, columns)).cost
}

/// A training step beside a frozen UNet: forth and back, the gradient taken through every layer, as many numbers kept on the way
/// as the layers hand on. With checkpointing each block works twice and keeps what came into it only.
#[must_use]
pub fn training_step(
    weights: &Weights,
    config: &Config,
    batch: usize,
    size: (usize, usize),
    checkpointing: bool,
) -> Cost {
    let Walk { cost, handed, entered, deepest, .. } = walk_unet(weights, config, batch, size);
    let (passes, numbers) = if checkpointing { (3.0, entered + deepest) } else { (2.0, handed) };
    Cost { operations: passes * cost.operations, working_bytes: 4.0 * numbers + cost.working_bytes }
}

fn walk_unet<'a>(weights: &'a Weights, config: &Config, batch: usize, (rows, columns): (usize, usize)) -> Walk<'a> {
    let mut walk = Walk {
        weights,
        batch: batch as f64,
        cells: 0.0,
        cost: Cost::default(),
        kept: 0.0,
        handed: 0.0,
        entered: 0.0,
        deepest: 0.0,
    };
    let cells = |level: u32| {
        let side = |side: usize| side.div_ceil(1 << level) as f64;
        side(rows) * side(columns)
    };
    walk.cells = cells(0);
    walk.block("input_blocks.0.", config.channels, 0, config.input);
    let (mut level, mut width, mut widths) = (0, config.channels, vec![(config.channels, 0)]);
    for (index, down) in config.down.iter().enumerate() {
        let input = width;
        let depth = match *down {
            Down::Residual { width: to, depth } => {
                width = to;
                depth
            }
            Down::Halve => {
                level += 1;
                0
            }
        };
        walk.cells = cells(level);
        walk.block(&format!("input_blocks.{}.", index + 1), width, depth, input);
        widths.push((width, level));
    }
    // What the way down keeps is there until the way up takes it.
    walk.kept = widths.iter().map(|(width, level)| *width as f64 * cells(*level) * walk.batch).sum();
    walk.block("middle_block.", width, config.middle, width);
    for (index, up) in config.up.iter().enumerate() {
        let skip = widths.pop().map_or(0, |(skip, _)| skip);
        walk.block(&format!("output_blocks.{index}."), up.width, up.depth, width + skip);
        walk.kept -= skip as f64 * walk.cells * walk.batch;
        width = up.width;
        if up.double {
            level = level.saturating_sub(1);
            // The convolution after an enlargement works on the larger picture.
            let larger = cells(level) - walk.cells;
            walk.cost.operations += 2.0 * larger * walk.batch * (width * width * 9) as f64;
            walk.cells = cells(level);
        }
    }
    walk.cells = cells(0);
    walk.block("out.", width, 0, width);
    walk
}

/// Adds a network's blocks up.
struct Walk<'a> {
    weights: &'a Weights,
    batch: f64,
    /// Pixels of a picture at the level reached.
    cells: f64,
    cost: Cost,
    /// Numbers that wait for the way up.
    kept: f64,
    /// Numbers that all layers hand on together.
    handed: f64,
    /// Those that come into blocks.
    entered: f64,
    /// Those of the block that hands on most.
    deepest: f64,
}

impl Walk<'_> {
    /// A block of the network: every weight below a name meets every pixel, and `depth` transformers look around.
    fn block(&mut self, name: &str, width: usize, depth: usize, input: usize) {
        let rows = self.cells * self.batch;
        let below = self.weights.names().filter(|below| below.starts_with(name));
        for (below, info) in below.filter_map(|below| Some((below, self.weights.info(below)?))) {
            // Keys and values of the prompt are made once for all steps, and the timestep is one row a picture.
            let once = below.contains(".attn2.to_k") || below.contains(".attn2.to_v") || below.contains("emb_layers");
            if info.shape.len() > 1 && !once {
                self.cost.operations += 2.0 * rows * info.elements() as f64;
            }
        }
        let width = width as f64;
        let looks = self.cells + TOKENS as f64;
        self.cost.operations += 4.0 * rows * looks * width * depth as f64;
        // A residual block's input, its norm and its output; or a feed-forward layer's fourfold width twice, its gate, what
        // came in and what is added.
        let residual = 2.0 * input as f64 + 2.0 * width;
        let transformer = if depth > 0 { (8.0 + 4.0 + 3.0) * width } else { 0.0 };
        let working = rows * residual.max(transformer) + self.kept;
        self.cost.working_bytes = self.cost.working_bytes.max(4.0 * working);
        // What a gradient has to pass: joined inputs, two norms, two convolutions and what is added to them; the same of a
        // transformer's layers, of which a feed-forward one is eight times as wide; and once more what an adapter makes of it.
        let handed = rows * (2.0 * input as f64 + 7.0 * width + depth as f64 * 38.0 * width);
        self.handed += handed;
        self.entered += rows * input as f64;
        self.deepest = self.deepest.max(handed);
    }
}

/// The decoding of a latent of so many rows and columns of cells by the autoencoder below a prefix.
#[must_use]
pub fn decode(weights: &Weights, (rows, columns): (usize, usize)) -> Cost {
    let shape = |name: &str| weights.shape(name).unwrap_or_default();
    let levels =
        (0..).take_while(|level| !shape(&format!("decoder.up.{level}.block.0.conv1.weight")).is_empty()).count();
    let cells = (rows * columns) as f64;
    let mut cost = Cost::default();
    for (name, info) in weights.names().filter_map(|name| Some((name, weights.info(name)?))) {
        let Some(place) = name.strip_prefix("decoder.").filter(|_| info.shape.len() > 1) else { continue };
        // Level 0 is the finest; an enlargement's convolution belongs to the next finer one.
        let level = place.strip_prefix("up.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        let doublings = match level {
            Some(level) => (levels - 1).saturating_sub(level) + usize::from(place.contains(".upsample.")),
            None if place.starts_with("conv_out") => levels.saturating_sub(1),
            None => 0,
        };
        let pixels = cells * 4f64.powi(doublings as i32);
        cost.operations += 2.0 * pixels * info.elements() as f64;
        if let Some(&width) = info.shape.first() {
            // What comes in, its norm, and what comes out.
            cost.working_bytes = cost.working_bytes.max(4.0 * 3.0 * pixels * width as f64);
        }
    }
    let width = shape("decoder.mid.attn_1.q.weight").first().copied().unwrap_or(0) as f64;
    cost.operations += 4.0 * cells * cells * width;
    cost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Golden;

    /// Counted by hand from the shapes: the narrow network's convolutions and Linear layers at 16x16, 8x8 and 4x4 cells.
    #[test]
    fn operations_grow_with_the_picture_and_the_batch() {
        let golden = Golden::open("unet_narrow");
        let weights = golden.weights().part("model.diffusion_model.");
        let config = Config::read(&weights).unwrap();
        let one = unet(&weights, &config, 1, (16, 16));
        let two = unet(&weights, &config, 2, (16, 16));
        assert!((two.operations / one.operations - 2.0).abs() < 1e-9);
        let wide = unet(&weights, &config, 1, (32, 32));
        assert!(wide.operations > 4.0 * one.operations, "attention grows faster than the picture");
        assert!((wide.working_bytes / one.working_bytes - 4.0).abs() < 0.1);
        // 1.87 GF of products for two pictures, and attention.
        assert!((1.87e9..2.4e9).contains(&two.operations), "{:e}", two.operations);
    }

    #[test]
    fn a_decoder_s_convolutions_are_counted_at_their_size() {
        let golden = Golden::open("vae");
        let weights = golden.weights().part("first_stage_model.");
        let (small, large) = (decode(&weights, (8, 8)), decode(&weights, (16, 16)));
        assert!(small.operations > 0.0 && large.operations > 4.0 * small.operations);
        assert!((large.working_bytes / small.working_bytes - 4.0).abs() < 1e-9);
    }
}
