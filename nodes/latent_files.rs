//! Latents into files and out of them.

use crate::error::{Error, tell};
use crate::files::{FilenamePrefix, LatentName};
use crate::save_models::graph;
use crate::wires::Latent;
use paraflow_assets::Assets;
use paraflow_diffusion::nn::Weights;
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared, Sink};
use serde_json::json;
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<LoadLatent>(), NodeDef::of::<SaveLatent>()]
}

/// The tensor that says that latents are at the autoencoder's scale.
const MARK: &str = "latent_format_version_0";
/// What the latents of older files were multiplied by.
const OLD_SCALE: f64 = 0.18215;

/// Saves latents without loss, with the graph. Masks are not saved.
#[derive(Node)]
#[node(category = "_for_testing", sink)]
struct SaveLatent {
    /// The latents.
    samples: Shared<Latent>,
    /// What the file's name begins with; `a/b` saves into folder `a`.
    #[input(default = "latents/ComfyUI")]
    filename_prefix: FilenamePrefix,
}

impl Run for SaveLatent {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let save = || -> Result<Sink, Error> {
            let samples = self.samples.samples();
            let numbers = samples.flatten_all()?.to_vec1::<f32>()?;
            let header = json!({
                "__metadata__": graph(cx),
                MARK: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
                "latent_tensor": {"dtype": "F32", "shape": samples.dims(), "data_offsets": [0, numbers.len() * size_of::<f32>()]},
            });
            let mut header = header.to_string();
            header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
            let outputs = cx.service::<Arc<Assets>>().outputs();
            let saved = outputs.series(&self.filename_prefix, (0, 0))?.save("latent", |file| {
                file.write_all(&(header.len() as u64).to_le_bytes())?;
                file.write_all(header.as_bytes())?;
                numbers.iter().try_for_each(|number| file.write_all(&number.to_le_bytes()))
            })?;
            let place = saved.place.as_str();
            let file = json!({"filename": saved.filename, "subfolder": saved.subfolder, "type": place});
            Ok(Sink(json!({"latents": [file]})))
        };
        save().map_err(tell)
    }
}

/// Loads latents that `SaveLatent` saved.
#[derive(Node)]
#[node(category = "_for_testing")]
struct LoadLatent {
    /// The file, from `input`; `x.latent [output]` from another folder.
    latent: LatentName,
}

impl Run for LoadLatent {
    type Output = Latent;

    fn run(self, cx: &Context<'_>) -> Result<Latent> {
        let load = || -> Result<Latent, Error> {
            let file = Weights::open(self.latent.find(cx.services())?)?;
            let shape = file.shape("latent_tensor").map(<[usize]>::to_vec).unwrap_or_default();
            let samples = file.tensor("latent_tensor", &shape)?;
            let scale = if file.contains(MARK) { 1.0 } else { 1.0 / OLD_SCALE };
            Latent::new(samples.affine(scale, 0.0)?)
        };
        load().map_err(tell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use candle_core::{Device, Tensor};
    use paraflow_engine::Value;

    #[test]
    fn a_latent_comes_back_as_it_was() {
        let bench = Bench::new();
        let samples = Tensor::arange(-60.0_f32, 60.0, &Device::Cpu).unwrap().reshape((2, 4, 3, 5)).unwrap();
        bench.give("latent", Value::new(Latent::new(samples.clone()).unwrap()));
        let saved = bench.run(json!({
            "1": ["Give", {"name": "latent"}],
            "2": ["SaveLatent", {"samples": ["1", 0], "filename_prefix": "a/b"}],
        }));
        assert_eq!(
            saved.shown("2")["latents"],
            json!([{"filename": "b_00001_.latent", "subfolder": "a", "type": "output"}])
        );
        let graph = |name: &str| json!({"1": ["LoadLatent", {"latent": name}], "2": ["Catch", {"value": ["1", 0]}]});
        let loaded = bench.run(graph("a/b_00001_.latent [output]"));
        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(loaded.value::<Latent>("2").samples()), values(&samples));
        // A file without the mark is one of the model's scale.
        let old = safetensors::serialize(
            [(
                "latent_tensor",
                safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1, 1, 1, 1], &[0, 0, 128, 63])
                    .unwrap(),
            )],
            None,
        );
        bench.write("input/old.latent", &old.unwrap());
        assert!(
            (values(bench.run(graph("old.latent")).value::<Latent>("2").samples())[0] - 1.0 / 0.18215).abs() < 1e-6
        );
        let faults = bench.plan(graph("older.latent")).err().unwrap();
        assert!(faults[0].to_string().contains("older.latent"), "{}", faults[0]);
        bench.write("input/bad.latent", b"no latent");
        assert!(bench.run(graph("bad.latent")).failure().1.to_string().contains("bad.latent"));
    }
}
