//! Why a connection came to nothing before its first call.
use std::io;

use rustls::{CertificateError, InvalidMessage, OtherError, PeerIncompatible};

use super::metered::TooManyBytes;
use crate::error::VerifyError;
use crate::foreign;

/// Why a handshake failed. `Display` is what the log says; [`Refusal::label`] is what the metric says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the handshake took longer than its limit")]
    Timeout,
    #[error("it gave way to others: too many handshakes are under way, most of them from its address")]
    Crowded,
    #[error("this listener is shutting down")]
    Shutdown,
    #[error("the client sent no server name; the mesh wants exactly its own")]
    MissingSni,
    #[error("the client asked for another server name")]
    ForeignSni,
    #[error("{0}")]
    Unvouched(VerifyError),
    #[error("by a generation published during the handshake, {0}")]
    Overtaken(VerifyError),
    #[error("the client speaks HTTP without TLS")]
    PlaintextHttp,
    #[error("{0}")]
    TooManyBytes(TooManyBytes),
    #[error("{}", describe(.0))]
    Tls(rustls::Error),
    #[error("the connection failed: {}", foreign::sentence(&.0.to_string()))]
    Io(io::Error),
}

impl Refusal {
    /// Finds in an error of the stream what it was about.
    pub(crate) fn of(error: io::Error) -> Self {
        let (kind, raw) = (error.kind(), error.raw_os_error());
        match error.into_inner() {
            None => Self::Io(raw.map_or_else(|| kind.into(), io::Error::from_raw_os_error)),
            Some(inner) => match inner.downcast::<rustls::Error>() {
                Ok(tls) => Self::Tls(*tls),
                Err(inner) => match inner.downcast::<TooManyBytes>() {
                    Ok(limit) => Self::TooManyBytes(*limit),
                    Err(inner) => Self::Io(io::Error::new(kind, inner)),
                },
            },
        }
    }

    /// The reason as a metric's label.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Crowded => "crowded",
            Self::Shutdown => "shutdown",
            Self::MissingSni => "missing-sni",
            Self::ForeignSni => "foreign-sni",
            Self::Unvouched(error) | Self::Overtaken(error) => error.label(),
            Self::PlaintextHttp => "plaintext-http",
            Self::TooManyBytes(_) => "too-many-bytes",
            Self::Tls(error) => tls_label(error),
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => "closed",
            Self::Io(_) => "io",
        }
    }

    /// Whether it is worth a warning: somebody was refused, and did not merely go away.
    pub(crate) fn is_grave(&self) -> bool {
        !matches!(self, Self::Io(_) | Self::Shutdown)
    }
}

/// The verifier's own error, which rustls carries where it has no word of its own.
fn verify_error(error: &rustls::Error) -> Option<&VerifyError> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref(),
        _ => None,
    }
}

fn describe(error: &rustls::Error) -> String {
    match (error, verify_error(error)) {
        (_, Some(verify)) => verify.to_string(),
        (rustls::Error::NoCertificatesPresented, _) => "the client showed no certificate".to_owned(),
        _ => format!("TLS failed: {}", foreign::sentence(&error.to_string())),
    }
}

fn tls_label(error: &rustls::Error) -> &'static str {
    use rustls::Error as E;
    match error {
        E::InvalidCertificate(certificate) => {
            verify_error(error).map_or_else(|| certificate_label(certificate), VerifyError::label)
        }
        E::NoCertificatesPresented => "no-client-certificate",
        E::AlertReceived(_) => "peer-alert",
        E::NoApplicationProtocol => "no-common-protocol",
        E::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => "not-tls",
        E::InvalidMessage(_) => "malformed",
        E::PeerIncompatible(incompatible) => incompatible_label(incompatible),
        _ => "tls",
    }
}

fn certificate_label(error: &CertificateError) -> &'static str {
    use CertificateError as C;
    match error {
        C::Expired | C::ExpiredContext { .. } => "expired",
        C::NotValidYet | C::NotValidYetContext { .. } => "not-yet-valid",
        C::UnknownIssuer => "unknown-issuer",
        C::Revoked => "revoked",
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => "wrong-usage",
        C::BadEncoding => "bad-encoding",
        C::BadSignature => "bad-signature",
        _ => "bad-certificate",
    }
}

fn incompatible_label(error: &PeerIncompatible) -> &'static str {
    use PeerIncompatible as P;
    match error {
        P::ServerTlsVersionIsDisabledByOurConfig
        | P::SupportedVersionsExtensionRequired
        | P::Tls12NotOffered
        | P::Tls12NotOfferedOrEnabled
        | P::Tls13RequiredForQuic => "protocol-version",
        _ => "incompatible",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Refusal {
        Refusal::of(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn finds_the_reason_within() {
        let label = |error: rustls::Error| wrapped(error).label();
        assert_eq!(label(rustls::Error::NoCertificatesPresented), "no-client-certificate");
        assert_eq!(label(InvalidMessage::InvalidContentType.into()), "not-tls");
        assert_eq!(label(PeerIncompatible::Tls12NotOfferedOrEnabled.into()), "protocol-version");
        assert_eq!(label(CertificateError::UnknownIssuer.into()), "unknown-issuer");
        assert_eq!(Refusal::of(io::ErrorKind::UnexpectedEof.into()).label(), "closed");
        assert_eq!(Refusal::of(io::ErrorKind::ConnectionReset.into()).label(), "io");
    }

    #[test]
    fn keeps_an_operating_system_error() {
        let error = Refusal::of(io::Error::from_raw_os_error(rustix::io::Errno::CONNRESET.raw_os_error()));
        assert!(error.to_string().contains("reset"), "{error}");
    }
}
