//! Why a call got no answer, and how that looks to a gRPC caller.
//!
//! 1. A [`ChannelError`] names role and endpoint; its source, a [`DialError`] or what hyper said, names the reason. Their
//!    chain in one line is the message of the [`Status`] that callers see, and the status keeps the error as its source.
//! 2. What could not be delivered is UNAVAILABLE: trying again later is right. What broke after it may have been
//!    delivered says so.
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};

use crate::config::Endpoint;
use crate::error::VerifyError;
use crate::foreign::chain;
use crate::identity::Role;

/// Why a call on a [`Channel`](super::Channel) failed without an answer of the peer. It is the source of the
/// [`tonic::Status`] that the caller gets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// No connection could be made. UNAVAILABLE; nothing was sent.
    #[error("cannot reach {role} at {endpoint}")]
    Unreachable {
        /// Who was meant.
        role: Role,
        /// Where.
        endpoint: Endpoint,
        /// What went wrong.
        #[source]
        reason: Arc<DialError>,
    },
    /// The list of endpoints is empty. UNAVAILABLE; nothing was sent.
    #[error("no endpoint of {role} is known")]
    NoEndpoint {
        /// Who was meant.
        role: Role,
    },
    /// Neither a connection nor a reason why not, for too long. UNAVAILABLE; nothing was sent.
    #[error("no connection to {role} within {waited:?}")]
    Slow {
        /// Who was meant.
        role: Role,
        /// How long the call waited.
        waited: Duration,
    },
    /// As many calls wait for a connection, or for a place on one, as may. RESOURCE_EXHAUSTED; nothing was sent.
    #[error("{pending} calls to {role} wait already: call less often, or raise the limit of waiting calls")]
    Busy {
        /// Who was meant.
        role: Role,
        /// [`Limits::max_pending`](crate::config::Limits::max_pending).
        pending: usize,
    },
    /// The call's metadata is more than peers take. RESOURCE_EXHAUSTED; nothing was sent.
    #[error("the metadata of the call to {role} has {size} bytes, and {limit} at most can be sent")]
    Metadata {
        /// Who was meant.
        role: Role,
        /// What it has, as RFC 9113 section 6.5.2 counts.
        size: usize,
        /// What it may have.
        limit: usize,
    },
    /// The peer refused the call before it looked at it, and it could not be sent again. UNAVAILABLE; it was not
    /// carried out.
    #[error("{role} at {endpoint} turned the call away unprocessed")]
    TurnedAway {
        /// Who was meant.
        role: Role,
        /// Where.
        endpoint: Endpoint,
        /// What the connection said.
        #[source]
        reason: hyper::Error,
    },
    /// The connection or the stream ended while the call was under way. The code is that of the peer's reset, or
    /// UNAVAILABLE; whether the call was carried out is unknown.
    #[error("the call to {role} at {endpoint} broke off; whether it was carried out is unknown")]
    Broken {
        /// Who was meant.
        role: Role,
        /// Where.
        endpoint: Endpoint,
        /// What the connection said.
        #[source]
        reason: hyper::Error,
    },
    /// The caller's own time was up. DEADLINE_EXCEEDED.
    #[error("no answer from {role} within the call's {timeout:?}")]
    Deadline {
        /// Who was meant.
        role: Role,
        /// The call's `grpc-timeout`.
        timeout: Duration,
    },
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The host name has no address.
    #[error("the host name does not resolve: check the endpoint's host")]
    Resolve(#[source] io::Error),
    /// Nobody listens there, or the network does not lead there.
    #[error("no TCP connection: check that the peer runs and listens there")]
    Connect(#[source] io::Error),
    /// TCP, TLS and the first HTTP/2 frame took longer than [`Limits::connect`](crate::config::Limits::connect).
    #[error("no connection within {after:?}, stuck in {stage}")]
    TimedOut {
        /// The time that a dial has.
        after: Duration,
        /// What was being waited for.
        stage: &'static str,
    },
    /// The bytes that came back are not TLS. There is no falling back to plaintext.
    #[error("the peer does not speak TLS: check that internal TLS is on there and that the port is its internal one")]
    NotTls,
    /// The peer's certificate does not prove who was meant.
    #[error(transparent)]
    Certificate(VerifyError),
    /// The peer does not accept us; only its own log tells why.
    #[error(
        "the peer refused our handshake with the alert {alert}: its log tells why; check our certificate and its CA bundle"
    )]
    RefusedUs {
        /// The alert's name, RFC 8446 section 6.2.
        alert: String,
    },
    /// Any other fault of the handshake.
    #[error("the TLS handshake failed")]
    Tls(#[source] rustls::Error),
    /// The connection ended before TLS was there.
    #[error("the connection ended during the TLS handshake")]
    Handshake(#[source] io::Error),
    /// The peer speaks TLS but not HTTP/2 over it.
    #[error("the peer does not offer HTTP/2 (ALPN h2): check that the port is its internal one")]
    NoHttp2,
    /// The peer closed the connection before its first HTTP/2 frame.
    #[error(
        "the peer closed the connection right after the handshake: its log tells why; it may not accept our certificate"
    )]
    Silent,
    /// HTTP/2 did not begin.
    #[error("HTTP/2 could not begin")]
    Http(#[source] hyper::Error),
}

impl DialError {
    /// The reason as a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Resolve(_) => "resolve",
            Self::Connect(_) => "connect",
            Self::TimedOut { .. } => "timeout",
            Self::NotTls => "not-tls",
            Self::Certificate(why) => why.label(),
            Self::RefusedUs { .. } => "refused-us",
            Self::Tls(_) => "tls",
            Self::Handshake(_) => "eof",
            Self::NoHttp2 => "alpn",
            Self::Silent => "silent",
            Self::Http(_) => "http2",
        }
    }

    /// What a failed read or write of a TLS stream means. rustls' errors travel inside [`io::Error`].
    pub(super) fn of_tls(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned() {
            Some(inner) => Self::of_rustls(inner),
            None => Self::Handshake(error),
        }
    }

    fn of_rustls(error: rustls::Error) -> Self {
        if let Some(why) = VerifyError::of(&error) {
            return Self::Certificate(why.clone());
        }
        match error {
            rustls::Error::AlertReceived(alert) => Self::RefusedUs { alert: format!("{alert:?}") },
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            other => Self::Tls(other),
        }
    }
}

impl ChannelError {
    /// The code under which a caller sees this error.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Deadline { .. } => Code::DeadlineExceeded,
            Self::Broken { reason, .. } => broken(reason),
            Self::Busy { .. } | Self::Metadata { .. } => Code::ResourceExhausted,
            _ => Code::Unavailable,
        }
    }
}

impl From<ChannelError> for Status {
    fn from(error: ChannelError) -> Self {
        let mut status = Self::new(error.code(), chain(&error));
        status.set_source(Arc::new(error));
        status
    }
}

/// What HTTP/2 itself said, if it was HTTP/2 that failed.
pub(super) fn h2(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}

/// The codes of gRPC over HTTP/2, section "Errors", for a stream that the peer reset; everything else is a lost
/// connection.
fn broken(error: &hyper::Error) -> Code {
    match h2(error).filter(|e| e.is_reset()).and_then(h2::Error::reason) {
        Some(h2::Reason::CANCEL) => Code::Cancelled,
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(h2::Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        Some(h2::Reason::REFUSED_STREAM) | None => Code::Unavailable,
        Some(_) => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{LeafNames, Reason};

    fn unreachable(reason: DialError) -> Status {
        let role = "data-node".parse().unwrap();
        ChannelError::Unreachable { role, endpoint: Endpoint::new("127.0.0.1", 1234), reason: Arc::new(reason) }.into()
    }

    #[test]
    fn statuses_name_role_endpoint_and_reason() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let status = unreachable(DialError::Connect(refused));
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(
            status.message(),
            "cannot reach data-node at 127.0.0.1:1234: no TCP connection: check that the peer runs and listens there: \
             connection refused"
        );
        let source = status.source().unwrap();
        assert!(source.downcast_ref::<Arc<ChannelError>>().is_some() || source.is::<ChannelError>());
    }

    #[test]
    fn rustls_errors_are_told_apart() {
        let of = |error: rustls::Error| DialError::of_tls(io::Error::new(io::ErrorKind::InvalidData, error)).label();
        assert_eq!(of(rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired)), "refused-us");
        assert_eq!(of(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)), "not-tls");
        assert_eq!(of(refusal().into_rustls()), "unknown-issuer");
        assert_eq!(of(rustls::Error::HandshakeNotComplete), "tls");
        assert_eq!(DialError::of_tls(io::ErrorKind::UnexpectedEof.into()).label(), "eof");
    }

    fn refusal() -> VerifyError {
        let leaf = LeafNames { serial: "0a".into(), sans: vec!["proxy.mesh.internal".into()] };
        VerifyError { reason: Reason::UnknownIssuer, leaf }
    }

    #[test]
    fn refused_certificates_are_named() {
        let message = unreachable(DialError::of_rustls(refusal().into_rustls())).message().to_owned();
        assert_eq!(
            message,
            "cannot reach data-node at 127.0.0.1:1234: the peer's certificate (serial 0a, names proxy.mesh.internal) is \
             refused: no CA in our bundle signed it"
        );
    }
}
