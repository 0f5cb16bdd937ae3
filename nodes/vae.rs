//! Between pictures and latents.

use crate::error::{Error, tell};
use crate::memory::Memory;
use crate::wires::{Image, Latent, Mask, Vae};
use candle_core::{Device, Tensor};
use paraflow_diffusion::resize::{Method, resize};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<VAEDecode>(),
        NodeDef::of::<VAEDecodeTiled>(),
        NodeDef::of::<VAEEncode>(),
        NodeDef::of::<VAEEncodeForInpaint>(),
        NodeDef::of::<VAEEncodeTiled>(),
    ]
}

/// Turns latents into pictures.
#[derive(Node)]
#[node(category = "latent", display_name = "VAE Decode", compute)]
struct VAEDecode {
    /// The latents to see.
    samples: Shared<Latent>,
    /// The autoencoder, from the checkpoint that made them.
    vae: Shared<Vae>,
}

impl Run for VAEDecode {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let autoencoder = self.vae.autoencoder().map_err(tell)?;
        let (batch, _, rows, columns) = self.samples.dims();
        let factor = autoencoder.factor();
        require(&self.vae, columns * factor, rows * factor, "decoding", cx).map_err(tell)?;
        let decode = |latent: &Tensor| -> Result<Tensor, Error> {
            Ok(autoencoder.decode(latent)?.permute((0, 2, 3, 1))?.contiguous()?)
        };
        let pictures = one_by_one(self.samples.samples(), batch, "decoded picture", cx, decode)?;
        Image::new(pictures).map_err(tell)
    }
}

/// Turns latents into pictures in tiles, with the memory that a tile takes. The tiles' seams do not show.
#[derive(Node)]
#[node(category = "_for_testing", display_name = "VAE Decode (Tiled)", compute)]
struct VAEDecodeTiled {
    /// The latents to see.
    samples: Shared<Latent>,
    /// The autoencoder, from the checkpoint that made them.
    vae: Shared<Vae>,
    /// Side of a tile in pixels.
    #[input(default = 512, range = 64..=4096, step = 32)]
    tile_size: u32,
    /// How many pixels neighbours share; at most a quarter of a tile.
    #[input(default = 64, range = 0..=4096, step = 32)]
    overlap: u32,
    /// For autoencoders of videos, of which there are none.
    #[input(default = 64, range = 8..=4096, step = 4)]
    temporal_size: u32,
    /// For autoencoders of videos, of which there are none.
    #[input(default = 8, range = 4..=4096, step = 4)]
    temporal_overlap: u32,
}

impl Run for VAEDecodeTiled {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let _ = (self.temporal_size, self.temporal_overlap);
        let autoencoder = self.vae.autoencoder().map_err(tell)?;
        let (_, _, rows, columns) = self.samples.dims();
        let (tile, factor) = (self.tile_size as usize, autoencoder.factor());
        let overlap = if self.tile_size < 4 * self.overlap { tile / 4 } else { self.overlap as usize };
        require_tile(&self.vae, (columns * factor, rows * factor), tile, "decoding", cx).map_err(tell)?;
        let (tile, overlap) = (tile / factor, overlap / factor);
        let total = self.samples.dims().0 * paraflow_diffusion::vae::Vae::tiles((rows, columns), tile, overlap);
        let pictures = in_tiles(self.samples.samples(), total, "decoded picture", cx, &mut |latent, watch| {
            let picture = autoencoder.decode_tiled(latent, tile, overlap, watch)?;
            Ok(picture.permute((0, 2, 3, 1))?.contiguous()?)
        })?;
        Image::new(pictures).map_err(tell)
    }
}

/// Turns pictures into latents in tiles, with the memory that a tile takes.
#[derive(Node)]
#[node(category = "_for_testing", display_name = "VAE Encode (Tiled)", compute)]
struct VAEEncodeTiled {
    /// The pictures. What is over a multiple of 8 in width and height is cut off at the sides.
    pixels: Shared<Image>,
    /// The autoencoder, from the checkpoint that is to work with them.
    vae: Shared<Vae>,
    /// Side of a tile in pixels.
    #[input(default = 512, range = 64..=4096, step = 64)]
    tile_size: u32,
    /// How many pixels neighbours share; less than half a tile.
    #[input(default = 64, range = 0..=4096, step = 32)]
    overlap: u32,
    /// For autoencoders of videos, of which there are none.
    #[input(default = 64, range = 8..=4096, step = 4)]
    temporal_size: u32,
    /// For autoencoders of videos, of which there are none.
    #[input(default = 8, range = 4..=4096, step = 4)]
    temporal_overlap: u32,
}

impl Run for VAEEncodeTiled {
    type Output = Latent;

    fn run(self, cx: &Context<'_>) -> Result<Latent> {
        let _ = (self.temporal_size, self.temporal_overlap);
        let autoencoder = self.vae.autoencoder().map_err(tell)?;
        let (tile, overlap) = (self.tile_size as usize, self.overlap as usize);
        if overlap >= tile / 2 {
            return Err(tell(Error::Unfit {
                what: "`overlap`",
                expected: format!("less than half of the tile, which is {tile} pixels"),
                found: overlap.to_string(),
            }));
        }
        let planes = colour_planes(&self.pixels, autoencoder.factor(), cx).map_err(tell)?;
        let (batch, _, height, width) = planes.dims4().map_err(tell)?;
        require_tile(&self.vae, (width, height), tile, "encoding", cx).map_err(tell)?;
        let total = batch * paraflow_diffusion::vae::Vae::tiles((height, width), tile, overlap);
        let latents = in_tiles(&planes, total, "encoded latent", cx, &mut |planes, watch| {
            Ok(autoencoder.encode_tiled(planes, tile, overlap, watch)?)
        })?;
        Latent::new(latents).map_err(tell)
    }
}

/// Works through a batch entry by entry and tile by tile, of which there are `total`.
fn in_tiles(entries: &Tensor, total: usize, result: &str, cx: &Context<'_>, work: &mut Work<'_>) -> Result<Tensor> {
    let batch = entries.dim(0).map_err(tell)?;
    let (mut results, mut done) = (Vec::with_capacity(batch), 0);
    for entry in 0..batch {
        let mut watch = || {
            done = (done + 1).min(total);
            cx.progress(done as u32, total as u32).map_err(|_| paraflow_diffusion::Error::Stopped)
        };
        let entry_of = entries.narrow(0, entry, 1).map_err(tell)?;
        let made = work(&entry_of, &mut watch).map_err(tell)?;
        require_finite(&made, result, entry, batch)?;
        results.push(made);
    }
    Tensor::cat(&results, 0).map_err(tell)
}

/// What is done with one entry of a batch, with what to call after each tile.
type Work<'a> = dyn FnMut(&Tensor, &mut dyn FnMut() -> paraflow_diffusion::Result<()>) -> Result<Tensor, Error> + 'a;

/// Refuses a tile that the autoencoder has no room for, beside the picture.
fn require_tile(
    vae: &Vae,
    (width, height): (usize, usize),
    tile: usize,
    work: &str,
    cx: &Context<'_>,
) -> Result<(), Error> {
    // Three pictures at most: a sum, what is being made, and its parts.
    let beside = 3 * 4 * width * height;
    let numbers = (width.min(2 * tile) * height.min(2 * tile)).min(tile * tile) * vae.numbers_per_pixel + beside;
    let needed = (numbers as u64).saturating_mul(size_of::<f32>() as u64);
    Memory::of(cx.services()).require(needed, || format!("{work} {width} x {height} pixels in tiles of {tile}"))
}

/// Turns pictures into latents.
#[derive(Node)]
#[node(category = "latent", display_name = "VAE Encode", compute)]
struct VAEEncode {
    /// The pictures. What is over a multiple of 8 in width and height is cut off at the sides.
    pixels: Shared<Image>,
    /// The autoencoder, from the checkpoint that is to work with them.
    vae: Shared<Vae>,
}

impl Run for VAEEncode {
    type Output = Latent;

    fn run(self, cx: &Context<'_>) -> Result<Latent> {
        let autoencoder = self.vae.autoencoder().map_err(tell)?;
        let planes = colour_planes(&self.pixels, autoencoder.factor(), cx).map_err(tell)?;
        encode(&self.vae, &planes, cx)
    }
}

/// Turns pictures into latents for inpainting: what the mask selects is greyed out, and is what a sampler will change.
///
/// For models that were trained to inpaint. With others, encode with `VAEEncode` and add `SetLatentNoiseMask`.
#[derive(Node)]
#[node(category = "latent/inpaint", display_name = "VAE Encode (for Inpainting)", compute)]
struct VAEEncodeForInpaint {
    /// The pictures to change a part of.
    pixels: Shared<Image>,
    /// The autoencoder, from the checkpoint that is to work with them.
    vae: Shared<Vae>,
    /// What to change: 1 is made anew, 0 stays.
    mask: Shared<Mask>,
    /// By how many pixels to widen the mask for the sampler, so that the seam disappears.
    #[input(default = 6, range = 0..=64, step = 1)]
    grow_mask_by: u32,
}

impl Run for VAEEncodeForInpaint {
    type Output = Latent;

    fn run(self, cx: &Context<'_>) -> Result<Latent> {
        let autoencoder = self.vae.autoencoder().map_err(tell)?;
        let (grow, factor) = (self.grow_mask_by as usize, autoencoder.factor());
        let prepared = prepare_for_inpainting(&self.pixels, &self.mask, grow, factor, cx);
        let (planes, noise_mask) = prepared.map_err(tell)?;
        encode(&self.vae, &planes, cx)?.with_noise_mask(noise_mask).map_err(tell)
    }
}

/// Pictures as planes with what is selected in grey, and the mask for the sampler, widened by `grow` pixels.
pub(crate) fn prepare_for_inpainting(
    pixels: &Image,
    mask: &Mask,
    grow: usize,
    factor: usize,
    cx: &Context<'_>,
) -> Result<(Tensor, Tensor), Error> {
    let (batch, height, width, _) = pixels.dims();
    let planes = colour_planes(pixels, factor, cx)?;
    let mask = mask.values().unsqueeze(1)?;
    let masks = mask.dim(0)?;
    if masks != 1 && masks != batch {
        return Err(Error::Unfit {
            what: "`mask`",
            expected: format!("one mask, or one for each of the {batch} pictures"),
            found: masks.to_string(),
        });
    }
    let mask = crop(&resize(&mask, width, height, Method::Bilinear)?, factor)?;
    let values = mask.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::round_ties_even).collect();
    let rounded = Tensor::from_vec(values, mask.dims(), &Device::Cpu)?;
    let greyed = (planes - 0.5)?.broadcast_mul(&rounded.affine(-1.0, 1.0)?)?;
    Ok(((greyed + 0.5)?, widen_all(&rounded, grow)?))
}

/// Widens masks of 0 and 1 `[masks, 1, height, width]` by a square of `size` pixels; the larger half of an even one lies
/// up and to the left.
fn widen_all(mask: &Tensor, size: usize) -> Result<Tensor, Error> {
    if size == 0 {
        return Ok(mask.clone());
    }
    let before = (size - 1).div_ceil(2);
    let after = size - 1 - before;
    let across = widen(mask, before, after)?;
    let down = widen(&across.transpose(2, 3)?.contiguous()?, before, after)?;
    Ok(down.transpose(2, 3)?.contiguous()?)
}

/// Each value of a row becomes the largest of those from `before` places before it to `after` places behind it.
fn widen(mask: &Tensor, before: usize, after: usize) -> Result<Tensor, Error> {
    let width = mask.dim(3)?;
    let values = mask.flatten_all()?.to_vec1::<f32>()?;
    let wide = values.chunks_exact(width).flat_map(|row| {
        (0..width).map(move |x| {
            let near = &row[x.saturating_sub(before)..(x + after + 1).min(width)];
            near.iter().fold(0.0_f32, |most, value| most.max(*value)).min(1.0)
        })
    });
    Ok(Tensor::from_vec(wide.collect(), mask.dims(), &Device::Cpu)?)
}

/// The colours of pictures as planes `[batch, 3, height, width]`, cut to multiples of `factor`. Grey becomes a colour,
/// opacity is dropped.
pub(crate) fn colour_planes(image: &Image, factor: usize, cx: &Context<'_>) -> Result<Tensor, Error> {
    let (batch, height, width, channels) = image.dims();
    if width < factor || height < factor {
        return Err(Error::Unfit {
            what: "`pixels`",
            expected: format!("pictures of at least {factor} x {factor} pixels"),
            found: format!("{width} x {height}"),
        });
    }
    let planes = image.pixels().permute((0, 3, 1, 2))?;
    let colours = match channels {
        1 => planes.broadcast_as((batch, 3, height, width))?,
        _ => planes.narrow(1, 0, 3)?,
    };
    if width % factor != 0 || height % factor != 0 {
        let (cut_width, cut_height) = (width / factor * factor, height / factor * factor);
        cx.warn(format!(
            "{width} x {height} pixels are no multiples of {factor}: the picture is cut to {cut_width} x {cut_height}"
        ));
    }
    crop(&colours, factor)
}

/// Cuts planes to multiples of `factor`, the same from both sides.
pub(crate) fn crop(planes: &Tensor, factor: usize) -> Result<Tensor, Error> {
    let (_, _, height, width) = planes.dims4()?;
    let (y, x) = (height % factor / 2, width % factor / 2);
    Ok(planes.narrow(2, y, height / factor * factor)?.narrow(3, x, width / factor * factor)?.contiguous()?)
}

pub(crate) fn encode(vae: &Vae, planes: &Tensor, cx: &Context<'_>) -> Result<Latent> {
    let autoencoder = vae.autoencoder().map_err(tell)?;
    let (batch, _, height, width) = planes.dims4().map_err(tell)?;
    require(vae, width, height, "encoding", cx).map_err(tell)?;
    let latents = one_by_one(planes, batch, "encoded latent", cx, |planes| Ok(autoencoder.encode(planes)?))?;
    Latent::new(latents).map_err(tell)
}

/// Works through a batch with room for one entry, so that memory does not grow with the batch and a stop takes effect
/// between entries.
fn one_by_one(
    entries: &Tensor,
    batch: usize,
    result: &str,
    cx: &Context<'_>,
    work: impl Fn(&Tensor) -> Result<Tensor, Error>,
) -> Result<Tensor> {
    let mut results = Vec::with_capacity(batch);
    for entry in 0..batch {
        cx.check()?;
        let made = entries.narrow(0, entry, 1).map_err(tell).and_then(|entry| work(&entry).map_err(tell))?;
        require_finite(&made, result, entry, batch)?;
        results.push(made);
        if batch > 1 {
            cx.progress(entry as u32 + 1, batch as u32)?;
        }
    }
    Tensor::cat(&results, 0).map_err(tell)
}

/// Refuses a result with numbers that are none.
fn require_finite(made: &Tensor, result: &str, entry: usize, batch: usize) -> Result<()> {
    if made.sum_all().and_then(|sum| sum.to_scalar::<f32>()).map_err(tell)?.is_finite() {
        return Ok(());
    }
    Err(tell(Error::NotFinite { what: format!("{result} {} of {batch}", entry + 1) }))
}

/// Refuses a picture that the autoencoder has no room for.
pub(crate) fn require(vae: &Vae, width: usize, height: usize, work: &str, cx: &Context<'_>) -> Result<(), Error> {
    let numbers = (width * height) as u64 * vae.numbers_per_pixel as u64;
    let needed = numbers.saturating_mul(size_of::<f32>() as u64);
    Memory::of(cx.services()).require(needed, || format!("{work} {width} x {height} pixels"))
}
