//! A certificate authority and the folders of its nodes, laid out and renewed as Kubernetes does it.
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use internaltls::{Files, NodeId, Role};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Two CAs may write into one node's folder.
static VERSIONS: AtomicU32 = AtomicU32::new(1);

/// One CA in a folder of its own.
pub(crate) struct Authority {
    pub(crate) folder: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
    issued: AtomicU32,
}

/// One node's folder: `NODE/server.pem` and its like, links into `NODE/..data`, a link to a version.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) role: Role,
    pub(crate) id: NodeId,
    pub(crate) folder: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let folder = TempDir::new().unwrap();
        // Named after its folder: two CAs of one name would be told apart by their signatures only.
        params.distinguished_name.push(DnType::CommonName, folder.path().display().to_string());
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { folder, ca, issued: AtomicU32::new(1) }
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        self.ca.pem()
    }

    /// A node with a leaf, its first version.
    pub(crate) fn node(&self, role: &str, id: &str) -> Node {
        let node = Node { role: role.parse().unwrap(), id: id.parse().unwrap(), folder: self.folder.path().join(id) };
        fs::DirBuilder::new().mode(0o700).create(&node.folder).unwrap();
        for file in ["server.pem", "server.key", "ca.pem"] {
            symlink(Path::new("..data").join(file), node.folder.join(file)).unwrap();
        }
        self.renew(&node);
        node
    }

    /// A new leaf and key for the node, taken into use by one rename. Its serial, as status shows it.
    pub(crate) fn renew(&self, node: &Node) -> String {
        self.install(node, &self.pem())
    }

    /// The same, with another bundle.
    pub(crate) fn install(&self, node: &Node, bundle: &str) -> String {
        self.install_at(node, bundle, SystemTime::now())
    }

    /// A new leaf of a CA for whose clock it is `now`.
    pub(crate) fn renew_at(&self, node: &Node, now: SystemTime) -> String {
        self.install_at(node, &self.pem(), now)
    }

    fn install_at(&self, node: &Node, bundle: &str, now: SystemTime) -> String {
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let (cert, key) = self.leaf(node, number, now.into());
        node.put(&[cert, key, bundle.to_owned()]);
        format!("{:08x}", number | 0x0100_0000)
    }

    /// Its revocation list, naming the leaves of these serials, as status shows them.
    pub(crate) fn crl(&self, listed: &[&str], next_update: SystemTime) -> String {
        let now = time::OffsetDateTime::now_utc();
        let bytes = |serial: &str| u32::from_str_radix(serial, 16).unwrap().to_be_bytes();
        let revoked = |serial: &&str| rcgen::RevokedCertParams {
            serial_number: SerialNumber::from_slice(&bytes(serial)),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = rcgen::CertificateRevocationListParams {
            this_update: now - time::Duration::hours(1),
            next_update: next_update.into(),
            crl_number: SerialNumber::from(u64::try_from(now.unix_timestamp_nanos()).unwrap()),
            issuing_distribution_point: None,
            revoked_certs: listed.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.ca).unwrap().pem().unwrap()
    }

    /// Good for a day.
    fn leaf(&self, node: &Node, number: u32, now: time::OffsetDateTime) -> (String, String) {
        let mut params = CertificateParams::new(vec![format!("{}.mesh.internal", node.role)]).unwrap();
        let uri = format!("spiffe://mesh.internal/{}/{}", node.role, node.id);
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from_slice(&(number | 0x0100_0000).to_be_bytes()));
        params.not_before = now - time::Duration::minutes(5);
        params.not_after = now + time::Duration::days(1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.ca).unwrap().pem(), key.serialize_pem())
    }
}

impl Node {
    /// The bytes on its disk: leaf, key and bundle.
    pub(crate) fn set(&self) -> [String; 3] {
        ["server.pem", "server.key", "ca.pem"].map(|file| fs::read_to_string(self.folder.join(file)).unwrap())
    }

    /// Takes these bytes into use by one rename.
    pub(crate) fn put(&self, [cert, key, bundle]: &[String; 3]) {
        let version = self.folder.join(format!("..{}", VERSIONS.fetch_add(1, Ordering::Relaxed)));
        fs::DirBuilder::new().mode(0o700).create(&version).unwrap();
        write(&version.join("server.pem"), cert);
        write(&version.join("server.key"), key);
        write(&version.join("ca.pem"), bundle);
        let link = self.folder.join("..new");
        symlink(version.file_name().unwrap(), &link).unwrap();
        fs::rename(&link, self.folder.join("..data")).unwrap();
    }

    pub(crate) fn files(&self) -> Files {
        let file = |name: &str| self.folder.join(name);
        Files::new(file("server.pem"), file("server.key"), file("ca.pem"))
    }

    /// The same, with a distrust list that names nobody yet.
    pub(crate) fn files_with_distrust(&self) -> Files {
        let list = self.folder.join("distrust");
        fs::write(&list, "# nobody\n").unwrap();
        Files { distrust: Some(list), ..self.files() }
    }

    /// The same, with this revocation list.
    pub(crate) fn files_with_crl(&self, list: &str) -> Files {
        let path = self.folder.join("crl.pem");
        fs::write(&path, list).unwrap();
        Files { crl: Some(path), ..self.files() }
    }

    /// Lists the keys of these certificates, PEM.
    pub(crate) fn distrust(&self, certificates: &[String]) {
        let hashes: String = certificates.iter().map(|pem| format!("{}\n", key_hash(pem))).collect();
        let list = format!("{hashes}# end {}\n", certificates.len());
        fs::write(self.folder.join("distrust"), list).unwrap();
    }

    /// Its leaf, PEM.
    pub(crate) fn leaf(&self) -> String {
        fs::read_to_string(self.folder.join("server.pem")).unwrap()
    }
}

/// SPKI SHA-256 in hex.
fn key_hash(pem: &str) -> String {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, cert) = X509Certificate::from_der(&der).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, cert.public_key().raw);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(path: &Path, text: &str) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
