//! Networks that judge pictures: vision transformers that make one vector of a picture, near for pictures of like content. CLIP's
//! picture half with its text half, DINO and DINOv2. Their weights are the user's; widths and depths are read off the tensors.
//!
//! Dosovitskiy et al. 2021, arXiv:2010.11929; Radford et al. 2021, arXiv:2103.00020. Knows no folders.

mod layout;
mod photomaker;
mod style;
#[cfg(test)]
mod tests;

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::nn::{Conv2d, Geometry, Kept, LayerNorm, Linear, Mask, Weights, attention, gelu, quick_gelu};
use crate::resize::{self, resize_finely, resize_smoothly};
use crate::text::{self, Activation, BEGIN, CONTEXT, Chunk, Chunks, ClipText, END, Family, Token};
use layout::Layout;

pub use photomaker::PhotoMaker;
pub use style::StyleModel;

/// What a network sees in pictures.
#[derive(Clone, Debug)]
pub struct Seen {
    /// One vector a picture, of any length, `[batch, width]`.
    pub embeds: Tensor,
    /// What the last block makes of every token, `[batch, tokens, width]`.
    pub last: Tensor,
}

/// A vision transformer. Cheap to clone; clones share the weights.
#[derive(Clone)]
pub struct Vision {
    layout: &'static Layout,
    /// The tensors that it was found in, as transformers names them.
    source: Weights,
    patch: Conv2d,
    /// Its token for the whole picture, `[1, 1, width]`.
    class: Tensor,
    /// Added to the tokens by place, the class's first, `[1, tokens, width]`.
    positions: Tensor,
    before: Option<LayerNorm>,
    blocks: Vec<Block>,
    after: LayerNorm,
    projection: Option<Linear>,
    /// Side of the pictures that it sees, in pixels.
    side: usize,
}

impl Vision {
    /// Finds a network in a file: CLIP's, DINO's or DINOv2's as transformers writes them, and DINO's and DINOv2's as their
    /// authors do. `activation` is that of CLIP's blocks, which no tensor tells.
    ///
    /// # Errors
    /// [`Error::MissingPart`] for a file that holds none, and what [`Weights::tensor`] says.
    pub fn load(weights: &Weights, activation: Activation) -> Result<Self> {
        let Some((layout, weights)) = Layout::find(weights) else {
            let known: Vec<&str> = Layout::ALL.iter().map(|layout| layout.name).collect();
            return Err(Error::MissingPart {
                file: weights.file().to_owned(),
                part: "vision transformer",
                hint: format!("what is read: {}, as transformers or their authors name the tensors", known.join(", ")),
            });
        };
        let patch = weights.at(layout.patch);
        let &[width, 3, pixels, _] = patch.shape("weight").ok_or_else(|| patch.missing(&patch.key("weight")))? else {
            return Err(wrong(&patch, "weight", "[width, 3, pixels, pixels]"));
        };
        let geometry = Geometry::Conv2d { stride: pixels, before: 0, after: 0 };
        let embed = if layout.patch_has_bias { Conv2d::load_with } else { Conv2d::load_without_bias };
        let (positions, side) = positions(&weights, layout, width, pixels)?;
        let activation = if layout.is_clip() { activation } else { Activation::Gelu };
        let blocks = weights.at(layout.blocks);
        let norm = format!("{}.weight", layout.norms[0]);
        let places = (0..).map(|index| blocks.at(index)).take_while(|block| block.contains(&norm));
        let loaded = places.map(|block| Block::load(&block, layout, width, activation)).collect::<Result<Vec<_>>>()?;
        // Of weights in halves, ComfyUI keeps these as they are stored.
        let whole = weights.keeping(Kept::AsStored);
        let projection = layout.projection.map(|name| {
            let projection = whole.at(name);
            match projection.shape("weight") {
                Some(&[out, _]) => Linear::load_without_bias(&projection, width, out),
                _ => Err(projection.missing(&projection.key("weight"))),
            }
        });
        Ok(Self {
            layout,
            source: weights.clone(),
            patch: embed(&patch, 3, width, pixels, geometry)?,
            class: vector(&weights, layout.class, width)?.reshape((1, 1, width))?,
            positions,
            before: layout.before.map(|name| LayerNorm::load(&whole.at(name), width, layout.epsilon)).transpose()?,
            blocks: loaded,
            after: LayerNorm::load(&whole.at(layout.after), width, layout.epsilon)?,
            projection: projection.transpose()?,
            side,
        })
    }

    /// CLIP's picture half in a file of its own, of OpenAI's or OpenCLIP's spelling. What its blocks compute with follows from how
    /// many there are: OpenAI's largest has 24.
    ///
    /// # Errors
    /// As [`load`](Self::load); [`Error::MissingPart`] for a network of another family.
    pub fn load_clip(weights: &Weights) -> Result<Self> {
        let found = Layout::find(weights).filter(|(layout, _)| layout.is_clip());
        let Some((_, renamed)) = found else {
            return Err(Error::MissingPart {
                file: weights.file().to_owned(),
                part: "picture half of CLIP",
                hint: "a file of CLIP's has `vision_model.embeddings.class_embedding`, or OpenCLIP's `visual.conv1.weight`"
                    .to_owned(),
            });
        };
        let deep = renamed.contains("vision_model.encoder.layers.24.layer_norm1.weight");
        Self::load(&renamed, if deep { Activation::Gelu } else { Activation::QuickGelu })
    }

    /// The tensors of the file that it was loaded from, under the names of transformers.
    #[must_use]
    pub fn source(&self) -> &Weights {
        &self.source
    }

    /// What it is: `CLIP`, `DINO`, `DINOv2`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.layout.name
    }

    /// Vectors of length 1, whose products are the cosines of the angles between pictures.
    ///
    /// Pictures are resized by Pillow's bicubic filter, cut to a square and normalised as each family's own code does.
    ///
    /// # Shapes
    /// - `pictures`: `[batch, height, width, 3]`, 0 to 1
    /// - output: `[batch, width]`
    ///
    /// # Errors
    /// Out of memory.
    pub fn embed(&self, pictures: &Tensor) -> Result<Tensor> {
        unit(&self.forward(&self.prepare(pictures)?)?)
    }

    /// What it sees in pictures, prepared as ComfyUI does: numbers are resized as they are, and rounded to those of a picture
    /// of 8 bits afterwards. With `cut`, the middle of a picture is seen; without, all of it, made square.
    ///
    /// # Shapes
    /// - `pictures`: `[batch, height, width, 3 or more]`, 0 to 1
    ///
    /// # Errors
    /// Out of memory; pictures of fewer than three channels.
    pub fn look(&self, pictures: &Tensor, cut: bool) -> Result<Seen> {
        let last = self.hidden(&self.pixels(pictures, cut)?)?;
        Ok(Seen { embeds: self.summary(&last)?, last })
    }

    /// What [`look`](Self::look) shows the network, `[batch, side, side, 3]`.
    fn pixels(&self, pictures: &Tensor, cut: bool) -> Result<Tensor> {
        let (_, height, width, _) = pictures.dims4()?;
        let mut planes = pictures.narrow(3, 0, 3)?.permute((0, 3, 1, 2))?.contiguous()?;
        if (height, width) != (self.side, self.side) {
            let scale = self.side as f64 / height.min(width) as f64;
            let scaled = |size: usize| if cut { (scale * size as f64).round_ties_even() as usize } else { self.side };
            let (rows, columns) = (scaled(height), scaled(width));
            planes = resize_finely(&planes, columns, rows)?;
            let margin = |size: usize| (size - self.side) / 2;
            planes = planes.narrow(2, margin(rows), self.side)?.narrow(3, margin(columns), self.side)?;
        }
        let pixels = planes.permute((0, 2, 3, 1))?.contiguous()?;
        let bytes: Vec<f32> = pixels.flatten_all()?.to_vec1()?;
        let byte = |value: f32| (255.0 * value).clamp(0.0, 255.0).round_ties_even() / 255.0;
        let pixels = Tensor::from_vec(bytes.into_iter().map(byte).collect::<Vec<_>>(), pixels.dims(), pixels.device())?;
        self.normalised(&pixels)
    }

    /// What the network sees, `[batch, side, side, 3]`.
    fn prepare(&self, pictures: &Tensor) -> Result<Tensor> {
        let (_, height, width, _) = pictures.dims4()?;
        let shorter = (self.side as f64 * self.layout.margin).round() as usize;
        // The longer side is cut to whole pixels.
        let scaled = |side: usize, other: usize| {
            if side <= other { shorter } else { (shorter * side / other.max(1)).max(shorter) }
        };
        let (new_width, new_height) = (scaled(width, height), scaled(height, width));
        let planes = pictures.permute((0, 3, 1, 2))?.contiguous()?;
        let planes = resize_smoothly(&planes, new_width, new_height)?;
        let margin = |side: usize| ((side - self.side) as f64 / 2.0).round_ties_even() as usize;
        let cut = planes.narrow(2, margin(new_height), self.side)?.narrow(3, margin(new_width), self.side)?;
        self.normalised(&cut.permute((0, 2, 3, 1))?.contiguous()?)
    }

    fn normalised(&self, pixels: &Tensor) -> Result<Tensor> {
        let (mean, deviation) = (&self.layout.mean[..], &self.layout.deviation[..]);
        let (mean, deviation) = (Tensor::new(mean, pixels.device())?, Tensor::new(deviation, pixels.device())?);
        Ok(pixels.broadcast_sub(&mean)?.broadcast_div(&deviation)?)
    }

    /// From what [`prepare`](Self::prepare) gives to vectors of any length.
    fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        self.summary(&self.hidden(pixels)?)
    }

    /// What the last block makes of every token.
    fn hidden(&self, pixels: &Tensor) -> Result<Tensor> {
        let patches = self.patch.forward(pixels)?;
        let (batch, rows, columns, width) = patches.dims4()?;
        let patches = patches.reshape((batch, rows * columns, width))?;
        let class = self.class.broadcast_as((batch, 1, width))?;
        let mut x = Tensor::cat(&[&class, &patches], 1)?.broadcast_add(&self.positions)?;
        if let Some(norm) = &self.before {
            x = norm.forward(&x)?;
        }
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Ok(x)
    }

    /// The first token's vector, normalised, `[batch, width]`.
    fn pooled(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, _, width) = x.dims3()?;
        self.after.forward(&x.narrow(1, 0, 1)?.contiguous()?.reshape((batch, width))?)
    }

    /// The same, projected.
    fn summary(&self, x: &Tensor) -> Result<Tensor> {
        let summary = self.pooled(x)?;
        self.projection.as_ref().map_or(Ok(summary.clone()), |projection| projection.forward(&summary))
    }
}

/// The places of the tokens, and the side of the pictures that they are for.
fn positions(weights: &Weights, layout: &Layout, width: usize, pixels: usize) -> Result<(Tensor, usize)> {
    let tokens = match weights.shape(layout.positions) {
        Some(&[1, tokens, _] | &[tokens, _]) => tokens,
        Some(_) => return Err(wrong(weights, layout.positions, "[tokens, width]")),
        None => return Err(weights.missing(&weights.key(layout.positions))),
    };
    let shape = weights.shape(layout.positions).unwrap_or_default().to_vec();
    let all = weights.tensor(layout.positions, &shape)?;
    if all.elem_count() != tokens * width {
        return Err(wrong(weights, layout.positions, "a width as the patches'"));
    }
    let all = all.reshape((tokens, width))?;
    let grid = tokens.saturating_sub(1).isqrt();
    if grid == 0 || grid * grid + 1 != tokens {
        return Err(wrong(weights, layout.positions, "a square of tokens and one more"));
    }
    let side = (grid * pixels).min(layout.most_pixels) / pixels * pixels;
    let coarse = side / pixels;
    if coarse == grid {
        return Ok((all.unsqueeze(0)?, side));
    }
    let places = all.narrow(0, 1, tokens - 1)?.t()?.contiguous()?.reshape((1, width, grid, grid))?;
    let places = resize::resize(&places, coarse, coarse, resize::Method::Bicubic)?;
    let places = places.reshape((width, coarse * coarse))?.t()?.contiguous()?;
    Ok((Tensor::cat(&[&all.narrow(0, 0, 1)?, &places], 0)?.unsqueeze(0)?, side))
}

/// A tensor of `width` numbers, whatever ones are before them in its shape.
fn vector(weights: &Weights, name: &str, width: usize) -> Result<Tensor> {
    let Some(shape) = weights.shape(name) else { return Err(weights.missing(&weights.key(name))) };
    if shape.iter().product::<usize>() != width {
        return Err(wrong(weights, name, "as many numbers as the patches have channels"));
    }
    Ok(weights.tensor(name, shape)?.reshape(width)?)
}

fn wrong(weights: &Weights, name: &str, expected: &str) -> Error {
    Error::WrongShape {
        file: weights.file().to_owned(),
        name: weights.key(name),
        expected: expected.to_owned(),
        found: weights.shape(name).unwrap_or_default().to_vec(),
    }
}

/// Rows of length 1.
fn unit(vectors: &Tensor) -> Result<Tensor> {
    let vectors = vectors.to_dtype(DType::F32)?;
    Ok(vectors.broadcast_div(&vectors.sqr()?.sum_keepdim(1)?.sqrt()?)?)
}

/// Attention, then two products with a nonlinearity between them, each after a norm and added to what came in.
#[derive(Clone)]
struct Block {
    norms: [LayerNorm; 2],
    queries: Linear,
    keys: Linear,
    values: Linear,
    out: Linear,
    up: Linear,
    activation: Activation,
    down: Linear,
    scales: Option<[Tensor; 2]>,
    heads: usize,
}

impl Block {
    fn load(weights: &Weights, layout: &Layout, width: usize, activation: Activation) -> Result<Self> {
        let square = |name: &str| Linear::load(&weights.at(name), width, width);
        let norm = |name: &str| LayerNorm::load(&weights.at(name), width, layout.epsilon);
        let [queries, keys, values, out] = layout.attention;
        let up = weights.at(layout.products[0]);
        let Some(&[hidden, _]) = up.shape("weight") else { return Err(up.missing(&up.key("weight"))) };
        let scales =
            layout.scales.map(|[a, b]| Ok::<_, Error>([vector(weights, a, width)?, vector(weights, b, width)?]));
        Ok(Self {
            norms: [norm(layout.norms[0])?, norm(layout.norms[1])?],
            queries: square(queries)?,
            keys: square(keys)?,
            values: square(values)?,
            out: square(out)?,
            up: Linear::load(&up, width, hidden)?,
            activation,
            down: Linear::load(&weights.at(layout.products[1]), hidden, width)?,
            scales: scales.transpose()?,
            heads: heads(width),
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let scaled = |half: usize, y: Tensor| match &self.scales {
            None => Ok::<_, Error>(y),
            Some(scales) => Ok(y.broadcast_mul(&scales[half])?),
        };
        let normed = self.norms[0].forward(x)?;
        let (q, k, v) = (self.queries.forward(&normed)?, self.keys.forward(&normed)?, self.values.forward(&normed)?);
        let attended = self.out.forward(&attention(&q, &k, &v, self.heads, Mask::None)?)?;
        let x = (x + scaled(0, attended)?)?;
        let wide = self.up.forward(&self.norms[1].forward(&x)?)?;
        let wide = match self.activation {
            Activation::QuickGelu => quick_gelu(&wide)?,
            Activation::Gelu => gelu(&wide)?,
        };
        Ok((&x + scaled(1, self.down.forward(&wide)?)?)?)
    }
}

/// Heads of 64 channels, but in CLIP's largest, which have 16.
fn heads(width: usize) -> usize {
    match width {
        1280 | 1408 | 1664 => 16,
        _ => (width / 64).max(1),
    }
}

/// CLIP, both halves: vectors of pictures and of texts that can be compared.
#[derive(Clone)]
pub struct ClipPair {
    pictures: Vision,
    text: Option<ClipText>,
}

impl ClipPair {
    /// Finds both halves in a file of transformers'. A file of the picture half alone is taken, too.
    ///
    /// `activation` is that of both halves; `None` takes OpenAI's for networks as wide as ViT-L at most, and that of OpenCLIP
    /// for wider ones, which OpenAI has none of.
    ///
    /// # Errors
    /// [`Error::MissingPart`], and what [`Weights::tensor`] says.
    pub fn load(weights: &Weights, activation: Option<Activation>) -> Result<Self> {
        let width = weights.shape("vision_model.embeddings.class_embedding").and_then(<[usize]>::first).copied();
        let activation = activation.unwrap_or(match width {
            Some(1025..) => Activation::Gelu,
            _ => Activation::QuickGelu,
        });
        let pictures = Vision::load(weights, activation)?;
        if !pictures.layout.is_clip() {
            return Err(Error::MissingPart {
                file: weights.file().to_owned(),
                part: "CLIP",
                hint: format!("it holds {}, which DINOScore takes", pictures.name()),
            });
        }
        let has_text = weights.contains("text_model.embeddings.token_embedding.weight");
        let family = Family { activation, projects: true, ..text::SD1 };
        let text = has_text.then(|| ClipText::load(&weights.part(""), family)).transpose()?;
        Ok(Self { pictures, text })
    }

    /// As [`Vision::embed`].
    ///
    /// # Errors
    /// Out of memory.
    pub fn embed(&self, pictures: &Tensor) -> Result<Tensor> {
        self.pictures.embed(pictures)
    }

    /// A text's vector of length 1, `[1, width]`. A text is taken literally, weights in brackets included, and cut after 75
    /// tokens.
    ///
    /// # Errors
    /// [`Error::MissingPart`] when the file has no text half.
    pub fn embed_text(&self, prompt: &str) -> Result<Tensor> {
        let Some(encoder) = &self.text else {
            let hint = "load the whole of CLIP, text and pictures, as transformers saves it".to_owned();
            return Err(Error::MissingPart { file: "CLIP".to_owned(), part: "text half", hint });
        };
        let words = text::tokens(prompt).into_iter().take(CONTEXT - 2);
        let ids = std::iter::once(BEGIN).chain(words).chain(std::iter::repeat(END)).take(CONTEXT);
        let chunk = Chunk { tokens: ids.map(Token::Id).collect(), weights: vec![1.0; CONTEXT] };
        let chunks = Chunks { chunks: vec![chunk], references: Vec::new() };
        unit(&encoder.encode(&chunks, text::Layer::Last)?.pooled)
    }
}

/// The mean cosine of every pair of rows of two lists of unit vectors, `[n, width]` and `[m, width]`.
///
/// # Errors
/// The widths differ.
pub fn mean_cosine(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(f64::from(a.matmul(&b.t()?.contiguous()?)?.mean_all()?.to_scalar::<f32>()?))
}
