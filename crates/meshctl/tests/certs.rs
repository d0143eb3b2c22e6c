//! Certificates as made and renewed, read by openssl.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use meshctl::certs::authority::Facts;
use meshctl::certs::init;
use meshctl::certs::renew::renew;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

#[derive(Parser)]
struct Init {
    #[command(flatten)]
    args: init::Args,
}

fn init(out: &Path, more: &[&str]) -> anyhow::Result<()> {
    let given = ["init", "--out", out.to_str().unwrap()];
    Init::try_parse_from(given.iter().chain(more)).unwrap().args.make(OffsetDateTime::now_utc())
}

fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(cert: &Path) -> String {
    openssl(&["x509", "-noout", "-text", "-in", cert.to_str().unwrap()])
}

/// As RFC 5280 has it to the letter.
fn verified(ca: &Path, purpose: &str, cert: &Path) -> bool {
    verified_with("-x509_strict", ca, purpose, cert)
}

fn verified_with(option: &str, ca: &Path, purpose: &str, cert: &Path) -> bool {
    let args = ["verify", option, "-purpose", purpose, "-CAfile", ca.to_str().unwrap(), cert.to_str().unwrap()];
    Command::new("openssl").args(args).output().unwrap().status.success()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn fits(cert: &[u8], key: &[u8]) -> bool {
    let cert = CertificateDer::from_pem_slice(cert).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    rustls::sign::CertifiedKey::new(vec![cert], key).keys_match().is_ok()
}

fn pair_fits(folder: &Path) -> bool {
    fits(&fs::read(folder.join("server.pem")).unwrap(), &fs::read(folder.join("server.key")).unwrap())
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(files_below(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn mesh_leaves_name_role_and_node() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["--data-nodes", "3"]).unwrap();
    let mesh = dir.path().join("mesh");
    for (node, role) in [
        ("coordinator-1", "coordinator"),
        ("data-node-1", "data-node"),
        ("data-node-3", "data-node"),
        ("proxy-1", "proxy"),
        ("operator-1", "operator"),
        ("metrics-1", "metrics"),
    ] {
        let folder = mesh.join(node);
        let leaf = text(&folder.join("server.pem"));
        assert!(
            leaf.contains(&format!("DNS:{role}.mesh.internal, URI:spiffe://mesh.internal/{role}/{node}\n")),
            "{leaf}"
        );
        assert!(leaf.contains("TLS Web Server Authentication, TLS Web Client Authentication"), "{leaf}");
        assert!(leaf.contains("NIST CURVE: P-256") && leaf.contains("CA:FALSE"), "{leaf}");
        assert!(verified(&folder.join("ca.pem"), "sslserver", &folder.join("server.pem")));
        assert!(verified(&mesh.join("ca.pem"), "sslclient", &folder.join("server.pem")));
        assert!(pair_fits(&folder));
    }
}

#[test]
fn authorities_may_only_sign() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &[]).unwrap();
    for ca in ["edge/ca.pem", "mesh/ca.pem"] {
        let ca = text(&dir.path().join(ca));
        assert!(ca.contains("CA:TRUE, pathlen:0") && ca.contains("Certificate Sign, CRL Sign"), "{ca}");
    }
    let (edge, mesh) = (dir.path().join("edge"), dir.path().join("mesh"));
    assert!(
        !verified(&mesh.join("ca.pem"), "sslclient", &edge.join("client.pem")),
        "the mesh must not trust the edge's CA"
    );
    assert!(
        !verified(&edge.join("ca.pem"), "sslserver", &mesh.join("proxy-1/server.pem")),
        "the edge must not trust the mesh's CA"
    );
}

#[test]
fn edge_leaves_serve_one_purpose_each() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["--cn", "db.example.com", "--san", "192.0.2.7", "--san", "localhost"]).unwrap();
    let edge = dir.path().join("edge");
    let server = text(&edge.join("server.pem"));
    assert!(server.contains("DNS:db.example.com, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, IP Address:192.0.2.7\n"), "{server}");
    assert!(verified(&edge.join("ca.pem"), "sslserver", &edge.join("server.pem")));
    assert!(verified(&edge.join("ca.pem"), "sslclient", &edge.join("client.pem")));
    assert!(!verified(&edge.join("ca.pem"), "sslserver", &edge.join("client.pem")));
}

#[test]
fn leaves_are_backdated() {
    let dir = tempfile::tempdir().unwrap();
    let before = OffsetDateTime::now_utc();
    init(dir.path(), &["--valid-for", "20s"]).unwrap();
    let leaf = dir.path().join("mesh/proxy-1/server.pem");
    let start = openssl(&["x509", "-noout", "-startdate", "-dateopt", "iso_8601", "-in", leaf.to_str().unwrap()]);
    let start = start.trim().trim_start_matches("notBefore=").replace(' ', "T");
    let start = OffsetDateTime::parse(&start, &time::format_description::well_known::Rfc3339).unwrap();
    let backdated = before - start;
    assert!((295..=305).contains(&backdated.whole_seconds()), "{backdated}");
    let left = Facts::of_file(&leaf).unwrap().not_after - before;
    assert!((18..=30).contains(&left.whole_seconds()), "{left}");
}

#[test]
fn keys_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    for (layout, out) in [("mesh", "a"), ("milvus", "b")] {
        let out = dir.path().join(out);
        init(&out, &["--layout", layout]).unwrap();
        renew(&out, Duration::from_secs(60)).unwrap();
        for path in files_below(&out) {
            let expected = match (path.is_dir(), path.extension().and_then(|e| e.to_str())) {
                (true, _) => 0o700,
                (_, Some("key")) => 0o600,
                _ => 0o644,
            };
            assert_eq!(mode(&path), expected, "{}", path.display());
        }
    }
}

#[test]
fn refuses_to_overwrite() {
    let dir = tempfile::tempdir().unwrap();
    for (layout, first) in [("mesh", "edge/ca.pem"), ("milvus", "ca.pem")] {
        let out = dir.path().join(layout);
        init(&out, &["--layout", layout]).unwrap();
        let before = fs::read(out.join(first)).unwrap();
        let error = init(&out, &["--layout", layout]).unwrap_err().to_string();
        assert!(error.contains("exists already") && error.contains("certs renew"), "{error}");
        assert_eq!(fs::read(out.join(first)).unwrap(), before);
        assert_eq!(
            fs::read_dir(&out)
                .unwrap()
                .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'))
                .count(),
            0
        );
    }
}

#[test]
fn milvus_layout_is_the_seven_documented_files() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["--layout", "milvus"]).unwrap();
    let names: BTreeSet<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(
        names,
        ["ca.key", "ca.pem", "ca.srl", "client.key", "client.pem", "server.key", "server.pem"].map(String::from).into()
    );
    let (ca, server, client) =
        (dir.path().join("ca.pem"), dir.path().join("server.pem"), dir.path().join("client.pem"));
    assert!(text(&server).contains("Public-Key: (2048 bit)") && text(&server).contains("rsaEncryption"));
    assert!(text(&server).contains("CN = localhost") || text(&server).contains("CN=localhost"));
    assert!(verified(&ca, "sslserver", &server) && verified(&ca, "sslclient", &client));
    // openssl goes on signing where we stopped.
    let (csr, key, next) = (dir.path().join("x.csr"), dir.path().join("x.key"), dir.path().join("x.pem"));
    openssl(&[
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-keyout",
        key.to_str().unwrap(),
        "-out",
        csr.to_str().unwrap(),
    ]);
    let before = fs::read_to_string(dir.path().join("ca.srl")).unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        csr.to_str().unwrap(),
        "-CA",
        ca.to_str().unwrap(),
        "-CAkey",
        dir.path().join("ca.key").to_str().unwrap(),
        "-CAserial",
        dir.path().join("ca.srl").to_str().unwrap(),
        "-out",
        next.to_str().unwrap(),
    ]);
    assert_ne!(fs::read_to_string(dir.path().join("ca.srl")).unwrap(), before);
    assert!(verified(&ca, "any", &next));
}

#[test]
fn renewed_leaves_keep_names_and_change_keys() {
    let dir = tempfile::tempdir().unwrap();
    let mesh_dir = dir.path().join("certs");
    init(&mesh_dir, &["--san", "db.example.com"]).unwrap();
    let before = Facts::of_file(&mesh_dir.join("edge/server.pem")).unwrap();
    let renewed = renew(dir.path(), Duration::from_secs(30)).unwrap();
    assert_eq!(renewed.len(), 8, "two at the edge, six in the mesh: {renewed:?}");
    for leaf in &renewed {
        let after = Facts::of_file(&leaf.path).unwrap();
        assert_eq!((&after.serial, after.not_after), (&leaf.serial, leaf.not_after));
        let key = leaf.path.with_extension("key");
        assert!(fits(&fs::read(&leaf.path).unwrap(), &fs::read(key).unwrap()));
    }
    let after = Facts::of_file(&mesh_dir.join("edge/server.pem")).unwrap();
    assert_eq!(
        (&before.request.sans, &before.request.usages, &before.request.subject),
        (&after.request.sans, &after.request.usages, &after.request.subject)
    );
    assert!(before.serial != after.serial && before.spki != after.spki);
    assert!(verified(&mesh_dir.join("edge/ca.pem"), "sslserver", &mesh_dir.join("edge/server.pem")));
}

#[test]
fn previous_version_is_kept_and_older_removed() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &[]).unwrap();
    let node = dir.path().join("mesh/proxy-1");
    let mut before = fs::read_link(node.join("..data")).unwrap();
    for _ in 0..3 {
        renew(dir.path(), Duration::from_secs(60)).unwrap();
        let now = fs::read_link(node.join("..data")).unwrap();
        let versions: BTreeSet<_> = fs::read_dir(&node)
            .unwrap()
            .map(|e| e.unwrap())
            .filter(|e| e.file_type().unwrap().is_dir())
            .map(|e| PathBuf::from(e.file_name()))
            .collect();
        assert_eq!(versions, BTreeSet::from([before, now.clone()]));
        before = now;
    }
}

#[test]
fn reader_through_the_symlink_never_sees_a_torn_pair() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["--data-nodes", "0"]).unwrap();
    let node = dir.path().join("mesh/proxy-1");
    let done = AtomicBool::new(false);
    let serials = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                // Resolved once, as one reads a folder of Kubernetes; the version read from must outlive the next swap.
                let version = node.join(fs::read_link(node.join("..data")).unwrap());
                let (cert, key) = (fs::read(version.join("server.pem")), fs::read(version.join("server.key")));
                if let (Ok(cert), Ok(key)) = (cert, key) {
                    assert!(fits(&cert, &key), "torn in {}", version.display());
                    seen.insert(Facts::read(&CertificateDer::from_pem_slice(&cert).unwrap(), &version).unwrap().serial);
                }
                assert!(node.join("server.pem").exists() && node.join("server.key").exists());
            }
            seen
        });
        for _ in 0..30 {
            renew(&dir.path().join("mesh"), Duration::from_secs(60)).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(serials.len() > 3, "the reader was there while it changed: {serials:?}");
}

#[test]
fn flat_folder_changes_key_first() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["--layout", "milvus"]).unwrap();
    renew(dir.path(), Duration::from_secs(60)).unwrap();
    let changed = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(dir.path().join(name)).unwrap();
        (meta.ctime(), meta.ctime_nsec())
    };
    assert!(changed("server.key") <= changed("server.pem"));
    assert!(pair_fits(dir.path()));
    assert!(text(&dir.path().join("server.pem")).contains("rsaEncryption"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 7);
}

#[test]
fn renewal_heals_the_documented_client_leaf() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/C=CN/O=milvus/CN=localhost",
        "-keyout",
        &at("ca.key"),
        "-out",
        &at("ca.pem"),
    ]);
    fs::write(at("ext"), "extendedKeyUsage = serverAuth\nsubjectAltName = DNS:localhost\n").unwrap();
    for stem in ["server", "client"] {
        let (key, csr, pem) = (at(&format!("{stem}.key")), at("csr"), at(&format!("{stem}.pem")));
        openssl(&[
            "req",
            "-new",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/C=CN/O=milvus/CN=localhost",
            "-keyout",
            &key,
            "-out",
            &csr,
        ]);
        openssl(&[
            "x509",
            "-req",
            "-days",
            "30",
            "-in",
            &csr,
            "-CA",
            &at("ca.pem"),
            "-CAkey",
            &at("ca.key"),
            "-CAcreateserial",
            "-extfile",
            &at("ext"),
            "-out",
            &pem,
        ]);
    }
    let ca = PathBuf::from(at("ca.pem"));
    // The documented CA names no key usage, which the letter of the RFC wants.
    let usable = |purpose: &str, leaf: &Path| verified_with("-policy_check", &ca, purpose, leaf);
    assert!(usable("sslserver", Path::new(&at("client.pem"))));
    assert!(!usable("sslclient", Path::new(&at("client.pem"))));
    let renewed = renew(dir.path(), Duration::from_secs(60)).unwrap();
    assert_eq!(renewed.iter().filter(|leaf| !leaf.remarks.is_empty()).count(), 1);
    assert!(usable("sslclient", Path::new(&at("client.pem"))) && usable("sslserver", Path::new(&at("server.pem"))));
    let serial = openssl(&["x509", "-noout", "-serial", "-in", &at("client.pem")]);
    assert_eq!(fs::read_to_string(at("ca.srl")).unwrap().trim(), serial.trim().trim_start_matches("serial="));
}

#[test]
fn renewal_without_the_authority_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &[]).unwrap();
    fs::remove_file(dir.path().join("mesh/ca.key")).unwrap();
    let before = fs::read(dir.path().join("edge/server.pem")).unwrap();
    let error = renew(dir.path(), Duration::from_secs(60)).unwrap_err().to_string();
    assert!(error.contains("ca.key"), "{error}");
    assert_eq!(fs::read(dir.path().join("edge/server.pem")).unwrap(), before);
}

#[test]
fn refuses_an_authority_with_anothers_key() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &[]).unwrap();
    fs::copy(dir.path().join("edge/ca.key"), dir.path().join("mesh/ca.key")).unwrap();
    let error = renew(&dir.path().join("mesh"), Duration::from_secs(60)).unwrap_err().to_string();
    assert!(error.contains("not the key of"), "{error}");
}

#[test]
fn a_missing_nodes_leaf_is_added() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["--data-nodes", "1"]).unwrap();
    let mesh = dir.path().join("mesh");
    let first = fs::read(mesh.join("data-node-1/server.pem")).unwrap();
    let domain = "mesh.internal".parse().unwrap();
    let added = init::add_missing(
        &mesh,
        &domain,
        &init::members(2).unwrap(),
        Duration::from_secs(60),
        OffsetDateTime::now_utc(),
    )
    .unwrap();
    assert_eq!(added.iter().map(ToString::to_string).collect::<Vec<_>>(), ["data-node-2"]);
    assert!(verified(&mesh.join("ca.pem"), "sslserver", &mesh.join("data-node-2/server.pem")));
    assert_eq!(fs::read(mesh.join("data-node-1/server.pem")).unwrap(), first);
}
