//! Sampling in parts: noise, guidance, noise levels and algorithm as nodes of their own.

use crate::error::tell;
use crate::sampling::{Job, run};
use crate::wires::{Conditioning, Guider, Latent, Model, NoiseSource, SamplerChoice, Sigmas};
use paraflow_diffusion::fit_channels;
use paraflow_diffusion::guidance::Guidance;
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<AddNoise>(),
        NodeDef::of::<BasicGuider>(),
        NodeDef::of::<CFGGuider>(),
        NodeDef::of::<DualCFGGuider>(),
        NodeDef::of::<PerpNegGuider>(),
        NodeDef::of::<DisableNoise>(),
        NodeDef::of::<RandomNoise>(),
        NodeDef::of::<SamplerCustom>(),
        NodeDef::of::<SamplerCustomAdvanced>(),
    ]
}

/// Adds noise to latents, as much as lies between two noise levels.
#[derive(Node)]
#[node(category = "_for_testing/custom_sampling/noise", experimental)]
struct AddNoise {
    /// The model.
    model: Shared<Model>,
    /// The noise.
    noise: Shared<NoiseSource>,
    /// The noise levels.
    sigmas: Shared<Sigmas>,
    /// The latent to start from.
    latent_image: Shared<Latent>,
}

impl Run for AddNoise {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        if self.sigmas.0.is_empty() {
            return Ok(Latent::clone(&self.latent_image));
        }
        let model = self.model.as_guided(&[], usize::MAX);
        let (first, last) = (self.sigmas.0[0], self.sigmas.0[self.sigmas.0.len() - 1]);
        let scale = if self.sigmas.0.len() > 1 { (first - last).abs() } else { first };
        let latent = fit_channels(self.latent_image.samples(), &model).map_err(tell)?;
        let noise = self.noise.draw(&self.latent_image.with_samples(latent.clone()).map_err(tell)?).map_err(tell)?;
        let add = || -> Result<Latent, crate::Error> {
            let empty = latent.abs()?.sum_all()?.to_scalar::<f32>()? == 0.0;
            let scaled = if empty { latent } else { (latent * self.model.latent_scale)? };
            let noisy = self.model.sampling.add_noise(&scaled, &noise, scale, false)?;
            self.latent_image.with_samples((noisy / self.model.latent_scale)?)
        };
        add().map_err(tell)
    }
}

/// Follows one kind of prompts, without any to lead away from.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/guiders")]
struct BasicGuider {
    /// The model.
    model: Shared<Model>,
    /// What the picture should show.
    conditioning: Shared<Conditioning>,
}

impl Run for BasicGuider {
    type Output = Guider;

    fn run(self, _: &Context<'_>) -> Result<Guider> {
        Ok(Guider {
            model: Model::clone(&self.model),
            sides: vec![Conditioning::clone(&self.conditioning), Conditioning(Vec::new())],
            guidance: Guidance::Classifier { scale: 1.0 },
        })
    }
}

/// Leads from negative prompts to positive ones.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/guiders")]
struct CFGGuider {
    /// The model.
    model: Shared<Model>,
    /// What the picture should show.
    positive: Shared<Conditioning>,
    /// What it should not show.
    negative: Shared<Conditioning>,
    /// How strictly to follow the prompts; 1 does not look at the negative one.
    #[input(default = 8.0, range = 0.0..=100.0, step = 0.1, round = 0.01)]
    cfg: f64,
}

impl Run for CFGGuider {
    type Output = Guider;

    fn run(self, _: &Context<'_>) -> Result<Guider> {
        Ok(Guider {
            model: Model::clone(&self.model),
            sides: vec![Conditioning::clone(&self.positive), Conditioning::clone(&self.negative)],
            guidance: Guidance::Classifier { scale: self.cfg },
        })
    }
}

/// Leads from negative prompts over a second kind of prompts to a first.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/guiders")]
struct DualCFGGuider {
    /// The model.
    model: Shared<Model>,
    /// The first prompts.
    cond1: Shared<Conditioning>,
    /// The second prompts.
    cond2: Shared<Conditioning>,
    /// What it should not show.
    negative: Shared<Conditioning>,
    /// How far the first lead away from the second.
    #[input(default = 8.0, range = 0.0..=100.0, step = 0.1, round = 0.01)]
    cfg_conds: f64,
    /// How far the second lead away from the negative ones.
    #[input(default = 8.0, range = 0.0..=100.0, step = 0.1, round = 0.01)]
    cfg_cond2_negative: f64,
    /// `nested`: the first lead away before the negative ones are looked at.
    #[input(choices = ["regular", "nested"])]
    style: Choice<String>,
}

impl Run for DualCFGGuider {
    type Output = Guider;

    fn run(self, _: &Context<'_>) -> Result<Guider> {
        let nested = self.style.name() == "nested";
        Ok(Guider {
            model: Model::clone(&self.model),
            sides: [&self.cond1, &self.negative, &self.cond2].map(|side| Conditioning::clone(side)).to_vec(),
            guidance: Guidance::Dual { of_first: self.cfg_conds, of_second: self.cfg_cond2_negative, nested },
        })
    }
}

/// Leads away only from what negative prompts do not share with positive ones.
#[derive(Node)]
#[node(category = "_for_testing", experimental)]
struct PerpNegGuider {
    /// The model.
    model: Shared<Model>,
    /// What the picture should show.
    positive: Shared<Conditioning>,
    /// What it should not show.
    negative: Shared<Conditioning>,
    /// An empty prompt.
    empty_conditioning: Shared<Conditioning>,
    /// How strictly to follow the prompts; 1 does not look at the negative one.
    #[input(default = 8.0, range = 0.0..=100.0, step = 0.1, round = 0.01)]
    cfg: f64,
    /// How much the negative prompts count.
    #[input(default = 1.0, range = 0.0..=100.0, step = 0.01)]
    neg_scale: f64,
}

impl Run for PerpNegGuider {
    type Output = Guider;

    fn run(self, _: &Context<'_>) -> Result<Guider> {
        Ok(Guider {
            model: Model::clone(&self.model),
            sides: [&self.positive, &self.negative, &self.empty_conditioning]
                .map(|side| Conditioning::clone(side))
                .to_vec(),
            guidance: Guidance::Perpendicular { scale: self.cfg, negative: self.neg_scale },
        })
    }
}

/// No noise.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/noise")]
struct DisableNoise;

impl Run for DisableNoise {
    type Output = NoiseSource;

    fn run(self, _: &Context<'_>) -> Result<NoiseSource> {
        Ok(NoiseSource(None))
    }
}

/// Noise from a seed.
#[derive(Node)]
#[node(category = "sampling/custom_sampling/noise")]
struct RandomNoise {
    /// Which noise to start from. Equal seeds give equal pictures.
    #[input(default = 0, control_after_generate)]
    noise_seed: u64,
}

impl Run for RandomNoise {
    type Output = NoiseSource;

    fn run(self, _: &Context<'_>) -> Result<NoiseSource> {
        Ok(NoiseSource(Some(self.noise_seed)))
    }
}

/// Samples with an algorithm over noise levels of your own.
#[derive(Node)]
#[node(category = "sampling/custom_sampling", compute, outputs = ["output", "denoised_output"])]
struct SamplerCustom {
    /// The model.
    model: Shared<Model>,
    /// Whether to noise the latent first.
    #[input(default = true)]
    add_noise: bool,
    /// Which noise to start from. Equal seeds give equal pictures.
    #[input(default = 0, control_after_generate)]
    noise_seed: u64,
    /// How strictly to follow the prompts; 1 does not look at the negative one.
    #[input(default = 8.0, range = 0.0..=100.0, step = 0.1, round = 0.01)]
    cfg: f64,
    /// What the picture should show.
    positive: Shared<Conditioning>,
    /// What it should not show.
    negative: Shared<Conditioning>,
    /// The algorithm.
    sampler: Shared<SamplerChoice>,
    /// The noise levels.
    sigmas: Shared<Sigmas>,
    /// The latent to start from.
    latent_image: Shared<Latent>,
}

impl Run for SamplerCustom {
    type Output = (Latent, Latent);

    fn run(self, cx: &Context<'_>) -> Result<(Latent, Latent)> {
        let noise = NoiseSource(self.add_noise.then_some(self.noise_seed));
        let guider = Guider {
            model: Model::clone(&self.model),
            sides: vec![Conditioning::clone(&self.positive), Conditioning::clone(&self.negative)],
            guidance: Guidance::Classifier { scale: self.cfg },
        };
        let job = Job {
            guider: &guider,
            latent: &self.latent_image,
            noise: &noise,
            seed: self.noise_seed,
            sampler: &self.sampler,
            sigmas: &self.sigmas.0,
        };
        run(&job, cx)
    }
}

/// Samples with noise, guidance, algorithm and noise levels of your own.
#[derive(Node)]
#[node(category = "sampling/custom_sampling", compute, outputs = ["output", "denoised_output"])]
struct SamplerCustomAdvanced {
    /// The noise.
    noise: Shared<NoiseSource>,
    /// What leads.
    guider: Shared<Guider>,
    /// The algorithm.
    sampler: Shared<SamplerChoice>,
    /// The noise levels.
    sigmas: Shared<Sigmas>,
    /// The latent to start from.
    latent_image: Shared<Latent>,
}

impl Run for SamplerCustomAdvanced {
    type Output = (Latent, Latent);

    fn run(self, cx: &Context<'_>) -> Result<(Latent, Latent)> {
        let job = Job {
            guider: &self.guider,
            latent: &self.latent_image,
            noise: &self.noise,
            seed: self.noise.0.unwrap_or(0),
            sampler: &self.sampler,
            sigmas: &self.sigmas.0,
        };
        run(&job, cx)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use crate::tiny;
    use crate::wires::Latent;
    use serde_json::{Value, json};

    /// A tiny model with two prompts, an empty latent, and these nodes.
    fn graph(nodes: &Value) -> Value {
        let mut graph = json!({
            "load": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
            "bear": ["CLIPTextEncode", {"text": "a bear", "clip": ["load", 1]}],
            "cat": ["CLIPTextEncode", {"text": "a cat", "clip": ["load", 1]}],
            "blur": ["CLIPTextEncode", {"text": "blurry", "clip": ["load", 1]}],
            "canvas": ["EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 2}],
            "euler": ["KSamplerSelect", {"sampler_name": "euler_ancestral"}],
            "levels": ["BasicScheduler", {"model": ["load", 0], "scheduler": "karras", "steps": 4, "denoise": 1.0}],
            "noise": ["RandomNoise", {"noise_seed": 5}],
        });
        for (name, node) in nodes.as_object().unwrap() {
            graph[name] = node.clone();
        }
        graph
    }

    fn bench() -> Bench {
        let bench = Bench::new();
        bench.write("models/checkpoints/tiny.safetensors", tiny::checkpoint());
        bench
    }

    fn values(latent: &Latent) -> Vec<f32> {
        latent.samples().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_parts_together_do_what_the_whole_does() {
        let outcome = bench().run(graph(&json!({
            "whole": ["KSampler", {
                "model": ["load", 0], "seed": 5, "steps": 4, "cfg": 4.0, "sampler_name": "euler_ancestral",
                "scheduler": "karras", "positive": ["bear", 0], "negative": ["blur", 0], "latent_image": ["canvas", 0],
                "denoise": 1.0,
            }],
            "custom": ["SamplerCustom", {
                "model": ["load", 0], "add_noise": true, "noise_seed": 5, "cfg": 4.0, "positive": ["bear", 0],
                "negative": ["blur", 0], "sampler": ["euler", 0], "sigmas": ["levels", 0], "latent_image": ["canvas", 0],
            }],
            "guide": ["CFGGuider", {
                "model": ["load", 0], "positive": ["bear", 0], "negative": ["blur", 0], "cfg": 4.0,
            }],
            "advanced": ["SamplerCustomAdvanced", {
                "noise": ["noise", 0], "guider": ["guide", 0], "sampler": ["euler", 0], "sigmas": ["levels", 0],
                "latent_image": ["canvas", 0],
            }],
            "a": ["Catch", {"value": ["whole", 0]}],
            "b": ["Catch", {"value": ["custom", 0]}],
            "c": ["Catch", {"value": ["advanced", 0]}],
            "d": ["Catch", {"value": ["advanced", 1]}],
        })));
        let whole = values(&outcome.value::<Latent>("a"));
        assert_eq!(values(&outcome.value::<Latent>("b")), whole);
        assert_eq!(values(&outcome.value::<Latent>("c")), whole);
        // The last step leads to what the model took to be the clean latent.
        let denoised = values(&outcome.value::<Latent>("d"));
        assert!(
            denoised.iter().zip(&whole).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0)),
            "the last clean latent is the result"
        );
    }

    #[test]
    fn guiders_that_have_nothing_to_lead_away_from_agree() {
        let advanced = |guide: &str| {
            json!(["SamplerCustomAdvanced", {
                "noise": ["noise", 0], "guider": [guide, 0], "sampler": ["euler", 0], "sigmas": ["levels", 0],
                "latent_image": ["canvas", 0],
            }])
        };
        let outcome = bench().run(graph(&json!({
            "basic": ["BasicGuider", {"model": ["load", 0], "conditioning": ["bear", 0]}],
            "dual": ["DualCFGGuider", {
                "model": ["load", 0], "cond1": ["bear", 0], "cond2": ["cat", 0], "negative": ["blur", 0], "cfg_conds": 1.0,
                "cfg_cond2_negative": 1.0, "style": "regular",
            }],
            "nested": ["DualCFGGuider", {
                "model": ["load", 0], "cond1": ["bear", 0], "cond2": ["cat", 0], "negative": ["blur", 0], "cfg_conds": 1.0,
                "cfg_cond2_negative": 1.0, "style": "nested",
            }],
            "square": ["PerpNegGuider", {
                "model": ["load", 0], "positive": ["bear", 0], "negative": ["blur", 0], "empty_conditioning": ["cat", 0],
                "cfg": 1.0, "neg_scale": 0.0,
            }],
            "1": advanced("basic"), "2": advanced("dual"), "3": advanced("nested"), "4": advanced("square"),
            "a": ["Catch", {"value": ["1", 0]}],
            "b": ["Catch", {"value": ["2", 0]}],
            "c": ["Catch", {"value": ["3", 0]}],
            "d": ["Catch", {"value": ["4", 0]}],
        })));
        let basic = values(&outcome.value::<Latent>("a"));
        for name in ["b", "c", "d"] {
            let other = values(&outcome.value::<Latent>(name));
            let worst = basic.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-2, "{name}: {worst}");
            assert!(other.iter().all(|value| value.is_finite()));
        }
    }
}
