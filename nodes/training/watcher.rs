//! Who watches a training: hands on what it tells, and draws its sample pictures. Nothing that goes wrong with a sample ends
//! a training: it is a warning.

use super::common::Common;
use crate::error::Error;
use crate::vae;
use crate::wires::{Image, Model};
use candle_core::Tensor;
use paraflow_assets::{Channels, Pixels, write_png};
use paraflow_diffusion::guidance::Condition;
use paraflow_diffusion::schedule::{self, Span};
use paraflow_diffusion::train::{Report, Watch};
use paraflow_diffusion::unet::UNet;
use paraflow_diffusion::{SampleRequest, sample, samplers};
use paraflow_engine::{Context, ImageFormat, LossPoint, OutputSpec, Result, Slot, Value};
use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The most points of a curve that are told at once, so that no client is given more than it can take.
const MOST_POINTS: usize = 2000;

/// Hands on what a training tells, and draws its samples.
pub(super) struct Watcher<'a> {
    common: &'a Common<'a>,
    cx: &'a Context<'a>,
    /// The sample prompt; `None` where no samples are wanted, or where it cannot be read.
    positive: Option<Condition>,
    negative: Condition,
    latent: Tensor,
    /// By step.
    samples: Vec<(usize, Image)>,
}

/// The sample pictures of a training in the order of their steps. Where there are none, what reads them is not run.
pub(crate) struct Samples(Vec<Image>);

impl Slot for Samples {
    const SPEC: OutputSpec = <Vec<Image> as Slot>::SPEC;

    fn into_values(self) -> Vec<Value> {
        if self.0.is_empty() {
            return vec![Value::blocked(Some("the training made no sample picture".to_owned()))];
        }
        self.0.into_values()
    }
}

impl<'a> Watcher<'a> {
    /// Reads the sample prompt. `negative` is the empty prompt, `latent` one like those of the subject, of so many pixels.
    ///
    /// # Errors
    /// The run is to stop.
    pub(super) fn new(
        common: &'a Common<'a>,
        cx: &'a Context<'a>,
        negative: Condition,
        latent: Tensor,
        pixels: (u32, u32),
    ) -> Result<Self> {
        let mut watcher = Self { common, cx, positive: None, negative, latent, samples: Vec::new() };
        if common.settings.sample_every > 0 {
            let prompt = common.subject.fill(common.sample_prompt);
            let read = guarded(|| {
                common.condition(&prompt, pixels, cx).map_err(|error| match error.hint() {
                    Some(hint) => format!("{error}\nhint: {hint}"),
                    None => error.to_string(),
                })
            });
            cx.check()?;
            match read {
                Ok(condition) => watcher.positive = Some(condition),
                Err(fault) => cx.warn(format!(
                    "`sample_prompt` cannot be read, so the training goes on without sample pictures: {fault}"
                )),
            }
        }
        Ok(watcher)
    }

    /// All sample pictures.
    pub(super) fn into_samples(self) -> Samples {
        Samples(self.samples.into_iter().map(|(_, image)| image).collect())
    }

    /// The sample prompt's picture, of the same noise each time.
    fn draw(&self, positive: &Condition, unet: &UNet) -> Result<Image, Error> {
        let common = self.common;
        let model = Model { unet: unet.clone(), ..common.model.clone() };
        let request = SampleRequest {
            model: model.as_guided(&model.corrections, usize::MAX),
            positive: std::slice::from_ref(positive),
            negative: std::slice::from_ref(&self.negative),
            latent: &self.latent,
            noise_mask: None,
            growth: None,
            batch_index: None,
            seed: common.settings.seed,
            add_noise: true,
            cfg: common.sample_cfg,
            sampler: samplers::find("euler")?,
            schedule: schedule::find("normal")?,
            span: Span::whole(common.sample_steps as usize),
        };
        let stop =
            |_, _: &Tensor| if self.cx.check().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        let latent = sample(&request, &mut { stop })?;
        require_finite(&latent, "its latent")?;
        let autoencoder = common.vae.autoencoder()?;
        let (_, _, rows, columns) = latent.dims4()?;
        let factor = autoencoder.factor();
        vae::require(common.vae, columns * factor, rows * factor, "decoding", self.cx)?;
        let picture = autoencoder.decode(&latent)?;
        require_finite(&picture, "it")?;
        Image::new(picture.permute((0, 2, 3, 1))?.contiguous()?)
    }
}

impl Watch for Watcher<'_> {
    fn step(&mut self, report: &Report) -> ControlFlow<()> {
        self.cx.loss(point(report));
        match self.cx.progress(report.step as u32, report.steps as u32) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn resumed(&mut self, before: &[Report]) {
        // Of each stretch the point that says most: one with a validation, else the last.
        for stretch in before.chunks(before.len().div_ceil(MOST_POINTS).max(1)) {
            let validated = stretch.iter().rfind(|report| report.validation.is_some());
            if let Some(report) = validated.or(stretch.last()) {
                self.cx.loss(point(report));
            }
        }
    }

    fn sample(&mut self, step: usize, unet: &UNet) -> ControlFlow<()> {
        let Some(positive) = &self.positive else { return ControlFlow::Continue(()) };
        let drawn = guarded(|| {
            let image = self.draw(positive, unet).map_err(|error| error.to_string())?;
            let file = png(&image).map_err(|error| error.to_string())?;
            Ok((image, file))
        });
        if self.cx.check().is_err() {
            return ControlFlow::Break(());
        }
        match drawn {
            Ok((image, file)) => {
                self.cx.sample(step as u32, file, ImageFormat::Png);
                self.samples.push((step, image));
            }
            Err(fault) => {
                self.warn(format!("there is no sample picture of step {step}: {fault}; the training goes on"));
            }
        }
        ControlFlow::Continue(())
    }

    fn warn(&mut self, text: String) {
        self.cx.warn(text);
    }

    fn samples(&self) -> Vec<(usize, Tensor)> {
        self.samples.iter().map(|(step, image)| (*step, image.pixels().clone())).collect()
    }

    fn restore(&mut self, step: usize, picture: Tensor) {
        match Image::new(picture) {
            Ok(image) => self.samples.push((step, image)),
            Err(error) => self.warn(format!("the sample picture of step {step} was not kept: {error}")),
        }
    }
}

fn point(report: &Report) -> LossPoint {
    let Report { step, steps, loss, validation, rate: learning_rate } = *report;
    LossPoint { step: step as u32, total: steps as u32, loss, validation, learning_rate }
}

/// A panic inside becomes a fault as any other.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    // A network never changes, and what it remembers lies behind locks, so nothing half-done is seen afterwards.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let panic: &(dyn Any + Send) = &*panic;
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message");
        Err(format!("the program panicked ({text})"))
    })
}

fn require_finite(numbers: &Tensor, what: &str) -> Result<(), Error> {
    // Zero times anything else is NaN.
    if (numbers * 0.0)?.sum_all()?.to_scalar::<f32>()? == 0.0 {
        return Ok(());
    }
    Err(Error::NotFinite { what: what.to_owned() })
}

/// The first picture of a batch as a PNG.
fn png(image: &Image) -> Result<Vec<u8>, Error> {
    let (_, height, width, channels) = image.dims();
    let bytes: Vec<u8> = image.values(0)?.into_iter().map(crate::pictures::to_byte).collect();
    let channels = match channels {
        1 => Channels::Grey,
        3 => Channels::Rgb,
        _ => Channels::Rgba,
    };
    let pixels = Pixels { bytes: &bytes, width: width as u32, height: height as u32, channels };
    let mut file = Vec::new();
    write_png(&mut file, pixels, &[], 4).map_err(|error| candle_core::Error::Msg(error.to_string()))?;
    Ok(file)
}
