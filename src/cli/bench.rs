//! `paraflow bench`: what this machine does in a second, and with which instructions.

use clap::Args;
use paraflow_diffusion::DeviceName;
use paraflow_diffusion::nn::{Compute, Precision, Prepacked, Weights};
use paraflow_diffusion::workload::{Prepared, Workload};
use std::io::BufRead as _;
use std::path::PathBuf;
use std::sync::Arc;
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
    /// Compute networks on `auto`, `cpu`, `cuda`, `cuda:1` or `metal`
    #[arg(long, value_name = "DEVICE", default_value = "cpu", requires = "work")]
    device: DeviceName,
    /// Keep packed weights in this folder, or take them from there
    #[arg(long, value_name = "DIR", requires = "work")]
    prepacked: Option<PathBuf>,
    /// Do it a few times and print where the time goes
    #[arg(long, requires = "work")]
    profile: bool,
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
    let mut compute = Compute::new(&args.device.open()?, args.precision.into());
    if let Some(folder) = &args.prepacked {
        compute = compute.prepacked_in(Arc::new(Prepacked::open(folder, report::warning)?));
    }
    let mut work = work.prepare(Some(&file), &compute)?;
    if args.profile {
        return profile(&mut work, args.precision.into());
    }
    report::data("ready");
    for line in std::io::stdin().lock().lines() {
        work(line?.trim().parse()?)?;
        report::data("done");
    }
    Ok(())
}

/// A table of the kernels: how often each is called in one piece of work, its time, and how near the machine's best it comes.
fn profile(work: &mut Prepared, precision: Precision) -> Result<(), Told> {
    /// The pieces of work over which is averaged, after a first one that reads and packs weights.
    const TIMES: u32 = 3;
    work(1)?;
    let peak = paraflow_diffusion::peak(precision);
    let begun = Instant::now();
    let (outcome, kernels) = paraflow_diffusion::profiled(|| work(TIMES as usize));
    let total = begun.elapsed();
    outcome?;
    let times = f64::from(TIMES);
    let share = |time: Duration| 100.0 * time.as_secs_f64() / total.as_secs_f64();
    let level = paraflow_diffusion::level()?;
    report::data(format_args!("{level}, at best {:.0} GFLOP/s; one of {TIMES} pieces of work:", peak / 1e9));
    report::data(format_args!(
        "{:<22} {:>6} {:>10} {:>7} {:>9} {:>9} {:>7}",
        "", "calls", "ms", "share", "GFLOP/s", "of best", "GB/s"
    ));
    for spent in &kernels {
        let seconds = spent.time.as_secs_f64();
        let rate = spent.operations / seconds;
        let (rate, part) = if spent.operations > 0.0 {
            (format!("{:.0}", rate / 1e9), format!("{:.0} %", 100.0 * rate / peak))
        } else {
            (String::new(), String::new())
        };
        report::data(format_args!(
            "{:<22} {:>6} {:>10.1} {:>5.1} % {rate:>9} {part:>9} {:>7.1}",
            spent.kernel,
            spent.calls / TIMES as usize,
            1e3 * seconds / times,
            share(spent.time),
            spent.bytes / seconds / 1e9,
        ));
    }
    let rest = total.saturating_sub(kernels.iter().map(|spent| spent.time).sum());
    let row = |name, time: Duration| {
        report::data(format_args!(
            "{name:<22} {:>6} {:>10.1} {:>5.1} %",
            "",
            1e3 * time.as_secs_f64() / times,
            share(time)
        ));
    };
    row("all else", rest);
    row("in all", total);
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
            let seconds = fastest(work.prepare(None, &Compute::default().multiplying_in(precision))?)?;
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
        let seconds = fastest(work.prepare(Some(&file), &Compute::default())?)?;
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
