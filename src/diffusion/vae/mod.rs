//! The autoencoder between pictures and latents.
//!
//! Rombach et al. 2022, arXiv:2112.10752, with a KL penalty, in the key names of its authors' checkpoints. Latents here
//! are the autoencoder's own; the factor that a UNet wants them scaled by belongs to the model's family.

mod block;
mod tiny;

use block::{EPSILON, Level, Middle};
use candle_core::Tensor;
use tiny::Tiny;

use crate::error::{Error, Result};
use crate::nn::{
    Compute, Conv2d, Geometry, GroupNorm, Layers, Linear, Weight, Weights, give_picture, upsample_nearest,
};
use crate::tensors::divide;
use crate::tiles::{Tiling, tiled};

/// Colours of a picture.
const COLOURS: usize = 3;

/// Encoder and decoder. Cheap to clone: clones share the weights.
#[derive(Clone)]
pub struct Vae {
    coders: Coders,
    /// The tensors that it was found in; none for a tiny one, which is no part of a checkpoint.
    source: Option<Weights>,
    /// Channels of a latent.
    channels: usize,
    compute: Compute,
}

#[derive(Clone)]
enum Coders {
    /// The autoencoder of a checkpoint.
    Full(Box<(Encoder, Decoder)>),
    /// Its quick stand-in, whose latents are at the model's scale: `(latent − shift) · scale`.
    Tiny { encoder: Option<Tiny>, decoder: Tiny, scale: f64, shift: f64 },
}

#[derive(Clone)]
struct Encoder {
    conv_in: Conv2d,
    down: Vec<Level>,
    middle: Middle,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    quant: Option<Linear>,
}

#[derive(Clone)]
struct Decoder {
    quant: Option<Linear>,
    conv_in: Conv2d,
    middle: Middle,
    /// In the order in which they run, which is the file's backwards.
    up: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Vae {
    /// Finds every tensor of the autoencoder below a prefix such as `first_stage_model.`; widths, levels and blocks are read
    /// off names and shapes. Numbers are read when a layer first runs.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongShape`] and [`Error::UnsupportedNumbers`], each with the tensor's key.
    pub fn load(weights: &Weights) -> Result<Self> {
        let channels = dim(weights, "decoder.conv_in.weight", 1)?;
        let coders = (Encoder::load(weights, channels)?, Decoder::load(weights, channels)?);
        let source = Some(weights.clone());
        Ok(Self { coders: Coders::Full(Box::new(coders)), source, channels, compute: weights.compute().clone() })
    }

    /// The tensors that it was loaded from; `None` for a tiny autoencoder, which no checkpoint holds.
    #[must_use]
    pub fn source(&self) -> Option<&Weights> {
        self.source.as_ref()
    }

    /// The tiny autoencoder of two files, for latents that the model sees as `(latent − shift) · scale`. Without an encoder it
    /// only decodes, which is enough for previews.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_tiny(encoder: Option<&Weights>, decoder: &Weights, scale: f64, shift: f64) -> Result<Self> {
        let channels = tiny::latent_channels(decoder)?;
        let encoder = encoder.map(|weights| Tiny::encoder(weights, channels)).transpose()?;
        let coders = Coders::Tiny { encoder, decoder: Tiny::decoder(decoder, channels)?, scale, shift };
        Ok(Self { coders, source: None, channels, compute: decoder.compute().clone() })
    }

    /// Channels of a latent.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Channels of the encoder's levels, from the finest to the coarsest; none for the quick stand-in, which has no levels.
    #[must_use]
    pub fn widths(&self) -> Vec<usize> {
        match &self.coders {
            Coders::Full(coders) => {
                coders.0.down.iter().filter_map(|level| level.blocks.last()).map(|b| b.output).collect()
            }
            Coders::Tiny { .. } => Vec::new(),
        }
    }

    /// How many pixels of a picture's side one latent pixel stands for: 8.
    #[must_use]
    pub fn factor(&self) -> usize {
        match &self.coders {
            Coders::Full(coders) => 1 << coders.0.down.iter().filter(|level| level.resize.is_some()).count(),
            Coders::Tiny { .. } => 8,
        }
    }

    /// The most likely latent of a picture (the posterior's mean; nothing is drawn).
    ///
    /// # Shapes
    /// - `image`: `[batch, 3, height, width]`, f32, 0 to 1, both sides multiples of [`factor`](Self::factor)
    /// - output: `[batch, channels, height / factor, width / factor]`, f32
    ///
    /// # Errors
    /// [`Error::Shape`] when the picture has other colours or sides.
    pub fn encode(&self, image: &Tensor) -> Result<Tensor> {
        let factor = self.factor();
        let fits = matches!(image.dims(), &[batch, COLOURS, height, width]
            if batch * height * width > 0 && height.is_multiple_of(factor) && width.is_multiple_of(factor));
        if !fits {
            return Err(Error::Shape {
                layer: "VAE (encode)".to_owned(),
                expected: format!("[batch, {COLOURS}, height, width], both sides multiples of {factor}"),
                found: image.dims().to_vec(),
            });
        }
        let x = self.compute.take_picture(image)?;
        match &self.coders {
            Coders::Full(coders) => {
                let moments = coders.0.forward(&((x * 2.0)? - 1.0)?)?;
                give_picture(&moments.narrow(3, 0, self.channels)?)
            }
            Coders::Tiny { encoder: Some(encoder), scale, shift, .. } => {
                give_picture(&((encoder.forward(&x)? / *scale)? + *shift)?)
            }
            Coders::Tiny { encoder: None, .. } => Err(Error::Shape {
                layer: "VAE (encode)".to_owned(),
                expected: "an autoencoder with an encoder".to_owned(),
                found: Vec::new(),
            }),
        }
    }

    /// The picture of a latent.
    ///
    /// # Shapes
    /// - `latent`: `[batch, channels, height, width]`, f32
    /// - output: `[batch, 3, height * factor, width * factor]`, f32, 0 to 1
    ///
    /// # Errors
    /// [`Error::Shape`] when the latent has another number of channels.
    pub fn decode(&self, latent: &Tensor) -> Result<Tensor> {
        as_picture(&self.decode_raw(latent)?)
    }

    /// The picture of a latent, tile by tile: the mean of three ways to cut it, so that no seam shows. Memory beside the
    /// result is that of one tile of the largest.
    ///
    /// # Shapes
    /// As [`decode`](Self::decode), for one latent; `tile` and `overlap` are in cells.
    ///
    /// # Errors
    /// As [`decode`](Self::decode); tiles that are no larger than their overlap; what `watch` says after a tile.
    pub fn decode_tiled(
        &self,
        latent: &Tensor,
        tile: usize,
        overlap: usize,
        watch: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Tensor> {
        let scale = self.factor() as f64;
        let ways = three_ways(tile, overlap, scale, [(2, 0), (0, 2), (1, 1)]);
        let raw = mean_of(latent, &ways, &mut |tile| {
            let made = self.decode_raw(tile)?;
            watch()?;
            Ok(made)
        })?;
        as_picture(&raw)
    }

    /// The latent of a picture, tile by tile, as [`decode_tiled`](Self::decode_tiled).
    ///
    /// # Shapes
    /// As [`encode`](Self::encode), for one picture; `tile` and `overlap` are in pixels.
    ///
    /// # Errors
    /// As [`encode`](Self::encode); tiles that are no larger than their overlap; what `watch` says after a tile.
    pub fn encode_tiled(
        &self,
        image: &Tensor,
        tile: usize,
        overlap: usize,
        watch: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Tensor> {
        let scale = 1.0 / self.factor() as f64;
        let ways = three_ways(tile, overlap, scale, [(1, 1), (0, 2), (2, 0)]);
        mean_of(image, &ways, &mut |tile| {
            let made = self.encode(tile)?;
            watch()?;
            Ok(made)
        })
    }

    /// How many tiles [`decode_tiled`](Self::decode_tiled) or [`encode_tiled`](Self::encode_tiled) work through for what has
    /// this height and width.
    #[must_use]
    pub fn tiles((height, width): (usize, usize), tile: usize, overlap: usize) -> usize {
        three_ways(tile, overlap, 1.0, [(2, 0), (0, 2), (1, 1)])
            .iter()
            .filter(|way| way.tile.0 > overlap && way.tile.1 > overlap)
            .map(|way| way.count(height, width))
            .sum()
    }

    /// What the decoder says, about -1 to 1.
    fn decode_raw(&self, latent: &Tensor) -> Result<Tensor> {
        if latent.rank() != 4 || latent.dims()[1] != self.channels || latent.elem_count() == 0 {
            return Err(Error::Shape {
                layer: "VAE (decode)".to_owned(),
                expected: format!("[batch, {}, height, width]", self.channels),
                found: latent.dims().to_vec(),
            });
        }
        let latent = self.compute.take_picture(latent)?;
        match &self.coders {
            Coders::Full(coders) => give_picture(&coders.1.forward(&latent)?),
            Coders::Tiny { decoder, scale, shift, .. } => {
                let image = decoder.forward(&((latent - *shift)? * *scale)?)?;
                give_picture(&((image - 0.5)? * 2.0)?)
            }
        }
    }
}

/// From what a decoder says to 0 to 1.
fn as_picture(raw: &Tensor) -> Result<Tensor> {
    Ok(raw.affine(0.5, 0.5)?.clamp(0f32, 1f32)?)
}

/// Three ways to cut: square tiles, and those of twice the height or the width and half the other. Each factor is 2, 1, or 0
/// for a half: of the rows, then of the columns.
fn three_ways(tile: usize, overlap: usize, scale: f64, factors: [(usize, usize); 3]) -> [Tiling; 3] {
    let side = |factor: usize| if factor == 0 { tile / 2 } else { tile * factor };
    factors.map(|(rows, columns)| Tiling { tile: (side(rows), side(columns)), overlap, scale })
}

/// The mean of what work in tiles makes, one way to cut after the other.
fn mean_of(x: &Tensor, ways: &[Tiling; 3], work: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let first = tiled(x, &ways[0], work)?;
    let sum = ways[1..].iter().try_fold(first, |sum, way| -> Result<Tensor> { Ok((sum + tiled(x, way, work)?)?) })?;
    divide(&sum, ways.len() as f32)
}

/// One dimension of a convolution's weight.
fn dim(weights: &Weights, name: &str, index: usize) -> Result<usize> {
    let shape = weights.shape(name).ok_or_else(|| weights.missing(&weights.key(name)))?;
    if shape.len() == 4 {
        return Ok(shape[index]);
    }
    Err(Error::WrongShape {
        file: weights.file().to_owned(),
        name: weights.key(name),
        expected: "4 dimensions".to_owned(),
        found: shape.to_vec(),
    })
}

/// The 1x1 convolution between a coder and the latent, which some models leave out.
fn quant(weights: &Weights, name: &str, input: usize, output: usize) -> Result<Option<Linear>> {
    let weights = weights.at(name);
    if weights.contains("weight") { Linear::load(&weights, input, output).map(Some) } else { Ok(None) }
}

impl Encoder {
    fn load(weights: &Weights, channels: usize) -> Result<Self> {
        // Half the picture's size, the one row and column of zeros below and to the right.
        const HALVE: Geometry = Geometry::Conv2d { stride: 2, before: 0, after: 1 };
        let coder = weights.at("encoder");
        let first = dim(&coder, "conv_in.weight", 0)?;
        let (mut width, mut down) = (first, Vec::new());
        loop {
            let place = coder.at("down").at(down.len());
            let (blocks, output) = Level::blocks(&place, width)?;
            if blocks.is_empty() {
                break;
            }
            width = output;
            let conv = place.at("downsample.conv");
            let last = !conv.contains("weight");
            let resize = if last { None } else { Some(Conv2d::load_with(&conv, width, width, 3, HALVE)?) };
            down.push(Level { blocks, resize });
        }
        Ok(Self {
            conv_in: Conv2d::load(&coder.at("conv_in"), COLOURS, first, 3)?,
            down,
            middle: Middle::load(&coder.at("mid"), width)?,
            norm_out: GroupNorm::load(&coder.at("norm_out"), width, EPSILON)?,
            conv_out: Conv2d::load(&coder.at("conv_out"), width, 2 * channels, 3)?,
            quant: quant(weights, "quant_conv", 2 * channels, 2 * channels)?,
        })
    }

    /// `[batch, height, width, 3]`, -1 to 1, to mean and log variance side by side.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = self.conv_in.forward(x)?;
        for level in &self.down {
            h = level.forward(&h)?;
            if let Some(halve) = &level.resize {
                h = halve.forward(&h)?;
            }
        }
        let h = self.middle.forward(&h)?;
        let moments = self.conv_out.forward(&self.norm_out.forward_silu(&h)?)?;
        self.quant.as_ref().map_or(Ok(moments.clone()), |quant| quant.forward(&moments))
    }
}

impl Decoder {
    fn load(weights: &Weights, channels: usize) -> Result<Self> {
        let coder = weights.at("decoder");
        let first = dim(&coder, "conv_in.weight", 0)?;
        let levels = (0..).take_while(|level| coder.contains(&format!("up.{level}.block.0.conv1.weight"))).count();
        let (mut width, mut up) = (first, Vec::new());
        for level in (0..levels).rev() {
            let place = coder.at("up").at(level);
            let (blocks, output) = Level::blocks(&place, width)?;
            width = output;
            let conv = place.at("upsample.conv");
            let last = !conv.contains("weight");
            up.push(Level { blocks, resize: if last { None } else { Some(Conv2d::load(&conv, width, width, 3)?) } });
        }
        Ok(Self {
            quant: quant(weights, "post_quant_conv", channels, channels)?,
            conv_in: Conv2d::load(&coder.at("conv_in"), channels, first, 3)?,
            middle: Middle::load(&coder.at("mid"), first)?,
            up,
            norm_out: GroupNorm::load(&coder.at("norm_out"), width, EPSILON)?,
            conv_out: Conv2d::load(&coder.at("conv_out"), width, COLOURS, 3)?,
        })
    }

    /// `[batch, height, width, channels]` to `[batch, height * factor, width * factor, 3]`, about -1 to 1.
    fn forward(&self, latent: &Tensor) -> Result<Tensor> {
        let latent = self.quant.as_ref().map_or(Ok(latent.clone()), |quant| quant.forward(latent))?;
        let mut h = self.middle.forward(&self.conv_in.forward(&latent)?)?;
        for level in &self.up {
            h = level.forward(&h)?;
            if let Some(conv) = &level.resize {
                let (_, height, width, _) = h.dims4()?;
                h = conv.forward(&upsample_nearest(&h, 2 * height, 2 * width)?)?;
            }
        }
        self.conv_out.forward(&self.norm_out.forward_silu(&h)?)
    }
}

impl Layers for Vae {
    fn visit(&mut self, visit: &mut dyn FnMut(&mut Weight)) {
        let (encoder, decoder) = match &mut self.coders {
            Coders::Full(coders) => (&mut coders.0, &mut coders.1),
            Coders::Tiny { encoder, decoder, .. } => {
                encoder.visit(visit);
                return decoder.visit(visit);
            }
        };
        encoder.conv_in.visit(visit);
        encoder.down.visit(visit);
        encoder.middle.visit(visit);
        encoder.conv_out.visit(visit);
        encoder.quant.visit(visit);
        decoder.quant.visit(visit);
        decoder.conv_in.visit(visit);
        decoder.middle.visit(visit);
        decoder.up.visit(visit);
        decoder.conv_out.visit(visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Golden, relative_error, value};

    fn golden() -> (Golden, Vae, Vec<usize>) {
        let golden = Golden::open("vae");
        let weights = golden.weights();
        let vae = Vae::load(&weights.part("first_stage_model.")).unwrap();
        assert_eq!(weights.unread(), [] as [String; 0]);
        let size = golden.numbers("size");
        (golden, vae, size)
    }

    // As for the UNet: rounding comes to about 1e-6, a wrong formula to 1e-2 and more.
    #[test]
    fn encodes_and_decodes_as_the_reference_does() {
        let (golden, vae, size) = golden();
        assert_eq!((vae.channels(), vae.factor()), (4, 8));
        let image = (value("image", &[1, 3, size[0], size[1]], 0.5) + 0.5).unwrap();
        let encoded = relative_error(&vae.encode(&image).unwrap(), &golden.tensor("mean"));
        let latent = value("latent", &[2, 4, size[0] / 8, size[1] / 8], 2.0);
        let decoded = relative_error(&vae.decode(&latent).unwrap(), &golden.tensor("decoded"));
        println!("vae: relative error {encoded:.2e} encoding, {decoded:.2e} decoding");
        assert!(encoded < 1e-5 && decoded < 1e-5);
    }

    #[test]
    fn refuses_sides_and_channels_that_do_not_fit() {
        let (_, vae, _) = golden();
        let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        assert_eq!(
            vae.encode(&zeros(&[1, 3, 60, 64])).unwrap_err().to_string(),
            "VAE (encode): expects [batch, 3, height, width], both sides multiples of 8, found a tensor of shape [1, 3, 60, 64]"
        );
        assert!(vae.encode(&zeros(&[1, 3, 0, 64])).is_err());
        assert!(vae.decode(&zeros(&[1, 16, 8, 8])).is_err());
    }
}
