//! What an operator may choose.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How a server listens, what it trusts, how much it keeps.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses to listen on. Others than loopback need a token.
    pub listen: Vec<IpAddr>,
    /// The port; 0: any free one.
    pub port: u16,
    /// Whoever comes must bring it.
    pub token: Option<String>,
    /// Names, besides those of this machine's loopback, under which browsers may reach the server.
    pub allowed_hosts: Vec<String>,
    /// Pages of this origin may use the API; `*`: of any.
    pub cors_origin: Option<String>,
    /// A folder with a web front end, served instead of the built-in editor.
    pub front_end_root: Option<PathBuf>,
    /// The largest body of a request, in bytes.
    pub max_upload_bytes: usize,
    /// Whether each user has settings and files of their own; whoever comes is believed to be whom they name.
    pub multi_user: bool,
    /// Whether JSON and plain text are compressed for clients that accept it.
    pub compress: bool,
    /// Previews for prompts that do not say which.
    pub preview_method: PreviewMethod,
    /// How many jobs run side by side.
    pub jobs_at_once: usize,
    /// How many ended jobs to remember.
    pub history_count: u64,
    /// For how long to remember them.
    pub history_age: Option<Duration>,
    /// Hosts, besides this machine, that a webhook may be sent to.
    pub webhook_hosts: Vec<String>,
    /// Whether a stored job also survives the loss of power, not only the end of the process.
    pub durable: bool,
    /// How long a running job may go on when the server is asked to stop, before it is parked.
    pub grace: Duration,
    /// Most open connections; more wait.
    pub max_connections: usize,
    /// The process's arguments, for `/system_stats`.
    pub arguments: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: vec![IpAddr::from([127, 0, 0, 1])],
            port: 8188,
            token: None,
            allowed_hosts: Vec::new(),
            cors_origin: None,
            front_end_root: None,
            max_upload_bytes: 100 << 20,
            multi_user: false,
            compress: false,
            preview_method: PreviewMethod::None,
            jobs_at_once: 1,
            history_count: 10_000,
            history_age: None,
            webhook_hosts: Vec::new(),
            durable: true,
            grace: Duration::from_secs(10),
            max_connections: 1024,
            arguments: Vec::new(),
        }
    }
}

/// How previews are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviewMethod {
    /// Not at all.
    None,
    /// A linear map from latents to colours.
    Latent2Rgb,
    /// A tiny autoencoder, where its file is there; else as [`Latent2Rgb`](Self::Latent2Rgb).
    Taesd,
}
