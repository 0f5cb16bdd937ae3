//! Thin matrices beside a layer, trained or not.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Tensor};
use paraflow_kernels::{outer, thin, widen};

use super::super::weight::Geometry;
use super::product::Product;
use super::{slice, with_numbers};

/// `y - strength · (y qᵀ) q`.
pub(in crate::nn) fn project(y: &Tensor, q: &Tensor, strength: f32) -> Result<Tensor> {
    require(y, q)?;
    y.contiguous()?.apply_op2(&q.contiguous()?, Project { strength })
}

/// `A x`.
pub(in crate::nn) fn down(x: &Tensor, a: &Tensor, geometry: Geometry) -> Result<Tensor> {
    if x.dims().last() != a.dims().get(1) {
        candle_core::bail!("channels {:?} and a matrix {:?} do not fit", x.dims(), a.dims());
    }
    let a = a.contiguous()?;
    x.contiguous()?.apply_op2(&a, Down { product: Product::with(&a, geometry), geometry })
}

/// `y + scale · t u`.
pub(in crate::nn) fn up(y: &Tensor, t: &Tensor, u: &Tensor, scale: f32) -> Result<Tensor> {
    require(y, u)?;
    if t.elem_count() * y.dim(candle_core::D::Minus1)? != y.elem_count() * u.dim(0)? {
        candle_core::bail!("{:?} and {:?} do not fit {:?}", t.dims(), u.dims(), y.dims());
    }
    y.contiguous()?.apply_op3(&t.contiguous()?, &u.contiguous()?, Widen { scale })
}

fn require(y: &Tensor, matrix: &Tensor) -> Result<()> {
    if matrix.rank() == 2 && y.dims().last() == matrix.dims().get(1) {
        return Ok(());
    }
    candle_core::bail!("channels {:?} and a matrix {:?} do not fit", y.dims(), matrix.dims())
}

fn tensor(numbers: Vec<f32>, like: &Tensor) -> Result<Option<Tensor>> {
    Tensor::from_vec(numbers, like.shape(), &Device::Cpu).map(Some)
}

/// Each row with itself.
fn straight(rows: usize) -> Vec<(u32, u32)> {
    (0..rows as u32).map(|row| (row, row)).collect()
}

struct Project {
    strength: f32,
}

impl CustomOp2 for Project {
    fn name(&self) -> &'static str {
        "project"
    }

    fn cpu_fwd(
        &self,
        y: &CpuStorage,
        layout: &Layout,
        q: &CpuStorage,
        q_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (y, q, width) = (slice(y, layout)?, slice(q, q_layout)?, q_layout.dims()[1]);
        let out = widen(y, &thin(y, q, width), q, width, -self.strength);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    /// With `c = y qᵀ` and `k = g qᵀ`: `g - strength · k q`, and `-strength · (cᵀ g + kᵀ y)`.
    fn bwd(
        &self,
        y: &Tensor,
        q: &Tensor,
        _out: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (rank, width) = q.dims2()?;
        let gradient = gradient.contiguous()?;
        let run = |y_numbers: &[f32], q_numbers: &[f32], g: &[f32]| -> Result<(Option<Tensor>, Option<Tensor>)> {
            let k = thin(g, q_numbers, width);
            let to_y = if y.track_op() { tensor(widen(g, &k, q_numbers, width, -self.strength), y)? } else { None };
            if !q.track_op() {
                return Ok((to_y, None));
            }
            let c = thin(y_numbers, q_numbers, width);
            let rows = straight(g.len() / width);
            let (first, second) = (outer(&c, rank, g, width, &rows), outer(&k, rank, y_numbers, width, &rows));
            let to_q = first.iter().zip(&second).map(|(a, b)| -self.strength * (a + b)).collect();
            Ok((to_y, tensor(to_q, q)?))
        };
        with_numbers(y, |y| with_numbers(q, |q| with_numbers(&gradient, |g| run(y, q, g))))???
    }
}

struct Down {
    product: Product,
    geometry: Geometry,
}

impl Down {
    /// Which pixel of the output meets which of the input at a tap of the kernel.
    fn pairs(&self, shape: &[usize], tap: (usize, usize)) -> Vec<(u32, u32)> {
        let window = self.product.window(shape);
        let (rows, columns) = window.output();
        let mut pairs = Vec::with_capacity(window.batch * rows * columns);
        let inside = |place: usize, tap: usize, side: usize| {
            (place * window.stride + tap).checked_sub(window.before).filter(|place| *place < side)
        };
        for picture in 0..window.batch {
            for row in 0..rows {
                let Some(y) = inside(row, tap.0, window.height) else { continue };
                for column in 0..columns {
                    let Some(x) = inside(column, tap.1, window.width) else { continue };
                    let output = (picture * rows + row) * columns + column;
                    pairs.push((output as u32, ((picture * window.height + y) * window.width + x) as u32));
                }
            }
        }
        pairs
    }

    fn weight_gradient(&self, x: &[f32], g: &[f32], shape: &[usize], like: &Tensor) -> Result<Option<Tensor>> {
        let (output, input) = (like.dims()[0], like.dims()[1]);
        let Geometry::Conv2d { .. } = self.geometry else {
            return tensor(outer(g, output, x, input, &straight(g.len() / output)), like);
        };
        let kernel = like.dims()[2];
        let mut numbers = vec![0.0; like.elem_count()];
        for tap in 0..kernel * kernel {
            let sums = outer(g, output, x, input, &self.pairs(shape, (tap / kernel, tap % kernel)));
            numbers.iter_mut().skip(tap).step_by(kernel * kernel).zip(sums).for_each(|(number, sum)| *number = sum);
        }
        tensor(numbers, like)
    }
}

impl CustomOp2 for Down {
    fn name(&self) -> &'static str {
        "down"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout, _a: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.product.run(slice(x, layout)?, layout.dims(), None)
    }

    fn bwd(&self, x: &Tensor, a: &Tensor, _t: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let to_a = if a.track_op() {
            let run = |x_numbers: &[f32], g: &[f32]| self.weight_gradient(x_numbers, g, x.dims(), a);
            with_numbers(x, |x| with_numbers(&gradient, |g| run(x, g)))???
        } else {
            None
        };
        Ok((self.product.back(x, &gradient)?, to_a))
    }
}

struct Widen {
    scale: f32,
}

impl CustomOp3 for Widen {
    fn name(&self) -> &'static str {
        "up"
    }

    fn cpu_fwd(
        &self,
        y: &CpuStorage,
        layout: &Layout,
        t: &CpuStorage,
        t_layout: &Layout,
        u: &CpuStorage,
        u_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (y, t, u) = (slice(y, layout)?, slice(t, t_layout)?, slice(u, u_layout)?);
        Ok((CpuStorage::F32(widen(y, t, u, u_layout.dims()[1], self.scale)), layout.shape().clone()))
    }

    fn bwd(
        &self,
        y: &Tensor,
        t: &Tensor,
        u: &Tensor,
        _out: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (rank, width) = u.dims2()?;
        let gradient = gradient.contiguous()?;
        let scaled = |numbers: Vec<f32>| numbers.into_iter().map(|x| self.scale * x).collect::<Vec<_>>();
        let run = |t_numbers: &[f32], u_numbers: &[f32], g: &[f32]| -> Result<_> {
            let to_t = if t.track_op() { tensor(scaled(thin(g, u_numbers, width)), t)? } else { None };
            let rows = straight(g.len() / width);
            let to_u = if u.track_op() { tensor(scaled(outer(t_numbers, rank, g, width, &rows)), u)? } else { None };
            Ok((to_t, to_u))
        };
        let (to_t, to_u) = with_numbers(t, |t| with_numbers(u, |u| with_numbers(&gradient, |g| run(t, u, g))))????;
        Ok((y.track_op().then(|| gradient.clone()), to_t, to_u))
    }
}
