//! Loss and gradients of a chunk, all at once or block by block.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::error::Result;
use crate::unet::{Told, UNet};

/// The loss of a chunk and its gradients by the leaves, in their order; `None` for a leaf that has no part in it.
pub(super) type Gradients = (f64, Vec<Option<Vec<f32>>>);

/// What goes into a network, of a batch.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    /// `[batch, channels, height, width]`.
    pub(super) x: &'a Tensor,
    /// `[batch]`.
    pub(super) timesteps: &'a Tensor,
    /// `[batch, tokens, width]`.
    pub(super) context: &'a Tensor,
    /// `[batch, width]`.
    pub(super) label: Option<&'a Tensor>,
}

/// Something whose gradients can be taken.
pub(super) trait Objective {
    fn inputs(&self) -> Inputs<'_>;

    /// One number, of what the network said, `[batch, channels, height, width]`.
    fn loss(&self, said: &Tensor) -> Result<Tensor>;
}

/// Everything at once: what each operation needs for its gradient is kept until then.
pub(super) fn whole(unet: &UNet, objective: &dyn Objective, leaves: &[&Tensor]) -> Result<Gradients> {
    let Inputs { x, timesteps, context, label } = objective.inputs();
    let loss = objective.loss(&unet.forward(x, timesteps, context, label)?)?;
    let mut sums = Sums::new(leaves);
    sums.add(&loss.backward()?)?;
    Ok((f64::from(loss.to_scalar::<f32>()?), sums.0.into_iter().map(|(_, sum)| sum).collect()))
}

/// Gradients by leaf so far.
struct Sums<'a>(Vec<(&'a Tensor, Option<Vec<f32>>)>);

impl<'a> Sums<'a> {
    fn new(leaves: &[&'a Tensor]) -> Self {
        Self(leaves.iter().map(|leaf| (*leaf, None)).collect())
    }

    fn add(&mut self, gradients: &GradStore) -> Result<()> {
        for (leaf, sum) in &mut self.0 {
            let Some(gradient) = gradients.get(leaf) else { continue };
            let gradient: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
            match sum {
                Some(sum) => sum.iter_mut().zip(&gradient).for_each(|(sum, more)| *sum += more),
                None => *sum = Some(gradient),
            }
        }
        Ok(())
    }
}

/// Block by block: only what goes from one block to the next is kept, and a block's forward pass is done again when its
/// gradient is due.
pub(super) fn by_blocks(unet: &UNet, objective: &dyn Objective, leaves: &[&Tensor]) -> Result<Gradients> {
    let Inputs { x, timesteps, context, label } = objective.inputs();
    let told = unet.told(timesteps, context, label)?;
    let trains_time = told.time.track_op();
    let time = Var::from_tensor(&told.time.detach())?;
    let given = if trains_time { time.as_tensor().clone() } else { time.as_detached_tensor() };
    let given = Told { time: given, context: told.context.clone() };
    let down = unet.down_blocks();

    let first = unet.enter(x)?;
    let mut h = first.detach();
    let mut skips = vec![h.clone()];
    let mut inputs = Vec::with_capacity(unet.blocks());
    for index in 0..unet.blocks() {
        let skip = if index > down { skips.pop() } else { None };
        let size = skips.last().map(|skip| skip.dims4()).transpose()?.map(|(_, height, width, _)| (height, width));
        let next = unet.block(index, &h, skip.as_ref(), size, &given)?.detach();
        inputs.push((std::mem::replace(&mut h, next), skip, size));
        if index < down {
            skips.push(h.clone());
        }
    }

    let mut sums = Sums::new(leaves);
    let mut to_time = None;
    let last = Var::from_tensor(&h)?;
    let loss = objective.loss(&unet.leave(&last)?)?;
    let gradients = loss.backward()?;
    sums.add(&gradients)?;
    let mut to_h = gradient(&gradients, &last)?;
    let mut to_skips: Vec<Option<Tensor>> = vec![None; down + 1];
    for (index, (h, skip, size)) in inputs.into_iter().enumerate().rev() {
        if index < down {
            to_h = add(Some(to_h), to_skips[index + 1].take())?;
        }
        let h = Var::from_tensor(&h)?;
        let skip = skip.map(|skip| Var::from_tensor(&skip)).transpose()?;
        let y = unet.block(index, &h, skip.as_ref().map(Var::as_tensor), size, &given)?;
        let gradients = (y * &to_h)?.sum_all()?.backward()?;
        sums.add(&gradients)?;
        to_h = gradient(&gradients, &h)?;
        if let Some(skip) = &skip {
            to_skips[unet.blocks() - 1 - index] = Some(gradient(&gradients, skip)?);
        }
        if let Some(more) = gradients.get(&time) {
            to_time = Some(add(to_time, Some(more.clone()))?);
        }
    }
    to_h = add(Some(to_h), to_skips[0].take())?;
    if first.track_op() {
        sums.add(&(first * &to_h)?.sum_all()?.backward()?)?;
    }
    if let Some(to_time) = to_time.filter(|_| trains_time) {
        sums.add(&(told.time * &to_time)?.sum_all()?.backward()?)?;
    }
    Ok((f64::from(loss.to_scalar::<f32>()?), sums.0.into_iter().map(|(_, sum)| sum).collect()))
}

fn gradient(gradients: &GradStore, of: &Var) -> Result<Tensor> {
    Ok(gradients.get(of).map_or_else(|| of.zeros_like(), |gradient| Ok(gradient.clone()))?)
}

fn add(sum: Option<Tensor>, more: Option<Tensor>) -> Result<Tensor> {
    match (sum, more) {
        (Some(sum), Some(more)) => Ok((sum + more)?),
        (Some(one), None) | (None, Some(one)) => Ok(one),
        (None, None) => Err(candle_core::Error::Msg("a block without a gradient".to_owned()).into()),
    }
}
