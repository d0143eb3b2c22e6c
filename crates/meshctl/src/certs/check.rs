//! `certs check`: what is wrong with certificates, and what to do.
//!
//! 1. internaltls judges, by the same code that loads; here files are put together into sets, and what will stop a process soon or
//!    gives a key away (an end that is near, a key that others read, a client leaf without clientAuth) counts as wrong too. What a
//!    process serves with a warning is a warning here.
//! 2. Files are told apart by what they hold: a key, a CA, a leaf. A leaf is judged with its key and CA where those are
//!    given or lie beside it. A CA's certificate with its key is meant as a leaf where its names or its file's name say so.
//! 3. The leaf of an edge need not be of a CA in ca.pem: that is for the clients of tlsMode 2, who may have another.
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use internaltls::foreign::chain;
use internaltls::inspect::{self, CertificateSummary, Contents, Inspection};
use internaltls::{
    EdgeConfig, EdgeMode, Files, Limits, LoadError, MeshConfig, NodeId, Reload, Role, Security, TrustDomain, trusted,
};
use rustls::pki_types::UnixTime;
use settings::Settings;

use super::authority::{Facts, date};

/// An end is near when less than this share of the whole validity is left,
const NEAR_SHARE: u32 = 5;
/// or so much of a long one.
const NEAR_AT_MOST: Duration = Duration::from_secs(30 * 86_400);

/// Bytes of a bundle, as of one that is loaded.
const MAX_BUNDLE: u64 = 1024 * 1024;

/// The arguments of `certs check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  meshctl certs check server.pem server.key ca.pem client.pem\n  meshctl certs check --config milvus.yaml\n\n\
    Exits 1 if anything is wrong; a warning is not."
)]
pub struct Args {
    /// Certificates, keys and CA bundles, PEM
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    pub files: Vec<PathBuf>,
    /// Check what this configuration (a file or a folder) names
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What was found out.
#[derive(Debug, Default)]
pub struct Report {
    /// What is wrong and what to do, a sentence each.
    pub wrong: Vec<String>,
    /// What is served, and keeps some clients away, a sentence each.
    pub warnings: Vec<String>,
    /// What is right, a line each.
    pub fine: Vec<String>,
}

impl Args {
    /// Checks and prints.
    ///
    /// # Errors
    /// When the configuration cannot be read.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let now = SystemTime::now();
        let report = match &self.config {
            Some(config) => check_config(config, now)?,
            None => check_files(&self.files, now),
        };
        report.fine.iter().for_each(|line| println!("ok     {line}"));
        report.warnings.iter().for_each(|line| println!("warn   {line}"));
        report.wrong.iter().for_each(|line| println!("wrong  {line}"));
        Ok(if report.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Judges what a configuration names.
///
/// # Errors
/// When the configuration is refused.
pub fn check_config(config: &Path, now: SystemTime) -> anyhow::Result<Report> {
    let settings = Settings::load(config).context("the configuration was refused")?;
    let mut report = Report::default();
    match settings.internal.files.as_ref().map(|files| bearer(&files.cert)) {
        Some((role, node)) => report.judged("the mesh", inspect::mesh(&settings.mesh_config(role, node), now), now),
        None => report.fine.push("the mesh: internal TLS is off, nothing to check".to_owned()),
    }
    let edge = settings.edge_config();
    report.judged("the edge", inspect::edge(&edge, now), now);
    if let Some(files) = edge.files.filter(|_| edge.mode != EdgeMode::Off) {
        report.client_beside(&files.cert, now);
    }
    Ok(report)
}

/// Judges files.
#[must_use]
pub fn check_files(files: &[PathBuf], now: SystemTime) -> Report {
    let mut report = Report::default();
    let given = Given::sort(files, &mut report);
    for (ca, certificates) in &given.cas {
        certificates.iter().for_each(|certificate| report.end_near(ca, certificate, now));
        report.fine.push(format!("{}: {} CA certificate(s)", ca.display(), certificates.len()));
    }
    for (leaf, summary) in &given.leaves {
        report.leaf(leaf, summary, &given, now);
    }
    for key in given.keys.iter().filter(|key| given.nobodys(key)) {
        report.wrong.push(format!(
            "{} is the key of none of the certificates given; name the leaf that was issued with it too",
            key.display()
        ));
    }
    report
}

/// The files, told apart.
#[derive(Debug, Default)]
struct Given {
    leaves: Vec<(PathBuf, CertificateSummary)>,
    cas: Vec<(PathBuf, Vec<CertificateSummary>)>,
    keys: Vec<PathBuf>,
}

impl Given {
    fn sort(files: &[PathBuf], report: &mut Report) -> Self {
        let mut given = Self::default();
        let mut authorities = Vec::new();
        for file in files {
            match inspect::file(file) {
                Ok(Contents::Certificates(found)) if found[0].is_ca || found[0].may_be_anchor => {
                    authorities.push((file.clone(), found))
                }
                Ok(Contents::Certificates(mut found)) => given.leaves.push((file.clone(), found.swap_remove(0))),
                Ok(_) => {
                    given.keys.push(file.clone());
                    given.leaves.extend(leaf_beside_key(file));
                }
                Err(error) => report.wrong.push(chain(&error)),
            }
        }
        for (file, mut found) in authorities {
            if given.is_meant_as_leaf(&file, &found[0]) {
                given.leaves.push((file, found.swap_remove(0)));
                continue;
            }
            match inspect::bundle(&file) {
                Ok(_) => given.cas.push((file, found)),
                Err(error) => report.wrong.push(chain(&error)),
            }
        }
        given
    }

    /// Of a certificate that may sign: whether a process is to serve it. Its key is at hand and it bears a name that clients ask for;
    /// or its file is named like a leaf's, or given with its key and without any leaf, and is not named like a bundle.
    fn is_meant_as_leaf(&self, file: &Path, found: &CertificateSummary) -> bool {
        let beside = file.with_extension("key");
        let has_key = self.keys.iter().chain([&beside]).any(|key| fits(file, key));
        let named = file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        let is_named = |words: &[&str]| words.iter().any(|word| named.contains(word));
        let is_bundle = named.starts_with("ca") || is_named(&["root", "bundle"]);
        let is_alone = self.leaves.is_empty() && self.keys.iter().any(|key| fits(file, key));
        // The key of a chain in the wrong order fits another certificate of it.
        let like_a_leaf = is_named(&["server", "client", "leaf", "tls"]) && (has_key || beside.exists()) || is_alone;
        has_key && !found.sans.is_empty() || !is_bundle && like_a_leaf
    }

    /// The key given that fits, else the one of the same name, else one that lies beside.
    fn key_of(&self, leaf: &Path) -> Option<PathBuf> {
        let beside = leaf.with_extension("key");
        let fitting = self.keys.iter().find(|key| fits(leaf, key));
        let named = self.keys.iter().find(|key| key.file_stem() == leaf.file_stem());
        let only = self.keys.first().filter(|_| self.keys.len() == 1 && self.leaves.len() == 1);
        fitting.or(named).or(only).cloned().or_else(|| beside.exists().then_some(beside))
    }

    fn ca_of(&self, leaf: &Path) -> Option<PathBuf> {
        let beside = leaf.with_file_name("ca.pem");
        let signed = self.cas.iter().find(|(ca, _)| signed_by_file(leaf, ca));
        signed.or(self.cas.first()).map(|(ca, _)| ca.clone()).or_else(|| beside.exists().then_some(beside))
    }

    fn nobodys(&self, key: &Path) -> bool {
        let leaf_of = |leaf: &PathBuf| self.key_of(leaf).is_some_and(|found| found == key);
        !self.leaves.iter().any(|(leaf, _)| leaf_of(leaf)) && !self.cas.iter().any(|(ca, _)| fits(ca, key))
    }
}

impl Report {
    fn leaf(&mut self, leaf: &Path, summary: &CertificateSummary, given: &Given, now: SystemTime) {
        let (key, ca) = (given.key_of(leaf), given.ca_of(leaf));
        let before = self.wrong.len();
        let what = leaf.display().to_string();
        match (key, ca) {
            (Some(key), Some(ca)) if of_the_mesh(summary) => {
                self.judged(&what, inspect::mesh(&mesh(leaf, key, ca), now), now)
            }
            (Some(key), ca) if !is_client(leaf, summary) => {
                let given = ca.as_ref().filter(|ca| given.cas.iter().any(|(given, _)| given == *ca));
                self.judged(&what, inspect::edge(&edge(leaf, key, given.cloned()), now), now);
                self.of_another_ca(leaf, ca.as_deref());
            }
            (key, ca) => {
                self.alone(leaf, key, now);
                if is_client(leaf, summary) || of_the_mesh(summary) {
                    self.trusted(leaf, ca.as_deref());
                } else {
                    self.warnings.extend(summary.key.warning_at_edge().map(|warning| format!("{what}: {warning}")));
                    self.of_another_ca(leaf, ca.as_deref());
                }
            }
        }
        if is_client(leaf, summary) {
            self.usable_by_a_client(leaf, summary);
        }
        self.fine.retain(|line| self.wrong.len() == before || !line.starts_with(&what));
    }

    /// What internaltls makes of a set.
    fn judged(&mut self, what: &str, inspected: Result<Option<Inspection>, LoadError>, now: SystemTime) {
        match inspected {
            Err(error) => self.wrong.push(chain(&error)),
            Ok(None) => self.fine.push(format!("{what}: TLS is off, nothing to check")),
            Ok(Some(set)) => {
                self.end_near(Path::new(what), &set.leaf, now);
                set.cas.iter().for_each(|ca| self.end_near(Path::new(what), ca, now));
                self.warnings.extend(set.findings.iter().map(|finding| format!("{what}: {finding}")));
                set.readable_keys.iter().for_each(|(key, mode)| self.readable(key, *mode));
                self.warnings.extend(set.key_warning.map(|warning| format!("{what}: {warning}")));
                self.warnings.extend(set.warnings.iter().map(|warning| format!("{what}: {warning}")));
                self.fine.push(line(what, &set.leaf));
            }
        }
    }

    /// A leaf by itself: a client's, or one without its key or CA.
    fn alone(&mut self, leaf: &Path, key: Option<PathBuf>, now: SystemTime) {
        match inspect::leaf(leaf, now) {
            Err(error) => self.wrong.push(chain(&error)),
            Ok(summary) => {
                self.end_near(leaf, &summary, now);
                self.fine.push(line(&leaf.display().to_string(), &summary));
            }
        }
        if let Some(key) = key {
            self.pair(leaf, &key);
        }
    }

    fn pair(&mut self, leaf: &Path, key: &Path) {
        if let Err(error) = inspect::file(key) {
            self.wrong.push(chain(&error));
        } else if !fits(leaf, key) {
            self.wrong.push(format!(
                "{} is not the key of the leaf in {}; install the pair that was issued together",
                key.display(),
                leaf.display()
            ));
        }
        let mode = std::fs::metadata(key).map(|meta| std::os::unix::fs::MetadataExt::mode(&meta)).unwrap_or_default();
        if mode & 0o044 != 0 {
            self.readable(key, mode);
        }
    }

    fn trusted(&mut self, leaf: &Path, ca: Option<&Path>) {
        if let Some(ca) = ca.filter(|ca| !signed_by_file(leaf, ca)) {
            self.wrong.push(format!(
                "{} is not signed by a CA in {}; issue it by that CA, or give peers the CA that signed it",
                leaf.display(),
                ca.display()
            ));
        }
    }

    /// Nothing is wrong with it: who dials the edge trusts the leaf's CA by a file of its own.
    fn of_another_ca(&mut self, leaf: &Path, ca: Option<&Path>) {
        if let Some(ca) = ca.filter(|ca| !signed_by_file(leaf, ca)) {
            self.fine.push(format!(
                "{}: of no CA in {}, which an edge asks about its clients alone; give clients the CA that signed the leaf",
                leaf.display(),
                ca.display()
            ));
        }
    }

    fn usable_by_a_client(&mut self, leaf: &Path, summary: &CertificateSummary) {
        if let Some((true, false)) = summary.usages {
            self.wrong.push(format!(
                "{} is a client's leaf, but its extended key usage names serverAuth and not clientAuth (the scripts of the Milvus documentation \
                 make it so): servers that check usages refuse it; issue it with extendedKeyUsage = clientAuth, as `meshctl certs renew` does",
                leaf.display()
            ));
        }
    }

    fn client_beside(&mut self, server: &Path, now: SystemTime) {
        let client = server.with_file_name("client.pem");
        if let Ok(Contents::Certificates(found)) = inspect::file(&client)
            && let Some(summary) = found.first()
        {
            self.end_near(&client, summary, now);
            self.usable_by_a_client(&client, summary);
        }
    }

    fn end_near(&mut self, what: &Path, certificate: &CertificateSummary, now: SystemTime) {
        let whole = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
        let left = certificate.not_after.duration_since(now).unwrap_or_default();
        if left < (whole / NEAR_SHARE).min(NEAR_AT_MOST) {
            let (kind, remedy) = if certificate.is_ca {
                ("the CA", "make the one that follows it, and give it to all peers beside this one")
            } else {
                ("the leaf", "renew it, as with `meshctl certs renew`")
            };
            let (what, subject) = (what.display(), &certificate.subject);
            self.wrong
                .push(format!("{what}: {kind} {subject} ends on {}: {remedy}", date(certificate.not_after.into())));
        }
    }

    fn readable(&mut self, key: &Path, mode: u32) {
        self.wrong.push(format!(
            "key {} can be read by others than its owner (mode {:04o}): run `chmod 600 {}`",
            key.display(),
            mode & 0o7777,
            key.display()
        ));
    }
}

fn line(what: &str, leaf: &CertificateSummary) -> String {
    format!("{what}: leaf {} for {}, until {}", leaf.serial, leaf.sans.join(" "), date(leaf.not_after.into()))
}

/// By its name, or because it can be nothing else.
fn is_client(leaf: &Path, summary: &CertificateSummary) -> bool {
    let named = leaf.file_stem().is_some_and(|stem| stem.to_string_lossy().to_lowercase().contains("client"));
    !of_the_mesh(summary) && (named || summary.usages == Some((false, true)))
}

fn of_the_mesh(summary: &CertificateSummary) -> bool {
    node_of(&summary.uris).is_some()
}

/// The trust domain, role and node that a URI SAN names.
fn node_of(uris: &[String]) -> Option<(TrustDomain, Role, NodeId)> {
    uris.iter().find_map(|uri| {
        let mut parts = uri.strip_prefix("spiffe://")?.splitn(3, '/');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

/// Whose leaf it is; of a shared one anybody's, since it names nobody.
fn bearer(cert: &Path) -> (Role, NodeId) {
    let nobody = || Some((Role::new("proxy").ok()?, NodeId::new("proxy-1").ok()?));
    let named = match inspect::file(cert) {
        Ok(Contents::Certificates(found)) => found.first().and_then(|leaf| node_of(&leaf.uris)),
        _ => None,
    };
    named.map(|(_, role, node)| (role, node)).or_else(nobody).expect("`proxy` and `proxy-1` are names")
}

fn mesh(leaf: &Path, key: PathBuf, ca: PathBuf) -> MeshConfig {
    let domain = || TrustDomain::new("mesh.internal").expect("`mesh.internal` is a name");
    let named = match inspect::file(leaf) {
        Ok(Contents::Certificates(found)) => {
            found.first().and_then(|leaf| node_of(&leaf.uris)).map(|(domain, ..)| domain)
        }
        _ => None,
    };
    let (role, node) = bearer(leaf);
    MeshConfig {
        trust_domain: named.unwrap_or_else(domain),
        role,
        node,
        security: Security::Tls { files: files(leaf, key, Some(ca)), shared_name: None },
        reload: Reload::default(),
        limits: Limits::default(),
        policy: None,
        force: None,
        state: None,
    }
}

/// Where a CA is given, clients may be asked for certificates of it.
fn edge(leaf: &Path, key: PathBuf, ca: Option<PathBuf>) -> EdgeConfig {
    EdgeConfig {
        mode: if ca.is_some() { EdgeMode::TwoWay } else { EdgeMode::OneWay },
        files: Some(files(leaf, key, ca)),
        min_version: None,
        require_client_auth_eku: false,
        reload: Reload::default(),
        limits: Limits::default(),
        state: None,
    }
}

fn files(leaf: &Path, key: PathBuf, ca: Option<PathBuf>) -> Files {
    Files { cert: leaf.to_owned(), key, ca, client_cert: None, client_key: None, crl: None, distrust: None }
}

/// The leaf of a file that holds it together with its key, as HAProxy wants it: both settings may name one file.
fn leaf_beside_key(file: &Path) -> Option<(PathBuf, CertificateSummary)> {
    let found = inspect::certificates(file).ok().filter(|found| !found.is_empty())?;
    let summaries = inspect::summaries_of(file, &found).ok()?;
    Some((file.to_owned(), summaries.into_iter().next()?))
}

fn fits(leaf: &Path, key: &Path) -> bool {
    inspect::is_pair(leaf, key).unwrap_or(false)
}

fn signed_by_file(leaf: &Path, ca: &Path) -> bool {
    // A FIFO must not hold the check up.
    trusted::read(ca, MAX_BUNDLE).is_ok_and(|cas| signed_by(leaf, &cas.bytes))
}

/// Whether the path from the leaf, over what follows it, ends at a CA; its time is judged elsewhere.
pub(crate) fn signed_by(leaf: &Path, cas: &[u8]) -> bool {
    let verify = || {
        let facts = Facts::of_file(leaf).ok()?;
        let chain = inspect::certificates(leaf).ok()?;
        let cas = inspect::certificates_in(Path::new("ca.pem"), cas).ok()?;
        let anchors: Vec<_> = cas.iter().filter_map(|ca| webpki::anchor_from_trusted_cert(ca).ok()).collect();
        let (first, intermediates) = chain.split_first()?;
        let end = u64::try_from(facts.not_after.unix_timestamp()).ok()?;
        let usage = if facts.request.usages.contains(&rcgen::ExtendedKeyUsagePurpose::ServerAuth) {
            webpki::KeyUsage::server_auth()
        } else {
            webpki::KeyUsage::client_auth()
        };
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(end));
        webpki::EndEntityCert::try_from(first)
            .ok()?
            .verify_for_usage(algorithms, &anchors, intermediates, at, usage, None, None)
            .ok()?;
        Some(())
    };
    verify().is_some()
}
