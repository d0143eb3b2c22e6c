//! Certificates made in the test, and the files that a store reads.
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;

use crate::clock::{Clock, SystemClock};
use crate::config::{Files, Reload};
use crate::identity::{NodeId, Role, TrustDomain};
use crate::material::{Purpose, Store};
use crate::telemetry::Telemetry;

/// A certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A leaf and its key, PEM.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Leaf {
    /// The certificate, DER.
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::until(name, CertificateParams::default().not_after.into())
    }

    /// One that ends then.
    pub(crate) fn until(name: &str, not_after: SystemTime) -> Self {
        let mut params = CertificateParams::default();
        params.not_after = not_after.into();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A leaf with these names and both usages.
    fn leaf(&self, dns: &[&str], uri: Option<String>) -> Leaf {
        self.leaf_until(dns, uri, SystemTime::now() + Duration::from_secs(30 * 86_400))
    }

    fn leaf_until(&self, dns: &[&str], uri: Option<String>, not_after: SystemTime) -> Leaf {
        self.sign(&self.params(dns, uri, not_after), &KeyPair::generate().unwrap())
    }

    fn params(&self, dns: &[&str], uri: Option<String>, not_after: SystemTime) -> CertificateParams {
        let mut params = CertificateParams::new(dns.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uri.map(|u| SanType::URI(u.try_into().unwrap())));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::minutes(5);
        params.not_after = not_after.into();
        params
    }

    fn sign(&self, params: &CertificateParams, key: &KeyPair) -> Leaf {
        let cert = params.signed_by(key, &self.issuer).unwrap();
        Leaf { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// Another certificate with the key of `leaf`.
    pub(crate) fn again(&self, leaf: &Leaf, dns: &str) -> Leaf {
        let mut params = self.params(&[dns], None, SystemTime::now() + Duration::from_secs(30 * 86_400));
        // Left to itself it would be made of the key.
        params.serial_number = Some(rcgen::SerialNumber::from(7));
        self.sign(&params, &KeyPair::from_pem(&leaf.key).unwrap())
    }

    /// Its revocation list.
    pub(crate) fn crl(&self, listed: &[&Leaf], next_update: SystemTime) -> String {
        let now = time::OffsetDateTime::now_utc();
        let revoked = |leaf: &&Leaf| rcgen::RevokedCertParams {
            serial_number: rcgen::SerialNumber::from_slice(&leaf.serial()),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = rcgen::CertificateRevocationListParams {
            this_update: now - time::Duration::hours(1),
            next_update: next_update.into(),
            crl_number: rcgen::SerialNumber::from(u64::try_from(now.unix_timestamp_nanos()).unwrap()),
            issuing_distribution_point: None,
            revoked_certs: listed.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// A mesh node's leaf.
    pub(crate) fn node(&self, role: &str, node: &str) -> Leaf {
        self.leaf(&[&format!("{role}.mesh.internal")], Some(format!("spiffe://mesh.internal/{role}/{node}")))
    }

    /// A mesh node's leaf that ends then.
    pub(crate) fn node_until(&self, role: &str, node: &str, not_after: SystemTime) -> Leaf {
        let uri = format!("spiffe://mesh.internal/{role}/{node}");
        self.leaf_until(&[&format!("{role}.mesh.internal")], Some(uri), not_after)
    }

    /// A leaf with a DNS name alone, as edges and their clients have it.
    pub(crate) fn named(&self, dns: &str) -> Leaf {
        self.leaf(&[dns], None)
    }

    /// The same, that ends then.
    pub(crate) fn named_until(&self, dns: &str, not_after: SystemTime) -> Leaf {
        self.leaf_until(&[dns], None, not_after)
    }
}

impl Leaf {
    fn serial(&self) -> Vec<u8> {
        let der = CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap();
        let hex = crate::verify::CertificateFacts::read(&der).unwrap().serial;
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }
}

/// A folder with one set of material.
pub(crate) struct Folder {
    dir: TempDir,
}

impl Folder {
    pub(crate) fn with(leaf: &Leaf, ca: &str) -> Self {
        let folder = Self { dir: TempDir::new().unwrap() };
        folder.file("distrust", "# nobody\n");
        folder.write(leaf, ca);
        folder
    }

    /// Replaces all files but the distrust list.
    pub(crate) fn write(&self, leaf: &Leaf, ca: &str) {
        self.file("ca.pem", ca);
        self.file("leaf.pem", &leaf.cert);
        self.file("leaf.key", &leaf.key);
    }

    pub(crate) fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn files(&self) -> Files {
        Files {
            cert: self.path("leaf.pem"),
            key: self.path("leaf.key"),
            ca: Some(self.path("ca.pem")),
            client_cert: None,
            client_key: None,
            crl: Some(self.path("crl.pem")).filter(|path| path.exists()),
            distrust: Some(self.path("distrust")),
        }
    }

    /// Lists a leaf's key as distrusted.
    pub(crate) fn distrust(&self, leaf: &Leaf) {
        let der = CertificateDer::from_pem_slice(leaf.cert.as_bytes()).unwrap();
        let key = crate::verify::CertificateFacts::read(&der).unwrap().spki_sha256;
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.file("distrust", &format!("{hex}\n"));
    }

    /// The store of the coordinator `c-1` over these files, that reads them again only when told to.
    pub(crate) async fn mesh_store(&self) -> Arc<Store> {
        self.store(None, Arc::new(SystemClock)).await
    }

    /// The same, by another clock.
    pub(crate) async fn mesh_store_at(&self, clock: Arc<dyn Clock>) -> Arc<Store> {
        self.store(None, clock).await
    }

    /// The same, with the policy file `policy.yaml` of this text.
    pub(crate) async fn policed_store(&self, policy: &str) -> Arc<Store> {
        self.file("policy.yaml", policy);
        self.store(Some(self.path("policy.yaml")), Arc::new(SystemClock)).await
    }

    async fn store(&self, policy: Option<PathBuf>, clock: Arc<dyn Clock>) -> Arc<Store> {
        let purpose = Purpose::Mesh {
            trust_domain: TrustDomain::new("mesh.internal").unwrap(),
            role: Role::new("coordinator").unwrap(),
            node: NodeId::new("c-1").unwrap(),
            shared_name: None,
        };
        let telemetry = Arc::new(Telemetry::new());
        Store::open(purpose, self.files(), policy, by_hand(), clock, telemetry).await.unwrap()
    }
}

/// No events, and no poll within the life of a test.
pub(crate) fn by_hand() -> Reload {
    let long = Duration::from_secs(3_600);
    Reload { watch: false, poll: long, retry: long, ..Reload::default() }
}

/// How a test's client dials.
pub(crate) fn dialer(
    trusted: &str,
    leaf: Option<&Leaf>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups =
        vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768, rustls::crypto::aws_lc_rs::kx_group::X25519];
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match leaf {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let cert = CertificateDer::from_pem_slice(leaf.cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
