//! Algorithms as nodes, each with its settings.

use crate::wires::{Model, SamplerChoice};
use paraflow_diffusion::resize::Method;
use paraflow_diffusion::samplers::{self, Adaptive, ErSde, Phi, SaSolver, Sampler, Scaler, Walk};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<KSamplerSelect>(),
        NodeDef::of::<SamplerDPMAdaptative>(),
        NodeDef::of::<SamplerDPMPP2MSDE>(),
        NodeDef::of::<SamplerDPMPP2SAncestral>(),
        NodeDef::of::<SamplerDPMPP3MSDE>(),
        NodeDef::of::<SamplerDPMPPSDE>(),
        NodeDef::of::<SamplerERSDE>(),
        NodeDef::of::<SamplerEulerAncestral>(),
        NodeDef::of::<SamplerEulerAncestralCFGPP>(),
        NodeDef::of::<SamplerEulerCFGpp>(),
        NodeDef::of::<SamplerLCMUpscale>(),
        NodeDef::of::<SamplerLMS>(),
        NodeDef::of::<SamplerSASolver>(),
        NodeDef::of::<SamplerSEEDS2>(),
    ]
}

/// An algorithm by its name.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/samplers")]
struct KSamplerSelect {
    /// The algorithm.
    #[input(choices = samplers::names)]
    sampler_name: Choice<&'static Sampler>,
}

impl Run for KSamplerSelect {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        Ok(SamplerChoice(Walk::from(self.sampler_name.into_inner())))
    }
}

/// Euler's method with CFG++.
#[derive(Node)]
#[node(category = "_for_testing", display_name = "SamplerEulerCFG++", experimental)]
struct SamplerEulerCFGpp {
    /// `regular` takes the noise from the negative prompts alone, `alternative` from them and the guided latent.
    #[input(choices = ["regular", "alternative"])]
    version: Choice<String>,
}

impl Run for SamplerEulerCFGpp {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        Ok(SamplerChoice(match self.version.name() {
            "alternative" => Walk::euler_pp(),
            _ => Walk::euler_ancestral_cfg_pp(0.0, 0.0),
        }))
    }
}

/// DPM-Solver with steps as long as an error allows.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/samplers")]
struct SamplerDPMAdaptative {
    /// The order.
    #[input(default = 3, range = 2..=3)]
    order: u32,
    /// Error allowed, as a share of the latent.
    #[input(default = 0.05, range = 0.0..=100.0, step = 0.01)]
    rtol: f64,
    /// Error allowed in any case.
    #[input(default = 0.0078, range = 0.0..=100.0, step = 0.01)]
    atol: f64,
    /// Length of the first step.
    #[input(default = 0.05, range = 0.0..=100.0, step = 0.01)]
    h_init: f64,
    /// How much the error counts for the next step.
    #[input(default = 0.0, range = 0.0..=100.0, step = 0.01)]
    pcoeff: f64,
    /// How much the sum of errors counts for it.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    icoeff: f64,
    /// How much the change of the error counts for it.
    #[input(default = 0.0, range = 0.0..=100.0, step = 0.01)]
    dcoeff: f64,
    /// Steps are taken if they might have been this share of their length.
    #[input(default = 0.81, range = 0.0..=100.0, step = 0.01)]
    accept_safety: f64,
    /// How much fresh noise each step adds; 0 adds none.
    #[input(default = 0.0, range = 0.0..=100.0, step = 0.01)]
    eta: f64,
    /// How strong that noise is.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    s_noise: f64,
}

impl Run for SamplerDPMAdaptative {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        Ok(SamplerChoice(Walk::dpm_adaptive(Adaptive {
            order: if self.order == 2 { 2 } else { 3 },
            rtol: self.rtol as f32,
            atol: self.atol as f32,
            h_init: self.h_init as f32,
            pcoeff: self.pcoeff as f32,
            icoeff: self.icoeff as f32,
            dcoeff: self.dcoeff as f32,
            accept_safety: self.accept_safety as f32,
            eta: self.eta as f32,
            s_noise: self.s_noise as f32,
        })))
    }
}

/// DPM-Solver++(2M) with noise.
#[derive(Node)]
#[node(name = "SamplerDPMPP_2M_SDE", category = "sampling/custom_sampling/samplers")]
struct SamplerDPMPP2MSDE {
    /// How the last step is remembered.
    #[input(choices = ["midpoint", "heun"])]
    solver_type: Choice<String>,
    /// How much fresh noise each step adds; 0 adds none.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    eta: f64,
    /// How strong that noise is.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    s_noise: f64,
    /// Where noise is drawn; it is the same on every device here.
    #[expect(dead_code, reason = "noise is the same wherever it is drawn")]
    #[input(choices = ["gpu", "cpu"])]
    noise_device: Choice<String>,
}

impl Run for SamplerDPMPP2MSDE {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        Ok(SamplerChoice(Walk::dpmpp_2m_sde(self.eta as f32, self.s_noise as f32, self.solver_type.name() == "heun")))
    }
}

/// DPM-Solver++(2S) with noise.
#[derive(Node)]
#[node(name = "SamplerDPMPP_2S_Ancestral", category = "sampling/custom_sampling/samplers")]
struct SamplerDPMPP2SAncestral {
    /// How much fresh noise each step adds; 0 adds none.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    eta: f64,
    /// How strong that noise is.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    s_noise: f64,
}

impl Run for SamplerDPMPP2SAncestral {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        Ok(SamplerChoice(Walk::dpmpp_2s_ancestral(self.eta as f32, self.s_noise as f32)))
    }
}

/// DPM-Solver++(3M) with noise.
#[derive(Node)]
#[node(name = "SamplerDPMPP_3M_SDE", category = "sampling/custom_sampling/samplers")]
struct SamplerDPMPP3MSDE {
    /// How much fresh noise each step adds; 0 adds none.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    eta: f64,
    /// How strong that noise is.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    s_noise: f64,
    /// Where noise is drawn; it is the same on every device here.
    #[expect(dead_code, reason = "noise is the same wherever it is drawn")]
    #[input(choices = ["gpu", "cpu"])]
    noise_device: Choice<String>,
}

impl Run for SamplerDPMPP3MSDE {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        Ok(SamplerChoice(Walk::dpmpp_3m_sde(self.eta as f32, self.s_noise as f32)))
    }
}

/// DPM-Solver++ with noise.
#[derive(Node)]
#[node(name = "SamplerDPMPP_SDE", category = "sampling/custom_sampling/samplers")]
struct SamplerDPMPPSDE {
    /// How much fresh noise each step adds; 0 adds none.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    eta: f64,
    /// How strong that noise is.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    s_noise: f64,
    /// Where in a step the model is asked a second time.
    #[input(default = 0.5, range = 0.0..=100.0, step = 0.01)]
    r: f64,
    /// Where noise is drawn; it is the same on every device here.
    #[expect(dead_code, reason = "noise is the same wherever it is drawn")]
    #[input(choices = ["gpu", "cpu"])]
    noise_device: Choice<String>,
}

impl Run for SamplerDPMPPSDE {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        Ok(SamplerChoice(Walk::dpmpp_sde(self.eta as f32, self.s_noise as f32, self.r as f32)))
    }
}

/// Sampling of consistency models with latents that grow on the way: the picture is laid out small and drawn large.
///
/// Noise masks, masks of prompts and pictures that a model sees beside the latent keep their size, and do not go with it.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/samplers")]
struct SamplerLCMUpscale {
    /// How many times as wide and high the result is.
    #[input(default = 1.0, range = 0.1..=20.0, step = 0.01)]
    scale_ratio: f64,
    /// After how many steps the latent is as large as that; -1 for half of them.
    #[input(default = -1, range = -1..=1000, step = 1)]
    scale_steps: i32,
    /// How latents are made larger.
    #[input(choices = ENLARGING.iter().map(|method| method.name()))]
    upscale_method: Choice<Method>,
}

/// The ways of making latents larger, in the order in which ComfyUI offers them.
const ENLARGING: [Method; 5] = [Method::Bislerp, Method::NearestExact, Method::Bilinear, Method::Area, Method::Bicubic];

impl Run for SamplerLCMUpscale {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        let growths = usize::try_from(self.scale_steps).ok();
        Ok(SamplerChoice(Walk::lcm_enlarging(self.scale_ratio, growths, self.upscale_method.into_inner())))
    }
}

/// The extended reverse-time SDE solver.
#[derive(Node)]
#[node(name = "SamplerER_SDE", category = "sampling/custom_sampling/samplers")]
struct SamplerERSDE {
    /// How the noise that is kept falls.
    #[input(choices = ["ER-SDE", "Reverse-time SDE", "ODE"])]
    solver_type: Choice<String>,
    /// How many steps it remembers, itself included.
    #[input(default = 3, range = 1..=3)]
    max_stage: u32,
    /// How much fresh noise each step adds; 0 adds none.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    eta: f64,
    /// How strong that noise is.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    s_noise: f64,
}

impl Run for SamplerERSDE {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        let (scaler, s_noise) = match self.solver_type.name() {
            "ODE" => (Scaler::Power(0.0), 0.0),
            "Reverse-time SDE" if self.eta == 0.0 => (Scaler::Power(0.0), 0.0),
            "Reverse-time SDE" => (Scaler::Power(self.eta), self.s_noise),
            _ => (Scaler::Extended, self.s_noise),
        };
        Ok(SamplerChoice(Walk::er_sde(ErSde { scaler, stages: self.max_stage as usize, s_noise: s_noise as f32 })))
    }
}

/// Euler's method with noise.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/samplers")]
struct SamplerEulerAncestral {
    /// How much fresh noise each step adds; 0 adds none.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    eta: f64,
    /// How strong that noise is.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    s_noise: f64,
}

impl Run for SamplerEulerAncestral {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        Ok(SamplerChoice(Walk::euler_ancestral(self.eta as f32, self.s_noise as f32)))
    }
}

/// Euler's method with noise and CFG++.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/samplers", display_name = "SamplerEulerAncestralCFG++")]
struct SamplerEulerAncestralCFGPP {
    /// How much fresh noise each step adds; 0 adds none.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    eta: f64,
    /// How strong that noise is.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    s_noise: f64,
}

impl Run for SamplerEulerAncestralCFGPP {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        Ok(SamplerChoice(Walk::euler_ancestral_cfg_pp(self.eta as f32, self.s_noise as f32)))
    }
}

/// Linear multistep.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/samplers")]
struct SamplerLMS {
    /// How many slopes it looks back on.
    #[input(default = 4, range = 1..=100)]
    order: u32,
}

impl Run for SamplerLMS {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        Ok(SamplerChoice(Walk::lms(self.order as usize)))
    }
}

/// The stochastic Adams solver.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/samplers")]
struct SamplerSASolver {
    /// The model.
    model: Shared<Model>,
    /// How much fresh noise each step adds; 0 adds none.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    eta: f64,
    /// From this share of the way on it adds noise.
    #[input(default = 0.2, range = 0.0..=1.0, step = 0.001)]
    sde_start_percent: f64,
    /// Up to this share of the way it adds noise.
    #[input(default = 0.8, range = 0.0..=1.0, step = 0.001)]
    sde_end_percent: f64,
    /// How strong that noise is.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    s_noise: f64,
    /// How many steps the prediction rests on.
    #[input(default = 3, range = 1..=6)]
    predictor_order: u32,
    /// How many steps the correction rests on; 0 does not correct.
    #[input(default = 4, range = 0..=6)]
    corrector_order: u32,
    /// Whether to ask the model about the corrected latent, too.
    #[input(default = false)]
    use_pece: bool,
    /// Whether to use the simpler weights of order 2.
    #[input(default = false)]
    simple_order_2: bool,
}

impl Run for SamplerSASolver {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        let level = |percent: f64| self.model.sampling.percent_to_sigma(percent);
        Ok(SamplerChoice(Walk::sa_solver(SaSolver {
            eta: self.eta as f32,
            from: level(self.sde_start_percent),
            to: level(self.sde_end_percent),
            s_noise: self.s_noise as f32,
            predictor: self.predictor_order as usize,
            corrector: self.corrector_order as usize,
            evaluates_again: self.use_pece,
            simple: self.simple_order_2,
        })))
    }
}

/// SEEDS of two stages.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/samplers")]
struct SamplerSEEDS2 {
    /// Which integrals weigh the evaluations.
    #[input(choices = ["phi_1", "phi_2"])]
    solver_type: Choice<String>,
    /// How much fresh noise each step adds; 0 adds none.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    eta: f64,
    /// How strong that noise is.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    s_noise: f64,
    /// Where in a step the model is asked a second time.
    #[input(default = 0.5, range = 0.01..=1.0, step = 0.01)]
    r: f64,
}

impl Run for SamplerSEEDS2 {
    type Output = SamplerChoice;

    fn run(self, _: &Context<'_>) -> Result<SamplerChoice> {
        Ok(SamplerChoice(Walk::seeds_2(
            self.eta as f32,
            self.s_noise as f32,
            self.r as f32,
            if self.solver_type.name() == "phi_2" { Phi::Two } else { Phi::One },
        )))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use crate::tiny;
    use serde_json::json;

    #[test]
    fn what_cannot_grow_with_a_latent_is_told() {
        let bench = Bench::new();
        bench.write("models/checkpoints/tiny.safetensors", tiny::checkpoint());
        let run = |ratio: f64, latent: &str, positive: &str| {
            bench.run(json!({
                "load": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
                "bear": ["CLIPTextEncode", {"text": "a bear", "clip": ["load", 1]}],
                "mask": ["SolidMask", {"value": 0.5, "width": 64, "height": 64}],
                "part": ["ConditioningSetMask", {
                    "conditioning": ["bear", 0], "mask": ["mask", 0], "strength": 1.0, "set_cond_area": "default",
                }],
                "canvas": ["EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}],
                "masked": ["SetLatentNoiseMask", {"samples": ["canvas", 0], "mask": ["mask", 0]}],
                "growing": ["SamplerLCMUpscale", {"scale_ratio": ratio, "scale_steps": 1, "upscale_method": "bilinear"}],
                "levels": ["BasicScheduler", {"model": ["load", 0], "scheduler": "normal", "steps": 2, "denoise": 1.0}],
                "sample": ["SamplerCustom", {
                    "model": ["load", 0], "add_noise": true, "noise_seed": 5, "cfg": 1.0, "positive": [positive, 0],
                    "negative": ["bear", 0], "sampler": ["growing", 0], "sigmas": ["levels", 0], "latent_image": [latent, 0],
                }],
                "end": ["Catch", {"value": ["sample", 0]}],
            }))
        };
        for (latent, positive, what) in
            [("masked", "bear", "the noise mask has the size"), ("canvas", "part", "the mask of a prompt has the size")]
        {
            let outcome = run(1.5, latent, positive);
            let (node, error) = outcome.failure();
            assert_eq!(node, "sample");
            assert!(error.to_string().contains(what), "{error}");
            // Of a latent that does not grow, they are as good as ever.
            assert_eq!(run(1.0, latent, positive).value::<crate::wires::Latent>("end").dims(), (1, 4, 8, 8));
        }
        assert_eq!(run(1.5, "canvas", "bear").value::<crate::wires::Latent>("end").dims(), (1, 4, 12, 12));
    }
}
