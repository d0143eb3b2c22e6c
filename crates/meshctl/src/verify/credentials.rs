//! What the probes bring along: the right leaf, and every kind of wrong one.
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use internaltls::inspect;
use rcgen::SanType;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use crate::certs::authority::{Authority, Facts, KeyKind};

/// A leaf and its key.
#[expect(missing_debug_implementations, reason = "holds a private key; nothing may print it by accident")]
pub struct Pair {
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
}

/// A pair, or why there is none.
pub type MaybePair = Result<Pair, String>;

/// How ports of the mesh are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// `<role>.<trust domain>`.
    ByRole {
        /// The domain.
        trust_domain: String,
    },
    /// One name that all nodes bear.
    Shared(String),
}

impl Naming {
    /// The name to send to a node of `role`.
    #[must_use]
    pub fn right(&self, role: &str) -> String {
        match self {
            Self::ByRole { trust_domain } => format!("{role}.{trust_domain}"),
            Self::Shared(name) => name.clone(),
        }
    }

    /// A name of this mesh, but not that of `role`.
    #[must_use]
    pub fn wrong(&self, role: &str) -> String {
        match self {
            Self::ByRole { trust_domain } => {
                format!("{}.{trust_domain}", if role == "proxy" { "coordinator" } else { "proxy" })
            }
            Self::Shared(name) => format!("not-{name}"),
        }
    }
}

/// Everything that is brought along.
#[expect(missing_debug_implementations, reason = "holds private keys; nothing may print them by accident")]
pub struct Credentials {
    /// How ports are named.
    pub naming: Naming,
    /// The CAs of the mesh.
    pub roots: rustls::RootCertStore,
    /// The operator's leaf, or the shared one.
    pub right: Pair,
    /// The same names, signed by a CA of the same name with another key.
    pub foreign: Pair,
    /// What clients of the edge are given.
    pub edge_client: MaybePair,
    /// The right names, signed by the right CA, valid until a minute ago.
    pub expired: MaybePair,
}

impl Credentials {
    /// Loads what lies in `folder`: made by `certs init` in either layout.
    ///
    /// # Errors
    /// When there is no leaf there that the mesh serves, or it cannot be read.
    pub fn load(folder: &Path, now: OffsetDateTime) -> anyhow::Result<Self> {
        let operator = folder.join("mesh/operator-1");
        if operator.join("server.pem").exists() {
            return Self::assemble(&operator, &folder.join("mesh"), &folder.join("edge"), now);
        }
        if folder.join("server.pem").exists() {
            return Self::assemble(folder, folder, folder, now);
        }
        bail!(
            "no leaf to verify with in {}: expected mesh/operator-1/server.pem (as `meshctl certs init` makes it) or server.pem",
            folder.display()
        )
    }

    fn assemble(right: &Path, authority: &Path, edge: &Path, now: OffsetDateTime) -> anyhow::Result<Self> {
        let facts = Facts::of_file(&right.join("server.pem"))?;
        Ok(Self {
            naming: naming(&facts.request.sans).with_context(|| {
                format!("cannot tell how the mesh is named from {}", right.join("server.pem").display())
            })?,
            roots: roots(&right.join("ca.pem"))?,
            right: Pair::load(right, "server")?,
            foreign: foreign(&right.join("ca.pem"), &facts, now)?,
            edge_client: Pair::load(edge, "client").map_err(|error| format!("{error:#}")),
            expired: expired(right, authority, &facts, now).map_err(|error| format!("{error:#}")),
        })
    }
}

impl Pair {
    /// `<stem>.pem` and `<stem>.key` of a folder.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn load(folder: &Path, stem: &str) -> anyhow::Result<Self> {
        let (cert, key) = (folder.join(format!("{stem}.pem")), folder.join(format!("{stem}.key")));
        let read = || anyhow::Ok(Self { chain: inspect::certificates(&cert)?, key: inspect::private_key(&key)? });
        read().with_context(|| format!("{} and {} are not a leaf and its key", cert.display(), key.display()))
    }

    fn parse(cert: &[u8], key: &[u8]) -> anyhow::Result<Self> {
        let chain = inspect::certificates_in(Path::new("the leaf made here"), cert)?;
        Ok(Self { chain, key: PrivateKeyDer::from_pem_slice(key)? })
    }
}

impl Clone for Pair {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// A URI SAN of the mesh names the trust domain; a leaf without one is shared, and bears the name it is called by.
pub(crate) fn naming(sans: &[SanType]) -> anyhow::Result<Naming> {
    let domain = sans.iter().find_map(|san| match san {
        SanType::URI(uri) => uri.as_str().strip_prefix("spiffe://")?.split('/').next().map(str::to_owned),
        _ => None,
    });
    let dns = sans.iter().find_map(|san| match san {
        SanType::DnsName(name) => Some(name.as_str().to_owned()),
        _ => None,
    });
    match (domain, dns) {
        (Some(trust_domain), _) => Ok(Naming::ByRole { trust_domain }),
        (None, Some(name)) => Ok(Naming::Shared(name)),
        (None, None) => bail!("the leaf has no SAN"),
    }
}

fn roots(path: &Path) -> anyhow::Result<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    for cert in inspect::certificates(path)? {
        roots.add(cert).with_context(|| format!("{} holds a certificate that is no CA", path.display()))?;
    }
    Ok(roots)
}

/// As alike as it can be made without the key: the same CA name, the same leaf names.
fn foreign(ca: &Path, facts: &Facts, now: OffsetDateTime) -> anyhow::Result<Pair> {
    let lookalike = Authority::create_as(Facts::of_file(ca)?.request.subject, KeyKind::EcP256, now)?;
    let issued = lookalike.issue(&facts.request, Duration::from_secs(600), now)?;
    Pair::parse(issued.cert_pem.as_bytes(), issued.key_pem.as_bytes())
}

/// Signed on the spot, with the right leaf's own key, so that nothing but its age is wrong with it.
fn expired(right: &Path, authority: &Path, facts: &Facts, now: OffsetDateTime) -> anyhow::Result<Pair> {
    if !authority.join("ca.key").exists() {
        bail!("the mesh CA's key is not at hand ({})", authority.join("ca.key").display());
    }
    let key = inspect::private_key(&right.join("server.key"))?;
    let (from, until) = (now - Duration::from_secs(3_600), now - Duration::from_secs(60));
    let issued = Authority::load(authority, now)?.reissue(&facts.request, &key, from, until)?;
    Pair::parse(issued.cert_pem.as_bytes(), issued.key_pem.as_bytes())
}
