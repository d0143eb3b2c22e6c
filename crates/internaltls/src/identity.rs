//! Who a peer is, read from a verified leaf. Pure.
//!
//! 1. A name is exact: lower-case letters, digits and inner hyphens, compared byte by byte. No wildcard, no substring,
//!    nothing from the subject's CN.
//! 2. A node's leaf bears two names that must agree: the DNS SAN `<role>.<trust domain>`, which a dialer sends as SNI
//!    and the handshake verifies, and the URI SAN `spiffe://<trust domain>/<role>/<node id>`, which says which node it is.
//! 3. A leaf shared by all nodes says nothing about roles: its bearer is [`Identity::Shared`].
use std::fmt;
use std::sync::Arc;

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
                    Err(NameError { what: $what, text: text.chars().take(80).collect(), max: $max })
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
    /// No certificate at all: the mesh is off, or permissive.
    Plaintext,
}

impl Identity {
    /// Reads who a node is from the names of its leaf: exactly one `spiffe://` URI SAN, of our trust domain, whose role a
    /// DNS SAN `<role>.<trust domain>` repeats byte by byte.
    ///
    /// # Errors
    /// [`IdentityError`], by what is missing or does not agree.
    pub fn from_names(trust_domain: &TrustDomain, dns: &[String], uris: &[String]) -> Result<Self, IdentityError> {
        let uri = only_spiffe(uris)?;
        let (role, node) = split_spiffe(trust_domain, uri)?;
        let name = role_name(&role, trust_domain);
        if dns.contains(&name) {
            Ok(Self::Node { trust_domain: trust_domain.clone(), role, node })
        } else {
            Err(IdentityError::NoDnsName { uri: uri.to_owned(), expected: name })
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

    /// The name under which policy knows this identity: the role, `shared` or `plaintext`.
    #[must_use]
    pub fn policy_name(&self) -> &str {
        match self {
            Self::Node { role, .. } => role.as_str(),
            Self::Shared => "shared",
            Self::Client { .. } => "client",
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
    /// More than one does.
    #[error("it has {0} spiffe URI SANs where one is allowed")]
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

/// Whether any of these names claims to be a node of our trust domain.
pub(crate) fn claims_a_node(trust_domain: &TrustDomain, uris: &[String]) -> bool {
    let prefix = format!("{SPIFFE}{trust_domain}/");
    uris.iter().any(|uri| uri.starts_with(&prefix))
}

const SPIFFE: &str = "spiffe://";

fn only_spiffe(uris: &[String]) -> Result<&str, IdentityError> {
    let is_spiffe = |uri: &&String| uri.get(..SPIFFE.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SPIFFE));
    let found: Vec<_> = uris.iter().filter(is_spiffe).collect();
    match found.as_slice() {
        [] => Err(IdentityError::NoUri),
        [uri] => Ok(uri),
        more => Err(IdentityError::SeveralUris(more.len())),
    }
}

/// What policy calls those who bear no node's leaf. A leaf that claims one of these as its role would have their rights.
const NOT_ROLES: [&str; 3] = ["shared", "plaintext", "client"];

fn split_spiffe(trust_domain: &TrustDomain, uri: &str) -> Result<(Role, NodeId), IdentityError> {
    let bad = || IdentityError::BadUri(uri.chars().take(300).collect());
    let (domain, path) = uri.strip_prefix(SPIFFE).and_then(|rest| rest.split_once('/')).ok_or_else(bad)?;
    if domain != trust_domain.as_str() {
        let uri = uri.chars().take(300).collect();
        return Err(IdentityError::ForeignDomain { uri, expected: trust_domain.clone() });
    }
    let (role, node) = path.split_once('/').ok_or_else(bad)?;
    if NOT_ROLES.contains(&role) {
        return Err(IdentityError::NotARole { uri: uri.chars().take(300).collect(), role: role.to_owned() });
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
            "Proxy.mesh.internal",
            "proxy.mesh.internal.evil",
            "coordinator.mesh.internal",
        ] {
            assert!(matches!(read(&[dns], &[uri]), Err(IdentityError::NoDnsName { .. })), "{dns}");
        }
        let foreign = [
            "spiffe://evil.mesh.internal/proxy/p",
            "spiffe://mesh.internal.evil/proxy/p",
            "spiffe://MESH.internal/proxy/p",
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
            "SPIFFE://mesh.internal/proxy/p",
            "spiffe://mesh.internal/proxy/p?x=1",
            "spiffe://mesh.internal/proxy/p%2f",
        ];
        for uri in bad {
            assert!(matches!(read(&["proxy.mesh.internal"], &[uri]), Err(IdentityError::BadUri(_))), "{uri}");
        }
    }

    #[test]
    fn invariant_6_two_identities_are_none() {
        let uris = ["spiffe://mesh.internal/proxy/a", "spiffe://mesh.internal/coordinator/b"];
        assert_eq!(
            read(&["proxy.mesh.internal", "coordinator.mesh.internal"], &uris),
            Err(IdentityError::SeveralUris(2))
        );
        assert_eq!(read(&["proxy.mesh.internal"], &["https://mesh.internal/"]), Err(IdentityError::NoUri));
    }
}
