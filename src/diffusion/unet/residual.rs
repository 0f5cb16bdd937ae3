//! The convolutional half of a UNet: residual blocks that hear the timestep.

use candle_core::Tensor;

use crate::error::Result;
use crate::nn::{Conv2d, GroupNorm, Layers, Linear, Vector, Weight, Weights};

const EPSILON: f64 = 1e-5;

/// Two convolutions, the timestep between them, the input added at the end.
#[derive(Clone)]
pub(super) struct Residual {
    norm_in: GroupNorm,
    conv_in: Conv2d,
    time: Linear,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    /// Only where the width changes.
    skip: Option<Linear>,
}

impl Residual {
    pub(super) fn load(weights: &Weights, input: usize, output: usize, time: usize) -> Result<Self> {
        let skip = weights.at("skip_connection");
        Ok(Self {
            norm_in: GroupNorm::load(&weights.at("in_layers.0"), input, EPSILON)?,
            conv_in: Conv2d::load(&weights.at("in_layers.2"), input, output, 3)?,
            time: Linear::load(&weights.at("emb_layers.1"), time, output)?,
            norm_out: GroupNorm::load(&weights.at("out_layers.0"), output, EPSILON)?,
            conv_out: Conv2d::load(&weights.at("out_layers.3"), output, output, 3)?,
            skip: if input == output { None } else { Some(Linear::load(&skip, input, output)?) },
        })
    }

    /// # Shapes
    /// - `x`: `[batch, height, width, input]`
    /// - `time`: the timestep's embedding after its activation, `[batch, time]`
    /// - output: `[batch, height, width, output]`
    pub(super) fn forward(&self, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let h = self.norm_in.forward_silu(x)?;
        let h = self.conv_in.forward_shift(&h, &self.time.forward(time)?)?;
        let h = self.norm_out.forward_silu(&h)?;
        match &self.skip {
            Some(skip) => self.conv_out.forward_add(&h, &skip.forward(x)?),
            None => self.conv_out.forward_add(&h, x),
        }
    }
}

impl Layers for Residual {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        self.conv_in.visit(visit);
        self.time.visit(visit);
        self.conv_out.visit(visit);
        self.skip.visit(visit);
    }

    fn visit_vectors(&mut self, visit: &mut dyn FnMut(Vector<'_>)) {
        self.norm_in.visit_vectors(visit);
        self.conv_in.visit_vectors(visit);
        self.time.visit_vectors(visit);
        self.norm_out.visit_vectors(visit);
        self.conv_out.visit_vectors(visit);
        self.skip.visit_vectors(visit);
    }
}
