//! Watches the folders: when a file comes, goes or changes, the lists in the nodes' declarations are asked for again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use paraflow_assets::Assets;

use crate::hub::{Frame, Hub, To};
use crate::nodes::Nodes;
use crate::protocol::{self, Message};

/// Changes that follow each other this closely are one: a copy of a model writes many times.
const QUIET: Duration = Duration::from_millis(200);

/// Watches as long as it lives.
pub(crate) struct Watcher {
    _watcher: RecommendedWatcher,
}

/// Starts watching. Without it, lists are as old as the last upload or start, which is told.
pub(crate) fn start(assets: &Assets, nodes: &Arc<Nodes>, hub: &Arc<Hub>) -> Option<Watcher> {
    let (changed, changes) = channel();
    let tell = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changed.send(());
        }
    };
    let mut watcher = match notify::recommended_watcher(tell) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "folders are not watched: new files are seen after a restart or an upload");
            return None;
        }
    };
    for folder in folders(assets) {
        if let Err(error) = watcher.watch(&folder, RecursiveMode::Recursive) {
            tracing::debug!(%error, "`{}` is not watched", folder.display());
        }
    }
    let (nodes, hub) = (Arc::clone(nodes), Arc::clone(hub));
    let work = move || {
        while changes.recv().is_ok() {
            loop {
                match changes.recv_timeout(QUIET) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            nodes.refresh();
            hub.send_ours(To::All, &Frame::message(&Message::Nodes(protocol::Nodes {})));
        }
    };
    thread::Builder::new().name("watch".into()).spawn(work).ok()?;
    Some(Watcher { _watcher: watcher })
}

/// Models, inputs and graphs. What lies below another of them is watched with it.
fn folders(assets: &Assets) -> Vec<PathBuf> {
    let base = assets.base_dir();
    for made in ["models", "input", "user/default/workflows"] {
        // A folder that does not exist cannot be watched.
        let _ = std::fs::create_dir_all(base.join(made));
    }
    let mut folders = vec![base.join("models"), base.join("input"), base.join("user/default/workflows")];
    let models = assets.models();
    let further = models.keys().flat_map(|key| models.dirs(key).unwrap_or_default().iter().cloned());
    for folder in further.chain([base.join("graphs")]).filter(|folder| folder.is_dir()).collect::<Vec<_>>() {
        if !folders.iter().any(|known| folder.starts_with(known)) {
            folders.push(folder);
        }
    }
    folders
}
