//! Models and text encoders made of two, and parts of one made stronger: ComfyUI's nodes.
//!
//! Nothing is computed here. A merged network reads the numbers of both files when a layer first runs, and what adapters
//! made of either counts; adapters that come later go on top.

use crate::error::{Error, tell};
use crate::wires::{Clip, Model};
use paraflow_diffusion::merge::{Network, mixed};
use paraflow_diffusion::text::{ClipText, Encoders};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<CLIPAttentionMultiply>(),
        NodeDef::of::<CLIPMergeAdd>(),
        NodeDef::of::<CLIPMergeSimple>(),
        NodeDef::of::<CLIPMergeSubtract>(),
        NodeDef::of::<ModelMergeAdd>(),
        NodeDef::of::<ModelMergeBlocks>(),
        NodeDef::of::<ModelMergeSD1>(),
        NodeDef::of::<ModelMergeSD2>(),
        NodeDef::of::<ModelMergeSDXL>(),
        NodeDef::of::<ModelMergeSimple>(),
        NodeDef::of::<ModelMergeSubtract>(),
        NodeDef::of::<UNetCrossAttentionMultiply>(),
        NodeDef::of::<UNetSelfAttentionMultiply>(),
        NodeDef::of::<UNetTemporalAttentionMultiply>(),
    ]
}

/// The factors of two networks' tensors for a name.
type Factors<'a> = &'a dyn Fn(&str) -> Option<[f64; 2]>;

/// So much of the first, the rest of the second.
fn share(ratio: f64) -> [f64; 2] {
    [ratio, 1.0 - ratio]
}

/// Mixes a model's network with another's; everything else is the first's.
fn mix(one: &Model, other: &Model, factors: Factors<'_>, cx: &Context<'_>) -> Result<Model, Error> {
    let (ours, theirs) = (one.unet.config(), other.unet.config());
    let alike = one.layout.id == other.layout.id
        && (ours.channels, ours.context, ours.label, ours.middle)
            == (theirs.channels, theirs.context, theirs.label, theirs.middle)
        && (&ours.down, &ours.up) == (&theirs.down, &theirs.up);
    if !alike {
        return Err(Error::Unfit {
            what: "`model2`",
            expected: format!("a model of the first one's measures, {}", measures(one)),
            found: measures(other),
        });
    }
    let (unet, kept) = mixed(&one.unet, &other.unet, factors)?;
    if !kept.is_empty() {
        cx.warn(format!("{} is of another shape in the second model and stays as in the first", kept.join(", ")));
    }
    let bytes = crate::loaders::bytes(unet.source());
    Ok(Model { unet, bytes, ..one.clone() })
}

/// An architecture in words.
fn measures(model: &Model) -> String {
    let config = model.unet.config();
    let depths: Vec<String> = config.depths().iter().map(ToString::to_string).collect();
    format!("{} of {} channels with transformer blocks {}", model.layout.name, config.channels, depths.join(" "))
}

/// Mixes text encoders, each with the one of its kind.
fn mix_encoders(one: &Clip, other: &Clip, factors: Factors<'_>) -> Result<Clip, Error> {
    let (ours, theirs) = (one.encoders()?, other.encoders()?);
    let ids = |encoders: &Encoders| encoders.parts().iter().map(|part| part.family().id).collect::<Vec<_>>();
    let measures = |encoders: &Encoders| {
        let of =
            |part: &ClipText| format!("{} of width {} and {} layers", part.family().id, part.width(), part.depth());
        encoders.parts().iter().map(of).collect::<Vec<_>>().join(" and ")
    };
    if ids(ours) != ids(theirs) || measures(ours) != measures(theirs) {
        return Err(Error::Unfit { what: "`clip2`", expected: measures(ours), found: measures(theirs) });
    }
    let mut bytes = 0;
    let encoders = ours.map(|part| -> Result<ClipText, Error> {
        let other = theirs.part(part.family().id).expect("the kinds are the same");
        let (part, _) = mixed(part, other, factors)?;
        bytes += crate::loaders::bytes(&part.tensors());
        Ok(part)
    })?;
    Ok(one.with_encoders(encoders, bytes))
}

/// Mixes two models: so much of the first, the rest of the second.
#[derive(Node)]
#[node(category = "advanced/model_merging")]
struct ModelMergeSimple {
    /// The first model; sampling is its.
    model1: Shared<Model>,
    /// The second model, of the same architecture.
    model2: Shared<Model>,
    /// How much of the first; the rest is the second.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    ratio: f64,
}

impl Run for ModelMergeSimple {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        mix(&self.model1, &self.model2, &|_| Some(share(self.ratio)), cx).map_err(tell)
    }
}

/// Adds a model to another: what `ModelMergeSubtract` gave, as a rule.
#[derive(Node)]
#[node(category = "advanced/model_merging")]
struct ModelMergeAdd {
    /// The first model; sampling is its.
    model1: Shared<Model>,
    /// What is added to it, of the same architecture.
    model2: Shared<Model>,
}

impl Run for ModelMergeAdd {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        mix(&self.model1, &self.model2, &|_| Some([1.0, 1.0]), cx).map_err(tell)
    }
}

/// What a model has beyond another, for `ModelMergeAdd` or `LoraSave`. It paints no pictures.
#[derive(Node)]
#[node(category = "advanced/model_merging")]
struct ModelMergeSubtract {
    /// The first model.
    model1: Shared<Model>,
    /// What is taken away from it, of the same architecture.
    model2: Shared<Model>,
    /// What the difference is multiplied by.
    #[input(default = 1.0, range = -10.0..=10.0, step = 0.01)]
    multiplier: f64,
}

impl Run for ModelMergeSubtract {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        mix(&self.model1, &self.model2, &|_| Some([self.multiplier, -self.multiplier]), cx).map_err(tell)
    }
}

/// Mixes two models, the ways down and up and the middle in shares of their own.
#[derive(Node)]
#[node(category = "advanced/model_merging")]
struct ModelMergeBlocks {
    /// The first model; sampling is its.
    model1: Shared<Model>,
    /// The second model, of the same architecture.
    model2: Shared<Model>,
    /// How much of the first on the way down, and in the embeddings of time and label.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    input: f64,
    /// How much of the first in the middle.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    middle: f64,
    /// How much of the first on the way up and at the end.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    out: f64,
}

impl Run for ModelMergeBlocks {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        let shares = [("input", self.input), ("middle", self.middle), ("out", self.out)];
        mix(&self.model1, &self.model2, &|name| Some(by_place(name, &shares)), cx).map_err(tell)
    }
}

/// The share of the longest place that a name begins with; the first one's where it begins with none.
fn by_place(name: &str, shares: &[(&str, f64)]) -> [f64; 2] {
    let mut found = (0, shares[0].1);
    for (place, ratio) in shares.iter().filter(|(place, _)| name.starts_with(place)) {
        if place.len() > found.0 {
            found = (place.len(), *ratio);
        }
    }
    share(found.1)
}

/// Nodes with a share for every block of a family of models.
macro_rules! merge_of {
    ($(#[$about:meta])* $node:ident: $($field:ident $name:tt),* $(,)?) => {
        $(#[$about])*
        #[derive(Node)]
        #[node(category = "advanced/model_merging/model_specific")]
        struct $node {
            /// The first model; sampling is its.
            model1: Shared<Model>,
            /// The second model, of the same architecture.
            model2: Shared<Model>,
            $(
                /// How much of the first this part gets; the rest is the second.
                #[input(name = $name, default = 1.0, range = 0.0..=1.0, step = 0.01)]
                $field: f64,
            )*
        }

        impl Run for $node {
            type Output = Model;

            fn run(self, cx: &Context<'_>) -> Result<Model> {
                let shares = [$(($name, self.$field)),*];
                mix(&self.model1, &self.model2, &|name| Some(by_place(name, &shares)), cx).map_err(tell)
            }
        }
    };
}

merge_of! {
    /// Mixes two models of Stable Diffusion 1.x, every block in a share of its own.
    ModelMergeSD1:
    time_embed "time_embed.", label_emb "label_emb.",
    input_0 "input_blocks.0.", input_1 "input_blocks.1.", input_2 "input_blocks.2.", input_3 "input_blocks.3.",
    input_4 "input_blocks.4.", input_5 "input_blocks.5.", input_6 "input_blocks.6.", input_7 "input_blocks.7.",
    input_8 "input_blocks.8.", input_9 "input_blocks.9.", input_10 "input_blocks.10.", input_11 "input_blocks.11.",
    middle_0 "middle_block.0.", middle_1 "middle_block.1.", middle_2 "middle_block.2.",
    output_0 "output_blocks.0.", output_1 "output_blocks.1.", output_2 "output_blocks.2.", output_3 "output_blocks.3.",
    output_4 "output_blocks.4.", output_5 "output_blocks.5.", output_6 "output_blocks.6.", output_7 "output_blocks.7.",
    output_8 "output_blocks.8.", output_9 "output_blocks.9.", output_10 "output_blocks.10.", output_11 "output_blocks.11.",
    out "out.",
}

merge_of! {
    /// Mixes two models of Stable Diffusion 2.x, every block in a share of its own.
    ModelMergeSD2:
    time_embed "time_embed.", label_emb "label_emb.",
    input_0 "input_blocks.0.", input_1 "input_blocks.1.", input_2 "input_blocks.2.", input_3 "input_blocks.3.",
    input_4 "input_blocks.4.", input_5 "input_blocks.5.", input_6 "input_blocks.6.", input_7 "input_blocks.7.",
    input_8 "input_blocks.8.", input_9 "input_blocks.9.", input_10 "input_blocks.10.", input_11 "input_blocks.11.",
    middle_0 "middle_block.0.", middle_1 "middle_block.1.", middle_2 "middle_block.2.",
    output_0 "output_blocks.0.", output_1 "output_blocks.1.", output_2 "output_blocks.2.", output_3 "output_blocks.3.",
    output_4 "output_blocks.4.", output_5 "output_blocks.5.", output_6 "output_blocks.6.", output_7 "output_blocks.7.",
    output_8 "output_blocks.8.", output_9 "output_blocks.9.", output_10 "output_blocks.10.", output_11 "output_blocks.11.",
    out "out.",
}

merge_of! {
    /// Mixes two models of SDXL, every block in a share of its own.
    ModelMergeSDXL:
    time_embed "time_embed.", label_emb "label_emb.",
    input_0 "input_blocks.0", input_1 "input_blocks.1", input_2 "input_blocks.2", input_3 "input_blocks.3",
    input_4 "input_blocks.4", input_5 "input_blocks.5", input_6 "input_blocks.6", input_7 "input_blocks.7",
    input_8 "input_blocks.8",
    middle_0 "middle_block.0", middle_1 "middle_block.1", middle_2 "middle_block.2",
    output_0 "output_blocks.0", output_1 "output_blocks.1", output_2 "output_blocks.2", output_3 "output_blocks.3",
    output_4 "output_blocks.4", output_5 "output_blocks.5", output_6 "output_blocks.6", output_7 "output_blocks.7",
    output_8 "output_blocks.8",
    out "out.",
}

/// Mixes two text encoders: so much of the first, the rest of the second.
#[derive(Node)]
#[node(category = "advanced/model_merging")]
struct CLIPMergeSimple {
    /// The first text encoder.
    clip1: Shared<Clip>,
    /// The second, of the same kind.
    clip2: Shared<Clip>,
    /// How much of the first; the rest is the second.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    ratio: f64,
}

impl Run for CLIPMergeSimple {
    type Output = Clip;

    fn run(self, _: &Context<'_>) -> Result<Clip> {
        mix_encoders(&self.clip1, &self.clip2, &|_| Some(share(self.ratio))).map_err(tell)
    }
}

/// Adds a text encoder to another: what `CLIPMergeSubtract` gave, as a rule.
#[derive(Node)]
#[node(category = "advanced/model_merging")]
struct CLIPMergeAdd {
    /// The first text encoder.
    clip1: Shared<Clip>,
    /// What is added to it, of the same kind.
    clip2: Shared<Clip>,
}

impl Run for CLIPMergeAdd {
    type Output = Clip;

    fn run(self, _: &Context<'_>) -> Result<Clip> {
        mix_encoders(&self.clip1, &self.clip2, &|_| Some([1.0, 1.0])).map_err(tell)
    }
}

/// What a text encoder has beyond another, for `CLIPMergeAdd` or `LoraSave`.
#[derive(Node)]
#[node(category = "advanced/model_merging")]
struct CLIPMergeSubtract {
    /// The first text encoder.
    clip1: Shared<Clip>,
    /// What is taken away from it, of the same kind.
    clip2: Shared<Clip>,
    /// What the difference is multiplied by.
    #[input(default = 1.0, range = -10.0..=10.0, step = 0.01)]
    multiplier: f64,
}

impl Run for CLIPMergeSubtract {
    type Output = Clip;

    fn run(self, _: &Context<'_>) -> Result<Clip> {
        mix_encoders(&self.clip1, &self.clip2, &|_| Some([self.multiplier, -self.multiplier])).map_err(tell)
    }
}

/// How much stronger the four products of an attention become.
struct Strengths {
    queries: f64,
    keys: f64,
    values: f64,
    out: f64,
}

impl Strengths {
    /// The factor for weight or bias of a name, whose products are called so; others stay as they are.
    fn of(&self, name: &str, [queries, keys, values, out]: [&str; 4]) -> Option<[f64; 2]> {
        let layer = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias"))?;
        let products = [(queries, self.queries), (keys, self.keys), (values, self.values), (out, self.out)];
        products.iter().find(|(product, _)| layer.ends_with(product)).map(|(_, factor)| [*factor, 0.0])
    }
}

/// Makes what a model's self-attention computes with stronger or weaker.
#[derive(Node)]
#[node(category = "_for_testing/attention_experiments", experimental)]
struct UNetSelfAttentionMultiply {
    /// The model.
    model: Shared<Model>,
    /// What queries are multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    q: f64,
    /// What keys are multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    k: f64,
    /// What values are multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    v: f64,
    /// What comes out is multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    out: f64,
}

impl Run for UNetSelfAttentionMultiply {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        let strengths = Strengths { queries: self.q, keys: self.k, values: self.v, out: self.out };
        let products = ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"];
        mix(&self.model, &self.model, &|name| strengths.of(name, products), cx).map_err(tell)
    }
}

/// Makes what a model computes with where it looks at the prompt stronger or weaker.
#[derive(Node)]
#[node(category = "_for_testing/attention_experiments", experimental)]
struct UNetCrossAttentionMultiply {
    /// The model.
    model: Shared<Model>,
    /// What queries are multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    q: f64,
    /// What keys are multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    k: f64,
    /// What values are multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    v: f64,
    /// What comes out is multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    out: f64,
}

impl Run for UNetCrossAttentionMultiply {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        let strengths = Strengths { queries: self.q, keys: self.k, values: self.v, out: self.out };
        let products = ["attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"];
        mix(&self.model, &self.model, &|name| strengths.of(name, products), cx).map_err(tell)
    }
}

/// Makes what attention adds stronger or weaker, in models of pictures and of videos.
#[derive(Node)]
#[node(category = "_for_testing/attention_experiments", experimental)]
struct UNetTemporalAttentionMultiply {
    /// The model.
    model: Shared<Model>,
    /// What self-attention within a picture is multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    self_structural: f64,
    /// What self-attention across time is multiplied by; models of pictures have none.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    self_temporal: f64,
    /// What attention to the prompt within a picture is multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    cross_structural: f64,
    /// What attention to the prompt across time is multiplied by; models of pictures have none.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    cross_temporal: f64,
}

impl Run for UNetTemporalAttentionMultiply {
    type Output = Model;

    fn run(self, cx: &Context<'_>) -> Result<Model> {
        let factors = |name: &str| {
            let layer = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias"))?;
            let temporal = layer.contains(".time_stack.");
            let factor = match (layer.ends_with("attn1.to_out.0"), layer.ends_with("attn2.to_out.0")) {
                (true, _) if temporal => self.self_temporal,
                (true, _) => self.self_structural,
                (_, true) if temporal => self.cross_temporal,
                (_, true) => self.cross_structural,
                _ => return None,
            };
            Some([factor, 0.0])
        };
        mix(&self.model, &self.model, &factors, cx).map_err(tell)
    }
}

/// Makes what a text encoder's attention computes with stronger or weaker.
#[derive(Node)]
#[node(category = "_for_testing/attention_experiments", experimental)]
struct CLIPAttentionMultiply {
    /// The text encoder.
    clip: Shared<Clip>,
    /// What queries are multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    q: f64,
    /// What keys are multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    k: f64,
    /// What values are multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    v: f64,
    /// What comes out is multiplied by.
    #[input(default = 1.0, range = 0.0..=10.0, step = 0.01)]
    out: f64,
}

impl Run for CLIPAttentionMultiply {
    type Output = Clip;

    fn run(self, _: &Context<'_>) -> Result<Clip> {
        let strengths = Strengths { queries: self.q, keys: self.k, values: self.v, out: self.out };
        let products = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"];
        mix_encoders(&self.clip, &self.clip, &|name| strengths.of(name, products)).map_err(tell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_place_counts_and_the_first_where_none_fits() {
        let blocks = [("input", 0.1), ("middle", 0.2), ("out", 0.3)];
        let ratio = |name: &str| by_place(name, &blocks)[0];
        assert_eq!(
            ["input_blocks.1.0", "middle_block.1", "out.2.bias", "output_blocks.1.0", "time_embed.0"].map(ratio),
            [0.1, 0.2, 0.3, 0.3, 0.1]
        );
        let numbered = [("time_embed.", 0.0), ("input_blocks.1.", 0.1), ("input_blocks.10.", 0.2)];
        assert_eq!(by_place("input_blocks.10.0.op.weight", &numbered), [0.2, 0.8]);
    }
}
