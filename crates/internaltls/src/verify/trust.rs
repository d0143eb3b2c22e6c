//! Who is let in: the judgement itself. Pure.
//!
//! The order is from what costs nothing to what costs signatures, and the shared key comes last: only a peer that our own
//! CA signed can make us look at the disk again.
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor};

use super::chain::Chain;
use super::constraints::CaUsage;
use super::facts::CertificateFacts;
use super::path;
use super::recent::Recent;
use super::revocation::Lists;
use super::ring::KeyRing;
use crate::error::{LeafNames, Reason, VerifyError};
use crate::identity::{Identity, NodeId, Role, TrustDomain, bears_name, role_name, same_name};

/// Which end of a connection a certificate speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerSide {
    Client,
    Server,
}

/// Who is meant by a dialer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) role: Role,
    pub(crate) node: Option<NodeId>,
}

/// What a verified leaf says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vouched {
    pub(crate) identity: Identity,
    /// Lower-case hex.
    pub(crate) serial: String,
    /// The smallest of the verified path, anchor included.
    pub(crate) not_after: SystemTime,
    pub(crate) spki_sha256: [u8; 32],
    /// Accepted although its usages do not name clientAuth.
    pub(crate) lax_usage: bool,
    /// For logs.
    pub(crate) names: LeafNames,
}

/// One trust anchor, with what webpki's own type leaves out.
#[derive(Debug, Clone)]
pub(crate) struct Anchor {
    pub(crate) anchor: TrustAnchor<'static>,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) facts: CertificateFacts,
}

impl Anchor {
    pub(crate) fn valid_at(&self, now: SystemTime) -> bool {
        self.facts.not_before <= now && now <= self.facts.not_after
    }

    /// KeyUsage, where it is there, must let it sign.
    pub(crate) fn may_sign(&self) -> bool {
        self.facts.may_be_anchor() && self.facts.key_usage.is_none_or(|usage| usage.key_cert_sign)
    }
}

/// What is asked of a peer's leaf beyond its path.
#[derive(Debug, Clone)]
pub(crate) enum Rules {
    /// A leaf a node: usages, and two names that agree.
    PerNode { trust_domain: TrustDomain },
    /// One leaf for all: our own key.
    Shared { name: String, keys: Arc<KeyRing> },
    /// Clients of the edge.
    Edge { require_client_auth: bool },
}

/// All that judges a peer. Immutable, but for the ring of shared keys, and for what was verified a moment ago.
#[derive(Debug)]
pub(crate) struct Trust {
    pub(crate) anchors: Vec<Anchor>,
    pub(crate) lists: Lists,
    pub(crate) rules: Rules,
    recent: Recent,
}

impl Trust {
    pub(crate) fn new(anchors: Vec<Anchor>, lists: Lists, rules: Rules) -> Self {
        Self { anchors, lists, rules, recent: Recent::default() }
    }

    /// Whether a peer that was vouched for will accept what we show now. In the shared layout one that showed another key
    /// than ours of now has not got our files yet.
    pub(crate) fn keeps_pace(&self, vouched: &Vouched) -> bool {
        match &self.rules {
            Rules::Shared { keys, .. } => keys.is_current(&vouched.spki_sha256),
            Rules::PerNode { .. } | Rules::Edge { .. } => true,
        }
    }

    /// The ring of shared keys; `None` where each node has its own.
    pub(crate) fn shared_keys(&self) -> Option<&Arc<KeyRing>> {
        match &self.rules {
            Rules::Shared { keys, .. } => Some(keys),
            Rules::PerNode { .. } | Rules::Edge { .. } => None,
        }
    }

    /// Whether it tells nodes apart, so that each may follow the files at its own time.
    pub(crate) fn knows_nodes(&self) -> bool {
        matches!(self.rules, Rules::PerNode { .. })
    }

    /// Verifies a peer's chain in full, as of `now`.
    pub(crate) fn vouch(
        &self,
        chain: &[CertificateDer<'_>],
        side: PeerSide,
        expect: Option<&Expected>,
        now: SystemTime,
    ) -> Result<Vouched, VerifyError> {
        let nameless = |reason| VerifyError { reason, leaf: LeafNames::default() };
        if let Some((facts, not_after)) = self.recent.recall(chain, side, now) {
            return self.judge(&facts, side, expect, now, || Ok(not_after));
        }
        let admitted = Chain::admit(chain).map_err(nameless)?;
        let leaf = chain.first().ok_or_else(|| nameless(Reason::NoCertificate))?;
        let facts = Arc::new(CertificateFacts::read(leaf).map_err(nameless)?);
        self.judge(&facts, side, expect, now, || {
            let algorithms = webpki::ALL_VERIFICATION_ALGS;
            let usage = self.ca_usage(side);
            let asked = path::Asked { chain: &admitted, facts: &facts, usage, now, algorithms };
            let not_after = path::verify(self, &asked)?;
            self.recent.remember(chain, side, &facts, not_after, now);
            Ok(not_after)
        })
    }

    /// `path` is the one dear part of a judgement.
    fn judge(
        &self,
        facts: &CertificateFacts,
        side: PeerSide,
        expect: Option<&Expected>,
        now: SystemTime,
        path: impl FnOnce() -> Result<SystemTime, Reason>,
    ) -> Result<Vouched, VerifyError> {
        self.judged(facts, side, expect, now, path).map_err(|reason| VerifyError { reason, leaf: facts.names() })
    }

    fn judged(
        &self,
        facts: &CertificateFacts,
        side: PeerSide,
        expect: Option<&Expected>,
        now: SystemTime,
        path: impl FnOnce() -> Result<SystemTime, Reason>,
    ) -> Result<Vouched, Reason> {
        self.leaf_itself(facts, side)?;
        let not_after = path()?;
        let lax_usage = self.usages(facts, side)?;
        let identity = self.identity(facts, side, now)?;
        expect.map_or(Ok(()), |expect| expected(expect, &identity))?;
        Ok(Vouched {
            identity,
            serial: facts.serial.clone(),
            not_after,
            spki_sha256: facts.spki_sha256,
            lax_usage,
            names: facts.names(),
        })
    }

    fn leaf_itself(&self, facts: &CertificateFacts, side: PeerSide) -> Result<(), Reason> {
        if facts.can_sign() {
            return Err(Reason::CaAsLeaf);
        }
        if let Some(what) = &facts.weak_key {
            return Err(Reason::WeakKey(what.clone()));
        }
        let nameless_is_fine = side == PeerSide::Client && !matches!(self.rules, Rules::PerNode { .. });
        if facts.sans.is_empty() && !nameless_is_fine {
            return Err(Reason::NoSan);
        }
        Ok(())
    }

    /// Whether the leaf passes only because the edge is told to be lax.
    fn usages(&self, facts: &CertificateFacts, side: PeerSide) -> Result<bool, Reason> {
        let named = facts.usages.is_some_and(|usages| match side {
            PeerSide::Client => usages.client_auth,
            PeerSide::Server => usages.server_auth,
        });
        let missing = match side {
            PeerSide::Client => "clientAuth",
            PeerSide::Server => "serverAuth",
        };
        match &self.rules {
            Rules::PerNode { .. } if !named => Err(Reason::WrongUsage { missing }),
            Rules::Edge { require_client_auth: true } if !named => Err(Reason::WrongUsage { missing }),
            Rules::Edge { require_client_auth: false } => Ok(!named && facts.usages.is_some()),
            _ => Ok(false),
        }
    }

    /// What the CAs above a peer's leaf must be good for: what is asked of the leaf.
    fn ca_usage(&self, side: PeerSide) -> CaUsage {
        match (&self.rules, side) {
            (Rules::Shared { .. }, _) => CaUsage::Any,
            (Rules::Edge { require_client_auth: false }, PeerSide::Client) => CaUsage::Either,
            (_, PeerSide::Client) => CaUsage::Client,
            (_, PeerSide::Server) => CaUsage::Server,
        }
    }

    fn identity(&self, facts: &CertificateFacts, side: PeerSide, now: SystemTime) -> Result<Identity, Reason> {
        match &self.rules {
            Rules::PerNode { trust_domain } => {
                Identity::from_names(trust_domain, &facts.dns, &facts.uris).map_err(Reason::BadIdentity)
            }
            Rules::Shared { name, keys } => {
                if side == PeerSide::Server && !bears_name(&facts.dns, name) {
                    return Err(Reason::NameMismatch { expected: name.clone() });
                }
                if keys.holds(&facts.spki_sha256, now) { Ok(Identity::Shared) } else { Err(Reason::UnknownSharedKey) }
            }
            Rules::Edge { .. } => {
                let names = facts.names();
                let name = names.sans.first().unwrap_or(&facts.subject).as_str().into();
                Ok(Identity::Client { name })
            }
        }
    }

    /// Whether the name that a dialer asked for is this peer's: DNS names, so without regard to case.
    pub(crate) fn is_called(&self, vouched: &Vouched, asked: &ServerName<'_>) -> Result<(), Reason> {
        let ServerName::DnsName(asked) = asked else {
            return Err(Reason::NameMismatch { expected: asked.to_str().into_owned() });
        };
        let called = match (&self.rules, &vouched.identity) {
            (Rules::PerNode { trust_domain }, Identity::Node { role, .. }) => {
                same_name(&role_name(role, trust_domain), asked.as_ref())
            }
            (Rules::Shared { name, .. }, Identity::Shared) => same_name(name, asked.as_ref()),
            _ => false,
        };
        if called { Ok(()) } else { Err(Reason::NameMismatch { expected: asked.as_ref().to_owned() }) }
    }
}

/// A shared leaf tells no role and no node apart: its key is all there is to ask.
fn expected(expect: &Expected, found: &Identity) -> Result<(), Reason> {
    match found {
        Identity::Shared => Ok(()),
        Identity::Node { role, .. } if *role != expect.role => {
            Err(Reason::NameMismatch { expected: expect.role.to_string() })
        }
        Identity::Node { node, .. } => match &expect.node {
            Some(meant) if meant != node => Err(Reason::NodeMismatch { expected: meant.to_string() }),
            _ => Ok(()),
        },
        _ => Err(Reason::NameMismatch { expected: expect.role.to_string() }),
    }
}
