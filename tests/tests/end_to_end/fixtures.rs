//! Clusters and clients that tests share.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;
pub(crate) use test_util::clients::{argument, milvus, post, rest};
use test_util::cluster::{Cluster, Edge, Plan};
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

/// Runs a client script against `edge`, with `more` in its argument.
pub(crate) fn run(edge: &Edge, script: &str, more: Value) -> Value {
    python().run(script, &argument(edge, more))
}

/// `path` as text.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
