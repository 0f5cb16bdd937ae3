//! Arithmetic and geometry of latents.

use crate::error::{Error, tell};
use crate::latent::CELL;
use crate::planes::Planes;
use crate::scaling::turn;
use crate::wires::{Image, Latent, MAX_SIZE, Mask};
use candle_core::{Device, Tensor};
use paraflow_diffusion::resize::{Method, crop_to_aspect, resize};
use paraflow_engine::{Choice, Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<LatentAdd>(),
        NodeDef::of::<LatentSubtract>(),
        NodeDef::of::<LatentMultiply>(),
        NodeDef::of::<LatentInterpolate>(),
        NodeDef::of::<LatentConcat>(),
        NodeDef::of::<LatentCut>(),
        NodeDef::of::<LatentBatch>(),
        NodeDef::of::<LatentBatchSeedBehavior>(),
        NodeDef::of::<LatentRotate>(),
        NodeDef::of::<LatentFlip>(),
        NodeDef::of::<LatentCrop>(),
        NodeDef::of::<LatentComposite>(),
        NodeDef::of::<LatentBlend>(),
        NodeDef::of::<LatentCompositeMasked>(),
        NodeDef::of::<ImageCompositeMasked>(),
    ]
}

/// Adds latents.
#[derive(Node)]
#[node(category = "latent/advanced")]
struct LatentAdd {
    /// The first latents; they decide the size.
    samples1: Shared<Latent>,
    /// The second latents, scaled to the size of the first.
    samples2: Shared<Latent>,
}

impl Run for LatentAdd {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let combine = || -> Result<Latent, Error> {
            let first = self.samples1.samples();
            let second = fit(self.samples2.samples(), first, true)?;
            self.samples1.with_samples((first + second)?)
        };
        combine().map_err(tell)
    }
}

/// Takes latents away from others.
#[derive(Node)]
#[node(category = "latent/advanced")]
struct LatentSubtract {
    /// The first latents; they decide the size.
    samples1: Shared<Latent>,
    /// The second latents, scaled to the size of the first.
    samples2: Shared<Latent>,
}

impl Run for LatentSubtract {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let combine = || -> Result<Latent, Error> {
            let first = self.samples1.samples();
            let second = fit(self.samples2.samples(), first, true)?;
            self.samples1.with_samples((first - second)?)
        };
        combine().map_err(tell)
    }
}

/// Makes latents stronger or weaker.
#[derive(Node)]
#[node(category = "latent/advanced")]
struct LatentMultiply {
    /// The latents.
    samples: Shared<Latent>,
    /// What every number is multiplied by.
    #[input(default = 1.0, range = -10.0..=10.0, step = 0.01)]
    multiplier: f64,
}

impl Run for LatentMultiply {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let samples = self.samples.samples().affine(self.multiplier, 0.0).map_err(tell)?;
        self.samples.with_samples(samples).map_err(tell)
    }
}

/// Blends latents, their directions apart from their lengths.
#[derive(Node)]
#[node(category = "latent/advanced")]
struct LatentInterpolate {
    /// The first latents; they decide the size.
    samples1: Shared<Latent>,
    /// The second latents, scaled to the size of the first.
    samples2: Shared<Latent>,
    /// How much of the first; the rest is the second.
    #[input(default = 1.0, range = 0.0..=1.0, step = 0.01)]
    ratio: f64,
}

impl Run for LatentInterpolate {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let blend = || -> Result<Latent, Error> {
            let first = self.samples1.samples();
            let second = fit(self.samples2.samples(), first, true)?;
            if first.dim(0)? != 1 {
                // ComfyUI mixes up the pictures of a batch here.
                return Err(Error::Unfit {
                    what: "`samples1`",
                    expected: "a single latent".to_owned(),
                    found: format!("a batch of {}", first.dim(0)?),
                });
            }
            let (ratio, rest) = (self.ratio, 1.0 - self.ratio);
            let length = |x: &Tensor| x.sqr()?.sum_keepdim(1)?.sqrt();
            let unit = |x: &Tensor| -> Result<Tensor, Error> { numbers(&x.broadcast_div(&length(x)?)?) };
            let blend = ((unit(first)? * ratio)? + (unit(&second)? * rest)?)?;
            let length = ((length(first)? * ratio)? + (length(&second)? * rest)?)?;
            self.samples1.with_samples(unit(&blend)?.broadcast_mul(&length)?)
        };
        blend().map_err(tell)
    }
}

/// Puts latents side by side.
#[derive(Node)]
#[node(category = "latent/advanced")]
struct LatentConcat {
    /// The first latents; they decide the size.
    samples1: Shared<Latent>,
    /// The second latents.
    samples2: Shared<Latent>,
    /// Along which side: `x` to the right, `y` below, `t` in channels; with a minus in front of the first.
    #[input(choices = ["x", "-x", "y", "-y", "t", "-t"])]
    dim: Choice<String>,
}

impl Run for LatentConcat {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let join = || -> Result<Latent, Error> {
            let first = self.samples1.samples().clone();
            let second = cycle(self.samples2.samples(), first.dim(0)?)?;
            let backwards = self.dim.name().starts_with('-');
            let pair = if backwards { [second, first] } else { [first, second] };
            let axis = axis(self.dim.name());
            let fits = (0..4).all(|dim| dim == axis || pair[0].dims()[dim] == pair[1].dims()[dim]);
            if !fits {
                return Err(Error::Unfit {
                    what: "`samples2`",
                    expected: format!("latents that differ from {:?} along `{}` only", pair[0].dims(), self.dim.name()),
                    found: format!("{:?}", pair[1].dims()),
                });
            }
            self.samples1.with_samples(Tensor::cat(&pair, axis)?)
        };
        join().map_err(tell)
    }
}

/// Cuts a strip out of latents.
#[derive(Node)]
#[node(category = "latent/advanced")]
struct LatentCut {
    /// The latents.
    samples: Shared<Latent>,
    /// Across which side: `x`, `y`, or `t` for channels.
    #[input(choices = ["x", "y", "t"])]
    dim: Choice<String>,
    /// Where the strip begins, in cells; less than 0 counts from the end.
    #[input(default = 0, range = -(MAX_SIZE as i32)..=MAX_SIZE as i32)]
    index: i32,
    /// How many cells wide it is.
    #[input(default = 1, range = 1..=MAX_SIZE)]
    amount: u32,
}

impl Run for LatentCut {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let samples = self.samples.samples();
        let axis = axis(self.dim.name());
        let size = samples.dims()[axis];
        let amount = self.amount as usize;
        let (start, length) = if self.index >= 0 {
            let start = (self.index as usize).min(size - 1);
            (start, amount.min(size - start))
        } else {
            let back = (self.index.unsigned_abs() as usize).min(size);
            (size - back, amount.min(back))
        };
        let cut = samples.narrow(axis, start, length).map_err(tell)?;
        self.samples.with_samples(cut).map_err(tell)
    }
}

/// Puts two batches of latents into one.
#[derive(Node)]
#[node(category = "latent/batch", deprecated)]
struct LatentBatch {
    /// The first latents; they decide the size.
    samples1: Shared<Latent>,
    /// The second latents, scaled to the size of the first.
    samples2: Shared<Latent>,
}

impl Run for LatentBatch {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let join = || -> Result<Latent, Error> {
            let first = self.samples1.samples();
            let second = fit(self.samples2.samples(), first, false)?;
            let places = [self.samples1.places(), self.samples2.places()].concat();
            Ok(self.samples1.with_samples(Tensor::cat(&[first, &second], 0)?)?.with_places(places))
        };
        join().map_err(tell)
    }
}

/// Says whether the latents of a batch get noise of their own.
#[derive(Node)]
#[node(category = "latent/advanced")]
struct LatentBatchSeedBehavior {
    /// The latents.
    samples: Shared<Latent>,
    /// `random`: each its own; `fixed`: all the same.
    #[input(choices = ["random", "fixed"], default = "fixed")]
    seed_behavior: Choice<String>,
}

impl Run for LatentBatchSeedBehavior {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        if self.seed_behavior.name() == "random" {
            return Ok(self.samples.without_places());
        }
        let place = self.samples.batch_index().and_then(|places| places.first().copied()).unwrap_or(0);
        Ok(self.samples.with_places(vec![place; self.samples.dims().0]))
    }
}

/// Turns latents clockwise.
#[derive(Node)]
#[node(category = "latent/transform", display_name = "Rotate Latent")]
struct LatentRotate {
    /// The latents.
    samples: Shared<Latent>,
    /// How far.
    #[input(choices = ["none", "90 degrees", "180 degrees", "270 degrees"])]
    rotation: Choice<String>,
}

impl Run for LatentRotate {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let turns = match self.rotation.name() {
            "90 degrees" => 1,
            "180 degrees" => 2,
            "270 degrees" => 3,
            _ => 0,
        };
        let turned = turn(self.samples.samples(), turns).map_err(tell)?;
        self.samples.with_samples(turned).map_err(tell)
    }
}

/// Mirrors latents.
#[derive(Node)]
#[node(category = "latent/transform", display_name = "Flip Latent")]
struct LatentFlip {
    /// The latents.
    samples: Shared<Latent>,
    /// Top and bottom, or left and right.
    #[input(choices = ["x-axis: vertically", "y-axis: horizontally"])]
    flip_method: Choice<String>,
}

impl Run for LatentFlip {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let axis = if self.flip_method.name().starts_with('x') { 2 } else { 3 };
        let flipped = self.samples.samples().flip(&[axis]).map_err(tell)?;
        self.samples.with_samples(flipped).map_err(tell)
    }
}

/// Cuts a rectangle out of latents, 64 pixels wide and high at least.
#[derive(Node)]
#[node(category = "latent/transform", display_name = "Crop Latent")]
struct LatentCrop {
    /// The latents.
    samples: Shared<Latent>,
    /// Width in pixels.
    #[input(default = 512, range = 64..=MAX_SIZE, step = 8)]
    width: u32,
    /// Height in pixels.
    #[input(default = 512, range = 64..=MAX_SIZE, step = 8)]
    height: u32,
    /// Distance from the left in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    x: u32,
    /// Distance from the top in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    y: u32,
}

impl Run for LatentCrop {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let (_, _, rows, columns) = self.samples.dims();
        let start = |pixels: u32, size: usize| (pixels as usize / CELL).min(size.saturating_sub(8));
        let (x, y) = (start(self.x, columns), start(self.y, rows));
        let (width, height) =
            ((self.width as usize / CELL).min(columns - x), (self.height as usize / CELL).min(rows - y));
        let cut = self.samples.samples().narrow(2, y, height).and_then(|x| x.narrow(3, start(self.x, columns), width));
        self.samples.with_samples(cut.map_err(tell)?).map_err(tell)
    }
}

/// Lays latents over others, with a soft edge if asked for.
#[derive(Node)]
#[node(category = "latent", display_name = "Latent Composite")]
struct LatentComposite {
    /// What to lay them on.
    samples_to: Shared<Latent>,
    /// What to lay over.
    samples_from: Shared<Latent>,
    /// Distance from the left in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    x: u32,
    /// Distance from the top in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    y: u32,
    /// How wide the soft edge is, in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    feather: u32,
}

impl Run for LatentComposite {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let (x, y, feather) = (self.x as usize / CELL, self.y as usize / CELL, self.feather as usize / CELL);
        let lay = || -> Result<Latent, Error> {
            let mut target = Planes::of(self.samples_to.samples())?;
            let source = Planes::of(self.samples_from.samples())?;
            same_planes(&target, &source)?;
            let (rows, columns) =
                (source.rows.min(target.rows.saturating_sub(y)), source.columns.min(target.columns.saturating_sub(x)));
            let fade = |at: usize, size: usize, near: bool, far: bool| {
                let rate = |edge: usize| if edge < feather { 1.0 / feather as f32 * (edge + 1) as f32 } else { 1.0 };
                let near = if near { rate(at) } else { 1.0 };
                near * if far { rate(size - 1 - at) } else { 1.0 }
            };
            let (below, beside) = (y + rows < target.rows, x + columns < target.columns);
            let weight =
                |row: usize, column: usize| fade(row, rows, y != 0, below) * fade(column, columns, x != 0, beside);
            target.lay_over(&source, (x, y), (rows, columns), |to, from, (_, row, column)| {
                let weight = weight(row, column);
                if feather == 0 { from } else { from * weight + to * (1.0 - weight) }
            });
            self.samples_to.with_samples(target.into_tensor(self.samples_to.samples().dims())?)
        };
        lay().map_err(tell)
    }
}

/// Mixes latents.
#[derive(Node)]
#[node(category = "_for_testing", display_name = "Latent Blend")]
struct LatentBlend {
    /// The first latents; they decide the size.
    samples1: Shared<Latent>,
    /// The second latents, scaled to the size of the first.
    samples2: Shared<Latent>,
    /// How much of the first; the rest is the second.
    #[input(default = 0.5, range = 0.0..=1.0, step = 0.01)]
    blend_factor: f64,
}

impl Run for LatentBlend {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let blend = || -> Result<Latent, Error> {
            let first = self.samples1.samples();
            let mut second = self.samples2.samples().clone();
            if second.dims() != first.dims() {
                let (_, _, rows, columns) = first.dims4()?;
                second =
                    resize(&crop_to_aspect(&second, columns, rows)?.contiguous()?, columns, rows, Method::Bicubic)?;
                second = cycle(&second, first.dim(0)?)?;
            }
            let sum = (first.affine(self.blend_factor, 0.0)? + second.affine(1.0 - self.blend_factor, 0.0)?)?;
            self.samples1.with_samples(sum)
        };
        blend().map_err(tell)
    }
}

/// Lays latents over others where a mask selects.
#[derive(Node)]
#[node(category = "latent")]
struct LatentCompositeMasked {
    /// What to paint on.
    destination: Shared<Latent>,
    /// What to paint.
    source: Shared<Latent>,
    /// Distance from the left in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    x: u32,
    /// Distance from the top in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE, step = 8)]
    y: u32,
    /// Whether to scale the source to the size of the destination.
    #[input(default = false)]
    resize_source: bool,
    /// Where to paint; everywhere without one.
    mask: Option<Shared<Mask>>,
}

impl Run for LatentCompositeMasked {
    type Output = Latent;

    fn run(self, _: &Context<'_>) -> Result<Latent> {
        let lay = || -> Result<Latent, Error> {
            let target = self.destination.samples();
            let mask = self.mask.as_ref().map(|mask| mask.values());
            let place = (i64::from(self.x), i64::from(self.y));
            let laid = composite(target, self.source.samples(), place, mask, CELL, self.resize_source)?;
            self.destination.with_samples(laid)
        };
        lay().map_err(tell)
    }
}

/// Lays pictures over others where a mask selects.
#[derive(Node)]
#[node(category = "image")]
struct ImageCompositeMasked {
    /// What to paint on.
    destination: Shared<Image>,
    /// What to paint.
    source: Shared<Image>,
    /// Distance from the left in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE)]
    x: u32,
    /// Distance from the top in pixels.
    #[input(default = 0, range = 0..=MAX_SIZE)]
    y: u32,
    /// Whether to scale the source to the size of the destination.
    #[input(default = false)]
    resize_source: bool,
    /// Where to paint; everywhere without one.
    mask: Option<Shared<Mask>>,
}

impl Run for ImageCompositeMasked {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let lay = || -> Result<Image, Error> {
            let (target, mut source) = (self.destination.pixels().clone(), self.source.pixels().clone());
            let of_source = source.dim(3)?;
            if of_source > target.dim(3)? {
                source = source.narrow(3, 0, target.dim(3)?)?;
            } else if of_source < target.dim(3)? {
                let ones = Tensor::ones_like(&source.narrow(3, 0, 1)?)?;
                source = Tensor::cat(&[&source, &ones], 3)?;
            }
            let planes = |x: &Tensor| x.permute((0, 3, 1, 2))?.contiguous();
            let mask = self.mask.as_ref().map(|mask| mask.values());
            let place = (i64::from(self.x), i64::from(self.y));
            let laid = composite(&planes(&target)?, &planes(&source)?, place, mask, 1, self.resize_source)?;
            Image::new(laid.permute((0, 2, 3, 1))?)
        };
        lay().map_err(tell)
    }
}

/// Lays planes over others at a place in pixels, where a mask selects.
fn composite(
    target: &Tensor,
    source: &Tensor,
    (x, y): (i64, i64),
    mask: Option<&Tensor>,
    cell: usize,
    resized: bool,
) -> Result<Tensor, Error> {
    let (batch, channels, rows, columns) = target.dims4()?;
    let mut source = source.clone();
    if resized {
        source = resize(&source.contiguous()?, columns, rows, Method::Bilinear)?;
    }
    let source = cycle(&source, batch)?;
    if source.dim(1)? != channels {
        return Err(Error::Unfit {
            what: "`source`",
            expected: format!("{channels} channels, as the destination has"),
            found: source.dim(1)?.to_string(),
        });
    }
    let (_, _, of_rows, of_columns) = source.dims4()?;
    let weights = match mask {
        None => None,
        Some(mask) => {
            let mask = resize(&mask.unsqueeze(1)?.contiguous()?, of_columns, of_rows, Method::Bilinear)?;
            Some(Planes::of(&cycle(&mask, batch)?)?)
        }
    };
    let place = |at: i64, size: usize| (at.clamp(0, (size * cell) as i64) as usize) / cell;
    let (left, top) = (place(x, columns), place(y, rows));
    let mut planes = Planes::of(target)?;
    let over = Planes::of(&source)?;
    let seen = (of_rows.min(rows - top), of_columns.min(columns - left));
    planes.lay_over(&over, (left, top), seen, |to, from, (plane, row, column)| match &weights {
        None => from,
        Some(weights) => {
            let weight = weights.at(plane / channels, row, column);
            weight * from + (1.0 - weight) * to
        }
    });
    planes.into_tensor(target.dims())
}

/// Latents of the size of others, and as many if asked for.
pub(crate) fn fit(samples: &Tensor, like: &Tensor, as_many: bool) -> Result<Tensor, Error> {
    let (batch, _, rows, columns) = like.dims4()?;
    let mut fitted = samples.clone();
    if fitted.dims()[1..] != like.dims()[1..] {
        fitted = resize(&crop_to_aspect(&fitted, columns, rows)?.contiguous()?, columns, rows, Method::Bilinear)?;
    }
    if fitted.dim(1)? != like.dim(1)? {
        return Err(Error::Unfit {
            what: "`samples2`",
            expected: format!("latents of {} channels", like.dim(1)?),
            found: fitted.dim(1)?.to_string(),
        });
    }
    if as_many { cycle(&fitted, batch) } else { Ok(fitted) }
}

fn same_planes(target: &Planes, source: &Planes) -> Result<(), Error> {
    if source.planes == target.planes {
        return Ok(());
    }
    Err(Error::Unfit {
        what: "`samples_from`",
        expected: format!("as many latents and channels as `samples_to`, {} planes", target.planes),
        found: source.planes.to_string(),
    })
}

/// The dimension that `x`, `y` and `t` stand for, with a minus or without.
fn axis(name: &str) -> usize {
    match name.trim_start_matches('-') {
        "x" => 3,
        "y" => 2,
        _ => 1,
    }
}

/// 0 for what is no number.
fn numbers(x: &Tensor) -> Result<Tensor, Error> {
    let values: Vec<f32> = x.flatten_all()?.to_vec1()?;
    let values: Vec<f32> = values.into_iter().map(|value| if value.is_nan() { 0.0 } else { value }).collect();
    Ok(Tensor::from_vec(values, x.dims(), &Device::Cpu)?)
}

/// The first `count` of a batch that starts over when it ends.
fn cycle(batch: &Tensor, count: usize) -> Result<Tensor, Error> {
    let times = count.div_ceil(batch.dim(0)?);
    Ok(batch.repeat((times, 1, 1, 1))?.narrow(0, 0, count)?)
}
