//! All that a run tells the outside. Browser, terminal and tests read this one stream.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use crate::error::Error;
use crate::graph::NodeId;

/// Where a run sends its events: called from several threads, so that one node's events keep their order, and a node
/// starts after those it reads have finished.
pub type Emit<'a> = &'a (dyn Fn(Event) + Sync);

/// One thing that happened. Readers match every variant, so that a new one is noticed by each of them.
///
/// A run ends with [`Event::Done`] or [`Event::Cancelled`], or has a [`Event::Failed`], after which no node starts and
/// those that run are asked to stop.
#[derive(Clone, Debug)]
pub enum Event {
    /// What lies ahead. Sent first, and again when a lazy input turns out to be needed.
    Planned {
        /// Nodes that this run needs.
        total: usize,
        /// Those of them whose results are there already.
        cached: usize,
    },
    /// The node's result is there: from an earlier run, or from an equal node of this one.
    Cached {
        /// The node.
        node: NodeId,
    },
    /// The node begins.
    Started {
        /// The node.
        node: NodeId,
    },
    /// The node is so far.
    Progress {
        /// The node.
        node: NodeId,
        /// Steps done.
        done: u32,
        /// Steps in all.
        total: u32,
    },
    /// What the node's picture looks like by now.
    Preview {
        /// The node.
        node: NodeId,
        /// An encoded picture.
        image: Arc<[u8]>,
        /// How it is encoded.
        format: ImageFormat,
    },
    /// How well a training does by now: a point of its loss curve.
    Loss {
        /// The node.
        node: NodeId,
        /// The point.
        point: LossPoint,
    },
    /// What a training has learnt by now: a finished picture of a sample prompt. Unlike a preview, it is kept.
    Sample {
        /// The node.
        node: NodeId,
        /// Steps that were trained before it.
        step: u32,
        /// An encoded picture.
        image: Arc<[u8]>,
        /// How it is encoded.
        format: ImageFormat,
    },
    /// What the node shows, ComfyUI's `ui` dictionary: `{"images": [{"filename": …, "subfolder": …, "type": …}]}`.
    /// Sent again for a cached node.
    Output {
        /// The node.
        node: NodeId,
        /// The dictionary.
        ui: Arc<Json>,
    },
    /// Something that the user should know and that stops nothing.
    Warning {
        /// The node.
        node: NodeId,
        /// A sentence.
        text: String,
    },
    /// A node upstream blocked this branch: the node is not called, and the run goes on.
    Blocked {
        /// The first node that was not called.
        node: NodeId,
        /// What the blocking node had to say.
        text: String,
    },
    /// The node gave its result.
    Finished {
        /// The node.
        node: NodeId,
        /// From its start.
        elapsed: Duration,
        /// What its results take in memory, by their own count; what several share counts for each.
        bytes: usize,
    },
    /// The node gave no result, and the run ends.
    Failed {
        /// The node.
        node: NodeId,
        /// Its class.
        class: String,
        /// Why.
        error: Arc<Error>,
    },
    /// The run was stopped from outside.
    Cancelled,
    /// Every output is made.
    Done,
}

/// One point of a training's loss curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossPoint {
    /// The step, from 1.
    pub step: u32,
    /// Steps in all.
    pub total: u32,
    /// The loss of this step's pictures and noise.
    pub loss: f32,
    /// The loss on noise that stays the same all through the training, where this step measured it.
    pub validation: Option<f32>,
    /// The learning rate of this step.
    pub learning_rate: f64,
}

/// How a preview is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// `image/jpeg`.
    Jpeg,
    /// `image/png`.
    Png,
}
