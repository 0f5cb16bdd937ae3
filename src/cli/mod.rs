//! The command line: its words, and one file a subcommand.
//!
//! Data goes to stdout, everything else to stderr; progress bars only to a terminal. Exit codes are [`Exit`]'s.

mod adapter;
mod base;
mod bench;
mod check;
mod models;
mod nodes;
mod progress;
mod report;
mod run;
mod serve;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Node graphs for text-to-image diffusion: ComfyUI's workflows, one binary, PaRa personalisation.
#[derive(Parser)]
#[command(name = "paraflow", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    places: Places,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API and the editor.
    Serve(Box<serve::ServeArgs>),
    /// Run a graph and print the paths of what it made.
    Run(run::RunArgs),
    /// Report every fault of a graph and every model it misses; run nothing.
    Check(check::CheckArgs),
    /// List the nodes, or explain one.
    Nodes(nodes::NodesArgs),
    /// List the models at hand, or tell what a file is.
    Models(models::ModelsArgs),
    /// Tell what adapters are; merge, export or compare them.
    Adapter(adapter::AdapterArgs),
    /// Measure this machine.
    Bench(bench::BenchArgs),
}

/// Where models, inputs and outputs lie.
#[derive(Args)]
#[command(next_help_heading = "Places")]
pub(crate) struct Places {
    /// Folder with models/, input/ and output/ [default: here, if it has models/; else your data directory]
    #[arg(long, alias = "base-directory", value_name = "DIR", global = true)]
    base_dir: Option<PathBuf>,
    /// A further models folder, ComfyUI's for example; may be repeated
    #[arg(long = "models", value_name = "DIR", global = true)]
    model_dirs: Vec<PathBuf>,
    /// ComfyUI's extra_model_paths.yaml; may be repeated
    #[arg(long, alias = "extra-model-paths-config", value_name = "FILE", global = true)]
    extra_model_paths: Vec<PathBuf>,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All done.
    Done = 0,
    /// The graph, a node or a file failed.
    Failed = 1,
    /// An environment variable that cannot be followed, or a `--set` that is none; other wrong words are clap's, with the same
    /// code.
    Usage = 2,
    /// `--timeout` ran out.
    OutOfTime = 124,
    /// Ctrl+C.
    Cancelled = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Cli {
    /// Runs the subcommand.
    pub(crate) fn run(self) -> Exit {
        if let Err(fault) = paraflow_diffusion::level() {
            report::error(fault, None);
            return Exit::Usage;
        }
        match self.command {
            Command::Serve(args) => serve::serve(*args, &self.places),
            Command::Run(args) => run::run(&args, &self.places),
            Command::Check(args) => check::check(&args, &self.places),
            Command::Nodes(args) => nodes::nodes(&args, &self.places),
            Command::Models(args) => models::models(&args, &self.places),
            Command::Adapter(args) => adapter::adapter(&args, &self.places),
            Command::Bench(args) => bench::bench(&args),
        }
    }
}
