//! Properties of prompts set together: hooks, masks, a part of the way; one prompt or a positive and a negative one.

use crate::conditioning::MaskArea;
use crate::wires::{Conditioning, Mask, TimestepsRange, WeightHooks};
use paraflow_diffusion::guidance;
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<ConditioningSetDefaultCombine>(),
        NodeDef::of::<ConditioningSetProperties>(),
        NodeDef::of::<ConditioningSetPropertiesAndCombine>(),
        NodeDef::of::<PairConditioningCombine>(),
        NodeDef::of::<PairConditioningSetDefaultCombine>(),
        NodeDef::of::<PairConditioningSetProperties>(),
        NodeDef::of::<PairConditioningSetPropertiesAndCombine>(),
    ]
}

/// What a prompt is given; what is not there, it keeps.
struct Properties {
    strength: f64,
    area: MaskArea,
    mask: Option<Shared<Mask>>,
    hooks: Option<Shared<WeightHooks>>,
    timesteps: Option<Shared<TimestepsRange>>,
}

impl Properties {
    fn set(&self, conditioning: &Conditioning) -> Conditioning {
        let mask = self.mask.as_ref().map(|mask| guidance::Mask {
            values: mask.values().clone(),
            strength: self.strength,
            is_area: self.area == MaskArea::Bounds,
        });
        let hooked = hooked(conditioning, self.hooks.as_ref());
        hooked.map(|condition| {
            if let Some(mask) = &mask {
                condition.mask = Some(mask.clone());
            }
            if let Some(range) = &self.timesteps {
                [condition.start, condition.end] = range.0;
            }
        })
    }
}

/// Prompts with hooks after those that they have.
fn hooked(conditioning: &Conditioning, hooks: Option<&Shared<WeightHooks>>) -> Conditioning {
    let Some(hooks) = hooks else { return conditioning.clone() };
    conditioning.map(|condition| condition.hooks = condition.hooks.and(&hooks.0))
}

/// Prompts that count where others leave room.
fn filling_in(conditioning: &Conditioning, hooks: Option<&Shared<WeightHooks>>) -> Conditioning {
    hooked(conditioning, hooks).map(|condition| condition.fills_in = true)
}

/// Both, sharing the picture.
fn combined(one: &Conditioning, other: &Conditioning) -> Conditioning {
    Conditioning([one.0.as_slice(), &other.0].concat())
}

/// Gives prompts a mask, hooks, a part of the way: what is connected of them.
#[derive(Node)]
#[node(category = "advanced/hooks/cond single", display_name = "Cond Set Props", experimental)]
struct ConditioningSetProperties {
    /// The prompts.
    #[input(name = "cond_NEW")]
    cond_new: Shared<Conditioning>,
    /// How much they count against others where the mask selects.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    strength: f64,
    /// `mask bounds` shows the model only the rectangle around what is selected, `default` the whole picture.
    #[input(choices = ["default", "mask bounds"])]
    set_cond_area: Choice<MaskArea>,
    /// Where they count: 1 fully, 0 not at all.
    mask: Option<Shared<Mask>>,
    /// What changes the model for them.
    hooks: Option<Shared<WeightHooks>>,
    /// During which part of the way they count.
    timesteps: Option<Shared<TimestepsRange>>,
}

impl Run for ConditioningSetProperties {
    type Output = Conditioning;

    fn run(self, _: &Context<'_>) -> Result<Conditioning> {
        let Self { strength, mask, hooks, timesteps, .. } = self;
        let properties = Properties { strength, area: *self.set_cond_area, mask, hooks, timesteps };
        Ok(properties.set(&self.cond_new))
    }
}

/// Gives prompts a mask, hooks, a part of the way, and lets them share the picture with others.
#[derive(Node)]
#[node(category = "advanced/hooks/cond single", display_name = "Cond Set Props Combine", experimental)]
struct ConditioningSetPropertiesAndCombine {
    /// The others, which stay as they are.
    cond: Shared<Conditioning>,
    /// The prompts.
    #[input(name = "cond_NEW")]
    cond_new: Shared<Conditioning>,
    /// How much they count against others where the mask selects.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    strength: f64,
    /// `mask bounds` shows the model only the rectangle around what is selected, `default` the whole picture.
    #[input(choices = ["default", "mask bounds"])]
    set_cond_area: Choice<MaskArea>,
    /// Where they count: 1 fully, 0 not at all.
    mask: Option<Shared<Mask>>,
    /// What changes the model for them.
    hooks: Option<Shared<WeightHooks>>,
    /// During which part of the way they count.
    timesteps: Option<Shared<TimestepsRange>>,
}

impl Run for ConditioningSetPropertiesAndCombine {
    type Output = Conditioning;

    fn run(self, _: &Context<'_>) -> Result<Conditioning> {
        let Self { strength, mask, hooks, timesteps, .. } = self;
        let properties = Properties { strength, area: *self.set_cond_area, mask, hooks, timesteps };
        Ok(combined(&self.cond, &properties.set(&self.cond_new)))
    }
}

/// Gives positive and negative prompts a mask, hooks, a part of the way: what is connected of them.
#[derive(Node)]
#[node(
    category = "advanced/hooks/cond pair",
    display_name = "Cond Pair Set Props",
    outputs = ["positive", "negative"],
    experimental
)]
struct PairConditioningSetProperties {
    /// What the picture should show.
    #[input(name = "positive_NEW")]
    positive_new: Shared<Conditioning>,
    /// What it should not.
    #[input(name = "negative_NEW")]
    negative_new: Shared<Conditioning>,
    /// How much they count against others where the mask selects.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    strength: f64,
    /// `mask bounds` shows the model only the rectangle around what is selected, `default` the whole picture.
    #[input(choices = ["default", "mask bounds"])]
    set_cond_area: Choice<MaskArea>,
    /// Where they count: 1 fully, 0 not at all.
    mask: Option<Shared<Mask>>,
    /// What changes the model for them.
    hooks: Option<Shared<WeightHooks>>,
    /// During which part of the way they count.
    timesteps: Option<Shared<TimestepsRange>>,
}

impl Run for PairConditioningSetProperties {
    type Output = (Conditioning, Conditioning);

    fn run(self, _: &Context<'_>) -> Result<Self::Output> {
        let Self { strength, mask, hooks, timesteps, .. } = self;
        let properties = Properties { strength, area: *self.set_cond_area, mask, hooks, timesteps };
        Ok((properties.set(&self.positive_new), properties.set(&self.negative_new)))
    }
}

/// Gives positive and negative prompts a mask, hooks, a part of the way, and lets them share the picture with others.
#[derive(Node)]
#[node(
    category = "advanced/hooks/cond pair",
    display_name = "Cond Pair Set Props Combine",
    outputs = ["positive", "negative"],
    experimental
)]
struct PairConditioningSetPropertiesAndCombine {
    /// What else the picture should show; it stays as it is.
    positive: Shared<Conditioning>,
    /// What else it should not show; it stays as it is.
    negative: Shared<Conditioning>,
    /// What the picture should show.
    #[input(name = "positive_NEW")]
    positive_new: Shared<Conditioning>,
    /// What it should not.
    #[input(name = "negative_NEW")]
    negative_new: Shared<Conditioning>,
    /// How much they count against others where the mask selects.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    strength: f64,
    /// `mask bounds` shows the model only the rectangle around what is selected, `default` the whole picture.
    #[input(choices = ["default", "mask bounds"])]
    set_cond_area: Choice<MaskArea>,
    /// Where they count: 1 fully, 0 not at all.
    mask: Option<Shared<Mask>>,
    /// What changes the model for them.
    hooks: Option<Shared<WeightHooks>>,
    /// During which part of the way they count.
    timesteps: Option<Shared<TimestepsRange>>,
}

impl Run for PairConditioningSetPropertiesAndCombine {
    type Output = (Conditioning, Conditioning);

    fn run(self, _: &Context<'_>) -> Result<Self::Output> {
        let Self { strength, mask, hooks, timesteps, .. } = self;
        let properties = Properties { strength, area: *self.set_cond_area, mask, hooks, timesteps };
        let positive = combined(&self.positive, &properties.set(&self.positive_new));
        Ok((positive, combined(&self.negative, &properties.set(&self.negative_new))))
    }
}

/// Lets two pairs of positive and negative prompts share the picture.
#[derive(Node)]
#[node(category = "advanced/hooks/cond pair", display_name = "Cond Pair Combine", outputs = ["positive", "negative"], experimental)]
struct PairConditioningCombine {
    /// What the picture should show.
    #[input(name = "positive_A")]
    positive_a: Shared<Conditioning>,
    /// What it should not.
    #[input(name = "negative_A")]
    negative_a: Shared<Conditioning>,
    /// What else it should show.
    #[input(name = "positive_B")]
    positive_b: Shared<Conditioning>,
    /// What else it should not.
    #[input(name = "negative_B")]
    negative_b: Shared<Conditioning>,
}

impl Run for PairConditioningCombine {
    type Output = (Conditioning, Conditioning);

    fn run(self, _: &Context<'_>) -> Result<Self::Output> {
        Ok((combined(&self.positive_a, &self.positive_b), combined(&self.negative_a, &self.negative_b)))
    }
}

/// Adds prompts that count wherever the others leave room: what masks and areas do not cover.
#[derive(Node)]
#[node(category = "advanced/hooks/cond single", display_name = "Cond Set Default Combine", experimental)]
struct ConditioningSetDefaultCombine {
    /// The others.
    cond: Shared<Conditioning>,
    /// The prompts for the rest of the picture.
    #[input(name = "cond_DEFAULT")]
    cond_default: Shared<Conditioning>,
    /// What changes the model for the latter.
    hooks: Option<Shared<WeightHooks>>,
}

impl Run for ConditioningSetDefaultCombine {
    type Output = Conditioning;

    fn run(self, _: &Context<'_>) -> Result<Conditioning> {
        Ok(combined(&self.cond, &filling_in(&self.cond_default, self.hooks.as_ref())))
    }
}

/// Adds positive and negative prompts that count wherever the others leave room: what masks and areas do not cover.
#[derive(Node)]
#[node(
    category = "advanced/hooks/cond pair",
    display_name = "Cond Pair Set Default Combine",
    outputs = ["positive", "negative"],
    experimental
)]
struct PairConditioningSetDefaultCombine {
    /// What else the picture should show.
    positive: Shared<Conditioning>,
    /// What else it should not.
    negative: Shared<Conditioning>,
    /// What the rest of the picture should show.
    #[input(name = "positive_DEFAULT")]
    positive_default: Shared<Conditioning>,
    /// What the rest of it should not.
    #[input(name = "negative_DEFAULT")]
    negative_default: Shared<Conditioning>,
    /// What changes the model for the latter two.
    hooks: Option<Shared<WeightHooks>>,
}

impl Run for PairConditioningSetDefaultCombine {
    type Output = (Conditioning, Conditioning);

    fn run(self, _: &Context<'_>) -> Result<Self::Output> {
        let hooks = self.hooks.as_ref();
        let positive = combined(&self.positive, &filling_in(&self.positive_default, hooks));
        Ok((positive, combined(&self.negative, &filling_in(&self.negative_default, hooks))))
    }
}
