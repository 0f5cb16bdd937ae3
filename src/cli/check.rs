//! `paraflow check`: every fault of a graph at once; nothing runs.

use clap::Args;
use paraflow_engine::Plan;
use std::path::PathBuf;

use super::{Exit, Places, base, report};

/// Arguments of `paraflow check`.
#[derive(Args)]
pub(crate) struct CheckArgs {
    /// An API prompt, a UI workflow, a PNG that carries either, or `-` for stdin
    graph: PathBuf,
    /// Check it with this value, as `run` does; may be repeated
    #[arg(long = "set", value_name = "NODE.INPUT=VALUE", value_parser = base::assignment)]
    sets: Vec<String>,
}

/// Reports every fault.
pub(crate) fn check(args: &CheckArgs, places: &Places) -> Exit {
    let Some(base) = base::open(places, Some(&args.graph), None) else { return Exit::Failed };
    let Some(graph) = base::read_graph(&args.graph, &args.sets, &base.registry) else { return Exit::Failed };
    match Plan::new(&graph, &base.registry) {
        Ok(plan) => {
            for warning in plan.warnings() {
                report::warning(format_args!("node {}: {}", warning.node, warning.text));
            }
            report::note(format_args!("{}: {} nodes, no faults", args.graph.display(), plan.len()));
            Exit::Done
        }
        Err(faults) => {
            faults_of(&faults);
            Exit::Failed
        }
    }
}

/// Prints each fault with its way out.
pub(crate) fn faults_of(faults: &[paraflow_engine::GraphError]) {
    for fault in faults {
        report::error(fault, fault.hint().as_deref());
    }
    if faults.len() > 1 {
        report::note(format_args!("{} faults; nothing was run", faults.len()));
    }
}
