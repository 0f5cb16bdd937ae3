//! What comes to a network from outside while it runs: patches, the answers of a control network, and what is asked of
//! its middle. A network without any of it runs with [`Pass::PLAIN`].

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::Tensor;

use super::gligen::Grounded;
use crate::error::Result;
use crate::noise::Generator;

/// One evaluation of a network, as far as it is not told by its inputs.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// The noise level of the latent.
    pub sigma: f32,
    /// What changes the network's work, in their order.
    pub patches: &'a [Arc<dyn Patch>],
    /// What is added on the way up.
    pub control: Option<&'a Controls>,
    /// What is to be in which boxes.
    pub grounded: Option<&'a Grounded<'a>>,
    /// What the self-attention of the middle does.
    pub middle: Middle<'a>,
    /// Where patches draw from: the generator that drew the noise which sampling started from.
    pub random: Option<&'a RefCell<Generator>>,
    /// How many groups of latents share the call: prompts, each asked about a whole batch.
    pub groups: usize,
    /// Height and width of the latent, filled in by the network.
    pub(crate) size: (usize, usize),
}

impl Pass<'_> {
    /// Nothing from outside.
    pub const PLAIN: Self = Self {
        sigma: 0.0,
        patches: &[],
        control: None,
        grounded: None,
        middle: Middle::Attends,
        random: None,
        groups: 1,
        size: (0, 0),
    };

    /// A whole number below `bound`, 0 where there is nothing to draw from.
    pub(crate) fn below(&self, bound: usize) -> usize {
        self.random.map_or(0, |random| random.borrow_mut().below(bound as u64) as usize)
    }

    pub(super) fn before_skip(&self, h: Tensor, block: usize) -> Result<Tensor> {
        self.patches.iter().try_fold(h, |h, patch| patch.before_skip(h, block, self))
    }

    pub(super) fn after_skip(&self, h: Tensor, block: usize) -> Result<Tensor> {
        self.patches.iter().try_fold(h, |h, patch| patch.after_skip(h, block, self))
    }

    /// What attention makes keys and values of, where patches change that.
    pub(super) fn looked_at(&self, context: &Tensor) -> Result<Option<[Tensor; 2]>> {
        let mut changed = None;
        for patch in self.patches.iter().filter(|patch| patch.changes_what_is_looked_at()) {
            let both = changed.take().unwrap_or_else(|| [context.clone(), context.clone()]);
            changed = Some(patch.looked_at(both)?);
        }
        Ok(changed)
    }

    pub(super) fn joining(&self, h: Tensor, skip: Tensor) -> Result<(Tensor, Tensor)> {
        self.patches.iter().try_fold((h, skip), |(h, skip), patch| patch.joining(h, skip, self))
    }
}

/// What the self-attention of a network's middle does.
#[derive(Clone, Copy)]
pub enum Middle<'a> {
    /// It attends.
    Attends,
    /// Every token looks at itself alone: values pass through unchanged.
    Passes,
    /// It attends, and its first block writes down how much each token is looked at: the sum over queries and the mean
    /// over heads of the attention, `[batch, tokens]`.
    Watched(&'a RefCell<Option<Tensor>>),
}

/// What a control network adds to another, pictures `[batch, height, width, channels]`.
#[derive(Clone)]
pub struct Controls {
    /// For what the way down keeps, the first block's first. `None`: nothing for that one.
    pub skips: Vec<Option<Tensor>>,
    /// For what the middle gives.
    pub middle: Option<Tensor>,
    /// For what the blocks on the way down give, the last block's first; as many as there are.
    pub down: Vec<Option<Tensor>>,
}

impl Controls {
    /// Nothing is added anywhere.
    #[must_use]
    pub const fn none() -> Self {
        Self { skips: Vec::new(), middle: None, down: Vec::new() }
    }
}

/// A change of a network's work. Each method has the picture at one place, `[batch, height, width, channels]`, and gives
/// what goes on instead of it.
pub trait Patch: Send + Sync {
    /// What a block on the way down gives, before it is kept for the way up; block 0 is the first convolution.
    ///
    /// # Errors
    /// It does not fit.
    fn before_skip(&self, h: Tensor, block: usize, pass: &Pass<'_>) -> Result<Tensor> {
        let _ = (block, pass);
        Ok(h)
    }

    /// The same after a copy of it was kept.
    ///
    /// # Errors
    /// It does not fit.
    fn after_skip(&self, h: Tensor, block: usize, pass: &Pass<'_>) -> Result<Tensor> {
        let _ = (block, pass);
        Ok(h)
    }

    /// What comes from below and what was kept on the way down, before a block on the way up joins them.
    ///
    /// # Errors
    /// They do not fit.
    fn joining(&self, h: Tensor, skip: Tensor, pass: &Pass<'_>) -> Result<(Tensor, Tensor)> {
        let _ = pass;
        Ok((h, skip))
    }

    /// Whether [`looked_at`](Self::looked_at) does anything.
    fn changes_what_is_looked_at(&self) -> bool {
        false
    }

    /// What attention makes keys and values of, `[batch, tokens, channels]` each: the picture's own tokens, or the prompt's.
    ///
    /// # Errors
    /// They do not fit.
    fn looked_at(&self, keys_and_values: [Tensor; 2]) -> Result<[Tensor; 2]> {
        Ok(keys_and_values)
    }

    /// The tokens `[batch, tokens, channels]` that self-attention makes queries of; `None` leaves them. A result of `n` times
    /// as many entries as the batch makes each group of `n` look at one `n`-th of the keys each.
    ///
    /// # Errors
    /// They do not fit.
    fn queries(&self, tokens: &Tensor, pass: &Pass<'_>) -> Result<Option<Regrouped>> {
        let _ = (tokens, pass);
        Ok(None)
    }
}

/// Tokens in another order or number, and the way back for what attention found for them.
pub struct Regrouped {
    /// What attention makes queries of.
    pub tokens: Tensor,
    /// From what it found to the order and number of before.
    pub back: Back,
}

/// A way back.
pub type Back = Box<dyn FnOnce(&Tensor) -> Result<Tensor>>;
