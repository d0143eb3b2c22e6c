//! A tool that inspects files and a process that loads them say the same: fit or not, and why.
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512,
    PKCS_ED25519,
};

use super::alarm::Log;
use super::issue::{
    Authority, DOMAIN, Folder, Leaf, authority, authority_with, dns, edge, mesh, open, openssl, shape_node,
    shape_shared,
};
use crate::clock::SystemClock;
use crate::config::{EdgeConfig, EdgeMode, Files, Limits, MeshConfig, Reload};
use crate::error::LoadError;
use crate::foreign::chain;
use crate::identity::{NodeId, Role, TrustDomain};
use crate::material::{Purpose, inspect};
use crate::telemetry::Telemetry;
use crate::{Edge, Mesh, OpenError};

/// Texts for each file of a set; the first of each is good.
struct Pool {
    leaves: Vec<(&'static str, String, String)>,
    cas: Vec<(&'static str, Vec<u8>)>,
    crls: Vec<(&'static str, Option<String>)>,
    distrusts: Vec<(&'static str, Option<String>)>,
    policies: Vec<(&'static str, Option<&'static str>)>,
}

/// Which of each, and for what.
#[derive(Debug, Clone)]
struct Pick {
    leaf: usize,
    key_of: usize,
    ca: usize,
    crl: usize,
    distrust: usize,
    policy: usize,
    purpose: usize,
}

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

fn with_key(ca: &Authority, algorithm: &'static rcgen::SignatureAlgorithm) -> Leaf {
    ca.leaf_with_key(KeyPair::generate_for(algorithm).unwrap(), |params| shape_node(params, "proxy", "proxy-1"))
}

/// Leaf and CA in one, as `openssl req -x509` makes it.
fn own_ca() -> Leaf {
    let key = KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    shape_shared(&mut params);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let cert = params.self_signed(&key).unwrap();
    Leaf { pem: cert.pem(), key: key.serialize_pem(), der: cert.der().clone() }
}

static POOL: LazyLock<Pool> = LazyLock::new(pool);

fn pool() -> Pool {
    let (ca, other) = (authority("CA"), authority("other CA"));
    let expired = authority_with("CA", |params| params.not_after = (SystemTime::now() - DAY / 48).into());
    let middle = ca.intermediate("middle");
    let node = ca.node("proxy", "proxy-1");
    let below = middle.node("proxy", "proxy-1");
    let chained = Leaf { pem: format!("{}{}", below.pem, middle.pem), ..below.clone() };
    let shape = |shape: fn(&mut rcgen::CertificateParams)| ca.leaf(shape);
    let leaves = [
        ("node", node.clone()),
        ("shared", shape(shape_shared)),
        ("chained", chained),
        ("without its intermediate", below),
        ("another node's", ca.node("proxy", "proxy-2")),
        ("another CA's", other.node("proxy", "proxy-1")),
        ("P-384", with_key(&ca, &PKCS_ECDSA_P384_SHA384)),
        ("P-521", with_key(&ca, &PKCS_ECDSA_P521_SHA512)),
        ("Ed25519", with_key(&ca, &PKCS_ED25519)),
        ("a CA", own_ca()),
        ("nameless", shape(|params| params.extended_key_usages = super::issue::both())),
        ("two names", shape(|params| params.subject_alt_names = vec![dns("a"), dns("b")])),
        (
            "expired",
            shape(|params| {
                shape_node(params, "proxy", "proxy-1");
                params.not_after = (SystemTime::now() - DAY / 48).into();
            }),
        ),
        (
            "a client's",
            shape(|params| {
                shape_node(params, "proxy", "proxy-1");
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
        ),
    ];
    let indented: String = other.pem.lines().map(|line| format!("  {line}\n")).collect();
    let pkcs7 = openssl(&["crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin"], &other.pem);
    let trusted = openssl(&["x509", "-addtrust", "serverAuth", "-trustout"], &other.pem);
    let cas = [
        ("right", ca.pem.clone()),
        ("two", format!("{}{}", ca.pem, other.pem)),
        ("another", other.pem.clone()),
        ("the second indented", format!("{}{indented}", ca.pem)),
        ("CR line ends", format!("{}{}", ca.pem.replace('\n', "\r"), other.pem)),
        ("cat without newline", format!("{}{}", ca.pem.trim_end(), other.pem)),
        ("X509 CERTIFICATE", ca.pem.replace("CERTIFICATE", "X509 CERTIFICATE")),
        ("TRUSTED CERTIFICATE beside", format!("{}{trusted}", ca.pem)),
        ("PKCS7 beside", format!("{}{pkcs7}", ca.pem)),
        ("torn", ca.pem[..ca.pem.len() / 2].to_owned()),
        ("expired", expired.pem),
        ("a leaf", node.pem.clone()),
        ("text", "no certificate".to_owned()),
        ("empty", String::new()),
    ];
    let next = SystemTime::now() + DAY;
    let facts = crate::verify::CertificateFacts::read(&node.der).unwrap();
    let serial =
        (0..facts.serial.len()).step_by(2).map(|at| u8::from_str_radix(&facts.serial[at..at + 2], 16).unwrap());
    let crls = [
        ("none", None),
        ("right", Some(ca.crl(&[], next))),
        ("revoked", Some(ca.crl(&[serial.collect()], next))),
        ("another's", Some(other.crl(&[], next))),
        ("too old", Some(ca.crl_from(SystemTime::now() - 3 * DAY, SystemTime::now() - 2 * DAY))),
        ("torn", Some("-----BEGIN X509 CRL-----\nMII".to_owned())),
    ];
    let hash: String = facts.spki_sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let distrusts = [
        ("none", None),
        ("another", Some(format!("{}\n", "ab".repeat(32)))),
        ("this", Some(format!("{hash}\n"))),
        ("garbled", Some("not a hash\n".to_owned())),
    ];
    let policies = [("none", None), ("right", Some("rules: []\n")), ("broken", Some("rules: [\n"))];
    Pool {
        leaves: leaves.into_iter().map(|(name, leaf)| (name, leaf.pem, leaf.key)).collect(),
        cas: cas.into_iter().map(|(name, text)| (name, text.into_bytes())).collect(),
        crls: crls.into(),
        distrusts: distrusts.into(),
        policies: policies.into(),
    }
}

/// The mesh, and the edge in both modes.
const PURPOSES: usize = 3;

impl Pool {
    fn lay(&self, pick: &Pick) -> (Folder, Files) {
        let folder = Folder { at: tempfile::tempdir().unwrap() };
        folder.put("server.pem", &self.leaves[pick.leaf].1);
        folder.put("server.key", &self.leaves[pick.key_of].2);
        folder.put("ca.pem", &self.cas[pick.ca].1);
        let mut files = folder.files();
        if let Some(crl) = &self.crls[pick.crl].1 {
            folder.put("crl", crl);
            files.crl = Some(folder.path("crl"));
        }
        if let Some(distrust) = &self.distrusts[pick.distrust].1 {
            folder.put("distrust", distrust);
            files.distrust = Some(folder.path("distrust"));
        }
        if let Some(policy) = self.policies[pick.policy].1 {
            folder.put("policy", policy);
        }
        (folder, files)
    }

    /// What the process says, and what the tool says.
    async fn both(&self, pick: &Pick) -> (Result<(), String>, Result<(), String>) {
        let (folder, files) = self.lay(pick);
        let reload = Reload { watch: false, ..Reload::default() };
        if pick.purpose == 0 {
            let mut config = MeshConfig::new(Role::new("proxy").unwrap(), NodeId::new("proxy-1").unwrap(), files);
            config.trust_domain = TrustDomain::new(DOMAIN).unwrap();
            config.reload = reload;
            config.policy = self.policies[pick.policy].1.map(|_| folder.path("policy"));
            let opened = Mesh::open(config.clone()).await.map(drop);
            let opened = opened.map_err(|OpenError::Load { source, .. }| chain(&source));
            (opened, inspect::mesh(&config, SystemTime::now()).map(drop).map_err(|error| chain(&error)))
        } else {
            let config = EdgeConfig {
                mode: if pick.purpose == 1 { EdgeMode::OneWay } else { EdgeMode::TwoWay },
                files: Some(files),
                min_version: None,
                require_client_auth_eku: false,
                reload,
                limits: Limits::default(),
                state: None,
            };
            let opened = Edge::open_with(config.clone(), &Telemetry::new(), Arc::new(SystemClock)).await.map(drop);
            let opened = opened.map_err(|error| chain(std::error::Error::source(&error).unwrap()));
            (opened, inspect::edge(&config, SystemTime::now()).map(drop).map_err(|error| chain(&error)))
        }
    }

    fn names(&self, pick: &Pick) -> String {
        format!(
            "leaf {}, key of {}, CA {}, CRL {}, distrust {}, policy {}, purpose {}",
            self.leaves[pick.leaf].0,
            self.leaves[pick.key_of].0,
            self.cas[pick.ca].0,
            self.crls[pick.crl].0,
            self.distrusts[pick.distrust].0,
            self.policies[pick.policy].0,
            pick.purpose
        )
    }

    /// Everything good but one, of each.
    fn one_off(&self) -> Vec<Pick> {
        let mut picks = Vec::new();
        for purpose in 0..PURPOSES {
            let good = Pick { leaf: 0, key_of: 0, ca: 0, crl: 0, distrust: 0, policy: 0, purpose };
            picks.extend((0..self.leaves.len()).map(|leaf| Pick { leaf, key_of: leaf, ..good.clone() }));
            picks.extend((1..self.leaves.len()).map(|key_of| Pick { key_of, ..good.clone() }));
            picks.extend((1..self.cas.len()).map(|ca| Pick { ca, ..good.clone() }));
            picks.extend((1..self.crls.len()).map(|crl| Pick { crl, ..good.clone() }));
            picks.extend((1..self.distrusts.len()).map(|distrust| Pick { distrust, ..good.clone() }));
            picks.extend((1..self.policies.len()).map(|policy| Pick { policy, ..good.clone() }));
        }
        picks
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn inspection_and_start_agree() {
    let (pool, runtime) = (&*POOL, runtime());
    let (mut fit, mut unfit) = (0, 0);
    for pick in pool.one_off() {
        let (process, tool) = runtime.block_on(pool.both(&pick));
        assert_eq!(process, tool, "{}", pool.names(&pick));
        *(if process.is_ok() { &mut fit } else { &mut unfit }) += 1;
    }
    assert!(fit > 30 && unfit > 30, "{fit} fit, {unfit} unfit");
}

/// `PROPTEST_CASES` where it is set.
fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(24)) })]

    /// Several things wrong at once: the same one is told first.
    #[test]
    fn harness_inspection_and_start_agree(picks in prop::collection::vec(any::<[u8; 7]>(), 6)) {
        let (pool, runtime) = (&*POOL, runtime());
        for bytes in picks {
            let [leaf, key, ca, crl, distrust, policy, purpose] = bytes.map(usize::from);
            let leaf = leaf % pool.leaves.len();
            let pick = Pick {
                leaf,
                key_of: if key < 200 { leaf } else { key % pool.leaves.len() },
                ca: ca % pool.cas.len(),
                crl: crl % pool.crls.len(),
                distrust: distrust % pool.distrusts.len(),
                policy: policy % pool.policies.len(),
                purpose: purpose % PURPOSES,
            };
            let (process, tool) = runtime.block_on(pool.both(&pick));
            prop_assert_eq!(process, tool, "{}", pool.names(&pick));
        }
    }
}

/// Once a generation, at the edge alone: in the mesh both ends are ours.
#[test]
fn a_key_that_boringssl_refuses_is_warned_of() {
    let (pool, runtime) = (&*POOL, runtime());
    for (leaf, kind) in [("node", None), ("P-384", None), ("P-521", Some("ECDSA P-521")), ("Ed25519", Some("Ed25519"))]
    {
        let leaf = pool.leaves.iter().position(|(name, ..)| *name == leaf).unwrap();
        for purpose in [0, 1] {
            let pick = Pick { leaf, key_of: leaf, ca: 0, crl: 0, distrust: 0, policy: 0, purpose };
            let (_folder, files) = pool.lay(&pick);
            let purpose = if purpose == 0 { mesh("proxy", "proxy-1") } else { edge(EdgeMode::OneWay, false) };
            let is_edge = matches!(purpose, Purpose::Edge { .. });
            let store = runtime.block_on(open(purpose, files)).unwrap();
            let log = Log::default();
            tracing::subscriber::with_default(log.clone(), || store.current().announce("the edge"));
            let lines = log.lines();
            let warned: Vec<_> = lines.iter().filter(|line| line.contains("BoringSSL")).collect();
            assert_eq!(warned.len(), usize::from(is_edge && kind.is_some()), "{lines:?}");
            assert!(warned.iter().all(|line| line.starts_with("WARN") && line.contains(kind.unwrap())), "{lines:?}");
        }
    }
}

/// What is not told by files alone.
#[test]
fn a_mode_without_files_is_no_plaintext() {
    let config = EdgeConfig {
        mode: EdgeMode::OneWay,
        files: None,
        min_version: None,
        require_client_auth_eku: false,
        reload: Reload::default(),
        limits: Limits::default(),
        state: None,
    };
    assert!(matches!(inspect::edge(&config, SystemTime::now()), Err(LoadError::NoLeaf)));
    assert!(matches!(inspect::edge(&EdgeConfig { mode: EdgeMode::Off, ..config }, SystemTime::now()), Ok(None)));
}
