//! The plaintext HTTP/1.1 listener of probes and of people on loopback.
//!
//! It is open to any address, so it is small: few connections at once, a bounded time for each, no body is read.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at once; a probe needs one.
const CONNECTIONS: usize = 64;
/// From the first byte of a request to its last header.
const HEADERS: Duration = Duration::from_secs(2);
/// A connection's whole life: one request. A peer that holds its connection must not keep probes away.
const LIFE: Duration = Duration::from_secs(5);
/// After an error of accept, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes the port. `what` is what it is for, `flag` what moves it elsewhere.
pub(crate) async fn bind(address: SocketAddr, what: &str, flag: &str) -> anyhow::Result<TcpListener> {
    let refused = || format!("cannot listen on {address} for {what}: free the port, or choose another with {flag}");
    TcpListener::bind(address).await.with_context(refused)
}

/// Answers until it is dropped.
pub(crate) async fn serve(listener: TcpListener, router: Router) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(LIFE, connection(stream, router)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the health or management port was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the health or management port ended early");
    }
}
