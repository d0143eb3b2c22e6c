//! One process: its certificates, its settings, and what it says.
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use test_util::authority::{Authority, Leaf, Pair, write_public};
use test_util::process::{Process, free_port};
use test_util::rogue::{self, Identity, Served};
use test_util::{http, wait};

use crate::fixtures::{SOON, meshctl, text};

/// A role that runs alone; the nodes that it would call are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Coordinator,
    Proxy,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Proxy => "proxy",
        }
    }

    pub(crate) fn node(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator-1",
            Self::Proxy => "proxy-1",
        }
    }
}

/// A process to be: a folder with `certs` (of [`Site::mesh`]) and `edge` (of [`Site::edge`]), and settings.
pub(crate) struct Site {
    pub(crate) role: Role,
    pub(crate) mesh: Authority,
    pub(crate) edge: Authority,
    folder: TempDir,
    settings: BTreeMap<String, String>,
    internal: u16,
    management: u16,
    grpc: u16,
}

impl Site {
    /// With settings as `meshctl up` makes them, and files that are looked at each second.
    pub(crate) fn new(role: Role) -> Self {
        let folder = TempDir::with_prefix("hostile-").unwrap();
        let [internal, management, grpc, health] = std::array::from_fn(|_| free_port());
        let (mesh, edge) = (Authority::new("mesh CA"), Authority::new("edge CA"));
        let site = Self { role, mesh, edge, folder, settings: BTreeMap::new(), internal, management, grpc };
        site.mesh.write_node(&site.path("certs"), &site.leaf());
        site.edge.write_node(&site.path("edge"), &Leaf::edge_server());
        let (certs, edge, data) = (text(&site.path("certs")), text(&site.path("edge")), text(&site.path("data")));
        let (internal, grpc) = (internal.to_string(), grpc.to_string());
        let site = ["coordinator", "dataNode", "proxy"]
            .iter()
            .fold(site, |site, role| site.set(&format!("{role}.address"), "127.0.0.1"));
        site.set("common.security.tlsMode", "2")
            .set("common.security.internaltlsEnabled", "true")
            .set("tls.serverPemPath", &format!("{edge}/server.pem"))
            .set("tls.serverKeyPath", &format!("{edge}/server.key"))
            .set("tls.caPemPath", &format!("{edge}/ca.pem"))
            .set("internaltls.serverPemPath", &format!("{certs}/server.pem"))
            .set("internaltls.serverKeyPath", &format!("{certs}/server.key"))
            .set("internaltls.caPemPath", &format!("{certs}/ca.pem"))
            .set("internaltls.reload.pollSeconds", "1")
            .set("proxy.port", &grpc)
            .set("proxy.internalPort", &internal)
            .set("coordinator.port", &internal)
            .set("cluster.coordinator", &format!("127.0.0.1:{}", if role == Role::Proxy { "1" } else { &internal }))
            .set("cluster.dataNodes.data-node-1", "127.0.0.1:1")
            .set("management.healthAddress", "127.0.0.1")
            .set("management.healthPort", &health.to_string())
            .set("management.port", &management.to_string())
            .set("localStorage.path", &data)
    }

    /// With this setting, by its dotted key; the value is YAML.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(key.into(), value.into());
        self
    }

    /// Without what lies under this key.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.settings.retain(|name, _| name != key && !name.starts_with(&format!("{key}.")));
        self
    }

    /// With a file of its own for a setting that names one.
    pub(crate) fn with_file(self, key: &str, name: &str, content: &str) -> Self {
        let path = self.path(name);
        write_public(&path, content);
        self.set(key, &text(&path))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("milvus.yaml")
    }

    /// What a leaf of this node says.
    pub(crate) fn leaf(&self) -> Leaf {
        Leaf::node(self.role.name(), self.role.node())
    }

    /// A pair for another node.
    pub(crate) fn peer(&self, role: &str, node: &str) -> Pair {
        self.mesh.sign(&Leaf::node(role, node))
    }

    /// `host:port` in the mesh.
    pub(crate) fn internal(&self) -> String {
        format!("127.0.0.1:{}", self.internal)
    }

    /// `host:port` of the edge.
    pub(crate) fn grpc(&self) -> String {
        format!("127.0.0.1:{}", self.grpc)
    }

    /// The server name of its listener in the mesh.
    pub(crate) fn sni(&self) -> String {
        format!("{}.mesh.internal", self.role.name())
    }

    /// Writes the configuration.
    pub(crate) fn write_config(&self) {
        write_public(&self.config(), &nested(&self.settings));
    }

    /// Starts it without waiting, with the configuration as it lies there.
    pub(crate) fn spawn(&self) -> Process {
        self.spawn_at(&self.config())
    }

    /// [`Self::spawn`] with another file, or a folder.
    pub(crate) fn spawn_at(&self, config: &Path) -> Process {
        let mut command = Command::new(meshctl());
        command.args(["run", self.role.name(), "--node", self.role.node(), "--config"]).arg(config);
        command.current_dir(self.dir()).env_remove("RUST_LOG");
        Process::spawn(self.role.node(), command, &self.path("logs/process.log"))
    }

    /// Writes the configuration, starts it and waits until it listens.
    pub(crate) fn start(self) -> Live {
        self.write_config();
        let process = self.spawn();
        let mut live = Live { site: self, process };
        live.await_listening();
        live
    }

    /// Starts what must not start: gives all that it said, when it has ended by itself, with code 1.
    pub(crate) fn refuses_to_start(&self, what: &str) -> String {
        let mut process = self.spawn();
        ends_by_itself(&mut process, what)
    }
}

/// The log of a process that ends by itself, with code 1, within seconds.
pub(crate) fn ends_by_itself(process: &mut Process, what: &str) -> String {
    let status = wait::until(&format!("the end of a process with {what}"), Duration::from_secs(8), || {
        process.ended().ok_or_else(|| format!("it runs: {}", short(&process.log())))
    });
    let log = process.log();
    assert_eq!(status.code(), Some(1), "{what}: {status}: {}", short(&log));
    log
}

/// A running process.
pub(crate) struct Live {
    pub(crate) site: Site,
    pub(crate) process: Process,
}

impl Live {
    fn await_listening(&mut self) {
        let (internal, process) = (self.site.internal(), &mut self.process);
        wait::until("a listening process", SOON, || {
            let end = process.ended();
            assert!(end.is_none(), "it ended with {end:?}: {}", short(&process.log()));
            TcpStream::connect(&internal).map(drop).map_err(|e| format!("{e}: {}", short(&process.log())))
        });
    }

    /// Ends it, and starts it again with the files as they lie there. `Err` has what it said when it refused to start.
    pub(crate) fn restart(self) -> Result<Self, Box<(Site, String)>> {
        let Self { site, process } = self;
        drop(process);
        let mut process = site.spawn();
        let listens = wait::until("a process that listens, or its end", SOON, || match process.ended() {
            Some(_) => Ok(false),
            None => TcpStream::connect(site.internal()).map(|_| true),
        });
        if listens { Ok(Self { site, process }) } else { Err(Box::new((site, process.log()))) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn status(&self) -> Value {
        http::get_json(&format!("127.0.0.1:{}", self.site.management), "/status").unwrap()
    }

    pub(crate) fn status_text(&self) -> String {
        http::get(&format!("127.0.0.1:{}", self.site.management), "/status").unwrap().1
    }

    pub(crate) fn metrics(&self) -> String {
        http::get(&format!("127.0.0.1:{}", self.site.management), "/metrics").unwrap().1
    }

    /// The value of the series that begins so; `None` where there is none.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics();
        text.lines().find(|line| line.starts_with(series))?.rsplit(' ').next()?.parse().ok()
    }

    /// Knocks at the mesh with this pair.
    pub(crate) fn knock(&self, pair: &Pair) -> Result<Served, String> {
        self.knock_as(&Identity::of_pem(&pair.cert, &pair.key))
    }

    /// Knocks at the mesh with whatever is shown.
    pub(crate) fn knock_as(&self, shown: &Identity) -> Result<Served, String> {
        rogue::call(&self.site.internal(), &self.site.sni(), &rogue::client(shown))
    }

    /// That this pair is served, from some moment on.
    pub(crate) fn serves(&self, what: &str, pair: &Pair) {
        wait::until(&format!("{what} is served"), SOON, || {
            self.knock(pair).map_err(|e| format!("{e}\n{}", short(&self.process.log())))
        });
    }

    /// That this pair is refused, from some moment on.
    pub(crate) fn refuses(&self, what: &str, pair: &Pair) {
        wait::until(&format!("{what} is refused"), SOON, || match self.knock(pair) {
            Err(_) => Ok(()),
            Ok(_) => Err(format!("it is served\n{}", short(&self.process.log()))),
        });
    }

    /// SIGTERM, and how it ended within this time.
    pub(crate) fn stop(&mut self, within: Duration) -> ExitStatus {
        self.process.terminate();
        self.process.wait(within)
    }
}

/// The last lines of a text that may be long, each cut.
pub(crate) fn short(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let cut = |line: &&str| line.chars().take(300).collect::<String>();
    lines[lines.len().saturating_sub(12)..].iter().map(cut).collect::<Vec<_>>().join("\n")
}

/// Dotted keys as nested YAML.
fn nested(settings: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut open: Vec<&str> = Vec::new();
    for (key, value) in settings {
        let mut path: Vec<&str> = key.split('.').collect();
        let leaf = path.pop().unwrap();
        let shared = path.iter().zip(&open).take_while(|(a, b)| a == b).count();
        for (depth, section) in path.iter().enumerate().skip(shared) {
            out.push_str(&format!("{}{section}:\n", "  ".repeat(depth)));
        }
        out.push_str(&format!("{}{leaf}: {value}\n", "  ".repeat(path.len())));
        open = path;
    }
    out
}
