//! One checked, immutable set with every TLS config built from it.
//!
//! 1. There is one way to build a config, here. A reload cannot forget what the start had.
//! 2. Where a client certificate counts, nothing is resumed: no tickets, no store on either side, no early data. rustls
//!    restores a client's chain from a ticket without verifying it again, so anything else lets the distrusted back in.
//! 3. The provider, its suites and its groups are named one by one. Defaults differ between builds of rustls.
//! 4. Keys are not logged: no config has a key log, whatever the environment says.
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use super::check::{Checked, rules};
use super::kind::KeyKind;
use super::status::Layout;
use crate::clock::{Clock, TimeSource};
use crate::config::{EdgeMode, TlsVersion};
use crate::error::{LoadError, VerifyError};
use crate::identity::{NodeId, Role, TrustDomain, role_name, same_name};
use crate::verify::{CertificateFacts, ClientSide, Expected, KeyRing, Notices, PeerSide, ServerSide, Trust, Vouched};

/// What material is for.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    /// Links between nodes.
    Mesh { trust_domain: TrustDomain, role: Role, node: NodeId, shared_name: Option<String> },
    /// Clients from outside.
    Edge { mode: EdgeMode, min_version: TlsVersion, require_client_auth_eku: bool },
}

impl Purpose {
    /// Whether certificates of peers are judged: else CA bundle, CRLs and distrust list have no meaning.
    pub(super) fn ca_counts(&self) -> bool {
        !matches!(self, Self::Edge { mode: EdgeMode::Off | EdgeMode::OneWay, .. })
    }

    /// For metrics and logs.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Mesh { .. } => "mesh",
            Self::Edge { .. } => "edge",
        }
    }
}

/// One checked, immutable set of material.
pub(crate) struct Generation {
    /// Counts from 1.
    pub(crate) number: u64,
    pub(crate) loaded_at: SystemTime,
    /// `None` at an edge.
    pub(crate) layout: Option<Layout>,
    pub(crate) leaf: CertificateFacts,
    /// What the leaf's key keeps clients of an edge from.
    pub(super) warning: Option<String>,
    /// The leaf to dial with, where it is another.
    pub(crate) client_leaf: Option<CertificateFacts>,
    pub(crate) server: Arc<ServerConfig>,
    /// `None` at an edge.
    pub(crate) client: Option<Arc<ClientConfig>>,
    pub(super) trust: Arc<Trust>,
    trust_domain: Option<TrustDomain>,
    own_name: Option<String>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("number", &self.number)
            .field("leaf", &self.leaf.names())
            .finish_non_exhaustive()
    }
}

impl Generation {
    /// The SNI that a dialer to this role sends. An edge has none: then a name that nobody bears.
    pub(crate) fn server_name(&self, role: &Role) -> ServerName<'static> {
        let name = match (&self.layout, &self.trust_domain) {
            (Some(Layout::Shared { name }), _) => name.clone(),
            (_, Some(trust_domain)) => role_name(role, trust_domain),
            _ => role.to_string(),
        };
        // A role is a DNS label and a trust domain a DNS name, checked when they were made; a shared name may be neither.
        ServerName::try_from(name).unwrap_or_else(|_| ServerName::from(nobody()))
    }

    /// In the log, as the material of `material`.
    pub(super) fn announce(&self, material: &'static str) {
        tracing::info!(
            material,
            generation = self.number,
            leaf = %self.leaf.names(),
            not_after = %crate::clock::rfc3339(self.leaf.not_after),
            "material loaded"
        );
        if let Some(warning) = &self.warning {
            tracing::warn!(material, leaf = %self.leaf.names(), "{warning}");
        }
    }

    /// Whether a listener with this set answers to that SNI: in the mesh to its own name alone.
    pub(crate) fn accepts_sni(&self, sni: Option<&str>) -> bool {
        self.own_name.as_deref().is_none_or(|own| sni.is_some_and(|sni| same_name(sni, own)))
    }

    /// Whether that peer will accept what this set shows; see [`Trust::keeps_pace`].
    pub(crate) fn keeps_pace(&self, vouched: &Vouched) -> bool {
        self.trust.keeps_pace(vouched)
    }

    /// Verifies a peer's chain in full by this set, as of now.
    pub(crate) fn vouch(
        &self,
        chain: &[CertificateDer<'_>],
        side: PeerSide,
        expect: Option<&Expected>,
    ) -> Result<Vouched, VerifyError> {
        self.trust.vouch(chain, side, expect, self.clock.now())
    }
}

fn nobody() -> DnsName<'static> {
    DnsName::try_from_str("nobody.invalid").unwrap_or_else(|_| unreachable!("a literal that is a DNS name"))
}

/// What a store shares with each of its generations.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) purpose: Purpose,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ring: Arc<KeyRing>,
    /// How long a CRL is good after its next update was due.
    pub(super) crl_grace: Duration,
    pub(super) notices: Arc<dyn Notices>,
}

/// Builds all configs of a checked set.
pub(super) fn build(checked: Checked, number: u64, around: &Surroundings) -> Result<Generation, LoadError> {
    let rules = rules(&around.purpose, checked.layout.as_ref(), Arc::clone(&around.ring));
    let dialer = checked.dialer().clone();
    let trust = Arc::new(Trust::new(checked.anchors, checked.lists, rules));
    let warning = warning(&around.purpose, checked.server.certified.cert.first());
    let file = checked.server.certificate;
    let client_leaf = checked.client.map(|pair| pair.facts);
    let own_name = own_name(&around.purpose, checked.layout.as_ref());
    let failed = |source| LoadError::Config { file: file.clone(), source };
    let resolver = Arc::new(OwnName { own_name: own_name.clone(), key: checked.server.certified });
    let server = server_config(around, &trust, resolver).map_err(failed)?;
    let client = match around.purpose {
        Purpose::Mesh { .. } => Some(Arc::new(client_config(around, &trust, dialer.certified).map_err(failed)?)),
        Purpose::Edge { .. } => None,
    };
    Ok(Generation {
        number,
        loaded_at: around.clock.now(),
        layout: checked.layout,
        leaf: checked.server.facts,
        warning,
        client_leaf,
        server: Arc::new(server),
        client,
        trust,
        trust_domain: trust_domain(&around.purpose),
        own_name,
        clock: Arc::clone(&around.clock),
    })
}

/// Clients of an edge are of many kinds; in the mesh both ends are ours.
fn warning(purpose: &Purpose, leaf: Option<&CertificateDer<'_>>) -> Option<String> {
    match purpose {
        Purpose::Edge { .. } => KeyKind::of(leaf?)?.warning_at_edge(),
        Purpose::Mesh { .. } => None,
    }
}

fn trust_domain(purpose: &Purpose) -> Option<TrustDomain> {
    match purpose {
        Purpose::Mesh { trust_domain, .. } => Some(trust_domain.clone()),
        Purpose::Edge { .. } => None,
    }
}

/// The name that dialers must ask for; `None` at an edge, whose clients may send any name or none.
fn own_name(purpose: &Purpose, layout: Option<&Layout>) -> Option<String> {
    match (purpose, layout) {
        (Purpose::Mesh { .. }, Some(Layout::Shared { name })) => Some(name.clone()),
        (Purpose::Mesh { role, trust_domain, .. }, _) => Some(role_name(role, trust_domain)),
        (Purpose::Edge { .. }, _) => None,
    }
}

/// aws-lc-rs with AES-GCM first and, for key exchange, the post-quantum hybrid first.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    }
}

const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const TLS12_UP: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

fn server_config(
    around: &Surroundings,
    trust: &Arc<Trust>,
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, rustls::Error> {
    let (versions, asks, alpn): (_, _, &[&[u8]]) = match around.purpose {
        Purpose::Mesh { .. } => (TLS13, true, &[b"h2"]),
        Purpose::Edge { mode, min_version, .. } => {
            (at_least(min_version), mode == EdgeMode::TwoWay, &[b"h2", b"http/1.1"])
        }
    };
    let time = Arc::new(TimeSource(Arc::clone(&around.clock)));
    let builder =
        ServerConfig::builder_with_details(Arc::clone(&around.provider), time).with_protocol_versions(versions)?;
    let tls12 = versions.len() > 1;
    let mut config = if asks {
        let clients = ClientSide::new(Arc::clone(trust), algorithms(around), tls12, Arc::clone(&around.notices));
        builder.with_client_cert_verifier(Arc::new(clients)).with_cert_resolver(resolver)
    } else {
        builder.with_no_client_auth().with_cert_resolver(resolver)
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.max_early_data_size = 0;
    if asks {
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(config)
}

fn client_config(
    around: &Surroundings,
    trust: &Arc<Trust>,
    key: Arc<CertifiedKey>,
) -> Result<ClientConfig, rustls::Error> {
    let time = Arc::new(TimeSource(Arc::clone(&around.clock)));
    let servers = ServerSide::new(Arc::clone(trust), algorithms(around), Arc::clone(&around.notices));
    let mut config = ClientConfig::builder_with_details(Arc::clone(&around.provider), time)
        .with_protocol_versions(TLS13)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

fn at_least(version: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match version {
        TlsVersion::V1_2 => TLS12_UP,
        TlsVersion::V1_3 => TLS13,
    }
}

fn algorithms(around: &Surroundings) -> WebPkiSupportedAlgorithms {
    around.provider.signature_verification_algorithms
}

/// Gives out the leaf to who asks for its name: a missing or foreign SNI gets an alert.
struct OwnName {
    own_name: Option<String>,
    key: Arc<CertifiedKey>,
}

impl fmt::Debug for OwnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnName").field("own_name", &self.own_name).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for OwnName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let own = self.own_name.as_deref();
        let asked = own.is_none_or(|own| hello.server_name().is_some_and(|asked| same_name(asked, own)));
        asked.then(|| Arc::clone(&self.key))
    }
}
