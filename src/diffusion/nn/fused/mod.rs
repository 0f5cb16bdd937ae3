//! The operations of this folder through the kernels: f32 on the CPU. Each is differentiable by its inputs; a
//! model's weights are frozen, but for those that are trained themselves ([`down`]).

mod attention;
mod low_rank;
mod norm;
mod pointwise;
mod product;
mod resample;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, DType, Layout, Result, Tensor};

use super::weight::Geometry;

pub(super) use attention::attention;
pub(super) use low_rank::{down, project, up};
pub(super) use norm::{group_norm, layer_norm};
pub(super) use pointwise::{geglu, gelu, quick_gelu, silu};
pub(super) use product::{Add, finish, product};
pub(super) use resample::upsample_nearest;

/// Whether the kernels compute with a tensor.
pub(super) fn takes(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// Whether the kernels have the product of `x` with a weight of that shape.
pub(super) fn has_product(x: &Tensor, shape: &[usize], geometry: Geometry) -> bool {
    let narrow = match geometry {
        Geometry::Linear => true,
        // Further out the way back would have to cut the gradient, which no model needs.
        Geometry::Conv2d { stride, before, .. } => stride > 0 && before < shape[2],
    };
    takes(x) && x.elem_count() > 0 && narrow
}

/// The numbers of a kernel's argument, which was made contiguous before.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let numbers = storage.as_slice::<f32>()?;
    let (start, end) =
        layout.contiguous_offsets().ok_or_else(|| candle_core::Error::Msg("not contiguous".to_owned()))?;
    Ok(&numbers[start..end])
}

/// Runs `f` on the numbers of a contiguous f32 tensor of the CPU.
fn with_numbers<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(storage) => Ok(f(slice(storage, layout)?)),
        _ => candle_core::bail!("a kernel's parameter is not on the CPU"),
    }
}
