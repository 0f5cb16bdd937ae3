//! `paraflow serve`: the editor and the API.
//!
//! What is not given as a flag is taken from the environment (`PARAFLOW_PORT`), then from the configuration file, then
//! it is the default.

use clap::Args;
use paraflow_assets::{Assets, Settings};
use paraflow_diffusion::DeviceName;
use paraflow_diffusion::nn::{Compute, Prepacked};
use paraflow_engine::Services;
use paraflow_nodes::Previews;
use paraflow_server::{LogWriter, Logs, Options, PreviewMethod, Server, World};
use serde::Deserialize;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

use super::bench::Numbers;
use super::{Exit, Places, report};

/// Arguments of `paraflow serve`.
#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Port to listen on; 0 takes a free one [default: 8188]
    #[arg(long)]
    port: Option<u16>,
    /// Addresses to listen on, separated by commas; without a value, all of them [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "0.0.0.0,::", value_delimiter = ',')]
    listen: Vec<IpAddr>,
    /// What clients must bring; needed to listen on other addresses than loopback. Better given as PARAFLOW_TOKEN
    #[arg(long)]
    token: Option<String>,
    /// A further host name under which browsers may reach the server; may be repeated
    #[arg(long = "allow-host", value_name = "NAME")]
    allow_hosts: Vec<String>,
    /// Let pages of this origin use the API; without a value, of any
    #[arg(long, value_name = "ORIGIN", num_args = 0..=1, default_missing_value = "*")]
    enable_cors_header: Option<String>,
    /// Serve this front end instead of the built-in editor
    #[arg(long, value_name = "DIR")]
    front_end_root: Option<PathBuf>,
    /// Save pictures here instead of in output/ of the base directory
    #[arg(long, value_name = "DIR")]
    output_directory: Option<PathBuf>,
    /// Also read pictures from here
    #[arg(long, value_name = "DIR")]
    input_directory: Option<PathBuf>,
    /// The largest request, in MB [default: 100]
    #[arg(long, value_name = "MB")]
    max_upload_size: Option<f64>,
    /// Keep settings and workflows of several users apart; clients say who they are, and are believed
    #[arg(long)]
    multi_user: bool,
    /// Compress JSON and text for clients that accept gzip
    #[arg(long)]
    enable_compress_response_body: bool,
    /// Previews for prompts that do not say which: none, auto, latent2rgb, taesd [default: none]
    #[arg(long, value_name = "METHOD", value_parser = preview_method)]
    preview_method: Option<PreviewMethod>,
    /// The longer side of a preview in pixels [default: 512]
    #[arg(long, value_name = "PIXELS")]
    preview_size: Option<u32>,
    /// How many jobs run side by side [default: 1]
    #[arg(long, value_name = "COUNT")]
    jobs_at_once: Option<usize>,
    /// Memory for results of earlier runs, in GB [default: 4]
    #[arg(long, value_name = "GB")]
    cache: Option<f64>,
    /// How many ended jobs to remember [default: 10000]
    #[arg(long, value_name = "COUNT")]
    history: Option<u64>,
    /// For how long to remember them: `30d`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    history_age: Option<Duration>,
    /// A further host that webhooks may be sent to; may be repeated
    #[arg(long = "webhook-host", value_name = "NAME")]
    webhook_hosts: Vec<String>,
    /// How long the running job may go on after a signal before it is parked [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    grace: Option<Duration>,
    /// Multiply networks in these numbers [default: f32]
    #[arg(long, value_enum, value_name = "NUMBERS")]
    precision: Option<Numbers>,
    /// Compute networks on `auto`, `cpu`, `cuda`, `cuda:1` or `metal` [default: auto, the first GPU that this program was built for]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceName>,
    /// Keep packed weights in this folder, from where later starts take them; as large as the models that are used
    #[arg(long, value_name = "DIR")]
    prepacked: Option<PathBuf>,
    /// Do not wait for the disk: a stored job survives the end of the process, but not the loss of power
    #[arg(long)]
    no_sync: bool,
    /// Write the log as one JSON object a line
    #[arg(long)]
    log_json: bool,
    /// What to log: `info`, `debug`, `paraflow_server=debug` [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// A TOML file with any of these settings [default: paraflow.toml in the base directory, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The configuration file: flags by their names, `_` for `-`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    port: Option<u16>,
    listen: Option<Vec<IpAddr>>,
    token: Option<String>,
    allow_hosts: Option<Vec<String>>,
    enable_cors_header: Option<String>,
    front_end_root: Option<PathBuf>,
    max_upload_size: Option<f64>,
    multi_user: Option<bool>,
    enable_compress_response_body: Option<bool>,
    preview_method: Option<String>,
    preview_size: Option<u32>,
    jobs_at_once: Option<usize>,
    cache: Option<f64>,
    history: Option<u64>,
    history_age: Option<String>,
    webhook_hosts: Option<Vec<String>>,
    grace: Option<String>,
    precision: Option<Numbers>,
    device: Option<String>,
    prepacked: Option<PathBuf>,
    no_sync: Option<bool>,
    log_json: Option<bool>,
    log: Option<String>,
}

fn preview_method(name: &str) -> Result<PreviewMethod, String> {
    match name {
        "none" => Ok(PreviewMethod::None),
        "auto" | "latent2rgb" => Ok(PreviewMethod::Latent2Rgb),
        "taesd" => Ok(PreviewMethod::Taesd),
        other => Err(format!("expected none, auto, latent2rgb or taesd, found `{other}`")),
    }
}

/// Serves until a signal comes.
pub(crate) fn serve(args: ServeArgs, places: &Places) -> Exit {
    let settings = Settings {
        base_dir: places.base_dir.clone(),
        model_dirs: places.model_dirs.clone(),
        extra_model_paths: places.extra_model_paths.clone(),
        input_dirs: args.input_directory.iter().cloned().collect(),
        output_dir: args.output_directory.clone(),
    };
    let assets = match Assets::open(&settings) {
        Ok(assets) => Arc::new(assets),
        Err(error) => {
            report::error(&error, error.hint().as_deref());
            return Exit::Failed;
        }
    };
    let chosen = config(args.config.as_deref(), assets.base_dir()).and_then(|config| settle(args, config));
    let chosen = match chosen {
        Ok(chosen) => chosen,
        Err(text) => {
            report::error(text, None);
            return Exit::Failed;
        }
    };
    let logs = Arc::new(Logs::default());
    start_log(&chosen, &logs);
    match run(chosen, assets, logs) {
        Ok(()) => Exit::Done,
        Err(error) => {
            report::error(&error, error.hint());
            Exit::Failed
        }
    }
}

/// All settings, wherever they came from.
struct Chosen {
    options: Options,
    preview_size: u32,
    compute: Compute,
    cache_bytes: usize,
    log: String,
    log_json: bool,
}

fn config(named: Option<&Path>, base_dir: &Path) -> Result<Config, String> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => match base_dir.join("paraflow.toml") {
            path if path.is_file() => path,
            _ => return Ok(Config::default()),
        },
    };
    let text = fs::read_to_string(&path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("`{}`: {error}", path.display()))
}

/// The value of `PARAFLOW_NAME`, read as what it should be.
fn from_environment<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str) -> Result<Option<T>, String> {
    let variable = format!("PARAFLOW_{name}");
    match std::env::var(&variable) {
        Ok(text) => text.parse().map(Some).map_err(|error| format!("{variable}: {error}")),
        Err(_) => Ok(None),
    }
}

/// The list in `PARAFLOW_NAME`, separated by commas.
fn list_from_environment<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str) -> Result<Option<Vec<T>>, String> {
    let Some(text) = from_environment::<String>(name)? else { return Ok(None) };
    let one = |part: &str| part.trim().parse().map_err(|error| format!("PARAFLOW_{name}: {error}"));
    text.split(',').filter(|part| !part.trim().is_empty()).map(one).collect::<Result<_, _>>().map(Some)
}

/// The first of flag, environment and file that says something.
fn first<T>(flag: Option<T>, environment: Result<Option<T>, String>, file: Option<T>) -> Result<Option<T>, String> {
    Ok(flag.or(environment?).or(file))
}

fn given<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

fn duration(name: &str, text: Option<String>) -> Result<Option<Duration>, String> {
    text.map(|text| humantime::parse_duration(&text).map_err(|error| format!("{name}: {error}"))).transpose()
}

fn settle(args: ServeArgs, file: Config) -> Result<Chosen, String> {
    let default = Options::default();
    let megabytes = first(args.max_upload_size, from_environment("MAX_UPLOAD_SIZE"), file.max_upload_size)?;
    let method = match first(None, from_environment("PREVIEW_METHOD"), file.preview_method)? {
        Some(name) if args.preview_method.is_none() => Some(preview_method(&name)?),
        _ => args.preview_method,
    };
    let age = duration("history_age", first(None, from_environment("HISTORY_AGE"), file.history_age)?)?;
    let grace = duration("grace", first(None, from_environment("GRACE"), file.grace)?)?;
    let hosts = first(given(args.webhook_hosts), list_from_environment("WEBHOOK_HOSTS"), file.webhook_hosts)?;
    let is_set = |flag, name, file: Option<bool>| -> Result<bool, String> {
        Ok(flag || from_environment(name)?.or(file).unwrap_or(false))
    };
    let cache = first(args.cache, from_environment("CACHE"), file.cache)?;
    let listen = first(given(args.listen), list_from_environment("LISTEN"), file.listen)?;
    let options = Options {
        listen: listen.map_or(default.listen, without_shadows),
        port: first(args.port, from_environment("PORT"), file.port)?.unwrap_or(default.port),
        token: first(args.token, from_environment("TOKEN"), file.token)?,
        allowed_hosts: first(given(args.allow_hosts), list_from_environment("ALLOW_HOSTS"), file.allow_hosts)?
            .unwrap_or_default(),
        cors_origin: first(args.enable_cors_header, from_environment("ENABLE_CORS_HEADER"), file.enable_cors_header)?,
        front_end_root: first(args.front_end_root, from_environment("FRONT_END_ROOT"), file.front_end_root)?,
        max_upload_bytes: megabytes.map_or(default.max_upload_bytes, |megabytes| bytes(megabytes, 1 << 20)),
        multi_user: is_set(args.multi_user, "MULTI_USER", file.multi_user)?,
        compress: is_set(
            args.enable_compress_response_body,
            "ENABLE_COMPRESS_RESPONSE_BODY",
            file.enable_compress_response_body,
        )?,
        preview_method: method.unwrap_or(default.preview_method),
        jobs_at_once: first(args.jobs_at_once, from_environment("JOBS_AT_ONCE"), file.jobs_at_once)?
            .unwrap_or(default.jobs_at_once),
        history_count: first(args.history, from_environment("HISTORY"), file.history)?.unwrap_or(default.history_count),
        history_age: args.history_age.or(age),
        webhook_hosts: hosts.unwrap_or_default(),
        durable: !is_set(args.no_sync, "NO_SYNC", file.no_sync)?,
        grace: args.grace.or(grace).unwrap_or(default.grace),
        max_connections: default.max_connections,
        arguments: std::env::args().collect(),
    };
    Ok(Chosen {
        options,
        preview_size: first(args.preview_size, from_environment("PREVIEW_SIZE"), file.preview_size)?.unwrap_or(512),
        compute: compute(
            first(args.device, from_environment("DEVICE"), file.device.map(|name| name.parse()).transpose()?)?,
            first(args.precision, from_environment("PRECISION"), file.precision)?,
            first(args.prepacked, from_environment("PREPACKED"), file.prepacked)?,
        )?,
        cache_bytes: cache.map_or(CACHE_BYTES, |gigabytes| bytes(gigabytes, 1 << 30)),
        log: first(args.log, from_environment("LOG"), file.log)?.unwrap_or_else(|| "info".to_owned()),
        log_json: is_set(args.log_json, "LOG_JSON", file.log_json)?,
    })
}

fn compute(device: Option<DeviceName>, numbers: Option<Numbers>, folder: Option<PathBuf>) -> Result<Compute, String> {
    let device = device.unwrap_or_default().open().map_err(|error| error.to_string())?;
    let compute = Compute::new(&device, numbers.unwrap_or_default().into());
    let Some(folder) = folder else { return Ok(compute) };
    let opened = Prepacked::open(&folder, |text| tracing::warn!("{text}"));
    let prepacked = opened.map_err(|error| format!("prepacked: {error}"))?;
    Ok(compute.prepacked_in(Arc::new(prepacked)))
}

/// `::` also takes what comes to `0.0.0.0` where the system joins them, so that the two cannot share a port.
fn without_shadows(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    if cfg!(target_os = "linux") && addresses.contains(&IpAddr::V6(Ipv6Addr::UNSPECIFIED)) {
        addresses.retain(|address| *address != IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }
    addresses
}

fn bytes(count: f64, unit: usize) -> usize {
    (count.max(0.0) * unit as f64) as usize
}

/// Enough for a checkpoint of SD 1.5 with what is made from it.
const CACHE_BYTES: usize = 4 << 30;

fn start_log(chosen: &Chosen, logs: &Arc<Logs>) {
    let filter = EnvFilter::try_new(&chosen.log).unwrap_or_else(|error| {
        report::warning(format_args!("--log {}: {error}; logging `info`", chosen.log));
        EnvFilter::new("info")
    });
    let logs = Arc::clone(logs);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    let builder = builder.with_writer(move || LogWriter(Arc::clone(&logs)));
    if chosen.log_json {
        builder.json().init();
    } else {
        builder.with_target(false).init();
    }
}

fn run(chosen: Chosen, assets: Arc<Assets>, logs: Arc<Logs>) -> Result<(), paraflow_server::Error> {
    let services = || Services::new().with(Arc::clone(&assets)).with(chosen.compute.clone());
    let previews = Previews { size_px: chosen.preview_size, tiny: false };
    let world = World {
        plain: paraflow_nodes::registry(services()),
        previewing: paraflow_nodes::registry(services().with(previews)),
        previewing_sharply: paraflow_nodes::registry(services().with(Previews { tiny: true, ..previews })),
        embedded_models: |folder| paraflow_nodes::embedded_names(folder).map(str::to_owned).collect(),
        cache_bytes: chosen.cache_bytes,
        assets,
        logs,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::open(chosen.options, world)?;
        let listeners = server.bind().await?;
        for listener in &listeners {
            report::data(format_args!("http://{}", listener.local_addr()?));
        }
        server.serve(listeners, stopped()).await
    })
}

/// Ctrl+C or a request to terminate. A second one ends the process at once; nothing is lost by it.
async fn stopped() {
    signal().await;
    tracing::info!("going down; once more ends at once");
    tokio::spawn(async {
        signal().await;
        std::process::exit(Exit::Cancelled as i32);
    });
}

async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
