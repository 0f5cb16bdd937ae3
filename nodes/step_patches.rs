//! Models whose guidance changes over a batch or with its length, and models that leave out some of their work.

use crate::wires::Model;
use paraflow_diffusion::guidance::{Correction, Reuse};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<EasyCache>(),
        NodeDef::of::<LazyCache>(),
        NodeDef::of::<RenormCFG>(),
        NodeDef::of::<VideoLinearCFGGuidance>(),
        NodeDef::of::<VideoTriangleCFGGuidance>(),
    ]
}

/// Leaves out evaluations of the network while its answers change little, and uses the last one again: faster, and a little less
/// exact.
///
/// Zhou et al. 2025, arXiv:2507.02860.
#[derive(Node)]
#[node(category = "advanced/debug/model", display_name = "EasyCache", experimental)]
struct EasyCache {
    /// The model.
    model: Shared<Model>,
    /// How much the answer may have changed, in parts of its size; 0 leaves nothing out.
    #[input(default = 0.2, range = 0.0..=3.0, step = 0.01)]
    reuse_threshold: f64,
    /// From this share of the way on.
    #[input(default = 0.15, range = 0.0..=1.0, step = 0.01)]
    start_percent: f64,
    /// Up to this share of the way.
    #[input(default = 0.95, range = 0.0..=1.0, step = 0.01)]
    end_percent: f64,
    /// Makes no difference here.
    #[input(default = false)]
    verbose: bool,
}

impl Run for EasyCache {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        let _ = self.verbose;
        let (threshold, start, end) = (self.reuse_threshold, self.start_percent, self.end_percent);
        Ok(self.model.corrected(Correction::Reused(Reuse { threshold, start, end, whole: false })))
    }
}

/// Leaves out whole steps of guidance while they change little, and uses the last one again: as EasyCache, and coarser.
#[derive(Node)]
#[node(category = "advanced/debug/model", display_name = "LazyCache", experimental)]
struct LazyCache {
    /// The model.
    model: Shared<Model>,
    /// How much the answer may have changed, in parts of its size; 0 leaves nothing out.
    #[input(default = 0.2, range = 0.0..=3.0, step = 0.01)]
    reuse_threshold: f64,
    /// From this share of the way on.
    #[input(default = 0.15, range = 0.0..=1.0, step = 0.01)]
    start_percent: f64,
    /// Up to this share of the way.
    #[input(default = 0.95, range = 0.0..=1.0, step = 0.01)]
    end_percent: f64,
    /// Makes no difference here.
    #[input(default = false)]
    verbose: bool,
}

impl Run for LazyCache {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        let _ = self.verbose;
        let (threshold, start, end) = (self.reuse_threshold, self.start_percent, self.end_percent);
        Ok(self.model.corrected(Correction::Reused(Reuse { threshold, start, end, whole: true })))
    }
}

/// Guides only below a noise level, and keeps the guided answer from growing longer than that to positive prompts.
#[derive(Node)]
#[node(category = "advanced/model")]
struct RenormCFG {
    /// The model.
    model: Shared<Model>,
    /// Guides below this noise level; above it, the positive prompts alone count.
    #[input(default = 100.0, range = 0.0..=100.0, step = 0.01)]
    cfg_trunc: f64,
    /// How many times as long as the positive answer the guided one may be; 0 for any length.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    renorm_cfg: f64,
}

impl Run for RenormCFG {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.corrected(Correction::Renormed { below: self.cfg_trunc, longest: self.renorm_cfg }))
    }
}

/// Lets guidance grow over a batch, as over the frames of a video: the first latent has the smallest scale, the last the sampler's.
#[derive(Node)]
#[node(category = "sampling/video_models")]
struct VideoLinearCFGGuidance {
    /// The model.
    model: Shared<Model>,
    /// The smallest scale.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.5, round = 0.01)]
    min_cfg: f64,
}

impl Run for VideoLinearCFGGuidance {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.corrected(Correction::Ramp { least: self.min_cfg, triangle: false }))
    }
}

/// Lets guidance grow towards the middle of a batch, as of the frames of a video, and fall again.
#[derive(Node)]
#[node(category = "sampling/video_models")]
struct VideoTriangleCFGGuidance {
    /// The model.
    model: Shared<Model>,
    /// The smallest scale, that of the first latent and the last.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.5, round = 0.01)]
    min_cfg: f64,
}

impl Run for VideoTriangleCFGGuidance {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.corrected(Correction::Ramp { least: self.min_cfg, triangle: true }))
    }
}
