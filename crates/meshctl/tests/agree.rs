//! `certs check` and a process say the same of the same files: fit or not, and why.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use internaltls::{Edge, Mesh, NodeId, Role};
use meshctl::certs::check::{Report, check_config, check_files};
use meshctl::certs::show::show;
use settings::Settings;

fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A folder of material, made by openssl.
struct Site(tempfile::TempDir);

const NODE: &str = "subjectAltName = DNS:proxy.mesh.internal,URI:spiffe://mesh.internal/proxy/proxy-1\nextendedKeyUsage = serverAuth,clientAuth\nbasicConstraints = critical,CA:FALSE\n";
const EDGE: &str =
    "subjectAltName = DNS:localhost\nextendedKeyUsage = serverAuth\nbasicConstraints = critical,CA:FALSE\n";

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        site.authority("ca", "/CN=CA");
        site.authority("other", "/CN=other CA");
        site
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn authority(&self, name: &str, subject: &str) {
        let (key, pem) = (self.at(&format!("{name}.key")), self.at(&format!("{name}.pem")));
        let mut args =
            vec!["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"];
        args.extend(["-subj", subject, "-keyout", &key, "-out", &pem]);
        openssl(&args);
    }

    fn leaf(&self, name: &str, ca: &str, extensions: &str, key: &[&str]) {
        let (key_file, csr, pem) = (self.at(&format!("{name}.key")), self.at("csr"), self.at(&format!("{name}.pem")));
        let mut args = vec!["req", "-new", "-nodes", "-subj", "/CN=leaf", "-keyout", &key_file, "-out", &csr];
        args.extend(key);
        openssl(&args);
        fs::write(self.path("ext"), extensions).unwrap();
        let (ca_pem, ca_key, ext) = (self.at(&format!("{ca}.pem")), self.at(&format!("{ca}.key")), self.at("ext"));
        let mut args =
            vec!["x509", "-req", "-in", &csr, "-CA", &ca_pem, "-CAkey", &ca_key, "-CAcreateserial", "-days", "90"];
        args.extend(["-extfile", &ext, "-out", &pem]);
        openssl(&args);
        fs::set_permissions(key_file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// `milvus.yaml` for these files, at the edge and in the mesh.
    fn config(&self, leaf: &str, ca: &str, mode: u8, mesh: bool) -> PathBuf {
        let files = format!("{{ serverPemPath: {leaf}.pem, serverKeyPath: {leaf}.key, caPemPath: {ca} }}");
        let (edge, internal) =
            if mesh { ("", format!("internaltls: {files}\n")) } else { (files.as_str(), String::new()) };
        let edge = if edge.is_empty() { String::new() } else { format!("tls: {edge}\n") };
        let yaml =
            format!("{edge}{internal}common: {{ security: {{ tlsMode: {mode}, internaltlsEnabled: {mesh} }} }}\n");
        let path = self.path("milvus.yaml");
        fs::write(&path, yaml).unwrap();
        path
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let below = error.source().map(|source| format!(": {}", chain(source))).unwrap_or_default();
    format!("{error}{below}")
}

/// What a process says that is started with this configuration.
fn started(config: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = Settings::load(config).unwrap();
    runtime.block_on(async {
        if settings.internal.enabled {
            let node = (Role::new("proxy").unwrap(), NodeId::new("proxy-1").unwrap());
            let opened = Mesh::open(settings.mesh_config(node.0, node.1)).await.map(drop);
            opened.map_err(|error| chain(std::error::Error::source(&error).unwrap()))
        } else {
            let opened = Edge::open(settings.edge_config()).await.map(drop);
            opened.map_err(|error| chain(std::error::Error::source(&error).unwrap()))
        }
    })
}

/// A reason without the words that name the file: a tool that was given files does not know which setting names them.
fn reason(text: &str) -> String {
    let words = ["certificate file ", "CA file ", "key file "];
    let settings = ["serverPemPath", "caPemPath", "serverKeyPath"];
    let mut text = text.to_owned();
    for word in words {
        text = text.replace(word, "");
    }
    for setting in settings {
        text = text.replace(&format!(" (tls.{setting})"), "").replace(&format!(" (internaltls.{setting})"), "");
    }
    text
}

fn same(what: &str, process: &Result<(), String>, report: &Report) {
    match process {
        Ok(()) => assert!(report.wrong.is_empty(), "{what}: it is served, and check says {report:?}"),
        Err(error) => assert!(
            report.wrong.iter().any(|wrong| reason(wrong) == reason(error)),
            "{what}: the process says {error}, and check says {report:?}"
        ),
    }
}

const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

#[test]
fn check_and_process_agree() {
    let site = Site::new();
    let leaves: [(&str, &str, &str, &[&str]); 9] = [
        ("server", "ca", EDGE, &P256),
        ("node", "ca", NODE, &P256),
        ("server-p521", "ca", EDGE, &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"]),
        ("server-ed25519", "ca", EDGE, &["-newkey", "ed25519"]),
        ("server-of-another", "other", EDGE, &P256),
        ("node-of-another", "other", NODE, &P256),
        ("server-nameless", "ca", "extendedKeyUsage = serverAuth\nbasicConstraints = CA:FALSE\n", &P256),
        ("server-ca", "ca", "subjectAltName = DNS:localhost\nbasicConstraints = critical,CA:TRUE\n", &P256),
        ("node-half", "ca", &NODE.replace(",clientAuth", ""), &P256),
    ];
    for (name, ca, extensions, key) in leaves {
        site.leaf(name, ca, extensions, key);
    }
    let (ca, other, leaf) = (site.text("ca.pem"), site.text("other.pem"), site.text("server.pem"));
    let indented: String = other.lines().map(|line| format!("  {line}\n")).collect();
    let trusted = openssl(&["x509", "-in", &site.at("other.pem"), "-addtrust", "serverAuth", "-trustout"]);
    let version_1 = site.at("version-1.pem");
    openssl(&["x509", "-in", &site.at("csr"), "-req", "-signkey", &site.at("node-half.key"), "-out", &version_1]);
    let bundles = [
        ("ca.pem", ca.clone()),
        ("ca-two.pem", format!("{ca}{other}")),
        ("ca-indented.pem", format!("{ca}{indented}")),
        ("ca-cr.pem", format!("{}{other}", ca.replace('\n', "\r"))),
        ("ca-joined.pem", format!("{}{other}", ca.trim_end())),
        ("ca-trusted.pem", format!("{ca}{trusted}")),
        ("ca-torn.pem", ca[..ca.len() / 2].to_owned()),
        ("ca-lower.pem", format!("{ca}{}", other.replace("BEGIN CERTIFICATE", "begin certificate"))),
        ("ca-and-leaf.pem", format!("{ca}{leaf}")),
        ("ca-version-1.pem", format!("{}{ca}", site.text("version-1.pem"))),
        ("other.pem", other),
        ("ca-text.pem", "nothing\n".to_owned()),
        ("ca-empty.pem", String::new()),
    ];
    let (mut fit, mut unfit) = (0, 0);
    for (bundle, text) in &bundles {
        fs::write(site.path(bundle), text).unwrap();
        for (leaf, ..) in leaves {
            // A leaf of the edge in the mesh is of the shared layout, which nothing but a configuration tells.
            for (mode, mesh) in [(1, false), (2, false), (0, true)] {
                let what = format!("{leaf}.pem, {bundle}, mode {mode}, mesh {mesh}");
                let config = site.config(leaf, bundle, mode, mesh);
                let process = started(&config);
                let report = check_config(&config, SystemTime::now()).unwrap();
                same(&what, &process, &report);
                *(if process.is_ok() { &mut fit } else { &mut unfit }) += 1;
                if mesh == leaf.starts_with("node") && mode != 1 {
                    let files = [format!("{leaf}.pem"), format!("{leaf}.key"), (*bundle).to_owned()];
                    same(&what, &process, &check_files(&files.map(|name| site.path(&name)), SystemTime::now()));
                }
            }
        }
    }
    assert!(fit > 50 && unfit > 50, "{fit} fit, {unfit} unfit");
}

/// Both settings may name one file.
#[test]
fn leaf_and_key_in_one_file() {
    let site = Site::new();
    site.leaf("server", "ca", EDGE, &P256);
    let both = format!("{}{}", site.text("server.key"), site.text("server.pem"));
    for name in ["one.pem", "one.key"] {
        fs::write(site.path(name), &both).unwrap();
        fs::set_permissions(site.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let process = started(&site.config("one", "ca.pem", 1, false));
    assert_eq!(process, Ok(()));
    let report = check_files(&[site.path("one.pem"), site.path("ca.pem")], SystemTime::now());
    same("leaf and key in one file", &process, &report);
    assert!(report.fine.iter().any(|line| line.contains("leaf ")), "{report:?}");
}

/// What a process reads of the policy counts as well.
#[test]
fn check_reads_the_policy() {
    let site = Site::new();
    site.leaf("node", "ca", NODE, &P256);
    let config = site.config("node", "ca.pem", 0, true);
    fs::write(site.path("policy.yaml"), "rules: [\n").unwrap();
    let yaml = fs::read_to_string(&config).unwrap();
    fs::write(&config, yaml.replace("caPemPath: ca.pem", "caPemPath: ca.pem, policyPath: policy.yaml")).unwrap();
    let process = started(&config);
    assert!(process.clone().unwrap_err().contains("policy.yaml"), "{process:?}");
    same("a broken policy", &process, &check_config(&config, SystemTime::now()).unwrap());
}

#[test]
fn show_tells_the_hashes_of_openssl() {
    let site = Site::new();
    site.leaf("node", "ca", NODE, &["-newkey", "rsa:3072"]);
    fs::write(site.path("chain.pem"), format!("{}{}", site.text("node.pem"), site.text("ca.pem"))).unwrap();
    let shown = show(&site.path("chain.pem")).unwrap();
    let plain = |text: String| text.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
    for (shown, name, number, kind, ca) in
        [(&shown[0], "node.pem", 1, "RSA 3072", false), (&shown[1], "ca.pem", 2, "ECDSA P-256", true)]
    {
        let fingerprint = plain(openssl(&["x509", "-in", &site.at(name), "-noout", "-fingerprint", "-sha256"]));
        let serial = plain(openssl(&["x509", "-in", &site.at(name), "-noout", "-serial"]));
        fs::write(site.path("pub"), openssl(&["x509", "-in", &site.at(name), "-noout", "-pubkey"])).unwrap();
        openssl(&["pkey", "-pubin", "-in", &site.at("pub"), "-outform", "der", "-out", &site.at("spki")]);
        let spki = plain(openssl(&["dgst", "-sha256", &site.at("spki")])).rsplit(' ').next().unwrap().to_owned();
        assert_eq!(
            (shown.spki.as_str(), shown.cert.as_str()),
            (&*format!("spki:{spki}"), &*format!("cert:{fingerprint}"))
        );
        assert_eq!((shown.number, shown.key.as_str(), shown.ca), (number, kind, ca));
        assert_eq!(shown.serial.trim_start_matches('0'), serial.trim_start_matches('0'));
    }
    assert_eq!(shown[0].names, ["proxy.mesh.internal", "spiffe://mesh.internal/proxy/proxy-1"]);
    let said = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["certs", "show", "--json", &site.at("chain.pem")])
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!((&json[1]["spki"], &json[0]["cert"]), (&shown[1].spki.as_str().into(), &shown[0].cert.as_str().into()));
    let said =
        Command::new(env!("CARGO_BIN_EXE_meshctl")).args(["certs", "show", &site.at("chain.pem")]).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(
        text.contains(&format!("\n  {}\n  {}\n", shown[0].spki, shown[0].cert)) && text.contains("certificate 2, a CA"),
        "{text}"
    );
    // A key is never shown, nor what is not read whole.
    for (name, word) in [("node.key", "private key"), ("csr", "CERTIFICATE REQUEST"), ("missing.pem", "does not exist")]
    {
        let error = format!("{:#}", show(&site.path(name)).unwrap_err());
        assert!(error.contains(word), "{error}");
    }
}
