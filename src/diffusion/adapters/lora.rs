//! The LoRA family: small factors from which a change of a layer's weight is made.
//!
//! LoRA: Hu et al. 2021, arXiv:2106.09685. LoHa: Hyeon-Woo et al. 2022, arXiv:2108.06098. LoKr: Yeh et al. 2023,
//! arXiv:2309.14859. DoRA: Liu et al. 2024, arXiv:2402.09353, with the norms that the program takes whose files these are.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::fault::Fault;
use super::names::{Names, Part};
use super::oft::{rotations, turned_weight};
use super::write::Store;
use super::{dense, para::flat_f64};
use crate::error::Result;
use crate::nn::{Adapter, Effect, Geometry, low_rank};

/// A file of the LoRA family. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LoraModel {
    /// By the layer's name as the file spells it: `lora_unet_mid_block_attentions_0_proj_in`.
    pub modules: BTreeMap<String, Module>,
    /// What is added beside weights, by the same names.
    pub vectors: BTreeMap<String, Vectors>,
    /// What the file's header says.
    pub metadata: BTreeMap<String, String>,
    /// The type of its numbers in a file, for one that was trained in another than f32.
    pub store: Store,
}

/// What a file of LyCORIS adds to a norm, or to a layer's bias: f32, a number for each channel.
#[derive(Debug, Clone, Default)]
pub struct Vectors {
    /// What is added to the scale of a norm.
    pub scale: Option<Tensor>,
    /// What takes the place of a norm's scale, whatever the strength.
    pub set: Option<Tensor>,
    /// What is added to the bias.
    pub shift: Option<Tensor>,
}

impl Vectors {
    /// Its tensors by their ends in a file.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let all = [("diff", &self.scale), ("set_weight", &self.set), ("diff_b", &self.shift)];
        all.into_iter().filter_map(|(end, tensor)| Some((end, tensor.as_ref()?)))
    }
}

/// What one layer gets.
#[derive(Debug, Clone)]
pub struct Module {
    /// How the change is made.
    pub form: Form,
    /// What it is multiplied by: alpha over rank.
    pub scale: f64,
    /// DoRA's lengths, if it has them.
    pub magnitude: Option<Magnitude>,
}

/// DoRA's lengths of a weight's rows or columns, of any shape.
#[derive(Debug, Clone)]
pub enum Magnitude {
    /// LyCORIS's `dora_scale`, as many as rows or columns: rows are first divided by the lengths of the weight as it was,
    /// columns by those of the changed one, as ComfyUI does.
    Lycoris(Tensor),
    /// PEFT's, one for each row, which is first divided by the length of the changed one.
    Peft(Tensor),
}

impl Magnitude {
    /// The numbers.
    #[must_use]
    pub fn lengths(&self) -> &Tensor {
        match self {
            Self::Lycoris(lengths) | Self::Peft(lengths) => lengths,
        }
    }
}

/// How a change of a weight `[out, in]` or `[out, in, kernel, kernel]` is made of smaller tensors, all f32.
#[derive(Debug, Clone)]
pub enum Form {
    /// `up · down`.
    LowRank {
        /// `[out, rank]`.
        up: Tensor,
        /// `[rank, in]` or `[rank, in, kernel, kernel]`.
        down: Tensor,
    },
    /// `(a · b) ⊙ (c · d)`, LoHa.
    Hadamard {
        /// `[out, rank]` and `[rank, in · kernel · kernel]`, twice.
        factors: Box<[Tensor; 4]>,
    },
    /// `left ⊗ right`, LoKr.
    Kronecker {
        /// `[a, b]`.
        left: Tensor,
        /// `[c, d]` or `[c, d, kernel, kernel]`.
        right: Tensor,
    },
    /// Blocks of outputs turned, OFT.
    Turned {
        /// `[blocks, size, size]`: what the orthogonal matrices are made of.
        blocks: Tensor,
        /// How long all of them together may be; 0 for any length.
        constraint: f64,
    },
    /// The change itself.
    Whole(Tensor),
    /// The new weight, whatever the strength.
    Set(Tensor),
}

impl LoraModel {
    /// Of checkpoint names of a UNet's layers, `up` `[out, rank]` and `down` `[rank, in]` or `[rank, in, kernel, kernel]` each,
    /// the scale worked in.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchLayer`], and [`Fault::NonFinite`].
    pub fn new(
        names: &Names,
        layers: impl IntoIterator<Item = (String, Tensor, Tensor)>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut made = Self { metadata, ..Self::default() };
        for (name, up, down) in layers {
            dense::require_finite(&name, &up)?;
            dense::require_finite(&name, &down)?;
            let layer = names.layer(Part::Unet, &name).ok_or_else(|| names.no_such_layer(&name))?;
            let form = Form::LowRank { up: up.contiguous()?, down: down.contiguous()? };
            made.modules.insert(names.kohya(layer), Module { form, scale: 1.0, magnitude: None });
        }
        Ok(made)
    }

    /// How many numbers it has.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let of_vectors = self.vectors.values().flat_map(Vectors::tensors).map(|(_, tensor)| tensor.elem_count());
        self.modules.values().map(Module::parameters).chain(of_vectors).sum()
    }

    /// The same with all products of two halves at the greatest rank of any, filled up with zeros. For files that diffusers 0.42
    /// loads: it forgets the alphas of attention layers where ranks differ.
    ///
    /// # Errors
    /// Out of memory.
    pub fn of_one_rank(mut self) -> Result<Self> {
        let ranks = self.modules.values().filter(|module| matches!(module.form, Form::LowRank { .. }));
        let greatest = ranks.filter_map(Module::rank).max().unwrap_or(0);
        for module in self.modules.values_mut() {
            if let Form::LowRank { up, down } = &mut module.form {
                let missing = greatest - down.dim(0)?;
                if missing > 0 {
                    (*up, *down) = (up.pad_with_zeros(1, 0, missing)?, down.pad_with_zeros(0, 0, missing)?);
                }
            }
        }
        Ok(self)
    }

    /// The greatest rank of a module that has one.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.modules.values().filter_map(Module::rank).max().unwrap_or(0)
    }
}

impl Module {
    /// Its rank, if its form has one.
    #[must_use]
    pub fn rank(&self) -> Option<usize> {
        match &self.form {
            Form::LowRank { down, .. } => down.dims().first().copied(),
            Form::Hadamard { factors } => factors[1].dims().first().copied(),
            Form::Kronecker { .. } | Form::Turned { .. } | Form::Whole(_) | Form::Set(_) => None,
        }
    }

    /// How many numbers it has.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let of_form = match &self.form {
            Form::LowRank { up: a, down: b } | Form::Kronecker { left: a, right: b } => a.elem_count() + b.elem_count(),
            Form::Hadamard { factors } => factors.iter().map(Tensor::elem_count).sum(),
            Form::Whole(tensor) | Form::Set(tensor) | Form::Turned { blocks: tensor, .. } => tensor.elem_count(),
        };
        of_form + self.magnitude.as_ref().map_or(0, |magnitude| magnitude.lengths().elem_count())
    }

    /// What kind it is, for people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match (&self.form, &self.magnitude) {
            (Form::LowRank { .. }, None) => "LoRA",
            (Form::LowRank { .. }, Some(_)) => "DoRA",
            (Form::Hadamard { .. }, _) => "LoHa",
            (Form::Kronecker { .. }, _) => "LoKr",
            (Form::Turned { .. }, _) => "OFT",
            (Form::Whole(_), _) => "difference",
            (Form::Set(_), _) => "weight",
        }
    }

    /// Rows and columns of the matrix that it makes, or turns: one of that many columns.
    fn measures(&self, turned: usize) -> (usize, usize) {
        let columns = |tensor: &Tensor| tensor.dims().iter().skip(1).product::<usize>();
        let rows = |tensor: &Tensor| tensor.dims().first().copied().unwrap_or(0);
        match &self.form {
            Form::LowRank { up, down } => (rows(up), columns(down)),
            Form::Hadamard { factors } => (rows(&factors[0]), columns(&factors[1])),
            Form::Kronecker { left, right } => (rows(left) * rows(right), columns(left) * columns(right)),
            Form::Turned { blocks, .. } => (rows(blocks) * blocks.dims().get(1).copied().unwrap_or(0), turned),
            Form::Whole(tensor) | Form::Set(tensor) => (rows(tensor), columns(tensor)),
        }
    }

    /// Whether it is for a weight of that shape.
    ///
    /// # Errors
    /// [`Fault::ShapeMismatch`].
    pub fn check(&self, layer: &str, shape: &[usize]) -> Result<(), Fault> {
        let expected: usize = shape[1..].iter().product();
        let (rows, columns) = self.measures(expected);
        let kernel = match &self.form {
            Form::LowRank { down, .. } if down.rank() == 4 && shape.len() == 4 => down.dims()[2..] == shape[2..],
            Form::Kronecker { right, .. } if right.rank() == 4 && shape.len() == 4 => right.dims()[2..] == shape[2..],
            _ => true,
        };
        if (rows, columns) == (shape[0], expected) && kernel {
            return Ok(());
        }
        Err(Fault::ShapeMismatch {
            layer: layer.to_owned(),
            file: format!("a weight of {rows} x {columns}"),
            model: format!("{} x {expected}, {shape:?}", shape[0]),
            hint: if kernel { "it belongs to another kind of model".to_owned() } else { String::new() },
        })
    }

    /// The change of a weight of that shape, before DoRA, or the weight that takes its place, f32.
    ///
    /// # Errors
    /// [`Fault::ShapeMismatch`], and [`Fault::BadModule`] for an OFT, whose change depends on the weight.
    pub fn change(&self, layer: &str, shape: &[usize]) -> Result<Tensor> {
        self.check(layer, shape)?;
        let change = match &self.form {
            Form::LowRank { up, down } => up.matmul(&down.flatten_from(1)?)?,
            Form::Hadamard { factors } => {
                let [a, b, c, d] = &**factors;
                (a.matmul(b)? * c.matmul(d)?)?
            }
            Form::Kronecker { left, right } => kronecker(left, right)?,
            Form::Turned { .. } => {
                let fact = "what an OFT changes depends on the weight below it".to_owned();
                return Err(Fault::BadModule { module: layer.to_owned(), fact }.into());
            }
            Form::Whole(change) | Form::Set(change) => change.clone(),
        };
        Ok((change.reshape(shape)? * self.scale)?)
    }
}

/// `left ⊗ right`, the kernel's cells last.
fn kronecker(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let (a, b) = left.dims2()?;
    let (c, d) = (right.dims()[0], right.dims()[1]);
    let cells: usize = right.dims()[2..].iter().product();
    let product = left.reshape((a, 1, b, 1, 1))?.broadcast_mul(&right.reshape((1, c, 1, d, cells))?)?;
    Ok(product.reshape((a * c, b * d * cells))?)
}

/// A module on a layer.
pub(super) struct Added {
    layer: String,
    /// Of the layer's weight.
    shape: Vec<usize>,
    module: Module,
    strength: f64,
    /// Of a module that acts beside the layer: `[rank, in]` or `[rank, in, kernel, kernel]`, and `[rank, out]`.
    thin: Option<(Tensor, Tensor)>,
}

impl Added {
    /// # Errors
    /// [`Fault::ShapeMismatch`] for a layer of another shape.
    pub(super) fn on(layer: &str, shape: &[usize], module: &Module, strength: f64) -> Result<Arc<dyn Adapter>> {
        module.check(layer, shape)?;
        if let Some(magnitude) = &module.magnitude {
            let count = magnitude.lengths().elem_count();
            let columns = matches!(magnitude, Magnitude::Lycoris(_)) && count == shape[1];
            if count != shape[0] && !columns {
                return Err(Fault::ShapeMismatch {
                    layer: layer.to_owned(),
                    file: format!("{count} lengths"),
                    model: format!("{} rows and {} columns", shape[0], shape[1]),
                    hint: String::new(),
                }
                .into());
            }
        }
        let thin = match (&module.form, &module.magnitude) {
            (Form::LowRank { up, down }, None) => {
                // A convolution of one pixel is spelled with and without it.
                let down = down.reshape([&[down.dim(0)?], &shape[1..]].concat())?;
                Some((down, up.t()?.contiguous()?))
            }
            _ => None,
        };
        Ok(Arc::new(Self { layer: layer.to_owned(), shape: shape.to_vec(), module: module.clone(), strength, thin }))
    }

    /// DoRA: the directions of the changed weight with lengths of their own.
    fn with_lengths(&self, base: &Tensor, magnitude: &Magnitude) -> Result<Tensor> {
        let base = base.to_dtype(DType::F32)?;
        let changed = (&base + self.module.change(&self.layer, base.dims())?)?;
        let rows = |weight: &Tensor| weight.flatten_from(1)?.sqr()?.sum_keepdim(1)?.sqrt();
        let epsilon = f64::from(f32::EPSILON);
        let lengths = magnitude.lengths();
        let mut kept = vec![1; base.rank()];
        let before = match magnitude {
            Magnitude::Peft(_) => {
                kept[0] = base.dims()[0];
                rows(&changed)?
            }
            // Of a square weight the shape tells which are meant.
            Magnitude::Lycoris(_) if lengths.dims().first() == Some(&base.dims()[0]) => {
                kept[0] = base.dims()[0];
                (rows(&base)? + epsilon)?
            }
            Magnitude::Lycoris(_) => {
                kept[1] = base.dims()[1];
                (rows(&changed.transpose(0, 1)?.contiguous()?)? + epsilon)?
            }
        };
        let scale = (lengths.flatten_all()? / before.flatten_all()?)?.reshape(kept)?;
        let turned = changed.broadcast_mul(&scale)?;
        Ok((&base + ((turned - &base)? * self.strength)?)?)
    }
}

impl Adapter for Added {
    fn weight(&self, base: &Tensor) -> Result<Tensor> {
        let changed = match (&self.module.magnitude, &self.module.form) {
            (Some(magnitude), _) => self.with_lengths(base, magnitude)?,
            (None, Form::Set(_)) => self.module.change(&self.layer, base.dims())?,
            (None, Form::Turned { blocks, constraint }) => {
                self.module.check(&self.layer, base.dims())?;
                let base = base.to_dtype(DType::F32)?;
                let change = (turned_weight(&base, &rotations(blocks, *constraint)?)? - &base)?;
                // ComfyUI multiplies by the strength twice.
                (base + (change * (self.strength * self.strength))?)?
            }
            (None, _) => {
                let change = self.module.change(&self.layer, base.dims())?;
                (base.to_dtype(DType::F32)? + (change * self.strength)?)?
            }
        };
        Ok(changed.to_dtype(base.dtype())?)
    }

    fn output(&self, geometry: Geometry, x: &Tensor, y: Tensor) -> Result<Tensor> {
        let (down, up) = self.thin.as_ref().expect("others are baked in");
        let like = |thin: &Tensor| thin.to_device(x.device())?.to_dtype(x.dtype());
        let seen = low_rank::down(x, &like(down)?, geometry)?;
        low_rank::up(&y, &seen, &like(up)?, self.module.scale * self.strength)
    }

    fn acts_beside(&self) -> bool {
        self.thin.is_some()
    }

    fn rounds_with_its_weight(&self) -> bool {
        true
    }

    fn effect(&self) -> Result<Effect> {
        if self.module.magnitude.is_some() || matches!(self.module.form, Form::Set(_) | Form::Turned { .. }) {
            return Ok(Effect::Alters);
        }
        let change = self.module.change(&self.layer, &self.shape)?;
        Ok(Effect::Adds((change.flatten_from(1)? * self.strength)?))
    }
}

/// An adapter that adds `up · down` to a layer's weight.
///
/// # Errors
/// [`Fault::ShapeMismatch`] for a layer of another shape.
pub(crate) fn low_rank(layer: &str, shape: &[usize], up: &Tensor, down: &Tensor) -> Result<Arc<dyn Adapter>> {
    let form = Form::LowRank { up: up.flatten_from(1)?.contiguous()?, down: down.contiguous()? };
    Added::on(layer, shape, &Module { form, scale: 1.0, magnitude: None }, 1.0)
}

/// A tensor of one number.
pub(super) fn number(tensor: &Tensor) -> Result<Option<f64>> {
    Ok(match flat_f64(tensor)?[..] {
        [number] => Some(number),
        _ => None,
    })
}
