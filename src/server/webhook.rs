//! Tells an address of the submitter's that a job has ended. Only this machine's, or those of hosts that the operator
//! named, so that nobody can make the server call others.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::queue::Queue;

const TRIES: u32 = 3;
const TIME: Duration = Duration::from_secs(10);

/// Sends messages, also those that an earlier process owed.
pub(crate) struct Webhooks {
    queue: Arc<dyn Queue>,
    hosts: Arc<[String]>,
    runtime: Handle,
}

/// Why an address will not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadWebhook {
    /// Not `http://host…`.
    #[error("a webhook is an address that begins with http://")]
    Scheme,
    /// Somebody else's machine.
    #[error("a webhook may only go to this machine or to a host that the operator allowed")]
    Host,
}

impl Webhooks {
    /// Must be called inside a Tokio runtime. What an earlier process did not tell is told now.
    pub(crate) fn new(queue: Arc<dyn Queue>, hosts: Vec<String>) -> Self {
        let new = Self { queue, hosts: hosts.into(), runtime: Handle::current() };
        let (queue, hosts) = (Arc::clone(&new.queue), Arc::clone(&new.hosts));
        new.runtime.spawn(async move {
            for (job, address) in queue.untold().await.unwrap_or_default() {
                deliver(&queue, &hosts, &job, &address).await;
            }
        });
        new
    }

    /// Tells the address that the job has ended, sooner or later.
    pub(crate) fn tell(&self, job: String, address: String) {
        let (queue, hosts) = (Arc::clone(&self.queue), Arc::clone(&self.hosts));
        self.runtime.spawn(async move { deliver(&queue, &hosts, &job, &address).await });
    }
}

/// The parts of an address that may be called.
pub(crate) fn check(address: &str, hosts: &[String]) -> Result<(String, u16, String), BadWebhook> {
    let uri: Uri = address.parse().map_err(|_| BadWebhook::Scheme)?;
    if uri.scheme_str() != Some("http") {
        return Err(BadWebhook::Scheme);
    }
    let authority = uri.authority().filter(|it| !it.as_str().contains('@')).ok_or(BadWebhook::Host)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !loopback && !hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&host)) {
        return Err(BadWebhook::Host);
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Ok((host, uri.port_u16().unwrap_or(80), path))
}

async fn deliver(queue: &Arc<dyn Queue>, hosts: &[String], job: &str, address: &str) {
    let Ok(Some(record)) = queue.find(job).await else { return };
    let body = json!({"id": job, "state": record.state.as_str(), "error": record.error}).to_string();
    for attempt in 0..TRIES {
        match tokio::time::timeout(TIME, post(address, hosts, &body)).await {
            Ok(Ok(status)) if (200..300).contains(&status) => break,
            Ok(Ok(status)) => tracing::warn!(job, status, "the webhook was refused"),
            Ok(Err(error)) => tracing::warn!(job, %error, "the webhook was not reached"),
            Err(_) => tracing::warn!(job, "the webhook did not answer in time"),
        }
        tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
    }
    let _ = queue.told(job).await;
}

/// One POST on a connection of its own; redirects are not followed. Gives the status.
async fn post(address: &str, hosts: &[String], body: &str) -> std::io::Result<u16> {
    let invalid = |error: BadWebhook| std::io::Error::new(std::io::ErrorKind::InvalidInput, error);
    let (host, port, path) = check(address, hosts).map_err(invalid)?;
    let named = hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&host));
    let found = tokio::net::lookup_host((host.as_str(), port)).await?;
    // `localhost` may have been pointed elsewhere; the address that is called is the one that was looked at.
    let target: Option<SocketAddr> = found.into_iter().find(|found| named || found.ip().is_loopback());
    let target = target.ok_or_else(|| invalid(BadWebhook::Host))?;
    let mut stream = TcpStream::connect(target).await?;
    let shown = if host.contains(':') { format!("[{host}]") } else { host };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {shown}:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    let line = String::from_utf8_lossy(&answer);
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other("the answer is no HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_named_hosts_are_called() {
        let named = ["hooks.example".to_owned()];
        for good in ["http://127.0.0.1:9/x?y", "http://localhost", "http://[::1]:80/", "http://Hooks.Example/a"] {
            assert!(check(good, &named).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("https://127.0.0.1/", BadWebhook::Scheme),
            ("file:///etc/passwd", BadWebhook::Scheme),
            ("http://10.0.0.1/", BadWebhook::Host),
            ("http://127.0.0.1@evil.example/", BadWebhook::Host),
            ("http://127.0.0.1.evil.example/", BadWebhook::Host),
            ("http://169.254.169.254/latest", BadWebhook::Host),
        ] {
            assert_eq!(check(bad, &named).unwrap_err(), why, "{bad}");
        }
        assert_eq!(check("http://localhost/a?b=1", &[]).unwrap(), ("localhost".into(), 80, "/a?b=1".into()));
    }
}
