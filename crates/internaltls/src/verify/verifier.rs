//! Our judgement, as rustls asks for it.
//!
//! Both verifiers mean mandatory: a client without a certificate does not get in. Neither hints at its CAs: names of
//! internal CAs are nobody's business before the handshake is done, and a client whose CA is being rolled over would
//! find itself missing in the hints and send nothing.
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::trust::{PeerSide, Trust, Vouched};
use crate::clock::system;
use crate::error::{Reason, VerifyError};

/// What a signature in a TLS 1.3 handshake may be made with.
const TLS13_SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::ECDSA_NISTP521_SHA512,
];

const TLS13_ONLY: &str = "TLS 1.2 is not spoken here";

/// Told of what the owner of the material should know.
pub(crate) trait Notices: Send + Sync {
    /// A client was accepted whose usages do not name clientAuth.
    fn lax_client(&self, vouched: &Vouched);
    /// A peer of our CA showed a shared key that we do not know.
    fn unknown_key(&self);
}

/// Verifies clients.
pub(crate) struct ClientSide {
    trust: Arc<Trust>,
    algorithms: WebPkiSupportedAlgorithms,
    tls12: bool,
    owner: Arc<dyn Notices>,
}

/// Verifies servers.
pub(crate) struct ServerSide {
    trust: Arc<Trust>,
    algorithms: WebPkiSupportedAlgorithms,
    owner: Arc<dyn Notices>,
}

impl ClientSide {
    pub(crate) fn new(
        trust: Arc<Trust>,
        algorithms: WebPkiSupportedAlgorithms,
        tls12: bool,
        owner: Arc<dyn Notices>,
    ) -> Self {
        Self { trust, algorithms, tls12, owner }
    }
}

impl ServerSide {
    pub(crate) fn new(trust: Arc<Trust>, algorithms: WebPkiSupportedAlgorithms, owner: Arc<dyn Notices>) -> Self {
        Self { trust, algorithms, owner }
    }
}

impl fmt::Debug for ClientSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSide").finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSide").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientSide {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = chain(end_entity, intermediates);
        let vouched = self.trust.vouch(&chain, PeerSide::Client, None, system(now));
        let vouched = vouched.map_err(|error| tell(error, &*self.owner))?;
        if vouched.lax_usage {
            self.owner.lax_client(&vouched);
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.tls12 {
            verify_tls12_signature(message, cert, dss, &self.algorithms)
        } else {
            Err(Error::General(TLS13_ONLY.to_owned()))
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        if self.tls12 { self.algorithms.supported_schemes() } else { TLS13_SCHEMES.to_vec() }
    }
}

impl ServerCertVerifier for ServerSide {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = chain(end_entity, intermediates);
        let vouched = self.trust.vouch(&chain, PeerSide::Server, None, system(now));
        let vouched = vouched.map_err(|error| tell(error, &*self.owner))?;
        let called = self.trust.is_called(&vouched, server_name);
        called.map_err(|reason| VerifyError { reason, leaf: vouched.names }.into_rustls())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General(TLS13_ONLY.to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        TLS13_SCHEMES.to_vec()
    }
}

/// The chain, its bytes left where they are: it may be longer than anything that is taken.
fn chain<'a>(end_entity: &'a CertificateDer<'_>, intermediates: &'a [CertificateDer<'_>]) -> Vec<CertificateDer<'a>> {
    [end_entity].into_iter().chain(intermediates).map(|der| CertificateDer::from(der.as_ref())).collect()
}

fn tell(error: VerifyError, owner: &dyn Notices) -> Error {
    if error.reason == Reason::UnknownSharedKey {
        owner.unknown_key();
    }
    error.into_rustls()
}
