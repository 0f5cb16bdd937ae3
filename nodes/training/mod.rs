//! Personalisation: subjects, the trainers, and how to judge what they made.

pub(crate) mod canvas;
mod common;
mod header;
mod judge;
mod layers;
mod plot;
mod result;
mod scores;
mod subject;
mod trainers;
mod watcher;

use paraflow_engine::NodeDef;

pub(crate) fn nodes() -> Vec<NodeDef> {
    [subject::nodes(), trainers::nodes(), plot::nodes(), judge::nodes(), scores::nodes()]
        .into_iter()
        .flatten()
        .collect()
}
