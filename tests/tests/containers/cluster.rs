//! The cluster of `docker/compose.yaml`, under a name and on ports of its own.
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use test_util::clients;
use test_util::cluster::Edge;
use test_util::command::{Run, Said};
use test_util::process::free_port;
use test_util::python::Python;
use test_util::wait;

use crate::engine::{Engine, root};

/// All of them, in the order of a rolling restart.
pub(crate) const NODES: [&str; 5] = ["coordinator-1", "data-node-1", "data-node-2", "data-node-3", "proxy-1"];
const READY: Duration = Duration::from_secs(120);

/// A running cluster. Its drop removes it, volumes included.
pub(crate) struct Cluster {
    pub(crate) engine: Engine,
    pub(crate) project: String,
    pub(crate) image: Mutex<String>,
    pub(crate) edge: Edge,
    pub(crate) folder: TempDir,
    /// gRPC, REST, management: on the host.
    pub(crate) ports: [u16; 3],
}

impl Cluster {
    /// Builds the image, and waits until all nodes are healthy.
    pub(crate) fn start(engine: &Engine) -> Self {
        let folder = TempDir::with_prefix("containers-").unwrap();
        let ports = [free_port(), free_port(), free_port()];
        let file = |name: &str| folder.path().join(name);
        let edge = Edge {
            grpc: format!("localhost:{}", ports[0]),
            rest: format!("localhost:{}", ports[1]),
            tls_mode: 1,
            ca: file("ca.pem"),
            cert: file("client.pem"),
            key: file("client.key"),
        };
        let cluster = Self {
            project: format!("internaltls-test-{}", std::process::id()),
            image: Mutex::new(engine.image()),
            engine: engine.clone(),
            edge,
            folder,
            ports,
        };
        cluster.up();
        cluster.fetch("proxy-1", "/certs/edge/ca.pem", "ca.pem");
        cluster
    }

    /// `compose up`, and healthy.
    pub(crate) fn up(&self) {
        self.said(&["up", "-d", "--no-build"]);
        NODES.iter().for_each(|node| self.healthy(node));
    }

    /// Waits until the engine's own probe of a node is satisfied.
    pub(crate) fn healthy(&self, node: &str) {
        wait::until(&format!("{node} is healthy"), READY, || {
            let health = self.inspect(node, "{{.State.Status}} {{.State.Health.Status}}");
            if health == "running healthy" { Ok(()) } else { Err(format!("{health}\n{}", self.logs())) }
        });
    }

    /// `compose ARGUMENTS…` on this cluster.
    pub(crate) fn compose(&self, arguments: &[&str]) -> Run {
        let file = root().join("docker/compose.yaml").display().to_string();
        let [grpc, rest, management] = self.ports.map(|port| port.to_string());
        self.engine
            .compose(&["-p", &self.project, "-f", &file])
            .args(arguments)
            .env("INTERNALTLS_IMAGE", self.image.lock().unwrap().as_str())
            .env("GRPC_PORT", grpc)
            .env("REST_PORT", rest)
            .env("MANAGEMENT_PORT", management)
    }

    /// What `compose ARGUMENTS…` said.
    pub(crate) fn said(&self, arguments: &[&str]) -> String {
        let said = self.compose(arguments).run();
        assert!(said.success, "compose {}: {}", arguments.join(" "), said.text());
        said.text()
    }

    /// `meshctl ARGUMENTS…` in the tool's container.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Said {
        let words: Vec<_> = ["run", "--rm", "-T", "mesh"].into_iter().chain(arguments.iter().copied()).collect();
        self.compose(&words).run()
    }

    /// The container of a service.
    pub(crate) fn container(&self, service: &str) -> String {
        let filters = [
            format!("label=com.docker.compose.project={}", self.project),
            format!("label=com.docker.compose.service={service}"),
        ];
        let arguments = ["ps", "-aq", "--no-trunc", "--filter", &filters[0], "--filter", &filters[1]];
        self.engine.done(&arguments).lines().next().unwrap_or_default().to_owned()
    }

    /// What `docker inspect` tells of a service's container.
    pub(crate) fn inspect(&self, service: &str, format: &str) -> String {
        self.engine.done(&["inspect", "--format", format, &self.container(service)])
    }

    /// A network's id.
    pub(crate) fn network(&self, name: &str) -> String {
        self.engine.done(&["network", "inspect", "--format", "{{.Id}}", &format!("{}_{name}", self.project)])
    }

    /// Copies a file out of a container, as the printed text has it.
    pub(crate) fn fetch(&self, service: &str, path: &str, name: &str) -> PathBuf {
        let to = self.folder.path().join(name);
        let _ = fs::remove_file(&to);
        // What the path names is a link; -L follows it.
        let from = format!("{}:{path}", self.container(service));
        self.engine.done(&["cp", "-L", &from, &to.display().to_string()]);
        to
    }

    /// The tails of all logs.
    pub(crate) fn logs(&self) -> String {
        self.compose(&["logs", "--no-color", "--tail", "20"]).run().text()
    }

    /// Runs a client script at the edge.
    pub(crate) fn run(&self, script: &str, more: Value) -> Value {
        python().run(script, &clients::argument(&self.edge, more))
    }

    /// The status document of all nodes.
    pub(crate) fn status(&self) -> Result<Value, String> {
        let said = self.tool(&["status", "--dir", "/authority", "--json"]);
        if said.success { Ok(said_json(&said)) } else { Err(said.text()) }
    }
}

/// The JSON that a tool printed; compose may say things of its own around it.
pub(crate) fn said_json(said: &Said) -> Value {
    let start = said.out.find('{').unwrap_or_else(|| panic!("no JSON: {}", said.text()));
    let end = said.out.rfind('}').unwrap();
    serde_json::from_str(&said.out[start..=end]).unwrap_or_else(|e| panic!("{e}: {}", said.text()))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.compose(&["down", "--volumes", "--timeout", "1"]).run();
    }
}

/// The stock client.
pub(crate) fn python() -> Python {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    Python::with_pymilvus(target.parent().unwrap(), &root().join("tests/clients"))
}
