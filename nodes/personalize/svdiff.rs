//! Files of spectral shifts.

use super::para::{Loras, open};
use super::wires::SpectralShifts;
use super::{origin, save};
use crate::error::tell;
use crate::files::{FilenamePrefix, ModelName};
use paraflow_diffusion::adapters::{Store, SvDiff, table};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared, Sink};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<SVDiffLoad>(), NodeDef::of::<SVDiffSave>()]
}

/// Loads spectral shifts from `models/loras` or `output/loras`: a file of ours, or the `spectral_shifts.safetensors` of
/// svdiff-pytorch.
#[derive(Node)]
#[node(category = "personalize", display_name = "Load SVDiff")]
struct SVDiffLoad {
    /// The file.
    svdiff_name: ModelName<Loras>,
}

impl Run for SVDiffLoad {
    type Output = SpectralShifts;

    fn run(self, cx: &Context<'_>) -> Result<SpectralShifts> {
        let file = open(&self.svdiff_name.find(cx.services()).map_err(tell)?).map_err(tell)?;
        let (shifts, unknown) = SvDiff::read(&file).map_err(tell)?;
        if !unknown.is_empty() {
            cx.warn(format!("{} tensors were not used:\n{}", unknown.len(), table(&unknown)));
        }
        Ok(SpectralShifts(shifts))
    }
}

/// Saves spectral shifts with all that is known of their making, and with this graph.
#[derive(Node)]
#[node(category = "personalize", display_name = "Save SVDiff", sink)]
struct SVDiffSave {
    /// What to save.
    svdiff: Shared<SpectralShifts>,
    /// What the file's name begins with; `a/b` saves into folder `a`.
    #[input(default = "loras/svdiff")]
    filename_prefix: FilenamePrefix,
    /// The type of its numbers.
    #[input(choices = ["f32", "f16"], default = "f32")]
    dtype: Choice<Store>,
}

impl Run for SVDiffSave {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let mut shifts = self.svdiff.0.clone();
        shifts.metadata.extend(origin(cx));
        save(cx, &self.filename_prefix, &shifts.to_file(*self.dtype).map_err(tell)?).map_err(tell)
    }
}
