//! Models that sample otherwise: other noise levels, corrections of guidance.

use crate::error::{Error, tell};
use crate::wires::{Clip, Conditioning, Model};
use paraflow_diffusion::guidance::Correction;
use paraflow_diffusion::schedule::{ModelSampling, Prediction};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<CFGNorm>(),
        NodeDef::of::<CFGZeroStar>(),
        NodeDef::of::<DifferentialDiffusion>(),
        NodeDef::of::<ModelComputeDtype>(),
        NodeDef::of::<ModelSamplingContinuousEDM>(),
        NodeDef::of::<ModelSamplingContinuousV>(),
        NodeDef::of::<ModelSamplingDiscrete>(),
        NodeDef::of::<PerpNeg>(),
        NodeDef::of::<PerturbedAttentionGuidance>(),
        NodeDef::of::<RescaleCFG>(),
        NodeDef::of::<SelfAttentionGuidance>(),
        NodeDef::of::<T5TokenizerOptions>(),
        NodeDef::of::<TorchCompileModel>(),
        NodeDef::of::<WanBlockSwap>(),
    ]
}

/// Keeps guidance from making the answer longer than that to the positive prompts.
#[derive(Node)]
#[node(category = "advanced/guidance", outputs = ["patched_model"], experimental)]
struct CFGNorm {
    /// The model.
    model: Shared<Model>,
    /// What the result is multiplied by.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    strength: f64,
}

impl Run for CFGNorm {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.corrected(Correction::Norm(self.strength)))
    }
}

/// Scales the answer to negative prompts to fit that to positive ones.
#[derive(Node)]
#[node(category = "advanced/guidance", outputs = ["patched_model"])]
struct CFGZeroStar {
    /// The model.
    model: Shared<Model>,
}

impl Run for CFGZeroStar {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.corrected(Correction::ZeroStar))
    }
}

/// Reads a noise mask as when each place may begin to change, not as how much.
#[derive(Node)]
#[node(category = "_for_testing", display_name = "Differential Diffusion", experimental)]
struct DifferentialDiffusion {
    /// The model.
    model: Shared<Model>,
    /// How much of the mask is read so.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    strength: Option<f64>,
}

impl Run for DifferentialDiffusion {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(Model { mask_growth: Some(self.strength.unwrap_or(1.0)), ..Model::clone(&self.model) })
    }
}

/// Asks for the numbers that a model computes in. Here the program decides that for all models (`--precision`).
#[derive(Node)]
#[node(category = "advanced/debug/model")]
struct ModelComputeDtype {
    /// The model.
    model: Shared<Model>,
    /// The numbers.
    #[input(choices = ["default", "fp32", "fp16", "bf16"])]
    dtype: Choice<String>,
}

impl Run for ModelComputeDtype {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        if self.dtype.name() != "default" {
            let asked = self.dtype.name();
            cx.warn(format!(
                "`dtype` {asked} makes no difference here: the program decides what all models compute in"
            ));
        }
        Ok(Model::clone(&self.model))
    }
}

/// Compiles a model for torch. There is none here, and the kernels are compiled already: the model stays as it is.
#[derive(Node)]
#[node(category = "_for_testing", experimental)]
struct TorchCompileModel {
    /// The model.
    model: Shared<Model>,
    /// With what to compile it.
    #[input(choices = ["inductor", "cudagraphs"])]
    backend: Choice<String>,
}

impl Run for TorchCompileModel {
    type Output = Shared<Model>;

    fn run(self, _: &Context<'_>) -> Result<Shared<Model>> {
        let _ = self.backend;
        Ok(self.model)
    }
}

/// Does nothing, in ComfyUI as here: it is there for graphs that have it.
#[derive(Node)]
#[node(name = "wanBlockSwap", category = "", deprecated)]
struct WanBlockSwap {
    /// The model.
    model: Shared<Model>,
}

impl Run for WanBlockSwap {
    type Output = Shared<Model>;

    fn run(self, _: &Context<'_>) -> Result<Shared<Model>> {
        Ok(self.model)
    }
}

/// Sets how short prompts are filled up for T5 encoders. Those of Stable Diffusion are of another kind and stay as they are.
#[derive(Node)]
#[node(category = "_for_testing/conditioning", experimental)]
struct T5TokenizerOptions {
    /// The text encoder.
    clip: Shared<Clip>,
    /// How many tokens to add at least.
    #[input(default = 0, range = 0..=10_000, step = 1)]
    min_padding: u32,
    /// How many tokens there are at least.
    #[input(default = 0, range = 0..=10_000, step = 1)]
    min_length: u32,
}

impl Run for T5TokenizerOptions {
    type Output = Shared<Clip>;

    fn run(self, _: &Context<'_>) -> Result<Shared<Clip>> {
        let _ = (self.min_padding, self.min_length);
        Ok(self.clip)
    }
}

/// Noise levels that a model knows by their logarithm.
#[derive(Node)]
#[node(category = "advanced/model")]
struct ModelSamplingContinuousEDM {
    /// The model.
    model: Shared<Model>,
    /// What the model predicts.
    #[input(choices = ["v_prediction", "edm", "edm_playground_v2.5", "eps", "cosmos_rflow"])]
    sampling: Choice<String>,
    /// The highest noise level.
    #[input(default = 120.0, range = 0.0..=1000.0, step = 0.001)]
    sigma_max: f64,
    /// The lowest noise level above 0.
    #[input(default = 0.002, range = 0.0..=1000.0, step = 0.001)]
    sigma_min: f64,
}

impl Run for ModelSamplingContinuousEDM {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        let (prediction, deviation) = match self.sampling.name() {
            "v_prediction" => (Prediction::Velocity, 1.0),
            "edm" => (Prediction::Edm, 0.5),
            "eps" => (Prediction::Epsilon, 1.0),
            other => return Err(tell(unsupported(other))),
        };
        levels(self.sigma_min, self.sigma_max).map_err(tell)?;
        let sampling = ModelSampling::continuous_edm(prediction, self.sigma_min, self.sigma_max, deviation);
        Ok(Model { sampling, ..Model::clone(&self.model) })
    }
}

/// Noise levels that a model knows by their angle.
#[derive(Node)]
#[node(category = "advanced/model")]
struct ModelSamplingContinuousV {
    /// The model.
    model: Shared<Model>,
    /// What the model predicts.
    #[input(choices = ["v_prediction"])]
    sampling: Choice<String>,
    /// The highest noise level.
    #[input(default = 500.0, range = 0.0..=1000.0, step = 0.001)]
    sigma_max: f64,
    /// The lowest noise level above 0.
    #[input(default = 0.03, range = 0.0..=1000.0, step = 0.001)]
    sigma_min: f64,
}

impl Run for ModelSamplingContinuousV {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        debug_assert_eq!(self.sampling.name(), "v_prediction", "the only choice there is");
        levels(self.sigma_min, self.sigma_max).map_err(tell)?;
        let sampling = ModelSampling::continuous_velocity(self.sigma_min, self.sigma_max);
        Ok(Model { sampling, ..Model::clone(&self.model) })
    }
}

/// Says what a model predicts, where its file does not.
#[derive(Node)]
#[node(category = "advanced/model")]
struct ModelSamplingDiscrete {
    /// The model.
    model: Shared<Model>,
    /// What it predicts.
    #[input(choices = ["eps", "v_prediction", "lcm", "x0", "img_to_img"])]
    sampling: Choice<String>,
    /// Whether its last level is pure noise.
    #[input(default = false)]
    zsnr: bool,
}

impl Run for ModelSamplingDiscrete {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        let prediction = match self.sampling.name() {
            "v_prediction" => Prediction::Velocity,
            "x0" => Prediction::Clean,
            "img_to_img" => Prediction::CleanUnscaled,
            _ => Prediction::Epsilon,
        };
        let betas = self.model.layout.betas;
        let sampling = match (self.sampling.name(), self.zsnr) {
            ("lcm", zsnr) => ModelSampling::consistency(betas, zsnr),
            (_, true) => ModelSampling::zero_snr(betas, prediction),
            (_, false) => ModelSampling::discrete(betas, prediction),
        };
        Ok(Model { sampling, ..Model::clone(&self.model) })
    }
}

/// Brings guidance back to the contrast of the answer to positive prompts.
#[derive(Node)]
#[node(category = "advanced/model")]
struct RescaleCFG {
    /// The model.
    model: Shared<Model>,
    /// How far; 0 not at all.
    #[input(default = 0.7, range = 0.0..=1.0, step = 0.01)]
    multiplier: f64,
}

impl Run for RescaleCFG {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.corrected(Correction::Rescale(self.multiplier)))
    }
}

/// Leads away only from what negative prompts do not share with positive ones. `PerpNegGuider` does the same in one call of
/// the model.
#[derive(Node)]
#[node(category = "_for_testing", display_name = "Perp-Neg (DEPRECATED by PerpNegGuider)", deprecated, experimental)]
struct PerpNeg {
    /// The model.
    model: Shared<Model>,
    /// An empty prompt.
    empty_conditioning: Shared<Conditioning>,
    /// How much the negative prompts count.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    neg_scale: f64,
}

impl Run for PerpNeg {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.with_empty_prompt(Conditioning::clone(&self.empty_conditioning), self.neg_scale))
    }
}

/// Leads away from what the model makes of the prompt when the middle of its network does not look around.
///
/// Ahn et al. 2024, arXiv:2403.17377. Costs one more evaluation of the model a step.
#[derive(Node)]
#[node(category = "model_patches/unet")]
struct PerturbedAttentionGuidance {
    /// The model.
    model: Shared<Model>,
    /// How far; 0 not at all.
    #[input(default = 3.0, range = 0.0..=100.0, step = 0.01, round = 0.01)]
    scale: f64,
}

impl Run for PerturbedAttentionGuidance {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        Ok(self.model.corrected(Correction::PerturbedAttention(self.scale)))
    }
}

/// Leads away from what the model says of its own answer, blurred where it looks most.
///
/// Hong et al. 2023, arXiv:2210.00939. Costs one more evaluation of the model a step.
#[derive(Node)]
#[node(category = "_for_testing", display_name = "Self-Attention Guidance", experimental)]
struct SelfAttentionGuidance {
    /// The model.
    model: Shared<Model>,
    /// How far.
    #[input(default = 0.5, range = -2.0..=5.0, step = 0.01)]
    scale: f64,
    /// How far the blur reaches, in eighths of the picture's pixels.
    #[input(default = 2.0, range = 0.0..=10.0, step = 0.1)]
    blur_sigma: f64,
}

impl Run for SelfAttentionGuidance {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        if self.blur_sigma <= 0.0 {
            return Err(tell(Error::Unfit {
                what: "`blur_sigma`",
                expected: "more than 0".to_owned(),
                found: self.blur_sigma.to_string(),
            }));
        }
        Ok(self.model.corrected(Correction::SelfAttention { scale: self.scale, blur: self.blur_sigma }))
    }
}

/// Levels that rise from above 0.
fn levels(min: f64, max: f64) -> Result<(), Error> {
    if 0.0 < min && min < max {
        return Ok(());
    }
    Err(Error::Unfit {
        what: "the noise levels",
        expected: "`sigma_min` above 0 and below `sigma_max`".to_owned(),
        found: format!("{min} and {max}"),
    })
}

fn unsupported(sampling: &str) -> Error {
    Error::Unfit {
        what: "`sampling`",
        expected: "v_prediction, edm or eps, which is what the models that are loaded predict".to_owned(),
        found: sampling.to_owned(),
    }
}
