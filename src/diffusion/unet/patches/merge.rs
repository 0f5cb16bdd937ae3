//! Token merging: where a picture is large, tokens that are alike share one query.
//!
//! Bolya and Hoffman 2023, arXiv:2303.17604; bipartite soft matching as in Bolya et al. 2022, arXiv:2210.09461, section 3.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::unet::{Pass, Patch, Regrouped};

/// Merges a share of the tokens of the finest level.
#[derive(Clone, Copy, Debug)]
pub struct Merge {
    /// How many of them, 0 to 1.
    pub share: f64,
}

/// Side of the squares of which one token each takes others in.
const CELL: usize = 2;

impl Patch for Merge {
    fn queries(&self, tokens: &Tensor, pass: &Pass<'_>) -> Result<Option<Regrouped>> {
        let (batch, count, channels) = tokens.dims3()?;
        let (rows, columns) = pass.size;
        let merged = (count as f64 * self.share) as usize;
        if rows * columns != count || merged == 0 || rows < CELL || columns < CELL {
            return Ok(None);
        }
        let split = Arc::new(Split::draw(rows, columns, pass));
        let single = tokens.to_dtype(DType::F32)?;
        let find = |entry: usize| Matches::find(&single.get(entry)?, &split, merged);
        let matches: Vec<Matches> = (0..batch).map(find).collect::<Result<_>>()?;
        let values: Vec<f32> = single.flatten_all()?.to_vec1()?;
        let kept = split.sources.len() - merged.min(split.sources.len()) + split.targets.len();
        let mut joined = Vec::with_capacity(batch * kept * channels);
        for (entry, matches) in values.chunks_exact(count * channels).zip(&matches) {
            joined.extend(matches.join(entry, channels, &split));
        }
        let joined = Tensor::from_vec(joined, (batch, kept, channels), tokens.device())?.to_dtype(tokens.dtype())?;
        let back = move |found: &Tensor| -> Result<Tensor> {
            let channels = found.dim(2)?;
            let values: Vec<f32> = found.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            let mut out = Vec::with_capacity(batch * count * channels);
            for (entry, matches) in values.chunks_exact(kept * channels).zip(&matches) {
                out.extend(matches.spread(entry, channels, &split, count));
            }
            Ok(Tensor::from_vec(out, (batch, count, channels), found.device())?.to_dtype(found.dtype())?)
        };
        Ok(Some(Regrouped { tokens: joined, back: Box::new(back) }))
    }
}

/// Which tokens take others in, one drawn from each square, and which are taken; both in the picture's order.
struct Split {
    targets: Vec<usize>,
    sources: Vec<usize>,
}

impl Split {
    fn draw(rows: usize, columns: usize, pass: &Pass<'_>) -> Self {
        let mut is_target = vec![false; rows * columns];
        for y in 0..rows / CELL {
            for x in 0..columns / CELL {
                let drawn = pass.below(CELL * CELL);
                is_target[(y * CELL + drawn / CELL) * columns + x * CELL + drawn % CELL] = true;
            }
        }
        let (targets, sources) = (0..is_target.len()).partition(|token| is_target[*token]);
        Self { targets, sources }
    }
}

/// How the tokens of one entry merge, in places among [`Split::sources`] and [`Split::targets`].
struct Matches {
    /// Sources that stay, the most alike to a target first.
    unmerged: Vec<usize>,
    /// Sources that go, and the target that each goes into.
    merged: Vec<(usize, usize)>,
}

impl Matches {
    /// `entry`: `[tokens, channels]`.
    fn find(entry: &Tensor, split: &Split, merged: usize) -> Result<Self> {
        let units = entry.broadcast_div(&entry.sqr()?.sum_keepdim(1)?.sqrt()?)?;
        let rows = |tokens: &[usize]| -> Result<Tensor> {
            let places: Vec<u32> = tokens.iter().map(|token| *token as u32).collect();
            Ok(units.index_select(&Tensor::new(places, entry.device())?, 0)?)
        };
        let scores = rows(&split.sources)?.matmul(&rows(&split.targets)?.t()?)?.to_vec2::<f32>()?;
        let nearest = |scores: &Vec<f32>| {
            let scores = scores.iter().copied().enumerate();
            scores.fold((f32::NEG_INFINITY, 0), |best, (i, score)| if score > best.0 { (score, i) } else { best })
        };
        let nearest: Vec<(f32, usize)> = scores.iter().map(nearest).collect();
        let mut order: Vec<usize> = (0..nearest.len()).collect();
        order.sort_by(|a, b| nearest[*b].0.total_cmp(&nearest[*a].0));
        let unmerged = order.split_off(merged.min(order.len()));
        Ok(Self { unmerged, merged: order.into_iter().map(|source| (source, nearest[source].1)).collect() })
    }

    /// The tokens that stay, then the targets, each the mean of itself and what goes into it.
    fn join(&self, entry: &[f32], channels: usize, split: &Split) -> Vec<f32> {
        let token = |index: usize| &entry[index * channels..(index + 1) * channels];
        let mut joined: Vec<f32> =
            self.unmerged.iter().flat_map(|source| token(split.sources[*source])).copied().collect();
        let first = joined.len();
        joined.extend(split.targets.iter().flat_map(|target| token(*target)));
        let mut counts = vec![1.0_f32; split.targets.len()];
        for (source, target) in &self.merged {
            counts[*target] += 1.0;
            let sum = &mut joined[first + target * channels..first + (target + 1) * channels];
            sum.iter_mut().zip(token(split.sources[*source])).for_each(|(sum, x)| *sum += x);
        }
        for (target, count) in joined[first..].chunks_exact_mut(channels).zip(counts) {
            target.iter_mut().for_each(|x| *x /= count);
        }
        joined
    }

    /// What was found for the tokens that stayed and for the targets, given to every token.
    fn spread(&self, found: &[f32], channels: usize, split: &Split, count: usize) -> Vec<f32> {
        let mut out = vec![0.0; count * channels];
        let mut put = |token: usize, place: usize| {
            out[token * channels..(token + 1) * channels]
                .copy_from_slice(&found[place * channels..(place + 1) * channels]);
        };
        for (place, source) in self.unmerged.iter().enumerate() {
            put(split.sources[*source], place);
        }
        let first = self.unmerged.len();
        for (place, target) in split.targets.iter().enumerate() {
            put(*target, first + place);
        }
        for (source, target) in &self.merged {
            put(split.sources[*source], first + target);
        }
        out
    }
}
