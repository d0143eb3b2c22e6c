//! Which role may call which method. Pure.
//!
//! 1. What is not named is refused. There is no wildcard for roles, and none for services.
//! 2. A rule is a method, `/pkg.Service/Method`, or all methods of one service, `/pkg.Service/*`.
//! 3. Besides roles a policy may name `shared` (the bearer of the one leaf of all nodes) and `plaintext` (no certificate).
//! 4. A file is read within the bounds of `yaml`, whatever it holds; contents that exceed them are an error like any other,
//!    and the policy in force stays.
use std::collections::{BTreeMap, BTreeSet};

use crate::identity::{Identity, Role};
use crate::yaml::{self, Node, Value};

/// Which role may call which method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    allow: Allow,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Allow {
    All,
    Named(BTreeMap<String, Rules>),
}

/// What one name may call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rules {
    /// `/pkg.Service/` of `/pkg.Service/*`.
    services: BTreeSet<String>,
    methods: BTreeSet<String>,
}

/// Why a text is not a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// It is not YAML, or exceeds the bounds on size, depth and number of values.
    #[error("the policy is not YAML that can be read: {0}")]
    Yaml(String),
    /// Its shape is another.
    #[error(
        "the policy must be a map `allow:` of roles to lists of methods, as in `allow: {{ proxy: [\"/pkg.Service/*\"] }}`; {0}"
    )]
    Shape(String),
    /// A role that is no name.
    #[error("the policy names `{0}`, which is no role: a-z, 0-9 and inner '-'")]
    Role(String),
    /// A rule that is no method.
    #[error(
        "the policy of `{role}` names `{rule}`, which is no method: write `/pkg.Service/Method` or `/pkg.Service/*`"
    )]
    Rule {
        /// Whose rule it is.
        role: String,
        /// The text found.
        rule: String,
    },
}

impl Policy {
    /// Everyone who is let into the mesh may call everything.
    #[must_use]
    pub fn allow_all() -> Self {
        Self { allow: Allow::All }
    }

    /// From pairs of a name and a rule. A name may come more than once.
    ///
    /// # Errors
    /// [`PolicyError`] when a name is no role, or a rule no method.
    pub fn from_rules<N, R>(rules: impl IntoIterator<Item = (N, R)>) -> Result<Self, PolicyError>
    where
        N: AsRef<str>,
        R: AsRef<str>,
    {
        let mut named = BTreeMap::<String, Rules>::new();
        for (name, rule) in rules {
            let name = checked_name(name.as_ref())?;
            let rules = named.entry(name.clone()).or_default();
            rules.add(&name, rule.as_ref())?;
        }
        Ok(Self { allow: Allow::Named(named) })
    }

    /// From YAML: `allow:` and under it, for each role, a list of rules.
    ///
    /// # Errors
    /// [`PolicyError`] when the text is not YAML, is larger or deeper than a policy can be, has another shape, or names
    /// what is no role or no method.
    pub fn parse(yaml: &str) -> Result<Self, PolicyError> {
        let document = yaml::parse(yaml).map_err(|e| PolicyError::Yaml(e.to_string()))?;
        let document = document.ok_or_else(|| PolicyError::Shape("found nothing".to_owned()))?;
        Self::from_rules(pairs(allow(&document)?)?)
    }

    /// Whether this identity may call anything at all.
    #[must_use]
    pub fn lets_in(&self, identity: &Identity) -> bool {
        match &self.allow {
            Allow::All => true,
            Allow::Named(named) => named.contains_key(identity.policy_name()),
        }
    }

    /// Whether this identity may call this method, given as `/pkg.Service/Method`.
    #[must_use]
    pub fn allows(&self, identity: &Identity, path: &str) -> bool {
        match &self.allow {
            Allow::All => true,
            Allow::Named(named) => named.get(identity.policy_name()).is_some_and(|rules| rules.allow(path)),
        }
    }
}

impl Rules {
    fn add(&mut self, role: &str, rule: &str) -> Result<(), PolicyError> {
        match split(rule) {
            Some((service, "*")) => self.services.insert(service.to_owned()),
            Some(_) => self.methods.insert(rule.to_owned()),
            None => return Err(PolicyError::Rule { role: role.to_owned(), rule: shortened(rule) }),
        };
        Ok(())
    }

    fn allow(&self, path: &str) -> bool {
        self.methods.contains(path) || split(path).is_some_and(|(service, _)| self.services.contains(service))
    }
}

/// `/pkg.Service/Method` → (`/pkg.Service/`, `Method`). A method has exactly two slashes and nothing empty.
fn split(path: &str) -> Option<(&str, &str)> {
    let service = path.strip_prefix('/')?.find('/')? + 2;
    let (service, method) = path.split_at(service);
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b));
    let named = word(service.get(1..service.len() - 1)?) && (method == "*" || word(method));
    named.then_some((service, method))
}

fn checked_name(name: &str) -> Result<String, PolicyError> {
    Role::new(name).map(|role| role.to_string()).map_err(|_| PolicyError::Role(shortened(name)))
}

type Pairs = [(Node, Node)];

fn allow(document: &Node) -> Result<&Pairs, PolicyError> {
    let top = map(document).ok_or_else(|| shape("found no map"))?;
    if let Some((key, _)) = top.iter().find(|(key, _)| key.text() != Some("allow")) {
        return Err(shape(format!("found the key `{}`", named(key))));
    }
    match top {
        [(_, allow)] => map(allow).ok_or_else(|| shape("found no map under `allow`")),
        [] => Err(shape("found nothing in the map")),
        [_, (again, _), ..] => Err(shape(format!("found `allow` again at line {}", again.line))),
    }
}

fn pairs(allow: &Pairs) -> Result<Vec<(String, String)>, PolicyError> {
    let mut pairs = Vec::new();
    let mut seen = BTreeSet::new();
    for (role, rules) in allow {
        let no_list = || shape(format!("found no list of texts under `{}`", named(role)));
        let name = role.text().ok_or_else(no_list)?;
        // Of two lists for a role, a reader of the file sees one.
        if !seen.insert(name) {
            return Err(shape(format!("found `{}` again at line {}", named(role), role.line)));
        }
        let Value::List(rules) = &rules.value else { return Err(no_list()) };
        for rule in rules {
            pairs.push((name.to_owned(), rule.text().ok_or_else(no_list)?.to_owned()));
        }
    }
    Ok(pairs)
}

fn map(node: &Node) -> Option<&Pairs> {
    match &node.value {
        Value::Map(pairs) => Some(pairs),
        _ => None,
    }
}

fn shape(found: impl Into<String>) -> PolicyError {
    PolicyError::Shape(found.into())
}

/// A key as an error may show it.
fn named(key: &Node) -> String {
    shortened(key.text().unwrap_or("?"))
}

/// A policy's own text in an error: short, on one line.
fn shortened(text: &str) -> String {
    let cut: String = text.chars().take(80).collect();
    cut.escape_debug().to_string()
}

#[cfg(test)]
mod harness;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{NodeId, TrustDomain};

    fn node(role: &str) -> Identity {
        Identity::Node {
            trust_domain: TrustDomain::new("mesh.internal").unwrap(),
            role: Role::new(role).unwrap(),
            node: NodeId::new("n-1").unwrap(),
        }
    }

    #[test]
    fn refuses_what_is_not_named() {
        let policy = Policy::from_rules([("proxy", "/m.Store/Get")]).unwrap();
        assert!(policy.allows(&node("proxy"), "/m.Store/Get"));
        for path in ["/m.Store/Put", "/m.Store/Get/", "/m.Store/get", "m.Store/Get", "/m.Store/Get2", "", "/", "//"] {
            assert!(!policy.allows(&node("proxy"), path), "{path}");
        }
        assert!(!policy.allows(&node("data-node"), "/m.Store/Get"));
        assert!(!policy.allows(&Identity::Plaintext, "/m.Store/Get"));
    }

    #[test]
    fn lets_in_who_may_call_anything() {
        let policy = Policy::parse("allow:\n  proxy: [\"/m.Store/Get\"]\n  data-node: []\n").unwrap();
        assert!(policy.lets_in(&node("proxy")) && Policy::allow_all().lets_in(&node("data-node")));
        assert!(!policy.lets_in(&node("data-node")) && !policy.lets_in(&Identity::Plaintext));
    }

    #[test]
    fn a_star_means_one_service() {
        let policy = Policy::from_rules([("proxy", "/m.Store/*")]).unwrap();
        assert!(policy.allows(&node("proxy"), "/m.Store/Get"));
        for path in ["/m.StoreAdmin/Get", "/m.Store/a/b", "/m.Store/", "/m.Store", "/m.Other/Get"] {
            assert!(!policy.allows(&node("proxy"), path), "{path}");
        }
    }

    #[test]
    fn names_shared_and_plaintext_only_when_told() {
        let policy = Policy::parse("allow:\n  shared: [\"/m.A/*\"]\n  plaintext: [\"/m.B/C\"]\n").unwrap();
        assert!(policy.allows(&Identity::Shared, "/m.A/X"));
        assert!(policy.allows(&Identity::Plaintext, "/m.B/C"));
        assert!(!policy.allows(&Identity::Plaintext, "/m.A/X"));
    }

    #[test]
    fn refuses_other_shapes() {
        let texts = [
            "",
            "[]",
            "allow: 3",
            "allow: {proxy: x}",
            "deny: {}",
            "allow: {proxy: [3]}",
            "a: [",
            "allow: {}\nmore: {}",
            "allow: {}\nallow: {}",
            "allow: {proxy: [], proxy: []}",
            "allow: {}\n---\nallow: {}",
            "--- a\n--- b",
        ];
        for text in texts {
            assert!(Policy::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_wildcards_that_reach_further() {
        for rule in ["*", "/*", "/*/*", "/m.*/Get", "/m.A/G*", "m.A/Get", "/m.A/", "/m.A/B/C", "/m.A/**"] {
            assert!(Policy::from_rules([("proxy", rule)]).is_err(), "{rule}");
        }
        assert_eq!(Policy::from_rules([("*", "/m.A/*")]), Err(PolicyError::Role("*".to_owned())));
    }
}
