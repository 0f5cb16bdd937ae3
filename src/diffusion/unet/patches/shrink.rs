//! Deep shrink: for a part of the sampling, the depth of the network sees a smaller picture, so that a picture larger than
//! the network was trained on keeps one composition.

use candle_core::Tensor;

use crate::error::Result;
use crate::resize::{Method, resize};
use crate::unet::{Pass, Patch};

/// A smaller picture from one block on.
#[derive(Clone, Copy, Debug)]
pub struct Shrink {
    /// After which block on the way down; 0 is the first convolution.
    pub block: usize,
    /// By what to divide height and width.
    pub factor: f64,
    /// From this noise level down ...
    pub first_sigma: f32,
    /// ... to this one, both included.
    pub last_sigma: f32,
    /// Whether what is kept for the way up stays large.
    pub after_skip: bool,
    /// How to make the picture smaller.
    pub smaller: Method,
    /// How to make it large again on the way up.
    pub larger: Method,
}

impl Shrink {
    fn shrunk(&self, h: Tensor, block: usize, pass: &Pass<'_>) -> Result<Tensor> {
        if block != self.block || pass.sigma > self.first_sigma || pass.sigma < self.last_sigma {
            return Ok(h);
        }
        let (_, rows, columns, _) = h.dims4()?;
        let side = |side: usize| (side as f64 * (1.0 / self.factor)).round_ties_even() as usize;
        resized(&h, side(columns), side(rows), self.smaller)
    }
}

impl Patch for Shrink {
    fn before_skip(&self, h: Tensor, block: usize, pass: &Pass<'_>) -> Result<Tensor> {
        if self.after_skip { Ok(h) } else { self.shrunk(h, block, pass) }
    }

    fn after_skip(&self, h: Tensor, block: usize, pass: &Pass<'_>) -> Result<Tensor> {
        if self.after_skip { self.shrunk(h, block, pass) } else { Ok(h) }
    }

    fn joining(&self, h: Tensor, skip: Tensor, _: &Pass<'_>) -> Result<(Tensor, Tensor)> {
        let (_, rows, columns, _) = skip.dims4()?;
        if h.dim(1)? == rows { Ok((h, skip)) } else { Ok((resized(&h, columns, rows, self.larger)?, skip)) }
    }
}

/// A picture `[batch, height, width, channels]` of another size.
fn resized(h: &Tensor, width: usize, height: usize, method: Method) -> Result<Tensor> {
    let planes = h.permute((0, 3, 1, 2))?.contiguous()?;
    let resized = resize(&planes, width, height, method)?.to_dtype(h.dtype())?;
    Ok(resized.permute((0, 2, 3, 1))?.contiguous()?)
}
