//! One GET over plain HTTP/1.1, for the ports that are on loopback.
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(3);
/// Bytes of an answer: a status of a hundred thousand connections.
pub(crate) const MAX_BODY: usize = 64 * 1024 * 1024;

/// Status and body of `path` at `address`.
pub(crate) async fn get(address: &str, path: &str) -> anyhow::Result<(u16, Bytes)> {
    tokio::time::timeout(DEADLINE, exchange(address, path))
        .await
        .with_context(|| format!("http://{address}{path} did not answer within {} s", DEADLINE.as_secs()))?
        .with_context(|| format!("http://{address}{path} did not answer"))
}

async fn exchange(address: &str, path: &str) -> anyhow::Result<(u16, Bytes)> {
    let tcp = TcpStream::connect(address).await?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
    let driver = tokio::spawn(connection);
    let request = http::Request::get(path).header(http::header::HOST, address).body(Empty::<Bytes>::new())?;
    let response = client.send_request(request).await?;
    let code = response.status().as_u16();
    let body =
        Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    driver.abort();
    Ok((code, body))
}
