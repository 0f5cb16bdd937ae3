//! Long batches in windows.

use crate::error::tell;
use crate::wires::Model;
use paraflow_diffusion::guidance::{Fuse, Spread, Windows};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<ContextWindowsManual>()]
}

/// Shows the model long batches or large latents in windows that overlap, and averages what it says of the places that they share.
///
/// The memory of a step is that of a window. Steps are not left out meanwhile (`EasyCache`).
#[derive(Node)]
#[node(category = "context", display_name = "Context Windows (Manual)", experimental)]
struct ContextWindowsManual {
    /// The model.
    model: Shared<Model>,
    /// How long a window is; what is no longer than that is shown whole.
    #[input(default = 16, range = 1..=i64::MAX)]
    context_length: i64,
    /// How much of a window the next one shows again.
    #[input(default = 4, range = 0..=i64::MAX)]
    context_overlap: i64,
    /// `standard_static` takes the same windows at each step, `standard_uniform` others, `looped_uniform` others that lead back to
    /// the start, `batched` windows without overlap.
    #[input(choices = Spread::ALL.iter().map(|spread| spread.name()))]
    context_schedule: Choice<Spread>,
    /// Windows are also taken of every second, fourth … place, so many times at most; of uniform schedules.
    #[input(default = 1, range = 1..=i64::MAX)]
    context_stride: i64,
    /// Whether the last window leads back to the first, of the looped schedule.
    #[input(default = false)]
    closed_loop: bool,
    /// How much the places of a window count: `pyramid` in its middle most, `relative` the same one window after the other, `flat`
    /// alike, `overlap-linear` less towards its ends.
    #[input(default = "pyramid", choices = Fuse::ALL.iter().map(|fuse| fuse.name()))]
    fuse_method: Choice<Fuse>,
    /// What is cut into windows: 0 the batch, 2 rows, 3 columns.
    #[input(default = 0, range = 0..=5)]
    dim: u32,
    /// Begins each window after the first with the noise of the one before, shuffled: they differ less.
    #[input(default = false)]
    freenoise: bool,
}

impl Run for ContextWindowsManual {
    type Output = Model;

    fn run(self, _: &Context<'_>) -> Result<Model> {
        let size = |given: i64| usize::try_from(given).unwrap_or(usize::MAX);
        let windows = Windows {
            length: size(self.context_length),
            overlap: size(self.context_overlap),
            stride: size(self.context_stride),
            spread: self.context_schedule.into_inner(),
            closed: self.closed_loop,
            fuse: self.fuse_method.into_inner(),
            dim: self.dim as usize,
            free_noise: self.freenoise,
        };
        let windows = windows.checked().map_err(tell)?;
        let mut model = Model::clone(&self.model);
        model.windows = Some(windows);
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use crate::tiny;
    use serde_json::{Value, json};

    fn graph(latent: &Value, windows: &Value) -> Value {
        let mut cut = json!({
            "model": ["load", 0], "context_length": 4, "context_overlap": 2, "context_schedule": "standard_static",
            "context_stride": 1, "closed_loop": false, "fuse_method": "pyramid", "dim": 0, "freenoise": false,
        });
        cut.as_object_mut().unwrap().extend(windows.as_object().unwrap().clone());
        json!({
            "load": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
            "bear": ["CLIPTextEncode", {"text": "a bear", "clip": ["load", 1]}],
            "part": ["ConditioningSetArea", {
                "conditioning": ["bear", 0], "width": 64, "height": 64, "x": 0, "y": 0, "strength": 1.0,
            }],
            "canvas": ["EmptyLatentImage", latent],
            "cut": ["ContextWindowsManual", cut],
            "watched": ["SelfAttentionGuidance", {"model": ["cut", 0], "scale": 0.5, "blur_sigma": 2.0}],
            "sample": ["KSampler", {
                "model": ["cut", 0], "seed": 5, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal",
                "positive": ["part", 0], "negative": ["bear", 0], "latent_image": ["canvas", 0], "denoise": 1.0,
            }],
            "end": ["Catch", {"value": ["sample", 0]}],
        })
    }

    #[test]
    fn windows_that_cannot_be_are_told() {
        let bench = Bench::new();
        bench.write("models/checkpoints/tiny.safetensors", tiny::checkpoint());
        let many = json!({"width": 64, "height": 64, "batch_size": 7});
        let tall = json!({"width": 64, "height": 128, "batch_size": 1});
        for (latent, windows, fact) in [
            (&many, json!({"context_overlap": 4}), "each window would begin where the one before does"),
            (&many, json!({"dim": 4}), "latents of pictures have no dimension 4"),
            (&many, json!({"dim": 1, "context_length": 3}), "a network needs all channels of a latent"),
            (
                &tall,
                json!({"dim": 2, "context_length": 8}),
                "prompts for areas do not go with windows of rows or columns",
            ),
            (
                &json!({"width": 64, "height": 64, "batch_size": 5}),
                json!({"context_schedule": "standard_uniform", "context_stride": 2}),
                "a stride of 2 goes over 5 places more than once",
            ),
        ] {
            let outcome = bench.run(graph(latent, &windows));
            let told = outcome.failure().1.to_string();
            assert!(told.contains(fact), "{windows}: {told}");
        }
        let mut watched = graph(&many, &json!({}));
        watched["sample"][1]["model"] = json!(["watched", 0]);
        let told = bench.run(watched).failure().1.to_string();
        assert!(told.contains("self-attention guidance looks at whole latents"), "{told}");
        let outcome = bench.run(graph(&many, &json!({})));
        assert_eq!(outcome.value::<crate::wires::Latent>("end").dims(), (7, 4, 8, 8));
    }
}
