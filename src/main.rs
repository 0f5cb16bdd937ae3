//! The `paraflow` command: parse, dispatch, exit code.

mod cli;

use clap::Parser as _;
use std::process::ExitCode;

/// Keeps freed pages for the next tensor: fresh ones cost a third of a denoising step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    paraflow_diffusion::make_ready();
    cli::Cli::parse().run().into()
}
