//! Models that ask guidance for something: what answers become before and after it.

use crate::error::tell;
use crate::wires::{Latent, LatentOperation, Model};
use paraflow_diffusion::guidance::{Correction, Operation};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<ProjectedGuidance>(),
        NodeDef::of::<EpsilonScaling>(),
        NodeDef::of::<FreSca>(),
        NodeDef::of::<LatentApplyOperation>(),
        NodeDef::of::<LatentApplyOperationCFG>(),
        NodeDef::of::<LatentOperationSharpen>(),
        NodeDef::of::<LatentOperationTonemapReinhard>(),
        NodeDef::of::<Mahiro>(),
        NodeDef::of::<TangentialDamping>(),
        NodeDef::of::<TemporalScoreRescaling>(),
    ]
}

/// Keeps guidance from colours that are too strong: it goes less along the answer to positive prompts.
///
/// Sadat et al. 2024, arXiv:2410.02416.
#[derive(Node)]
#[node(name = "APG", category = "sampling/custom_sampling", display_name = "Adaptive Projected Guidance")]
struct ProjectedGuidance {
    /// The model.
    model: Shared<Model>,
    /// How much of guidance along the answer stays; 1 all of it.
    #[input(default = 1.0, range = -10.0..=10.0, step = 0.01)]
    eta: f64,
    /// The greatest length of guidance; 0 for any.
    #[input(default = 5.0, range = 0.0..=50.0, step = 0.1)]
    norm_threshold: f64,
    /// How much of the guidance of earlier steps goes on; 0 none of it.
    #[input(default = 0.0, range = -5.0..=1.0, step = 0.01)]
    momentum: f64,
}

impl Run for ProjectedGuidance {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        let Self { eta, norm_threshold: longest, momentum, .. } = self;
        Ok(self.model.corrected(Correction::Projected { eta, longest, momentum }))
    }
}

/// Lets the answer to negative prompts keep only what it shares with that to positive ones.
///
/// Kwon et al. 2025, arXiv:2503.18137.
#[derive(Node)]
#[node(
    name = "TCFG",
    category = "advanced/guidance",
    display_name = "Tangential Damping CFG",
    outputs = ["patched_model"]
)]
struct TangentialDamping {
    /// The model.
    model: Shared<Model>,
}

impl Run for TangentialDamping {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.corrected(Correction::Damped))
    }
}

/// Makes coarse and fine things follow guidance by different amounts.
///
/// Huang et al. 2025, arXiv:2504.02154.
#[derive(Node)]
#[node(category = "_for_testing", display_name = "FreSca", experimental)]
struct FreSca {
    /// The model.
    model: Shared<Model>,
    /// What guidance of coarse things is multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    scale_low: f64,
    /// What guidance of fine things is multiplied by.
    #[input(default = 1.25, range = 0.0..=10.0, step = 0.01)]
    scale_high: f64,
    /// How many frequencies on both sides of 0 are coarse.
    #[input(default = 20, range = 1..=10000, step = 1)]
    freq_cutoff: u32,
}

impl Run for FreSca {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        let (low, high, cutoff) = (self.scale_low, self.scale_high, self.freq_cutoff as usize);
        Ok(self.model.corrected(Correction::Frequencies { low, high, cutoff }))
    }
}

/// Leads along the answer to positive prompts more than away from the negative ones.
#[derive(Node)]
#[node(category = "_for_testing", display_name = "Mahiro CFG", outputs = ["patched_model"], experimental)]
struct Mahiro {
    /// The model.
    model: Shared<Model>,
}

impl Run for Mahiro {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.corrected(Correction::Direction))
    }
}

/// Makes the noise that a model sees smaller or larger at every step.
///
/// Ning et al. 2023, arXiv:2308.15321, in its uniform schedule.
#[derive(Node)]
#[node(name = "Epsilon Scaling", category = "model_patches/unet")]
struct EpsilonScaling {
    /// The model.
    model: Shared<Model>,
    /// What the noise is divided by.
    #[input(default = 1.005, range = 0.5..=1.5, step = 0.001, display = "number")]
    scaling_factor: f64,
}

impl Run for EpsilonScaling {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.corrected(Correction::Noise(self.scaling_factor)))
    }
}

/// More detail or smoother pictures, by the noise level: equation 6 of arXiv:2510.01184.
#[derive(Node)]
#[node(category = "model_patches/unet", display_name = "TSR - Temporal Score Rescaling", outputs = ["patched_model"])]
struct TemporalScoreRescaling {
    /// The model.
    model: Shared<Model>,
    /// Below 1 more detail, above smoother; 1 changes nothing.
    #[input(default = 0.95, range = 0.01..=100.0, step = 0.001, display = "number")]
    tsr_k: f64,
    /// From which noise level on; higher is earlier.
    #[input(default = 1.0, range = 0.01..=100.0, step = 0.001, display = "number")]
    tsr_sigma: f64,
}

impl Run for TemporalScoreRescaling {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.corrected(Correction::Temporal { k: self.tsr_k, sigma: self.tsr_sigma }))
    }
}

/// Brings strong latents down to what a model is used to, strong ones more than weak ones.
#[derive(Node)]
#[node(category = "latent/advanced/operations", experimental)]
struct LatentOperationTonemapReinhard {
    /// How strong the strongest may be, as a share of the mean and five deviations.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    multiplier: f64,
}

impl Run for LatentOperationTonemapReinhard {
    type Output = LatentOperation;

    fn run(self, _: &Context<'_>) -> Result<LatentOperation> {
        Ok(LatentOperation(Operation::Tonemap(self.multiplier)))
    }
}

/// Makes neighbouring cells of latents differ more.
#[derive(Node)]
#[node(category = "latent/advanced/operations", experimental)]
struct LatentOperationSharpen {
    /// How far a cell looks, in cells.
    #[input(default = 9, range = 1..=31, step = 1)]
    sharpen_radius: u32,
    /// How strongly it looks within that.
    #[input(default = 1.0, range = 0.1..=10.0, step = 0.1)]
    sigma: f64,
    /// How much sharper.
    #[input(default = 0.1, range = 0.0..=5.0, step = 0.01)]
    alpha: f64,
}

impl Run for LatentOperationSharpen {
    type Output = LatentOperation;

    fn run(self, _: &Context<'_>) -> Result<LatentOperation> {
        let (radius, sigma, alpha) = (self.sharpen_radius as usize, self.sigma as f32, self.alpha as f32);
        Ok(LatentOperation(Operation::Sharpen { radius, sigma, alpha }))
    }
}

/// Applies an operation to latents.
#[derive(Node)]
#[node(category = "latent/advanced/operations", experimental)]
struct LatentApplyOperation {
    /// The latents.
    samples: Shared<Latent>,
    /// What to do to them.
    operation: Shared<LatentOperation>,
}

impl Run for LatentApplyOperation {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let samples = self.operation.0.apply(self.samples.samples()).map_err(tell)?;
        self.samples.with_samples(samples).map_err(tell)
    }
}

/// Applies an operation to guidance: to what the answer to positive prompts has beyond that to negative ones.
#[derive(Node)]
#[node(category = "latent/advanced/operations", experimental)]
struct LatentApplyOperationCFG {
    /// The model.
    model: Shared<Model>,
    /// What to do to guidance.
    operation: Shared<LatentOperation>,
}

impl Run for LatentApplyOperationCFG {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.corrected(Correction::Operation(self.operation.0)))
    }
}
