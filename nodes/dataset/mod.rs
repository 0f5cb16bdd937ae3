//! Collections of pictures and their captions: loaded from folders, prepared one by one, shuffled, saved.

mod folders;
mod pictures;
mod shards;
mod texts;
mod training;

use paraflow_engine::NodeDef;

pub(crate) fn nodes() -> Vec<NodeDef> {
    [folders::nodes(), pictures::nodes(), shards::nodes(), texts::nodes(), training::nodes()]
        .into_iter()
        .flatten()
        .collect()
}
