//! What a step learns from: which pictures, at which noise levels, with which noise.

use candle_core::{Device, Tensor};

use super::backward::{Inputs, Objective};
use super::random::{Stream, generator, in_rounds};
use super::settings::Settings;
use super::trainer::TrainRequest;
use crate::error::Result;
use crate::schedule::Prediction;

/// A picture with its caption, as the networks see them.
#[derive(Debug, Clone)]
pub struct Example {
    /// What the autoencoder makes of the picture, `[1, channels, height, width]`, f32.
    pub latent: Tensor,
    /// What the text encoder makes of the caption, `[1, tokens, width]`, f32.
    pub context: Tensor,
    /// What else the network is told, `[1, width]`, for networks that take it.
    pub label: Option<Tensor>,
}

/// One picture of a step.
pub(super) struct Item<'a> {
    example: &'a Example,
    context: &'a Tensor,
    timestep: usize,
    noise: Vec<f32>,
    /// Its share in the loss, noise level included.
    weight: f64,
}

/// Pictures that go through the network together.
pub(super) struct Chunk {
    pub(super) x: Tensor,
    pub(super) timesteps: Tensor,
    pub(super) context: Tensor,
    pub(super) label: Option<Tensor>,
    pub(super) target: Tensor,
    /// `[batch, 1, 1, 1]`: what an element's squared error counts.
    pub(super) weights: Tensor,
}

/// How many pictures go through the network at once: enough to use each weight more than once, and few enough that a batch of
/// four keeps two threads busy. Part of what decides the last bits of a result, so it depends on nothing.
const TOGETHER: usize = 2;

/// The pictures of one batch; `index` counts all batches of the training.
pub(super) fn items<'a>(request: &TrainRequest<'a>, settings: &Settings, index: usize) -> Vec<Item<'a>> {
    let (batch, seed) = (settings.batch, settings.seed);
    let both = [(request.subject, Stream::Order, 1.0), (request.class, Stream::ClassOrder, settings.prior_weight)];
    let mut levels = generator(seed, Stream::Timestep, index);
    let mut captions = generator(seed, Stream::Caption, index);
    let mut items = Vec::new();
    for (examples, order, weight) in both.into_iter().filter(|(examples, _, _)| !examples.is_empty()) {
        for place in 0..batch {
            let example = &examples[in_rounds(seed, order, index * batch + place, examples.len())];
            // Each picture of a batch has a stretch of the noise levels of its own; over the batches all are alike.
            let share = (place as f64 + levels.uniform_f64()) / batch as f64;
            let timestep = level(request, share);
            let dropped = captions.uniform_f64() < settings.caption_dropout;
            items.push(Item {
                example,
                context: request.empty.filter(|_| dropped).unwrap_or(&example.context),
                timestep,
                noise: Vec::new(),
                weight: weight * level_weight(request, settings, timestep) / batch as f64,
            });
        }
    }
    let mut noise = generator(seed, Stream::Noise, index);
    let mut offsets = generator(seed, Stream::Offset, index);
    for item in &mut items {
        item.noise = vec![0.0; item.example.latent.elem_count()];
        noise.fill_normal(&mut item.noise);
        if settings.noise_offset > 0.0 {
            let channels = item.example.latent.dims()[1];
            let mut means = vec![0.0; channels];
            offsets.fill_normal(&mut means);
            let pixels = item.noise.len() / channels.max(1);
            for (channel, mean) in item.noise.chunks_exact_mut(pixels.max(1)).zip(means) {
                channel.iter_mut().for_each(|x| *x += settings.noise_offset as f32 * mean);
            }
        }
    }
    items
}

/// Pictures and noise that are the same whenever the validation loss is measured.
pub(super) fn validation<'a>(request: &TrainRequest<'a>, settings: &Settings) -> Vec<Item<'a>> {
    /// A few for each noise level that matters; more cost time at each measurement.
    const COUNT: usize = 12;
    let item = |place: usize| {
        let example = &request.subject[place % request.subject.len()];
        let mut noise = vec![0.0; example.latent.elem_count()];
        generator(settings.seed, Stream::Validation, place).fill_normal(&mut noise);
        let timestep = level(request, (place as f64 + 0.5) / COUNT as f64);
        let weight = level_weight(request, settings, timestep) / COUNT as f64;
        Item { example, context: &example.context, timestep, noise, weight }
    };
    (0..COUNT).map(item).collect()
}

fn level(request: &TrainRequest<'_>, share: f64) -> usize {
    let levels = request.sampling.sigmas().len();
    ((share * levels as f64) as usize).min(levels - 1)
}

/// Whether the network predicts the velocity, and not the noise. [`train`](super::train) refuses what is neither.
fn is_velocity(request: &TrainRequest<'_>) -> bool {
    request.sampling.prediction() == Prediction::Velocity
}

/// Min-SNR: what the squared error of a noise level counts.
fn level_weight(request: &TrainRequest<'_>, settings: &Settings, timestep: usize) -> f64 {
    if settings.min_snr == 0.0 {
        return 1.0;
    }
    let snr = f64::from(request.sampling.sigmas()[timestep]).powi(-2);
    let counted = snr.min(settings.min_snr);
    if is_velocity(request) { counted / (snr + 1.0) } else { counted / snr }
}

/// Neighbours of one shape together.
pub(super) fn chunks(request: &TrainRequest<'_>, items: &[Item<'_>]) -> Result<Vec<Chunk>> {
    let alike = |a: &Item<'_>, b: &Item<'_>| {
        a.example.latent.dims() == b.example.latent.dims() && a.context.dims() == b.context.dims()
    };
    items.chunk_by(alike).flat_map(|run| run.chunks(TOGETHER)).map(|run| chunk(request, run)).collect()
}

/// `x = √ᾱ z + √(1 - ᾱ) ε` and what the network should say of it.
fn chunk(request: &TrainRequest<'_>, items: &[Item<'_>]) -> Result<Chunk> {
    let shape = [&[items.len()], &items[0].example.latent.dims()[1..]].concat();
    let elements: usize = shape[1..].iter().product();
    let (mut x, mut target) = (Vec::new(), Vec::new());
    for item in items {
        let sigma = f64::from(request.sampling.sigmas()[item.timestep]);
        let signal = (1.0 / (sigma * sigma + 1.0)).sqrt();
        let (clean, noisy) = ((signal * request.latent_scale) as f32, (sigma * signal) as f32);
        let latent: Vec<f32> = item.example.latent.flatten_all()?.to_vec1()?;
        let pairs = || latent.iter().zip(&item.noise);
        x.extend(pairs().map(|(z, e)| clean * z + noisy * e));
        if is_velocity(request) {
            let (of_noise, of_latent) = (signal as f32, (sigma * signal * request.latent_scale) as f32);
            target.extend(pairs().map(|(z, e)| of_noise * e - of_latent * z));
        } else {
            target.extend_from_slice(&item.noise);
        }
    }
    let stack = |of: &dyn Fn(&Item<'_>) -> Tensor| Tensor::cat(&items.iter().map(of).collect::<Vec<_>>(), 0);
    let label = match &items[0].example.label {
        Some(first) => Some(stack(&|item| item.example.label.clone().unwrap_or_else(|| first.clone()))?),
        None => None,
    };
    let weights = items.iter().map(|item| (item.weight / elements as f64) as f32).collect();
    let timesteps: Vec<f32> = items.iter().map(|item| item.timestep as f32).collect();
    Ok(Chunk {
        x: Tensor::from_vec(x, shape.as_slice(), &Device::Cpu)?,
        timesteps: Tensor::from_vec(timesteps, items.len(), &Device::Cpu)?,
        context: stack(&|item| item.context.clone())?.contiguous()?,
        label,
        target: Tensor::from_vec(target, shape.as_slice(), &Device::Cpu)?,
        weights: Tensor::from_vec::<_, f32>(weights, (items.len(), 1, 1, 1), &Device::Cpu)?,
    })
}

impl Objective for Chunk {
    fn inputs(&self) -> Inputs<'_> {
        Inputs { x: &self.x, timesteps: &self.timesteps, context: &self.context, label: self.label.as_ref() }
    }

    /// The weighted squared error of what the network said.
    fn loss(&self, said: &Tensor) -> Result<Tensor> {
        Ok((said - &self.target)?.sqr()?.broadcast_mul(&self.weights)?.sum_all()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Method, plain};
    use super::*;
    use crate::schedule::ModelSampling;
    use crate::testing::value;

    /// A request for a training of one picture, in the settings given.
    fn with_request(prediction: Prediction, settings: &Settings, look: &dyn Fn(&TrainRequest<'_>)) {
        let network = crate::testing::Golden::open("unet_narrow");
        let unet = crate::unet::UNet::load(&network.weights().part("model.diffusion_model.")).unwrap();
        let sampling = ModelSampling::stable_diffusion(prediction);
        let subject = vec![Example {
            latent: value("latent", &[1, 4, 8, 8], 5.0),
            context: value("context", &[1, 77, 160], 1.0),
            label: None,
        }];
        let empty = value("empty", &[1, 77, 160], 1.0);
        look(&TrainRequest {
            unet: &unet,
            sampling: &sampling,
            latent_scale: 0.18215,
            subject: &subject,
            class: &[],
            empty: Some(&empty),
            settings,
            state: None,
        });
    }

    /// Hang et al. 2023, with ᾱ from the betas of Stable Diffusion: `min(SNR, γ) / SNR` where noise is predicted, and
    /// `min(SNR, γ) / (SNR + 1)` where velocity is; `SNR = ᾱ / (1 - ᾱ)`.
    #[test]
    fn noise_levels_count_by_their_signal() {
        let mut settings = plain(Method::Lora { rank: 1, alpha: 1.0, rate: 1e-3 }, Vec::new());
        settings.min_snr = 5.0;
        let alpha = |timestep: usize| -> f64 {
            let beta = |t: usize| {
                let root = 0.00085_f64.sqrt() + (0.012_f64.sqrt() - 0.00085_f64.sqrt()) * t as f64 / 999.0;
                root * root
            };
            (0..=timestep).map(|t| 1.0 - beta(t)).product()
        };
        for (prediction, more) in [(Prediction::Epsilon, 0.0), (Prediction::Velocity, 1.0)] {
            with_request(prediction, &settings, &|request| {
                for timestep in [0, 100, 500, 999] {
                    let snr = alpha(timestep) / (1.0 - alpha(timestep));
                    let expected = snr.min(5.0) / (snr + more);
                    let found = level_weight(request, &settings, timestep);
                    assert!((found - expected).abs() < 1e-4 * expected, "{timestep}: {found} {expected}");
                }
            });
        }
    }

    #[test]
    fn captions_are_left_out_and_noise_is_shifted_as_often_as_asked() {
        let mut settings = plain(Method::Lora { rank: 1, alpha: 1.0, rate: 1e-3 }, Vec::new());
        (settings.batch, settings.caption_dropout, settings.noise_offset) = (4, 0.25, 0.5);
        with_request(Prediction::Epsilon, &settings, &|request| {
            let all: Vec<Item<'_>> = (0..200).flat_map(|index| items(request, &settings, index)).collect();
            let dropped = all.iter().filter(|item| std::ptr::eq(item.context, request.empty.unwrap())).count();
            assert!((150..250).contains(&dropped), "{dropped} of 800");
            // The mean of a channel's 64 numbers varies by 1 / 64 of itself, and by the offset.
            let means: Vec<f64> = all
                .iter()
                .flat_map(|item| item.noise.chunks(64))
                .map(|channel| channel.iter().map(|x| f64::from(*x)).sum::<f64>() / 64.0)
                .collect();
            let variance = means.iter().map(|mean| mean * mean).sum::<f64>() / means.len() as f64;
            assert!((variance - (0.25 + 1.0 / 64.0)).abs() < 0.03, "{variance}");
        });
    }
}
