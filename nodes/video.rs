//! What ComfyUI has for models of videos, as far as it goes for pictures: prompts that are pictures, and latents.
//!
//! No such model runs here: their files are refused when a graph is planned. What these nodes say of a picture is what every other
//! model that sees pictures reads; what they say of motion, only models of videos would.

use crate::error::{Error, tell};
use crate::picture_prompts::Shown;
use crate::wires::{ClipVision, Conditioning, Image, Latent, MAX_SIZE, Vae};
use candle_core::Tensor;
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<FirstFrameConditioning>(),
        NodeDef::of::<OrbitConditioning>(),
        NodeDef::of::<ReplaceVideoLatentFrames>(),
    ]
}

/// Shows Stable Video Diffusion the picture that a video begins with.
#[derive(Node)]
#[node(
    name = "SVD_img2vid_Conditioning",
    category = "conditioning/video_models",
    compute,
    outputs = ["positive", "negative", "latent"]
)]
struct FirstFrameConditioning {
    /// The CLIP vision model of the checkpoint.
    clip_vision: Shared<ClipVision>,
    /// The picture.
    init_image: Shared<Image>,
    /// The autoencoder of the checkpoint.
    vae: Shared<Vae>,
    /// Width of the video in pixels.
    #[input(default = 1024, range = 16..=MAX_SIZE, step = 8)]
    width: u32,
    /// Height of the video in pixels.
    #[input(default = 576, range = 16..=MAX_SIZE, step = 8)]
    height: u32,
    /// How many pictures it is made of.
    #[input(default = 14, range = 1..=4096)]
    video_frames: u32,
    /// How much is to move.
    #[input(default = 127, range = 1..=1023)]
    motion_bucket_id: u32,
    /// How many pictures a second it shows.
    #[input(default = 6, range = 1..=1024)]
    fps: u32,
    /// How much noise to put on the picture: the more, the less the video keeps to it.
    #[input(default = 0.0, range = 0.0..=10.0, step = 0.01)]
    augmentation_level: f64,
}

impl Run for FirstFrameConditioning {
    type Output = (Conditioning, Conditioning, Latent);

    fn run(self, cx: &Context<'_>) -> Result<(Conditioning, Conditioning, Latent)> {
        let _ = (self.motion_bucket_id, self.fps);
        let size = (self.width, self.height);
        let shown = Shown::of(&self.clip_vision, &self.init_image, &self.vae, size, self.augmentation_level, cx)?;
        shown.plain_prompts(shown.latent(self.video_frames).map_err(tell)?).map_err(tell)
    }
}

/// Shows Stable Video 3D a picture of a thing that a camera is to go around.
#[derive(Node)]
#[node(
    name = "SV3D_Conditioning",
    category = "conditioning/3d_models",
    compute,
    outputs = ["positive", "negative", "latent"]
)]
struct OrbitConditioning {
    /// The CLIP vision model of the checkpoint.
    clip_vision: Shared<ClipVision>,
    /// The picture, of one thing on white.
    init_image: Shared<Image>,
    /// The autoencoder of the checkpoint.
    vae: Shared<Vae>,
    /// Width of the video in pixels.
    #[input(default = 576, range = 16..=MAX_SIZE, step = 8)]
    width: u32,
    /// Height of the video in pixels.
    #[input(default = 576, range = 16..=MAX_SIZE, step = 8)]
    height: u32,
    /// How many pictures it is made of.
    #[input(default = 21, range = 1..=4096)]
    video_frames: u32,
    /// How far up the camera is, in degrees.
    #[input(default = 0.0, range = -90.0..=90.0, step = 0.1)]
    elevation: f64,
}

impl Run for OrbitConditioning {
    type Output = (Conditioning, Conditioning, Latent);

    fn run(self, cx: &Context<'_>) -> Result<(Conditioning, Conditioning, Latent)> {
        let _ = self.elevation;
        let shown = Shown::of(&self.clip_vision, &self.init_image, &self.vae, (self.width, self.height), 0.0, cx)?;
        shown.plain_prompts(shown.latent(self.video_frames).map_err(tell)?).map_err(tell)
    }
}

/// Puts frames of a video in the place of others. Of a picture, which has no frames, it replaces rows of cells, as in ComfyUI.
#[derive(Node)]
#[node(category = "latent/batch")]
struct ReplaceVideoLatentFrames {
    /// What is changed.
    destination: Shared<Latent>,
    /// What comes in its place; without it, nothing changes.
    source: Option<Shared<Latent>>,
    /// Where the first of them goes; less than 0 counts from the end.
    #[input(default = 0, range = -(MAX_SIZE as i32)..=MAX_SIZE as i32, step = 1)]
    index: i32,
}

impl Run for ReplaceVideoLatentFrames {
    type Output = Latent;

    fn run(self, cx: &Context<'_>) -> Result<Latent> {
        const FRAMES: usize = 2;
        let destination = self.destination.samples();
        let Some(source) = &self.source else { return Ok(Latent::clone(&self.destination)) };
        let (there, new) = (destination.dims()[FRAMES], source.samples().dims()[FRAMES]);
        let from_end = (self.index < 0).then(|| there.checked_sub(self.index.unsigned_abs() as usize));
        let start = from_end.unwrap_or(Some(self.index.unsigned_abs() as usize));
        let Some(start) = start.filter(|start| start + new <= there) else {
            cx.warn(format!(
                "{new} frames do not fit at index {} of {there}: the latent stays as it is. Use a smaller index or a shorter source",
                self.index
            ));
            return Ok(Latent::clone(&self.destination));
        };
        let replace = || -> Result<Latent, Error> {
            let shape: Vec<usize> =
                destination.dims().iter().enumerate().map(|(dim, n)| if dim == FRAMES { new } else { *n }).collect();
            let frames = source.samples().broadcast_as(shape).map_err(|_| Error::Unfit {
                what: "`source`",
                expected: format!("latents of the other sizes of {:?}", destination.dims()),
                found: format!("{:?}", source.samples().dims()),
            })?;
            let before = destination.narrow(FRAMES, 0, start)?;
            let after = destination.narrow(FRAMES, start + new, there - start - new)?;
            source.with_samples(Tensor::cat(&[&before, &frames, &after], FRAMES)?)
        };
        replace().map_err(tell)
    }
}
