//! Collections as models see them.

use crate::conditioning::encode as encode_words;
use crate::error::{Error, tell};
use crate::vae::{colour_planes, encode};
use crate::wires::{Clip, Conditioning, Image, Latent, Vae};
use candle_core::Tensor;
use paraflow_diffusion::guidance::PictureSize;
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<MakeTrainingDataset>(), NodeDef::of::<ResolutionBucket>()]
}

/// Encodes pictures and their captions.
#[derive(Node)]
#[node(
    category = "dataset",
    display_name = "Make Training Dataset",
    input_is_list,
    compute,
    outputs = ["latents", "conditioning"],
    experimental
)]
struct MakeTrainingDataset {
    /// The pictures.
    images: Vec<Shared<Image>>,
    /// The autoencoder.
    vae: Vec<Shared<Vae>>,
    /// The text encoder.
    clip: Vec<Shared<Clip>>,
    /// A caption for each picture, or one for all of them.
    texts: Option<Vec<String>>,
}

impl Run for MakeTrainingDataset {
    type Output = (Vec<Latent>, Vec<Conditioning>);

    fn run(self, cx: &Context<'_>) -> Result<(Vec<Latent>, Vec<Conditioning>)> {
        let (Some(vae), Some(clip)) = (self.vae.first(), self.clip.first()) else {
            let (expected, found) = ("an autoencoder and a text encoder".to_owned(), "none".to_owned());
            return Err(tell(Error::Unfit { what: "the collection", expected, found }));
        };
        let mut texts = self.texts.filter(|texts| !texts.is_empty()).unwrap_or_else(|| vec![String::new()]);
        if texts.len() == 1 {
            texts = vec![texts[0].clone(); self.images.len()];
        }
        if texts.len() != self.images.len() {
            return Err(tell(Error::Unfit {
                what: "`texts`",
                expected: format!("one text, or one for each of {} pictures", self.images.len()),
                found: texts.len().to_string(),
            }));
        }
        let mut latents = Vec::with_capacity(self.images.len());
        let mut prompts = Vec::with_capacity(self.images.len());
        for (image, text) in self.images.iter().zip(&texts) {
            let factor = vae.autoencoder().map_err(tell)?.factor();
            let planes = colour_planes(image, factor, cx).map_err(tell)?;
            latents.push(encode(vae, &planes, cx)?);
            let parts = clip.encoders().map_err(tell)?.parts().len();
            prompts.push(encode_words(clip, &vec![text.as_str(); parts], PictureSize::default(), cx)?);
            cx.progress(latents.len() as u32, self.images.len() as u32)?;
        }
        Ok((latents, prompts))
    }
}

/// Puts latents of one size into one batch each, with their prompts.
#[derive(Node)]
#[node(
    category = "dataset",
    display_name = "Resolution Bucket",
    input_is_list,
    outputs = ["latents", "conditioning"],
    experimental
)]
struct ResolutionBucket {
    /// The latents.
    latents: Vec<Shared<Latent>>,
    /// The prompts of each.
    conditioning: Vec<Shared<Conditioning>>,
}

impl Run for ResolutionBucket {
    type Output = (Vec<Latent>, Vec<Conditioning>);

    fn run(self, _: &Context<'_>) -> Result<(Vec<Latent>, Vec<Conditioning>)> {
        self.sort().map_err(tell)
    }
}

impl ResolutionBucket {
    fn sort(&self) -> Result<(Vec<Latent>, Vec<Conditioning>), Error> {
        let unfit = |expected: String, found: usize| Error::Unfit {
            what: "`conditioning`",
            expected,
            found: found.to_string(),
        };
        if self.latents.len() != self.conditioning.len() {
            return Err(unfit(format!("one for each of {} latents", self.latents.len()), self.conditioning.len()));
        }
        let mut buckets: Vec<(Vec<Tensor>, Conditioning)> = Vec::new();
        for (latent, prompts) in self.latents.iter().zip(&self.conditioning) {
            for entry in 0..latent.dims().0 {
                let sample = latent.samples().narrow(0, entry, 1)?;
                let Some(prompt) = prompts.0.get(entry) else {
                    return Err(unfit(format!("a prompt for each of {} latents", latent.dims().0), prompts.0.len()));
                };
                let same = |bucket: &&mut (Vec<Tensor>, Conditioning)| bucket.0[0].dims() == sample.dims();
                match buckets.iter_mut().find(same) {
                    Some((samples, prompts)) => {
                        samples.push(sample);
                        prompts.0.push(prompt.clone());
                    }
                    None => buckets.push((vec![sample], Conditioning(vec![prompt.clone()]))),
                }
            }
        }
        let batch =
            |(samples, prompts): (Vec<Tensor>, Conditioning)| Ok((Latent::new(Tensor::cat(&samples, 0)?)?, prompts));
        Ok(buckets.into_iter().map(batch).collect::<Result<Vec<_>, Error>>()?.into_iter().unzip())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use crate::tiny;
    use crate::wires::{Image, Latent};
    use candle_core::{Device, Tensor};
    use paraflow_engine::Value;
    use serde_json::json;

    /// Two sizes make two batches, and the prompts stay with their latents.
    #[test]
    fn a_collection_is_encoded_and_sorted_by_size() {
        let bench = Bench::new();
        bench.write("models/checkpoints/tiny.safetensors", tiny::checkpoint());
        for (name, size) in [("a", (64, 64)), ("b", (64, 96))] {
            let values: Vec<f32> = (0..size.0 * size.1 * 3).map(|i| (i % 7) as f32 / 7.0).collect();
            let image = Tensor::from_vec(values, (1, size.0, size.1, 3), &Device::Cpu).unwrap();
            bench.give(name, Value::new(Image::new(image).unwrap()));
        }
        let outcome = bench.run(json!({
            "model": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
            "a": ["Give", {"name": "a"}], "b": ["Give", {"name": "b"}],
            "made": ["MakeTrainingDataset", {"images": ["a", 0], "vae": ["model", 2], "clip": ["model", 1], "texts": "a bear"}],
            "other": ["MakeTrainingDataset", {"images": ["b", 0], "vae": ["model", 2], "clip": ["model", 1]}],
            "plain": ["VAEEncode", {"pixels": ["a", 0], "vae": ["model", 2]}],
            "sorted": ["ResolutionBucket", {"latents": ["made", 0], "conditioning": ["made", 1]}],
            "one": ["Catch", {"value": ["sorted", 0]}], "two": ["Catch", {"value": ["other", 0]}],
            "three": ["Catch", {"value": ["plain", 0]}],
        }));
        let numbers = |id: &str| outcome.value::<Latent>(id).samples().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(numbers("one"), numbers("three"));
        assert_eq!(outcome.value::<Latent>("two").dims(), (1, 4, 8, 12));
    }
}
