//! The server's half of a handshake.
//!
//! 1. The generation is taken once, when the ClientHello is there; the whole handshake sees that one.
//! 2. The server name is judged before anything is said: a missing or foreign one gets a fatal alert, and the reason is
//!    kept on our side.
//! 3. Time and bytes are bounded from the first byte on.
use std::io;
use std::sync::Arc;

use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::metered::Metered;
use super::refusal::Refusal;
use crate::config::Limits;
use crate::foreign;
use crate::material::{Generation, Store};
use crate::transport::read_ahead::ReadAhead;

/// Bytes of a plaintext request that are read after it was refused.
const MOST_READ: u64 = 16 * 1024;

/// A TLS stream whose handshake is over, and the generation it saw.
pub(crate) struct Shaken {
    pub(crate) stream: TlsStream<Metered<ReadAhead<TcpStream>>>,
    pub(crate) generation: Arc<Generation>,
}

impl Shaken {
    /// The client's certificates, leaf first; empty where none was asked for.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.stream.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default()
    }

    /// The name that the client asked for.
    pub(crate) fn sni(&self) -> Option<&str> {
        self.stream.get_ref().1.server_name()
    }
}

/// A handshake that came to nothing, with the name that the client asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) sni: Option<String>,
    pub(crate) refusal: Refusal,
}

/// What a client that speaks HTTP/1 where TLS is spoken gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToPlaintext {
    /// Nothing but a TLS alert.
    Nothing,
    /// A sentence: it is most likely a person with curl.
    Sentence,
}

/// Does the handshake within the limits.
pub(crate) async fn shake(
    mut stream: TcpStream,
    store: &Store,
    limits: &Limits,
    to_plaintext: ToPlaintext,
) -> Result<Shaken, Failure> {
    let mut sni = None;
    let whole = async {
        if to_plaintext == ToPlaintext::Sentence {
            refuse_http(&mut stream).await?;
        }
        unbounded(stream, store, limits, &mut sni).await
    };
    let bounded = tokio::time::timeout(limits.handshake_timeout, whole).await;
    bounded.unwrap_or(Err(Refusal::Timeout)).map_err(|refusal| Failure { sni, refusal })
}

async fn unbounded(
    stream: TcpStream,
    store: &Store,
    limits: &Limits,
    sni: &mut Option<String>,
) -> Result<Shaken, Refusal> {
    let io = Metered::new(ReadAhead::new(stream), limits.handshake_bytes);
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), io).await.map_err(Refusal::of)?;
    let generation = store.current();
    *sni = start.client_hello().server_name().map(foreign::name);
    if !generation.accepts_sni(sni.as_deref()) {
        return Err(refuse_name(&mut start.io, sni.as_deref()).await);
    }
    let mut stream = start.into_stream(Arc::clone(&generation.server)).await.map_err(Refusal::of)?;
    stream.get_mut().0.lift();
    Ok(Shaken { stream, generation })
}

const USE_TLS: &str = "this port speaks TLS: use https\n";

/// Looks at the first bytes, without taking them, for a request of HTTP/1.
async fn refuse_http(stream: &mut TcpStream) -> Result<(), Refusal> {
    let mut first = [0; 4];
    let seen = stream.peek(&mut first).await.map_err(Refusal::Io)?;
    if !is_http1(&first[..seen]) {
        return Ok(());
    }
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{USE_TLS}",
        USE_TLS.len()
    );
    // The request is read, within the bounds of a handshake, so that closing does not reset what we say.
    let _: io::Result<()> = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MOST_READ), &mut tokio::io::sink()).await.map(drop)
    }
    .await;
    Err(Refusal::PlaintextHttp)
}

/// The methods that curl and browsers begin with. A TLS record begins with a control character.
fn is_http1(first: &[u8]) -> bool {
    [&b"GET "[..], b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI"].contains(&first)
}

/// Sends the alert that RFC 6066 and RFC 8446 have for the case. That it may not arrive changes nothing.
async fn refuse_name(io: &mut (impl AsyncWrite + Unpin), sni: Option<&str>) -> Refusal {
    let (alert, refusal) = match sni {
        None => (AlertDescription::MissingExtension, Refusal::MissingSni),
        Some(_) => (AlertDescription::UnrecognisedName, Refusal::ForeignSni),
    };
    let _: io::Result<()> = async {
        io.write_all(&fatal(alert)).await?;
        io.shutdown().await
    }
    .await;
    refusal
}

/// A TLS record with one fatal alert, as RFC 8446 sections 5.1 and 6 lay it out. Nothing is encrypted yet.
fn fatal(alert: AlertDescription) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    [ALERT, 3, 3, 0, 2, FATAL, alert.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_http_from_tls() {
        assert!(is_http1(b"GET ") && is_http1(b"POST"));
        assert!(!is_http1(&[0x16, 3, 1, 2]) && !is_http1(b"PRI ") && !is_http1(b"GE") && !is_http1(b""));
    }

    #[test]
    fn alerts_are_whole_records() {
        assert_eq!(fatal(AlertDescription::UnrecognisedName), [0x15, 3, 3, 0, 2, 2, 112]);
        assert_eq!(fatal(AlertDescription::MissingExtension), [0x15, 3, 3, 0, 2, 2, 109]);
    }
}
