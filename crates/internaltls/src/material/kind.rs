//! The kind and size of a certificate's public key. Pure.
//!
//! BoringSSL, which gRPC's C core and so pymilvus and grpcio are built on, offers neither `ed25519` nor
//! `ecdsa_secp521r1_sha512` among its signature algorithms (RFC 8446, section 4.2.3): to its clients a server with such a leaf fails the
//! handshake. Other clients connect, so such a leaf is served, with a warning.
use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// The kind and size of a public key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyKind {
    /// RSA, with the bits of its modulus.
    Rsa(usize),
    /// ECDSA on P-256 (prime256v1).
    P256,
    /// ECDSA on P-384 (secp384r1).
    P384,
    /// ECDSA on P-521 (secp521r1).
    P521,
    /// Ed25519.
    Ed25519,
    /// Another one: its object identifier, of the curve where it is an elliptic one.
    Other(String),
}

impl KeyKind {
    /// The kind of the key in a certificate; `None` where that cannot be parsed.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let key = certificate.public_key();
        if let Ok(PublicKey::RSA(rsa)) = key.parsed() {
            return Some(Self::Rsa(bits(rsa.modulus)));
        }
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let oid = curve.unwrap_or_else(|| key.algorithm.algorithm.clone()).to_id_string();
        Some(match oid.as_str() {
            "1.2.840.10045.3.1.7" => Self::P256,
            "1.3.132.0.34" => Self::P384,
            "1.3.132.0.35" => Self::P521,
            "1.3.101.112" => Self::Ed25519,
            _ => Self::Other(oid),
        })
    }

    /// What to warn of where an edge serves a leaf with such a key.
    #[must_use]
    pub fn warning_at_edge(&self) -> Option<String> {
        matches!(self, Self::P521 | Self::Ed25519).then(|| {
            format!(
                "the leaf's key is {self}: clients built on BoringSSL, as pymilvus and other gRPC clients are, cannot connect; \
                 issue the leaf with a key of ECDSA on P-256 or P-384, or RSA"
            )
        })
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::P256 => f.write_str("ECDSA P-256"),
            Self::P384 => f.write_str("ECDSA P-384"),
            Self::P521 => f.write_str("ECDSA P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(oid) => write!(f, "of the kind {oid}"),
        }
    }
}

fn bits(modulus: &[u8]) -> usize {
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let significant = &modulus[zeros..];
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}
