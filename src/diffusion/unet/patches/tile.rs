//! HyperTile: self-attention of large pictures in tiles, of a size drawn anew for each layer.
//!
//! Follows ComfyUI's node of that name, which regroups the queries alone: each tile looks at one part of the keys, a
//! stretch of rows.

use candle_core::Tensor;

use crate::error::Result;
use crate::unet::{Pass, Patch, Regrouped};

/// Self-attention in tiles.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// The smallest side of a tile, in cells of the latent.
    pub side: usize,
    /// Among how many sizes to draw.
    pub sizes: usize,
    /// How many times the picture may have been halved where this still acts.
    pub depth: usize,
    /// Whether tiles grow with the depth.
    pub grows: bool,
}

impl Patch for Tile {
    fn queries(&self, tokens: &Tensor, pass: &Pass<'_>) -> Result<Option<Regrouped>> {
        let (batch, count, channels) = tokens.dims3()?;
        let (rows, columns) = pass.size;
        let cells = |depth: &usize| {
            let halved = 2_f64.powi(*depth as i32);
            (rows as f64 / halved) * (columns as f64 / halved)
        };
        let Some(depth) = (0..=self.depth).find(|depth| cells(depth) == count as f64) else { return Ok(None) };
        let aspect = columns as f64 / rows as f64;
        let side = |square: f64| square.sqrt().round_ties_even() as usize;
        // Which is called the height is the longer side of a wide picture: the reference's order, kept for its pictures.
        let (height, width) = (side(count as f64 * aspect), side(count as f64 / aspect));
        let least = self.side * if self.grows { 1 << depth } else { 1 };
        let (down, across) = (self.draw(height, least, pass), self.draw(width, least, pass));
        if down * across <= 1 || height * width != count {
            return Ok(None);
        }
        let tile = (height / down, width / across);
        let split = tokens.reshape(&[batch, down, tile.0, across, tile.1, channels][..])?;
        let tiles = split.permute(&[0, 1, 3, 2, 4, 5][..])?.contiguous()?;
        let tiles = tiles.reshape((batch * down * across, tile.0 * tile.1, channels))?;
        let back = move |found: &Tensor| -> Result<Tensor> {
            let channels = found.dim(2)?;
            let split = found.reshape(&[batch, down, across, tile.0, tile.1, channels][..])?;
            Ok(split.permute(&[0, 1, 3, 2, 4, 5][..])?.contiguous()?.reshape((batch, count, channels))?)
        };
        Ok(Some(Regrouped { tokens: tiles, back: Box::new(back) }))
    }
}

impl Tile {
    /// Into how many parts a side is cut, none shorter than `least`. The last of the sizes is never drawn, which is the
    /// reference's oddity.
    fn draw(&self, side: usize, least: usize, pass: &Pass<'_>) -> usize {
        let divisors = (least.min(side).max(1)..=side).filter(|divisor| side.is_multiple_of(*divisor));
        let parts: Vec<usize> = divisors.take(self.sizes).map(|divisor| side / divisor).collect();
        let drawn = if parts.len() > 1 { pass.below(parts.len() - 1) } else { 0 };
        parts.get(drawn).copied().unwrap_or(1)
    }
}
