//! A CA in memory, leaves of any shape, and folders of files to load them from.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::clock::{Clock, SystemClock};
use crate::config::{EdgeMode, Files, Reload, TlsVersion};
use crate::error::LoadError;
use crate::identity::{NodeId, Role, TrustDomain};
use crate::material::{Purpose, Store};
use crate::telemetry::Telemetry;

pub(crate) const DOMAIN: &str = "mesh.internal";
const HOUR: Duration = Duration::from_secs(3600);

/// A CA, root or intermediate.
pub(crate) struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
}

/// A leaf and its key.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) pem: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
}

pub(crate) fn authority(name: &str) -> Authority {
    authority_with(name, |_| {})
}

pub(crate) fn authority_with(name: &str, shape: impl FnOnce(&mut CertificateParams)) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = authority_params(name);
    shape(&mut params);
    let cert = params.self_signed(&key).unwrap();
    Authority { pem: cert.pem(), der: cert.der().clone(), issuer: Issuer::new(params, key) }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (SystemTime::now() - HOUR).into();
    params.not_after = (SystemTime::now() + 48 * HOUR).into();
    params
}

impl Authority {
    /// Another certificate of the same name and key.
    pub(crate) fn again(&self, name: &str, shape: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = authority_params(name);
        shape(&mut params);
        params.self_signed(self.issuer.key()).unwrap().pem()
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        self.intermediate_with(name, |_| {})
    }

    pub(crate) fn intermediate_with(&self, name: &str, shape: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = authority_params(name);
        shape(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Self { pem: cert.pem(), der: cert.der().clone(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn leaf(&self, shape: impl FnOnce(&mut CertificateParams)) -> Leaf {
        self.leaf_with_key(KeyPair::generate().unwrap(), shape)
    }

    pub(crate) fn leaf_with_key(&self, key: KeyPair, shape: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::default();
        params.not_before = (SystemTime::now() - HOUR).into();
        params.not_after = (SystemTime::now() + 24 * HOUR).into();
        shape(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { pem: cert.pem(), key: key.serialize_pem(), der: cert.der().clone() }
    }

    pub(crate) fn node(&self, role: &str, node: &str) -> Leaf {
        self.leaf(|params| shape_node(params, role, node))
    }

    pub(crate) fn crl(&self, serials: &[Vec<u8>], next_update: SystemTime) -> String {
        self.signed_list(next_number(), serials, SystemTime::now() - HOUR, next_update)
    }

    /// An empty list of that moment.
    pub(crate) fn crl_from(&self, this_update: SystemTime, next_update: SystemTime) -> String {
        self.signed_list(next_number(), &[], this_update, next_update)
    }

    pub(crate) fn numbered_crl(&self, number: u64, serials: &[Vec<u8>], next_update: SystemTime) -> String {
        self.signed_list(number, serials, next_update - 2 * HOUR, next_update)
    }

    fn signed_list(
        &self,
        number: u64,
        serials: &[Vec<u8>],
        this_update: SystemTime,
        next_update: SystemTime,
    ) -> String {
        let revoked = |serial: &Vec<u8>| rcgen::RevokedCertParams {
            serial_number: rcgen::SerialNumber::from_slice(serial),
            revocation_time: (SystemTime::now() - HOUR).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = rcgen::CertificateRevocationListParams {
            this_update: this_update.into(),
            next_update: next_update.into(),
            crl_number: rcgen::SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// Each list of a test run is above those before it, but for those that choose their number.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// As a node's leaf must be.
pub(crate) fn shape_node(params: &mut CertificateParams, role: &str, node: &str) {
    params.subject_alt_names = vec![dns(&format!("{role}.{DOMAIN}")), uri(&format!("spiffe://{DOMAIN}/{role}/{node}"))];
    params.extended_key_usages = both();
}

/// As the documented scripts make them: one DNS SAN, serverAuth alone.
pub(crate) fn shape_shared(params: &mut CertificateParams) {
    params.subject_alt_names = vec![dns("localhost")];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
}

pub(crate) fn both() -> Vec<ExtendedKeyUsagePurpose> {
    vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

pub(crate) fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

/// A folder with one set of files.
pub(crate) struct Folder {
    pub(crate) at: TempDir,
}

impl Folder {
    pub(crate) fn of(ca: &str, leaf: &Leaf) -> Self {
        let folder = Self { at: tempfile::tempdir().unwrap() };
        folder.put("ca.pem", ca);
        folder.put("server.pem", &leaf.pem);
        folder.put("server.key", &leaf.key);
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.at.path().join(name)
    }

    pub(crate) fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        write(&self.path(name), text);
    }

    pub(crate) fn files(&self) -> Files {
        Files {
            cert: self.path("server.pem"),
            key: self.path("server.key"),
            ca: Some(self.path("ca.pem")),
            client_cert: None,
            client_key: None,
            crl: None,
            distrust: None,
        }
    }
}

/// Writes in place; keys are their owner's alone.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).unwrap();
    let mode = if path.extension().is_some_and(|e| e == "key") { 0o600 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn mesh(role: &str, node: &str) -> Purpose {
    Purpose::Mesh {
        trust_domain: TrustDomain::new(DOMAIN).unwrap(),
        role: Role::new(role).unwrap(),
        node: NodeId::new(node).unwrap(),
        shared_name: None,
    }
}

pub(crate) fn edge(mode: EdgeMode, require_client_auth_eku: bool) -> Purpose {
    Purpose::Edge { mode, min_version: TlsVersion::V1_2, require_client_auth_eku }
}

/// Quick to notice, quick to try again.
pub(crate) fn quick() -> Reload {
    Reload {
        poll: Duration::from_secs(3600),
        debounce: Duration::from_millis(40),
        retry: Duration::from_millis(300),
        watch: true,
        ..Reload::default()
    }
}

pub(crate) async fn open(purpose: Purpose, files: Files) -> Result<Arc<Store>, LoadError> {
    open_with(purpose, files, Reload { watch: false, ..quick() }, Arc::new(SystemClock)).await
}

pub(crate) async fn open_with(
    purpose: Purpose,
    files: Files,
    reload: Reload,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Store>, LoadError> {
    Store::open(purpose, files, None, reload, clock, Arc::new(Telemetry::new())).await
}

pub(crate) async fn fails(purpose: Purpose, files: Files) -> LoadError {
    open(purpose, files).await.map(|store| store.status()).unwrap_err()
}

/// Runs openssl, and gives back what it wrote.
pub(crate) fn openssl(args: &[&str], input: &str) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl must be installed");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}
