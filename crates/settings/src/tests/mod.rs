use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use internaltls::config::{EdgeMode, Security, TlsVersion};
use internaltls::identity::{NodeId, Role};
use proptest::prelude::*;

use crate::{KEYS, Settings, SettingsError, Storage, reference};

mod files;
mod harness;
mod secrets;

/// Both sections as the Milvus documentation gives them.
const DOCUMENTED: &str = "
tls:
  serverPemPath: /milvus/tls/server.pem
  serverKeyPath: /milvus/tls/server.key
  caPemPath: /milvus/tls/ca.pem

internaltls:
  serverPemPath: /milvus/tls/server.pem
  serverKeyPath: /milvus/tls/server.key
  caPemPath: /milvus/tls/ca.pem
  sni: localhost
common:
  security:
    tlsMode: 1
    internaltlsEnabled : true
";

fn load_env(yaml: &str, env: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("milvus.yaml");
    std::fs::write(&file, yaml).unwrap();
    Settings::load_with_env(&file, env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

pub(super) fn load(yaml: &str) -> Result<Settings, SettingsError> {
    load_env(yaml, &[])
}

/// The message without the folder of the test.
fn refusal(yaml: &str) -> String {
    message(load(yaml))
}

fn message(result: Result<Settings, SettingsError>) -> String {
    let text = result.unwrap_err().to_string();
    match text.split_once("milvus.yaml:") {
        Some((_, rest)) => rest.to_owned(),
        None => text,
    }
}

#[test]
fn documented_sections_work_verbatim() {
    let settings = load(DOCUMENTED).unwrap();
    assert_eq!(settings.edge.mode, EdgeMode::OneWay);
    let edge = settings.edge.files.as_ref().unwrap();
    assert_eq!(edge.cert, PathBuf::from("/milvus/tls/server.pem"));
    assert_eq!(edge.ca, None, "nothing is verified with it in mode 1");
    let mesh = settings.mesh_config(Role::new("proxy").unwrap(), NodeId::new("proxy-1").unwrap());
    let Security::Tls { files, shared_name } = mesh.security else { panic!("plaintext: {mesh:?}") };
    assert_eq!(files.ca, Some(PathBuf::from("/milvus/tls/ca.pem")));
    assert_eq!(shared_name.as_deref(), Some("localhost"));
    assert!(settings.notices.is_empty(), "{:?}", settings.notices);
}

#[test]
fn empty_file_gives_the_defaults() {
    let settings = load("").unwrap();
    assert_eq!(settings.proxy.port, 19530);
    assert_eq!(settings.proxy.http_port, None);
    assert_eq!(settings.coordinator.port, 22125);
    assert_eq!(settings.data_node.port, 21124);
    assert_eq!(settings.management.health.socket().to_string(), "0.0.0.0:9091");
    assert_eq!(settings.management.management.socket().to_string(), "127.0.0.1:9092");
    assert_eq!(settings.edge.mode, EdgeMode::Off);
    assert!(!settings.internal.enabled);
    assert_eq!(settings.internal.trust_domain.as_str(), "mesh.internal");
    assert_eq!(settings.storage, Storage::Local { path: "data".into() });
    let (id, endpoint) = settings.cluster.data_nodes.first().unwrap();
    assert_eq!((id.as_str(), endpoint.port), ("data-node-1", 21124));
    assert_eq!(endpoint.node.as_ref(), Some(id));
}

#[test]
fn defaults_are_those_of_the_mesh() {
    let settings = load("").unwrap();
    assert_eq!(settings.internal.reload, internaltls::config::Reload::default());
    assert_eq!(settings.internal.limits, internaltls::config::Limits::default());
}

#[test]
fn keys_in_any_case() {
    let settings = load("COMMON:\n  Security:\n    TLSMode: 0\nPROXY:\n  internalport: 7\n").unwrap();
    assert_eq!(settings.proxy.internal_port, 7);
}

#[test]
fn refuses_unknown_key_inside_tls() {
    assert_eq!(refusal("tls:\n  serverPem: /x\n"), "2: unknown key `tls.serverPem`: did you mean `tls.serverPemPath`?");
    assert!(
        refusal("internaltls:\n  wibble: 1\n")
            .starts_with("2: unknown key `internaltls.wibble`: the keys of this section are")
    );
    assert_eq!(
        refusal("tls:\n  serverPemPath:\n    deep: 1\n"),
        "3: `tls.serverPemPath` is a mapping, but must be one value"
    );
}

#[test]
fn refuses_near_miss_anywhere() {
    for yaml in [
        "internalTlsEnable: true\n",
        "common:\n  internaltlsEnabled: true\n",
        "common:\n  security:\n    internalTlsEnable: true\n",
        "proxy:\n  deep:\n    internalTlsEnabld: true\n",
    ] {
        assert!(refusal(yaml).ends_with("write `common.security.internaltlsEnabled`"), "{}", refusal(yaml));
    }
    assert!(refusal("commom:\n  security:\n    tlsMode: 1\n").ends_with("write `common.security.tlsMode`"));
    for (wrong, right) in [("caPath", "caPemPath"), ("serverPath", "serverPemPath"), ("crPath", "crlPath")] {
        for section in ["tls", "internaltls"] {
            let text = refusal(&format!("{section}:\n  {wrong}: a\n"));
            assert!(text.ends_with(&format!("write `{section}.{right}`")), "{text}");
        }
    }
    assert!(refusal("internal-tls:\n  sni: a\n").ends_with("write `internaltls.sni`"));
    assert!(
        refusal("common:\n  security:\n    caPemPath: a\n")
            .ends_with("write `tls.caPemPath` or `internaltls.caPemPath`")
    );
}

#[test]
fn refuses_tls_nested_under_common() {
    let text = refusal("common:\n  tls:\n    serverPemPath: /a\n");
    assert_eq!(
        text,
        "3: `common.tls.serverPemPath` stands in the wrong section: move it to `tls.serverPemPath`, counted from the top of the file"
    );
    assert!(refusal("common:\n  security:\n    internaltls:\n      sni: a\n").contains("move it to `internaltls.sni`"));
}

#[test]
fn refuses_mesh_paths_without_the_switch() {
    let paths = "internaltls:\n  serverPemPath: /a\n";
    assert!(
        refusal(paths)
            .starts_with("2: `internaltls.serverPemPath` is set, but `common.security.internaltlsEnabled` is not")
    );
    let empty = format!("{paths}common:\n  security:\n    internaltlsEnabled:\n");
    assert!(matches!(load(&empty), Err(SettingsError::Empty { .. })));
    let answered = format!("{paths}common:\n  security:\n    internaltlsEnabled: false\n");
    assert!(!load(&answered).unwrap().internal.enabled);
    assert!(!load_env(paths, &[("COMMON_SECURITY_INTERNALTLSENABLED", "false")]).unwrap().internal.enabled);
}

#[test]
fn refuses_values_that_do_not_fit() {
    for (yaml, expected) in [
        ("common.security.tlsMode: 3", "`3`, but must be 0 (no TLS), 1 (one-way) or 2 (two-way)"),
        ("common.security.tlsMode: -1", "`-1`"),
        ("common.security.tlsMode: yes", "`yes`"),
        ("common.security.tlsMode: [1]", "is a list, but must be one value"),
        ("common.security.internaltlsEnabled: 1", "must be true or false"),
        ("proxy.port: 65536", "must be a port from 0 to 65535"),
        ("proxy.port: http", "must be a port"),
        ("internaltls.reload.pollSeconds: 30s", "must be a whole number of seconds, without a unit, from 1"),
        ("internaltls.reload.pollSeconds: 0", "from 1"),
        ("internaltls.reload.debounceMilliseconds: 100ms", "milliseconds"),
        ("internaltls.handshake.maxBytes: 64KiB", "number of bytes"),
        ("internaltls.handshake.maxConcurrent: 0", "from 1"),
        ("internaltls.reload.watch: maybe", "true or false"),
        ("internaltls.trustDomain: Mesh", "`Mesh`, but must be a name of a-z"),
        ("tls.minVersion: 1.1", "must be 1.2 or 1.3"),
        ("proxy.address: localhost", "IP address"),
        ("cluster.coordinator: http://a:1", "host:port"),
        ("cluster.coordinator: a:0", "host:port"),
        ("cluster.dataNodes: {d: here}", "host:port"),
        ("cluster.dataNodes: {D_1: 'a:1'}", "node id `D_1`"),
        ("log.level: loud", "debug, info, warn or error"),
    ] {
        let text = refusal(yaml);
        let key = yaml.split(':').next().unwrap();
        assert!(text.starts_with(&format!("1: `{key}` is ")) && text.contains(expected), "{yaml}: {text}");
    }
}

#[test]
fn refuses_what_is_not_built() {
    for (yaml, instead) in [
        ("internaltls.transport: quic", "tcp"),
        ("internaltls.mode: permissive", "strict"),
        ("internaltls.client: plaintext", "tls"),
        ("internaltls.permissiveUntil: 2027-01-01", "internaltls.mode: strict"),
    ] {
        let (key, value) = yaml.split_once(": ").unwrap();
        let expected = format!("1: `{key}` is `{value}`, which is not available in this version: use `{instead}`");
        assert_eq!(refusal(yaml), expected);
    }
}

#[test]
fn refuses_enabled_without_files() {
    assert_eq!(
        refusal("common.security.internaltlsEnabled: true"),
        "`internaltls.serverPemPath` is not set, but `common.security.internaltlsEnabled` is true: set it"
    );
    assert_eq!(
        refusal("common.security.tlsMode: 2\ntls: {serverPemPath: a, serverKeyPath: b}"),
        "`tls.caPemPath` is not set, but `common.security.tlsMode` is 2: set it"
    );
    let half = format!("{DOCUMENTED}\ninternaltls.clientPemPath: /c\n");
    assert!(
        refusal(&half).starts_with("`internaltls.clientKeyPath` is not set, but `internaltls.clientPemPath` is set")
    );
}

#[test]
fn refuses_the_same_key_twice() {
    assert!(refusal("proxy:\n  port: 1\n  PORT: 2\n").starts_with("3: `proxy.port` was already set at"));
}

#[test]
fn refuses_what_is_not_yaml() {
    assert!(refusal("tls: [").contains("correct the YAML"));
    assert!(refusal("just text").contains("must be a mapping"));
    assert!(refusal("- a\n").contains("must be a mapping"));
    assert!(refusal("a: 1\n---\nb: 2\n").contains("second document"));
    assert!(refusal("tls: 5\n").contains("`tls` must be a section"));
    assert!(refusal("x: &x {a: 1}\ntls: *x\n").contains("1: anchors are not read"));
    assert!(refusal("tls: {crlPath: {}}\n").contains("`tls.crlPath` is an empty mapping, but must be one value"));
    assert!(refusal("? {a: b}\n: c\n").contains("a key must be plain text"));
}

#[test]
fn empty_section_is_no_error() {
    assert!(load("tls:\ninternaltls:\n  sni:\n").is_ok());
}

#[test]
fn other_keys_are_counted_in_one_notice() {
    let settings = load("etcd:\n  endpoints: [a, b]\n  ssl: {tlsCert: x}\nmq:\n  type: default\n").unwrap();
    assert_eq!(settings.notices.len(), 1);
    assert!(
        settings.notices[0].ends_with("milvus.yaml:2: 3 other keys are not read, this the first of them"),
        "{:?}",
        settings.notices
    );
}

#[test]
fn keys_of_milvus_are_no_near_misses() {
    let yaml = "minio: {useIAM: false, iamEndpoint: , logLevel: fatal, useVirtualHost: false, cloudProvider: aws}
etcd: {ssl: {enabled: false, tlsCert: a, tlsKey: b, tlsCACert: c, tlsMinVersion: 1.3}, rootPath: by-dev, log: {level: info, path: stdout}}
proxy: {ip: , http: {debug_mode: false}, grpc: {serverMaxRecvSize: 1}, maxNameLength: 255}
rootCoord: {port: 53100, ip: }
dataCoord: {port: 13333, address: localhost}
queryNode: {port: 21123}
natsmq: {server: {port: 4222, retention: {maxBytes: , maxAge: 1}}}
common: {security: {superUsers: , rootShouldBindRole: false}, storageType: remote}
log: {file: {rootPath: , maxSize: 300}, format: text, stdout: true}
localStorage: {path: /tmp/rows}
";
    let settings = load(yaml).unwrap();
    assert_eq!(settings.storage, Storage::Local { path: "/tmp/rows".into() });
}

#[test]
fn folder_layers_lie_over_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "milvus.yaml",
        "proxy: {port: 1, internalPort: 1, http: {port: 1}}\ncluster.dataNodes: {a: 'h:1', b: 'h:2'}\n",
    );
    write("default.yaml", "proxy: {port: 2, internalPort: 2}\n");
    write("user.yaml", "proxy: {port: 3, http: {port: }}\ncluster.dataNodes: {c: 'h:3'}\n");
    let settings = Settings::load_with_env(folder.path(), std::iter::empty()).unwrap();
    assert_eq!((settings.proxy.port, settings.proxy.internal_port, settings.proxy.http_port), (3, 2, None));
    let names: Vec<_> = settings.cluster.data_nodes.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(names, ["c"], "the last list counts alone");
}

/// Invariant 1: a template that expanded to nothing switches off nothing.
#[test]
fn invariant_1_refuses_empty_guards() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let refusal = || Settings::load_with_env(folder.path(), std::iter::empty()).unwrap_err().to_string();
    for key in KEYS.iter().filter(|key| key.guards) {
        for empty in ["", " ''", " ~", " # comment"] {
            write("milvus.yaml", &format!("# a comment\n{}: word\n", key.path));
            write("user.yaml", &format!("{}:{empty}\n", key.path));
            let (milvus, user) = (folder.path().join("milvus.yaml"), folder.path().join("user.yaml"));
            let said = format!(
                "{}:1: `{}` is empty, which would take away what it protects: give it a value, or remove the line; to do without it, remove it at {}:2 too",
                user.display(),
                key.path,
                milvus.display()
            );
            assert_eq!(refusal(), said);
            write("milvus.yaml", "");
            assert!(refusal().ends_with("give it a value, or remove the line"), "{}", refusal());
        }
    }
}

#[test]
fn guards_are_decided_by_kind() {
    let guards: Vec<_> = KEYS.iter().filter(|key| key.guards).map(|key| key.path).collect();
    let by_section = |key: &&crate::KeyInfo| {
        key.path.starts_with("common.security.")
            || key.path.starts_with("tls.")
            || key.path.ends_with(".address")
            || key.path.ends_with("healthAddress")
    };
    let by_file =
        |key: &&crate::KeyInfo| key.file && !["internaltls.reload.forcePath", "localStorage.path"].contains(&key.path);
    let missing: Vec<_> = KEYS
        .iter()
        .filter(|key| by_section(key) || by_file(key))
        .map(|key| key.path)
        .filter(|path| !guards.contains(path))
        .collect();
    // Loopback is the default of the one, nothing is reached without the other.
    assert_eq!(missing, ["management.address", "minio.address"]);
}

/// `minio.accessKeyID:` is how Milvus says that a role of the machine is used.
#[test]
fn empty_values_of_others_are_defaults() {
    let yaml = "minio: {accessKeyID: , secretAccessKey: '', region: , bucketName: }\nlog.level:\nproxy.http.port:\n";
    assert_eq!(load(yaml).unwrap().storage, Storage::Local { path: "data".into() });
}

#[test]
fn material_without_its_mode_is_warned_of() {
    let warnings = |yaml: &str| -> Vec<_> {
        let loaded = load(yaml).unwrap().warnings;
        loaded.into_iter().map(|line| line.split_once("milvus.yaml:").unwrap().1.to_owned()).collect()
    };
    for path in ["serverPemPath", "serverKeyPath", "caPemPath", "crlPath", "distrustPath"] {
        assert_eq!(
            warnings(&format!("tls.{path}: a\n")),
            [format!(
                "1: tls.{path} is set, but common.security.tlsMode is not set: clients are served in plaintext; set common.security.tlsMode to 1 or 2, or remove the key"
            )]
        );
        let zero = warnings(&format!("common.security.tlsMode: 0\ntls.{path}: a\n"));
        assert!(zero[0].starts_with(&format!("2: tls.{path} is set, but common.security.tlsMode is 0: ")), "{zero:?}");
    }
    let one_way = format!("{DOCUMENTED}\ntls.distrustPath: a\n");
    assert!(
        warnings(&one_way)[0]
            .contains("tls.distrustPath is set, but common.security.tlsMode is 1: clients show no certificate")
    );
    assert!(warnings(DOCUMENTED).is_empty() && warnings("").is_empty());
    assert!(warnings(&one_way.replace("tlsMode: 1", "tlsMode: 2")).is_empty());
}

#[test]
fn known_password_is_said_aloud() {
    let said = |yaml: &str| load(yaml).unwrap().notices.iter().any(|line| line.contains("defaultRootPassword"));
    assert!(said("common: {security: {authorizationEnabled: true}}"));
    assert!(!said("common: {security: {authorizationEnabled: true, defaultRootPassword: s3cret-word}}"));
    assert!(!said(""));
}

#[test]
fn missing_configuration_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let load = |path: &Path| Settings::load_with_env(path, std::iter::empty()).unwrap_err();
    assert!(load(folder.path()).to_string().contains("holds none of milvus.yaml"));
    let file = folder.path().join("gone.yaml");
    let error = load(&file);
    assert!(error.to_string().contains(&*file.to_string_lossy()) && error.to_string().contains("--config"));
    assert!(std::error::Error::source(&error).is_some(), "the cause is kept");
}

#[test]
fn relative_paths_count_from_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = DOCUMENTED.replace("/milvus/tls/", "certs/");
    std::fs::write(folder.path().join("milvus.yaml"), yaml).unwrap();
    let settings = Settings::load_with_env(folder.path(), std::iter::empty()).unwrap();
    assert_eq!(settings.internal.files.unwrap().cert, folder.path().join("certs/server.pem"));
    let env = [("TLS_SERVERPEMPATH", "certs/a.pem")];
    assert_eq!(load_env(DOCUMENTED, &env).unwrap().edge.files.unwrap().cert, PathBuf::from("certs/a.pem"));
}

#[test]
fn environment_overrides_files() {
    let env = [
        ("COMMON_SECURITY_TLSMODE", "0"),
        ("INTERNALTLS_RELOAD_POLLSECONDS", "7"),
        ("TLSMODE", "9"),
        ("HOME", "/root"),
    ];
    let settings = load_env(DOCUMENTED, &env).unwrap();
    assert_eq!(settings.edge.mode, EdgeMode::Off);
    assert_eq!(settings.internal.reload.poll, Duration::from_secs(7));
    let text = message(load_env("", &[("COMMON_SECURITY_TLSMODE", "5")]));
    assert!(
        text.starts_with("environment variable COMMON_SECURITY_TLSMODE: `common.security.tlsMode` is `5`"),
        "{text}"
    );
    let nodes = load_env("", &[("CLUSTER_DATANODES", "a=h:1, b=[::1]:2")]).unwrap().cluster.data_nodes;
    assert_eq!(nodes[1].1.to_string(), "[::1]:2");
}

#[test]
fn what_is_named_is_told_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("milvus.yaml");
    let yaml = "tls: { serverPemPath: tls/server.pem, minVersion: 1.3 }\ncluster: { dataNodes: { data-node-1: \"h:1\" } }\nrootCoord: 1\n";
    std::fs::write(&file, yaml).unwrap();
    let env = [("PROXY_PORT".to_owned(), "7".to_owned())];
    let named = crate::named(Some(&file), env.into_iter()).unwrap();
    let cert = folder.path().join("tls/server.pem").to_string_lossy().into_owned();
    let expected = [
        ("cluster.dataNodes", "data-node-1=h:1"),
        ("proxy.port", "7"),
        ("tls.minVersion", "1.3"),
        ("tls.serverPemPath", &cert),
    ];
    assert_eq!(named.into_iter().collect::<Vec<_>>(), expected.map(|(key, text)| (key, text.to_owned())));
    assert!(crate::named(None, [].into_iter()).unwrap().is_empty());
}

#[test]
fn refuses_near_miss_in_the_environment() {
    let text = message(load_env("", &[("COMMON_SECURITY_INTERNALTLSENABLE", "true")]));
    assert!(text.contains("COMMON_SECURITY_INTERNALTLSENABLED"), "{text}");
}

#[test]
fn both_names_of_a_variable_must_agree() {
    let settings = load_env("", &[("MINIO_BUCKETNAME", "a"), ("MINIO_BUCKET_NAME", "a"), ("MINIO_ADDRESS", "h")]);
    assert!(settings.is_ok());
    let differing = load_env("", &[("MINIO_BUCKETNAME", "a"), ("MINIO_BUCKET_NAME", "b")]);
    assert!(matches!(differing, Err(SettingsError::Twice { .. })));
}

#[test]
fn variables_of_the_documented_compose_do_no_harm() {
    let env = [("ETCD_ENDPOINTS", "etcd:2379"), ("MINIO_ADDRESS", "minio:9000")];
    let settings = load_env("localStorage.path: /rows", &env).unwrap();
    assert_eq!(settings.storage, Storage::Local { path: "/rows".into() });
    assert!(settings.notices.iter().any(|line| line.starts_with("ETCD_ENDPOINTS is set and has no effect")));
    assert!(settings.notices.iter().any(|line| line.contains("minio.bucketName is not set")));
}

#[test]
fn service_links_of_kubernetes_are_passed_over() {
    let settings =
        load_env("", &[("PROXY_PORT", "tcp://10.0.0.1:19530"), ("MINIO_PORT", "tcp://10.0.0.2:9000")]).unwrap();
    assert_eq!((settings.proxy.port, settings.notices.len()), (19530, 2));
}

#[test]
fn bucket_name_alone_chooses_object_storage() {
    let env = [("MINIO_ADDRESS", "minio:9001"), ("MINIO_ACCESS_KEY_ID", "who"), ("MINIO_SECRET_ACCESS_KEY", "s3cret")];
    let settings = load_env("minio: {bucketName: rows, useSSL: true}", &env).unwrap();
    let Storage::S3(s3) = &settings.storage else { panic!("{:?}", settings.storage) };
    assert_eq!((s3.endpoint.as_str(), s3.bucket.as_str(), s3.root.as_str()), ("https://minio:9001", "rows", "files"));
    let shown = format!("{settings:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("Milvus"), "{shown}");
    let plain = load("minio: {bucketName: rows, address: 10.0.0.1}").unwrap();
    assert!(matches!(plain.storage, Storage::S3(s3) if s3.endpoint == "http://10.0.0.1:9000"));
    assert!(refusal("minio.bucketName: rows").starts_with("`minio.address` is not set"));
}

#[test]
fn version_of_the_edge_is_read() {
    assert_eq!(load("tls.minVersion: 1.3").unwrap().edge.min_version, Some(TlsVersion::V1_3));
}

#[test]
fn shipped_configuration_is_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/milvus.yaml");
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    if shipped != reference() {
        let expected = std::env::temp_dir().join("milvus.yaml.expected");
        std::fs::write(&expected, reference()).unwrap();
        panic!("{} differs from the table of keys; the right text is in {}", path.display(), expected.display());
    }
}

#[test]
fn reference_says_the_defaults() {
    let (from_text, from_code) = (load(&reference()).unwrap(), load("").unwrap());
    assert_eq!(format!("{from_text:?}"), format!("{from_code:?}"));
}

#[test]
fn every_commented_key_of_the_reference_is_one() {
    let text = reference();
    let names: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("# ")?.strip_suffix(':')).collect();
    let unset: Vec<_> = KEYS.iter().filter(|key| key.default.is_none()).map(crate::KeyInfo::leaf).collect();
    assert_eq!(names, unset);
}

#[test]
fn names_of_variables_are_unique() {
    let names: Vec<_> = KEYS.iter().flat_map(crate::KeyInfo::env_names).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

proptest! {
    /// Whatever a file holds, it is read or refused, never a panic; and what is written as a key comes back as one.
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z:{}\\[\\]\\-&*?!|>'\"#\n ,.0-9]{0,80}") {
        let _ = crate::layers::parse(Path::new("milvus.yaml"), &text);
    }

    /// One letter more, less or other in the switch is never passed over.
    #[test]
    fn no_typing_error_turns_the_switch_off(at in 0..18_usize, letter in "[a-z]", how in 0..3) {
        let right = "internaltlsenabled";
        let typed = match how {
            0 => format!("{}{}", &right[..at], &right[at + 1..]),
            1 => format!("{}{letter}{}", &right[..at], &right[at..]),
            _ => format!("{}{letter}{}", &right[..at], &right[at + 1..]),
        };
        let result = load(&format!("common:\n  security:\n    {typed}: true\n"));
        prop_assert!(result.is_err(), "{typed}");
    }
}
