//! A cluster of real processes, started as an operator starts it: `meshctl up`.
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::authority::{plain_serial, serial_of_file};
use crate::command::{Run, program};
use crate::process::{Process, is_running, signal, tail};
use crate::tls::Credentials;
use crate::{http, wait};

/// How long a cluster may take to be ready: a debug build on a busy machine.
const READY: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Debug)]
pub struct Plan {
    meshctl: PathBuf,
    folder: Folder,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// Where a cluster lives: in a folder of its own, or in one that is given and kept.
#[derive(Debug)]
enum Folder {
    Own(TempDir),
    Given(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Given(folder) => folder,
        }
    }
}

impl Plan {
    /// A cluster in a new folder, run by the binary `meshctl`.
    ///
    /// # Panics
    /// When no folder can be made.
    #[must_use]
    pub fn new(meshctl: impl Into<PathBuf>) -> Self {
        let folder = TempDir::with_prefix("mesh-").expect("a scratch folder can be made");
        Self { meshctl: meshctl.into(), folder: Folder::Own(folder), arguments: Vec::new(), environment: Vec::new() }
    }

    /// In this folder instead, which is kept.
    #[must_use]
    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.folder = Folder::Given(folder.into());
        self
    }

    /// The cluster's folder, to put things into before the start.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// TLS at the edge: 0, 1 or 2.
    #[must_use]
    pub fn tls_mode(self, mode: u8) -> Self {
        self.args(&["--tls-mode", &mode.to_string()])
    }

    /// milvus.yaml, as text.
    #[must_use]
    pub fn config(self, yaml: &str) -> Self {
        let path = self.dir().join("given.yaml");
        std::fs::write(&path, yaml).expect("the cluster's folder can be written");
        let path = path.display().to_string();
        self.args(&["--config", &path])
    }

    /// More arguments of `meshctl up`.
    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// An environment variable of all processes.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// `meshctl ARGUMENTS…` in the cluster's folder, before the start.
    #[must_use]
    pub fn meshctl(&self, arguments: &[&str]) -> Run {
        program(&self.meshctl).args(arguments).folder(self.dir())
    }

    /// Starts it without waiting.
    #[must_use]
    pub fn spawn(&self) -> Process {
        let mut command = Command::new(&self.meshctl);
        command.arg("up").arg("--dir").arg(self.dir()).arg("--free-ports").args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.dir()).env_remove("RUST_LOG");
        Process::spawn("meshctl up", command, &self.dir().join("up.log"))
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready in time; the message has the tails of all logs.
    #[must_use]
    pub fn start(self) -> Cluster {
        let turn = Turn::take();
        let mut process = self.spawn();
        let info = wait::until("a ready cluster", READY, || match process.ended() {
            Some(status) => panic!("meshctl up ended with {status}:\n{}", tails(self.dir())),
            None => read_info(self.dir()).map_err(|e| format!("{e}\n{}", tails(self.dir()))),
        });
        Cluster { plan: self, process, members: members(&info), edge: edge(&info), _turn: turn }
    }
}

/// A running cluster. Its drop ends it.
#[derive(Debug)]
pub struct Cluster {
    process: Process,
    members: Vec<Member>,
    edge: Edge,
    plan: Plan,
    _turn: Turn,
}

/// One process of it.
#[derive(Debug, Clone)]
pub struct Member {
    /// `proxy`, `coordinator` or `data-node`.
    pub role: String,
    /// Its node id.
    pub node: String,
    /// Its process id.
    pub pid: u32,
    /// `host:port` in the mesh.
    pub internal: String,
    /// `host:port` of its probes.
    pub health: String,
    /// `host:port` of its status.
    pub management: String,
}

/// How clients reach it.
#[derive(Debug, Clone)]
pub struct Edge {
    /// `host:port` of gRPC, and REST.
    pub grpc: String,
    /// `host:port` of REST alone.
    pub rest: String,
    /// tlsMode.
    pub tls_mode: u64,
    /// Trust anchors.
    pub ca: PathBuf,
    /// A client's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Edge {
    /// What a client of this mode trusts and shows; `None` without TLS.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        let client = (self.tls_mode == 2).then(|| (self.cert.clone(), self.key.clone()));
        (self.tls_mode > 0).then(|| Credentials { ca: self.ca.clone(), client })
    }

    /// curl's arguments for this mode.
    #[must_use]
    pub fn curl(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        match self.tls_mode {
            0 => Vec::new(),
            1 => vec!["--cacert".into(), path(&self.ca)],
            _ => ["--cacert", &path(&self.ca), "--cert", &path(&self.cert), "--key", &path(&self.key)]
                .map(str::to_owned)
                .into(),
        }
    }

    /// `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls_mode == 0 { "http" } else { "https" }
    }

    /// The port of gRPC.
    ///
    /// # Panics
    /// When the address has none.
    #[must_use]
    pub fn port(&self) -> u16 {
        let port = self.grpc.rsplit(':').next().and_then(|port| port.parse().ok());
        port.expect("an address with a port")
    }
}

impl Cluster {
    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.plan.dir()
    }

    /// How clients reach it.
    #[must_use]
    pub fn edge(&self) -> &Edge {
        &self.edge
    }

    /// Its processes.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// One process.
    ///
    /// # Panics
    /// When there is none of this name.
    #[must_use]
    pub fn member(&self, node: &str) -> &Member {
        self.members.iter().find(|member| member.node == node).unwrap_or_else(|| panic!("no node {node}"))
    }

    /// The folder of a node's certificates.
    #[must_use]
    pub fn mesh_certs(&self, node: &str) -> PathBuf {
        self.dir().join("certs/mesh").join(node)
    }

    /// The folder of the edge's certificates.
    #[must_use]
    pub fn edge_certs(&self) -> PathBuf {
        self.dir().join("certs/edge")
    }

    /// `meshctl ARGUMENTS…`
    #[must_use]
    pub fn meshctl(&self, arguments: &[&str]) -> Run {
        self.plan.meshctl(arguments)
    }

    /// The log of `meshctl up` itself.
    #[must_use]
    pub fn up_log(&self) -> String {
        self.process.log()
    }

    /// The tails of all logs.
    #[must_use]
    pub fn tails(&self) -> String {
        tails(self.dir())
    }

    /// All that a node has said.
    #[must_use]
    pub fn log(&self, node: &str) -> String {
        std::fs::read_to_string(self.dir().join("logs").join(format!("{node}.log"))).unwrap_or_default()
    }

    /// The status document of a node.
    ///
    /// # Errors
    /// What went wrong, as a sentence.
    pub fn status(&self, node: &str) -> Result<Value, String> {
        http::get_json(&self.member(node).management, "/status")
    }

    /// That every node serves the leaf that lies on disk for it, at the mesh and at the edge, and that every internal connection
    /// shows these leaves at both ends.
    ///
    /// # Errors
    /// The first difference, as a sentence.
    pub fn follows_disk(&self) -> Result<(), String> {
        let leaf = |node: &str| self.mesh_certs(node).join("server.pem");
        follow(&self.members, &self.edge, &leaf, &self.edge_certs().join("server.pem"))
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.terminate();
        self.process.wait(Duration::from_secs(60))
    }

    /// SIGKILL to every process at once; what stays is what was durable. Gives the plan to start again.
    ///
    /// # Panics
    /// When a process does not go.
    #[must_use]
    pub fn kill_all(mut self) -> Plan {
        self.process.kill();
        self.members.iter().for_each(|member| signal(member.pid, Signal::KILL));
        self.process.wait(Duration::from_secs(10));
        for member in &self.members {
            let gone = || !is_running(member.pid);
            wait::until_true(&format!("the end of {}", member.node), Duration::from_secs(10), gone);
        }
        self.plan
    }
}

/// That every process of `members` serves the leaf in the file that `leaf` names for it, that every internal connection shows
/// these leaves at both ends, and that the edge serves the one in `edge_leaf`.
///
/// # Errors
/// The first difference, as a sentence.
pub fn follow(members: &[Member], edge: &Edge, leaf: &dyn Fn(&str) -> PathBuf, edge_leaf: &Path) -> Result<(), String> {
    let serial = |node: &str| members.iter().any(|member| member.node == node).then(|| serial_of_file(&leaf(node)));
    members.iter().try_for_each(|member| node_follows(member, &serial))?;
    edge_follows(edge, edge_leaf)
}

type Serials<'a> = &'a dyn Fn(&str) -> Option<String>;

fn node_follows(member: &Member, serial: Serials<'_>) -> Result<(), String> {
    let status = http::get_json(&member.management, "/status")?;
    let own = serial(&member.node).unwrap_or_default();
    same(&format!("the leaf of {}", member.node), &status["leaf"]["serial"], &own)?;
    let connections = status["connections"].as_array().ok_or("a status without connections")?;
    if connections.is_empty() {
        return Err(format!("{} has no connection", member.node));
    }
    connections.iter().try_for_each(|connection| connection_follows(member, serial, connection))
}

fn connection_follows(member: &Member, serial: Serials<'_>, connection: &Value) -> Result<(), String> {
    let (from, to) = (text(&connection["from"]), text(&connection["to"]));
    let what = format!("{from} to {to} as {} sees it", member.node);
    let own = serial(&member.node).unwrap_or_default();
    same(&format!("own serial of {what}"), &connection["own_serial"], &own)?;
    let peer = if connection["direction"] == "inbound" { from } else { to };
    match serial(peer.rsplit('/').next().unwrap_or_default()) {
        Some(peer) => same(&format!("peer's serial of {what}"), &connection["peer_serial"], &peer),
        None => Ok(()),
    }
}

fn edge_follows(edge: &Edge, leaf: &Path) -> Result<(), String> {
    let Some(credentials) = edge.credentials() else { return Ok(()) };
    let served = crate::tls::served_serial(&edge.grpc, &credentials)?;
    let on_disk = serial_of_file(leaf);
    if served == on_disk { Ok(()) } else { Err(format!("the edge serves {served}, on disk is {on_disk}")) }
}

/// Clusters that run at once. Each is four busy processes.
#[derive(Debug)]
struct Turn;

static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Turn {
    fn take() -> Self {
        let most = 2 + std::thread::available_parallelism().map_or(2, usize::from);
        let running = RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = RUNNING.1.wait_while(running, |running| *running >= most);
        *wait.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        RUNNING.1.notify_one();
    }
}

/// What `cluster.json` says, if it is not a leftover of processes that were killed.
fn read_info(dir: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(dir.join("cluster.json")).map_err(|e| format!("cluster.json: {e}"))?;
    let info: Value = serde_json::from_str(&text).map_err(|e| format!("cluster.json: {e}"))?;
    let gone = members(&info).into_iter().find(|member| !is_running(member.pid));
    gone.map_or(Ok(info), |member| Err(format!("cluster.json: {} is not running", member.node)))
}

fn members(info: &Value) -> Vec<Member> {
    let processes = info["processes"].as_array().expect("cluster.json lists processes");
    processes.iter().map(member).collect()
}

fn member(process: &Value) -> Member {
    Member {
        role: text(&process["role"]),
        node: text(&process["node"]),
        pid: process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process has a pid"),
        internal: text(&process["internal"]),
        health: text(&process["health"]),
        management: text(&process["management"]),
    }
}

fn edge(info: &Value) -> Edge {
    let edge = &info["edge"];
    let path = |name: &str| PathBuf::from(text(&edge[name]));
    Edge {
        grpc: text(&edge["grpc"]),
        rest: text(&edge["rest"]),
        tls_mode: edge["tls_mode"].as_u64().unwrap_or(0),
        ca: path("ca"),
        cert: path("cert"),
        key: path("key"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn same(what: &str, found: &Value, wanted: &str) -> Result<(), String> {
    let found = plain_serial(found.as_str().unwrap_or_default());
    if found == wanted { Ok(()) } else { Err(format!("{what} is `{found}`, on disk is `{wanted}`")) }
}

fn tails(dir: &Path) -> String {
    let logs = std::fs::read_dir(dir.join("logs")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut logs: Vec<_> = logs.chain([dir.join("up.log")]).collect();
    logs.sort();
    logs.iter().map(|log| tail(log)).collect::<Vec<_>>().join("\n")
}
