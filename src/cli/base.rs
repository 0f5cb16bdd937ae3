//! What every subcommand begins with: the folders, the nodes, the graph that was named.

use paraflow_assets::{Assets, Settings};
use paraflow_diffusion::DeviceName;
use paraflow_diffusion::nn::Compute;
use paraflow_engine::formats::{self, FormatError};
use paraflow_engine::graph::Graph;
use paraflow_engine::{Registry, Services};
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::bench::Numbers;
use super::{Places, report};

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

/// Reads a graph in any of its formats, `-` from stdin, and sets the values of `--set`. What fails is reported.
pub(crate) fn read_graph(path: &Path, sets: &[String], registry: &Registry) -> Option<Graph> {
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let hint = (error.kind() == io::ErrorKind::NotFound).then_some("name a JSON or PNG file, or `-` for stdin");
            report::error(format_args!("cannot read {}: {}", path.display(), plain(&error)), hint);
            return None;
        }
    };
    let mut graph = match formats::read(&bytes, registry) {
        Ok(graph) => graph,
        Err(FormatError::Faults(faults)) => {
            for fault in &faults {
                report::error(format_args!("{}: {fault}", path.display()), fault.problem.hint());
            }
            return None;
        }
        Err(error) => {
            report::error(format_args!("{}: {error}", path.display()), error.hint());
            return None;
        }
    };
    let mut all_set = true;
    for set in sets {
        if let Err(error) = formats::apply_set(&mut graph, registry, set) {
            report::error(format_args!("--set {set}: {error}"), error.hint().as_deref());
            all_set = false;
        }
    }
    all_set.then_some(graph)
}

/// One `--set`, refused as wrong usage where it has not the form of one.
pub(super) fn assignment(text: &str) -> Result<String, String> {
    formats::check_form(text).map(|()| text.to_owned()).map_err(|error| match error.hint() {
        Some(hint) => format!("{error}, {hint}"),
        None => error.to_string(),
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
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
