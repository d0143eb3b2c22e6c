//! One attempt: connect, speak, send a request, and listen to what comes back.
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rpc::mesh::WhoAmIReply;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Target;
use super::credentials::{Credentials, Pair};
use super::danger::BelievesAnyone;
use super::probe::{Probe, Seen};

/// For connecting, speaking and being judged, together.
const DEADLINE: Duration = Duration::from_secs(5);
const URI: &str = "http://mesh.internal/mesh.v1.Identity/WhoAmI";
/// A gRPC frame that holds an empty message.
const EMPTY_MESSAGE: &[u8] = &[0, 0, 0, 0, 0];

pub(super) async fn attempt(probe: Probe, target: &Target, credentials: &Credentials) -> Seen {
    match tokio::time::timeout(DEADLINE, knock(probe, target, credentials)).await {
        Ok(Ok(seen) | Err(seen)) => seen,
        Err(_) => Seen::Silent,
    }
}

/// `Err` is a verdict too, reached before the request could be sent.
async fn knock(probe: Probe, target: &Target, credentials: &Credentials) -> Result<Seen, Seen> {
    let hello = hello(probe, target.role.as_str(), credentials)?;
    let tcp = TcpStream::connect(target.address).await.map_err(|error| Seen::Unreachable(error.to_string()))?;
    match hello {
        None => Ok(plaintext(ask(tcp).await)),
        Some((config, name)) => {
            let right = probe == Probe::RightClient;
            let tls = TlsConnector::from(Arc::new(config))
                .connect(name, tcp)
                .await
                .map_err(|error| broken_handshake(&error))?;
            let answer = ask(tls).await;
            Ok(if right { served(answer, target) } else { intruder(answer) })
        }
    }
}

type Hello = (ClientConfig, ServerName<'static>);

/// How to greet; `None` is without TLS.
fn hello(probe: Probe, role: &str, credentials: &Credentials) -> Result<Option<Hello>, Seen> {
    let tls13 = &rustls::version::TLS13;
    let right = || Some(credentials.right.clone());
    let borrowed = |pair: &Result<Pair, String>| pair.clone().map(Some).map_err(Seen::NotTried);
    let name = credentials.naming.right(role);
    let greeting = match probe {
        Probe::Plaintext => return Ok(None),
        Probe::RightClient => return trusting_nobody_else(credentials, &name).map(Some),
        Probe::NoCertificate => (tls13, None, name),
        Probe::ForeignCa => (tls13, Some(credentials.foreign.clone()), name),
        Probe::EdgeClient => (tls13, borrowed(&credentials.edge_client)?, name),
        Probe::WrongSni => (tls13, right(), credentials.naming.wrong(role)),
        Probe::NoSni => (tls13, right(), name),
        Probe::Tls12 => (&rustls::version::TLS12, right(), name),
        Probe::Expired => (tls13, borrowed(&credentials.expired)?, name),
    };
    let (version, pair, name) = greeting;
    let mut config = believing_anyone(version, pair).map_err(|error| Seen::NotTried(error.to_string()))?;
    config.enable_sni = probe != Probe::NoSni;
    Ok(Some((config, server_name(&name)?)))
}

fn believing_anyone(
    version: &'static SupportedProtocolVersion,
    pair: Option<Pair>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelievesAnyone(provider)));
    finish(match pair {
        Some(pair) => builder.with_client_auth_cert(pair.chain, pair.key)?,
        None => builder.with_no_client_auth(),
    })
}

fn trusting_nobody_else(credentials: &Credentials, name: &str) -> Result<Hello, Seen> {
    let build = || {
        let pair = credentials.right.clone();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(credentials.roots.clone())
            .with_client_auth_cert(pair.chain, pair.key)?;
        finish(config)
    };
    Ok((build().map_err(|error: rustls::Error| Seen::NotTried(error.to_string()))?, server_name(name)?))
}

/// No tickets: each probe is judged by itself.
fn finish(mut config: ClientConfig) -> Result<ClientConfig, rustls::Error> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn server_name(name: &str) -> Result<ServerName<'static>, Seen> {
    ServerName::try_from(name.to_owned()).map_err(|_| Seen::NotTried(format!("`{name}` is no name to send as SNI")))
}

/// Our own complaint about the server is no refusal by it.
fn broken_handshake(error: &io::Error) -> Seen {
    match how_it_ended(error) {
        Some(how) => Seen::Refused(how),
        None => Seen::Failed(format!("no handshake: {error}")),
    }
}

fn how_it_ended(error: &io::Error) -> Option<String> {
    if let Some(rustls::Error::AlertReceived(alert)) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        return Some(format!("alert {alert:?}"));
    }
    let closed = [
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::ConnectionAborted,
    ];
    closed.contains(&error.kind()).then(|| "connection closed".to_owned())
}

/// What came back on one connection.
struct Answer {
    reply: Result<Reply, h2::Error>,
    heard: Heard,
}

struct Reply {
    grpc_status: Option<String>,
    grpc_message: Option<String>,
    body: Vec<u8>,
}

fn plaintext(answer: Answer) -> Seen {
    // An alert record, unencrypted: what a TLS server says to whoever does not speak TLS.
    if let [0x15, 0x03, ..] = answer.heard.first[..] {
        return Seen::Refused("TLS alert".to_owned());
    }
    intruder(answer)
}

fn intruder(Answer { reply, heard }: Answer) -> Seen {
    match (reply, heard.bytes, heard.end) {
        (Ok(reply), ..) => {
            Seen::Answered(format!("HTTP/2 response, grpc-status {}", reply.grpc_status.as_deref().unwrap_or("none")))
        }
        (Err(_), 1.., _) => Seen::Answered(format!("{} bytes of application data", heard.bytes)),
        (Err(_), 0, Some(End::Closed(how))) => Seen::Refused(how),
        (Err(_), 0, Some(End::Odd(why))) => Seen::Failed(why),
        (Err(error), 0, None) => match error.get_io().and_then(how_it_ended) {
            Some(how) => Seen::Refused(how),
            None => Seen::Failed(error.to_string()),
        },
    }
}

fn served(Answer { reply, heard }: Answer, target: &Target) -> Seen {
    match (reply, heard.end) {
        (Ok(reply), _) if reply.grpc_status.as_deref() == Some("0") => recognized(&reply, target),
        (Ok(reply), _) => Seen::Failed(format!(
            "grpc-status {} {}",
            reply.grpc_status.as_deref().unwrap_or("none"),
            reply.grpc_message.unwrap_or_default()
        )),
        (Err(_), Some(End::Closed(how))) => Seen::Refused(how),
        (Err(error), _) => Seen::Failed(error.to_string()),
    }
}

/// Whoever serves must be who we came for.
fn recognized(reply: &Reply, target: &Target) -> Seen {
    let Some(WhoAmIReply { caller, server_role, server_node, .. }) = message(&reply.body) else {
        return Seen::Failed("the answer is no WhoAmIReply".to_owned());
    };
    let expected = server_role == target.role.as_str() && target.node.as_ref().is_none_or(|node| *node == server_node);
    if expected {
        Seen::Served(format!("{server_role}/{server_node} sees {caller}"))
    } else {
        Seen::Failed(format!("{server_role}/{server_node} answered instead"))
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: S) -> Answer {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let reply = call(Tap { inner: io, heard: heard.clone() }).await;
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Answer { reply, heard }
}

async fn call<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: S) -> Result<Reply, h2::Error> {
    let (client, connection) = h2::client::handshake(io).await?;
    let driver = tokio::spawn(connection);
    let reply = exchange(client).await;
    driver.abort();
    reply
}

async fn exchange(client: h2::client::SendRequest<Bytes>) -> Result<Reply, h2::Error> {
    let (response, mut body) = client.ready().await?.send_request(request(), false)?;
    body.send_data(Bytes::from_static(EMPTY_MESSAGE), true)?;
    let (head, mut stream) = response.await?.into_parts();
    let mut message = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        message.extend_from_slice(&chunk);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    let field =
        |name| trailers.get(name).or(head.headers.get(name)).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Reply { grpc_status: field("grpc-status"), grpc_message: field("grpc-message"), body: message })
}

fn request() -> http::Request<()> {
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(URI);
    let fields = request.headers_mut();
    fields.insert("content-type", http::HeaderValue::from_static("application/grpc"));
    fields.insert("te", http::HeaderValue::from_static("trailers"));
    request
}

/// The one message of a unary answer, without its five bytes of framing.
fn message(body: &[u8]) -> Option<WhoAmIReply> {
    WhoAmIReply::decode(body.get(5..)?).ok()
}

#[derive(Debug, Clone, Default)]
struct Heard {
    bytes: usize,
    first: Vec<u8>,
    end: Option<End>,
}

#[derive(Debug, Clone)]
enum End {
    Closed(String),
    Odd(String),
}

/// Notes what the peer says, whatever the layers above make of it.
struct Tap<S> {
    inner: S,
    heard: Arc<Mutex<Heard>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(result) = &polled {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.note(result, &buf.filled()[before..]);
        }
        polled
    }
}

impl Heard {
    fn note(&mut self, result: &io::Result<()>, read: &[u8]) {
        match result {
            Ok(()) if read.is_empty() => self.end = Some(End::Closed("connection closed".to_owned())),
            Ok(()) => {
                self.bytes += read.len();
                self.first.extend(read.iter().take(16_usize.saturating_sub(self.first.len())));
            }
            Err(error) => self.end = Some(how_it_ended(error).map_or_else(|| End::Odd(error.to_string()), End::Closed)),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
