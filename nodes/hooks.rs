//! Changes of weights that go with prompts: what they are, how strong they are when, and how text encoders get them.

use crate::error::{Error, tell};
use crate::files::{Checkpoints, ModelName};
use crate::loaders;
use crate::personalize::{Loras, load_lora};
use crate::wires::{Clip, Floats, HookKeyframes, TimestepsRange, WeightHooks};
use paraflow_diffusion::checkpoint::Checkpoint;
use paraflow_diffusion::hooks::{Change, Hooks, Keyframe, Keyframes, WeightHook};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<CombineHooks2>(),
        NodeDef::of::<CombineHooks4>(),
        NodeDef::of::<CombineHooks8>(),
        NodeDef::of::<ConditioningTimestepsRange>(),
        NodeDef::of::<CreateHookKeyframe>(),
        NodeDef::of::<CreateHookKeyframesFromFloats>(),
        NodeDef::of::<CreateHookKeyframesInterpolated>(),
        NodeDef::of::<CreateHookLora>(),
        NodeDef::of::<CreateHookLoraModelOnly>(),
        NodeDef::of::<CreateHookModelAsLora>(),
        NodeDef::of::<CreateHookModelAsLoraModelOnly>(),
        NodeDef::of::<SetClipHooks>(),
        NodeDef::of::<SetHookKeyframes>(),
    ]
}

/// Hooks that may not be there.
type Maybe = Option<Shared<WeightHooks>>;

fn of(hooks: &Maybe) -> Hooks {
    hooks.as_ref().map(|hooks| hooks.0.clone()).unwrap_or_default()
}

/// Hooks of a change after those before; only those before where it has no strength.
fn after(
    before: &Maybe,
    strengths: [f64; 2],
    name: &str,
    change: impl FnOnce() -> Result<Change>,
) -> Result<WeightHooks> {
    let [on_unet, on_text] = strengths;
    if strengths == [0.0, 0.0] {
        return Ok(WeightHooks(of(before)));
    }
    let hook = Hooks::of(WeightHook { name: name.to_owned(), change: change()?, on_unet, on_text });
    Ok(WeightHooks(of(before).and(&hook)))
}

/// A LoRA for some prompts only: the model has it while it is asked about them.
#[derive(Node)]
#[node(category = "advanced/hooks/create", display_name = "Create Hook LoRA", experimental)]
struct CreateHookLora {
    /// The LoRA, from `models/loras`.
    lora_name: ModelName<Loras>,
    /// How much of it the model gets. It can be negative.
    #[input(default = 1.0, range = -20.0..=20.0, step = 0.01)]
    strength_model: f64,
    /// How much of it the text encoder gets, where hooks are set on one. It can be negative.
    #[input(default = 1.0, range = -20.0..=20.0, step = 0.01)]
    strength_clip: f64,
    /// Hooks that act before it.
    prev_hooks: Maybe,
}

impl Run for CreateHookLora {
    type Output = WeightHooks;

    fn run(self, cx: &Context<'_>) -> Result<WeightHooks> {
        let strengths = [self.strength_model, self.strength_clip];
        after(&self.prev_hooks, strengths, self.lora_name.name(), || lora(&self.lora_name, cx))
    }
}

/// A LoRA for some prompts only, on the model alone.
#[derive(Node)]
#[node(category = "advanced/hooks/create", display_name = "Create Hook LoRA (MO)", experimental)]
struct CreateHookLoraModelOnly {
    /// The LoRA, from `models/loras`.
    lora_name: ModelName<Loras>,
    /// How much of it the model gets. It can be negative.
    #[input(default = 1.0, range = -20.0..=20.0, step = 0.01)]
    strength_model: f64,
    /// Hooks that act before it.
    prev_hooks: Maybe,
}

impl Run for CreateHookLoraModelOnly {
    type Output = WeightHooks;

    fn run(self, cx: &Context<'_>) -> Result<WeightHooks> {
        let strengths = [self.strength_model, 0.0];
        after(&self.prev_hooks, strengths, self.lora_name.name(), || lora(&self.lora_name, cx))
    }
}

fn lora(name: &ModelName<Loras>, cx: &Context<'_>) -> Result<Change> {
    Ok(Change::Lora(load_lora(name, cx).map_err(tell)?.0))
}

/// Another checkpoint for some prompts only: the model moves towards it while it is asked about them.
///
/// Of the same architecture. At a strength of 1 its weights take the place of the model's, with the model's adapters on top.
#[derive(Node)]
#[node(category = "advanced/hooks/create", display_name = "Create Hook Model as LoRA", experimental)]
struct CreateHookModelAsLora {
    /// The checkpoint, from `models/checkpoints`.
    ckpt_name: ModelName<Checkpoints>,
    /// How far the model moves. It can be negative.
    #[input(default = 1.0, range = -20.0..=20.0, step = 0.01)]
    strength_model: f64,
    /// How far the text encoder moves, where hooks are set on one. It can be negative.
    #[input(default = 1.0, range = -20.0..=20.0, step = 0.01)]
    strength_clip: f64,
    /// Hooks that act before it.
    prev_hooks: Maybe,
}

impl Run for CreateHookModelAsLora {
    type Output = WeightHooks;

    fn run(self, cx: &Context<'_>) -> Result<WeightHooks> {
        let strengths = [self.strength_model, self.strength_clip];
        after(&self.prev_hooks, strengths, self.ckpt_name.name(), || model(&self.ckpt_name, cx))
    }
}

/// Another checkpoint for some prompts only, for the model alone.
#[derive(Node)]
#[node(category = "advanced/hooks/create", display_name = "Create Hook Model as LoRA (MO)", experimental)]
struct CreateHookModelAsLoraModelOnly {
    /// The checkpoint, from `models/checkpoints`.
    ckpt_name: ModelName<Checkpoints>,
    /// How far the model moves. It can be negative.
    #[input(default = 1.0, range = -20.0..=20.0, step = 0.01)]
    strength_model: f64,
    /// Hooks that act before it.
    prev_hooks: Maybe,
}

impl Run for CreateHookModelAsLoraModelOnly {
    type Output = WeightHooks;

    fn run(self, cx: &Context<'_>) -> Result<WeightHooks> {
        let strengths = [self.strength_model, 0.0];
        after(&self.prev_hooks, strengths, self.ckpt_name.name(), || model(&self.ckpt_name, cx))
    }
}

fn model(name: &ModelName<Checkpoints>, cx: &Context<'_>) -> Result<Change> {
    let load = || -> Result<Change, Error> {
        let weights = loaders::open(&name.find(cx.services())?)?.on(&loaders::compute(cx.services()));
        let checkpoint = Checkpoint::from_weights(weights)?;
        let encoders = loaders::unless_missing(checkpoint.clip())?.ok();
        Ok(Change::Model { unet: Some(Box::new(checkpoint.unet()?)), encoders })
    };
    load().map_err(tell)
}

/// Lets hooks follow keyframes: how strong they are when.
#[derive(Node)]
#[node(category = "advanced/hooks/scheduling", display_name = "Set Hook Keyframes", experimental)]
struct SetHookKeyframes {
    /// The hooks.
    hooks: Shared<WeightHooks>,
    /// The keyframes, in place of those that they have.
    hook_kf: Option<Shared<HookKeyframes>>,
}

impl Run for SetHookKeyframes {
    type Output = WeightHooks;

    fn run(self, _: &Context<'_>) -> Result<WeightHooks> {
        Ok(match &self.hook_kf {
            Some(keyframes) => WeightHooks(self.hooks.0.following(&keyframes.0)),
            None => WeightHooks::clone(&self.hooks),
        })
    }
}

fn keyframes_of(before: Option<&Shared<HookKeyframes>>) -> Keyframes {
    before.map(|keyframes| keyframes.0.clone()).unwrap_or_default()
}

/// One more keyframe: from when on hooks have which strength.
#[derive(Node)]
#[node(category = "advanced/hooks/scheduling", display_name = "Create Hook Keyframe", outputs = ["HOOK_KF"], experimental)]
struct CreateHookKeyframe {
    /// What the strength of a hook is multiplied by.
    #[input(default = 1.0, range = -20.0..=20.0, step = 0.01)]
    strength_mult: f64,
    /// From here on, 0 being pure noise and 1 the finished picture.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.001)]
    start_percent: f64,
    /// Keyframes that it comes to.
    prev_hook_kf: Option<Shared<HookKeyframes>>,
}

impl Run for CreateHookKeyframe {
    type Output = HookKeyframes;

    fn run(self, _: &Context<'_>) -> Result<HookKeyframes> {
        let keyframe = Keyframe { strength: self.strength_mult, start: self.start_percent, levels: 1 };
        Ok(HookKeyframes(keyframes_of(self.prev_hook_kf.as_ref()).with(keyframe)))
    }
}

/// How strengths go from the first keyframe to the last.
#[derive(Clone, Copy, PartialEq)]
enum Interpolation {
    Linear,
    EaseIn,
    EaseOut,
    EaseInOut,
}

impl std::str::FromStr for Interpolation {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name {
            "linear" => Ok(Self::Linear),
            "ease_in" => Ok(Self::EaseIn),
            "ease_out" => Ok(Self::EaseOut),
            "ease_in_out" => Ok(Self::EaseInOut),
            _ => Err("no such way"),
        }
    }
}

impl Interpolation {
    /// `count` numbers from one to another, in single precision as ComfyUI has them.
    fn numbers(self, from: f64, to: f64, count: usize) -> Vec<f64> {
        if self == Self::Linear {
            return evenly(from as f32, to as f32, count);
        }
        let (from, way) = (from as f32, (to - from) as f32);
        let eased = |share: f64| {
            let share = share as f32;
            let eased = match self {
                Self::Linear => share,
                Self::EaseIn => share * share,
                Self::EaseOut => 1.0 - (1.0 - share) * (1.0 - share),
                Self::EaseInOut => (1.0 - (share * std::f32::consts::PI).cos()) / 2.0,
            };
            f64::from(way * eased + from)
        };
        evenly(0.0, 1.0, count).into_iter().map(eased).collect()
    }
}

/// Numbers in even steps, both ends included, as torch's `linspace`: each half is counted from its own end.
fn evenly(from: f32, to: f32, count: usize) -> Vec<f64> {
    let step = if count > 1 { (to - from) / (count - 1) as f32 } else { 0.0 };
    let number = |i: usize| {
        if i < count / 2 || count == 1 { from + step * i as f32 } else { to - step * (count - 1 - i) as f32 }
    };
    (0..count).map(|i| f64::from(number(i))).collect()
}

/// Keyframes of these strengths in even steps; only the first stays for a level whatever comes.
fn in_steps(
    before: Keyframes,
    strengths: &[f64],
    [start, end]: [f64; 2],
    says: bool,
    cx: &Context<'_>,
) -> HookKeyframes {
    let starts = Interpolation::Linear.numbers(start, end, strengths.len());
    let frames = starts.into_iter().zip(strengths).enumerate();
    let frames =
        frames.map(|(i, (start, strength))| Keyframe { strength: *strength, start, levels: usize::from(i == 0) });
    let mut keyframes = before;
    for frame in frames {
        if says {
            cx.warn(format!("keyframe from {} on: strength {}", frame.start, frame.strength));
        }
        keyframes = keyframes.with(frame);
    }
    HookKeyframes(keyframes)
}

/// Keyframes between two strengths, in even steps of the way.
#[derive(Node)]
#[node(category = "advanced/hooks/scheduling", display_name = "Create Hook Keyframes Interp.", outputs = ["HOOK_KF"], experimental)]
struct CreateHookKeyframesInterpolated {
    /// The first strength.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.001)]
    strength_start: f64,
    /// The last one.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.001)]
    strength_end: f64,
    /// Whether strengths change evenly, slowly at first, slowly in the end, or both.
    #[input(choices = ["linear", "ease_in", "ease_out", "ease_in_out"])]
    interpolation: Choice<Interpolation>,
    /// Where the first keyframe begins, 0 being pure noise.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.001)]
    start_percent: f64,
    /// Where the last one begins, 1 being the finished picture.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.001)]
    end_percent: f64,
    /// How many there are.
    #[input(default = 5, range = 2..=100, step = 1)]
    keyframes_count: u32,
    /// Whether to tell what they came to.
    #[input(default = false)]
    print_keyframes: bool,
    /// Keyframes that they come to.
    prev_hook_kf: Option<Shared<HookKeyframes>>,
}

impl Run for CreateHookKeyframesInterpolated {
    type Output = HookKeyframes;

    fn run(self, cx: &Context<'_>) -> Result<HookKeyframes> {
        let count = self.keyframes_count as usize;
        let strengths = self.interpolation.numbers(self.strength_start, self.strength_end, count);
        let span = [self.start_percent, self.end_percent];
        Ok(in_steps(keyframes_of(self.prev_hook_kf.as_ref()), &strengths, span, self.print_keyframes, cx))
    }
}

/// Keyframes of given strengths, in even steps of the way.
#[derive(Node)]
#[node(category = "advanced/hooks/scheduling", display_name = "Create Hook Keyframes From Floats", outputs = ["HOOK_KF"], experimental)]
struct CreateHookKeyframesFromFloats {
    /// The strengths, one for each keyframe.
    #[input(force_input)]
    floats_strength: Shared<Floats>,
    /// Where the first keyframe begins, 0 being pure noise.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.001)]
    start_percent: f64,
    /// Where the last one begins, 1 being the finished picture.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.001)]
    end_percent: f64,
    /// Whether to tell what they came to.
    #[input(default = false)]
    print_keyframes: bool,
    /// Keyframes that they come to.
    prev_hook_kf: Option<Shared<HookKeyframes>>,
}

impl Run for CreateHookKeyframesFromFloats {
    type Output = HookKeyframes;

    fn run(self, cx: &Context<'_>) -> Result<HookKeyframes> {
        let span = [self.start_percent, self.end_percent];
        let before = keyframes_of(self.prev_hook_kf.as_ref());
        Ok(in_steps(before, &self.floats_strength.0, span, self.print_keyframes, cx))
    }
}

/// Nodes that join hooks: as many inputs as they have names.
macro_rules! combine {
    ($(#[$about:meta])* $node:ident, $shown:literal: $($field:ident $name:literal),*) => {
        $(#[$about])*
        #[derive(Node)]
        #[node(category = "advanced/hooks/combine", display_name = $shown, experimental)]
        struct $node {
            $(
                /// Some hooks. Those that are there already do not count again.
                #[input(name = $name)]
                $field: Maybe,
            )*
        }

        impl Run for $node {
            type Output = WeightHooks;

            fn run(self, _: &Context<'_>) -> Result<WeightHooks> {
                let all = [$(of(&self.$field)),*];
                Ok(WeightHooks(all.iter().fold(Hooks::default(), |hooks, more| hooks.and(more))))
            }
        }
    };
}

combine! {
    /// Joins hooks: they act one after another.
    CombineHooks2, "Combine Hooks [2]": hooks_a "hooks_A", hooks_b "hooks_B"
}
combine! {
    /// Joins up to four sets of hooks: they act one after another.
    CombineHooks4, "Combine Hooks [4]": hooks_a "hooks_A", hooks_b "hooks_B", hooks_c "hooks_C", hooks_d "hooks_D"
}
combine! {
    /// Joins up to eight sets of hooks: they act one after another.
    CombineHooks8, "Combine Hooks [8]": hooks_a "hooks_A", hooks_b "hooks_B", hooks_c "hooks_C", hooks_d "hooks_D", hooks_e "hooks_E", hooks_f "hooks_F", hooks_g "hooks_G", hooks_h "hooks_H"
}

/// Puts hooks on a text encoder, and on the prompts that it encodes.
#[derive(Node)]
#[node(category = "advanced/hooks/clip", display_name = "Set CLIP Hooks", experimental)]
struct SetClipHooks {
    /// The text encoder.
    clip: Shared<Clip>,
    /// Whether prompts bring the hooks along for the model.
    #[input(default = true)]
    apply_to_conds: bool,
    /// Whether the encoder follows their keyframes: a prompt is encoded anew for each part of the way.
    #[input(default = false)]
    schedule_clip: bool,
    /// The hooks, in place of those that the encoder has.
    hooks: Maybe,
}

impl Run for SetClipHooks {
    type Output = Clip;

    fn run(self, _: &Context<'_>) -> Result<Clip> {
        let mut clip = Clip::clone(&self.clip);
        if let Some(hooks) = &self.hooks {
            clip.hooks = clip.hooks.set(&hooks.0, self.schedule_clip, self.apply_to_conds);
        }
        Ok(clip)
    }
}

/// A part of the way from noise to picture, with what lies before and after it.
#[derive(Node)]
#[node(
    category = "advanced/hooks",
    display_name = "Timesteps Range",
    outputs = ["TIMESTEPS_RANGE", "BEFORE_RANGE", "AFTER_RANGE"],
    experimental
)]
struct ConditioningTimestepsRange {
    /// From here on, 0 being pure noise.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.001)]
    start_percent: f64,
    /// Up to here, 1 being the finished picture.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.001)]
    end_percent: f64,
}

impl Run for ConditioningTimestepsRange {
    type Output = (TimestepsRange, TimestepsRange, TimestepsRange);

    fn run(self, _: &Context<'_>) -> Result<Self::Output> {
        let (start, end) = (self.start_percent, self.end_percent);
        Ok((TimestepsRange([start, end]), TimestepsRange([0.0, start]), TimestepsRange([end, 1.0])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Taken from ComfyUI's `InterpolationMethod.get_weights`.
    #[test]
    fn strengths_between_two_are_comfyuis() {
        let close = |found: Vec<f64>, expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-7, "{found} instead of {expected}");
            }
        };
        close(Interpolation::Linear.numbers(1.0, 0.0, 5), &[1.0, 0.75, 0.5, 0.25, 0.0]);
        close(Interpolation::EaseIn.numbers(0.0, 2.0, 5), &[0.0, 0.125, 0.5, 1.125, 2.0]);
        close(Interpolation::EaseOut.numbers(0.0, 2.0, 5), &[0.0, 0.875, 1.5, 1.875, 2.0]);
        close(Interpolation::EaseInOut.numbers(1.0, 0.0, 3), &[1.0, 0.5, 0.0]);
        close(Interpolation::EaseInOut.numbers(0.0, 1.0, 5), &[0.0, 0.146_446_6, 0.5, 0.853_553_4, 1.0]);
    }
}
