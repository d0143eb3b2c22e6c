//! The server's half of a handshake.
//!
//! 1. The generation is taken once, when the ClientHello is there; the whole handshake sees that one.
//! 2. The server name is judged before anything is said: a missing or foreign one gets a fatal alert, and the reason is
//!    kept on our side.
//! 3. Time and bytes are bounded from the first byte on. What the time is depends on who else is there: the [`Permit`] says
//!    when a handshake must end. One that ends before there are keys ends with an alert.
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::gate::Permit;
use super::metered::Metered;
use super::refusal::Refusal;
use crate::config::Limits;
use crate::foreign;
use crate::material::{Generation, Store};
use crate::transport::read_ahead::ReadAhead;

/// Bytes of a plaintext request that are read after it was refused.
const MOST_READ: u64 = 16 * 1024;

/// How long an alert may take to leave.
const TELLING: Duration = Duration::from_millis(100);

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

/// Does the handshake, within the limits and for as long as `permit` lets it.
pub(crate) async fn shake(
    stream: TcpStream,
    store: &Store,
    limits: &Limits,
    to_plaintext: ToPlaintext,
    permit: &Permit,
) -> Result<Shaken, Failure> {
    let mut sni = None;
    let whole = async {
        let stream = match to_plaintext {
            ToPlaintext::Nothing => stream,
            ToPlaintext::Sentence => not_http(stream, permit).await?,
        };
        let start = hello(stream, limits, permit).await?;
        sni = start.client_hello().server_name().map(foreign::name);
        answer(start, store, sni.as_deref(), permit).await
    };
    let outcome = whole.await;
    outcome.map_err(|refusal| Failure { sni, refusal })
}

type Io = Metered<ReadAhead<TcpStream>>;

/// The stream, unless a client begins to speak HTTP/1 on it.
async fn not_http(mut stream: TcpStream, permit: &Permit) -> Result<TcpStream, Refusal> {
    let lost = tokio::select! {
        biased;
        refused = refuse_http(&mut stream) => return refused.map(|()| stream),
        refusal = permit.lost() => refusal,
    };
    Err(turn_away(&mut stream, lost).await)
}

/// Reads a whole ClientHello.
async fn hello(stream: TcpStream, limits: &Limits, permit: &Permit) -> Result<StartHandshake<Io>, Refusal> {
    let io = Metered::new(ReadAhead::new(stream), limits.handshake_bytes);
    let mut hello = LazyConfigAcceptor::new(Acceptor::default(), io);
    let lost = tokio::select! {
        biased;
        start = &mut hello => return start.map_err(Refusal::of),
        refusal = permit.lost() => refusal,
    };
    match hello.take_io() {
        Some(mut io) => Err(turn_away(&mut io, lost).await),
        None => Err(lost),
    }
}

/// Does the rest, once it is its turn.
async fn answer(
    mut start: StartHandshake<Io>,
    store: &Store,
    sni: Option<&str>,
    permit: &Permit,
) -> Result<Shaken, Refusal> {
    // A name that nobody has costs no slot.
    if !store.current().accepts_sni(sni) {
        return Err(refuse_name(&mut start.io, sni).await);
    }
    if let Err(lost) = permit.turn().await {
        return Err(turn_away(&mut start.io, lost).await);
    }
    // It may have waited: the generation that counts is the one of now.
    let generation = store.current();
    if !generation.accepts_sni(sni) {
        return Err(refuse_name(&mut start.io, sni).await);
    }
    let mut shaking = start.into_stream(Arc::clone(&generation.server));
    // Up to its first wait it computes, and its time has not begun.
    let shaken = match futures_util::poll!(&mut shaking) {
        Poll::Ready(shaken) => shaken,
        Poll::Pending => {
            permit.answered();
            // Biased: an answer that is there counts, however late it is looked at.
            tokio::select! {
                biased;
                shaken = &mut shaking => shaken,
                // No alert: it would have to be encrypted, and rustls sends none on request. The socket closes in order.
                lost = permit.lost() => return Err(lost),
            }
        }
    };
    let mut stream = shaken.map_err(Refusal::of)?;
    stream.get_mut().0.lift();
    Ok(Shaken { stream, generation })
}

/// Tells a client that has no keys yet why its connection ends. That it may not arrive changes nothing.
///
/// `internal_error` is what RFC 8446 section 6.2 has for it: "unrelated to the peer or the correctness of the protocol
/// (such as a memory allocation failure)". `handshake_failure` would blame the client's parameters, and `user_canceled` is
/// no error: clients pass over it and report a connection that broke.
async fn turn_away(io: &mut (impl AsyncWrite + Unpin), lost: Refusal) -> Refusal {
    let telling = async {
        io.write_all(&fatal(AlertDescription::InternalError)).await?;
        io.shutdown().await
    };
    // Nothing was sent before, so the seven bytes fit; were they not to, the socket is not worth waiting for.
    let _: Result<io::Result<()>, _> = tokio::time::timeout(TELLING, telling).await;
    lost
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
