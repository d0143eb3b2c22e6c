//! The `standalone` service of the Milvus documentation, with its TLS page: `docker/compose.tls.yaml`.
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use test_util::authority::serial_of_file;
use test_util::clients::{self, rest};
use test_util::cluster::Edge;
use test_util::command::{Run, program};
use test_util::load::Load;
use test_util::wait;

use crate::cluster::python;
use crate::engine::{Engine, root};

/// Nobody in particular, who is not root.
const USER: u32 = 12_345;
const STRANGER: u32 = 54_321;
const READY: Duration = Duration::from_secs(120);

/// The documented folder, and the service on it.
struct Standalone {
    engine: Engine,
    folder: TempDir,
    user: u32,
    image: String,
}

impl Standalone {
    /// The steps of the page: certificates, milvus.yaml, up.
    fn start(engine: &Engine, user: u32) -> Self {
        let folder = TempDir::with_prefix("documented-").unwrap();
        let standalone = Self { engine: engine.clone(), folder, user, image: engine.image() };
        let tls = standalone.path("tls");
        fs::create_dir(&tls).unwrap();
        for script in ["gen.sh", "renew.sh"] {
            fs::copy(root().join("docker/tls").join(script), tls.join(script)).unwrap();
        }
        fs::copy(root().join("docker/milvus.yaml"), standalone.path("milvus.yaml")).unwrap();
        standalone.script("gen.sh");
        assert_eq!(fs::metadata(tls.join("server.key")).unwrap().mode() & 0o777, 0o600, "the documented mode of keys");
        standalone.own(USER);
        own(&standalone.path("volumes"), user);
        let up = standalone.compose(&["up", "-d"]).run();
        assert!(up.success, "{}", up.text());
        standalone
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn script(&self, name: &str) {
        let said = program(self.path("tls").join(name)).run();
        assert!(said.success, "{name}: {}", said.text());
    }

    /// Everything in the folder is this user's, as if it had run the scripts.
    fn own(&self, user: u32) {
        own(self.folder.path(), user);
    }

    fn compose(&self, arguments: &[&str]) -> Run {
        let file = root().join("docker/compose.tls.yaml").display().to_string();
        let project = format!("internaltls-documented-{}", std::process::id());
        // A shell has UID already, and for itself: `env` gives it to compose.
        self.engine
            .compose(&["-p", &project, "-f", &file])
            .args(arguments)
            .env("UID", self.user.to_string())
            .env("GID", self.user.to_string())
            .env("DOCKER_VOLUME_DIRECTORY", self.folder.path())
            .env("INTERNALTLS_IMAGE", &self.image)
    }

    fn logs(&self) -> String {
        self.compose(&["logs", "--no-color"]).run().text()
    }

    fn healthy(&self) {
        wait::until("the documented service is healthy", READY, || {
            let (code, body) =
                test_util::http::get("127.0.0.1:9091", "/healthz").map_err(|e| format!("{e}\n{}", self.logs()))?;
            if code == 200 { Ok(()) } else { Err(body) }
        });
    }

    fn edge(&self) -> Edge {
        let tls = |name: &str| self.path("tls").join(name);
        Edge {
            grpc: "localhost:19530".into(),
            rest: "localhost:8080".into(),
            tls_mode: 1,
            ca: tls("ca.pem"),
            cert: tls("client.pem"),
            key: tls("client.key"),
        }
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        let _ = self.compose(&["down", "--volumes", "--timeout", "5"]).run();
    }
}

fn own(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap_or_else(|e| panic!("{}: {e}; this test needs root", path.display()));
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| own(&entry.unwrap().path(), user));
    }
}

pub(crate) fn served(engine: &Engine) {
    let standalone = Standalone::start(engine, USER);
    standalone.healthy();
    let edge = standalone.edge();
    let logs = standalone.logs();
    assert!(logs.contains(r#"["Internal TLS Enabled"] [value=true]"#), "the documented line was not said: {logs}");
    // The block's own probe, as the engine runs it.
    let probe = ["exec", "milvus-standalone", "curl", "-f", "http://localhost:9091/healthz"];
    assert!(engine.docker(&probe).run().success, "the documented probe fails");
    let seen = python().run("quick_setup.py", &clients::argument(&edge, json!({"collection": "documented"})));
    assert_eq!(seen["inserted"], 10, "{seen}");
    let answer = rest(&edge, &["-H", "Request-Timeout: 10"], "collections/list");
    assert_eq!((answer.status, &answer.body["code"]), (200, &json!(0)), "{answer:?}");
    let load = Load::start(&edge);
    let leaf = standalone.path("tls/server.pem");
    let before = serial_of_file(&leaf);
    standalone.script("renew.sh");
    standalone.own(USER);
    let after = serial_of_file(&leaf);
    assert_ne!(before, after, "renew.sh made no new leaf");
    wait::until("the new leaf at the edge", Duration::from_secs(60), || {
        let served = test_util::tls::served_serial(&edge.grpc, &edge.credentials().unwrap())?;
        if served == after { Ok(()) } else { Err(format!("{served} is served\n{}", standalone.logs())) }
    });
    load.more_calls(40);
    load.stop().assert_no_failure();
    let restarted = standalone.compose(&["restart"]).run();
    assert!(restarted.success, "{}", restarted.text());
    standalone.healthy();
    let answer = rest(&edge, &[], "collections/list");
    assert!(answer.body["data"].to_string().contains("load"), "rows did not outlive a restart: {answer:?}");
}

pub(crate) fn refused(engine: &Engine) {
    let standalone = Standalone::start(engine, STRANGER);
    let logs = wait::until("the refusal", Duration::from_secs(60), || {
        let logs = standalone.logs();
        if logs.contains("server.key") { Ok(logs) } else { Err(logs) }
    });
    for part in [
        &format!("owner uid {USER}"),
        "mode 0600",
        &format!("we run as uid {STRANGER}"),
        &format!("chown {STRANGER}"),
        "/milvus/tls/server.key",
    ] {
        assert!(logs.contains(part), "the error does not say `{part}`: {logs}");
    }
}
