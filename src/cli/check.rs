//! `paraflow check`: every fault of a graph at once, and what a run of it would take; nothing runs.

use clap::Args;
use paraflow_diffusion::nn::Compute;
use paraflow_diffusion::{DeviceName, cost};
use paraflow_engine::{Plan, Services};
use paraflow_nodes::estimate;
use std::path::PathBuf;

use super::bench::Numbers;
use super::{Exit, Places, base, report};

/// Arguments of `paraflow check`.
#[derive(Args)]
pub(crate) struct CheckArgs {
    /// An API prompt, a UI workflow, a PNG that carries either, or `-` for stdin
    graph: PathBuf,
    /// Check it with this value, as `run` does; may be repeated
    #[arg(long = "set", value_name = "NODE.INPUT=VALUE")]
    sets: Vec<String>,
    /// Say what it takes with networks that multiply in these numbers
    #[arg(long, value_enum, value_name = "NUMBERS", default_value_t)]
    precision: Numbers,
    /// Compute networks on `auto`, `cpu`, `cuda`, `cuda:1` or `metal`; `auto` is the first GPU that this program was built for
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceName,
}

/// Reports every fault.
pub(crate) fn check(args: &CheckArgs, places: &Places) -> Exit {
    let Some(compute) = base::compute(args.device, args.precision) else { return Exit::Failed };
    let opened = base::open_for(places, Some(&args.graph), None, compute);
    let Some(base) = opened else { return Exit::Failed };
    let graph = match base::read_graph(&args.graph, &args.sets, &base.registry) {
        Ok(graph) => graph,
        Err(exit) => return exit,
    };
    match Plan::new(&graph, &base.registry) {
        Ok(plan) => {
            for warning in plan.warnings() {
                report::warning(format_args!("node {}: {}", warning.node, warning.text));
            }
            report::note(format_args!("{}: {} nodes, no faults", args.graph.display(), plan.len()));
            match takes(&plan, base.registry.services(), args.precision, 0.0) {
                Ok(()) => Exit::Done,
                Err(exit) => exit,
            }
        }
        Err(faults) => {
            faults_of(&faults);
            Exit::Failed
        }
    }
}

/// Says what a run will take, if that is more than so many operations, and refuses one for which there is no room.
///
/// # Errors
/// The program's end: what is wrong was reported.
pub(crate) fn takes(plan: &Plan, services: &Services, numbers: Numbers, unless_below: f64) -> Result<(), Exit> {
    let failed = |error: &paraflow_nodes::Error| {
        report::error(error, error.hint().as_deref());
        Exit::Failed
    };
    // Of a GPU neither the memory nor the speed is known.
    if services.get::<Compute>().is_some_and(|compute| !compute.device().is_cpu()) {
        return Ok(());
    }
    let Some(estimate) = estimate(plan, services).map_err(|error| failed(&error))? else { return Ok(()) };
    if estimate.operations > unless_below {
        let rate = cost::operations_per_second(numbers.into()).unwrap_or(f64::NAN);
        report::note(format_args!(
            "about {:.1} GiB of memory at the most ({:.1} GiB of weights) and {} ({:.0} GFLOP)",
            estimate.peak_bytes as f64 / GIB,
            estimate.weight_bytes as f64 / GIB,
            about(estimate.operations / rate),
            estimate.operations / 1e9,
        ));
        if let [first, others @ ..] = estimate.unknown.as_slice() {
            let more = if others.is_empty() { String::new() } else { format!(" and {} others", others.len()) };
            report::note(format_args!("without {first}{more}, whose work is not known beforehand"));
        }
    }
    estimate.require(services).map_err(|error| failed(&error))
}

const GIB: f64 = (1u64 << 30) as f64;

/// A time that is not worth its last digits.
fn about(seconds: f64) -> String {
    match seconds {
        seconds if !seconds.is_finite() => "an unknown time".to_owned(),
        seconds if seconds < 1.0 => "less than a second".to_owned(),
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds => format!("{:.0} min", seconds / 60.0),
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
