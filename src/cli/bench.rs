//! `paraflow bench`: what this machine does in a second, and with which instructions.

use clap::Args;
use paraflow_diffusion::nn::{Precision, Weights};
use paraflow_diffusion::workload::{Prepared, Workload};
use std::io::BufRead as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::{Exit, report};

/// Arguments of `paraflow bench`.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Do this piece of work only, as often as each line of stdin says, and answer `done`: `step 32 2`, `decode 64`, `picture 64 2`
    #[arg(long, value_name = "WORK", value_parser = str::parse::<Workload>)]
    work: Option<Workload>,
    /// The model for it, in any layout; without one, the model that the program brings
    #[arg(long, value_name = "FILE", requires = "work")]
    model: Option<PathBuf>,
    /// Multiply in these numbers
    #[arg(long, value_name = "NUMBERS", value_enum, default_value_t = Numbers::F32, requires = "work")]
    precision: Numbers,
}

/// In which numbers networks multiply on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Numbers {
    /// Single precision, as everybody else's pictures are computed.
    #[default]
    F32,
    /// Half the memory and up to twice the speed, on machines that have instructions for it; pictures differ a little.
    Bf16,
}

impl std::str::FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        clap::ValueEnum::from_str(text, false).map_err(|_| format!("expected f32 or bf16, found `{text}`"))
    }
}

impl From<Numbers> for Precision {
    fn from(numbers: Numbers) -> Self {
        match numbers {
            Numbers::F32 => Self::Single,
            Numbers::Bf16 => Self::Bf16,
        }
    }
}

/// Measures.
pub(crate) fn bench(args: &BenchArgs) -> Exit {
    let outcome = match args.work {
        Some(work) => one(work, args),
        None => all(),
    };
    match outcome {
        Ok(()) => Exit::Done,
        Err(error) => {
            report::error(error, None);
            Exit::Failed
        }
    }
}

/// Any error's words.
type Told = Box<dyn std::error::Error>;

/// What the comparison with other programs drives.
fn one(work: Workload, args: &BenchArgs) -> Result<(), Told> {
    let file = match &args.model {
        Some(path) => Weights::open(path)?,
        None => toyland()?,
    };
    let mut work = work.prepare(Some(&file), args.precision.into())?;
    report::data("ready");
    for line in std::io::stdin().lock().lines() {
        work(line?.trim().parse()?)?;
        report::data("done");
    }
    Ok(())
}

/// The model that the program brings.
fn toyland() -> Result<Weights, Told> {
    let name = "toyland.safetensors";
    let bytes = paraflow_nodes::embedded_file("checkpoints", name)?.ok_or("this program brings no model")?;
    Ok(Weights::from_bytes(name, bytes)?)
}

fn all() -> Result<(), Told> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let level = paraflow_diffusion::level()?;
    report::data(format_args!("instructions   {level} (of {})", paraflow_diffusion::levels().join(", ")));
    report::data(format_args!("threads        {threads}"));
    for (name, work) in [("convolution", Workload::Convolution), ("attention", Workload::Attention)] {
        for (precision, numbers) in [(Precision::Single, "f32"), (Precision::Bf16, "bf16")] {
            let seconds = fastest(work.prepare(None, precision)?)?;
            let rate = work.operations().unwrap_or(0.0) / seconds / 1e9;
            report::data(format_args!("{:<14} {rate:.0} GFLOP/s", format!("{name} {numbers}")));
        }
    }
    let file = toyland()?;
    for (name, work) in [
        ("Toyland step", Workload::Step { side: 16, batch: 2 }),
        ("Toyland decode", Workload::Decode { side: 16 }),
        ("Toyland prompt", Workload::Text),
    ] {
        let seconds = fastest(work.prepare(Some(&file), Precision::Single)?)?;
        report::data(format_args!("{name:<14} {:.1} ms", 1e3 * seconds));
    }
    Ok(())
}

/// The shortest of some tries, in seconds: what the machine can do when nobody disturbs it.
fn fastest(mut work: Prepared) -> Result<f64, Told> {
    /// So much is spent on a row, and three tries at least.
    const BUDGET: Duration = Duration::from_secs(1);
    work(1)?;
    let (begun, mut shortest, mut tries) = (Instant::now(), f64::INFINITY, 0);
    while tries < 3 || begun.elapsed() < BUDGET {
        let begun = Instant::now();
        work(1)?;
        shortest = shortest.min(begun.elapsed().as_secs_f64());
        tries += 1;
    }
    Ok(shortest)
}
