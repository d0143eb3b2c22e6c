//! What the tests share.
use std::path::Path;
use std::time::Duration;

use test_util::cluster::Plan;

const MESHCTL: &str = env!("CARGO_BIN_EXE_mesh-under-test");
/// For what takes a moment on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The build that is under attack: this one, or the `meshctl` that HOSTILE_BINARY names.
pub(crate) fn meshctl() -> String {
    std::env::var("HOSTILE_BINARY").unwrap_or_else(|_| MESHCTL.into())
}

/// A cluster of its own.
pub(crate) fn plan() -> Plan {
    Plan::new(meshctl())
}

/// `path` as text.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Says what a run did not prove, past the harness, which shows nothing of a test that passes.
pub(crate) fn not_run(what: &str, why: &str) {
    use std::io::Write;
    let line = format!("\nhostile: NOT RUN, and nothing said of {what}: {why}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// Whether this process may do what root may.
pub(crate) fn is_root() -> bool {
    test_util::command::program("id").args(["-u"]).run().out.trim() == "0"
}
