//! What travels between nodes: the vocabulary of the editor.
//!
//! Every value is checked where it is made, so that who reads one can count on its shape, and none ever changes: a node
//! that alters something makes a new one, which shares what stayed.

mod conditioning;
mod hooks;
mod networks;
mod svg;

use crate::error::Error;
use candle_core::{DType, Tensor};
use paraflow_diffusion::checkpoint::Layout;
use paraflow_diffusion::guidance::{self, Correction, Edit, Guidance, Label, Windows};
use paraflow_diffusion::nn::Linear;
use paraflow_diffusion::noise;
use paraflow_diffusion::preview::Look;
use paraflow_diffusion::samplers::Walk;
use paraflow_diffusion::schedule::ModelSampling;
use paraflow_diffusion::text::{Encoders, Layer};
use paraflow_diffusion::unet::{Patch, UNet};
use paraflow_engine::Port;
use std::path::Path;
use std::sync::Arc;

pub use self::conditioning::{Conditioning, Prompt};
pub use self::hooks::{ClipHooks, Floats, HookKeyframes, TimestepsRange, WeightHooks};
pub use self::networks::{ClipVision, ClipVisionOutput, Control, Face, Style, TextBoxes, UpscaleModel};
pub use self::svg::Svg;
pub use crate::personalize::wires::{Lora, Para, SpectralShifts};

/// The largest width and height in pixels, ComfyUI's `MAX_RESOLUTION`.
pub(crate) const MAX_SIZE: u32 = 16384;

/// A network that predicts the noise in a latent, and what sampling must know of it. Clones share the weights.
#[derive(Clone)]
pub struct Model {
    /// The network.
    pub unet: UNet,
    /// Its noise levels, and what it predicts.
    pub sampling: ModelSampling,
    /// What the autoencoder's latents are multiplied by for it.
    pub latent_scale: f64,
    /// Channels of its latents.
    pub latent_channels: usize,
    /// How its latents look in a preview.
    pub look: Look,
    /// What it is told beside the prompt.
    pub label: Option<Label>,
    /// What it sees beside the noisy latent.
    pub edit: Option<Edit>,
    /// How latents are cut for it, if they are.
    pub windows: Option<Windows>,
    /// What makes prompts of what it is told in their place.
    pub projection: Option<Linear>,
    /// What it asks of guidance.
    pub corrections: Vec<Correction>,
    /// An empty prompt that guidance starts from, and how much the negative prompts count then.
    pub empty_prompt: Option<(Conditioning, f64)>,
    /// What changes the network's work.
    pub patches: Vec<Arc<dyn Patch>>,
    /// Whether noise masks grow on the way, and how much of them.
    pub mask_growth: Option<f64>,
    /// The architecture that it came from, to which it is saved again.
    pub layout: &'static Layout,
    /// The file that its weights are from.
    pub origin: Origin,
    /// Memory of the weights that no other model shares.
    pub bytes: usize,
}

/// The file that a model is from, which adapters that are trained on it name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// As a graph names it.
    pub name: Arc<str>,
    /// Where it is; `None` for a model that the program brings.
    pub path: Option<Arc<Path>>,
}

impl Model {
    /// The model as sampling takes it, for at most that many latents at once, with what [`corrections`](Self::corrections_at)
    /// gave.
    pub(crate) fn as_guided<'a>(&'a self, corrections: &'a [Correction], batch_limit: usize) -> guidance::Model<'a> {
        guidance::Model {
            network: &self.unet,
            sampling: &self.sampling,
            latent_scale: self.latent_scale,
            latent_channels: self.latent_channels,
            corrections,
            patches: &self.patches,
            edit: self.edit,
            windows: self.windows,
            batch_limit,
        }
    }

    /// What the model asks of guidance, for a latent of so many pixels.
    ///
    /// # Errors
    /// Its own empty prompt does not fit it.
    pub(crate) fn corrections_at(&self, pixels: (u32, u32), seed: u64) -> Result<Vec<Correction>, Error> {
        let mut corrections = self.corrections.clone();
        if let Some((empty, negative)) = &self.empty_prompt {
            let empty = empty.conditions(self, pixels, true, seed)?;
            corrections.push(Correction::Perpendicular { empty, negative: *negative });
        }
        Ok(corrections)
    }

    /// The same with one more correction of guidance.
    #[must_use]
    pub fn corrected(&self, correction: Correction) -> Self {
        let mut model = self.clone();
        // Of two that take the place of plain guidance, the later counts.
        if correction.replaces_guidance() {
            model.corrections.retain(|other| !other.replaces_guidance());
            model.empty_prompt = None;
        }
        model.corrections.push(correction);
        model
    }

    /// The same with guidance from an empty prompt, in place of any other.
    #[must_use]
    pub fn with_empty_prompt(&self, empty: Conditioning, negative: f64) -> Self {
        let mut model = self.clone();
        model.corrections.retain(|other| !other.replaces_guidance());
        model.empty_prompt = Some((empty, negative));
        model
    }

    /// The same with one more change of the network's work.
    #[must_use]
    pub fn patched(&self, patch: impl Patch + 'static) -> Self {
        let mut model = self.clone();
        model.patches.push(Arc::new(patch));
        model
    }
}

impl Port for Model {
    const KIND: &'static str = "MODEL";

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A model's text encoders, or the word that its checkpoint has none. Clones share the weights.
#[derive(Clone)]
pub struct Clip {
    encoders: Result<Encoders, Arc<paraflow_diffusion::Error>>,
    layer: Layer,
    /// What changes their weights beside adapters.
    pub hooks: ClipHooks,
    /// Memory of the weights that no other encoder shares.
    pub bytes: usize,
}

impl Clip {
    /// Encoders at the layer that their family uses. A checkpoint without one is an error only when it is needed.
    #[must_use]
    pub fn new(encoders: Result<Encoders, Arc<paraflow_diffusion::Error>>, bytes: usize) -> Self {
        let layer = encoders.as_ref().map_or(Layer::Last, Encoders::layer);
        Self { encoders, layer, hooks: ClipHooks::default(), bytes }
    }

    /// No encoder; `place` says where one is missing when it is used.
    pub(crate) fn missing(place: &str) -> Self {
        let hint = "connect the text encoder of a checkpoint".to_owned();
        let missing = paraflow_diffusion::Error::MissingPart { file: place.to_owned(), part: "text encoder", hint };
        Self::new(Err(Arc::new(missing)), 0)
    }

    /// The same encoders at another layer.
    #[must_use]
    pub fn at(&self, layer: Layer) -> Self {
        Self { layer, ..self.clone() }
    }

    /// Which of their states is the conditioning.
    #[must_use]
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// The encoders.
    ///
    /// # Errors
    /// The checkpoint that this came from has none.
    pub fn encoders(&self) -> Result<&Encoders, Error> {
        self.encoders.as_ref().map_err(|missing| Error::Diffusion(Arc::clone(missing)))
    }

    /// Other encoders in place of these, at the same layer: with adapters, say.
    #[must_use]
    pub fn with_encoders(&self, encoders: Encoders, bytes: usize) -> Self {
        Self { encoders: Ok(encoders), layer: self.layer, hooks: self.hooks.anew(), bytes }
    }
}

impl Port for Clip {
    const KIND: &'static str = "CLIP";

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// An autoencoder between pictures and latents, or the word that its checkpoint has none. Clones share the weights.
#[derive(Clone)]
pub struct Vae {
    autoencoder: Result<paraflow_diffusion::vae::Vae, Arc<paraflow_diffusion::Error>>,
    /// How many numbers a pixel takes while a picture is encoded or decoded, to tell whether there is room for it.
    pub numbers_per_pixel: usize,
    /// Memory of the weights that no other autoencoder shares.
    pub bytes: usize,
}

impl Vae {
    /// An autoencoder. A checkpoint without one is an error only when it is needed.
    #[must_use]
    pub fn new(
        autoencoder: Result<paraflow_diffusion::vae::Vae, Arc<paraflow_diffusion::Error>>,
        numbers_per_pixel: usize,
        bytes: usize,
    ) -> Self {
        Self { autoencoder, numbers_per_pixel, bytes }
    }

    /// The autoencoder.
    ///
    /// # Errors
    /// The checkpoint that this came from has none.
    pub fn autoencoder(&self) -> Result<&paraflow_diffusion::vae::Vae, Error> {
        self.autoencoder.as_ref().map_err(|missing| Error::Diffusion(Arc::clone(missing)))
    }
}

impl Port for Vae {
    const KIND: &'static str = "VAE";

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A batch of pictures.
#[derive(Clone, Debug)]
pub struct Image(Tensor);

impl Image {
    /// # Shapes
    /// `[batch, height, width, channels]` f32, 0 black to 1 white; channels are grey, or red, green, blue and perhaps
    /// opacity. None of them is 0.
    ///
    /// # Errors
    /// [`Error::Unfit`] for anything else.
    pub fn new(pixels: Tensor) -> Result<Self, Error> {
        let fits = matches!(pixels.dims(), [batch, height, width, 1 | 3 | 4] if batch * height * width > 0);
        let expected = "numbers [batch, height, width, 1, 3 or 4], none of them 0";
        require(fits && pixels.dtype() == DType::F32, "a batch of pictures", expected, &pixels)?;
        Ok(Self(pixels.contiguous()?))
    }

    /// `[batch, height, width, channels]` f32, contiguous.
    #[must_use]
    pub fn pixels(&self) -> &Tensor {
        &self.0
    }

    /// Batch, height, width, channels.
    #[must_use]
    pub fn dims(&self) -> (usize, usize, usize, usize) {
        self.0.dims4().expect("checked when it was made")
    }

    /// The values of one picture of the batch, row by row, pixel by pixel.
    ///
    /// # Errors
    /// A place that is not in the batch.
    pub fn values(&self, picture: usize) -> Result<Vec<f32>, Error> {
        Ok(self.0.narrow(0, picture, 1)?.flatten_all()?.to_vec1()?)
    }
}

impl Port for Image {
    const KIND: &'static str = "IMAGE";

    fn bytes(&self) -> usize {
        bytes(&self.0)
    }
}

/// A batch of masks: how much of a pixel is selected, or see-through.
#[derive(Clone, Debug)]
pub struct Mask(Tensor);

impl Mask {
    /// # Shapes
    /// `[batch, height, width]` f32, 0 not selected to 1 selected. None of them is 0.
    ///
    /// # Errors
    /// [`Error::Unfit`] for anything else.
    pub fn new(values: Tensor) -> Result<Self, Error> {
        let fits = values.rank() == 3 && values.elem_count() > 0 && values.dtype() == DType::F32;
        require(fits, "a batch of masks", "numbers [batch, height, width], none of them 0", &values)?;
        Ok(Self(values.contiguous()?))
    }

    /// `[batch, height, width]` f32, contiguous.
    #[must_use]
    pub fn values(&self) -> &Tensor {
        &self.0
    }

    /// Batch, height, width.
    #[must_use]
    pub fn dims(&self) -> (usize, usize, usize) {
        self.0.dims3().expect("checked when it was made")
    }
}

impl Port for Mask {
    const KIND: &'static str = "MASK";

    fn bytes(&self) -> usize {
        bytes(&self.0)
    }
}

/// A batch of pictures as a model works on them: an eighth of the width and height, in numbers of the autoencoder's.
#[derive(Clone, Debug)]
pub struct Latent {
    samples: Tensor,
    noise_mask: Option<Tensor>,
    batch_index: Option<Vec<usize>>,
}

impl Latent {
    /// A latent without mask or history.
    ///
    /// # Shapes
    /// `[batch, channels, height/8, width/8]` f32, none of them 0.
    ///
    /// # Errors
    /// [`Error::Unfit`] for anything else.
    pub fn new(samples: Tensor) -> Result<Self, Error> {
        let fits = samples.rank() == 4 && samples.elem_count() > 0 && samples.dtype() == DType::F32;
        require(fits, "a latent", "numbers [batch, channels, height/8, width/8], none of them 0", &samples)?;
        Ok(Self { samples: samples.contiguous()?, noise_mask: None, batch_index: None })
    }

    /// `[batch, channels, height/8, width/8]` f32, contiguous.
    #[must_use]
    pub fn samples(&self) -> &Tensor {
        &self.samples
    }

    /// Batch, channels, height/8, width/8.
    #[must_use]
    pub fn dims(&self) -> (usize, usize, usize, usize) {
        self.samples.dims4().expect("checked when it was made")
    }

    /// What the sampler changes, `[masks, 1, height, width]` of any size: 1 is made anew, 0 stays.
    #[must_use]
    pub fn noise_mask(&self) -> Option<&Tensor> {
        self.noise_mask.as_ref()
    }

    /// The place that each latent had in the batch it was taken from, which decides its noise.
    #[must_use]
    pub fn batch_index(&self) -> Option<&[usize]> {
        self.batch_index.as_deref()
    }

    /// The place of each latent in the batch it was taken from, or in this one.
    #[must_use]
    pub fn places(&self) -> Vec<usize> {
        self.batch_index().map_or_else(|| (0..self.dims().0).collect(), <[usize]>::to_vec)
    }

    /// The same mask and history with other samples.
    ///
    /// # Errors
    /// As [`Latent::new`].
    pub fn with_samples(&self, samples: Tensor) -> Result<Self, Error> {
        Ok(Self { samples: Self::new(samples)?.samples, ..self.clone() })
    }

    /// The same with another mask.
    ///
    /// # Shapes
    /// `[masks, 1, height, width]` f32, of any size.
    ///
    /// # Errors
    /// [`Error::Unfit`] for anything else.
    pub fn with_noise_mask(&self, mask: Tensor) -> Result<Self, Error> {
        let fits = matches!(mask.dims(), [masks, 1, height, width] if masks * height * width > 0);
        require(fits && mask.dtype() == DType::F32, "a noise mask", "numbers [masks, 1, height, width]", &mask)?;
        Ok(Self { noise_mask: Some(mask.contiguous()?), ..self.clone() })
    }

    /// The same with a place in an earlier batch for each latent.
    #[must_use]
    pub fn with_places(&self, places: Vec<usize>) -> Self {
        Self { batch_index: Some(places), ..self.clone() }
    }

    /// The same without places in an earlier batch.
    #[must_use]
    pub fn without_places(&self) -> Self {
        Self { batch_index: None, ..self.clone() }
    }

    /// `length` of the latents from `first` on, with their masks and their places.
    ///
    /// # Errors
    /// A range that is not in the batch.
    pub fn part(&self, first: usize, length: usize) -> Result<Self, Error> {
        let batch = self.samples.dim(0)?;
        let noise_mask = match &self.noise_mask {
            Some(masks) if masks.dim(0)? > 1 => Some(cycle(masks, batch)?.narrow(0, first, length)?.contiguous()?),
            masks => masks.clone(),
        };
        let places = |places: &[usize]| places.iter().skip(first).take(length).copied().collect();
        let batch_index = self.batch_index.as_deref().map_or_else(|| (first..first + length).collect(), places);
        let samples = self.samples.narrow(0, first, length)?.contiguous()?;
        Ok(Self { samples, noise_mask, batch_index: Some(batch_index) })
    }

    /// Every latent `times` times, the whole batch after itself. Places, if there are any, go on counting.
    ///
    /// # Errors
    /// Out of memory.
    pub fn repeat(&self, times: usize) -> Result<Self, Error> {
        // ComfyUI's way: fewer masks than latents are not brought to the batch before they are repeated.
        let noise_mask = match &self.noise_mask {
            Some(masks) if masks.dim(0)? > 1 => Some(masks.repeat((times, 1, 1, 1))?),
            masks => masks.clone(),
        };
        let batch_index = self.batch_index.as_ref().map(|places| {
            let span = places.iter().max().zip(places.iter().min()).map_or(0, |(max, min)| max - min + 1);
            (0..times).flat_map(|turn| places.iter().map(move |place| place + turn * span)).collect()
        });
        Ok(Self { samples: self.samples.repeat((times, 1, 1, 1))?, noise_mask, batch_index })
    }
}

impl Port for Latent {
    const KIND: &'static str = "LATENT";

    fn bytes(&self) -> usize {
        bytes(&self.samples) + self.noise_mask.as_ref().map_or(0, bytes)
    }
}

/// What may be done to a latent or to guidance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentOperation(pub guidance::Operation);

impl Port for LatentOperation {
    const KIND: &'static str = "LATENT_OPERATION";
}

/// Noise levels to visit, the highest first as a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Sigmas(pub Vec<f32>);

impl Port for Sigmas {
    const KIND: &'static str = "SIGMAS";
}

/// An algorithm with its settings.
#[derive(Clone)]
pub struct SamplerChoice(pub Walk);

impl Port for SamplerChoice {
    const KIND: &'static str = "SAMPLER";
}

/// A model, prompts, and how the answers to them become one.
#[derive(Clone)]
pub struct Guider {
    /// The model.
    pub model: Model,
    /// Positive prompts, negative ones, and what else the guidance takes.
    pub sides: Vec<Conditioning>,
    /// How their answers become one.
    pub guidance: Guidance,
}

impl Port for Guider {
    const KIND: &'static str = "GUIDER";
}

/// Where a sampling's noise comes from: a seed, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoiseSource(pub Option<u64>);

impl NoiseSource {
    /// The noise for a latent, of its shape.
    ///
    /// # Errors
    /// The latent's places are not as many as it has latents.
    pub fn draw(self, latent: &Latent) -> Result<Tensor, Error> {
        let samples = latent.samples();
        match self.0 {
            Some(seed) => Ok(noise::initial(latent.dims(), seed, latent.batch_index(), samples.device())?),
            None => Ok(samples.zeros_like()?),
        }
    }
}

impl Port for NoiseSource {
    const KIND: &'static str = "NOISE";
}

/// Pictures of one individual with their captions, to train on.
#[derive(Clone, Debug)]
pub struct Subject {
    /// At least one.
    pub pictures: Vec<SubjectPicture>,
    /// What it is, `bear` for one.
    pub class: String,
    /// What it is called.
    pub unique: String,
}

/// One picture of a subject.
#[derive(Clone, Debug)]
pub struct SubjectPicture {
    /// `[1, height, width, 3]`, both sides multiples of 8.
    pub image: Image,
    /// What it shows.
    pub caption: String,
    /// BLAKE3 of its file, or of its numbers if it comes from the graph.
    pub hash: String,
}

impl Subject {
    /// A text with `{unique}` and `{class}` filled in.
    #[must_use]
    pub fn fill(&self, template: &str) -> String {
        template.replace("{unique}", &self.unique).replace("{class}", &self.class)
    }
}

impl Port for Subject {
    const KIND: &'static str = "SUBJECT";

    fn bytes(&self) -> usize {
        self.pictures.iter().map(|picture| picture.image.bytes()).sum()
    }
}

/// How a training went.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// What was trained, for a legend.
    pub name: String,
    /// The loss of every step, and that on noise that stays the same, where it was measured.
    pub points: Vec<(f32, Option<f32>)>,
}

impl Port for Losses {
    const KIND: &'static str = "LOSS";

    fn bytes(&self) -> usize {
        size_of_val(self.points.as_slice())
    }
}

/// The losses of ComfyUI's trainer: of every batch, in their order.
#[derive(Clone, Debug)]
pub struct LossMap(pub Vec<f32>);

impl Port for LossMap {
    const KIND: &'static str = "LOSS_MAP";

    fn bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }
}

/// The first `count` of a batch that starts over when it ends.
fn cycle(batch: &Tensor, count: usize) -> Result<Tensor, Error> {
    let times = count.div_ceil(batch.dim(0)?);
    Ok(batch.repeat((times, 1, 1, 1))?.narrow(0, 0, count)?)
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

fn require(fits: bool, what: &'static str, expected: &str, found: &Tensor) -> Result<(), Error> {
    if fits {
        return Ok(());
    }
    let found = format!("{:?} of {:?}", found.dims(), found.dtype());
    Err(Error::Unfit { what, expected: expected.to_owned(), found })
}
