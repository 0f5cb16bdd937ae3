//! PhotoMaker: puts a person into a prompt. What CLIP sees in a picture is mixed into one word of the prompt, as SDXL's two text encoders
//! read it.
//!
//! Li et al. 2023, arXiv:2312.04461, in the key names of its authors' file (their first version).

use std::path::Path;

use candle_core::{D, Tensor};

use super::Vision;
use crate::error::{Error, FileFault, Result};
use crate::nn::{Kept, LayerNorm, Linear, Weights, gelu};
use crate::text::Activation;

const EPSILON: f64 = 1e-5;
/// What the authors' file keeps the network under, beside a LoRA for the model.
const PART: &str = "id_encoder";
/// A tensor that every such file has.
const MARKER: &str = "fuse_module.mlp1.fc1.weight";
/// What only their second version has.
const SECOND: &str = "qformer_perceiver.";

/// The network. Cheap to clone; clones share the weights.
#[derive(Clone)]
pub struct PhotoMaker {
    vision: Vision,
    /// To the width of the small text encoder and to that of the large one.
    projections: [Linear; 2],
    mix: Perceptron,
    refine: Perceptron,
    after: LayerNorm,
    /// Of the words that it reads and makes.
    width: usize,
}

impl PhotoMaker {
    /// Finds the tensors in a safetensors file. The authors' own is a pickle, whose part `id_encoder` they are.
    ///
    /// # Errors
    /// [`Error::MissingPart`] for a file without such a network, [`Error::UnknownModel`] for a pickle, with how to convert it, and for
    /// one of the second version; what [`Weights::open`] says.
    pub fn open(path: impl AsRef<Path>) -> Result<Weights> {
        let whole = Weights::open(path).map_err(|error| match error {
            Error::BadFile { file, fault: FileFault::Pickle } => Error::UnknownModel {
                file,
                found: "is a pickle, as PhotoMaker's authors saved it, and loading one can run any code hidden in it"
                    .to_owned(),
                known: format!(
                    "its tensors as safetensors; in Python: safetensors.torch.save_file(torch.load(path, \
                     weights_only=True)[\"{PART}\"], \"photomaker-v1.safetensors\")"
                ),
            },
            other => other,
        })?;
        let inside = whole.part(&format!("{PART}."));
        let weights = if inside.contains(MARKER) { inside } else { whole };
        if weights.names().any(|name| name.starts_with(SECOND)) {
            return Err(Error::UnknownModel {
                file: weights.file().to_owned(),
                found: "looks like the second version of PhotoMaker, which knows faces by a network of their own"
                    .to_owned(),
                known: "the first, `photomaker-v1`".to_owned(),
            });
        }
        if !weights.contains(MARKER) {
            return Err(Error::MissingPart {
                file: weights.file().to_owned(),
                part: "PhotoMaker id encoder",
                hint: format!("one has a tensor `{MARKER}`, as `photomaker-v1` does"),
            });
        }
        Ok(weights)
    }

    /// The network of tensors that [`open`](Self::open) found. Its part that sees pictures keeps its weights in halves, as ComfyUI
    /// has it on a CPU.
    ///
    /// # Errors
    /// What [`Weights::tensor`] and [`Vision::load`] say.
    pub fn load(weights: &Weights) -> Result<Self> {
        let vision = Vision::load(&weights.keeping(Kept::Half), Activation::QuickGelu)?;
        let seen = vision.class.dim(D::Minus1)?;
        let mut width = 0;
        let mut projection = |name: &str| {
            let layer = weights.at(name);
            let Some(&[out, _]) = layer.shape("weight") else { return Err(layer.missing(&layer.key("weight"))) };
            width += out;
            Linear::load_without_bias(&layer, seen, out)
        };
        let projections = [projection("visual_projection")?, projection("visual_projection_2")?];
        let fuse = weights.at("fuse_module");
        Ok(Self {
            vision,
            projections,
            mix: Perceptron::load(&fuse.at("mlp1"), 2 * width, width)?,
            refine: Perceptron::load(&fuse.at("mlp2"), width, width)?,
            after: LayerNorm::load(&fuse.at("layer_norm"), width, EPSILON)?,
            width,
        })
    }

    /// Width of the prompts that it takes: 2048, that of SDXL's two text encoders together.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// A prompt whose token at `place` says who is in the first of the pictures.
    ///
    /// With `t` that token and `v` what is seen, `norm(r + f(r))` where `r = t + m([t, v])`; `m` and `f` are two products, each behind a
    /// norm, with a GELU between them.
    ///
    /// # Shapes
    /// - `pictures`: `[batch, height, width, 3 or more]`, 0 to 1
    /// - `prompt`: `[1, tokens, width]`, as is the output
    ///
    /// # Errors
    /// [`Error::Shape`] for a prompt of another width or without such a place; pictures of fewer than three channels.
    pub fn put(&self, pictures: &Tensor, prompt: &Tensor, place: usize) -> Result<Tensor> {
        let (batch, tokens, width) = prompt.dims3()?;
        if (batch, width) != (1, self.width) || place >= tokens {
            return Err(Error::Shape {
                layer: "PhotoMaker".to_owned(),
                expected: format!("a prompt of more than {place} tokens, [1, tokens, {}]", self.width),
                found: prompt.dims().to_vec(),
            });
        }
        let pixels = self.vision.pixels(&pictures.narrow(0, 0, 1)?, true)?;
        let seen = self.vision.pooled(&self.vision.hidden(&pixels)?)?;
        let [small, large] = &self.projections;
        let seen = Tensor::cat(&[small.forward(&seen)?, large.forward(&seen)?], 1)?;
        let token = prompt.narrow(1, place, 1)?.reshape((1, width))?;
        let word = token.to_device(seen.device())?.to_dtype(seen.dtype())?;
        let mixed = (&word + self.mix.forward(&Tensor::cat(&[&word, &seen], 1)?)?)?;
        let word = self.after.forward(&(&mixed + self.refine.forward(&mixed)?)?)?;
        let word = word.to_device(prompt.device())?.to_dtype(prompt.dtype())?.reshape((1, 1, width))?;
        let (before, after) = (prompt.narrow(1, 0, place)?, prompt.narrow(1, place + 1, tokens - place - 1)?);
        Ok(Tensor::cat(&[&before, &word, &after], 1)?)
    }
}

/// A norm, then two products with a GELU between them.
#[derive(Clone)]
struct Perceptron {
    norm: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Perceptron {
    fn load(weights: &Weights, input: usize, output: usize) -> Result<Self> {
        Ok(Self {
            norm: LayerNorm::load(&weights.at("layernorm"), input, EPSILON)?,
            up: Linear::load(&weights.at("fc1"), input, output)?,
            down: Linear::load(&weights.at("fc2"), output, output)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&gelu(&self.up.forward(&self.norm.forward(x)?)?)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::drawn_file;

    #[test]
    fn files_of_something_else_are_told() {
        let path = std::env::temp_dir().join(format!("paraflow-photomaker-{}.safetensors", std::process::id()));
        let told = |keys: &[&str]| {
            let shapes = keys.iter().map(|key| ((*key).to_owned(), vec![2, 2])).collect::<BTreeMap<_, _>>();
            std::fs::write(&path, drawn_file(&shapes)).unwrap();
            PhotoMaker::open(&path).map(|_| ()).unwrap_err().to_string()
        };
        let other = told(&["vision_model.embeddings.class_embedding"]);
        assert!(other.contains("there is no PhotoMaker id encoder in this file"), "{other}");
        let second = told(&[MARKER, "qformer_perceiver.token_proj.0.weight"]);
        assert!(second.contains("the second version of PhotoMaker"), "{second}");
        std::fs::write(&path, b"PK\x03\x04photomaker/data.pkl").unwrap();
        let pickle = PhotoMaker::open(&path).map(|_| ()).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(pickle.contains("is a pickle") && pickle.contains("[\"id_encoder\"]"), "{pickle}");
    }
}
