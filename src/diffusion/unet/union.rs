//! What a control network has that was trained on pictures of several kinds: it is told which kind it sees.
//!
//! The layout of ControlNet++ (Union and ProMax for SDXL), for one picture at a time.

use candle_core::{Device, Tensor};

use super::timestep_embedding;
use crate::error::{Error, Result};
use crate::nn::{Compute, LayerNorm, Layers, Linear, Renamed, Weight, Weights, quick_gelu, silu};

const EPSILON: f64 = 1e-5;
/// Numbers that say of one kind whether it is there.
const KIND_WIDTH: usize = 256;

/// Where a control network learns of which kind its picture is.
#[derive(Clone)]
pub(super) struct Union {
    /// One vector a kind, `[kinds, width]`.
    kinds: Tensor,
    before_attention: LayerNorm,
    values: Linear,
    attention_out: Linear,
    before_products: LayerNorm,
    up: Linear,
    down: Linear,
    projection: Linear,
    told: [Linear; 2],
}

impl Union {
    /// `None` for a network of one kind. `embedded` is the width of the timestep's embedding.
    pub(super) fn load(weights: &Weights, embedded: usize) -> Result<Option<Self>> {
        let Some(&[kinds, width]) = weights.shape("task_embedding") else { return Ok(None) };
        let block = weights.at("transformer_layes").at(0);
        // Queries, keys and values are one matrix, of which one token needs the last third alone.
        let values = block.at("attn").renamed(|name| {
            let kind = name.strip_prefix("in_proj_").or_else(|| name.strip_prefix("in_proj."));
            kind.map(|kind| Renamed { part: (3, 2), ..Renamed::whole(format!("values.{kind}")) }).into_iter().collect()
        });
        let told = weights.at("control_add_embedding");
        Ok(Some(Self {
            kinds: weights.tensor("task_embedding", &[kinds, width])?,
            before_attention: LayerNorm::load(&block.at("ln_1"), width, EPSILON)?,
            values: Linear::load(&values.at("values"), width, width)?,
            attention_out: Linear::load(&block.at("attn").at("out_proj"), width, width)?,
            before_products: LayerNorm::load(&block.at("ln_2"), width, EPSILON)?,
            up: Linear::load(&block.at("mlp").at("c_fc"), width, 4 * width)?,
            down: Linear::load(&block.at("mlp").at("c_proj"), 4 * width, width)?,
            projection: Linear::load(&weights.at("spatial_ch_projs"), width, width)?,
            told: [
                Linear::load(&told.at("linear_1"), KIND_WIDTH * kinds, embedded)?,
                Linear::load(&told.at("linear_2"), embedded, embedded)?,
            ],
        }))
    }

    /// How many kinds it knows.
    pub(super) fn kinds(&self) -> usize {
        self.kinds.dims()[0]
    }

    /// What is added to the timestep's embedding, `[1, embedded]`.
    pub(super) fn told(&self, kinds: &[usize], compute: &Compute) -> Result<Tensor> {
        if let Some(kind) = kinds.iter().find(|kind| **kind >= self.kinds()) {
            return Err(Error::Shape {
                layer: "ControlNet (kind of picture)".to_owned(),
                expected: format!("a kind from 0 to {}: the network was trained on {}", self.kinds() - 1, self.kinds()),
                found: vec![*kind],
            });
        }
        let there: Vec<f32> = (0..self.kinds()).map(|kind| f32::from(u8::from(kinds.contains(&kind)))).collect();
        let there = Tensor::new(there, &Device::Cpu)?;
        let waves = timestep_embedding(&there, KIND_WIDTH)?.reshape((1, self.kinds() * KIND_WIDTH))?;
        self.told[1].forward(&silu(&self.told[0].forward(&compute.take(&waves)?)?)?)
    }

    /// The picture `[batch, height, width, channels]` as one of its kind.
    pub(super) fn of_kind(&self, seen: &Tensor, kind: usize) -> Result<Tensor> {
        let told = self.kinds.narrow(0, kind, 1)?.to_dtype(seen.dtype())?;
        let mut x = seen.mean((1, 2))?.broadcast_add(&told)?;
        x = (&x + self.attention_out.forward(&self.values.forward(&self.before_attention.forward(&x)?)?)?)?;
        let hidden = quick_gelu(&self.up.forward(&self.before_products.forward(&x)?)?)?;
        x = (&x + self.down.forward(&hidden)?)?;
        let shift = self.projection.forward(&x)?.unsqueeze(1)?.unsqueeze(1)?;
        Ok(seen.broadcast_add(&shift)?)
    }
}

impl Layers for Union {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        let [first, second] = &mut self.told;
        for linear in [
            &mut self.values,
            &mut self.attention_out,
            &mut self.up,
            &mut self.down,
            &mut self.projection,
            first,
            second,
        ] {
            linear.visit(visit);
        }
    }
}
