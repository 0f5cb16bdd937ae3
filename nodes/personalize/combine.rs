//! Several PaRas as one, and a PaRa as a LoRA.

use super::apply::require_base;
use super::wires::{Lora, Para};
use crate::error::{Error, tell};
use crate::wires::Model;
use paraflow_diffusion::adapters::{self, Boundary, Excess, Merge, Store, merge, to_lora};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared, Shown};
use serde_json::json;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<PaRaMerge>(), NodeDef::of::<PaRaToLoRA>()]
}

/// Makes one PaRa of two. More are merged by several such nodes.
#[derive(Node)]
#[node(category = "personalize", display_name = "Merge PaRa")]
struct PaRaMerge {
    /// The first.
    para_1: Shared<Para>,
    /// The second.
    para_2: Shared<Para>,
    /// `sequential`: the second acts on what the first left. `union`: all that either takes out is taken out, in no order.
    #[input(choices = ["sequential", "union"], default = "sequential")]
    how: Choice<Merge>,
    /// The part of its outputs that a layer may lose at most.
    #[input(default = 1.0, range = 0.001..=1.0, step = 0.001, advanced)]
    gamma: f64,
    /// What to do with directions beyond gamma.
    #[input(choices = ["error", "truncate", "ignore"], default = "error", advanced)]
    rank_boundary: Choice<Excess>,
    /// A third.
    para_3: Option<Shared<Para>>,
    /// A fourth.
    para_4: Option<Shared<Para>>,
    /// The model that they are for, needed only where their files name its layers in different ways.
    model: Option<Shared<Model>>,
}

impl Run for PaRaMerge {
    type Output = Para;

    fn run(self, _: &Context<'_>) -> Result<Para> {
        let more = [&self.para_3, &self.para_4].into_iter().flatten();
        let all = [&self.para_1, &self.para_2].into_iter().chain(more).map(|para| projection(para));
        let all = all.collect::<Result<Vec<_>, _>>().map_err(tell)?;
        let boundary = Boundary::new(self.gamma).map_err(|fault| tell(paraflow_diffusion::Error::from(fault)))?;
        let names = self.model.as_ref().map(|model| model.names(None));
        merge(&all, *self.how, names.as_ref(), boundary, *self.rank_boundary).map(Para::Projection).map_err(tell)
    }
}

/// The directions of a PaRa.
///
/// # Errors
/// It adds something, too, and no merge of subspaces does.
fn projection(para: &Para) -> Result<&adapters::Para, Error> {
    match para {
        Para::Projection(para) => Ok(para),
        Para::Free(lora) => {
            let mode = lora.metadata.get("para.mode").map_or("release", String::as_str);
            let expected = "PaRas of mode `projection`, which only take directions out".to_owned();
            Err(Error::Unfit { what: "PaRaMerge", expected, found: format!("one of mode `{mode}`") })
        }
    }
}

/// Makes the LoRA that does to one checkpoint what a PaRa does, for programs that know no PaRa.
///
/// It is exact for that checkpoint only, with the adapters that are on the model below it. The greatest error of a layer is shown,
/// and all of them are written into the file.
#[derive(Node)]
#[node(category = "personalize", display_name = "PaRa to LoRA", compute)]
struct PaRaToLoRA {
    /// The model that the PaRa is for.
    model: Shared<Model>,
    /// What to export.
    para: Shared<Para>,
    /// The type of number that the file will hold.
    #[input(choices = ["f32", "f16"], default = "f32")]
    dtype: Choice<Store>,
}

impl Run for PaRaToLoRA {
    type Output = Shown<Lora>;

    fn run(self, cx: &Context<'_>) -> Result<Shown<Lora>> {
        let para = match &*self.para {
            Para::Projection(para) => para,
            Para::Free(lora) => {
                let text = "it is a LoRA already and stays as it is";
                return Ok(Shown(Lora(lora.clone()), json!({"text": [text]})));
            }
        };
        // Exact for this model it is all the same.
        require_base(&para.metadata, &self.model, false, cx).map_err(tell)?;
        let (mut lora, errors) = to_lora(para, &self.model.unet, *self.dtype).map_err(tell)?;
        let origin = &self.model.origin;
        lora.metadata.insert("para.base_name".to_owned(), origin.name.to_string());
        lora.metadata.insert("para.base_sha256".to_owned(), origin.sha256(cx.services()).map_err(tell)?);
        let worst = errors.iter().max_by(|a, b| a.relative.total_cmp(&b.relative));
        let text = worst.map_or_else(
            || "no layers".to_owned(),
            |worst| format!("{} layers, the greatest error is {:.1e} in {}", errors.len(), worst.relative, worst.layer),
        );
        Ok(Shown(Lora(lora), json!({"text": [text]})))
    }
}
