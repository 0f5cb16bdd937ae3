//! The server: ComfyUI's HTTP and WebSocket API, our own beside it, a queue that survives anything.
//!
//! Knows the engine, the folders and HTTP. Knows no tensors, and no node by name: the binary hands it a [`World`] with
//! a registry, so that its tests use nodes that add two numbers.
//!
//! ```text
//! routes/      a file a family of routes; own/ is /paraflow/v1
//! queue/       jobs that wait, run and have ended, in SQLite, behind one trait
//! runner.rs    takes a job, runs it, writes down the end
//! frames/      events of a run as ComfyUI's messages, and ours
//! protocol/    the shapes of messages and answers, from which the editor's types are made
//! hub.rs       WebSocket clients and their bounded queues
//! guard.rs     token, host, origin
//! ```

mod app;
mod artefacts;
mod error;
mod feed;
mod frames;
mod guard;
mod hub;
mod kept;
mod listen;
mod logs;
mod nodes;
mod object_info;
mod options;
mod paths;
mod protocol;
pub mod queue;
mod routes;
mod runner;
#[cfg(test)]
mod tests;
mod time;
mod validation;
mod watch;
mod webhook;
mod why;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::Router;
use paraflow_assets::Assets;
use paraflow_engine::{Cache, Registry};
use tokio::sync::watch as signal;

pub use self::error::Error;
pub use self::logs::{LogWriter, Logs};
pub use self::options::{Options, PreviewMethod};

use self::app::{App, Inner};
use self::feed::Feed;
use self::frames::status;
use self::hub::{Hub, Keep, To};
use self::kept::Kept;
use self::nodes::Nodes;
use self::queue::{Queue, SqliteQueue};
use self::runner::{Parts, Runner};
use self::webhook::Webhooks;

/// What the server is given of the world.
pub struct World {
    /// The folders.
    pub assets: Arc<Assets>,
    /// All nodes, their samplers without previews.
    pub plain: Registry,
    /// All nodes, their samplers with previews.
    pub previewing: Registry,
    /// All nodes, their samplers with previews by a tiny autoencoder where there is one.
    pub previewing_sharply: Registry,
    /// Models that the program brings, by folder.
    pub embedded_models: fn(&str) -> Vec<String>,
    /// How many bytes of results to keep between runs.
    pub cache_bytes: usize,
    /// The log.
    pub logs: Arc<Logs>,
}

/// A server that is ready to listen.
pub struct Server {
    app: App,
    workers: Vec<JoinHandle<()>>,
    _watcher: Option<watch::Watcher>,
}

/// A token shorter than this is refused.
const SHORTEST_TOKEN: usize = 16;

impl Server {
    /// Opens the queue and starts the workers. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Options that are not safe, a queue that cannot be opened.
    pub fn open(options: Options, world: World) -> Result<Self, Error> {
        check(&options)?;
        let World { assets, plain, previewing, previewing_sharply, embedded_models, cache_bytes, logs } = world;
        let hub = Arc::new(Hub::default());
        let for_status = Arc::clone(&hub);
        let on_change = move |remaining| for_status.send(To::All, &status(remaining, None), Keep::Always);
        let file = assets.base_dir().join("user/paraflow.db");
        let queue: Arc<dyn Queue> = Arc::new(SqliteQueue::open(&file, options.durable, Box::new(on_change))?);
        // On a thread of its own, since this one may not wait for the books. Nothing runs before it is done.
        let swept = thread::scope(|scope| scope.spawn(|| artefacts::sweep_previews(&*queue, &assets)).join());
        swept.unwrap_or(Ok(()))?;
        let (nodes, feed) = (Arc::new(Nodes::new(plain, previewing, previewing_sharply)), Arc::new(Feed::default()));
        let kept = Arc::new(Kept::new(Arc::clone(&hub), Arc::clone(&feed)));
        let runner = Arc::new(Runner::new(Parts {
            queue: Arc::clone(&queue),
            hub: Arc::clone(&hub),
            feed: Arc::clone(&feed),
            kept: Arc::clone(&kept),
            nodes: Arc::clone(&nodes),
            assets: Arc::clone(&assets),
            cache: Arc::new(Cache::new(cache_bytes)),
            default_previews: options.preview_method,
            keep: (options.history_count, options.history_age),
            webhooks: Webhooks::new(Arc::clone(&queue), options.webhook_hosts.clone()),
        }));
        let workers = runner.start(options.jobs_at_once)?;
        let watcher = watch::start(&assets, &nodes, &hub);
        let closing = signal::Sender::new(false);
        let started = Instant::now();
        let app = App::new(Inner {
            options,
            assets,
            nodes,
            embedded_models,
            queue,
            hub,
            feed,
            kept,
            runner,
            logs,
            started,
            going: AtomicBool::new(false),
            closing,
        });
        routes::internal::forward_logs(&app);
        Ok(Self { app, workers, _watcher: watcher })
    }

    /// All routes, with everything that stands before them.
    pub fn router(&self) -> Router {
        routes::router(&self.app)
    }

    /// Binds the addresses. A port of 0 becomes the one that was free.
    ///
    /// # Errors
    ///
    /// A port that is taken.
    pub async fn bind(&self) -> Result<Vec<tokio::net::TcpListener>, Error> {
        let mut port = self.app.options.port;
        let mut listeners = Vec::new();
        for &address in &self.app.options.listen {
            let address = SocketAddr::new(address, port);
            let listener = tokio::net::TcpListener::bind(address).await;
            let listener = listener.map_err(|source| Error::Listen { address, source })?;
            port = listener.local_addr()?.port();
            listeners.push(listener);
        }
        Ok(listeners)
    }

    /// Answers requests until `stop` is done, then finishes or parks what runs.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub async fn serve(
        self,
        listeners: Vec<tokio::net::TcpListener>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let router = self.router();
        let accepting =
            listen::accept(listeners, router, self.app.options.max_connections, self.app.closing.subscribe());
        tokio::pin!(accepting);
        tokio::select! {
            () = &mut accepting => {}
            () = stop => {}
        }
        let down = self.shut_down();
        tokio::pin!(down);
        // Clients hear how the running job ends.
        tokio::select! {
            () = &mut accepting => down.await,
            () = &mut down => {}
        }
        Ok(())
    }

    /// Lets the running job finish within the time of grace, or parks it, and closes the books.
    async fn shut_down(self) {
        let Self { app, workers, _watcher: watcher } = self;
        drop(watcher);
        app.going.store(true, Ordering::Relaxed);
        app.queue.close();
        let until = Instant::now() + app.options.grace;
        while app.runner.busy() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if app.runner.busy() > 0 {
            tracing::info!("the running job is parked; it begins again at the next start");
            app.runner.park_all();
        }
        let joined = tokio::task::spawn_blocking(move || workers.into_iter().for_each(|worker| drop(worker.join())));
        let _ = joined.await;
        app.closing.send_replace(true);
        // What was said last is still on its way.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn check(options: &Options) -> Result<(), Error> {
    match &options.token {
        Some(token) if token.chars().count() < SHORTEST_TOKEN => {
            return Err(Error::ShortToken { length: token.chars().count(), least: SHORTEST_TOKEN });
        }
        Some(_) => {}
        None => {
            if let Some(&address) = options.listen.iter().find(|address| !address.is_loopback()) {
                return Err(Error::Open { address });
            }
        }
    }
    match &options.front_end_root {
        Some(root) if !root.join("index.html").is_file() => Err(Error::NoFrontEnd { path: root.display().to_string() }),
        _ => Ok(()),
    }
}
