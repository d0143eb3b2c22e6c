//! Each thing that can be wrong with the files is told apart, with file, setting and remedy.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};

use super::issue::*;
use crate::clock::TestClock;
use crate::config::EdgeMode;
use crate::error::{LoadError, Reason};
use crate::foreign::chain;
use crate::material::{Layout, Purpose};

const DAY: Duration = Duration::from_secs(86_400);

struct Stage {
    ca: Authority,
    leaf: Leaf,
    folder: Folder,
}

fn stage() -> Stage {
    let ca = authority("mesh ca");
    let leaf = ca.node("proxy", "proxy-1");
    let folder = Folder::of(&ca.pem, &leaf);
    Stage { ca, leaf, folder }
}

async fn error(stage: &Stage) -> LoadError {
    fails(mesh("proxy", "proxy-1"), stage.folder.files()).await
}

/// With this leaf in the folder.
async fn error_of(shape: impl FnOnce(&mut rcgen::CertificateParams)) -> LoadError {
    let mut stage = stage();
    stage.leaf = stage.ca.leaf(shape);
    stage.folder.put("server.pem", &stage.leaf.pem);
    stage.folder.put("server.key", &stage.leaf.key);
    error(&stage).await
}

macro_rules! told {
    ($error:expr, $variant:pat, $($word:expr),+) => {{
        let error = $error;
        let text = chain(&error);
        assert!(matches!(error, $variant), "{text}");
        $(assert!(text.contains($word), "`{}` is not in: {text}", $word);)+
    }};
}

#[tokio::test]
async fn invariant_1_no_file_no_start() {
    for (name, field) in [
        ("server.pem", "internaltls.serverPemPath"),
        ("server.key", "internaltls.serverKeyPath"),
        ("ca.pem", "internaltls.caPemPath"),
    ] {
        let stage = stage();
        fs::remove_file(stage.folder.path(name)).unwrap();
        told!(error(&stage).await, LoadError::Missing(_), name, field);
    }
    let stage = stage();
    told!(
        fails(mesh("proxy", "proxy-1"), crate::config::Files { ca: None, ..stage.folder.files() }).await,
        LoadError::NoCa { .. },
        "internaltls.caPemPath"
    );
}

#[tokio::test]
async fn a_folder_and_an_empty_file_are_told_apart() {
    for name in ["server.pem", "server.key", "ca.pem"] {
        let stage = stage();
        fs::remove_file(stage.folder.path(name)).unwrap();
        fs::create_dir(stage.folder.path(name)).unwrap();
        told!(error(&stage).await, LoadError::Folder(_), name, "is a folder");
        fs::remove_dir(stage.folder.path(name)).unwrap();
        stage.folder.put(name, "");
        told!(error(&stage).await, LoadError::Empty(_), name, "is empty");
    }
}

#[tokio::test]
async fn a_file_too_large_is_not_read_whole() {
    let stage = stage();
    stage.folder.put("ca.pem", vec![b'#'; 1024 * 1024 + 1]);
    told!(error(&stage).await, LoadError::TooLarge { .. }, "ca.pem", "1048576");
}

#[tokio::test]
async fn a_file_behind_a_symlink_loop_is_unreadable() {
    let stage = stage();
    fs::remove_file(stage.folder.path("server.key")).unwrap();
    std::os::unix::fs::symlink(stage.folder.path("server.key"), stage.folder.path("server.key")).unwrap();
    told!(error(&stage).await, LoadError::Unreadable { .. }, "server.key", "internaltls.serverKeyPath", "uid");
}

#[test]
fn an_unreadable_key_tells_owner_mode_and_us() {
    let file =
        crate::error::MaterialFile { part: crate::error::Part::Key, path: "/certs/server.key".into(), edge: false };
    let access = Some(crate::error::Access { owner: 0, mode: 0o100_400, our_uid: 1000 });
    let error = LoadError::Unreadable { file, access, source: std::io::ErrorKind::PermissionDenied.into() };
    let text = error.to_string();
    for word in ["owner uid 0", "mode 0400", "uid 1000", "chown 1000 /certs/server.key", "internaltls.serverKeyPath"] {
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn invariant_7_a_key_that_others_can_replace_is_refused() {
    let stage = stage();
    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(stage.folder.path("server.key"), fs::Permissions::from_mode(mode)).unwrap();
        told!(error(&stage).await, LoadError::KeyWritable { .. }, "server.key", "chmod go-w");
    }
    fs::set_permissions(stage.folder.path("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(stage.folder.at.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // The first file that lies there is told.
    told!(error(&stage).await, LoadError::Writable { .. }, "server.pem", "mode 0777", "chmod go-w");
    fs::set_permissions(stage.folder.at.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    open(mesh("proxy", "proxy-1"), stage.folder.files()).await.unwrap();
}

#[tokio::test]
async fn torn_and_foreign_text_is_told() {
    let stage = stage();
    let cut = stage.ca.pem.len() - 40;
    stage.folder.put("ca.pem", format!("{}{}", stage.ca.pem, &stage.ca.pem[..cut]));
    told!(error(&stage).await, LoadError::BadPem { .. }, "ca.pem", "cut off");
    stage.folder.put("ca.pem", &stage.ca.pem[cut..]);
    told!(error(&stage).await, LoadError::BadPem { .. }, "ca.pem");
    // What is left of a torn file may begin with the digit 0, which is also the first byte of every DER file.
    stage.folder.put("ca.pem", "0AbC\n-----END CERTIFICATE-----\n");
    told!(error(&stage).await, LoadError::BadPem { .. }, "ca.pem");
    stage.folder.put("ca.pem", "hello");
    told!(error(&stage).await, LoadError::NoCertificate(_), "BEGIN CERTIFICATE");
    stage.folder.put("ca.pem", &stage.ca.der);
    told!(error(&stage).await, LoadError::Der(_), "DER");
    stage.folder.put("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    told!(error(&stage).await, LoadError::BadCertificate { number: 1, .. }, "ca.pem");
    stage.folder.put("ca.pem", &stage.ca.pem);
    stage.folder.put("server.key", &stage.leaf.pem);
    told!(error(&stage).await, LoadError::NoKey(_), "server.key", "PKCS#8");
    stage.folder.put("server.key", format!("{0}{0}", stage.leaf.key));
    told!(error(&stage).await, LoadError::SeveralKeys { count: 2, .. }, "server.key");
    stage.folder.put("server.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    told!(error(&stage).await, LoadError::UnusableKey(_), "server.key");
}

#[tokio::test]
async fn keys_are_read_in_every_form() {
    let ca = authority("mesh ca");
    let rsa = openssl(&["genrsa", "2048"], "");
    let p256 = openssl(&["ecparam", "-name", "prime256v1", "-genkey"], "");
    let p384 = openssl(&["ecparam", "-name", "secp384r1", "-genkey", "-noout"], "");
    let ed25519 = openssl(&["genpkey", "-algorithm", "ed25519"], "");
    let pkcs1 = openssl(&["rsa", "-traditional"], &rsa);
    assert!(p256.contains("EC PARAMETERS") && p256.contains("EC PRIVATE KEY") && pkcs1.contains("RSA PRIVATE KEY"));
    for key in [&rsa, &pkcs1, &p256, &p384, &ed25519] {
        let pkcs8 = openssl(&["pkcs8", "-topk8", "-nocrypt"], key);
        let pair = KeyPair::from_pem(&pkcs8).unwrap();
        let leaf = ca.leaf_with_key(pair, |params| shape_node(params, "proxy", "proxy-1"));
        let folder = Folder::of(&ca.pem, &leaf);
        for form in [key, &pkcs8, &key.replace('\n', "\r\n"), &format!("the key of proxy-1\n\n{key}\nthe end\n")] {
            folder.put("server.key", form);
            open(mesh("proxy", "proxy-1"), folder.files()).await.map_err(|e| chain(&e)).unwrap();
        }
    }
}

#[tokio::test]
async fn encrypted_keys_are_told() {
    let stage = stage();
    let rsa = openssl(&["genrsa", "2048"], "");
    let pkcs8 = openssl(&["pkcs8", "-topk8", "-passout", "pass:secret"], &stage.leaf.key);
    let traditional = openssl(&["rsa", "-traditional", "-aes128", "-passout", "pass:secret"], &rsa);
    assert!(traditional.contains("Proc-Type: 4,ENCRYPTED"));
    for key in [pkcs8, traditional] {
        stage.folder.put("server.key", key);
        told!(error(&stage).await, LoadError::EncryptedKey(_), "server.key", "openssl pkey");
    }
}

#[tokio::test]
async fn chains_bundles_and_comments_are_read() {
    let root = authority("root");
    let middle = root.intermediate("middle");
    let leaf = middle.node("proxy", "proxy-1");
    let folder = Folder::of(&format!("# old\n{}\nsubject=new\n{}", authority("old").pem, root.pem), &leaf);
    told!(
        fails(mesh("proxy", "proxy-1"), folder.files()).await,
        LoadError::Untrusted { .. },
        "server.pem",
        "ca.pem",
        "intermediates"
    );
    folder.put("server.pem", format!("Bag Attributes\n{}# intermediate\n{}", leaf.pem, middle.pem));
    let store = open(mesh("proxy", "proxy-1"), folder.files()).await.unwrap();
    assert_eq!(store.status().cas.len(), 2);
    assert_eq!(store.status().layout, Some(Layout::PerNode));
}

/// What a tool compares when it asks which CAs a process serves.
#[tokio::test]
async fn status_tells_fingerprints_as_openssl_does() {
    let root = authority("root");
    let folder = Folder::of(&root.pem, &root.node("proxy", "proxy-1"));
    let status = open(mesh("proxy", "proxy-1"), folder.files()).await.unwrap().status();
    assert_eq!(status.cas[0].sha256, fingerprint(&folder, "ca.pem"));
    assert_eq!(status.leaf.sha256, fingerprint(&folder, "server.pem"));
}

fn fingerprint(folder: &Folder, name: &str) -> String {
    let path = folder.path(name);
    let said = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    text.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase()
}

#[tokio::test]
async fn invariant_3_a_key_of_another_leaf_is_refused() {
    let stage = stage();
    stage.folder.put("server.key", stage.ca.node("proxy", "proxy-1").key);
    told!(error(&stage).await, LoadError::KeyMismatch { .. }, "server.key", "server.pem", "internaltls.serverKeyPath");
}

#[tokio::test]
async fn invariant_3_a_leaf_of_another_ca_is_refused() {
    let stage = stage();
    stage.folder.put("ca.pem", authority("mesh ca").pem);
    let error = error(&stage).await;
    assert!(
        matches!(&error, LoadError::Untrusted { source, .. } if matches!(source.reason, Reason::BadSignature | Reason::UnknownIssuer)),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn invariant_3_leaves_that_are_not_fit_are_refused() {
    told!(
        error_of(|p| {
            shape_node(p, "proxy", "proxy-1");
            p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        })
        .await,
        LoadError::CaAsLeaf(_),
        "server.pem"
    );
    told!(
        error_of(|p| {
            shape_node(p, "proxy", "proxy-1");
            p.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        })
        .await,
        LoadError::CaAsLeaf(_),
        "keyCertSign"
    );
    told!(error_of(|p| p.extended_key_usages = both()).await, LoadError::NoSan(_), "CN is never read");
    told!(
        error_of(|p| {
            shape_node(p, "proxy", "proxy-1");
            p.not_after = (SystemTime::now() - DAY / 48).into();
            p.not_before = (SystemTime::now() - DAY).into();
        })
        .await,
        LoadError::Expired { .. },
        "renew"
    );
    told!(
        error_of(|p| {
            shape_node(p, "proxy", "proxy-1");
            p.not_before = (SystemTime::now() + DAY / 48).into();
        })
        .await,
        LoadError::NotYetValid { .. },
        "clock"
    );
    told!(
        error_of(|p| shape_node(p, "proxy", "proxy-2")).await,
        LoadError::OtherNode { .. },
        "spiffe://mesh.internal/proxy/proxy-2",
        "proxy-1"
    );
    told!(error_of(|p| shape_node(p, "coordinator", "proxy-1")).await, LoadError::OtherNode { .. }, "coordinator");
    told!(
        error_of(|p| {
            shape_node(p, "proxy", "proxy-1");
            p.subject_alt_names.remove(0);
        })
        .await,
        LoadError::BadIdentity { .. },
        "proxy.mesh.internal"
    );
    told!(
        error_of(|p| {
            shape_node(p, "proxy", "proxy-1");
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
        .await,
        LoadError::Usage { missing: "clientAuth", .. },
        "clientAuth"
    );
    told!(
        error_of(|p| {
            shape_node(p, "proxy", "proxy-1");
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
        .await,
        LoadError::Usage { missing: "serverAuth", .. },
        "serverAuth"
    );
    told!(
        error_of(|p| {
            shape_node(p, "proxy", "proxy-1");
            p.extended_key_usages.clear();
        })
        .await,
        LoadError::Usage { .. },
        "extended key usage"
    );
    told!(
        error_of(|p| {
            shape_node(p, "proxy", "proxy-1");
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
        })
        .await,
        LoadError::Usage { .. },
        "serverAuth"
    );
}

#[tokio::test]
async fn weak_rsa_is_refused() {
    let folder = Folder { at: tempfile::tempdir().unwrap() };
    let key = openssl(&["genrsa", "1024"], "");
    folder.put("server.key", &key);
    let path = folder.path("server.key");
    let args = [
        "req",
        "-x509",
        "-key",
        path.to_str().unwrap(),
        "-subj",
        "/CN=x",
        "-addext",
        "basicConstraints=CA:FALSE",
        "-addext",
        "subjectAltName=DNS:proxy.mesh.internal",
    ];
    let cert = openssl(&args, "");
    folder.put("server.pem", &cert);
    folder.put("ca.pem", &authority("ca").pem);
    let error = fails(mesh("proxy", "proxy-1"), folder.files()).await;
    assert!(matches!(error, LoadError::WeakKey { .. } | LoadError::UnusableKey(_)), "{}", chain(&error));
}

#[tokio::test]
async fn the_shared_name_is_the_only_one_or_is_asked_for() {
    let ca = authority("ca");
    let leaf = ca.leaf(shape_shared);
    let folder = Folder::of(&ca.pem, &leaf);
    let store = open(mesh("proxy", "proxy-1"), folder.files()).await.unwrap();
    assert_eq!(store.status().layout, Some(Layout::Shared { name: "localhost".to_owned() }));
    let two = ca.leaf(|p| p.subject_alt_names = vec![dns("a.example"), dns("b.example")]);
    folder.put("server.pem", &two.pem);
    folder.put("server.key", &two.key);
    told!(
        fails(mesh("proxy", "proxy-1"), folder.files()).await,
        LoadError::SeveralNames { .. },
        "a.example",
        "b.example",
        "internaltls.sni"
    );
    open(shared("b.example"), folder.files()).await.unwrap();
    told!(fails(shared("c.example"), folder.files()).await, LoadError::NameMissing { .. }, "c.example", "a.example");
    told!(fails(shared("*.example"), folder.files()).await, LoadError::BadSharedName { .. }, "internaltls.sni");
    let upper = open(shared("B.Example"), folder.files()).await.unwrap();
    assert_eq!(upper.status().layout, Some(Layout::Shared { name: "b.example".to_owned() }), "case does not count");
}

fn shared(name: &str) -> Purpose {
    match mesh("proxy", "proxy-1") {
        Purpose::Mesh { trust_domain, role, node, .. } => {
            Purpose::Mesh { trust_domain, role, node, shared_name: Some(name.to_owned()) }
        }
        edge @ Purpose::Edge { .. } => edge,
    }
}

#[tokio::test]
async fn half_a_client_pair_is_refused() {
    let stage = stage();
    let files = crate::config::Files { client_cert: Some(stage.folder.path("server.pem")), ..stage.folder.files() };
    told!(fails(mesh("proxy", "proxy-1"), files).await, LoadError::HalfAPair, "internaltls.clientKeyPath");
}

#[tokio::test]
async fn invariant_3_own_lists_are_applied_to_our_leaf() {
    let stage = stage();
    stage.folder.put("crl.pem", stage.ca.crl(&[serial(&stage.leaf)], SystemTime::now() + DAY));
    let with_crl = || crate::config::Files { crl: Some(stage.folder.path("crl.pem")), ..stage.folder.files() };
    told!(fails(mesh("proxy", "proxy-1"), with_crl()).await, LoadError::Untrusted { .. }, "revoked");
    stage.folder.put("crl.pem", authority("another").crl(&[], SystemTime::now() + DAY));
    told!(fails(mesh("proxy", "proxy-1"), with_crl()).await, LoadError::CaWithoutCrl { .. }, "put its CRL there");
    stage
        .folder
        .put("crl.pem", stage.ca.crl_from(SystemTime::now() - DAY, SystemTime::now() - Duration::from_secs(3_660)));
    told!(fails(mesh("proxy", "proxy-1"), with_crl()).await, LoadError::Untrusted { .. }, "next update");
    stage.folder.put("crl.pem", stage.ca.crl(&[], SystemTime::now() + DAY));
    open(mesh("proxy", "proxy-1"), with_crl()).await.unwrap();
    stage.folder.put("crl.pem", "none");
    told!(fails(mesh("proxy", "proxy-1"), with_crl()).await, LoadError::NoCrl(_), "internaltls.crlPath");
    let with_distrust =
        || crate::config::Files { distrust: Some(stage.folder.path("distrust")), ..stage.folder.files() };
    stage.folder.put("distrust", format!("# stolen\n{}\n", spki_hex(&stage.ca.der)));
    told!(fails(mesh("proxy", "proxy-1"), with_distrust()).await, LoadError::Untrusted { .. }, "distrust list");
    stage.folder.put("distrust", format!("{} # stolen\n", spki_hex(&stage.leaf.der)));
    told!(fails(mesh("proxy", "proxy-1"), with_distrust()).await, LoadError::Untrusted { .. }, "distrust list");
    stage.folder.put("distrust", "# none\n\nxyz\n");
    told!(fails(mesh("proxy", "proxy-1"), with_distrust()).await, LoadError::BadDistrust { line: 3, .. }, "64 digits");
    stage.folder.put("distrust", "");
    open(mesh("proxy", "proxy-1"), with_distrust()).await.unwrap();
}

#[tokio::test]
async fn a_folder_of_crls_is_read_whole() {
    let stage = stage();
    let crls = stage.folder.path("crls");
    let files = || crate::config::Files { crl: Some(crls.clone()), ..stage.folder.files() };
    fs::create_dir(&crls).unwrap();
    told!(fails(mesh("proxy", "proxy-1"), files()).await, LoadError::NoCrl(_), "crlPath");
    write(&crls.join("other.pem"), authority("another").crl(&[], SystemTime::now() + DAY));
    write(&crls.join("own.pem"), stage.ca.crl(&[], SystemTime::now() + DAY));
    open(mesh("proxy", "proxy-1"), files()).await.unwrap();
}

/// Of two CAs of one name, as after a roll-over, each needs a list of its own.
#[tokio::test]
async fn a_ca_without_its_crl_is_refused() {
    let stage = stage();
    let crls = stage.folder.path("crls");
    let files = || crate::config::Files { crl: Some(crls.clone()), ..stage.folder.files() };
    fs::create_dir(&crls).unwrap();
    let (next, namesake) = (authority("next CA"), authority("mesh CA"));
    write(&crls.join("own.pem"), stage.ca.crl(&[], SystemTime::now() + DAY));
    for added in [&next, &namesake] {
        stage.folder.put("ca.pem", format!("{}{}", stage.ca.pem, added.pem));
        told!(fails(mesh("proxy", "proxy-1"), files()).await, LoadError::CaWithoutCrl { .. }, "caPemPath");
    }
    write(&crls.join("namesake.pem"), namesake.crl(&[], SystemTime::now() + DAY));
    open(mesh("proxy", "proxy-1"), files()).await.unwrap();
}

#[tokio::test]
async fn a_crl_of_a_ca_that_may_not_sign_crls_is_refused() {
    let ca = authority_with("no crl sign", |p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    let signer = authority("no crl sign");
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    folder.put("crl.pem", signer.crl(&[], SystemTime::now() + DAY));
    let files = crate::config::Files { crl: Some(folder.path("crl.pem")), ..folder.files() };
    told!(fails(mesh("proxy", "proxy-1"), files).await, LoadError::BadCrl { .. }, "cRLSign");
}

#[tokio::test]
async fn expired_anchors_do_not_count() {
    let ca = authority_with("old", |p| {
        p.not_before = (SystemTime::now() - 2 * DAY).into();
        p.not_after = (SystemTime::now() - DAY).into();
    });
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    told!(fails(mesh("proxy", "proxy-1"), folder.files()).await, LoadError::NoValidCa(_), "ca.pem");
    folder.put("ca.pem", format!("{}{}", ca.pem, authority("new").pem));
    told!(fails(mesh("proxy", "proxy-1"), folder.files()).await, LoadError::Untrusted { .. }, "not valid now");
}

#[tokio::test]
async fn the_clock_that_is_passed_in_decides() {
    let stage = stage();
    let clock = Arc::new(TestClock::at(SystemTime::now() + 30 * DAY));
    let opened = open_with(mesh("proxy", "proxy-1"), stage.folder.files(), quick(), clock.clone()).await;
    assert!(matches!(opened, Err(LoadError::Expired { .. })));
    clock.set(SystemTime::now());
    open_with(mesh("proxy", "proxy-1"), stage.folder.files(), quick(), clock).await.unwrap();
}

#[tokio::test]
async fn a_broken_policy_does_not_open() {
    let stage = stage();
    stage.folder.put("policy.yaml", "allow: 3");
    let telemetry = Arc::new(crate::telemetry::Telemetry::new());
    let policy = Some(stage.folder.path("policy.yaml"));
    let opened = crate::material::Store::open(
        mesh("proxy", "proxy-1"),
        stage.folder.files(),
        policy,
        quick(),
        Arc::new(crate::clock::SystemClock),
        telemetry,
    )
    .await;
    told!(opened.map(|s| s.status()).unwrap_err(), LoadError::Policy { .. }, "policy.yaml", "internaltls.policyPath");
}

#[tokio::test]
async fn an_edge_needs_its_ca_only_to_ask_for_certificates() {
    let stage = stage();
    let without = || crate::config::Files { ca: None, ..stage.folder.files() };
    open(edge(EdgeMode::OneWay, false), without()).await.unwrap();
    told!(fails(edge(EdgeMode::TwoWay, false), without()).await, LoadError::NoCa { edge: true }, "tls.caPemPath");
    stage.folder.put("ca.pem", "not read in one-way mode");
    open(edge(EdgeMode::OneWay, false), stage.folder.files()).await.unwrap();
    told!(
        fails(edge(EdgeMode::TwoWay, false), stage.folder.files()).await,
        LoadError::NoCertificate(_),
        "tls.caPemPath"
    );
}

#[tokio::test]
async fn an_edge_checks_its_leaf() {
    let stage = stage();
    stage.folder.put("server.key", stage.ca.node("proxy", "proxy-1").key);
    told!(
        fails(edge(EdgeMode::OneWay, false), stage.folder.files()).await,
        LoadError::KeyMismatch { .. },
        "tls.serverKeyPath"
    );
    let client = stage.ca.leaf(|p| {
        p.subject_alt_names = vec![dns("x")];
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    stage.folder.put("server.pem", client.pem);
    stage.folder.put("server.key", client.key);
    told!(fails(edge(EdgeMode::OneWay, false), stage.folder.files()).await, LoadError::Usage { .. }, "serverAuth");
}

#[tokio::test]
async fn invariant_7_no_key_byte_is_told() {
    let stage = stage();
    let key = stage.leaf.key.clone();
    let lines: Vec<String> = key
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .map(|line| line[..line.len().min(12)].to_owned())
        .collect();
    assert!(lines.len() >= 2);
    let mut told = Vec::new();
    let broken = [
        key.replace("PRIVATE KEY-----\n", "PRIVATE KEY-----"),
        key.replace("-----END", "----END"),
        key.replace('A', "!"),
        key[..key.len() / 2].to_owned(),
        key.replace("BEGIN PRIVATE", "BEGIN RSA PRIVATE").replace("END PRIVATE", "END RSA PRIVATE"),
        format!("{key}{key}"),
        format!("-----BEGIN {}\n{key}", lines[0]),
        stage.ca.node("proxy", "proxy-1").key + &key,
    ];
    for text in broken {
        stage.folder.put("server.key", text);
        let error = error(&stage).await;
        told.push(format!("{error} {error:?} {} {error:#?}", chain(&error)));
    }
    stage.folder.put("server.key", &key);
    // The key in every other place.
    for name in ["server.pem", "ca.pem"] {
        let before = fs::read(stage.folder.path(name)).unwrap();
        stage.folder.put(name, &key);
        let error = error(&stage).await;
        told.push(format!("{error} {error:?} {}", chain(&error)));
        stage.folder.put(name, before);
    }
    for (part, field) in [("distrust", true), ("policy", false)] {
        stage.folder.put(part, &key);
        let files = crate::config::Files { distrust: field.then(|| stage.folder.path(part)), ..stage.folder.files() };
        let policy = (!field).then(|| stage.folder.path(part));
        let telemetry = Arc::new(crate::telemetry::Telemetry::new());
        let opened = crate::material::Store::open(
            mesh("proxy", "proxy-1"),
            files,
            policy,
            quick(),
            Arc::new(crate::clock::SystemClock),
            telemetry,
        )
        .await;
        let error = opened.map(|s| s.status()).unwrap_err();
        told.push(format!("{error} {error:?} {}", chain(&error)));
    }
    let store = open(mesh("proxy", "proxy-1"), stage.folder.files()).await.unwrap();
    let generation = store.current();
    told.push(format!("{store:?} {generation:?} {:?} {:?} {:?}", generation.server, generation.client, store.status()));
    told.push(serde_json::to_string(&store.status()).unwrap());
    for text in told {
        for line in &lines {
            assert!(!text.contains(line), "a part of the key is in: {text}");
        }
        assert!(!text.contains("PRIVATE KEY-----\nM"), "{text}");
    }
}

fn serial(leaf: &Leaf) -> Vec<u8> {
    let hex = crate::verify::CertificateFacts::read(&leaf.der).unwrap().serial;
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn spki_hex(der: &rustls::pki_types::CertificateDer<'_>) -> String {
    crate::verify::CertificateFacts::read(der).unwrap().spki_sha256.iter().map(|b| format!("{b:02X}")).collect()
}
