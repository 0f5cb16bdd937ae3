//! Accepts connections, not too many, and lets none of them dawdle over its headers.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// A client that has not sent its headers by then is let go.
const HEADER_TIME: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 15 });

/// Headers may be so long, and as long again where the end of them comes with the last read.
const LONGEST_READ: usize = 32 << 10;

/// Serves every connection until `closing` is true.
pub(crate) fn accept(
    listeners: Vec<TcpListener>,
    router: Router,
    most: usize,
    closing: watch::Receiver<bool>,
) -> impl Future<Output = ()> {
    let free = Arc::new(Semaphore::new(most.max(1)));
    let loops: Vec<_> = listeners
        .into_iter()
        .map(|listener| tokio::spawn(accept_one(listener, router.clone(), Arc::clone(&free), closing.clone())))
        .collect();
    async move {
        for accepting in loops {
            let _ = accepting.await;
        }
    }
}

async fn accept_one(listener: TcpListener, router: Router, free: Arc<Semaphore>, mut closing: watch::Receiver<bool>) {
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, closing) = (router.clone(), closing.clone());
                tokio::spawn(async move {
                    serve(stream, router, closing).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file handles, mostly: others are closed soon.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, router: Router, mut closing: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(LONGEST_READ);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        _ = closing.wait_for(|closing| *closing) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
