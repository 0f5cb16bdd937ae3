//! What every subcommand begins with: the folders, the nodes, the graph that was named.

use paraflow_assets::{Assets, Settings};
use paraflow_diffusion::DeviceName;
use paraflow_diffusion::nn::{Compute, Prepacked};
use paraflow_engine::formats::{self, FormatError};
use paraflow_engine::graph::Graph;
use paraflow_engine::{NodeId, Plan, Registry, Services};
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::bench::Numbers;
use super::{Exit, Places, report};

/// The folders and the nodes.
pub(crate) struct Base {
    pub(crate) assets: Arc<Assets>,
    pub(crate) registry: Registry,
}

/// Opens the folders and registers the nodes. What fails is reported.
///
/// The pictures that a graph brings along in `input/` beside itself, and the subjects in `subjects/`, are found as if they lay in the base directory's.
pub(crate) fn open(places: &Places, graph: Option<&Path>, out: Option<&Path>) -> Option<Base> {
    open_for(places, graph, out, Compute::default())
}

/// The same for networks that compute somewhere, in numbers of choice.
pub(crate) fn open_for(places: &Places, graph: Option<&Path>, out: Option<&Path>, compute: Compute) -> Option<Base> {
    let folder = graph.and_then(Path::parent);
    let beside = ["input", "subjects"].into_iter().filter_map(|name| Some(folder?.join(name)));
    let settings = Settings {
        base_dir: places.base_dir.clone(),
        model_dirs: places.model_dirs.clone(),
        extra_model_paths: places.extra_model_paths.clone(),
        input_dirs: beside.filter(|dir| dir.is_dir()).collect(),
        output_dir: out.map(Path::to_owned),
    };
    let assets = match Assets::open(&settings) {
        Ok(assets) => Arc::new(assets),
        Err(error) => {
            report::error(&error, error.hint().as_deref());
            return None;
        }
    };
    let services = Services::new().with(Arc::clone(&assets)).with(compute).with(paraflow_nodes::WholeCells);
    Some(Base { registry: paraflow_nodes::registry(services), assets })
}

/// Where networks compute, and in which numbers. A device that is not there is reported.
pub(crate) fn compute(device: DeviceName, numbers: Numbers) -> Option<Compute> {
    match device.open() {
        Ok(device) => Some(Compute::new(&device, numbers.into())),
        Err(error) => {
            report::error(error, None);
            None
        }
    }
}

/// The same with packed weights kept in a folder, if one is named; `tell` gets warnings. A folder that cannot be made is reported.
pub(crate) fn prepacked(
    compute: Compute,
    folder: Option<&Path>,
    tell: impl Fn(String) + Send + Sync + 'static,
) -> Option<Compute> {
    let Some(folder) = folder else { return Some(compute) };
    match Prepacked::open(folder, tell) {
        Ok(prepacked) => Some(compute.prepacked_in(Arc::new(prepacked))),
        Err(error) => {
            report::error(error, Some("name another folder with --prepacked, or leave it out"));
            None
        }
    }
}

/// Reads a graph in any of its formats, `-` from stdin, and sets the values of `--set`.
///
/// # Errors
/// The program's end: what is wrong was reported.
pub(crate) fn read_graph(path: &Path, sets: &[String], registry: &Registry) -> Result<Graph, Exit> {
    check_forms(sets)?;
    let mut graph = read(path, registry).ok_or(Exit::Failed)?;
    set_all(&mut graph, sets, registry)?;
    Ok(graph)
}

/// Refuses every `--set` that has not the form of one, as wrong usage.
fn check_forms(sets: &[String]) -> Result<(), Exit> {
    let mut wrong = sets.iter().filter_map(|set| formats::check_form(set).err()).peekable();
    if wrong.peek().is_none() {
        return Ok(());
    }
    for error in wrong {
        report::error(format_args!("--set: {error}"), error.hint().as_deref());
    }
    Err(Exit::Usage)
}

/// Sets every value, or tells of all that will not do.
fn set_all(graph: &mut Graph, sets: &[String], registry: &Registry) -> Result<(), Exit> {
    let (mut places, mut failed) = (Vec::new(), false);
    for set in sets {
        match formats::apply_set(graph, registry, set) {
            Ok(place) => places.push(place),
            Err(error) => {
                report::error(format_args!("--set {set}: {error}"), error.hint().as_deref());
                failed = true;
            }
        }
    }
    if !failed {
        return Ok(());
    }
    // Those that were set may be wrong as well, by the node's own rules.
    for fault in Plan::new(&*graph, registry).err().into_iter().flatten() {
        let is_there = |(id, input): &(NodeId, String)| {
            fault.node.as_ref() == Some(id) && fault.fault.input() == Some(input.as_str())
        };
        if places.iter().any(is_there) {
            report::error(&fault, fault.hint().as_deref());
        }
    }
    Err(Exit::Failed)
}

/// Reads a graph. What fails is reported.
fn read(path: &Path, registry: &Registry) -> Option<Graph> {
    let bytes = match read_bytes(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let hint = (error.kind() == io::ErrorKind::NotFound).then_some("name a JSON or PNG file, or `-` for stdin");
            report::error(format_args!("cannot read {}: {}", path.display(), plain(&error)), hint);
            return None;
        }
    };
    match formats::read(&bytes, registry) {
        Ok(graph) => Some(graph),
        Err(FormatError::Faults(faults)) => {
            for fault in &faults {
                report::error(format_args!("{}: {fault}", path.display()), fault.problem.hint());
            }
            None
        }
        Err(error) => {
            report::error(format_args!("{}: {error}", path.display()), error.hint());
            None
        }
    }
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    fs::read(path)
}

/// The system's words without Rust's `(os error 2)`.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
