//! The `paraflow` command: parse, dispatch, exit code.

mod cli;
mod memory;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    memory::keep_pages();
    paraflow_diffusion::make_ready();
    cli::Cli::parse().run().into()
}
