//! Outputs that are written once, without a first pass of zeros.

use std::mem::MaybeUninit;

/// A list of so many numbers, all of them written by `fill`.
///
/// # Safety
/// `fill` must write every element.
pub(crate) unsafe fn filled(len: usize, fill: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut out = Vec::with_capacity(len);
    fill(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: the caller's promise.
    unsafe { out.set_len(len) };
    out
}
