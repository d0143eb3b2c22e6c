//! What every role's process is built on: command line, log, health and management listeners, signals.
//!
//! 1. A role is a library with `async fn run(Node) -> anyhow::Result<()>`; [`main`] gives it a process. Nothing here is
//!    global but the log, so several roles can run in one process.
//! 2. Certificates are loaded and checked before any port is taken: a process that cannot load them never listened.
//! 3. A process says that it is ready while all its gates are open: material, listener, each peer, and what the role adds.
//! 4. On SIGTERM or SIGINT the token [`Node::shutdown`] is cancelled, servers drain, and the process exits with 0. A
//!    second signal ends it at once. On SIGHUP the files are read now.
//! 5. Whatever stops a process is told once, here: the error and its causes, a line each, exit code 1.
//!
//! `args` flags · `log` lines · `health` gates · `probes` /healthz · `peers` channels and the prober ·
//! `identity` WhoAmI · `signals` what they mean · `status` document, page, metrics · `http` the plaintext listener · `policy` the built-in one ·
//! `health_service` grpc.health.v1 · `panics` of handlers
#![warn(missing_docs)]

mod args;
mod health;
mod health_service;
mod http;
mod identity;
pub mod log;
mod panics;
mod peers;
mod policy;
mod probes;
mod process;
mod serve;
pub mod signals;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use internaltls::identity::{NodeId, Role};
use internaltls::{Edge, Mesh, Threads};
use settings::{Listener, Settings};
use tokio::signal::unix::SignalKind;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use args::NodeArgs;
pub use health::{Gate, Health};
pub use health_service::HealthService;
pub use panics::CatchPanic;
pub use peers::{Peer, Peers};
pub use policy::built_in as built_in_policy;
pub use process::{failed, main, process};
pub use serve::Internal;

/// A role's process, or its part of one: started, not serving yet.
///
/// Health and management ports answer for as long as it lives.
#[derive(Debug)]
pub struct Node {
    /// What it is.
    pub role: Role,
    /// Which one it is.
    pub id: NodeId,
    /// The configuration, with the command line over it.
    pub settings: Arc<Settings>,
    /// Every listener and dialer of internal traffic comes from here.
    pub mesh: Mesh,
    /// The external listener's material; the proxy alone has one.
    pub edge: Option<Edge>,
    /// Where connections are served, clients' and other nodes'.
    pub threads: Threads,
    /// The nodes that this role may call.
    pub peers: Peers,
    /// What must hold before it is ready; a role adds gates of its own.
    pub health: Health,
    /// Cancelled when the process shall end.
    pub shutdown: CancellationToken,
    /// Where /healthz answers.
    pub health_address: SocketAddr,
    /// Where status and metrics answer.
    pub management_address: SocketAddr,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Node {
    /// Reads the configuration, loads and checks certificates, then opens health and management ports.
    ///
    /// # Errors
    /// What is wrong with the configuration, the certificates or a port.
    pub async fn start(role: &str, args: &NodeArgs, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let settings = read(args, role).await?;
        log::init(settings.log_level);
        log::remarks(&settings);
        Self::with_settings(role, args.id(role)?, settings, shutdown).await
    }

    /// The same with a configuration that is there already.
    ///
    /// # Errors
    /// What is wrong with the certificates or a port.
    pub async fn with_settings(
        role: &str,
        id: NodeId,
        settings: Settings,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let role = Role::new(role)?;
        // Before the files are read for the first time: what changes them meanwhile is not missed.
        let hangup = signals::listen(SignalKind::hangup(), "SIGHUP")?;
        let mesh =
            Mesh::open(settings.mesh_config(role.clone(), id.clone())).await.context("internal TLS cannot start")?;
        let threads = threads(settings.threads)?;
        let edge = edge(&role, &id, &settings, &mesh).await?.map(|edge| edge.threads(&threads));
        let health = Health::default();
        let peers = Peers::of(&role, &settings.cluster, &mesh)?;
        let mut node = Self {
            health_address: settings.management.health.socket(),
            management_address: settings.management.management.socket(),
            role,
            id,
            settings: Arc::new(settings),
            mesh,
            edge,
            threads,
            peers,
            health,
            shutdown,
            tasks: Vec::new(),
        };
        node.listen().await?;
        node.tasks.push(spawn(signals::reload(hangup, node.mesh.clone(), node.edge.clone())));
        Ok(node)
    }

    /// Takes the ports of probes and people, and begins to ask the peers.
    async fn listen(&mut self) -> anyhow::Result<()> {
        let (health, task) = serve::health(self).await?;
        self.health_address = health;
        self.tasks.push(task);
        let (management, task) = serve::management(self).await?;
        self.management_address = management;
        self.tasks.push(task);
        self.tasks.push(spawn(peers::probe(self.peers.clone(), self.health.clone())));
        self.tasks.push(spawn(closing(self.shutdown.clone(), self.health.clone())));
        Ok(())
    }

    /// The port in the mesh, as configured.
    #[must_use]
    pub fn internal_listener(&self) -> Listener {
        let settings = &self.settings;
        match self.role.as_str() {
            "proxy" => Listener { address: settings.proxy.internal_address, port: settings.proxy.internal_port },
            "coordinator" => settings.coordinator,
            _ => settings.data_node,
        }
    }
}

/// On a thread of its own, which nobody waits for at the end: a file system that hangs must not keep signals unheard.
async fn read(args: &NodeArgs, role: &str) -> anyhow::Result<Settings> {
    let (args, role) = (args.clone(), role.to_owned());
    tokio::task::spawn_blocking(move || args.settings(&role)).await.context("the configuration was not read")?
}

/// One for each core where nothing else is said: see the benchmarks for what that saves.
fn threads(count: usize) -> anyhow::Result<Threads> {
    let threads = if count == 0 { Threads::one_a_core() } else { Threads::start(count) };
    threads.context("no threads to serve on: set internaltls.threads to fewer, or raise the limits of this user")
}

/// The edge is opened with the rest of the material, so that an unfit certificate stops the process before it listens.
async fn edge(role: &Role, id: &NodeId, settings: &Settings, mesh: &Mesh) -> anyhow::Result<Option<Edge>> {
    if role.as_str() != "proxy" {
        return Ok(None);
    }
    let clock = Arc::new(internaltls::clock::SystemClock);
    let edge = Edge::open_with(settings.edge_config_of(role, id), mesh.telemetry(), clock).await;
    edge.map(Some).context("the proxy's external listener cannot start")
}

/// A process that shall end is not ready.
async fn closing(shutdown: CancellationToken, health: Health) {
    let gate = health.require("shutdown");
    gate.open();
    shutdown.cancelled().await;
    gate.close("the process is ending");
    health.end();
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}
