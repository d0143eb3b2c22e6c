//! Who a peer is, read from a verified leaf. Pure.
//!
//! 1. A name is exact: lower-case letters, digits and inner hyphens. No wildcard, no substring, nothing from the subject's CN.
//!    DNS names, and with them the trust domain, compare without case (RFC 4343); role and node id of a URI byte by byte.
//! 2. A node's leaf bears two names that must agree: the DNS SAN `<role>.<trust domain>`, which a dialer sends as SNI
//!    and the handshake verifies, and the URI SAN `spiffe://<trust domain>/<role>/<node id>`, which says which node it is. As
//!    SPIFFE's X.509-SVID has it (section 2), there is no other URI SAN.
//! 3. A leaf shared by all nodes says nothing about roles: its bearer is [`Identity::Shared`].
use std::fmt;
use std::sync::Arc;

use crate::foreign;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} `{text}` must be 1 to {max} of a-z, 0-9, '-' or '_' (a trust domain also '.'), beginning and ending with a letter or digit"
)]
pub struct NameError {
    what: &'static str,
    text: String,
    max: usize,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $max:literal, $extra:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks and keeps a name.
            ///
            /// # Errors
            /// [`NameError`] when the text is empty, too long or has a character outside the alphabet.
            pub fn new(text: &str) -> Result<Self, NameError> {
                let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || $extra.contains(c);
                let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
                let fits = !text.is_empty()
                    && text.len() <= $max
                    && text.chars().all(inner)
                    && text.starts_with(outer)
                    && text.ends_with(outer)
                    && !text.contains("..");
                if fits {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError { what: $what, text: foreign::name(text), max: $max })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    };
}

name!(
    /// The domain within which role names mean something, such as `mesh.internal`.
    TrustDomain, "trust domain", 200, "-."
);
name!(
    /// What a process does: `proxy`, `coordinator`, `data-node`, `operator`, … One DNS label, 63 bytes at most.
    Role, "role", 63, "-"
);
name!(
    /// Which process of a role: `data-node-1`. Unique within its role.
    NodeId, "node id", 128, "-_."
);

impl Default for TrustDomain {
    /// `mesh.internal`.
    fn default() -> Self {
        Self("mesh.internal".into())
    }
}

/// Who stands at the other end of a connection, as far as its certificate proves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Identity {
    /// A node with a leaf of its own.
    Node {
        /// The domain that its CA names.
        trust_domain: TrustDomain,
        /// Its role.
        role: Role,
        /// Which node of that role.
        node: NodeId,
    },
    /// A bearer of the one leaf that all nodes share; roles cannot be told apart.
    Shared,
    /// A client of the edge that showed a certificate: outside the mesh, known by its leaf's first name.
    Client {
        /// The first SAN, or the subject where there is none. For logs, never for a decision.
        name: Arc<str>,
    },
    /// A client of the edge that speaks TLS and showed no certificate: nobody asked it for one.
    Anonymous,
    /// No TLS at all: the mesh or the edge's TLS is off.
    Plaintext,
}

impl Identity {
    /// Reads who a node is from the names of its leaf: exactly one URI SAN, `spiffe://` of our trust domain, whose role a DNS SAN
    /// `<role>.<trust domain>` repeats.
    ///
    /// # Errors
    /// [`IdentityError`], by what is missing or does not agree.
    pub fn from_names(trust_domain: &TrustDomain, dns: &[String], uris: &[String]) -> Result<Self, IdentityError> {
        let uri = only_uri(uris)?;
        let (role, node) = split_spiffe(trust_domain, uri)?;
        let name = role_name(&role, trust_domain);
        if bears_name(dns, &name) {
            Ok(Self::Node { trust_domain: trust_domain.clone(), role, node })
        } else {
            Err(IdentityError::NoDnsName { uri: foreign::name(uri), expected: name })
        }
    }

    /// The role, where there is one.
    #[must_use]
    pub fn role(&self) -> Option<&Role> {
        match self {
            Self::Node { role, .. } => Some(role),
            _ => None,
        }
    }

    /// The node, where one is named.
    #[must_use]
    pub fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Node { node, .. } => Some(node),
            _ => None,
        }
    }

    /// The name under which policy knows this identity: the role, `shared`, `client`, `anonymous` or `plaintext`.
    #[must_use]
    pub fn policy_name(&self) -> &str {
        match self {
            Self::Node { role, .. } => role.as_str(),
            Self::Shared => "shared",
            Self::Client { .. } => "client",
            Self::Anonymous => "anonymous",
            Self::Plaintext => "plaintext",
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { trust_domain, role, node } => write!(f, "spiffe://{trust_domain}/{role}/{node}"),
            Self::Shared => f.write_str("shared"),
            Self::Client { name } => write!(f, "client {name}"),
            Self::Anonymous => f.write_str("anonymous"),
            Self::Plaintext => f.write_str("plaintext"),
        }
    }
}

/// Why names do not say who a node is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// No URI SAN begins with `spiffe://`.
    #[error("it has no URI SAN `spiffe://<trust domain>/<role>/<node id>`")]
    NoUri,
    /// There are others beside it.
    #[error("it has {0} URI SANs where one is allowed (SPIFFE X.509-SVID, section 2)")]
    SeveralUris(usize),
    /// Another trust domain.
    #[error("its URI SAN `{uri}` is of another trust domain than `{expected}`")]
    ForeignDomain {
        /// The URI found.
        uri: String,
        /// Ours.
        expected: TrustDomain,
    },
    /// The path is not `/<role>/<node id>`.
    #[error("its URI SAN `{0}` does not read `spiffe://<trust domain>/<role>/<node id>`")]
    BadUri(String),
    /// The role is a word that policy has for those without a node's leaf.
    #[error(
        "its URI SAN `{uri}` names the role `{role}`, a word that policies have for who is no node: choose another"
    )]
    NotARole {
        /// The URI found.
        uri: String,
        /// The word.
        role: String,
    },
    /// The DNS SAN that a dialer verifies is not there.
    #[error("its URI SAN `{uri}` needs the DNS SAN `{expected}` beside it")]
    NoDnsName {
        /// The URI found.
        uri: String,
        /// The DNS SAN that it asks for.
        expected: String,
    },
}

/// The DNS name that all nodes of a role bear: what a dialer sends as SNI.
#[must_use]
pub fn role_name(role: &Role, trust_domain: &TrustDomain) -> String {
    format!("{role}.{trust_domain}")
}

/// Whether two DNS names are the same: their case does not count (RFC 4343), everything else does.
pub(crate) fn same_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Whether a name is among DNS SANs.
pub(crate) fn bears_name(dns: &[String], name: &str) -> bool {
    dns.iter().any(|dns| same_name(dns, name))
}

/// Whether any of these names claims to be a node, of whichever trust domain.
pub(crate) fn claims_a_node(uris: &[String]) -> bool {
    uris.iter().any(|uri| is_spiffe(uri))
}

const SPIFFE: &str = "spiffe://";

fn is_spiffe(uri: &str) -> bool {
    uri.get(..SPIFFE.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SPIFFE))
}

fn only_uri(uris: &[String]) -> Result<&str, IdentityError> {
    match uris {
        [uri] if is_spiffe(uri) => Ok(uri),
        uris if !claims_a_node(uris) => Err(IdentityError::NoUri),
        several => Err(IdentityError::SeveralUris(several.len())),
    }
}

/// What policy calls those who bear no node's leaf. A leaf that claims one of these as its role would have their rights.
const NOT_ROLES: [&str; 4] = ["shared", "plaintext", "client", "anonymous"];

fn split_spiffe(trust_domain: &TrustDomain, uri: &str) -> Result<(Role, NodeId), IdentityError> {
    let bad = || IdentityError::BadUri(foreign::name(uri));
    let (domain, path) = uri.strip_prefix(SPIFFE).and_then(|rest| rest.split_once('/')).ok_or_else(bad)?;
    if !same_name(domain, trust_domain.as_str()) {
        return Err(IdentityError::ForeignDomain { uri: foreign::name(uri), expected: trust_domain.clone() });
    }
    let (role, node) = path.split_once('/').ok_or_else(bad)?;
    if NOT_ROLES.contains(&role) {
        return Err(IdentityError::NotARole { uri: foreign::name(uri), role: role.to_owned() });
    }
    Ok((Role::new(role).map_err(|_| bad())?, NodeId::new(node).map_err(|_| bad())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dns: &[&str], uris: &[&str]) -> Result<Identity, IdentityError> {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        Identity::from_names(&TrustDomain::new("mesh.internal").unwrap(), &owned(dns), &owned(uris))
    }

    #[test]
    fn reads_a_node_from_two_names_that_agree() {
        let identity = read(&["localhost", "proxy.mesh.internal"], &["spiffe://mesh.internal/proxy/proxy-1"]).unwrap();
        assert_eq!(identity.to_string(), "spiffe://mesh.internal/proxy/proxy-1");
        assert_eq!(identity.policy_name(), "proxy");
    }

    #[test]
    fn names_for_policy_are_kept_from_roles() {
        let client = Identity::Client { name: "alice".into() };
        for identity in [Identity::Shared, client, Identity::Anonymous, Identity::Plaintext] {
            assert!(NOT_ROLES.contains(&identity.policy_name()), "{identity}");
        }
    }

    #[test]
    fn no_leaf_claims_a_name_that_policy_keeps_for_others() {
        for role in NOT_ROLES {
            let dns = format!("{role}.mesh.internal");
            let found = read(&[&dns], &[&format!("spiffe://mesh.internal/{role}/x")]);
            assert!(matches!(&found, Err(IdentityError::NotARole { role: named, .. }) if named == role), "{found:?}");
        }
    }

    #[test]
    fn invariant_6_identity_names_are_exact() {
        let uri = "spiffe://mesh.internal/proxy/proxy-1";
        for dns in [
            "*.mesh.internal",
            "xproxy.mesh.internal",
            "proxy.mesh.internal.",
            "proxy.mesh.internal.evil",
            "coordinator.mesh.internal",
        ] {
            assert!(matches!(read(&[dns], &[uri]), Err(IdentityError::NoDnsName { .. })), "{dns}");
        }
        let foreign = [
            "spiffe://evil.mesh.internal/proxy/p",
            "spiffe://mesh.internal.evil/proxy/p",
            "spiffe://mesh.internal./proxy/p",
        ];
        for uri in foreign {
            assert!(
                matches!(read(&["proxy.mesh.internal"], &[uri]), Err(IdentityError::ForeignDomain { .. })),
                "{uri}"
            );
        }
        let bad = [
            "spiffe://mesh.internal",
            "spiffe://mesh.internal/proxy",
            "spiffe://mesh.internal/proxy/",
            "spiffe://mesh.internal//p",
            "spiffe://mesh.internal/proxy/p/q",
            "spiffe://mesh.internal/pr*/p",
            "spiffe://mesh.internal/Proxy/p",
            "SPIFFE://mesh.internal/proxy/p",
            "spiffe://mesh.internal/proxy/p?x=1",
            "spiffe://mesh.internal/proxy/p%2f",
        ];
        for uri in bad {
            assert!(matches!(read(&["proxy.mesh.internal"], &[uri]), Err(IdentityError::BadUri(_))), "{uri}");
        }
    }

    #[test]
    fn invariant_6_dns_names_compare_without_case() {
        let node = read(&["proxy.mesh.internal"], &["spiffe://mesh.internal/proxy/p"]).unwrap();
        assert_eq!(read(&["Proxy.MESH.internal"], &["spiffe://mesh.internal/proxy/p"]).unwrap(), node);
        assert_eq!(read(&["proxy.mesh.internal"], &["spiffe://MESH.Internal/proxy/p"]).unwrap(), node);
        // Kelvin sign: a letter whose lower case is `k`, in no DNS name.
        assert!(!same_name("\u{212a}.internal", "k.internal"));
    }

    #[test]
    fn invariant_6_a_second_uri_is_refused() {
        let dns = ["proxy.mesh.internal", "coordinator.mesh.internal"];
        let proxy = "spiffe://mesh.internal/proxy/a";
        for second in ["spiffe://mesh.internal/coordinator/b", proxy, "https://mesh.internal/", "urn:x", ""] {
            for uris in [[proxy, second], [second, proxy]] {
                assert_eq!(read(&dns, &uris), Err(IdentityError::SeveralUris(2)), "{uris:?}");
            }
        }
        for none in [&["https://mesh.internal/"][..], &["urn:x", "urn:y"], &[]] {
            assert_eq!(read(&dns, none), Err(IdentityError::NoUri), "{none:?}");
        }
    }
}
