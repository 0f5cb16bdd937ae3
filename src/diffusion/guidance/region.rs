//! Where prompts count: areas and masks, resolved to weights for every cell of a latent.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::{Condition, Control};
use crate::hooks::Hooks;
use crate::resize::{Method, resize};
use crate::schedule::ModelSampling;
use crate::tensors::repeat_to_batch;
use crate::unet::Grounding;
use crate::{Error, Result};

/// A rectangle of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Area {
    /// In cells of the latent, 8 pixels each. What reaches over the edge is cut off.
    Cells {
        /// Height.
        height: usize,
        /// Width.
        width: usize,
        /// First row.
        y: usize,
        /// First column.
        x: usize,
    },
    /// In shares of the picture's height and width.
    Share {
        /// Height.
        height: f64,
        /// Width.
        width: f64,
        /// Distance from the top.
        y: f64,
        /// Distance from the left.
        x: f64,
    },
}

/// How much a prompt counts in each place.
#[derive(Clone, Debug)]
pub struct Mask {
    /// `[1 or batch, height, width]` or `[height, width]`, f32, 0 to 1, of any size.
    pub values: Tensor,
    /// A factor on them.
    pub strength: f64,
    /// The network sees no more than the rectangle around what is not 0.
    pub is_area: bool,
}

/// A rectangle in cells of a latent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) y: usize,
    pub(super) x: usize,
}

impl Window {
    fn cells(self) -> usize {
        self.height.saturating_mul(self.width)
    }

    fn encloses(self, other: Self) -> bool {
        let end = |start: usize, size: usize| start.saturating_add(size);
        let rows = self.y <= other.y && end(other.y, other.height) <= end(self.y, self.height);
        let columns = self.x <= other.x && end(other.x, other.width) <= end(self.x, self.width);
        rows && columns
    }

    /// What of it lies on a canvas.
    fn clip(self, rows: usize, columns: usize) -> Result<Self> {
        let Self { height, width, y, x } = self;
        let clipped =
            Self { height: height.min(rows.saturating_sub(y)), width: width.min(columns.saturating_sub(x)), ..self };
        if clipped.cells() == 0 {
            return Err(Error::AreaOutside { height, width, y, x, rows, columns });
        }
        Ok(clipped)
    }
}

/// A condition ready to be evaluated.
#[derive(Clone)]
pub(super) struct Entry {
    /// `[batch, tokens, width]`
    pub(super) context: Tensor,
    /// `[batch, width]`
    pub(super) label: Option<Tensor>,
    /// The picture to change, if the prompt has one.
    pub(super) picture: super::Picture,
    /// What a control network sees.
    pub(super) control: Option<Arc<Control>>,
    /// What it reads instead of the prompt, `[batch, tokens, width]`.
    pub(super) control_context: Option<Tensor>,
    /// What is to be in which boxes.
    pub(super) grounding: Option<Arc<Grounding>>,
    /// What the network sees beside the latent, `[batch, channels, height, width]` of the whole picture.
    pub(super) beside: Option<Tensor>,
    /// What the network sees of the latent, as far as it lies on it; all of it if `None`.
    pub(super) window: Option<Window>,
    /// How much each cell of the window counts.
    pub(super) counts: Counts,
    /// It counts from this level down ...
    pub(super) first_sigma: f32,
    /// ... to this one, both included.
    pub(super) last_sigma: f32,
    /// What changes the network's weights for it.
    pub(super) hooks: Hooks,
    /// It counts where the others of its side leave room.
    pub(super) fills_in: bool,
}

/// How much the cells of a prompt's window count.
#[derive(Clone)]
pub(super) enum Counts {
    /// All alike, but for the edges of an area.
    Evenly(f32),
    /// As a mask says, `[1 or batch, height, width]` of the whole latent.
    Masked(Tensor),
}

impl Entry {
    /// What of a latent it is asked about, and how much each cell of that counts, `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::AreaOutside`].
    pub(super) fn on(&self, x: &Tensor) -> Result<(Option<Window>, Tensor)> {
        let (batch, channels, rows, columns) = x.dims4()?;
        let window = self.window.map(|window| window.clip(rows, columns)).transpose()?;
        let seen = window.unwrap_or(Window { height: rows, width: columns, y: 0, x: 0 });
        let weights = match &self.counts {
            Counts::Masked(values) => {
                let values = values.narrow(1, seen.y, seen.height)?.narrow(2, seen.x, seen.width)?;
                repeat_to_batch(&values, batch)?.unsqueeze(1)?
            }
            Counts::Evenly(strength) => {
                let weights = feathered(*strength, seen, window.map(|_| (rows, columns)));
                Tensor::from_vec(weights, (1, 1, seen.height, seen.width), x.device())?
            }
        };
        Ok((window, weights.broadcast_as((batch, channels, seen.height, seen.width))?.contiguous()?))
    }
}

/// A condition with its region in cells, not yet cut at the edges.
struct Resolved {
    condition: Condition,
    window: Option<Window>,
    /// `[1 or batch, rows, columns]`
    mask: Option<Tensor>,
}

/// Makes entries of groups of prompts for latents like `latent`. Each area of one side gets an equal one on the others.
pub(super) fn prepare(sides: &[&[Condition]], sampling: &ModelSampling, latent: &Tensor) -> Result<Vec<Vec<Entry>>> {
    let (_, _, rows, columns) = latent.dims4()?;
    let resolve = |conditions: &&[Condition]| {
        conditions.iter().map(|condition| Resolved::new(condition, rows, columns)).collect::<Result<Vec<_>>>()
    };
    let mut sides = sides.iter().map(resolve).collect::<Result<Vec<_>>>()?;
    for of in 0..sides.len() {
        for to in (0..sides.len()).filter(|to| *to != of) {
            let conditions = std::mem::take(&mut sides[of]);
            mirror_areas(&conditions, &mut sides[to]);
            sides[of] = conditions;
        }
    }
    if let Some((positive, others)) = sides.split_first_mut() {
        others.iter_mut().for_each(|side| {
            share(
                positive,
                side,
                |condition| condition.control.clone().filter(|_| condition.control_everywhere),
                |condition| &mut condition.control,
            );
            share(positive, side, |condition| condition.grounding.clone(), |condition| &mut condition.grounding);
        });
    }
    let finish = |resolved: Vec<Resolved>| {
        resolved.into_iter().map(|resolved| resolved.entry(sampling, latent)).collect::<Result<Vec<_>>>()
    };
    sides.into_iter().map(finish).collect()
}

/// Gives `others` a copy of each area of `conditions`, with the prompt of the smallest region there that encloses it:
/// guidance is the difference of two answers about the same part of a latent.
fn mirror_areas(conditions: &[Resolved], others: &mut Vec<Resolved>) {
    for condition in conditions {
        let Some(window) = condition.window else { continue };
        let enclosing = others.iter().filter(|other| other.window.is_none_or(|other| other.encloses(window)));
        // The first of equals; a whole picture only where no area encloses it.
        let smallest = enclosing.min_by_key(|other| other.window.map_or(usize::MAX, Window::cells));
        let Some(smallest) = smallest.filter(|smallest| smallest.window != Some(window)) else { continue };
        let Condition { context, label, picture, control_context, .. } = smallest.condition.clone();
        others.push(Resolved {
            condition: Condition { context, label, picture, control_context, ..condition.condition.clone() },
            window: condition.window,
            mask: condition.mask.clone(),
        });
    }
}

/// Gives prompts without something, such as control, what those of `positive` have of it for everyone, unless one of them has
/// its own. Of more than there are prompts, the last count.
fn share<T>(
    positive: &[Resolved],
    others: &mut [Resolved],
    of: impl Fn(&Condition) -> Option<T>,
    place: impl Fn(&mut Condition) -> &mut Option<T>,
) {
    let whole = |resolved: &&Resolved| resolved.window.is_none();
    let shared = positive.iter().filter(whole).filter_map(|resolved| of(&resolved.condition));
    let has_own = |resolved: &mut Resolved| resolved.window.is_none() && place(&mut resolved.condition).is_some();
    if others.iter_mut().any(has_own) {
        return;
    }
    let free: Vec<usize> = (0..others.len()).filter(|i| others[*i].window.is_none()).collect();
    if free.is_empty() {
        return;
    }
    for (i, shared) in shared.enumerate() {
        *place(&mut others[free[i % free.len()]].condition) = Some(shared);
    }
}

impl Resolved {
    fn new(condition: &Condition, rows: usize, columns: usize) -> Result<Self> {
        let share = |share: f64, size: usize| (share * size as f64).round_ties_even().max(0.0) as usize;
        let mut window = condition.area.map(|area| match area {
            Area::Cells { height, width, y, x } => Window { height, width, y, x },
            Area::Share { height, width, y, x } => Window {
                height: share(height, rows).max(1),
                width: share(width, columns).max(1),
                y: share(y, rows),
                x: share(x, columns),
            },
        });
        let mask = condition.mask.as_ref().map(|mask| resize_mask(&mask.values, rows, columns)).transpose()?;
        if let (Some(mask), Some(Mask { is_area: true, .. })) = (&mask, &condition.mask) {
            window = Some(bounds(mask)?);
        }
        Ok(Self { condition: condition.clone(), window, mask })
    }

    fn entry(self, sampling: &ModelSampling, latent: &Tensor) -> Result<Entry> {
        let (batch, _, rows, columns) = latent.dims4()?;
        self.window.map(|window| window.clip(rows, columns)).transpose()?;
        let Condition {
            context,
            label,
            picture,
            control,
            control_context,
            grounding,
            strength,
            mask,
            area: _,
            control_everywhere: _,
            start,
            end,
            encoded_for: [encoded_from, encoded_to],
            hooks,
            fills_in,
            drew: _,
        } = self.condition;
        let counts = match (&self.mask, &mask) {
            (Some(values), Some(mask)) => {
                let values = values.affine(mask.strength, 0.0)?.affine(strength, 0.0)?;
                Counts::Masked(values.to_device(latent.device())?)
            }
            _ => Counts::Evenly(strength as f32),
        };
        let bring = |value: &Tensor| -> Result<Tensor> {
            repeat_to_batch(&value.to_device(latent.device())?.to_dtype(DType::F32)?, batch)
        };
        context.dims3()?;
        Ok(Entry {
            context: bring(&context)?,
            label: label.as_ref().map(bring).transpose()?,
            picture,
            control,
            control_context: control_context.map(|context| bring(&context)).transpose()?,
            grounding,
            beside: None,
            window: self.window,
            counts,
            first_sigma: sampling.percent_to_sigma(start.max(encoded_from)),
            last_sigma: sampling.percent_to_sigma(end.min(encoded_to)),
            hooks,
            fills_in,
        })
    }
}

/// A mask as large as the latent, `[1 or batch, rows, columns]`.
fn resize_mask(values: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let values = if values.rank() == 2 { values.unsqueeze(0)? } else { values.clone() };
    let (_, height, width) = values.dims3()?;
    if (height, width) == (rows, columns) {
        return Ok(values.to_dtype(DType::F32)?);
    }
    Ok(resize(&values.unsqueeze(1)?, columns, rows, Method::Bilinear)?.squeeze(1)?)
}

/// The rectangle around what is not 0 in any entry of a mask, 8 by 8 cells at least.
fn bounds(mask: &Tensor) -> Result<Window> {
    const LEAST: usize = 8;
    let rows = mask.abs()?.max(0)?.to_vec2::<f32>()?;
    let marked = |(y, row): (usize, &Vec<f32>)| {
        let mut columns = row.iter().enumerate().filter(|(_, value)| **value != 0.0).map(|(x, _)| x);
        let first = columns.next()?;
        Some((y, first, columns.next_back().unwrap_or(first)))
    };
    let marked: Vec<_> = rows.iter().enumerate().filter_map(marked).collect();
    let (Some((top, ..)), Some((bottom, ..))) = (marked.first(), marked.last()) else {
        return Ok(Window { height: LEAST, width: LEAST, y: 0, x: 0 });
    };
    let left = marked.iter().map(|(_, left, _)| *left).min().unwrap_or(0);
    let right = marked.iter().map(|(.., right)| *right).max().unwrap_or(0);
    Ok(Window { height: (bottom - top + 1).max(LEAST), width: (right - left + 1).max(LEAST), y: *top, x: left })
}

/// Equal weights for the cells of a window. On a `canvas`, they fall off over up to 8 cells towards each edge of the
/// window that is not an edge of the canvas.
fn feathered(strength: f32, window: Window, canvas: Option<(usize, usize)>) -> Vec<f32> {
    let Window { height, width, y, x } = window;
    let Some((rows, columns)) = canvas else { return vec![strength; window.cells()] };
    let (top, bottom) = (fade(height, y != 0), fade(height, y + height < rows));
    let (left, right) = (fade(width, x != 0), fade(width, x + width < columns));
    let row = |y: usize| {
        let strength = strength * top[y] * bottom[height - 1 - y];
        (0..width).zip(&left).map(move |(x, left)| (x, strength * left))
    };
    (0..height).flat_map(row).map(|(x, weight)| weight * right[width - 1 - x]).collect()
}

/// What each cell is multiplied by on the way from an edge, or 1.
fn fade(size: usize, fades: bool) -> Vec<f32> {
    let cells = if fades { (size / 4).min(8) } else { 0 };
    let factor = |i: usize| if i < cells { (1.0 / cells as f64 * (i + 1) as f64) as f32 } else { 1.0 };
    (0..size).map(factor).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::schedule::Prediction;

    fn condition(value: f32, area: Option<Area>) -> Condition {
        let context = Tensor::full(value, (1, 77, 4), &Device::Cpu).unwrap();
        Condition { area, ..Condition::new(context) }
    }

    fn prepared(positive: &[Condition], negative: &[Condition]) -> Result<(Vec<Entry>, Vec<Entry>)> {
        let latent = Tensor::zeros((2, 4, 12, 20), DType::F32, &Device::Cpu)?;
        let mut sides = prepare(&[positive, negative], &ModelSampling::stable_diffusion(Prediction::Epsilon), &latent)?;
        let negative = sides.pop().unwrap_or_default();
        Ok((sides.pop().unwrap_or_default(), negative))
    }

    fn prompt(entry: &Entry) -> f32 {
        entry.context.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn each_area_gets_an_equal_one_on_the_other_side() {
        let left = Area::Cells { height: 12, width: 10, y: 0, x: 0 };
        let corner = Area::Share { height: 0.5, width: 0.25, y: 0.0, x: 0.0 };
        let positive = [condition(1.0, Some(left)), condition(2.0, Some(corner)), condition(3.0, None)];
        let negative = [condition(-1.0, None), condition(-2.0, Some(left))];
        let (positive, negative) = prepared(&positive, &negative).unwrap();
        assert_eq!(positive.len(), 3);
        // The corner lies in the left half, so it is answered with that half's prompt.
        let window = Some(Window { height: 6, width: 5, y: 0, x: 0 });
        assert_eq!(negative.iter().map(prompt).collect::<Vec<_>>(), [-1.0, -2.0, -2.0]);
        assert_eq!(negative[2].window, window);
    }

    #[test]
    fn inner_edges_of_an_area_fade() {
        let weights = feathered(2.0, Window { height: 8, width: 4, y: 0, x: 3 }, Some((16, 7)));
        let column: Vec<f32> = weights.iter().skip(3).step_by(4).copied().collect();
        assert_eq!(column, [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0]);
        // A quarter of four columns is one, and one cell has no room to fade.
        assert_eq!(weights[..4], [2.0; 4]);
        let wide = feathered(1.0, Window { height: 1, width: 40, y: 0, x: 1 }, Some((1, 60)));
        assert_eq!(wide[..9], [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.0]);
        assert_eq!(wide[39], 0.125);
    }

    #[test]
    fn a_mask_may_bound_what_is_seen() {
        let mut values = vec![0.0_f32; 12 * 20];
        values[2 * 20 + 5] = 0.5;
        values[11 * 20 + 16] = 1.0;
        let values = Tensor::from_vec(values, (12, 20), &Device::Cpu).unwrap();
        let mask = Some(Mask { values, strength: 0.5, is_area: true });
        let (entries, _) = prepared(&[Condition { mask, ..condition(1.0, None) }], &[]).unwrap();
        let (window, weight) =
            entries[0].on(&Tensor::zeros((2, 4, 12, 20), DType::F32, &Device::Cpu).unwrap()).unwrap();
        assert_eq!(window, Some(Window { height: 10, width: 12, y: 2, x: 5 }));
        assert_eq!(weight.dims(), [2, 4, 10, 12]);
        assert_eq!(weight.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0], 0.25);
    }

    #[test]
    fn an_area_outside_the_picture_is_an_error() {
        let outside = Area::Cells { height: 4, width: 4, y: 12, x: 0 };
        let error = prepared(&[condition(1.0, Some(outside))], &[]);
        assert!(matches!(error, Err(Error::AreaOutside { y: 12, rows: 12, columns: 20, .. })));
        let over_the_edge = Area::Cells { height: 64, width: 64, y: 8, x: 0 };
        let (entries, _) = prepared(&[condition(1.0, Some(over_the_edge))], &[]).unwrap();
        let seen = |rows: usize| {
            let x = Tensor::zeros((1, 4, rows, 20), DType::F32, &Device::Cpu).unwrap();
            entries[0].on(&x).unwrap().0
        };
        assert_eq!(seen(12), Some(Window { height: 4, width: 20, y: 8, x: 0 }));
        // It stays where it is as a latent grows, and shows more of it.
        assert_eq!(seen(30), Some(Window { height: 22, width: 20, y: 8, x: 0 }));
    }
}
