//! The trainers as nodes: PaRa, LoRA, SVDiff.

use super::common::{Common, DecayName, PrecisionName};
use super::result;
use super::watcher::Samples;
use crate::wires::{Clip, Image, Lora, Losses, Model, Para, SpectralShifts, Subject, Vae};
use paraflow_diffusion::train::{Init, Method, ParaMode, Settings};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<PaRaTrain>(), NodeDef::of::<LoRATrain>(), NodeDef::of::<SVDiffTrain>()]
}

/// Declares a trainer: what it takes beside its own inputs is the same for all.
macro_rules! trainer {
    ($(#[$meta:meta])* struct $name:ident { $($own:tt)* }) => {
        $(#[$meta])*
        struct $name {
            /// The model to train on. It stays as it is; the result is put on it afterwards. With adapters already on it,
            /// the training builds on them.
            model: Shared<Model>,
            /// The text encoder that reads the captions.
            clip: Shared<Clip>,
            /// The autoencoder that turns the pictures into latents.
            vae: Shared<Vae>,
            /// The pictures to learn, from `LoadSubject`.
            subject: Shared<Subject>,
            $($own)*
            /// Which layers are trained: `exca` (all but cross-attention), `exsa`, `sao`, `cao`, `cao_qkv`, `full`, `mid`,
            /// `mid_last`, `wide`, `all`, or patterns such as `*attn1.to_q, middle_block.*`.
            #[input(default = "exca")]
            layers: String,
            /// How many steps to train. More is closer to the pictures, and follows prompts less.
            #[input(default = 400, range = 1..=1_000_000)]
            steps: u32,
            /// Pictures a step. More makes each step steadier and slower.
            #[input(default = 4, range = 1..=256)]
            batch_size: u32,
            /// How many batches make one step: as a larger batch, with the memory of a small one.
            #[input(default = 1, range = 1..=1024, advanced)]
            grad_accumulation_steps: u32,
            /// Whether the learning rate stays, or falls to zero along a cosine.
            #[input(default = "constant", choices = ["constant", "cosine"], advanced)]
            schedule: Choice<DecayName>,
            /// Steps in which the learning rate rises to its value.
            #[input(default = 0, range = 0..=1_000_000, advanced)]
            warmup: u32,
            /// Which random numbers. Equal seeds give equal results, to the byte.
            #[input(default = 0, control_after_generate)]
            seed: u64,
            /// The longest gradient; longer ones are cut, so that one odd picture does little harm. 0 cuts none.
            #[input(default = 1.0, range = 0.0..=1000.0, step = 0.1, advanced)]
            clip_gradient: f64,
            /// How fast trained numbers fall to zero by themselves. PaRa needs none: it has no size, only directions.
            #[input(default = 0.0, range = 0.0..=10.0, step = 0.001, advanced)]
            weight_decay: f64,
            /// Weighs noise levels so that none rules the training (min-SNR); 5 is usual. 0 weighs all alike.
            #[input(default = 0.0, range = 0.0..=100.0, step = 0.5, advanced)]
            min_snr_gamma: f64,
            /// Lets the noise differ in its mean, which helps with very dark and very bright pictures; 0.05 is much.
            #[input(default = 0.0, range = 0.0..=1.0, step = 0.01, advanced)]
            noise_offset: f64,
            /// The share of pictures that are trained without their caption, which keeps guidance working.
            #[input(default = 0.0, range = 0.0..=1.0, step = 0.05, advanced)]
            caption_dropout: f64,
            /// Keeps a running mean of what is trained, which is then the result: 0.99 remembers about a hundred steps. 0
            /// takes the last step.
            #[input(default = 0.0, range = 0.0..=0.9999, step = 0.001, advanced)]
            ema: f64,
            /// The numbers that the frozen network multiplies in: as the program draws (`model`), `f32`, or `bf16`, which is faster
            /// where the machine has instructions for it. What is trained is always f32.
            #[input(default = "model", choices = ["model", "f32", "bf16"], advanced)]
            precision: Choice<PrecisionName>,
            /// Works half of each step out twice instead of keeping it: less memory, about a third more time.
            #[input(default = false, advanced)]
            gradient_checkpointing: bool,
            /// Steps between two measurements of the loss on noise that stays the same: the curve to look at. 0 measures
            /// none.
            #[input(default = 25, range = 0..=1_000_000)]
            validate_every: u32,
            /// What to paint while training, to see how far it is. `{unique}` and `{class}` are filled in.
            #[input(default = "a {unique} {class}", multiline)]
            sample_prompt: String,
            /// Steps between two sample pictures. 0 paints none.
            #[input(default = 0, range = 0..=1_000_000)]
            sample_every: u32,
            /// In how many steps a sample picture is painted.
            #[input(default = 20, range = 1..=1000, advanced)]
            sample_steps: u32,
            /// How strictly sample pictures follow their prompt.
            #[input(default = 4.0, range = 0.0..=100.0, step = 0.1, advanced)]
            sample_cfg: f64,
            /// The name of a file in the output folder that keeps the training's state, so that it can go on after a stop, a
            /// crash or a power cut. Left empty, the state is kept out of sight, and only until the graph is done.
            #[input(default = "")]
            state: String,
            /// Steps between two writings of the state. 0 writes it at the end and when the training is stopped.
            #[input(default = 50, range = 0..=1_000_000, advanced)]
            save_every: u32,
            /// Whether to go on from the state if it is there. The result has the same bytes as if nothing had happened.
            #[input(default = true, advanced)]
            resume: bool,
            /// How much pictures of the class count beside those of the individual.
            #[input(default = 1.0, range = 0.0..=100.0, step = 0.1, advanced)]
            prior_weight: f64,
            /// The caption of class pictures. `{class}` is filled in.
            #[input(default = "a {class}", advanced)]
            class_caption: String,
            /// Pictures of the class, made by the same model, so that it does not take this individual for all of its
            /// class.
            class_images: Option<Shared<Image>>,
        }

        impl $name {
            /// What it has in common with other trainers.
            fn common(&self, method: Method) -> Common<'_> {
                let settings = Settings {
                    method,
                    layers: Vec::new(),
                    steps: self.steps as usize,
                    batch: self.batch_size as usize,
                    accumulate: self.grad_accumulation_steps as usize,
                    warmup: self.warmup as usize,
                    decay: self.schedule.0,
                    betas: (0.9, 0.999),
                    epsilon: 1e-8,
                    weight_decay: self.weight_decay,
                    clip: self.clip_gradient,
                    min_snr: self.min_snr_gamma,
                    noise_offset: self.noise_offset,
                    caption_dropout: self.caption_dropout,
                    prior_weight: self.prior_weight,
                    ema: self.ema,
                    checkpointing: self.gradient_checkpointing,
                    validate_every: self.validate_every as usize,
                    sample_every: self.sample_every as usize,
                    seed: self.seed,
                };
                Common {
                    model: &self.model,
                    clip: &self.clip,
                    vae: &self.vae,
                    subject: &self.subject,
                    class_images: self.class_images.as_deref(),
                    class_caption: &self.class_caption,
                    layers: &self.layers,
                    sample_prompt: &self.sample_prompt,
                    sample_steps: self.sample_steps,
                    sample_cfg: self.sample_cfg,
                    state: &self.state,
                    save_every: self.save_every,
                    resume: self.resume,
                    precision: self.precision.0,
                    settings,
                }
            }
        }
    };
}

/// What of a PaRa is trained.
#[derive(Clone, Copy)]
struct Mode(ParaMode);

impl std::str::FromStr for Mode {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        Ok(Self(match name {
            "projection" => ParaMode::Projection,
            "release" => ParaMode::Release,
            "deft" => ParaMode::Deft,
            _ => return Err("no such mode"),
        }))
    }
}

/// Where the directions of a PaRa start.
#[derive(Clone, Copy)]
struct InitName(Init);

impl std::str::FromStr for InitName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        Ok(Self(match name {
            "random" => Init::Random,
            "min_energy" => Init::MinEnergy,
            "unit" => Init::Unit,
            _ => return Err("no such start"),
        }))
    }
}

trainer! {
    /// Teaches a model an individual by taking a few directions out of its layers (PaRa, Parameter Rank Reduction).
    ///
    /// The result takes half the numbers of a LoRA, and cannot add anything that the model could not already paint.
    #[derive(Node)]
    #[node(category = "personalize", display_name = "Train PaRa", compute, outputs = ["para", "loss", "samples"])]
    struct PaRaTrain {
        /// How many directions are taken out of each layer.
        #[input(default = 8, range = 1..=1024)]
        rank: u32,
        /// The largest share of a layer's outputs that may be taken out. Narrow models need about 0.125, Stable Diffusion
        /// 0.025.
        #[input(default = 0.125, range = 0.001..=1.0, step = 0.001)]
        gamma: f64,
        /// How far the directions turn in a step, in radians: the learning rate of a PaRa. 0.4 was best on Toyland; wide
        /// models want far less.
        #[input(default = 0.4, range = 0.000_001..=10.0, step = 0.001, round = 0.000_001)]
        angular_rate: f64,
        /// `projection` is PaRa. `release` also trains what is taken out, as the paper's program does, and `deft` puts
        /// something else in its place: both give a LoRA, and learn what a projection cannot.
        #[input(default = "projection", choices = ["projection", "release", "deft"])]
        mode: Choice<Mode>,
        /// Which directions to start from: drawn ones, those in which the layer has the least to say, or the first ones.
        #[input(default = "random", choices = ["random", "min_energy", "unit"], advanced)]
        init: Choice<InitName>,
    }
}

trainer! {
    /// Teaches a model an individual, or a style, by adding thin matrices to its layers (LoRA).
    #[derive(Node)]
    #[node(category = "personalize", display_name = "Train LoRA", compute, outputs = ["lora_model", "loss", "samples"])]
    struct LoRATrain {
        /// Width of the thin matrices: more can learn more, and takes more room.
        #[input(default = 4, range = 1..=1024)]
        rank: u32,
        /// The weight of what is added, times the rank. As large as the rank, the learning rate means the same for every
        /// rank.
        #[input(default = 4.0, range = 0.001..=1024.0, step = 0.5, round = 0.001)]
        alpha: f64,
        /// How far each step goes.
        #[input(default = 0.001, range = 0.000_000_1..=1.0, step = 0.0001, round = 0.000_000_1)]
        learning_rate: f64,
    }
}

trainer! {
    /// Teaches a model an individual by shifting the singular values of its layers (SVDiff): the smallest files of all.
    #[derive(Node)]
    #[node(category = "personalize", display_name = "Train SVDiff", compute, outputs = ["svdiff", "loss", "samples"])]
    struct SVDiffTrain {
        /// How far each step goes.
        #[input(default = 0.01, range = 0.000_000_1..=1.0, step = 0.001, round = 0.000_000_1)]
        learning_rate: f64,
    }
}

impl Run for PaRaTrain {
    type Output = (Para, Losses, Samples);

    fn run(self, cx: &Context<'_>) -> Result<Self::Output> {
        let method = Method::Para {
            mode: self.mode.0,
            rank: self.rank as usize,
            gamma: self.gamma,
            init: self.init.0,
            angular_rate: self.angular_rate,
        };
        self.common(method).run(format!("PaRa {}", self.rank), result::para, cx)
    }
}

impl Run for LoRATrain {
    type Output = (Lora, Losses, Samples);

    fn run(self, cx: &Context<'_>) -> Result<Self::Output> {
        let method = Method::Lora { rank: self.rank as usize, alpha: self.alpha, rate: self.learning_rate };
        self.common(method).run(format!("LoRA {}", self.rank), result::lora, cx)
    }
}

impl Run for SVDiffTrain {
    type Output = (SpectralShifts, Losses, Samples);

    fn run(self, cx: &Context<'_>) -> Result<Self::Output> {
        let method = Method::SvDiff { rate: self.learning_rate };
        self.common(method).run("SVDiff".to_owned(), result::shifts, cx)
    }
}
