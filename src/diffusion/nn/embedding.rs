//! A table of vectors.

use candle_core::{Device, Tensor};

use super::weights::{Stored, Weights};
use crate::error::{Error, Result};

/// Rows of a table by number. The table stays in its file: only the rows asked for are read.
#[derive(Clone)]
pub struct Embedding {
    name: String,
    table: Stored,
    weights: Weights,
}

impl Embedding {
    /// Finds `weight`, `[count, width]`.
    ///
    /// # Errors
    /// What [`Weights::tensor`] says.
    pub fn load(weights: &Weights, count: usize, width: usize) -> Result<Self> {
        let table = weights.claim("weight", &[&[count, width]])?;
        Ok(Self { name: weights.layer(), table, weights: weights.clone() })
    }

    /// How many rows the table has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table.shape()[0]
    }

    /// Length of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.table.shape()[1]
    }

    /// The rows of these numbers in this order, `[ids, width]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when a number is not below [`count`](Self::count).
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let width = self.width();
        let mut rows = vec![0.0; ids.len() * width];
        for (row, &id) in rows.chunks_exact_mut(width.max(1)).zip(ids) {
            if id as usize >= self.count() {
                let expected = format!("numbers below {}", self.count());
                return Err(Error::Shape { layer: self.name.clone(), expected, found: vec![id as usize] });
            }
            self.table.read(id as usize * width, row);
        }
        let rows = Tensor::from_vec(rows, (ids.len(), width), &Device::Cpu)?;
        self.weights.compute().take(&rows)
    }
}
