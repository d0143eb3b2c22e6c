//! Whether a parsed set is fit. Pure: the time is an argument.
//!
//! The last of all checks is the one that peers will make: our own leaf, judged by our own bundle, CRLs and distrust list.
//! The checks before it are there to say what is wrong in words with a remedy.
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, DnsName};

use super::generation::Purpose;
use super::parse::{Pair, Parsed};
use super::status::Layout;
use crate::config::EdgeMode;
use crate::error::{LoadError, MaterialFile, Part, Reason};
use crate::identity::{Identity, bears_name, claims_a_node};
use crate::verify::{Anchor, CertificateFacts, KeyRing, Lists, PeerSide, Rules, SharedKey, Trust};

/// A set that is fit, and how it is to be used.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) server: Pair,
    pub(super) client: Option<Pair>,
    /// `None` at an edge.
    pub(super) layout: Option<Layout>,
    pub(super) anchors: Vec<Anchor>,
    pub(super) lists: Lists,
}

impl Checked {
    /// The public keys that nodes with this set show.
    pub(super) fn keys(&self) -> Vec<SharedKey> {
        std::iter::once(&self.server).chain(&self.client).map(Pair::shared_key).collect()
    }

    /// The pair to dial with.
    pub(super) fn dialer(&self) -> &Pair {
        self.client.as_ref().unwrap_or(&self.server)
    }
}

/// Judges a set as of `now`.
pub(super) fn check(parsed: Parsed, purpose: &Purpose, now: SystemTime) -> Result<Checked, LoadError> {
    by_itself(&parsed.server, now, true)?;
    if let Some(client) = &parsed.client {
        by_itself(client, now, false)?;
    }
    match purpose {
        Purpose::Mesh { .. } => check_mesh(parsed, purpose, now),
        Purpose::Edge { mode, .. } => check_edge(parsed, *mode, now),
    }
}

/// What is asked of every pair of ours.
fn by_itself(pair: &Pair, now: SystemTime, named: bool) -> Result<(), LoadError> {
    judge_kind(&pair.certificate, &pair.facts)?;
    if pair.certified.keys_match().is_err() {
        return Err(LoadError::KeyMismatch { certificate: pair.certificate.clone(), key: pair.key.clone() });
    }
    judge_names_and_time(&pair.certificate, &pair.facts, now, named)
}

/// The same of a leaf whose key is not at hand.
pub(super) fn judge_facts(
    file: &MaterialFile,
    facts: &CertificateFacts,
    now: SystemTime,
    named: bool,
) -> Result<(), LoadError> {
    judge_kind(file, facts)?;
    judge_names_and_time(file, facts, now, named)
}

fn judge_kind(file: &MaterialFile, facts: &CertificateFacts) -> Result<(), LoadError> {
    if facts.can_sign() {
        return Err(LoadError::CaAsLeaf(file.clone()));
    }
    match &facts.weak_key {
        Some(what) => Err(LoadError::WeakKey { file: file.clone(), what: what.clone() }),
        None => Ok(()),
    }
}

fn judge_names_and_time(
    file: &MaterialFile,
    facts: &CertificateFacts,
    now: SystemTime,
    named: bool,
) -> Result<(), LoadError> {
    if named && facts.sans.is_empty() {
        return Err(LoadError::NoSan(file.clone()));
    }
    if now < facts.not_before {
        return Err(LoadError::NotYetValid { file: file.clone(), not_before: facts.not_before });
    }
    if now > facts.not_after {
        return Err(LoadError::Expired { file: file.clone(), not_after: facts.not_after });
    }
    Ok(())
}

fn check_mesh(parsed: Parsed, purpose: &Purpose, now: SystemTime) -> Result<Checked, LoadError> {
    let ca = anchors_at(&parsed, now)?;
    let layout = layout(&parsed.server, purpose)?;
    let checked = Checked {
        server: parsed.server,
        client: parsed.client,
        layout: Some(layout),
        anchors: parsed.anchors,
        lists: parsed.lists,
    };
    own_names(&checked, purpose)?;
    own_usages(&checked)?;
    as_peers_will(checked, purpose, &ca, now)
}

/// The clients of an edge are judged by its CA, its own leaf by whoever dials it.
fn check_edge(parsed: Parsed, mode: EdgeMode, now: SystemTime) -> Result<Checked, LoadError> {
    if mode == EdgeMode::TwoWay {
        anchors_at(&parsed, now)?;
    }
    if parsed.server.facts.usages.is_some_and(|usages| !usages.server_auth) {
        return Err(LoadError::Usage { file: parsed.server.certificate, missing: "serverAuth" });
    }
    Ok(Checked { server: parsed.server, client: None, layout: None, anchors: parsed.anchors, lists: parsed.lists })
}

/// Some anchor must be usable now.
fn anchors_at(parsed: &Parsed, now: SystemTime) -> Result<MaterialFile, LoadError> {
    let ca = parsed.ca.clone().ok_or(LoadError::NoCa { edge: parsed.server.certificate.edge })?;
    if parsed.anchors.iter().any(|anchor| anchor.valid_at(now) && anchor.may_sign()) {
        Ok(ca)
    } else {
        Err(LoadError::NoValidCa(ca))
    }
}

/// A configured shared name decides; then a node's URI SAN, also of a trust domain that is not ours: such a leaf is refused as
/// a node's, not taken for one that all share; then the only DNS SAN.
fn layout(server: &Pair, purpose: &Purpose) -> Result<Layout, LoadError> {
    let Purpose::Mesh { shared_name, .. } = purpose else {
        return Ok(Layout::PerNode);
    };
    let facts = &server.facts;
    match (shared_name, facts.dns.as_slice()) {
        (Some(name), _) => shared(name),
        _ if claims_a_node(&facts.uris) => Ok(Layout::PerNode),
        (None, [name]) => shared(name),
        (None, []) => Err(LoadError::NoSan(server.certificate.clone())),
        (None, names) => Err(LoadError::SeveralNames { file: server.certificate.clone(), names: names.to_vec() }),
    }
}

/// It is sent as SNI. Its case does not count, so it is kept in the one that rustls sends.
fn shared(name: &str) -> Result<Layout, LoadError> {
    match DnsName::try_from(name) {
        Ok(dns) => Ok(Layout::Shared { name: dns.as_ref().to_ascii_lowercase() }),
        Err(_) => Err(LoadError::BadSharedName { name: name.to_owned() }),
    }
}

fn own_names(checked: &Checked, purpose: &Purpose) -> Result<(), LoadError> {
    match &checked.layout {
        Some(Layout::Shared { name }) => bears(&checked.server, name),
        _ => std::iter::once(&checked.server).chain(&checked.client).try_for_each(|pair| is_ours(pair, purpose)),
    }
}

fn bears(pair: &Pair, name: &str) -> Result<(), LoadError> {
    if bears_name(&pair.facts.dns, name) {
        return Ok(());
    }
    let (file, names) = (pair.certificate.clone(), pair.facts.dns.clone());
    Err(LoadError::NameMissing { file, expected: name.to_owned(), names })
}

fn is_ours(pair: &Pair, purpose: &Purpose) -> Result<(), LoadError> {
    let Purpose::Mesh { trust_domain, role, node, .. } = purpose else {
        return Ok(());
    };
    let file = pair.certificate.clone();
    let found = Identity::from_names(trust_domain, &pair.facts.dns, &pair.facts.uris)
        .map_err(|source| LoadError::BadIdentity { file: file.clone(), source })?;
    let ours = Identity::Node { trust_domain: trust_domain.clone(), role: role.clone(), node: node.clone() };
    if found == ours {
        Ok(())
    } else {
        Err(LoadError::OtherNode { file, found: found.to_string(), expected: ours.to_string() })
    }
}

/// A node both serves and dials: its one leaf needs both usages, of two leaves each needs its own. A shared leaf is known
/// by its key, and the documented one has serverAuth alone.
fn own_usages(checked: &Checked) -> Result<(), LoadError> {
    if matches!(checked.layout, Some(Layout::Shared { .. })) {
        return Ok(());
    }
    let lacks = |pair: &Pair, missing| LoadError::Usage { file: pair.certificate.clone(), missing };
    if !checked.server.facts.usages.is_some_and(|usages| usages.server_auth) {
        return Err(lacks(&checked.server, "serverAuth"));
    }
    if !checked.dialer().facts.usages.is_some_and(|usages| usages.client_auth) {
        return Err(lacks(checked.dialer(), "clientAuth"));
    }
    Ok(())
}

fn as_peers_will(
    checked: Checked,
    purpose: &Purpose,
    ca: &MaterialFile,
    now: SystemTime,
) -> Result<Checked, LoadError> {
    let ring = Arc::new(KeyRing::of(checked.keys()));
    let rules = rules(purpose, checked.layout.as_ref(), ring);
    let trust = Trust::new(checked.anchors, checked.lists, rules);
    vouch(&trust, &checked.server, PeerSide::Server, ca, now)?;
    vouch(&trust, checked.client.as_ref().unwrap_or(&checked.server), PeerSide::Client, ca, now)?;
    Ok(Checked { anchors: trust.anchors, lists: trust.lists, ..checked })
}

fn vouch(trust: &Trust, pair: &Pair, side: PeerSide, ca: &MaterialFile, now: SystemTime) -> Result<(), LoadError> {
    let chain: &[CertificateDer<'_>] = &pair.certified.cert;
    let (certificate, ca) = (pair.certificate.clone(), ca.clone());
    trust.vouch(chain, side, None, now).map(drop).map_err(|source| match source.reason {
        Reason::UriConstraint => LoadError::UriConstraint { certificate, ca },
        _ => LoadError::Untrusted { certificate, ca, source: Box::new(source) },
    })
}

/// What this purpose asks of peers.
pub(super) fn rules(purpose: &Purpose, layout: Option<&Layout>, keys: Arc<KeyRing>) -> Rules {
    match (purpose, layout) {
        (Purpose::Mesh { .. }, Some(Layout::Shared { name })) => Rules::Shared { name: name.clone(), keys },
        (Purpose::Mesh { trust_domain, .. }, _) => Rules::PerNode { trust_domain: trust_domain.clone() },
        (Purpose::Edge { require_client_auth_eku, .. }, _) => {
            Rules::Edge { require_client_auth: *require_client_auth_eku }
        }
    }
}

/// A running mesh cannot change its layout: its peers could not follow at the same moment.
pub(super) fn same_layout(served: Option<&Layout>, new: &Checked) -> Result<(), LoadError> {
    match (served, &new.layout) {
        (Some(from), Some(to)) if from != to => {
            let file = MaterialFile { part: Part::Certificate, ..new.server.certificate.clone() };
            Err(LoadError::LayoutChanged { file, from: from.to_string(), to: to.to_string() })
        }
        _ => Ok(()),
    }
}
