//! Clusters and clients that tests share.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Value, json};
use test_util::cluster::{Cluster, Edge, Plan};
use test_util::command::{Answer, curl};
use test_util::process::is_running;
use test_util::python::Python;

pub(crate) const MESHCTL: &str = env!("CARGO_BIN_EXE_mesh-under-test");

/// Where the shared clusters would write session secrets, if they honoured SSLKEYLOGFILE.
pub(crate) const SECRETS: &str = "session-secrets.log";

/// The package's folder.
pub(crate) fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A folder of the build that tests may fill.
pub(crate) fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// A cluster of its own.
pub(crate) fn plan() -> Plan {
    Plan::new(MESHCTL)
}

/// The stock client.
pub(crate) fn python() -> Python {
    Python::with_pymilvus(scratch().parent().unwrap(), &here().join("clients"))
}

/// The cluster that all tests of this mode share, which only call it. It ends with this process.
pub(crate) fn shared(mode: u8) -> &'static Cluster {
    static SHARED: [LazyLock<Cluster>; 3] =
        [LazyLock::new(|| start(0)), LazyLock::new(|| start(1)), LazyLock::new(|| start(2))];
    &SHARED[usize::from(mode)]
}

/// A static is never dropped, so its folder would stay: it lies where the next run sweeps.
fn start(mode: u8) -> Cluster {
    sweep();
    let folder = scratch().join(format!("shared-{}-{mode}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let secrets = text(&folder.join(SECRETS));
    plan().in_folder(&folder).tls_mode(mode).env("SSLKEYLOGFILE", &secrets).start()
}

fn sweep() {
    for entry in fs::read_dir(scratch()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("shared-").and_then(|rest| rest.split('-').next()?.parse().ok());
        if owner.is_some_and(|pid: u32| !is_running(pid)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The arguments of `MilvusClient` for this edge, as its documentation has them.
pub(crate) fn milvus(edge: &Edge) -> Value {
    let uri = format!("{}://127.0.0.1:{}", edge.scheme(), edge.port());
    match edge.tls_mode {
        0 => json!({"uri": uri}),
        1 => json!({"uri": uri, "server_pem_path": edge.ca, "server_name": "localhost"}),
        _ => json!({
            "uri": uri, "client_pem_path": edge.cert, "client_key_path": edge.key, "ca_pem_path": edge.ca,
            "server_name": "localhost",
        }),
    }
}

/// Runs a client script against `edge`, with `more` in its argument.
pub(crate) fn run(edge: &Edge, script: &str, more: Value) -> Value {
    python().run(script, &argument(edge, more))
}

/// The argument of a client script.
pub(crate) fn argument(edge: &Edge, more: Value) -> Value {
    let mut argument = json!({"client": milvus(edge)});
    argument.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    argument
}

/// `curl` with this edge's credentials.
pub(crate) fn rest(edge: &Edge, more: &[&str], path: &str) -> Answer {
    let url = format!("{}://{}/v2/vectordb/{path}", edge.scheme(), edge.rest);
    curl(edge.curl().into_iter().chain(more.iter().map(ToString::to_string)).chain([url]))
}

/// A POST with this body.
pub(crate) fn post(edge: &Edge, path: &str, body: &Value) -> Answer {
    rest(edge, &["-X", "POST", "-H", "Content-Type: application/json", "-d", &body.to_string()], path)
}

/// `path` as text.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
