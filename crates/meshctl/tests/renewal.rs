//! `certs renew` keeps what the leaf before said: openssl tells it of both.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use internaltls::inspect;
use meshctl::certs::authority::{Authority, Facts, KeyKind};
use meshctl::certs::renew::{Renewed, renew};
use time::OffsetDateTime;

fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

struct Folder(tempfile::TempDir);

impl Folder {
    /// A CA whose subject has two attributes of one kind.
    fn new(extensions: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.at("ext"), extensions).unwrap();
        let (key, pem) = (folder.at("ca.key"), folder.at("ca.pem"));
        let mut args =
            vec!["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
        args.extend(["-subj", "/DC=com/DC=example/CN=CA", "-keyout", &key, "-out", &pem]);
        openssl(&args);
        folder
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A leaf by that CA, with such a key.
    fn leaf(&self, stem: &str, key: &[&str]) {
        let (key_file, csr, pem) = (self.at(&format!("{stem}.key")), self.at("csr"), self.at(&format!("{stem}.pem")));
        let subject = "/DC=com/DC=example/O=M\u{fc}ller/OU=one/OU=two/CN=db.example.com";
        let mut args = vec!["req", "-new", "-utf8", "-nodes", "-subj", subject, "-keyout", &key_file, "-out", &csr];
        args.extend(key);
        openssl(&args);
        let (ca, ca_key, ext) = (self.at("ca.pem"), self.at("ca.key"), self.at("ext"));
        let mut args =
            vec!["x509", "-req", "-in", &csr, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "9"];
        args.extend(["-extfile", &ext, "-out", &pem]);
        openssl(&args);
    }

    /// Subject, kind and size of the key, and extensions but the key identifiers.
    fn said(&self, name: &str) -> String {
        let file = self.at(name);
        let omit = "no_header,no_version,no_serial,no_signame,no_validity,no_issuer,no_sigdump,ext_dump,no_pubkey";
        let text =
            openssl(&["x509", "-in", &file, "-noout", "-text", "-certopt", omit, "-nameopt", "multiline,show_type"]);
        let key = openssl(&["x509", "-in", &file, "-noout", "-text"]);
        let key: Vec<_> = key
            .lines()
            .filter(|line| line.contains("Public-Key:") || line.contains("ASN1 OID") || line.contains("ED25519"))
            .collect();
        let mut skips = false;
        let kept = text.lines().filter(|line| {
            if line.trim_start().starts_with("X509v3") {
                skips = line.contains("Key Identifier");
            }
            !skips
        });
        format!("{}\n{}", kept.collect::<Vec<_>>().join("\n"), key.join("\n"))
    }

    fn renew(&self) -> Vec<Renewed> {
        renew(self.0.path(), Duration::from_secs(3_600)).unwrap()
    }

    fn verified(&self, name: &str, purpose: &str) {
        openssl(&["verify", "-purpose", purpose, "-CAfile", &self.at("ca.pem"), &self.at(name)]);
        let public = openssl(&["x509", "-in", &self.at(name), "-noout", "-pubkey"]);
        let key = self.at(&Path::new(name).with_extension("key").display().to_string());
        assert_eq!(openssl(&["pkey", "-in", &key, "-pubout"]), public, "{name}");
    }
}

const EVERYTHING: &str = "\
subjectAltName = critical,DNS:db.example.com,DNS:*.example.com,IP:192.0.2.7,IP:2001:db8::1,URI:spiffe://mesh.internal/proxy/p-1,email:a@example.com,RID:1.2.3.4,otherName:1.2.3.4.5;UTF8:other,dirName:dir
keyUsage = critical,digitalSignature,keyAgreement
extendedKeyUsage = critical,serverAuth,clientAuth,1.3.6.1.4.1.99999.1
basicConstraints = critical,CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid,issuer
certificatePolicies = 1.3.6.1.4.1.99999.2,1.3.6.1.4.1.99999.3
authorityInfoAccess = OCSP;URI:http://ocsp.example.com/,caIssuers;URI:http://ca.example.com/ca.der
crlDistributionPoints = URI:http://ca.example.com/ca.crl
nsComment = \"a comment\"
tlsfeature = status_request
1.3.6.1.4.1.99999.4 = ASN1:UTF8String:unknown
1.3.6.1.4.1.99999.5 = critical,DER:0403010203
[dir]
C = DE
O = one
";

#[test]
fn keeps_subject_and_every_extension() {
    let folder = Folder::new(EVERYTHING);
    folder.leaf("server", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    let (before, first) = (folder.said("server.pem"), fs::read(folder.at("server.pem")).unwrap());
    for part in
        ["othername", "Registered ID", "OCSP", "unknown", "organizationalUnitName    = UTF8STRING:two", "critical"]
    {
        assert!(before.to_lowercase().contains(&part.to_lowercase()), "`{part}` is not in: {before}");
    }
    for _ in 0..2 {
        let renewed = folder.renew();
        let unknown = "the extension 1.3.6.1.4.1.99999.4, the extension 1.3.6.1.4.1.99999.5";
        assert!(renewed[0].remarks.len() == 1 && renewed[0].remarks[0].ends_with(unknown), "{renewed:?}");
        assert_eq!(folder.said("server.pem"), before);
        // An unknown critical extension is refused by whoever does not know it, before and after.
        let unknown = ["verify", "-ignore_critical", "-CAfile", &folder.at("ca.pem"), &folder.at("server.pem")]
            .map(str::to_owned);
        openssl(&unknown.each_ref().map(String::as_str));
    }
    assert_ne!(fs::read(folder.at("server.pem")).unwrap(), first);
    let identifiers =
        |pem: &str| openssl(&["x509", "-in", pem, "-noout", "-ext", "subjectKeyIdentifier,authorityKeyIdentifier"]);
    fs::write(folder.at("first.pem"), first).unwrap();
    assert_ne!(
        identifiers(&folder.at("server.pem")),
        identifiers(&folder.at("first.pem")),
        "key identifiers are made anew"
    );
}

#[test]
fn keeps_kind_and_size_of_the_key() {
    let folder = Folder::new("subjectAltName = DNS:db.example.com\nextendedKeyUsage = serverAuth,clientAuth\n");
    let kinds: [&[&str]; 7] = [
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"],
        &["-newkey", "ed25519"],
        &["-newkey", "rsa:2048"],
        &["-newkey", "rsa:3072"],
        &["-newkey", "rsa:4096"],
    ];
    for kind in kinds {
        folder.leaf("server", kind);
        let before = folder.said("server.pem");
        let renewed = folder.renew();
        assert_eq!(folder.said("server.pem"), before, "{kind:?}");
        assert!(renewed[0].remarks.is_empty(), "{renewed:?}");
        folder.verified("server.pem", "sslserver");
        folder.verified("server.pem", "sslclient");
    }
}

#[test]
fn never_changes_a_key_silently() {
    let folder = Folder::new("subjectAltName = DNS:db.example.com\n");
    folder.leaf("server", &["-newkey", "rsa:2560"]);
    let renewed = folder.renew();
    assert!(folder.said("server.pem").contains("3072 bit"), "{}", folder.said("server.pem"));
    assert!(renewed[0].remarks[0].contains("RSA 2560"), "{renewed:?}");
    folder.leaf("server", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"]);
    let before = fs::read(folder.at("server.pem")).unwrap();
    let error = format!("{:#}", renew(folder.0.path(), Duration::from_secs(60)).unwrap_err());
    assert!(error.contains("server.pem") && error.contains("no such key can be made here"), "{error}");
    assert_eq!(fs::read(folder.at("server.pem")).unwrap(), before);
}

#[test]
fn mends_what_would_be_refused() {
    let folder = Folder::new(
        "subjectAltName = DNS:db.example.com\nbasicConstraints = critical,CA:TRUE\nkeyUsage = keyCertSign,digitalSignature\nextendedKeyUsage = serverAuth,1.3.6.1.4.1.99999.1\n",
    );
    let kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    folder.leaf("server", &kind);
    folder.leaf("client", &kind);
    let renewed = folder.renew();
    let remarks: Vec<_> =
        renewed.iter().map(|leaf| (leaf.path.file_name().unwrap().to_owned(), leaf.remarks.len())).collect();
    assert_eq!(remarks, [("server.pem".into(), 1), ("client.pem".into(), 2)]);
    for name in ["server.pem", "client.pem"] {
        let said = openssl(&["x509", "-in", &folder.at(name), "-noout", "-text"]);
        assert!(said.contains("CA:FALSE") && !said.contains("Certificate Sign"), "{said}");
        assert!(said.contains("1.3.6.1.4.1.99999.1") && said.contains("TLS Web Server Authentication"), "{said}");
    }
    folder.verified("client.pem", "sslclient");
}

/// A CA that is no root: what is above the leaf goes along, or its peers could not find the way.
#[test]
fn keeps_the_chain_above() {
    let folder = Folder::new("basicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign\n");
    let kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    folder.leaf("middle", &kind);
    let root = fs::read(folder.at("ca.pem")).unwrap();
    fs::rename(folder.at("middle.pem"), folder.at("ca.pem")).unwrap();
    fs::rename(folder.at("middle.key"), folder.at("ca.key")).unwrap();
    fs::write(folder.at("ext"), "subjectAltName = DNS:db.example.com\n").unwrap();
    folder.leaf("server", &kind);
    let (leaf, middle) = (fs::read(folder.at("server.pem")).unwrap(), fs::read(folder.at("ca.pem")).unwrap());
    fs::write(folder.at("server.pem"), [leaf, middle].concat()).unwrap();
    folder.renew();
    assert_eq!(fs::read_to_string(folder.at("server.pem")).unwrap().matches("BEGIN CERTIFICATE").count(), 2);
    let root_file = PathBuf::from(folder.at("root.pem"));
    fs::write(&root_file, root).unwrap();
    openssl(&[
        "verify",
        "-CAfile",
        root_file.to_str().unwrap(),
        "-untrusted",
        &folder.at("server.pem"),
        &folder.at("server.pem"),
    ]);
}

const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const NAMES: &str = "subjectAltName = DNS:db.example.com\n";

fn refused(folder: &Folder, words: &str) {
    let before = fs::read(folder.at("server.pem")).unwrap();
    let error = format!("{:#}", renew(folder.0.path(), Duration::from_secs(60)).unwrap_err());
    assert!(error.contains("server.pem") && error.contains(words), "{error}");
    assert_eq!(fs::read(folder.at("server.pem")).unwrap(), before);
}

/// The issuer's name is anybody's to write.
#[test]
fn renews_only_what_its_ca_signed() {
    let (folder, forger) = (Folder::new(NAMES), Folder::new(NAMES));
    forger.leaf("server", &P256);
    for name in ["server.pem", "server.key"] {
        fs::copy(forger.at(name), folder.at(name)).unwrap();
    }
    refused(&folder, "is not signed by the CA");
    // With the forger's CA along, as if that were above the leaf.
    let chain = [forger.at("server.pem"), forger.at("ca.pem")].map(|path| fs::read(path).unwrap()).concat();
    fs::write(folder.at("server.pem"), chain).unwrap();
    refused(&folder, "is not signed by the CA");
}

/// A leaf is public: a copy of another's gets no key.
#[test]
fn renews_only_for_the_holder_of_the_key() {
    let folder = Folder::new(NAMES);
    folder.leaf("server", &P256);
    folder.leaf("other", &P256);
    fs::copy(folder.at("other.pem"), folder.at("server.pem")).unwrap();
    refused(&folder, "is not the key of");
    fs::remove_file(folder.at("server.key")).unwrap();
    refused(&folder, "its key lies beside it");
    fs::copy(folder.at("other.key"), folder.at("server.key")).unwrap();
    folder.renew();
}

/// What is above the leaf counts where it is a CA, and nowhere else.
#[test]
fn a_path_leads_through_cas_alone() {
    for (extensions, is_fine) in [("basicConstraints = critical,CA:TRUE\n", true), (NAMES, false)] {
        let folder = Folder::new(extensions);
        folder.leaf("middle", &P256);
        let keep = |from: &str, to: &str| {
            for kind in ["pem", "key"] {
                fs::copy(folder.at(&format!("{from}.{kind}")), folder.at(&format!("{to}.{kind}"))).unwrap();
            }
        };
        keep("ca", "root");
        keep("middle", "ca");
        fs::write(folder.at("ext"), NAMES).unwrap();
        folder.leaf("server", &P256);
        keep("root", "ca");
        let chain = [folder.at("server.pem"), folder.at("middle.pem")].map(|path| fs::read(path).unwrap()).concat();
        fs::write(folder.at("server.pem"), chain).unwrap();
        if is_fine {
            folder.renew();
            folder.verified("server.pem", "sslserver");
        } else {
            refused(&folder, "is not signed by the CA");
        }
    }
}

/// The signature counts, not the time; and in a roll-over the CA that goes, which is in the bundle of the one that comes.
#[test]
fn renews_expired_leaves_and_those_of_the_ca_before() {
    let folder = Folder::new(NAMES);
    folder.leaf("server", &P256);
    let now = OffsetDateTime::now_utc();
    let request = Facts::of_file(Path::new(&folder.at("server.pem"))).unwrap().request;
    let key = inspect::private_key(Path::new(&folder.at("server.key"))).unwrap();
    let day = Duration::from_secs(86_400);
    let old = Authority::create("old", KeyKind::EcP256, now).unwrap();
    fs::write(folder.at("ca.key"), old.key_pem()).unwrap();
    fs::write(folder.at("ca.pem"), old.cert_pem()).unwrap();
    let expired = old.reissue(&request, &key, now - 9 * day, now - 8 * day).unwrap();
    fs::write(folder.at("server.pem"), &expired.cert_pem).unwrap();
    folder.renew();
    folder.verified("server.pem", "sslserver");
    let new = Authority::create("new", KeyKind::EcP256, now).unwrap();
    fs::write(folder.at("ca.key"), new.key_pem()).unwrap();
    fs::write(folder.at("ca.pem"), new.cert_pem()).unwrap();
    refused(&folder, "is not signed by the CA");
    fs::write(folder.at("ca.pem"), format!("{}{}", new.cert_pem(), old.cert_pem())).unwrap();
    folder.renew();
    fs::write(folder.at("ca.pem"), new.cert_pem()).unwrap();
    folder.verified("server.pem", "sslserver");
}
