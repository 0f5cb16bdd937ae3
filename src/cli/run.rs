//! `paraflow run`: plan a graph, run it, print the paths of what it made.

use clap::Args;
use paraflow_assets::Assets;
use paraflow_diffusion::DeviceName;
use paraflow_engine::graph::Graph;
use paraflow_engine::{Cache, Cancel, Ended, Event, Executor, Plan};
use serde_json::{Value as Json, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::bench::Numbers;
use super::progress::{self, Progress};
use super::{Exit, Places, base, check, report};

/// Arguments of `paraflow run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// An API prompt, a UI workflow, a PNG that carries either, or `-` for stdin
    graph: PathBuf,
    /// Give an input another value, `--set KSampler.seed=7`; NODE is an id, a title or a class; may be repeated
    #[arg(long = "set", value_name = "NODE.INPUT=VALUE")]
    sets: Vec<String>,
    /// Save into this folder instead of output/ in the base directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object a result instead of its path
    #[arg(long)]
    json: bool,
    /// Multiply networks in these numbers
    #[arg(long, value_enum, value_name = "NUMBERS", default_value_t)]
    precision: Numbers,
    /// Compute networks on `auto`, `cpu`, `cuda`, `cuda:1` or `metal`; `auto` is the first GPU that this program was built for
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceName,
    /// Keep packed weights in this folder, from where later runs take them; as large as the models that are used
    #[arg(long, value_name = "DIR")]
    prepacked: Option<PathBuf>,
    /// Stop after this time: `90s`, `10m`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

/// Runs the graph.
pub(crate) fn run(args: &RunArgs, places: &Places) -> Exit {
    let started = Instant::now();
    let bar = progress::bar();
    let warn = {
        let bar = bar.clone();
        move |text| bar.suspend(|| report::warning(text))
    };
    let compute = base::compute(args.device, args.precision);
    let compute = compute.and_then(|compute| base::prepacked(compute, args.prepacked.as_deref(), warn));
    let Some(compute) = compute else { return Exit::Failed };
    let Some(base) = base::open_for(places, Some(&args.graph), args.out.as_deref(), compute) else {
        return Exit::Failed;
    };
    let graph = match base::read_graph(&args.graph, &args.sets, &base.registry) {
        Ok(graph) => graph,
        Err(exit) => return exit,
    };
    let plan = match Plan::new(&graph, &base.registry) {
        Ok(plan) => plan,
        Err(faults) => {
            check::faults_of(&faults);
            return Exit::Failed;
        }
    };

    if let Err(exit) = check::takes(&plan, base.registry.services(), args.precision, WORTH_SAYING) {
        return exit;
    }
    let cancel = Cancel::new();
    cancel_on_interrupt(&cancel);
    let out_of_time = cancel_after(args.timeout, &cancel);
    let printer = Printer { graph: &graph, assets: &base.assets, as_json: args.json };
    let progress = Progress::of(&graph, bar);
    let ended = Executor::new(Arc::new(Cache::new(CACHE_BYTES))).run(&plan, &cancel, &|event: Event| {
        progress.show(&event);
        printer.print(&event);
    });
    match ended {
        Ended::Done => {
            report::note(format_args!("done in {:.1} s", started.elapsed().as_secs_f64()));
            Exit::Done
        }
        Ended::Failed => Exit::Failed,
        Ended::Cancelled if out_of_time.load(Ordering::Relaxed) => {
            let given = humantime::format_duration(args.timeout.unwrap_or_default());
            report::error(format_args!("out of time after {given}"), Some("give more with --timeout"));
            Exit::OutOfTime
        }
        Ended::Cancelled => {
            report::note("cancelled");
            Exit::Cancelled
        }
    }
}

/// Operations from which on a run is long enough that its length is worth saying: some seconds.
const WORTH_SAYING: f64 = 1e12;

/// What one run keeps for equal branches of its graph; what a node still waits for is kept in any case.
const CACHE_BYTES: usize = 1 << 30;

/// Ctrl+C stops the run in good order; a second one ends the process at once.
fn cancel_on_interrupt(cancel: &Cancel) {
    let cancel = cancel.clone();
    let installed = ctrlc::set_handler(move || {
        if cancel.is_cancelled() {
            std::process::exit(Exit::Cancelled as i32);
        }
        cancel.cancel();
    });
    if let Err(error) = installed {
        report::warning(format_args!("Ctrl+C will not stop the run in good order: {error}"));
    }
}

/// Cancels once the time is over, and then says so in the flag.
fn cancel_after(timeout: Option<Duration>, cancel: &Cancel) -> Arc<AtomicBool> {
    let out_of_time = Arc::new(AtomicBool::new(false));
    if let Some(timeout) = timeout {
        let (flag, cancel) = (Arc::clone(&out_of_time), cancel.clone());
        // Ends with the process, which ends with the run.
        thread::spawn(move || {
            thread::sleep(timeout);
            flag.store(true, Ordering::Relaxed);
            cancel.cancel();
        });
    }
    out_of_time
}

/// Prints what nodes made, the moment they made it.
struct Printer<'a> {
    graph: &'a Graph,
    assets: &'a Assets,
    as_json: bool,
}

impl Printer<'_> {
    fn print(&self, event: &Event) {
        let Event::Output { node, ui } = event else { return };
        for (kind, shown) in ui.as_object().into_iter().flatten() {
            for item in shown.as_array().into_iter().flatten() {
                self.print_one(node, kind, item);
            }
        }
    }

    fn print_one(&self, node: &str, kind: &str, item: &Json) {
        let path = self.path(item);
        if !self.as_json {
            match (path, item) {
                (Some(path), _) => report::data(path.display()),
                (None, Json::String(text)) => report::data(text),
                (None, other) => report::data(other),
            }
            return;
        }
        let class = self.graph.nodes.iter().find(|(id, _)| id == node).map(|(_, entry)| entry.class.as_str());
        let mut object = json!({"node": node, "class": class, "kind": kind});
        match path {
            Some(path) => {
                object["path"] = json!(path.to_string_lossy());
                object["type"] = item["type"].clone();
            }
            None => object["value"] = item.clone(),
        }
        report::data(object);
    }

    /// Where a file that a node shows lies, `None` for what is no file.
    fn path(&self, item: &Json) -> Option<PathBuf> {
        let name = item["filename"].as_str()?;
        let root = match item["type"].as_str()? {
            "temp" => self.assets.previews().root(),
            _ => self.assets.outputs().root(),
        };
        Some(root.join(item["subfolder"].as_str().unwrap_or_default()).join(name))
    }
}
