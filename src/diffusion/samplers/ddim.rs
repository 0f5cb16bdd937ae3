//! DDIM: in these coordinates the same walk as Euler's.

use super::{Sampler, euler};

/// Song et al. 2020 (arXiv:2010.02502), without noise. It differs from `euler` where part of a picture is kept: the noise
/// on that part is drawn afresh.
pub(super) const SAMPLER: Sampler = Sampler { fresh_mask_noise: true, ..Sampler::new("ddim", 1, euler::sample) };
