//! Personalisation: subjects, the trainers, and how to judge what they made.

pub(crate) mod canvas;
mod common;
mod existing_lora;
mod header;
mod judge;
mod layers;
mod loss_graph;
mod plot;
mod result;
mod scores;
mod subject;
#[cfg(test)]
mod tests;
mod train_lora;
mod trainers;
mod watcher;

use paraflow_engine::NodeDef;

pub(crate) fn nodes() -> Vec<NodeDef> {
    let own = [subject::nodes(), trainers::nodes(), plot::nodes(), judge::nodes(), scores::nodes()];
    own.into_iter().chain([train_lora::nodes(), loss_graph::nodes()]).flatten().collect()
}
