//! The three binaries, started by hand, with a relay between every two processes where a test wants one.
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use test_util::cluster::{Edge, Member};
use test_util::process::{Process, free_port, tail};
use test_util::relay::Relay;
use test_util::{http, wait};

use crate::fixtures::{plan, text};

pub(crate) const NODES: [(&str, &str); 4] = [
    ("coordinator", "coordinator-1"),
    ("data-node", "data-node-1"),
    ("data-node", "data-node-2"),
    ("proxy", "proxy-1"),
];

/// Processes to be.
pub(crate) struct Hand {
    folder: TempDir,
    members: Vec<Member>,
    edge_port: u16,
    relays: BTreeMap<(String, String), Relay>,
    internal_tls: bool,
    more: String,
    edited: Option<String>,
}

/// Running processes.
pub(crate) struct Running {
    pub(crate) hand: Hand,
    pub(crate) processes: Vec<Process>,
}

impl Hand {
    /// All four, with the certificates that `certs init` makes.
    pub(crate) fn new() -> Self {
        let plan = plan();
        let made = plan.meshctl(&["certs", "init", "--out", "certs"]).folder(plan.dir()).run();
        assert!(made.success, "{}", made.text());
        let folder = TempDir::with_prefix("hand-").unwrap();
        std::fs::rename(plan.dir().join("certs"), folder.path().join("certs")).unwrap();
        let members = NODES.iter().map(|(role, node)| member(role, node)).collect();
        let (relays, more) = (BTreeMap::new(), String::new());
        Self { folder, members, edge_port: free_port(), relays, internal_tls: true, more, edited: None }
    }

    /// With a relay on every way from one process to another.
    pub(crate) fn with_relays(mut self) -> Self {
        let ways = self.members.iter().flat_map(|from| self.members.iter().map(move |to| (from, to)));
        let ways = ways.filter(|(from, to)| from.node != to.node && to.role != "proxy");
        let relay = |(from, to): (&Member, &Member)| {
            ((from.node.clone(), to.node.clone()), Relay::to(to.internal.parse::<SocketAddr>().unwrap()))
        };
        self.relays = ways.map(relay).collect();
        self
    }

    /// With internal TLS switched off.
    pub(crate) fn in_plaintext(mut self) -> Self {
        self.internal_tls = false;
        self
    }

    /// With more lines in the section `internaltls`.
    pub(crate) fn internaltls(mut self, lines: &[&str]) -> Self {
        self.more = lines.iter().map(|line| format!("  {line}\n")).collect();
        self
    }

    /// With the coordinator's configuration edited.
    pub(crate) fn edited(mut self, edit: impl FnOnce(String) -> String) -> Self {
        self.edited = Some(edit(self.yaml(&self.members[0])));
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn certs(&self, node: &str) -> PathBuf {
        self.dir().join("certs/mesh").join(node)
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn relays(&self) -> impl Iterator<Item = (&(String, String), &Relay)> {
        self.relays.iter()
    }

    /// The edge, in mode 1.
    pub(crate) fn edge(&self) -> Edge {
        let path = |name| self.dir().join("certs/edge").join(name);
        let address = format!("localhost:{}", self.edge_port);
        Edge {
            grpc: address.clone(),
            rest: address,
            tls_mode: 1,
            ca: path("ca.pem"),
            cert: path("client.pem"),
            key: path("client.key"),
        }
    }

    /// Starts all, and waits until each says that it is ready.
    pub(crate) fn start(self) -> Running {
        let processes = self.members.iter().map(|member| self.spawn(member)).collect();
        let running = Running { hand: self, processes };
        running.await_ready();
        running
    }

    pub(crate) fn spawn(&self, member: &Member) -> Process {
        let config = self.dir().join(format!("{}.yaml", member.node));
        std::fs::write(&config, self.edited.clone().unwrap_or_else(|| self.yaml(member))).unwrap();
        let mut command = Command::new(binary(&member.role));
        command.arg("--config").arg(&config).args(["--node", &member.node]).current_dir(self.dir());
        Process::spawn(&member.node, command, &self.log(&member.node))
    }

    fn log(&self, node: &str) -> PathBuf {
        self.dir().join("logs").join(format!("{node}.log"))
    }

    fn yaml(&self, member: &Member) -> String {
        let mesh = text(&self.certs(&member.node));
        let edge = text(&self.dir().join("certs/edge"));
        format!(
            "common:\n  security:\n    tlsMode: 1\n    internaltlsEnabled: {}\n\
             tls:\n  serverPemPath: {edge}/server.pem\n  serverKeyPath: {edge}/server.key\n  caPemPath: {edge}/ca.pem\n\
             internaltls:\n  serverPemPath: {mesh}/server.pem\n  serverKeyPath: {mesh}/server.key\n  \
             caPemPath: {mesh}/ca.pem\n{}\
             proxy:\n  port: {}\n  internalPort: {}\n  address: 127.0.0.1\n\
             coordinator:\n  port: {}\n  address: 127.0.0.1\ndataNode:\n  port: {}\n  address: 127.0.0.1\n\
             cluster:\n  coordinator: {}\n  dataNodes:\n    data-node-1: {}\n    data-node-2: {}\n\
             management:\n  healthAddress: 127.0.0.1\n  healthPort: {}\n  port: {}\n\
             localStorage:\n  path: {}\n",
            self.internal_tls,
            self.more,
            self.edge_port,
            port(&member.internal),
            port(&member.internal),
            port(&member.internal),
            self.way(member, "coordinator-1"),
            self.way(member, "data-node-1"),
            self.way(member, "data-node-2"),
            port(&member.health),
            port(&member.management),
            text(&self.dir().join("data")),
        )
    }

    /// Where `from` is told to find `to`: at the relay between them, if there is one.
    fn way(&self, from: &Member, to: &str) -> String {
        let relay = self.relays.get(&(from.node.clone(), to.to_owned())).map(|relay| relay.address().to_string());
        let direct = || self.members.iter().find(|member| member.node == to).unwrap().internal.clone();
        relay.unwrap_or_else(direct)
    }
}

impl Running {
    pub(crate) fn await_ready(&self) {
        for member in self.hand.members() {
            wait::until(&format!("{} is ready", member.node), Duration::from_secs(60), || {
                match http::get(&member.health, "/healthz") {
                    Ok((200, _)) => Ok(()),
                    other => Err(format!("{other:?}\n{}", tail(&self.hand.log(&member.node)))),
                }
            });
        }
    }
}

fn binary(role: &str) -> &'static str {
    match role {
        "coordinator" => env!("CARGO_BIN_EXE_coordinator-under-test"),
        "data-node" => env!("CARGO_BIN_EXE_data-node-under-test"),
        _ => env!("CARGO_BIN_EXE_proxy-under-test"),
    }
}

fn member(role: &str, node: &str) -> Member {
    let address = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())).to_string();
    let (internal, health, management) = (address(), address(), address());
    Member { role: role.into(), node: node.into(), pid: 0, internal, health, management }
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap()
}
