//! `certs check`: each thing that can be wrong, and what is said about it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use clap::Parser;
use meshctl::certs::check::{Report, check_config, check_files};
use meshctl::certs::init;
use time::OffsetDateTime;

#[derive(Parser)]
struct Init {
    #[command(flatten)]
    args: init::Args,
}

fn certificates(more: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let given = ["init", "--out", dir.path().to_str().unwrap()];
    Init::try_parse_from(given.iter().chain(more)).unwrap().args.make(OffsetDateTime::now_utc()).unwrap();
    dir
}

fn check(dir: &Path, names: &[&str]) -> Report {
    check_at(dir, names, SystemTime::now())
}

fn check_at(dir: &Path, names: &[&str], now: SystemTime) -> Report {
    let files: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
    check_files(&files, now)
}

/// One thing is wrong, and the sentence says so.
fn only(report: &Report, parts: &[&str]) {
    assert_eq!(report.wrong.len(), 1, "{report:?}");
    for part in parts {
        assert!(report.wrong[0].contains(part), "`{part}` is not in: {}", report.wrong[0]);
    }
}

fn openssl(args: &[&str]) {
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_init_makes_is_fine() {
    let milvus = certificates(&["--layout", "milvus"]);
    let report = check(milvus.path(), &["server.pem", "server.key", "ca.pem", "ca.key", "client.pem", "client.key"]);
    assert!(report.wrong.is_empty() && report.fine.len() == 3, "{report:?}");
    let mesh = certificates(&[]);
    let report = check(mesh.path(), &["mesh/proxy-1/server.pem", "edge/server.pem", "edge/client.pem"]);
    assert!(report.wrong.is_empty() && report.fine.len() == 3, "{report:?}");
    only(&check(mesh.path(), &["edge/client.pem", "edge/client.key", "mesh/ca.key"]), &["ca.key is the key of none"]);
}

#[test]
fn key_of_another_leaf() {
    let dir = certificates(&["--layout", "milvus"]);
    fs::copy(dir.path().join("client.key"), dir.path().join("server.key")).unwrap();
    only(
        &check(dir.path(), &["server.pem", "server.key"]),
        &["server.key", "is not the key of the leaf in", "server.pem"],
    );
}

#[test]
fn leaf_of_another_authority() {
    let (dir, other) = (certificates(&["--layout", "milvus"]), certificates(&["--layout", "milvus"]));
    fs::copy(other.path().join("ca.pem"), dir.path().join("ca.pem")).unwrap();
    only(&check(dir.path(), &["client.pem"]), &["client.pem is not signed by a CA in"]);
    let mesh = certificates(&[]);
    fs::copy(mesh.path().join("edge/ca.pem"), dir.path().join("wrong.pem")).unwrap();
    let report =
        check_files(&[mesh.path().join("mesh/proxy-1/server.pem"), dir.path().join("wrong.pem")], SystemTime::now());
    only(&report, &["server.pem", "wrong.pem", "issue the leaf by a CA in that bundle"]);
}

#[test]
fn end_that_is_near_or_past() {
    let dir = certificates(&[]);
    let day = |n: u64| SystemTime::now() + Duration::from_secs(n * 86_400);
    assert!(check_at(dir.path(), &["mesh/proxy-1/server.pem"], day(60)).wrong.is_empty());
    only(
        &check_at(dir.path(), &["mesh/proxy-1/server.pem"], day(80)),
        &["the leaf CN=proxy-1 ends on", "meshctl certs renew"],
    );
    only(&check_at(dir.path(), &["mesh/proxy-1/server.pem"], day(91)), &["the leaf expired at", "renew it"]);
}

#[test]
fn key_that_others_read_or_write() {
    let dir = certificates(&["--layout", "milvus"]);
    let key = dir.path().join("server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    only(&check(dir.path(), &["server.pem"]), &["can be read by others", "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o666)).unwrap();
    only(&check(dir.path(), &["server.pem"]), &["can be written by others", "chmod go-w"]);
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let dir = certificates(&["--layout", "milvus"]);
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("empty.pem"), "").unwrap();
    fs::write(at("text.pem"), "no certificate\n").unwrap();
    openssl(&["x509", "-in", &at("server.pem"), "-outform", "der", "-out", &at("der.pem")]);
    openssl(&["pkey", "-in", &at("server.key"), "-aes256", "-passout", "pass:x", "-out", &at("locked.key")]);
    only(&check(dir.path(), &["empty.pem"]), &["is empty"]);
    only(&check(dir.path(), &["text.pem"]), &["holds no certificate"]);
    only(&check(dir.path(), &["der.pem"]), &["is DER, not PEM", "openssl x509 -inform der"]);
    only(&check(dir.path(), &["locked.key"]), &["is encrypted", "openssl pkey"]);
    only(&check(dir.path(), &["missing.pem"]), &["does not exist"]);
    only(&check(dir.path(), &["."]), &["is a folder"]);
}

/// At an edge ca.pem is for its clients, who may be of another CA.
#[test]
fn edge_leaf_needs_no_ca_of_clients() {
    let (dir, clients) = (certificates(&[]), certificates(&[]));
    fs::copy(clients.path().join("edge/ca.pem"), dir.path().join("clients.pem")).unwrap();
    for files in [vec!["edge/server.pem", "edge/server.key", "clients.pem"], vec!["edge/server.pem", "clients.pem"]] {
        let report = check(dir.path(), &files);
        assert!(report.wrong.is_empty() && report.warnings.is_empty(), "{report:?}");
        assert!(report.fine.iter().any(|line| line.contains("asks about its clients alone")), "{report:?}");
    }
}

/// What `openssl req -x509` makes, and how the remedy makes it.
#[test]
fn self_signed_leaf_must_not_be_a_ca() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made = |name: &str, more: &[&str]| {
        let (key, pem) = (at(&format!("{name}.key")), at(&format!("{name}.pem")));
        let mut args =
            vec!["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"];
        args.extend(["-subj", "/CN=localhost", "-keyout", &key, "-out", &pem]);
        args.extend(more);
        openssl(&args);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    };
    for (name, more) in [("tls", vec![]), ("mine", vec!["-addext", "subjectAltName=DNS:localhost"])] {
        made(name, &more);
        let files = [format!("{name}.pem"), format!("{name}.key")];
        let report = check(dir.path(), &files.each_ref().map(String::as_str));
        only(&report, &["is a CA (CA:TRUE or keyCertSign)", "-addext basicConstraints=critical,CA:FALSE"]);
    }
    let remedy = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost"];
    made("right", &remedy);
    let report = check(dir.path(), &["right.pem", "right.key"]);
    assert!(report.wrong.is_empty() && report.fine.len() == 1, "{report:?}");
    // A CA with its key is none.
    made("ca", &[]);
    let report = check(dir.path(), &["ca.pem", "ca.key"]);
    assert!(report.wrong.is_empty(), "{report:?}");
}

#[test]
fn warns_of_keys_that_boringssl_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let cases: [(&[&str], Option<&str>); 4] = [
        (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], None),
        (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"], None),
        (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"], Some("ECDSA P-521")),
        (&["-newkey", "ed25519"], Some("Ed25519")),
    ];
    for (key, warned) in cases {
        let mut args = vec!["req", "-x509", "-nodes", "-days", "90", "-subj", "/CN=localhost"];
        let (key_file, pem) = (at("server.key"), at("server.pem"));
        args.extend(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost"]);
        args.extend(["-keyout", &key_file, "-out", &pem]);
        args.extend(key);
        openssl(&args);
        fs::set_permissions(at("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
        let report = check(dir.path(), &["server.pem", "server.key"]);
        assert!(report.wrong.is_empty() && report.fine.len() == 1, "{report:?}");
        assert_eq!(report.warnings.len(), usize::from(warned.is_some()), "{report:?}");
        if let Some(kind) = warned {
            assert!(
                [kind, "BoringSSL", "pymilvus", "P-256 or P-384"].iter().all(|word| report.warnings[0].contains(word)),
                "{report:?}"
            );
        }
    }
}

/// As the scripts of the Milvus documentation make them.
fn documented(usage: &str, san: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let subject = "/C=CN/O=milvus/CN=localhost";
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "3650",
        "-subj",
        subject,
        "-keyout",
        &at("ca.key"),
        "-out",
        &at("ca.pem"),
    ]);
    fs::write(at("ext"), format!("{usage}{san}basicConstraints = CA:FALSE\n")).unwrap();
    for stem in ["server", "client"] {
        let (key, csr, pem) = (at(&format!("{stem}.key")), at("csr"), at(&format!("{stem}.pem")));
        openssl(&["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", &key, "-out", &csr]);
        openssl(&[
            "x509",
            "-req",
            "-days",
            "3650",
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
        fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    }
    dir
}

const SERVER_AUTH: &str = "extendedKeyUsage = serverAuth\n";
const LOCALHOST: &str = "subjectAltName = DNS:localhost\n";

#[test]
fn documented_client_leaf_lacks_client_auth() {
    let dir = documented(SERVER_AUTH, LOCALHOST);
    assert!(check(dir.path(), &["server.pem", "server.key", "ca.pem"]).wrong.is_empty());
    only(
        &check(dir.path(), &["client.pem", "client.key", "ca.pem"]),
        &["client.pem", "serverAuth and not clientAuth", "extendedKeyUsage = clientAuth"],
    );
    let config = dir.path().join("milvus.yaml");
    let tls = "{ serverPemPath: server.pem, serverKeyPath: server.key, caPemPath: ca.pem }";
    let yaml =
        format!("tls: {tls}\ninternaltls: {tls}\ncommon: {{ security: {{ tlsMode: 2, internaltlsEnabled: true }} }}\n");
    fs::write(&config, yaml).unwrap();
    only(&check_config(&config, SystemTime::now()).unwrap(), &["client.pem", "clientAuth"]);
}

#[test]
fn leaf_without_names() {
    let dir = documented(SERVER_AUTH, "");
    only(
        &check(dir.path(), &["server.pem", "server.key"]),
        &["has no subject alternative name", "issue it with a DNS SAN"],
    );
}

#[test]
fn configuration_that_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("milvus.yaml");
    fs::write(&config, "common: { security: { tlsMode: 7 } }\n").unwrap();
    let error = format!("{:#}", check_config(&config, SystemTime::now()).unwrap_err());
    assert!(error.contains("tlsMode"), "{error}");
}

#[test]
fn configuration_of_a_node_is_judged_as_that_node() {
    let dir = certificates(&[]);
    let config = dir.path().join("milvus.yaml");
    let files = |folder: &str| {
        format!(
            "{{ serverPemPath: {folder}/server.pem, serverKeyPath: {folder}/server.key, caPemPath: {folder}/ca.pem }}"
        )
    };
    let yaml = |mesh: &str| {
        format!(
            "tls: {}\ninternaltls: {}\ncommon: {{ security: {{ tlsMode: 1, internaltlsEnabled: true }} }}\n",
            files("edge"),
            files(mesh)
        )
    };
    fs::write(&config, yaml("mesh/data-node-2")).unwrap();
    let report = check_config(&config, SystemTime::now()).unwrap();
    assert!(report.wrong.is_empty() && report.fine.len() == 2, "{report:?}");
    fs::copy(dir.path().join("edge/ca.pem"), dir.path().join("mesh/data-node-2/ca.pem")).unwrap();
    only(&check_config(&config, SystemTime::now()).unwrap(), &["internaltls.caPemPath"]);
}
